//! Records of quantized models: weights and quantizers in one burnpack file, or in one of safetensors.
//!
//! ```text
//! model ──save──► model.bpk ──restore──► the same model, built fresh in float, on any device
//!                   │
//!                   ├─ tensors    every parameter under burn's own path; buffers as `<weight>.weight_quantizer.amax`;
//!                   │             of a packed weight `<weight>.weight_quantizer.words`, `.scales` and, around a
//!                   │             bias, `.offsets` alone
//!                   └─ metadata   burn-quant.schema   "1.4", "2.1" with packed weights: newer ones are refused
//!                                 burn-quant.version  the crate that wrote it
//!                                 burn-quant.plan     JSON: what every quantizer does
//!                                 burn-quant.packed   JSON: the shapes of packed weights
//!                                 burn-quant.digest   SHA-256 of all of the above
//! ```
//!
//! [`save_safetensors`] and [`restore_safetensors`] do the same with a [safetensors file](safetensors), in which other
//! frameworks find codes, scales and ranges by name.
//!
//! What calibration saw is kept in a file of the same kind, [`save_statistics`], [`load_statistics`], and so is what a
//! search for formats knows: [`save_search`], [`load_search`].
//!
//! Files are written beside their destination and moved into place, so a crash leaves the old file or the new one.
//! The digest finds damage; it is no signature.
//!
//! [`Restore`] restores a part of a model, or one whose layers have other paths. Checkpoints of other frameworks are
//! read by `burn-store` itself: to its adapters the layers of `burn_quant::nn` are burn's.
//!
//! # Reading the weights with burn alone
//!
//! burn's own `load_file` refuses the file, as ranges have no place in a float model: it is told to leave them out.
//!
//! ```
//! # #[cfg(feature = "flex")] fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use burn::{module::Module, store::ModuleRecord, tensor::Device};
//! use burn_nn::LinearConfig;
//! use burn_quant::{presets, quantize_weights};
//! use burn_quant_store::{restore, save};
//!
//! let (device, folder) = (Device::flex(), tempfile::tempdir()?);
//! let (model, _) = quantize_weights(LinearConfig::new(8, 4).init(&device), &presets::int8_weight_only())?;
//! save(&model, folder.path().join("model.bpk"))?;
//!
//! let quantized = restore(LinearConfig::new(8, 4).init(&device), folder.path().join("model.bpk"))?;
//! assert_eq!(quantized.weight.val().to_data(), model.weight.val().to_data());
//!
//! let record = ModuleRecord::load(folder.path().join("model.bpk"))?.allow_unused(true); // ranges have no place in it
//! let float = LinearConfig::new(8, 4).init(&device).load_record(record);
//! assert_eq!(float.weight.val().to_data(), model.weight.base().to_data());
//! # Ok(()) }
//! # #[cfg(not(feature = "flex"))] fn main() {}
//! ```

mod check;
mod error;
mod file;
mod parameters;
mod record;
mod restore;
#[cfg(feature = "safetensors")]
pub mod safetensors;
mod save;
mod schema;
#[cfg(feature = "search")]
mod search;
mod statistics;

pub use error::StoreError;
#[doc(hidden)]
pub use file::with_new_digest;
pub use restore::{Restore, RestoreReport, from_bytes, restore};
#[cfg(feature = "safetensors")]
pub use safetensors::{restore_safetensors, safetensors_from_bytes, safetensors_to_bytes, save_safetensors};
pub use save::{save, to_bytes};
pub use schema::Schema;
#[cfg(feature = "search")]
pub use search::{load_search, save_search, search_from_bytes, search_to_bytes};
pub use statistics::{load_statistics, save_statistics, statistics_from_bytes, statistics_to_bytes};
