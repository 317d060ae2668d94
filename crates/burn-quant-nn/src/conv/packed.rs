//! Convolutions in integers, where the kernel is packed and the input is INT8.

use burn::module::Param;
use burn::tensor::Tensor;
use burn_nn::conv::{Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, DeformConv2d};
use burn_nn::{PaddingConfig1d, PaddingConfig2d, PaddingConfig3d};
use burn_quant_core::quantizer::TensorQuantizer;
use burn_quant_core::quantizer::packed::{PackedConv, PackedConvTranspose};

use crate::layer::{ActivationQuantized, SingleOperation};

/// What a packed convolution is told of a layer of rank `D`.
pub(super) trait Geometry<const D: usize>: SingleOperation {
    /// Its kernel.
    fn kernel(&self) -> &Param<Tensor<D>>;
    /// Its bias.
    fn bias(&self) -> Option<&Param<Tensor<1>>>;
    /// Its geometry for an input.
    fn geometry(&self, input: [usize; D]) -> Windows;
}

/// How a kernel meets an image.
pub(super) enum Windows {
    Convolution(PackedConv),
    Transposed(PackedConvTranspose),
    /// The product has no packed form.
    Deformed,
}

/// The layer with its quantizers, if its kernel is packed and runs in integers.
pub(super) fn packed<const D: usize, L: Geometry<D>>(
    layer: &ActivationQuantized<L>,
    input: &Tensor<D>,
) -> Option<Tensor<D>> {
    let quantizer = layer.kernel().reparameterization::<TensorQuantizer>().filter(|it| it.packed().is_some())?;
    let (bias, before) = (layer.bias().map(Param::val), &layer.input_quantizer);
    let output = match layer.geometry(input.dims()) {
        Windows::Convolution(geometry) => quantizer.convolution(before, input, bias, geometry),
        Windows::Transposed(geometry) => quantizer.convolution_transpose(before, input, bias, geometry),
        Windows::Deformed => None,
    }?;
    Some(layer.output_quantizer.forward(output))
}

/// Zeros before and after an axis, as burn counts them: of an odd number the larger half comes after.
fn same(kernel: usize, stride: usize, input: usize) -> (usize, usize) {
    let needed = (input.div_ceil(stride).max(1) - 1) * stride + kernel;
    let padding = needed.saturating_sub(input);
    (padding / 2, padding - padding / 2)
}

fn of_axes<const N: usize>(kernel: [usize; N], stride: [usize; N], dilation: [usize; N], groups: usize) -> PackedConv {
    PackedConv::new(&kernel).with_stride(&stride).with_dilation(&dilation).with_groups(groups)
}

fn transposed<const N: usize>(
    kernel: [usize; N],
    stride: [usize; N],
    padding: [usize; N],
    padding_out: [usize; N],
    dilation: [usize; N],
    groups: usize,
) -> Windows {
    let geometry = PackedConvTranspose::new(&kernel).with_stride(&stride).with_padding(&padding);
    Windows::Transposed(geometry.with_padding_out(&padding_out).with_dilation(&dilation).with_groups(groups))
}

macro_rules! geometry {
    ($layer:ident, $rank:literal, |$this:ident, $input:ident| $geometry:expr) => {
        impl Geometry<$rank> for $layer {
            fn kernel(&self) -> &Param<Tensor<$rank>> {
                &self.weight
            }

            fn bias(&self) -> Option<&Param<Tensor<1>>> {
                self.bias.as_ref()
            }

            fn geometry(&self, $input: [usize; $rank]) -> Windows {
                let $this = self;
                $geometry
            }
        }
    };
}

geometry!(Conv1d, 3, |layer, input| {
    let padding = match layer.padding {
        PaddingConfig1d::Valid => (0, 0),
        PaddingConfig1d::Same => same(layer.kernel_size, layer.stride, input[2]),
        PaddingConfig1d::Explicit(before, after) => (before, after),
    };
    let conv = of_axes([layer.kernel_size], [layer.stride], [layer.dilation], layer.groups);
    Windows::Convolution(conv.with_padding(&[padding]))
});
geometry!(Conv2d, 4, |layer, input| {
    let (kernel, stride) = (layer.kernel_size, layer.stride);
    let padding = match layer.padding {
        PaddingConfig2d::Valid => [(0, 0); 2],
        PaddingConfig2d::Same => [0, 1].map(|axis: usize| same(kernel[axis], stride[axis], input[2 + axis])),
        PaddingConfig2d::Explicit(top, left, bottom, right) => [(top, bottom), (left, right)],
    };
    Windows::Convolution(of_axes(kernel, stride, layer.dilation, layer.groups).with_padding(&padding))
});
geometry!(Conv3d, 5, |layer, input| {
    let (kernel, stride) = (layer.kernel_size, layer.stride);
    let padding = match layer.padding {
        PaddingConfig3d::Valid => [(0, 0); 3],
        PaddingConfig3d::Same => [0, 1, 2].map(|axis: usize| same(kernel[axis], stride[axis], input[2 + axis])),
        PaddingConfig3d::Explicit(depth, height, width) => [depth, height, width].map(|padding| (padding, padding)),
    };
    Windows::Convolution(of_axes(kernel, stride, layer.dilation, layer.groups).with_padding(&padding))
});
geometry!(ConvTranspose1d, 3, |layer, _input| {
    transposed(
        [layer.kernel_size],
        [layer.stride],
        [layer.padding],
        [layer.padding_out],
        [layer.dilation],
        layer.groups,
    )
});
geometry!(ConvTranspose2d, 4, |layer, _input| {
    transposed(layer.kernel_size, layer.stride, layer.padding, layer.padding_out, layer.dilation, layer.groups)
});
geometry!(ConvTranspose3d, 5, |layer, _input| {
    transposed(layer.kernel_size, layer.stride, layer.padding, layer.padding_out, layer.dilation, layer.groups)
});
geometry!(DeformConv2d, 4, |_layer, _input| Windows::Deformed);
