//! What every grid promises, whatever its format and its scales.

use burn_quant_numerics::{
    BlockScale, Grid, IntFormat, IntSpan, Minifloat, Mx, NF4_TABLE, Nf4, Signedness, TwoLevel, fake_quant_in_place,
    fake_quant_into,
};
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

fn minifloats() -> impl Strategy<Value = Minifloat> {
    prop::sample::select(Minifloat::ALL.to_vec())
}

/// Idempotent, monotonic, and a slice is its elements. `halved` is the grid for a tensor of half the size: all but the
/// scales of a two-level grid are its own.
fn every_grid_keeps_its_promises<G: Grid>(grid: G, halved: G, amax: f32, a: f32, b: f32) -> Result<(), TestCaseError> {
    let scale = grid.scale(amax);
    let fq = |x: f32| grid.fake_quant(x, scale);
    let (x, x2) = (a * amax, b * amax);
    prop_assert_eq!(fq(fq(x)), fq(x), "quantizing twice is quantizing once");
    let (small, large) = (x.min(x2), x.max(x2));
    prop_assert!(fq(small) <= fq(large), "order is kept");
    let half = halved.scale(amax * 0.5);
    prop_assert_eq!(halved.fake_quant(x * 0.5, half), fq(x) * 0.5, "a power of two passes through");
    let (mut in_place, mut into) = ([x, x2], [0.0; 2]);
    fake_quant_into(grid, &in_place, &mut into, scale);
    fake_quant_in_place(grid, &mut in_place, scale);
    prop_assert_eq!(in_place, [fq(x), fq(x2)], "a slice is its elements");
    prop_assert_eq!(into, in_place);
    Ok(())
}

/// The distance of neighbours in a minifloat around a magnitude, in grid units.
fn step(format: Minifloat, units: f32) -> f32 {
    let power = 2f32.powf(units.abs().max(format.min_normal()).log2().floor());
    power / 2f32.powi(format.mantissa_bits().into())
}

/// At most half a step away, and symmetric about zero.
fn rounds_to_the_nearest<G: Grid>(grid: G, format: Minifloat, amax: f32, a: f32) -> Result<(), TestCaseError> {
    let (x, scale) = (a * amax, grid.scale(amax));
    let y = grid.fake_quant(x, scale);
    prop_assert_eq!(grid.fake_quant(-x, scale), -y, "minifloats are symmetric");
    let (units, largest) = ((x / scale.from_grid).abs(), format.largest());
    if units <= largest {
        // the scale, the quotient and the product are each rounded to f32
        let bound = step(format, units) * scale.from_grid * 0.5 + x.abs() * 3e-7;
        prop_assert!((x - y).abs() <= bound, "x = {x}, y = {y}, bound {bound}");
    } else {
        prop_assert!((y.abs() - largest * scale.from_grid).abs() <= y.abs() * 1e-6, "x = {x} saturates, y = {y}");
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn integers(format in int_formats(), amax in amaxes(), a in fractions(), b in fractions()) {
        let grid = format.grid();
        every_grid_keeps_its_promises(grid, grid, amax, a, b)?;
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
    fn minifloats_with_f32_scales(format in minifloats(), amax in amaxes(), a in fractions(), b in fractions()) {
        every_grid_keeps_its_promises(format, format, amax, a, b)?;
        rounds_to_the_nearest(format, format, amax, a)?;
    }

    #[test]
    fn minifloats_with_powers_of_two(format in minifloats(), amax in amaxes(), a in fractions(), b in fractions()) {
        let grid = Mx(format);
        every_grid_keeps_its_promises(grid, grid, amax, a, b)?;
        rounds_to_the_nearest(grid, format, amax, a)?;
        let scale = grid.scale(amax);
        prop_assert!(amax * scale.to_grid <= format.largest(), "nothing saturates");
        prop_assert!(amax * scale.to_grid * 2.0 > format.largest(), "with the least power of two");
    }

    #[test]
    fn integers_with_powers_of_two(bits in 2u8..=16, amax in amaxes(), a in fractions(), b in fractions()) {
        let ints = IntFormat::signed(bits).unwrap().grid().symmetric();
        let grid = Mx(ints);
        every_grid_keeps_its_promises(grid, grid, amax, a, b)?;
        let (x, scale) = (a * amax, grid.scale(amax));
        let y = grid.fake_quant(x, scale);
        prop_assert_eq!(grid.fake_quant(-x, scale), -y, "codes are symmetric");
        if x.abs() <= amax {
            prop_assert!((x - y).abs() <= scale.from_grid * 0.5, "at most half a step");
        }
    }

    #[test]
    fn minifloats_with_e4m3_scales(
        format in minifloats(),
        blocks in prop::sample::select(vec![BlockScale::Dynamic, BlockScale::Static, BlockScale::StaticFourOverSix]),
        global in (-3i32..20, 1.0f32..2.0).prop_map(|(e, m)| m * 2f32.powi(e)),
        share in 0.05f32..=1.0,
        a in fractions(),
        b in fractions(),
    ) {
        // the dynamic rule has a threshold that does not scale: keep the scales of blocks above it, also at half the
        // size
        prop_assume!(format != Minifloat::E5M2 || global > 64.0);
        let grid = TwoLevel::new(format, blocks, global);
        let amax = share * global;
        every_grid_keeps_its_promises(grid, TwoLevel::new(format, blocks, global * 0.5), amax, a, b)?;
        rounds_to_the_nearest(grid, format, amax, a)?;
        let (scale, exact) = (grid.scale(amax).from_grid, amax / format.largest());
        // a normal E4M3 number is within 1/16 of what it rounds
        prop_assert!((scale / exact - 1.0).abs() <= 1.0 / 16.0 + 1e-6, "scale {scale}, exact {exact}");
    }

    #[test]
    fn normal_floats(amax in amaxes(), a in fractions(), b in fractions()) {
        every_grid_keeps_its_promises(Nf4, Nf4, amax, a, b)?;
        let (x, scale) = (a * amax, Nf4.scale(amax));
        let error = (x - Nf4.fake_quant(x, scale)).abs();
        let best = NF4_TABLE.iter().map(|value| (x - value * amax).abs()).fold(f32::INFINITY, f32::min);
        prop_assert!(error <= best + amax * 3e-7, "no value of the table is nearer: {error}, {best}");
    }
}
