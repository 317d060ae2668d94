//! The weight of a layer that is not linear, as algorithms see it.

use burn_quant_core::quantizer::AnyTensor;
use burn_quant_core::quantizer::TensorQuantizer;
use burn_quant_core::with_rank;

/// The weight of a convolution, an embedding, or any other layer whose weight is not a matrix between inputs and
/// outputs: its range can be searched for, nothing else.
#[derive(Clone, Debug)]
pub struct KernelProblem {
    name: String,
    weight: AnyTensor,
    quantizer: TensorQuantizer,
}

impl KernelProblem {
    pub(super) fn new(name: String, weight: AnyTensor, quantizer: TensorQuantizer) -> Self {
        Self { name, weight, quantizer }
    }

    /// Returns the path of the layer in the model.
    ///
    /// Reports name the layer by it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the weight before it is quantized, in its own layout.
    ///
    /// That of a convolution is `[out, in / groups, k…]`.
    pub fn weight(&self) -> &AnyTensor {
        &self.weight
    }

    /// Returns what the weight becomes under a quantizer of its layout.
    ///
    /// All stages of a chain act.
    pub fn quantize(&self, quantizer: &TensorQuantizer) -> AnyTensor {
        with_rank!(&self.weight, weight => quantizer.forward(weight).into())
    }

    /// Returns the quantizer of the weight, with its range by `max` or by the steps so far.
    pub fn quantizer(&self) -> &TensorQuantizer {
        &self.quantizer
    }

    pub(super) fn set_quantizer(&mut self, quantizer: TensorQuantizer) {
        self.quantizer = quantizer;
    }

    pub(super) fn into_quantizer(self) -> TensorQuantizer {
        self.quantizer
    }
}
