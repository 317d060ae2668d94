//! NF4 in blocks: two codes a byte, the first in the high nibble; scales in f32, or quantized once more.
//!
//! ```text
//! s = amax of the block, 1 if it is 0        q = the nearest entry of the table to x / s        y = T[q] · s
//!
//! doubly:  z = mean of all scales            d = 127 / max |s − z| per row of scales, 1 if that is 0
//!          c = clamp(rne((s − z) · d), ±127)         s' = c / d + z
//! ```
//!
//! Source: Dettmers et al. 2023, "QLoRA", arXiv:2305.14314, §3; ModelOpt 0.47, `NF4QTensor`, which cannot restore
//! scales of more than one row.
//!
//! # Example
//!
//! ```
//! use burn_quant_numerics::packed::nf4::{self, DoubleScales};
//!
//! let x = [2.0, -2.0, 0.0, 1.0];
//! let (mut scales, mut packed, mut y) = ([0.0; 2], [0; 2], [0.0; 4]);
//! nf4::scales(&x, 2, &mut scales)?;
//! nf4::pack(&x, 2, &scales, &mut packed)?;
//! nf4::unpack(&packed, 2, &scales, &mut y)?;
//! assert_eq!(y, x);
//!
//! let (mut codes, mut factors) = ([0; 2], [0.0; 1]);
//! let double = DoubleScales::quantize(&scales, 256, &mut codes, &mut factors)?;
//! double.restore(&mut scales)?;
//! assert_eq!(scales, [2.0, 1.0]);
//! # Ok::<(), burn_quant_numerics::packed::PackError>(())
//! ```

use super::nibbles::{self, First};
use super::{PackError, blocks, check, pairs};
use crate::round::clip;
use crate::{Grid, Nf4, amax, round_half_to_even};

/// The scale of each block.
///
/// # Errors
///
/// [`PackError::EmptyBlock`], and [`PackError::Length`] unless there is a scale for each block.
pub fn scales(x: &[f32], block: usize, scales: &mut [f32]) -> Result<(), PackError> {
    check("scales", scales.len(), blocks(x.len(), block)?)?;
    scales.iter_mut().zip(x.chunks(block)).for_each(|(scale, x)| *scale = Nf4.scale(amax(x)).from_grid);
    Ok(())
}

/// Packs values with the scales of their blocks.
///
/// # Errors
///
/// [`PackError::EmptyBlock`], [`PackError::Odd`], and [`PackError::Length`].
pub fn pack(x: &[f32], block: usize, scales: &[f32], packed: &mut [u8]) -> Result<(), PackError> {
    check("scales", scales.len(), blocks(x.len(), block)?)?;
    check("packed codes", packed.len(), pairs(x.len())?)?;
    nibbles::pack(First::High, packed, |i| Nf4.encode(x[i], Nf4.scale(scales[i / block])));
    Ok(())
}

/// Unpacks values with the scales of their blocks.
///
/// # Errors
///
/// [`PackError::EmptyBlock`], [`PackError::Odd`], and [`PackError::Length`].
pub fn unpack(packed: &[u8], block: usize, scales: &[f32], y: &mut [f32]) -> Result<(), PackError> {
    check("scales", scales.len(), blocks(y.len(), block)?)?;
    check("packed codes", packed.len(), pairs(y.len())?)?;
    for (i, y) in y.iter_mut().enumerate() {
        *y = Nf4.decode(nibbles::get(First::High, packed, i)) * scales[i / block];
    }
    Ok(())
}

/// Scales that are quantized to 8 bits themselves.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DoubleScales<'a> {
    /// The code of each scale.
    pub codes: &'a [i8],
    /// The factor of each row of scales.
    pub factors: &'a [f32],
    /// The mean of all scales, which codes are relative to.
    pub zero: f32,
    /// Scales of a row.
    pub block: usize,
}

impl<'a> DoubleScales<'a> {
    /// Quantizes scales, rows of `block` of them at a time.
    ///
    /// # Errors
    ///
    /// [`PackError::EmptyBlock`], and [`PackError::Length`] unless there are a code for each scale and a factor for
    /// each row.
    pub fn quantize(
        scales: &[f32],
        block: usize,
        codes: &'a mut [i8],
        factors: &'a mut [f32],
    ) -> Result<Self, PackError> {
        check("codes of scales", codes.len(), scales.len())?;
        check("factors of scales", factors.len(), blocks(scales.len(), block)?)?;
        let sum: f64 = scales.iter().map(|scale| f64::from(*scale)).sum();
        let zero = (sum / scales.len().max(1) as f64) as f32;
        let rows = scales.chunks(block).zip(codes.chunks_mut(block)).zip(factors.iter_mut());
        for ((scales, codes), factor) in rows {
            let largest = scales.iter().fold(0f32, |largest, scale| largest.max((scale - zero).abs()));
            *factor = if largest == 0.0 { 1.0 } else { 127.0 / largest };
            for (code, scale) in codes.iter_mut().zip(scales) {
                *code = round_half_to_even(clip((scale - zero) * *factor, -127.0, 127.0)) as i8;
            }
        }
        Ok(Self { codes, factors, zero, block })
    }

    /// The scales that the codes stand for.
    ///
    /// # Errors
    ///
    /// [`PackError::EmptyBlock`], and [`PackError::Length`] unless all slices fit each other.
    pub fn restore(&self, scales: &mut [f32]) -> Result<(), PackError> {
        check("scales", scales.len(), self.codes.len())?;
        check("factors of scales", self.factors.len(), blocks(scales.len(), self.block)?)?;
        for (i, (scale, code)) in scales.iter_mut().zip(self.codes).enumerate() {
            *scale = f32::from(*code) / self.factors[i / self.block] + self.zero;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_and_double_scales_of_the_reference() {
        let x = crate::oracle::packing_vector();
        let (mut s, mut packed) = ([0.0; 2], [0; 16]);
        scales(&x, 16, &mut s).unwrap();
        pack(&x, 16, &s, &mut packed).unwrap();
        assert_eq!(packed, crate::oracle::hex("8befd308f23f0e2c2e0e80cf4029efff"));
        let (mut codes, mut factors) = ([0; 2], [0.0; 1]);
        let double = DoubleScales::quantize(&s, 2, &mut codes, &mut factors).unwrap();
        assert_eq!(double.codes, [127, -127]);
        assert!((double.factors[0] - 145.205_29).abs() < 1e-3 && (double.zero - 1.124_523_5).abs() < 1e-6);
    }

    #[test]
    fn every_pair_of_codes_comes_back() {
        let bytes: std::vec::Vec<u8> = (0..=255).collect();
        let (mut y, mut again) = (std::vec![0.0; 512], std::vec![0; 256]);
        let s = std::vec![3.7; 512 / 32];
        unpack(&bytes, 32, &s, &mut y).unwrap();
        pack(&y, 32, &s, &mut again).unwrap();
        assert_eq!(again, bytes);
    }

    #[test]
    fn scales_of_several_rows_and_of_one_value_are_restored() {
        let scales: std::vec::Vec<f32> = (0..10).map(|i| 1.0 + i as f32 * 0.25).collect();
        let (mut codes, mut factors, mut restored) = ([0; 10], [0.0; 3], [0.0; 10]);
        let double = DoubleScales::quantize(&scales, 4, &mut codes, &mut factors).unwrap();
        double.restore(&mut restored).unwrap();
        for (found, expected) in restored.iter().zip(&scales) {
            assert!((found - expected).abs() <= 1.125 / 127.0 / 2.0 * 1.001, "{found}, {expected}"); // half a code
        }
        let double = DoubleScales::quantize(&[0.5; 4], 4, &mut codes[..4], &mut factors[..1]).unwrap();
        double.restore(&mut restored[..4]).unwrap();
        assert_eq!(restored[..4], [0.5; 4]);
    }
}
