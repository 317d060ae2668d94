//! The range that ends a number of standard deviations above the mean magnitude.
//!
//! ```text
//! amax = min(μ + k σ, max |x|)        μ, σ: of |x|, from the centres of the bins of a histogram
//! ```

use burn_quant::TensorQuantizer;
use burn_quant::calibrate::{CalibrationAlgorithm, SkipReason, Stage, Statistics, StatisticsRequest};
use burn_quant::config::{Granularity, HistogramConfig, RangeSource, ScaleFormat};

/// Ranges of activations by the mean and the deviation of their magnitudes.
#[derive(Clone, Copy, Debug)]
pub struct MeanDeviation {
    /// How many standard deviations the range ends above the mean, `k`.
    pub count: f64,
}

impl CalibrationAlgorithm for MeanDeviation {
    fn name(&self) -> &str {
        "mean_deviation"
    }

    fn stage(&self) -> Stage {
        Stage::Clip
    }

    fn needs_data(&self) -> bool {
        true
    }

    fn request(&self, quantizer: &TensorQuantizer) -> Result<StatisticsRequest, SkipReason> {
        let config = quantizer.config();
        if config.range != RangeSource::Static || !config.has_static_range() {
            return Err(SkipReason::DynamicRange);
        }
        if config.granularity != Granularity::PerTensor || config.scale != ScaleFormat::F32 || config.bias.is_some() {
            return Err(SkipReason::NotPerTensor);
        }
        Ok(StatisticsRequest::new().with_histogram(HistogramConfig::default()))
    }

    fn range(&self, _: &TensorQuantizer, seen: &Statistics) -> Result<Vec<f32>, SkipReason> {
        let histogram = seen.histogram.as_ref().ok_or(SkipReason::NoData)?;
        let bins = || histogram.counts.iter().enumerate().map(|(bin, n)| (f64::from(histogram.centre(bin)), *n as f64));
        let total: f64 = bins().map(|(_, n)| n).sum();
        let mean = bins().map(|(x, n)| x * n).sum::<f64>() / total;
        let variance = bins().map(|(x, n)| (x - mean).powi(2) * n).sum::<f64>() / total;
        let largest = seen.amax.iter().copied().fold(0.0, f32::max);
        let amax = ((mean + self.count * variance.sqrt()) as f32).min(largest);
        if amax > 0.0 && amax < largest { Ok(vec![amax]) } else { Err(SkipReason::NoGain) }
    }
}
