//! The configuration of one quantizer.

use burn_quant_ops::numerics::{Format, IntFormat, IntSpan, Signedness};
use burn_quant_ops::{AxisGroups, GradientRule, Groups};
use serde::{Deserialize, Serialize};

use crate::{InvalidConfig, Role};

/// Which elements share a scale, in terms of what the axes mean, not where they are.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Granularity {
    /// All of them.
    #[default]
    PerTensor,
    /// Those of one output channel of a weight, or of one channel of an activation.
    PerChannel,
    /// Those of one token: all channels at one place of an activation.
    PerToken,
    /// Blocks along the contracted axis of a weight, or the channels of an activation.
    Block {
        /// Elements of a block; the last block of a row may be shorter.
        size: usize,
    },
    /// Rectangles of a weight.
    Block2d {
        /// Extent along the output channels.
        rows: usize,
        /// Extent along the contracted axis.
        cols: usize,
    },
    /// The division of every axis, for a quantizer placed by hand.
    Axes(Vec<AxisGroups>),
}

impl Granularity {
    /// The groups that this granularity makes of a tensor.
    pub(crate) fn groups(&self, role: Role, shape: &[usize]) -> Groups {
        let all = |axis: AxisGroups| vec![axis; shape.len()];
        let with = |mut axes: Vec<AxisGroups>, axis: usize, value: AxisGroups| {
            if let Some(slot) = axes.get_mut(axis) {
                *slot = value;
            }
            axes
        };
        let channel = role.channel_axis(shape.len());
        let axes = match self {
            Granularity::PerTensor => all(AxisGroups::Whole),
            Granularity::PerChannel => with(all(AxisGroups::Whole), channel, AxisGroups::Each),
            Granularity::PerToken => with(all(AxisGroups::Each), channel, AxisGroups::Whole),
            Granularity::Block { size } => {
                with(all(AxisGroups::Each), role.block_axis(shape.len()), AxisGroups::Blocks(*size))
            }
            Granularity::Block2d { rows, cols } => {
                let axes = with(all(AxisGroups::Each), role.block_axis(shape.len()), AxisGroups::Blocks(*cols));
                with(axes, channel, AxisGroups::Blocks(*rows))
            }
            Granularity::Axes(axes) => axes.clone(),
        };
        Groups::new(shape, &axes)
    }
}

impl std::fmt::Display for Granularity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Granularity::PerTensor => f.write_str("per-tensor"),
            Granularity::PerChannel => f.write_str("per-channel"),
            Granularity::PerToken => f.write_str("per-token"),
            Granularity::Block { size } => write!(f, "block {size}"),
            Granularity::Block2d { rows, cols } => write!(f, "block {rows}x{cols}"),
            Granularity::Axes(axes) => {
                let names = axes.iter().map(|axis| match axis {
                    AxisGroups::Whole => "whole".to_string(),
                    AxisGroups::Each => "each".to_string(),
                    AxisGroups::Blocks(size) => format!("{size}"),
                });
                write!(f, "axes [{}]", names.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// Where the range of a quantizer comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Range {
    /// Found in calibration, then fixed.
    #[default]
    Static,
    /// Taken from every tensor anew; needs no calibration.
    Dynamic,
}

/// How one quantizer quantizes.
///
/// # Example
///
/// ```
/// use burn_quant::{Format, Granularity, QuantizerConfig};
///
/// let config = QuantizerConfig::int(4).per_block(128);
/// assert_eq!(config.granularity, Granularity::Block { size: 128 });
/// assert_eq!(QuantizerConfig::e4m3().per_token().dynamic().format, Format::E4M3);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantizerConfig {
    /// The number format.
    pub format: Format,
    /// Which elements share a scale.
    #[serde(default)]
    pub granularity: Granularity,
    /// Where the range comes from.
    #[serde(default)]
    pub range: Range,
    /// The gradient to the input.
    #[serde(default)]
    pub gradient: GradientRule,
}

impl Default for QuantizerConfig {
    /// Signed 8-bit integers, per tensor, static.
    fn default() -> Self {
        Self::int(8)
    }
}

impl QuantizerConfig {
    /// Values of a format, per tensor, static, with a pass-through gradient.
    pub fn new(format: Format) -> Self {
        Self { format, granularity: Granularity::PerTensor, range: Range::Static, gradient: GradientRule::PassThrough }
    }

    /// Signed integers of `bits` bits, per tensor, static.
    ///
    /// # Panics
    ///
    /// Unless `bits` is 2 to 16; [`IntFormat::new`] gives an error instead.
    pub fn int(bits: u8) -> Self {
        Self::new(IntFormat::signed(bits).unwrap_or_else(|e| panic!("QuantizerConfig::int: {e}")).into())
    }

    /// Unsigned integers of `bits` bits, per tensor, static; for data that is never negative, as after a ReLU.
    ///
    /// # Panics
    ///
    /// As [`QuantizerConfig::int`].
    pub fn uint(bits: u8) -> Self {
        let format = IntFormat::new(bits, Signedness::Unsigned, IntSpan::Full);
        Self::new(format.unwrap_or_else(|e| panic!("QuantizerConfig::uint: {e}")).into())
    }

    /// E4M3 floats, per tensor, static.
    pub fn e4m3() -> Self {
        Self::new(Format::E4M3)
    }

    /// The same with another granularity.
    pub fn with_granularity(mut self, granularity: Granularity) -> Self {
        self.granularity = granularity;
        self
    }

    /// The same with a scale per channel.
    pub fn per_channel(self) -> Self {
        self.with_granularity(Granularity::PerChannel)
    }

    /// The same with a scale per token.
    pub fn per_token(self) -> Self {
        self.with_granularity(Granularity::PerToken)
    }

    /// The same with a scale per block along the contracted axis.
    pub fn per_block(self, size: usize) -> Self {
        self.with_granularity(Granularity::Block { size })
    }

    /// The same with a dynamic range.
    pub fn dynamic(mut self) -> Self {
        self.range = Range::Dynamic;
        self
    }

    /// The same with the clipped gradient rule.
    pub fn clipped(mut self) -> Self {
        self.gradient = GradientRule::Clipped;
        self
    }

    /// Whether this configuration suits a tensor with this role; the rank is known for weights only.
    pub(crate) fn validate(&self, role: Role, rank: Option<usize>) -> Result<(), InvalidConfig> {
        let weight = matches!(role, Role::Weight(_));
        if let (Role::Weight(layout), Some(rank)) = (role, rank) {
            let axis = layout.channel_axis.max(layout.block_axis);
            if axis >= rank {
                return Err(InvalidConfig::Layout { axis, rank });
            }
        }
        match &self.granularity {
            Granularity::Block { size: 0 }
            | Granularity::Block2d { rows: 0, .. }
            | Granularity::Block2d { cols: 0, .. } => return Err(InvalidConfig::EmptyBlock),
            Granularity::Axes(axes) if axes.contains(&AxisGroups::Blocks(0)) => return Err(InvalidConfig::EmptyBlock),
            Granularity::Axes(axes) if rank.is_some_and(|rank| rank != axes.len()) => {
                return Err(InvalidConfig::Rank { expected: axes.len(), found: rank.unwrap_or_default() });
            }
            Granularity::PerToken if weight => return Err(InvalidConfig::TokensOfWeight),
            Granularity::Block2d { .. } if !weight => return Err(InvalidConfig::BlocksOfActivation),
            _ => {}
        }
        let varying = match self.granularity {
            Granularity::PerToken => Some("per-token"),
            Granularity::Block { .. } => Some("block"),
            _ => None,
        };
        match (varying, self.range) {
            (Some(granularity), Range::Static) if !weight => Err(InvalidConfig::StaticActivationGroups { granularity }),
            _ => Ok(()),
        }
    }
}
