//! Switching quantizers that are placed on and off.

use burn::module::Module;

use crate::config::{matcher, near_misses};
use crate::error::QuantError;
use crate::model::Quantizers;

/// Switches the quantizers whose name matches a glob on.
///
/// # Errors
///
/// [`QuantError::NoMatch`] if none does, [`QuantError::BadPattern`], and [`QuantError::NeverObserved`] for a static
/// quantizer that was never calibrated: run `quantize` with a rule that enables it.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// # use burn::tensor::Device;
/// # use burn_nn::LinearConfig;
/// # use burn_quant::{Quantizers, disable, enable, presets, quantize_weights};
/// # let model = LinearConfig::new(4, 2).init(&Device::flex());
/// let (model, _) = quantize_weights(model, &presets::int8_weight_only())?;
/// let model = disable(model, "*weight_quantizer")?; // float again
/// let model = enable(model, "*weight_quantizer")?; // and back
/// assert!(Quantizers::of(&model).get("weight_quantizer")?.is_enabled());
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn enable<M: Module>(model: M, pattern: &str) -> Result<M, QuantError> {
    let mut quantizers = matching(&model, pattern)?;
    for (name, quantizer) in quantizers.iter_mut() {
        quantizer.enable();
        if quantizer.is_uncalibrated() {
            return Err(QuantError::NeverObserved { name: name.into() });
        }
    }
    quantizers.install(model)
}

/// Switches the quantizers whose name matches a glob off: they become the identity and keep their configuration and
/// range.
///
/// # Errors
///
/// [`QuantError::NoMatch`] if none does, and [`QuantError::BadPattern`].
pub fn disable<M: Module>(model: M, pattern: &str) -> Result<M, QuantError> {
    let mut quantizers = matching(&model, pattern)?;
    quantizers.iter_mut().for_each(|(_, quantizer)| quantizer.disable());
    quantizers.install(model)
}

fn matching<M: Module>(model: &M, pattern: &str) -> Result<Quantizers, QuantError> {
    let matcher = matcher(pattern)?;
    let mut quantizers = Quantizers::of(model);
    let near = near_misses(pattern, quantizers.names());
    quantizers.retain(|name| matcher.is_match(name));
    if quantizers.is_empty() {
        return Err(QuantError::NoMatch { pattern: pattern.into(), container: None, near_misses: near });
    }
    Ok(quantizers)
}
