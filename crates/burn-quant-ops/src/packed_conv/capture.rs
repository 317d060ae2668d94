//! The op as a node of a captured graph: codes are recorded, and run again in integers where the CPU runs them.

use burn::backend::ir::{BackendIr, CustomOpIr, HandleContainer, ScalarIr};
use burn::backend::ops::ConvOptions;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{DispatchKindConversion, DispatchTensor, TensorMetadata};
use burn::tensor::{DType, Shape, Tensor};
use burn_router::{BackendRouter, RouterChannel};

use super::{PackedConv, PackedConvCall, PackedConvOps, packed_conv, three};
use crate::recording::{Handles, Reader, Scalars, expect, number, record};
use crate::{Activations, PackedLayout, PackedOffsets, PackedScales, PackedTensor};

pub(crate) const ID: &str = "burn_quant::packed_conv";

impl Scalars for PackedConv {
    fn write(&self, to: &mut Vec<ScalarIr>) {
        number(to, self.axes);
        let ConvOptions { stride, padding, dilation, groups } = &self.options;
        let pairs = padding.iter().flat_map(|(before, after)| [*before, *after]);
        let numbers = self.kernel.iter().chain(stride).chain(dilation).copied().chain(pairs).chain([*groups]);
        numbers.for_each(|each| number(to, each));
    }

    fn read(from: &mut Reader, shape: &[usize]) -> Option<Self> {
        let axes = from.size().filter(|axes| (1..=3).contains(axes) && shape.len() == axes + 2)?;
        let (kernel, stride, dilation) = (from.three()?, from.three()?, from.three()?);
        let mut padding = [(0, 0); 3];
        for pair in &mut padding {
            *pair = (from.size()?, from.size()?);
        }
        let options = ConvOptions::new_with_padding(stride, padding, dilation, from.size()?);
        Some(Self { axes, kernel, options })
    }
}

impl Scalars for PackedConvCall {
    fn write(&self, to: &mut Vec<ScalarIr>) {
        self.layout.write(to);
        self.conv.write(to);
        [self.has_bias, self.has_offsets].into_iter().for_each(|has| number(to, has.into()));
    }

    fn read(from: &mut Reader, shape: &[usize]) -> Option<Self> {
        let (layout, conv) = (PackedLayout::read(from, shape)?, PackedConv::read(from, shape)?);
        Some(Self { layout, conv, has_bias: from.one_of(&[false, true])?, has_offsets: from.one_of(&[false, true])? })
    }
}

impl<C: RouterChannel> PackedConvOps for BackendRouter<C> {
    fn packed_conv(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        range: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        offsets: FloatTensor<Self>,
        call: PackedConvCall,
    ) -> FloatTensor<Self> {
        let shape = x.shape();
        let output = call.conv.output(three(&shape[2..], 1));
        let shape = shape_of(shape[0], call.layout.outputs(), &output[3 - call.conv.axes..]);
        let inputs = inputs([x, words, ranges, range], [(bias, call.has_bias), (offsets, call.has_offsets)]);
        record::<C>(ID, inputs, (shape, DType::F32), call.scalars())
    }
}

/// The inputs of a node: those that there always are, and of the others those that there are.
pub(crate) fn inputs<T>(always: [T; 4], optional: [(T, bool); 2]) -> Vec<T> {
    always.into_iter().chain(optional.into_iter().filter_map(|(tensor, is_there)| is_there.then_some(tensor))).collect()
}

/// `[batch, channels, …]`.
pub(crate) fn shape_of(batch: usize, channels: usize, axes: &[usize]) -> Shape {
    [&[batch, channels], axes].concat().into()
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
    let call: PackedConvCall = expect(op, op.inputs[0].shape.as_slice());
    let mut handles = Handles::<B>::new(handles, op);
    let Operands { x, weight, bias, range } =
        operands::<B, D>(&mut handles, call.layout, call.has_bias, call.has_offsets);
    handles.finish(packed_conv(x, &weight, bias, &call.conv, Activations::Int8(range)));
}

/// What a convolution of either kind is given.
pub(crate) struct Operands<const D: usize> {
    pub(crate) x: Tensor<D>,
    pub(crate) weight: PackedTensor,
    pub(crate) bias: Option<Tensor<1>>,
    pub(crate) range: Tensor<1>,
}

/// Reads the inputs of a node, in the order of [`inputs`].
pub(crate) fn operands<B: BackendIr, const D: usize>(
    handles: &mut Handles<B>,
    layout: PackedLayout,
    has_bias: bool,
    has_offsets: bool,
) -> Operands<D>
where
    DispatchTensor: DispatchKindConversion<B>,
{
    let (x, words, ranges, range) = (handles.float(), handles.int(), handles.float(), handles.float());
    let bias = has_bias.then(|| handles.float());
    let block = layout.inputs().max(1);
    let offsets = has_offsets.then(|| PackedOffsets::new(handles.float::<1>().unsqueeze(), block));
    let weight = PackedTensor { words, scales: PackedScales::Ranges(ranges), layout, offsets };
    Operands { x, weight, bias, range }
}
