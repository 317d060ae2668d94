//! The quantizer of one tensor.

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Param, ParamId,
    Reparameterization,
};
use burn::tensor::{DType, Device, Tensor};
use burn_quant_ops::numerics::{Format, Signedness};
use burn_quant_ops::{FakeQuant, Groups, fake_quant, group_amax};
use serde::{Deserialize, Serialize};

use super::{Observer, discover};
use crate::{QuantizerConfig, Range, WeightLayout};

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
    /// Passes it on in float: the model is being observed, but not here.
    Float,
}

/// Quantizes and dequantizes a tensor: a field of a layer, or attached to a weight.
///
/// A new quantizer is disabled: it is exactly the identity until a configuration enables it, so a model with slots trains
/// in float like any other. Its range, `amax`, is a constant of the model: it is recorded, moved and cloned with the
/// weights, stays f32 when they are cast, and no optimizer changes it.
///
/// As a field of your own module it needs a call of [`forward`](TensorQuantizer::forward) at the tensor it quantizes; rules
/// find it by the path of the field. As the reparameterization of a weight it is placed by [`quantize`](crate::quantize()).
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
    config: QuantizerConfig,
    role: Role,
    enabled: bool,
    mode: Mode,
    amax: Option<Param<Tensor<1>>>,
}

impl TensorQuantizer {
    /// An enabled quantizer; a static one needs a range before its first [`forward`](TensorQuantizer::forward).
    pub fn new(config: QuantizerConfig, role: Role) -> Self {
        Self { config, role, enabled: true, mode: Mode::Quantize, amax: None }
    }

    /// A disabled quantizer: the identity, until a rule configures it.
    pub fn disabled(role: Role) -> Self {
        Self { enabled: false, ..Self::new(QuantizerConfig::default(), role) }
    }

    /// What it does.
    pub fn config(&self) -> &QuantizerConfig {
        &self.config
    }

    /// What its tensors are.
    pub fn role(&self) -> Role {
        self.role
    }

    /// Whether it does anything.
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }

    /// The range of each group, f32 `[groups]` in the units of the tensor; `None` if it was never calibrated.
    pub fn amax(&self) -> Option<Tensor<1>> {
        self.amax.as_ref().map(Param::val)
    }

    /// Changes what it does. The range is kept if the same elements share it, and dropped otherwise.
    pub fn set_config(&mut self, config: QuantizerConfig) {
        if config.granularity != self.config.granularity || config.range == Range::Dynamic {
            self.amax = None;
        }
        self.config = config;
    }

    /// Sets the range of each group: finite, not negative, in the units of the tensor.
    ///
    /// # Panics
    ///
    /// If the quantizer is dynamic, which has no range of its own.
    pub fn set_amax(&mut self, amax: Tensor<1>) {
        assert_eq!(self.config.range, Range::Static, "TensorQuantizer::set_amax: a dynamic range is not set");
        let amax = amax.detach().cast(DType::F32).set_require_grad(false);
        let id = self.amax.as_ref().map_or_else(ParamId::new, |param| param.id);
        self.amax = Some(Param::initialized(id, amax));
    }

    /// Switches it on.
    pub fn enable(&mut self) {
        self.enabled = true;
    }

    /// Switches it off; it keeps its configuration and range.
    pub fn disable(&mut self) {
        self.enabled = false;
    }

    /// Whether it needs a range and has none.
    pub fn is_uncalibrated(&self) -> bool {
        self.enabled && self.config.range == Range::Static && self.amax.is_none()
    }

    /// Quantizes and dequantizes a tensor; the same shape and dtype.
    ///
    /// # Panics
    ///
    /// If it is static and was never calibrated, or calibrated for another number of channels or blocks.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        if !self.enabled {
            return x;
        }
        match &self.mode {
            Mode::Float => return x,
            Mode::Observe(observer) => {
                observer.observe(&x, &self.groups(&x.dims()), self.is_unsigned());
                return x;
            }
            Mode::Quantize => {}
        }
        let groups = self.groups(&x.dims());
        let amax = match self.config.range {
            Range::Dynamic => group_amax(x.clone(), &groups),
            Range::Static => self.amax().expect(
                "TensorQuantizer: static but never calibrated; run `quantize`, set an amax, or disable the quantizer",
            ),
        };
        fake_quant(x, amax, FakeQuant { format: self.config.format, groups, gradient: self.config.gradient })
    }

    /// The groups that its granularity makes of a tensor of this shape; there is one range for each.
    ///
    /// # Panics
    ///
    /// If the granularity lists axes for another rank.
    pub fn groups(&self, shape: &[usize]) -> Groups {
        self.config.granularity.groups(self.role, shape)
    }

    pub(crate) fn set_mode(&mut self, mode: Mode) {
        self.mode = mode;
    }

    pub(crate) fn is_unsigned(&self) -> bool {
        matches!(self.config.format, Format::Int(int) if int.signedness() == Signedness::Unsigned)
    }

    /// Applies `f` to the parameter of the range.
    fn map_amax(mut self, f: impl FnOnce(Param<Tensor<1>>) -> Param<Tensor<1>>) -> Self {
        self.amax = self.amax.map(f);
        self
    }
}

const FIELD: (&str, &str) = ("amax", "Struct:TensorQuantizer");

impl Module for TensorQuantizer {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        discover::visiting(self);
        if let Some(amax) = &self.amax {
            visitor.enter_module(FIELD.0, FIELD.1);
            visitor.visit_float(amax);
            visitor.exit_module(FIELD.0, FIELD.1);
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        discover::mapping(self).map_amax(|amax| {
            let (id, before) = (amax.id, amax.val());
            mapper.enter_module(FIELD.0, FIELD.1);
            let mapped = mapper.map_float(amax);
            mapper.exit_module(FIELD.0, FIELD.1);
            let (mapped_id, after) = (mapped.id, mapped.val());
            // A range is a buffer, as burn's running statistics are: a mapper may load or move it, but does not make it
            // trainable, and a cast of the model leaves it in f32.
            if after.dtype() == DType::F32 {
                Param::initialized(mapped_id, after.set_require_grad(false))
            } else {
                Param::initialized(id, before)
            }
        })
    }

    fn to_device(self, device: &Device) -> Self {
        self.map_amax(|amax| amax.to_device(device))
    }

    fn fork(self, device: &Device) -> Self {
        self.map_amax(|amax| amax.fork(device))
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        self.amax.as_ref().map_or(devices.clone(), |amax| amax.collect_devices(devices))
    }

    fn materialize(self) -> Self {
        self
    }

    fn valid(&self) -> Self {
        self.clone().map_amax(|amax| amax.valid())
    }

    fn train(self) -> Self {
        self.map_amax(Module::train)
    }
}

impl Reparameterization for TensorQuantizer {
    const NAME: &'static str = "weight_quantizer";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        self.forward(base)
    }
}

impl ModuleDisplayDefault for TensorQuantizer {
    fn content(&self, content: Content) -> Option<Content> {
        content.add_formatted(&self.to_string()).optional()
    }
}

impl ModuleDisplay for TensorQuantizer {}

impl std::fmt::Display for TensorQuantizer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.enabled {
            return f.write_str("disabled");
        }
        let range = match (self.config.range, &self.amax) {
            (Range::Dynamic, _) => "dynamic",
            (Range::Static, Some(_)) => "static",
            (Range::Static, None) => "uncalibrated",
        };
        write!(f, "{} {} {range}", self.config.format, self.config.granularity)
    }
}
