//! What an algorithm needs, and the ranges of all quantizers; `layers.rs` does the rest.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::algorithm::Registry;
use super::ranges::{activation_range, is_of_activations, set_ranges, suits};
use super::siblings::families;
use super::sites::sites;
use super::{LayerAlgorithm, SkipReason};
use crate::observe::{Needs, StatisticsNeeds, experts, is_weight};
use crate::place::{Weight, weights};
use crate::quantizer::Moment;
use crate::report::{LayerReport, StepReport};
use crate::{
    Algorithm, BlockScale, ChannelNeeds, Granularity, HistogramConfig, Inputs, ModelStatistics, QuantError,
    Quantization, Quantizers, ScaleFormat, TensorQuantizer,
};

/// Gives every enabled quantizer of a model the range that an algorithm finds in the statistics, and changes the layers that the
/// algorithm changes.
///
/// The report has a line for every layer that a step of the algorithm changed or skipped.
///
/// # Errors
///
/// [`QuantError::NeverObserved`] for a static quantizer without statistics — one of an expert takes those of its siblings —, [`QuantError::MissingStatistics`] for
/// statistics that were observed for another algorithm, [`QuantError::UnknownQuantizer`] for
/// statistics without a quantizer: they are of another model. [`QuantError::AlgorithmOption`] and
/// [`QuantError::UnknownAlgorithm`] for the algorithm itself; for custom ones see [`Quantization::calibrate`].
pub fn calibrate<M: Module>(
    model: M,
    statistics: &ModelStatistics,
    algorithm: &Algorithm,
) -> Result<(M, Vec<LayerReport>), QuantError> {
    Quantization::of_algorithm(algorithm).calibrate(model, statistics)
}

/// An algorithm with its steps.
pub(crate) struct Calibrator<'a> {
    pub(super) algorithm: &'a Algorithm,
    pub(super) steps: Vec<Box<dyn LayerAlgorithm>>,
}

impl<'a> Calibrator<'a> {
    pub(crate) fn new(algorithm: &'a Algorithm, registry: &Registry) -> Result<Self, QuantError> {
        algorithm.validate()?;
        Ok(Self { algorithm, steps: registry.layer_algorithms(algorithm)? })
    }

    /// Whether convolutions of one pixel are among the layers that the steps change.
    pub(super) fn takes_pointwise(&self) -> bool {
        self.steps.iter().all(|step| step.takes_pointwise()) && self.steps.iter().any(|step| step.needs().is_some())
    }

    /// The first step that cannot do without data.
    pub(crate) fn needs_data(&self) -> Option<&str> {
        let step = self.steps.iter().find(|step| step.needs().is_some()).map(|step| step.name());
        let of_activations =
            |step: &&Algorithm| is_of_activations(step) && *step.unrestricted() != Algorithm::MeanMagnitude;
        step.or_else(|| self.algorithm.steps().iter().find(of_activations).map(Algorithm::name))
    }

    /// What to collect of the quantizers of a placed model.
    pub(crate) fn needs<M: Module>(&self, model: &M) -> Needs {
        let quantizers = Quantizers::of(model);
        let mut needs = Needs::default();
        if let Some(channels) = self.steps.iter().filter_map(|step| step.needs()).max() {
            let sites = sites(model, &quantizers, self.takes_pointwise());
            let linear: BTreeMap<&str, (&String, usize)> = sites
                .iter()
                .filter_map(|site| {
                    Some((site.name.as_str(), (site.input_quantizer.as_ref()?, site.inputs(&quantizers).ok()?)))
                })
                .collect();
            for family in families(linear.keys().copied()) {
                let mut grams = BTreeMap::new();
                for (slot, inputs) in family.iter().map(|layer| linear[layer.as_str()]) {
                    needs.quantizers.entry(slot.clone()).or_default().channels = Some(channels);
                    grams.insert(slot.clone(), inputs * inputs * size_of::<f32>());
                }
                if channels == ChannelNeeds::Gram {
                    needs.grams.push(grams);
                }
            }
        }
        for step in self.algorithm.steps().iter().filter(|step| is_of_activations(step)) {
            for (name, quantizer) in quantizers.iter().filter(|(_, q)| q.is_enabled() && !is_weight(q)) {
                if step.is_for(layer_of(name)) && suits(step.unrestricted(), quantizer).is_ok() {
                    of_activation(
                        step.unrestricted(),
                        quantizer,
                        needs.quantizers.entry(name.to_string()).or_default(),
                    );
                }
            }
        }
        // GPTQ looks at what its layer multiplies, the local Hessian at what comes to the layer, as in the reference
        let moment = |step: &Algorithm| match step.unrestricted() {
            Algorithm::Gptq { inputs: Inputs::Quantized, .. } => Some(Moment::After),
            Algorithm::LocalHessian { inputs: Inputs::Quantized, .. } => Some(Moment::Before),
            _ => None,
        };
        if quantizers.iter().any(|(_, quantizer)| quantizer.is_enabled() && !is_weight(quantizer)) {
            needs.quantized = self.algorithm.steps().iter().rev().find_map(moment);
        }
        needs
    }

    /// Whether statistics that come from elsewhere have what the steps work on, in the sizes of the model.
    pub(crate) fn check<M: Module>(&self, model: &M, statistics: &ModelStatistics) -> Result<(), QuantError> {
        let Some(wanted) = self.steps.iter().filter_map(|step| step.needs()).max() else { return Ok(()) };
        let quantizers = Quantizers::of(model);
        for site in sites(model, &quantizers, self.takes_pointwise()) {
            if !site.is_of_all_channels(&quantizers, statistics) {
                continue;
            }
            let (Ok(inputs), Some(name)) = (site.inputs(&quantizers), site.input_quantizer) else { continue };
            let Some(seen) = statistics.get(&name) else { continue };
            let missing = |missing| QuantError::MissingStatistics { name: name.clone(), missing };
            let channels = seen.channels.as_ref().ok_or(missing("sums over channels"))?;
            let changed = |found| QuantError::GroupsChanged { name: name.clone(), expected: inputs, found };
            let lengths = [&channels.amax, &channels.sum, &channels.sum_abs].map(Vec::len);
            lengths.into_iter().find(|found| *found != inputs).map_or(Ok(()), |found| Err(changed(found)))?;
            if wanted == ChannelNeeds::Gram {
                let gram = channels.gram.as_ref().ok_or(missing("Gram matrix"))?;
                if gram.size != inputs || !gram.is_whole() {
                    return Err(changed(gram.size));
                }
            }
        }
        Ok(())
    }

    /// The ranges of all quantizers: by `max`, those of activations by what the algorithm says.
    pub(crate) fn with_ranges<M: Module>(
        &self,
        model: M,
        statistics: &ModelStatistics,
    ) -> Result<(M, Vec<LayerReport>), QuantError> {
        let mut quantizers = Quantizers::of(&model);
        let weights = weights(&model);
        let stages = |(name, quantizer): (&str, &TensorQuantizer)| {
            quantizer.stages(name).map(|(name, _)| name).collect::<Vec<_>>()
        };
        let names: Vec<String> = quantizers.iter().flat_map(stages).collect();
        if let Some((unknown, _)) = statistics.iter().find(|(name, _)| !names.iter().any(|known| known == name)) {
            return Err(quantizers.unknown(unknown));
        }
        let lent = experts::lend(names.iter().map(String::as_str), statistics)?;
        let merged;
        let statistics = if lent.is_empty() {
            statistics
        } else {
            merged = statistics.clone().merge(lent.clone())?;
            &merged
        };
        let (mut problem, mut reports) = (None, Vec::new());
        for (name, quantizer) in quantizers.iter_mut() {
            let device = device_of(name, &weights);
            let enabled = quantizer.is_enabled();
            quantizer.for_each_stage(name, |name, stage| {
                if let Some(seen) = statistics.get(&name)
                    && enabled
                    && let Err(error) = set_ranges(stage, &name, seen, &device)
                {
                    problem.get_or_insert(error);
                }
            });
            if enabled && !is_weight(quantizer) {
                let steps = self.activation(quantizer, name, statistics, &device);
                let borrows = (quantizer.needs_calibration() && lent.get(name).is_some())
                    .then(|| StepReport::skipped(Algorithm::Max.name(), SkipReason::NoTokens));
                match steps.map(|steps| borrows.into_iter().chain(steps).collect::<Vec<_>>()) {
                    Ok(steps) if steps.is_empty() => {}
                    Ok(steps) => reports.push(LayerReport::of_quantizer(name, steps)),
                    Err(error) => drop(problem.get_or_insert(error)),
                }
            }
            if quantizer.is_uncalibrated() {
                problem.get_or_insert(QuantError::NeverObserved { name: name.into() });
            }
        }
        match problem {
            Some(problem) => Err(problem),
            None => Ok((quantizers.install(model)?, reports)),
        }
    }

    fn activation(
        &self,
        quantizer: &mut TensorQuantizer,
        name: &str,
        statistics: &ModelStatistics,
        device: &Device,
    ) -> Result<Vec<StepReport>, QuantError> {
        let mut steps = Vec::new();
        let of_this = |step: &&Algorithm| is_of_activations(step) && step.is_for(layer_of(name));
        for step in self.algorithm.steps().iter().filter(of_this).map(Algorithm::unrestricted) {
            if let Err(reason) = suits(step, quantizer) {
                steps.push(StepReport::skipped(step.name(), reason));
                continue;
            }
            let Some(seen) = statistics.get(name) else { continue };
            let largest = seen.amax.iter().copied().fold(0.0, f32::max);
            steps.push(match activation_range(step, quantizer, name, seen)? {
                None => StepReport::skipped(step.name(), SkipReason::NoGain),
                Some(amax) => {
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

fn of_activation(step: &Algorithm, quantizer: &TensorQuantizer, needs: &mut StatisticsNeeds) {
    let mut count = |histogram: &HistogramConfig| needs.histogram = Some(*histogram);
    match step {
        Algorithm::Percentile { histogram, .. }
        | Algorithm::Entropy { histogram, .. }
        | Algorithm::HistogramMse { histogram, .. } => count(histogram),
        Algorithm::MeanMagnitude => needs.channels = needs.channels.max(Some(ChannelNeeds::Ranges)),
        Algorithm::MovingAverage { .. } => needs.history = true,
        Algorithm::ActivationHeadroom { .. } => {
            let config = quantizer.config();
            debug_assert_eq!(config.scale, ScaleFormat::E4M3(BlockScale::Dynamic));
            if let Granularity::Block { size } = config.granularity {
                needs.blocks = Some(size);
            }
        }
        _ => {}
    }
}

/// Where the layer of each quantizer of a model lives, by name: what is calibrated or restored goes there.
pub fn quantizer_devices<M: Module>(model: &M) -> BTreeMap<String, Device> {
    let weights = weights(model);
    Quantizers::of(model).names().map(|name| (name.to_string(), device_of(name, &weights))).collect()
}

/// The path of the layer of a quantizer.
fn layer_of(quantizer: &str) -> &str {
    quantizer.rsplit_once('.').map_or("", |(layer, _)| layer)
}

/// Where the layer of a quantizer lives: the device of its own parameters, else of the model's first.
fn device_of(name: &str, weights: &[Weight]) -> Device {
    let layer = layer_of(name);
    let own = weights.iter().find(|w| w.quantizer == name || w.path.starts_with(&format!("{layer}.")));
    own.or(weights.first()).map(|weight| weight.device.clone()).unwrap_or_default()
}
