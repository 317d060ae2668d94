//! The configuration of one quantizer.

use burn_quant_ops::numerics::{BlockScale, Format, IntFormat, IntSpan, ScaleFormat, Signedness};
use burn_quant_ops::{AxisGroups, GradientRule, Groups};
use serde::{Deserialize, Serialize};

use super::learned_ranges::{LearnedAmax, LearnedRanges};
use super::written::WrittenQuantizer;
use crate::layout::Role;

/// Which elements share a scale, in terms of what the axes mean, not where they are.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", from = "WrittenGranularity")]
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

/// How a recipe may write it: the size of a block alone, and the names of the methods too.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum WrittenGranularity {
    PerTensor,
    PerChannel,
    PerToken,
    #[serde(alias = "per_block")]
    Block(WrittenBlock),
    Block2d {
        rows: usize,
        cols: usize,
    },
    Axes(Vec<AxisGroups>),
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a block is written `{ block = 128 }` or `{ block = { size = 128 } }`")]
enum WrittenBlock {
    Size(usize),
    Named { size: usize },
}

impl From<WrittenGranularity> for Granularity {
    fn from(written: WrittenGranularity) -> Self {
        match written {
            WrittenGranularity::PerTensor => Self::PerTensor,
            WrittenGranularity::PerChannel => Self::PerChannel,
            WrittenGranularity::PerToken => Self::PerToken,
            WrittenGranularity::Block(WrittenBlock::Size(size) | WrittenBlock::Named { size }) => Self::Block { size },
            WrittenGranularity::Block2d { rows, cols } => Self::Block2d { rows, cols },
            WrittenGranularity::Axes(axes) => Self::Axes(axes),
        }
    }
}

impl Granularity {
    /// Returns the groups that this granularity makes of a tensor. The contracted axes of a kernel count as one for
    /// blocks.
    pub fn groups(&self, role: Role, shape: &[usize]) -> Groups {
        let shape = &self.divided_shape(role, shape)[..];
        let all = |axis: AxisGroups| vec![axis; shape.len()];
        let with = |mut axes: Vec<AxisGroups>, axis: usize, value: AxisGroups| {
            if let Some(divided) = axes.get_mut(axis) {
                *divided = value;
            }
            axes
        };
        let channel = role.channel_axis(shape.len());
        let axes = match self {
            Granularity::PerTensor => all(AxisGroups::Whole),
            Granularity::PerChannel => {
                let axes = with(all(AxisGroups::Whole), channel, AxisGroups::Each);
                match role.parts_of_first_axis(shape) {
                    Some(part) => with(axes, 0, AxisGroups::Blocks(part)),
                    None => axes,
                }
            }
            Granularity::PerToken => with(all(AxisGroups::Each), channel, AxisGroups::Whole),
            Granularity::Block { size } => {
                // blocks of a transposed convolution do not reach from one of its groups into the next
                let size = role.parts_of_first_axis(shape).map_or(*size, |part| divisor(part, *size));
                with(all(AxisGroups::Each), role.block_axis(shape.len()), AxisGroups::Blocks(size))
            }
            Granularity::Block2d { rows, cols } => {
                let axes = with(all(AxisGroups::Each), role.block_axis(shape.len()), AxisGroups::Blocks(*cols));
                with(axes, channel, AxisGroups::Blocks(*rows))
            }
            Granularity::Axes(axes) => axes.clone(),
        };
        Groups::new(shape, &axes)
    }

    /// The shape that the groups divide: that of the tensor, but for blocks of a kernel, whose contracted axes count as
    /// one.
    pub(crate) fn divided_shape(&self, role: Role, shape: &[usize]) -> Vec<usize> {
        match (self, role) {
            (Granularity::Block { .. } | Granularity::Block2d { .. }, Role::Weight(layout)) => {
                layout.block_shape(shape)
            }
            _ => shape.to_vec(),
        }
    }
}

/// The largest block of at most `size` elements that divides `len`.
fn divisor(len: usize, size: usize) -> usize {
    (1..=size.min(len).max(1)).rev().find(|size| len.is_multiple_of(*size)).unwrap_or(1)
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
#[derive(Clone, Copy, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RangeSource {
    /// Found in calibration, then fixed.
    #[default]
    Static,
    /// Taken from every tensor anew; needs no calibration.
    Dynamic,
    /// This amax for every group, in the units of the tensor; needs no calibration.
    Constant(f32),
}

/// Whether values are rounded to the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rounding {
    /// To the nearest, halves to even.
    #[default]
    Nearest,
    /// They are not: the quantizer only rotates, as one of queries does whose keys are quantized after a rotation.
    Off,
}

/// A value that is subtracted before rounding and added back after it: affine quantization.
///
/// # Source
///
/// ModelOpt 0.47, the `bias` attribute. There the bias of a dynamic-block format is calibrated and then ignored, and a
/// dynamic range is taken from the values before the subtraction; here it acts on every format, and ranges are those
/// after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BiasConfig {
    /// Which elements share a bias; whole axes or single indices, no blocks.
    pub granularity: Granularity,
    /// How it is found.
    #[serde(default)]
    pub method: BiasMethod,
    /// Whether it is found in calibration or in every tensor anew.
    #[serde(default)]
    pub source: BiasSource,
}

/// What a bias is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BiasMethod {
    /// The mean; of several batches, the mean of their means.
    #[default]
    Mean,
    /// The middle between the lowest and the highest value.
    MaxMin,
}

/// Where a bias comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BiasSource {
    /// Found in calibration, then fixed.
    #[default]
    Static,
    /// Taken from every tensor anew.
    Dynamic,
}

impl BiasConfig {
    /// Creates a bias that is the calibrated mean of the values that share it.
    ///
    /// `granularity` says which values share one.
    pub fn new(granularity: Granularity) -> Self {
        Self { granularity, method: BiasMethod::Mean, source: BiasSource::Static }
    }

    /// Takes the middle between the lowest and the highest value.
    ///
    /// ModelOpt's `max_min`.
    pub fn max_min(mut self) -> Self {
        self.method = BiasMethod::MaxMin;
        self
    }

    /// Takes the bias from every tensor anew.
    ///
    /// Nothing is calibrated.
    pub fn dynamic(mut self) -> Self {
        self.source = BiasSource::Dynamic;
        self
    }
}

/// An orthogonal rotation of blocks along the contracted axis, before rounding: it spreads outliers over their block.
///
/// `x ← x · D · H / √block` with the Walsh-Hadamard matrix `H` in Sylvester's order and `D` a diagonal of signs.
/// Rotating both factors of a product by the same rotation leaves the product as it is.
///
/// # Source
///
/// Ashkboos et al. 2024, "QuaRot", arXiv:2404.00456; ModelOpt 0.47, the `rotate` attribute, which has no signs.
/// Arithmetic is f32, its `rotate_fp32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    /// Elements that are mixed, a power of two that divides the axis; by default the largest that does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub block: Option<usize>,
    /// The seed of random signs; without one, all are positive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signs: Option<u64>,
    /// Whether the rotation is undone after rounding.
    #[serde(default, alias = "after")]
    pub output: RotationOutput,
}

/// In which coordinates a rotated tensor leaves its quantizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RotationOutput {
    /// The result stays rotated: what it is multiplied with must be rotated too.
    #[default]
    #[serde(alias = "stay")]
    Rotated,
    /// The inverse rotation is applied.
    #[serde(alias = "rotate_back")]
    Original,
}

/// How one quantizer quantizes.
///
/// # Example
///
/// ```
/// use burn_quant::QuantizerConfig;
/// use burn_quant::config::{Format, Granularity};
///
/// let config = QuantizerConfig::int(4).per_block(128);
/// assert_eq!(config.granularity, Granularity::Block { size: 128 });
/// assert_eq!(QuantizerConfig::e4m3().per_token().dynamic().format, Format::E4M3);
/// assert_eq!(QuantizerConfig::nvfp4().granularity, Granularity::Block { size: 16 });
/// let w4a8 = QuantizerConfig::int(4).per_block(128).then(QuantizerConfig::e4m3()); // one after the other
/// assert_eq!(w4a8.then.len(), 1);
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "WrittenQuantizer", into = "WrittenQuantizer")]
pub struct QuantizerConfig {
    /// The number format.
    pub format: Format,
    /// Which elements share a scale.
    pub granularity: Granularity,
    /// The format of scales.
    pub scale: ScaleFormat,
    /// Where the range comes from; that of the tensor where scales have two levels.
    pub range: RangeSource,
    /// The gradient to the input.
    pub gradient: GradientRule,
    /// Separate ranges before and after rounding, for [`GradientRule::Lsq`].
    pub learned_ranges: Option<LearnedRanges>,
    /// Whether values are rounded.
    pub rounding: Rounding,
    /// A value around which is quantized.
    pub bias: Option<BiasConfig>,
    /// A rotation before rounding.
    pub rotation: Option<Rotation>,
    /// Quantizers that act on the result, in order: a chain.
    pub then: Vec<QuantizerConfig>,
}

impl Default for QuantizerConfig {
    /// Signed 8-bit integers, per tensor, static.
    fn default() -> Self {
        Self::int(8)
    }
}

impl QuantizerConfig {
    /// Creates the configuration of a format: per tensor, f32 scales, static, with a pass-through gradient.
    ///
    /// All other methods change one of these.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            granularity: Granularity::PerTensor,
            scale: ScaleFormat::F32,
            range: RangeSource::Static,
            gradient: GradientRule::PassThrough,
            learned_ranges: None,
            rounding: Rounding::Nearest,
            bias: None,
            rotation: None,
            then: Vec::new(),
        }
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

    /// Creates an FP8 configuration: E4M3 floats, per tensor, static.
    ///
    /// ModelOpt's `num_bits: (4, 3)`.
    pub fn e4m3() -> Self {
        Self::new(Format::E4M3)
    }

    /// A microscaling format: blocks of 32 elements of a format under a power of two each, taken from the data.
    ///
    /// MXFP8 is [`Format::E4M3`] or [`Format::E5M2`], MXFP6 [`Format::E3M2`] or [`Format::E2M3`], MXFP4
    /// [`Format::E2M1`]; see [`QuantizerConfig::mxint8`] for the integers.
    pub fn mx(format: Format) -> Self {
        Self { scale: ScaleFormat::E8M0, ..Self::new(format).per_block(32).dynamic() }
    }

    /// Creates MXINT8: blocks of 32 symmetric 8-bit integers under a power of two each, taken from the data.
    ///
    /// There is nothing to calibrate.
    pub fn mxint8() -> Self {
        Self { scale: ScaleFormat::E8M0, ..Self::int(8).per_block(32).dynamic() }
    }

    /// Creates NVFP4: blocks of 16 E2M1 elements under E4M3 scales taken from the data, under a scale of the tensor.
    ///
    /// Only the range of the tensor is calibrated.
    pub fn nvfp4() -> Self {
        Self { scale: ScaleFormat::E4M3(BlockScale::Dynamic), ..Self::new(Format::E2M1).per_block(16) }
    }

    /// Creates NVFP4 whose block scales are calibrated too, for weights.
    ///
    /// Algorithms can then choose every block's scale.
    pub fn nvfp4_static() -> Self {
        Self { scale: ScaleFormat::E4M3(BlockScale::Static), ..Self::nvfp4() }
    }

    /// Changes which elements share a scale.
    ///
    /// See [`Granularity`].
    pub fn with_granularity(mut self, granularity: Granularity) -> Self {
        self.granularity = granularity;
        self
    }

    /// Gives each channel a scale: output channels of a weight, the last axis of an activation.
    ///
    /// ModelOpt's `axis: 0` of a weight.
    pub fn per_channel(self) -> Self {
        self.with_granularity(Granularity::PerChannel)
    }

    /// Gives each token of an activation a scale.
    ///
    /// Usually with [`dynamic`](QuantizerConfig::dynamic), because the number of tokens changes.
    pub fn per_token(self) -> Self {
        self.with_granularity(Granularity::PerToken)
    }

    /// Gives each block of `size` elements along the contracted axis a scale.
    ///
    /// ModelOpt's `block_sizes: {-1: size}`; a last block may be shorter.
    pub fn per_block(self, size: usize) -> Self {
        self.with_granularity(Granularity::Block { size })
    }

    /// Changes the number format of the scales.
    ///
    /// E8M0 and E4M3 scales are for blocks.
    pub fn with_scale(mut self, scale: ScaleFormat) -> Self {
        self.scale = scale;
        self
    }

    /// Takes the range from every tensor anew, so that nothing is calibrated.
    ///
    /// ModelOpt's `type: dynamic`.
    pub fn dynamic(mut self) -> Self {
        self.range = RangeSource::Dynamic;
        self
    }

    /// Fixes the range, in the units of the tensor, so that nothing is calibrated.
    ///
    /// ModelOpt's `use_constant_amax`, with any range.
    pub fn constant(mut self, amax: f32) -> Self {
        self.range = RangeSource::Constant(amax);
        self
    }

    /// Stops the gradient of values beyond the range.
    ///
    /// Without it the gradient of every value passes straight through.
    pub fn clipped(mut self) -> Self {
        self.gradient = GradientRule::Clipped;
        self
    }

    /// Learns the range in training, as a step size: [`GradientRule::Lsq`]. Calibrate it with `Algorithm::LsqInit`,
    /// where the method begins, or with any other algorithm.
    pub fn lsq(mut self) -> Self {
        self.gradient = GradientRule::Lsq;
        self
    }

    /// Learns ranges as ModelOpt's `lsq` does: separate ones before and after rounding, without the paper's scale of
    /// the gradient.
    ///
    /// See [`LearnedRanges`].
    pub fn lsq_with(mut self, ranges: LearnedRanges) -> Self {
        self.gradient = GradientRule::Lsq;
        self.learned_ranges = Some(ranges);
        self
    }

    /// Learns the range in training, as a clipping value: [`GradientRule::Pact`].
    ///
    /// Source: Choi et al. 2018, "PACT", arXiv:1805.06085.
    pub fn pact(mut self) -> Self {
        self.gradient = GradientRule::Pact;
        self
    }

    /// Quantizes around a bias, which is subtracted before rounding and added again.
    ///
    /// ModelOpt's `bias`.
    pub fn with_bias(mut self, bias: BiasConfig) -> Self {
        self.bias = Some(bias);
        self
    }

    /// Rotates the tensor by a Hadamard transform before it is rounded.
    ///
    /// ModelOpt's `rotate`.
    pub fn rotated(mut self, rotation: Rotation) -> Self {
        self.rotation = Some(rotation);
        self
    }

    /// Leaves out the rounding, so that only the rotation is left.
    ///
    /// For a tensor that is multiplied with a rotated one, such as the queries of quantized keys.
    pub fn rotate_only(mut self) -> Self {
        self.rounding = Rounding::Off;
        self
    }

    /// Appends another quantizer that works on the result.
    ///
    /// ModelOpt's list of attributes: INT4 weights, then E4M3, is W4A8.
    pub fn then(mut self, next: QuantizerConfig) -> Self {
        self.then.push(next);
        self
    }

    /// Returns the format of elements and scales in a word, for tables: `int8`, `nvfp4`, `mx e4m3`.
    ///
    /// [`named`](QuantizerConfig::named) reads it.
    pub fn kind(&self) -> String {
        let kind = match (self.scale, self.format) {
            (ScaleFormat::F32, format) => format.to_string(),
            (ScaleFormat::E8M0, format) => format!("mx {format}"),
            (ScaleFormat::E4M3(BlockScale::Dynamic), Format::E2M1) => "nvfp4".into(),
            (ScaleFormat::E4M3(BlockScale::Static), Format::E2M1) => "nvfp4 static".into(),
            (ScaleFormat::E4M3(BlockScale::StaticFourOverSix), Format::E2M1) => "nvfp4 4/6".into(),
            (scale, format) => format!("{format} by {scale}"),
        };
        let rounding = if self.rounding == Rounding::Off { "unrounded".into() } else { kind };
        let rotated = if self.rotation.is_some() { " rotated" } else { "" };
        let affine = if self.bias.is_some() { " affine" } else { "" };
        format!("{rounding}{rotated}{affine}")
    }

    /// Returns whether some range or bias of the chain is found in calibration.
    ///
    /// Dynamic and constant ranges are not.
    pub fn needs_calibration(&self) -> bool {
        self.has_static_range() || self.has_static_bias() || self.then.iter().any(Self::needs_calibration)
    }

    /// Returns whether this stage of a chain has a calibrated range.
    ///
    /// A stage that only rotates has none.
    pub fn has_static_range(&self) -> bool {
        self.rounding == Rounding::Nearest && self.range == RangeSource::Static
    }

    /// Returns whether this stage of a chain has a calibrated bias.
    ///
    /// A dynamic bias is taken from every tensor anew.
    pub fn has_static_bias(&self) -> bool {
        let bias = self.bias.as_ref();
        self.rounding == Rounding::Nearest && bias.is_some_and(|bias| bias.source == BiasSource::Static)
    }

    /// Returns whether this stage of a chain has a range after rounding beside the one before it.
    ///
    /// One that is used for both counts as one range.
    pub fn has_two_ranges(&self) -> bool {
        self.learned_ranges.is_some_and(|ranges| ranges.learned != LearnedAmax::Tied)
    }

    /// Whether ranges are measured for the tensor and not for its groups.
    pub(crate) fn has_range_of_tensor(&self) -> bool {
        self.scale == ScaleFormat::E4M3(BlockScale::Dynamic)
    }
}
