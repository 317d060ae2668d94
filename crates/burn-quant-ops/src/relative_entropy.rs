//! The divergence of two distributions, of which a search and distillation each take what they need.

use burn::tensor::Tensor;

/// `p · (log p − log q)` by elements, of log probabilities; 0 where `p` is 0, whatever `q` is: the limit, where the
/// formula has 0 · ∞.
pub fn relative_entropy<const D: usize>(log_p: Tensor<D>, log_q: Tensor<D>) -> Tensor<D> {
    let p = log_p.clone().exp();
    let ruled_out = p.clone().equal_elem(0.0);
    p * (log_p - log_q).mask_fill(ruled_out, 0.0)
}
