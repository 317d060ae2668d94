//! What has been computed of the tokens so far.

use burn::tensor::Tensor;

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
/// What goes in has been quantized, each token on its own: `k_bmm_quantizer` and `v_bmm_quantizer` act before it, and
/// nothing in it is quantized again. That is the same as quantizing all tokens at once, for every granularity but a
/// dynamic range of the whole tensor, which would change with every token.
///
/// # Shapes
///
/// Keys and values `[batch, heads, tokens, d_head]`.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Tensor};
/// use burn_quant::nn::attention::KvCache;
///
/// let token = Tensor::<4>::ones([1, 2, 1, 8], &Device::flex());
/// let mut cache = KvCache::new();
/// cache.extend(token.clone(), token.clone());
/// let (keys, values) = cache.extend(token.clone(), token);
/// assert_eq!((cache.tokens(), keys.dims(), values.dims()), (2, [1, 2, 2, 8], [1, 2, 2, 8]));
/// # }
/// ```
#[derive(Clone, Debug, Default)]
pub struct KvCache {
    state: Option<(Tensor<4>, Tensor<4>)>,
}

impl KvCache {
    /// Creates a cache of no tokens.
    ///
    /// One cache serves one sequence.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the number of tokens in the cache.
    ///
    /// 0 for a new cache.
    pub fn tokens(&self) -> usize {
        self.state.as_ref().map_or(0, |(keys, _)| keys.dims()[2])
    }

    /// Adds the keys and values of further tokens, and returns all there are.
    ///
    /// All are `[batch, heads, tokens, features]`.
    pub fn extend(&mut self, keys: Tensor<4>, values: Tensor<4>) -> (Tensor<4>, Tensor<4>) {
        let all = match self.state.take() {
            None => (keys, values),
            Some((k, v)) => (Tensor::cat(vec![k, keys], 2), Tensor::cat(vec![v, values], 2)),
        };
        self.state.insert(all).clone()
    }
}
