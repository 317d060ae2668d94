//! The grid of a call: one for each kind of elements and scales, chosen once per tensor.

use burn_quant_numerics::{Format, Grid, Mx, Nf4, TwoLevel};

use super::reciprocal::Reciprocal;
use crate::fake_quant::{Call, Scales};
use crate::flex::has_vectors;

/// A grid, and a faster one that gives the same values for ranges that fit it.
#[derive(Clone, Copy)]
pub(super) struct Grids<Fast, Exact> {
    pub(super) fast: Fast,
    pub(super) exact: Exact,
    pub(super) fits: fn(&Fast, &[f32]) -> bool,
}

/// What is done with the grid of a call.
pub(super) trait WithGrids {
    type Output;
    fn call<Fast: Grid + 'static, Exact: Grid + 'static>(self, grids: Grids<Fast, Exact>) -> Self::Output;
}

/// Finds the grid of a call.
pub(super) fn with_grids<W: WithGrids>(call: &Call, global_amax: f32, work: W) -> W::Output {
    let format = call.spec.format;
    match (call.scales, format, format.minifloat()) {
        (Scales::Static | Scales::Dynamic, Format::Int(format), _) => {
            let grid = format.grid();
            if has_vectors() {
                work.call(Grids { fast: Reciprocal::new(grid), exact: grid, fits: Reciprocal::fits })
            } else {
                only(grid, work)
            }
        }
        (Scales::Static | Scales::Dynamic, _, Some(grid)) => only(grid, work),
        (Scales::Static | Scales::Dynamic, ..) => only(Nf4, work),
        (Scales::PowersOfTwo, Format::Int(format), _) => only(Mx(format.grid().symmetric()), work),
        (Scales::PowersOfTwo, _, Some(grid)) => only(Mx(grid), work),
        (Scales::TwoLevel(blocks), Format::Int(format), _) => {
            only(TwoLevel::new(format.grid().symmetric(), blocks, global_amax), work)
        }
        (Scales::TwoLevel(blocks), _, Some(grid)) => only(TwoLevel::new(grid, blocks, global_amax), work),
        (scales, format, None) => unreachable!("fake_quant: {format} has no {scales:?}"),
    }
}

fn only<G: Grid + 'static, W: WithGrids>(grid: G, work: W) -> W::Output {
    work.call(Grids { fast: grid, exact: grid, fits: |_, _| true })
}
