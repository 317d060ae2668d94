//! The fused CPU kernel: one read and one write per element, on all cores, in place if the buffer is uniquely owned.
//!
//! The factors of every group are computed once, beforehand; the loop over a run of elements is the loop of
//! `burn-quant-numerics`, compiled for the vector instructions at hand; integers divide by an exact `reciprocal`. Any dense memory order is kept as it is, so a
//! transposed weight stays transposed.

use std::mem::MaybeUninit;
use std::ops::Range;

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{Bytes, DType, bf16, f16};
use burn_flex::FlexTensor;
use burn_quant_numerics::{E4m3, Format, Grid, Scale};

use super::reciprocal::Reciprocal;
use super::{FakeQuant, FakeQuantOps};
use crate::flex::{
    FlexElement, Kernel, Run, TILE, apply, apply_into, densely, elements, elements_mut, has_vectors, map, row_major,
    update, vectorized, walk,
};
use crate::groups::Segment;

impl FakeQuantOps for Flex {
    fn fake_quant(x: FloatTensor<Self>, amax: FloatTensor<Self>, spec: FakeQuant) -> FloatTensor<Self> {
        let amax = groups_amax(&amax);
        match spec.format {
            Format::Int(format) => match Reciprocal::fits(format.grid(), &amax) {
                Some(grid) if has_vectors() => with_grid(grid, x, &amax, &spec),
                _ => with_grid(format.grid(), x, &amax, &spec),
            },
            Format::E4M3 => with_grid(E4m3, x, &amax, &spec),
            other => unreachable!("no Flex kernel for {other}"),
        }
    }

    fn fake_quant_clip_gradient(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        amax: FloatTensor<Self>,
        spec: FakeQuant,
    ) -> FloatTensor<Self> {
        match x.dtype() {
            DType::F32 => clip_gradient::<f32>(grad, x, &amax, &spec),
            DType::F16 => clip_gradient::<f16>(grad, x, &amax, &spec),
            DType::BF16 => clip_gradient::<bf16>(grad, x, &amax, &spec),
            other => unreachable!("fake_quant: no kernel for {other:?}"),
        }
    }
}

fn with_grid<G: Grid>(grid: G, x: FlexTensor, amax: &[f32], spec: &FakeQuant) -> FlexTensor {
    match x.dtype() {
        DType::F32 => fake_quant::<f32, G>(grid, x, amax, spec),
        DType::F16 => fake_quant::<f16, G>(grid, x, amax, spec),
        DType::BF16 => fake_quant::<bf16, G>(grid, x, amax, spec),
        other => unreachable!("fake_quant: no kernel for {other:?}"),
    }
}

fn fake_quant<E: FlexElement, G: Grid>(grid: G, x: FlexTensor, amax: &[f32], spec: &FakeQuant) -> FlexTensor {
    let (x, order) = densely(x);
    let segments = spec.groups.segments_in_order(order);
    run::<E>(x, &Rounding { grid, segments, scales: Scales::new(grid, amax) })
}

fn clip_gradient<E: FlexElement>(grad: FlexTensor, x: FlexTensor, amax: &FlexTensor, spec: &FakeQuant) -> FlexTensor {
    let (mut x, mut order) = densely(x);
    let (mut grad, grad_order) = densely(grad);
    if grad_order != order {
        (x, order) = row_major(x);
        (grad, _) = row_major(grad);
    }
    let segments = spec.groups.segments_in_order(order);
    run::<E>(grad, &Clipping { inputs: elements::<E>(&x), segments, amax: groups_amax(amax) })
}

/// Runs a kernel over a dense tensor, in place if its buffer is uniquely owned.
fn run<E: FlexElement>(mut x: FlexTensor, kernel: &impl Kernel) -> FlexTensor {
    match elements_mut::<E>(&mut x) {
        Some(data) => {
            update(data, kernel);
            x
        }
        None => like(&x, map(elements::<E>(&x), kernel)),
    }
}

/// A tensor over a new buffer in the memory order of `original`.
fn like<E: FlexElement>(original: &FlexTensor, data: Vec<E>) -> FlexTensor {
    let layout = burn_flex::Layout::new(original.layout().shape().clone(), original.layout().strides().to_vec(), 0);
    FlexTensor::new(Bytes::from_elems(data), layout, original.dtype())
}

fn groups_amax(amax: &FlexTensor) -> Vec<f32> {
    elements::<f32>(&densely(amax.clone()).0).to_vec()
}

/// The factors of all groups, each kind side by side so that runs over consecutive groups load them as vectors.
struct Scales {
    to_grid: Vec<f32>,
    from_grid: Vec<f32>,
}

impl Scales {
    #[inline(always)]
    fn of(&self, group: usize) -> Scale {
        Scale { to_grid: self.to_grid[group], from_grid: self.from_grid[group] }
    }

    fn new<G: Grid>(grid: G, amax: &[f32]) -> Self {
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
struct Rounding<G> {
    grid: G,
    segments: Vec<Segment>,
    scales: Scales,
}

impl<G: Grid> Kernel for Rounding<G> {
    fn in_place(&self, first: usize, data: &mut [f32]) {
        let (grid, Scales { to_grid, from_grid }) = (self.grid, &self.scales);
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
                            let scale = self.scales.of(group);
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
        let (grid, Scales { to_grid, from_grid }) = (self.grid, &self.scales);
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
                            let scale = self.scales.of(group);
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

/// The clipped rule: data are gradients, kept where the input at the same place is within the range.
struct Clipping<'a, E> {
    inputs: &'a [E],
    segments: Vec<Segment>,
    amax: Vec<f32>,
}

impl<E: FlexElement> Clipping<'_, E> {
    /// Calls `f` with the inputs of every tile of the data from element `first` on, as f32.
    #[inline(always)]
    fn tiles(&self, first: usize, len: usize, mut f: impl FnMut(Range<usize>, &[f32])) {
        let mut tile = [0.0; TILE];
        for start in (0..len).step_by(TILE) {
            let place = start..len.min(start + TILE);
            let tile = &mut tile[..place.len()];
            E::load(&self.inputs[first + place.start..first + place.end], tile);
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
