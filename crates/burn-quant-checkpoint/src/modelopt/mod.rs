//! Folders in ModelOpt's unified Hugging Face format, which vLLM, SGLang and TensorRT-LLM read.
//!
//! ```text
//! LinearState ──prepare──► LinearState ──pack──► tensors ──► FolderWriter
//!     siblings share scales, smoothing moves into norms
//! ```
//!
//! * `algo` what a layer can be: ModelOpt's `quant_algo`
//! * `state` a layer that is about to be written: float weight and ranges
//! * `prepare` what is done to layers that share an input before they are packed
//! * `pack` codes and scales of each format, bit for bit as ModelOpt packs them
//! * `config` `hf_quant_config.json` and the `quantization_config` of `config.json`
//! * `read` a layer of a folder as codes and scales
//!
//! Source: ModelOpt 0.47, `modelopt.torch.export`: `unified_export_hf`, `quant_utils`, `convert_hf_config`.

mod algo;
mod config;
mod pack;
mod prepare;
mod read;
mod state;

pub use algo::QuantAlgo;
pub use config::{KvAlgo, LayerAlgo, Quantization};
pub use pack::{kv_tensors, pack};
pub use prepare::{Folding, Siblings, prepare, prepare_experts};
pub use read::{kv, layer, quantized};
pub use state::LinearState;
