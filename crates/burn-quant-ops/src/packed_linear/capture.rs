//! The ops as nodes of a captured graph. Codes are recorded, never the weight in float.

use burn::backend::TensorMetadata;
use burn::backend::ir::{BackendIr, CustomOpIr, HandleContainer, ScalarIr, TensorIr};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{DType, FloatDType, IntDType, Shape};
use burn_quant_numerics::{Format, ScaleFormat};
use burn_router::{BackendRouter, RouterChannel};

use super::{ActivationKind, PackedCall, PackedLayout, PackedLinearOps};
use crate::recording::{BLOCKS, Reader, Scalars, expect, number, place, record};

pub(crate) const LINEAR: &str = "burn_quant::packed_linear";
pub(crate) const UNPACK: &str = "burn_quant::packed_unpack";
pub(crate) const COLUMNS: &str = "burn_quant::packed_columns";

pub(crate) const SCALE_FORMATS: [ScaleFormat; 5] = [
    ScaleFormat::F32,
    ScaleFormat::E8M0,
    ScaleFormat::E4M3(BLOCKS[0]),
    ScaleFormat::E4M3(BLOCKS[1]),
    ScaleFormat::E4M3(BLOCKS[2]),
];
pub(crate) const ACTIVATIONS: [ActivationKind; 4] =
    [ActivationKind::Float, ActivationKind::Int8PerToken, ActivationKind::Int8, ActivationKind::Int15PerToken];
pub(crate) const DTYPES: [DType; 4] = [DType::F32, DType::F16, DType::BF16, DType::F64];

impl Scalars for PackedLayout {
    fn write(&self, to: &mut Vec<ScalarIr>) {
        [self.inputs(), self.outputs(), self.block()].into_iter().for_each(|size| number(to, size));
        self.format().write(to);
        place(to, &SCALE_FORMATS, &self.scale());
        number(to, self.global_amax().to_bits() as usize);
    }

    fn read(from: &mut Reader, shape: &[usize]) -> Option<Self> {
        let (inputs, outputs, block) = (from.size()?, from.size()?, from.size()?);
        let (format, scale) = (Format::read(from, shape)?, from.one_of(&SCALE_FORMATS)?);
        let global_amax = f32::from_bits(from.number()?.try_into().ok()?);
        let layout = PackedLayout::new(inputs, outputs, block, format, scale).ok()?;
        Some(layout.with_global_amax(global_amax))
    }
}

impl Scalars for PackedCall {
    fn write(&self, to: &mut Vec<ScalarIr>) {
        self.layout.write(to);
        place(to, &ACTIVATIONS, &self.activations);
        place(to, &DTYPES, &self.dtype);
    }

    fn read(from: &mut Reader, shape: &[usize]) -> Option<Self> {
        let layout = PackedLayout::read(from, shape)?;
        Some(Self { layout, activations: from.one_of(&ACTIVATIONS)?, dtype: from.one_of(&DTYPES)? })
    }
}

/// The scales that a layout uses.
fn scales<T>(layout: PackedLayout, ranges: T, codes: T) -> T {
    match layout.scale() {
        ScaleFormat::F32 => ranges,
        ScaleFormat::E8M0 | ScaleFormat::E4M3(_) => codes,
    }
}

impl<C: RouterChannel> PackedLinearOps for BackendRouter<C> {
    fn packed_linear(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        scale_codes: IntTensor<Self>,
        activation_range: FloatTensor<Self>,
        call: PackedCall,
    ) -> FloatTensor<Self> {
        let output = (Shape::from([x.shape()[0], call.layout.outputs()]), DType::F32);
        let mut inputs = vec![x, words, scales(call.layout, ranges, scale_codes)];
        if call.activations == ActivationKind::Int8 {
            inputs.push(activation_range);
        }
        record::<C>(LINEAR, inputs, output, call.scalars())
    }

    fn packed_unpack(
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        scale_codes: IntTensor<Self>,
        layout: PackedLayout,
    ) -> FloatTensor<Self> {
        let output = (Shape::from([layout.inputs(), layout.outputs()]), DType::F32);
        record::<C>(UNPACK, vec![words, scales(layout, ranges, scale_codes)], output, layout.scalars())
    }

    fn packed_columns(
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        scale_codes: IntTensor<Self>,
        outputs: IntTensor<Self>,
        layout: PackedLayout,
    ) -> FloatTensor<Self> {
        let output = (Shape::from([outputs.shape()[0], layout.inputs()]), DType::F32);
        let inputs = vec![words, scales(layout, ranges, scale_codes), outputs];
        record::<C>(COLUMNS, inputs, output, layout.scalars())
    }
}

/// Runs a recorded op by the kernel of a backend.
pub(crate) fn run<B: BackendIr + PackedLinearOps>(handles: &mut HandleContainer<B::Handle>, op: &CustomOpIr) {
    let shape = op.inputs[0].shape.as_slice();
    let y = if op.id == LINEAR {
        let call: PackedCall = expect(op, shape);
        let x = handles.get_float_tensor::<B>(&op.inputs[0]);
        let (device, words) = (x.device(), handles.get_int_tensor::<B>(&op.inputs[1]));
        let (ranges, codes) = stored::<B>(handles, &op.inputs[2], call.layout, &device);
        let range = match op.inputs.get(3) {
            Some(range) => handles.get_float_tensor::<B>(range),
            None => B::float_zeros(Shape::from([1]), &device, FloatDType::F32),
        };
        B::packed_linear(x, words, ranges, codes, range, call)
    } else {
        let layout: PackedLayout = expect(op, shape);
        let words = handles.get_int_tensor::<B>(&op.inputs[0]);
        let (ranges, codes) = stored::<B>(handles, &op.inputs[1], layout, &words.device());
        match op.inputs.get(2) {
            None => B::packed_unpack(words, ranges, codes, layout),
            Some(outputs) => {
                let outputs = handles.get_int_tensor::<B>(outputs);
                B::packed_columns(words, ranges, codes, outputs, layout)
            }
        }
    };
    handles.register_float_tensor::<B>(&op.outputs[0].id, y);
}

/// Ranges and codes of scales, of which the layout uses one.
fn stored<B: BackendIr>(
    handles: &mut HandleContainer<B::Handle>,
    scales: &TensorIr,
    layout: PackedLayout,
    device: &B::Device,
) -> (FloatTensor<B>, IntTensor<B>) {
    match layout.scale() {
        ScaleFormat::F32 => {
            let codes = B::int_zeros(Shape::from([1]), device, IntDType::I32);
            (handles.get_float_tensor::<B>(scales), codes)
        }
        ScaleFormat::E8M0 | ScaleFormat::E4M3(_) => {
            let ranges = B::float_zeros(Shape::from([1]), device, FloatDType::F32);
            (ranges, handles.get_int_tensor::<B>(scales))
        }
    }
}
