//! Exact division by multiplication, for the way back from an integer grid.
//!
//! ```text
//! r  = rne(1 / s)                 once per group
//! y₀ = rne(q · r)
//! y  = rne(y₀ + (q − y₀·s) · r)   two fused multiply-adds; equals rne(q / s)
//! ```
//!
//! A vector division takes longer than everything else the kernel does. Source: Markstein 1990, "Computation of
//! elementary functions on the IBM RISC System/6000 processor", IBM J. Res. Dev. 34(1). That `y` is the quotient was
//! checked for every code `|q| <= 65535` with every one of the 2^23 significands of `s`; powers of two factor out as
//! long as nothing leaves the normal numbers, hence [`Reciprocal::fits`]: scales between `2^-60` and `2^60`.

use burn_quant_numerics::{Grid, IntGrid, MIN_AMAX, Scale};

/// An integer grid whose scales hold `s` and `1/s`; needs a processor with fused multiply-add.
#[derive(Clone, Copy)]
pub(super) struct Reciprocal(IntGrid);

impl Reciprocal {
    pub(super) fn new(grid: IntGrid) -> Self {
        Self(grid)
    }

    /// Whether every range is one that the division is exact for.
    #[inline(always)]
    pub(super) fn fits(&self, amax: &[f32]) -> bool {
        let (least, most) = (self.0.max() * 2f32.powi(-60), self.0.max() * 2f32.powi(60));
        amax.iter().all(|amax| *amax <= MIN_AMAX || (*amax >= least && *amax <= most))
    }
}

impl Grid for Reciprocal {
    #[inline(always)]
    fn max(self) -> f32 {
        self.0.max()
    }

    #[inline(always)]
    fn scale(self, amax: f32) -> Scale {
        let scale = self.0.scale(amax);
        Scale { to_grid: scale.to_grid, from_grid: 1.0 / scale.from_grid }
    }

    #[inline(always)]
    fn round(self, units: f32) -> f32 {
        self.0.round(units)
    }

    #[inline(always)]
    fn dequantize(self, units: f32, scale: Scale) -> f32 {
        let quotient = units * scale.from_grid;
        let remainder = (-quotient).mul_add(scale.to_grid, units);
        remainder.mul_add(scale.from_grid, quotient)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_quant_numerics::IntFormat;

    #[test]
    fn every_code_of_int8_gives_the_quotient_for_a_spread_of_scales() {
        let grid = IntFormat::signed(8).unwrap().grid();
        for step in 0..20_000u32 {
            // significands spread over a binade, exponents over all that is not counted as zero
            let amax = f32::from_bits(0x3f80_0000 | (step * 419)) * 2f32.powi((step % 74) as i32 - 23);
            let exact = Reciprocal::new(grid);
            assert!(exact.fits(&[amax]), "amax {amax:e} is within the range");
            let (truth, scale) = (grid.scale(amax), exact.scale(amax));
            for code in grid.lo()..=grid.hi() {
                let (expected, found) = (grid.value(code, truth), exact.dequantize(code as f32, scale));
                assert_eq!(found, expected, "code {code}, amax {amax:e}");
            }
        }
    }

    #[test]
    fn extreme_ranges_are_left_to_the_division() {
        let grid = IntFormat::signed(8).unwrap().grid();
        assert!(Reciprocal::new(grid).fits(&[1.0, 0.0]));
        for amax in [1e25, f32::INFINITY, f32::NAN] {
            assert!(!Reciprocal::new(grid).fits(&[1.0, amax]), "amax {amax}");
        }
    }
}
