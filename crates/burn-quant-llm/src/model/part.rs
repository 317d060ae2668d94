//! Parts of a decoder that are in memory one at a time.
//!
//! ```text
//! tokens ──embeddings──► features ──layer 0──► … ──layer n──► features ──norm and head──► logits
//! ```

use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Device, Int, Tensor};
use burn_quant::nn::attention::KvCache;
use burn_quant::nn::{QuantEmbedding, QuantEmbeddingConfig, QuantLinear, QuantLinearConfig, QuantRmsNorm};

use super::{Body, Decoder, HEAD, Layer, NORM, embedded, norm, normed};
use crate::LlmError;
use crate::config::DecoderConfig;
use crate::rope::Rotation;

/// A part of a decoder, whose parameters and quantizers have the names that they have in the whole.
///
/// So rules, records and files are those of the decoder. [`DecoderPart::load`] reads one from a folder, and
/// [`Decoder::of_parts`] puts all of them together.
#[derive(Module, Debug)]
pub struct DecoderPart {
    model: BodyPart,
    lm_head: Option<QuantLinear>,
    #[module(skip)]
    config: Arc<DecoderConfig>,
    #[module(skip)]
    place: PartPlace,
}

/// As [`Body`] is; what belongs to other parts is left out.
#[derive(Module, Debug)]
struct BodyPart {
    embed_tokens: Option<QuantEmbedding>,
    layers: Vec<Option<Layer>>,
    norm: Option<QuantRmsNorm>,
}

/// Which part of a decoder it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartPlace {
    /// The table of embeddings.
    Embeddings,
    /// A layer, the first is 0.
    Layer(usize),
    /// The last norm, and the head unless it is the table of embeddings.
    Head,
}

impl PartPlace {
    /// Returns the parts of a decoder in the order in which data meets them.
    pub fn all(config: &DecoderConfig) -> Vec<Self> {
        let layers = (0..config.layers).map(Self::Layer);
        std::iter::once(Self::Embeddings).chain(layers).chain([Self::Head]).collect()
    }
}

impl std::fmt::Display for PartPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Embeddings => f.write_str("embeddings"),
            Self::Layer(i) => write!(f, "layer {i}"),
            Self::Head => f.write_str("head"),
        }
    }
}

impl DecoderPart {
    /// Creates a part with random parameters, which take no memory before they are used or replaced.
    ///
    /// What a record is restored into.
    pub fn new(config: Arc<DecoderConfig>, place: PartPlace, device: &Device) -> Self {
        let mut model = BodyPart { embed_tokens: None, layers: Vec::new(), norm: None };
        let mut lm_head = None;
        match place {
            PartPlace::Embeddings => {
                model.embed_tokens = Some(QuantEmbeddingConfig::new(config.vocabulary, config.hidden).init(device));
            }
            PartPlace::Layer(i) => {
                model.layers = (0..i).map(|_| None).collect();
                model.layers.push(Some(Layer::new(&config, i, device)));
            }
            PartPlace::Head => {
                model.norm = Some(norm(&config, config.hidden, device));
                let head = QuantLinearConfig::new(config.hidden, config.vocabulary).with_bias(false);
                lm_head = (!config.tied).then(|| head.init(device));
            }
        }
        Self { model, lm_head, config, place }
    }

    /// Returns which part it is.
    pub fn place(&self) -> PartPlace {
        self.place
    }

    /// Returns what the decoder is.
    pub fn config(&self) -> &Arc<DecoderConfig> {
        &self.config
    }

    /// Returns the features `[1, tokens, hidden]` of tokens `[1, tokens]`; `None` unless it is the embeddings.
    pub fn embedded(&self, tokens: Tensor<2, Int>) -> Option<Tensor<3>> {
        Some(embedded(self.model.embed_tokens.as_ref()?, tokens, &self.config))
    }

    /// Returns what becomes of features `[1, tokens, hidden]` of the first tokens of a sequence: the features after a
    /// layer, or the logits `[1, tokens, vocabulary]`.
    ///
    /// A head that is the table of embeddings is not here: features after the last norm are returned.
    ///
    /// # Panics
    ///
    /// If it is the embeddings, which take tokens.
    pub fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        match self.place {
            PartPlace::Embeddings => panic!("embeddings take tokens"),
            PartPlace::Layer(i) => {
                let layer = self.layer().expect("a layer is one");
                let rotation = Rotation::new(&self.config, 0, x.dims()[1], &x.device());
                layer.forward(x, &self.config, i, &rotation, &mut KvCache::new())
            }
            PartPlace::Head => {
                let features = normed(self.model.norm.as_ref().expect("a head has a norm"), x, &self.config);
                match &self.lm_head {
                    Some(head) => head.forward(features),
                    None => features,
                }
            }
        }
    }

    pub(crate) fn table(&self) -> Option<&QuantEmbedding> {
        self.model.embed_tokens.as_ref()
    }

    pub(crate) fn table_mut(&mut self) -> Option<&mut QuantEmbedding> {
        self.model.embed_tokens.as_mut()
    }

    pub(crate) fn layer(&self) -> Option<&Layer> {
        self.model.layers.last()?.as_ref()
    }

    /// Returns its linear layers with their names, in the order in which they run.
    pub fn linears(&self) -> Vec<(String, &QuantLinear)> {
        let mut linears = match (self.layer(), self.place) {
            (Some(layer), PartPlace::Layer(i)) => layer.linears(i),
            _ => Vec::new(),
        };
        linears.extend(self.lm_head.as_ref().map(|head| (HEAD.to_string(), head)));
        linears
    }

    pub(crate) fn linears_mut(&mut self) -> Vec<(String, &mut QuantLinear)> {
        let mut linears = match (self.model.layers.last_mut(), self.place) {
            (Some(Some(layer)), PartPlace::Layer(i)) => layer.linears_mut(i),
            _ => Vec::new(),
        };
        linears.extend(self.lm_head.as_mut().map(|head| (HEAD.to_string(), head)));
        linears
    }

    pub(crate) fn norms(&self) -> Vec<(String, &QuantRmsNorm)> {
        let mut norms = match (self.layer(), self.place) {
            (Some(layer), PartPlace::Layer(i)) => layer.norms(i),
            _ => Vec::new(),
        };
        norms.extend(self.model.norm.as_ref().map(|norm| (NORM.to_string(), norm)));
        norms
    }

    pub(crate) fn norms_mut(&mut self) -> Vec<(String, &mut Param<Tensor<1>>)> {
        let mut norms = match (self.model.layers.last_mut(), self.place) {
            (Some(Some(layer)), PartPlace::Layer(i)) => layer.norms_mut(i),
            _ => Vec::new(),
        };
        norms.extend(self.model.norm.as_mut().map(|norm| (NORM.to_string(), &mut norm.gamma)));
        norms
    }
}

/// Where the parts of a decoder come from, one by one, in their order.
pub trait DecoderParts {
    /// Returns how many there are.
    fn count(&self) -> usize;

    /// Returns a part.
    ///
    /// # Errors
    ///
    /// Those of reading it.
    fn part(&self, i: usize) -> Result<DecoderPart, LlmError>;
}

/// Parts in memory.
impl DecoderParts for Vec<DecoderPart> {
    fn count(&self) -> usize {
        self.len()
    }

    fn part(&self, i: usize) -> Result<DecoderPart, LlmError> {
        Ok(self[i].clone())
    }
}

impl Decoder {
    /// Takes a decoder apart.
    ///
    /// Its tensors are moved; those of a clone are shared.
    pub fn into_parts(self) -> Vec<DecoderPart> {
        let Self { model: Body { embed_tokens, layers, norm }, lm_head, config } = self;
        let part = |place, model, lm_head| DecoderPart { model, lm_head, config: config.clone(), place };
        let body = || BodyPart { embed_tokens: None, layers: Vec::new(), norm: None };
        let table = BodyPart { embed_tokens: Some(embed_tokens), ..body() };
        let mut parts = vec![part(PartPlace::Embeddings, table, None)];
        for (i, layer) in layers.into_iter().enumerate() {
            let layers = (0..i).map(|_| None).chain([Some(layer)]).collect();
            parts.push(part(PartPlace::Layer(i), BodyPart { layers, ..body() }, None));
        }
        parts.push(part(PartPlace::Head, BodyPart { norm: Some(norm), ..body() }, lm_head));
        parts
    }

    /// Puts the parts of a decoder together; `None` unless they are all of its parts, in their order.
    pub fn of_parts(parts: impl IntoIterator<Item = DecoderPart>) -> Option<Self> {
        let mut parts = parts.into_iter();
        let first = parts.next()?;
        let (embed_tokens, config) = (first.model.embed_tokens?, first.config);
        let mut layers = Vec::with_capacity(config.layers);
        for i in 0..config.layers {
            let part = parts.next().filter(|part| part.place == PartPlace::Layer(i))?;
            layers.push(part.model.layers.into_iter().next_back()??);
        }
        let DecoderPart { model, lm_head, .. } = parts.next().filter(|part| part.place == PartPlace::Head)?;
        let body = Body { embed_tokens, layers, norm: model.norm? };
        parts.next().is_none().then_some(Self { model: body, lm_head, config })
    }
}
