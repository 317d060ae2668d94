//! The algorithms that a recipe can name.

use serde::{Deserialize, Serialize};

use crate::QuantError;

/// How the ranges of static quantizers are found, and what else calibration does.
///
/// Those that this release does not have can be named, read and written all the same, so that a recipe is complete;
/// quantizing with one is [`QuantError::AlgorithmNotThere`]. Defaults are those of ModelOpt 0.47.
///
/// # Example
///
/// ```
/// use burn_quant::{Algorithm, QuantConfig};
///
/// assert_eq!(QuantConfig::int8_smoothquant().algorithm, Algorithm::SmoothQuant { alpha: 1.0 });
/// assert!(Algorithm::Max.is_there() && !Algorithm::SmoothQuant { alpha: 1.0 }.is_there());
/// ```
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Algorithm {
    /// No calibration: every quantizer is dynamic or constant, or has its range already.
    None,
    /// The largest magnitude seen: see [`max`](crate::max).
    #[default]
    Max,
    /// The range of least squared rounding error of each weight.
    Mse(RangeSearch),
    /// The range of least error of each weight's output, estimated per block.
    LocalHessian {
        /// The candidates.
        search: RangeSearch,
        /// Columns of a block.
        block_size: usize,
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
    },
    /// Scales of input channels by search.
    AwqLite {
        /// The step of the exponents that are tried.
        alpha_step: f32,
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
    },
    /// A low-rank branch in high precision beside the quantized weight.
    #[serde(rename = "svdquant")]
    SvdQuant {
        /// The rank.
        rank: usize,
    },
    /// Rounding column by column, each correcting the errors before it.
    Gptq {
        /// What is added to the diagonal, as a fraction of its mean.
        damping: f32,
        /// Columns that are corrected together.
        block_size: usize,
    },
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
    },
    /// Every E4M3 scale of a block.
    E4m3Scales,
}

impl Default for RangeSearch {
    fn default() -> Self {
        RangeSearch::Multipliers { start: 0.25, stop: 4.0, step: 0.1 }
    }
}

impl Algorithm {
    /// The name in recipes.
    pub const fn name(&self) -> &'static str {
        match self {
            Algorithm::None => "none",
            Algorithm::Max => "max",
            Algorithm::Mse(_) => "mse",
            Algorithm::LocalHessian { .. } => "local_hessian",
            Algorithm::ActivationHeadroom { .. } => "activation_headroom",
            Algorithm::SmoothQuant { .. } => "smoothquant",
            Algorithm::AwqLite { .. } => "awq_lite",
            Algorithm::AwqClip { .. } => "awq_clip",
            Algorithm::AwqFull { .. } => "awq_full",
            Algorithm::SvdQuant { .. } => "svdquant",
            Algorithm::Gptq { .. } => "gptq",
        }
    }

    /// Whether this release has it.
    pub const fn is_there(&self) -> bool {
        matches!(self, Algorithm::None | Algorithm::Max)
    }

    pub(crate) fn check(&self) -> Result<(), QuantError> {
        if self.is_there() { Ok(()) } else { Err(QuantError::AlgorithmNotThere { name: self.name() }) }
    }
}
