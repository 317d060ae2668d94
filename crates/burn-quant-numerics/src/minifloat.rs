//! E4M3: the 8-bit float with 4 exponent and 3 mantissa bits, no infinities, largest value 448.
//!
//! ```text
//! s = 448 · (1 / amax)                  two roundings; amax <= 2^-24 counts as 1
//! y = E4M3(clamp(x · s, ±448)) · (1 / s)
//!
//! E4M3(v) = (|v| + m) − m               m = 1.5·2^20 · max(2^⌊log2 |v|⌋, 2^-6), sign of v
//! ```
//!
//! Adding `m` rounds to 3 mantissa bits, half to even, as in [`round_half_to_even`](crate::round_half_to_even); below
//! 2^-6, the smallest normal number, the step stays at the 2^-9 of the subnormals.
//!
//! Source: Micikevicius et al. 2022, "FP8 formats for deep learning", arXiv:2209.05433; arithmetic of ModelOpt 0.47,
//! FP8 fake quantization (on tensors `448 / amax` is a product with the reciprocal).

use crate::round::clip;
use crate::{Grid, MIN_AMAX, Scale};

const MAX: f32 = 448.0;
/// `2^-6`.
const MIN_NORMAL: f32 = 0.015_625;
/// `1.5·2^(23−3)`: times a power of two `p`, a number whose neighbours are `p/8` away.
const MANTISSA_SPACING: f32 = 1_572_864.0;
const EXPONENT_BITS: u32 = 0x7f80_0000;

/// The grid of E4M3 values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct E4m3;

impl E4m3 {
    /// The byte of a value: sign, 4 exponent bits with bias 7, 3 mantissa bits; saturates, NaN is `0x7f`.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant_numerics::E4m3;
    ///
    /// assert_eq!(E4m3::encode(1.0625), E4m3::encode(1.0)); // tie to even
    /// assert_eq!(E4m3::decode(E4m3::encode(-17.0)), -16.0);
    /// ```
    pub fn encode(x: f32) -> u8 {
        if x.is_nan() {
            return 0x7f;
        }
        let magnitude = Self.round(x).abs();
        let sign = ((x.to_bits() >> 24) & 0x80) as u8;
        let code = if magnitude < MIN_NORMAL {
            (magnitude * 512.0) as u8 // subnormals count steps of 2^-9
        } else {
            let bits = magnitude.to_bits();
            let exponent = (bits >> 23) - (127 - 7);
            ((exponent << 3) | ((bits >> 20) & 7)) as u8
        };
        sign | code
    }

    /// The value of a byte.
    pub fn decode(byte: u8) -> f32 {
        let (exponent, mantissa) = (u32::from(byte >> 3) & 15, u32::from(byte & 7));
        let magnitude = match (exponent, mantissa) {
            (15, 7) => f32::NAN,
            (0, steps) => steps as f32 / 512.0,
            _ => f32::from_bits(((exponent + 127 - 7) << 23) | (mantissa << 20)),
        };
        if byte & 0x80 == 0 { magnitude } else { -magnitude }
    }
}

impl Grid for E4m3 {
    #[inline(always)]
    fn max(self) -> f32 {
        MAX
    }

    #[inline(always)]
    fn scale(self, amax: f32) -> Scale {
        let amax = if amax <= MIN_AMAX { 1.0 } else { amax };
        let to_grid = MAX * (1.0 / amax);
        Scale { to_grid, from_grid: 1.0 / to_grid }
    }

    #[inline(always)]
    fn round(self, units: f32) -> f32 {
        let units = clip(units, -MAX, MAX);
        let magnitude = f32::from_bits(units.to_bits() & 0x7fff_ffff);
        let power = f32::from_bits(units.to_bits() & EXPONENT_BITS);
        let power = if power < MIN_NORMAL { MIN_NORMAL } else { power };
        let spacing = power * MANTISSA_SPACING;
        let rounded = (magnitude + spacing) - spacing;
        f32::from_bits(rounded.to_bits() | (units.to_bits() & 0x8000_0000))
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
    fn every_byte_decodes_and_encodes_to_itself() {
        for byte in 0..=255u8 {
            if byte & 0x7f == 0x7f {
                assert!(E4m3::decode(byte).is_nan());
            } else {
                assert_eq!(E4m3::encode(E4m3::decode(byte)), byte, "byte {byte:#04x}");
            }
        }
        assert_eq!(E4m3::encode(f32::NAN), 0x7f);
    }

    #[test]
    fn the_ties_of_the_reference() {
        let p = |e: i32| 2.0f32.powi(e);
        for (x, y) in [(1.0625, 1.0), (1.1875, 1.25), (17.0, 16.0), (19.0, 20.0), (p(-10), 0.0), (3.0 * p(-10), p(-8))]
        {
            assert_eq!(E4m3.round(x), y, "x = {x}");
            assert_eq!(E4m3.round(-x), -y, "x = -{x}");
        }
    }

    /// The oracle walks the sorted grid in f64; ties go to the even code.
    #[test]
    fn every_f16_rounds_to_the_nearest_grid_point() {
        let grid: std::vec::Vec<f64> = (0..=0x7e).map(|byte| f64::from(E4m3::decode(byte))).collect();
        for bits in 0..=0xffffu16 {
            let x = half::f16::from_bits(bits);
            if x.is_nan() {
                assert!(E4m3.round(x.to_f32()).is_nan());
                continue;
            }
            let magnitude = x.to_f64().abs();
            let below = grid.iter().rposition(|&g| g <= magnitude).unwrap();
            let nearest = match grid.get(below + 1) {
                None => below,
                Some(above) => match (magnitude - grid[below]).partial_cmp(&(above - magnitude)).unwrap() {
                    core::cmp::Ordering::Less => below,
                    core::cmp::Ordering::Greater => below + 1,
                    core::cmp::Ordering::Equal => below + below % 2,
                },
            };
            assert_eq!(f64::from(E4m3.round(x.to_f32())).abs(), grid[nearest], "x = {x}");
        }
    }

    #[test]
    fn a_zero_amax_counts_as_one() {
        let scale = E4m3.scale(MIN_AMAX);
        assert_eq!([1.0, 2.0].map(|x| E4m3.fake_quant(x, scale)), [1.0, 1.0]);
    }
}
