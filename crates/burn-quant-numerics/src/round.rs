//! Round half to even, without a math library.
//!
//! ```text
//! rne(x) = (x + c) − c        c = 1.5·2^23, |x| <= 2^22
//! ```
//!
//! Adding `c` leaves no room for fraction bits in an f32, so the addition itself rounds, and IEEE 754 addition rounds
//! half to even. It compiles to two vector additions on any target; a `round` instruction does not exist on baseline
//! x86-64. Source: a folklore technique, see e.g. Monniaux 2008, arXiv:cs/0701192.

/// `1.5·2^23`: the spacing of f32 numbers around it is 1.
pub(crate) const INTEGER_SPACING: f32 = 12_582_912.0;

/// Rounds to the nearest integer, ties to even, for `|x| <= 2^22`; NaN stays NaN.
///
/// A value that rounds to zero gives `+0.0`, whatever its sign: grids compare zeros as equal.
///
/// # Example
///
/// ```
/// use burn_quant_numerics::round_half_to_even;
///
/// assert_eq!([0.5, 1.5, 2.5, -2.5, 2.6].map(round_half_to_even), [0.0, 2.0, 2.0, -2.0, 3.0]);
/// ```
#[inline(always)]
pub fn round_half_to_even(x: f32) -> f32 {
    (x + INTEGER_SPACING) - INTEGER_SPACING
}

/// `x` between `lo` and `hi`; NaN stays NaN.
///
/// `f32::clamp` checks `lo <= hi` on every call; a grid has checked its bounds once.
#[inline(always)]
pub(crate) fn clip(x: f32, lo: f32, hi: f32) -> f32 {
    let x = if x < lo { lo } else { x };
    if x > hi { hi } else { x }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_the_standard_library_on_every_half_and_between() {
        for quarter in -4_000_000i32..=4_000_000 {
            let x = quarter as f32 / 4.0;
            assert_eq!(round_half_to_even(x), x.round_ties_even(), "x = {x}");
        }
    }
}
