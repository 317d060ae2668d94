//! Folding a batch norm into the layer before it.
//!
//! ```text
//! w' = w·γ/σ     b' = (b − μ)·γ/σ + β     σ = √(var + ε)
//! ```

use std::borrow::Borrow;

use burn::tensor::Tensor;
use burn_nn::BatchNorm;

use super::LinearMap;
use super::linear_map::along_outputs;
use burn_quant_core::error::QuantError;

/// Folds a batch norm into the layer before it, and returns the layer, with a bias if it had none. The norm is gone.
///
/// `w' = w·γ/σ`, `b' = (b − μ)·γ/σ + β`, `σ = √(var + ε)`, with the running statistics. Quantizing the folded weight is
/// quantizing what the deployed model multiplies; quantizing the other leaves the norm's gain out of the rounding
/// error. The norm is burn's, or that of [`nn`](burn_quant_nn) with activation quantizers around it.
///
/// No norm is returned: one of burn's that is the identity today would follow the batches as soon as the model is
/// trained. Make the field of your model an `Option`, take the norm out of it, and call it where it is there.
///
/// ```text
/// load float weights ─► fold ─► quantize ─► train (QAT) ─► save
///               Model::new(..) ─► fold ─► restore        what is restored into has no norms either
/// ```
///
/// # Shapes and units
///
/// `w`, `w'`: the layer's weight, channel by channel of its output; `b`, `b'`, `μ`, `var`, `γ`, `β`: `[out]`. Real
/// units.
///
/// # Errors
///
/// [`QuantError::AlreadyQuantized`] if the layer's weight has a quantizer, and [`QuantError::ChannelsDiffer`] if the
/// norm is not one of the layer's outputs.
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
/// let folded = fold_batch_norm(conv.clone(), norm.clone())?;
///
/// let x = Tensor::<4>::random([2, 3, 8, 8], Distribution::Normal(0.0, 1.0), &device);
/// let (before, after) = (norm.forward(conv.forward(x.clone())), folded.forward(x));
/// assert!((before - after).abs().max().into_scalar::<f32>() < 1e-5);
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn fold_batch_norm<L: LinearMap, N: Borrow<BatchNorm>>(layer: L, norm: N) -> Result<L, QuantError> {
    let norm = norm.borrow();
    let plain = |x: Tensor<1>| x.without_autodiff();
    let (gamma, beta) = (plain(norm.gamma.val()), plain(norm.beta.val()));
    let (mean, variance) = (plain(norm.running_mean.value_sync()), plain(norm.running_var.value_sync()));
    let weight = layer.weight();
    let outputs = weight.dims()[0] * weight.dims()[1];
    if gamma.dims()[0] != outputs {
        return Err(QuantError::ChannelsDiffer { left: outputs, right: gamma.dims()[0] });
    }
    let gain = gamma / (variance + norm.epsilon).sqrt();
    let bias = layer.bias().unwrap_or_else(|| mean.zeros_like());
    let shift = (bias - mean) * gain.clone() + beta;
    let weight = weight.clone() * along_outputs(gain, &weight);
    layer.with(weight, Some(shift))
}
