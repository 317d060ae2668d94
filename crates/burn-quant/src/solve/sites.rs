//! Where the linear layers of a model are: which weight, bias, and quantizers belong together.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::Tensor;

use super::SkipReason;
use crate::place::{Weight, in_place_of, weights};
use crate::quantizer::Frame;
use crate::{Granularity, ModelStatistics, Quantizers, Role, TensorQuantizer, WeightLayout};

/// A weight with an enabled quantizer.
#[derive(Clone, Debug)]
pub(crate) struct Site {
    /// The path of the layer.
    pub(crate) name: String,
    /// The path of its weight.
    pub(crate) weight: String,
    /// The shape of its weight; of a convolution of one pixel that counts as a matrix, that of the matrix.
    pub(crate) shape: Vec<usize>,
    /// Whether it is such a convolution.
    pub(crate) pointwise: bool,
    /// The name of the weight's quantizer.
    pub(crate) weight_quantizer: String,
    /// The path of its bias, if it has one.
    pub(crate) bias: Option<String>,
    /// The name of the input's quantizer.
    pub(crate) input_quantizer: Option<String>,
    /// Whether its forward adds a branch of low rank.
    pub(crate) takes_low_rank: bool,
}

impl Site {
    /// Channels of the inputs of a linear layer; why algorithms of layers pass it by otherwise.
    pub(super) fn inputs(&self, quantizers: &Quantizers) -> Result<usize, SkipReason> {
        let Ok(Role::Weight(layout)) = quantizers.get(&self.weight_quantizer).map(|quantizer| self.role_of(quantizer))
        else {
            return Err(SkipReason::NotLinear);
        };
        if self.shape.len() != 2 {
            return Err(SkipReason::NotLinear);
        }
        let slot =
            self.input_quantizer.as_ref().and_then(|name| quantizers.get(name).ok()).ok_or(SkipReason::NoSlot)?;
        if slot.role() != (if self.pointwise { Role::Images } else { Role::Features }) {
            return Err(SkipReason::NotLinear);
        }
        if slot.is_enabled() && !slot.config().then.is_empty() {
            return Err(SkipReason::InputChain);
        }
        if slot.is_enabled() && slot.config().rotation.is_some() {
            return Err(SkipReason::Rotated);
        }
        Ok(self.shape[layout.block_axis])
    }
}

impl Site {
    /// The role of its weight's quantizer: of a convolution of one pixel, that of the matrix.
    pub(super) fn role_of(&self, quantizer: &TensorQuantizer) -> Role {
        match quantizer.role() {
            Role::Weight(WeightLayout { channel_axis, .. }) if self.pointwise => {
                Role::Weight(WeightLayout { channel_axis, block_axis: 1 - channel_axis })
            }
            role => role,
        }
    }

    /// Whether as many channels were seen as the weight has rows: those of a convolution in groups are more.
    pub(super) fn is_of_all_channels(&self, quantizers: &Quantizers, statistics: &ModelStatistics) -> bool {
        let seen = self.input_quantizer.as_ref().and_then(|name| statistics.get(name)?.channels.as_ref());
        !self.pointwise || seen.is_none_or(|seen| self.inputs(quantizers) == Ok(seen.sum.len()))
    }
}

/// All weights of a model with an enabled quantizer, by the names of their quantizers; `pointwise` counts convolutions of one pixel,
/// whose weights `[out, in, 1, ...]` are matrices, among the linear layers.
pub(crate) fn sites<M: Module>(model: &M, quantizers: &Quantizers, pointwise: bool) -> Vec<Site> {
    let weights = weights(model);
    let owned = |layer: &str| {
        let quantized = |weight: &&Weight| {
            let own = weight.path.rsplit_once('.').map_or("", |(layer, _)| layer);
            own == layer && quantizers.get(&weight.quantizer).is_ok()
        };
        weights.iter().filter(quantized).count()
    };
    let enabled = |weight: &&Weight| quantizers.get(&weight.quantizer).is_ok_and(|quantizer| quantizer.is_enabled());
    weights
        .iter()
        .filter(enabled)
        .map(|weight| {
            let layer = weight.path.rsplit_once('.').map_or("", |(layer, _)| layer);
            let within = |field: &str| if layer.is_empty() { field.to_string() } else { format!("{layer}.{field}") };
            let slot = within("input_quantizer");
            // with several weights in one struct, a slot could be that of any of them
            let has_slot = quantizers.get(&slot).is_ok() && (weight.field == "weight" || owned(layer) == 1);
            let bias = within("bias");
            let slot = has_slot.then_some(slot);
            let images = slot.as_ref().is_some_and(|slot| quantizers.get(slot).is_ok_and(|q| q.role() == Role::Images));
            let pointwise = pointwise && images && is_pointwise(weight, quantizers);
            Site {
                name: if layer.is_empty() { weight.field.clone() } else { layer.to_string() },
                weight: weight.path.clone(),
                shape: if pointwise { weight.shape[..2].to_vec() } else { weight.shape.clone() },
                pointwise,
                weight_quantizer: weight.quantizer.clone(),
                bias: weights.iter().any(|other| other.path == bias).then_some(bias),
                input_quantizer: slot,
                takes_low_rank: weight.container == "QuantLinear",
            }
        })
        .collect()
}

/// Whether a weight is a matrix in all that its quantizer does: no axis but those of channels is longer than 1, or divided.
fn is_pointwise(weight: &Weight, quantizers: &Quantizers) -> bool {
    let pixel = weight.shape.len() > 2 && weight.shape[2..].iter().all(|len| *len == 1);
    let of_channels = |quantizer: &TensorQuantizer| {
        let mut stages = std::iter::once(quantizer.config()).chain(&quantizer.config().then);
        stages.all(|stage| {
            let whole = matches!(stage.granularity, Granularity::PerTensor | Granularity::PerChannel);
            whole && stage.bias.is_none() && stage.rotation.is_none()
        })
    };
    pixel && quantizers.get(&weight.quantizer).is_ok_and(of_channels)
}

/// What is done with parameters of any rank.
pub(super) trait EachParameter {
    fn parameter<const D: usize>(&mut self, path: &str, value: Tensor<D>);
}

/// Shows the parameters of a model, before any reparameterization.
pub(super) fn each_parameter<M: Module>(model: &M, work: &mut impl EachParameter) {
    struct Visitor<'a, W> {
        path: Vec<Frame>,
        work: &'a mut W,
    }
    impl<W: EachParameter> ModuleVisitor for Visitor<'_, W> {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.push(Frame::new(name, container));
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }

        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.work.parameter(&join(&self.path), param.base().without_autodiff());
        }
    }
    model.visit(&mut Visitor { path: Vec::new(), work });
}

/// Parameters of a model as flat tensors with their shapes, by path.
#[derive(Default)]
pub(crate) struct Parameters {
    wanted: Vec<String>,
    pub(super) found: BTreeMap<String, (Tensor<1>, Vec<usize>)>,
}

impl Parameters {
    pub(crate) fn of<M: Module>(model: &M, wanted: Vec<String>) -> Self {
        let mut parameters = Self { wanted, found: BTreeMap::new() };
        each_parameter(model, &mut parameters);
        parameters
    }

    pub(super) fn matrix(&self, path: &str) -> Option<Tensor<2>> {
        let (values, shape) = self.found.get(path)?;
        Some(values.clone().reshape([shape[0], shape[1]]))
    }

    pub(crate) fn vector(&self, path: &str) -> Option<Tensor<1>> {
        self.found.get(path).map(|(values, _)| values.clone())
    }
}

impl EachParameter for Parameters {
    fn parameter<const D: usize>(&mut self, path: &str, value: Tensor<D>) {
        if self.wanted.iter().any(|wanted| wanted == path) {
            let shape = value.dims();
            let elements = shape.iter().product::<usize>();
            self.found.insert(path.to_string(), (value.reshape([elements]), shape.to_vec()));
        }
    }
}

/// Gives parameters new values, by path; each keeps its shape, dtype, device, id and whether it is trained.
pub(crate) fn replace_parameters<M: Module>(model: M, values: BTreeMap<String, Tensor<1>>) -> M {
    struct Replace {
        path: Vec<Frame>,
        values: BTreeMap<String, Tensor<1>>,
    }
    impl ModuleMapper for Replace {
        fn enter_module(&mut self, name: &str, container: &str) {
            self.path.push(Frame::new(name, container));
        }

        fn exit_module(&mut self, _name: &str, _container: &str) {
            self.path.pop();
        }

        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let Some(value) = self.values.remove(&join(&self.path)) else { return param };
            param.map(|old| in_place_of(&old, value.reshape(old.dims())))
        }
    }
    if values.is_empty() {
        return model;
    }
    model.map(&mut Replace { path: Vec::new(), values })
}

fn join(path: &[Frame]) -> String {
    path.iter().map(|frame| frame.name.as_str()).collect::<Vec<_>>().join(".")
}
