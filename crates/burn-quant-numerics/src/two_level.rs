//! NVFP4 and its kin: blocks with E4M3 scales under one f32 scale of the tensor.
//!
//! ```text
//! G = amax of the tensor, A = amax of the block, max = largest element (6 for E2M1)
//!
//! dynamic   g = G / (448·max), 10^-12 if not positive
//!           s = E4M3(min(A / (max·g), 448)) · g
//!           s = 1 unless s >= 10^-5
//! static    s = A/max rounded by E4M3 fake quantization with amax G·(448/M)/max        M = 448, or 256 for four-over-six
//!
//! y = Q(x / s) · s                          static: 0 if s = 0, s = 1 if s is not finite
//! ```
//!
//! Two rules for a scale that underflows, because the reference has two: in a dynamic block small values round to zero on a
//! unit scale, in a static block they are zero.
//!
//! Source: ModelOpt 0.47, its Triton kernel (dynamic) and static block-scale quantizers; NVIDIA 2025, "Introducing NVFP4".
//! The block is as large as the configuration says, where that kernel always takes 16 elements; division is IEEE 754's,
//! where it is approximate; and elements that are NaN stay NaN.

use crate::grid::{finite_amax, finite_magnitude};
use crate::{BlockScale, Grid, Minifloat, Scale};

/// A dynamic scale below this counts as one.
const MIN_SCALE: f32 = 1e-5;
/// What a scale of the tensor that is not positive is replaced by.
const MIN_TENSOR_SCALE: f32 = 1e-12;

/// A grid whose scales are E4M3 numbers under a scale of the tensor.
///
/// # Example
///
/// ```
/// use burn_quant_numerics::{BlockScale, Grid, Minifloat, TwoLevel};
///
/// let nvfp4 = TwoLevel::new(Minifloat::E2M1, BlockScale::Dynamic, 5.1); // the amax of the tensor
/// let block = [0.11, -0.27, 0.52, 0.9, -1.3, 2.2, -3.7, 5.1];
/// let scale = nvfp4.scale(nvfp4.amax(&block));
/// assert_eq!(scale.from_grid, 0.85); // 5.1 / 6
/// assert_eq!(nvfp4.fake_quant(2.2, scale), 3.0 * 0.85);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TwoLevel<G> {
    grid: G,
    blocks: BlockScale,
    /// Dynamic: `g`.
    tensor_scale: f32,
    /// Dynamic: `max·g`, the amax whose block has the scale one in E4M3.
    unit: f32,
    /// Static: the scale of the E4M3 fake quantization of scales.
    of_scales: Scale,
}

impl<G: Grid> TwoLevel<G> {
    /// The grid for a tensor with values of magnitude up to `global_amax`.
    #[inline(always)]
    pub fn new(grid: G, blocks: BlockScale, global_amax: f32) -> Self {
        let max = grid.max();
        let tensor_scale = global_amax / (448.0 * max);
        let tensor_scale = if tensor_scale <= 0.0 { MIN_TENSOR_SCALE } else { tensor_scale };
        let of_scales = Minifloat::E4M3.scale(global_amax * (448.0 / blocks.max()) / max);
        Self { grid, blocks, tensor_scale, unit: max * tensor_scale, of_scales }
    }
}

impl<G: Grid> Grid for TwoLevel<G> {
    #[inline(always)]
    fn max(self) -> f32 {
        self.grid.max()
    }

    #[inline(always)]
    fn scale(self, amax: f32) -> Scale {
        let scale = match self.blocks {
            BlockScale::Dynamic => {
                let units = amax / self.unit;
                let units = if units > 448.0 { 448.0 } else { units };
                let scale = Minifloat::E4M3.round(units) * self.tensor_scale;
                if scale >= MIN_SCALE { scale } else { 1.0 }
            }
            BlockScale::Static | BlockScale::StaticFourOverSix => {
                let scale = Minifloat::E4M3.fake_quant(amax / self.grid.max(), self.of_scales);
                let finite = scale.abs() < f32::INFINITY;
                if finite { scale } else { 1.0 }
            }
        };
        // what a zero scale does not divide, it multiplies by zero afterwards
        Scale { to_grid: if scale == 0.0 { 1.0 } else { scale }, from_grid: scale }
    }

    #[inline(always)]
    fn round(self, units: f32) -> f32 {
        self.grid.round(units)
    }

    #[inline(always)]
    fn dequantize(self, units: f32, scale: Scale) -> f32 {
        units * scale.from_grid
    }

    #[inline(always)]
    fn units(self, x: f32, scale: Scale) -> f32 {
        x / scale.to_grid
    }

    #[inline(always)]
    fn amax(self, x: &[f32]) -> f32 {
        finite_amax(x)
    }

    #[inline(always)]
    fn magnitude(self, x: f32) -> u32 {
        finite_magnitude(x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const B: [f32; 8] = [0.11, -0.27, 0.52, 0.9, -1.3, 2.2, -3.7, 5.1];

    fn block(blocks: BlockScale, global: f32, amax: f32, x: [f32; 8]) -> (f32, [f32; 8]) {
        let grid = TwoLevel::new(Minifloat::E2M1, blocks, global);
        let scale = grid.scale(amax);
        (scale.from_grid, x.map(|x| grid.fake_quant(x, scale)))
    }

    /// Input B of the reference; its outputs are printed with 7 digits, so they are written as multiples of the scale.
    #[test]
    fn the_vectors_of_the_reference() {
        let (s, y) = block(BlockScale::Dynamic, 20.0, 5.1, B);
        assert!((s - 0.833_333_3).abs() < 1e-7, "{s}");
        assert_eq!(y, [0.0, -0.5, 0.5, 1.0, -1.5, 3.0, -4.0, 6.0].map(|code| code * s));
        let (s, y) = block(BlockScale::Dynamic, 5.1, 5.1, B);
        assert_eq!(s, 0.85);
        assert_eq!(y, [0.0, -0.5, 0.5, 1.0, -1.5, 3.0, -4.0, 6.0].map(|code| code * s));
        let (s, y) = block(BlockScale::StaticFourOverSix, 20.0, 7.65, B);
        assert_eq!(s, 1.25);
        assert_eq!(y, [0.0, 0.0, 0.5, 0.5, -1.0, 2.0, -3.0, 4.0].map(|code| code * s));
        let scale = |blocks, amax| block(blocks, 20.0, amax, B).0;
        assert_eq!(scale(BlockScale::Static, 5.1), 0.833_333_25);
        assert_eq!(scale(BlockScale::StaticFourOverSix, 5.1), 0.833_333_4);
        assert_eq!(scale(BlockScale::Static, 7.65), 1.309_523_7);
    }

    #[test]
    fn a_scale_that_underflows_is_one_in_a_dynamic_block_and_zero_in_a_static_one() {
        let x = [1.0e-6, -4.0, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0];
        assert_eq!(block(BlockScale::Dynamic, 20.0, 1.0e-6, x).1, [0.0, -4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(block(BlockScale::Static, 20.0, 1.0e-6, x).1, [0.0; 8]);
        assert_eq!(block(BlockScale::Dynamic, 0.0, 0.0, x).0, 1.0, "a tensor of zeros");
    }

    #[test]
    fn nan_stays_nan_and_infinity_saturates() {
        let x = [f32::NAN, f32::INFINITY, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let (s, y) = block(BlockScale::Dynamic, 6.0, 6.0, x);
        assert!(y[0].is_nan());
        assert_eq!((s, y[1], y[2]), (1.0, 6.0, 1.0));
    }
}
