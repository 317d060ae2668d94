//! What a quantizer makes of a tensor.

use burn::tensor::module::linear;
use burn::tensor::{DType, Tensor};
use burn_quant_ops::numerics::{BlockScale, ScaleFormat};
use burn_quant_ops::{
    Bias, Direction, FakeQuant, GradientRule, Groups, Hadamard, Ranges, fake_quant, fake_quant_affine, group_amax,
    hadamard,
};

use super::{AnyTensor, Buffer, Flow, Tap, TensorQuantizer, bias};
use crate::config::rotation_block;
use crate::config::{BiasSource, LearnedAmax, LearnedRanges, RangeSource, RotationOutput, Rounding};
use crate::layout::Role;

impl TensorQuantizer {
    /// Quantizes and dequantizes a tensor; the same shape and dtype. Factors of low rank that a weight has are added to
    /// it afterwards.
    ///
    /// # Panics
    ///
    /// If it is static and was never calibrated, or calibrated for another number of channels or blocks; if a rotation
    /// does not fit the axis.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let x = if matches!(x.dtype(), DType::QFloat(_)) { x.dequantize() } else { x }; // burn's own quantization
        let adaptation = self.adaptation(&x);
        let x = self.smoothed(x);
        let y = match self.tap.get() {
            _ if x.dims().contains(&0) => x,
            Some(tap) => self.tapped(x, tap.as_ref()),
            None if self.enabled => self.quantized(x),
            None => x,
        };
        match adaptation {
            None => y,
            Some(adaptation) => y + adaptation,
        }
    }

    /// What trained factors of low rank add to a weight `[rows, columns]`: `down · up`.
    pub(super) fn adaptation<const D: usize>(&self, x: &Tensor<D>) -> Option<Tensor<D>> {
        let (Role::Weight(_), &[rows, columns]) = (self.role, &x.dims()[..]) else { return None };
        let (down, up) = self.buffer(Buffer::LowRankDown).zip(self.buffer(Buffer::LowRankUp))?;
        let rank = down.dims()[0] / rows;
        let product = down.reshape([rows, rank]).matmul(up.reshape([rank, columns]));
        Some(product.reshape(x.dims()).cast(x.dtype()))
    }

    /// Quantizes a smoothed tensor under the eyes of a tap. Stages of a chain that are bypassed still see the tensor.
    fn tapped<const D: usize>(&self, x: Tensor<D>, tap: &dyn Tap) -> Tensor<D> {
        let seen = AnyTensor::from(x.clone());
        match (tap.input(self, &seen), self.enabled) {
            (Flow::Bypass, true) => self.chain.iter().fold(x, |x, stage| stage.forward(x)),
            (Flow::Bypass, false) => x,
            (Flow::Quantize, true) => {
                let y = self.quantized(x);
                tap.output(self, &y.clone().into());
                y
            }
            (Flow::Quantize, false) => {
                tap.output(self, &seen);
                x
            }
        }
    }

    /// Rotates, rounds, and hands the result to the rest of the chain.
    fn quantized<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let x = self.rotated(x, Direction::Forward);
        let y = match self.config.rounding {
            Rounding::Off => x,
            Rounding::Nearest => self.rounded(x),
        };
        let y = match self.config.rotation.map(|rotation| rotation.output) {
            Some(RotationOutput::Original) => self.rotated(y, Direction::Inverse),
            _ => y,
        };
        self.chain.iter().fold(y, |y, stage| stage.forward(y))
    }

    fn rounded<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let (shape, groups) = (x.dims(), self.groups(&x.dims()));
        if let (3.., &[rows, columns]) = (D, groups.shape()) {
            return self.rounded(x.reshape([rows, columns])).reshape(shape); // a kernel in blocks
        }
        match self.config.learned_ranges {
            // one f32 scale is divided by and multiplied with in one op
            Some(LearnedRanges { learned: LearnedAmax::Tied, .. }) if self.config.scale == ScaleFormat::F32 => {}
            Some(ranges) => return self.rounded_between_scales(x, &groups, ranges),
            None => {}
        }
        let bias = self.bias_of(&x);
        let ranges = self.ranges(&x, &groups, bias.as_ref());
        let spec = FakeQuant { format: self.config.format, groups, gradient: self.config.gradient };
        match bias {
            Some(bias) => fake_quant_affine(x, bias, ranges, spec),
            None => fake_quant(x, ranges, spec),
        }
    }

    /// Returns the largest magnitude of each group that has a range, f32 `[groups]`.
    ///
    /// NaN where a group holds one; the result stays on the device.
    pub fn group_amax<const D: usize>(&self, x: Tensor<D>) -> Tensor<1> {
        let groups = self.range_groups(&x.dims());
        match (D, groups.shape()) {
            (3.., &[rows, columns]) => group_amax(x.reshape([rows, columns]), &groups),
            _ => group_amax(x, &groups),
        }
    }

    /// Calibrates a copy on one tensor with the `max` rule: ranges and static biases of every stage. Runs on the device
    /// without synchronization.
    pub fn calibrated_max<const D: usize>(&self, x: &Tensor<D>) -> Self {
        let x = self.smoothed(x.clone().without_autodiff());
        let mut calibrated = self.clone();
        calibrated.calibrate_stage(&x);
        for stage in &mut calibrated.chain {
            stage.calibrate_stage(&x);
        }
        calibrated
    }

    fn calibrate_stage<const D: usize>(&mut self, x: &Tensor<D>) {
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
            let amax = self.group_amax(x);
            if self.has_static_blocks() {
                self.set_buffer(Buffer::GlobalAmax, amax.clone().max());
            }
            self.set_amax(amax);
        }
    }

    /// What a branch of low rank adds to the outputs of a layer with these inputs, if there is one:
    /// `(x ⊙ s) · down · up`.
    ///
    /// The layer must add it: [`TensorQuantizer::layer`] does.
    pub fn low_rank<const D: usize>(&self, x: &Tensor<D>) -> Option<Tensor<D>> {
        let (down, up) = self.buffer(Buffer::LowRankDown).zip(self.buffer(Buffer::LowRankUp))?;
        Some(through_factors(self.smoothed(x.clone()), down, up))
    }

    /// Returns a weight `[in, out]` with what acts on its inputs apart from rounding merged into it.
    ///
    /// `diag(s) · W`, and the branch of low rank where there is one, equal to f32 rounding.
    pub fn merged_into(&self, weight: Tensor<2>) -> Tensor<2> {
        let [inputs, outputs] = weight.dims();
        let buffer = |buffer| self.buffer(buffer).map(Tensor::without_autodiff);
        let weight = match buffer(Buffer::LowRankDown).zip(buffer(Buffer::LowRankUp)) {
            None => weight,
            Some((down, up)) => {
                let rank = down.dims()[0] / inputs.max(1);
                weight + down.reshape([inputs, rank]).matmul(up.reshape([rank, outputs]))
            }
        };
        match buffer(Buffer::PreQuantScale) {
            None => weight,
            Some(scale) => weight * scale.reshape([inputs, 1]),
        }
    }

    /// Multiplies a tensor by the pre-quantization scale along its contracted axis.
    ///
    /// It is what is left of a disabled quantizer: the weight behind it was divided by the same scale.
    pub fn smoothed<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let Some(scale) = self.buffer(Buffer::PreQuantScale) else { return x };
        let (axis, dtype) = (self.role.block_axis(D), x.dtype());
        let mut shape = [1; D];
        shape[axis] = scale.dims()[0];
        assert_eq!(x.dims()[axis], shape[axis], "TensorQuantizer: there is one pre-quantization scale per channel");
        x * scale.reshape(shape).cast(dtype)
    }

    /// Rotates a tensor along its contracted axis as the configuration says; unchanged without a rotation.
    ///
    /// # Panics
    ///
    /// If the axis cannot be divided into blocks of the rotation.
    pub fn rotated<const D: usize>(&self, x: Tensor<D>, direction: Direction) -> Tensor<D> {
        let Some(rotation) = self.config.rotation else { return x };
        let axis = self.role.block_axis(D);
        let block = rotation_block(rotation.block, x.dims()[axis]).unwrap_or_else(|e| panic!("TensorQuantizer: {e}"));
        hadamard(x, Hadamard { axis, block, signs: rotation.signs, direction })
    }

    pub(super) fn bias_of<const D: usize>(&self, x: &Tensor<D>) -> Option<Bias> {
        let config = self.config.bias.as_ref()?;
        let groups = config.granularity.groups(self.role, &x.dims());
        let values = match config.source {
            BiasSource::Dynamic => bias::measure(x.clone().without_autodiff(), &groups, config.method),
            BiasSource::Static => self.calibrated(Buffer::Bias),
        };
        Some(Bias { values, groups })
    }

    /// Returns a tensor without its dynamic bias: the values that its range is for.
    ///
    /// A tensor with a static bias, or with none, is returned unchanged.
    pub fn centred<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self.config.bias.as_ref().filter(|bias| bias.source == BiasSource::Dynamic) {
            Some(_) => {
                let bias = self.bias_of(&x).expect("there is one");
                bias::subtract(x, bias.values, &bias.groups)
            }
            None => x,
        }
    }

    pub(super) fn ranges<const D: usize>(&self, x: &Tensor<D>, groups: &Groups, bias: Option<&Bias>) -> Ranges {
        let constant = |amax: f32, len: usize| Tensor::full([len], amax, (&x.device(), DType::F32));
        match (self.config.scale, self.config.range) {
            (ScaleFormat::E8M0, _) => Ranges::PowersOfTwo,
            (ScaleFormat::F32, RangeSource::Static) => Ranges::Static(self.learnable(x, groups)),
            (ScaleFormat::F32, RangeSource::Dynamic) => Ranges::Dynamic,
            (ScaleFormat::F32, RangeSource::Constant(amax)) => Ranges::Static(constant(amax, groups.len())),
            (ScaleFormat::E4M3(BlockScale::Dynamic), range) => Ranges::TwoLevel {
                global_amax: match range {
                    RangeSource::Static => self.calibrated(Buffer::Amax),
                    RangeSource::Constant(amax) => constant(amax, 1),
                    RangeSource::Dynamic => {
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
    /// LSQ divides the gradient of a step by `√(N · hi)`, with `N` the weights that share the step, or the activations
    /// of one example. For `amax = hi · step` the same change of the step is that of `hi / √(N · hi)` times the
    /// gradient of amax, by `hi` once for the derivative and once for the change itself. ModelOpt scales nothing, nor
    /// do learned ranges of its kind.
    fn learnable<const D: usize>(&self, x: &Tensor<D>, groups: &Groups) -> Tensor<1> {
        let amax = self.calibrated(Buffer::Amax);
        match self.config.gradient {
            GradientRule::PassThrough | GradientRule::Clipped | GradientRule::Pact => amax,
            GradientRule::Lsq if self.config.learned_ranges.is_some() => amax,
            GradientRule::Lsq => {
                let elements = match self.role {
                    Role::Weight(_) => x.shape().num_elements() / groups.len(),
                    Role::ChannelsLast | Role::ChannelsFirst => x.dims()[1..].iter().product(),
                };
                let highest = self.config.format.max();
                let scaled = amax.clone() * (highest / (elements.max(1) as f32 * highest).sqrt() * highest);
                amax.detach() + (scaled.clone() - scaled.detach())
            }
        }
    }

    pub(super) fn calibrated(&self, buffer: Buffer) -> Tensor<1> {
        self.buffer(buffer).unwrap_or_else(|| {
            panic!(
                "TensorQuantizer: static but never calibrated (no {}); run `quantize`, set it, or disable the \
                 quantizer",
                buffer.name()
            )
        })
    }
}

/// `x · down · up`, with factors row by row.
pub(super) fn through_factors<const D: usize>(x: Tensor<D>, down: Tensor<1>, up: Tensor<1>) -> Tensor<D> {
    let (inputs, dtype) = (x.dims()[D - 1], x.dtype());
    let rank = down.dims()[0] / inputs;
    let outputs = up.dims()[0] / rank;
    if x.shape().num_elements() == 0 {
        // on the CPU burn 0.22's product of a batch of none reads memory that is not its own
        let mut shape = x.dims();
        shape[D - 1] = outputs;
        return Tensor::zeros(shape, (&x.device(), dtype));
    }
    let narrowed = linear(x, down.reshape([inputs, rank]).cast(dtype), None);
    linear(narrowed, up.reshape([rank, outputs]).cast(dtype), None)
}
