//! Walking a model with the path of what is found: the only visitor and the only mapper of the crate.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

use super::Path;
use crate::quantizer::TensorQuantizer;
use crate::quantizer::handshake;

/// What is done with the parts of a model.
pub trait Visit {
    /// Sees a float parameter of the model, before any reparameterization.
    fn parameter<const D: usize>(&mut self, _at: &Path, _param: &Param<Tensor<D>>) {}

    /// Sees a quantizer.
    fn quantizer(&mut self, _at: &Path, _quantizer: TensorQuantizer) {}

    /// Learns that the parameter seen last has a reparameterization of a name.
    fn reparameterization(&mut self, _name: &str) {}
}

/// What takes the place of the parts of a model.
pub trait Map {
    /// Returns what takes the place of a float parameter of the model.
    fn parameter<const D: usize>(&mut self, _at: &Path, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param
    }

    /// Returns what takes the place of a quantizer.
    fn quantizer(&mut self, _at: &Path, quantizer: TensorQuantizer) -> TensorQuantizer {
        quantizer
    }
}

/// Shows the parts of a model; lazy parameters stay lazy unless they are read.
pub fn visit<M: Module>(model: &M, work: &mut impl Visit) {
    model.visit(&mut Walker { path: Path::default(), work });
}

/// Replaces parts of a model.
pub fn map<M: Module>(model: M, work: &mut impl Map) -> M {
    model.map(&mut Walker { path: Path::default(), work })
}

struct Walker<'a, W> {
    path: Path,
    work: &'a mut W,
}

impl<W: Visit> ModuleVisitor for Walker<'_, W> {
    fn enter_module(&mut self, name: &str, container: &str) {
        if handshake::is_reserved(container) {
            return handshake::answer();
        }
        if container == "Reparameterization" {
            self.work.reparameterization(name);
        }
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        if !handshake::is_reserved(container) {
            return self.path.exit();
        }
        if let Some(quantizer) = handshake::slot().take() {
            self.work.quantizer(&self.path, quantizer);
        }
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if !self.path.is_in_quantizer() {
            self.work.parameter(&self.path, param);
        }
    }
}

impl<W: Map> ModuleMapper for Walker<'_, W> {
    fn enter_module(&mut self, name: &str, container: &str) {
        if handshake::is_reserved(container) {
            return handshake::answer();
        }
        self.path.enter(name, container);
    }

    fn exit_module(&mut self, _name: &str, container: &str) {
        if !handshake::is_reserved(container) {
            return self.path.exit();
        }
        if let Some(quantizer) = handshake::slot().take() {
            let replacement = self.work.quantizer(&self.path, quantizer);
            handshake::slot().set(Some(replacement));
        }
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        if self.path.is_in_quantizer() { param } else { self.work.parameter(&self.path, param) }
    }
}
