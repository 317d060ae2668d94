//! The bias: subtracted before a kernel and added after it, while the data is in the cache.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use crate::flex::{FlexElement, Kernel, Run, TILE, apply, vectorized, walk};
use crate::groups::Segment;

/// A bias by groups. Differences and sums are rounded to `E`, as those of tensors are.
pub(super) struct Shift<E> {
    segments: Vec<Segment>,
    values: Vec<f32>,
    element: PhantomData<fn(E)>,
}

impl<E: FlexElement> Shift<E> {
    /// The bias is rounded to `E` first, as the reference keeps it.
    pub(super) fn new(segments: Vec<Segment>, mut values: Vec<f32>) -> Self {
        E::round(&mut values);
        Self { segments, values, element: PhantomData }
    }

    pub(super) fn subtract(&self, first: usize, data: &mut [f32]) {
        self.shift(first, data, |x, bias| x - bias);
    }

    fn add(&self, first: usize, data: &mut [f32]) {
        self.shift(first, data, |x, bias| x + bias);
    }

    #[inline(always)]
    fn shift(&self, first: usize, data: &mut [f32], f: impl Fn(f32, f32) -> f32) {
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
                            let bias = self.values[group];
                            apply(&mut data[place], [], |x, []| f(x, bias));
                        }
                        Run::Consecutive(group) => {
                            apply(&mut data[place], [&self.values[group..]], |x, [bias]| f(x, bias));
                        }
                    },
                );
            },
        );
        data.chunks_mut(TILE).for_each(E::round);
    }
}

/// The bias alone, subtracted or added.
pub(super) enum Shifting<'a, E> {
    Down(&'a Shift<E>),
    Up(&'a Shift<E>),
}

impl<E: FlexElement> Kernel for Shifting<'_, E> {
    fn in_place(&self, first: usize, data: &mut [f32]) {
        match self {
            Shifting::Down(shift) => shift.subtract(first, data),
            Shifting::Up(shift) => shift.add(first, data),
        }
    }

    fn into(&self, first: usize, source: &[f32], output: &mut [MaybeUninit<f32>]) {
        self.in_place(first, output.write_copy_of_slice(source));
    }
}

/// A kernel around a bias.
pub(super) struct Shifted<'a, K, E> {
    pub(super) kernel: K,
    pub(super) bias: &'a Shift<E>,
}

impl<K: Kernel, E: FlexElement> Kernel for Shifted<'_, K, E> {
    fn granule(&self) -> usize {
        self.kernel.granule()
    }

    fn in_place(&self, first: usize, data: &mut [f32]) {
        self.bias.subtract(first, data);
        self.kernel.in_place(first, data);
        data.chunks_mut(TILE).for_each(E::round);
        self.bias.add(first, data);
    }

    fn into(&self, first: usize, source: &[f32], output: &mut [MaybeUninit<f32>]) {
        self.in_place(first, output.write_copy_of_slice(source));
    }
}
