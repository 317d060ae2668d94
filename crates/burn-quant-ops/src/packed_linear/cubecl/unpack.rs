//! The weight as floats: a unit per granule of a column, neighbours in neighbouring columns.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::tensor::DType;
use burn_cubecl::{ops::numeric::empty_device_dtype, tensor::CubeTensor};
use burn_quant_numerics::packed::PANEL;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;
use cubecl::std::tensor::layout::linear::{LinearView, LinearViewMut};

use super::decode::{Form, Matrix, matrix, place_of, points, step_of, values, words_of};
use crate::packed_linear::PackedLayout;

/// The weight, `[inputs, outputs]` in a dtype: that of fake quantization but for the rounding of divisions.
pub(super) fn unpack(
    words: CubeTensor,
    ranges: CubeTensor,
    scale_codes: CubeTensor,
    layout: PackedLayout,
    dtype: DType,
) -> CubeTensor {
    let (tiles, form) = (layout.tiles(), Form::of(layout));
    let shape = [tiles.inputs(), tiles.outputs()].into();
    let y = empty_device_dtype(words.client.clone(), words.device.clone(), shape, dtype);
    let units = tiles.panels() * PANEL * tiles.padded_inputs() / tiles.granule();
    if tiles.inputs() * tiles.outputs() == 0 {
        return y;
    }
    let dim = CubeDim::new(&y.client, units);
    let count = calculate_cube_count_elemwise(&y.client, units, dim);
    let address = y.required_address_type().max(words.required_address_type());
    // SAFETY: units beyond the last granule end at once; words and scales of the others are those of the layout, and
    // only what is an input and an output is written.
    unsafe {
        unpack_kernel::launch_unchecked(
            &y.client,
            count,
            dim,
            address,
            words.into_linear_view(),
            ranges.into_linear_view(),
            scale_codes.into_linear_view(),
            y.clone().into_linear_view(),
            matrix(layout),
            units,
            form,
            dtype_to_storage_type(dtype),
        );
    }
    y
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn unpack_kernel<F: Float>(
    words: LinearView<'_, u32>,
    ranges: LinearView<'_, f32>,
    scale_codes: LinearView<'_, u32>,
    mut y: LinearViewMut<'_, F>,
    matrix: Matrix,
    units: usize,
    #[comptime] form: Form,
    #[define(F)] _dtype: ElemType,
) {
    if ABSOLUTE_POS >= units {
        terminate!();
    }
    let column = ABSOLUTE_POS % PANEL;
    let granule = ABSOLUTE_POS / PANEL % matrix.granules;
    let panel = ABSOLUTE_POS / PANEL / matrix.granules;
    let output = panel * PANEL + column;
    if output >= matrix.outputs {
        terminate!();
    }
    let codes = words_of(&words, panel, granule, column, &matrix, form);
    let (block, within, input) = place_of(granule, &matrix, form);
    let place = (panel * matrix.blocks + block) * PANEL + column;
    let step = step_of(&ranges, &scale_codes, place, &matrix, form);
    #[unroll]
    for ahead in 0..comptime!(form.granule()) {
        let point = points::<Const<1>>(&codes, ahead, form);
        let value = values::<Const<1>>(point, step, form).extract(0usize);
        let inside = if comptime!(form.whole) {
            true.runtime()
        } else {
            within + ahead < matrix.block && input + ahead < matrix.inputs
        };
        if inside {
            y.write((input + ahead) * matrix.outputs + output, F::cast_from(value));
        }
    }
}
