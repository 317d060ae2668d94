//! What is measured while data goes through a model: sums on the device, read once at the end.
//!
//! ```text
//! each batch   float model   ──► outputs of layers
//!              forced        each layer quantized, on the inputs of the float model      own noise, ranges, samples
//!              free          the quantized model                                          noise that adds up
//! ```
//!
//! In the forced pass the output of each layer is replaced by that of the float model after it was compared, so the
//! next layer gets float inputs: no layer is computed twice for the noise that it makes by itself.

mod layer;
mod quantizer;
mod sample;
mod taps;
mod weights;

pub(crate) use layer::{LayerNumbers, LayerSums};
pub(crate) use quantizer::{QuantizerNumbers, QuantizerSums};
pub(crate) use sample::SampledValues;
pub(crate) use taps::Passes;
pub(crate) use weights::{Alternative, WeightNumbers, of_weights};

use burn::tensor::{DType, Tensor};
use burn_quant_core::quantizer::AnyTensor;
use burn_quant_ops::{Groups, group_amax};

use crate::diagnosis::NO_NOISE;

/// Signal to noise in decibels, of sums of squares; `None` without a signal, or where it is not finite.
pub(crate) fn decibels(signal: f64, noise: f64) -> Option<f64> {
    let measured = signal > 0.0 && signal.is_finite() && noise.is_finite();
    measured.then(|| if noise > 0.0 { (10.0 * (signal / noise).log10()).min(NO_NOISE) } else { NO_NOISE })
}

/// A tensor in f32, flat, without a gradient.
fn wide(x: &AnyTensor) -> Tensor<1> {
    x.flat().without_autodiff().cast(DType::F32)
}

/// The largest magnitude of each group of a flat tensor. NaN counts as infinity, which no maximum loses.
fn amax(x: Tensor<1>, groups: &Groups) -> Tensor<1> {
    let amax = burn_quant_core::with_rank!(&AnyTensor::new(x, groups.shape().to_vec()), x => group_amax(x, groups));
    let is_nan = amax.clone().is_nan();
    amax.mask_fill(is_nan, f32::INFINITY)
}

/// A sum that begins with its first term.
fn add<const D: usize>(sum: &mut Option<Tensor<D>>, term: Tensor<D>) {
    *sum = Some(match sum.take() {
        None => term,
        Some(sum) => sum + term,
    });
}

/// A maximum that begins with its first value.
fn raise<const D: usize>(max: &mut Option<Tensor<D>>, value: Tensor<D>) {
    *max = Some(match max.take() {
        None => value,
        Some(max) => max.max_pair(value),
    });
}

/// The sum of some sums of squares.
pub(crate) fn total(squares: &[f32]) -> f64 {
    squares.iter().map(|square| f64::from(*square)).sum()
}

/// The median of some numbers; `None` if there are none.
pub(crate) fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}
