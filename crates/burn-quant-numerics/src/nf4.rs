//! NormalFloat: the 4-bit format whose 16 values are quantiles of a normal distribution.
//!
//! ```text
//! y = T[argmin_k |x / amax − T[k]|] · amax        the first minimum wins
//! ```
//!
//! Source: Dettmers et al. 2023, "QLoRA", arXiv:2305.14314, appendix E; the table rounded to bf16 as ModelOpt 0.47
//! stores it.

use crate::{Grid, Scale};

/// The values of the codes 0 to 15, exact in bf16.
pub const NF4_TABLE: [f32; 16] = [
    -1.0,
    -0.695_312_5,
    -0.523_437_5,
    -0.394_531_25,
    -0.285_156_25,
    -0.184_570_31,
    -0.090_820_31,
    0.0,
    0.079_589_844,
    0.161_132_81,
    0.246_093_75,
    0.337_890_63,
    0.441_406_25,
    0.5625,
    0.722_656_25,
    1.0,
];

/// The grid of NF4.
///
/// # Example
///
/// ```
/// use burn_quant_numerics::{Grid, NF4_TABLE, Nf4};
///
/// let scale = Nf4.scale(2.0);
/// assert_eq!(Nf4.fake_quant(-1.9, scale), -2.0);
/// assert_eq!(NF4_TABLE[usize::from(Nf4.encode(0.9, scale))], 0.441_406_25);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Nf4;

impl Nf4 {
    /// The code of a value, 0 to 15; NaN has none and gives that of zero.
    pub fn encode(self, x: f32, scale: Scale) -> u8 {
        let units = self.units(x, scale);
        if units.is_nan() {
            return 7;
        }
        let nearest = self.round(units);
        NF4_TABLE.iter().position(|value| *value == nearest).unwrap_or(7) as u8
    }

    /// The value of a code, in units of its scale; only the lowest four bits count.
    pub const fn decode(self, code: u8) -> f32 {
        NF4_TABLE[(code & 15) as usize]
    }
}

impl Grid for Nf4 {
    #[inline(always)]
    fn max(self) -> f32 {
        1.0
    }

    /// The scale is amax; one for an amax of zero, as there is nothing to divide.
    #[inline(always)]
    fn scale(self, amax: f32) -> Scale {
        let amax = if amax == 0.0 { 1.0 } else { amax };
        Scale { to_grid: amax, from_grid: amax }
    }

    #[inline(always)]
    fn round(self, units: f32) -> f32 {
        let mut nearest = NF4_TABLE[0];
        let mut least = (units - nearest).abs();
        for value in &NF4_TABLE[1..] {
            let distance = (units - value).abs();
            let closer = distance < least;
            least = if closer { distance } else { least };
            nearest = if closer { *value } else { nearest };
        }
        // the distances of an infinity are all infinite, those of NaN all NaN
        let nearest = if units > 1.0 { 1.0 } else { nearest };
        if units.is_nan() { units } else { nearest }
    }

    #[inline(always)]
    fn dequantize(self, units: f32, scale: Scale) -> f32 {
        units * scale.from_grid
    }

    #[inline(always)]
    fn units(self, x: f32, scale: Scale) -> f32 {
        x / scale.to_grid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_decodes_and_encodes_to_itself_and_the_table_is_exact_in_bf16() {
        for code in 0..16 {
            assert_eq!(Nf4.encode(Nf4.decode(code), Nf4.scale(1.0)), code);
            assert_eq!(half::bf16::from_f32(Nf4.decode(code)).to_f32(), Nf4.decode(code));
        }
    }

    #[test]
    fn every_f16_rounds_to_the_nearest_value_the_lower_one_of_two() {
        let grid = NF4_TABLE.map(f64::from);
        for bits in 0..=0xffffu16 {
            let x = half::f16::from_bits(bits);
            if x.is_nan() {
                assert!(Nf4.round(x.to_f32()).is_nan());
                continue;
            }
            let x = x.to_f64().clamp(-2.0, 2.0);
            let distance = |k: &usize| (grid[*k] - x).abs();
            let nearest = (0..16).min_by(|a, b| distance(a).total_cmp(&distance(b))).unwrap();
            assert_eq!(Nf4.round(half::f16::from_bits(bits).to_f32()), NF4_TABLE[nearest], "x = {x}");
        }
    }

    #[test]
    fn a_range_of_zero_gives_zeros() {
        let scale = Nf4.scale(0.0);
        assert_eq!(Nf4.fake_quant(0.0, scale), 0.0);
    }
}
