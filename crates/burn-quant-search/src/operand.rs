//! A layer in one of the formats that it could have, for computing its output.

use burn::tensor::Tensor;

use burn_quant_core::quantizer::TensorQuantizer;
use burn_quant_core::quantizer::{AnyTensor, Product};
use burn_quant_core::with_rank;

/// Weight and quantizers of a layer in one candidate format.
#[derive(Clone, Debug)]
pub(crate) struct QuantizedLayerView {
    /// The weight before it is quantized.
    pub(crate) weight: AnyTensor,
    pub(crate) weight_quantizer: Option<TensorQuantizer>,
    pub(crate) input_quantizer: Option<TensorQuantizer>,
    /// What is added to the bias, `[channels]`.
    pub(crate) bias: Option<Tensor<1>>,
}

impl QuantizedLayerView {
    /// The weight as it is quantized, in its own dtype.
    pub(crate) fn quantized_weight(&self) -> AnyTensor {
        match &self.weight_quantizer {
            Some(quantizer) => with_rank!(&self.weight, weight => quantizer.forward(weight).into()),
            None => self.weight.clone(),
        }
    }

    /// The same with its weight quantized: what is multiplied with several times.
    #[cfg(feature = "autodiff")] // only a gradient asks for several products of one batch
    pub(crate) fn prepared(&self) -> Self {
        Self { weight: self.quantized_weight(), weight_quantizer: None, ..self.clone() }
    }

    /// What it makes of an input.
    pub(crate) fn output(&self, input: &AnyTensor, product: &Product) -> AnyTensor {
        let (branch, quantized): (Option<AnyTensor>, AnyTensor) = match &self.input_quantizer {
            Some(quantizer) => with_rank!(input, x => {
                (quantizer.low_rank(&x).map(AnyTensor::from), quantizer.forward(x).into())
            }),
            None => (None, input.clone()),
        };
        let output = product(&quantized, &self.quantized_weight());
        let output = match branch {
            None => output,
            Some(branch) => AnyTensor::new(output.flat() + branch.flat(), output.shape().to_vec()),
        };
        match (&self.bias, &self.input_quantizer) {
            (Some(bias), Some(quantizer)) => with_rank!(&output, y => {
                let mut shape = y.dims().map(|_| 1);
                shape[quantizer.role().channel_axis(shape.len())] = bias.dims()[0];
                (y + bias.clone().reshape(shape)).into()
            }),
            _ => output,
        }
    }
}
