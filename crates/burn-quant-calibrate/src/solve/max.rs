//! Range that clips nothing that was seen.
//!
//! ```text
//! amax[g] = max |x| over all values of group g
//! ```
//!
//! Source: ModelOpt 0.47, `MaxCalibrator`: the running maximum of every batch's largest magnitude, bit for bit.

use crate::observe::Statistics;

/// The largest magnitude of each group, in the units of the tensor.
pub fn max(seen: &Statistics) -> Vec<f32> {
    seen.amax.clone()
}
