//! The parameters of a model as burn's records see them: path, shape and kind.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Bool, Int, Shape, Tensor};

/// What a parameter holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Float,
    Int,
    Bool,
}

/// One parameter of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub(crate) shape: Vec<usize>,
    pub(crate) kind: Kind,
}

/// All parameters of a model by path; lazy ones stay lazy.
pub(crate) fn parameters<M: Module>(model: &M) -> BTreeMap<String, Parameter> {
    let mut visitor = Parameters::default();
    model.visit(&mut visitor);
    visitor.found
}

#[derive(Default)]
struct Parameters {
    path: Vec<String>,
    found: BTreeMap<String, Parameter>,
}

impl Parameters {
    fn insert(&mut self, shape: Shape, kind: Kind) {
        self.found.insert(self.path.join("."), Parameter { shape: shape.to_vec(), kind });
    }
}

impl ModuleVisitor for Parameters {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.insert(param.lazy_shape(), Kind::Float);
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.insert(param.lazy_shape(), Kind::Int);
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.insert(param.lazy_shape(), Kind::Bool);
    }
}
