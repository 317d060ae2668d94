//! burn's gated unit with activation quantizers in its linear layers.

use burn::config::Config;
use burn::module::Module;
use burn::tensor::activation::silu;
use burn::tensor::{Device, Tensor};
use burn_nn::{Initializer, LinearLayout, SwiGlu, SwiGluConfig};

use super::QuantLinear;
use burn_quant_core::error::QuantError;

config_like_burns! {
    SwiGluConfig, QuantSwiGluConfig => QuantSwiGlu (device) {
        /// Features of the input.
        d_input: usize,
        /// Features of the output.
        d_output: usize,
        /// Whether the layers have biases.
        #[config(default = false)]
        bias: bool,
        /// How the parameters begin.
        #[config(default = "Initializer::KaimingUniform { gain: 1.0 / 3f64.sqrt(), fan_out_only: false }")]
        initializer: Initializer,
        /// How the weights lie in memory and in records.
        #[config(default = "LinearLayout::Row")]
        layout: LinearLayout,
    }
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
        silu(self.linear_inner.forward(input.clone())) * self.linear_outer.forward(input)
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
