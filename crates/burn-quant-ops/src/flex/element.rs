//! The element types of the Flex kernels, and their way to f32 and back.

use burn::tensor::Element;
use half::{bf16, f16, slice::HalfFloatSliceExt};
use std::mem::MaybeUninit;

use super::{Kernel, TILE};

/// A float that the kernels read and write; they compute in f32.
pub(crate) trait FlexElement: Element + bytemuck::Pod + Send + Sync {
    /// Widens elements.
    fn load(source: &[Self], tile: &mut [f32]);

    /// The elements themselves, if they are f32.
    fn as_f32(source: &[Self]) -> Option<&[f32]> {
        let _ = source;
        None
    }

    /// Rounds half to even, and writes every element of `output`.
    fn store(tile: &[f32], output: &mut [MaybeUninit<Self>]);

    /// Rounds f32 values to this type, at most [`TILE`] of them at a time.
    fn round(tile: &mut [f32]) {
        let mut narrow = [MaybeUninit::<Self>::uninit(); TILE];
        let narrow = &mut narrow[..tile.len()];
        Self::store(tile, narrow);
        // SAFETY: `store` wrote every element.
        Self::load(unsafe { narrow.assume_init_ref() }, tile);
    }

    /// Calls `f` with all elements as f32, part by part, and the place of each part.
    fn scan(source: &[Self], mut f: impl FnMut(usize, &[f32])) {
        let mut tile = [0.0; TILE];
        for (i, source) in source.chunks(TILE).enumerate() {
            let tile = &mut tile[..source.len()];
            Self::load(source, tile);
            f(i * TILE, tile);
        }
    }

    /// Runs a kernel in place.
    fn update(first: usize, data: &mut [Self], kernel: &impl Kernel) {
        with_tile(kernel.granule(), data.len(), |tile| {
            for (i, data) in data.chunks_mut(tile.len()).enumerate() {
                let first = first + i * tile.len();
                let tile = &mut tile[..data.len()];
                Self::load(data, tile);
                kernel.in_place(first, tile);
                // SAFETY: `store` writes only whole elements, so what was initialised stays so.
                Self::store(tile, unsafe { &mut *(std::ptr::from_mut(data) as *mut [MaybeUninit<Self>]) });
            }
        });
    }

    /// Runs a kernel from one buffer to another, every element of which is written.
    fn map(first: usize, source: &[Self], output: &mut [MaybeUninit<Self>], kernel: &impl Kernel) {
        with_tile(kernel.granule(), source.len(), |tile| {
            for (i, (source, output)) in source.chunks(tile.len()).zip(output.chunks_mut(tile.len())).enumerate() {
                let first = first + i * tile.len();
                let tile = &mut tile[..source.len()];
                Self::load(source, tile);
                kernel.in_place(first, tile);
                Self::store(tile, output);
            }
        });
    }
}

/// Calls `f` with room for a whole number of granules: on the stack if one fits there.
fn with_tile(granule: usize, elements: usize, f: impl FnOnce(&mut [f32])) {
    if granule <= TILE {
        f(&mut [0.0; TILE][..TILE - TILE % granule])
    } else {
        f(&mut vec![0.0; granule.min(elements).max(1)])
    }
}

impl FlexElement for f32 {
    #[inline(always)]
    fn as_f32(source: &[Self]) -> Option<&[f32]> {
        Some(source)
    }

    #[inline(always)]
    fn round(_tile: &mut [f32]) {}

    #[inline(always)]
    fn scan(source: &[Self], mut f: impl FnMut(usize, &[f32])) {
        f(0, source);
    }

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
    fn load(source: &[Self], tile: &mut [f32]) {
        #[cfg(target_arch = "x86_64")]
        if super::has_vectors() {
            // SAFETY: the processor has the instructions.
            return unsafe { f16c::load(source, tile) };
        }
        source.convert_to_f32_slice(tile);
    }

    fn store(tile: &[f32], output: &mut [MaybeUninit<Self>]) {
        #[cfg(target_arch = "x86_64")]
        if super::has_vectors() {
            // SAFETY: the processor has the instructions.
            return unsafe { f16c::store(tile, output) };
        }
        for (tile, output) in tile.chunks(TILE).zip(output.chunks_mut(TILE)) {
            let mut halves = [f16::ZERO; TILE];
            let halves = &mut halves[..tile.len()];
            halves.convert_from_f32_slice(tile);
            output.write_copy_of_slice(halves);
        }
    }
}

/// f16 by the processor's own conversions, eight at a time. `half` has them too, behind a check and a copy for every
/// eight elements, which takes longer than the rest of the kernel.
#[cfg(target_arch = "x86_64")]
mod f16c {
    use std::arch::x86_64::{
        __m128i, _MM_FROUND_TO_NEAREST_INT, _mm_loadu_si128, _mm_storeu_si128, _mm256_cvtph_ps, _mm256_cvtps_ph,
        _mm256_loadu_ps, _mm256_storeu_ps,
    };
    use std::mem::MaybeUninit;

    use half::f16;

    const LANES: usize = 8;

    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn load(source: &[f16], tile: &mut [f32]) {
        let (narrow, narrow_rest) = source.as_chunks::<LANES>();
        let (wide, wide_rest) = tile.as_chunks_mut::<LANES>();
        for (narrow, wide) in narrow.iter().zip(wide) {
            // SAFETY: both point to eight elements; unaligned access is what these instructions are for.
            unsafe {
                let lanes = _mm_loadu_si128(narrow.as_ptr().cast::<__m128i>());
                _mm256_storeu_ps(wide.as_mut_ptr(), _mm256_cvtph_ps(lanes));
            }
        }
        narrow_rest.iter().zip(wide_rest).for_each(|(narrow, wide)| *wide = narrow.to_f32());
    }

    #[target_feature(enable = "avx2,f16c")]
    pub(super) fn store(tile: &[f32], output: &mut [MaybeUninit<f16>]) {
        let (wide, wide_rest) = tile.as_chunks::<LANES>();
        let (narrow, narrow_rest) = output.as_chunks_mut::<LANES>();
        for (wide, narrow) in wide.iter().zip(narrow) {
            // SAFETY: as above; an f16 has the layout of its bits.
            unsafe {
                let lanes = _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(_mm256_loadu_ps(wide.as_ptr()));
                _mm_storeu_si128(narrow.as_mut_ptr().cast::<__m128i>(), lanes);
            }
        }
        narrow_rest.iter_mut().zip(wide_rest).for_each(|(narrow, wide)| {
            narrow.write(f16::from_f32(*wide));
        });
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
    fn f16_rounds_as_the_half_crate_does() {
        let wide: Vec<f32> = (0..=u16::MAX).map(|bits| f16::from_bits(bits).to_f32()).collect();
        let narrow: Vec<f16> = (0..=u16::MAX).map(f16::from_bits).collect();
        let mut loaded = vec![0.0; narrow.len()];
        f16::load(&narrow, &mut loaded);
        assert!(loaded.iter().zip(&wide).all(|(a, b)| a == b || (a.is_nan() && b.is_nan())));
        for factor in [1.0, 1.000_3, 0.999_7, 1.0 + 2f32.powi(-12) /* half a step */] {
            let tile: Vec<f32> =
                wide[..TILE + 3].iter().chain(&wide[30_000..30_000 + TILE]).map(|x| x * factor).collect();
            for tile in tile.chunks(TILE) {
                let mut stored = Vec::with_capacity(tile.len());
                f16::store(tile, &mut stored.spare_capacity_mut()[..tile.len()]);
                // SAFETY: `store` writes every element.
                unsafe { stored.set_len(tile.len()) };
                let expected: Vec<f16> = tile.iter().map(|x| f16::from_f32(*x)).collect();
                assert!(stored.iter().zip(&expected).all(|(a, b)| a == b || (a.is_nan() && b.is_nan())));
            }
        }
    }

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
