//! What a quantized burn model *is*, of the toolkit [`burn-quant`](https://docs.rs/burn-quant): it knows no algorithm,
//! no data, no file.
//!
//! ```text
//! error        why a model could not be quantized, of every stage
//! layout       which axes of a tensor are channels, and which are contracted
//! config       what a quantizer does, and rules: glob -> what
//! quantizer    TensorQuantizer: configuration, tensors, on or off; and taps, which watch
//! model        walking through a model: quantizers, parameters, layers, by name
//! place        rules -> plan -> a model with quantizers
//! bits         what a layer takes
//! summary      a table of all quantizers
//! fold         the quantized model -> plain weights
//! compress     the quantized model -> codes in the place of weights
//! memory       the bytes that a model holds, by layer and format
//! ```
//!
//! Users depend on `burn-quant`, which re-exports what they need; the crates of the toolkit depend on this one.

pub mod error;

pub mod config;
pub mod layout;
pub mod quantizer;

pub mod model;
pub mod place;

pub mod bits;
pub mod compress;
pub mod fold;
pub mod memory;
pub mod summary;
