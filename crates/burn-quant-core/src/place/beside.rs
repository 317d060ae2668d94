//! Quantizers in structs of the user's, beside a convolution of burn's that reads what they quantize.

use super::Plan;
use super::layout::Resolved;
use crate::config::Granularity;
use crate::layout::{Role, burn_layer_name, burns, role_of_inputs};
use crate::model::{ModelIndex, ParameterRef, layer_of, within};

/// An activation quantizer that looks for channels in the last axis, and the convolution beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BesideConvolution {
    /// The name of the quantizer.
    pub quantizer: String,
    /// The path of the convolution.
    pub layer: String,
}

/// Layers of burn's with a quantized weight and no quantizer of their inputs, in a model that quantizes inputs
/// elsewhere: they were left out where layers of `nn` took the place of burn's.
pub(super) fn inputs_in_float(index: &ModelIndex, plan: &Plan) -> Vec<String> {
    let enabled = |name: &str| plan.quantizers.get(name).is_some_and(|planned| planned.enabled);
    let inputs = index.quantizers.names().any(|name| name.ends_with("input_quantizer") && enabled(name));
    let placed_by_hand = |layer: &str| {
        let owner = within(layer_of(layer), "");
        let field = |name: &str| name.strip_prefix(owner.as_str()).is_some_and(|rest| !rest.contains('.'));
        index.quantizers.names().any(field)
    };
    let left_out = |weight: &&ParameterRef| {
        let layer = layer_of(&weight.path);
        enabled(&weight.quantizer)
            && burns(&weight.container, &weight.field).is_some()
            && burn_layer_name(&weight.container) != "Embedding"
            && index.quantizers.find(&within(layer, "input_quantizer")).is_none()
            && !placed_by_hand(layer)
    };
    if !inputs {
        return Vec::new();
    }
    let layers = index.parameters().iter().filter(left_out).map(|weight| layer_of(&weight.path).to_string());
    layers.collect()
}

/// The enabled quantizers whose groups depend on where channels are, and who look for them elsewhere than the
/// convolution that they are named after: `input_quantizer` beside a single layer, or `conv_input_quantizer` beside
/// `conv`.
pub(super) fn beside_convolutions(index: &ModelIndex, plan: &Plan, layouts: &Resolved) -> Vec<BesideConvolution> {
    let looks_last = plan.quantizers.iter().filter(|(_, planned)| {
        let of_channels = !matches!(planned.config.granularity, Granularity::PerTensor | Granularity::Axes(_));
        planned.enabled && planned.role == Role::ChannelsLast && of_channels
    });
    let beside = |name: &String| {
        let (owner, field) = (layer_of(name), name.rsplit('.').next()?);
        if index.parameters_of(owner).next().is_some() {
            return None; // a layer with a weight of its own, which the plan is checked against
        }
        let layer = match field.strip_suffix("_input_quantizer") {
            Some(layer) => within(owner, layer),
            None if field == "input_quantizer" => single_layer(index, owner)?,
            None => return None,
        };
        let weight = index.parameter_at(&within(&layer, "weight"))?;
        let own = index.quantizers.find(&within(&layer, "input_quantizer")).is_some();
        let reads_images =
            layouts.get(&weight.path).is_some() && role_of_inputs(&weight.container) == Some(Role::ChannelsFirst);
        (reads_images && !own).then(|| BesideConvolution { quantizer: name.clone(), layer })
    };
    looks_last.filter_map(|(name, _)| beside(name)).collect()
}

/// The one layer with parameters inside a struct.
fn single_layer(index: &ModelIndex, owner: &str) -> Option<String> {
    let inside = |parameter: &&ParameterRef| {
        owner.is_empty() || parameter.path.strip_prefix(owner).is_some_and(|rest| rest.starts_with('.'))
    };
    let mut layers = index.parameters().iter().filter(inside).map(|parameter| layer_of(&parameter.path));
    let first = layers.next()?;
    (first != owner && layers.all(|layer| layer == first)).then(|| first.to_string())
}
