//! The range below which a share of the magnitudes lies.
//!
//! ```text
//! amax = edge_i,   i = the first bin with Σ_{j<=i} n_j >= p · Σ n_j
//! ```
//!
//! Source: Wu et al. 2020, "Integer Quantization for Deep Learning Inference", arXiv:2004.09602, §3; ModelOpt 0.47,
//! `HistogramCalibrator`. The edge is the lower one of the bin.

use crate::Histogram;

/// The range below which `percentile` percent of the magnitudes lie; `None` if nothing was counted.
///
/// # Panics
///
/// If the percentile is not 0 to 100.
///
/// # Example
///
/// ```
/// use burn_quant::{Histogram, solve::percentile};
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
