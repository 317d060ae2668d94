//! [`burn_nn::Linear`] with slots.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use burn_nn::{Linear, LinearConfig};

use crate::{Role, TensorQuantizer};

/// The configuration of a [`QuantLinear`]: that of burn's [`Linear`].
#[derive(Config, Debug)]
pub struct QuantLinearConfig {
    /// burn's layer.
    pub layer: LinearConfig,
}

impl QuantLinearConfig {
    /// A layer with fresh weights and disabled slots.
    pub fn init(&self, device: &Device) -> QuantLinear {
        self.layer.init(device).into()
    }
}

/// burn's [`Linear`] with quantizers before and after it, and after SVDQuant a branch of low rank beside it.
///
/// # Shapes
///
/// `weight`: `[d_input, d_output]`; input `[..., d_input]`, output `[..., d_output]`.
#[derive(Module, Debug)]
pub struct QuantLinear {
    /// The weight, `[d_input, d_output]`.
    pub weight: Param<Tensor<2>>,
    /// The bias, `[d_output]`.
    pub bias: Option<Param<Tensor<1>>>,
    /// Quantizes the input; disabled in a new layer.
    pub input_quantizer: TensorQuantizer,
    /// Quantizes the output; disabled in a new layer and by every preset.
    pub output_quantizer: TensorQuantizer,
}

impl QuantLinear {
    /// The layer with its quantizers.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let branch = self.input_quantizer.low_rank(input.clone());
        let output = self.to_float().forward(self.input_quantizer.forward(input));
        self.output_quantizer.forward(match branch {
            None => output,
            Some(branch) => output + branch,
        })
    }

    /// burn's layer with the same parameters, and the weight's quantizer if it has one.
    pub fn to_float(&self) -> Linear {
        Linear { weight: self.weight.clone(), bias: self.bias.clone() }
    }
}

impl From<Linear> for QuantLinear {
    fn from(layer: Linear) -> Self {
        Self {
            weight: layer.weight,
            bias: layer.bias,
            input_quantizer: TensorQuantizer::disabled(Role::Features),
            output_quantizer: TensorQuantizer::disabled(Role::Features),
        }
    }
}
