//! Sums of windows, which offsets of a kernel are multiplied with: channels first, then one axis after the other.
//!
//! ```text
//! Σ q    over the channels of a group, then the windows' depth, height and width     whole numbers in f32
//! ```
//!
//! They are exact up to 2²⁴, a window of 132 104 inputs.

use burn_quant_numerics::{Grid, IntGrid, amax};
use rayon::prelude::*;

use super::conv::Image;
use crate::flex::vectorized;
use crate::packed_linear::activation_grid;

/// Inputs that are worth another thread.
const MANY: usize = 1 << 16;

/// The sum of each window of each group, `[batch, groups, output axes…]`, in the units of the image; NaN of an image
/// that has one.
pub(crate) fn window_sums(image: &Image, range: f32) -> Vec<f32> {
    let grid = activation_grid();
    let (pixels, output) = (image.axes.iter().product::<usize>(), image.output.iter().product::<usize>());
    let mut sums = vec![0.0; image.batch * image.groups * output];
    let of_group = image.channels / image.groups * pixels;
    if sums.is_empty() || of_group == 0 {
        return sums;
    }
    let is_number = |x: &[f32]| {
        let largest = vectorized(
            #[inline(always)]
            || amax(x),
        );
        !largest.is_nan()
    };
    let images = image.x.chunks_exact(image.x.len() / image.batch);
    let step = |x| if is_number(x) { range / grid.max() } else { f32::NAN };
    let steps: Vec<f32> = images.map(step).collect();
    let job = |(i, (x, to)): (usize, (&[f32], &mut [f32]))| {
        vectorized(
            #[inline(always)]
            || {
                let mut plane = (image.axes, of_channels(x, pixels, grid, range));
                for axis in 0..3 {
                    plane = along(image, axis, plane);
                }
                to.iter_mut().zip(plane.1).for_each(|(to, sum)| *to = sum * steps[i / image.groups]);
            },
        );
    };
    let (x, to) = (image.x, &mut sums[..]);
    match x.len() > MANY {
        true => x.par_chunks_exact(of_group).zip(to.par_chunks_exact_mut(output)).enumerate().for_each(job),
        false => x.chunks_exact(of_group).zip(to.chunks_exact_mut(output)).enumerate().for_each(job),
    }
    sums
}

/// The sums of the codes of each pixel.
#[inline(always)]
fn of_channels(x: &[f32], pixels: usize, grid: IntGrid, range: f32) -> Vec<f32> {
    let scale = grid.scale(range).to_grid;
    let mut sums = vec![0.0; pixels];
    for x in x.chunks_exact(pixels) {
        sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += grid.round(x * scale));
    }
    sums
}

/// Sums of windows along an axis of a plane, and its axes then.
#[inline(always)]
fn along(image: &Image, axis: usize, (mut axes, plane): ([usize; 3], Vec<f32>)) -> ([usize; 3], Vec<f32>) {
    let (kernel, stride, dilation) = (image.kernel[axis], image.stride[axis], image.dilation[axis]);
    let ((before, _), len, output) = (image.padding[axis], axes[axis], image.output[axis]);
    if (kernel, stride, before, len) == (1, 1, 0, output) {
        return (axes, plane);
    }
    let inner = axes[axis + 1..].iter().product::<usize>();
    axes[axis] = output;
    let mut sums = vec![0.0; axes.iter().product()];
    for (from, to) in plane.chunks_exact(len * inner).zip(sums.chunks_exact_mut(output * inner)) {
        for element in 0..kernel {
            // the windows that have this element within the image, and not in the zeros around it
            let shift = element * dilation;
            let first = before.saturating_sub(shift).div_ceil(stride);
            let end = (len + before).saturating_sub(shift).div_ceil(stride).min(output);
            if first >= end {
                continue;
            }
            let (to, from) = (&mut to[first * inner..end * inner], &from[(first * stride + shift - before) * inner..]);
            match (inner, stride) {
                (_, 1) => to.iter_mut().zip(from).for_each(|(to, from)| *to += from),
                (1, _) => to.iter_mut().zip(from.iter().step_by(stride)).for_each(|(to, from)| *to += from),
                _ => {
                    for (to, from) in to.chunks_exact_mut(inner).zip(from.chunks(stride * inner)) {
                        to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
                    }
                }
            }
        }
    }
    (axes, sums)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Strides, dilation, and zeros of their own on each side, of one to three axes; whole numbers, so that sums are
    /// exact.
    #[test]
    fn windows_are_summed_axis_by_axis() {
        let plain = ([0, 0, 0], [1, 1, 1], [1, 1, 1]);
        for (axes, kernel, (before, stride, dilation), after, groups) in [
            ([1, 1, 7], [1, 1, 3], plain, [0, 0, 0], 1),
            ([1, 1, 7], [1, 1, 2], ([0, 0, 3], [1, 1, 3], [1, 1, 2]), [0, 0, 1], 2),
            ([1, 5, 6], [1, 3, 2], ([0, 1, 0], [1, 2, 1], [1, 1, 2]), [0, 0, 2], 4),
            ([1, 5, 6], [1, 1, 1], ([0, 0, 0], [1, 2, 2], [1, 1, 1]), [0, 0, 0], 1),
            ([4, 3, 5], [2, 2, 3], ([1, 0, 2], [2, 1, 2], [1, 2, 1]), [0, 1, 0], 2),
            ([1, 1, 1], [1, 1, 2], ([0, 0, 4], [1, 1, 1], [1, 1, 1]), [0, 0, 4], 1), // some windows of zeros alone
        ] {
            let (batch, channels) = (2, 4);
            let output: [usize; 3] = std::array::from_fn(|axis| {
                let window = dilation[axis] * (kernel[axis] - 1) + 1;
                (before[axis] + axes[axis] + after[axis] - window) / stride[axis] + 1
            });
            let pixels = axes.iter().product::<usize>();
            let x: Vec<f32> = (0..batch * channels * pixels).map(|i| (i * 37 % 255) as f32 - 127.0).collect();
            let padding = std::array::from_fn(|axis| (before[axis], after[axis]));
            let image = Image { x: &x, batch, channels, axes, output, kernel, stride, padding, dilation, groups };
            let mut expected = vec![0.0; batch * groups * output.iter().product::<usize>()];
            let place = |i: usize, of: [usize; 3]| [i / of[1] / of[2], i / of[2] % of[1], i % of[2]];
            let pixels_of_result = output.iter().product::<usize>();
            for (i, sum) in expected.iter_mut().enumerate() {
                let window = place(i % pixels_of_result, output);
                for element in 0..kernel.iter().product() {
                    let element = place(element, kernel);
                    let at: [Option<usize>; 3] = std::array::from_fn(|axis| {
                        let at = window[axis] * stride[axis] + element[axis] * dilation[axis];
                        at.checked_sub(before[axis]).filter(|at| *at < axes[axis])
                    });
                    let [Some(z), Some(y), Some(x_at)] = at else { continue };
                    let of_group = channels / groups;
                    for channel in 0..of_group {
                        let plane = i / pixels_of_result * of_group + channel;
                        *sum += x[plane * pixels + (z * axes[1] + y) * axes[2] + x_at];
                    }
                }
            }
            assert_eq!(window_sums(&image, 127.0), expected, "{axes:?}, {kernel:?}, {stride:?}"); // steps of one
        }
    }
}
