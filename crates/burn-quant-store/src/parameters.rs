//! The parameters of a model as burn's records see them: path and shape.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Bool, Int, Shape, Tensor};

/// Paths and shapes of all parameters of a model; lazy ones stay lazy.
pub(crate) fn shapes<M: Module>(model: &M) -> BTreeMap<String, Vec<usize>> {
    let mut visitor = Shapes::default();
    model.visit(&mut visitor);
    visitor.shapes
}

#[derive(Default)]
struct Shapes {
    path: Vec<String>,
    shapes: BTreeMap<String, Vec<usize>>,
}

impl Shapes {
    fn insert(&mut self, shape: Shape) {
        self.shapes.insert(self.path.join("."), shape.to_vec());
    }
}

impl ModuleVisitor for Shapes {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.insert(param.lazy_shape());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.insert(param.lazy_shape());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.insert(param.lazy_shape());
    }
}
