#![doc = include_str!("../README.md")]

mod config;
mod error;
mod names;
mod rope;
mod source;

pub mod model;

mod import;
mod load;

mod export;

pub use config::{Activation, Architecture, DecoderConfig, Experts, RopeScaling};
pub use error::LlmError;
pub use export::ExportState;
pub use model::{Cache, Decoder};
