//! What burn-quant promises, run on the backend of this build: plain, under autodiff, and with gradient checkpointing.
//!
//! `cargo test -p burn-quant-tests` tests Flex; with `--features wgpu` it tests wgpu, whose backend runs under fusion
//! as it does in applications.

mod attention;
mod burn_scheme;
mod calibration;
mod compress;
mod config;
#[cfg(feature = "flex")] // of a capture, what Flex runs is recorded
mod decoder_graph;
mod diagnosis;
mod faults;
mod findings;
mod gradient;
mod graph;
#[cfg(feature = "flex")] // as of files of burn's own layers
mod graph_axes;
mod graph_model;
mod kv_cache;
mod layers;
#[cfg(feature = "learner")]
mod learner;
mod lifecycle;
mod models;
mod nn;
mod onnx;
#[cfg(feature = "flex")] // files of burn's own layers do not depend on the device, and not every device runs them
mod onnx_attention;
#[cfg(feature = "flex")] // as above, in f16
mod onnx_half;
#[cfg(feature = "flex")] // as above
mod onnx_networks;
#[cfg(feature = "flex")] // as above
mod onnx_operations;
mod onnx_opsets;
#[cfg(feature = "flex")] // as above
mod onnx_rten;
mod onnx_runtime;
mod onnx_tables;
mod ops;
mod packed;
mod packed_convolutions;
mod packed_edges;
mod packed_files;
mod packed_offsets;
mod pointwise;
mod prepare;
mod presets;
mod quantizer;
mod regressions;
mod safetensors_damage;
mod safetensors_files;
mod search;
mod store;
mod training;

use burn::tensor::{Device, Tensor, TensorData};
use burn_quant_tests::compare::{largest, within};

/// Values of a tensor, widened to f32.
fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().expect("f32 values")
}

/// A tensor whose values are spread over -2..2 and differ from element to element; the same on every call.
fn spread<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let len: usize = shape.iter().product();
    let values: Vec<f32> =
        (0..len).map(|i| ((i * 2_654_435_761 + 12_345) % 1_000_003) as f32 / 250_000.75 - 2.0).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Equal within a relative error, measured against the largest value.
#[track_caller]
fn assert_close(found: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: number of values");
    let largest = largest(expected);
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!(
            within((*f).into(), (*e).into(), f64::from(tolerance) * largest),
            "{what}: element {i} is {f:e}, expected {e:e}, of values up to {largest:e}"
        );
    }
}

/// Equal bit for bit but for the sign of zero; NaN equals NaN.
#[track_caller]
fn assert_same(found: &[f32], expected: &[f32], what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}: number of values");
    for (i, (f, e)) in found.iter().zip(expected).enumerate() {
        assert!(f == e || (f.is_nan() && e.is_nan()), "{what}: element {i} is {f:e}, expected {e:e}");
    }
}
