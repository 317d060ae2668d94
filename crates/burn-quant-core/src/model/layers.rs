//! Where the quantized layers of a model are: which weight, bias, and quantizers belong together.

use std::collections::HashMap;

use super::{ModelIndex, ParameterRef, layer_of, within};
use crate::config::Granularity;
use crate::layout::{Role, WeightLayout};
use crate::quantizer::TensorQuantizer;

/// A weight with an enabled quantizer, and what belongs to it.
#[derive(Clone, Debug)]
pub struct LayerRef {
    /// The path of the layer; of a struct with several quantized weights, that of the weight.
    pub name: String,
    /// The path of its weight.
    pub weight: String,
    /// The shape of its weight; of a convolution of one pixel that counts as a matrix, that of the matrix.
    pub shape: Vec<usize>,
    /// Whether it is such a convolution.
    pub pointwise: bool,
    /// The name of the weight's quantizer.
    pub weight_quantizer: String,
    /// The path of its bias, if it has one.
    pub bias: Option<String>,
    /// The name of the input's quantizer.
    pub input_quantizer: Option<String>,
    /// Whether its forward adds a branch of low rank.
    pub takes_low_rank: bool,
}

impl LayerRef {
    /// The role of its weight's quantizer: of a convolution of one pixel, that of the matrix.
    pub fn role_of(&self, quantizer: &TensorQuantizer) -> Role {
        match quantizer.role() {
            Role::Weight(WeightLayout { channel_axis, .. }) if self.pointwise => {
                Role::Weight(WeightLayout::new(channel_axis, 1 - channel_axis))
            }
            role => role,
        }
    }
}

/// Finds all weights of a model with an enabled quantizer, in the order of the model's fields.
///
/// `pointwise` counts convolutions of one pixel, whose weights `[out, in, 1, ...]` are matrices, among the linear
/// layers.
pub fn layers(index: &ModelIndex, pointwise: bool) -> Vec<LayerRef> {
    let quantizers = &index.quantizers;
    let weights = || index.parameters().iter().filter(|weight| quantizers.find(&weight.quantizer).is_some());
    let mut weights_of: HashMap<&str, usize> = HashMap::new();
    weights().for_each(|weight| *weights_of.entry(layer_of(&weight.path)).or_default() += 1);
    let enabled = |weight: &&ParameterRef| quantizers.find(&weight.quantizer).is_some_and(TensorQuantizer::is_enabled);
    let layer = |weight: &ParameterRef| {
        let layer = layer_of(&weight.path);
        let (input, bias) = (within(layer, "input_quantizer"), within(layer, "bias"));
        // with several weights in one struct, an activation quantizer or a bias could be that of any of them
        let single = weights_of[layer] == 1;
        let input_quantizer = quantizers.find(&input).filter(|_| weight.field == "weight" || single);
        let images = input_quantizer.is_some_and(|quantizer| quantizer.role() == Role::ChannelsFirst);
        let quantizer = quantizers.find(&weight.quantizer);
        let pointwise = pointwise && images && quantizer.is_some_and(|quantizer| is_pointwise(weight, quantizer));
        LayerRef {
            name: match (layer, single) {
                ("", _) => weight.field.clone(),
                (layer, true) => layer.to_string(),
                (_, false) => weight.path.clone(),
            },
            weight: weight.path.clone(),
            shape: if pointwise { weight.shape[..2].to_vec() } else { weight.shape.clone() },
            pointwise,
            weight_quantizer: weight.quantizer.clone(),
            bias: index
                .parameter_at(&bias)
                .filter(|_| weight.field == "weight" || single)
                .map(|bias| bias.path.clone()),
            takes_low_rank: quantizers.container_of(&input) == Some("QuantLinear"),
            input_quantizer: input_quantizer.is_some().then_some(input),
        }
    };
    weights().filter(enabled).map(layer).collect()
}

/// Whether a weight is a matrix in all that its quantizer does: no axis but those of channels is longer than 1, or
/// divided.
fn is_pointwise(weight: &ParameterRef, quantizer: &TensorQuantizer) -> bool {
    let pixel = weight.shape.len() > 2 && weight.shape[2..].iter().all(|len| *len == 1);
    let mut stages = std::iter::once(quantizer.config()).chain(&quantizer.config().then);
    pixel
        && stages.all(|stage| {
            let whole = matches!(stage.granularity, Granularity::PerTensor | Granularity::PerChannel);
            whole && stage.bias.is_none() && stage.rotation.is_none()
        })
}
