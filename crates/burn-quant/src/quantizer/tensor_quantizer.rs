//! The quantizer of one tensor.

use burn::tensor::module::linear;
use burn::tensor::{DType, Tensor};
use burn_quant_ops::numerics::{BlockScale, Format, ScaleFormat, Signedness};
use burn_quant_ops::{
    Bias, Direction, FakeQuant, GradientRule, Groups, Hadamard, Ranges, fake_quant, fake_quant_affine, group_amax,
    hadamard,
};
use serde::{Deserialize, Serialize};

#[cfg(feature = "autodiff")]
use super::Prober;
use super::buffers::Buffers;
use super::observer::Observed;
use super::{Buffer, Observer, bias};
use crate::config::rotation_block;
use crate::{AfterRounding, BiasSource, QuantizerConfig, Range, Rounding, WeightLayout};

/// What the tensors of a quantizer are, which tells it where channels lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Role {
    /// Activations `[batch, ..., features]`: channels last.
    #[default]
    Features,
    /// Activations `[batch, channels, ...]`: channels second, as convolutions have them.
    Images,
    /// A weight.
    Weight(WeightLayout),
}

impl Role {
    pub(crate) fn channel_axis(self, rank: usize) -> usize {
        match self {
            Role::Features => rank.saturating_sub(1),
            Role::Images => 1.min(rank.saturating_sub(1)),
            Role::Weight(layout) => layout.channel_axis,
        }
    }

    pub(crate) fn block_axis(self, rank: usize) -> usize {
        match self {
            Role::Weight(layout) => layout.block_axis,
            activation => activation.channel_axis(rank),
        }
    }
}

/// What a quantizer does with a tensor.
#[derive(Clone, Debug, Default)]
pub(crate) enum Mode {
    /// Quantizes it, if enabled.
    #[default]
    Quantize,
    /// Reports it and passes it on in float.
    Observe(Observer),
    /// Quantizes it, and reports it.
    ObserveQuantized(Observer, Moment),
    /// Passes it on in float: the model is being observed, but not here.
    Float,
    /// Passes it on in float, and records what its layer makes of it.
    #[cfg(feature = "autodiff")]
    Probe(Prober),
}

/// Whether a tensor is reported before or after it is quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    Before,
    After,
}

/// Quantizes and dequantizes a tensor: a field of a layer, or attached to a weight.
///
/// ```text
/// x ──► · pre_quant_scale ──► rotation ──► − bias ──► rounding ──► + bias ──► inverse rotation ──► the rest of the chain
/// ```
///
/// A new quantizer is disabled: it is exactly the identity until a configuration enables it, so a model with slots trains
/// in float like any other. Its buffers, the range `amax` above all, are constants of the model: they are recorded, moved and
/// cloned with the weights, stay f32 when they are cast, and no optimizer changes them.
///
/// As a field of your own module it needs a call of [`forward`](TensorQuantizer::forward) at the tensor it quantizes; rules
/// find it by the path of the field. As the reparameterization of a weight it is placed by [`quantize`](crate::quantize()).
///
/// A configuration with further ones in [`then`](QuantizerConfig::then) makes a chain: each of its stages is a quantizer with
/// a range of its own, calibrated on the tensor as it comes in. The first stage has the name of the chain, the others
/// have it with `.1`, `.2` appended.
///
/// Clones are independent. Only while a model is observed do clones report to one place.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Tensor};
/// use burn_quant::{QuantizerConfig, Role, TensorQuantizer};
///
/// let x = Tensor::<1>::from_data([-1.0, 0.3, 0.6], &Device::flex());
/// let mut quantizer = TensorQuantizer::disabled(Role::Features);
/// assert_eq!(quantizer.forward(x.clone()).to_data(), x.to_data());
///
/// quantizer.set_config(QuantizerConfig::int(2).dynamic());
/// quantizer.enable();
/// assert_eq!(quantizer.forward(x).into_data().try_into_vec::<f32>().unwrap(), [-1.0, 0.0, 1.0]);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct TensorQuantizer {
    /// On the heap, as a model with many quantizers lies on the stack.
    pub(super) config: Box<QuantizerConfig>,
    role: Role,
    pub(super) enabled: bool,
    mode: Mode,
    pub(super) buffers: Buffers,
    /// The stages after this one.
    pub(super) chain: Vec<TensorQuantizer>,
}

impl TensorQuantizer {
    /// An enabled quantizer; a static one needs a range before its first [`forward`](TensorQuantizer::forward).
    pub fn new(config: QuantizerConfig, role: Role) -> Self {
        let mut quantizer = Self::stage(QuantizerConfig::default(), role);
        quantizer.set_config(config);
        quantizer
    }

    /// A disabled quantizer: the identity, until a rule configures it.
    pub fn disabled(role: Role) -> Self {
        Self { enabled: false, ..Self::new(QuantizerConfig::default(), role) }
    }

    fn stage(config: QuantizerConfig, role: Role) -> Self {
        let buffers = Buffers::new(matches!(role, Role::Weight(_)));
        Self { config: Box::new(config), role, enabled: true, mode: Mode::Quantize, buffers, chain: Vec::new() }
    }

    /// What it does.
    pub fn config(&self) -> &QuantizerConfig {
        &self.config
    }

    /// What its tensors are.
    pub fn role(&self) -> Role {
        self.role
    }

    /// The same for tensors that lie otherwise, with as many groups.
    pub(crate) fn with_role(mut self, role: Role) -> Self {
        self.role = role;
        self.chain = self.chain.into_iter().map(|stage| stage.with_role(role)).collect();
        self
    }

    /// Whether it does anything.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// A tensor that it keeps, if it has it: f32, in the units of the quantized tensor.
    pub fn buffer(&self, buffer: Buffer) -> Option<Tensor<1>> {
        self.buffers.get(buffer)
    }

    /// The range of each group, f32 `[groups]` in the units of the tensor; `None` if it was never calibrated.
    pub fn amax(&self) -> Option<Tensor<1>> {
        self.buffer(Buffer::Amax)
    }

    /// Changes what it does. A range or bias is kept if it is one of the same elements, after the same bias and rotation, and
    /// dropped otherwise.
    pub fn set_config(&mut self, config: QuantizerConfig) {
        let same_range = config.granularity == self.config.granularity
            && config.has_range_of_tensor() == self.config.has_range_of_tensor()
            && config.bias == self.config.bias
            && config.rotation == self.config.rotation;
        if !same_range || config.range != Range::Static {
            self.buffers.clear(Buffer::Amax);
        }
        if !same_range || config.scale != self.config.scale {
            self.buffers.clear(Buffer::GlobalAmax);
        }
        if config.bias != self.config.bias {
            self.buffers.clear(Buffer::Bias);
        }
        self.chain.truncate(config.then.len());
        for (i, next) in config.then.iter().enumerate() {
            match self.chain.get_mut(i) {
                Some(stage) => stage.set_config(next.clone()),
                None => self.chain.push(Self::stage(next.clone(), self.role)),
            }
        }
        self.buffers.learn_range(config.gradient.learns_range());
        *self.config = config;
    }

    /// Sets the range of each group: finite, not negative, in the units of the tensor.
    ///
    /// With dynamic block scales it is the range of the tensor, one element; with static ones set
    /// [`Buffer::GlobalAmax`] too.
    ///
    /// # Panics
    ///
    /// If the range is dynamic or constant: it has no tensor.
    pub fn set_amax(&mut self, amax: Tensor<1>) {
        self.set_buffer(Buffer::Amax, amax);
    }

    /// Sets a tensor that it keeps, in the units of the quantized tensor; f32 whatever it was.
    ///
    /// # Panics
    ///
    /// If the configuration has no use for it: a range of a quantizer that is not static, a global range without static
    /// block scales, a bias of a quantizer without a static one.
    pub fn set_buffer(&mut self, buffer: Buffer, values: Tensor<1>) {
        assert!(
            self.keeps(buffer),
            "TensorQuantizer: `{}` is not set, as its configuration does not use it",
            buffer.name()
        );
        self.buffers.set(buffer, values);
    }

    /// Whether its configuration has a use for a buffer.
    pub fn keeps(&self, buffer: Buffer) -> bool {
        match buffer {
            Buffer::Amax => self.config.range == Range::Static,
            Buffer::GlobalAmax => self.has_static_blocks(),
            Buffer::Bias => self.config.bias.as_ref().is_some_and(|bias| bias.source == BiasSource::Static),
            Buffer::PreQuantScale | Buffer::LowRankDown | Buffer::LowRankUp => true,
        }
    }

    /// Removes a tensor that it keeps.
    pub fn clear_buffer(&mut self, buffer: Buffer) {
        self.buffers.clear(buffer);
    }

    /// Switches it on, with its chain.
    pub fn enable(&mut self) {
        self.enabled = true;
    }

    /// Switches it off, with its chain; it keeps its configuration and buffers. A pre-quantization scale still acts: the
    /// weights that follow have been divided by it.
    pub fn disable(&mut self) {
        self.enabled = false;
    }

    /// Whether it, or a stage of its chain, needs a range or a bias and has none.
    pub fn is_uncalibrated(&self) -> bool {
        let lacks = |stage: &Self| {
            (stage.config.has_static_range() && !stage.buffers.has(Buffer::Amax))
                || (stage.config.has_static_range()
                    && stage.has_static_blocks()
                    && !stage.buffers.has(Buffer::GlobalAmax))
                || (stage.config.has_static_bias() && !stage.buffers.has(Buffer::Bias))
        };
        self.enabled && (lacks(self) || self.chain.iter().any(lacks))
    }

    /// Whether it, or a stage of its chain, has a range or a bias to find in calibration.
    pub fn needs_calibration(&self) -> bool {
        self.enabled && self.config.needs_calibration()
    }

    /// The stages of the chain with their names, this one first, which has the name given.
    pub fn stages<'a>(&'a self, name: &str) -> impl Iterator<Item = (String, &'a TensorQuantizer)> {
        let names = (0..=self.chain.len()).map(|i| stage_name(name, i)).collect::<Vec<_>>();
        names.into_iter().zip(std::iter::once(self).chain(&self.chain))
    }

    /// Applies `f` to the stages of the chain, this one first, with their names.
    pub(crate) fn for_each_stage(&mut self, name: &str, mut f: impl FnMut(String, &mut TensorQuantizer)) {
        let mut chain = std::mem::take(&mut self.chain);
        f(stage_name(name, 0), self);
        chain.iter_mut().enumerate().for_each(|(i, stage)| f(stage_name(name, i + 1), stage));
        self.chain = chain;
    }

    /// A stage of the chain, to be edited: 0 is the quantizer itself.
    pub fn stage_mut(&mut self, stage: usize) -> Option<&mut TensorQuantizer> {
        if stage == 0 { Some(self) } else { self.chain.get_mut(stage - 1) }
    }

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

    /// The groups that its granularity makes of a tensor of this shape.
    ///
    /// # Panics
    ///
    /// If the granularity lists axes for another rank.
    pub fn groups(&self, shape: &[usize]) -> Groups {
        self.config.granularity.groups(self.role, shape)
    }

    /// The groups of a tensor of this shape that have a range: those of its granularity, or one where block scales are
    /// dynamic.
    ///
    /// # Panics
    ///
    /// As [`TensorQuantizer::groups`].
    pub fn range_groups(&self, shape: &[usize]) -> Groups {
        if self.config.has_range_of_tensor() { Groups::per_tensor(shape) } else { self.groups(shape) }
    }

    /// The groups of a tensor of this shape that have a bias.
    ///
    /// # Panics
    ///
    /// As [`TensorQuantizer::groups`].
    pub fn bias_groups(&self, shape: &[usize]) -> Option<Groups> {
        Some(self.config.bias.as_ref()?.granularity.groups(self.role, shape))
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

    pub(crate) fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    pub(crate) fn is_unsigned(&self) -> bool {
        matches!(self.config.format, Format::Int(int) if int.signedness() == Signedness::Unsigned)
    }

    pub(crate) fn has_static_blocks(&self) -> bool {
        matches!(self.config.scale, ScaleFormat::E4M3(BlockScale::Static | BlockScale::StaticFourOverSix))
    }
}

/// The name of a stage of a chain: that of the chain, with the number of the stage after the first.
fn stage_name(name: &str, stage: usize) -> String {
    if stage == 0 { name.into() } else { format!("{name}.{stage}") }
}
