//! Place, observe, solve: the whole of post-training quantization.

use burn::module::Module;

use crate::{
    Algorithm, ModelStatistics, Plan, QuantConfig, QuantError, Role, WeightLayouts, calibrate, observe,
    observe_weights, place,
};

/// Quantizes a model: places quantizers, observes calibration data, and gives every static quantizer its range.
///
/// The result has the type of the model and is used like it. Its weights are unchanged: they are rounded in every forward
/// pass, and gradients reach them straight through, so training it is quantization-aware training;
/// [`fold_weights`](crate::fold_weights) rounds them for good.
///
/// `forward_loop` gets a copy of the model in validation mode that computes in float, and runs the calibration batches.
/// Quantizing a quantized model applies the new rules and calibrates again.
///
/// # Errors
///
/// Those of [`place()`](crate::place()), [`observe()`](crate::observe()) and [`calibrate`].
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
    forward_loop: impl FnOnce(&M),
) -> Result<(M, Report), QuantError> {
    Quantization::new(config).run(model, forward_loop)
}

/// Quantizes a model with a configuration that needs no data: weights, and dynamic activations.
///
/// # Errors
///
/// [`QuantError::NeedsForwardLoop`] if the configuration makes an activation quantizer static, and those of
/// [`place()`](crate::place()).
pub fn quantize_weights<M: Module>(model: M, config: &QuantConfig) -> Result<(M, Report), QuantError> {
    Quantization::new(config).run_weights(model)
}

/// How far a quantization has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    },
    /// Every static quantizer has its range.
    Solved,
}

/// What was done to a model.
#[derive(Clone, Debug, PartialEq)]
pub struct Report {
    /// What every quantizer does.
    pub plan: Plan,
    /// What the static quantizers saw.
    pub statistics: ModelStatistics,
}

/// [`quantize`] with more to say: layouts of your own layers, and a listener to progress.
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
    config: &'a QuantConfig,
    layouts: WeightLayouts,
    progress: Box<dyn FnMut(Progress) + 'a>,
}

impl<'a> Quantization<'a> {
    /// The steps that a configuration asks for, with the layouts of burn's layers.
    pub fn new(config: &'a QuantConfig) -> Self {
        Self { config, layouts: WeightLayouts::new(), progress: Box::new(|_| {}) }
    }

    /// Uses another table of weights.
    pub fn with_layouts(mut self, layouts: WeightLayouts) -> Self {
        self.layouts = layouts;
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
    pub fn run<M: Module>(self, model: M, forward_loop: impl FnOnce(&M)) -> Result<(M, Report), QuantError> {
        let calibrates = self.config.algorithm != Algorithm::None;
        self.steps(model, |model, _| if calibrates { observe(model, forward_loop) } else { Ok(Default::default()) })
    }

    /// [`quantize_weights`].
    ///
    /// # Errors
    ///
    /// As there.
    pub fn run_weights<M: Module>(self, model: M) -> Result<(M, Report), QuantError> {
        let calibrates = self.config.algorithm != Algorithm::None;
        self.steps(model, |model, plan| {
            if !calibrates {
                return Ok(Default::default());
            }
            let static_activations = plan.quantizers.iter().filter(|(_, planned)| {
                let activation = !matches!(planned.role, Role::Weight(_));
                planned.enabled && activation && planned.config.needs_calibration()
            });
            let names: Vec<String> = static_activations.map(|(name, _)| name.clone()).collect();
            if names.is_empty() { observe_weights(model) } else { Err(QuantError::NeedsForwardLoop { names }) }
        })
    }

    fn steps<M: Module>(
        mut self,
        model: M,
        observe: impl FnOnce(&M, &Plan) -> Result<ModelStatistics, QuantError>,
    ) -> Result<(M, Report), QuantError> {
        self.config.algorithm.check()?; // before hours of data, not after
        let (model, plan) = place(model, self.config, &self.layouts)?;
        let enabled = plan.quantizers.values().filter(|planned| planned.enabled).count();
        (self.progress)(Progress::Placed { quantizers: plan.quantizers.len(), enabled });
        let statistics = observe(&model, &plan)?;
        (self.progress)(Progress::Observed { quantizers: statistics.len() });
        let model = calibrate(model, &statistics, &self.config.algorithm)?;
        (self.progress)(Progress::Solved);
        Ok((model, Report { plan, statistics }))
    }
}
