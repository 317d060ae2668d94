//! The whole of a calibration: ranges of all quantizers, then the layers, step by step.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use super::algorithm::Registry;
use super::range_search::least_squares;
use super::ranges::{activation_range, is_of_activations, set_ranges, suits};
use super::siblings::{families, share_global_amax, share_inputs};
use super::sites::{EachParameter, Parameters, Site, each_parameter, replace_parameters, sites};
use super::{Layer, LayerAlgorithm, SkipReason};
use crate::observe::{Needs, StatisticsNeeds, is_weight};
use crate::place::{Weight, weights};
use crate::quantizer::Moment;
use crate::report::{LayerReport, StepReport};
use crate::{
    Algorithm, BlockScale, ChannelNeeds, Granularity, HistogramConfig, Inputs, ModelStatistics, QuantError,
    Quantization, Quantizers, RangeSearch, ScaleFormat, TensorQuantizer,
};

/// Gives every enabled quantizer of a model the range that an algorithm finds in the statistics, and changes the layers that the
/// algorithm changes.
///
/// The report has a line for every layer that a step of the algorithm changed or skipped.
///
/// # Errors
///
/// [`QuantError::NeverObserved`] for a static quantizer without statistics, [`QuantError::MissingStatistics`] for
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
    algorithm: &'a Algorithm,
    steps: Vec<Box<dyn LayerAlgorithm>>,
}

/// What layers have become so far; it goes into the model at the end, as later passes over the data need the float model.
#[derive(Default)]
pub(crate) struct Solved {
    parameters: BTreeMap<String, Tensor<1>>,
    quantizers: BTreeMap<String, TensorQuantizer>,
    pub(crate) reports: Vec<LayerReport>,
}

impl<'a> Calibrator<'a> {
    pub(crate) fn new(algorithm: &'a Algorithm, registry: &Registry) -> Result<Self, QuantError> {
        algorithm.validate()?;
        Ok(Self { algorithm, steps: registry.layer_algorithms(algorithm)? })
    }

    /// The first step that cannot do without data.
    pub(crate) fn needs_data(&self) -> Option<&str> {
        let step = self.steps.iter().find(|step| step.needs().is_some()).map(|step| step.name());
        step.or_else(|| self.algorithm.steps().iter().find(|step| is_of_activations(step)).map(Algorithm::name))
    }

    /// What to collect of the quantizers of a placed model.
    pub(crate) fn needs<M: Module>(&self, model: &M) -> Needs {
        let quantizers = Quantizers::of(model);
        let mut needs = Needs::default();
        if let Some(channels) = self.steps.iter().filter_map(|step| step.needs()).max() {
            let sites = sites(model, &quantizers);
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
                if suits(step, quantizer).is_ok() {
                    of_activation(step, quantizer, needs.quantizers.entry(name.to_string()).or_default());
                }
            }
        }
        // GPTQ looks at what its layer multiplies, the local Hessian at what comes to the layer, as in the reference
        let moment = |step: &Algorithm| match step {
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
        for site in sites(model, &quantizers) {
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
                match self.activation(quantizer, name, statistics, &device) {
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
        for step in self.algorithm.steps().iter().filter(|step| is_of_activations(step)) {
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

    /// Solves the layers of a model with ranges whose inputs are those of the names, or all others.
    pub(crate) fn solve_layers<M: Module>(
        &self,
        model: &M,
        statistics: &ModelStatistics,
        wanted: impl Fn(Option<&str>) -> bool,
        solved: &mut Solved,
        progress: &mut dyn FnMut(&str),
    ) {
        let quantizers = Quantizers::of(model);
        let sites = sites(model, &quantizers);
        let sites: Vec<&Site> = sites
            .iter()
            .filter(|site| wanted(site.input_quantizer.as_deref().filter(|_| site.inputs(&quantizers).is_ok())))
            .collect();
        for family in families(sites.iter().map(|site| site.name.as_str())) {
            let of_family: Vec<&Site> = sites.iter().copied().filter(|site| family.contains(&site.name)).collect();
            let (matrices, others): (Vec<&Site>, Vec<&Site>) =
                of_family.into_iter().partition(|site| site.shape.len() == 2);
            let changes = !self.steps.is_empty();
            // siblings share a range whatever the algorithm
            if matrices.len() > 1 || changes && !matrices.is_empty() {
                self.solve_family(model, &quantizers, &matrices, statistics, solved, progress);
            }
            for site in others.into_iter().filter(|_| changes) {
                progress(&site.name);
                self.solve_kernel(model, &quantizers, site, solved);
            }
        }
    }

    /// Siblings, or a single layer.
    fn solve_family<M: Module>(
        &self,
        model: &M,
        quantizers: &Quantizers,
        family: &[&Site],
        statistics: &ModelStatistics,
        solved: &mut Solved,
        progress: &mut dyn FnMut(&str),
    ) {
        let wanted = family.iter().flat_map(|site| std::iter::once(&site.weight).chain(&site.bias)).cloned().collect();
        let parameters = Parameters::of(model, wanted);
        let mut layers: Vec<Layer> = family
            .iter()
            .map(|site| {
                let weight = parameters.matrix(&site.weight).expect("a site has a weight");
                let bias = site.bias.as_ref().and_then(|bias| parameters.vector(bias));
                let weight_quantizer = quantizers.get(&site.weight_quantizer).expect("a site has a quantizer").clone();
                let slot = site.input_quantizer.as_ref().filter(|_| site.inputs(quantizers).is_ok());
                let input = slot.and_then(|name| {
                    let seen = statistics.get(name).and_then(|seen| seen.channels.as_ref());
                    Some((quantizers.get(name).ok()?.clone(), seen))
                });
                Layer::new(site.name.clone(), weight, bias, weight_quantizer, input, site.takes_low_rank)
            })
            .collect();
        share_global_amax(&mut layers);
        let before: Vec<Option<Tensor<1>>> =
            if self.steps.is_empty() { Vec::new() } else { layers.iter().map(Layer::output_error).collect() };
        let rounding: Vec<Tensor<1>> =
            if self.steps.is_empty() { Vec::new() } else { layers.iter().map(rounding_error).collect() };
        let mut steps: Vec<Vec<StepReport>> = vec![Vec::new(); layers.len()];
        for step in &self.steps {
            family.iter().for_each(|site| progress(&site.name));
            let solutions = if layers.len() > 1 && share_inputs(&layers) {
                step.solve_siblings(&layers)
            } else {
                layers.iter().map(|layer| step.solve(layer)).collect()
            };
            for (i, solution) in solutions.into_iter().enumerate() {
                let reason = |reason: SkipReason| match family[i].inputs(quantizers) {
                    // why there is nothing to know of the inputs says more than that there is not
                    Err(why) if reason == SkipReason::NoSlot || reason == SkipReason::NoData => why,
                    _ => reason,
                };
                steps[i].push(match solution {
                    Ok(solution) => {
                        layers[i] = solution.layer;
                        StepReport::solved(step.name(), solution.choices)
                    }
                    Err(why) => {
                        if why == SkipReason::NoData {
                            layers[i] = layers[i].with_scale_of_ones();
                        }
                        StepReport::skipped(step.name(), reason(why))
                    }
                });
            }
            share_global_amax(&mut layers);
        }
        for (i, (site, layer)) in family.iter().zip(layers).enumerate() {
            if !self.steps.is_empty() {
                let report = LayerReport::of_layer(
                    &layer,
                    std::mem::take(&mut steps[i]),
                    before[i].clone(),
                    rounding[i].clone(),
                );
                solved.reports.push(report);
            }
            let changed = steps_changed(solved.reports.last());
            let (weight, bias, weight_quantizer, input_quantizer) = layer.into_parts();
            let device = parameters.found[&site.weight].0.device();
            if changed {
                let elements = weight.dims().iter().product::<usize>();
                solved.parameters.insert(site.weight.clone(), weight.reshape([elements]));
                if let Some((path, bias)) = site.bias.clone().zip(bias) {
                    solved.parameters.insert(path, bias);
                }
            }
            solved.quantizers.insert(site.weight_quantizer.clone(), weight_quantizer.to_device(&device));
            if let Some((name, quantizer)) = site.input_quantizer.clone().zip(input_quantizer) {
                solved.quantizers.insert(name, quantizer.to_device(&device));
            }
        }
    }

    /// A weight that is not a matrix: its range can be searched for, nothing else.
    fn solve_kernel<M: Module>(&self, model: &M, quantizers: &Quantizers, site: &Site, solved: &mut Solved) {
        struct Search<'a> {
            path: &'a str,
            quantizer: TensorQuantizer,
            search: RangeSearch,
            outcome: Result<(), SkipReason>,
        }
        impl EachParameter for Search<'_> {
            fn parameter<const D: usize>(&mut self, path: &str, value: Tensor<D>) {
                if path != self.path {
                    return;
                }
                self.outcome = least_squares(&self.quantizer, &value, &self.search).map(|found| self.quantizer = found);
            }
        }
        let mut quantizer = quantizers.get(&site.weight_quantizer).expect("a site has a quantizer").clone();
        let mut steps = Vec::new();
        let searches = self.algorithm.steps().iter().map(|step| match step {
            Algorithm::Mse(search) => (step, Some(*search)),
            step => (step, None),
        });
        for (step, search) in searches.filter(|(step, _)| !is_of_activations(step) && **step != Algorithm::Max) {
            let Some(search) = search else {
                steps.push(StepReport::skipped(step.name(), SkipReason::NotLinear));
                continue;
            };
            let mut work = Search { path: &site.weight, quantizer: quantizer.clone(), search, outcome: Ok(()) };
            each_parameter(model, &mut work);
            steps.push(match work.outcome {
                Ok(()) => StepReport::solved(step.name(), BTreeMap::new()),
                Err(reason) => StepReport::skipped(step.name(), reason),
            });
            quantizer = work.quantizer;
        }
        if !steps.is_empty() {
            solved.reports.push(LayerReport::of_quantizer(&site.name, steps));
        }
        solved.quantizers.insert(site.weight_quantizer.clone(), quantizer);
    }
}

impl Solved {
    /// The model with what its layers have become.
    pub(crate) fn install<M: Module>(self, model: M) -> Result<(M, Vec<LayerReport>), QuantError> {
        let model = replace_parameters(model, self.parameters);
        let mut quantizers = Quantizers::of(&model);
        for (name, quantizer) in self.quantizers {
            *quantizers.get_mut(&name)? = quantizer;
        }
        Ok((quantizers.install(model)?, self.reports))
    }
}

fn steps_changed(report: Option<&LayerReport>) -> bool {
    report.is_some_and(|report| report.steps.iter().any(|step| step.skipped.is_none()))
}

/// The mean squared error of a weight, `[1]`.
fn rounding_error(layer: &Layer) -> Tensor<1> {
    let change = layer.quantized_weight() - layer.original_weight();
    (change.clone() * change).mean()
}

fn of_activation(step: &Algorithm, quantizer: &TensorQuantizer, needs: &mut StatisticsNeeds) {
    let mut count = |histogram: &HistogramConfig| needs.histogram = Some(*histogram);
    match step {
        Algorithm::Percentile { histogram, .. }
        | Algorithm::Entropy { histogram, .. }
        | Algorithm::HistogramMse { histogram, .. } => count(histogram),
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

/// Where the layer of a quantizer lives: the device of its own parameters, else of the model's first.
fn device_of(name: &str, weights: &[Weight]) -> Device {
    let layer = name.rsplit_once('.').map_or("", |(layer, _)| layer);
    let own = weights.iter().find(|w| w.quantizer == name || w.path.starts_with(&format!("{layer}.")));
    own.or(weights.first()).map(|weight| weight.device.clone()).unwrap_or_default()
}
