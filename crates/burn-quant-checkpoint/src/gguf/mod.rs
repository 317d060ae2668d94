//! GGUF files, as llama.cpp reads and writes them.
//!
//! ```text
//! Gguf ──► metadata, tensors ──► floats, or codes and scales        GgufModel: under the names of Hugging Face
//! Metadata + PlannedTensor ──► GgufWriter ──► file                  GgufModelWriter: from those names
//! ```
//!
//! * `header` magic number, metadata, tensor infos; `metadata` and `value` what keys hold
//! * `file` [`Gguf`]: tensors that are read when they are asked for
//! * `ggml_type` [`GgmlType`], `blocks` how its elements are packed
//! * `write` [`GgufWriter`]: files that appear when they are complete
//! * `model` the llama family under the names of Hugging Face, both ways
//! * `vocabulary` tokenizers, both ways
//!
//! Source: ggml's `docs/gguf.md`; values, block layouts and roundings are those of gguf-python 0.19.0.
//!
//! # Example
//!
//! A folder with floats becomes a file with 4-bit weights:
//!
//! ```no_run
//! use burn_quant_checkpoint::Folder;
//! use burn_quant_checkpoint::gguf::{GgmlType, GgufModel, convert_folder};
//!
//! convert_folder(&Folder::open("SmolLM2-135M")?, "SmolLM2", |_, _| GgmlType::Q4_0, "SmolLM2.Q4_0.gguf")?;
//! let model = GgufModel::open("SmolLM2.Q4_0.gguf")?;
//! let weight = model.matrix("model.layers.0.mlp.up_proj.weight")?;
//! assert_eq!((weight.block_inputs, weight.element.bits()), (32, 4));
//! # Ok::<(), burn_quant_checkpoint::CheckpointError>(())
//! ```

mod header;
mod metadata;
mod value;

mod file;

mod blocks;
mod ggml_type;

mod write;

mod model;
mod vocabulary;

pub use blocks::{HalfScales, decode, encode, encode_matrix};
pub use file::{GgmlTensor, Gguf};
pub use ggml_type::GgmlType;
pub use metadata::Metadata;
pub use model::{GgufModel, GgufModelWriter, ModelSource, TensorData, convert_folder};
pub use value::{Array, Value};
pub use vocabulary::{tokenizer_config_json, tokenizer_json};
pub use write::{GgufWriter, PlannedTensor};

/// The first bytes of a file.
const MAGIC: [u8; 4] = *b"GGUF";

/// What tensors are aligned to where `general.alignment` is not there, in bytes.
const ALIGNMENT: u64 = 32;
