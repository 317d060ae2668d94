//! The range below which a share of the magnitudes lies.
//!
//! ```text
//! amax = edge_i,   i = the first bin with Σ_{j<=i} n_j >= p · Σ n_j
//! ```
//!
//! Source: Wu et al. 2020, "Integer Quantization for Deep Learning Inference", arXiv:2004.09602, §3; ModelOpt 0.47,
//! `HistogramCalibrator`. The edge is the lower one of the bin.

use super::{CalibrationAlgorithm, SkipReason, Stage, ranges};
use crate::config::HistogramConfig;
use crate::observe::{Histogram, Statistics, StatisticsRequest};
use burn_quant_core::quantizer::TensorQuantizer;

/// Ranges of activations by a percentile of their magnitudes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Percentile {
    pub(crate) percentile: f64,
    pub(crate) histogram: HistogramConfig,
}

impl CalibrationAlgorithm for Percentile {
    fn name(&self) -> &str {
        "percentile"
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
        let _ = quantizer;
        let histogram = seen.histogram.as_ref().ok_or(SkipReason::NoData)?;
        // a range of zero rounds everything to zero: what lies below half a percent of bins keeps its largest magnitude
        let amax = percentile(histogram, self.percentile).filter(|amax| *amax > 0.0);
        amax.map(|amax| vec![amax]).ok_or(SkipReason::NoGain)
    }
}

/// The range below which `percentile` percent of the magnitudes lie; `None` if nothing was counted.
///
/// # Panics
///
/// If the percentile is not 0 to 100.
///
/// # Example
///
/// ```
/// use burn_quant::calibrate::{Histogram, percentile};
///
/// let seen = Histogram { origin: 0.0, width: 0.5, counts: vec![90, 5, 4, 1] };
/// assert_eq!(percentile(&seen, 95.0), Some(0.5));
/// assert_eq!(percentile(&seen, 99.5), Some(1.5));
/// ```
pub fn percentile(seen: &Histogram, percentile: f64) -> Option<f32> {
    assert!((0.0..=100.0).contains(&percentile), "percentile: {percentile} is not 0 to 100");
    let total = seen.total() as f64;
    let mut below = 0.0;
    let bin = seen.counts.iter().position(|count| {
        // shares are added up, as the reference does: that decides where a share falls on the border of two bins
        below += *count as f64 / total;
        below >= percentile / 100.0
    });
    (total > 0.0).then(|| seen.edge(bin.unwrap_or(seen.counts.len())))
}
