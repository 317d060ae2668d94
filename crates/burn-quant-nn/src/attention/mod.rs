//! burn's attention with quantizers on its projections and on both of its products.
//!
//! * [`QuantMultiHeadAttention`] burn's `MultiHeadAttention`
//! * [`QuantCrossAttention`] burn's `CrossAttention`
//! * [`KvCache`] keys and values of the tokens so far, for attention that is written by hand

mod cache;
mod cross;
mod mha;

pub use cache::{KvCache, TensorCache};
pub use cross::{CrossAttentionCache, QuantCrossAttention, QuantCrossAttentionConfig};
pub use mha::{MhaCache, MhaInput, MhaOutput, QuantMultiHeadAttention, QuantMultiHeadAttentionConfig};

#[doc(no_inline)]
pub use self::{
    QuantCrossAttention as CrossAttention, QuantCrossAttentionConfig as CrossAttentionConfig,
    QuantMultiHeadAttention as MultiHeadAttention, QuantMultiHeadAttentionConfig as MultiHeadAttentionConfig,
};
#[doc(no_inline)]
pub use burn_nn::attention::{GeneratePaddingMask, generate_autoregressive_mask, generate_padding_mask};

use burn::tensor::Tensor;
use burn::tensor::activation::{quiet_softmax, softmax};

/// The weights of scores: over the last axis, with or without the option to attend to nothing.
fn attention_weights(scores: Tensor<4>, quiet: bool) -> Tensor<4> {
    if quiet { quiet_softmax(scores, 3) } else { softmax(scores, 3) }
}

/// `[batch, tokens, heads · d_head]` as `[batch, tokens, heads, d_head]`: what the quantizers of products see.
///
/// Features of a head come last, so channels and blocks lie along them, and a token's range is that of one head. Keys
/// and values of a token are quantized without those of other tokens, unless the range is that of the whole tensor.
fn split_heads(x: Tensor<3>, heads: usize) -> Tensor<4> {
    let [batch, tokens, features] = x.dims();
    x.reshape([batch, tokens, heads, features / heads])
}

/// `[batch, heads, tokens, d_head]` as `[batch, tokens, heads · d_head]`.
fn join_heads(x: Tensor<4>) -> Tensor<3> {
    let [batch, heads, tokens, d_head] = x.dims();
    x.swap_dims(1, 2).reshape([batch, tokens, heads * d_head])
}
