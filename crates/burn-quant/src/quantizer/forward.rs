//! What a quantizer makes of a tensor.

use burn::tensor::module::linear;
use burn::tensor::{DType, Tensor};
use burn_quant_ops::numerics::{BlockScale, ScaleFormat};
use burn_quant_ops::{
    Bias, Direction, FakeQuant, GradientRule, Groups, Hadamard, Ranges, fake_quant, fake_quant_affine, group_amax,
    hadamard,
};

use super::observer::Observed;
use super::{Buffer, Mode, Moment, Role, TensorQuantizer, bias};
use crate::config::rotation_block;
use crate::{AfterRounding, BiasSource, Range, Rounding};

impl TensorQuantizer {
    /// Quantizes and dequantizes a tensor; the same shape and dtype. Factors of low rank that a weight has are added to it afterwards.
    ///
    /// # Panics
    ///
    /// If it is static and was never calibrated, or calibrated for another number of channels or blocks; if a rotation does
    /// not fit the axis.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self.adaptation(&x) {
            None => self.quantize_or_observe(x),
            Some(adaptation) => self.quantize_or_observe(x) + adaptation,
        }
    }

    /// What trained factors of low rank add to a weight `[rows, columns]`: `down · up`.
    fn adaptation<const D: usize>(&self, x: &Tensor<D>) -> Option<Tensor<D>> {
        let (Role::Weight(_), &[rows, columns]) = (self.role, &x.dims()[..]) else { return None };
        let (down, up) = self.buffer(Buffer::LowRankDown).zip(self.buffer(Buffer::LowRankUp))?;
        let rank = down.dims()[0] / rows;
        let product = down.reshape([rows, rank]).matmul(up.reshape([rank, columns]));
        Some(product.reshape(x.dims()).cast(x.dtype()))
    }

    fn quantize_or_observe<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let x = self.scaled(x);
        if x.dims().contains(&0) {
            return x;
        }
        match &self.mode {
            Mode::Float => return x,
            #[cfg(feature = "autodiff")]
            Mode::Probe(_) => return x,
            Mode::Observe(observer) => {
                let seen = x.clone().without_autodiff();
                let seen = if self.enabled { self.centred(self.rotated(seen, Direction::Forward)) } else { seen };
                observer.observe(&seen, &self.observed(&x.dims()));
            }
            Mode::ObserveQuantized(observer, moment) => {
                let y = if self.enabled { self.quantized_by_all(x.clone()) } else { x.clone() };
                let seen = if *moment == Moment::Before { x } else { y.clone() };
                observer.observe(&seen, &Observed { groups: None, bias: None, ..self.observed(&seen.dims()) });
                return y;
            }
            Mode::Quantize => {}
        }
        match (self.enabled, &self.mode) {
            (false, _) => x,
            (true, Mode::Quantize) => self.quantized_by_all(x),
            (true, _) => self.chain.iter().fold(x, |x, stage| stage.forward(x)),
        }
    }

    fn quantized_by_all<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.chain.iter().fold(self.quantized(x), |y, stage| stage.forward(y))
    }

    /// The same with the ranges, and static biases, of one tensor by `max`, stage by stage; nothing comes to the host.
    pub fn fitted<const D: usize>(&self, x: &Tensor<D>) -> Self {
        let x = self.scaled(x.clone().without_autodiff());
        let mut fitted = self.clone();
        fitted.fit_stage(&x);
        for stage in &mut fitted.chain {
            stage.fit_stage(&x);
        }
        fitted
    }

    fn fit_stage<const D: usize>(&mut self, x: &Tensor<D>) {
        let x = self.centred(self.rotated(x.clone(), Direction::Forward));
        let shape = x.dims();
        let static_bias = self.config.bias.as_ref().filter(|_| self.config.has_static_bias());
        let x = match static_bias.map(|config| (config.method, self.bias_groups(&shape).expect("a bias has groups"))) {
            None => x,
            Some((method, groups)) => {
                let bias = bias::measure(x.clone(), &groups, method);
                self.set_buffer(Buffer::Bias, bias.clone());
                bias::subtract(x.cast(DType::F32), bias, &groups)
            }
        };
        if self.config.has_static_range() {
            let amax = group_amax(x, &self.range_groups(&shape));
            if self.has_static_blocks() {
                self.set_buffer(Buffer::GlobalAmax, amax.clone().max());
            }
            self.set_amax(amax);
        }
    }

    /// What a branch of low rank adds to the outputs of a layer with these inputs, if there is one: `(x ⊙ s) · down · up`.
    ///
    /// The layer must add it: [`QuantLinear`](crate::nn::QuantLinear) does.
    pub fn low_rank<const D: usize>(&self, x: Tensor<D>) -> Option<Tensor<D>> {
        let (down, up) = self.buffer(Buffer::LowRankDown).zip(self.buffer(Buffer::LowRankUp))?;
        let (inputs, dtype) = (x.dims()[D - 1], x.dtype());
        let rank = down.dims()[0] / inputs;
        let outputs = up.dims()[0] / rank;
        let narrowed = linear(self.scaled(x), down.reshape([inputs, rank]).cast(dtype), None);
        Some(linear(narrowed, up.reshape([rank, outputs]).cast(dtype), None))
    }

    /// What [`probed`](TensorQuantizer::probed) wants of the input of a layer: nothing, unless a search is under way.
    pub fn seen<const D: usize>(&self, input: &Tensor<D>) -> Option<Tensor<D>> {
        #[cfg(feature = "autodiff")]
        if let Mode::Probe(_) = &self.mode {
            return Some(input.clone());
        }
        let _ = input;
        None
    }

    /// Shows a search what a layer makes of its input, and returns its output: the same one, unless a search is under way.
    ///
    /// A layer of yours whose input quantizer this is calls it after its product, so that
    /// [`auto_quantize`](crate::search::auto_quantize) can score its formats by gradients. `seen` is what came to the quantizer,
    /// `output` what the layer computed from it, and `product` computes the same from any input and weight; the bias may be left out.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "flex")] {
    /// use burn::module::{Module, Param};
    /// use burn::tensor::{Device, Tensor};
    /// use burn_quant::{Role, TensorQuantizer};
    ///
    /// #[derive(Module, Debug)]
    /// struct Projection { weight: Param<Tensor<2>>, input_quantizer: TensorQuantizer }
    ///
    /// impl Projection {
    ///     fn forward(&self, x: Tensor<2>) -> Tensor<2> {
    ///         let seen = self.input_quantizer.seen(&x);
    ///         let y = self.input_quantizer.forward(x).matmul(self.weight.val());
    ///         self.input_quantizer.probed(seen, y, |x, weight: Tensor<2>| x.matmul(weight))
    ///     }
    /// }
    /// # let weight = Param::from_tensor(Tensor::ones([3, 2], &Device::flex()));
    /// # let layer = Projection { weight, input_quantizer: TensorQuantizer::disabled(Role::Features) };
    /// # assert_eq!(layer.forward(Tensor::ones([1, 3], &Device::flex())).into_data().try_into_vec::<f32>().unwrap(), [3.0, 3.0]);
    /// # }
    /// ```
    pub fn probed<const D: usize, const W: usize>(
        &self,
        seen: Option<Tensor<D>>,
        output: Tensor<D>,
        product: impl Fn(Tensor<D>, Tensor<W>) -> Tensor<D> + Send + 'static,
    ) -> Tensor<D> {
        #[cfg(feature = "autodiff")]
        if let (Mode::Probe(prober), Some(input)) = (&self.mode, seen) {
            return prober.record(input, output, product);
        }
        #[cfg(not(feature = "autodiff"))]
        drop((seen, product)); // nothing is searched by gradients
        output
    }

    fn quantized<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let x = self.rotated(x, Direction::Forward);
        let y = match self.config.rounding {
            Rounding::Off => x,
            Rounding::Nearest => self.rounded(x),
        };
        match self.config.rotation.map(|rotation| rotation.after) {
            Some(AfterRounding::RotateBack) => self.rotated(y, Direction::Inverse),
            _ => y,
        }
    }

    fn rounded<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let shape = x.dims();
        let groups = self.groups(&shape);
        let bias = self.bias_of(&x);
        let ranges = self.ranges(&x, &groups, bias.as_ref());
        let spec = FakeQuant { format: self.config.format, groups, gradient: self.config.gradient };
        match bias {
            Some(bias) => fake_quant_affine(x, bias, ranges, spec),
            None => fake_quant(x, ranges, spec),
        }
    }

    /// The tensor times the pre-quantization scale: what is left of a quantizer that is off.
    pub(crate) fn scaled<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let Some(scale) = self.buffer(Buffer::PreQuantScale) else { return x };
        let (axis, dtype) = (self.role.block_axis(D), x.dtype());
        let mut shape = [1; D];
        shape[axis] = scale.dims()[0];
        assert_eq!(x.dims()[axis], shape[axis], "TensorQuantizer: there is one pre-quantization scale per channel");
        x * scale.reshape(shape).cast(dtype)
    }

    fn rotated<const D: usize>(&self, x: Tensor<D>, direction: Direction) -> Tensor<D> {
        let Some(rotation) = self.config.rotation else { return x };
        let axis = self.role.block_axis(D);
        let block = rotation_block(rotation.block, x.dims()[axis]).unwrap_or_else(|e| panic!("TensorQuantizer: {e}"));
        hadamard(x, Hadamard { axis, block, signs: rotation.signs, direction })
    }

    fn bias_of<const D: usize>(&self, x: &Tensor<D>) -> Option<Bias> {
        let config = self.config.bias.as_ref()?;
        let groups = config.granularity.groups(self.role, &x.dims());
        let values = match config.source {
            BiasSource::Dynamic => bias::measure(x.clone().without_autodiff(), &groups, config.method),
            BiasSource::Static => self.calibrated(Buffer::Bias),
        };
        Some(Bias { values, groups })
    }

    /// What is left around a dynamic bias: the values that its range is for. A static bias is not known yet.
    fn centred<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self.config.bias.as_ref().filter(|bias| bias.source == BiasSource::Dynamic) {
            Some(_) => {
                let bias = self.bias_of(&x).expect("there is one");
                bias::subtract(x, bias.values, &bias.groups)
            }
            None => x,
        }
    }

    fn ranges<const D: usize>(&self, x: &Tensor<D>, groups: &Groups, bias: Option<&Bias>) -> Ranges {
        let constant = |amax: f32, len: usize| Tensor::full([len], amax, (&x.device(), DType::F32));
        match (self.config.scale, self.config.range) {
            (ScaleFormat::E8M0, _) => Ranges::PowersOfTwo,
            (ScaleFormat::F32, Range::Static) => Ranges::Static(self.learnable(x, groups)),
            (ScaleFormat::F32, Range::Dynamic) => Ranges::Dynamic,
            (ScaleFormat::F32, Range::Constant(amax)) => Ranges::Static(constant(amax, groups.len())),
            (ScaleFormat::E4M3(BlockScale::Dynamic), range) => Ranges::TwoLevel {
                global_amax: match range {
                    Range::Static => self.calibrated(Buffer::Amax),
                    Range::Constant(amax) => constant(amax, 1),
                    Range::Dynamic => {
                        let x = x.clone().without_autodiff();
                        let x = match bias {
                            Some(bias) => bias::subtract(x, bias.values.clone().without_autodiff(), &bias.groups),
                            None => x,
                        };
                        let shape = x.dims();
                        group_amax(x, &Groups::per_tensor(&shape))
                    }
                },
            },
            (ScaleFormat::E4M3(blocks), _) => Ranges::TwoLevelStatic {
                amax: self.calibrated(Buffer::Amax),
                global_amax: self.calibrated(Buffer::GlobalAmax),
                blocks,
            },
        }
    }

    /// The range, with the paper's scale on its gradient if LSQ learns it.
    ///
    /// LSQ divides the gradient of a step by `√(N · hi)`, with `N` the weights that share the step, or the activations of one
    /// example. For `amax = hi · step` the same change of the step is that of `hi / √(N · hi)` times the gradient of amax, by `hi` once
    /// for the derivative and once for the change itself.
    fn learnable<const D: usize>(&self, x: &Tensor<D>, groups: &Groups) -> Tensor<1> {
        let amax = self.calibrated(Buffer::Amax);
        match self.config.gradient {
            GradientRule::PassThrough | GradientRule::Clipped | GradientRule::Pact => amax,
            GradientRule::Lsq => {
                let elements = match self.role {
                    Role::Weight(_) => x.shape().num_elements() / groups.len(),
                    Role::Features | Role::Images => x.dims()[1..].iter().product(),
                };
                let highest = self.config.format.max();
                let scaled = amax.clone() * (highest / (elements.max(1) as f32 * highest).sqrt() * highest);
                amax.detach() + (scaled.clone() - scaled.detach())
            }
        }
    }

    fn calibrated(&self, buffer: Buffer) -> Tensor<1> {
        self.buffer(buffer).unwrap_or_else(|| {
            panic!(
                "TensorQuantizer: static but never calibrated (no {}); run `quantize`, set it, or disable the quantizer",
                buffer.name()
            )
        })
    }

    fn observed(&self, shape: &[usize]) -> Observed {
        let finds = self.enabled && (self.config.has_static_range() || self.config.has_static_bias());
        Observed {
            groups: finds.then(|| self.range_groups(shape)),
            unsigned: finds && self.is_unsigned(),
            bias: self.bias_groups(shape).filter(|_| self.enabled && self.config.has_static_bias()),
            channel_axis: self.role.channel_axis(shape.len()),
        }
    }
}
