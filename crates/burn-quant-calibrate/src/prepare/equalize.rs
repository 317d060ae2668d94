//! Cross-layer equalization: the ranges of a channel in two neighbouring layers become equal.
//!
//! ```text
//! s_i = √(r1_i · r2_i) / r2_i      r1: range of the channel's weights in the first layer, r2: in the second
//! W1[i,:] ← W1[i,:] / s_i,  b1_i ← b1_i / s_i,  W2[:,i] ← W2[:,i] · s_i
//! ```

use burn::tensor::Tensor;

use super::LinearMap;
use super::linear_map::{along_inputs, along_outputs};
use burn_quant_core::error::QuantError;

/// Scales the channels between two layers so that each has the same range in both: the layers, changed, which compute
/// the same.
///
/// `s_i = √(r1_i·r2_i) / r2_i`; the outputs of the first are divided by it, the inputs of the second multiplied.
/// Between them there may only be what commutes with a positive factor per channel: nothing, a ReLU, pooling. A channel
/// without weights in one of them is left alone. It needs no data, and makes quantization per tensor nearly as good as
/// per channel.
///
/// # Shapes and units
///
/// `r1`, `r2`, `s`: one per channel between the layers. Real units.
///
/// # Errors
///
/// [`QuantError::ChannelsDiffer`] if the second does not take as many channels as the first gives, and
/// [`QuantError::AlreadyQuantized`].
///
/// # Source
///
/// Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction", arXiv:1906.04721, §4.1,
/// eq. 11.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::module::Param;
/// use burn::tensor::{Device, Tensor};
/// use burn_nn::Linear;
/// use burn_quant::prepare::equalize;
///
/// let device = Device::flex();
/// let linear = |weight: [[f32; 2]; 2]| {
///     Linear { weight: Param::from_tensor(Tensor::from_data(weight, &device)), bias: None }
/// };
/// // the second channel has a range of 16 before, and of 1 after
/// let (first, second) = equalize(linear([[1.0, 16.0], [0.5, -8.0]]), linear([[1.0, 1.0], [-1.0, 0.5]]))?;
/// let values = |layer: &Linear| layer.weight.val().into_data().try_into_vec::<f32>().unwrap();
/// assert_eq!(values(&first), [1.0, 4.0, 0.5, -2.0]);
/// assert_eq!(values(&second), [1.0, 1.0, -4.0, 2.0]);
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn equalize<A: LinearMap, B: LinearMap>(first: A, second: B) -> Result<(A, B), QuantError> {
    let (one, two) = (first.weight(), second.weight());
    let channels = one.dims()[0] * one.dims()[1];
    let inputs = two.dims()[0] * two.dims()[2];
    if channels != inputs {
        return Err(QuantError::ChannelsDiffer { left: channels, right: inputs });
    }
    let before: Tensor<1> = one.clone().abs().max_dim(3).max_dim(2).reshape([channels]);
    let after: Tensor<1> = two.clone().abs().max_dim(3).max_dim(1).reshape([channels]);
    let dead = before.clone().equal_elem(0.0).bool_or(after.clone().equal_elem(0.0));
    let scale = (before / after).sqrt().mask_fill(dead, 1.0);
    let bias = first.bias().map(|bias| bias / scale.clone());
    let first_weight = one.clone() / along_outputs(scale.clone(), &one);
    let second_weight = two.clone() * along_inputs(scale, &two);
    let second_bias = second.bias();
    Ok((first.with(first_weight, bias)?, second.with(second_weight, second_bias)?))
}
