//! Minifloats: floats of 4 to 8 bits with saturating, half-to-even rounding.
//!
//! ```text
//! s = max · (1 / amax)                  two roundings; amax <= 2^-24 counts as 1
//! y = Q(clamp(x · s, ±max)) · (1 / s)
//!
//! Q(v) = (|v| + m) − m                  m = 1.5·2^(23−M) · max(2^⌊log2 |v|⌋, 2^(1−bias)), sign of v
//! ```
//!
//! Adding `m` rounds to `M` mantissa bits, half to even, as in [`round_half_to_even`](crate::round_half_to_even); below
//! `2^(1−bias)`, the smallest normal number, the step stays at that of the subnormals. Half to even is half to the even
//! code, as codes order like magnitudes.
//!
//! Source: Micikevicius et al. 2022, "FP8 formats for deep learning", arXiv:2209.05433; Open Compute Project 2023, "OCP
//! Microscaling Formats (MX) Specification", version 1.0; arithmetic of ModelOpt 0.47, FP8 fake quantization (on
//! tensors `448 / amax` is a product with the reciprocal).

use crate::round::clip;
use crate::{Grid, MIN_AMAX, Scale};

const EXPONENT_FIELD: u32 = 0x7f80_0000;
const SIGN: u32 = 0x8000_0000;

/// A float of `1 + E + M` bits with bias `2^(E−1) − 1`, subnormals, and no infinities in its arithmetic.
///
/// # Example
///
/// ```
/// use burn_quant_numerics::{Grid, Minifloat};
///
/// let e2m1 = Minifloat::E2M1;
/// let values: Vec<f32> = (0..8).map(|code| e2m1.decode(code)).collect();
/// assert_eq!(values, [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
/// assert_eq!([2.5, 3.5, -5.0, 100.0].map(|x| e2m1.round(x)), [2.0, 4.0, -4.0, 6.0]); // ties to the even code
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Minifloat {
    exponent_bits: u8,
    mantissa_bits: u8,
    max: f32,
    /// `2^(1−bias)`.
    min_normal: f32,
    /// `1.5·2^(23−M)`: times a power of two `p`, a number whose neighbours are `p·2^-M` away.
    spacing: f32,
}

impl Minifloat {
    /// 8 bits, largest value 448, one NaN per sign.
    pub const E4M3: Self = Self::new(4, 3, 448.0);
    /// 8 bits, largest value 57344, infinities and NaN as IEEE 754 has them.
    pub const E5M2: Self = Self::new(5, 2, 57344.0);
    /// 6 bits, largest value 28, no NaN.
    pub const E3M2: Self = Self::new(3, 2, 28.0);
    /// 6 bits, largest value 7.5, no NaN.
    pub const E2M3: Self = Self::new(2, 3, 7.5);
    /// 4 bits, largest value 6, no NaN.
    pub const E2M1: Self = Self::new(2, 1, 6.0);
    /// 4 bits, largest value 3.5, no NaN.
    pub const E1M2: Self = Self::new(1, 2, 3.5);

    /// All of them.
    pub const ALL: [Self; 6] = [Self::E4M3, Self::E5M2, Self::E3M2, Self::E2M3, Self::E2M1, Self::E1M2];

    const fn new(exponent_bits: u8, mantissa_bits: u8, max: f32) -> Self {
        let bias = (1u32 << (exponent_bits - 1)) - 1;
        let min_normal = f32::from_bits((1 + 127 - bias) << 23);
        Self { exponent_bits, mantissa_bits, max, min_normal, spacing: (3u32 << (22 - mantissa_bits)) as f32 }
    }

    /// Returns the bits per value, with the sign.
    ///
    /// 8 for E4M3.
    pub const fn bits(self) -> u8 {
        1 + self.exponent_bits + self.mantissa_bits
    }

    /// Returns the bits of the exponent.
    ///
    /// 4 for E4M3.
    pub const fn exponent_bits(self) -> u8 {
        self.exponent_bits
    }

    /// Returns the bits of the mantissa, without the leading one.
    ///
    /// 3 for E4M3.
    pub const fn mantissa_bits(self) -> u8 {
        self.mantissa_bits
    }

    /// Returns the largest value.
    ///
    /// 448 for E4M3.
    pub const fn largest(self) -> f32 {
        self.max
    }

    /// Returns the smallest normal value.
    ///
    /// 2⁻⁶ for E4M3; smaller values are subnormal.
    pub const fn min_normal(self) -> f32 {
        self.min_normal
    }

    /// The code of a value: sign, exponent, mantissa from the highest of [`bits`](Minifloat::bits) bits down.
    ///
    /// Saturates, infinities included. NaN keeps its sign and the upper bits of its payload where the format has NaN,
    /// and saturates where it has none.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant_numerics::Minifloat;
    ///
    /// let e4m3 = Minifloat::E4M3;
    /// assert_eq!(e4m3.encode(1.0625), e4m3.encode(1.0)); // tie to even
    /// assert_eq!(e4m3.decode(e4m3.encode(-17.0)), -16.0);
    /// ```
    pub fn encode(self, x: f32) -> u8 {
        let (exponent_bits, mantissa_bits) = (u32::from(self.exponent_bits), u32::from(self.mantissa_bits));
        let sign = ((x.to_bits() >> 31) << (exponent_bits + mantissa_bits)) as u8;
        if x.is_nan() {
            return sign | self.nan_code(x);
        }
        let magnitude = self.round(x).abs();
        let code = if magnitude < self.min_normal {
            // subnormals count steps
            (magnitude / self.min_normal * (1u32 << mantissa_bits) as f32) as u8
        } else {
            let bits = magnitude.to_bits();
            let exponent = (bits >> 23) - (self.min_normal.to_bits() >> 23) + 1;
            let mantissa = (bits >> (23 - mantissa_bits)) & ((1 << mantissa_bits) - 1);
            ((exponent << mantissa_bits) | mantissa) as u8
        };
        sign | code
    }

    /// The value of a code; bits above [`bits`](Minifloat::bits) are ignored.
    pub fn decode(self, code: u8) -> f32 {
        let (exponent_bits, mantissa_bits) = (u32::from(self.exponent_bits), u32::from(self.mantissa_bits));
        let code = u32::from(code);
        let sign = (code >> (exponent_bits + mantissa_bits)) << 31;
        let exponent = (code >> mantissa_bits) & ((1 << exponent_bits) - 1);
        let mantissa = code & ((1 << mantissa_bits) - 1);
        let magnitude = if self.is_special(exponent, mantissa) {
            EXPONENT_FIELD | if self == Self::E5M2 { mantissa << 21 } else { 1 << 22 }
        } else if exponent == 0 {
            (mantissa as f32 * self.min_normal / (1u32 << mantissa_bits) as f32).to_bits()
        } else {
            ((exponent - 1 + (self.min_normal.to_bits() >> 23)) << 23) | (mantissa << (23 - mantissa_bits))
        };
        f32::from_bits(magnitude | sign)
    }

    /// Whether a code means infinity or NaN: the top exponent of E5M2, the top code of E4M3.
    fn is_special(self, exponent: u32, mantissa: u32) -> bool {
        (self == Self::E5M2 && exponent == 31) || (self == Self::E4M3 && exponent == 15 && mantissa == 7)
    }

    fn nan_code(self, nan: f32) -> u8 {
        if self == Self::E4M3 {
            0x7f
        } else if self == Self::E5M2 {
            let payload = (nan.to_bits() >> 21) & 3;
            0x7c | if payload == 0 { 1 } else { payload as u8 }
        } else {
            (1 << (self.bits() - 1)) - 1
        }
    }
}

impl Grid for Minifloat {
    #[inline(always)]
    fn max(self) -> f32 {
        self.max
    }

    #[inline(always)]
    fn scale(self, amax: f32) -> Scale {
        let amax = if amax <= MIN_AMAX { 1.0 } else { amax };
        let to_grid = self.max * (1.0 / amax);
        Scale { to_grid, from_grid: 1.0 / to_grid }
    }

    #[inline(always)]
    fn round(self, units: f32) -> f32 {
        let units = clip(units, -self.max, self.max);
        let magnitude = f32::from_bits(units.to_bits() & !SIGN);
        let power = f32::from_bits(units.to_bits() & EXPONENT_FIELD);
        let power = if power < self.min_normal { self.min_normal } else { power };
        let spacing = power * self.spacing;
        let rounded = (magnitude + spacing) - spacing;
        f32::from_bits(rounded.to_bits() | (units.to_bits() & SIGN))
    }

    #[inline(always)]
    fn dequantize(self, units: f32, scale: Scale) -> f32 {
        units * scale.from_grid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_decodes_and_encodes_to_itself() {
        for format in Minifloat::ALL {
            for code in 0..=u8::MAX >> (8 - format.bits()) {
                let value = format.decode(code);
                if value.is_infinite() {
                    assert!(format == Minifloat::E5M2 && code & 0x7f == 0x7c, "{format:?} {code:#04x}");
                    assert_eq!(format.encode(value), code - 1, "what is beyond the range saturates");
                } else {
                    assert_eq!(format.encode(value), code, "{format:?} {code:#04x} = {value}");
                }
            }
        }
    }

    #[test]
    fn the_values_of_the_small_formats_are_those_of_their_tables() {
        let values = |format: Minifloat, codes: core::ops::RangeInclusive<u8>| -> std::vec::Vec<f32> {
            codes.map(|code| format.decode(code)).collect()
        };
        assert_eq!(values(Minifloat::E2M1, 0..=7), [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]);
        assert_eq!(values(Minifloat::E1M2, 0..=7), [0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5]);
        assert_eq!(values(Minifloat::E3M2, 0..=5), [0.0, 0.0625, 0.125, 0.1875, 0.25, 0.3125]);
        assert_eq!(values(Minifloat::E3M2, 28..=31), [16.0, 20.0, 24.0, 28.0]);
        assert_eq!(values(Minifloat::E2M3, 0..=9), [0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0, 1.125]);
        assert_eq!(values(Minifloat::E2M3, 30..=31), [7.0, 7.5]);
        assert_eq!(values(Minifloat::E5M2, 0..=1), [0.0, 2f32.powi(-16)]);
        assert_eq!(values(Minifloat::E5M2, 0x7a..=0x7b), [49152.0, 57344.0]);
        assert_eq!(values(Minifloat::E4M3, 0x7d..=0x7e), [416.0, 448.0]);
    }

    #[test]
    fn nan_and_infinity_are_stored_where_the_format_has_a_code_and_saturate_elsewhere() {
        assert_eq!([f32::NAN, f32::INFINITY].map(|x| Minifloat::E4M3.encode(x)), [0x7f, 0x7e]);
        assert_eq!([f32::NAN, f32::NEG_INFINITY].map(|x| Minifloat::E5M2.encode(x)), [0x7e, 0xfb]);
        assert_eq!([f32::NAN, f32::NEG_INFINITY].map(|x| Minifloat::E2M1.encode(x)), [7, 15]);
        assert!(Minifloat::E2M1.round(f32::NAN).is_nan());
    }

    #[test]
    fn the_ties_of_the_reference() {
        let p = |e: i32| 2.0f32.powi(e);
        for (x, y) in [(1.0625, 1.0), (1.1875, 1.25), (17.0, 16.0), (19.0, 20.0), (p(-10), 0.0), (3.0 * p(-10), p(-8))]
        {
            assert_eq!(Minifloat::E4M3.round(x), y, "x = {x}");
            assert_eq!(Minifloat::E4M3.round(-x), -y, "x = -{x}");
        }
        for (x, y) in [(0.25, 0.0), (0.75, 1.0), (1.25, 1.0), (1.75, 2.0), (2.5, 2.0), (3.5, 4.0), (5.0, 4.0)] {
            assert_eq!(Minifloat::E2M1.round(x), y, "x = {x}");
            assert_eq!(Minifloat::E2M1.round(-x), -y, "x = -{x}");
        }
    }

    /// The oracle walks the sorted grid in f64; ties go to the even code.
    #[test]
    fn every_f16_rounds_to_the_nearest_grid_point_of_every_format() {
        for format in Minifloat::ALL {
            let codes = 0..1u8 << (format.bits() - 1);
            let grid: std::vec::Vec<f64> =
                codes.map(|code| f64::from(format.decode(code))).filter(|value| value.is_finite()).collect();
            for bits in 0..=0xffffu16 {
                let x = half::f16::from_bits(bits);
                let rounded = format.round(x.to_f32());
                if x.is_nan() {
                    assert!(rounded.is_nan());
                    continue;
                }
                let nearest = crate::oracle::nearest(&grid, x.to_f64().abs());
                assert_eq!(f64::from(rounded).abs(), grid[nearest], "{format:?}, x = {x}");
                assert!(rounded == 0.0 || rounded.is_sign_negative() == x.is_sign_negative());
                assert_eq!(usize::from(format.encode(x.to_f32()) & !(1 << (format.bits() - 1))), nearest);
            }
        }
    }

    #[test]
    fn a_zero_amax_counts_as_one() {
        let scale = Minifloat::E4M3.scale(MIN_AMAX);
        assert_eq!([1.0, 2.0].map(|x| Minifloat::E4M3.fake_quant(x, scale)), [1.0, 1.0]);
    }
}
