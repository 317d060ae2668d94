//! The CPU kernel: products of pixels, plane by plane, added up.
//!
//! ```text
//! y[place of pixel p and element e] += product of p and e           sums of integers over the channels of a group
//!                                      + offset of e · Σ q of p     of a kernel around offsets
//! ```
//!
//! Groups of one channel have nothing to sum: `y += w of e · q of p`, without products that are written and read again.

use std::ops::Range;

use burn::backend::Flex;
use burn::backend::ops::{ConvTransposeOptions, FloatTensorOps};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{DType, Int, Shape, Tensor, TensorData};
use rayon::prelude::*;

use super::{PackedConvTranspose, PackedConvTransposeCall, PackedConvTransposeOps, three};
use crate::flex::vectorized;
use crate::packed_linear::flex::{Image, window_sums};
use crate::{Activations, PackedConv, PackedOffsets, PackedScales, PackedTensor, packed_conv};

/// Products that are worth another thread.
const MANY: usize = 1 << 16;

impl PackedConvTransposeOps for Flex {
    fn packed_conv_transpose(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        range: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        offsets: FloatTensor<Self>,
        call: PackedConvTransposeCall,
    ) -> FloatTensor<Self> {
        let PackedConvTransposeCall { layout, conv, has_bias, has_offsets } = call;
        let shape = x.layout().shape().to_vec();
        let [depth, height, width] = three(&shape[2..], 1);
        // a rank that burn's tensors are written with: the kernel is made of others of this crate's ops
        let x = Tensor::<5>::from_primitive::<Flex>(Flex::float_reshape(
            x,
            [shape[0], shape[1], depth, height, width].into(),
        ));
        let [ranges, range, bias, offsets] = [ranges, range, bias, offsets].map(Tensor::<1>::from_primitive::<Flex>);
        let offsets = has_offsets.then(|| PackedOffsets::new(offsets.unsqueeze(), layout.inputs().max(1)));
        let words = Tensor::<1, Int>::from_primitive::<Flex>(words);
        let weight = PackedTensor { words, scales: PackedScales::Ranges(ranges), layout, offsets };
        let y = conv_transpose(x, &weight, has_bias.then_some(bias), &conv, range);
        let [batch, outputs, lengths @ ..] = y.dims();
        let axes = lengths[3 - conv.axes..].iter().copied();
        let shape: Vec<usize> = [batch, outputs].into_iter().chain(axes).collect();
        let y = y.try_into_primitive::<Flex>().expect("a tensor of Flex");
        Flex::float_reshape(y, Shape::from(shape))
    }
}

/// f32 `[batch, in, depth, height, width]`.
fn conv_transpose(
    x: Tensor<5>,
    weight: &PackedTensor,
    bias: Option<Tensor<1>>,
    conv: &PackedConvTranspose,
    range: Tensor<1>,
) -> Tensor<5> {
    let ([batch, channels, depth, height, width], device) = (x.dims(), x.device());
    let (input, elements) = ([depth, height, width], conv.kernel.iter().product::<usize>());
    let output = conv.output(input).expect("the caller has checked it");
    let (columns, groups) = (weight.layout.outputs(), conv.options.groups);
    let (outputs, is_depthwise) = (columns / elements, channels == groups);
    // a plane of each group, and what it is multiplied with for each column
    let sums = || {
        let (x, range) = (x.clone().into_data(), range.clone().into_data());
        let [x, range]: [&[f32]; 2] = [&x, &range].map(|data| data.as_slice().expect("f32 data"));
        let (kernel, stride, padding, dilation) = ([1; 3], [1; 3], [(0, 0); 3], [1; 3]);
        let (axes, output) = (input, input);
        window_sums(&Image { x, batch, channels, axes, output, kernel, stride, padding, dilation, groups }, range[0])
    };
    let multiplied = match &weight.offsets {
        _ if is_depthwise => Some((sums(), weight.unpack().into_data())),
        Some(offsets) => Some((sums(), offsets.values().into_data())),
        None => None,
    };
    let products = (!is_depthwise).then(|| {
        // each element of the kernel of each output is an output of a convolution of single pixels
        let (codes, pixel) =
            (PackedTensor { offsets: None, ..weight.clone() }, PackedConv::new(&[1, 1, 1]).with_groups(groups));
        packed_conv(x.clone(), &codes, None, &pixel, Activations::Int8(range.clone())).into_data()
    });
    let bias = bias.map(Tensor::into_data);
    let (pixels, plane) = (input.iter().product::<usize>(), output.iter().product::<usize>());
    let mut y = vec![0f32; batch * outputs * plane];
    let products: Option<&[f32]> = products.as_ref().map(|products| products.as_slice().expect("f32 data"));
    let bias: Option<&[f32]> = bias.as_ref().map(|bias| bias.as_slice().expect("f32 data"));
    let multiplied: Option<[&[f32]; 2]> =
        multiplied.as_ref().map(|(planes, factors)| [planes, factors.as_slice().expect("f32 data")]);
    let falls = Falls { kernel: conv.kernel, input, output, options: &conv.options };
    let add = |(i, y): (usize, &mut [f32])| {
        let (image, output) = (i / outputs, i % outputs);
        let group = image * groups + output / (outputs / groups);
        let products = products.map(|products| &products[i * elements * pixels..][..elements * pixels]);
        let multiplied = multiplied
            .map(|[planes, factors]| (&planes[group * pixels..][..pixels], &factors[output * elements..][..elements]));
        vectorized(
            #[inline(always)]
            || {
                y.fill(bias.map_or(0.0, |bias| bias[output]));
                match (products, multiplied) {
                    (Some(products), None) => {
                        falls.add(|element, pixel| products[element * pixels..][pixel].iter().copied(), y);
                    }
                    (Some(products), Some((sums, offsets))) => {
                        let around = |element: usize, pixel: Range<usize>| {
                            let sums = sums[pixel.clone()].iter().map(move |sum| sum * offsets[element]);
                            products[element * pixels..][pixel].iter().zip(sums).map(|(product, sum)| product + sum)
                        };
                        falls.add(around, y);
                    }
                    (None, Some((plane, weights))) => {
                        let of = |element: usize, pixel: Range<usize>| {
                            plane[pixel].iter().map(move |pixel| pixel * weights[element])
                        };
                        falls.add(of, y);
                    }
                    (None, None) => unreachable!("a kernel has products or weights"),
                }
            },
        );
    };
    match batch * columns * pixels > MANY {
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
    /// Adds to the plane of an output, where they fall, what each element of the kernel makes of runs of pixels.
    #[inline(always)]
    fn add<I: Iterator<Item = f32>>(&self, of: impl Fn(usize, Range<usize>) -> I, y: &mut [f32]) {
        let ([_, in_height, in_width], [_, height, width]) = (self.input, self.output);
        let [kernel_depth, kernel_height, kernel_width] = self.kernel;
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
                    let first = (in_z * in_height + in_y) * in_width;
                    let added = of(element, first + columns.start..first + columns.end);
                    match stride {
                        1 => y.iter_mut().zip(added).for_each(|(y, added)| *y += added),
                        _ => y.iter_mut().step_by(stride).zip(added).for_each(|(y, added)| *y += added),
                    }
                }
            }
        }
    }

    /// The pixels along an axis whose product with an element of the kernel is not cut off.
    fn inside(&self, axis: usize, element: usize) -> Range<usize> {
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
