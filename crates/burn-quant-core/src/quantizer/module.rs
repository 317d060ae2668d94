//! The quantizer as a burn module: what is visited, mapped, moved and printed.

use std::sync::Arc;

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor, Reparameterization,
};
use burn::tensor::{Device, Tensor};

use super::buffers::Buffers;
use super::packed::PackedWeight;
use super::{Buffer, TensorQuantizer, handshake};
use crate::config::RangeSource;
use crate::layout::Role;

const CONTAINER: &str = "Struct:TensorQuantizer";

impl TensorQuantizer {
    /// Applies `f` to the buffers of all stages.
    fn map_buffers(mut self, f: &impl Fn(Buffers) -> Buffers) -> Self {
        self.buffers = f(self.buffers);
        self.chain = self.chain.into_iter().map(|stage| stage.map_buffers(f)).collect();
        self
    }

    /// Returns the quantizer with its buffers created anew on a device.
    ///
    /// Values are unchanged.
    pub fn recreated_on(self, device: &Device) -> Self {
        self.map_buffers(&|buffers| buffers.recreated_on(device))
    }

    /// Returns the quantizer without the weight that it rounded.
    fn forgetting(mut self) -> Self {
        self.rounded = None;
        self
    }

    fn map_packed(mut self, f: impl FnOnce(PackedWeight) -> PackedWeight) -> Self {
        self.packed = self.packed.map(|packed| Box::new(f(*packed)));
        self
    }

    fn visit_stages<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.buffers.visit(visitor);
        if let Some(packed) = &self.packed {
            packed.visit(visitor);
        }
        for (i, stage) in self.chain.iter().enumerate() {
            let name = (i + 1).to_string();
            visitor.enter_module(&name, CONTAINER);
            stage.visit_stages(visitor);
            visitor.exit_module(&name, CONTAINER);
        }
    }

    fn map_stages<M: ModuleMapper>(mut self, mapper: &mut M) -> Self {
        self.buffers = self.buffers.map(mapper);
        self.packed = self.packed.map(|packed| Box::new(packed.map(mapper)));
        let chain = self.chain.into_iter().enumerate().map(|(i, stage)| {
            let name = (i + 1).to_string();
            mapper.enter_module(&name, CONTAINER);
            let stage = stage.map_stages(mapper);
            mapper.exit_module(&name, CONTAINER);
            stage
        });
        self.chain = chain.collect();
        self
    }
}

impl Module for TensorQuantizer {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        handshake::visit(self, visitor);
        self.visit_stages(visitor);
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        handshake::map(self, mapper).forgetting().map_stages(mapper)
    }

    fn to_device(self, device: &Device) -> Self {
        let moved = self.forgetting().map_buffers(&|buffers| buffers.moved(device));
        moved.map_packed(|packed| packed.moved(device))
    }

    fn fork(self, device: &Device) -> Self {
        let forked = self.forgetting().map_buffers(&|buffers| buffers.fork(device));
        forked.map_packed(|packed| packed.fork(device))
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        let devices = self.buffers.collect_devices(devices);
        let devices = self.packed.iter().fold(devices, |devices, packed| packed.collect_devices(devices));
        self.chain.iter().fold(devices, |devices, stage| stage.collect_devices(devices))
    }

    fn materialize(self) -> Self {
        self
    }

    fn valid(&self) -> Self {
        let mut valid = self.clone().map_buffers(&Buffers::valid).map_packed(|packed| packed.valid());
        if valid.packed.is_some() {
            return valid;
        }
        // a weight for validation stays as it is, so it is rounded once: whatever changes it maps its quantizer too
        valid.rounded = matches!(self.role, Role::Weight(_)).then(Arc::default);
        valid
    }

    fn train(self) -> Self {
        self.forgetting().map_buffers(&Buffers::train).map_packed(PackedWeight::train)
    }
}

impl Reparameterization for TensorQuantizer {
    const NAME: &'static str = "weight_quantizer";

    fn apply<const D: usize>(&self, base: Tensor<D>) -> Tensor<D> {
        if let Some(packed) = &self.packed {
            let weight = packed.unpack::<D>().cast(base.dtype());
            return match self.adaptation(&weight) {
                None => weight,
                Some(adaptation) => weight + adaptation,
            };
        }
        match &self.rounded {
            Some(rounded) if self.tap.get().is_none() => rounded.get_or_init(|| self.forward(base).into()).ranked(),
            _ => self.forward(base),
        }
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
        if let Some(packed) = &self.packed {
            return write!(f, "{} {} {packed}", self.config.kind(), self.config.granularity);
        }
        let stages = self.stages("").map(|(_, stage)| stage.description());
        f.write_str(&stages.collect::<Vec<_>>().join(", then "))
    }
}

impl TensorQuantizer {
    /// What one stage does, in a few words.
    fn description(&self) -> String {
        let range = match (self.config.range, self.buffers.has(Buffer::Amax)) {
            (RangeSource::Dynamic, _) => "dynamic",
            (RangeSource::Constant(_), _) => "constant",
            (RangeSource::Static, true) => "static",
            (RangeSource::Static, false) => "uncalibrated",
        };
        format!("{} {} {range}", self.config.kind(), self.config.granularity)
    }
}
