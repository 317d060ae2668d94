//! Scores by divergence: how far one layer in a format moves the outputs of the whole model.
//!
//! ```text
//! S(g, r) = Σ_batches Σ_{tokens, classes} p · (log p − log q)        p = softmax of the float model, q with only group g in format r
//! ```
//!
//! It needs no gradients, labels or slots: any model will do, weight-only formats of unmodified layers too. It costs one forward pass
//! per batch, group and format.
//!
//! Source: ModelOpt 0.47, `AutoQuantizeKLDivSearcher`.

use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Tensor};

/// The divergence of the outputs of a batch, summed over its examples, `[1]`: logits `[..., classes]`, as log probabilities of the float
/// model and logits of the other.
pub(super) fn divergence<const D: usize>(float: Tensor<D>, logits: Tensor<D>) -> Tensor<1> {
    (float.clone().exp() * (float - log_probabilities(logits))).sum()
}

/// Log probabilities of logits `[..., classes]`, f32.
pub(super) fn log_probabilities<const D: usize>(logits: Tensor<D>) -> Tensor<D> {
    log_softmax(logits.without_autodiff().cast(DType::F32), D - 1)
}
