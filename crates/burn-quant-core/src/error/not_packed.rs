//! Why a weight has no packed form.

use burn_quant_ops::NotPacked;

use crate::debug_is_display;

debug_is_display!(NotPackedReason);

/// Why a weight stays as it is.
///
/// `Debug` prints the same sentence as `Display`.
#[derive(Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum NotPackedReason {
    /// The quantizer is that of an activation.
    #[error("its quantizer is not that of a weight")]
    NoWeight,
    /// The quantizer is off.
    #[error("its quantizer is switched off")]
    Disabled,
    /// The quantizer was never calibrated.
    #[error("its quantizer was never calibrated: run `quantize` or `calibrate` first")]
    Uncalibrated,
    /// The weight is no matrix that one axis of is summed over.
    #[error(
        "weights of shape {shape:?} with these groups have no packed form: a scale is for the tensor, an output, or a \
         block of inputs"
    )]
    Layout {
        /// The shape of the weight, or that which groups divide.
        shape: Vec<usize>,
    },
    /// The range of a tensor is taken from all of its tokens.
    #[error("its range is that of all tokens, and changes with each; give it a static one, or one for each token")]
    ChangingRange,
    /// Ranges are neither those of a token nor the same for all.
    #[error("its ranges are neither those of each token, along the last axis, nor the same for all tokens")]
    NotOfTokens,
    /// The quantizer does more than rounding.
    #[error("its quantizer {what}, which codes cannot hold")]
    MoreThanRounding {
        /// What it does.
        what: &'static str,
    },
    /// A bias that is no number.
    #[error("it rounds around a bias of {found:e}; biases are finite")]
    Bias {
        /// The bias.
        found: f32,
    },
    /// Words whose columns are in the order of other groups of a transposed convolution.
    #[error(
        "its words have the columns of {found} groups of channels side by side, where its quantizer has {expected}: \
         pack the weight again"
    )]
    ChannelGroups {
        /// The groups of the quantizer.
        expected: usize,
        /// The groups of the words.
        found: usize,
    },
    /// Codes and scales cannot be made.
    #[error(transparent)]
    Codes {
        /// What a code, a scale or a layout lacks.
        #[from]
        source: NotPacked,
    },
}
