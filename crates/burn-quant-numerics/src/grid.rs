//! The interface of a grid, and the scale that one amax gives.

/// The largest amax that counts as zero: `2^-24`.
///
/// At or below it an integer grid gives zeros and a minifloat grid falls back to a unit amax, as the reference does.
/// Source: ModelOpt 0.47, integer and FP8 fake quantization.
pub const MIN_AMAX: f32 = 5.960_464_5e-8;

/// The two factors between real values and grid units that one amax gives.
///
/// Two, not one with its reciprocal, because the reference rounds differently on the way in and on the way out: an
/// integer grid divides by `from_grid`, a minifloat grid multiplies by it. Only the [`Grid`] that made a scale knows
/// how to use it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Multiplies a real value; the product is in grid units.
    pub to_grid: f32,
    /// Leads from grid units back to real values.
    pub from_grid: f32,
}

/// What a number format does with one value: the single definition of its arithmetic.
///
/// All arithmetic is f32 in the order that [`fake_quant`](Grid::fake_quant) of each grid documents, so that results are
/// equal bit for bit wherever IEEE 754 holds.
pub trait Grid: Copy + Send + Sync {
    /// The largest value of the grid, in grid units; amax is mapped to it.
    fn max(self) -> f32;

    /// The scale for values of magnitude up to `amax`.
    ///
    /// `amax` is finite and not negative; NaN gives a scale that makes every value NaN.
    fn scale(self, amax: f32) -> Scale;

    /// The grid point nearest to `x`, in grid units: clips, then rounds half to even; NaN stays NaN.
    fn round(self, units: f32) -> f32;

    /// The real value of a grid point.
    fn dequantize(self, units: f32, scale: Scale) -> f32;

    /// Quantizes and dequantizes one real value.
    #[inline(always)]
    fn fake_quant(self, x: f32, scale: Scale) -> f32 {
        self.dequantize(self.round(x * scale.to_grid), scale)
    }
}
