//! burn's multi-head attention with quantizers.

use burn::module::Module;
use burn::tensor::{Bool, Device, Tensor, assert_shape};
use burn_nn::attention::{MultiHeadAttention, MultiHeadAttentionConfig};
use burn_nn::{Dropout, Gelu, Initializer};

use super::cache::codec;
use super::{TensorCache, attention_weights, join_heads, split_heads};
use crate::QuantLinear;
use burn_quant_core::compress::{PackedTokens, TokenCodec};
use burn_quant_core::error::QuantError;
use burn_quant_core::layout::Role;
use burn_quant_core::quantizer::TensorQuantizer;

layer_config! {
    QuantMultiHeadAttentionConfig = MultiHeadAttentionConfig => QuantMultiHeadAttention (device);
    new(d_model: usize, n_heads: usize);
    /// Sets the rate of dropout.
    with_dropout(dropout: f64);
    /// Sets the score of what is masked.
    with_min_float(min_float: f64);
    /// Sets whether a head may attend to nothing.
    with_quiet_softmax(quiet_softmax: bool);
    /// Sets how the parameters begin.
    with_initializer(initializer: Initializer);
    /// Sets whether the projection of keys has a bias.
    with_key_bias(key_bias: bool);
    /// Sets whether the projection of values has a bias.
    with_value_bias(value_bias: bool);
    /// Sets whether the projection of queries has a bias.
    with_query_bias(query_bias: bool);
    /// Sets whether the projection of the output has a bias.
    with_output_bias(output_bias: bool);
}

/// burn's [`MultiHeadAttention`] with quantized projections and products.
///
/// ```text
/// p = softmax( q_bmm(q) · k_bmm(k)ᵀ / √d_k + mask )      context = output( dropout(p_bmm(p)) · v_bmm(v) )
/// ```
///
/// The quantizers of the products are off until a rule names them: `*[qkv]_bmm_quantizer`, `*p_bmm_quantizer`, or
/// the keys and values alone, `*[kv]_bmm_quantizer`, which is a quantized cache. Channels and blocks lie along the
/// features of a head, and for `p` along the keys.
#[derive(Module, Debug)]
pub struct QuantMultiHeadAttention {
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
    /// Not used; burn's layer has it.
    pub activation: Gelu,
    /// Features of the model.
    pub d_model: usize,
    /// Heads.
    pub n_heads: usize,
    /// Features of a head.
    pub d_k: usize,
    /// Score of what is masked.
    pub min_float: f64,
    /// Whether a head may attend to nothing.
    pub quiet_softmax: bool,
    /// Quantizes queries `[batch, tokens, heads, d_k]`; disabled in a new layer.
    pub q_bmm_quantizer: TensorQuantizer,
    /// Quantizes keys, in the shape of queries; disabled in a new layer.
    pub k_bmm_quantizer: TensorQuantizer,
    /// Quantizes values, in the shape of queries; disabled in a new layer.
    pub v_bmm_quantizer: TensorQuantizer,
    /// Quantizes weights `[batch, heads, queries, keys]`; disabled in a new layer.
    pub p_bmm_quantizer: TensorQuantizer,
}

/// The inputs of [`QuantMultiHeadAttention`].
#[derive(Debug, Clone)]
pub struct MhaInput {
    query: Tensor<3>,
    key: Tensor<3>,
    value: Tensor<3>,
    mask_pad: Option<Tensor<2, Bool>>,
    mask_attn: Option<Tensor<3, Bool>>,
}

impl MhaInput {
    /// Takes one tensor `[batch, tokens, d_model]` as queries, keys and values.
    ///
    /// For attention of a sequence to itself.
    pub fn self_attn(tensor: Tensor<3>) -> Self {
        Self::new(tensor.clone(), tensor.clone(), tensor)
    }

    /// Takes queries `[batch, queries, d_model]`, and keys and values `[batch, keys, d_model]`.
    ///
    /// Keys and values have the same number of tokens.
    pub fn new(query: Tensor<3>, key: Tensor<3>, value: Tensor<3>) -> Self {
        Self { query, key, value, mask_pad: None, mask_attn: None }
    }

    /// Hides keys, `[batch, keys]`.
    ///
    /// True hides: padding after the end of a sequence.
    pub fn mask_pad(mut self, mask_pad: Tensor<2, Bool>) -> Self {
        self.mask_pad = Some(mask_pad);
        self
    }

    /// Hides keys from queries, `[batch, queries, keys]`.
    ///
    /// True hides: a causal mask for tokens that follow.
    pub fn mask_attn(mut self, mask_attn: Tensor<3, Bool>) -> Self {
        self.mask_attn = Some(mask_attn);
        self
    }

    /// The same with masks that may be absent.
    pub(crate) fn masked(self, pad: Option<Tensor<2, Bool>>, attn: Option<Tensor<3, Bool>>) -> Self {
        Self { mask_pad: pad, mask_attn: attn, ..self }
    }
}

/// The outputs of [`QuantMultiHeadAttention`].
#[derive(Debug, Clone)]
pub struct MhaOutput {
    /// The weights `[batch, heads, queries, keys]`, quantized and after dropout.
    pub weights: Tensor<4>,
    /// The context `[batch, queries, d_model]`.
    pub context: Tensor<3>,
}

impl QuantMultiHeadAttention {
    /// Attention with quantizers.
    ///
    /// # Panics
    ///
    /// If the last axis of an input is not `d_model`, or batches or lengths do not fit.
    pub fn forward(&self, input: MhaInput) -> MhaOutput {
        self.check(&input);
        let query = self.project(input.query, &self.query, &self.q_bmm_quantizer);
        let key = self.project(input.key, &self.key, &self.k_bmm_quantizer);
        let value = self.project(input.value, &self.value, &self.v_bmm_quantizer);
        let (weights, context) = self.attend(query, key, value, input.mask_pad, input.mask_attn);
        MhaOutput { weights, context: self.output.forward(context) }
    }

    /// The same for tokens that come one by one: of inputs that are longer than before, the last token is new.
    ///
    /// Keys and values are kept as they were quantized. Outputs are those of all tokens so far.
    ///
    /// # Panics
    ///
    /// As [`forward`](QuantMultiHeadAttention::forward).
    pub fn forward_cache(&self, input: MhaInput, cache: &mut MhaCache) -> MhaOutput {
        self.check(&input);
        let query = cache.query.forward(input.query, 2, |x| self.project(x, &self.query, &self.q_bmm_quantizer));
        let key = self.cached(input.key, &self.key, &self.k_bmm_quantizer, &mut cache.key);
        let value = self.cached(input.value, &self.value, &self.v_bmm_quantizer, &mut cache.value);
        let (weights, context) = self.attend(query, key, value, input.mask_pad, input.mask_attn);
        let context = cache.output.forward(context, 1, |x| self.output.forward(x));
        MhaOutput { weights, context }
    }

    /// Keys or values of all tokens, quantized: from floats, or from codes.
    fn cached(
        &self,
        x: Tensor<3>,
        layer: &QuantLinear,
        quantizer: &TensorQuantizer,
        cache: &mut Cache<4>,
    ) -> Tensor<4> {
        let heads = |x: Tensor<3>| split_heads(layer.forward(x), self.n_heads).swap_dims(1, 2);
        match cache {
            Cache::Packed(cache) => cache.extend(x, heads),
            cache => cache.forward(x, 2, |x| self.project(x, layer, quantizer)),
        }
    }

    fn check(&self, input: &MhaInput) {
        let ([batch, _, _], [_, keys, _]) = (input.query.dims(), input.key.dims());
        assert_shape!(input.query, [_, _, self.d_model]);
        assert_shape!(input.key, [batch, _, self.d_model]);
        assert_shape!(input.value, [batch, keys, self.d_model]);
    }

    /// `[batch, tokens, d_model]` to `[batch, heads, tokens, d_k]`, quantized.
    fn project(&self, x: Tensor<3>, layer: &QuantLinear, quantizer: &TensorQuantizer) -> Tensor<4> {
        quantizer.forward(split_heads(layer.forward(x), self.n_heads)).swap_dims(1, 2)
    }

    fn attend(
        &self,
        query: Tensor<4>,
        key: Tensor<4>,
        value: Tensor<4>,
        mask_pad: Option<Tensor<2, Bool>>,
        mask_attn: Option<Tensor<3, Bool>>,
    ) -> (Tensor<4>, Tensor<3>) {
        let mut scores = query.matmul(key.transpose()).div_scalar((self.d_k as f32).sqrt());
        if let Some(mask) = mask_pad {
            let [batch, keys] = mask.dims();
            scores = scores.mask_fill(mask.reshape([batch, 1, 1, keys]), self.min_float);
        }
        if let Some(mask) = mask_attn {
            let [batch, queries, keys] = mask.dims();
            scores = scores.mask_fill(mask.reshape([batch, 1, queries, keys]), self.min_float);
        }
        let weights = self.p_bmm_quantizer.forward(attention_weights(scores, self.quiet_softmax));
        let weights = self.dropout.forward(weights);
        let context = join_heads(weights.clone().matmul(value));
        (weights, context)
    }

    /// Returns burn's layer, which computes the same; with the weights' quantizers if they have some.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotBurn`] if an activation quantizer is enabled, which burn's layer lacks.
    pub fn to_burn(&self) -> Result<MultiHeadAttention, QuantError> {
        let quantizers = [&self.q_bmm_quantizer, &self.k_bmm_quantizer, &self.v_bmm_quantizer, &self.p_bmm_quantizer];
        for (quantizer, name) in quantizers.into_iter().zip(["q", "k", "v", "p"]) {
            quantizer.refuse(&format!("{name}_bmm_quantizer"))?;
        }
        Ok(MultiHeadAttention {
            query: self.query.to_burn()?,
            key: self.key.to_burn()?,
            value: self.value.to_burn()?,
            output: self.output.to_burn()?,
            dropout: self.dropout.clone(),
            activation: self.activation.clone(),
            d_model: self.d_model,
            n_heads: self.n_heads,
            d_k: self.d_k,
            min_float: self.min_float,
            quiet_softmax: self.quiet_softmax,
        })
    }
}

impl From<MultiHeadAttention> for QuantMultiHeadAttention {
    fn from(layer: MultiHeadAttention) -> Self {
        let off = || TensorQuantizer::disabled(Role::ChannelsLast);
        Self {
            query: layer.query.into(),
            key: layer.key.into(),
            value: layer.value.into(),
            output: layer.output.into(),
            dropout: layer.dropout,
            activation: layer.activation,
            d_model: layer.d_model,
            n_heads: layer.n_heads,
            d_k: layer.d_k,
            min_float: layer.min_float,
            quiet_softmax: layer.quiet_softmax,
            q_bmm_quantizer: off(),
            k_bmm_quantizer: off(),
            v_bmm_quantizer: off(),
            p_bmm_quantizer: off(),
        }
    }
}

/// What [`QuantMultiHeadAttention`] has computed of the tokens so far, as it was quantized.
#[derive(Clone, Debug)]
pub struct MhaCache {
    query: Cache<4>,
    key: Cache<4>,
    value: Cache<4>,
    output: Cache<3>,
}

#[derive(Clone, Debug)]
enum Cache<const D: usize> {
    Growing(TensorCache<D>),
    Fixed(TensorCache<D>),
    Packed(Box<PackedCache>),
}

impl<const D: usize> Cache<D> {
    fn growing() -> Self {
        Self::Growing(TensorCache::empty())
    }

    fn fixed() -> Self {
        Self::Fixed(TensorCache::empty())
    }

    fn forward(&mut self, x: Tensor<3>, axis: usize, f: impl FnOnce(Tensor<3>) -> Tensor<D>) -> Tensor<D> {
        match self {
            Self::Growing(cache) => cache.extend(x, axis, f),
            Self::Fixed(cache) => cache.once(x, f),
            Self::Packed(_) => unreachable!("keys and values alone are packed"),
        }
    }

    /// The same, packed.
    fn packed(self, quantizer: &TensorQuantizer, tokens: &'static str) -> Result<Self, QuantError> {
        let grows = match &self {
            Self::Growing(_) => true,
            Self::Fixed(_) => false,
            Self::Packed(cache) => cache.grows,
        };
        Ok(Self::Packed(Box::new(PackedCache { codec: codec(quantizer, tokens)?, tokens: None, grows })))
    }
}

/// Keys or values as codes.
#[derive(Clone, Debug)]
struct PackedCache {
    codec: TokenCodec,
    tokens: Option<PackedTokens>,
    /// Whether every call adds its last token; otherwise the first call has all.
    grows: bool,
}

impl PackedCache {
    fn extend(&mut self, x: Tensor<3>, heads: impl FnOnce(Tensor<3>) -> Tensor<4>) -> Tensor<4> {
        match &mut self.tokens {
            none @ None => none.insert(self.codec.pack(heads(x))).unpack(),
            Some(tokens) => {
                if self.grows {
                    let [_, length, _] = x.dims();
                    tokens.extend(self.codec.pack(heads(x.narrow(1, length - 1, 1))));
                }
                tokens.unpack()
            }
        }
    }
}

impl MhaCache {
    /// Creates a cache for attention of tokens to those before them.
    ///
    /// Keys and values grow with every call.
    pub fn autoregressive() -> Self {
        Self { query: Cache::growing(), key: Cache::growing(), value: Cache::growing(), output: Cache::growing() }
    }

    /// Creates a cache for attention of tokens to a memory that stays the same.
    ///
    /// Keys and values of the memory are computed once.
    pub fn autoregressive_cross_attention() -> Self {
        Self { key: Cache::fixed(), value: Cache::fixed(), ..Self::autoregressive() }
    }

    /// Keeps keys and values as codes and scales, in the formats of the layer's quantizers: a new cache for this layer.
    ///
    /// Outputs are those of a cache in floats, as for [`KvCache`](super::KvCache); queries and outputs, which burn's
    /// layer keeps too, stay in floats.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotCached`] with the reason of [`TokenCodec::of`], for instance if `k_bmm_quantizer` or
    /// `v_bmm_quantizer` is off.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "flex")] fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use burn::tensor::{Device, Distribution, Tensor};
    /// use burn_quant::nn::attention::{MhaCache, MhaInput, MultiHeadAttentionConfig};
    /// use burn_quant::{QuantConfig, QuantizerConfig, Rule, quantize};
    ///
    /// let layer = MultiHeadAttentionConfig::new(16, 2).with_dropout(0.0).init(&Device::flex());
    /// let rule = Rule::set("*[kv]_bmm_quantizer", QuantizerConfig::int(8).per_token().dynamic());
    /// let x = Tensor::random([1, 3, 16], Distribution::Normal(0.0, 1.0), &Device::flex());
    /// let weights = Rule::set("*weight_quantizer", QuantizerConfig::int(8));
    /// let config = QuantConfig::new().with_rule(weights).with_rule(rule);
    /// let (layer, _) = quantize(layer, &config, |layer| drop(layer.forward(MhaInput::self_attn(x.clone()))))?;
    /// let (mut floats, mut codes) = (MhaCache::autoregressive(), MhaCache::autoregressive().packed(&layer)?);
    /// for tokens in 1..=3 {
    ///     let input = MhaInput::self_attn(x.clone().narrow(1, 0, tokens));
    ///     let expected = layer.forward_cache(input.clone(), &mut floats).context;
    ///     assert_eq!(layer.forward_cache(input, &mut codes).context.to_data(), expected.to_data());
    /// }
    /// assert_eq!((floats.bytes_per_token(), codes.bytes_per_token()), (128, 48)); // keys and values
    /// # Ok(()) }
    /// # #[cfg(not(feature = "flex"))] fn main() {}
    /// ```
    pub fn packed(self, layer: &QuantMultiHeadAttention) -> Result<Self, QuantError> {
        let key = self.key.packed(&layer.k_bmm_quantizer, "keys")?;
        let value = self.value.packed(&layer.v_bmm_quantizer, "values")?;
        Ok(Self { key, value, query: Cache::growing(), output: Cache::growing() })
    }

    /// Returns the bytes that keys and values of a token take.
    ///
    /// 0 for a new cache.
    pub fn bytes_per_token(&self) -> usize {
        let bytes = |cache: &Cache<4>| match cache {
            Cache::Growing(cache) | Cache::Fixed(cache) => cache.get().map_or(0, |x| {
                let [_, heads, _, features] = x.dims();
                heads * features * x.dtype().size()
            }),
            Cache::Packed(cache) => cache.tokens.as_ref().map_or(0, PackedTokens::bytes_per_token),
        };
        bytes(&self.key) + bytes(&self.value)
    }
}
