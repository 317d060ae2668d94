//! What an algorithm of layers is, and those that recipes can name.

use std::collections::BTreeMap;
use std::sync::Arc;

use globset::GlobMatcher;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Layer;
use super::adaround::AdaRound;
use super::awq_clip::AwqClip;
use super::awq_lite::AwqLite;
use super::bias_correction::BiasCorrection;
use super::gptq::Gptq;
use super::mean_magnitude::MeanMagnitude;
use super::range_search::{LocalHessian, Mse};
use super::smoothquant::SmoothQuant;
use super::svdquant::SvdQuant;
use crate::config::matcher;
use crate::{Algorithm, ChannelNeeds, QuantError};

/// An algorithm that changes one linear layer, given what is known of its inputs.
///
/// It is a pure function: a layer comes in, a changed copy goes out. What it needs is collected in the one observation of the
/// data that calibration makes. Register one of yours with
/// [`Quantization::with_algorithm`](crate::Quantization::with_algorithm), and recipes name it by
/// [`Algorithm::Custom`].
///
/// # Example
///
/// A weight whose channels are clipped to a share of their range:
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// # use burn::tensor::Device;
/// # use burn_nn::LinearConfig;
/// use burn_quant::{Algorithm, ChannelNeeds, Layer, LayerAlgorithm, QuantConfig, Quantization, SkipReason, Solution};
///
/// struct Clip { share: f32 }
///
/// impl LayerAlgorithm for Clip {
///     fn name(&self) -> &str { "clip" }
///
///     fn needs(&self) -> Option<ChannelNeeds> { None } // the weight alone
///
///     fn solve(&self, layer: &Layer) -> Result<Solution, SkipReason> {
///         let mut quantizer = layer.weight_quantizer().clone();
///         let amax = quantizer.amax().ok_or(SkipReason::DynamicRange)?;
///         quantizer.set_amax(amax * self.share);
///         Ok(Solution::new(layer.with_weight_quantizer(quantizer)).with_choice("share", self.share))
///     }
/// }
///
/// let recipe = r#"{ "rules": [{ "quantizer": "*weight_quantizer", "action": { "set": { "format": { "int": { "bits": 4 } } } } }],
///                   "algorithm": { "custom": { "name": "clip", "options": { "share": 0.9 } } } }"#;
/// let config = QuantConfig::from_json(recipe)?;
/// let (model, report) = Quantization::new(&config)
///     .with_algorithm("clip", |options| match options.get("share").and_then(|share| share.as_f64()) {
///         Some(share) => Ok(Box::new(Clip { share: share as f32 })),
///         None => Err("`share` is a number".into()),
///     })
///     .run_weights(LinearConfig::new(8, 4).init(&Device::flex()))?;
/// assert_eq!(report.layers[0].steps[0].algorithm, "clip");
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub trait LayerAlgorithm: Send + Sync {
    /// The name in reports.
    fn name(&self) -> &str;

    /// What it wants to know of the inputs of a layer; `None` if it works on weights alone.
    fn needs(&self) -> Option<ChannelNeeds>;

    /// Whether it may change convolutions of one pixel, which are matrices too; by default not, as in ModelOpt.
    ///
    /// In a sequence all algorithms must say so.
    fn takes_pointwise(&self) -> bool {
        false
    }

    /// A changed copy of the layer, or why it is left as it is.
    ///
    /// # Errors
    ///
    /// The reason goes into the report; the layer keeps what earlier algorithms made of it.
    fn solve(&self, layer: &Layer) -> Result<Solution, SkipReason>;

    /// The same for layers with a common input, by default each by itself.
    fn solve_siblings(&self, layers: &[Layer]) -> Vec<Result<Solution, SkipReason>> {
        layers.iter().map(|layer| self.solve(layer)).collect()
    }
}

/// What an algorithm made of a layer.
#[derive(Clone, Debug)]
pub struct Solution {
    /// The changed layer.
    pub layer: Layer,
    /// What was chosen, for the report: an exponent, a mean ratio.
    pub choices: BTreeMap<String, f32>,
}

impl Solution {
    /// A changed layer, and nothing to say about it.
    pub fn new(layer: Layer) -> Self {
        Self { layer, choices: BTreeMap::new() }
    }

    /// Adds a number to the report.
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
    NoSlot,
    /// No calibration data reached it, or not what the algorithm asked for.
    #[error("no calibration data reached it")]
    NoData,
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

crate::error::debug_is_display!(SkipReason);

/// An algorithm that leaves all layers alone but some.
struct OfLayers {
    globs: Vec<GlobMatcher>,
    inner: Box<dyn LayerAlgorithm>,
}

impl OfLayers {
    fn is_for(&self, layer: &Layer) -> bool {
        self.globs.iter().any(|glob| glob.is_match(layer.name()))
    }
}

impl LayerAlgorithm for OfLayers {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn needs(&self) -> Option<ChannelNeeds> {
        self.inner.needs()
    }

    fn takes_pointwise(&self) -> bool {
        self.inner.takes_pointwise()
    }

    fn solve(&self, layer: &Layer) -> Result<Solution, SkipReason> {
        if self.is_for(layer) { self.inner.solve(layer) } else { Err(SkipReason::Configured) }
    }

    fn solve_siblings(&self, layers: &[Layer]) -> Vec<Result<Solution, SkipReason>> {
        if layers.iter().all(|layer| self.is_for(layer)) {
            return self.inner.solve_siblings(layers);
        }
        layers.iter().map(|layer| self.solve(layer)).collect()
    }
}

type Constructor = dyn Fn(&Map<String, Value>) -> Result<Box<dyn LayerAlgorithm>, String> + Send + Sync;

/// Custom algorithms by name.
#[derive(Clone, Default)]
pub(crate) struct Registry(BTreeMap<String, Arc<Constructor>>);

impl Registry {
    pub(crate) fn register(
        &mut self,
        name: impl Into<String>,
        constructor: impl Fn(&Map<String, Value>) -> Result<Box<dyn LayerAlgorithm>, String> + Send + Sync + 'static,
    ) {
        self.0.insert(name.into(), Arc::new(constructor));
    }

    /// The steps of an algorithm that change layers, in order.
    pub(crate) fn layer_algorithms(&self, algorithm: &Algorithm) -> Result<Vec<Box<dyn LayerAlgorithm>>, QuantError> {
        let mut steps: Vec<Box<dyn LayerAlgorithm>> = Vec::new();
        for step in algorithm.steps() {
            match step.clone() {
                Algorithm::MeanMagnitude => steps.push(Box::new(MeanMagnitude)),
                Algorithm::Mse(search) => steps.push(Box::new(Mse { search })),
                Algorithm::LocalHessian { search, .. } => steps.push(Box::new(LocalHessian { search })),
                Algorithm::SmoothQuant { alpha, sharing } => steps.push(Box::new(SmoothQuant { alpha, sharing })),
                Algorithm::AwqLite { alpha_step, sharing } => steps.push(Box::new(AwqLite { alpha_step, sharing })),
                Algorithm::AwqClip { min_clip_ratio, shrink_step } => {
                    steps.push(Box::new(AwqClip { min_clip_ratio, shrink_step }));
                }
                Algorithm::AwqFull { alpha_step, min_clip_ratio, shrink_step, sharing } => {
                    steps.push(Box::new(AwqLite { alpha_step, sharing }));
                    steps.push(Box::new(AwqClip { min_clip_ratio, shrink_step }));
                }
                Algorithm::SvdQuant { rank, alpha_step, skip_layers } => {
                    steps.push(Box::new(SvdQuant::new(rank, alpha_step, &skip_layers)?));
                }
                Algorithm::Gptq { damping, block_size, order, .. } => {
                    steps.push(Box::new(Gptq { damping, block_size, order }));
                }
                Algorithm::AdaRound { iterations, regularization } => {
                    steps.push(Box::new(AdaRound { iterations, regularization }));
                }
                Algorithm::BiasCorrection => steps.push(Box::new(BiasCorrection)),
                Algorithm::Custom { name, options } => {
                    let known = || self.0.keys().cloned().collect();
                    let unknown = || QuantError::UnknownAlgorithm { name: name.clone(), known: known() };
                    let constructor = self.0.get(&name).ok_or_else(unknown)?;
                    let made = constructor(&options);
                    steps.push(made.map_err(|reason| QuantError::CustomOptions { name: name.clone(), reason })?);
                }
                Algorithm::OfLayers { layers, algorithm } => {
                    let globs = layers.iter().map(|glob| matcher(glob)).collect::<Result<Vec<_>, _>>()?;
                    for inner in self.layer_algorithms(&algorithm)? {
                        steps.push(Box::new(OfLayers { globs: globs.clone(), inner }));
                    }
                }
                Algorithm::None
                | Algorithm::Max
                | Algorithm::Percentile { .. }
                | Algorithm::Entropy { .. }
                | Algorithm::HistogramMse { .. }
                | Algorithm::MovingAverage { .. }
                | Algorithm::ActivationHeadroom { .. }
                | Algorithm::Sequence(_) => {}
            }
        }
        Ok(steps)
    }
}
