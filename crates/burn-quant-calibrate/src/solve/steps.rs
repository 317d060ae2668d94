//! The steps that an algorithm of a recipe stands for, and the algorithms that are registered by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use globset::GlobMatcher;
use serde_json::{Map, Value};

use super::CalibrationAlgorithm;
use crate::algorithms::algorithms;
use crate::config::{Algorithm, CalibrationInputs};
use crate::observe::CaptureAt;
use burn_quant_core::config::matcher;
use burn_quant_core::error::QuantError;

/// One step of an algorithm: what is done, to which layers, on which inputs.
pub(crate) struct Step {
    algorithm: Box<dyn CalibrationAlgorithm>,
    /// Globs of the layers that it is for; all without any.
    layers: Option<Vec<GlobMatcher>>,
    /// The inputs that errors are measured on.
    pub(crate) at: CaptureAt,
}

impl std::ops::Deref for Step {
    type Target = dyn CalibrationAlgorithm;

    fn deref(&self) -> &(dyn CalibrationAlgorithm + 'static) {
        self.algorithm.as_ref()
    }
}

impl Step {
    fn new(algorithm: impl CalibrationAlgorithm + 'static) -> Self {
        Self::boxed(Box::new(algorithm))
    }

    fn boxed(algorithm: Box<dyn CalibrationAlgorithm>) -> Self {
        Self { algorithm, layers: None, at: CaptureAt::Float }
    }

    fn on(mut self, inputs: CalibrationInputs, quantized: CaptureAt) -> Self {
        self.at = match inputs {
            CalibrationInputs::Float => CaptureAt::Float,
            CalibrationInputs::Quantized => quantized,
        };
        self
    }

    /// Whether it is for a layer; the layer that is the whole model is called by its weight.
    pub(crate) fn is_for(&self, layer: &str) -> bool {
        let layer = if layer.is_empty() { "weight" } else { layer };
        self.layers.as_ref().is_none_or(|globs| globs.iter().any(|glob| glob.is_match(layer)))
    }
}

macro_rules! steps {
    ($($name:literal $(| $older:literal)*: $algorithm:pat = $default:expr,
        check [$($check:expr),* $(,)?], solve [$($step:expr),* $(,)?];)*) => {
        /// The steps of the table; other algorithms consist of those.
        fn steps_of(algorithm: Algorithm) -> Result<Vec<Step>, QuantError> {
            Ok(match algorithm {
                $($algorithm => vec![$($step),*],)*
                Algorithm::Sequence(_) | Algorithm::ForLayers { .. } | Algorithm::Custom { .. } => Vec::new(),
            })
        }
    };
}

algorithms!(steps);

/// The options of a custom algorithm, as recipes write them: numbers, strings, lists by name.
pub type AlgorithmOptions = Map<String, Value>;

type Constructor = dyn Fn(&AlgorithmOptions) -> Result<Box<dyn CalibrationAlgorithm>, String> + Send + Sync;

/// Table of algorithms of your own, by the names that recipes have for them.
///
/// # Example
///
/// ```
/// use burn_quant::calibrate::{CalibrationAlgorithm, CustomAlgorithms, QuantizeOptions, Stage};
///
/// struct Halve;
///
/// impl CalibrationAlgorithm for Halve {
///     fn name(&self) -> &str { "halve" }
///
///     fn stage(&self) -> Stage { Stage::Clip }
/// }
///
/// let algorithms = CustomAlgorithms::new().with("halve", |_| Ok(Box::new(Halve))); // and a row for each other one
/// let options = QuantizeOptions::new().with_algorithms(algorithms);
/// # drop(options);
/// ```
#[derive(Clone, Default)]
pub struct CustomAlgorithms(BTreeMap<String, Arc<Constructor>>);

impl std::fmt::Debug for CustomAlgorithms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl CustomAlgorithms {
    /// Creates a table without algorithms.
    ///
    /// [`with`](CustomAlgorithms::with) adds one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an algorithm by the name that recipes have for it; one of the same name is replaced.
    ///
    /// `constructor` gets the options of the recipe, and says what is wrong with them.
    pub fn with<C>(mut self, name: impl Into<String>, constructor: C) -> Self
    where
        C: Fn(&AlgorithmOptions) -> Result<Box<dyn CalibrationAlgorithm>, String> + Send + Sync + 'static,
    {
        self.0.insert(name.into(), Arc::new(constructor));
        self
    }

    /// Adds those of another table.
    ///
    /// Of two with the same name, the other's stays.
    pub fn extended(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    /// The steps of an algorithm, in order.
    pub(crate) fn steps(&self, algorithm: &Algorithm) -> Result<Vec<Step>, QuantError> {
        match algorithm {
            Algorithm::Custom { name, options } => Ok(vec![Step::boxed(self.constructed(name, options)?)]),
            Algorithm::Sequence(steps) => {
                let steps: Vec<Vec<Step>> = steps.iter().map(|step| self.steps(step)).collect::<Result<_, _>>()?;
                Ok(steps.into_iter().flatten().collect())
            }
            Algorithm::ForLayers { layers, algorithm } => {
                let globs = layers.iter().map(|glob| matcher(glob)).collect::<Result<Vec<_>, _>>()?;
                let steps = self.steps(algorithm)?.into_iter();
                Ok(steps.map(|step| Step { layers: Some(globs.clone()), ..step }).collect())
            }
            single => steps_of(single.clone()),
        }
    }

    fn constructed(&self, name: &str, options: &AlgorithmOptions) -> Result<Box<dyn CalibrationAlgorithm>, QuantError> {
        let constructor = self.0.get(name).ok_or_else(|| QuantError::UnknownAlgorithm {
            name: name.into(),
            known: self.0.keys().cloned().collect(),
        })?;
        constructor(options).map_err(|reason| QuantError::CustomOptions { name: name.into(), reason })
    }
}
