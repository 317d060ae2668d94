//! What does not fit between a configuration and its quantizer.

use burn_quant_ops::numerics::{Format, ScaleFormat};
use thiserror::Error;

use super::text::{article, number};
use crate::debug_is_display;
use crate::layout::Role;

/// What does not fit between a configuration and its quantizer.
#[derive(Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum InvalidConfig {
    /// A block of no elements.
    #[error("a block holds at least one element, found size 0")]
    EmptyBlock,
    /// Weights have no tokens.
    #[error("per-token granularity is for activations: use per-channel or blocks for a weight")]
    TokensOfWeight,
    /// The number of tokens or blocks of an activation changes from batch to batch.
    #[error("{granularity} granularity of an activation needs a dynamic range, found a static one")]
    StaticActivationGroups {
        /// The granularity.
        granularity: &'static str,
    },
    /// The axes are listed one by one, for another rank.
    #[error("{expected} axes are listed for a tensor of rank {found}")]
    Rank {
        /// Axes in the configuration.
        expected: usize,
        /// Axes of the tensor.
        found: usize,
    },
    /// A weight layout names an axis that the weight does not have.
    #[error("the weight's layout names axis {axis}, and the weight has rank {rank}: register the right layout")]
    Layout {
        /// The axis.
        axis: usize,
        /// Axes of the weight.
        rank: usize,
    },
    /// A quantizer looks for channels where its layer has none.
    #[error(
        "{} has its channels elsewhere than a quantizer with `Role::{found:?}` looks for them: make it with \
         `Role::{expected:?}`",
        article(layer)
    )]
    RoleOfLayer {
        /// The type of the layer.
        layer: String,
        /// The role of the quantizer.
        found: Role,
        /// The role that suits the layer.
        expected: Role,
    },
    /// Two-dimensional blocks need two different axes.
    #[error("two-dimensional blocks are for weights with separate channel and contracted axes")]
    BlocksOfActivation,
    /// Scales of fewer bits are those of blocks.
    #[error("{scale} scales belong to blocks: use block granularity, or f32 scales")]
    ScaleWithoutBlocks {
        /// The format of scales.
        scale: ScaleFormat,
    },
    /// These elements do not go under these scales.
    #[error(
        "{format} elements cannot have {scale} scales: use a signed integer or a minifloat (E2M1 for four over six)"
    )]
    FormatOfScale {
        /// The format of elements.
        format: Format,
        /// The format of scales.
        scale: ScaleFormat,
    },
    /// A power-of-two scale is always that of the data.
    #[error("E8M0 scales are taken from the data, found a static range: make the range dynamic")]
    StaticPowersOfTwo,
    /// A power-of-two scale is always that of the data.
    #[error("E8M0 scales are taken from the data, found a constant range: make the range dynamic")]
    ConstantPowersOfTwo,
    /// Static block scales belong to a static range.
    #[error("static E4M3 block scales need a static range, found a dynamic one: make the block scales dynamic")]
    StaticBlocksOfDynamicRange,
    /// Static block scales belong to a static range.
    #[error("static E4M3 block scales need a static range, found a constant one: make the block scales dynamic")]
    StaticBlocksOfConstantRange,
    /// A constant range is a positive number.
    #[error("a constant amax is finite and positive, found {}", number(*found))]
    ConstantRange {
        /// The amax.
        found: f32,
    },
    /// A bias has no blocks.
    #[error("a bias is shared along whole axes: use per-tensor, per-channel, per-token, or whole and single axes")]
    BlocksOfBias,
    /// A bias of each element leaves nothing to quantize.
    #[error("a bias must be shared by several elements: reduce at least one axis")]
    BiasOfEachElement,
    /// What remains around a bias has both signs.
    #[error("values around a bias have both signs: use a signed format")]
    BiasOfUnsigned,
    /// A rotation mixes powers of two.
    #[error("a rotation mixes a power of two of elements, at least 2, found {found}")]
    RotationBlock {
        /// The block.
        found: usize,
    },
    /// The axis cannot be cut into blocks of a rotation.
    #[error("an axis of {len} elements cannot be rotated in blocks of {block}: give a block that divides it, or none")]
    RotationAxis {
        /// Elements along the axis.
        len: usize,
        /// The block.
        block: usize,
    },
    /// What is learned is a static range with f32 scales.
    #[error(
        "`lsq` and `pact` learn a static range with f32 scales and no bias: change the range, or the gradient rule; \
         static E4M3 scales are learned by `learned_ranges`"
    )]
    NoRangeToLearn,
    /// Separate ranges are learned by LSQ only.
    #[error("`learned_ranges` belong to the gradient rule `lsq`: set it, or leave them out")]
    LearnedRangesWithoutLsq,
    /// These scales are not learned.
    #[error(
        "{format} elements with {scale} scales have no learned ranges: use f32 scales, or static E4M3 scales of a \
         minifloat"
    )]
    LearnedRangesOfScale {
        /// The format of elements.
        format: Format,
        /// The format of scales.
        scale: ScaleFormat,
    },
    /// An f32 scale is never rounded.
    #[error("f32 scales are never rounded, found `pre_scale` unrounded: leave it out, or use static E4M3 scales")]
    UnroundedPreScale,
    /// Neither rounding nor rotation.
    #[error("the quantizer neither rounds nor rotates: disable it instead")]
    NothingToDo,
    /// A chain within a chain.
    #[error("a quantizer of a chain has a chain of its own: list all of them in the first one's `then`")]
    NestedChain,
}

debug_is_display!(InvalidConfig);
