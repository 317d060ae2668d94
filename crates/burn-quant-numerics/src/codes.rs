//! The codes of grid points: what a packed tensor stores of each element.
//!
//! ```text
//! integers    c = q + 2^(N−1), unsigned ones c = q: never negative, so that zero has the code in the middle
//! minifloats  sign, exponent, mantissa; zero has one code, without a sign
//! NF4         the place in the table
//! ```
//!
//! A code and the scale of its group give the value of fake quantization, bit for bit but for the sign of zero.
//! Products with integers ask for more: a format whose points are whole multiples of a unit ([`Elements::unit`]) is an
//! integer format in disguise.
//!
//! Our choice: integers in offset binary, as the products of x86 take one operand without a sign.

use crate::{AnyGrid, E8m0, Elements, Format, Grid, IntGrid, MIN_AMAX, NF4_TABLE, Nf4, Scale};

impl Elements {
    /// Returns the elements of a format.
    ///
    /// Integers have all their codes.
    pub fn of(format: Format) -> Self {
        match format {
            Format::Int(format) => Elements::Int(format.grid()),
            Format::Nf4 => Elements::Nf4(Nf4),
            other => Elements::Minifloat(other.minifloat().expect("neither an integer format nor NF4")),
        }
    }

    /// Returns the code of a grid point, that is, of what [`Grid::round`] returns; NaN has none and gives that of zero.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant_numerics::{Elements, Format, Grid, IntFormat};
    ///
    /// let int4 = Elements::of(IntFormat::signed(4)?.into());
    /// assert_eq!([-8.0, 0.0, 7.0].map(|point| int4.code(point)), [0, 8, 15]);
    /// let e2m1 = Elements::of(Format::E2M1);
    /// assert_eq!((e2m1.code(e2m1.round(-2.9)), e2m1.point(0b1101)), (0b1101, -3.0));
    /// # Ok::<(), burn_quant_numerics::FormatError>(())
    /// ```
    pub fn code(self, point: f32) -> u8 {
        match self {
            Elements::Int(grid) => (point as i32 + middle(grid)) as u8,
            // zero in every format, and NaN, which codes would keep
            Elements::Minifloat(_) if point == 0.0 || point.is_nan() => 0,
            Elements::Minifloat(minifloat) => minifloat.encode(point),
            Elements::Nf4(_) if point.is_nan() => 7,
            Elements::Nf4(_) => NF4_TABLE.iter().map(|value| u8::from(*value < point)).sum(),
        }
    }

    /// Returns the grid point of a code.
    ///
    /// It is in units of the scale.
    pub fn point(self, code: u8) -> f32 {
        match self {
            Elements::Int(grid) => (i32::from(code) - middle(grid)) as f32,
            Elements::Minifloat(minifloat) => minifloat.decode(code),
            Elements::Nf4(nf4) => nf4.decode(code),
        }
    }

    /// Returns the power of two of which every grid point is a multiple by an integer of 8 bits; `None` where there is
    /// none.
    ///
    /// 1 for integers, 1/2 for E2M1 and E1M2, 1/8 for E2M3. The points of E3M2, E4M3 and E5M2 lie too far apart, and
    /// those of NF4 are not multiples of anything.
    pub fn unit(self) -> Option<f32> {
        let unit = match self {
            Elements::Int(_) => 1.0,
            Elements::Minifloat(minifloat) => minifloat.min_normal() / (1u32 << minifloat.mantissa_bits()) as f32,
            Elements::Nf4(_) => return None,
        };
        (self.max() / unit <= 255.0).then_some(unit)
    }
}

/// The code of zero.
fn middle(grid: IntGrid) -> i32 {
    if grid.lo() < 0 { grid.hi() + 1 } else { 0 }
}

impl AnyGrid {
    /// Returns the elements of the grid.
    ///
    /// Scales are left out.
    pub fn elements(self) -> Elements {
        match self {
            AnyGrid::Plain(elements) => elements,
            AnyGrid::Mx(mx) => mx.0,
            AnyGrid::TwoLevel(grid) => grid.elements(),
        }
    }

    /// Returns the code of a real value; NaN gives that of zero.
    ///
    /// The value is rounded as by [`Grid::fake_quant`].
    pub fn code(self, x: f32, scale: Scale) -> u8 {
        self.elements().code(self.round(self.units(x, scale)))
    }

    /// Returns the real value of a code: what [`Grid::fake_quant`] makes of the values that have it.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant_numerics::{AnyGrid, Format, Grid, ScaleFormat};
    ///
    /// let grid = AnyGrid::new(Format::E4M3, ScaleFormat::F32, 0.0);
    /// let scale = grid.scale(3.0);
    /// assert_eq!(grid.value(grid.code(0.7, scale), scale), grid.fake_quant(0.7, scale));
    /// ```
    pub fn value(self, code: u8, scale: Scale) -> f32 {
        self.dequantize(self.elements().point(code), scale)
    }

    /// Returns what is stored of the scale of a range: the range in f32, or the code of the scale in E8M0 or E4M3.
    ///
    /// Ranges that count as zero, or as one, are stored as that.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant_numerics::{AnyGrid, Format, Grid, ScaleFormat};
    ///
    /// let mxfp8 = AnyGrid::new(Format::E4M3, ScaleFormat::E8M0, 0.0);
    /// assert_eq!(mxfp8.stored_scale(448.0), 127); // the exponent of one
    /// assert_eq!(mxfp8.scale_of_stored(127), mxfp8.scale(448.0));
    /// ```
    pub fn stored_scale(self, amax: f32) -> u32 {
        match self {
            AnyGrid::Plain(Elements::Minifloat(_)) if amax <= MIN_AMAX => 1.0f32.to_bits(),
            AnyGrid::Plain(Elements::Int(_)) if amax <= MIN_AMAX => 0,
            AnyGrid::Plain(_) => amax.to_bits(),
            AnyGrid::Mx(mx) => u32::from(E8m0::for_range(amax, mx.max()).byte()),
            AnyGrid::TwoLevel(grid) => u32::from(grid.scale_code(amax)),
        }
    }

    /// Returns the scale of which this is stored; it gives the same codes and values as that of the range.
    ///
    /// Bits above those of the format are ignored.
    pub fn scale_of_stored(self, stored: u32) -> Scale {
        match self {
            AnyGrid::Plain(elements) => elements.scale(f32::from_bits(stored)),
            AnyGrid::Mx(_) => {
                let step = E8m0::from_byte(stored as u8).value();
                Scale { to_grid: 1.0 / step, from_grid: step }
            }
            AnyGrid::TwoLevel(grid) => grid.scale_of_code(stored as u8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlockScale, IntFormat, IntSpan, ScaleFormat, Signedness};
    use proptest::prelude::*;
    use std::vec::Vec;

    fn formats() -> Vec<Format> {
        let ints = (2..=8).flat_map(|bits| {
            [
                (Signedness::Signed, IntSpan::Full),
                (Signedness::Signed, IntSpan::Narrow),
                (Signedness::Unsigned, IntSpan::Full),
            ]
            .map(|(sign, span)| IntFormat::new(bits, sign, span).unwrap().into())
        });
        let floats = [Format::E4M3, Format::E5M2, Format::E3M2, Format::E2M3, Format::E2M1, Format::E1M2, Format::Nf4];
        ints.chain(floats).collect()
    }

    #[test]
    fn every_code_of_every_format_is_that_of_its_point() {
        for format in formats() {
            let elements = Elements::of(format);
            for code in 0..=u8::MAX >> (8 - format.bits()) {
                let point = elements.point(code);
                // infinities and NaN of FP8 are never stored, nor is a negative zero
                if point.is_finite() && (point != 0.0 || point.is_sign_positive()) {
                    assert_eq!(elements.code(point), code, "{format}: {point}");
                }
            }
        }
    }

    #[test]
    fn formats_whose_points_are_integers_say_so() {
        for format in formats() {
            let elements = Elements::of(format);
            let Some(unit) = elements.unit() else {
                assert!(matches!(format, Format::E4M3 | Format::E5M2 | Format::E3M2 | Format::Nf4), "{format}");
                continue;
            };
            for code in 0..=u8::MAX >> (8 - format.bits()) {
                let integer = elements.point(code) / unit;
                assert!(integer.fract() == 0.0 && integer.abs() <= 255.0, "{format}: {integer}");
            }
        }
    }

    proptest! {
        #[test]
        fn a_code_and_a_stored_scale_have_the_value_of_fake_quantization(
            x in -4.0f32..4.0, amax in 0.0f32..4.0, global in 4.0f32..40.0,
        ) {
            let scales = [ScaleFormat::F32, ScaleFormat::E8M0]
                .into_iter()
                .chain([BlockScale::Dynamic, BlockScale::Static, BlockScale::StaticFourOverSix].map(ScaleFormat::E4M3));
            for scales in scales {
                for format in formats() {
                    let grid = AnyGrid::new(format, scales, global);
                    let scale = grid.scale(amax);
                    let stored = grid.scale_of_stored(grid.stored_scale(amax));
                    let code = grid.code(x, scale);
                    let expected = grid.fake_quant(x, scale);
                    prop_assert_eq!(grid.value(code, stored), expected, "{} {}", format, scales);
                    prop_assert_eq!(grid.code(expected, stored), code, "{} {}: what is rounded", format, scales);
                }
            }
        }
    }
}
