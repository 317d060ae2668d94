//! Statistics -> ranges, and changed weights. One algorithm, one file; each is a pure function.
//!
//! ```text
//! statistics of every quantizer ──► ranges by `max`, of activations by what the algorithm says      calibrator.rs
//!        │
//!        ▼  for every linear layer, siblings together
//! LayerProblem { weight, quantizers, input statistics } ──► step ──► step ──► ... ──► weights and ranges     layers.rs
//! ```
//!
//! With the Gram matrix of its inputs the error of a layer's outputs is known for any change of its weight, so a search
//! never runs the model. A new algorithm is a file here and a row in the table of
//! `algorithms.rs`.

mod algorithm;
mod calibrator;
mod kernel;
mod layer;
mod layers;
mod ranges;
mod report;
mod siblings;
mod steps;

mod activation_headroom;
mod adaround;
mod affine;
mod awq_clip;
mod awq_lite;
mod bias_correction;
mod entropy;
mod gptq;
mod histogram_mse;
mod lsq_init;
mod max;
mod moving_average;
mod percentile;
mod range_search;
mod smoothquant;
mod svdquant;

pub use activation_headroom::activation_headroom;
pub use affine::affine;
pub use algorithm::{CalibrationAlgorithm, SkipReason, Solution, Stage};
pub use burn_quant_core::quantizer::groups::{group_sums, spread_over_groups};
pub(crate) use calibrator::Calibrator;
pub use entropy::entropy;
pub use histogram_mse::histogram_mse;
pub use kernel::KernelProblem;
pub use layer::{LayerInput, LayerProblem};
pub(crate) use layers::Solved;
pub use max::max;
pub use moving_average::moving_average;
pub use percentile::percentile;
pub use report::{LayerReport, StepReport};
pub use smoothquant::smoothquant;
pub use steps::{AlgorithmOptions, CustomAlgorithms};

use burn_quant_core::model::host;

/// The decimal number that an f32 prints as: steps of 0.1 are meant, not of the f32 next to it.
fn decimal(x: f32) -> f64 {
    x.to_string().parse().expect("a float prints as one")
}
