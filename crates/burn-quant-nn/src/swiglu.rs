//! burn's gated unit with activation quantizers in its linear layers.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_nn::{Initializer, LinearLayout, SwiGlu, SwiGluConfig};

use super::QuantLinear;
use burn_quant_core::error::QuantError;
use burn_quant_ops::Pointwise;

layer_config! {
    QuantSwiGluConfig = SwiGluConfig => QuantSwiGlu (device);
    new(d_input: usize, d_output: usize);
    /// Sets whether the layers have biases.
    with_bias(bias: bool);
    /// Sets how the parameters begin.
    with_initializer(initializer: Initializer);
    /// Sets how the weights lie in memory and in records.
    with_layout(layout: LinearLayout);
}

/// burn's [`SwiGlu`] of [`QuantLinear`] layers: `silu(inner(x)) ⊙ outer(x)`.
///
/// # Shapes
///
/// Input `[..., d_input]`, output `[..., d_output]`.
#[derive(Module, Debug)]
pub struct QuantSwiGlu {
    /// The layer whose output is the gate.
    pub linear_inner: QuantLinear,
    /// The layer whose output is gated.
    pub linear_outer: QuantLinear,
}

impl QuantSwiGlu {
    /// Applies the unit with its quantizers.
    ///
    /// Shapes are those of burn's layer; a disabled quantizer is the identity.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        self.linear_inner.forward_then(input.clone(), Pointwise::Silu) * self.linear_outer.forward(input)
    }

    /// Returns burn's unit, which computes the same.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotBurn`] if an activation quantizer is enabled, which burn's layer lacks.
    pub fn to_burn(&self) -> Result<SwiGlu, QuantError> {
        Ok(SwiGlu { linear_inner: self.linear_inner.to_burn()?, linear_outer: self.linear_outer.to_burn()? })
    }
}

impl From<SwiGlu> for QuantSwiGlu {
    fn from(unit: SwiGlu) -> Self {
        Self { linear_inner: unit.linear_inner.into(), linear_outer: unit.linear_outer.into() }
    }
}
