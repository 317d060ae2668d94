//! burn's cross-attention, with grouped queries, with quantizers.

use burn::module::Module;
use burn::tensor::{Bool, Device, Tensor, assert_shape};
use burn_nn::attention::CrossAttentionConfig;
use burn_nn::{Dropout, DropoutConfig, Initializer, LinearConfig};

use super::{TensorCache, attention_weights, join_heads, split_heads};
use crate::QuantLinear;
use burn_quant_core::layout::Role;
use burn_quant_core::quantizer::TensorQuantizer;

layer_config! {
    @builders QuantCrossAttentionConfig = CrossAttentionConfig => QuantCrossAttention;
    new(d_model: usize, d_context: usize, n_heads: usize, n_heads_kv: usize, d_head: usize);
    /// Sets the rate of dropout.
    with_dropout(dropout: f64);
    /// Sets the score of what is masked.
    with_min_float(min_float: f64);
    /// Sets whether a head may attend to nothing.
    with_quiet_softmax(quiet_softmax: bool);
}

/// burn's `CrossAttention` with quantized projections and products, as in
/// [`QuantMultiHeadAttention`](super::QuantMultiHeadAttention).
///
/// Keys and values are quantized before they are repeated for the queries of their group.
#[derive(Module, Debug)]
pub struct QuantCrossAttention {
    /// Projection of queries.
    pub query: QuantLinear,
    /// Projection of keys.
    pub key: QuantLinear,
    /// Projection of values.
    pub value: QuantLinear,
    /// Projection of the output.
    pub output: QuantLinear,
    /// Dropout of the weights.
    pub dropout: Dropout,
    /// Heads of queries.
    pub n_heads: usize,
    /// Heads of keys and values.
    pub n_heads_kv: usize,
    /// Features of a head.
    pub d_head: usize,
    /// Factor of the scores.
    pub scale: f64,
    /// Score of what is masked.
    pub min_float: f64,
    /// Whether a head may attend to nothing.
    pub quiet_softmax: bool,
    /// Quantizes queries `[batch, tokens, heads, d_head]`; disabled in a new layer.
    pub q_bmm_quantizer: TensorQuantizer,
    /// Quantizes keys `[batch, tokens, heads_kv, d_head]`; disabled in a new layer.
    pub k_bmm_quantizer: TensorQuantizer,
    /// Quantizes values, in the shape of keys; disabled in a new layer.
    pub v_bmm_quantizer: TensorQuantizer,
    /// Quantizes weights `[batch, heads, queries, keys]`; disabled in a new layer.
    pub p_bmm_quantizer: TensorQuantizer,
}

/// Keys and values of a context that stays the same, as they were quantized.
#[derive(Clone, Debug, Default)]
pub struct CrossAttentionCache {
    /// Keys.
    pub k: TensorCache<4>,
    /// Values.
    pub v: TensorCache<4>,
}

impl CrossAttentionCache {
    /// Creates a cache of no tokens.
    ///
    /// One cache serves one sequence.
    pub fn new() -> Self {
        Self::default()
    }
}

impl QuantCrossAttentionConfig {
    /// A layer with fresh parameters and disabled activation quantizers.
    ///
    /// # Panics
    ///
    /// If `n_heads_kv` does not divide `n_heads`.
    pub fn init(&self, device: &Device) -> QuantCrossAttention {
        assert_eq!(self.n_heads % self.n_heads_kv, 0, "Query heads must be divisible by KV heads");
        let initializer = Initializer::KaimingUniform { gain: 1.0 / (self.d_head as f64).sqrt(), fan_out_only: false };
        let linear = |inputs, outputs| -> QuantLinear {
            LinearConfig::new(inputs, outputs).with_initializer(initializer.clone()).init(device).into()
        };
        let off = || TensorQuantizer::disabled(Role::ChannelsLast);
        QuantCrossAttention {
            query: linear(self.d_model, self.n_heads * self.d_head),
            key: linear(self.d_context, self.n_heads_kv * self.d_head),
            value: linear(self.d_context, self.n_heads_kv * self.d_head),
            output: linear(self.n_heads * self.d_head, self.d_model),
            dropout: DropoutConfig::new(self.dropout).init(),
            n_heads: self.n_heads,
            n_heads_kv: self.n_heads_kv,
            d_head: self.d_head,
            scale: (self.d_head as f64).sqrt().recip(),
            min_float: self.min_float,
            quiet_softmax: self.quiet_softmax,
            q_bmm_quantizer: off(),
            k_bmm_quantizer: off(),
            v_bmm_quantizer: off(),
            p_bmm_quantizer: off(),
        }
    }
}

impl QuantCrossAttention {
    /// Attention of `query` `[batch, queries, d_model]` to `context` `[batch, keys, d_context]`; `mask` `[batch, keys]`
    /// hides keys. The output is `[batch, queries, d_model]`.
    ///
    /// # Panics
    ///
    /// If the batches differ.
    pub fn forward(&self, query: Tensor<3>, context: Tensor<3>, mask: Option<Tensor<2, Bool>>) -> Tensor<3> {
        self.forward_cache(query, context, mask, &mut CrossAttentionCache::new())
    }

    /// The same with the keys and values of the first call ever after.
    ///
    /// # Panics
    ///
    /// As [`forward`](QuantCrossAttention::forward).
    pub fn forward_cache(
        &self,
        query: Tensor<3>,
        context: Tensor<3>,
        mask: Option<Tensor<2, Bool>>,
        cache: &mut CrossAttentionCache,
    ) -> Tensor<3> {
        let [batch, _, _] = query.dims();
        assert_shape!(context, [batch, _, _]);
        let query = self.q_bmm_quantizer.forward(split_heads(self.query.forward(query), self.n_heads)).swap_dims(1, 2);
        let key = cache.k.once(context.clone(), |x| self.project(x, &self.key, &self.k_bmm_quantizer));
        let value = cache.v.once(context, |x| self.project(x, &self.value, &self.v_bmm_quantizer));
        let (key, value) = (self.repeated(key), self.repeated(value));
        let keys = key.dims()[2];

        let mut scores = query.matmul(key.transpose()) * self.scale;
        if let Some(mask) = mask {
            scores = scores.mask_fill(mask.reshape([batch, 1, 1, keys]), self.min_float);
        }
        let weights = self.p_bmm_quantizer.forward(attention_weights(scores, self.quiet_softmax));
        self.output.forward(join_heads(self.dropout.forward(weights).matmul(value)))
    }

    fn project(&self, x: Tensor<3>, layer: &QuantLinear, quantizer: &TensorQuantizer) -> Tensor<4> {
        quantizer.forward(split_heads(layer.forward(x), self.n_heads_kv)).swap_dims(1, 2)
    }

    /// Keys or values once for each query of their group.
    fn repeated(&self, x: Tensor<4>) -> Tensor<4> {
        let group = self.n_heads / self.n_heads_kv;
        if group == 1 {
            return x;
        }
        let [batch, heads, tokens, features] = x.dims();
        x.unsqueeze_dim::<5>(2).expand([batch, heads, group, tokens, features]).reshape([
            batch,
            heads * group,
            tokens,
            features,
        ])
    }
}
