#![doc = include_str!("../README.md")]
//!
//! ```text
//! Folder ──► tensors ──► QuantizedLayer ──► floats, or the codes of a packed model
//! ```
//!
//! * [`Folder`] and [`FolderWriter`] are Hugging Face folders, [`Tensor`] what they hold.
//! * [`QuantizedMatrix`] is a weight in codes and scales, whoever wrote it.

mod dtype;
mod error;
mod tensor;
mod weight;

mod columns;

mod folder;

pub mod modelopt;

pub mod compressed_tensors;

pub mod awq_gptq;

pub mod gguf;

pub use burn_quant_numerics::Minifloat;
pub use dtype::Dtype;
pub use error::{CheckpointError, NotExportable};
pub use folder::{Folder, FolderWriter, TensorInfo};
pub use tensor::Tensor;
pub use weight::{Element, Inputs, KvQuantizer, LowRank, Offset, QuantizedLayer, QuantizedMatrix, ScaleKind};
