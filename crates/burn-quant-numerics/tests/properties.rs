//! What every grid promises, whatever its format.

use burn_quant_numerics::{E4m3, Grid, IntFormat, IntSpan, Signedness, fake_quant_in_place, fake_quant_into};
use proptest::prelude::*;

fn amaxes() -> impl Strategy<Value = f32> {
    (-20i32..20, 1.0f32..2.0).prop_map(|(exponent, mantissa)| mantissa * 2.0f32.powi(exponent))
}

/// Fractions of amax, some beyond it.
fn fractions() -> impl Strategy<Value = f32> {
    -1.5f32..1.5
}

fn int_formats() -> impl Strategy<Value = IntFormat> {
    (2u8..=16, any::<bool>(), any::<bool>()).prop_map(|(bits, unsigned, narrow)| {
        let signedness = if unsigned { Signedness::Unsigned } else { Signedness::Signed };
        let span = if narrow { IntSpan::Narrow } else { IntSpan::Full };
        IntFormat::new(bits, signedness, span).unwrap()
    })
}

fn every_grid_keeps_its_promises<G: Grid>(grid: G, amax: f32, a: f32, b: f32) -> Result<(), TestCaseError> {
    let scale = grid.scale(amax);
    let fq = |x: f32| grid.fake_quant(x, scale);
    let (x, x2) = (a * amax, b * amax);
    prop_assert_eq!(fq(fq(x)), fq(x), "quantizing twice is quantizing once");
    let (small, large) = (x.min(x2), x.max(x2));
    prop_assert!(fq(small) <= fq(large), "order is kept");
    let half = grid.scale(amax * 0.5);
    prop_assert_eq!(grid.fake_quant(x * 0.5, half), fq(x) * 0.5, "a power of two passes through");
    let (mut in_place, mut into) = ([x, x2], [0.0; 2]);
    fake_quant_into(grid, &in_place, &mut into, scale);
    fake_quant_in_place(grid, &mut in_place, scale);
    prop_assert_eq!(in_place, [fq(x), fq(x2)], "a slice is its elements");
    prop_assert_eq!(into, in_place);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn integers(format in int_formats(), amax in amaxes(), a in fractions(), b in fractions()) {
        let grid = format.grid();
        every_grid_keeps_its_promises(grid, amax, a, b)?;
        let x = a * amax;
        let y = grid.fake_quant(x, grid.scale(amax));
        let step = f64::from(amax) / f64::from(grid.hi());
        if x.abs() <= amax && (x >= 0.0 || format.signedness() == Signedness::Signed) {
            let error = (f64::from(x) - f64::from(y)).abs();
            prop_assert!(error <= step * 0.5 + f64::from(amax) * 3e-7, "at most half a step: {error} of {step}");
        }
        if format.span() == IntSpan::Narrow && format.signedness() == Signedness::Signed {
            prop_assert_eq!(grid.fake_quant(-x, grid.scale(amax)), -y, "a narrow grid is symmetric");
        }
    }

    #[test]
    fn e4m3(amax in amaxes(), a in fractions(), b in fractions()) {
        every_grid_keeps_its_promises(E4m3, amax, a, b)?;
        let x = a * amax;
        let y = E4m3.fake_quant(x, E4m3.scale(amax));
        prop_assert_eq!(E4m3.fake_quant(-x, E4m3.scale(amax)), -y, "minifloats are symmetric");
        if x.abs() <= amax {
            // half of 2^-3 relative for normal numbers, half of 2^-9/448 of amax below them
            let bound = (x.abs() / 16.0).max(amax / 448.0 / 1024.0) * 1.000_01;
            prop_assert!((x - y).abs() <= bound, "x = {x}, y = {y}");
        }
    }
}
