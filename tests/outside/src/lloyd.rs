//! The range of least squared error of a weight of any rank, by Lloyd's iteration.
//!
//! ```text
//! y = Q(w; amax)        amax ← amax · Σ w y / Σ y²        until it stays        sums over the elements of a range
//! ```
//!
//! The first step finds the nearest code of each element, the second the best scale of those codes, so the error
//! `‖w − y‖²` never grows. Source: Lloyd 1982, "Least Squares Quantization in PCM", for a grid with one parameter. A
//! range whose codes are all zero stays.

use burn_quant::TensorQuantizer;
use burn_quant::calibrate::{CalibrationAlgorithm, KernelProblem, SkipReason, Stage, group_sums};
use burn_quant::config::ScaleFormat;

/// Ranges of weights that are not matrices: convolution kernels, embeddings.
#[derive(Clone, Copy, Debug)]
pub struct Lloyd {
    /// Iterations at most.
    pub steps: usize,
}

impl CalibrationAlgorithm for Lloyd {
    fn name(&self) -> &str {
        "lloyd"
    }

    fn stage(&self) -> Stage {
        Stage::Clip
    }

    fn kernel(&self, kernel: &KernelProblem) -> Result<TensorQuantizer, SkipReason> {
        let mut quantizer = kernel.quantizer().clone();
        let config = quantizer.config();
        if !config.has_static_range() || config.scale != ScaleFormat::F32 {
            return Err(SkipReason::DynamicRange);
        }
        if config.bias.is_some() {
            return Err(SkipReason::WeightBias);
        }
        if config.rotation.is_some() {
            return Err(SkipReason::Rotated);
        }
        if !config.then.is_empty() {
            return Err(SkipReason::WeightChain);
        }
        let weight = kernel.weight().flat();
        let groups = quantizer.range_groups(kernel.weight().shape());
        for _ in 0..self.steps {
            let rounded = kernel.quantize(&quantizer).flat();
            let with_weight = group_sums(weight.clone() * rounded.clone(), &groups);
            let with_itself = group_sums(rounded.clone() * rounded, &groups);
            let empty = with_itself.clone().lower_equal_scalar(0.0);
            let ratio = (with_weight / with_itself.mask_fill(empty.clone(), 1.0)).mask_fill(empty, 1.0);
            let stays = ratio.clone().equal_scalar(1.0).all().into_scalar::<bool>();
            let amax = quantizer.amax().ok_or(SkipReason::DynamicRange)?;
            quantizer.set_amax(amax * ratio);
            if stays {
                break;
            }
        }
        Ok(quantizer)
    }
}
