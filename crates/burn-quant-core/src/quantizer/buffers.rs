//! The tensors that a quantizer keeps: constants of the model, recorded and moved with its weights; a learned range is
//! a parameter like any other.

use std::collections::BTreeMap;

use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Device, Tensor};

use super::parameter::in_place_of;

/// A tensor that a quantizer keeps, f32 and one-dimensional.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Buffer {
    /// The range of each group, `[groups]`; of the tensor, `[1]`, where block scales are dynamic. Where ranges before
    /// and after rounding are separate it is the one before: codes are those of its scale.
    Amax,
    /// The range of the tensor over ranges of blocks, `[1]`: for static E4M3 block scales.
    GlobalAmax,
    /// The bias of each of its groups.
    Bias,
    /// The factor of each channel that is multiplied in before everything else.
    PreQuantScale,
    /// The first factor of a branch of low rank, `[in, rank]` row by row. The quantizer of a layer's input has a branch
    /// of SVDQuant, that of a weight one which is trained: `QuantLora`.
    LowRankDown,
    /// The second factor, `[rank, out]` row by row.
    LowRankUp,
    /// The range after rounding, `[groups]`, where it is [separate](crate::config::LearnedRanges) from the one before:
    /// codes are multiplied by its scale, and folded weights are packed with it. Under E4M3 scales, a block whose range
    /// is below 1/512 of [`Buffer::GlobalAmax`] has that range instead, and is packed with that.
    AmaxPost,
}

impl Buffer {
    /// All of them, in the order of records.
    pub const ALL: [Buffer; 7] = [
        Buffer::Amax,
        Buffer::GlobalAmax,
        Buffer::Bias,
        Buffer::PreQuantScale,
        Buffer::LowRankDown,
        Buffer::LowRankUp,
        Buffer::AmaxPost,
    ];

    /// Returns the name in records.
    ///
    /// `amax`, `pre_quant_scale`, and so on.
    pub const fn name(self) -> &'static str {
        match self {
            Buffer::Amax => "amax",
            Buffer::GlobalAmax => "global_amax",
            Buffer::Bias => "bias",
            Buffer::PreQuantScale => "pre_quant_scale",
            Buffer::LowRankDown => "low_rank_down",
            Buffer::LowRankUp => "low_rank_up",
            Buffer::AmaxPost => "amax_post",
        }
    }

    /// Returns whether the values are ranges, which are finite and not negative.
    ///
    /// Biases, scales of channels and factors have both signs.
    pub const fn is_range(self) -> bool {
        matches!(self, Buffer::Amax | Buffer::GlobalAmax | Buffer::AmaxPost)
    }
}

/// The buffers of one quantizer.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers {
    /// On the heap, as a model with many quantizers lies on the stack.
    values: BTreeMap<Buffer, Param<Tensor<1>>>,
    /// The ranges that are trained.
    learned: &'static [Buffer],
    /// Whether the factors of low rank are trained: those of a weight are.
    adapts: bool,
}

const CONTAINER: &str = "Struct:TensorQuantizer";

impl Buffers {
    /// None yet; of a weight or of activations.
    pub(super) fn new(weight: bool) -> Self {
        Self { adapts: weight, ..Self::default() }
    }

    pub(super) fn get(&self, buffer: Buffer) -> Option<Tensor<1>> {
        self.values.get(&buffer).map(Param::val)
    }

    pub(super) fn device(&self) -> Option<Device> {
        self.values.values().next().map(Param::lazy_device)
    }

    pub(super) fn has(&self, buffer: Buffer) -> bool {
        self.values.contains_key(&buffer)
    }

    pub(super) fn set(&mut self, buffer: Buffer, values: Tensor<1>) {
        let values = values.detach().cast(DType::F32);
        // a range below zero would mirror values, or make them zero
        let values = if buffer.is_range() { values.abs() } else { values };
        let known = self.values.get(&buffer);
        // what the user froze stays frozen
        let trained = self.is_trained(buffer) && known.is_none_or(is_trainable);
        let id = known.map_or_else(ParamId::new, |param| param.id);
        self.values.insert(buffer, parameter(id, values, trained));
    }

    fn is_trained(&self, buffer: Buffer) -> bool {
        match buffer {
            Buffer::Amax | Buffer::AmaxPost => self.learned.contains(&buffer),
            Buffer::LowRankDown | Buffer::LowRankUp => self.adapts,
            _ => false,
        }
    }

    /// Makes these ranges parameters that are trained, and all others constants.
    pub(super) fn learn(&mut self, learned: &'static [Buffer]) {
        let before = std::mem::replace(&mut self.learned, learned);
        for buffer in [Buffer::Amax, Buffer::AmaxPost] {
            let is_learned = learned.contains(&buffer);
            if is_learned != before.contains(&buffer)
                && let Some(range) = self.values.remove(&buffer)
            {
                self.values.insert(buffer, parameter(range.id, range.val().detach(), is_learned));
            }
        }
    }

    pub(super) fn clear(&mut self, buffer: Buffer) {
        self.values.remove(&buffer);
    }

    pub(super) fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        for (buffer, param) in &self.values {
            visitor.enter_module(buffer.name(), CONTAINER);
            visitor.visit_float(param);
            visitor.exit_module(buffer.name(), CONTAINER);
        }
    }

    pub(super) fn map<M: ModuleMapper>(mut self, mapper: &mut M) -> Self {
        for (buffer, param) in std::mem::take(&mut self.values) {
            let (id, before) = (param.id, param.val());
            mapper.enter_module(buffer.name(), CONTAINER);
            let mapped = mapper.map_float(param);
            mapper.exit_module(buffer.name(), CONTAINER);
            let (mapped_id, after) = (mapped.id, mapped.val());
            // As burn's running statistics are: a mapper may load or move a buffer, but does not make it trainable, and
            // a cast of the model leaves it in f32. A learned range may also be stepped, to where it is positive, and
            // frozen.
            let kept = match after.dtype() {
                DType::F32 if self.learned.contains(&buffer) && after.is_require_grad() => mapped.map(|stepped| {
                    let positive = stepped.clone().without_autodiff().abs().clamp_min(f32::MIN_POSITIVE);
                    in_place_of(&stepped, positive)
                }),
                DType::F32 if self.is_trained(buffer) => mapped,
                DType::F32 => Param::initialized(mapped_id, after.set_require_grad(false)),
                _ => parameter(id, before.detach(), self.is_trained(buffer)),
            };
            self.values.insert(buffer, kept);
        }
        self
    }

    fn each(self, f: impl Fn(Param<Tensor<1>>) -> Param<Tensor<1>>) -> Self {
        Self { values: self.values.into_iter().map(|(buffer, param)| (buffer, f(param))).collect(), ..self }
    }

    /// The same values in tensors that were made on a device: a learned range is trained if gradients are recorded
    /// there.
    pub(super) fn recreated_on(mut self, device: &Device) -> Self {
        for buffer in Buffer::ALL {
            if let Some(values) = self.get(buffer) {
                let values = values.without_autodiff();
                let whole = 0..values.dims()[0];
                let made = Tensor::zeros(values.shape(), (device, DType::F32)).slice_assign(whole, values);
                self.set(buffer, made);
            }
        }
        self
    }

    pub(super) fn moved(self, device: &Device) -> Self {
        self.each(|param| param.to_device(device))
    }

    pub(super) fn fork(self, device: &Device) -> Self {
        self.each(|param| param.fork(device))
    }

    pub(super) fn valid(self) -> Self {
        self.each(|param| param.valid())
    }

    pub(super) fn train(self) -> Self {
        self.each(Module::train)
    }

    pub(super) fn collect_devices(&self, devices: Devices) -> Devices {
        self.values.values().fold(devices, |devices, param| param.collect_devices(devices))
    }
}

/// Whether a parameter is trained, or would be on a device that records gradients.
fn is_trainable(param: &Param<Tensor<1>>) -> bool {
    let value = param.val();
    if value.device().is_autodiff() {
        return value.is_require_grad();
    }
    // burn keeps the setting to itself until the parameter is moved to a device with gradients
    #[cfg(feature = "autodiff")]
    return Module::train(param.clone()).val().is_require_grad();
    #[cfg(not(feature = "autodiff"))]
    return true;
}

/// Creates a parameter that is trained, or one that never is.
fn parameter(id: ParamId, values: Tensor<1>, trained: bool) -> Param<Tensor<1>> {
    if !trained {
        return Param::initialized(id, values.set_require_grad(false));
    }
    let mut param = Param::from_tensor(values);
    param.id = id;
    param
}
