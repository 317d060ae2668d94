//! Few rows: a cube per panel of 16 columns and eight rows. Its units share the granules of a column, which they read
//! side by side, and add up their sums through shared memory.

use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::{ops::numeric::empty_device_dtype, tensor::CubeTensor};
use burn_quant_numerics::packed::PANEL;
use cubecl::prelude::*;
use cubecl::std::tensor::layout::linear::{LinearView, LinearViewMut};

use super::decode::{Form, Matrix, factor_of, matrix, place_of, points, step_of, words_of};
use crate::fake_quant::cubecl::vector_size;
use crate::packed_linear::PackedLayout;

/// Units that share the granules of a column.
const SHARES: usize = 16;
/// Rows of a cube at most: each has a sum per unit.
const ROWS: usize = 8;

/// Whether a device can start as many cubes.
pub(super) fn fits(rows: usize, layout: PackedLayout) -> bool {
    rows > 0 && layout.inputs() > 0 && (1..=usize::from(u16::MAX)).contains(&layout.tiles().panels())
}

/// `x · W`, of f32 `[rows, inputs]`.
pub(super) fn multiply(
    x: CubeTensor,
    words: CubeTensor,
    ranges: CubeTensor,
    scale_codes: CubeTensor,
    layout: PackedLayout,
) -> CubeTensor {
    let x = into_contiguous(x);
    let rows = x.meta.shape()[0];
    let form = Form::of(layout);
    let vector = if form.whole && vector_size(&[&x], x.meta.shape()) >= 4 { 4 } else { 1 };
    let rows_of_cube = rows.next_power_of_two().min(ROWS);
    let y = empty_device_dtype(x.client.clone(), x.device.clone(), [rows, layout.outputs()].into(), x.dtype);
    let count = CubeCount::Static(layout.tiles().panels() as u32, rows.div_ceil(rows_of_cube) as u32, 1);
    let address = x.required_address_type().max(words.required_address_type()).max(y.required_address_type());
    // SAFETY: there is a cube for each panel, whose words and scales are those of the layout; rows and inputs beyond
    // the last are read as those, and what belongs to none of the outputs is not written.
    unsafe {
        multiply_kernel::launch_unchecked(
            &y.client,
            count,
            CubeDim::new_2d(PANEL as u32, SHARES as u32),
            address,
            vector,
            x.into_linear_view(),
            words.into_linear_view(),
            ranges.into_linear_view(),
            scale_codes.into_linear_view(),
            y.clone().into_linear_view(),
            matrix(layout),
            rows,
            rows_of_cube,
            form,
        );
    }
    y
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn multiply_kernel<N: Size>(
    x: LinearView<'_, Vector<f32, N>>,
    words: LinearView<'_, u32>,
    ranges: LinearView<'_, f32>,
    scale_codes: LinearView<'_, u32>,
    mut y: LinearViewMut<'_, f32>,
    matrix: Matrix,
    rows: usize,
    #[comptime] rows_of_cube: usize,
    #[comptime] form: Form,
) {
    let panel = CUBE_POS_X as usize;
    let (column, share) = (UNIT_POS_X as usize, UNIT_POS_Y as usize);
    let first_row = CUBE_POS_Y as usize * rows_of_cube;
    let width = N::value().comptime();
    let mut sums = Array::<Vector<f32, N>>::new(rows_of_cube);
    #[unroll]
    for row in 0..rows_of_cube {
        sums[row] = Vector::new(0.0f32);
    }

    let mut granule = share;
    while granule < matrix.granules {
        let codes = words_of(&words, panel, granule, column, &matrix, form);
        let (block, within, input) = place_of(granule, &matrix, form);
        let place = (panel * matrix.blocks + block) * PANEL + column;
        let step = step_of(&ranges, &scale_codes, place, &matrix, form);
        let factor = factor_of(step, form);
        #[unroll]
        for chunk in 0..comptime!(form.granule() / width) {
            let ahead = comptime!(chunk * width);
            let value = points::<N>(&codes, ahead, form) * Vector::new(factor);
            // what fills up is multiplied with nothing
            let inside = if comptime!(form.whole) {
                true.runtime()
            } else {
                within + ahead < matrix.block && input + ahead < matrix.inputs
            };
            let at = select(inside, input + ahead, 0usize);
            #[unroll]
            for row in 0..rows_of_cube {
                let row_of_x = min(first_row + row, rows - 1usize);
                let factors = x.read((row_of_x * matrix.inputs + at) / N::value());
                let factors = select(inside, factors, Vector::new(0.0f32));
                sums[row] += factors * value;
            }
        }
        granule += SHARES;
    }

    let mut shared = Shared::<[f32]>::new_slice(comptime!(PANEL * SHARES * rows_of_cube));
    let unit = share * PANEL + column;
    #[unroll]
    for row in 0..rows_of_cube {
        let mut sum = sums[row].extract(0usize);
        #[unroll]
        for lane in 1..N::value() {
            sum += sums[row].extract(lane);
        }
        shared[row * comptime!(PANEL * SHARES) + unit] = sum;
    }
    sync_cube();
    #[unroll]
    for halving in 0..4u32 {
        let half = comptime!(SHARES >> (halving + 1));
        if share < half {
            #[unroll]
            for row in 0..rows_of_cube {
                let place = row * comptime!(PANEL * SHARES) + unit;
                shared[place] += shared[place + half * PANEL];
            }
        }
        sync_cube();
    }
    let output = panel * PANEL + column;
    // the units of the first shares write a row each
    if share < rows_of_cube {
        let row = first_row + share;
        if row < rows && output < matrix.outputs {
            y.write(row * matrix.outputs + output, shared[share * comptime!(PANEL * SHARES) + column]);
        }
    }
}
