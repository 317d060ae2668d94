//! Walking a model: its quantizers, parameters and layers with their paths. No other module keeps a path of its own.
//!
//! * `traverse` the one visitor and the one mapper
//! * `index` everything that one visit finds, by name
//! * [`Quantizers`] all quantizers of a model: taken out as plain data, edited, put back
//! * `parameters` values of parameters, read and replaced
//! * `layers` which weight, bias and quantizers belong together
//! * [`watch`] taps on the quantizers of a model, for as long as a value lives

mod index;
mod layers;
mod parameters;
mod path;
mod quantizers;
mod traverse;
mod watch;

pub use index::quantizer_devices;
pub use index::{ModelIndex, ParameterRef, device_of};
pub use layers::{LayerRef, layers};
pub use parameters::{Parameters, Replacements, attach};
pub use path::{Path, layer_of, within};
pub use quantizers::Quantizers;
pub use traverse::{Map, Visit, map, visit};
pub use watch::{Watched, watch};

use burn::tensor::{DType, Tensor};

/// Reads the values of a tensor, f32.
pub fn host(values: Tensor<1>) -> Vec<f32> {
    values.without_autodiff().cast(DType::F32).into_data().try_into_vec().expect("f32 data")
}
