//! Integers with a zero point: the code that means 0.0 need not be 0.
//!
//! ```text
//! scale = (max − min) / (hi − lo)          min <= 0 <= max, so that zero is exact
//! zero  = clamp(rne(lo − min / scale), lo, hi)
//! q     = clamp(rne(x / scale) + zero, lo, hi)
//! y     = (q − zero) · scale
//! ```
//!
//! Source: Jacob et al. 2018, arXiv:1712.05877, §2.1; the rounding of ONNX `QuantizeLinear`. ModelOpt's affine
//! quantizers have a real-valued bias instead, which `burn-quant-ops` subtracts and adds; [`ZeroPoint::bias`] is the
//! bias that a zero point stands for.

use crate::round::clip;
use crate::{IntFormat, round_half_to_even};

/// An integer scale with a zero point.
///
/// # Example
///
/// ```
/// use burn_quant_numerics::{IntFormat, IntSpan, Signedness, ZeroPoint};
///
/// let uint8 = IntFormat::new(8, Signedness::Unsigned, IntSpan::Full)?;
/// let affine = ZeroPoint::for_range(uint8, -1.0, 3.0); // a step is 4 / 255
/// assert_eq!((affine.zero(), affine.code(-1.0), affine.code(3.0)), (64, 0, 255));
/// assert_eq!(affine.value(affine.code(0.0)), 0.0);
/// # Ok::<(), burn_quant_numerics::FormatError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ZeroPoint {
    scale: f32,
    zero: i32,
    lo: i32,
    hi: i32,
}

impl ZeroPoint {
    /// The scale and zero point for values between `min` and `max`; the range is widened to hold zero.
    ///
    /// An empty range gives the scale one, so that every value is zero but for its integer part.
    pub fn for_range(format: IntFormat, min: f32, max: f32) -> Self {
        let (lo, hi) = (format.grid().lo(), format.grid().hi());
        let (min, max) = (min.min(0.0), max.max(0.0));
        let scale = (max - min) / (hi - lo) as f32;
        let scale = if scale > 0.0 && scale.is_finite() { scale } else { 1.0 };
        let zero = clip(round_half_to_even(lo as f32 - min / scale), lo as f32, hi as f32) as i32;
        Self { scale, zero, lo, hi }
    }

    /// Returns the real units per code.
    ///
    /// It is positive.
    pub const fn scale(self) -> f32 {
        self.scale
    }

    /// Returns the code that means 0.0.
    ///
    /// The real value 0.0 is represented exactly.
    pub const fn zero(self) -> i32 {
        self.zero
    }

    /// The real value in the middle of the codes: what an affine quantizer with a bias subtracts.
    pub fn bias(self) -> f32 {
        ((self.lo + self.hi + 1) / 2 - self.zero) as f32 * self.scale
    }

    /// The code of a real value; NaN has none and gives the zero point.
    pub fn code(self, x: f32) -> i32 {
        let (lo, hi) = ((self.lo - self.zero) as f32, (self.hi - self.zero) as f32);
        round_half_to_even(clip(x / self.scale, lo, hi)) as i32 + self.zero
    }

    /// Returns the real value of a code.
    ///
    /// `(code − zero) · scale`.
    pub fn value(self, code: i32) -> f32 {
        (code - self.zero) as f32 * self.scale
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IntSpan, Signedness};

    fn formats() -> impl Iterator<Item = IntFormat> {
        IntFormat::BITS.flat_map(|bits| {
            [Signedness::Signed, Signedness::Unsigned].map(|sign| IntFormat::new(bits, sign, IntSpan::Full).unwrap())
        })
    }

    #[test]
    fn every_code_survives_a_round_trip_and_zero_is_exact() {
        for format in formats() {
            for (min, max) in [(-1.0, 3.0), (0.0, 0.7), (-5.0, 0.0), (2.0, 3.0), (-1.0e-3, 1.0e3)] {
                let affine = ZeroPoint::for_range(format, min, max);
                assert_eq!(affine.value(affine.code(0.0)), 0.0);
                for code in format.grid().lo()..=format.grid().hi() {
                    assert_eq!(affine.code(affine.value(code)), code, "{format} for {min}..{max}");
                }
            }
        }
    }

    #[test]
    fn values_beyond_the_range_saturate_and_nan_is_the_zero_point() {
        let affine = ZeroPoint::for_range(IntFormat::signed(8).unwrap(), -1.0, 3.0);
        assert_eq!([-9.0, 9.0, f32::INFINITY].map(|x| affine.code(x)), [-128, 127, 127]);
        assert_eq!(affine.code(f32::NAN), affine.zero());
        assert_eq!(ZeroPoint::for_range(IntFormat::signed(8).unwrap(), 0.0, 0.0).scale(), 1.0);
    }
}
