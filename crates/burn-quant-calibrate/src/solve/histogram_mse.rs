//! The range of least squared rounding error, on a histogram.
//!
//! ```text
//! amax = c_k,   k = argmin Σ_b n_b · (c_b − Q(c_b; c_k))²       c: centres of bins,   k = start, start + stride, ...
//! ```
//!
//! Source: ModelOpt 0.47, `HistogramCalibrator` as intended: there arguments in wrong places make the result that of
//! the first candidate. The first of equals wins.

use burn_quant_ops::numerics::{AnyGrid, Format, Grid, IntFormat, IntSpan, ScaleFormat};

use super::{CalibrationAlgorithm, SkipReason, Stage, ranges};
use crate::config::HistogramConfig;
use crate::observe::{Histogram, Statistics, StatisticsRequest};
use burn_quant_core::quantizer::TensorQuantizer;

/// Ranges of activations by their squared rounding error.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HistogramMse {
    pub(crate) start_bin: usize,
    pub(crate) stride: usize,
    pub(crate) histogram: HistogramConfig,
}

impl CalibrationAlgorithm for HistogramMse {
    fn name(&self) -> &str {
        "histogram_mse"
    }

    fn stage(&self) -> Stage {
        Stage::Clip
    }

    fn needs_data(&self) -> bool {
        true
    }

    fn request(&self, quantizer: &TensorQuantizer) -> Result<StatisticsRequest, SkipReason> {
        ranges::histogram(quantizer, self.histogram)
    }

    fn range(&self, quantizer: &TensorQuantizer, seen: &Statistics) -> Result<Vec<f32>, SkipReason> {
        let histogram = seen.histogram.as_ref().ok_or(SkipReason::NoData)?;
        let amax = histogram_mse(histogram, quantizer.config().format, self.start_bin, self.stride);
        amax.map(|amax| vec![amax]).ok_or(SkipReason::NoGain)
    }
}

/// Finds the range of least squared error for a format; `None` if fewer than `start_bin` bins are in use. A stride of 0
/// counts as 1.
///
/// # Example
///
/// ```
/// use burn_quant::calibrate::{Histogram, histogram_mse};
/// use burn_quant::config::{Format, HistogramConfig, IntFormat};
///
/// let mut values: Vec<f32> = (0..10_000).map(|i| i as f32 / 10_000.0).collect();
/// values.push(4.0); // an outlier: clipping it costs less than rounding all else four times as coarsely
/// let seen = Histogram::of(&values, &HistogramConfig::default());
/// assert!(histogram_mse(&seen, Format::Int(IntFormat::signed(4).unwrap()), 128, 1).unwrap() < 2.0);
/// ```
pub fn histogram_mse(seen: &Histogram, format: Format, start_bin: usize, stride: usize) -> Option<f32> {
    // magnitudes only: the extra code of two's complement is on the other side
    let narrow =
        |int: IntFormat| IntFormat::new(int.bits(), int.signedness(), IntSpan::Narrow).map_or(format, Format::Int);
    let grid = AnyGrid::new(if let Format::Int(int) = format { narrow(int) } else { format }, ScaleFormat::F32, 0.0);
    let bins: Vec<(f32, f64)> = (0..seen.counts.len())
        .map(|bin| (seen.centre(bin), seen.counts[bin] as f64))
        .filter(|(_, n)| *n > 0.0)
        .collect();
    let error = |amax: f32| {
        let scale = grid.scale(amax);
        bins.iter().map(|(x, n)| n * f64::from(grid.fake_quant(*x, scale) - x).powi(2)).sum::<f64>()
    };
    let candidates = (start_bin..seen.counts.len()).step_by(stride.max(1)).map(|bin| seen.centre(bin));
    let errors = candidates.map(|amax| (amax, error(amax)));
    errors.reduce(|best, next| if next.1 < best.1 { next } else { best }).map(|(amax, _)| amax)
}
