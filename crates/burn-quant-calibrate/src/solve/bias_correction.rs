//! A bias that takes up what rounding the weight does to the mean of the outputs.
//!
//! ```text
//! b ← b − E[x]ᵀ ΔW
//! ```
//!
//! Source: Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction",
//! arXiv:1906.04721, §4.2, with the means of the calibration data.

use super::{CalibrationAlgorithm, LayerProblem, SkipReason, Solution, Stage, host};
use crate::observe::InputStatistics;

/// Bias correction of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BiasCorrection;

impl CalibrationAlgorithm for BiasCorrection {
    fn name(&self) -> &str {
        "bias_correction"
    }

    fn stage(&self) -> Stage {
        Stage::Correct
    }

    fn inputs(&self) -> Option<InputStatistics> {
        Some(InputStatistics::Means)
    }

    fn supports_pointwise(&self) -> bool {
        true
    }

    fn layer(&self, layer: &LayerProblem) -> Result<Solution, SkipReason> {
        layer.input()?;
        let bias = layer.bias().ok_or(SkipReason::NoBias)?;
        let shift = layer.output_shift().ok_or(SkipReason::NoData)?;
        let largest = host(shift.clone().abs().max())[0];
        Ok(Solution::new(layer.with_bias(bias - shift)).with_choice("largest shift", largest))
    }
}
