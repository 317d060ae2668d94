//! The algorithms that a recipe can name.

use serde::{Deserialize, Serialize};

use crate::QuantError;

/// How the ranges of static quantizers are found, and what else calibration does.
///
/// An algorithm says what it does to a layer; those of *layers* work on linear layers with a slot before them
/// ([`QuantLinear`](crate::nn::QuantLinear)), and every other quantizer gets its range by [`Algorithm::Max`]. What was skipped is
/// in the [report](crate::LayerReport) with its reason. Defaults are those of ModelOpt 0.47.
///
/// | algorithm | of | statistics | file |
/// |---|---|---|---|
/// | `max` | all | largest magnitude | `max.rs` |
/// | `percentile`, `entropy`, `histogram_mse` | activations | histogram | `percentile.rs`, `entropy.rs`, `histogram_mse.rs` |
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
/// use burn_quant::{Algorithm, QuantConfig, Sharing};
///
/// let smooth = Algorithm::SmoothQuant { alpha: 0.5, sharing: Sharing::Separate };
/// let config = QuantConfig::int8_default().with_algorithm(Algorithm::Sequence(vec![smooth, Algorithm::gptq()]));
/// assert_eq!(config.algorithm.name(), "sequence");
/// ```
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Algorithm {
    /// No calibration: every quantizer is dynamic or constant, or has its range already.
    None,
    /// The largest magnitude seen: see [`solve::max`](crate::solve::max).
    #[default]
    Max,
    /// The range below which a share of the magnitudes of activations lies: see [`solve::percentile`](crate::solve::percentile()).
    Percentile {
        /// The share, in percent.
        percentile: f64,
        /// How magnitudes are counted.
        #[serde(default)]
        histogram: HistogramConfig,
    },
    /// The range of activations that loses the least information: see [`solve::entropy`](crate::solve::entropy()).
    Entropy {
        /// The least range that is tried, in bins.
        start_bin: usize,
        /// Bins between two ranges that are tried.
        stride: usize,
        /// How magnitudes are counted.
        #[serde(default)]
        histogram: HistogramConfig,
    },
    /// The range of activations of least squared rounding error: see [`solve::histogram_mse`](crate::solve::histogram_mse()).
    HistogramMse {
        /// The least range that is tried, in bins.
        start_bin: usize,
        /// Bins between two ranges that are tried.
        stride: usize,
        /// How magnitudes are counted.
        #[serde(default)]
        histogram: HistogramConfig,
    },
    /// The exponential average of the ranges of batches: see [`solve::moving_average`](crate::solve::moving_average()).
    MovingAverage {
        /// The weight of what was before, 0 to 1.
        momentum: f32,
    },
    /// The range of least squared rounding error of each weight.
    Mse(RangeSearch),
    /// The range of least error of each weight's output, estimated per block.
    LocalHessian {
        /// The candidates.
        search: RangeSearch,
        /// Columns of a block.
        block_size: usize,
        /// The inputs that the error is measured on.
        #[serde(default)]
        inputs: Inputs,
    },
    /// The range of activation tensors under E4M3 block scales, with headroom.
    ActivationHeadroom {
        /// The percentile of block ranges that must stay representable.
        anchor_percentile: f32,
        /// The percentile that is the range at least.
        upper_percentile: f32,
        /// How far the anchor may be below the range.
        rho: f32,
    },
    /// Scales between activations and weights.
    #[serde(rename = "smoothquant")]
    SmoothQuant {
        /// How much of the difficulty goes to the weights, 0 to 1.
        alpha: f32,
        /// Whether layers with a common input get a common scale.
        #[serde(default)]
        sharing: Sharing,
    },
    /// Scales of input channels by search.
    AwqLite {
        /// The step of the exponents that are tried.
        alpha_step: f32,
        /// Whether layers with a common input get a common scale.
        #[serde(default)]
        sharing: Sharing,
    },
    /// Clipped ranges of weights by search.
    AwqClip {
        /// The smallest fraction of the range that is tried.
        min_clip_ratio: f32,
        /// The step of the fractions.
        shrink_step: f32,
    },
    /// Both.
    AwqFull {
        /// The step of the exponents that are tried.
        alpha_step: f32,
        /// The smallest fraction of the range that is tried.
        min_clip_ratio: f32,
        /// The step of the fractions.
        shrink_step: f32,
        /// Whether layers with a common input get a common scale.
        #[serde(default)]
        sharing: Sharing,
    },
    /// A low-rank branch in high precision beside the quantized weight.
    #[serde(rename = "svdquant")]
    SvdQuant {
        /// The rank.
        rank: usize,
        /// The step of the exponents that are tried when the input is smoothed.
        #[serde(default = "alpha_step")]
        alpha_step: f32,
        /// Layers that get no branch, by globs of their names; they are quantized by `max`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        skip_layers: Vec<String>,
    },
    /// Rounding column by column, each correcting the errors before it.
    Gptq {
        /// What is added to the diagonal, as a fraction of its mean.
        damping: f32,
        /// Columns that are corrected together.
        block_size: usize,
        /// The order in which columns are rounded.
        #[serde(default)]
        order: ColumnOrder,
        /// The inputs that the error is measured on.
        #[serde(default)]
        inputs: Inputs,
    },
    /// Rounding up or down as learned against the output error of the layer.
    #[serde(rename = "adaround")]
    AdaRound {
        /// Steps of gradient descent.
        iterations: usize,
        /// The weight of the term that pushes towards a decision.
        regularization: f32,
    },
    /// A bias that takes up the mean of the output error.
    BiasCorrection,
    /// Several, one after the other, on the statistics of one observation.
    Sequence(Vec<Algorithm>),
    /// One of the user's: see [`LayerAlgorithm`](crate::LayerAlgorithm).
    Custom {
        /// The name it is registered by.
        name: String,
        /// What it is told.
        #[serde(default, skip_serializing_if = "serde_json::Map::is_empty")]
        options: serde_json::Map<String, serde_json::Value>,
    },
}

fn alpha_step() -> f32 {
    0.1
}

/// The ranges that a search tries.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RangeSearch {
    /// Multiples of the largest magnitude.
    Multipliers {
        /// The first.
        start: f32,
        /// The last.
        stop: f32,
        /// The distance of two; rounded so that the last is one of them.
        step: f32,
        /// Whether the range itself is tried too, where the steps do not meet it.
        #[serde(default)]
        unscaled: Unscaled,
    },
    /// Every E4M3 scale of a block.
    E4m3Scales,
}

/// Whether a search tries the multiplier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unscaled {
    /// It does, so its result is never worse than `max`.
    #[default]
    Tried,
    /// Only if the steps meet it, as in ModelOpt.
    IfMet,
}

impl Default for RangeSearch {
    fn default() -> Self {
        RangeSearch::Multipliers { start: 0.25, stop: 4.0, step: 0.1, unscaled: Unscaled::Tried }
    }
}

/// Whether layers that share an input are solved together.
///
/// Layers share an input if they are siblings by name (`q_proj`, `k_proj`, `v_proj`; `gate_proj`, `up_proj`; `w1`, `w3` of one
/// parent) and saw the same data, bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// Each layer has its own scale, as in ModelOpt.
    #[default]
    Separate,
    /// One scale for all: it can be merged into what comes before them.
    Joint,
}

/// On which inputs an error is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inputs {
    /// Those of the float model: one observation is enough.
    #[default]
    Float,
    /// Those of the model with quantized activations, as in ModelOpt: their ranges must be known first, so the data is read
    /// twice. The same as `Float` for weight-only configurations.
    Quantized,
}

/// In which order GPTQ rounds the columns of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnOrder {
    /// As they come.
    #[default]
    Natural,
    /// Those of the strongest inputs first, while there are others left to correct them ("act order").
    Activations,
}

/// How magnitudes are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistogramConfig {
    /// Bins of a first batch.
    pub bins: usize,
    /// How wide a bin is.
    #[serde(default)]
    pub width: BinWidth,
    /// Whether zeros count.
    #[serde(default)]
    pub zeros: Zeros,
}

impl Default for HistogramConfig {
    fn default() -> Self {
        Self { bins: 2048, width: BinWidth::PowerOfTwo, zeros: Zeros::Counted }
    }
}

/// How wide the bins of a histogram are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BinWidth {
    /// The least power of two with which `2 · bins` bins hold everything: histograms of any shards of the data merge exactly.
    #[default]
    PowerOfTwo,
    /// The largest magnitude of the first batch over `bins`, as in ModelOpt; later batches add bins. Depends on the order
    /// of batches, so shards do not merge.
    FirstBatch,
}

/// Whether a histogram counts zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Zeros {
    /// They count as any other value.
    #[default]
    Counted,
    /// They are left out, as after a ReLU they would outweigh all else.
    Skipped,
}

impl Algorithm {
    /// A percentile of the magnitudes of activations, in percent.
    pub fn percentile(percentile: f64) -> Self {
        Algorithm::Percentile { percentile, histogram: HistogramConfig::default() }
    }

    /// Entropy calibration of activations: every range from 128 bins on.
    pub fn entropy() -> Self {
        Algorithm::Entropy { start_bin: 128, stride: 1, histogram: HistogramConfig::default() }
    }

    /// Least squared error of activations: every range from 128 bins on.
    pub fn histogram_mse() -> Self {
        Algorithm::HistogramMse { start_bin: 128, stride: 1, histogram: HistogramConfig::default() }
    }

    /// SmoothQuant, each layer by itself.
    pub fn smoothquant(alpha: f32) -> Self {
        Algorithm::SmoothQuant { alpha, sharing: Sharing::Separate }
    }

    /// AWQ-lite, each layer by itself.
    pub fn awq_lite() -> Self {
        Algorithm::AwqLite { alpha_step: 0.1, sharing: Sharing::Separate }
    }

    /// AWQ-clip.
    pub fn awq_clip() -> Self {
        Algorithm::AwqClip { min_clip_ratio: 0.5, shrink_step: 0.05 }
    }

    /// AWQ-lite, then AWQ-clip on the smoothed weight; each layer by itself.
    pub fn awq_full() -> Self {
        Algorithm::AwqFull { alpha_step: 0.1, min_clip_ratio: 0.5, shrink_step: 0.05, sharing: Sharing::Separate }
    }

    /// SVDQuant with a branch of this rank beside every layer.
    pub fn svdquant(rank: usize) -> Self {
        Algorithm::SvdQuant { rank, alpha_step: 0.1, skip_layers: Vec::new() }
    }

    /// GPTQ in the order of columns.
    pub fn gptq() -> Self {
        let (order, inputs) = (ColumnOrder::Natural, Inputs::Float);
        Algorithm::Gptq { damping: 0.01, block_size: 128, order, inputs }
    }

    /// Local Hessian over all E4M3 block scales of a static NVFP4 weight.
    pub fn local_hessian() -> Self {
        Algorithm::LocalHessian { search: RangeSearch::E4m3Scales, block_size: 16, inputs: Inputs::Float }
    }

    /// Headroom for NVFP4 activations.
    pub fn activation_headroom() -> Self {
        Algorithm::ActivationHeadroom { anchor_percentile: 1.0, upper_percentile: 99.99, rho: 16384.0 }
    }

    /// AdaRound with 1000 steps.
    pub fn adaround() -> Self {
        Algorithm::AdaRound { iterations: 1000, regularization: 3.0 }
    }

    /// The name in recipes; of a custom one, the name it is registered by.
    pub fn name(&self) -> &str {
        match self {
            Algorithm::None => "none",
            Algorithm::Max => "max",
            Algorithm::Percentile { .. } => "percentile",
            Algorithm::Entropy { .. } => "entropy",
            Algorithm::HistogramMse { .. } => "histogram_mse",
            Algorithm::MovingAverage { .. } => "moving_average",
            Algorithm::Mse(_) => "mse",
            Algorithm::LocalHessian { .. } => "local_hessian",
            Algorithm::ActivationHeadroom { .. } => "activation_headroom",
            Algorithm::SmoothQuant { .. } => "smoothquant",
            Algorithm::AwqLite { .. } => "awq_lite",
            Algorithm::AwqClip { .. } => "awq_clip",
            Algorithm::AwqFull { .. } => "awq_full",
            Algorithm::SvdQuant { .. } => "svdquant",
            Algorithm::Gptq { .. } => "gptq",
            Algorithm::AdaRound { .. } => "adaround",
            Algorithm::BiasCorrection => "bias_correction",
            Algorithm::Sequence(_) => "sequence",
            Algorithm::Custom { name, .. } => name,
        }
    }

    /// The algorithms it consists of, in order: itself, unless it is a sequence.
    pub fn steps(&self) -> &[Algorithm] {
        match self {
            Algorithm::Sequence(steps) => steps,
            single => std::slice::from_ref(single),
        }
    }

    /// Whether its numbers make sense.
    ///
    /// # Errors
    ///
    /// [`QuantError::AlgorithmOption`].
    pub fn validate(&self) -> Result<(), QuantError> {
        let check = |holds: bool, option: &'static str, expected: &'static str, found: f64| {
            let algorithm = self.name().to_string();
            if holds { Ok(()) } else { Err(QuantError::AlgorithmOption { algorithm, option, expected, found }) }
        };
        let step = |name, value: f32| check(value > 0.0 && value <= 1.0, name, "above 0, at most 1", value.into());
        let clip =
            |ratio: f32| check(ratio > 0.0 && ratio <= 1.0, "min_clip_ratio", "above 0, at most 1", ratio.into());
        let count = |name, value: usize| check(value > 0, name, "at least 1", value as f64);
        let bins = |histogram: &HistogramConfig| {
            let bins = histogram.bins;
            check((16..=65536).contains(&bins), "bins", "16 to 65536", bins as f64)
        };
        let search = |search: &RangeSearch| match *search {
            RangeSearch::E4m3Scales => Ok(()),
            RangeSearch::Multipliers { start, stop, step, .. } => {
                check(start > 0.0 && start.is_finite(), "start", "positive", start.into())?;
                check(stop >= start && stop.is_finite(), "stop", "at least `start`", stop.into())?;
                let most = (stop - start) / 10_000.0;
                check(
                    step > 0.0 && step >= most && step.is_finite(),
                    "step",
                    "positive, at most 10000 steps",
                    step.into(),
                )
            }
        };
        match self {
            Algorithm::None | Algorithm::Max | Algorithm::BiasCorrection | Algorithm::Custom { .. } => Ok(()),
            Algorithm::Percentile { percentile, histogram } => {
                let within = (0.0..=100.0).contains(percentile);
                check(within, "percentile", "0 to 100", *percentile)?;
                bins(histogram)
            }
            Algorithm::Entropy { start_bin, stride, histogram }
            | Algorithm::HistogramMse { start_bin, stride, histogram } => {
                count("start_bin", *start_bin)?;
                count("stride", *stride)?;
                bins(histogram)
            }
            Algorithm::MovingAverage { momentum } => {
                check((0.0..1.0).contains(momentum), "momentum", "at least 0, below 1", (*momentum).into())
            }
            Algorithm::Mse(candidates) => search(candidates),
            Algorithm::LocalHessian { search: candidates, block_size, .. } => {
                count("block_size", *block_size)?;
                search(candidates)
            }
            Algorithm::ActivationHeadroom { anchor_percentile, upper_percentile, rho } => {
                let percentile = |name, p: f32| check(p > 0.0 && p <= 100.0, name, "above 0, at most 100", p.into());
                percentile("anchor_percentile", *anchor_percentile)?;
                percentile("upper_percentile", *upper_percentile)?;
                // beyond 448 / 2^-6 the anchor is below the smallest normal scale
                check(*rho > 0.0 && *rho < 28672.0, "rho", "above 0, below 28672", (*rho).into())
            }
            Algorithm::SmoothQuant { alpha, .. } => {
                check((0.0..=1.0).contains(alpha), "alpha", "0 to 1", (*alpha).into())
            }
            Algorithm::AwqLite { alpha_step, .. } => step("alpha_step", *alpha_step),
            Algorithm::AwqClip { min_clip_ratio, shrink_step } => {
                clip(*min_clip_ratio)?;
                step("shrink_step", *shrink_step)
            }
            Algorithm::AwqFull { alpha_step, min_clip_ratio, shrink_step, .. } => {
                step("alpha_step", *alpha_step)?;
                clip(*min_clip_ratio)?;
                step("shrink_step", *shrink_step)
            }
            Algorithm::SvdQuant { rank, alpha_step, .. } => {
                count("rank", *rank)?;
                step("alpha_step", *alpha_step)
            }
            Algorithm::Gptq { damping, block_size, .. } => {
                let sound = *damping >= 0.0 && damping.is_finite();
                check(sound, "damping", "not negative", (*damping).into())?;
                count("block_size", *block_size)
            }
            Algorithm::AdaRound { iterations, regularization } => {
                count("iterations", *iterations)?;
                let sound = *regularization >= 0.0 && regularization.is_finite();
                check(sound, "regularization", "not negative", (*regularization).into())
            }
            Algorithm::Sequence(steps) => steps.iter().try_for_each(|step| match step {
                Algorithm::Sequence(_) | Algorithm::None => {
                    Err(QuantError::AlgorithmInSequence { name: step.name().to_string() })
                }
                step => step.validate(),
            }),
        }
    }
}
