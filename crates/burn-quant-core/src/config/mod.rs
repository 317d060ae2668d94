//! What one quantizer does, and rules that say it of many.

mod kind;
mod learned_ranges;
mod quantizer;
mod rule;
mod validate;
mod written;

pub use burn_quant_ops::numerics::ScaleFormat;
pub use learned_ranges::{LearnedAmax, LearnedRanges, PreScale};
pub use quantizer::{
    BiasConfig, BiasMethod, BiasSource, Granularity, QuantizerConfig, RangeSource, Rotation, RotationOutput, Rounding,
};
pub use rule::{Action, Rule, matcher, near_misses};
pub(crate) use validate::rotation_block;
