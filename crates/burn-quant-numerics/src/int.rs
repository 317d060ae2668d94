//! Integer grids, INT2 to INT16.
//!
//! ```text
//! hi    = 2^(N−1+u) − 1          u = 1 if unsigned, else 0
//! lo    = 0 if unsigned;  −hi if narrow;  −hi − 1 otherwise
//! scale = hi / amax
//! y     = clamp(rne(x · scale), lo, hi) / scale
//! ```
//!
//! Source: ModelOpt 0.47, integer fake quantization. Like it, an amax of at most 2^-24 gives zeros, and the way back
//! divides by the scale instead of multiplying by a step. For integer bounds clipping before rounding is the same as
//! clipping after it, and keeps infinities out of [`round_half_to_even`].

use crate::round::clip;
use crate::{Format, FormatError, Grid, MIN_AMAX, Scale, round_half_to_even};

/// Whether an integer grid holds negative codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Signedness {
    /// Codes on both sides of zero.
    #[default]
    Signed,
    /// Codes from zero up; one more bit of resolution for data that is never negative.
    Unsigned,
}

/// Which codes of a signed integer are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum IntSpan {
    /// All `2^N` codes, for example −128..=127.
    #[default]
    Full,
    /// Symmetric codes, for example −127..=127. Changes nothing for an unsigned grid.
    Narrow,
}

/// A checked integer format: 2 to 16 bits, signed or unsigned, full or narrow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Fields", into = "Fields")
)]
pub struct IntFormat {
    bits: u8,
    signedness: Signedness,
    span: IntSpan,
}

/// The fields of [`IntFormat`] as they stand in a file, before the number of bits is checked.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    bits: u8,
    #[serde(default)]
    signedness: Signedness,
    #[serde(default)]
    span: IntSpan,
}

#[cfg(feature = "serde")]
impl TryFrom<Fields> for IntFormat {
    type Error = FormatError;

    fn try_from(fields: Fields) -> Result<Self, FormatError> {
        IntFormat::new(fields.bits, fields.signedness, fields.span)
    }
}

#[cfg(feature = "serde")]
impl From<IntFormat> for Fields {
    fn from(format: IntFormat) -> Self {
        Fields { bits: format.bits, signedness: format.signedness, span: format.span }
    }
}

impl IntFormat {
    /// The widths an integer format may have, in bits.
    pub const BITS: core::ops::RangeInclusive<u8> = 2..=16;

    /// An integer format.
    ///
    /// # Errors
    ///
    /// [`FormatError::Bits`] unless `bits` is within [`IntFormat::BITS`]: one signed bit has no positive code at all.
    pub const fn new(bits: u8, signedness: Signedness, span: IntSpan) -> Result<Self, FormatError> {
        if bits < *Self::BITS.start() || bits > *Self::BITS.end() {
            return Err(FormatError::Bits { found: bits });
        }
        Ok(Self { bits, signedness, span })
    }

    /// The signed format with all `2^bits` codes.
    ///
    /// # Errors
    ///
    /// As [`IntFormat::new`].
    pub const fn signed(bits: u8) -> Result<Self, FormatError> {
        Self::new(bits, Signedness::Signed, IntSpan::Full)
    }

    /// Returns the bits per code.
    ///
    /// 2 to 16.
    pub const fn bits(self) -> u8 {
        self.bits
    }

    /// Returns whether there are negative codes.
    ///
    /// Unsigned formats are for activations after a ReLU.
    pub const fn signedness(self) -> Signedness {
        self.signedness
    }

    /// Returns which codes are used.
    ///
    /// A narrow format leaves out the code beyond the negative of the largest.
    pub const fn span(self) -> IntSpan {
        self.span
    }

    /// Returns the grid of this format.
    ///
    /// It holds the smallest and the largest code.
    pub const fn grid(self) -> IntGrid {
        let unsigned = matches!(self.signedness, Signedness::Unsigned) as u8;
        let hi = (1i32 << (self.bits - 1 + unsigned)) - 1;
        let lo = match (self.signedness, self.span) {
            (Signedness::Unsigned, _) => 0,
            (Signedness::Signed, IntSpan::Narrow) => -hi,
            (Signedness::Signed, IntSpan::Full) => -hi - 1,
        };
        IntGrid { lo: lo as f32, hi: hi as f32 }
    }
}

impl core::fmt::Display for IntFormat {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let sign = if self.signedness == Signedness::Unsigned { "u" } else { "" };
        let narrow = if self.span == IntSpan::Narrow { " narrow" } else { "" };
        write!(f, "{sign}int{}{narrow}", self.bits)
    }
}

impl From<IntFormat> for Format {
    fn from(format: IntFormat) -> Self {
        Format::Int(format)
    }
}

/// The codes `lo..=hi` of an integer format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct IntGrid {
    lo: f32,
    hi: f32,
}

impl IntGrid {
    /// Returns the smallest code.
    ///
    /// −128 for INT8, −127 if it is narrow, 0 if it is unsigned.
    pub const fn lo(self) -> i32 {
        self.lo as i32
    }

    /// Returns the largest code.
    ///
    /// 127 for INT8, 255 for UINT8.
    pub const fn hi(self) -> i32 {
        self.hi as i32
    }

    /// Returns the grid without the code beyond the negative of the largest: what the integers of MX formats are.
    ///
    /// −127 to 127 for 8 bits.
    pub const fn symmetric(self) -> Self {
        if self.lo < -self.hi { Self { lo: -self.hi, hi: self.hi } } else { self }
    }

    /// Returns the code of a real value; NaN has none and gives 0.
    ///
    /// Codes beyond the grid become its ends.
    pub fn code(self, x: f32, scale: Scale) -> i32 {
        self.round(x * scale.to_grid) as i32
    }

    /// Returns the real value of a code.
    ///
    /// In the units of the tensor.
    pub fn value(self, code: i32, scale: Scale) -> f32 {
        self.dequantize(code as f32, scale)
    }
}

impl Grid for IntGrid {
    #[inline(always)]
    fn max(self) -> f32 {
        self.hi
    }

    #[inline(always)]
    fn scale(self, amax: f32) -> Scale {
        if amax <= MIN_AMAX {
            return Scale { to_grid: 0.0, from_grid: 1.0 };
        }
        let scale = self.hi / amax;
        Scale { to_grid: scale, from_grid: scale }
    }

    #[inline(always)]
    fn round(self, units: f32) -> f32 {
        round_half_to_even(clip(units, self.lo, self.hi))
    }

    #[inline(always)]
    fn dequantize(self, units: f32, scale: Scale) -> f32 {
        units / scale.from_grid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signed(bits: u8) -> IntGrid {
        IntFormat::signed(bits).unwrap().grid()
    }

    #[test]
    fn the_codes_of_each_kind_are_those_of_the_formula() {
        let unsigned = IntFormat::new(8, Signedness::Unsigned, IntSpan::Full).unwrap().grid();
        let narrow = IntFormat::new(8, Signedness::Signed, IntSpan::Narrow).unwrap().grid();
        assert_eq!((signed(8).lo(), signed(8).hi()), (-128, 127));
        assert_eq!((signed(2).lo(), signed(2).hi()), (-2, 1));
        assert_eq!((signed(16).lo(), signed(16).hi()), (-32768, 32767));
        assert_eq!((unsigned.lo(), unsigned.hi()), (0, 255));
        assert_eq!((narrow.lo(), narrow.hi()), (-127, 127));
    }

    #[test]
    fn one_bit_and_seventeen_bits_are_refused() {
        for bits in [0, 1, 17] {
            assert_eq!(IntFormat::signed(bits), Err(FormatError::Bits { found: bits }));
        }
    }

    /// Input A of the reference, amax = 1: seven printed digits of each output.
    #[test]
    fn int4_of_the_reference_vector() {
        let grid = signed(4);
        let x = [-1.37, -0.8, -0.31, -0.01, 0.0, 0.02, 0.26, 0.5, 0.77, 1.0, 1.23, 1.37];
        let sevenths = [-8.0, -6.0, -2.0, 0.0, 0.0, 0.0, 2.0, 4.0, 5.0, 7.0, 7.0, 7.0];
        for (x, code) in x.into_iter().zip(sevenths) {
            assert_eq!(grid.fake_quant(x, grid.scale(1.0)), code / 7.0, "x = {x}");
        }
    }

    #[test]
    fn an_amax_at_the_threshold_gives_zeros_and_the_next_power_of_two_saturates() {
        let grid = signed(8);
        assert_eq!(grid.fake_quant(1.0, grid.scale(MIN_AMAX)), 0.0);
        assert_eq!(grid.fake_quant(1.0, grid.scale(2.0 * MIN_AMAX)), 2.0 * MIN_AMAX);
        assert_eq!(MIN_AMAX, 2.0f32.powi(-24));
    }

    #[test]
    fn nan_stays_nan_and_infinities_saturate() {
        let grid = signed(8);
        let scale = grid.scale(1.0);
        assert!(grid.fake_quant(f32::NAN, scale).is_nan());
        assert!(grid.fake_quant(0.5, grid.scale(f32::NAN)).is_nan());
        assert_eq!(grid.fake_quant(f32::INFINITY, scale), 1.0);
        assert_eq!(grid.fake_quant(f32::NEG_INFINITY, scale), -128.0 / 127.0);
    }

    /// In units of a step, where every f16 is exact: the oracle rounds in f64.
    #[test]
    fn every_f16_rounds_to_the_nearest_code_of_every_width() {
        for bits in IntFormat::BITS {
            let grid = signed(bits);
            let scale = grid.scale(grid.max());
            for x in (0..=u16::MAX).map(half::f16::from_bits).filter(|x| !x.is_nan()) {
                let nearest = x.to_f64().round_ties_even().clamp(grid.lo().into(), grid.hi().into());
                assert_eq!(f64::from(grid.fake_quant(x.to_f32(), scale)), nearest, "{bits} bits, x = {x}");
            }
        }
    }

    #[test]
    fn every_code_of_every_width_survives_a_round_trip() {
        for bits in IntFormat::BITS {
            let grid = signed(bits);
            for amax in [1.0e-3, 0.7, 1.0, 3.0e4] {
                let scale = grid.scale(amax);
                for code in grid.lo()..=grid.hi() {
                    assert_eq!(grid.code(grid.value(code, scale), scale), code, "{bits} bits, amax {amax}");
                }
            }
        }
    }
}
