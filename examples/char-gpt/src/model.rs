//! The model: burn's transformer encoder under a causal mask. Its source differs from one of burn's by the import of
//! `nn`.

use burn::module::Module;
use burn::tensor::{Device, Int, Tensor};
use burn_quant::nn; // was: use burn::nn;
use nn::attention::generate_autoregressive_mask;
use nn::transformer::{
    TransformerEncoder, TransformerEncoderAutoregressiveCache, TransformerEncoderConfig, TransformerEncoderInput,
};

use crate::text::CONTEXT;

/// Sizes of the model.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Features.
    pub width: usize,
    /// Layers.
    pub layers: usize,
    /// Heads.
    pub heads: usize,
}

impl Size {
    /// 0.8 million parameters.
    pub const SMALL: Size = Size { width: 128, layers: 4, heads: 4 };
}

/// Predicts the next character.
#[derive(Module, Debug)]
pub struct CharGpt {
    characters: nn::Embedding,
    positions: nn::Embedding,
    blocks: TransformerEncoder,
    norm: nn::LayerNorm,
    lm_head: nn::Linear,
}

impl CharGpt {
    /// A model with random weights.
    pub fn new(characters: usize, size: Size, device: &Device) -> Self {
        let embedding = |n| {
            let initializer = nn::Initializer::Normal { mean: 0.0, std: 0.02 };
            nn::EmbeddingConfig::new(n, size.width).with_initializer(initializer).init(device)
        };
        Self {
            characters: embedding(characters),
            positions: embedding(CONTEXT),
            blocks: TransformerEncoderConfig::new(size.width, 4 * size.width, size.heads, size.layers)
                .with_dropout(0.0)
                .with_norm_first(true)
                .init(device),
            norm: nn::LayerNormConfig::new(size.width).init(device),
            lm_head: nn::LinearConfig::new(size.width, characters).with_bias(false).init(device),
        }
    }

    /// Characters `[batch, tokens]` to the logits of the next ones, `[batch, tokens, characters]`.
    pub fn forward(&self, characters: Tensor<2, Int>) -> Tensor<3> {
        let x = self.blocks.forward(self.input(characters));
        self.lm_head.forward(self.norm.forward(x))
    }

    /// The logits of the character after the last, `[batch, characters]`; all but the last have been seen by the cache.
    pub fn next(&self, characters: Tensor<2, Int>, cache: &mut TransformerEncoderAutoregressiveCache) -> Tensor<2> {
        let [_, tokens] = characters.dims();
        let x = self.blocks.forward_autoregressive_inference(self.input(characters), cache);
        let last = x.narrow(1, tokens - 1, 1);
        self.lm_head.forward(self.norm.forward(last)).squeeze_dim(1)
    }

    /// A cache of no characters.
    pub fn cache(&self) -> TransformerEncoderAutoregressiveCache {
        self.blocks.new_autoregressive_cache()
    }

    fn input(&self, characters: Tensor<2, Int>) -> TransformerEncoderInput {
        let ([batch, tokens], device) = (characters.dims(), characters.device());
        let positions = Tensor::arange(0..tokens as i64, &device).reshape([1, tokens]);
        let x = self.characters.forward(characters) + self.positions.forward(positions);
        TransformerEncoderInput::new(x).mask_attn(generate_autoregressive_mask(batch, tokens, &device))
    }
}
