//! Place, observe, solve: the whole of post-training quantization.

use std::borrow::Cow;

use burn::module::Module;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::config::{matcher, near_misses};
use crate::observe::{Needs, observe_grams, observe_ranges};
use crate::place::{NoWeights, layers, place_with};
use crate::solve::{Calibrator, LayerAlgorithm, Registry};
use crate::{
    Algorithm, LayerReport, ModelStatistics, Plan, QuantConfig, QuantError, Role, WeightLayouts, observe_weights,
};

/// Quantizes a model: places quantizers, observes calibration data, and gives every static quantizer its range.
///
/// The result has the type of the model and is used like it. Its weights are unchanged: they are rounded in every forward
/// pass, and gradients reach them straight through, so training it is quantization-aware training;
/// [`fold_weights`](crate::fold_weights) rounds them for good.
///
/// `forward_loop` gets a copy of the model in validation mode that computes in float, and runs the calibration batches. It is
/// called once, unless a [memory budget](Quantization::with_memory_budget) splits what is to be collected, or an algorithm
/// asks for [quantized inputs](crate::Inputs::Quantized).
/// Quantizing a quantized model applies the new rules and calibrates again.
///
/// # Errors
///
/// Those of [`place()`](crate::place()), [`observe()`](crate::observe()) and [`calibrate`](crate::calibrate).
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// # use burn::tensor::{Device, Distribution, Tensor};
/// # use burn_nn::LinearConfig;
/// # let device = Device::flex();
/// use burn_quant::{QuantConfig, nn::QuantLinear, quantize};
///
/// let layer: QuantLinear = LinearConfig::new(8, 4).init(&device).into();
/// let batch = Tensor::<2>::random([16, 8], Distribution::Normal(0.0, 1.0), &device);
/// let (quantized, report) = quantize(layer, &QuantConfig::int8_default(), |layer| {
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
    Quantization::new(config).run(model, forward_loop)
}

/// Quantizes a model with a configuration that needs no data: weights, and dynamic activations.
///
/// # Errors
///
/// [`QuantError::NeedsForwardLoop`] if the configuration makes an activation quantizer static,
/// [`QuantError::NeedsData`] if its algorithm works on data, and those of [`place()`](crate::place()).
pub fn quantize_weights<M: Module>(model: M, config: &QuantConfig) -> Result<(M, Report), QuantError> {
    Quantization::new(config).run_weights(model)
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
    /// What the static quantizers saw, but for Gram matrices.
    pub statistics: ModelStatistics,
    /// What the algorithm did to each layer; none for [`Algorithm::Max`].
    pub layers: Vec<LayerReport>,
    /// How often the forward loop was called.
    pub passes: usize,
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let enabled = self.plan.quantizers.values().filter(|planned| planned.enabled).count();
        for layer in &self.layers {
            writeln!(f, "{layer}")?;
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

/// [`quantize`] with more to say: layouts of your own layers, algorithms of your own, a memory budget, a listener to progress.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// # use burn::tensor::Device;
/// # use burn_nn::LinearConfig;
/// # let model = LinearConfig::new(8, 4).init(&Device::flex());
/// use burn_quant::{Progress, QuantConfig, Quantization};
///
/// let mut steps = Vec::new();
/// let config = QuantConfig::int8_weight_only();
/// let (model, _) = Quantization::new(&config).with_progress(|progress| steps.push(progress)).run_weights(model)?;
/// assert_eq!(steps.last(), Some(&Progress::Solved));
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub struct Quantization<'a> {
    config: Cow<'a, QuantConfig>,
    layouts: WeightLayouts,
    registry: Registry,
    budget: Option<usize>,
    no_weights: NoWeights,
    progress: Box<dyn FnMut(Progress) + 'a>,
}

impl<'a> Quantization<'a> {
    /// The steps that a configuration asks for, with the layouts of burn's layers.
    pub fn new(config: &'a QuantConfig) -> Self {
        Self::of(Cow::Borrowed(config))
    }

    fn of(config: Cow<'a, QuantConfig>) -> Self {
        Self {
            config,
            layouts: WeightLayouts::new(),
            registry: Registry::default(),
            budget: None,
            no_weights: NoWeights::Refused,
            progress: Box::new(|_| {}),
        }
    }

    /// An algorithm for a model whose quantizers are placed already.
    pub(crate) fn of_algorithm(algorithm: &Algorithm) -> Self {
        Self::of(Cow::Owned(QuantConfig::new().with_algorithm(algorithm.clone())))
    }

    /// Lets rules disable all weights that others enable.
    pub(crate) fn allowing_no_weights(mut self) -> Self {
        self.no_weights = NoWeights::Allowed;
        self
    }

    /// Uses another table of weights.
    pub fn with_layouts(mut self, layouts: WeightLayouts) -> Self {
        self.layouts = layouts;
        self
    }

    /// Makes an algorithm known by a name, for recipes with [`Algorithm::Custom`]: `constructor` gets their options, and says what
    /// is wrong with them.
    ///
    /// # Example
    ///
    /// See [`LayerAlgorithm`].
    pub fn with_algorithm(
        mut self,
        name: impl Into<String>,
        constructor: impl Fn(&Map<String, Value>) -> Result<Box<dyn LayerAlgorithm>, String> + Send + Sync + 'static,
    ) -> Self {
        self.registry.register(name, constructor);
        self
    }

    /// Keeps at most this many bytes of Gram matrices on the device at a time, `4·in²` per layer: what does not fit is collected in
    /// further calls of the forward loop, layers at a time. A layer that does not fit by itself has a pass of its own, and
    /// siblings stay together.
    pub fn with_memory_budget(mut self, bytes: usize) -> Self {
        self.budget = Some(bytes);
        self
    }

    /// Calls a listener after each step.
    pub fn with_progress(mut self, listener: impl FnMut(Progress) + 'a) -> Self {
        self.progress = Box::new(listener);
        self
    }

    /// [`quantize`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn run<M: Module>(mut self, model: M, mut forward_loop: impl FnMut(&M)) -> Result<(M, Report), QuantError> {
        let config = self.config.clone();
        let calibrator = Calibrator::new(&config.algorithm, &self.registry)?; // before hours of data, not after
        let (model, plan) = self.placed(model)?;
        if config.algorithm == Algorithm::None {
            return self.without_data(model, plan, &calibrator, ModelStatistics::default());
        }
        let needs = calibrator.needs(&model);
        let passes = needs.passes(self.budget);
        let quantized = needs.quantized;
        let total = passes.len().max(1) + usize::from(quantized.is_some() && !passes.is_empty());
        let first: &[String] = if quantized.is_some() { &[] } else { passes.first().map_or(&[], Vec::as_slice) };
        let mut statistics = observe_ranges(&model, &needs, first, &mut forward_loop)?;
        let (mut pass, observed) = (1, statistics.len());
        let progress = &mut self.progress;
        progress(Progress::Observed { quantizers: observed, pass, passes: total });
        let (ranged, mut reports) = calibrator.with_ranges(model.clone(), &statistics)?;
        let mut solved = Default::default();
        // weights without inputs to look at, then the layers of each pass
        let grams = passes.iter().flatten().map(String::as_str).collect::<Vec<_>>();
        let others = |slot: Option<&str>| slot.is_none_or(|slot| !grams.contains(&slot));
        let solving = &mut |layer: &str| progress(Progress::Solving { layer: layer.into() });
        calibrator.solve_layers(&ranged, &statistics, others, &mut solved, solving);
        for (i, names) in passes.iter().enumerate() {
            if i > 0 || quantized.is_some() {
                let shown = if quantized.is_some() { &ranged } else { &model };
                observe_grams(shown, names, quantized, &mut statistics, &mut forward_loop)?;
                pass += 1;
                progress(Progress::Observed { quantizers: observed, pass, passes: total });
            }
            let these = |slot: Option<&str>| slot.is_some_and(|slot| names.iter().any(|name| name == slot));
            let solving = &mut |layer: &str| progress(Progress::Solving { layer: layer.into() });
            calibrator.solve_layers(&ranged, &statistics, these, &mut solved, solving);
            names.iter().for_each(|name| statistics.set_gram(name, None));
        }
        let (model, layers) = solved.install(ranged)?;
        reports.extend(layers);
        (self.progress)(Progress::Solved);
        Ok((model, Report { plan, statistics, layers: reports, passes: pass }))
    }

    /// [`quantize_weights`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn run_weights<M: Module>(mut self, model: M) -> Result<(M, Report), QuantError> {
        let config = self.config.clone();
        let calibrator = Calibrator::new(&config.algorithm, &self.registry)?;
        if let Some(algorithm) = calibrator.needs_data() {
            return Err(QuantError::NeedsData { algorithm: algorithm.into() });
        }
        let (model, plan) = self.placed(model)?;
        if config.algorithm == Algorithm::None {
            return self.without_data(model, plan, &calibrator, ModelStatistics::default());
        }
        let static_activations = plan.quantizers.iter().filter(|(_, planned)| {
            let activation = !matches!(planned.role, Role::Weight(_));
            planned.enabled && activation && planned.config.needs_calibration()
        });
        let names: Vec<String> = static_activations.map(|(name, _)| name.clone()).collect();
        if !names.is_empty() {
            return Err(QuantError::NeedsForwardLoop { names });
        }
        let statistics = observe_weights(&model)?;
        self.without_data(model, plan, &calibrator, statistics)
    }

    /// [`observe()`](crate::observe()), with the algorithms that are registered. Everything is on the device at once, whatever the
    /// budget.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn observe<M: Module>(
        &self,
        model: &M,
        mut forward_loop: impl FnMut(&M),
    ) -> Result<ModelStatistics, QuantError> {
        let calibrator = Calibrator::new(&self.config.algorithm, &self.registry)?;
        let needs: Needs = calibrator.needs(model);
        let grams: Vec<String> = needs.passes(None).into_iter().flatten().collect();
        let quantized = needs.quantized;
        let first: &[String] = if quantized.is_some() { &[] } else { &grams };
        let mut statistics = observe_ranges(model, &needs, first, &mut forward_loop)?;
        if quantized.is_some() && !grams.is_empty() {
            let (ranged, _) = calibrator.with_ranges(model.clone(), &statistics)?;
            observe_grams(&ranged, &grams, quantized, &mut statistics, &mut forward_loop)?;
        }
        Ok(statistics)
    }

    /// [`calibrate`](crate::calibrate), with the algorithms that are registered.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn calibrate<M: Module>(
        mut self,
        model: M,
        statistics: &ModelStatistics,
    ) -> Result<(M, Vec<LayerReport>), QuantError> {
        let config = self.config.clone();
        let calibrator = Calibrator::new(&config.algorithm, &self.registry)?;
        calibrator.check(&model, statistics)?;
        check_layers(&model, &config.algorithm)?;
        self.solve(model, &calibrator, statistics)
    }

    fn solve<M: Module>(
        &mut self,
        model: M,
        calibrator: &Calibrator<'_>,
        statistics: &ModelStatistics,
    ) -> Result<(M, Vec<LayerReport>), QuantError> {
        let (model, mut reports) = calibrator.with_ranges(model, statistics)?;
        let mut solved = Default::default();
        let progress = &mut self.progress;
        let mut solving = |layer: &str| progress(Progress::Solving { layer: layer.into() });
        calibrator.solve_layers(&model, statistics, |_| true, &mut solved, &mut solving);
        let (model, layers) = solved.install(model)?;
        reports.extend(layers);
        (self.progress)(Progress::Solved);
        Ok((model, reports))
    }

    fn placed<M: Module>(&mut self, model: M) -> Result<(M, Plan), QuantError> {
        let (model, plan) = place_with(model, &self.config, &self.layouts, self.no_weights)?;
        check_layers(&model, &self.config.algorithm)?;
        let enabled = plan.quantizers.values().filter(|planned| planned.enabled).count();
        (self.progress)(Progress::Placed { quantizers: plan.quantizers.len(), enabled });
        Ok((model, plan))
    }

    fn without_data<M: Module>(
        &mut self,
        model: M,
        plan: Plan,
        calibrator: &Calibrator<'_>,
        statistics: ModelStatistics,
    ) -> Result<(M, Report), QuantError> {
        (self.progress)(Progress::Observed { quantizers: statistics.len(), pass: 0, passes: 0 });
        let (model, layers) = self.solve(model, calibrator, &statistics)?;
        Ok((model, Report { plan, statistics, layers, passes: 0 }))
    }
}

/// Whether the layers that algorithms are restricted to are there.
fn check_layers<M: Module>(model: &M, algorithm: &Algorithm) -> Result<(), QuantError> {
    let restricted = algorithm.steps().iter().filter_map(|step| match step {
        Algorithm::OfLayers { layers, .. } => Some(layers),
        _ => None,
    });
    let globs: Vec<&String> = restricted.flatten().collect();
    if globs.is_empty() {
        return Ok(());
    }
    let layers = layers(model);
    for pattern in globs {
        let glob = matcher(pattern)?;
        if !layers.iter().any(|layer| glob.is_match(layer)) {
            let near_misses = near_misses(pattern, layers.iter().map(String::as_str));
            return Err(QuantError::NoLayer { option: "layers", pattern: pattern.clone(), near_misses });
        }
    }
    Ok(())
}
