//! Given ranges: the factors of every group are computed once, beforehand.

use std::mem::MaybeUninit;

use burn_quant_numerics::{Grid, Scale};

use crate::flex::{Kernel, Run, apply, apply_into, vectorized, walk};
use crate::groups::Segment;

/// The factors of all groups, each kind side by side so that runs over consecutive groups load them as vectors.
pub(super) struct Factors {
    pub(super) to_grid: Vec<f32>,
    pub(super) from_grid: Vec<f32>,
}

impl Factors {
    #[inline(always)]
    fn of(&self, group: usize) -> Scale {
        Scale { to_grid: self.to_grid[group], from_grid: self.from_grid[group] }
    }

    pub(super) fn new<G: Grid>(grid: G, amax: &[f32]) -> Self {
        vectorized(
            #[inline(always)]
            || {
                let (mut to_grid, mut from_grid) = (vec![0.0; amax.len()], vec![0.0; amax.len()]);
                for ((to, from), &amax) in to_grid.iter_mut().zip(&mut from_grid).zip(amax) {
                    let scale = grid.scale(amax);
                    (*to, *from) = (scale.to_grid, scale.from_grid);
                }
                Self { to_grid, from_grid }
            },
        )
    }
}

/// Fake quantization of elements.
pub(super) struct Rounding<G> {
    grid: G,
    segments: Vec<Segment>,
    factors: Factors,
}

impl<G: Grid> Rounding<G> {
    pub(super) fn new(grid: G, segments: Vec<Segment>, amax: &[f32]) -> Self {
        Self { grid, segments, factors: Factors::new(grid, amax) }
    }
}

impl<G: Grid> Kernel for Rounding<G> {
    fn in_place(&self, first: usize, data: &mut [f32]) {
        let (grid, Factors { to_grid, from_grid }) = (self.grid, &self.factors);
        vectorized(
            #[inline(always)]
            || {
                walk(
                    &self.segments,
                    first,
                    data.len(),
                    #[inline(always)]
                    |place, run| match run {
                        Run::Shared(group) => {
                            let scale = self.factors.of(group);
                            apply(&mut data[place], [], |x, []| grid.fake_quant(x, scale));
                        }
                        Run::Consecutive(group) => {
                            apply(&mut data[place], [&to_grid[group..], &from_grid[group..]], |x, scale| {
                                grid.fake_quant(x, Scale { to_grid: scale[0], from_grid: scale[1] })
                            });
                        }
                    },
                );
            },
        );
    }

    fn into(&self, first: usize, source: &[f32], output: &mut [MaybeUninit<f32>]) {
        let (grid, Factors { to_grid, from_grid }) = (self.grid, &self.factors);
        vectorized(
            #[inline(always)]
            || {
                walk(
                    &self.segments,
                    first,
                    source.len(),
                    #[inline(always)]
                    |place, run| match run {
                        Run::Shared(group) => {
                            let scale = self.factors.of(group);
                            apply_into(&source[place.clone()], &mut output[place], [], |x, []| {
                                grid.fake_quant(x, scale)
                            });
                        }
                        Run::Consecutive(group) => {
                            let scales = [&to_grid[group..], &from_grid[group..]];
                            apply_into(&source[place.clone()], &mut output[place], scales, |x, scale| {
                                grid.fake_quant(x, Scale { to_grid: scale[0], from_grid: scale[1] })
                            });
                        }
                    },
                );
            },
        );
    }
}
