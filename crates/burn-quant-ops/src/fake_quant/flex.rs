//! The fused CPU kernel: one read and one write per element, on all cores, in place if the buffer is uniquely owned.
//!
//! The factors of every group are computed once, beforehand; the loop over a run of elements is the loop of
//! `burn-quant-numerics`, compiled for the vector instructions at hand. Any dense memory order is kept as it is, so a
//! transposed weight stays transposed.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{Bytes, DType, bf16, f16};
use burn_flex::FlexTensor;
use burn_quant_numerics::{E4m3, Format, Grid, Scale};

use super::{FakeQuant, FakeQuantOps};
use crate::flex::{FlexElement, Run, densely, elements, elements_mut, map, row_major, update, vectorized, walk};
use crate::groups::Segment;

impl FakeQuantOps for Flex {
    fn fake_quant(x: FloatTensor<Self>, amax: FloatTensor<Self>, spec: FakeQuant) -> FloatTensor<Self> {
        match spec.format {
            Format::Int(format) => with_grid(format.grid(), x, &amax, &spec),
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

fn with_grid<G: Grid>(grid: G, x: FlexTensor, amax: &FlexTensor, spec: &FakeQuant) -> FlexTensor {
    match x.dtype() {
        DType::F32 => fake_quant::<f32, G>(grid, x, amax, spec),
        DType::F16 => fake_quant::<f16, G>(grid, x, amax, spec),
        DType::BF16 => fake_quant::<bf16, G>(grid, x, amax, spec),
        other => unreachable!("fake_quant: no kernel for {other:?}"),
    }
}

fn fake_quant<E: FlexElement, G: Grid>(grid: G, x: FlexTensor, amax: &FlexTensor, spec: &FakeQuant) -> FlexTensor {
    let (mut x, order) = densely(x);
    let segments = spec.groups.segments_in_order(order);
    let scales = Scales::new(grid, &groups_amax(amax));
    let kernel = |first: usize, tile: &mut [f32]| round_tile(grid, &segments, &scales, first, tile);
    match elements_mut::<E>(&mut x) {
        Some(data) => {
            update(data, kernel);
            x
        }
        None => like(&x, map(elements::<E>(&x), kernel)),
    }
}

fn clip_gradient<E: FlexElement>(grad: FlexTensor, x: FlexTensor, amax: &FlexTensor, spec: &FakeQuant) -> FlexTensor {
    let (mut x, mut order) = densely(x);
    let (mut grad, grad_order) = densely(grad);
    if grad_order != order {
        (x, order) = row_major(x);
        (grad, _) = row_major(grad);
    }
    let segments = spec.groups.segments_in_order(order);
    let amax = groups_amax(amax);
    let kernel = |first: usize, tile: &mut [f32]| {
        let mut inputs = [0.0; crate::flex::TILE];
        let inputs = &mut inputs[..tile.len()];
        E::load(&elements::<E>(&x)[first..first + tile.len()], inputs);
        clip_tile(&segments, &amax, first, inputs, tile);
    };
    match elements_mut::<E>(&mut grad) {
        Some(data) => {
            update(data, kernel);
            grad
        }
        None => like(&grad, map(elements::<E>(&grad), kernel)),
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

fn round_tile<G: Grid>(grid: G, segments: &[Segment], scales: &Scales, first: usize, tile: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            walk(
                segments,
                first,
                tile.len(),
                #[inline(always)]
                |place, run| match run {
                    Run::Shared(group) => {
                        let scale = Scale { to_grid: scales.to_grid[group], from_grid: scales.from_grid[group] };
                        burn_quant_numerics::fake_quant_in_place(grid, &mut tile[place], scale);
                    }
                    Run::Consecutive(group) => {
                        let run = &mut tile[place];
                        let groups = group..group + run.len();
                        let factors = scales.to_grid[groups.clone()].iter().zip(&scales.from_grid[groups]);
                        for (x, (&to_grid, &from_grid)) in run.iter_mut().zip(factors) {
                            *x = grid.fake_quant(*x, Scale { to_grid, from_grid });
                        }
                    }
                },
            );
        },
    );
}

fn clip_tile(segments: &[Segment], amax: &[f32], first: usize, inputs: &[f32], grads: &mut [f32]) {
    vectorized(
        #[inline(always)]
        || {
            walk(
                segments,
                first,
                grads.len(),
                #[inline(always)]
                |place, run| {
                    let pairs = grads[place.clone()].iter_mut().zip(&inputs[place]);
                    match run {
                        Run::Shared(group) => {
                            let amax = amax[group];
                            pairs.for_each(|(grad, x)| *grad = if x.abs() <= amax { *grad } else { 0.0 });
                        }
                        Run::Consecutive(group) => {
                            for ((grad, x), &amax) in pairs.zip(&amax[group..]) {
                                *grad = if x.abs() <= amax { *grad } else { 0.0 };
                            }
                        }
                    }
                },
            );
        },
    );
}
