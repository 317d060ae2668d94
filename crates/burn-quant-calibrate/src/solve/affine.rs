//! Bias, and the range around it.
//!
//! ```text
//! b[g] = Σ_calls mean_call[g] / calls           method mean: batches count alike, whatever their size
//! b[g] = (max x + min x) / 2                    method max_min
//! amax[a] = max over the values of a of max(|max x − b|, |min x − b|)
//! ```
//!
//! Source: ModelOpt 0.47, `BiasCalibrator`. There each batch is centred by the mean of the batches so far; here all are
//! by the final one, which needs no order of batches and merges exactly.

use burn_quant_ops::Groups;

use crate::observe::BiasStatistics;
use burn_quant_core::config::BiasMethod;

/// The bias of each of its groups, and the range of each range group around it, in the units of the tensor.
///
/// `biases` and `ranges` divide a tensor of the shape `seen.extent`.
pub fn affine(
    seen: &BiasStatistics,
    calls: u64,
    method: BiasMethod,
    biases: &Groups,
    ranges: &Groups,
) -> (Vec<f32>, Vec<f32>) {
    let values = || seen.lowest.iter().zip(&seen.highest).enumerate();
    let bias: Vec<f32> = match method {
        BiasMethod::Mean => seen.means.iter().map(|sum| sum / calls as f32).collect(),
        BiasMethod::MaxMin => {
            let mut ends = vec![(f32::INFINITY, f32::NEG_INFINITY); biases.len()];
            for (i, (lowest, highest)) in values() {
                let end = &mut ends[biases.of_element(i)];
                *end = (end.0.min(*lowest), end.1.max(*highest));
            }
            ends.into_iter().map(|(lowest, highest)| (highest + lowest) * 0.5).collect()
        }
    };
    let mut amax = vec![0f32; ranges.len()];
    for (i, (lowest, highest)) in values() {
        let bias = bias[biases.of_element(i)];
        let range = &mut amax[ranges.of_element(i)];
        *range = range.max((lowest - bias).abs()).max((highest - bias).abs());
    }
    (bias, amax)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bias_centres_each_row_and_the_range_is_what_remains() {
        // two rows, seen in two batches: 9..11 and -3..1
        let seen = BiasStatistics {
            extent: vec![2, 1],
            means: vec![19.0, -3.0], // sums of two means
            lowest: vec![9.0, -3.0],
            highest: vec![11.0, 1.0],
        };
        let (rows, whole) = (Groups::per_channel(&[2, 1], 0), Groups::per_tensor(&[2, 1]));
        assert_eq!(affine(&seen, 2, BiasMethod::Mean, &rows, &whole), (vec![9.5, -1.5], vec![2.5]));
        assert_eq!(affine(&seen, 2, BiasMethod::MaxMin, &rows, &rows), (vec![10.0, -1.0], vec![1.0, 2.0]));
    }
}
