//! What quantizers do to weights: no data is needed, each weight is looked at once.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};
use burn_quant_core::config::{Granularity, QuantizerConfig};
use burn_quant_core::layout::burns;
use burn_quant_core::model::{Path, Quantizers, Visit, host, layer_of, visit, within};
use burn_quant_core::quantizer::{AnyTensor, Buffer, TensorQuantizer};
use burn_quant_ops::{AxisGroups, GradientRule};

use super::sample::SharedPlaces;
use super::{QuantizerNumbers, QuantizerSums};

/// Below this ratio of the median channel, in decibels, other configurations of a weight are tried.
const TRIED_BELOW: f64 = 36.0;

/// What was measured of one weight.
#[derive(Clone, Debug)]
pub(crate) struct WeightNumbers {
    /// What its quantizer does to it.
    pub(crate) numbers: QuantizerNumbers,
    /// The largest magnitude of each group that has a range.
    pub(crate) seen: Vec<f32>,
    /// The axis of output channels, if the layer is one of burn's.
    pub(crate) output_axis: Option<usize>,
    /// The distance to the weight of the float model, over the norm of that; `None` if it cannot be compared.
    pub(crate) distance: Option<f64>,
    /// What other configurations would do.
    pub(crate) alternatives: Vec<Alternative>,
}

/// Another configuration of a quantizer.
#[derive(Clone, Debug)]
pub(crate) struct Alternative {
    /// The configuration.
    pub(crate) config: QuantizerConfig,
    /// The median of the channels' signal to noise with it, in decibels.
    pub(crate) channel_sqnr: f64,
}

/// Looks at the weights of a model whose quantizers are enabled, and at those of the float model.
pub(crate) fn of_weights<M: Module>(
    float: &M,
    quantized: &M,
    quantizers: &Quantizers,
) -> BTreeMap<String, WeightNumbers> {
    let mut floats = Floats::default();
    visit(float, &mut floats);
    let places = SharedPlaces::default();
    let mut work = Weights { quantizers, floats: &floats.0, places: &places, found: BTreeMap::new() };
    visit(quantized, &mut work);
    work.found
}

/// The weights of the float model, by path.
#[derive(Default)]
struct Floats(BTreeMap<String, AnyTensor>);

impl Visit for Floats {
    fn parameter<const D: usize>(&mut self, at: &Path, param: &Param<Tensor<D>>) {
        self.0.insert(at.joined(), param.base().without_autodiff().into());
    }
}

struct Weights<'a> {
    quantizers: &'a Quantizers,
    floats: &'a BTreeMap<String, AnyTensor>,
    places: &'a SharedPlaces,
    found: BTreeMap<String, WeightNumbers>,
}

impl Visit for Weights<'_> {
    fn parameter<const D: usize>(&mut self, at: &Path, param: &Param<Tensor<D>>) {
        let name = at.weight_quantizer_name();
        let Some(quantizer) = self.quantizers.find(&name).filter(|quantizer| quantizer.is_enabled()) else { return };
        let weight = param.base().without_autodiff().cast(DType::F32);
        if weight.dims().contains(&0) || quantizer.packed().is_some() {
            return;
        }
        let mut quantizer = quantizer.clone();
        // what training adds to a weight is no error of rounding
        [Buffer::LowRankDown, Buffer::LowRankUp].into_iter().for_each(|buffer| quantizer.clear_buffer(buffer));
        let numbers = rounding(&quantizer, &weight, self.places);
        let input = self.quantizers.find(&within(layer_of(&at.joined()), "input_quantizer"));
        let found = WeightNumbers {
            seen: host(quantizer.group_amax(weight.clone())),
            output_axis: burns(at.container(), at.field()).map(|(_, layout)| layout.channel_axis),
            distance: self.floats.get(&at.joined()).and_then(|float| distance(float, &weight, input)),
            alternatives: match numbers.channel_sqnr() {
                Some(sqnr) if sqnr >= TRIED_BELOW => Vec::new(),
                _ => alternatives(&quantizer, &weight, self.places),
            },
            numbers,
        };
        self.found.insert(name, found);
    }
}

/// The distance between two weights over the norm of the first, with what a smoothed input takes from the second.
fn distance<const D: usize>(float: &AnyTensor, weight: &Tensor<D>, input: Option<&TensorQuantizer>) -> Option<f64> {
    let weight = AnyTensor::from(weight.clone());
    let merged = match (input, weight.shape().len()) {
        (Some(input), 2) => input.merged_into(weight.ranked()).into(),
        _ => weight,
    };
    if float.shape() != merged.shape() {
        return None;
    }
    let float = float.flat().to_device(&merged.flat().device()).cast(DType::F32);
    let norm = |x: Tensor<1>| f64::from(host(x.square().sum())[0]).sqrt();
    let distance = norm(merged.flat() - float.clone()) / norm(float);
    distance.is_finite().then_some(distance)
}

/// What other configurations would do to a weight: ranges along other axes, of blocks, and eight bits.
fn alternatives<const D: usize>(
    quantizer: &TensorQuantizer,
    weight: &Tensor<D>,
    places: &SharedPlaces,
) -> Vec<Alternative> {
    let present = quantizer.config();
    let mut configs = Vec::new();
    for axis in 0..D {
        let mut axes = vec![AxisGroups::Whole; D];
        axes[axis] = AxisGroups::Each;
        configs.push(static_range(present).with_granularity(Granularity::Axes(axes)));
    }
    configs.push(static_range(present).per_channel());
    configs.push(static_range(present).per_block(32));
    configs.push(QuantizerConfig::int(8).per_channel());
    let tried = configs.into_iter().filter(|config| *config != static_range(present));
    let with = |config: QuantizerConfig| {
        let quantizer = TensorQuantizer::new(config.clone(), quantizer.role()).calibrated_max(weight);
        let channel_sqnr = rounding(&quantizer, weight, places).channel_sqnr()?;
        Some(Alternative { config, channel_sqnr })
    };
    tried.filter_map(with).collect()
}

/// A configuration of the same format with plain ranges that calibration finds.
fn static_range(present: &QuantizerConfig) -> QuantizerConfig {
    let gradient = match present.gradient {
        GradientRule::Clipped => GradientRule::Clipped,
        _ => GradientRule::PassThrough,
    };
    QuantizerConfig { gradient, ..QuantizerConfig::new(present.format) }
}

/// What a quantizer does to a weight.
fn rounding<const D: usize>(
    quantizer: &TensorQuantizer,
    weight: &Tensor<D>,
    places: &SharedPlaces,
) -> QuantizerNumbers {
    let mut sums = QuantizerSums::default();
    let rounded = quantizer.forward(weight.clone());
    sums.add(quantizer.role(), &weight.clone().into(), &rounded.into(), places);
    sums.on_host()
}
