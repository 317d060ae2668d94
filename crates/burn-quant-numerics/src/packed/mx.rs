//! MX formats: codes of any minifloat or INT8, an E8M0 scale per block.
//!
//! ```text
//! e = clamp(⌈log2(A / max)⌉, −127, 127), stored as e + 127;  A = 0: stored as 0
//! q = Q(x · 2^−e)        y = q · 2^e
//! ```
//!
//! Codes are bytes: [`pack_nibbles`] puts two 4-bit ones into a byte, the first in the low nibble, and
//! [`bits`](super::bits) four 6-bit ones into three. Rounding is that of fake quantization, half to the even code;
//! ModelOpt 0.47 packs MXFP4 with halves toward zero and zero as negative zero, unlike its own fake quantization.
//!
//! Source: ModelOpt 0.47, `MXFP4QTensor` and `MXFP8QTensor`; Open Compute Project 2023, MX specification 1.0.
//!
//! # Example
//!
//! ```
//! use burn_quant_numerics::{Format, packed::mx};
//!
//! let x = [0.11, -0.27, 0.52, 0.9, -1.3, 2.2, -3.7, 5.1];
//! let (mut scales, mut codes, mut packed, mut y) = ([0; 1], [0; 8], [0; 4], [0.0; 8]);
//! mx::scales(Format::E2M1, &x, 8, &mut scales)?;
//! mx::encode(Format::E2M1, &x, 8, &scales, &mut codes)?;
//! mx::pack_nibbles(&codes, &mut packed)?;
//! assert_eq!((scales, packed), ([127], [0x90, 0x21, 0x4b, 0x7e]));
//! mx::decode(Format::E2M1, &codes, 8, &scales, &mut y)?;
//! assert_eq!(y, [0.0, -0.5, 0.5, 1.0, -1.5, 2.0, -4.0, 6.0]);
//! # Ok::<(), burn_quant_numerics::packed::PackError>(())
//! ```

use super::nibbles::{self, First};
use super::{PackError, blocks, check, pairs};
use crate::grid::finite_amax;
use crate::{E8m0, Format, Grid, IntFormat};

/// The E8M0 scale of each block.
///
/// # Errors
///
/// [`PackError::Format`] for a format without an MX layout, [`PackError::EmptyBlock`], and [`PackError::Length`] unless
/// there is a scale for each block.
pub fn scales(format: Format, x: &[f32], block: usize, scales: &mut [u8]) -> Result<(), PackError> {
    let max = Elements::of(format)?.max();
    check("scales", scales.len(), blocks(x.len(), block)?)?;
    for (scale, x) in scales.iter_mut().zip(x.chunks(block)) {
        let amax = finite_amax(x);
        *scale = if amax == 0.0 { 0 } else { E8m0::for_range(amax, max).byte() };
    }
    Ok(())
}

/// The code of each value with the scale of its block.
///
/// # Errors
///
/// [`PackError::Format`], [`PackError::EmptyBlock`], and [`PackError::Length`].
pub fn encode(format: Format, x: &[f32], block: usize, scales: &[u8], codes: &mut [u8]) -> Result<(), PackError> {
    let elements = Elements::of(format)?;
    check("scales", scales.len(), blocks(x.len(), block)?)?;
    check("codes", codes.len(), x.len())?;
    for (i, (code, x)) in codes.iter_mut().zip(x).enumerate() {
        let inverse = E8m0::from_byte(254u8.saturating_sub(scales[i / block])).value();
        *code = elements.encode(x * inverse);
    }
    Ok(())
}

/// The value of each code with the scale of its block; a scale of 255 makes NaN.
///
/// # Errors
///
/// [`PackError::Format`], [`PackError::EmptyBlock`], and [`PackError::Length`].
pub fn decode(format: Format, codes: &[u8], block: usize, scales: &[u8], y: &mut [f32]) -> Result<(), PackError> {
    let elements = Elements::of(format)?;
    check("scales", scales.len(), blocks(y.len(), block)?)?;
    check("codes", codes.len(), y.len())?;
    for (i, (y, code)) in y.iter_mut().zip(codes).enumerate() {
        *y = elements.decode(*code) * E8m0::from_byte(scales[i / block]).value();
    }
    Ok(())
}

/// Two 4-bit codes a byte, the first in the low nibble.
///
/// # Errors
///
/// [`PackError::Odd`] and [`PackError::Length`].
pub fn pack_nibbles(codes: &[u8], packed: &mut [u8]) -> Result<(), PackError> {
    check("packed codes", packed.len(), pairs(codes.len())?)?;
    nibbles::pack(First::Low, packed, |i| codes[i]);
    Ok(())
}

/// The codes that [`pack_nibbles`] packed.
///
/// # Errors
///
/// [`PackError::Odd`] and [`PackError::Length`].
pub fn unpack_nibbles(packed: &[u8], codes: &mut [u8]) -> Result<(), PackError> {
    check("packed codes", packed.len(), pairs(codes.len())?)?;
    codes.iter_mut().enumerate().for_each(|(i, code)| *code = nibbles::get(First::Low, packed, i));
    Ok(())
}

/// Elements of a code of up to 8 bits.
#[derive(Clone, Copy)]
enum Elements {
    Int(IntFormat),
    Minifloat(crate::Minifloat),
}

impl Elements {
    fn of(format: Format) -> Result<Self, PackError> {
        match (format, format.minifloat()) {
            (_, Some(minifloat)) => Ok(Elements::Minifloat(minifloat)),
            (Format::Int(int), _) if int.bits() <= 8 => Ok(Elements::Int(int)),
            _ => Err(PackError::Format { found: format }),
        }
    }

    fn max(self) -> f32 {
        match self {
            Elements::Int(int) => int.grid().hi() as f32,
            Elements::Minifloat(minifloat) => minifloat.largest(),
        }
    }

    /// Integers in two's complement, in the lowest bits; the sign of zero is not stored.
    fn encode(self, units: f32) -> u8 {
        match self {
            Elements::Int(int) => int.grid().symmetric().round(units) as i32 as u8,
            Elements::Minifloat(minifloat) if minifloat.round(units) == 0.0 => 0,
            Elements::Minifloat(minifloat) => minifloat.encode(units),
        }
    }

    fn decode(self, code: u8) -> f32 {
        match self {
            Elements::Int(int) => {
                let unused = 8 - u32::from(int.bits());
                f32::from(((code << unused) as i8) >> unused)
            }
            Elements::Minifloat(minifloat) => minifloat.decode(code),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Mx, fake_quant_in_place};

    const FORMATS: [Format; 6] = [Format::E4M3, Format::E5M2, Format::E3M2, Format::E2M3, Format::E2M1, Format::E1M2];

    fn packed(format: Format, x: &[f32], block: usize) -> (std::vec::Vec<u8>, std::vec::Vec<u8>) {
        let (mut s, mut codes) = (std::vec![0; x.len().div_ceil(block)], std::vec![0; x.len()]);
        scales(format, x, block, &mut s).unwrap();
        encode(format, x, block, &s, &mut codes).unwrap();
        (s, codes)
    }

    #[test]
    fn unpacking_gives_what_fake_quantization_gives() {
        let x = crate::oracle::packing_vector();
        for format in FORMATS {
            let (s, codes) = packed(format, &x, 12); // the last block has 8
            let mut y = [0.0; 32];
            decode(format, &codes, 12, &s, &mut y).unwrap();
            let mut expected = x;
            for block in expected.chunks_mut(12) {
                let grid = Mx(format.minifloat().unwrap());
                fake_quant_in_place(grid, block, grid.scale(grid.amax(block)));
            }
            assert_eq!(y, expected, "{format}");
        }
    }

    /// The packing vector of the reference: scales, and bytes but for the sign that it gives to zero.
    #[test]
    fn the_bytes_of_the_reference() {
        let x = crate::oracle::packing_vector();
        let (s, codes) = packed(Format::E2M1, &x, 32);
        let mut bytes = [0; 16];
        pack_nibbles(&codes, &mut bytes).unwrap();
        let without_negative_zero = crate::oracle::hex("3165c41ec66c5e4c1919901098091111").map(|byte| {
            let positive = |nibble: u8| if nibble == 8 { 0 } else { nibble };
            positive(byte & 15) | (positive(byte >> 4) << 4)
        });
        assert_eq!((s.as_slice(), bytes), (&[126][..], without_negative_zero));
        let (s, codes) = packed(Format::E4M3, &x, 32);
        assert_eq!((s[0], &codes[..8]), (120, &[0x5d, 0x6c, 0x75, 0x78, 0x72, 0xee, 0xf8, 0x5f][..]));
    }

    #[test]
    fn every_code_comes_back() {
        let int8: Format = IntFormat::signed(8).unwrap().into();
        for format in FORMATS.into_iter().chain([int8]) {
            for code in 0..=u8::MAX >> (8 - format.bits()) {
                let (mut y, mut again) = ([0.0], [0]);
                decode(format, &[code], 1, &[130], &mut y).unwrap();
                encode(format, &y, 1, &[130], &mut again).unwrap();
                let symmetric = format != int8 || code != 0x80; // -128 is not a code of an MX integer
                if y[0].is_finite() && y[0] != 0.0 && symmetric {
                    assert_eq!(again[0], code, "{format}");
                }
            }
        }
    }

    #[test]
    fn zeros_are_stored_as_scale_zero_and_formats_without_a_layout_are_refused() {
        let (s, codes) = packed(Format::E4M3, &[0.0, -0.0], 2);
        assert_eq!((s.as_slice(), codes.as_slice()), (&[0][..], &[0, 0][..]));
        assert_eq!(scales(Format::Nf4, &[0.0], 1, &mut [0]), Err(PackError::Format { found: Format::Nf4 }));
        let mut y = [0.0];
        decode(Format::E2M1, &[3], 1, &[255], &mut y).unwrap();
        assert!(y[0].is_nan());
    }
}
