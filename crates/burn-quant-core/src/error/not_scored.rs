//! Why a layer has no score by gradients.

use thiserror::Error;

use super::text::article;
use crate::debug_is_display;

/// Why a layer has no score by gradients.
#[derive(Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum NotScoredReason {
    /// The layer has no quantizer for its input.
    #[error(
        "{} has no quantizer for its input; {}score by divergence, or disable it",
        article(container),
        if container == "Embedding" { "" } else { "use the layer of `burn_quant::nn` in its place, " }
    )]
    NoActivationQuantizer {
        /// The type of the layer.
        container: String,
    },
    /// The layer never recorded an output.
    #[error(
        "no batch reached it, or it is a layer of yours whose forward does not call `TensorQuantizer::layer`; score \
         batches that reach it, or disable it"
    )]
    NotReached,
    /// The layer recorded outputs, and no gradient came back to them.
    #[error(
        "it ran, and no gradient came back to its output: the loss does not depend on it, or it is detached; use its \
         output in the loss, score by divergence, or disable it"
    )]
    NoGradient,
}

debug_is_display!(NotScoredReason);
