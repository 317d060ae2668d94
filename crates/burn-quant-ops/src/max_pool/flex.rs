//! The CPU kernel: line by line, an element of the window after the other.

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Bytes, DType};
use burn_flex::{FlexTensor, Layout};
use rayon::prelude::*;

use super::MaxPoolOps;
use crate::flex::{elements, row_major, vectorized};

/// Elements of windows that are worth another thread.
const MANY: usize = 1 << 17;

/// Whether windows fit into a padded image that is not empty, each at a place of its own.
pub(super) fn fits([batch, channels, height, width]: [usize; 4], options: &MaxPoolOptions<2>) -> bool {
    let steps = options.kernel_size.iter().chain(&options.stride).chain(&options.dilation);
    let axes = [height, width];
    let within = |axis: usize| {
        let (before, after) = options.padding[axis];
        options.dilation[axis] * (options.kernel_size[axis] - 1) < axes[axis] + before + after
    };
    !options.ceil_mode && steps.min() > Some(&0) && batch * channels * height * width > 0 && within(0) && within(1)
}

impl MaxPoolOps for Flex {
    fn max_pool(x: FloatTensor<Self>, options: MaxPoolOptions<2>) -> FloatTensor<Self> {
        let x = row_major(x).0;
        let &[batch, channels, height, width] = &x.layout().shape()[..] else { unreachable!("four axes") };
        let windows = Windows { input: [height, width], options };
        let [rows, columns] = [0, 1].map(|axis| windows.output(axis));
        let mut y = vec![f32::NEG_INFINITY; batch * channels * rows * columns];
        let plane = |(x, y): (&[f32], &mut [f32])| windows.plane(x, y);
        let (from, plane_len) = (elements::<f32>(&x), rows * columns);
        let elements = windows.options.kernel_size.iter().product::<usize>() * y.len();
        match elements > MANY {
            true => from.par_chunks_exact(height * width).zip(y.par_chunks_exact_mut(plane_len)).for_each(plane),
            false => from.chunks_exact(height * width).zip(y.chunks_exact_mut(plane_len)).for_each(plane),
        }
        FlexTensor::new(Bytes::from_elems(y), Layout::contiguous([batch, channels, rows, columns].into()), DType::F32)
    }
}

/// Where windows are.
struct Windows {
    input: [usize; 2],
    options: MaxPoolOptions<2>,
}

impl Windows {
    /// The windows along an axis.
    fn output(&self, axis: usize) -> usize {
        let MaxPoolOptions { kernel_size, stride, padding, dilation, .. } = &self.options;
        let padded = self.input[axis] + padding[axis].0 + padding[axis].1;
        (padded - dilation[axis] * (kernel_size[axis] - 1) - 1) / stride[axis] + 1
    }

    /// The windows along an axis that have an element within the image, and where the first has it.
    fn inside(&self, axis: usize, element: usize) -> (std::ops::Range<usize>, usize) {
        let MaxPoolOptions { stride, padding, dilation, .. } = &self.options;
        let (stride, shift, before) = (stride[axis], element * dilation[axis], padding[axis].0);
        let first = before.saturating_sub(shift).div_ceil(stride);
        let end = (self.input[axis] + before).saturating_sub(shift).div_ceil(stride).min(self.output(axis));
        (first..end.max(first), (first * stride + shift).saturating_sub(before))
    }

    fn plane(&self, x: &[f32], y: &mut [f32]) {
        let ([_, width], columns) = (self.input, self.output(1));
        let ([kernel_height, kernel_width], [stride_y, stride_x]) = (self.options.kernel_size, self.options.stride);
        for element_y in 0..kernel_height {
            let (rows, first) = self.inside(0, element_y);
            for (row, line) in rows.zip((first..).step_by(stride_y)) {
                for element_x in 0..kernel_width {
                    let (at, column) = self.inside(1, element_x);
                    if at.is_empty() {
                        continue;
                    }
                    let y = &mut y[row * columns..][at];
                    let x = &x[line * width + column..][..(y.len() - 1) * stride_x + 1];
                    vectorized(
                        #[inline(always)]
                        || larger(y, x, stride_x),
                    );
                }
            }
        }
    }
}

/// Keeps the larger of two, the first of equals; NaN is larger than all.
#[inline(always)]
fn larger(y: &mut [f32], x: &[f32], stride: usize) {
    let keep = |y: &mut f32, x: f32| *y = if x > *y || x.is_nan() { x } else { *y };
    match stride {
        1 => {
            for (y, x) in y.iter_mut().zip(x) {
                keep(y, *x);
            }
        }
        2 => {
            let (pairs, last) = x.as_chunks::<2>();
            for (y, [x, _]) in y.iter_mut().zip(pairs) {
                keep(y, *x);
            }
            if let (Some(y), Some(x)) = (y.last_mut(), last.first()) {
                keep(y, *x);
            }
        }
        _ => {
            for (y, x) in y.iter_mut().zip(x.iter().step_by(stride)) {
                keep(y, *x);
            }
        }
    }
}
