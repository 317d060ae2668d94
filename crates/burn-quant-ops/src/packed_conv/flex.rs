//! The CPU kernel's tensors as slices.

use burn::backend::Flex;
use burn::backend::ops::ConvOptions;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{Bytes, DType};
use burn_flex::{FlexTensor, Layout};

use super::{PackedConvCall, PackedConvOps, three};
use crate::flex::{elements, row_major};
use crate::packed_linear::flex::{Image, convolve};

impl PackedConvOps for Flex {
    fn packed_conv(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        range: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        offsets: FloatTensor<Self>,
        call: PackedConvCall,
    ) -> FloatTensor<Self> {
        let [x, ranges, range] = [x, ranges, range].map(|tensor| row_major(tensor).0);
        let [bias, offsets] = [bias, offsets].map(|tensor| row_major(tensor).0);
        let words = row_major(words).0;
        let shape = x.layout().shape();
        let (batch, channels, axes) = (shape[0], shape[1], three(&shape[2..], 1));
        let PackedConvCall { layout, conv, has_bias, has_offsets } = call;
        let output = conv.output(axes);
        let shape: Vec<usize> =
            [batch, layout.outputs()].into_iter().chain(output[3 - conv.axes..].iter().copied()).collect();
        let ConvOptions { stride, padding, dilation, groups } = conv.options;
        let image = Image {
            x: elements::<f32>(&x),
            batch,
            channels,
            axes,
            output,
            kernel: conv.kernel,
            stride,
            padding,
            dilation,
            groups,
        };
        let bias = has_bias.then(|| elements::<f32>(&bias));
        let range = elements::<f32>(&range)[0];
        let offsets = has_offsets.then(|| elements::<f32>(&offsets));
        let y = convolve(layout, &words, &ranges, range, bias, offsets, &image);
        FlexTensor::new(Bytes::from_elems(y), Layout::contiguous(shape.into()), DType::F32)
    }
}
