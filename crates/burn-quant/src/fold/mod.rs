//! Rounding the weights of a quantized model for good.

use burn::module::{Module, Reparameterization};

use crate::place::weights;
use crate::{QuantError, TensorQuantizer};

/// Replaces every weight by its quantized value and removes the weight quantizers.
///
/// The outputs do not change; the model needs no rounding of weights any more, and its weights are an ordinary record of
/// plain burn layers. A disabled weight quantizer is removed without effect. Slots keep their activation quantizers.
///
/// # Errors
///
/// [`QuantError::ForeignReparameterization`] if a weight has a reparameterization of another kind, which folding would
/// merge too: call burn's `materialize` if that is meant.
///
/// # Source
///
/// ModelOpt 0.47, `fold_weight`.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::tensor::{Device, Tensor};
/// use burn_nn::LinearConfig;
/// use burn_quant::{QuantConfig, Quantizers, fold_weights, quantize_weights};
///
/// let device = Device::flex();
/// let (model, _) = quantize_weights(LinearConfig::new(8, 4).init(&device), &QuantConfig::int8_weight_only())?;
/// let x = Tensor::<2>::ones([1, 8], &device);
/// let folded = fold_weights(model.clone())?;
/// assert_eq!(folded.forward(x.clone()).to_data(), model.forward(x).to_data());
/// assert!(Quantizers::of(&folded).is_empty());
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn fold_weights<M: Module>(model: M) -> Result<M, QuantError> {
    for weight in weights(&model) {
        if let Some(found) = weight.reparameterization.filter(|name| name != TensorQuantizer::NAME) {
            return Err(QuantError::ForeignReparameterization { path: weight.path, found });
        }
    }
    Ok(model.materialize())
}
