//! Folding a batch norm into the layer before it.
//!
//! ```text
//! w' = w·γ/σ     b' = (b − μ)·γ/σ + β     σ = √(var + ε)
//! ```

use std::borrow::BorrowMut;

use burn::module::RunningState;
use burn::tensor::Tensor;
use burn_nn::BatchNorm;

use super::LinearMap;
use super::linear_map::along_outputs;
use burn_quant_core::error::QuantError;

/// Folds a batch norm into the layer before it: the layer, with a bias if it had none, and a norm that is the identity.
///
/// `w' = w·γ/σ`, `b' = (b − μ)·γ/σ + β`, `σ = √(var + ε)`, with the running statistics. Quantizing the folded weight is quantizing what
/// the deployed model multiplies; quantizing the other leaves the norm's gain out of the rounding error. The norm is burn's, or
/// that of [`nn`](burn_quant_nn) with slots around it.
///
/// # Shapes and units
///
/// `w`, `w'`: the layer's weight, channel by channel of its output; `b`, `b'`, `μ`, `var`, `γ`, `β`: `[out]`. Real units.
///
/// # Errors
///
/// [`QuantError::AlreadyQuantized`] if the layer's weight has a quantizer, and [`QuantError::ChannelsDiffer`] if the norm is not
/// one of the layer's outputs.
///
/// # Source
///
/// Jacob et al. 2018, arXiv:1712.05877, §3.2; running statistics, as at inference.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::module::Module;
/// use burn::tensor::{Device, Distribution, Tensor};
/// use burn_nn::{BatchNormConfig, conv::Conv2dConfig};
/// use burn_quant::prepare::fold_batch_norm;
///
/// let device = Device::flex();
/// let conv = Conv2dConfig::new([3, 8], [3, 3]).with_bias(false).init(&device);
/// let norm = BatchNormConfig::new(8).init(&device);
/// let (folded, identity) = fold_batch_norm(conv.clone(), norm.clone())?;
///
/// let x = Tensor::<4>::random([2, 3, 8, 8], Distribution::Normal(0.0, 1.0), &device);
/// let (before, after) = (norm.forward(conv.forward(x.clone())), identity.forward(folded.forward(x)));
/// assert!((before - after).abs().max().into_scalar::<f32>() < 1e-5);
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn fold_batch_norm<L: LinearMap, N: BorrowMut<BatchNorm>>(layer: L, mut norm: N) -> Result<(L, N), QuantError> {
    let of_layer: &mut BatchNorm = norm.borrow_mut();
    let (layer, identity) = fold(layer, of_layer.clone())?;
    *of_layer = identity;
    Ok((layer, norm))
}

fn fold<L: LinearMap>(layer: L, norm: BatchNorm) -> Result<(L, BatchNorm), QuantError> {
    let plain = |x: Tensor<1>| x.without_autodiff();
    let (gamma, beta) = (plain(norm.gamma.val()), plain(norm.beta.val()));
    let (mean, variance) = (plain(norm.running_mean.value_sync()), plain(norm.running_var.value_sync()));
    let weight = layer.weight();
    let outputs = weight.dims()[0] * weight.dims()[1];
    if gamma.dims()[0] != outputs {
        return Err(QuantError::ChannelsDiffer { left: outputs, right: gamma.dims()[0] });
    }
    let gain = gamma / (variance.clone() + norm.epsilon).sqrt();
    let bias = layer.bias().unwrap_or_else(|| mean.zeros_like());
    let shift = (bias - mean.clone()) * gain.clone() + beta;
    let weight = weight.clone() * along_outputs(gain, &weight);
    let layer = layer.with(weight, Some(shift))?;
    // x is the identity of (x − 0) / √(1 − ε + ε) · 1 + 0
    let identity = BatchNorm {
        gamma: norm.gamma.map(|gamma| gamma.ones_like()),
        beta: norm.beta.map(|beta| beta.zeros_like()),
        running_mean: RunningState::new(mean.zeros_like()),
        running_var: RunningState::new(variance.ones_like() - norm.epsilon),
        ..norm
    };
    Ok((layer, identity))
}
