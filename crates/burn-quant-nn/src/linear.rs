//! burn's linear layer with activation quantizers.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::module::linear;
use burn::tensor::{DType, Device, Tensor};
use burn_nn::{Initializer, Linear, LinearConfig, LinearLayout};

use burn_quant_core::error::QuantError;
use burn_quant_core::layout::Role;
use burn_quant_core::quantizer::parameter::in_place_of;
use burn_quant_core::quantizer::{Buffer, TensorQuantizer};

config_like_burns! {
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
    /// Applies the layer with its quantizers.
    ///
    /// Shapes are those of burn's layer; a disabled quantizer is the identity.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        self.with_weight(input, self.weight.val(), self.bias.as_ref().map(Param::val))
    }

    fn with_weight<const D: usize>(&self, input: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
        self.output_quantizer.forward(self.input_quantizer.layer(input, weight, bias, linear))
    }

    /// The layer with its weight quantized: what a forward that runs the layer many times quantizes once.
    pub(super) fn prepared(&self) -> PreparedLinear<'_> {
        PreparedLinear { layer: self, weight: self.weight.val(), bias: self.bias.as_ref().map(Param::val) }
    }

    /// Returns burn's layer, which computes the same.
    ///
    /// The weight keeps its quantizer. Only a pre-quantization scale or a branch of low rank, which burn's layer lacks,
    /// are merged into the quantized weight: that is then an ordinary parameter, equal to f32 rounding.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotBurn`] if the quantizer of the input or of the output is enabled.
    pub fn to_burn(&self) -> Result<Linear, QuantError> {
        self.output_quantizer.refuse("output_quantizer")?;
        self.input_quantizer.refuse_enabled("input_quantizer")?;
        Ok(Linear { weight: self.merged_weight(), bias: self.bias.clone() })
    }

    /// The weight with what acts on its inputs: `diag(s) · (Q(W) + down · up)`; the weight itself where nothing does.
    fn merged_weight(&self) -> Param<Tensor<2>> {
        let input = &self.input_quantizer;
        if [Buffer::PreQuantScale, Buffer::LowRankDown].iter().all(|buffer| input.buffer(*buffer).is_none()) {
            return self.weight.clone();
        }
        let weight = input.merged_into(self.weight.val().without_autodiff().cast(DType::F32));
        self.weight.clone().map(|old| in_place_of(&old, weight))
    }
}

impl From<Linear> for QuantLinear {
    fn from(layer: Linear) -> Self {
        Self {
            weight: layer.weight,
            bias: layer.bias,
            input_quantizer: TensorQuantizer::disabled(Role::ChannelsLast),
            output_quantizer: TensorQuantizer::disabled(Role::ChannelsLast),
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
        self.layer.with_weight(input, self.weight.clone(), self.bias.clone())
    }
}
