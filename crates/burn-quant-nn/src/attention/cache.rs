//! What has been computed of the tokens so far.

use burn::tensor::Tensor;
use burn_quant_core::compress::{PackedTokens, TokenCodec};
use burn_quant_core::error::QuantError;
use burn_quant_core::quantizer::TensorQuantizer;
use burn_quant_ops::is_flex;

/// A tensor that grows by one token a step, or is computed once.
#[derive(Clone, Debug, Default)]
pub struct TensorCache<const D: usize> {
    state: Option<Tensor<D>>,
}

impl<const D: usize> TensorCache<D> {
    /// Creates a cache of no tokens.
    ///
    /// One cache serves one sequence.
    pub fn empty() -> Self {
        Self { state: None }
    }

    /// Returns the tensor so far.
    ///
    /// `None` before the first tokens.
    pub fn get(&self) -> Option<&Tensor<D>> {
        self.state.as_ref()
    }

    /// All of `f(tokens)` the first time, later what was there and `f` of the last token, joined along `axis`.
    ///
    /// Shapes: `tokens` `[batch, tokens, features]`.
    pub(crate) fn extend(
        &mut self,
        tokens: Tensor<3>,
        axis: usize,
        f: impl FnOnce(Tensor<3>) -> Tensor<D>,
    ) -> Tensor<D> {
        let all = match self.state.take() {
            None => f(tokens),
            Some(so_far) => {
                let [_, length, _] = tokens.dims();
                Tensor::cat(vec![so_far, f(tokens.narrow(1, length - 1, 1))], axis)
            }
        };
        self.state = Some(all.clone());
        all
    }

    /// `f(tokens)` the first time, and the same tensor ever after.
    pub(crate) fn once(&mut self, tokens: Tensor<3>, f: impl FnOnce(Tensor<3>) -> Tensor<D>) -> Tensor<D> {
        self.state.get_or_insert_with(|| f(tokens)).clone()
    }
}

/// Keys and values of the tokens so far, for attention that is written by hand.
///
/// In floats, or packed: as codes and scales of the formats that `k_bmm_quantizer` and `v_bmm_quantizer` round to,
/// which take a quarter of the memory in INT8 and FP8, and less than a seventh in NVFP4. A packed cache unpacks all
/// tokens when it is asked for them, and returns what one in floats would, so that a model runs with either. Only what
/// is not a number may be lost: codes hold none, so that it becomes zero unless tokens have ranges of their own in f32.
/// Watch a model for NaN with a cache in floats.
///
/// In floats on the CPU there is room for further tokens, half as many as there are, once some were added to the first
/// ones: a token is written, and not all are copied.
///
/// Each token is quantized on its own, once. That is the same as quantizing all tokens at once, for every granularity
/// but a dynamic range of the whole tensor, which would change with every token.
///
/// # Shapes
///
/// Keys and values `[batch, heads, tokens, d_head]`.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::tensor::{Device, Tensor};
/// use burn_quant::QuantizerConfig;
/// use burn_quant::nn::attention::KvCache;
/// use burn_quant::place::Role;
/// use burn_quant::quantizer::TensorQuantizer;
///
/// // fields of a model: `k_bmm_quantizer`, `v_bmm_quantizer`
/// let (k, v) = (QuantizerConfig::e4m3().constant(448.0), QuantizerConfig::int(8).per_token().dynamic());
/// let [k, v] = [k, v].map(|config| TensorQuantizer::new(config, Role::ChannelsLast));
/// let token = Tensor::<4>::full([1, 2, 1, 8], 1.0625, &Device::flex());
/// for mut cache in [KvCache::new(), KvCache::packed(&k, &v)?] {
///     cache.extend_quantized(token.clone(), token.clone(), &k, &v);
///     let (keys, values) = cache.extend_quantized(token.clone(), token.clone(), &k, &v);
///     assert_eq!((cache.tokens(), keys.dims(), values.dims()), (2, [1, 2, 2, 8], [1, 2, 2, 8]));
///     assert_eq!(keys.into_data().try_into_vec::<f32>().unwrap(), [1.0; 32]); // E4M3 has 1 and 1.125
///     println!("{} bytes per token", cache.bytes_per_token()); // 128 in f32, 16 + 24 packed
/// }
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
#[derive(Clone, Debug, Default)]
pub struct KvCache {
    state: State,
}

#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // tensors are handles
enum State {
    Float(Option<[Growing; 2]>),
    Packed(Packed),
}

impl Default for State {
    fn default() -> Self {
        State::Float(None)
    }
}

/// Tokens `[batch, heads, tokens, features]` with room for more: a further one is written, and the others stay where
/// they are.
#[derive(Clone, Debug)]
struct Growing {
    buffer: Tensor<4>,
    tokens: usize,
}

impl Growing {
    /// Without room: a prompt that nothing follows needs none.
    fn new(tokens: Tensor<4>) -> Self {
        Self { tokens: tokens.dims()[2], buffer: tokens }
    }

    fn all(&self) -> Tensor<4> {
        match self.buffer.dims()[2] == self.tokens {
            true => self.buffer.clone(),
            false => self.buffer.clone().narrow(2, 0, self.tokens),
        }
    }

    fn extended(self, more: Tensor<4>) -> Self {
        let tokens = self.tokens + more.dims()[2];
        let [batch, heads, room, features] = self.buffer.dims();
        // elsewhere a graph, of gradients or recorded, keeps every state of a buffer, or writing may be a copy
        let in_place = is_flex(&more.device()) && batch * heads * self.tokens * features > 0;
        if !in_place || more.shape().num_elements() == 0 {
            return Self::new(Tensor::cat(vec![self.all(), more], 2));
        }
        let buffer = match tokens <= room {
            true => self.buffer,
            false => {
                let room = tokens + (tokens / 2).max(LEAST_ROOM);
                let larger = Tensor::zeros([batch, heads, room, features], (&more.device(), more.dtype()));
                larger.slice_assign([0..batch, 0..heads, 0..self.tokens, 0..features], self.all())
            }
        };
        let place = [0..batch, 0..heads, self.tokens..tokens, 0..features];
        Self { buffer: buffer.slice_assign(place, more), tokens }
    }

    fn bytes_per_token(&self) -> usize {
        let [_, heads, _, features] = self.buffer.dims();
        heads * features * self.buffer.dtype().size()
    }
}

/// Tokens for which there is room at least when a buffer grows.
const LEAST_ROOM: usize = 64;

#[derive(Clone, Debug)]
struct Packed {
    codecs: [TokenCodec; 2],
    tokens: Option<[PackedTokens; 2]>,
}

impl KvCache {
    /// Creates a cache of no tokens, in floats.
    ///
    /// One cache serves one sequence, or one batch of them.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a cache of no tokens, in the formats of the quantizers of keys and of values.
    ///
    /// It reads ranges now, and serves until the quantizers are changed. It passes no gradient to the tokens.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotCached`] with the reason of [`TokenCodec::of`], for instance if a quantizer is off.
    pub fn packed(keys: &TensorQuantizer, values: &TensorQuantizer) -> Result<Self, QuantError> {
        let codecs = [codec(keys, "keys")?, codec(values, "values")?];
        Ok(Self { state: State::Packed(Packed { codecs, tokens: None }) })
    }

    /// Returns whether it holds codes.
    ///
    /// Then it quantizes what is added to it.
    pub fn is_packed(&self) -> bool {
        matches!(self.state, State::Packed(_))
    }

    /// Returns the number of tokens in the cache.
    ///
    /// 0 for a new cache.
    pub fn tokens(&self) -> usize {
        match &self.state {
            State::Float(state) => state.as_ref().map_or(0, |[keys, _]| keys.tokens),
            State::Packed(packed) => packed.tokens.as_ref().map_or(0, |[keys, _]| keys.tokens()),
        }
    }

    /// Returns the bytes that a token takes, keys and values of all heads.
    ///
    /// 0 for a new cache.
    pub fn bytes_per_token(&self) -> usize {
        match &self.state {
            State::Float(state) => state.as_ref().map_or(0, |tokens| tokens.iter().map(Growing::bytes_per_token).sum()),
            State::Packed(packed) => {
                packed.tokens.as_ref().map_or(0, |tokens| tokens.iter().map(PackedTokens::bytes_per_token).sum())
            }
        }
    }

    /// Adds the keys and values of further tokens, and returns all there are.
    ///
    /// All are `[batch, heads, tokens, features]`. A cache in floats holds them as they are, after the quantizers; a
    /// packed one quantizes them, and is given what comes before the quantizers. [`KvCache::extend_quantized`] does
    /// what each needs.
    pub fn extend(&mut self, keys: Tensor<4>, values: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        match &mut self.state {
            State::Float(state) => {
                let tokens = match state.take() {
                    None => [Growing::new(keys), Growing::new(values)],
                    Some([k, v]) => [k.extended(keys), v.extended(values)],
                };
                let [keys, values] = state.insert(tokens);
                (keys.all(), values.all())
            }
            State::Packed(packed) => {
                let [k, v] = &packed.codecs;
                let [more_keys, more_values] = [k.pack(keys), v.pack(values)];
                let [keys, values] = match &mut packed.tokens {
                    none @ None => none.insert([more_keys, more_values]),
                    Some(tokens) => {
                        let [keys, values] = &mut *tokens;
                        keys.extend(more_keys);
                        values.extend(more_values);
                        tokens
                    }
                };
                (keys.unpack(), values.unpack())
            }
        }
    }

    /// Adds the keys and values of further tokens, not yet quantized, and returns all there are, quantized.
    ///
    /// `keys` and `values` are rounded by their quantizers, or by the formats of a packed cache, which are theirs.
    pub fn extend_quantized(
        &mut self,
        keys: Tensor<4>,
        values: Tensor<4>,
        key_quantizer: &TensorQuantizer,
        value_quantizer: &TensorQuantizer,
    ) -> (Tensor<4>, Tensor<4>) {
        match self.is_packed() {
            true => self.extend(keys, values),
            false => self.extend(key_quantizer.forward(keys), value_quantizer.forward(values)),
        }
    }
}

/// How keys or values are packed, by their quantizer.
pub(super) fn codec(quantizer: &TensorQuantizer, tokens: &'static str) -> Result<TokenCodec, QuantError> {
    TokenCodec::of(quantizer).map_err(|reason| QuantError::NotCached { layer: String::new(), tokens, reason })
}
