//! NVFP4: two E2M1 codes a byte, the first in the low nibble; an E4M3 scale per block, an f32 scale per tensor.
//!
//! ```text
//! s₂ = G / (6·448), 1 if G = 0
//! dynamic  s = amax / (6·s₂)                1 if amax = 0; clamped to 2^-9 .. 448; E4M3
//! static   s = (amax / 6) · M / (G / 6)     likewise; M = 448, or 256 for four-over-six
//! q = E2M1(x / (s · s₂))                    half to the even code, sign bit 3
//! y = E2M1 value · s · s₂
//! ```
//!
//! Source: ModelOpt 0.47, `NVFP4QTensor`. A scale is never zero there, where that of fake quantization may be: a block
//! whose scale underflows is the one thing that packs to other values. A tensor of zeros gives NaN scales there, and
//! zeros here.
//!
//! # Example
//!
//! ```
//! use burn_quant_numerics::packed::nvfp4;
//!
//! let x = [6.0, -3.0, 0.4, 0.0];
//! let tensor = nvfp4::tensor_scale(6.0);
//! let (mut scales, mut packed, mut y) = ([0; 1], [0; 2], [0.0; 4]);
//! nvfp4::scales(&x, 4, tensor, &mut scales)?;
//! nvfp4::pack(&x, 4, &scales, tensor, &mut packed)?;
//! assert_eq!(packed, [0xd7, 0x01]); // 6, −3, 0.5, 0
//! nvfp4::unpack(&packed, 4, &scales, tensor, &mut y)?;
//! assert_eq!(y, [6.0, -3.0, 0.5, 0.0]);
//! # Ok::<(), burn_quant_numerics::packed::PackError>(())
//! ```

use super::nibbles::{self, First};
use super::{PackError, blocks, check, pairs};
use crate::round::clip;
use crate::{BlockScale, Minifloat, amax};

/// `2^-9`, the smallest E4M3 number.
const MIN_SCALE: f32 = 0.001_953_125;

/// Returns the scale of a tensor whose largest magnitude is `global_amax`.
///
/// `global_amax / (6 · 448)`; 1 for a range of 0.
pub fn tensor_scale(global_amax: f32) -> f32 {
    if global_amax == 0.0 { 1.0 } else { global_amax / (6.0 * 448.0) }
}

/// The E4M3 scale of each block, from its values.
///
/// # Errors
///
/// [`PackError::EmptyBlock`], and [`PackError::Length`] unless there is a scale for each block.
pub fn scales(x: &[f32], block: usize, tensor_scale: f32, scales: &mut [u8]) -> Result<(), PackError> {
    check("scales", scales.len(), blocks(x.len(), block)?)?;
    scales.iter_mut().zip(x.chunks(block)).for_each(|(scale, x)| *scale = encode(amax(x) / (6.0 * tensor_scale)));
    Ok(())
}

/// The E4M3 scale of each block, from calibrated ranges.
///
/// # Errors
///
/// [`PackError::Length`] unless there is a scale for each range.
pub fn static_scales(amax: &[f32], global_amax: f32, blocks: BlockScale, scales: &mut [u8]) -> Result<(), PackError> {
    check("scales", scales.len(), amax.len())?;
    for (scale, amax) in scales.iter_mut().zip(amax) {
        let units = amax / 6.0;
        let units = if units == 0.0 { 1.0 } else { units };
        *scale = encode(units * blocks.max() / (global_amax / 6.0));
    }
    Ok(())
}

fn encode(scale: f32) -> u8 {
    let scale = if scale == 0.0 { 1.0 } else { scale };
    Minifloat::E4M3.encode(clip(scale, MIN_SCALE, 448.0))
}

/// Packs values with the scales of their blocks.
///
/// # Errors
///
/// [`PackError::EmptyBlock`], [`PackError::Odd`], and [`PackError::Length`].
pub fn pack(x: &[f32], block: usize, scales: &[u8], tensor_scale: f32, packed: &mut [u8]) -> Result<(), PackError> {
    check("scales", scales.len(), blocks(x.len(), block)?)?;
    check("packed codes", packed.len(), pairs(x.len())?)?;
    nibbles::pack(First::Low, packed, |i| {
        let units = x[i] / (Minifloat::E4M3.decode(scales[i / block]) * tensor_scale);
        // the sign of zero is not stored
        if units == 0.0 || x[i] == 0.0 { 0 } else { Minifloat::E2M1.encode(units) }
    });
    Ok(())
}

/// Unpacks values with the scales of their blocks.
///
/// # Errors
///
/// [`PackError::EmptyBlock`], [`PackError::Odd`], and [`PackError::Length`].
pub fn unpack(packed: &[u8], block: usize, scales: &[u8], tensor_scale: f32, y: &mut [f32]) -> Result<(), PackError> {
    check("scales", scales.len(), blocks(y.len(), block)?)?;
    check("packed codes", packed.len(), pairs(y.len())?)?;
    for (i, y) in y.iter_mut().enumerate() {
        let scale = Minifloat::E4M3.decode(scales[i / block]) * tensor_scale;
        *y = Minifloat::E2M1.decode(nibbles::get(First::Low, packed, i)) * scale;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_of_the_reference() {
        let x = crate::oracle::packing_vector();
        let tensor = tensor_scale(amax(&x));
        assert!((tensor - 7.437e-4).abs() < 1e-7);
        let (mut s, mut packed) = ([0; 2], [0; 16]);
        scales(&x, 16, tensor, &mut s).unwrap();
        pack(&x, 16, &s, tensor, &mut packed).unwrap();
        assert_eq!(s.map(|byte| Minifloat::E4M3.decode(byte)), [448.0, 56.0]);
        assert_eq!(packed, crate::oracle::hex("4176d61fd77d6f5d6e6ff175fc2e7677"));
    }

    #[test]
    fn every_pair_of_codes_comes_back_but_for_the_sign_of_zero() {
        let bytes: std::vec::Vec<u8> = (0..=255).collect();
        let (mut y, mut again) = (std::vec![0.0; 512], std::vec![0; 256]);
        let s = std::vec![0x3b; 512 / 16];
        unpack(&bytes, 16, &s, 0.013, &mut y).unwrap();
        pack(&y, 16, &s, 0.013, &mut again).unwrap();
        let positive = |nibble: u8| if nibble == 8 { 0 } else { nibble };
        let expected: std::vec::Vec<u8> = bytes.iter().map(|b| positive(b & 15) | (positive(b >> 4) << 4)).collect();
        assert_eq!(again, expected);
    }

    #[test]
    fn zeros_and_tiny_blocks_have_scales_that_are_numbers() {
        let (mut s, mut packed, mut y) = ([0; 2], [0; 2], [1.0; 4]);
        let tensor = tensor_scale(0.0);
        scales(&[0.0; 4], 2, tensor, &mut s).unwrap();
        pack(&[0.0; 4], 2, &s, tensor, &mut packed).unwrap();
        unpack(&packed, 2, &s, tensor, &mut y).unwrap();
        assert_eq!(y, [0.0; 4]);
        scales(&[1.0, 1.0, 1e-9, 0.0], 2, tensor_scale(1.0), &mut s).unwrap();
        assert_eq!(Minifloat::E4M3.decode(s[1]), MIN_SCALE);
        let calibrated = [5.1, 7.65];
        static_scales(&calibrated, 20.0, BlockScale::StaticFourOverSix, &mut s).unwrap();
        assert_eq!(s.map(|byte| Minifloat::E4M3.decode(byte)), [64.0, 96.0]); // 65.28, 97.92
    }
}
