//! The clipped gradient rule.

use std::mem::MaybeUninit;
use std::ops::Range;

use super::shift::Shift;
use crate::flex::{FlexElement, Kernel, Run, TILE, apply, apply_into, vectorized, walk};
use crate::groups::Segment;

/// The clipped rule: data are gradients, kept where the input at the same place is within the range.
pub(super) struct Clipping<'a, E> {
    pub(super) inputs: &'a [E],
    pub(super) segments: Vec<Segment>,
    pub(super) amax: Vec<f32>,
    /// What is subtracted from the inputs first.
    pub(super) bias: Option<Shift<E>>,
}

impl<E: FlexElement> Clipping<'_, E> {
    /// Calls `f` with the inputs of every tile of the data from element `first` on, as f32; with all of them where they
    /// need no conversion.
    #[inline(always)]
    fn tiles(&self, first: usize, len: usize, mut f: impl FnMut(Range<usize>, &[f32])) {
        if let (Some(inputs), None) = (E::as_f32(self.inputs), &self.bias) {
            return f(0..len, &inputs[first..first + len]);
        }
        let mut tile = [0.0; TILE];
        for start in (0..len).step_by(TILE) {
            let place = start..len.min(start + TILE);
            let tile = &mut tile[..place.len()];
            E::load(&self.inputs[first + place.start..first + place.end], tile);
            if let Some(bias) = &self.bias {
                bias.subtract(first + place.start, tile);
            }
            f(place, tile);
        }
    }
}

#[inline(always)]
fn clip(grad: f32, [x, amax]: [f32; 2]) -> f32 {
    if x.abs() <= amax { grad } else { 0.0 }
}

impl<E: FlexElement> Kernel for Clipping<'_, E> {
    fn in_place(&self, first: usize, data: &mut [f32]) {
        self.tiles(first, data.len(), |tile, inputs| {
            let grads = &mut data[tile.clone()];
            vectorized(
                #[inline(always)]
                || {
                    walk(
                        &self.segments,
                        first + tile.start,
                        grads.len(),
                        #[inline(always)]
                        |place, run| match run {
                            Run::Shared(group) => {
                                let amax = self.amax[group];
                                apply(&mut grads[place.clone()], [&inputs[place]], |grad, [x]| clip(grad, [x, amax]));
                            }
                            Run::Consecutive(group) => {
                                apply(&mut grads[place.clone()], [&inputs[place], &self.amax[group..]], clip);
                            }
                        },
                    );
                },
            );
        });
    }

    fn into(&self, first: usize, source: &[f32], output: &mut [MaybeUninit<f32>]) {
        self.tiles(first, source.len(), |tile, inputs| {
            let (grads, output) = (&source[tile.clone()], &mut output[tile.clone()]);
            vectorized(
                #[inline(always)]
                || {
                    walk(
                        &self.segments,
                        first + tile.start,
                        grads.len(),
                        #[inline(always)]
                        |place, run| {
                            let (grads, output) = (&grads[place.clone()], &mut output[place.clone()]);
                            match run {
                                Run::Shared(group) => {
                                    let amax = self.amax[group];
                                    apply_into(grads, output, [&inputs[place]], |grad, [x]| clip(grad, [x, amax]));
                                }
                                Run::Consecutive(group) => {
                                    apply_into(grads, output, [&inputs[place], &self.amax[group..]], clip);
                                }
                            }
                        },
                    );
                },
            );
        });
    }
}
