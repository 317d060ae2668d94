//! The algorithms that a recipe can name, and their options.

mod options;
mod validate;

pub use options::{
    ActOrder, BinWidth, CalibrationInputs, HistogramConfig, Identity, IncludeMax, RangeSearch, SiblingScales, Zeros,
};

use serde::{Deserialize, Serialize};

use super::written::is_default;
use crate::algorithms::algorithms;
use burn_quant_core::config::near_misses;
use burn_quant_core::error::QuantError;

/// How the ranges of static quantizers are found, and what else calibration does.
///
/// An algorithm says what it does to a layer; those of *layers* work on linear layers with an activation quantizer
/// before them ([`QuantLinear`](burn_quant_nn::QuantLinear)), and every other quantizer gets its range by
/// [`Algorithm::Max`]. What was skipped is in the [report](crate::solve::LayerReport) with its reason. Defaults are
/// those of ModelOpt 0.47.
///
/// | algorithm | of | statistics | file |
/// |---|---|---|---|
/// | `max` | all | largest magnitude | `max.rs` |
/// | `percentile`, `entropy`, `histogram_mse` | activations | histogram | a file of the same name |
/// | `lsq_init` | all with f32 scales | mean magnitude of each channel | `lsq_init.rs` |
/// | `moving_average` | activations | largest magnitude of each batch | `moving_average.rs` |
/// | `activation_headroom` | NVFP4 activations | histogram of block ranges | `activation_headroom.rs` |
/// | `mse`, `local_hessian` | weights | none; Gram matrix | `range_search.rs` |
/// | `smoothquant` | layers | range of each channel | `smoothquant.rs` |
/// | `awq_lite`, `awq_clip`, `awq_full` | layers | Gram matrix | `awq_lite.rs`, `awq_clip.rs` |
/// | `svdquant` | layers | Gram matrix | `svdquant.rs` |
/// | `gptq` | layers | Gram matrix | `gptq.rs` |
/// | `adaround` | layers | Gram matrix | `adaround.rs` |
/// | `bias_correction` | layers | mean of each channel | `bias_correction.rs` |
///
/// # Example
///
/// ```
/// use burn_quant::{Algorithm, presets};
/// use burn_quant::config::SiblingScales;
///
/// let smooth = Algorithm::SmoothQuant { alpha: 0.5, sharing: SiblingScales::PerLayer };
/// let config = presets::int8_default().with_algorithm(Algorithm::Sequence(vec![smooth, Algorithm::gptq()]));
/// assert_eq!(config.algorithm.name(), "sequence");
/// ```
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(remote = "Self", rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Algorithm {
    /// No calibration: every quantizer is dynamic or constant, or has its range already.
    None,
    /// The largest magnitude seen: see [`solve::max`](crate::solve::max).
    #[default]
    Max,
    /// The range below which a share of the magnitudes of activations lies: see
    /// [`solve::percentile`](crate::solve::percentile()).
    Percentile {
        /// The share, in percent; 99.99 by default.
        #[serde(default = "default::percentile")]
        percentile: f64,
        /// How magnitudes are counted.
        #[serde(default, skip_serializing_if = "is_default")]
        histogram: HistogramConfig,
    },
    /// The range of activations that loses the least information: see [`solve::entropy`](crate::solve::entropy()).
    Entropy {
        /// The least range that is tried, in bins; 128 by default.
        #[serde(default = "default::start_bin")]
        start_bin: usize,
        /// Bins between two ranges that are tried; 1 by default.
        #[serde(default = "default::stride")]
        stride: usize,
        /// How magnitudes are counted.
        #[serde(default, skip_serializing_if = "is_default")]
        histogram: HistogramConfig,
    },
    /// The range of activations of least squared rounding error: see
    /// [`solve::histogram_mse`](crate::solve::histogram_mse()).
    HistogramMse {
        /// The least range that is tried, in bins; 128 by default.
        #[serde(default = "default::start_bin")]
        start_bin: usize,
        /// Bins between two ranges that are tried; 1 by default.
        #[serde(default = "default::stride")]
        stride: usize,
        /// How magnitudes are counted.
        #[serde(default, skip_serializing_if = "is_default")]
        histogram: HistogramConfig,
    },
    /// The exponential average of the ranges of batches: see [`solve::moving_average`](crate::solve::moving_average()).
    MovingAverage {
        /// The weight of what was before, 0 to 1; 0.9 by default.
        #[serde(default = "default::momentum")]
        momentum: f32,
    },
    /// LSQ initialisation: `amax = 2·mean(|x|)·√q_max`, where learned ranges begin.
    #[serde(alias = "mean_magnitude")]
    LsqInit,
    /// The range of least squared rounding error of each weight.
    Mse(RangeSearch),
    /// The range of least error of each weight's output, estimated per block.
    LocalHessian {
        /// The candidates; all E4M3 block scales by default.
        #[serde(default = "default::e4m3_scales")]
        search: RangeSearch,
        /// Columns of a block; 16 by default.
        #[serde(default = "default::hessian_block")]
        block_size: usize,
        /// The inputs that the error is measured on.
        #[serde(default, skip_serializing_if = "is_default")]
        inputs: CalibrationInputs,
    },
    /// The range of activation tensors under E4M3 block scales, with headroom.
    ActivationHeadroom {
        /// The percentile of block ranges that must stay representable; 1 by default.
        #[serde(default = "default::anchor_percentile")]
        anchor_percentile: f32,
        /// The percentile that is the range at least; 99.99 by default.
        #[serde(default = "default::upper_percentile")]
        upper_percentile: f32,
        /// How far the anchor may be below the range; 16384 by default.
        #[serde(default = "default::rho")]
        rho: f32,
    },
    /// SmoothQuant: moves outliers of channels from the activations into the weight.
    #[serde(rename = "smoothquant")]
    SmoothQuant {
        /// Migration strength, 0 to 1: 0 leaves the activations as they are, 1, the default, equalises them fully.
        #[serde(default = "default::alpha")]
        alpha: f32,
        /// Whether layers with a common input get a common scale.
        #[serde(default, skip_serializing_if = "is_default")]
        sharing: SiblingScales,
    },
    /// Scales of input channels by search.
    AwqLite {
        /// The step of the exponents that are tried; 0.1 by default.
        #[serde(default = "default::alpha_step")]
        alpha_step: f32,
        /// Whether layers with a common input get a common scale.
        #[serde(default, skip_serializing_if = "is_default")]
        sharing: SiblingScales,
        /// Whether no smoothing is a candidate.
        #[serde(default)]
        identity: Identity,
    },
    /// Clipped ranges of weights by search.
    AwqClip {
        /// The smallest fraction of the range that is tried; 0.5 by default.
        #[serde(default = "default::min_clip_ratio")]
        min_clip_ratio: f32,
        /// The step of the fractions; 0.05 by default.
        #[serde(default = "default::shrink_step")]
        shrink_step: f32,
    },
    /// AWQ-lite, then AWQ-clip on the smoothed weight.
    AwqFull {
        /// The step of the exponents that are tried; 0.1 by default.
        #[serde(default = "default::alpha_step")]
        alpha_step: f32,
        /// The smallest fraction of the range that is tried; 0.5 by default.
        #[serde(default = "default::min_clip_ratio")]
        min_clip_ratio: f32,
        /// The step of the fractions; 0.05 by default.
        #[serde(default = "default::shrink_step")]
        shrink_step: f32,
        /// Whether layers with a common input get a common scale.
        #[serde(default, skip_serializing_if = "is_default")]
        sharing: SiblingScales,
        /// Whether no smoothing is a candidate.
        #[serde(default)]
        identity: Identity,
    },
    /// A low-rank branch in high precision beside the quantized weight.
    #[serde(rename = "svdquant")]
    SvdQuant {
        /// The rank; 32 by default.
        #[serde(default = "default::rank")]
        rank: usize,
        /// The step of the exponents that are tried when the input is smoothed.
        #[serde(default = "default::alpha_step")]
        alpha_step: f32,
        /// Layers that get no branch, by globs of their names; they are quantized by `max`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        skip_layers: Vec<String>,
    },
    /// Rounding column by column, each correcting the errors before it.
    Gptq {
        /// What is added to the diagonal, as a fraction of its mean; 0.01 by default.
        #[serde(default = "default::damping")]
        damping: f32,
        /// Columns that are corrected together; 128 by default.
        #[serde(default = "default::gptq_block")]
        block_size: usize,
        /// Whether columns are rounded in the order of their activations.
        #[serde(default, alias = "order", skip_serializing_if = "is_default")]
        act_order: ActOrder,
        /// The inputs that the error is measured on.
        #[serde(default, skip_serializing_if = "is_default")]
        inputs: CalibrationInputs,
    },
    /// Rounding up or down as learned against the output error of the layer.
    #[serde(rename = "adaround")]
    AdaRound {
        /// Steps of gradient descent; 1000 by default.
        #[serde(default = "default::iterations")]
        iterations: usize,
        /// The weight of the term that pushes towards a decision; 3 by default.
        #[serde(default = "default::regularization")]
        regularization: f32,
    },
    /// A bias that takes up the mean of the output error.
    BiasCorrection,
    /// Several, one after the other, on the statistics of one observation.
    Sequence(Vec<Algorithm>),
    /// One algorithm for some layers only; the other layers keep what they have.
    #[serde(alias = "of_layers")]
    ForLayers {
        /// The layers, by globs of their paths.
        layers: Vec<String>,
        /// What is done to them: a single algorithm that calibrates.
        algorithm: Box<Algorithm>,
    },
    /// One of the user's: see [`CalibrationAlgorithm`](crate::solve::CalibrationAlgorithm).
    Custom {
        /// The name it is registered by.
        name: String,
        /// What it is told.
        #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
        options: serde_json::Map<String, serde_json::Value>,
    },
}

/// Default options, as functions because serde wants them so.
mod default {
    use super::RangeSearch;

    macro_rules! defaults {
        ($($name:ident: $type:ty = $value:expr;)*) => {
            $(pub(super) fn $name() -> $type { $value })*
        };
    }

    defaults! {
        percentile: f64 = 99.99;
        start_bin: usize = 128;
        stride: usize = 1;
        momentum: f32 = 0.9;
        e4m3_scales: RangeSearch = RangeSearch::E4m3Scales;
        hessian_block: usize = 16;
        anchor_percentile: f32 = 1.0;
        upper_percentile: f32 = 99.99;
        rho: f32 = 16384.0;
        alpha: f32 = 1.0;
        alpha_step: f32 = 0.1;
        min_clip_ratio: f32 = 0.5;
        shrink_step: f32 = 0.05;
        rank: usize = 32;
        damping: f32 = 0.01;
        gptq_block: usize = 128;
        iterations: usize = 1000;
        regularization: f32 = 3.0;
    }
}

macro_rules! names {
    ($($name:literal $(| $older:literal)*: $algorithm:pat = $default:expr,
        check [$($check:expr),* $(,)?], solve [$($step:expr),* $(,)?];)*) => {
        /// The names of each row of the table: the one that is written, and those that older recipes have.
        const NAMES: &[&[&str]] = &[$(&[$name $(, $older)*]),*];

        impl Algorithm {
            /// Returns every built-in algorithm with its default options, in the order of the table.
            ///
            /// # Example
            ///
            /// ```
            /// use burn_quant::Algorithm;
            ///
            /// assert!(Algorithm::all().contains(&Algorithm::awq_lite()));
            /// ```
            pub fn all() -> Vec<Self> {
                vec![$($default),*]
            }

            /// Returns the name in recipes and reports; of a custom algorithm, the name it is registered by.
            ///
            /// An algorithm for some layers only has the name of what it does there.
            #[allow(unused_variables)] // options
            pub fn name(&self) -> &str {
                match self {
                    $($algorithm => $name,)*
                    Algorithm::Sequence(_) => "sequence",
                    Algorithm::ForLayers { algorithm, .. } => algorithm.name(),
                    Algorithm::Custom { name, .. } => name,
                }
            }
        }
    };
}

algorithms!(names);

impl Algorithm {
    /// Takes a percentile of the magnitudes of activations, in percent: 99.9 clips one value in a thousand.
    ///
    /// Weights keep their ranges by `max`. ModelOpt's `percentile` of its histogram calibrator.
    pub fn percentile(percentile: f64) -> Self {
        Algorithm::Percentile { percentile, histogram: HistogramConfig::default() }
    }

    /// Takes the range of activations with the least relative entropy, of every range from 128 bins on.
    ///
    /// Weights keep their ranges by `max`. ModelOpt's `entropy` of its histogram calibrator.
    pub fn entropy() -> Self {
        Algorithm::Entropy { start_bin: 128, stride: 1, histogram: HistogramConfig::default() }
    }

    /// Takes the range of activations with the least squared error, of every range from 128 bins on.
    ///
    /// Weights keep their ranges by `max`. ModelOpt's `mse` of its histogram calibrator.
    pub fn histogram_mse() -> Self {
        Algorithm::HistogramMse { start_bin: 128, stride: 1, histogram: HistogramConfig::default() }
    }

    /// Smooths each layer by itself, with migration strength `alpha` in `[0, 1]`.
    ///
    /// ModelOpt's `smoothquant`, whose default is 1.
    pub fn smoothquant(alpha: f32) -> Self {
        Algorithm::SmoothQuant { alpha, sharing: SiblingScales::PerLayer }
    }

    /// Searches the scale of each layer's input channels, in exponents from 0 to 1 in steps of 0.1.
    ///
    /// ModelOpt's `awq_lite`, each layer by itself.
    pub fn awq_lite() -> Self {
        Algorithm::AwqLite { alpha_step: 0.1, sharing: SiblingScales::PerLayer, identity: Identity::Tried }
    }

    /// Searches how far the ranges of each weight's blocks are clipped, from 1 down to 0.5 in steps of 0.05.
    ///
    /// ModelOpt's `awq_clip`.
    pub fn awq_clip() -> Self {
        Algorithm::AwqClip { min_clip_ratio: 0.5, shrink_step: 0.05 }
    }

    /// Runs AWQ-lite, then AWQ-clip on the smoothed weight; each layer by itself.
    ///
    /// ModelOpt's `awq_full`.
    pub fn awq_full() -> Self {
        Algorithm::AwqFull {
            alpha_step: 0.1,
            min_clip_ratio: 0.5,
            shrink_step: 0.05,
            sharing: SiblingScales::PerLayer,
            identity: Identity::Tried,
        }
    }

    /// Puts a branch of this rank in float beside every layer, and quantizes what the branch leaves.
    ///
    /// ModelOpt's `svdquant`, whose default rank is 32; the branch costs `rank · (in + out)` numbers per layer.
    pub fn svdquant(rank: usize) -> Self {
        Algorithm::SvdQuant { rank, alpha_step: 0.1, skip_layers: Vec::new() }
    }

    /// Rounds columns one after the other and corrects those that follow, in the order of the weight.
    ///
    /// ModelOpt's `gptq` with its defaults: damping 0.01, blocks of 128 columns.
    pub fn gptq() -> Self {
        let (act_order, inputs) = (ActOrder::Off, CalibrationInputs::Float);
        Algorithm::Gptq { damping: 0.01, block_size: 128, act_order, inputs }
    }

    /// Searches all E4M3 block scales of a static NVFP4 weight for the least error of the output.
    ///
    /// ModelOpt's `local_hessian`.
    pub fn local_hessian() -> Self {
        Algorithm::LocalHessian { search: RangeSearch::E4m3Scales, block_size: 16, inputs: CalibrationInputs::Float }
    }

    /// Sets the range of NVFP4 activations so that blocks larger than those of calibration still have a scale.
    ///
    /// ModelOpt's `NVFP4ActHeadroomCalibrator` with its defaults.
    pub fn activation_headroom() -> Self {
        Algorithm::ActivationHeadroom { anchor_percentile: 1.0, upper_percentile: 99.99, rho: 16384.0 }
    }

    /// Learns for each weight of a linear layer whether to round up or down, in 1000 steps.
    ///
    /// Source: Nagel et al. 2020, "Up or Down?", arXiv:2004.10568; ModelOpt has none.
    pub fn adaround() -> Self {
        Algorithm::AdaRound { iterations: 1000, regularization: 3.0 }
    }

    /// An algorithm with its default options, by its name in recipes.
    ///
    /// # Errors
    ///
    /// [`QuantError::NoAlgorithm`] with the most similar names. Sequences, algorithms for some layers only, and custom
    /// ones have no defaults.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant::Algorithm;
    ///
    /// assert_eq!(Algorithm::named("awq_lite")?, Algorithm::awq_lite());
    /// assert!(Algorithm::named("awq").unwrap_err().to_string().contains("`awq_lite`"));
    /// # Ok::<(), burn_quant::QuantError>(())
    /// ```
    pub fn named(name: &str) -> Result<Self, QuantError> {
        let found = NAMES.iter().position(|names| names.contains(&name));
        let found = found.map(|row| Algorithm::all().swap_remove(row));
        found.ok_or_else(|| {
            let near_misses = near_misses(name, NAMES.iter().map(|names| names[0]));
            QuantError::NoAlgorithm { name: name.into(), near_misses }
        })
    }

    /// Returns an algorithm of your own, by the name that it is
    /// [registered](crate::pipeline::QuantizeOptions::with_algorithm) by, with its options.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant::{Algorithm, presets};
    ///
    /// let algorithm = Algorithm::custom("clip", [("share", 0.9.into())]);
    /// let recipe = presets::int8_default().with_algorithm(algorithm.clone()).to_json();
    /// assert_eq!(burn_quant::QuantConfig::from_json(&recipe)?.algorithm, algorithm);
    /// # Ok::<(), burn_quant::QuantError>(())
    /// ```
    pub fn custom<'a>(
        name: impl Into<String>,
        options: impl IntoIterator<Item = (&'a str, serde_json::Value)>,
    ) -> Self {
        let options = options.into_iter().map(|(option, value)| (option.to_string(), value)).collect();
        Algorithm::Custom { name: name.into(), options }
    }

    /// Returns the algorithms it consists of, in order: itself, unless it is a sequence.
    ///
    /// A sequence within a sequence is an error of [`validate`](Algorithm::validate).
    pub fn steps(&self) -> &[Algorithm] {
        match self {
            Algorithm::Sequence(steps) => steps,
            single => std::slice::from_ref(single),
        }
    }
}
