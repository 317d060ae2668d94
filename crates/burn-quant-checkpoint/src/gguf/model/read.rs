//! A file under the names of Hugging Face.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::Value;

use super::architecture::Architecture;
use super::names::Place;
use super::rows::Order;
use super::{config, rope};
use crate::error::near_misses;
use crate::gguf::{GgmlTensor, GgmlType, Gguf, blocks, vocabulary};
use crate::{CheckpointError, QuantizedMatrix};

/// A GGUF file of the llama family, as if it were a Hugging Face folder: names, shapes, order of rows, `config.json`
/// and `tokenizer.json`.
///
/// Known are `llama` (Llama, Mistral, Mixtral), `qwen2`, `qwen3` and `qwen3moe`.
///
/// # Example
///
/// ```no_run
/// use burn_quant_checkpoint::gguf::{Gguf, GgufModel};
///
/// let model = GgufModel::new(Gguf::open("SmolLM2-135M-Instruct.Q4_1.gguf")?)?;
/// assert_eq!(model.config()?["model_type"], "llama");
/// let query = model.matrix("model.layers.0.self_attn.q_proj.weight")?; // rows in the order of Hugging Face
/// let tokenizer = model.tokenizer()?; // for the `tokenizers` crate
/// # Ok::<(), burn_quant_checkpoint::CheckpointError>(())
/// ```
#[derive(Clone, Debug)]
pub struct GgufModel {
    gguf: Gguf,
    architecture: Architecture,
    /// Names of Hugging Face, with where they are.
    places: BTreeMap<String, Place>,
}

impl GgufModel {
    /// Opens a file: [`Gguf::open`], then [`GgufModel::new`].
    ///
    /// # Errors
    ///
    /// Those of both.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, CheckpointError> {
        Self::new(Gguf::open(path)?)
    }

    /// Finds the tensors of a file under the names of Hugging Face.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Unknown`] for an architecture that is not known, [`CheckpointError::Missing`] or
    /// [`CheckpointError::Value`] for metadata that is not there or has another type, [`CheckpointError::Shape`] for
    /// queries, keys or experts of other shapes than the metadata says.
    pub fn new(gguf: Gguf) -> Result<Self, CheckpointError> {
        let architecture = Architecture::of_metadata(gguf.metadata())?;
        let mut places = BTreeMap::new();
        for tensor in gguf.tensors() {
            for name in architecture.hugging_face(&tensor.name) {
                let place = architecture.place(&name).expect("a name of Hugging Face has a place");
                check(&architecture, tensor, &place)?;
                places.insert(name, place);
            }
        }
        Ok(Self { gguf, architecture, places })
    }

    /// Returns the file, with its own names.
    pub fn gguf(&self) -> &Gguf {
        &self.gguf
    }

    /// Returns the names of Hugging Face of all tensors, sorted. Each expert has its own.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Returns whether there is a tensor of this name.
    pub fn has(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// Returns the shape of a tensor, slowest axis first; that of one expert for experts.
    ///
    /// `None` if there is none of this name.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        let (place, tensor) = self.find(name)?;
        Some(if place.expert.is_some() { &tensor.shape[1..] } else { &tensor.shape })
    }

    /// Returns the type of a tensor.
    ///
    /// `None` if there is none of this name.
    pub fn ggml(&self, name: &str) -> Option<GgmlType> {
        Some(self.find(name)?.1.ggml)
    }

    /// Reads a tensor as floats, row-major, with rows in the order of Hugging Face.
    ///
    /// # Errors
    ///
    /// Those of [`Gguf::floats`].
    pub fn floats(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let (place, tensor, bytes) = self.read(name)?;
        let values = blocks::decode(name, tensor.ggml, &bytes)?;
        Ok(match place.heads {
            Some(heads) => Order::Halves.apply(&values, tensor.shape[0], heads),
            None => values,
        })
    }

    /// Reads a matrix as codes and scales, exactly as they are stored, with rows in the order of Hugging Face.
    ///
    /// # Errors
    ///
    /// Those of [`Gguf::matrix`], and [`CheckpointError::Shape`] for a tensor that has not two axes.
    pub fn matrix(&self, name: &str) -> Result<QuantizedMatrix, CheckpointError> {
        let (place, tensor, bytes) = self.read(name)?;
        let shape = if place.expert.is_some() { &tensor.shape[1..] } else { &tensor.shape[..] };
        let [rows, columns] = <[usize; 2]>::try_from(shape).map_err(|_| CheckpointError::Shape {
            name: name.into(),
            expected: "two axes".into(),
            found: shape.to_vec(),
        })?;
        let matrix = blocks::matrix(name, tensor.ggml, [rows, columns], &bytes)?;
        Ok(match place.heads {
            Some(heads) => Order::Halves.apply_to_matrix(&matrix, heads),
            None => matrix,
        })
    }

    /// Returns the `config.json` that the model would have: sizes, rotations, tokens; `dtype` is `float32`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Missing`] or [`CheckpointError::Value`] for metadata that is not there or has another type,
    /// [`CheckpointError::Unknown`] for a scaling of rotations that is not known.
    pub fn config(&self) -> Result<Value, CheckpointError> {
        let factors = match self.gguf.info(rope::TENSOR) {
            Some(_) => Some(self.gguf.floats(rope::TENSOR)?),
            None => None,
        };
        let facts = config::Facts {
            is_tied: !self.has("lm_head.weight"),
            has_bias: self.has("model.layers.0.self_attn.q_proj.bias"),
            vocabulary: self.shape("model.embed_tokens.weight").and_then(|shape| shape.first().copied()).unwrap_or(0),
            rope_factors: factors.as_deref(),
        };
        config::config(self.gguf.metadata(), &self.architecture, facts)
    }

    /// Returns the `tokenizer.json` that the model would have.
    ///
    /// # Errors
    ///
    /// Those of [`tokenizer_json`](crate::gguf::tokenizer_json).
    pub fn tokenizer(&self) -> Result<Value, CheckpointError> {
        vocabulary::tokenizer_json(self.gguf.metadata())
    }

    /// Returns the `tokenizer_config.json` that the model would have: special tokens and the chat template.
    ///
    /// # Errors
    ///
    /// Those of [`tokenizer_config_json`](crate::gguf::tokenizer_config_json).
    pub fn tokenizer_config(&self) -> Result<Value, CheckpointError> {
        vocabulary::tokenizer_config_json(self.gguf.metadata())
    }

    fn find(&self, name: &str) -> Option<(&Place, &GgmlTensor)> {
        let place = self.places.get(name)?;
        Some((place, self.gguf.info(&place.name)?))
    }

    /// Reads the bytes of a tensor, or of one expert.
    fn read(&self, name: &str) -> Result<(&Place, &GgmlTensor, Vec<u8>), CheckpointError> {
        let (place, tensor) = self.find(name).ok_or_else(|| CheckpointError::Missing {
            name: name.into(),
            near_misses: near_misses(name, self.names()),
        })?;
        let (first, len) = match place.expert {
            Some(expert) => {
                let len = tensor.bytes / tensor.shape[0] as u64;
                (tensor.at + expert as u64 * len, len)
            }
            None => (tensor.at, tensor.bytes),
        };
        Ok((place, tensor, self.gguf.read(first..first + len)?))
    }
}

/// Checks that a tensor has the rows of its heads, or the parts of its experts.
fn check(architecture: &Architecture, tensor: &GgmlTensor, place: &Place) -> Result<(), CheckpointError> {
    let expected = match (place.heads, place.expert) {
        (Some(heads), _) => Some(heads * architecture.head).filter(|rows| tensor.shape.first() != Some(rows)),
        (None, Some(_)) => {
            Some(architecture.experts).filter(|parts| tensor.shape.len() != 3 || tensor.shape[0] != *parts)
        }
        (None, None) => None,
    };
    match expected {
        None => Ok(()),
        Some(first) => Err(CheckpointError::Shape {
            name: tensor.name.clone(),
            expected: format!("{first} along its first axis"),
            found: tensor.shape.clone(),
        }),
    }
}
