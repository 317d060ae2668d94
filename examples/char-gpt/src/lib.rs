//! A character-level language model on the text of Moby-Dick: float training, post-training quantization by several
//! recipes, quantization-aware training with fixed and learned ranges, and generation from a quantized cache.

pub mod experiment;
pub mod model;
pub mod text;
pub mod train;

pub use experiment::{Options, Results, run};
