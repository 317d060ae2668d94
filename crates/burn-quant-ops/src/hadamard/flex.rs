//! The CPU kernel: blocks are transformed as f32 in the cache, on all cores.
//!
//! A block of a row is a run; blocks along an axis before the last stand in columns, and strips of columns are
//! transformed together. The order of additions is that of the reference, so the bits are too.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{Bytes, DType, bf16, f16};
use burn_flex::{FlexTensor, Layout};
use rayon::prelude::*;
use std::mem::MaybeUninit;

use super::{Direction, Hadamard, HadamardOps};
use crate::flex::{CHUNK, FlexElement, elements, row_major, vectorized};

/// Columns that are transformed together: 1 KiB of a row.
const COLUMNS: usize = 256;

impl HadamardOps for Flex {
    fn hadamard(x: FloatTensor<Self>, rotation: Hadamard) -> FloatTensor<Self> {
        match x.dtype() {
            DType::F32 => transform::<f32>(x, rotation),
            DType::F16 => transform::<f16>(x, rotation),
            DType::BF16 => transform::<bf16>(x, rotation),
            other => unreachable!("hadamard: no kernel for {other:?}"),
        }
    }
}

fn transform<E: FlexElement>(x: FlexTensor, rotation: Hadamard) -> FlexTensor {
    let (x, _) = row_major(x);
    let (shape, dtype) = (x.layout().shape().clone(), x.dtype());
    let source = elements::<E>(&x);
    let mut output: Vec<E> = Vec::with_capacity(source.len());
    let spare = &mut output.spare_capacity_mut()[..source.len()];
    let len = shape[rotation.axis];
    let inner: usize = shape[rotation.axis + 1..].iter().product();
    let signs = rotation.signs_of(len);
    let slab = rotation.block * inner;
    let work = |(i, (source, output)): (usize, (&[E], &mut [MaybeUninit<E>]))| {
        let first = i * rotation.block % len;
        let signs = signs.as_ref().map(|signs| &signs[first..first + rotation.block]);
        Block { rotation, inner, signs }.run(source, output);
    };
    if source.len() <= CHUNK {
        source.chunks(slab).zip(spare.chunks_mut(slab)).enumerate().for_each(work);
    } else {
        let slabs = source.par_chunks(slab).zip(spare.par_chunks_mut(slab)).enumerate();
        slabs.with_min_len((CHUNK / slab).max(1)).for_each(work);
    }
    // SAFETY: the slabs cover the vector, and `Block::run` writes every element of its own.
    unsafe { output.set_len(source.len()) };
    FlexTensor::new(Bytes::from_elems(output), Layout::contiguous(shape), dtype)
}

/// One block of every column beside it.
struct Block<'a> {
    rotation: Hadamard,
    /// Columns: elements from one of the block to the next.
    inner: usize,
    signs: Option<&'a [f32]>,
}

impl Block<'_> {
    fn run<E: FlexElement>(&self, source: &[E], output: &mut [MaybeUninit<E>]) {
        let rows = self.rotation.block;
        let mut strip = vec![0f32; rows * COLUMNS.min(self.inner)];
        for start in (0..self.inner).step_by(COLUMNS) {
            let width = COLUMNS.min(self.inner - start);
            let strip = &mut strip[..rows * width];
            if self.inner == 1 {
                E::load(source, strip);
            } else {
                for (row, strip) in strip.chunks_mut(width).enumerate() {
                    E::load(&source[row * self.inner + start..][..width], strip);
                }
            }
            vectorized(
                #[inline(always)]
                || self.transform(strip, width),
            );
            if self.inner == 1 {
                E::store(strip, output);
            } else {
                for (row, strip) in strip.chunks(width).enumerate() {
                    E::store(strip, &mut output[row * self.inner + start..][..width]);
                }
            }
        }
    }

    #[inline(always)]
    fn transform(&self, strip: &mut [f32], width: usize) {
        if self.rotation.direction == Direction::Forward {
            self.sign(strip, width);
        }
        let mut half = width;
        while half < strip.len() {
            for pair in strip.chunks_exact_mut(2 * half) {
                let (a, b) = pair.split_at_mut(half);
                for (a, b) in a.iter_mut().zip(b) {
                    (*a, *b) = (*a + *b, *a - *b);
                }
            }
            half *= 2;
        }
        let norm = self.rotation.norm();
        strip.iter_mut().for_each(|x| *x *= norm);
        if self.rotation.direction == Direction::Inverse {
            self.sign(strip, width);
        }
    }

    #[inline(always)]
    fn sign(&self, strip: &mut [f32], width: usize) {
        let Some(signs) = self.signs else { return };
        for (row, sign) in strip.chunks_mut(width).zip(signs) {
            row.iter_mut().for_each(|x| *x *= sign);
        }
    }
}
