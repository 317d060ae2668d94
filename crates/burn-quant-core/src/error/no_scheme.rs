//! Why burn's own quantization has no scheme for a weight.

use crate::debug_is_display;

debug_is_display!(NoSchemeReason);

/// Why a weight cannot be handed over to burn's own quantization.
///
/// `Debug` prints the same sentence as `Display`.
#[derive(Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NoSchemeReason {
    /// The quantizer was never calibrated.
    #[error("its quantizer was never calibrated: run `quantize` or `calibrate` first")]
    Uncalibrated,
    /// The weight is packed.
    #[error("it is packed: hand the model over before `compress`")]
    Packed,
    /// burn has no such numbers.
    #[error("burn has no {format}: it has signed integers of 2, 4 and 8 bits, and e4m3, e5m2 and e2m1, in f32 scales")]
    Format {
        /// The format of the quantizer, and of its scales.
        format: String,
    },
    /// The quantizer does more than rounding.
    #[error("its quantizer {what}, which burn's own does not")]
    MoreThanRounding {
        /// What it does.
        what: &'static str,
    },
    /// burn has no such blocks.
    #[error(
        "burn's blocks divide every axis and have at most 255 elements along it, found {block:?} of {shape:?}: take \
         one scale for the tensor, or `per_block(n)` with such an n"
    )]
    Blocks {
        /// The shape that is divided.
        shape: Vec<usize>,
        /// The elements of a block along each axis.
        block: Vec<usize>,
    },
    /// Blocks that burn's GPU backends cannot pack.
    #[error("burn packs {together} values of a block together on this device, along the last axis, found {block:?}")]
    PackedBlocks {
        /// The values that share a word.
        together: usize,
        /// The elements of a block along each axis.
        block: Vec<usize>,
    },
    /// burn could not quantize the weight.
    #[error("burn does not quantize it on this device: {problem}")]
    Device {
        /// What burn says.
        problem: String,
    },
    /// burn's numbers are others, on this device.
    #[error("burn makes {found:e} of {expected:e} on this device: use integers, or `compress` instead")]
    Values {
        /// A value of the weight, as it was quantized.
        expected: f32,
        /// What burn makes of it.
        found: f32,
    },
}
