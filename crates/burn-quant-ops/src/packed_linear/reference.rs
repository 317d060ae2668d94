//! The composition of burn's own ops that unpacks a weight; never optimised.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Slice, TensorMetadata};
use burn::tensor::{IntDType, Shape, TensorData};
use burn_quant_numerics::packed::{PANEL, STEP};
use burn_quant_numerics::{AnyGrid, Elements, Grid};

use super::{ActivationKind, PackedLayout};
use crate::fake_quant::reference::fake_quant;
use crate::fake_quant::{Call, Scales};
use crate::{FakeQuant, GradientRule, Groups};

/// The weight, f32 `[inputs, outputs]`.
pub(super) fn unpack<B: Backend>(
    words: IntTensor<B>,
    ranges: FloatTensor<B>,
    scale_codes: IntTensor<B>,
    layout: PackedLayout,
) -> FloatTensor<B> {
    let (tiles, device) = (layout.tiles(), words.device());
    let (inputs, outputs, panels) = (tiles.inputs(), tiles.outputs(), tiles.panels());
    if inputs * outputs == 0 {
        return B::float_from_data(TensorData::new(Vec::<f32>::new(), [inputs, outputs]), &device);
    }
    let indices = |values: Vec<i32>| {
        let len = values.len();
        B::int_from_data(TensorData::new(values, [len]), &device)
    };
    let table = |values: Vec<f32>, codes: IntTensor<B>, shape: [usize; 3]| {
        let len = values.len();
        let values = B::float_from_data(TensorData::new(values, [len]), &device);
        let codes = B::int_reshape(codes, Shape::from([shape.iter().product::<usize>()]));
        B::float_reshape(B::float_select(values, 0, codes), Shape::from(shape))
    };

    let elements = Elements::of(layout.format());
    let codes = B::int_reshape(codes::<B>(words, layout), Shape::from([panels, tiles.padded_inputs(), PANEL]));
    let codes = B::int_select(codes, 1, indices((0..inputs).map(|input| tiles.place(input) as i32).collect()));
    let points = (0..1 << tiles.bits()).map(|code| elements.point(code as u8)).collect();
    let points = table(points, codes, [panels, inputs, PANEL]);

    let blocks = indices((0..inputs).map(|input| (input / tiles.block()) as i32).collect());
    let shape = [panels, tiles.blocks(), PANEL];
    let grid = layout.grid();
    let scales = match grid {
        AnyGrid::Plain(_) => B::float_reshape(ranges, Shape::from(shape)),
        AnyGrid::Mx(_) | AnyGrid::TwoLevel(_) => {
            let scales = (0..256).map(|code| grid.scale_of_stored(code).from_grid);
            table(
                scales.map(|scale| if scale.is_finite() { scale } else { 0.0 }).collect(),
                bytes::<B>(scale_codes),
                shape,
            )
        }
    };
    let scales = B::float_select(scales, 1, blocks);
    // as each grid scales; a range of zero has codes of zero only
    let values = match grid {
        AnyGrid::Plain(Elements::Int(_)) => B::float_div(points, divided::<B>(grid.max(), scales)),
        AnyGrid::Plain(Elements::Minifloat(_)) => {
            let to_grid = B::float_mul_scalar(divided::<B>(1.0, scales), grid.max().into());
            B::float_mul(points, divided::<B>(1.0, to_grid))
        }
        _ => B::float_mul(points, scales),
    };
    let values = B::float_reshape(B::float_swap_dims(values, 0, 1), Shape::from([inputs, panels * PANEL]));
    B::float_slice(values, &[Slice::from(0..inputs), Slice::from(0..outputs)])
}

/// Activations `[rows, inputs]` after rounding.
pub(super) fn rounded<B: Backend>(x: FloatTensor<B>, range: FloatTensor<B>, kind: ActivationKind) -> FloatTensor<B> {
    match rounding(x.shape().as_slice(), kind) {
        None => x,
        Some(call) => fake_quant::<B>(x, range.clone(), range.clone(), range, &call),
    }
}

/// How activations of INT8 with one range are fake-quantized.
pub(crate) fn int8_rounding(shape: &[usize]) -> Call {
    let (format, groups) = (super::activation_format().into(), Groups::per_tensor(shape));
    Call { spec: FakeQuant { format, groups, gradient: GradientRule::Clipped }, scales: Scales::Static, bias: None }
}

/// How activations of a kind are fake-quantized; `None` if they stay floats.
pub(super) fn rounding(shape: &[usize], kind: ActivationKind) -> Option<Call> {
    let (groups, scales) = match kind {
        ActivationKind::Float | ActivationKind::Int15PerToken => return None,
        ActivationKind::Int8PerToken => (Groups::per_channel(shape, 0), Scales::Dynamic),
        ActivationKind::Int8 => return Some(int8_rounding(shape)),
    };
    let spec = FakeQuant { format: super::activation_format().into(), groups, gradient: GradientRule::Clipped };
    Some(Call { spec, scales, bias: None })
}

/// `value / x`.
fn divided<B: Backend>(value: f32, x: FloatTensor<B>) -> FloatTensor<B> {
    let value = B::float_from_data(TensorData::new(vec![value], [1, 1, 1]), &x.device());
    let value = B::float_expand(value, x.shape());
    B::float_div(value, x)
}

/// All codes, `[panel] [filled-up input] [column]`.
fn codes<B: Backend>(words: IntTensor<B>, layout: PackedLayout) -> IntTensor<B> {
    let tiles = layout.tiles();
    let granules = tiles.panels() * tiles.padded_inputs() / tiles.granule();
    let words = B::int_reshape(words, Shape::from([granules, tiles.granule_words(), PANEL]));
    let mut codes = Vec::with_capacity(tiles.granule());
    for step in 0..tiles.granule() / STEP {
        for byte in 0..STEP as u32 {
            let part = tiles.parts().map(|part| {
                let (word, shift) = part.of_step(step);
                let all = [Slice::from(0..granules), Slice::from(word..word + 1), Slice::from(0..PANEL)];
                let word = B::int_slice(words.clone(), &all);
                let bits =
                    B::bitwise_and_scalar(shifted::<B>(word, shift + 8 * byte), ((1i64 << part.width) - 1).into());
                B::int_mul_scalar(bits, (1i64 << part.bit).into())
            });
            codes.push(part.reduce(B::int_add).expect("a code has bits"));
        }
    }
    B::int_cat(codes, 1)
}

/// The bytes of words.
fn bytes<B: Backend>(words: IntTensor<B>) -> IntTensor<B> {
    let len = words.shape().num_elements();
    let words = B::int_reshape(words, Shape::from([len, 1]));
    let byte = |i: u32| B::bitwise_and_scalar(shifted::<B>(words.clone(), 8 * i), 0xff_i64.into());
    B::int_cat((0..4).map(byte).collect(), 1)
}

fn shifted<B: Backend>(words: IntTensor<B>, by: u32) -> IntTensor<B> {
    debug_assert_eq!(words.dtype(), IntDType::I32.into());
    B::bitwise_right_shift_scalar(words, i64::from(by).into())
}
