//! The layers of a model, solved step by step: siblings together, all others each by itself.

use std::collections::{BTreeMap, HashMap};

use burn::tensor::Tensor;

use super::calibrator::{Calibrator, inputs_of, is_of_all_channels};
use super::report::{LayerReport, StepReport};
use super::siblings::{families, share_global_amax, share_inputs};
use super::steps::Step;
use super::{KernelProblem, LayerProblem, SkipReason, Solution};
use crate::observe::ModelStatistics;
use burn_quant_core::model::{LayerRef, ModelIndex, Parameters, Replacements};

/// What layers have become so far; it goes into the model at the end, as later passes over the data need the float
/// model.
#[derive(Default)]
pub(crate) struct Solved {
    pub(crate) replacements: Replacements,
    pub(crate) reports: Vec<LayerReport>,
}

/// Errors of a layer under ranges by `max`.
struct Before {
    output: Option<Tensor<1>>,
    weight: Tensor<1>,
}

impl Calibrator {
    /// The paths of the parameters that the steps look at.
    pub(crate) fn parameters(&self, index: &ModelIndex) -> Vec<String> {
        let layers = self.layers(index);
        let wanted = layers.iter().flat_map(|layer| std::iter::once(&layer.weight).chain(&layer.bias));
        wanted.cloned().collect()
    }

    /// Solves the layers whose input quantizer satisfies `wanted`; the quantizers of the index have their ranges by
    /// `max`.
    pub(crate) fn solve_layers(
        &self,
        index: &ModelIndex,
        parameters: &mut Parameters,
        statistics: &ModelStatistics,
        wanted: impl Fn(Option<&str>) -> bool,
        solved: &mut Solved,
        progress: &mut dyn FnMut(&str),
    ) {
        let layers = self.layers(index);
        let input = |layer: &LayerRef| layer.input_quantizer.clone().filter(|_| inputs_of(layer, index).is_ok());
        let layers: Vec<&LayerRef> = layers.iter().filter(|layer| wanted(input(layer).as_deref())).collect();
        let by_name: HashMap<&str, &LayerRef> = layers.iter().map(|layer| (layer.name.as_str(), *layer)).collect();
        let changes = !self.steps.is_empty();
        for family in families(layers.iter().map(|layer| layer.name.as_str()), &self.siblings) {
            let of_family = family.iter().map(|name| by_name[name.as_str()]);
            let (matrices, others): (Vec<&LayerRef>, Vec<&LayerRef>) =
                of_family.partition(|layer| layer.shape.len() == 2 && is_of_all_channels(layer, index, statistics));
            // siblings share a range whatever the algorithm
            if matrices.len() > 1 || changes && !matrices.is_empty() {
                let problems = matrices.iter().map(|layer| problem(layer, index, parameters, statistics)).collect();
                self.solve_family(index, &matrices, problems, solved, progress);
                let paths = matrices.iter().flat_map(|layer| std::iter::once(&layer.weight).chain(&layer.bias));
                paths
                    .filter(|path| solved.replacements.parameters.contains_key(*path))
                    .for_each(|path| parameters.remove(path));
            }
            for layer in others.into_iter().filter(|_| changes) {
                progress(&layer.name);
                self.solve_kernel(index, parameters, layer, solved);
            }
        }
    }

    /// Solves siblings, or a single layer.
    fn solve_family(
        &self,
        index: &ModelIndex,
        family: &[&LayerRef],
        mut layers: Vec<LayerProblem>,
        solved: &mut Solved,
        progress: &mut dyn FnMut(&str),
    ) {
        share_global_amax(&mut layers);
        if self.steps.is_empty() {
            family.iter().zip(layers).for_each(|(layer, problem)| solved.keep(layer, problem, false));
            return;
        }
        let before: Vec<Before> = layers.iter().map(Before::of).collect();
        let mut reports: Vec<Vec<StepReport>> = vec![Vec::new(); layers.len()];
        for step in &self.steps {
            family.iter().for_each(|layer| progress(&layer.name));
            for (i, outcome) in apply(step, &mut layers).into_iter().enumerate() {
                reports[i].push(match (outcome, inputs_of(family[i], index)) {
                    (None, _) => continue,
                    (Some(Ok(choices)), _) => StepReport::solved(step.name(), choices),
                    // why there is nothing to know of the inputs says more than that there is not
                    (Some(Err(SkipReason::NoActivationQuantizer | SkipReason::NoData)), Err(why)) => {
                        StepReport::skipped(step.name(), why)
                    }
                    (Some(Err(why)), _) => StepReport::skipped(step.name(), why),
                });
            }
            share_global_amax(&mut layers);
        }
        for (((layer, problem), steps), before) in family.iter().zip(layers).zip(reports).zip(before) {
            let changed = steps.iter().any(|step| step.skipped.is_none());
            if !steps.is_empty() {
                solved.reports.push(LayerReport::of_layer(&problem, steps, before.output, before.weight));
            }
            solved.keep(layer, problem, changed);
        }
    }

    /// Solves a weight that is not a matrix: its range can be searched for, nothing else.
    fn solve_kernel(&self, index: &ModelIndex, parameters: &Parameters, layer: &LayerRef, solved: &mut Solved) {
        let quantizer = index.quantizers.find(&layer.weight_quantizer).expect("a layer has a quantizer").clone();
        let weight = parameters.get(&layer.weight).expect("a layer has a weight").clone();
        let mut kernel = KernelProblem::new(layer.name.clone(), weight, quantizer);
        let mut steps = Vec::new();
        for step in self.steps.iter().filter(|step| step.is_for(&layer.name)) {
            let of_activations = step.needs_data() && step.inputs().is_none();
            match step.kernel(&kernel) {
                Ok(found) => {
                    kernel.set_quantizer(found);
                    steps.push(StepReport::solved(step.name(), BTreeMap::new()));
                }
                Err(SkipReason::NotMine) if of_activations => {}
                Err(SkipReason::NotMine) => steps.push(StepReport::skipped(step.name(), SkipReason::NotLinear)),
                Err(reason) => steps.push(StepReport::skipped(step.name(), reason)),
            }
        }
        if !steps.is_empty() {
            solved.reports.push(LayerReport::of_quantizer(&layer.name, steps));
        }
        solved.replacements.quantizers.insert(layer.weight_quantizer.clone(), kernel.into_quantizer());
    }
}

/// One step for layers with a common parent: what it chose, or why it left a layer as it was; nothing where it is not
/// for it.
fn apply(step: &Step, layers: &mut [LayerProblem]) -> Vec<Option<Result<BTreeMap<String, f32>, SkipReason>>> {
    let for_all = layers.iter().all(|layer| step.is_for(layer.name()));
    let solutions: Vec<Option<Result<Solution, SkipReason>>> = if layers.len() > 1 && for_all && share_inputs(layers) {
        step.siblings(layers).into_iter().map(Some).collect()
    } else {
        layers.iter().map(|layer| step.is_for(layer.name()).then(|| step.layer(layer))).collect()
    };
    let replace = |(layer, solution): (&mut LayerProblem, Option<Result<Solution, SkipReason>>)| match solution? {
        Ok(solution) => {
            *layer = solution.layer;
            Some(Ok(solution.choices))
        }
        Err(SkipReason::NotMine) => None,
        Err(why) => {
            if matches!(why, SkipReason::NoData | SkipReason::Overflow) {
                *layer = layer.with_scale_of_ones();
            }
            Some(Err(why))
        }
    };
    layers.iter_mut().zip(solutions).map(replace).collect()
}

fn problem(
    layer: &LayerRef,
    index: &ModelIndex,
    parameters: &Parameters,
    statistics: &ModelStatistics,
) -> LayerProblem {
    let weight = parameters.vector(&layer.weight).expect("a layer has a weight");
    let weight = weight.reshape([layer.shape[0], layer.shape[1]]);
    let bias = layer.bias.as_ref().and_then(|bias| parameters.vector(bias));
    let quantizer = index.quantizers.find(&layer.weight_quantizer).expect("a layer has a quantizer");
    let quantizer = quantizer.clone().for_layout(layer.role_of(quantizer));
    let input = layer.input_quantizer.as_ref().filter(|_| inputs_of(layer, index).is_ok());
    let input = input.and_then(|name| {
        let seen = statistics.get(name).and_then(|seen| seen.channels.as_ref());
        Some((index.quantizers.find(name)?.clone(), seen))
    });
    LayerProblem::new(layer.name.clone(), weight, bias, quantizer, input, layer.takes_low_rank)
}

impl Before {
    fn of(layer: &LayerProblem) -> Self {
        let change = layer.weight_error();
        Self { weight: (change.clone() * change.clone()).mean(), output: layer.output_error_of(change) }
    }
}

impl Solved {
    /// Takes up what a layer has become; its parameters only if they changed.
    fn keep(&mut self, layer: &LayerRef, problem: LayerProblem, changed: bool) {
        let (weight, bias, weight_quantizer, input_quantizer) = problem.into_parts();
        let replacements = &mut self.replacements;
        if changed {
            let elements = weight.dims().iter().product::<usize>();
            replacements.parameters.insert(layer.weight.clone(), weight.reshape([elements]));
            if let Some((path, bias)) = layer.bias.clone().zip(bias) {
                replacements.parameters.insert(path, bias);
            }
        }
        replacements.quantizers.insert(layer.weight_quantizer.clone(), weight_quantizer);
        if let Some((name, quantizer)) = layer.input_quantizer.clone().zip(input_quantizer) {
            replacements.quantizers.insert(name, quantizer);
        }
    }

    /// Adds the parameters that were taken out of the model and that no layer changed.
    pub(crate) fn put_back(&mut self, parameters: Parameters) {
        self.replacements.parameters.extend(parameters.into_taken());
    }

    /// Adds the quantizers of an index that no layer changed, in the layouts and on the devices of the model.
    pub(crate) fn complete(&mut self, index: &ModelIndex) {
        for (name, quantizer) in index.quantizers.iter() {
            let solved = self.replacements.quantizers.remove(name);
            let device = index.device_of(name);
            let completed = match (solved, device) {
                (Some(solved), Some(device)) => solved.for_layout(quantizer.role()).recreated_on(&device),
                (Some(solved), None) => solved.for_layout(quantizer.role()),
                (None, _) => quantizer.clone(),
            };
            self.replacements.quantizers.insert(name.to_string(), completed);
        }
    }
}
