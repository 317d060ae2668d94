//! The steps of an algorithm: what they want to know, whether they go together, and the ranges of all quantizers.

use std::collections::{BTreeMap, HashMap};

use burn::tensor::{Device, Tensor};

use super::ranges::set_ranges;
use super::report::{LayerReport, StepReport};
use super::siblings::families;
use super::steps::{CustomAlgorithms, Step};
use super::{SkipReason, Stage};
use crate::config::Algorithm;
use crate::observe::{CaptureAt, InputStatistics, ModelRequest, StatisticsRequest, experts, is_weight};
use crate::observe::{ModelStatistics, Statistics};
use burn_quant_core::error::QuantError;
use burn_quant_core::layout::Role;
use burn_quant_core::model::{LayerRef, ModelIndex, layer_of, layers};
use burn_quant_core::quantizer::TensorQuantizer;

/// An algorithm, ready to run.
pub(crate) struct Calibrator {
    pub(super) steps: Vec<Step>,
    /// Layers that are known to read one tensor.
    pub(super) siblings: Vec<Vec<String>>,
}

impl Calibrator {
    pub(crate) fn new(algorithm: &Algorithm, custom: &CustomAlgorithms) -> Result<Self, QuantError> {
        algorithm.validate()?;
        Ok(Self { steps: custom.steps(algorithm)?, siblings: Vec::new() })
    }

    pub(crate) fn with_siblings(self, siblings: &[Vec<String>]) -> Self {
        Self { siblings: siblings.to_vec(), ..self }
    }

    /// The quantized layers of a model, as the steps see them.
    pub(super) fn layers(&self, index: &ModelIndex) -> Vec<LayerRef> {
        let pointwise =
            self.steps.iter().all(|step| step.supports_pointwise()) && self.steps.iter().any(|s| s.inputs().is_some());
        layers(index, pointwise)
    }

    /// The first step that cannot do without data.
    pub(crate) fn needs_data(&self) -> Option<&str> {
        self.steps.iter().find(|step| step.needs_data()).map(|step| step.name())
    }

    /// What to collect of the quantizers of a placed model.
    ///
    /// # Errors
    ///
    /// [`QuantError::StepOrder`] and [`QuantError::StepsConflict`] for a sequence whose steps undo each other.
    pub(crate) fn request(&self, index: &ModelIndex) -> Result<ModelRequest, QuantError> {
        let layers = self.layers(index);
        self.check_order(&layers)?;
        let mut request = ModelRequest { grams_at: self.grams_at(index)?, ..ModelRequest::default() };
        if let Some(channels) = self.steps.iter().filter_map(|step| step.inputs()).max() {
            let linear: HashMap<&str, (&String, usize)> = layers
                .iter()
                .filter_map(|layer| {
                    Some((layer.name.as_str(), (layer.input_quantizer.as_ref()?, inputs_of(layer, index).ok()?)))
                })
                .collect();
            let names = layers.iter().map(|layer| layer.name.as_str()).filter(|name| linear.contains_key(name));
            for family in families(names, &self.siblings) {
                let mut grams = BTreeMap::new();
                for (quantizer, inputs) in family.iter().map(|layer| linear[layer.as_str()]) {
                    request.quantizers.entry(quantizer.clone()).or_default().channels = Some(channels);
                    grams.insert(quantizer.clone(), inputs * inputs * size_of::<f32>());
                }
                if channels == InputStatistics::Gram {
                    request.grams.push(grams);
                }
            }
        }
        for (name, quantizer) in index.quantizers.iter().filter(|(_, q)| q.is_enabled() && !is_weight(q)) {
            for (_, wanted) in self.of_activation(name, quantizer)? {
                let entry = request.quantizers.entry(name.to_string()).or_default();
                entry.channels = entry.channels.max(wanted.channels);
                entry.histogram = wanted.histogram.or(entry.histogram);
                entry.blocks = wanted.blocks.or(entry.blocks);
                entry.history |= wanted.history;
            }
        }
        Ok(request)
    }

    /// The steps that find the range of an activation, with what they want to know.
    fn of_activation(
        &self,
        name: &str,
        quantizer: &TensorQuantizer,
    ) -> Result<Vec<(&Step, StatisticsRequest)>, QuantError> {
        let layer = layer_of(name);
        let steps = self.steps.iter().filter(|step| step.is_for(layer));
        let found: Vec<_> = steps.filter_map(|step| Some((step, step.request(quantizer).ok()?))).collect();
        let conflict = |first: &Step, second: &Step, why| QuantError::StepsConflict {
            at: name.into(),
            first: first.name().into(),
            second: second.name().into(),
            why,
        };
        if let [(first, _), (second, _), ..] = found[..] {
            return Err(conflict(first, second, "both find its range"));
        }
        let smooths = |step: &&Step| step.stage() <= Stage::Branch && step.is_for(layer);
        if let ([(range, _)], Some(smooths)) = (&found[..], self.steps.iter().find(smooths))
            && name.ends_with("input_quantizer")
        {
            return Err(conflict(smooths, range, "smoothing takes its range by `max`"));
        }
        Ok(found)
    }

    /// Whether each step keeps what those before it did to the same layer.
    fn check_order(&self, layers: &[LayerRef]) -> Result<(), QuantError> {
        for layer in layers {
            let of_weights = |step: &&Step| step.is_for(&layer.name) && !(step.needs_data() && step.inputs().is_none());
            let steps: Vec<&Step> = self.steps.iter().filter(of_weights).collect();
            for (i, then) in steps.iter().enumerate() {
                if let Some(first) = steps[..i].iter().find(|first| !then.stage().may_follow(first.stage())) {
                    return Err(QuantError::StepOrder {
                        layer: layer.name.clone(),
                        first: format!("{}` {}", first.name(), first.stage()),
                        then: format!("{}` {}", then.name(), then.stage()),
                    });
                }
            }
        }
        Ok(())
    }

    /// Of which tensors the Gram matrices are: all steps that look at them must agree.
    fn grams_at(&self, index: &ModelIndex) -> Result<Option<CaptureAt>, QuantError> {
        let mut of_grams = self.steps.iter().filter(|step| step.inputs() == Some(InputStatistics::Gram));
        let Some(first) = of_grams.next() else { return Ok(None) };
        if let Some(second) = of_grams.find(|step| step.at != first.at) {
            return Err(QuantError::StepsConflict {
                at: "the inputs of layers".into(),
                first: first.name().into(),
                second: second.name().into(),
                why: "they measure errors on different inputs, float or quantized",
            });
        }
        let quantized = index.quantizers.iter().any(|(_, quantizer)| quantizer.is_enabled() && !is_weight(quantizer));
        Ok(Some(if quantized { first.at } else { CaptureAt::Float }))
    }

    /// Whether statistics that come from elsewhere have what the steps work on, in the sizes of the model.
    pub(crate) fn check(&self, index: &ModelIndex, statistics: &ModelStatistics) -> Result<(), QuantError> {
        let layers = self.layers(index);
        self.check_order(&layers)?;
        let Some(wanted) = self.steps.iter().filter_map(|step| step.inputs()).max() else { return Ok(()) };
        for layer in layers {
            if !is_of_all_channels(&layer, index, statistics) {
                continue;
            }
            let (Ok(inputs), Some(name)) = (inputs_of(&layer, index), layer.input_quantizer) else { continue };
            let Some(seen) = statistics.get(&name) else { continue };
            let missing = |missing| QuantError::MissingStatistics { name: name.clone(), missing };
            let channels = seen.channels.as_ref().ok_or(missing("sums over channels"))?;
            let changed = |found| QuantError::GroupsChanged { name: name.clone(), expected: inputs, found };
            let lengths = [&channels.amax, &channels.sum, &channels.sum_abs].map(Vec::len);
            lengths.into_iter().find(|found| *found != inputs).map_or(Ok(()), |found| Err(changed(found)))?;
            if wanted == InputStatistics::Gram {
                let gram = channels.gram.as_ref().ok_or(missing("Gram matrix"))?;
                if gram.size != inputs || !gram.is_whole() {
                    return Err(changed(gram.size));
                }
            }
        }
        Ok(())
    }

    /// Gives all quantizers of a model their ranges: by `max`, those of activations by what the steps say.
    ///
    /// `devices` says where activations were, for quantizers of a model without parameters.
    pub(crate) fn set_ranges(
        &self,
        index: &mut ModelIndex,
        statistics: &ModelStatistics,
        devices: &HashMap<String, Device>,
    ) -> Result<Vec<LayerReport>, QuantError> {
        let mut quantizers = std::mem::take(&mut index.quantizers);
        let stages = |(name, quantizer): (&str, &TensorQuantizer)| {
            quantizer.stages(name).map(|(name, _)| name).collect::<Vec<_>>()
        };
        let names: Vec<String> = quantizers.iter().flat_map(stages).collect();
        let known: std::collections::HashSet<&str> = names.iter().map(String::as_str).collect();
        if let Some((unknown, _)) = statistics.iter().find(|(name, _)| !known.contains(name)) {
            return Err(quantizers.unknown(unknown));
        }
        let lent = experts::lend(names.iter().map(String::as_str), statistics)?;
        let seen_by = |name: &str| statistics.get(name).or_else(|| lent.get(name));
        let mut reports = Vec::new();
        for (name, quantizer) in quantizers.iter_mut() {
            let device = index.device_of(name).or_else(|| devices.get(name).cloned()).unwrap_or_default();
            if quantizer.is_enabled() {
                let mut problem = None;
                quantizer.for_each_stage(name, |name, stage| {
                    if let Some(seen) = seen_by(&name)
                        && let Err(error) = set_ranges(stage, &name, seen, &device)
                    {
                        problem.get_or_insert(error);
                    }
                });
                problem.map_or(Ok(()), Err)?;
                if !is_weight(quantizer) {
                    let borrows = lent.get(name).is_some();
                    let steps = self.range_of(quantizer, name, seen_by(name), borrows, &device)?;
                    if !steps.is_empty() {
                        reports.push(LayerReport::of_quantizer(name, steps));
                    }
                }
            }
            if quantizer.is_uncalibrated() {
                return Err(QuantError::NeverObserved { name: name.into() });
            }
        }
        index.quantizers = quantizers;
        Ok(reports)
    }

    /// The range of an activation, by the steps that find it.
    fn range_of(
        &self,
        quantizer: &mut TensorQuantizer,
        name: &str,
        seen: Option<&Statistics>,
        borrows: bool,
        device: &Device,
    ) -> Result<Vec<StepReport>, QuantError> {
        let mut steps = Vec::new();
        if borrows && quantizer.needs_calibration() {
            steps.push(StepReport::skipped(Algorithm::Max.name(), SkipReason::NoTokens));
        }
        for step in self.steps.iter().filter(|step| step.is_for(layer_of(name))) {
            let wanted = match step.request(quantizer) {
                Ok(wanted) => wanted,
                Err(SkipReason::NotMine) => continue,
                Err(reason) => {
                    steps.push(StepReport::skipped(step.name(), reason));
                    continue;
                }
            };
            let Some(seen) = seen else { continue };
            if let Some(missing) = missing(&wanted, seen) {
                if !borrows {
                    return Err(QuantError::MissingStatistics { name: name.into(), missing });
                }
                steps.push(StepReport::skipped(step.name(), SkipReason::NoTokens));
                continue;
            }
            let largest = seen.amax.iter().copied().fold(0.0, f32::max);
            steps.push(match step.range(quantizer, seen) {
                Err(reason) => StepReport::skipped(step.name(), reason),
                Ok(amax) => {
                    check_range(step.name(), name, &amax, seen.amax.len())?;
                    let chosen = amax.iter().copied().fold(0.0, f32::max);
                    quantizer.set_amax(Tensor::<1>::from_data(amax.as_slice(), device));
                    let choices = BTreeMap::from([("amax".to_string(), chosen), ("largest".to_string(), largest)]);
                    StepReport::solved(step.name(), choices)
                }
            });
        }
        Ok(steps)
    }
}

/// Whether an algorithm found a range for each group, finite and not negative.
fn check_range(algorithm: &str, quantizer: &str, amax: &[f32], groups: usize) -> Result<(), QuantError> {
    let unusable = amax.iter().find(|amax| !amax.is_finite() || **amax < 0.0);
    let found = match unusable {
        Some(found) => format!("a range of {found}"),
        None if amax.len() != groups => format!("{} ranges", amax.len()),
        None => return Ok(()),
    };
    let expected = format!("{groups}, one per group, finite and not negative");
    Err(QuantError::AlgorithmRange { algorithm: algorithm.into(), quantizer: quantizer.into(), found, expected })
}

/// What statistics lack of what was asked for.
fn missing(wanted: &StatisticsRequest, seen: &Statistics) -> Option<&'static str> {
    let lacks = [
        (wanted.channels.is_some() && seen.channels.is_none(), "sums over channels"),
        (wanted.histogram.is_some() && seen.histogram.is_none(), "histogram"),
        (wanted.blocks.is_some() && seen.blocks.is_none(), "histogram of block ranges"),
        (wanted.history && seen.history.is_empty(), "history of batches"),
    ];
    lacks.into_iter().find(|(lacks, _)| *lacks).map(|(_, missing)| missing)
}

/// Channels of the inputs of a linear layer; why algorithms of layers skip it otherwise.
pub(super) fn inputs_of(layer: &LayerRef, index: &ModelIndex) -> Result<usize, SkipReason> {
    let weight = index.quantizers.find(&layer.weight_quantizer);
    let Some(Role::Weight(layout)) = weight.map(|quantizer| layer.role_of(quantizer)) else {
        return Err(SkipReason::NotLinear);
    };
    if layer.shape.len() != 2 {
        return Err(SkipReason::NotLinear);
    }
    let input = layer
        .input_quantizer
        .as_ref()
        .and_then(|name| index.quantizers.find(name))
        .ok_or(SkipReason::NoActivationQuantizer)?;
    if input.role() != (if layer.pointwise { Role::ChannelsFirst } else { Role::ChannelsLast }) {
        return Err(SkipReason::NotLinear);
    }
    if input.is_enabled() && !input.config().then.is_empty() {
        return Err(SkipReason::InputChain);
    }
    if input.is_enabled() && input.config().rotation.is_some() {
        return Err(SkipReason::Rotated);
    }
    Ok(layer.shape[layout.block_axis])
}

/// Whether as many channels were seen as the weight has rows: those of a convolution in groups are more.
pub(super) fn is_of_all_channels(layer: &LayerRef, index: &ModelIndex, statistics: &ModelStatistics) -> bool {
    let seen = layer.input_quantizer.as_ref().and_then(|name| statistics.get(name)?.channels.as_ref());
    !layer.pointwise || seen.is_none_or(|seen| inputs_of(layer, index) == Ok(seen.sum.len()))
}
