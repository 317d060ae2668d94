//! Models of the llama family under the names of Hugging Face, read from GGUF and written to it.
//!
//! * `architecture` which architectures, and the sizes that names and rows depend on
//! * `names` of tensors, both ways
//! * `rows` the order of the rows of queries and keys
//! * `config` `config.json` as metadata, and back
//! * `rope` the frequency factors of Llama 3
//! * `read` [`GgufModel`], `write` [`GgufModelWriter`], `convert` [`convert_folder`]

mod architecture;
mod config;
mod convert;
mod names;
mod read;
mod rope;
mod rows;
mod write;

pub use convert::convert_folder;
pub use read::GgufModel;
pub use write::{GgufModelWriter, ModelSource, TensorData};
