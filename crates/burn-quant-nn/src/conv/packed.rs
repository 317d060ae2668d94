//! Convolutions in integers, where the kernel is packed and the input is INT8.

use burn::module::Param;
use burn::tensor::Tensor;
use burn_nn::conv::{Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d, DeformConv2d};
use burn_nn::{PaddingConfig1d, PaddingConfig2d, PaddingConfig3d};
use burn_quant_core::quantizer::TensorQuantizer;
use burn_quant_core::quantizer::packed::PackedConv;

use crate::layer::{ActivationQuantized, SingleOperation};

/// What a packed convolution is told of a layer of rank `D`.
pub(super) trait Geometry<const D: usize>: SingleOperation {
    /// Its kernel.
    fn kernel(&self) -> &Param<Tensor<D>>;
    /// Its bias.
    fn bias(&self) -> Option<&Param<Tensor<1>>>;
    /// Its geometry for an input; `None` if the product has no packed form.
    fn geometry(&self, input: [usize; D]) -> Option<PackedConv>;
}

/// The layer with its quantizers, if its kernel is packed and runs in integers.
pub(super) fn packed<const D: usize, L: Geometry<D>>(
    layer: &ActivationQuantized<L>,
    input: &Tensor<D>,
) -> Option<Tensor<D>> {
    let quantizer = layer.kernel().reparameterization::<TensorQuantizer>().filter(|it| it.packed().is_some())?;
    let geometry = layer.geometry(input.dims())?;
    let bias = layer.bias().map(Param::val);
    let output = quantizer.convolution(&layer.input_quantizer, input, bias, geometry)?;
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

macro_rules! geometry {
    ($layer:ident, $rank:literal, |$this:ident, $input:ident| $geometry:expr) => {
        impl Geometry<$rank> for $layer {
            fn kernel(&self) -> &Param<Tensor<$rank>> {
                &self.weight
            }

            fn bias(&self) -> Option<&Param<Tensor<1>>> {
                self.bias.as_ref()
            }

            fn geometry(&self, $input: [usize; $rank]) -> Option<PackedConv> {
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
    Some(conv.with_padding(&[padding]))
});
geometry!(Conv2d, 4, |layer, input| {
    let (kernel, stride) = (layer.kernel_size, layer.stride);
    let padding = match layer.padding {
        PaddingConfig2d::Valid => [(0, 0); 2],
        PaddingConfig2d::Same => [0, 1].map(|axis: usize| same(kernel[axis], stride[axis], input[2 + axis])),
        PaddingConfig2d::Explicit(top, left, bottom, right) => [(top, bottom), (left, right)],
    };
    Some(of_axes(kernel, stride, layer.dilation, layer.groups).with_padding(&padding))
});
geometry!(Conv3d, 5, |layer, input| {
    let (kernel, stride) = (layer.kernel_size, layer.stride);
    let padding = match layer.padding {
        PaddingConfig3d::Valid => [(0, 0); 3],
        PaddingConfig3d::Same => [0, 1, 2].map(|axis: usize| same(kernel[axis], stride[axis], input[2 + axis])),
        PaddingConfig3d::Explicit(depth, height, width) => [depth, height, width].map(|padding| (padding, padding)),
    };
    Some(of_axes(kernel, stride, layer.dilation, layer.groups).with_padding(&padding))
});
geometry!(ConvTranspose1d, 3, |_layer, _input| None);
geometry!(ConvTranspose2d, 4, |_layer, _input| None);
geometry!(ConvTranspose3d, 5, |_layer, _input| None);
geometry!(DeformConv2d, 4, |_layer, _input| None);
