//! What the Flex kernels share: memory order, runs of elements in one group, and tiles of f32.
//!
//! ```text
//! tensor ──► Storage   dense memory in whatever order its axes lie     (else: one copy to row-major)
//!        ──► chunks    64 Ki elements, one rayon task each             (small tensors: the calling thread)
//!        ──► tiles     2 Ki elements as f32 on the stack               (f16 and bf16 only; f32 is read where it lies)
//!        ──► runs      consecutive elements of one group, or of consecutive groups
//! ```

mod element;
mod runs;

pub(crate) use element::FlexElement;
pub(crate) use runs::{Run, apply, apply_into, walk};

use burn_flex::FlexTensor;
use rayon::prelude::*;
use std::mem::MaybeUninit;

/// Elements of a rayon task: 256 KiB of f32, a few hundred of them in a large tensor.
pub(crate) const CHUNK: usize = 64 * 1024;
/// Elements converted to f32 at a time: 8 KiB, well inside the first-level cache with its source.
pub(crate) const TILE: usize = 2048;

/// The axes of a tensor in memory order, outer to inner, without those of length 1, if its elements lie densely; `None`
/// for views with gaps, overlaps or reversed axes.
fn memory_order(tensor: &FlexTensor) -> Option<Vec<usize>> {
    let (shape, strides) = (tensor.layout().shape(), tensor.layout().strides());
    let mut order = row_major_order(tensor);
    order.sort_by_key(|&axis| std::cmp::Reverse(strides[axis]));
    let mut expected = 1;
    for &axis in order.iter().rev() {
        if strides[axis] != expected {
            return None;
        }
        expected *= shape[axis] as isize;
    }
    Some(order)
}

fn row_major_order(tensor: &FlexTensor) -> Vec<usize> {
    let shape = tensor.layout().shape();
    (0..shape.num_dims()).filter(|&axis| shape[axis] != 1).collect()
}

/// A tensor whose elements lie densely, with the order of its axes in memory.
pub(crate) fn densely(tensor: FlexTensor) -> (FlexTensor, Vec<usize>) {
    match memory_order(&tensor) {
        Some(order) => (tensor, order),
        None => row_major(tensor),
    }
}

/// A tensor whose elements lie densely in row-major order, with that order.
pub(crate) fn row_major(tensor: FlexTensor) -> (FlexTensor, Vec<usize>) {
    let order = row_major_order(&tensor);
    (if tensor.is_contiguous() { tensor } else { tensor.to_contiguous() }, order)
}

/// The elements of a dense tensor.
pub(crate) fn elements<E: FlexElement>(tensor: &FlexTensor) -> &[E] {
    let start = tensor.layout().start_offset();
    &tensor.storage::<E>()[start..start + tensor.layout().num_elements()]
}

/// The same, to be changed, if nobody else holds the buffer.
pub(crate) fn elements_mut<E: FlexElement>(tensor: &mut FlexTensor) -> Option<&mut [E]> {
    let (start, len) = (tensor.layout().start_offset(), tensor.layout().num_elements());
    Some(&mut tensor.try_storage_mut::<E>()?[start..start + len])
}

/// What is done to f32 elements; `first` is the number of the first element within the tensor.
pub(crate) trait Kernel: Sync {
    /// Elements that must come together: chunks and tiles hold a whole number of these, but for the last.
    fn granule(&self) -> usize {
        1
    }
    /// In place.
    fn in_place(&self, first: usize, data: &mut [f32]);
    /// From one buffer to another of the same length, every element of which is written.
    fn into(&self, first: usize, source: &[f32], output: &mut [MaybeUninit<f32>]);
}

/// Runs a kernel over `data`, in place.
pub(crate) fn update<E: FlexElement>(data: &mut [E], kernel: &impl Kernel) {
    let chunk = CHUNK.next_multiple_of(kernel.granule());
    if data.len() <= CHUNK {
        return E::update(0, data, kernel);
    }
    data.par_chunks_mut(chunk).enumerate().for_each(|(i, data)| E::update(i * chunk, data, kernel));
}

/// Runs a kernel over `source` and collects its results in a new vector.
pub(crate) fn map<E: FlexElement>(source: &[E], kernel: &impl Kernel) -> Vec<E> {
    let chunk = CHUNK.next_multiple_of(kernel.granule());
    let mut output = Vec::with_capacity(source.len());
    let spare = &mut output.spare_capacity_mut()[..source.len()];
    if source.len() <= CHUNK {
        E::map(0, source, spare, kernel);
    } else {
        let chunks = source.par_chunks(chunk).zip(spare.par_chunks_mut(chunk)).enumerate();
        chunks.for_each(|(i, (source, spare))| E::map(i * chunk, source, spare, kernel));
    }
    // SAFETY: `FlexElement::map` writes every element of its chunk, and the chunks cover the vector.
    unsafe { output.set_len(source.len()) };
    output
}

/// Whether [`vectorized`] compiles for AVX2 with fused multiply-add on this processor.
pub(crate) fn has_vectors() -> bool {
    #[cfg(target_arch = "x86_64")]
    return std::is_x86_feature_detected!("avx2")
        && std::is_x86_feature_detected!("fma")
        && std::is_x86_feature_detected!("f16c");
    #[cfg(not(target_arch = "x86_64"))]
    return cfg!(target_arch = "aarch64"); // its baseline has vectors and fused multiply-add
}

/// Calls `f` compiled for AVX2 where the processor has it.
///
/// `f` must be inlined, so that it is compiled once with and once without the instructions. The compiler never fuses a
/// product and a sum by itself, so both give the same bits.
#[inline(always)]
pub(crate) fn vectorized<R>(f: impl FnOnce() -> R) -> R {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2,fma,f16c")]
        fn avx2<R>(f: impl FnOnce() -> R) -> R {
            f()
        }
        if has_vectors() {
            // SAFETY: the processor has the instructions.
            return unsafe { avx2(f) };
        }
    }
    f()
}
