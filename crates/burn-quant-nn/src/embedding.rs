//! burn's embedding with an activation quantizer after it.

use burn::tensor::module::linear;
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
        let quantizer = self.weight.reparameterization::<TensorQuantizer>();
        let Some(quantizer) = quantizer.filter(|_| batch * tokens > 0) else {
            // no rows are reshaped, or none are rounded
            let embedding: &Embedding = self;
            return self.output_quantizer.forward(embedding.forward(input));
        };
        let vectors = quantizer.forward_rows(self.weight.base(), input.reshape([batch * tokens]));
        let [_, features] = vectors.dims();
        self.output_quantizer.forward(vectors.reshape([batch, tokens, features]))
    }

    /// Returns the products of vectors with all rows of the table: the logits of a model whose head is its embedding.
    ///
    /// `x · Wᵀ`. Vectors are `[..., d_model]`, logits `[..., n_embedding]`. A packed table is multiplied as codes, on
    /// the CPU without unpacking it; neither quantizer of the embedding's output acts here.
    ///
    /// # Panics
    ///
    /// If vectors have not as many features as the table.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "flex")] {
    /// use burn::tensor::{Device, Int, Tensor};
    /// use burn_quant::nn::EmbeddingConfig;
    ///
    /// let device = Device::flex();
    /// let embedding = EmbeddingConfig::new(10, 8).init(&device);
    /// let tokens = Tensor::<2, Int>::from_data([[1, 7, 3]], &device);
    /// assert_eq!(embedding.logits(embedding.forward(tokens)).dims(), [1, 3, 10]);
    /// # }
    /// ```
    pub fn logits<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let packed =
            self.weight.reparameterization::<TensorQuantizer>().filter(|quantizer| quantizer.packed().is_some());
        let off = TensorQuantizer::disabled(Role::ChannelsLast);
        match packed.and_then(|quantizer| quantizer.linear([&off, &off], &x, None, None)) {
            Some(logits) => logits,
            None => linear(x, self.weight.val().transpose(), None),
        }
    }
}
