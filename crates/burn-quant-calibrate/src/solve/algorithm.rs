//! What an algorithm of calibration is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{KernelProblem, LayerProblem};
use crate::observe::{InputStatistics, Statistics, StatisticsRequest};
use burn_quant_core::quantizer::TensorQuantizer;

/// What a step does to a layer. In a sequence a step may not undo one before it: the stages come in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Moves magnitude between inputs and weight, and takes the ranges of both by `max`.
    Smooth,
    /// Adds a branch beside the weight, whose range is then that of the rest by `max`.
    Branch,
    /// Finds ranges.
    Clip,
    /// Rounds the weight to its grid.
    Round,
    /// Makes up for what rounding does on average.
    Correct,
}

impl Stage {
    /// Whether a step of this stage keeps what a step of the stage before it did.
    ///
    /// Smoothing carries a branch along exactly. Two steps that find ranges, or round, are one too many.
    pub(crate) fn may_follow(self, before: Stage) -> bool {
        match (before, self) {
            (Stage::Branch, Stage::Smooth) => true,
            (Stage::Clip, Stage::Clip) | (Stage::Round, Stage::Round) => false,
            _ => before <= self,
        }
    }
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Stage::Smooth => "smooths",
            Stage::Branch => "adds a branch",
            Stage::Clip => "finds ranges",
            Stage::Round => "rounds weights",
            Stage::Correct => "corrects biases",
        })
    }
}

/// An algorithm of calibration: what it wants to know, and what it does to the range of an activation, to a linear
/// layer, or to the weight of any other layer.
///
/// All three are pure functions: a problem comes in, a changed copy goes out. What they need is collected in the one
/// observation of the data that calibration makes. A method that an algorithm does not override does nothing. Register
/// one of yours with [`QuantizeOptions::with_algorithm`](crate::pipeline::QuantizeOptions::with_algorithm), and recipes
/// name it by [`Algorithm::Custom`](crate::config::Algorithm::Custom).
///
/// # Example
///
/// A weight whose channels are clipped to a share of their range:
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// # use burn::tensor::Device;
/// # use burn_nn::LinearConfig;
/// use burn_quant::{QuantConfig, quantize_with};
/// use burn_quant::calibrate::{CalibrationAlgorithm, LayerProblem, QuantizeOptions, SkipReason, Solution, Stage};
///
/// struct Clip { share: f32 }
///
/// impl CalibrationAlgorithm for Clip {
///     fn name(&self) -> &str { "clip" }
///
///     fn stage(&self) -> Stage { Stage::Clip }
///
///     fn layer(&self, layer: &LayerProblem) -> Result<Solution, SkipReason> {
///         let mut quantizer = layer.weight_quantizer().clone();
///         let amax = quantizer.amax().ok_or(SkipReason::DynamicRange)?;
///         quantizer.set_amax(amax * self.share);
///         Ok(Solution::new(layer.with_weight_quantizer(quantizer)).with_choice("share", self.share))
///     }
/// }
///
/// let recipe = r#"{ "rules": [{ "quantizer": "*weight_quantizer", "action": { "set": { "format": "int4" } } }],
///                   "algorithm": { "custom": { "name": "clip", "options": { "share": 0.9 } } } }"#;
/// let config = QuantConfig::from_json(recipe)?;
/// let options = QuantizeOptions::new()
///     .with_algorithm("clip", |options| match options.get("share").and_then(|share| share.as_f64()) {
///         Some(share) => Ok(Box::new(Clip { share: share as f32 })),
///         None => Err("`share` is a number".into()),
///     });
/// let (model, report) = quantize_with(LinearConfig::new(8, 4).init(&Device::flex()), &config, options, |_| {})?;
/// assert_eq!(report.layers[0].steps[0].algorithm, "clip");
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub trait CalibrationAlgorithm: Send + Sync {
    /// Returns the name in reports.
    fn name(&self) -> &str;

    /// Returns what it does to a layer, by which sequences are checked.
    fn stage(&self) -> Stage;

    /// Returns what it wants to know of the inputs of linear layers; `None` if it works without.
    fn inputs(&self) -> Option<InputStatistics> {
        None
    }

    /// Returns what it wants to know of the tensors of an activation quantizer that is on, if it finds the range of it.
    ///
    /// # Errors
    ///
    /// [`SkipReason::NotMine`] if it finds no ranges of activations; any other reason is reported.
    fn request(&self, quantizer: &TensorQuantizer) -> Result<StatisticsRequest, SkipReason> {
        let _ = quantizer;
        Err(SkipReason::NotMine)
    }

    /// Finds the range of an activation for which [`request`](CalibrationAlgorithm::request) asked for statistics: a
    /// number for each group, as many as `seen.amax` has, finite and not negative. Anything else is an error that names
    /// the algorithm.
    ///
    /// # Errors
    ///
    /// The reason goes into the report; the quantizer keeps its range by `max`.
    fn range(&self, quantizer: &TensorQuantizer, seen: &Statistics) -> Result<Vec<f32>, SkipReason> {
        let _ = (quantizer, seen);
        Err(SkipReason::NotMine)
    }

    /// Solves one linear layer.
    ///
    /// # Errors
    ///
    /// The reason goes into the report; the layer keeps what earlier steps made of it.
    fn layer(&self, layer: &LayerProblem) -> Result<Solution, SkipReason> {
        let _ = layer;
        Err(SkipReason::NotMine)
    }

    /// Solves linear layers with a common input, by default each by itself.
    fn siblings(&self, layers: &[LayerProblem]) -> Vec<Result<Solution, SkipReason>> {
        layers.iter().map(|layer| self.layer(layer)).collect()
    }

    /// Solves the weight of a layer that is not linear: finds the range of its quantizer.
    ///
    /// # Errors
    ///
    /// The reason goes into the report; the quantizer keeps its range by `max`.
    fn kernel(&self, kernel: &KernelProblem) -> Result<TensorQuantizer, SkipReason> {
        let _ = kernel;
        Err(SkipReason::NotMine)
    }

    /// Whether it may change convolutions of one pixel, which are matrices too; by default not, as in ModelOpt.
    ///
    /// In a sequence all steps must say so.
    fn supports_pointwise(&self) -> bool {
        false
    }

    /// Whether it works on calibration data, so that weights alone are not enough.
    fn needs_data(&self) -> bool {
        self.inputs().is_some()
    }
}

/// What an algorithm made of a layer.
#[derive(Clone, Debug)]
pub struct Solution {
    /// The changed layer.
    pub layer: LayerProblem,
    /// What was chosen, for the report: an exponent, a mean ratio.
    pub choices: BTreeMap<String, f32>,
}

impl Solution {
    /// Creates the solution of a layer: a changed copy of it.
    ///
    /// Numbers for the report are added by [`with_choice`](Solution::with_choice).
    pub fn new(layer: LayerProblem) -> Self {
        Self { layer, choices: BTreeMap::new() }
    }

    /// Adds a number to the report.
    ///
    /// Reports print it by its name, as `alpha 0.5`.
    pub fn with_choice(mut self, name: impl Into<String>, value: f32) -> Self {
        self.choices.insert(name.into(), value);
        self
    }
}

/// Why an algorithm left a layer as it is.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SkipReason {
    /// The layer has no quantizer for its inputs.
    #[error("it has no quantizer for its inputs, as `Linear` and convolutions of `burn_quant::nn` have")]
    NoActivationQuantizer,
    /// No calibration data reached it, or not what the algorithm asked for.
    #[error("no calibration data reached it")]
    NoData,
    /// Sums over its inputs are too large for f32.
    #[error("sums over its inputs are too large for f32: scale the model or its data down")]
    Overflow,
    /// It is of an expert that no calibration data reached: its range is that of its siblings.
    #[error("no calibration data reached this expert: it has the range of its siblings")]
    NoTokens,
    /// The weight is not a matrix.
    #[error("its weight is not a matrix")]
    NotLinear,
    /// Its inputs go through a chain of quantizers.
    #[error("its inputs go through a chain of quantizers")]
    InputChain,
    /// Its weight goes through a chain of quantizers.
    #[error("its weight goes through a chain of quantizers")]
    WeightChain,
    /// A quantizer rotates.
    #[error("a quantizer of it rotates")]
    Rotated,
    /// The range of the inputs does not follow from those of channels.
    #[error("its input ranges are neither of the tensor nor of channels")]
    InputGranularity,
    /// The inputs are not quantized.
    #[error("its inputs are not quantized")]
    InputNotQuantized,
    /// Weight and inputs are not 8-bit integers.
    #[error("its weight and inputs are not both 8-bit integers")]
    NotInt8,
    /// The format is not an integer one.
    #[error("the format is not an integer one")]
    NotInteger,
    /// The ranges are those of the data at any time: there is nothing to find.
    #[error("its ranges are dynamic")]
    DynamicRange,
    /// The ranges are not those of blocks.
    #[error("its ranges are not those of blocks")]
    NoBlocks,
    /// The scales are not static E4M3 block scales.
    #[error("its scales are not static E4M3 block scales")]
    NotE4m3Scales,
    /// The format of an input is not NVFP4 with a static range.
    #[error("it is not NVFP4 with dynamic blocks and a static range")]
    NotNvfp4,
    /// The range is not one of the whole tensor.
    #[error("its range is not one of the whole tensor")]
    NotPerTensor,
    /// The quantizer of the weight is affine.
    #[error("its weight is quantized around a bias")]
    WeightBias,
    /// The layer has no bias that could be changed.
    #[error("it has no bias")]
    NoBias,
    /// The layer cannot compute a branch of low rank.
    #[error("it is not a `QuantLinear`, and cannot compute a branch of low rank")]
    NoBranch,
    /// The Gram matrix has no factor, even with damping.
    #[error("its inputs have no invertible Gram matrix: use more data or more damping")]
    Singular,
    /// The configuration says so.
    #[error("the configuration skips it")]
    Configured,
    /// The algorithm does nothing of this kind; it is not reported.
    #[error("the algorithm does nothing of this kind")]
    NotMine,
    /// The blocks of the algorithm are not those of the quantizer.
    #[error("its blocks are not those of the algorithm: give both one size")]
    OtherBlocks,
    /// The result is not better.
    #[error("nothing better was found")]
    NoGain,
    /// A custom algorithm says so.
    #[error("{reason}")]
    Custom {
        /// What it says.
        reason: String,
    },
}

burn_quant_core::debug_is_display!(SkipReason);
