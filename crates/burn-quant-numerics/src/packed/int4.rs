//! INT4 in blocks: two codes a byte, the first in the high nibble, offset by 8.
//!
//! ```text
//! s = 7 · (1 / amax), 1 if amax = 0      q = clamp(rne(x · s), −8, 7) + 8      y = (q − 8) / s
//! ```
//!
//! Blocks run over the elements as they come, across the ends of rows. Source: ModelOpt 0.47, `INT4QTensor`; there a
//! block of zeros has an infinite scale.
//!
//! # Example
//!
//! ```
//! use burn_quant_numerics::packed::int4;
//!
//! let x = [0.7, -0.7, 0.1, 0.0];
//! let (mut scales, mut packed, mut y) = ([0.0; 1], [0; 2], [0.0; 4]);
//! int4::scales(&x, 4, &mut scales)?;
//! int4::pack(&x, 4, &scales, &mut packed)?;
//! assert_eq!(packed, [0xf1, 0x98]); // 7, −7, 1, 0
//! int4::unpack(&packed, 4, &scales, &mut y)?;
//! assert_eq!(y[3], 0.0);
//! # Ok::<(), burn_quant_numerics::packed::PackError>(())
//! ```

use super::nibbles::{self, First};
use super::{PackError, blocks, check, pairs};
use crate::round::clip;
use crate::{amax, round_half_to_even};

/// The scale of each block.
///
/// # Errors
///
/// [`PackError::EmptyBlock`], and [`PackError::Length`] unless there is a scale for each block.
pub fn scales(x: &[f32], block: usize, scales: &mut [f32]) -> Result<(), PackError> {
    check("scales", scales.len(), blocks(x.len(), block)?)?;
    for (scale, x) in scales.iter_mut().zip(x.chunks(block)) {
        let amax = amax(x);
        *scale = if amax == 0.0 { 1.0 } else { 7.0 * (1.0 / amax) };
    }
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
    nibbles::pack(First::High, packed, |i| {
        (round_half_to_even(clip(x[i] * scales[i / block], -8.0, 7.0)) as i8 + 8) as u8
    });
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
        *y = (f32::from(nibbles::get(First::High, packed, i)) - 8.0) / scales[i / block];
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The packing vector of the reference: `sin(0.1·(c+1)²)`, doubled for the first block of 16 and quartered for the
    /// second.
    #[test]
    fn the_bytes_of_the_reference() {
        let x = crate::oracle::packing_vector();
        let (mut s, mut packed) = ([0.0; 2], [0; 16]);
        scales(&x, 16, &mut s).unwrap();
        pack(&x, 16, &s, &mut packed).unwrap();
        assert_eq!(packed, crate::oracle::hex("9bdfc519f45f1d5b4e1d91be6149deff"));
        assert!((s[0] - 3.501_493_2).abs() < 1e-6 && (s[1] - 28.011_229).abs() < 1e-5, "{s:?}");
    }

    #[test]
    fn every_pair_of_codes_comes_back_and_zeros_stay_zeros() {
        let bytes: std::vec::Vec<u8> = (0..=255).collect();
        let (mut y, mut again) = (std::vec![0.0; 512], std::vec![0; 256]);
        let s = std::vec![3.7; 512 / 32];
        unpack(&bytes, 32, &s, &mut y).unwrap();
        pack(&y, 32, &s, &mut again).unwrap();
        assert_eq!(again, bytes);
        let (mut s, mut packed, mut y) = ([0.0; 1], [0; 1], [1.0; 2]);
        scales(&[0.0; 2], 2, &mut s).unwrap();
        pack(&[0.0; 2], 2, &s, &mut packed).unwrap();
        unpack(&packed, 2, &s, &mut y).unwrap();
        assert_eq!((s, packed, y), ([1.0], [0x88], [0.0; 2]));
    }

    #[test]
    fn slices_that_do_not_fit_are_refused() {
        assert_eq!(pack(&[0.0; 3], 2, &[1.0; 2], &mut [0; 2]), Err(PackError::Odd { found: 3 }));
        assert_eq!(scales(&[0.0; 3], 0, &mut [0.0; 2]), Err(PackError::EmptyBlock));
        let length = PackError::Length { what: "scales", expected: 2, found: 1 };
        assert_eq!(unpack(&[0; 2], 2, &[1.0], &mut [0.0; 4]), Err(length));
    }
}
