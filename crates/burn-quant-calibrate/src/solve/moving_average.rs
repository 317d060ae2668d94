//! The exponential average of the ranges of batches.
//!
//! ```text
//! a ← batch 1,   a ← m·a + (1 − m)·batch n
//! ```
//!
//! Source: Jacob et al. 2018, "Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only
//! Inference", arXiv:1712.05877, §3.1. It depends on the order of batches; that of merged statistics is the order of
//! merging, and batches that several threads ran count from the smallest range to the largest, whichever came first.

use super::ranges::activation;
use super::{CalibrationAlgorithm, SkipReason, Stage};
use crate::observe::{Statistics, StatisticsRequest};
use burn_quant_core::quantizer::TensorQuantizer;

/// Ranges of activations by an average over batches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MovingAverage {
    pub(crate) momentum: f32,
}

impl CalibrationAlgorithm for MovingAverage {
    fn name(&self) -> &str {
        "moving_average"
    }

    fn stage(&self) -> Stage {
        Stage::Clip
    }

    fn needs_data(&self) -> bool {
        true
    }

    fn request(&self, quantizer: &TensorQuantizer) -> Result<StatisticsRequest, SkipReason> {
        activation(quantizer)?;
        Ok(StatisticsRequest::new().with_history())
    }

    fn range(&self, quantizer: &TensorQuantizer, seen: &Statistics) -> Result<Vec<f32>, SkipReason> {
        let _ = quantizer;
        moving_average(&seen.history, self.momentum).ok_or(SkipReason::NoData)
    }
}

/// The average range of each group; `None` without batches, or if they differ in groups.
///
/// # Example
///
/// ```
/// use burn_quant::calibrate::moving_average;
///
/// assert_eq!(moving_average(&[vec![1.0], vec![3.0], vec![5.0]], 0.5), Some(vec![3.5]));
/// ```
pub fn moving_average(batches: &[Vec<f32>], momentum: f32) -> Option<Vec<f32>> {
    let (first, rest) = batches.split_first()?;
    rest.iter().try_fold(first.clone(), |average, batch| {
        let blend = |(a, b): (&f32, &f32)| momentum * a + (1.0 - momentum) * b;
        (average.len() == batch.len()).then(|| average.iter().zip(batch).map(blend).collect())
    })
}
