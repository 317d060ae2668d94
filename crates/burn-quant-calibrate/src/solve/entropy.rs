//! The range under which the codes keep most of the information of the data.
//!
//! ```text
//! amax = edge_i,   i = argmin KL(p_i ‖ q_i)       the last of equals,   i = start, start + stride, ...
//! p_i   the first i bins, everything beyond added to the last of them
//! q_i   the same bins merged into L cells, each cell's mean given to its bins that are not empty
//! L = 2^(bits − 1), or 2^bits without a sign
//! ```
//!
//! Source: Migacz 2017, "8-bit Inference with TensorRT"; ModelOpt 0.47, `HistogramCalibrator`. The first bin, which
//! holds the zeros, counts as the second does.

use burn_quant_ops::numerics::{Format, IntFormat, Signedness};

use super::{CalibrationAlgorithm, SkipReason, Stage, ranges};
use crate::config::HistogramConfig;
use crate::observe::{Histogram, Statistics, StatisticsRequest};
use burn_quant_core::quantizer::TensorQuantizer;

/// Ranges of activations by the information that their codes keep.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entropy {
    pub(crate) start_bin: usize,
    pub(crate) stride: usize,
    pub(crate) histogram: HistogramConfig,
}

impl CalibrationAlgorithm for Entropy {
    fn name(&self) -> &str {
        "entropy"
    }

    fn stage(&self) -> Stage {
        Stage::Clip
    }

    fn needs_data(&self) -> bool {
        true
    }

    fn request(&self, quantizer: &TensorQuantizer) -> Result<StatisticsRequest, SkipReason> {
        let request = ranges::histogram(quantizer, self.histogram)?;
        let integer = matches!(quantizer.config().format, Format::Int(_));
        if integer { Ok(request) } else { Err(SkipReason::NotInteger) }
    }

    fn range(&self, quantizer: &TensorQuantizer, seen: &Statistics) -> Result<Vec<f32>, SkipReason> {
        let Format::Int(format) = quantizer.config().format else { return Err(SkipReason::NotInteger) };
        let histogram = seen.histogram.as_ref().ok_or(SkipReason::NoData)?;
        let amax = entropy(histogram, format, self.start_bin, self.stride).filter(|amax| *amax > 0.0);
        amax.map(|amax| vec![amax]).ok_or(SkipReason::NoGain)
    }
}

/// Finds the range of least divergence for an integer format; `None` if fewer than `start_bin` bins are in use.
///
/// A range has one bin at least, and the next is one bin further at least: zeros count as one.
///
/// # Example
///
/// ```
/// use burn_quant::calibrate::{Histogram, entropy};
/// use burn_quant::config::{HistogramConfig, IntFormat};
///
/// // uniform values below 1, and one outlier: it is not worth nine tenths of the codes
/// let mut values: Vec<f32> = (0..100_000).map(|i| i as f32 / 100_000.0).collect();
/// values.push(10.0);
/// let seen = Histogram::of(&values, &HistogramConfig::default());
/// assert!(entropy(&seen, IntFormat::signed(8).unwrap(), 128, 1).unwrap() < 1.1);
/// ```
pub fn entropy(seen: &Histogram, format: IntFormat, start_bin: usize, stride: usize) -> Option<f32> {
    let (start_bin, stride) = (start_bin.max(1), stride.max(1));
    let mut counts: Vec<f64> = seen.counts.iter().map(|count| *count as f64).collect();
    if counts.len() < start_bin {
        return None;
    }
    if counts.len() > 1 {
        counts[0] = counts[1];
    }
    let levels = 1usize << (format.bits() - u8::from(format.signedness() == Signedness::Signed));
    let total: f64 = counts.iter().sum();
    let mut least = (f64::INFINITY, start_bin);
    let mut beyond = total - counts[..start_bin].iter().sum::<f64>();
    let mut end = start_bin;
    loop {
        let divergence = divergence(&counts[..end], beyond.max(0.0), levels, total);
        if divergence <= least.0 {
            least = (divergence, end);
        }
        if end + stride > counts.len() {
            break;
        }
        beyond -= counts[end..end + stride].iter().sum::<f64>();
        end += stride;
    }
    Some(seen.edge(least.1))
}

/// `KL(p ‖ q)` of the first bins, with everything beyond added to the last.
fn divergence(counts: &[f64], beyond: f64, levels: usize, total: f64) -> f64 {
    let bins = counts.len();
    // the totals of p and q: what is beyond is in p alone
    let inside: f64 = counts.iter().sum();
    let (mut sum, mut bin, mut cell) = (0.0, 0, 0);
    while bin < bins {
        // bins whose lower edge is in the cell: cell boundaries are multiples of bins / levels
        let next = (cell + 1) as f64 * (bins as f64 / levels as f64);
        let end = if cell + 1 >= levels { bins } else { (next.ceil() as usize).clamp(bin, bins) };
        let here = &counts[bin..end];
        let filled = here.iter().filter(|count| **count > 0.0).count();
        let mean = here.iter().sum::<f64>() / filled.max(1) as f64;
        for (i, count) in here.iter().enumerate() {
            let p = if bin + i + 1 == bins { count + beyond } else { *count };
            if p > 0.0 {
                let q = if *count > 0.0 { mean } else { 0.0 };
                sum += p / total * (p / total * inside / q).ln();
            }
        }
        bin = end;
        cell += 1;
    }
    sum
}
