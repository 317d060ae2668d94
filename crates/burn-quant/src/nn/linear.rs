//! burn's linear layer with slots.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::module::linear;
use burn::tensor::{Device, Tensor};
use burn_nn::{Initializer, Linear, LinearConfig, LinearLayout};

use crate::{Role, TensorQuantizer};

mirrored_config! {
    LinearConfig, QuantLinearConfig => QuantLinear (device) {
        /// Features of the input.
        d_input: usize,
        /// Features of the output.
        d_output: usize,
        /// Whether there is a bias.
        #[config(default = true)]
        bias: bool,
        /// How the parameters begin.
        #[config(default = "Initializer::KaimingUniform { gain: 1.0 / 3f64.sqrt(), fan_out_only: false }")]
        initializer: Initializer,
        /// How the weight lies in memory and in records.
        #[config(default = "LinearLayout::Row")]
        layout: LinearLayout,
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
        self.prepared().forward(input)
    }

    /// The layer with its weight quantized: what a forward that runs the layer many times quantizes once.
    pub(super) fn prepared(&self) -> PreparedLinear<'_> {
        PreparedLinear { layer: self, weight: self.weight.val(), bias: self.bias.as_ref().map(Param::val) }
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

/// A layer whose weight is quantized.
pub(super) struct PreparedLinear<'a> {
    layer: &'a QuantLinear,
    weight: Tensor<2>,
    bias: Option<Tensor<1>>,
}

impl PreparedLinear<'_> {
    pub(super) fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let slot = &self.layer.input_quantizer;
        let (seen, branch) = (slot.seen(&input), slot.low_rank(input.clone()));
        let output = linear(slot.forward(input), self.weight.clone(), self.bias.clone());
        let output = match branch {
            None => output,
            Some(branch) => output + branch,
        };
        let output = slot.probed(seen, output, |x, weight: Tensor<2>| linear(x, weight, None));
        self.layer.output_quantizer.forward(output)
    }
}
