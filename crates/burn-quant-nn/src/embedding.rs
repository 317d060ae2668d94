//! burn's embedding with an activation quantizer after it.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};
use burn_nn::{Embedding, EmbeddingConfig, Initializer};

use burn_quant_core::error::QuantError;
use burn_quant_core::layout::Role;
use burn_quant_core::quantizer::TensorQuantizer;

config_like_burns! {
    EmbeddingConfig, QuantEmbeddingConfig => QuantEmbedding (device) {
        /// Number of vectors.
        n_embedding: usize,
        /// Features of a vector.
        d_model: usize,
        /// How the table begins.
        #[config(default = "Initializer::Normal { mean: 0.0, std: 1.0 }")]
        initializer: Initializer,
    }
}

/// burn's [`Embedding`] with a quantizer after it; its inputs are indices, so there is none before.
///
/// # Shapes
///
/// `weight`: `[n_embedding, d_model]`; input `[batch, tokens]`, output `[batch, tokens, d_model]`.
#[derive(Module, Debug)]
pub struct QuantEmbedding {
    /// The table, `[n_embedding, d_model]`.
    pub weight: Param<Tensor<2>>,
    /// Quantizes the vectors that were looked up; disabled in a new layer and by every preset.
    pub output_quantizer: TensorQuantizer,
}

impl QuantEmbedding {
    /// Returns the vectors of indices. Only these are quantized, unless the range is taken from the whole table.
    ///
    /// Indices are `[batch, tokens]`, vectors `[batch, tokens, d_model]`.
    pub fn forward(&self, input: Tensor<2, Int>) -> Tensor<3> {
        let [batch, tokens] = input.dims();
        let Some(quantizer) = self.weight.reparameterization::<TensorQuantizer>() else {
            let layer = Embedding { weight: self.weight.clone() };
            return self.output_quantizer.forward(layer.forward(input));
        };
        let vectors = quantizer.forward_rows(self.weight.base(), input.reshape([batch * tokens]));
        let [_, features] = vectors.dims();
        self.output_quantizer.forward(vectors.reshape([batch, tokens, features]))
    }

    /// Returns burn's layer, which computes the same; with the table's quantizer if it has one.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotBurn`] if the quantizer of the output is enabled.
    pub fn to_burn(&self) -> Result<Embedding, QuantError> {
        self.output_quantizer.refuse("output_quantizer")?;
        Ok(Embedding { weight: self.weight.clone() })
    }
}

impl From<Embedding> for QuantEmbedding {
    fn from(layer: Embedding) -> Self {
        Self { weight: layer.weight, output_quantizer: TensorQuantizer::disabled(Role::ChannelsLast) }
    }
}
