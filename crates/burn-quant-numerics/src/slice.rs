//! The loops over slices; each is generic over the grid and vectorises.

use crate::{Grid, Scale};

/// The largest magnitude in `x`, 0 for an empty slice; NaN if any element is NaN.
///
/// Magnitudes of floats order like their bit patterns, and NaN patterns are above infinity, so an integer maximum
/// answers both questions in one vectorised pass.
///
/// # Example
///
/// ```
/// use burn_quant_numerics::amax;
///
/// assert_eq!(amax(&[0.5, -3.0, 2.0]), 3.0);
/// assert!(amax(&[0.5, f32::NAN]).is_nan());
/// ```
#[inline(always)]
pub fn amax(x: &[f32]) -> f32 {
    f32::from_bits(x.iter().fold(0, |max, x| max.max(x.to_bits() & 0x7fff_ffff)))
}

/// Fake-quantizes a slice whose elements share one scale, in place.
///
/// # Example
///
/// ```
/// use burn_quant_numerics::{Grid, Minifloat, fake_quant_in_place};
///
/// let mut x = [0.26, -1.0, 3.0];
/// let e4m3 = Minifloat::E4M3;
/// fake_quant_in_place(e4m3, &mut x, e4m3.scale(1.0));
/// assert_eq!(x[1..], [-1.0, 1.0]); // amax itself, and what lies beyond it
/// ```
#[inline(always)]
pub fn fake_quant_in_place<G: Grid>(grid: G, x: &mut [f32], scale: Scale) {
    for x in x {
        *x = grid.fake_quant(*x, scale);
    }
}

/// Fake-quantizes `x` into `y`, all elements with one scale.
///
/// # Panics
///
/// If the slices differ in length.
#[inline(always)]
pub fn fake_quant_into<G: Grid>(grid: G, x: &[f32], y: &mut [f32], scale: Scale) {
    assert_eq!(x.len(), y.len(), "fake_quant_into: input and output differ in length");
    for (y, x) in y.iter_mut().zip(x) {
        *y = grid.fake_quant(*x, scale);
    }
}
