//! burn's transformer decoder of quantized layers.

use burn::module::Module;
use burn::tensor::{Bool, Device, Tensor};
use burn_nn::activation::ActivationConfig;
use burn_nn::transformer::{TransformerDecoder, TransformerDecoderConfig, TransformerDecoderLayer};
use burn_nn::{Dropout, Initializer};

use super::QuantPositionWiseFeedForward;
use crate::QuantLayerNorm;
use crate::attention::{MhaCache, MhaInput, QuantMultiHeadAttention, TensorCache};
use burn_quant_core::error::QuantError;

layer_config! {
    QuantTransformerDecoderConfig = TransformerDecoderConfig => QuantTransformerDecoder (device);
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

/// burn's [`TransformerDecoder`] of quantized layers.
///
/// # Shapes
///
/// Target and output `[batch, tokens, d_model]`, memory `[batch, tokens of the memory, d_model]`.
#[derive(Module, Debug)]
pub struct QuantTransformerDecoder {
    /// The layers.
    pub layers: Vec<QuantTransformerDecoderLayer>,
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

/// The inputs of [`QuantTransformerDecoder`].
#[derive(Debug)]
pub struct TransformerDecoderInput {
    target: Tensor<3>,
    target_mask_pad: Option<Tensor<2, Bool>>,
    target_mask_attn: Option<Tensor<3, Bool>>,
    memory: Tensor<3>,
    memory_mask_pad: Option<Tensor<2, Bool>>,
    memory_mask_attn: Option<Tensor<3, Bool>>,
}

impl TransformerDecoderInput {
    /// Takes a target and the memory that it attends to.
    ///
    /// Both are `[batch, tokens, d_model]`.
    pub fn new(target: Tensor<3>, memory: Tensor<3>) -> Self {
        Self {
            target,
            target_mask_pad: None,
            target_mask_attn: None,
            memory,
            memory_mask_pad: None,
            memory_mask_attn: None,
        }
    }

    /// Hides tokens of the memory, `[batch, tokens of the memory]`.
    ///
    /// True hides.
    pub fn memory_mask_pad(mut self, mask_pad: Tensor<2, Bool>) -> Self {
        self.memory_mask_pad = Some(mask_pad);
        self
    }

    /// Hides tokens of the memory from the target, `[batch, tokens, tokens of the memory]`.
    ///
    /// True hides.
    pub fn memory_mask_attn(mut self, mask_attn: Tensor<3, Bool>) -> Self {
        self.memory_mask_attn = Some(mask_attn);
        self
    }

    /// Hides tokens of the target, `[batch, tokens]`.
    ///
    /// True hides.
    pub fn target_mask_pad(mut self, mask_pad: Tensor<2, Bool>) -> Self {
        self.target_mask_pad = Some(mask_pad);
        self
    }

    /// Hides tokens of the target from each other, `[batch, tokens, tokens]`.
    ///
    /// True hides.
    pub fn target_mask_attn(mut self, mask_attn: Tensor<3, Bool>) -> Self {
        self.target_mask_attn = Some(mask_attn);
        self
    }
}

impl QuantTransformerDecoder {
    /// Applies the decoder with its quantizers.
    ///
    /// Shapes are those of burn's layer; a disabled quantizer is the identity.
    pub fn forward(&self, input: TransformerDecoderInput) -> Tensor<3> {
        self.layers.iter().fold(input, |input, layer| layer.forward(input)).target
    }

    /// Applies the decoder to a target whose tokens come one by one.
    ///
    /// The outputs are those of all tokens so far.
    ///
    /// # Panics
    ///
    /// If the cache is that of a decoder with another number of layers.
    pub fn forward_autoregressive_inference(
        &self,
        input: TransformerDecoderInput,
        cache: &mut TransformerDecoderAutoregressiveCache,
    ) -> Tensor<3> {
        super::assert_layers(self.layers.len(), cache.layers.len());
        let layers = self.layers.iter().zip(&mut cache.layers);
        layers.fold(input, |input, (layer, cache)| layer.forward_autoregressive_inference(input, cache)).target
    }

    /// Creates a cache of no tokens.
    ///
    /// One cache serves one sequence.
    pub fn new_autoregressive_cache(&self) -> TransformerDecoderAutoregressiveCache {
        let layers = self.layers.iter().map(|_| TransformerDecoderLayerAutoregressiveCache::empty());
        TransformerDecoderAutoregressiveCache { layers: layers.collect() }
    }

    /// Creates a cache of no tokens that keeps keys and values as codes, in the formats of their quantizers.
    ///
    /// See [`MhaCache::packed`](crate::attention::MhaCache::packed).
    ///
    /// # Errors
    ///
    /// [`QuantError::NotCached`] with the first layer of which a quantizer of keys or values has no packed form, or is
    /// off.
    pub fn new_packed_autoregressive_cache(&self) -> Result<TransformerDecoderAutoregressiveCache, QuantError> {
        let cache = |(i, layer): (usize, &QuantTransformerDecoderLayer)| {
            let of = |part: &str| format!("layers.{i}.{part}");
            let cache = TransformerDecoderLayerAutoregressiveCache::empty();
            Ok(TransformerDecoderLayerAutoregressiveCache {
                self_attn: cache.self_attn.packed(&layer.self_attn).map_err(|e| e.in_layer(&of("self_attn")))?,
                cross_attn: cache.cross_attn.packed(&layer.cross_attn).map_err(|e| e.in_layer(&of("cross_attn")))?,
                ..cache
            })
        };
        let layers = self.layers.iter().enumerate().map(cache).collect::<Result<_, QuantError>>()?;
        Ok(TransformerDecoderAutoregressiveCache { layers })
    }

    /// Returns burn's decoder, which computes the same.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotBurn`] if an activation quantizer is enabled, which burn's layer lacks.
    pub fn to_burn(&self) -> Result<TransformerDecoder, QuantError> {
        Ok(TransformerDecoder {
            layers: self.layers.iter().map(QuantTransformerDecoderLayer::to_burn).collect::<Result<_, _>>()?,
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

impl From<TransformerDecoder> for QuantTransformerDecoder {
    fn from(decoder: TransformerDecoder) -> Self {
        Self {
            layers: decoder.layers.into_iter().map(Into::into).collect(),
            d_model: decoder.d_model,
            d_ff: decoder.d_ff,
            n_heads: decoder.n_heads,
            n_layers: decoder.n_layers,
            dropout: decoder.dropout,
            norm_first: decoder.norm_first,
            quiet_softmax: decoder.quiet_softmax,
        }
    }
}

/// A layer of [`QuantTransformerDecoder`].
///
/// If norms come first, `norm_3`, `norm_1` and `norm_2` are those of the three blocks, in their order, else `norm_1`,
/// `norm_2` and `norm_3`.
#[derive(Module, Debug)]
pub struct QuantTransformerDecoderLayer {
    /// Attention to the memory: the second block.
    pub cross_attn: QuantMultiHeadAttention,
    /// Attention of the target to itself: the first block.
    pub self_attn: QuantMultiHeadAttention,
    /// Feed-forward network: the third block.
    pub pwff: QuantPositionWiseFeedForward,
    /// First norm.
    pub norm_1: QuantLayerNorm,
    /// Second norm.
    pub norm_2: QuantLayerNorm,
    /// Third norm.
    pub norm_3: QuantLayerNorm,
    /// Dropout of what is added.
    pub dropout: Dropout,
    /// Whether a norm comes before its block instead of after it.
    pub norm_first: bool,
}

impl QuantTransformerDecoderLayer {
    /// Creates a layer with fresh parameters and disabled activation quantizers.
    ///
    /// It computes what burn's layer does until rules enable its quantizers.
    pub fn new(config: &QuantTransformerDecoderConfig, device: &Device) -> Self {
        TransformerDecoderLayer::new(&config.clone().into(), device).into()
    }

    /// Applies the layer with its quantizers, and returns the input with a new target.
    ///
    /// Shapes are those of burn's layer; a disabled quantizer is the identity.
    pub fn forward(&self, input: TransformerDecoderInput) -> TransformerDecoderInput {
        self.blocks(
            input,
            |x| self.self_attn.forward(x).context,
            |x| self.cross_attn.forward(x).context,
            |x| self.pwff.forward(x),
            [&mut |x| self.norm_1.forward(x), &mut |x| self.norm_2.forward(x), &mut |x| self.norm_3.forward(x)],
        )
    }

    /// Applies the layer to a target whose tokens come one by one.
    ///
    /// The cache holds what earlier tokens need.
    pub fn forward_autoregressive_inference(
        &self,
        input: TransformerDecoderInput,
        cache: &mut TransformerDecoderLayerAutoregressiveCache,
    ) -> TransformerDecoderInput {
        let TransformerDecoderLayerAutoregressiveCache { cross_attn, self_attn, pwff, norm_1, norm_2, norm_3 } = cache;
        self.blocks(
            input,
            |x| self.self_attn.forward_cache(x, self_attn).context,
            |x| self.cross_attn.forward_cache(x, cross_attn).context,
            |x| pwff.extend(x, 1, |x| self.pwff.forward(x)),
            [
                &mut |x| norm_1.extend(x, 1, |x| self.norm_1.forward(x)),
                &mut |x| norm_2.extend(x, 1, |x| self.norm_2.forward(x)),
                &mut |x| norm_3.extend(x, 1, |x| self.norm_3.forward(x)),
            ],
        )
    }

    /// How the blocks follow each other.
    fn blocks(
        &self,
        input: TransformerDecoderInput,
        self_attend: impl FnOnce(MhaInput) -> Tensor<3>,
        cross_attend: impl FnOnce(MhaInput) -> Tensor<3>,
        feed_forward: impl FnOnce(Tensor<3>) -> Tensor<3>,
        [norm_1, norm_2, norm_3]: [&mut dyn FnMut(Tensor<3>) -> Tensor<3>; 3],
    ) -> TransformerDecoderInput {
        let (target_pad, target_attn) = (input.target_mask_pad.clone(), input.target_mask_attn.clone());
        let (memory, memory_pad, memory_attn) =
            (input.memory.clone(), input.memory_mask_pad.clone(), input.memory_mask_attn.clone());
        let self_attend = |x| self_attend(MhaInput::self_attn(x).masked(target_pad, target_attn));
        let cross_attend = |x| cross_attend(MhaInput::new(x, memory.clone(), memory).masked(memory_pad, memory_attn));

        let x = input.target;
        let target = if self.norm_first {
            let x = x.clone() + self.dropout.forward(self_attend(norm_3(x)));
            let x = x.clone() + self.dropout.forward(cross_attend(norm_1(x)));
            x.clone() + self.dropout.forward(feed_forward(norm_2(x)))
        } else {
            let x = norm_1(x.clone() + self.dropout.forward(self_attend(x)));
            let x = norm_2(x.clone() + self.dropout.forward(cross_attend(x)));
            norm_3(x.clone() + self.dropout.forward(feed_forward(x)))
        };
        TransformerDecoderInput { target, ..input }
    }

    /// Returns burn's layer, which computes the same.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotBurn`] if an activation quantizer is enabled, which burn's layer lacks.
    pub fn to_burn(&self) -> Result<TransformerDecoderLayer, QuantError> {
        Ok(TransformerDecoderLayer {
            cross_attn: self.cross_attn.to_burn()?,
            self_attn: self.self_attn.to_burn()?,
            pwff: self.pwff.to_burn()?,
            norm_1: self.norm_1.to_burn()?,
            norm_2: self.norm_2.to_burn()?,
            norm_3: self.norm_3.to_burn()?,
            dropout: self.dropout.clone(),
            norm_first: self.norm_first,
        })
    }
}

impl From<TransformerDecoderLayer> for QuantTransformerDecoderLayer {
    fn from(layer: TransformerDecoderLayer) -> Self {
        Self {
            cross_attn: layer.cross_attn.into(),
            self_attn: layer.self_attn.into(),
            pwff: layer.pwff.into(),
            norm_1: layer.norm_1.into(),
            norm_2: layer.norm_2.into(),
            norm_3: layer.norm_3.into(),
            dropout: layer.dropout,
            norm_first: layer.norm_first,
        }
    }
}

/// What a [`QuantTransformerDecoderLayer`] has computed of the tokens so far.
#[derive(Clone, Debug)]
pub struct TransformerDecoderLayerAutoregressiveCache {
    /// Attention to the memory.
    pub cross_attn: MhaCache,
    /// Attention of the target to itself.
    pub self_attn: MhaCache,
    /// Feed-forward network.
    pub pwff: TensorCache<3>,
    /// First norm.
    pub norm_1: TensorCache<3>,
    /// Second norm.
    pub norm_2: TensorCache<3>,
    /// Third norm.
    pub norm_3: TensorCache<3>,
}

impl TransformerDecoderLayerAutoregressiveCache {
    /// Creates a cache of no tokens.
    ///
    /// One cache serves one sequence.
    pub fn empty() -> Self {
        Self {
            cross_attn: MhaCache::autoregressive_cross_attention(),
            self_attn: MhaCache::autoregressive(),
            pwff: TensorCache::empty(),
            norm_1: TensorCache::empty(),
            norm_2: TensorCache::empty(),
            norm_3: TensorCache::empty(),
        }
    }
}

/// What a [`QuantTransformerDecoder`] has computed of the tokens so far.
#[derive(Clone, Debug)]
pub struct TransformerDecoderAutoregressiveCache {
    layers: Vec<TransformerDecoderLayerAutoregressiveCache>,
}
