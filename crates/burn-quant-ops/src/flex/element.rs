//! The element types of the Flex kernels, and their way to f32 and back.

use burn::tensor::Element;
use half::{bf16, f16, slice::HalfFloatSliceExt};
use std::mem::MaybeUninit;

use super::{Kernel, TILE};

/// A float that the kernels read and write; they compute in f32.
pub(crate) trait FlexElement: Element + bytemuck::Pod + Send + Sync {
    /// Widens elements.
    fn load(source: &[Self], tile: &mut [f32]);

    /// Rounds half to even, and writes every element of `output`.
    fn store(tile: &[f32], output: &mut [MaybeUninit<Self>]);

    /// Runs a kernel in place.
    fn update(first: usize, data: &mut [Self], kernel: &impl Kernel) {
        let mut tile = [0.0; TILE];
        for (i, data) in data.chunks_mut(TILE).enumerate() {
            let tile = &mut tile[..data.len()];
            Self::load(data, tile);
            kernel.in_place(first + i * TILE, tile);
            // SAFETY: `store` writes only whole elements, so what was initialised stays so.
            Self::store(tile, unsafe { &mut *(std::ptr::from_mut(data) as *mut [MaybeUninit<Self>]) });
        }
    }

    /// Runs a kernel from one buffer to another, every element of which is written.
    fn map(first: usize, source: &[Self], output: &mut [MaybeUninit<Self>], kernel: &impl Kernel) {
        let mut tile = [0.0; TILE];
        for (i, (source, output)) in source.chunks(TILE).zip(output.chunks_mut(TILE)).enumerate() {
            let tile = &mut tile[..source.len()];
            Self::load(source, tile);
            kernel.in_place(first + i * TILE, tile);
            Self::store(tile, output);
        }
    }
}

impl FlexElement for f32 {
    #[inline(always)]
    fn load(source: &[Self], tile: &mut [f32]) {
        tile.copy_from_slice(source);
    }

    #[inline(always)]
    fn store(tile: &[f32], output: &mut [MaybeUninit<Self>]) {
        output.write_copy_of_slice(tile);
    }

    fn update(first: usize, data: &mut [Self], kernel: &impl Kernel) {
        kernel.in_place(first, data);
    }

    fn map(first: usize, source: &[Self], output: &mut [MaybeUninit<Self>], kernel: &impl Kernel) {
        kernel.into(first, source, output);
    }
}

impl FlexElement for f16 {
    #[inline(always)]
    fn load(source: &[Self], tile: &mut [f32]) {
        source.convert_to_f32_slice(tile);
    }

    #[inline(always)]
    fn store(tile: &[f32], output: &mut [MaybeUninit<Self>]) {
        let mut halves = [f16::ZERO; TILE];
        let halves = &mut halves[..tile.len()];
        halves.convert_from_f32_slice(tile);
        output.write_copy_of_slice(halves);
    }
}

/// bf16 is the upper half of an f32. Written here because `half` converts it one element at a time, which alone takes
/// longer than the rest of the kernel.
impl FlexElement for bf16 {
    #[inline(always)]
    fn load(source: &[Self], tile: &mut [f32]) {
        super::vectorized(
            #[inline(always)]
            || {
                for (wide, narrow) in tile.iter_mut().zip(source) {
                    *wide = f32::from_bits(u32::from(narrow.to_bits()) << 16);
                }
            },
        );
    }

    #[inline(always)]
    fn store(tile: &[f32], output: &mut [MaybeUninit<Self>]) {
        super::vectorized(
            #[inline(always)]
            || {
                for (narrow, wide) in output.iter_mut().zip(tile) {
                    narrow.write(bf16::from_bits(round_to_upper_half(wide.to_bits())));
                }
            },
        );
    }
}

/// Rounds the bits of an f32 to its upper half, ties to even; a NaN stays a NaN.
#[inline(always)]
fn round_to_upper_half(bits: u32) -> u16 {
    let rounded = bits.wrapping_add(0x7fff + ((bits >> 16) & 1)) >> 16;
    let quiet_nan = (bits >> 16) | 0x0040;
    let is_nan = (bits & 0x7fff_ffff) > 0x7f80_0000;
    (if is_nan { quiet_nan } else { rounded }) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bf16_rounds_as_the_half_crate_does() {
        for upper in 0..=u16::MAX {
            for lower in [0, 1, 0x7fff, 0x8000, 0x8001, 0xffff] {
                let bits = (u32::from(upper) << 16) | lower;
                let expected = bf16::from_f32(f32::from_bits(bits));
                let found = bf16::from_bits(round_to_upper_half(bits));
                assert!(found == expected || (found.is_nan() && expected.is_nan()), "bits {bits:#010x}");
            }
        }
    }
}
