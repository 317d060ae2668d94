//! Microscaling (MX): blocks that share a power of two.
//!
//! ```text
//! A = max |x_i| over the block            NaN counts as nothing, infinity as the largest f32
//! e = clamp(⌈log2(A / max)⌉, −127, 127)   0 if A = 0
//! y = Q(x · 2^−e) · 2^e
//! ```
//!
//! The exponent is rounded *up*, with the true maximum of the element format (6, 28, 7.5, 448, 57344, 127), so that
//! nothing saturates; the OCP specification rounds `log2 A` down, and its blocks clip. An integer format uses its
//! symmetric codes.
//!
//! Source: ModelOpt 0.47, fused MX kernels; the format is that of the Open Compute Project 2023, "OCP Microscaling
//! Formats (MX) Specification", version 1.0. Division is IEEE 754's, where ModelOpt's is approximate, and elements that
//! are NaN stay NaN, where ModelOpt makes them the largest value with an undefined sign.

use crate::grid::{finite_amax, finite_magnitude};
use crate::{Grid, Scale};

/// A power of two between `2^-127` and `2^127` in one byte; `255` is NaN.
///
/// # Example
///
/// ```
/// use burn_quant_numerics::E8m0;
///
/// let scale = E8m0::for_range(5.1, 6.0); // 5.1 / 6 rounds up to 1
/// assert_eq!((scale.value(), scale.byte()), (1.0, 127));
/// assert_eq!(E8m0::from_byte(120).value(), 1.0 / 128.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct E8m0(u8);

impl E8m0 {
    /// The power of two of a byte.
    pub const fn from_byte(byte: u8) -> Self {
        Self(byte)
    }

    /// Returns the byte: the exponent with bias 127.
    ///
    /// It is what MX files store per block.
    pub const fn byte(self) -> u8 {
        self.0
    }

    /// The least power of two that brings values up to `amax` within `max`; one for an amax that is zero or not finite.
    pub fn for_range(amax: f32, max: f32) -> Self {
        Self((exponent(amax, max) + 127) as u8)
    }

    /// Returns the power of two.
    ///
    /// `2^(byte − 127)`.
    pub fn value(self) -> f32 {
        if self.0 == 255 { f32::NAN } else { power_of_two(i32::from(self.0) - 127) }
    }
}

/// `clamp(⌈log2(amax / max)⌉, −127, 127)`, 0 for an amax that is zero or not finite.
#[inline(always)]
fn exponent(amax: f32, max: f32) -> i32 {
    let bits = (amax / max).to_bits();
    let field = (bits >> 23) as i32;
    let significand = bits & 0x007f_ffff;
    // subnormal ratios: at most 2^-127 is the lowest exponent, more is the next
    let up = if field == 0 { significand > 0x0040_0000 } else { significand != 0 };
    let exponent = (field - 127 + i32::from(up)).min(127);
    if amax > 0.0 && amax < f32::INFINITY { exponent } else { 0 }
}

/// `2^exponent` for `−127..=127`.
#[inline(always)]
fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(if exponent == -127 { 0x0040_0000 } else { ((exponent + 127) as u32) << 23 })
}

/// A grid whose scales are powers of two: MXFP8, MXFP6, MXFP4, MXINT8.
///
/// # Example
///
/// ```
/// use burn_quant_numerics::{Grid, Minifloat, Mx};
///
/// let mxfp4 = Mx(Minifloat::E2M1);
/// let block = [0.11, -0.27, 0.52, 0.9, -1.3, 2.2, -3.7, 5.1];
/// let scale = mxfp4.scale(mxfp4.amax(&block));
/// assert_eq!(block.map(|x| mxfp4.fake_quant(x, scale)), [0.0, -0.5, 0.5, 1.0, -1.5, 2.0, -4.0, 6.0]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mx<G>(pub G);

impl<G: Grid> Grid for Mx<G> {
    #[inline(always)]
    fn max(self) -> f32 {
        self.0.max()
    }

    #[inline(always)]
    fn scale(self, amax: f32) -> Scale {
        let exponent = exponent(amax, self.0.max());
        Scale { to_grid: power_of_two(-exponent), from_grid: power_of_two(exponent) }
    }

    #[inline(always)]
    fn round(self, units: f32) -> f32 {
        self.0.round(units)
    }

    #[inline(always)]
    fn dequantize(self, units: f32, scale: Scale) -> f32 {
        units * scale.from_grid
    }

    #[inline(always)]
    fn amax(self, x: &[f32]) -> f32 {
        finite_amax(x)
    }

    #[inline(always)]
    fn magnitude(self, x: f32) -> u32 {
        finite_magnitude(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IntFormat, IntSpan, Minifloat, Signedness};

    fn block<G: Grid>(grid: G, x: [f32; 8]) -> [f32; 8] {
        let scale = Mx(grid).scale(Mx(grid).amax(&x));
        x.map(|x| Mx(grid).fake_quant(x, scale))
    }

    /// Input B of the reference.
    #[test]
    fn the_vectors_of_the_reference() {
        let b = [0.11, -0.27, 0.52, 0.9, -1.3, 2.2, -3.7, 5.1];
        let int8 = IntFormat::new(8, Signedness::Signed, IntSpan::Narrow).unwrap().grid();
        assert_eq!(block(Minifloat::E2M1, b), [0.0, -0.5, 0.5, 1.0, -1.5, 2.0, -4.0, 6.0]);
        assert_eq!(block(Minifloat::E3M2, b), [0.109375, -0.25, 0.5, 0.875, -1.25, 2.0, -3.5, 5.0]);
        assert_eq!(block(Minifloat::E2M3, b), [0.125, -0.25, 0.5, 0.875, -1.25, 2.25, -3.75, 5.0]);
        assert_eq!(block(Minifloat::E4M3, b), [0.109375, -0.28125, 0.5, 0.875, -1.25, 2.25, -3.75, 5.0]);
        assert_eq!(block(Minifloat::E5M2, b), [0.109375, -0.25, 0.5, 0.875, -1.25, 2.0, -3.5, 5.0]);
        assert_eq!(block(int8, b), [0.125, -0.25, 0.5, 0.875, -1.3125, 2.1875, -3.6875, 5.125]);
        assert_eq!(E8m0::for_range(5.1, 448.0).byte(), 121);
        let x = [0.999, 0.79, 0.298, 0.795, 0.928, 0.19, 0.187, 0.4];
        let y = [1.0, 0.796875, 0.296875, 0.796875, 0.921875, 0.1875, 0.1875, 0.40625];
        assert_eq!(block(int8, x), y);
    }

    #[test]
    fn every_byte_decodes_and_encodes_to_itself() {
        for byte in 0..255u8 {
            let power = E8m0::from_byte(byte).value();
            assert_eq!(E8m0::for_range(power, 1.0).byte(), byte, "2^{}", i32::from(byte) - 127);
        }
        assert!(E8m0::from_byte(255).value().is_nan());
    }

    #[test]
    fn the_exponent_rounds_up_except_from_a_power_of_two() {
        for (amax, byte) in [
            (6.0, 127),
            (6.000_001, 128),
            (5.999_999, 127),
            (3.0, 126),
            (0.0, 127),
            (f32::INFINITY, 127),
            (f32::NAN, 127),
            (f32::MIN_POSITIVE / 1024.0, 0),
            (f32::MAX, 253),
        ] {
            assert_eq!(E8m0::for_range(amax, 6.0).byte(), byte, "amax {amax:e}");
        }
    }

    #[test]
    fn nan_and_infinity_leave_the_rest_of_their_block_alone() {
        let x = [1.0, f32::NAN, -3.0, 0.5, 0.0, 2.0, 6.0, 1.5];
        let y = block(Minifloat::E2M1, x);
        assert!(y[1].is_nan());
        assert_eq!([y[0], y[2], y[3], y[6]], [1.0, -3.0, 0.5, 6.0]);
        // an infinity counts as the largest f32, which rounds to beyond it; it scales small ones to nothing
        let y = block(Minifloat::E4M3, [f32::NEG_INFINITY, 1.0, 1e30, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!((y[0], y[1]), (f32::NEG_INFINITY, 0.0));
    }

    #[test]
    fn a_block_with_one_huge_value_keeps_only_that() {
        let y = block(Minifloat::E2M1, [360_000.0, 1.0, 2.0, 6.0, -6.0, 0.5, 0.0, 3.0]);
        assert_eq!(y, [393_216.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }
}
