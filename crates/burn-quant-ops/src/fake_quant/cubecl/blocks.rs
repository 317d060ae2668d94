//! Ranges from the data: each element is read once, kept in registers, and written once.
//!
//! * blocks of a row: a unit per block
//! * blocks of columns, as the weights of linear layers have them: a unit per vector of adjacent columns
//! * rows, as tokens are: a cube per row, its units reduce their parts through shared memory
//!
//! Blocks that do not end where vectors do, or do not fit the registers, are left to two kernels.

use burn::backend::cubecl::dtype_to_storage_type;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;
use cubecl::std::tensor::layout::linear::{LinearView, LinearViewMut};

use super::arithmetic::{Arithmetic, Elements, Grid, ScaleRule, factors, magnitude, quantize};
use super::elements::{shifted, unshifted};
use super::groups::{Division, Read, division};
use super::{Target, has_f64, vector_size};
use crate::fake_quant::Call;
use crate::fake_quant::layout::Layout;

/// Vectors that a unit keeps: a block of 32 rows of columns, or of 128 elements of a row. The loops over them are
/// unrolled, so that they are registers; more would take long to compile.
const KEPT: usize = 32;
/// Units of a cube that share a row.
const UNITS: usize = 256;
/// Vectors of a row that each of them keeps.
const KEPT_OF_ROW: usize = 8;

/// How the vectors of a block lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Shape {
    /// One after the other; all lanes belong to the block.
    Run,
    /// A row apart; each lane belongs to a block of its own.
    Column,
}

/// Who works on what.
enum Share {
    /// A unit per block of this many vectors.
    Unit { shape: Shape, vectors: usize, blocks: usize, columns: usize },
    /// A cube per row of this many vectors.
    Cube { vectors: usize, rows: usize },
}

impl Share {
    fn of(call: &Call, vector: usize) -> Option<Self> {
        let elements = call.spec.groups.shape().iter().product::<usize>();
        match Layout::of(&call.spec.groups.segments()) {
            Layout::Runs { row, block }
                if row == block && block.is_multiple_of(vector) && elements.is_multiple_of(block) =>
            {
                let (vectors, blocks) = (block / vector, elements / block);
                if vectors <= KEPT {
                    Some(Share::Unit { shape: Shape::Run, vectors, blocks, columns: 1 })
                } else {
                    let fits = vectors <= UNITS * KEPT_OF_ROW && blocks <= u16::MAX.into();
                    fits.then_some(Share::Cube { vectors, rows: blocks })
                }
            }
            Layout::Columns { rows, columns, block }
                if block <= KEPT && rows.is_multiple_of(block) && columns.is_multiple_of(vector) =>
            {
                let (columns, blocks) = (columns / vector, elements / vector / block);
                Some(Share::Unit { shape: Shape::Column, vectors: block, blocks, columns })
            }
            _ => None,
        }
    }
}

/// The tensors come back if no kernel of this file fits the groups.
#[allow(clippy::result_large_err)]
pub(super) fn fake_quant(
    x: CubeTensor,
    global_amax: CubeTensor,
    bias: CubeTensor,
    call: &Call,
) -> Result<CubeTensor, (CubeTensor, CubeTensor, CubeTensor)> {
    let vector = vector_size(&[&x], call.spec.groups.shape());
    let Some(share) = Share::of(call, vector) else { return Err((x, global_amax, bias)) };
    let Arithmetic { elements, rule, grid } = Arithmetic::of(call, has_f64(&x));
    let bias_read = call.bias.as_ref().map(|groups| Read::of(groups, vector));
    let address = x.required_address_type().max(bias.required_address_type());
    let Target { y, view } = Target::of(&x);
    let dtype = dtype_to_storage_type(y.dtype);
    match share {
        Share::Unit { shape, vectors, blocks, columns } => {
            let dim = CubeDim::new(&x.client, blocks);
            let count = calculate_cube_count_elemwise(&x.client, blocks, dim);
            // SAFETY: a unit beyond the last block ends at once; the others stay within their blocks, which cover `x`.
            unsafe {
                unit_per_block::launch_unchecked(
                    &y.client,
                    count,
                    dim,
                    address,
                    vector,
                    x.into_linear_view(),
                    global_amax.into_linear_view(),
                    bias.into_linear_view(),
                    view,
                    division(call.bias.as_ref()),
                    grid,
                    blocks,
                    columns,
                    vectors,
                    shape,
                    bias_read,
                    elements,
                    rule,
                    dtype,
                );
            }
        }
        Share::Cube { vectors, rows } => {
            let count = CubeCount::Static(rows as u32, 1, 1);
            // SAFETY: there is a cube for each row, and its units check their places against the row's end.
            unsafe {
                cube_per_row::launch_unchecked(
                    &y.client,
                    count,
                    CubeDim::new_1d(UNITS as u32),
                    address,
                    vector,
                    x.into_linear_view(),
                    global_amax.into_linear_view(),
                    bias.into_linear_view(),
                    view,
                    division(call.bias.as_ref()),
                    grid,
                    vectors,
                    vectors.div_ceil(UNITS),
                    bias_read,
                    elements,
                    rule,
                    dtype,
                );
            }
        }
    }
    Ok(y)
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn unit_per_block<F: Float, N: Size>(
    x: LinearView<'_, Vector<F, N>>,
    global_amax: LinearView<'_, f32>,
    bias: LinearView<'_, f32>,
    mut y: LinearViewMut<'_, Vector<F, N>>,
    bias_groups: Division,
    grid: Grid,
    blocks: usize,
    columns: usize,
    #[comptime] vectors: usize,
    #[comptime] shape: Shape,
    #[comptime] bias_read: Option<Read>,
    #[comptime] elements: Elements,
    #[comptime] rule: ScaleRule,
    #[define(F)] _dtype: ElemType,
) {
    if ABSOLUTE_POS >= blocks {
        terminate!();
    }
    let first = match shape {
        Shape::Run => ABSOLUTE_POS * vectors,
        Shape::Column => ABSOLUTE_POS / columns * (columns * vectors) + ABSOLUTE_POS % columns,
    };
    let stride = match shape {
        Shape::Run => 1usize.runtime(),
        Shape::Column => columns,
    };
    let mut block = Array::<Vector<f32, N>>::new(vectors);
    let mut bits = Vector::<u32, N>::new(0u32);
    #[unroll]
    for i in 0..vectors {
        let position = first + i * stride;
        let value = shifted::<F, N>(x.read(position), &bias, &bias_groups, position, bias_read);
        bits = max(bits, magnitude::<N>(value, rule));
        block[i] = value;
    }
    let range = match shape {
        Shape::Run => Vector::<f32, N>::reinterpret(Vector::<u32, N>::new(largest_lane::<N>(bits))),
        Shape::Column => Vector::<f32, N>::reinterpret(bits),
    };
    let scale = factors::<N>(range, global_amax.read(0), &grid, elements, rule);
    #[unroll]
    for i in 0..vectors {
        let position = first + i * stride;
        let result = quantize::<N>(block[i], range, &scale, &grid, elements, rule);
        y.write(position, unshifted::<F, N>(result, &bias, &bias_groups, position, bias_read));
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn cube_per_row<F: Float, N: Size>(
    x: LinearView<'_, Vector<F, N>>,
    global_amax: LinearView<'_, f32>,
    bias: LinearView<'_, f32>,
    mut y: LinearViewMut<'_, Vector<F, N>>,
    bias_groups: Division,
    grid: Grid,
    vectors: usize,
    #[comptime] kept: usize,
    #[comptime] bias_read: Option<Read>,
    #[comptime] elements: Elements,
    #[comptime] rule: ScaleRule,
    #[define(F)] _dtype: ElemType,
) {
    let first = CUBE_POS_X as usize * vectors;
    let unit = UNIT_POS as usize;
    let mut part = Array::<Vector<f32, N>>::new(kept);
    let mut bits = Vector::<u32, N>::new(0u32);
    #[unroll]
    for i in 0..kept {
        let place = i * UNITS + unit;
        if place < vectors {
            let position = first + place;
            let value = shifted::<F, N>(x.read(position), &bias, &bias_groups, position, bias_read);
            bits = max(bits, magnitude::<N>(value, rule));
            part[i] = value;
        }
    }
    let mut shared = Shared::<[u32]>::new_slice(UNITS);
    shared[unit] = largest_lane::<N>(bits);
    sync_cube();
    #[unroll]
    for step in 0..8u32 {
        let half = comptime!(UNITS >> (step + 1));
        if unit < half {
            shared[unit] = max(shared[unit], shared[unit + half]);
        }
        sync_cube();
    }
    let range = Vector::<f32, N>::reinterpret(Vector::<u32, N>::new(shared[0]));
    let scale = factors::<N>(range, global_amax.read(0), &grid, elements, rule);
    #[unroll]
    for i in 0..kept {
        let place = i * UNITS + unit;
        if place < vectors {
            let position = first + place;
            let result = quantize::<N>(part[i], range, &scale, &grid, elements, rule);
            y.write(position, unshifted::<F, N>(result, &bias, &bias_groups, position, bias_read));
        }
    }
}

#[cube]
fn largest_lane<N: Size>(bits: Vector<u32, N>) -> u32 {
    let mut largest = bits.extract(0usize);
    #[unroll]
    for lane in 1..N::value() {
        largest = max(largest, bits.extract(lane));
    }
    largest
}
