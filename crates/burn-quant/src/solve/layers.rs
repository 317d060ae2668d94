//! The layers of a model, solved step by step: siblings together, all others each by itself.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Tensor;

use super::calibrate::{Calibrator, quantizer_devices};
use super::range_search::least_squares;
use super::ranges::is_of_activations;
use super::siblings::{families, share_global_amax, share_inputs};
use super::sites::{EachParameter, Parameters, Site, each_parameter, replace_parameters, sites};
use super::{Layer, LayerAlgorithm, SkipReason, mean_magnitude};
use crate::report::{LayerReport, StepReport};
use crate::{Algorithm, ModelStatistics, QuantError, Quantizers, TensorQuantizer};

/// What layers have become so far; it goes into the model at the end, as later passes over the data need the float model.
#[derive(Default)]
pub(crate) struct Solved {
    parameters: BTreeMap<String, Tensor<1>>,
    quantizers: BTreeMap<String, TensorQuantizer>,
    reports: Vec<LayerReport>,
}

/// Errors of a layer under ranges by `max`.
struct Before {
    output: Option<Tensor<1>>,
    weight: Tensor<1>,
}

impl Calibrator<'_> {
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
        let sites = sites(model, &quantizers, self.takes_pointwise());
        let slot = |site: &Site| site.input_quantizer.clone().filter(|_| site.inputs(&quantizers).is_ok());
        let sites: Vec<&Site> = sites.iter().filter(|site| wanted(slot(site).as_deref())).collect();
        let changes = !self.steps.is_empty();
        for family in families(sites.iter().map(|site| site.name.as_str())) {
            let of_family = sites.iter().copied().filter(|site| family.contains(&site.name));
            let (matrices, others): (Vec<&Site>, Vec<&Site>) =
                of_family.partition(|site| site.shape.len() == 2 && site.is_of_all_channels(&quantizers, statistics));
            // siblings share a range whatever the algorithm
            if matrices.len() > 1 || changes && !matrices.is_empty() {
                let parameters = parameters(model, &matrices);
                let layers = layers(&parameters, &quantizers, &matrices, statistics);
                self.solve_family(&quantizers, &matrices, layers, solved, progress);
            }
            for site in others.into_iter().filter(|_| changes) {
                progress(&site.name);
                self.solve_kernel(model, &quantizers, site, solved);
            }
        }
    }

    /// Siblings, or a single layer.
    fn solve_family(
        &self,
        quantizers: &Quantizers,
        family: &[&Site],
        mut layers: Vec<Layer>,
        solved: &mut Solved,
        progress: &mut dyn FnMut(&str),
    ) {
        share_global_amax(&mut layers);
        if self.steps.is_empty() {
            family.iter().zip(layers).for_each(|(site, layer)| solved.keep(site, layer, false));
            return;
        }
        let before: Vec<Before> = layers.iter().map(Before::of).collect();
        let mut steps: Vec<Vec<StepReport>> = vec![Vec::new(); layers.len()];
        for step in &self.steps {
            family.iter().for_each(|site| progress(&site.name));
            for (i, outcome) in apply(step.as_ref(), &mut layers).into_iter().enumerate() {
                steps[i].push(match (outcome, family[i].inputs(quantizers)) {
                    (Ok(choices), _) => StepReport::solved(step.name(), choices),
                    // why there is nothing to know of the inputs says more than that there is not
                    (Err(SkipReason::NoSlot | SkipReason::NoData), Err(why)) => StepReport::skipped(step.name(), why),
                    (Err(why), _) => StepReport::skipped(step.name(), why),
                });
            }
            share_global_amax(&mut layers);
        }
        for (((site, layer), steps), before) in family.iter().zip(layers).zip(steps).zip(before) {
            let changed = steps.iter().any(|step| step.skipped.is_none());
            solved.reports.push(LayerReport::of_layer(&layer, steps, before.output, before.weight));
            solved.keep(site, layer, changed);
        }
    }

    /// A weight that is not a matrix: its range can be searched for, nothing else.
    fn solve_kernel<M: Module>(&self, model: &M, quantizers: &Quantizers, site: &Site, solved: &mut Solved) {
        let mut quantizer = quantizers.get(&site.weight_quantizer).expect("a site has a quantizer").clone();
        let mut steps = Vec::new();
        let of_weights = |step: &&Algorithm| {
            *step.unrestricted() == Algorithm::MeanMagnitude
                || (!is_of_activations(step) && *step.unrestricted() != Algorithm::Max)
        };
        let of_this = |step: &&Algorithm| step.is_for(&site.name);
        for step in self.algorithm.steps().iter().filter(of_weights).filter(of_this).map(Algorithm::unrestricted) {
            let outcome = match step {
                Algorithm::Mse(_) | Algorithm::MeanMagnitude => range_of_kernel(model, site, &quantizer, step),
                _ => Err(SkipReason::NotLinear),
            };
            steps.push(match outcome {
                Ok(found) => {
                    quantizer = found;
                    StepReport::solved(step.name(), BTreeMap::new())
                }
                Err(reason) => StepReport::skipped(step.name(), reason),
            });
        }
        if !steps.is_empty() {
            solved.reports.push(LayerReport::of_quantizer(&site.name, steps));
        }
        solved.quantizers.insert(site.weight_quantizer.clone(), quantizer);
    }
}

/// One step for layers with a common parent: what it chose, or why it left a layer as it was.
fn apply(step: &dyn LayerAlgorithm, layers: &mut [Layer]) -> Vec<Result<BTreeMap<String, f32>, SkipReason>> {
    let solutions = if layers.len() > 1 && share_inputs(layers) {
        step.solve_siblings(layers)
    } else {
        layers.iter().map(|layer| step.solve(layer)).collect()
    };
    let replace = |(layer, solution): (&mut Layer, Result<super::Solution, SkipReason>)| match solution {
        Ok(solution) => {
            *layer = solution.layer;
            Ok(solution.choices)
        }
        Err(why) => {
            if why == SkipReason::NoData {
                *layer = layer.with_scale_of_ones();
            }
            Err(why)
        }
    };
    layers.iter_mut().zip(solutions).map(replace).collect()
}

fn parameters<M: Module>(model: &M, family: &[&Site]) -> Parameters {
    let wanted = family.iter().flat_map(|site| std::iter::once(&site.weight).chain(&site.bias)).cloned().collect();
    Parameters::of(model, wanted)
}

fn layers(
    parameters: &Parameters,
    quantizers: &Quantizers,
    family: &[&Site],
    statistics: &ModelStatistics,
) -> Vec<Layer> {
    let layer = |site: &&Site| {
        let weight = parameters.matrix(&site.weight).expect("a site has a weight");
        let bias = site.bias.as_ref().and_then(|bias| parameters.vector(bias));
        let weight_quantizer = quantizers.get(&site.weight_quantizer).expect("a site has a quantizer");
        let weight_quantizer = weight_quantizer.clone().with_role(site.role_of(weight_quantizer));
        let slot = site.input_quantizer.as_ref().filter(|_| site.inputs(quantizers).is_ok());
        let input = slot.and_then(|name| {
            let seen = statistics.get(name).and_then(|seen| seen.channels.as_ref());
            Some((quantizers.get(name).ok()?.clone(), seen))
        });
        Layer::new(site.name.clone(), weight, bias, weight_quantizer, input, site.takes_low_rank)
    };
    family.iter().map(layer).collect()
}

fn range_of_kernel<M: Module>(
    model: &M,
    site: &Site,
    quantizer: &TensorQuantizer,
    step: &Algorithm,
) -> Result<TensorQuantizer, SkipReason> {
    struct Search<'a> {
        path: &'a str,
        quantizer: &'a TensorQuantizer,
        step: &'a Algorithm,
        found: Result<TensorQuantizer, SkipReason>,
    }
    impl EachParameter for Search<'_> {
        fn parameter<const D: usize>(&mut self, path: &str, value: Tensor<D>) {
            if path == self.path {
                self.found = match self.step {
                    Algorithm::Mse(search) => least_squares(self.quantizer, &value, search),
                    _ => mean_magnitude::of_weight(self.quantizer, &value),
                };
            }
        }
    }
    let mut work = Search { path: &site.weight, quantizer, step, found: Err(SkipReason::NoData) };
    each_parameter(model, &mut work);
    work.found
}

impl Before {
    fn of(layer: &Layer) -> Self {
        let change = layer.weight_error();
        Self { weight: (change.clone() * change.clone()).mean(), output: layer.output_error_of(change) }
    }
}

impl Solved {
    /// Takes up what a layer has become; its parameters only if they changed.
    fn keep(&mut self, site: &Site, layer: Layer, changed: bool) {
        let (weight, bias, weight_quantizer, input_quantizer) = layer.into_parts();
        if changed {
            let elements = weight.dims().iter().product::<usize>();
            self.parameters.insert(site.weight.clone(), weight.reshape([elements]));
            if let Some((path, bias)) = site.bias.clone().zip(bias) {
                self.parameters.insert(path, bias);
            }
        }
        self.quantizers.insert(site.weight_quantizer.clone(), weight_quantizer);
        if let Some((name, quantizer)) = site.input_quantizer.clone().zip(input_quantizer) {
            self.quantizers.insert(name, quantizer);
        }
    }

    /// The model with what its layers have become.
    pub(crate) fn install<M: Module>(self, model: M) -> Result<(M, Vec<LayerReport>), QuantError> {
        let model = replace_parameters(model, self.parameters);
        let (mut quantizers, devices) = (Quantizers::of(&model), quantizer_devices(&model));
        for (name, quantizer) in self.quantizers {
            let device = devices.get(&name).cloned().unwrap_or_default();
            let place = quantizers.get_mut(&name)?;
            *place = quantizer.with_role(place.role()).made_on(&device);
        }
        Ok((quantizers.install(model)?, self.reports))
    }
}
