#![doc = include_str!("../README.md")]

mod config;
mod error;
mod names;
mod rope;
mod source;

pub mod model;

mod import;
mod load;

mod convert;

mod export;
mod recipe;
mod share;

mod by_parts;

mod tokenizer;

mod chat;

mod generate;

mod evaluate;

pub use by_parts::{ByParts, PartProgress, QuantizedParts};
pub use chat::{ChatRole, ChatTemplate, Message, Then};
pub use config::{Activation, Architecture, DecoderConfig, Experts, RopeScaling};
pub use convert::{folder_of_gguf, folder_of_quantized};
pub use error::LlmError;
pub use evaluate::{Comparison, compare, compare_with, perplexity, perplexity_with, windows};
pub use export::{Export, ExportState, check_recipe};
pub use generate::{Generator, Sampling, generate, row};
pub use model::{Cache, Decoder, DecoderPart, DecoderParts, PartPlace};
pub use recipe::{Target, recipe_for};
pub use share::share_ranges;
pub use tokenizer::{TextStream, Tokenizer};
