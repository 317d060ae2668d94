//! The tensors that a quantizer keeps: constants of the model, recorded and moved with its weights.

use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Device, Tensor};

/// A tensor that a quantizer keeps, f32 and one-dimensional.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Buffer {
    /// The range of each group, `[groups]`; of the tensor, `[1]`, where block scales are dynamic.
    Amax,
    /// The range of the tensor over ranges of blocks, `[1]`: for static E4M3 block scales.
    GlobalAmax,
    /// The bias of each of its groups.
    Bias,
    /// The factor of each channel that is multiplied in before everything else.
    PreQuantScale,
    /// The first factor of a branch of low rank, `[in, rank]` row by row: kept by the quantizer of a layer's input.
    LowRankDown,
    /// The second factor, `[rank, out]` row by row.
    LowRankUp,
}

impl Buffer {
    /// All of them, in the order of records.
    pub const ALL: [Buffer; 6] =
        [Buffer::Amax, Buffer::GlobalAmax, Buffer::Bias, Buffer::PreQuantScale, Buffer::LowRankDown, Buffer::LowRankUp];

    /// The name in records.
    pub const fn name(self) -> &'static str {
        match self {
            Buffer::Amax => "amax",
            Buffer::GlobalAmax => "global_amax",
            Buffer::Bias => "bias",
            Buffer::PreQuantScale => "pre_quant_scale",
            Buffer::LowRankDown => "low_rank_down",
            Buffer::LowRankUp => "low_rank_up",
        }
    }
}

/// The buffers of one quantizer.
#[derive(Clone, Debug, Default)]
pub(super) struct Buffers([Option<Param<Tensor<1>>>; Buffer::ALL.len()]);

const CONTAINER: &str = "Struct:TensorQuantizer";

impl Buffers {
    pub(super) fn get(&self, buffer: Buffer) -> Option<Tensor<1>> {
        self.0[buffer as usize].as_ref().map(Param::val)
    }

    pub(super) fn has(&self, buffer: Buffer) -> bool {
        self.0[buffer as usize].is_some()
    }

    pub(super) fn set(&mut self, buffer: Buffer, values: Tensor<1>) {
        let values = values.detach().cast(DType::F32).set_require_grad(false);
        let slot = &mut self.0[buffer as usize];
        let id = slot.as_ref().map_or_else(ParamId::new, |param| param.id);
        *slot = Some(Param::initialized(id, values));
    }

    pub(super) fn clear(&mut self, buffer: Buffer) {
        self.0[buffer as usize] = None;
    }

    pub(super) fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        for buffer in Buffer::ALL {
            let Some(param) = &self.0[buffer as usize] else { continue };
            visitor.enter_module(buffer.name(), CONTAINER);
            visitor.visit_float(param);
            visitor.exit_module(buffer.name(), CONTAINER);
        }
    }

    pub(super) fn map<M: ModuleMapper>(mut self, mapper: &mut M) -> Self {
        for buffer in Buffer::ALL {
            let Some(param) = self.0[buffer as usize].take() else { continue };
            let (id, before) = (param.id, param.val());
            mapper.enter_module(buffer.name(), CONTAINER);
            let mapped = mapper.map_float(param);
            mapper.exit_module(buffer.name(), CONTAINER);
            let (mapped_id, after) = (mapped.id, mapped.val());
            // As burn's running statistics are: a mapper may load or move a buffer, but does not make it trainable, and a
            // cast of the model leaves it in f32.
            self.0[buffer as usize] = Some(if after.dtype() == DType::F32 {
                Param::initialized(mapped_id, after.set_require_grad(false))
            } else {
                Param::initialized(id, before)
            });
        }
        self
    }

    fn each(self, f: impl Fn(Param<Tensor<1>>) -> Param<Tensor<1>>) -> Self {
        Self(self.0.map(|param| param.map(&f)))
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
        self.0.iter().flatten().fold(devices, |devices, param| param.collect_devices(devices))
    }
}
