//! burn's transformer encoder of quantized layers.

use burn::module::Module;
use burn::tensor::{Bool, Device, Tensor};
use burn_nn::activation::ActivationConfig;
use burn_nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderLayer};
use burn_nn::{Dropout, Initializer};

use super::QuantPositionWiseFeedForward;
use crate::QuantLayerNorm;
use crate::attention::{MhaCache, MhaInput, QuantMultiHeadAttention, TensorCache};
use burn_quant_core::error::QuantError;

layer_config! {
    QuantTransformerEncoderConfig = TransformerEncoderConfig => QuantTransformerEncoder (device);
    new(d_model: usize, d_ff: usize, n_heads: usize, n_layers: usize);
    /// Sets the rate of dropout.
    with_dropout(dropout: f64);
    /// Sets whether a norm comes before its block instead of after it.
    with_norm_first(norm_first: bool);
    /// Sets whether a head may attend to nothing.
    with_quiet_softmax(quiet_softmax: bool);
    /// Sets how the parameters begin.
    with_initializer(initializer: Initializer);
    /// Sets the function inside the feed-forward networks.
    with_activation(activation: ActivationConfig);
    /// Sets the number that keeps the denominator of a norm from zero.
    with_layer_norm_eps(layer_norm_eps: f64);
}

/// burn's [`TransformerEncoder`] of quantized layers.
///
/// # Shapes
///
/// Input and output `[batch, tokens, d_model]`.
#[derive(Module, Debug)]
pub struct QuantTransformerEncoder {
    /// The layers.
    pub layers: Vec<QuantTransformerEncoderLayer>,
    /// Features of the model.
    pub d_model: usize,
    /// Features inside the feed-forward networks.
    pub d_ff: usize,
    /// Heads.
    pub n_heads: usize,
    /// Layers.
    pub n_layers: usize,
    /// Rate of dropout.
    pub dropout: f64,
    /// Whether a norm comes before its block instead of after it.
    pub norm_first: bool,
    /// Whether a head may attend to nothing.
    pub quiet_softmax: bool,
}

/// The inputs of [`QuantTransformerEncoder`].
#[derive(Debug)]
pub struct TransformerEncoderInput {
    tensor: Tensor<3>,
    mask_pad: Option<Tensor<2, Bool>>,
    mask_attn: Option<Tensor<3, Bool>>,
}

impl TransformerEncoderInput {
    /// Takes a tensor `[batch, tokens, d_model]`.
    ///
    /// Without masks every token sees every other.
    pub fn new(tensor: Tensor<3>) -> Self {
        Self { tensor, mask_pad: None, mask_attn: None }
    }

    /// Hides tokens, `[batch, tokens]`.
    ///
    /// True hides.
    pub fn mask_pad(mut self, mask_pad: Tensor<2, Bool>) -> Self {
        self.mask_pad = Some(mask_pad);
        self
    }

    /// Hides tokens from each other, `[batch, tokens, tokens]`.
    ///
    /// True hides.
    pub fn mask_attn(mut self, mask_attn: Tensor<3, Bool>) -> Self {
        self.mask_attn = Some(mask_attn);
        self
    }
}

impl QuantTransformerEncoder {
    /// Applies the encoder with its quantizers.
    ///
    /// Shapes are those of burn's layer; a disabled quantizer is the identity.
    pub fn forward(&self, input: TransformerEncoderInput) -> Tensor<3> {
        self.layers
            .iter()
            .fold(input.tensor, |x, layer| layer.forward(x, input.mask_pad.clone(), input.mask_attn.clone()))
    }

    /// Applies the encoder to tokens that come one by one.
    ///
    /// The outputs are those of all tokens so far.
    ///
    /// # Panics
    ///
    /// If the cache is that of an encoder with another number of layers.
    pub fn forward_autoregressive_inference(
        &self,
        input: TransformerEncoderInput,
        cache: &mut TransformerEncoderAutoregressiveCache,
    ) -> Tensor<3> {
        super::assert_layers(self.layers.len(), cache.layers.len());
        self.layers.iter().zip(&mut cache.layers).fold(input.tensor, |x, (layer, cache)| {
            layer.forward_autoregressive_inference(x, input.mask_pad.clone(), input.mask_attn.clone(), cache)
        })
    }

    /// Creates a cache of no tokens.
    ///
    /// One cache serves one sequence.
    pub fn new_autoregressive_cache(&self) -> TransformerEncoderAutoregressiveCache {
        let layers = self.layers.iter().map(|_| TransformerEncoderLayerAutoregressiveCache::empty());
        TransformerEncoderAutoregressiveCache { layers: layers.collect() }
    }

    /// Creates a cache of no tokens that keeps keys and values as codes, in the formats of their quantizers.
    ///
    /// See [`MhaCache::packed`](crate::attention::MhaCache::packed).
    ///
    /// # Errors
    ///
    /// [`QuantError::NotCached`] with the first layer of which a quantizer of keys or values has no packed form, or is
    /// off.
    pub fn new_packed_autoregressive_cache(&self) -> Result<TransformerEncoderAutoregressiveCache, QuantError> {
        let cache = |(i, layer): (usize, &QuantTransformerEncoderLayer)| {
            let cache = TransformerEncoderLayerAutoregressiveCache::empty();
            let mha = cache.mha.packed(&layer.mha).map_err(|error| error.in_layer(&format!("layers.{i}.mha")))?;
            Ok(TransformerEncoderLayerAutoregressiveCache { mha, ..cache })
        };
        let layers = self.layers.iter().enumerate().map(cache).collect::<Result<_, QuantError>>()?;
        Ok(TransformerEncoderAutoregressiveCache { layers })
    }

    /// Returns burn's encoder, which computes the same.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotBurn`] if an activation quantizer is enabled, which burn's layer lacks.
    pub fn to_burn(&self) -> Result<TransformerEncoder, QuantError> {
        Ok(TransformerEncoder {
            layers: self.layers.iter().map(QuantTransformerEncoderLayer::to_burn).collect::<Result<_, _>>()?,
            d_model: self.d_model,
            d_ff: self.d_ff,
            n_heads: self.n_heads,
            n_layers: self.n_layers,
            dropout: self.dropout,
            norm_first: self.norm_first,
            quiet_softmax: self.quiet_softmax,
        })
    }
}

impl From<TransformerEncoder> for QuantTransformerEncoder {
    fn from(encoder: TransformerEncoder) -> Self {
        Self {
            layers: encoder.layers.into_iter().map(Into::into).collect(),
            d_model: encoder.d_model,
            d_ff: encoder.d_ff,
            n_heads: encoder.n_heads,
            n_layers: encoder.n_layers,
            dropout: encoder.dropout,
            norm_first: encoder.norm_first,
            quiet_softmax: encoder.quiet_softmax,
        }
    }
}

/// A layer of [`QuantTransformerEncoder`].
#[derive(Module, Debug)]
pub struct QuantTransformerEncoderLayer {
    /// Attention.
    pub mha: QuantMultiHeadAttention,
    /// Feed-forward network.
    pub pwff: QuantPositionWiseFeedForward,
    /// The norm of the feed-forward network if norms come first, else of the attention.
    pub norm_1: QuantLayerNorm,
    /// The norm of the attention if norms come first, else of the feed-forward network.
    pub norm_2: QuantLayerNorm,
    /// Dropout of what is added.
    pub dropout: Dropout,
    /// Whether a norm comes before its block instead of after it.
    pub norm_first: bool,
}

impl QuantTransformerEncoderLayer {
    /// Creates a layer with fresh parameters and disabled activation quantizers.
    ///
    /// It computes what burn's layer does until rules enable its quantizers.
    pub fn new(config: &QuantTransformerEncoderConfig, device: &Device) -> Self {
        TransformerEncoderLayer::new(&config.clone().into(), device).into()
    }

    /// Applies the layer with its quantizers.
    ///
    /// Shapes are those of burn's layer; a disabled quantizer is the identity.
    pub fn forward(
        &self,
        input: Tensor<3>,
        mask_pad: Option<Tensor<2, Bool>>,
        mask_attn: Option<Tensor<3, Bool>>,
    ) -> Tensor<3> {
        let attend = |x| self.mha.forward(MhaInput::self_attn(x).masked(mask_pad, mask_attn)).context;
        self.blocks(input, attend, |x| self.pwff.forward(x), |x| self.norm_1.forward(x), |x| self.norm_2.forward(x))
    }

    /// Applies the layer to tokens that come one by one.
    ///
    /// The cache holds what earlier tokens need.
    pub fn forward_autoregressive_inference(
        &self,
        input: Tensor<3>,
        mask_pad: Option<Tensor<2, Bool>>,
        mask_attn: Option<Tensor<3, Bool>>,
        cache: &mut TransformerEncoderLayerAutoregressiveCache,
    ) -> Tensor<3> {
        let TransformerEncoderLayerAutoregressiveCache { mha, pwff, norm_1, norm_2 } = cache;
        self.blocks(
            input,
            |x| self.mha.forward_cache(MhaInput::self_attn(x).masked(mask_pad, mask_attn), mha).context,
            |x| pwff.extend(x, 1, |x| self.pwff.forward(x)),
            |x| norm_1.extend(x, 1, |x| self.norm_1.forward(x)),
            |x| norm_2.extend(x, 1, |x| self.norm_2.forward(x)),
        )
    }

    /// How the blocks follow each other.
    fn blocks(
        &self,
        x: Tensor<3>,
        attend: impl FnOnce(Tensor<3>) -> Tensor<3>,
        feed_forward: impl FnOnce(Tensor<3>) -> Tensor<3>,
        norm_1: impl FnOnce(Tensor<3>) -> Tensor<3>,
        norm_2: impl FnOnce(Tensor<3>) -> Tensor<3>,
    ) -> Tensor<3> {
        if self.norm_first {
            let x = x.clone() + self.dropout.forward(attend(norm_2(x)));
            x.clone() + self.dropout.forward(feed_forward(norm_1(x)))
        } else {
            let x = norm_1(x.clone() + self.dropout.forward(attend(x)));
            norm_2(x.clone() + self.dropout.forward(feed_forward(x)))
        }
    }

    /// Returns burn's layer, which computes the same.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotBurn`] if an activation quantizer is enabled, which burn's layer lacks.
    pub fn to_burn(&self) -> Result<TransformerEncoderLayer, QuantError> {
        Ok(TransformerEncoderLayer {
            mha: self.mha.to_burn()?,
            pwff: self.pwff.to_burn()?,
            norm_1: self.norm_1.to_burn()?,
            norm_2: self.norm_2.to_burn()?,
            dropout: self.dropout.clone(),
            norm_first: self.norm_first,
        })
    }
}

impl From<TransformerEncoderLayer> for QuantTransformerEncoderLayer {
    fn from(layer: TransformerEncoderLayer) -> Self {
        Self {
            mha: layer.mha.into(),
            pwff: layer.pwff.into(),
            norm_1: layer.norm_1.into(),
            norm_2: layer.norm_2.into(),
            dropout: layer.dropout,
            norm_first: layer.norm_first,
        }
    }
}

/// What a [`QuantTransformerEncoderLayer`] has computed of the tokens so far.
#[derive(Clone, Debug)]
pub struct TransformerEncoderLayerAutoregressiveCache {
    /// Attention.
    pub mha: MhaCache,
    /// Feed-forward network.
    pub pwff: TensorCache<3>,
    /// First norm.
    pub norm_1: TensorCache<3>,
    /// Second norm.
    pub norm_2: TensorCache<3>,
}

impl TransformerEncoderLayerAutoregressiveCache {
    /// Creates a cache of no tokens.
    ///
    /// One cache serves one sequence.
    pub fn empty() -> Self {
        Self {
            mha: MhaCache::autoregressive(),
            pwff: TensorCache::empty(),
            norm_1: TensorCache::empty(),
            norm_2: TensorCache::empty(),
        }
    }
}

/// What a [`QuantTransformerEncoder`] has computed of the tokens so far.
#[derive(Clone, Debug)]
pub struct TransformerEncoderAutoregressiveCache {
    layers: Vec<TransformerEncoderLayerAutoregressiveCache>,
}
