//! The ranges of a quantizer that divides by one scale and multiplies by another.

use serde::{Deserialize, Serialize};

/// Separate ranges before and after rounding, of which training learns one or both.
///
/// ```text
/// y = Q(x / s_pre) · s_post        s = amax / hi, of f32 scales; 1e-8 where that is not above it
///
/// ∂y/∂s_post = Q(x / s_pre)
/// ∂y/∂s_pre  = −x / s_pre² · s_post     where the grid reaches, 0 beyond
/// ∂y/∂x      = s_post / s_pre           where the grid reaches, 0 beyond
/// ```
///
/// Both ranges begin as the calibrated one. Static E4M3 block scales are rounded under the range of the tensor `G`:
/// `s = E4M3(amax / max)` by a fake quantization with amax `T = G / max`, not below `2^-9 · T`; the gradient passes
/// where `amax / max` lies between these two. Gradients have no factor `1 / √(N · hi)`, as those of
/// [`GradientRule::Lsq`](burn_quant_ops::GradientRule::Lsq) alone have.
///
/// # Source
///
/// ModelOpt 0.47, the algorithm `lsq` and its options `learnable_amax`, `tied_amax` and `quantize_pre_scale`.
///
/// # Example
///
/// ```
/// use burn_quant::QuantizerConfig;
/// use burn_quant::config::LearnedRanges;
///
/// let config = QuantizerConfig::int(4).per_block(128).lsq_with(LearnedRanges::post());
/// assert_eq!(config.validate(), Ok(()));
/// assert!(config.has_two_ranges());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LearnedRanges {
    /// Which of the ranges training changes.
    pub learned: LearnedAmax,
    /// Whether the scale before rounding is one of the format of scales.
    #[serde(skip_serializing_if = "is_rounded")]
    pub pre_scale: PreScale,
}

/// Which range of a quantizer with separate ranges is learned; the other one is a constant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LearnedAmax {
    /// The range after rounding. Codes change with the values alone. ModelOpt's default.
    #[default]
    Post,
    /// The range before rounding. The values that codes stand for do not change.
    Pre,
    /// The range before rounding and the range after it, each by itself.
    PreAndPost,
    /// One range, which is used before rounding and after it. ModelOpt's `tied_amax`.
    Tied,
}

/// The scale before rounding, where scales are E4M3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PreScale {
    /// The scale before rounding is an E4M3 number, as the scale after it.
    #[default]
    Rounded,
    /// The scale before rounding is an f32 number, `amax / max`. ModelOpt's `quantize_pre_scale: false`.
    Unrounded,
}

fn is_rounded(pre_scale: &PreScale) -> bool {
    *pre_scale == PreScale::Rounded
}

impl LearnedRanges {
    /// Learns the range after rounding.
    ///
    /// ModelOpt's default, `learnable_amax: ["post"]`.
    pub fn post() -> Self {
        Self { learned: LearnedAmax::Post, pre_scale: PreScale::Rounded }
    }

    /// Learns the range before rounding.
    ///
    /// ModelOpt's `learnable_amax: ["pre"]`.
    pub fn pre() -> Self {
        Self { learned: LearnedAmax::Pre, ..Self::post() }
    }

    /// Learns the ranges before and after rounding, each by itself.
    ///
    /// ModelOpt's `learnable_amax: ["pre", "post"]`.
    pub fn pre_and_post() -> Self {
        Self { learned: LearnedAmax::PreAndPost, ..Self::post() }
    }

    /// Learns one range that is used before and after rounding.
    ///
    /// ModelOpt's `tied_amax`.
    pub fn tied() -> Self {
        Self { learned: LearnedAmax::Tied, ..Self::post() }
    }

    /// Leaves the scale before rounding in f32.
    ///
    /// For E4M3 scales. ModelOpt's `quantize_pre_scale: false`.
    pub fn with_unrounded_pre_scale(mut self) -> Self {
        self.pre_scale = PreScale::Unrounded;
        self
    }
}
