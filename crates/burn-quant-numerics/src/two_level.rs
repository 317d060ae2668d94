//! NVFP4 and its kin: blocks with E4M3 scales under one f32 scale of the tensor.
//!
//! ```text
//! G = amax of the tensor, A = amax of the block, max = largest element (6 for E2M1)
//!
//! dynamic, E2M1    g = G / (448·max), 10^-12 if not positive
//!                  s = E4M3(min(A / (max·g), 448)) · g
//!                  s = 1 unless s >= 10^-5
//! dynamic, others  k = 448 · (max / G)                   in f64, as all of this line and the next
//!                  s = E4M3(min((A / max) · k, 448)) / k   1 if A or G is zero or not finite
//! static           s = A/max rounded by E4M3 fake quantization with amax G·(448/M)/max
//!                  M = 448, or 256 for four-over-six
//!
//! y = Q(x / s) · s                          static: 0 if s = 0, s = 1 if s is not finite
//! y = Q(x · f32(1/s)) · s                   dynamic, others: 0 if s = 0
//! ```
//!
//! Three rules for a scale that underflows, because the reference has three: in a dynamic block of E2M1 small values
//! round to zero on a unit scale; in a dynamic block of other elements, and in a static block, only a scale that is
//! itself zero gives zeros.
//!
//! Source: ModelOpt 0.47, its Triton kernel (dynamic E2M1), its CUDA kernel (other dynamic elements) and static
//! block-scale quantizers; NVIDIA 2025, "Introducing NVFP4". The block is as large as the configuration says, where the
//! Triton kernel always takes 16 elements; division is IEEE 754's, where both are approximate; and elements that are
//! NaN stay NaN.

use crate::grid::{finite_amax, finite_magnitude};
use crate::{BlockScale, Grid, Minifloat, Scale};

/// A dynamic scale below this counts as one.
const MIN_SCALE: f32 = 1e-5;
/// What a scale of the tensor that is not positive is replaced by.
const MIN_TENSOR_SCALE: f32 = 1e-12;
/// The largest element of E2M1, and of no other format: what NVFP4's own rule is for.
const E2M1_MAX: f32 = 6.0;

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
    /// Dynamic elements other than E2M1: `k`, or zero if it is of no use.
    scale_of_scales: f64,
    /// Static: the scale of the E4M3 fake quantization of scales.
    of_scales: Scale,
    /// Whether values are multiplied by the reciprocal of their scale, and not divided by it.
    multiplies: bool,
}

impl<G: Grid> TwoLevel<G> {
    /// Returns the grid of the elements.
    ///
    /// Its scales are f32.
    pub fn elements(self) -> G {
        self.grid
    }

    /// The grid for a tensor with values of magnitude up to `global_amax`.
    #[inline(always)]
    pub fn new(grid: G, blocks: BlockScale, global_amax: f32) -> Self {
        let max = grid.max();
        let tensor_scale = global_amax / (448.0 * max);
        let tensor_scale = if tensor_scale <= 0.0 { MIN_TENSOR_SCALE } else { tensor_scale };
        let of_scales = Minifloat::E4M3.scale(global_amax * (448.0 / blocks.max()) / max);
        let scale_of_scales = 448.0 * (f64::from(max) / f64::from(global_amax));
        let usable = scale_of_scales > 0.0 && scale_of_scales < f64::INFINITY;
        Self {
            grid,
            blocks,
            tensor_scale,
            unit: max * tensor_scale,
            scale_of_scales: if usable { scale_of_scales } else { 0.0 },
            of_scales,
            multiplies: blocks == BlockScale::Dynamic && max != E2M1_MAX,
        }
    }

    /// Returns the E4M3 code of the scale of a block: what is stored of it.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant_numerics::{BlockScale, Grid, Minifloat, TwoLevel};
    ///
    /// let nvfp4 = TwoLevel::new(Minifloat::E2M1, BlockScale::Dynamic, 20.0);
    /// let code = nvfp4.scale_code(5.1);
    /// assert_eq!(Minifloat::E4M3.decode(code), 112.0); // of 448 at most
    /// assert_eq!(nvfp4.scale_of_code(code), nvfp4.scale(5.1));
    /// ```
    pub fn scale_code(self, amax: f32) -> u8 {
        let units = match self.blocks {
            BlockScale::Dynamic if self.multiplies => self.units_in_f64(amax),
            BlockScale::Dynamic => amax / self.unit,
            BlockScale::Static | BlockScale::StaticFourOverSix => amax / self.grid.max() * self.of_scales.to_grid,
        };
        if units > 0.0 { Minifloat::E4M3.encode(units) } else { 0 }
    }

    /// Returns the scale of a block from its E4M3 code.
    ///
    /// It is that of the range that the code was made from; a code of zero belongs to a block of zeros.
    pub fn scale_of_code(self, code: u8) -> Scale {
        let units = Minifloat::E4M3.decode(code);
        match self.blocks {
            BlockScale::Dynamic if self.multiplies => self.in_f64(units),
            BlockScale::Dynamic => self.dividing(self.dynamic(units)),
            BlockScale::Static | BlockScale::StaticFourOverSix => self.dividing(units * self.of_scales.from_grid),
        }
    }

    /// Returns what E4M3 scales are multiplied with: the scale of a block is that of its code times this, wherever the
    /// block holds anything but zeros.
    pub fn tensor_scale(self) -> f32 {
        match self.blocks {
            BlockScale::Dynamic if self.multiplies && self.scale_of_scales > 0.0 => (1.0 / self.scale_of_scales) as f32,
            BlockScale::Dynamic if self.multiplies => 1.0,
            BlockScale::Dynamic => self.tensor_scale,
            BlockScale::Static | BlockScale::StaticFourOverSix => self.of_scales.from_grid,
        }
    }

    /// Returns the least scale of a block that counts: a smaller one is replaced by one.
    pub fn least_scale(self) -> f32 {
        match self.blocks {
            BlockScale::Dynamic if self.multiplies && self.scale_of_scales == 0.0 => f32::MAX,
            BlockScale::Dynamic if !self.multiplies => MIN_SCALE,
            _ => 0.0,
        }
    }

    #[inline(always)]
    fn dynamic(self, units: f32) -> f32 {
        let scale = units * self.tensor_scale;
        if scale >= MIN_SCALE { scale } else { 1.0 }
    }

    /// What a zero scale does not divide, it multiplies by zero afterwards.
    #[inline(always)]
    fn dividing(self, scale: f32) -> Scale {
        Scale { to_grid: if scale == 0.0 { 1.0 } else { scale }, from_grid: scale }
    }

    /// The scale of a dynamic block of elements other than E2M1, in units of E4M3.
    #[inline(always)]
    fn units_in_f64(self, amax: f32) -> f32 {
        let units = (f64::from(amax) / f64::from(self.grid.max()) * self.scale_of_scales) as f32;
        if units > 448.0 { 448.0 } else { units }
    }

    #[inline(always)]
    fn in_f64(self, units: f32) -> Scale {
        let k = self.scale_of_scales;
        let scale = if k > 0.0 { (f64::from(units) / k) as f32 } else { 1.0 };
        let reciprocal = 1.0 / scale;
        // what a zero scale does not shrink, it multiplies by zero afterwards
        let to_grid = if scale == 0.0 {
            1.0
        } else if reciprocal > f32::MAX {
            f32::MAX
        } else {
            reciprocal
        };
        Scale { to_grid, from_grid: scale }
    }

    /// The scale of a dynamic block of elements other than E2M1.
    #[inline(always)]
    fn scale_in_f64(self, amax: f32) -> Scale {
        let usable = amax > 0.0 && amax < f32::INFINITY && self.scale_of_scales > 0.0;
        if usable { self.in_f64(Minifloat::E4M3.round(self.units_in_f64(amax))) } else { self.dividing(1.0) }
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
            BlockScale::Dynamic if self.multiplies => return self.scale_in_f64(amax),
            BlockScale::Dynamic => {
                let units = amax / self.unit;
                let units = if units > 448.0 { 448.0 } else { units };
                self.dynamic(Minifloat::E4M3.round(units))
            }
            BlockScale::Static | BlockScale::StaticFourOverSix => {
                let scale = Minifloat::E4M3.fake_quant(amax / self.grid.max(), self.of_scales);
                let finite = scale.abs() < f32::INFINITY;
                if finite { scale } else { 1.0 }
            }
        };
        self.dividing(scale)
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
        if self.multiplies { x * scale.to_grid } else { x / scale.to_grid }
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

    /// The amax of the block is that of the tensor, so its scale is amax / max, far below the threshold of E2M1.
    /// ModelOpt prints 9.82143e-5, -2.90179e-5, 1.964286e-4 and 9.84252e-5, -3.14961e-5, 2.007874e-4.
    #[test]
    fn small_blocks_of_other_elements_keep_their_values() {
        fn check<G: Grid>(grid: G, codes: [f32; 4]) {
            let x = [1e-4, -3e-5, 2e-4, 5e-4];
            let block = TwoLevel::new(grid, BlockScale::Dynamic, 5e-4);
            let scale = block.scale(block.amax(&x));
            for (x, code) in x.into_iter().zip(codes) {
                let (found, expected) = (block.fake_quant(x, scale), code * 5e-4 / grid.max());
                assert!((found - expected).abs() <= 2e-7 * expected.abs(), "{found:e}, expected {expected:e}");
            }
        }
        check(Minifloat::E4M3, [88.0, -26.0, 176.0, 448.0]);
        check(crate::IntFormat::signed(8).unwrap().grid().symmetric(), [25.0, -8.0, 51.0, 127.0]);
    }

    #[test]
    fn a_scale_of_other_elements_is_one_without_a_range_and_zero_if_it_underflows() {
        let e4m3 = |global, amax| TwoLevel::new(Minifloat::E4M3, BlockScale::Dynamic, global).scale(amax);
        let one = Scale { to_grid: 1.0, from_grid: 1.0 };
        for (global, amax) in [(0.0, 1.0), (f32::INFINITY, 1.0), (f32::NAN, 1.0), (1.0, 0.0), (1.0, f32::NAN)] {
            assert_eq!(e4m3(global, amax), one, "{global} {amax}");
        }
        // 448·2^-19 is below half of the least E4M3 number, 2^-9
        let grid = TwoLevel::new(Minifloat::E4M3, BlockScale::Dynamic, 1.0);
        let scale = grid.scale(2f32.powi(-19));
        assert_eq!(scale.from_grid, 0.0);
        assert_eq!(grid.fake_quant(2f32.powi(-19), scale), 0.0);
        // three quarters of the range is halfway between the scales 320 and 352: the even code
        assert_eq!(grid.scale(0.75).from_grid, 320.0 / (448.0 * 448.0));
    }

    #[test]
    fn nan_stays_nan_and_infinity_saturates() {
        let x = [f32::NAN, f32::INFINITY, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0];
        let (s, y) = block(BlockScale::Dynamic, 6.0, 6.0, x);
        assert!(y[0].is_nan());
        assert_eq!((s, y[1], y[2]), (1.0, 6.0, 1.0));
    }
}
