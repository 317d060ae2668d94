//! The interface of a grid, and the scale that one amax gives.

/// The largest amax that counts as zero: `2^-24`.
///
/// At or below it an integer grid gives zeros and a minifloat grid falls back to a unit amax, as the reference does.
/// Source: ModelOpt 0.47, integer and FP8 fake quantization.
pub const MIN_AMAX: f32 = 5.960_464_5e-8;

/// The two factors between real values and grid units that one amax gives.
///
/// Two, not one with its reciprocal, because the reference rounds differently on the way in and on the way out: an
/// integer grid divides by `from_grid`, a minifloat grid multiplies by it; under E4M3 scales both ways use the scale
/// itself. Only the [`Grid`] that made a scale knows how to use it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    /// Leads from real values to grid units.
    pub to_grid: f32,
    /// Leads from grid units back to real values.
    pub from_grid: f32,
}

/// What a number format does with one value: the single definition of its arithmetic.
///
/// All arithmetic is f32 in the order that [`fake_quant`](Grid::fake_quant) of each grid documents, so that results are
/// equal bit for bit wherever IEEE 754 holds. A format with scales of its own, as [`Mx`](crate::Mx) and
/// [`TwoLevel`](crate::TwoLevel), is a grid too: it differs in how an amax becomes a scale.
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

    /// The value of `x` in grid units, not yet rounded.
    #[inline(always)]
    fn units(self, x: f32, scale: Scale) -> f32 {
        x * scale.to_grid
    }

    /// Quantizes and dequantizes one real value.
    #[inline(always)]
    fn fake_quant(self, x: f32, scale: Scale) -> f32 {
        self.dequantize(self.round(self.units(x, scale)), scale)
    }

    /// The range of values that share a scale, when it is taken from the values themselves.
    #[inline(always)]
    fn amax(self, x: &[f32]) -> f32 {
        f32::from_bits(x.iter().fold(0, |bits, x| bits.max(self.magnitude(*x))))
    }

    /// What a value adds to the range it is part of: bits that order as magnitudes do. NaN is above infinity.
    #[inline(always)]
    fn magnitude(self, x: f32) -> u32 {
        x.to_bits() & 0x7fff_ffff
    }
}

const INFINITY: u32 = 0x7f80_0000;

/// The magnitude of a value that may not spoil the range of its block: NaN counts as nothing, infinity as the largest
/// number.
#[inline(always)]
pub(crate) fn finite_magnitude(x: f32) -> u32 {
    let bits = x.to_bits() & 0x7fff_ffff;
    if bits > INFINITY { 0 } else { bits.min(INFINITY - 1) }
}

/// The largest of these magnitudes: those of all values first, which costs a third, and again only if that is not
/// finite.
#[inline(always)]
pub(crate) fn finite_amax(x: &[f32]) -> f32 {
    let amax = crate::amax(x);
    if amax < f32::INFINITY { amax } else { spoilt_amax(x) }
}

#[cold]
fn spoilt_amax(x: &[f32]) -> f32 {
    f32::from_bits(x.iter().fold(0, |bits, x| bits.max(finite_magnitude(*x))))
}
