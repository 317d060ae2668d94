//! Place, observe, solve: the whole of post-training quantization.

use std::collections::HashMap;

use burn::module::Module;
use burn::tensor::Device;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{Algorithm, QuantConfig};
use crate::observe::{CaptureAt, observe_grams, observe_ranges};
use crate::observe::{ModelStatistics, observe_weights};
use crate::solve::LayerReport;
use crate::solve::{CalibrationAlgorithm, Calibrator, Registry, Solved};
use burn_quant_core::config::{matcher, near_misses};
use burn_quant_core::error::QuantError;
use burn_quant_core::layout::Role;
use burn_quant_core::model::{ModelIndex, Parameters, Quantizers};
use burn_quant_core::place::{NoWeights, Placed};
use burn_quant_core::place::{Plan, WeightLayouts};

/// Quantizes a model: places quantizers, observes calibration data, and gives every static quantizer its range.
///
/// The result has the type of the model and is used like it. Its weights are unchanged: they are rounded in every
/// forward pass, and gradients reach them straight through, so training it is quantization-aware training;
/// [`fold_weights`](burn_quant_core::fold::fold_weights) rounds them for good.
///
/// `forward_loop` gets a copy of the model in validation mode that computes in float, and runs the calibration batches.
/// It is called once, unless a [memory budget](QuantizeOptions::with_memory_budget) splits what is to be collected, or
/// an algorithm asks for [quantized inputs](crate::config::CalibrationInputs::Quantized). Clones that it makes of the
/// model observe too, until the loop ends.
///
/// Quantizing a quantized model applies the new rules and calibrates again.
///
/// # Errors
///
/// Those of [`place()`](burn_quant_core::place::place()), [`observe()`](crate::pipeline::observe()) and [`calibrate`].
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// # use burn::tensor::{Device, Distribution, Tensor};
/// # use burn_nn::LinearConfig;
/// # let device = Device::flex();
/// use burn_quant::{presets, quantize};
/// use burn_quant::nn::QuantLinear;
///
/// let layer: QuantLinear = LinearConfig::new(8, 4).init(&device).into();
/// let batch = Tensor::<2>::random([16, 8], Distribution::Normal(0.0, 1.0), &device);
/// let (quantized, report) = quantize(layer, &presets::int8_default(), |layer| {
///     layer.forward(batch.clone());
/// })?;
/// assert_eq!(report.statistics.get("input_quantizer").unwrap().calls, 1);
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn quantize<M: Module>(
    model: M,
    config: &QuantConfig,
    forward_loop: impl FnMut(&M),
) -> Result<(M, Report), QuantError> {
    quantize_with(model, config, QuantizeOptions::new(), forward_loop)
}

/// Quantizes a model with options: layouts of your own layers, algorithms of your own, a memory budget, progress.
///
/// # Errors
///
/// Those of [`quantize`], and [`QuantError::UnknownAlgorithm`] for a custom algorithm that is not registered.
///
/// # Example
///
/// See [`QuantizeOptions`].
pub fn quantize_with<M: Module>(
    model: M,
    config: &QuantConfig,
    options: QuantizeOptions<'_>,
    forward_loop: impl FnMut(&M),
) -> Result<(M, Report), QuantError> {
    options.quantize(model, config, forward_loop)
}

/// Quantizes a model with a configuration that needs no data: weights, and dynamic activations.
///
/// # Errors
///
/// [`QuantError::NeedsForwardLoop`] if the configuration makes an activation quantizer static,
/// [`QuantError::NeedsData`] if its algorithm works on data, and those of [`place()`](burn_quant_core::place::place()).
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::tensor::Device;
/// use burn_nn::LinearConfig; // burn's own layer
/// use burn_quant::{presets, quantize_weights, summary};
///
/// let (model, _) = quantize_weights(LinearConfig::new(8, 4).init(&Device::flex()), &presets::int8_weight_only())?;
/// assert!(summary(&model).to_string().contains("int8"));
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn quantize_weights<M: Module>(model: M, config: &QuantConfig) -> Result<(M, Report), QuantError> {
    QuantizeOptions::new().quantize_weights(model, config)
}

/// How far a quantization has come.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Progress {
    /// Quantizers are in place.
    Placed {
        /// All quantizers of the model.
        quantizers: usize,
        /// Those that are on.
        enabled: usize,
    },
    /// Calibration data went through the model, or the weights alone were read.
    Observed {
        /// Quantizers with statistics.
        quantizers: usize,
        /// Passes over the data so far.
        pass: usize,
        /// All passes.
        passes: usize,
    },
    /// A step of the algorithm begins with a layer.
    Solving {
        /// The path of the layer.
        layer: String,
    },
    /// Every static quantizer has its range.
    Solved,
}

/// What was done to a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What every quantizer does.
    pub plan: Plan,
    /// What the static quantizers saw, except for Gram matrices.
    pub statistics: ModelStatistics,
    /// What the algorithm did to each layer; none for [`Algorithm::Max`].
    pub layers: Vec<LayerReport>,
    /// How often the forward loop was called.
    pub passes: usize,
    /// What is not as one may expect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// Parameters of two or more axes that stay in float, by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub float: Vec<String>,
}

/// What a user should know of a model that was quantized without an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Warning {
    /// An activation was zero in all of the calibration data: its quantizer makes zeros of whatever comes.
    #[error(
        "`{quantizer}` saw only zeros and will give only zeros: calibrate with data that reaches its layer, or \
         disable it"
    )]
    OnlyZeros {
        /// The quantizer.
        quantizer: String,
    },
    /// A parameter was tied to another, and calibration changed one of the two.
    #[error("`{path}` was tied to another parameter and is not any more: calibration changed one of them")]
    Untied {
        /// The parameter.
        path: String,
    },
    /// A weight was rounded for good before it was quantized again: its error is that of both.
    #[error(
        "the weights of `{layer}` were folded before: quantize the float model, or their error is that of both times"
    )]
    Folded {
        /// The layer.
        layer: String,
    },
    /// A registered layout matches no parameter of the model.
    #[error(
        "the layout registered for `{layout}` matches no parameter of the model: compare the names of struct and field"
    )]
    UnusedLayout {
        /// The container and the field, or the glob of the path.
        layout: String,
    },
    /// An algorithm made the output of a layer worse than ranges by `max` do.
    #[error("the output error of `{layer}` grew from {before} to {after}: leave the algorithm out for this layer")]
    Worse {
        /// The layer.
        layer: String,
        /// The mean squared error under ranges by `max`.
        before: String,
        /// The mean squared error now.
        after: String,
    },
}

impl Warning {
    /// The layers whose error grew.
    fn of_layers(layers: &[LayerReport]) -> impl Iterator<Item = Self> {
        layers.iter().filter_map(|layer| {
            let (before, after) = layer.error_before.zip(layer.error_after).filter(|(before, after)| after > before)?;
            let number = |error: f64| format!("{error:.3e}");
            Some(Warning::Worse { layer: layer.layer.clone(), before: number(before), after: number(after) })
        })
    }

    /// The enabled activation quantizers that saw only zeros.
    fn of_zeros(quantizers: &Quantizers, statistics: &ModelStatistics) -> Vec<Self> {
        let zeros = |name: &str| {
            statistics.get(name).is_some_and(|seen| !seen.amax.is_empty() && seen.amax.iter().all(|amax| *amax == 0.0))
        };
        let enabled = quantizers
            .iter()
            .filter(|(_, quantizer)| quantizer.needs_calibration() && !matches!(quantizer.role(), Role::Weight(_)));
        enabled.filter(|(name, _)| zeros(name)).map(|(name, _)| Warning::OnlyZeros { quantizer: name.into() }).collect()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let enabled = self.plan.quantizers.values().filter(|planned| planned.enabled).count();
        for layer in &self.layers {
            writeln!(f, "{layer}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        let all = self.plan.quantizers.len();
        let data = match self.passes {
            0 => "no data".to_string(),
            1 => "1 pass over the data".to_string(),
            n => format!("{n} passes over the data"),
        };
        write!(f, "{enabled} of {all} quantizers enabled, {data}")
    }
}

/// What [`quantize_with`] can be told besides the configuration.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// # use burn::tensor::Device;
/// # use burn_nn::LinearConfig;
/// # let model = LinearConfig::new(8, 4).init(&Device::flex());
/// use burn_quant::calibrate::{Progress, QuantizeOptions};
/// use burn_quant::{presets, quantize_with};
///
/// let mut steps = Vec::new();
/// let options = QuantizeOptions::new().with_progress(|progress| steps.push(progress));
/// let (model, _) = quantize_with(model, &presets::int8_weight_only(), options, |_| {})?;
/// assert_eq!(steps.last(), Some(&Progress::Solved));
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub struct QuantizeOptions<'a> {
    layouts: WeightLayouts,
    registry: Registry,
    budget: Option<usize>,
    no_weights: NoWeights,
    progress: Box<dyn FnMut(Progress) + 'a>,
}

impl Default for QuantizeOptions<'_> {
    fn default() -> Self {
        Self {
            layouts: WeightLayouts::new(),
            registry: Registry::default(),
            budget: None,
            no_weights: NoWeights::Refused,
            progress: Box::new(|_| {}),
        }
    }
}

impl<'a> QuantizeOptions<'a> {
    /// Creates the options that [`quantize`] has: the layouts of burn's layers, no budget, no listener.
    ///
    /// Each `with_` method changes one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows rules that disable all weights that others enable.
    ///
    /// A search uses it for its base; otherwise it is [`QuantError::NoWeightEnabled`].
    pub fn allowing_no_weights(mut self) -> Self {
        self.no_weights = NoWeights::Allowed;
        self
    }

    /// Uses another table of weights, for structs of your own.
    ///
    /// See [`WeightLayouts`].
    pub fn with_layouts(mut self, layouts: WeightLayouts) -> Self {
        self.layouts = layouts;
        self
    }

    /// Makes an algorithm known by a name, for recipes with [`Algorithm::Custom`]: `constructor` gets their options,
    /// and says what is wrong with them.
    ///
    /// # Example
    ///
    /// See [`CalibrationAlgorithm`].
    pub fn with_algorithm<C>(mut self, name: impl Into<String>, constructor: C) -> Self
    where
        C: Fn(&Map<String, Value>) -> Result<Box<dyn CalibrationAlgorithm>, String> + Send + Sync + 'static,
    {
        self.registry.register(name, constructor);
        self
    }

    /// Keeps at most this many bytes of Gram matrices on the device at a time, `4·in²` per layer: what does not fit is
    /// collected in further calls of the forward loop, layers at a time. A layer that does not fit by itself has a pass
    /// of its own, and siblings stay together.
    ///
    /// What a solver needs is not counted: it works on one layer after the other, in the memory of the host. GPTQ takes
    /// about `20·in² + 8·in·out` bytes, as it factors the matrix in f64; SVDQuant about `24·in·out`.
    pub fn with_memory_budget(mut self, bytes: usize) -> Self {
        self.budget = Some(bytes);
        self
    }

    /// Calls a listener at each step: placed, observed, a layer begins to be solved, solved.
    ///
    /// It runs on the calling thread; draw a bar with it.
    pub fn with_progress(mut self, listener: impl FnMut(Progress) + 'a) -> Self {
        self.progress = Box::new(listener);
        self
    }

    fn quantize<M: Module>(
        mut self,
        model: M,
        config: &QuantConfig,
        mut forward_loop: impl FnMut(&M),
    ) -> Result<(M, Report), QuantError> {
        let calibrator = Calibrator::new(&config.algorithm, &self.registry)?; // before hours of data, not after
        let placed = self.placed(model, config)?;
        if config.algorithm == Algorithm::None {
            return self.without_data(placed, config, &calibrator, ModelStatistics::default());
        }
        let model = &placed.model;
        let mut index = ModelIndex::of(model);
        check_layers(&index, &config.algorithm)?;
        let request = calibrator.request(&index)?;
        let (passes, at) = (request.passes(self.budget), request.grams_at.unwrap_or(CaptureAt::Float));
        let quantized = at != CaptureAt::Float;
        let total = passes.len().max(1) + usize::from(quantized && !passes.is_empty());
        let first: &[String] = if quantized { &[] } else { passes.first().map_or(&[], Vec::as_slice) };
        let mut observed = observe_ranges(model, &index.quantizers, &request, first, &mut forward_loop)?;
        let (mut pass, seen) = (1, observed.statistics.len());
        let progress = &mut self.progress;
        progress(Progress::Observed { quantizers: seen, pass, passes: total });

        let mut reports = calibrator.set_ranges(&mut index, &observed.statistics, &observed.devices)?;
        let mut solver = Solver { calibrator: &calibrator, solved: Solved::default(), progress: &mut *progress };
        let parameters = Parameters::of(model, calibrator.parameters(&index));
        // weights without inputs to look at, then the layers of each pass
        let grams: Vec<&str> = passes.iter().flatten().map(String::as_str).collect();
        let others = |input: Option<&str>| input.is_none_or(|input| !grams.contains(&input));
        solver.solve(&index, &parameters, &observed.statistics, others);
        let ranged = if quantized { Some(index.quantizers.clone().install(model.clone())?) } else { None };
        for (i, names) in passes.iter().enumerate() {
            if i > 0 || quantized {
                let shown = ranged.as_ref().unwrap_or(model);
                observe_grams(shown, names, at, &mut observed.statistics, &mut forward_loop);
                pass += 1;
                (solver.progress)(Progress::Observed { quantizers: seen, pass, passes: total });
            }
            let these = |input: Option<&str>| input.is_some_and(|input| names.iter().any(|name| name == input));
            solver.solve(&index, &parameters, &observed.statistics, these);
            names.iter().for_each(|name| observed.statistics.set_gram(name, None));
        }
        drop((ranged, parameters));
        let warnings = Warning::of_zeros(&index.quantizers, &observed.statistics);
        let mut solved = solver.solved;
        reports.append(&mut solved.reports);
        let report = Report {
            statistics: observed.statistics,
            layers: reports,
            passes: pass,
            warnings,
            plan: Plan::default(),
            float: Vec::new(),
        };
        Ok(self.finished(placed, solved, &index, report))
    }

    fn quantize_weights<M: Module>(mut self, model: M, config: &QuantConfig) -> Result<(M, Report), QuantError> {
        let calibrator = Calibrator::new(&config.algorithm, &self.registry)?;
        if let Some(algorithm) = calibrator.needs_data() {
            return Err(QuantError::NeedsData { algorithm: algorithm.into() });
        }
        let placed = self.placed(model, config)?;
        if config.algorithm == Algorithm::None {
            return self.without_data(placed, config, &calibrator, ModelStatistics::default());
        }
        let static_activations = placed.plan.quantizers.iter().filter(|(_, planned)| {
            let activation = !matches!(planned.role, Role::Weight(_));
            planned.enabled && activation && planned.config.needs_calibration()
        });
        let names: Vec<String> = static_activations.map(|(name, _)| name.clone()).collect();
        if !names.is_empty() {
            return Err(QuantError::NeedsForwardLoop { names });
        }
        let statistics = observe_weights(&placed.model)?;
        self.without_data(placed, config, &calibrator, statistics)
    }

    /// Observes with the algorithms that are registered; see [`observe()`](crate::pipeline::observe()). Everything is
    /// on the device at once, whatever the budget.
    ///
    /// # Errors
    ///
    /// Those of [`observe()`](crate::pipeline::observe()).
    pub fn observe<M: Module>(
        &self,
        model: &M,
        algorithm: &Algorithm,
        mut forward_loop: impl FnMut(&M),
    ) -> Result<ModelStatistics, QuantError> {
        let calibrator = Calibrator::new(algorithm, &self.registry)?;
        let mut index = ModelIndex::of(model);
        let request = calibrator.request(&index)?;
        let grams: Vec<String> = request.passes(None).into_iter().flatten().collect();
        let at = request.grams_at.unwrap_or(CaptureAt::Float);
        let first: &[String] = if at == CaptureAt::Float { &grams } else { &[] };
        let mut observed = observe_ranges(model, &index.quantizers, &request, first, &mut forward_loop)?;
        if at != CaptureAt::Float && !grams.is_empty() {
            calibrator.set_ranges(&mut index, &observed.statistics, &observed.devices)?;
            let ranged = index.quantizers.install(model.clone())?;
            observe_grams(&ranged, &grams, at, &mut observed.statistics, &mut forward_loop);
        }
        Ok(observed.statistics)
    }

    /// Solves with the algorithms that are registered; see [`calibrate`].
    ///
    /// # Errors
    ///
    /// Those of [`calibrate`].
    pub fn calibrate<M: Module>(
        mut self,
        model: M,
        statistics: &ModelStatistics,
        algorithm: &Algorithm,
    ) -> Result<(M, Vec<LayerReport>), QuantError> {
        let calibrator = Calibrator::new(algorithm, &self.registry)?;
        let mut index = ModelIndex::of(&model);
        calibrator.check(&index, statistics)?;
        check_layers(&index, algorithm)?;
        let (solved, mut reports) = self.solve(&model, &mut index, &calibrator, statistics)?;
        let Solved { replacements, reports: layers } = solved;
        let (model, _) = replacements.install(model, &index);
        reports.extend(layers);
        (self.progress)(Progress::Solved);
        Ok((model, reports))
    }

    /// Ranges and layers of a model, from statistics.
    fn solve<M: Module>(
        &mut self,
        model: &M,
        index: &mut ModelIndex,
        calibrator: &Calibrator,
        statistics: &ModelStatistics,
    ) -> Result<(Solved, Vec<LayerReport>), QuantError> {
        let reports = calibrator.set_ranges(index, statistics, &HashMap::<String, Device>::new())?;
        let parameters = Parameters::of(model, calibrator.parameters(index));
        let mut solver = Solver { calibrator, solved: Solved::default(), progress: &mut self.progress };
        solver.solve(index, &parameters, statistics, |_| true);
        solver.solved.complete(index);
        Ok((solver.solved, reports))
    }

    fn placed<M: Module>(&mut self, model: M, config: &QuantConfig) -> Result<Placed<M>, QuantError> {
        let placed = Placed::of(model, &config.rules, &self.layouts, self.no_weights)?;
        let enabled = placed.plan.quantizers.values().filter(|planned| planned.enabled).count();
        (self.progress)(Progress::Placed { quantizers: placed.plan.quantizers.len(), enabled });
        Ok(placed)
    }

    fn without_data<M: Module>(
        &mut self,
        placed: Placed<M>,
        config: &QuantConfig,
        calibrator: &Calibrator,
        statistics: ModelStatistics,
    ) -> Result<(M, Report), QuantError> {
        (self.progress)(Progress::Observed { quantizers: statistics.len(), pass: 0, passes: 0 });
        let mut index = ModelIndex::of(&placed.model);
        check_layers(&index, &config.algorithm)?;
        calibrator.request(&index)?; // steps that undo each other
        let (mut solved, mut layers) = self.solve(&placed.model, &mut index, calibrator, &statistics)?;
        layers.append(&mut solved.reports);
        let (warnings, float) = (Vec::new(), Vec::new());
        let report = Report { plan: Plan::default(), statistics, layers, passes: 0, warnings, float };
        Ok(self.finished(placed, solved, &index, report))
    }

    /// The model with what its layers have become, and the report with what was found on the way.
    fn finished<M: Module>(
        &mut self,
        placed: Placed<M>,
        mut solved: Solved,
        index: &ModelIndex,
        mut report: Report,
    ) -> (M, Report) {
        solved.complete(index);
        let (model, untied) = solved.replacements.install(placed.model, index);
        report.plan = placed.plan;
        report.float = placed.float;
        report.warnings.extend(untied.into_iter().map(|path| Warning::Untied { path }));
        report.warnings.extend(placed.folded.into_iter().map(|layer| Warning::Folded { layer }));
        report.warnings.extend(placed.unused_layouts.into_iter().map(|layout| Warning::UnusedLayout { layout }));
        let worse: Vec<Warning> = Warning::of_layers(&report.layers).collect();
        report.warnings.extend(worse);
        (self.progress)(Progress::Solved);
        (model, report)
    }
}

/// Solves layers, and says so to a listener.
struct Solver<'s, 'p> {
    calibrator: &'s Calibrator,
    solved: Solved,
    progress: &'s mut (dyn FnMut(Progress) + 'p),
}

impl Solver<'_, '_> {
    fn solve(
        &mut self,
        index: &ModelIndex,
        parameters: &Parameters,
        statistics: &ModelStatistics,
        wanted: impl Fn(Option<&str>) -> bool,
    ) {
        let progress = &mut *self.progress;
        let mut solving = |layer: &str| progress(Progress::Solving { layer: layer.into() });
        self.calibrator.solve_layers(index, parameters, statistics, wanted, &mut self.solved, &mut solving);
    }
}

/// Collects the statistics of all enabled static quantizers of a model, and of the layers that an algorithm works on.
///
/// `forward_loop` gets a copy of the model in validation mode that computes in float; it runs the calibration batches
/// and drops the outputs. It is called once, except for algorithms on quantized inputs. Statistics stay on the device
/// while it runs, and come to the host when it has ended, quantizer by quantizer.
///
/// Calibration may be split: observe shards of the data, [merge](ModelStatistics::merge) the statistics,
/// [solve](crate::pipeline::calibrate) once.
///
/// # Errors
///
/// [`QuantError::NonFinite`] for NaN or infinite data, [`QuantError::NonFiniteWeight`],
/// [`QuantError::NegativeUnsigned`], [`QuantError::GroupsChanged`], [`QuantError::NothingObserved`] if the loop ran no
/// batch, [`QuantError::NeverObserved`] for a quantizer that the loop did not reach, unless it is one of an expert, and
/// [`QuantError::UnknownAlgorithm`] for a custom algorithm: see [`QuantizeOptions::observe`].
pub fn observe<M: Module>(
    model: &M,
    algorithm: &Algorithm,
    forward_loop: impl FnMut(&M),
) -> Result<ModelStatistics, QuantError> {
    QuantizeOptions::new().observe(model, algorithm, forward_loop)
}

/// Gives every enabled quantizer of a model the range that an algorithm finds in the statistics, and changes the layers
/// that the algorithm changes.
///
/// The report has a line for every layer that a step of the algorithm changed or skipped.
///
/// # Errors
///
/// [`QuantError::NeverObserved`] for a static quantizer without statistics — one of an expert takes those of its
/// siblings —, [`QuantError::MissingStatistics`] for statistics that were observed for another algorithm,
/// [`QuantError::UnknownQuantizer`] for statistics without a quantizer: they are of another model.
/// [`QuantError::AlgorithmOption`] and [`QuantError::UnknownAlgorithm`] for the algorithm itself; for custom ones see
/// [`QuantizeOptions::calibrate`].
pub fn calibrate<M: Module>(
    model: M,
    statistics: &ModelStatistics,
    algorithm: &Algorithm,
) -> Result<(M, Vec<LayerReport>), QuantError> {
    QuantizeOptions::new().calibrate(model, statistics, algorithm)
}

/// Whether the layers that algorithms are restricted to are there.
fn check_layers(index: &ModelIndex, algorithm: &Algorithm) -> Result<(), QuantError> {
    let restricted = algorithm.steps().iter().filter_map(|step| match step {
        Algorithm::ForLayers { layers, .. } => Some(layers),
        _ => None,
    });
    let globs: Vec<&String> = restricted.flatten().collect();
    if globs.is_empty() {
        return Ok(());
    }
    let layers = index.layer_paths();
    for pattern in globs {
        let glob = matcher(pattern)?;
        if !layers.iter().any(|layer| glob.is_match(layer)) {
            let near_misses = near_misses(pattern, layers.iter().map(String::as_str));
            return Err(QuantError::NoLayer { option: "layers", pattern: pattern.clone(), near_misses });
        }
    }
    Ok(())
}
