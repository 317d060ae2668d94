//! burn's feed-forward network of a transformer with quantizers.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_nn::activation::{Activation, ActivationConfig};

use burn_nn::transformer::{PositionWiseFeedForward, PositionWiseFeedForwardConfig};
use burn_nn::{Dropout, Gelu, Initializer};

use crate::QuantLinear;
use burn_quant_core::error::QuantError;
use burn_quant_ops::Pointwise;

layer_config! {
    QuantPositionWiseFeedForwardConfig = PositionWiseFeedForwardConfig => QuantPositionWiseFeedForward (device);
    new(d_model: usize, d_ff: usize);
    /// Sets the rate of dropout.
    with_dropout(dropout: f64);
    /// Sets how the parameters begin.
    with_initializer(initializer: Initializer);
    /// Sets the function between the layers.
    with_activation(activation: ActivationConfig);
}

/// burn's [`PositionWiseFeedForward`] of [`QuantLinear`] layers.
///
/// An activation with parameters, SwiGLU, stays burn's: neither recorded, as in burn, nor quantized.
///
/// # Shapes
///
/// Input and output `[..., d_model]`.
#[derive(Module, Debug)]
pub struct QuantPositionWiseFeedForward {
    /// The first layer.
    pub linear_inner: QuantLinear,
    /// The second layer.
    pub linear_outer: QuantLinear,
    /// Dropout between the layers.
    pub dropout: Dropout,
    /// The function between the layers.
    #[module(skip)]
    pub activation: Activation,
}

impl QuantPositionWiseFeedForward {
    /// Applies the network with its quantizers.
    ///
    /// Shapes are those of burn's layer; a disabled quantizer is the identity.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let x = match self.function() {
            Some(function) => self.linear_inner.forward_then(input, function),
            None => self.activation.forward(self.linear_inner.forward(input)),
        };
        self.linear_outer.forward(self.dropout.forward(x))
    }

    /// The activation, if the first layer can apply it.
    fn function(&self) -> Option<Pointwise> {
        match &self.activation {
            Activation::Gelu(Gelu { approximate: false }) => Some(Pointwise::Gelu),
            Activation::Relu(_) => Some(Pointwise::Relu),
            _ => None,
        }
    }

    /// Returns burn's network, which computes the same.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotBurn`] if an activation quantizer is enabled, which burn's layer lacks.
    pub fn to_burn(&self) -> Result<PositionWiseFeedForward, QuantError> {
        Ok(PositionWiseFeedForward {
            linear_inner: self.linear_inner.to_burn()?,
            linear_outer: self.linear_outer.to_burn()?,
            dropout: self.dropout.clone(),
            activation: self.activation.clone(),
        })
    }
}

impl From<PositionWiseFeedForward> for QuantPositionWiseFeedForward {
    fn from(network: PositionWiseFeedForward) -> Self {
        Self {
            linear_inner: network.linear_inner.into(),
            linear_outer: network.linear_outer.into(),
            dropout: network.dropout,
            activation: network.activation,
        }
    }
}
