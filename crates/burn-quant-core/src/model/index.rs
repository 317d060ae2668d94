//! Everything that one visit of a model finds, by name.

use std::collections::{BTreeMap, HashMap, HashSet};

use burn::module::{Module, Param, ParamId};
use burn::tensor::{DType, Device, Tensor};

use super::{Path, Quantizers, Visit, layer_of, visit, within};
use crate::error::QuantError;
use crate::layout::{burn_layer_name, burns};
use crate::quantizer::TensorQuantizer;

/// Where a float parameter of a model is, and what it looks like.
#[derive(Clone, Debug)]
pub struct ParameterRef {
    /// The path of the parameter.
    pub path: String,
    /// The name that its quantizer has, or would have.
    pub quantizer: String,
    /// The type name of the struct that owns it.
    pub container: String,
    /// The name of the field.
    pub field: String,
    /// The lengths of its axes.
    pub shape: Vec<usize>,
    /// Where it is.
    pub device: Device,
    /// What burn knows it by: tied parameters share one.
    pub id: ParamId,
    /// Whether it is not made yet, and its shape may be transposed.
    pub(crate) is_lazy: bool,
    /// Whether it holds a tensor that burn quantized.
    pub(crate) is_quantized: bool,
    /// The name of its reparameterization, if it has one.
    pub reparameterization: Option<String>,
}

/// The quantizers and float parameters of a model, found by one visit.
#[derive(Debug, Default)]
pub struct ModelIndex {
    /// The quantizers, by name.
    pub quantizers: Quantizers,
    parameters: Vec<ParameterRef>,
    /// Places of parameters by path.
    by_path: HashMap<String, usize>,
    /// Places of parameters by the names of their quantizers.
    by_quantizer: HashMap<String, usize>,
    /// The first parameter of each layer, or of a layer inside it.
    by_layer: HashMap<String, usize>,
    /// The parameters at the fields of each layer.
    own: HashMap<String, Vec<usize>>,
}

impl ModelIndex {
    /// Visits a model, all of whose shapes are to be known.
    pub fn of<M: Module>(model: &M) -> Self {
        let mut index = Self::lazy_of(model);
        index.make_shapes_known(model);
        index
    }

    /// Visits a model whose lazy parameters stay lazy; the shapes of some of those may be transposed.
    pub fn lazy_of<M: Module>(model: &M) -> Self {
        let mut index = Self::default();
        visit(model, &mut index);
        index
    }

    /// Refuses a model whose weights are packed: there is nothing to calibrate, to change or to save as floats.
    ///
    /// # Errors
    ///
    /// [`QuantError::Packed`] with the first packed weight.
    pub fn refuse_packed(&self) -> Result<(), QuantError> {
        match self.quantizers.iter().find(|(_, quantizer)| quantizer.packed().is_some()) {
            None => Ok(()),
            Some((name, _)) => {
                let path = self.weight_of(name).map_or(name, |weight| &weight.path).to_string();
                Err(QuantError::Packed { path })
            }
        }
    }

    /// Makes linear weights whose shape is not known before: burn keeps the shape of one in column layout as it is in
    /// memory, `[out, in]`, until the weight is made and lies `[in, out]`.
    fn make_shapes_known<M: Module>(&mut self, model: &M) {
        struct Make<'a> {
            wanted: HashMap<&'a str, usize>,
            shapes: Vec<(usize, Vec<usize>)>,
        }
        impl Visit for Make<'_> {
            fn parameter<const D: usize>(&mut self, at: &Path, param: &Param<Tensor<D>>) {
                if let Some(place) = self.wanted.get(at.joined().as_str()) {
                    self.shapes.push((*place, param.base().dims().to_vec()));
                }
            }
        }
        let unknown = |(place, parameter): (usize, &'_ ParameterRef)| {
            let &[rows, columns] = parameter.shape.as_slice() else { return None };
            let linear = parameter.field == "weight" && burn_layer_name(&parameter.container) == "Linear";
            let bias = self.parameter_at(&within(layer_of(&parameter.path), "bias"));
            let row_layout = bias.is_some_and(|bias| bias.shape == [columns]);
            (parameter.is_lazy && linear && rows != columns && !row_layout).then_some(place)
        };
        let wanted: Vec<usize> = self.parameters.iter().enumerate().filter_map(unknown).collect();
        if wanted.is_empty() {
            return;
        }
        let wanted = wanted.into_iter().map(|place| (self.parameters[place].path.as_str(), place)).collect();
        let mut make = Make { wanted, shapes: Vec::new() };
        visit(model, &mut make);
        for (place, shape) in make.shapes {
            self.parameters[place].shape = shape;
            self.parameters[place].is_lazy = false;
        }
    }

    /// All float parameters, in the order of the model's fields.
    pub fn parameters(&self) -> &[ParameterRef] {
        &self.parameters
    }

    /// Returns the parameter with this path.
    pub fn parameter_at(&self, path: &str) -> Option<&ParameterRef> {
        self.by_path.get(path).map(|place| &self.parameters[*place])
    }

    /// The parameters at a layer's own fields.
    pub(crate) fn parameters_of(&self, layer: &str) -> impl Iterator<Item = &ParameterRef> {
        let own = self.own.get(layer).map_or(&[][..], Vec::as_slice);
        own.iter().map(|place| &self.parameters[*place])
    }

    /// The paths of the layers of a model, each once: what owns a parameter or a quantizer. A parameter that is the
    /// whole model, or stands at its root, is called by its own name.
    pub fn layer_paths(&self) -> Vec<String> {
        let owned = self.parameters.iter().map(|parameter| parameter.path.as_str()).chain(self.quantizers.names());
        let mut known = HashSet::new();
        let layers = owned.map(|path| path.rsplit_once('.').map_or(path, |(layer, _)| layer));
        layers.filter(|layer| known.insert(*layer)).map(String::from).collect()
    }

    /// The paths of layers that are folded: the quantizer of the input is on, and the weight has none, not even one
    /// that is off, as every layer has that rules were applied to.
    pub(crate) fn folded(&self) -> Vec<String> {
        let folded = |weight: &&ParameterRef| {
            let input = self.quantizers.find(&within(layer_of(&weight.path), "input_quantizer"));
            weight.field == "weight"
                && weight.reparameterization.is_none()
                && burns(&weight.container, &weight.field).is_some()
                && input.is_some_and(TensorQuantizer::is_enabled)
        };
        let layer = |weight: &ParameterRef| match layer_of(&weight.path) {
            "" => weight.path.clone(),
            layer => layer.to_string(),
        };
        self.parameters.iter().filter(folded).map(layer).collect()
    }

    /// The parameter that a weight quantizer belongs to.
    pub fn weight_of(&self, quantizer: &str) -> Option<&ParameterRef> {
        self.by_quantizer.get(quantizer).map(|place| &self.parameters[*place])
    }

    /// Where a quantizer belongs: the device of its weight or of its layer's parameters, else that of the model's first
    /// parameter or quantizer; `None` for a model without tensors.
    pub fn device_of(&self, quantizer: &str) -> Option<Device> {
        let layer = layer_of(quantizer);
        let own = self.by_quantizer.get(quantizer).or_else(|| self.by_layer.get(layer));
        own.map(|place| self.parameters[*place].device.clone()).or_else(|| self.device())
    }

    /// Where the first tensor of the model is.
    pub fn device(&self) -> Option<Device> {
        let parameter = self.parameters.first().map(|parameter| parameter.device.clone());
        parameter.or_else(|| self.quantizers.iter().find_map(|(_, quantizer)| quantizer.device()))
    }
}

impl Visit for ModelIndex {
    fn parameter<const D: usize>(&mut self, at: &Path, param: &Param<Tensor<D>>) {
        let (path, quantizer, place) = (at.joined(), at.weight_quantizer_name(), self.parameters.len());
        self.by_path.insert(path.clone(), place);
        self.by_quantizer.insert(quantizer.clone(), place);
        self.own.entry(layer_of(&path).to_string()).or_default().push(place);
        // a layer is where its own parameters are, and those of layers inside it
        let mut layer = layer_of(&path);
        while !self.by_layer.contains_key(layer) {
            self.by_layer.insert(layer.to_string(), place);
            layer = layer_of(layer);
        }
        self.parameters.push(ParameterRef {
            path,
            quantizer,
            container: at.container().to_string(),
            field: at.field().to_string(),
            shape: param.lazy_shape().to_vec(),
            device: param.lazy_device(),
            id: param.id,
            is_lazy: !param.is_initialized(),
            is_quantized: param.is_initialized() && matches!(param.base().dtype(), DType::QFloat(_)),
            reparameterization: None,
        });
    }

    fn quantizer(&mut self, at: &Path, quantizer: TensorQuantizer) {
        self.quantizers.push(at.quantizer_name(), at.container(), quantizer);
    }

    fn reparameterization(&mut self, name: &str) {
        if let Some(weight) = self.parameters.last_mut() {
            weight.reparameterization = Some(name.to_string());
        }
    }
}

/// Returns where the first tensor of a model is; the default device for a model without tensors.
pub fn device_of<M: Module>(model: &M) -> Device {
    ModelIndex::lazy_of(model).device().unwrap_or_default()
}

/// Returns where the layer of each quantizer of a model lives, by name: what is calibrated or restored goes there.
pub fn quantizer_devices<M: Module>(model: &M) -> BTreeMap<String, Device> {
    let index = ModelIndex::lazy_of(model);
    let device = |name: &str| index.device_of(name).unwrap_or_default();
    index.quantizers.names().map(|name| (name.to_string(), device(name))).collect()
}
