//! The float parameters of a model, and how a quantizer is attached to one.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, ModuleVisitor, Param, Reparameterization, Reparameterizer};
use burn::tensor::{Device, Tensor};

use crate::quantizer::{Frame, quantizer_name};
use crate::{Quantizers, TensorQuantizer};

/// A float parameter of a model.
#[derive(Clone, Debug)]
pub(crate) struct Weight {
    /// The path of the parameter.
    pub(crate) path: String,
    /// The name that its quantizer has, or would have.
    pub(crate) quantizer: String,
    /// The type name of the struct that owns it.
    pub(crate) container: String,
    /// The name of the field.
    pub(crate) field: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) device: Device,
    /// The name of its reparameterization, if it has one.
    pub(crate) reparameterization: Option<String>,
}

/// All float parameters of a model; lazy ones stay lazy.
pub(crate) fn weights<M: Module>(model: &M) -> Vec<Weight> {
    let mut visitor = Weights::default();
    model.visit(&mut visitor);
    visitor.weights
}

/// The paths of the layers of a model, each once: what owns a parameter or a quantizer. A parameter that is the whole model, or stands
/// at its root, is called by its own name.
pub(crate) fn layers<M: Module>(model: &M) -> Vec<String> {
    let quantizers = Quantizers::of(model);
    let parameters = weights(model).into_iter().map(|weight| weight.path).filter(|path| !path.contains("_quantizer"));
    let owned = parameters.chain(quantizers.names().map(String::from));
    let mut layers: Vec<String> = Vec::new();
    let mut known = BTreeSet::new();
    for path in owned {
        let layer = path.rsplit_once('.').map_or(path.as_str(), |(layer, _)| layer).to_string();
        if known.insert(layer.clone()) {
            layers.push(layer);
        }
    }
    layers
}

/// Where the first parameter of a model lives.
pub(crate) fn device_of<M: Module>(model: &M) -> Device {
    weights(model).first().map(|weight| weight.device.clone()).unwrap_or_default()
}

#[derive(Default)]
struct Weights {
    path: Vec<Frame>,
    weights: Vec<Weight>,
}

impl ModuleVisitor for Weights {
    fn enter_module(&mut self, name: &str, container: &str) {
        if container == "Reparameterization"
            && let Some(weight) = self.weights.last_mut()
        {
            weight.reparameterization = Some(name.to_string());
        }
        self.path.push(Frame::new(name, container));
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some(own) = self.path.last() else { return };
        let mut quantizer = self.path.clone();
        quantizer.push(Frame::new(TensorQuantizer::NAME, "Reparameterization"));
        self.weights.push(Weight {
            path: self.path.iter().map(|frame| frame.name.as_str()).collect::<Vec<_>>().join("."),
            quantizer: quantizer_name(&quantizer),
            container: own.type_name().to_string(),
            field: own.name.clone(),
            shape: param.lazy_shape().to_vec(),
            device: param.lazy_device(),
            reparameterization: None,
        });
    }
}

/// What takes the place of a parameter's value: in its dtype, on its device, trained if it was.
pub(crate) fn in_place_of<const D: usize>(old: &Tensor<D>, value: Tensor<D>) -> Tensor<D> {
    let device = old.device();
    let value = value.without_autodiff().cast(old.dtype());
    if !device.is_autodiff() {
        return value.to_device(&device);
    }
    // a tensor made on the device has its strategy of gradient checkpointing, which one that is moved there has not
    let whole = value.dims().map(|len| 0..len);
    let made = Tensor::zeros(value.shape(), (&device, value.dtype())).slice_assign(whole, value);
    made.detach().set_require_grad(old.is_require_grad())
}

/// Attaches quantizers to the parameters at these paths.
pub(crate) fn attach<M: Module>(model: M, quantizers: BTreeMap<String, TensorQuantizer>) -> M {
    if quantizers.is_empty() {
        return model;
    }
    model.apply_reparameterization(Attach(quantizers))
}

struct Attach(BTreeMap<String, TensorQuantizer>);

impl Reparameterizer for Attach {
    type Reparam = TensorQuantizer;

    fn reparameterize<const D: usize>(
        &mut self,
        path: &str,
        param: Param<Tensor<D>>,
    ) -> (Param<Tensor<D>>, Option<TensorQuantizer>) {
        let quantizer = self.0.remove(path);
        (param, quantizer)
    }
}

/// Shows each weight to its quantizer, by quantizer name, without running the model.
pub(crate) fn show_weights<M: Module>(model: &M, quantizers: BTreeMap<String, TensorQuantizer>) {
    model.visit(&mut Show { path: Vec::new(), quantizers });
}

struct Show {
    path: Vec<Frame>,
    quantizers: BTreeMap<String, TensorQuantizer>,
}

impl ModuleVisitor for Show {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push(Frame::new(name, container));
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.path.push(Frame::new(TensorQuantizer::NAME, "Reparameterization"));
        let name = quantizer_name(&self.path);
        self.path.pop();
        if let Some(quantizer) = self.quantizers.remove(&name) {
            quantizer.forward(param.base().without_autodiff());
        }
    }
}
