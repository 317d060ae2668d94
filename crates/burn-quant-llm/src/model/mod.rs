//! The decoder: embedding, layers of attention and feed-forward, norm, head.
//!
//! * `attention` attention with shared keys and values, rotary positions and a cache
//! * `mlp` gated feed-forward layers, one or a mixture of experts
//! * `part` one layer, or what comes before and after all of them, under the names of the whole

mod attention;
mod mlp;
mod part;

pub use attention::Attention;
pub use mlp::{Expert, Mlp};
pub use part::{DecoderPart, DecoderParts, PartPlace};

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{DType, Device, Int, Tensor};
use burn_quant::QuantError;
use burn_quant::nn::attention::KvCache;
use burn_quant::nn::{
    QuantEmbedding, QuantEmbeddingConfig, QuantLinear, QuantLinearConfig, QuantRmsNorm, RmsNormConfig,
};

use crate::config::DecoderConfig;
use crate::rope::Rotation;

/// The table of embeddings, in decoders and files.
pub(crate) const TABLE: &str = "model.embed_tokens";
/// The last norm.
pub(crate) const NORM: &str = "model.norm";
/// The head.
pub(crate) const HEAD: &str = "lm_head";

/// A decoder: tokens to the logits of the next ones.
///
/// Its layers are those of `burn_quant::nn`, under the names that checkpoints have:
/// `model.layers.0.self_attn.q_proj.weight_quantizer`. So every rule, recipe and preset of `burn-quant` applies.
#[derive(Module, Debug)]
pub struct Decoder {
    /// All but the head.
    pub model: Body,
    /// The head, unless it is the table of embeddings.
    pub lm_head: Option<QuantLinear>,
    #[module(skip)]
    config: Arc<DecoderConfig>,
}

/// All of a decoder but its head.
#[derive(Module, Debug)]
pub struct Body {
    /// The table of embeddings.
    pub embed_tokens: QuantEmbedding,
    /// The layers.
    pub layers: Vec<Layer>,
    /// The last norm.
    pub norm: QuantRmsNorm,
}

/// A layer: attention, then feed-forward, each after a norm and beside what comes in.
#[derive(Module, Debug)]
pub struct Layer {
    /// The norm before attention.
    pub input_layernorm: QuantRmsNorm,
    /// Attention.
    pub self_attn: Attention,
    /// The norm before feed-forward.
    pub post_attention_layernorm: QuantRmsNorm,
    /// Feed-forward.
    pub mlp: Mlp,
}

/// Keys and values of the tokens so far, of all layers.
#[derive(Clone, Debug)]
pub struct Cache(Vec<KvCache>);

impl Cache {
    /// Returns the number of tokens in it.
    ///
    /// 0 for a new one.
    pub fn tokens(&self) -> usize {
        self.0.first().map_or(0, KvCache::tokens)
    }

    /// Returns the bytes that a token takes, all layers together.
    ///
    /// 0 for a new one.
    pub fn bytes_per_token(&self) -> usize {
        self.0.iter().map(KvCache::bytes_per_token).sum()
    }
}

impl Decoder {
    /// Creates a decoder with random parameters.
    ///
    /// To load one, see [`Decoder::load`].
    pub fn new(config: DecoderConfig, device: &Device) -> Self {
        let config = Arc::new(config);
        let layers = (0..config.layers).map(|i| Layer::new(&config, i, device)).collect();
        let embed_tokens = QuantEmbeddingConfig::new(config.vocabulary, config.hidden).init(device);
        let head = || QuantLinearConfig::new(config.hidden, config.vocabulary).with_bias(false).init(device);
        Self {
            model: Body { embed_tokens, layers, norm: norm(&config, config.hidden, device) },
            lm_head: (!config.tied).then(head),
            config,
        }
    }

    /// Returns what it is.
    ///
    /// As `config.json` has it.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Returns a cache of no tokens, in floats.
    ///
    /// For one sequence, or one batch of sequences of equal length.
    pub fn cache(&self) -> Cache {
        Cache(vec![KvCache::new(); self.model.layers.len()])
    }

    /// Returns a cache of no tokens that holds keys and values in the formats of their quantizers.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotCached`] with the first layer whose quantizers are off, or of a format that has no packed form.
    pub fn packed_cache(&self) -> Result<Cache, QuantError> {
        let packed = |(i, Layer { self_attn, .. }): (usize, &Layer)| {
            KvCache::packed(&self_attn.k_bmm_quantizer, &self_attn.v_bmm_quantizer)
                .map_err(|error| error.in_layer(&format!("model.layers.{i}.self_attn")))
        };
        self.model.layers.iter().enumerate().map(packed).collect::<Result<_, _>>().map(Cache)
    }

    /// Returns the logits `[batch, tokens, vocabulary]` of what follows each of new tokens `[batch, tokens]`.
    ///
    /// Those before are in the cache, and these are added to it.
    ///
    /// # Panics
    ///
    /// If the cache is that of a decoder with another number of layers.
    pub fn forward(&self, tokens: Tensor<2, Int>, cache: &mut Cache) -> Tensor<3> {
        self.logits(self.hidden(tokens, cache))
    }

    /// Returns the features `[batch, tokens, hidden]` before the head.
    ///
    /// What calibration needs, as a head is rarely quantized.
    ///
    /// # Panics
    ///
    /// As [`Decoder::forward`].
    pub fn hidden(&self, tokens: Tensor<2, Int>, cache: &mut Cache) -> Tensor<3> {
        let (expected, found) = (self.model.layers.len(), cache.0.len());
        assert_eq!(
            found, expected,
            "the cache is for {found} layers, the decoder has {expected}: make one with `Decoder::cache` of this one"
        );
        let (config, device) = (&*self.config, tokens.device());
        let rotation = Rotation::new(config, cache.tokens(), tokens.dims()[1], &device);
        let mut x = embedded(&self.model.embed_tokens, tokens, config);
        for ((i, layer), cache) in self.model.layers.iter().enumerate().zip(&mut cache.0) {
            x = layer.forward(x, config, i, &rotation, cache);
        }
        normed(&self.model.norm, x, config)
    }

    /// Returns the logits of features.
    ///
    /// Shapes are `[batch, tokens, hidden]` and `[batch, tokens, vocabulary]`.
    pub fn logits(&self, hidden: Tensor<3>) -> Tensor<3> {
        match &self.lm_head {
            Some(head) => head.forward(hidden),
            None => self.model.embed_tokens.logits(hidden),
        }
    }

    /// Returns all linear layers with their names, in the order in which they run.
    ///
    /// Routers of experts are among them.
    pub fn linears(&self) -> Vec<(String, &QuantLinear)> {
        let layers = self.model.layers.iter().enumerate().flat_map(|(i, layer)| layer.linears(i));
        layers.chain(self.lm_head.as_ref().map(|head| (HEAD.to_string(), head))).collect()
    }

    /// All linear layers with their names, to be changed.
    pub(crate) fn linears_mut(&mut self) -> Vec<(String, &mut QuantLinear)> {
        let layers = self.model.layers.iter_mut().enumerate().flat_map(|(i, layer)| layer.linears_mut(i));
        layers.chain(self.lm_head.as_mut().map(|head| (HEAD.to_string(), head))).collect()
    }

    /// Returns all norms with their names.
    ///
    /// Those of queries and keys are among them.
    pub fn norms(&self) -> Vec<(String, &QuantRmsNorm)> {
        let layers = self.model.layers.iter().enumerate().flat_map(|(i, layer)| layer.norms(i));
        layers.chain([(NORM.to_string(), &self.model.norm)]).collect()
    }

    /// Gives the decoder a head of its own, with the values of the table of embeddings.
    ///
    /// Then the head can be quantized by itself. Nothing happens if it has one.
    pub fn untied(mut self) -> Self {
        if self.lm_head.is_none() {
            let table = self.model.embed_tokens.weight.base();
            let weight = Param::from_tensor(table.transpose());
            self.lm_head = Some(burn_nn::Linear { weight, bias: None }.into());
        }
        self
    }
}

impl Layer {
    fn new(config: &DecoderConfig, i: usize, device: &Device) -> Self {
        Self {
            input_layernorm: norm(config, config.hidden, device),
            self_attn: Attention::new(config, device),
            post_attention_layernorm: norm(config, config.hidden, device),
            mlp: Mlp::new(config, i, device),
        }
    }

    /// The linear layers of the `i`-th layer with their names.
    fn linears(&self, i: usize) -> Vec<(String, &QuantLinear)> {
        let attention = &self.self_attn;
        let of_attention = [
            ("q_proj", &attention.q_proj),
            ("k_proj", &attention.k_proj),
            ("v_proj", &attention.v_proj),
            ("o_proj", &attention.o_proj),
        ];
        let named = of_attention.into_iter();
        let mut linears: Vec<_> =
            named.map(|(name, linear)| (format!("model.layers.{i}.self_attn.{name}"), linear)).collect();
        linears.extend(self.mlp.linears(&format!("model.layers.{i}.mlp")));
        linears
    }

    /// The linear layers of the `i`-th layer with their names, to be changed.
    fn linears_mut(&mut self, i: usize) -> Vec<(String, &mut QuantLinear)> {
        let attention = &mut self.self_attn;
        let of_attention = [
            ("q_proj", &mut attention.q_proj),
            ("k_proj", &mut attention.k_proj),
            ("v_proj", &mut attention.v_proj),
            ("o_proj", &mut attention.o_proj),
        ];
        let named = of_attention.into_iter();
        let mut linears: Vec<_> =
            named.map(|(name, linear)| (format!("model.layers.{i}.self_attn.{name}"), linear)).collect();
        linears.extend(self.mlp.linears_mut(&format!("model.layers.{i}.mlp")));
        linears
    }

    /// The norms of the `i`-th layer with their names.
    fn norms(&self, i: usize) -> Vec<(String, &QuantRmsNorm)> {
        let named = |name: &str| format!("model.layers.{i}.{name}");
        let mut norms = vec![(named("input_layernorm"), &self.input_layernorm)];
        norms.extend(self.self_attn.q_norm.as_ref().map(|norm| (named("self_attn.q_norm"), norm)));
        norms.extend(self.self_attn.k_norm.as_ref().map(|norm| (named("self_attn.k_norm"), norm)));
        norms.push((named("post_attention_layernorm"), &self.post_attention_layernorm));
        norms
    }

    /// The weights of the norms of the `i`-th layer with their names, to be changed.
    pub(crate) fn norms_mut(&mut self, i: usize) -> Vec<(String, &mut Param<Tensor<1>>)> {
        let named = |name: &str| format!("model.layers.{i}.{name}");
        let mut norms = vec![(named("input_layernorm"), &mut self.input_layernorm.gamma)];
        norms.extend(self.self_attn.q_norm.as_mut().map(|norm| (named("self_attn.q_norm"), &mut norm.gamma)));
        norms.extend(self.self_attn.k_norm.as_mut().map(|norm| (named("self_attn.k_norm"), &mut norm.gamma)));
        norms.push((named("post_attention_layernorm"), &mut self.post_attention_layernorm.gamma));
        norms
    }

    fn forward(
        &self,
        x: Tensor<3>,
        config: &DecoderConfig,
        i: usize,
        rotation: &Rotation,
        cache: &mut KvCache,
    ) -> Tensor<3> {
        let normed_input = normed(&self.input_layernorm, x.clone(), config);
        let x = x + self.self_attn.forward(normed_input, config, config.windows[i], rotation, cache);
        let normed_input = normed(&self.post_attention_layernorm, x.clone(), config);
        x + self.mlp.forward(normed_input, config)
    }
}

/// The features of tokens.
fn embedded(table: &QuantEmbedding, tokens: Tensor<2, Int>, config: &DecoderConfig) -> Tensor<3> {
    let x = table.forward(tokens);
    if config.has_norms_around_one() { x * (config.hidden as f64).sqrt() } else { x }
}

fn norm(config: &DecoderConfig, features: usize, device: &Device) -> QuantRmsNorm {
    RmsNormConfig::new(features).with_epsilon(config.epsilon).init(device)
}

/// `x / rms(x) · γ`, or `· (1 + γ)`, in f32.
fn normed<const D: usize>(norm: &QuantRmsNorm, x: Tensor<D>, config: &DecoderConfig) -> Tensor<D> {
    let dtype = x.dtype();
    match (config.has_norms_around_one(), dtype) {
        (false, DType::F32) => norm.forward(x),
        (around_one, _) => {
            let x = norm.input_quantizer.forward(x).cast(DType::F32);
            let of_ones = x.clone() / (x.square().mean_dim(D - 1) + norm.epsilon).sqrt();
            let gamma = norm.gamma.val();
            let y = match around_one {
                true => (of_ones * (gamma.cast(DType::F32) + 1.0).unsqueeze()).cast(dtype),
                false => of_ones.cast(dtype) * gamma.unsqueeze(),
            };
            norm.output_quantizer.forward(y)
        }
    }
}
