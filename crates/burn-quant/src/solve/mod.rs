//! Statistics -> ranges, and changed weights. One algorithm, one file; each is a pure function.
//!
//! ```text
//! statistics of every quantizer ──► ranges by `max`, of activations by what the algorithm says      ranges.rs
//!        │
//!        ▼  for every linear layer, siblings together
//! Layer { weight, quantizers, input statistics } ──► step ──► step ──► ... ──► weights and ranges     algorithm.rs, layer.rs
//! ```
//!
//! With the Gram matrix of its inputs the error of a layer's outputs is known for any change of its weight, so a search never
//! runs the model. A new algorithm is a file here and a line in `algorithm.rs`.

mod activation_headroom;
mod adaround;
mod affine;
mod algorithm;
mod awq_clip;
mod awq_lite;
mod bias_correction;
mod calibrate;
mod entropy;
mod gptq;
mod groups;
mod histogram_mse;
mod layer;
mod layers;
mod max;
mod mean_magnitude;
mod moving_average;
mod percentile;
mod range_search;
mod ranges;
mod siblings;
mod sites;
mod smoothquant;
mod svdquant;

pub use activation_headroom::activation_headroom;
pub use affine::affine;
pub(crate) use algorithm::Registry;
pub use algorithm::{LayerAlgorithm, SkipReason, Solution};
pub(crate) use calibrate::Calibrator;
pub use calibrate::{calibrate, quantizer_devices};
pub use entropy::entropy;
pub use histogram_mse::histogram_mse;
pub use layer::{Layer, LayerInput};
pub use max::max;
pub use moving_average::moving_average;
pub use percentile::percentile;
pub(crate) use sites::{Parameters, Site, replace_parameters, sites};
pub use smoothquant::smoothquant;

use burn::tensor::{DType, Tensor};

/// The values of a tensor, f32.
pub(crate) fn host(values: Tensor<1>) -> Vec<f32> {
    values.cast(DType::F32).into_data().try_into_vec().expect("f32 data")
}
