//! The op as a node of a captured graph: codes are recorded, and run again in integers where the CPU runs them.

use burn::backend::ir::{BackendIr, CustomOpIr, HandleContainer, ScalarIr};
use burn::backend::ops::ConvTransposeOptions;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{DispatchKindConversion, DispatchTensor, TensorMetadata};
use burn::tensor::DType;
use burn_router::{BackendRouter, RouterChannel};

use super::{PackedConvTranspose, PackedConvTransposeCall, PackedConvTransposeOps, packed_conv_transpose, three};
use crate::packed_conv::capture::{Operands, inputs, operands, shape_of};
use crate::recording::{Handles, Reader, Scalars, expect, number, record};
use crate::{Activations, PackedLayout};

pub(crate) const ID: &str = "burn_quant::packed_conv_transpose";

impl Scalars for PackedConvTranspose {
    fn write(&self, to: &mut Vec<ScalarIr>) {
        number(to, self.axes);
        let ConvTransposeOptions { stride, padding, padding_out, dilation, groups } = &self.options;
        let numbers = [&self.kernel, stride, padding, padding_out, dilation].into_iter().flatten().chain([groups]);
        numbers.for_each(|each| number(to, *each));
    }

    fn read(from: &mut Reader, shape: &[usize]) -> Option<Self> {
        let axes = from.size().filter(|axes| (1..=3).contains(axes) && shape.len() == axes + 2)?;
        let (kernel, stride, padding, padding_out) = (from.three()?, from.three()?, from.three()?, from.three()?);
        let options = ConvTransposeOptions::new(stride, padding, padding_out, from.three()?, from.size()?);
        Some(Self { axes, kernel, options })
    }
}

impl Scalars for PackedConvTransposeCall {
    fn write(&self, to: &mut Vec<ScalarIr>) {
        self.layout.write(to);
        self.conv.write(to);
        [self.has_bias, self.has_offsets].into_iter().for_each(|has| number(to, has.into()));
    }

    fn read(from: &mut Reader, shape: &[usize]) -> Option<Self> {
        let (layout, conv) = (PackedLayout::read(from, shape)?, PackedConvTranspose::read(from, shape)?);
        Some(Self { layout, conv, has_bias: from.one_of(&[false, true])?, has_offsets: from.one_of(&[false, true])? })
    }
}

impl<C: RouterChannel> PackedConvTransposeOps for BackendRouter<C> {
    fn packed_conv_transpose(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        range: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        offsets: FloatTensor<Self>,
        call: PackedConvTransposeCall,
    ) -> FloatTensor<Self> {
        let (shape, conv) = (x.shape(), &call.conv);
        let output = conv.output(three(&shape[2..], 1)).expect("the caller has checked it");
        let outputs = call.layout.outputs() / conv.kernel.iter().product::<usize>();
        let shape = shape_of(shape[0], outputs, &output[3 - conv.axes..]);
        let inputs = inputs([x, words, ranges, range], [(bias, call.has_bias), (offsets, call.has_offsets)]);
        record::<C>(ID, inputs, (shape, DType::F32), call.scalars())
    }
}

/// Runs a recorded op on a backend.
pub(crate) fn run<B: BackendIr>(handles: &mut HandleContainer<B::Handle>, op: &CustomOpIr)
where
    DispatchTensor: DispatchKindConversion<B>,
{
    match op.inputs[0].shape.len() {
        3 => run_of::<B, 3>(handles, op),
        4 => run_of::<B, 4>(handles, op),
        _ => run_of::<B, 5>(handles, op),
    }
}

fn run_of<B: BackendIr, const D: usize>(handles: &mut HandleContainer<B::Handle>, op: &CustomOpIr)
where
    DispatchTensor: DispatchKindConversion<B>,
{
    let call: PackedConvTransposeCall = expect(op, op.inputs[0].shape.as_slice());
    let mut handles = Handles::<B>::new(handles, op);
    let Operands { x, weight, bias, range } =
        operands::<B, D>(&mut handles, call.layout, call.has_bias, call.has_offsets);
    handles.finish(packed_conv_transpose(x, &weight, bias, &call.conv, Activations::Int8(range)));
}
