//! The range of an NVFP4 activation tensor, with headroom for what calibration did not see.
//!
//! ```text
//! amax = max(ρ · anchor, upper)
//! upper    a high percentile of block ranges, or the largest
//! anchor   a low percentile of those not below upper / 1e6
//! ```
//!
//! The scale of a block is E4M3 in units of the tensor's: a range far above the blocks at hand leaves room for larger
//! ones, and `ρ` is how far it may go before the scales of small blocks lose precision.
//!
//! Source: ModelOpt 0.47, `NVFP4ActHeadroomCalibrator`. A percentile is the geometric middle of a bin: bins are 11 %
//! wide.

use burn_quant_ops::numerics::{BlockScale, Format, ScaleFormat};

use super::ranges::activation;
use super::{CalibrationAlgorithm, SkipReason, Stage};
use crate::observe::{BlockHistogram, Statistics, StatisticsRequest};
use burn_quant_core::config::Granularity;
use burn_quant_core::quantizer::TensorQuantizer;

/// Ranges of activations under E4M3 block scales, with headroom.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ActivationHeadroom {
    pub(crate) anchor_percentile: f32,
    pub(crate) upper_percentile: f32,
    pub(crate) rho: f32,
}

impl CalibrationAlgorithm for ActivationHeadroom {
    fn name(&self) -> &str {
        "activation_headroom"
    }

    fn stage(&self) -> Stage {
        Stage::Clip
    }

    fn needs_data(&self) -> bool {
        true
    }

    fn request(&self, quantizer: &TensorQuantizer) -> Result<StatisticsRequest, SkipReason> {
        let config = activation(quantizer)?;
        let nvfp4 = config.format == Format::E2M1 && config.scale == ScaleFormat::E4M3(BlockScale::Dynamic);
        match config.granularity {
            Granularity::Block { size } if nvfp4 => Ok(StatisticsRequest::new().with_blocks(size)),
            _ => Err(SkipReason::NotNvfp4),
        }
    }

    fn range(&self, quantizer: &TensorQuantizer, seen: &Statistics) -> Result<Vec<f32>, SkipReason> {
        let _ = quantizer;
        let blocks = seen.blocks.as_ref().ok_or(SkipReason::NoData)?;
        let amax = activation_headroom(blocks, self.anchor_percentile, self.upper_percentile, self.rho);
        amax.map(|amax| vec![amax]).ok_or(SkipReason::NoGain)
    }
}

/// The range for blocks whose ranges were counted; `None` if all were zero.
///
/// # Example
///
/// ```
/// use burn_quant::calibrate::{BlockHistogram, activation_headroom};
///
/// let mut counts = vec![0; 512];
/// counts[256] = 1000; // ranges of about 1
/// let seen = BlockHistogram { counts, largest: 1.05 };
/// let amax = activation_headroom(&seen, 1.0, 99.99, 16384.0).unwrap();
/// assert!((amax / 16384.0 - 1.0).abs() < 0.06);
/// ```
pub fn activation_headroom(
    seen: &BlockHistogram,
    anchor_percentile: f32,
    upper_percentile: f32,
    rho: f32,
) -> Option<f32> {
    if seen.counts.iter().all(|count| *count == 0) {
        return None;
    }
    let upper = if upper_percentile >= 100.0 { seen.largest } else { percentile(seen, 0, upper_percentile)? };
    let anchor = percentile(seen, bin_of(upper / 1e6), anchor_percentile);
    Some(anchor.map_or(seen.largest, |anchor| (rho * anchor).max(upper)))
}

/// The value of the first bin, from `start` on, that reaches a share of all from there on.
fn percentile(seen: &BlockHistogram, start: usize, percentile: f32) -> Option<f32> {
    let counts = seen.counts.get(start..)?;
    let total = counts.iter().map(|count| *count as f64).sum::<f64>();
    let wanted = f64::from(percentile) / 100.0 * total;
    let mut below = 0.0;
    let bin = counts.iter().position(|count| {
        below += *count as f64;
        below >= wanted && below > 0.0
    })?;
    let octaves = BlockHistogram::HIGHEST - BlockHistogram::LOWEST;
    let middle = (start + bin) as f64 + 0.5;
    let log2 = f64::from(BlockHistogram::LOWEST) + middle / BlockHistogram::BINS as f64 * f64::from(octaves);
    Some(log2.exp2() as f32)
}

fn bin_of(value: f32) -> usize {
    let octaves = BlockHistogram::HIGHEST - BlockHistogram::LOWEST;
    let place = (value.log2() - BlockHistogram::LOWEST) / octaves * BlockHistogram::BINS as f32;
    place.clamp(0.0, BlockHistogram::BINS as f32 - 1.0) as usize
}
