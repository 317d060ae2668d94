//! The CPU kernel: one read per element, on all cores.
//!
//! Magnitudes of floats order like their bit patterns, so maxima are taken of integers: exact, associative, and NaN is
//! above infinity. Each task reduces its chunks into its own row of groups; the rows are merged at the end.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{Bytes, DType, Shape, bf16, f16};
use burn_flex::{FlexTensor, Layout};
use rayon::prelude::*;

use burn_quant_numerics::{Grid, Minifloat};

use super::GroupAmaxOps;
use crate::Groups;
use crate::flex::{CHUNK, FlexElement, Run, TILE, densely, elements, vectorized, walk};
use crate::groups::Segment;

impl GroupAmaxOps for Flex {
    fn group_amax(x: FloatTensor<Self>, groups: Groups) -> FloatTensor<Self> {
        let (x, order) = densely(x);
        let segments = groups.segments_in_order(order);
        let amax = match x.dtype() {
            DType::F32 => reduce::<f32, _>(elements(&x), &segments, groups.len(), PLAIN),
            DType::F16 => reduce::<f16, _>(elements(&x), &segments, groups.len(), PLAIN),
            DType::BF16 => reduce::<bf16, _>(elements(&x), &segments, groups.len(), PLAIN),
            _ => return super::reference::group_amax::<Self>(x, &groups),
        };
        let shape = Shape::from([amax.len()]);
        FlexTensor::new(Bytes::from_elems(amax), Layout::contiguous(shape), DType::F32)
    }
}

/// Any grid whose ranges are largest magnitudes, NaN above all.
const PLAIN: Minifloat = Minifloat::E4M3;

/// The range of each group as `grid` measures it.
pub(crate) fn reduce<E: FlexElement, G: Grid>(x: &[E], segments: &[Segment], groups: usize, grid: G) -> Vec<f32> {
    // A task per chunk would cost a row of groups each; one per thread costs few.
    let tasks = if x.len() <= CHUNK { 1 } else { rayon::current_num_threads() };
    let share = x.len().div_ceil(tasks).next_multiple_of(TILE);
    let task = |(i, part): (usize, &[E])| {
        let mut amax = vec![0u32; groups];
        for (j, tile) in part.chunks(TILE).enumerate() {
            reduce_tile(tile, segments, i * share + j * TILE, &mut amax, grid);
        }
        amax
    };
    let merge = |mut a: Vec<u32>, b: Vec<u32>| {
        a.iter_mut().zip(b).for_each(|(a, b)| *a = (*a).max(b));
        a
    };
    let bits = if tasks == 1 {
        task((0, x))
    } else {
        x.par_chunks(share).enumerate().map(task).reduce_with(merge).expect("a tensor with elements")
    };
    bits.into_iter().map(f32::from_bits).collect()
}

fn reduce_tile<E: FlexElement, G: Grid>(x: &[E], segments: &[Segment], first: usize, amax: &mut [u32], grid: G) {
    let mut tile = [0.0; TILE];
    let tile = &mut tile[..x.len()];
    E::load(x, tile);
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
                        amax[group] = amax[group].max(grid.amax(&tile[place]).to_bits());
                    }
                    Run::Consecutive(group) => {
                        for (amax, x) in amax[group..].iter_mut().zip(&tile[place]) {
                            *amax = (*amax).max(grid.magnitude(*x));
                        }
                    }
                },
            );
        },
    );
}
