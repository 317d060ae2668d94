//! burn's embedding with an activation quantizer after it.

use burn::tensor::{Device, Int, Tensor};
use burn_nn::{Embedding, EmbeddingConfig, Initializer};

use crate::layer::{ActivationQuantized, SingleOperation};
use burn_quant_core::layout::Role;
use burn_quant_core::quantizer::TensorQuantizer;

layer_config! {
    QuantEmbeddingConfig = EmbeddingConfig => QuantEmbedding (device);
    new(n_embedding: usize, d_model: usize);
    /// Sets how the table begins.
    with_initializer(initializer: Initializer);
}

/// burn's [`Embedding`] with a quantizer after it; its inputs are indices, so the one before it is neither found nor
/// saved.
///
/// # Shapes
///
/// `weight`: `[n_embedding, d_model]`; input `[batch, tokens]`, output `[batch, tokens, d_model]`.
pub type QuantEmbedding = ActivationQuantized<Embedding>;

impl crate::layer::sealed::Sealed for Embedding {}

impl SingleOperation for Embedding {
    const CONTAINER: &'static str = "Struct:QuantEmbedding";
    const ROLE: Role = Role::ChannelsLast;
    const QUANTIZES_INPUT: bool = false;
}

impl ActivationQuantized<Embedding> {
    /// Returns the vectors of indices. Only these are quantized, unless the range is taken from the whole table.
    ///
    /// Indices are `[batch, tokens]`, vectors `[batch, tokens, d_model]`.
    pub fn forward(&self, input: Tensor<2, Int>) -> Tensor<3> {
        let [batch, tokens] = input.dims();
        let Some(quantizer) = self.weight.reparameterization::<TensorQuantizer>() else {
            let embedding: &Embedding = self;
            return self.output_quantizer.forward(embedding.forward(input));
        };
        let vectors = quantizer.forward_rows(self.weight.base(), input.reshape([batch * tokens]));
        let [_, features] = vectors.dims();
        self.output_quantizer.forward(vectors.reshape([batch, tokens, features]))
    }
}
