//! The CPU kernel: products of pixels, plane by plane, added up.
//!
//! ```text
//! y += product + offset · Σ q      of each element of the kernel; the sum is that of the channels of a group
//! ```

use burn::backend::ops::ConvTransposeOptions;
use burn::tensor::{DType, Tensor, TensorData};
use rayon::prelude::*;

use super::PackedConvTranspose;
use crate::flex::vectorized;
use crate::packed_conv::ones;
use crate::{Activations, PackedConv, PackedTensor, packed_conv};

/// Products that are worth another thread.
const MANY: usize = 1 << 16;

/// f32 `[batch, in, depth, height, width]`.
pub(super) fn conv_transpose(
    x: Tensor<5>,
    weight: &PackedTensor,
    bias: Option<Tensor<1>>,
    conv: &PackedConvTranspose,
    activations: Activations,
) -> Tensor<5> {
    let ([batch, channels, depth, height, width], device) = (x.dims(), x.device());
    let (input, elements) = ([depth, height, width], conv.kernel.iter().product::<usize>());
    let output = conv.output(input).expect("the caller has checked it");
    let outputs = weight.layout.outputs() / elements;
    // each element of the kernel of each output is an output of a convolution of single pixels
    let groups = conv.options.groups;
    let pixel = PackedConv::new(&[1, 1, 1]).with_groups(groups);
    let shared = weight.offsets.as_ref().map(|offsets| {
        let ones = ones(channels / groups, groups, &device);
        let sums = packed_conv(x.clone(), &ones, None, &pixel, activations.clone());
        (sums.into_data(), offsets.values().into_data())
    });
    let codes = PackedTensor { offsets: None, ..weight.clone() };
    let products = packed_conv(x, &codes, None, &pixel, activations).into_data();
    let bias = bias.map(Tensor::into_data);
    let (pixels, plane) = (input.iter().product::<usize>(), output.iter().product::<usize>());
    let mut y = vec![0f32; batch * outputs * plane];
    let products: &[f32] = products.as_slice().expect("f32 data");
    let bias: Option<&[f32]> = bias.as_ref().map(|bias| bias.as_slice().expect("f32 data"));
    let shared: Option<[&[f32]; 2]> =
        shared.as_ref().map(|(sums, offsets)| [sums, offsets].map(|data| data.as_slice().expect("f32 data")));
    let falls = Falls { kernel: conv.kernel, input, output, options: &conv.options };
    let add = |(i, y): (usize, &mut [f32])| {
        y.fill(bias.map_or(0.0, |bias| bias[i % outputs]));
        let products = &products[i * elements * pixels..][..elements * pixels];
        let (image, output) = (i / outputs, i % outputs);
        let shared = shared.map(|[sums, offsets]| {
            let group = image * groups + output / (outputs / groups);
            (&sums[group * pixels..][..pixels], &offsets[output * elements..][..elements])
        });
        vectorized(
            #[inline(always)]
            || falls.add(products, shared, y),
        );
    };
    match products.len() > MANY {
        true => y.par_chunks_mut(plane).enumerate().for_each(add),
        false => y.chunks_mut(plane).enumerate().for_each(add),
    }
    let shape = [batch, outputs, output[0], output[1], output[2]];
    Tensor::from_data(TensorData::new(y, shape), (&device, DType::F32))
}

/// Where the products of a pixel fall.
struct Falls<'a> {
    kernel: [usize; 3],
    input: [usize; 3],
    output: [usize; 3],
    options: &'a ConvTransposeOptions<3>,
}

impl Falls<'_> {
    /// Adds the products of an output, `[element] [pixel]`, to its plane; `shared` are the sums of pixels and the offsets
    /// of elements that they are multiplied with.
    #[inline(always)]
    fn add(&self, products: &[f32], shared: Option<(&[f32], &[f32])>, y: &mut [f32]) {
        let ([_, in_height, in_width], [_, height, width]) = (self.input, self.output);
        let [kernel_depth, kernel_height, kernel_width] = self.kernel;
        let pixels = self.input.iter().product::<usize>();
        for element in 0..kernel_depth * kernel_height * kernel_width {
            let (rest, element_x) = (element / kernel_width, element % kernel_width);
            let (element_z, element_y) = (rest / kernel_height, rest % kernel_height);
            let (columns, stride) = (self.inside(2, element_x), self.options.stride[2]);
            if columns.is_empty() {
                continue;
            }
            for in_z in self.inside(0, element_z) {
                for in_y in self.inside(1, element_y) {
                    let row = (self.place(0, in_z, element_z) * height + self.place(1, in_y, element_y)) * width;
                    let y = &mut y[row + self.place(2, columns.start, element_x)..];
                    let pixel = (in_z * in_height + in_y) * in_width;
                    let products = &products[element * pixels + pixel..][columns.clone()];
                    let Some((sums, offsets)) = shared else {
                        match stride {
                            1 => y.iter_mut().zip(products).for_each(|(y, product)| *y += product),
                            _ => y.iter_mut().step_by(stride).zip(products).for_each(|(y, product)| *y += product),
                        }
                        continue;
                    };
                    let (terms, offset) = (products.iter().zip(&sums[pixel..][columns.clone()]), offsets[element]);
                    match stride {
                        1 => y.iter_mut().zip(terms).for_each(|(y, (product, sum))| *y += product + offset * sum),
                        _ => {
                            let y = y.iter_mut().step_by(stride);
                            y.zip(terms).for_each(|(y, (product, sum))| *y += product + offset * sum);
                        }
                    }
                }
            }
        }
    }

    /// The pixels along an axis whose product with an element of the kernel is not cut off.
    fn inside(&self, axis: usize, element: usize) -> std::ops::Range<usize> {
        let ConvTransposeOptions { stride, padding, dilation, .. } = self.options;
        let shift = element * dilation[axis];
        let first = padding[axis].saturating_sub(shift).div_ceil(stride[axis]);
        let end = (self.output[axis] + padding[axis]).saturating_sub(shift).div_ceil(stride[axis]);
        first..end.min(self.input[axis]).max(first)
    }

    fn place(&self, axis: usize, pixel: usize, element: usize) -> usize {
        let ConvTransposeOptions { stride, padding, dilation, .. } = self.options;
        pixel * stride[axis] + element * dilation[axis] - padding[axis]
    }
}
