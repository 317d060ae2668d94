//! burn's linear layer with activation quantizers.

use burn::module::Param;
use burn::tensor::{DType, Device, Tensor, module};
use burn_nn::{Initializer, Linear, LinearConfig, LinearLayout};

use crate::layer::{ActivationQuantized, SingleOperation};
use burn_quant_core::error::QuantError;
use burn_quant_core::layout::Role;
use burn_quant_core::quantizer::parameter::in_place_of;
use burn_quant_core::quantizer::{Buffer, TensorQuantizer};
use burn_quant_ops::Pointwise;

layer_config! {
    QuantLinearConfig = LinearConfig => QuantLinear (device);
    new(d_input: usize, d_output: usize);
    /// Sets whether there is a bias.
    with_bias(bias: bool);
    /// Sets how the parameters begin.
    with_initializer(initializer: Initializer);
    /// Sets how the weight lies in memory and in records.
    with_layout(layout: LinearLayout);
}

/// burn's [`Linear`] with quantizers before and after it, and after SVDQuant a branch of low rank beside it.
///
/// # Shapes
///
/// `weight`: `[d_input, d_output]`; input `[..., d_input]`, output `[..., d_output]`.
pub type QuantLinear = ActivationQuantized<Linear>;

impl crate::layer::sealed::Sealed for Linear {}

impl SingleOperation for Linear {
    const CONTAINER: &'static str = "Struct:QuantLinear";
    const ROLE: Role = Role::ChannelsLast;

    /// What acts on the inputs is merged into the weight: `diag(s) · (Q(W) + down · up)`.
    fn behind(&self, input: &TensorQuantizer) -> Result<Self, QuantError> {
        input.refuse_enabled("input_quantizer")?;
        if [Buffer::PreQuantScale, Buffer::LowRankDown].iter().all(|buffer| input.buffer(*buffer).is_none()) {
            return Ok(self.clone());
        }
        let weight = input.merged_into(self.weight.val().without_autodiff().cast(DType::F32));
        Ok(Self { weight: self.weight.clone().map(|old| in_place_of(&old, weight)), bias: self.bias.clone() })
    }
}

impl ActivationQuantized<Linear> {
    /// Applies the layer with its quantizers.
    ///
    /// Shapes are those of burn's layer; a disabled quantizer is the identity.
    pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        let bias = self.bias.as_ref().map(Param::val);
        match self.packed_product(&input, bias.clone(), None) {
            Some(output) => output,
            None => self.product(input, self.weight.val(), bias, linear),
        }
    }

    /// Applies the layer, and a function to each element of its result.
    ///
    /// `function(forward(input))`, bit for bit; with a packed weight it is one pass on the CPU, on as many threads as
    /// the product has.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "flex")] {
    /// use burn::tensor::activation::gelu;
    /// use burn::tensor::{Device, Tensor};
    /// use burn_quant::nn::QuantLinearConfig;
    /// use burn_quant::ops::Pointwise;
    /// use burn_quant::{compress, presets, quantize};
    ///
    /// let device = Device::flex();
    /// let (layer, x) = (QuantLinearConfig::new(8, 4).init(&device), Tensor::<2>::ones([3, 8], &device));
    /// let (layer, _) = quantize(layer, &presets::int8_default(), |layer| drop(layer.forward(x.clone())))?;
    /// let (layer, _) = compress(layer)?;
    /// let y = layer.forward_then(x.clone(), Pointwise::Gelu);
    /// assert_eq!(y.into_data(), gelu(layer.forward(x)).into_data());
    /// # }
    /// # Ok::<(), burn_quant::QuantError>(())
    /// ```
    pub fn forward_then<const D: usize>(&self, input: Tensor<D>, function: Pointwise) -> Tensor<D> {
        let bias = self.bias.as_ref().map(Param::val);
        match self.packed_product(&input, bias.clone(), Some(function)) {
            Some(output) => output,
            None => function.apply(self.product(input, self.weight.val(), bias, linear)),
        }
    }

    /// The layer with its quantizers and a function, if its weight is packed.
    fn packed_product<const D: usize>(
        &self,
        input: &Tensor<D>,
        bias: Option<Tensor<1>>,
        function: Option<Pointwise>,
    ) -> Option<Tensor<D>> {
        let quantizer = self.weight.reparameterization::<TensorQuantizer>()?;
        quantizer.linear([&self.input_quantizer, &self.output_quantizer], input, bias, function)
    }

    /// The layer with its weight quantized: what a forward that runs the layer many times quantizes once.
    pub(super) fn prepared(&self) -> PreparedLinear<'_> {
        let packed = self.weight.reparameterization::<TensorQuantizer>().is_some_and(|it| it.packed().is_some());
        let weight = (!packed).then(|| self.weight.val());
        PreparedLinear { layer: self, weight, bias: self.bias.as_ref().map(Param::val) }
    }
}

/// burn's linear layer, and nothing of nothing: for a batch `[0, n, inputs]` burn 0.22.1 reads memory that is not its
/// own on the CPU.
fn linear<const D: usize>(x: Tensor<D>, weight: Tensor<2>, bias: Option<Tensor<1>>) -> Tensor<D> {
    let mut shape = x.dims();
    if !shape[..D - 1].contains(&0) {
        return module::linear(x, weight, bias);
    }
    shape[D - 1] = weight.dims()[1];
    Tensor::zeros(shape, (&x.device(), x.dtype()))
}

/// A layer whose weight is quantized.
pub(super) struct PreparedLinear<'a> {
    layer: &'a QuantLinear,
    /// `None` if it is packed.
    weight: Option<Tensor<2>>,
    bias: Option<Tensor<1>>,
}

impl PreparedLinear<'_> {
    pub(super) fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
        match &self.weight {
            Some(weight) => self.layer.product(input, weight.clone(), self.bias.clone(), linear),
            None => self.layer.forward(input),
        }
    }
}
