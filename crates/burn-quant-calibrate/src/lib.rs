//! From a burn model and a configuration to a quantized model, of the toolkit
//! [`burn-quant`](https://docs.rs/burn-quant).
//!
//! ```text
//! config       QuantConfig: rules and an algorithm; presets, recipes, ModelOpt's recipes
//! prepare      float layers -> float layers that are easier to quantize
//! observe      calibration data -> statistics
//! solve        statistics -> ranges, smoothed and corrected weights: one algorithm, one file
//! pipeline     quantize: place, observe, solve
//! ```
//!
//! Users depend on `burn-quant`, which re-exports what they need.

mod algorithms;
pub mod config;
pub mod prepare;

pub mod observe;
pub mod solve;

pub mod pipeline;
