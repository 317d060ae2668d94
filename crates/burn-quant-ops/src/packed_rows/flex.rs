//! The CPU kernel: rows one after the other, on all threads where there are many.

use burn::tensor::{DType, Int, Tensor, TensorData};
use burn_quant_numerics::{AnyGrid, Elements, Grid, Scale, ScaleFormat};
use rayon::prelude::*;

use super::RowsLayout;
use crate::flex::vectorized;

/// Numbers that are worth another thread.
const MANY: usize = 1 << 16;

/// The ranges that belong to a row.
#[derive(Clone, Copy)]
enum Ranges<'a> {
    OfRows(&'a [f32]),
    Given(&'a [f32]),
    /// They stand in the words.
    InWords,
}

impl<'a> Ranges<'a> {
    fn of(self, row: usize, blocks: usize) -> &'a [f32] {
        match self {
            Ranges::OfRows(ranges) => &ranges[row * blocks..][..blocks],
            Ranges::Given(ranges) => ranges,
            Ranges::InWords => &[],
        }
    }
}

fn floats(data: &TensorData) -> &[f32] {
    data.as_slice().expect("f32 data")
}

/// Calls `f` with the ranges as slices.
fn with_ranges<R>(ranges: Option<&Tensor<2>>, given: Option<&Tensor<1>>, f: impl FnOnce(Ranges) -> R) -> R {
    let (ranges, given) = (ranges.map(Tensor::to_data), given.map(Tensor::to_data));
    match (&ranges, &given) {
        (Some(ranges), _) => f(Ranges::OfRows(floats(ranges))),
        (_, Some(given)) => f(Ranges::Given(floats(given))),
        _ => f(Ranges::InWords),
    }
}

pub(super) fn pack(
    x: Tensor<2>,
    ranges: Option<&Tensor<2>>,
    given: Option<&Tensor<1>>,
    layout: RowsLayout,
) -> Tensor<2, Int> {
    let ([rows, features], device, words) = (x.dims(), x.device(), layout.words());
    let (x, grid) = (x.into_data(), layout.grid());
    let mut packed = vec![0i32; rows * words];
    with_ranges(ranges, given, |ranges| {
        let x = floats(&x);
        let row = |(row, packed): (usize, &mut [i32])| {
            let ranges = ranges.of(row, layout.blocks());
            pack_row(grid, &x[row * features..][..features], ranges, layout, bytemuck::cast_slice_mut(packed));
        };
        match rows * features >= MANY {
            true => packed.par_chunks_exact_mut(words.max(1)).enumerate().for_each(row),
            false => packed.chunks_exact_mut(words.max(1)).enumerate().for_each(row),
        }
    });
    Tensor::from_data(TensorData::new(packed, [rows, words]), (&device, DType::I32))
}

/// Packs a row into its bytes.
fn pack_row(grid: AnyGrid, x: &[f32], ranges: &[f32], layout: RowsLayout, bytes: &mut [u8]) {
    let (codes, scales) = bytes.split_at_mut(4 * layout.code_words());
    let (width, in_byte) = (layout.width(), 8 / layout.width());
    for (block, x) in x.chunks(layout.block).enumerate() {
        let amax = ranges.get(block).copied().unwrap_or_else(|| grid.amax(x));
        let stored = grid.stored_scale(amax);
        if layout.scale != ScaleFormat::F32 {
            scales[block] = stored as u8;
        }
        let scale = grid.scale_of_stored(stored);
        for (i, x) in x.iter().enumerate() {
            let place = block * layout.block + i;
            codes[place / in_byte] |= grid.code(*x, scale) << (place % in_byte * width);
        }
    }
}

pub(super) fn unpack(
    words: Tensor<2, Int>,
    ranges: Option<&Tensor<2>>,
    given: Option<&Tensor<1>>,
    layout: RowsLayout,
) -> Tensor<2> {
    let ([rows, _], device) = (words.dims(), words.device());
    let words = words.into_data();
    let bytes: &[u8] = bytemuck::cast_slice(words.as_slice::<i32>().expect("words of 32 bits"));
    let y = with_ranges(ranges, given, |ranges| {
        let grid = layout.grid();
        let elements = grid.elements();
        let points: [f32; 256] =
            std::array::from_fn(
                |code| if code >> layout.format.bits() == 0 { elements.point(code as u8) } else { 0.0 },
            );
        // a match for the rows, and not for each value
        match grid {
            AnyGrid::Plain(Elements::Int(ints)) => {
                let zero = i32::from(elements.code(0.0));
                unpack_rows(ints, grid, |code| (i32::from(code) - zero) as f32, bytes, rows, ranges, layout)
            }
            AnyGrid::Plain(Elements::Minifloat(floats)) => {
                unpack_rows(floats, grid, |code| points[usize::from(code)], bytes, rows, ranges, layout)
            }
            AnyGrid::Plain(Elements::Nf4(nf4)) => {
                unpack_rows(nf4, grid, |code| points[usize::from(code)], bytes, rows, ranges, layout)
            }
            AnyGrid::Mx(mx) => unpack_rows(mx, grid, |code| points[usize::from(code)], bytes, rows, ranges, layout),
            AnyGrid::TwoLevel(two) => {
                unpack_rows(two, grid, |code| points[usize::from(code)], bytes, rows, ranges, layout)
            }
        }
    });
    Tensor::from_data(TensorData::new(y, [rows, layout.features]), (&device, DType::F32))
}

fn unpack_rows<G: Grid>(
    grid: G,
    any: AnyGrid,
    point: impl Fn(u8) -> f32 + Sync,
    bytes: &[u8],
    rows: usize,
    ranges: Ranges,
    layout: RowsLayout,
) -> Vec<f32> {
    let mut y = vec![0.0; rows * layout.features];
    let unpack = |(row, y): (usize, &mut [f32])| {
        let (codes, scales) = bytes[row * layout.bytes()..][..layout.bytes()].split_at(4 * layout.code_words());
        let ranges = ranges.of(row, layout.blocks());
        let scale = |block: usize| -> Scale {
            any.scale_of_stored(ranges.get(block).map_or_else(|| u32::from(scales[block]), |range| range.to_bits()))
        };
        vectorized(
            #[inline(always)]
            || unpack_row(grid, &point, codes, scale, layout, y),
        );
    };
    match y.len() >= MANY {
        true => y.par_chunks_exact_mut(layout.features).enumerate().for_each(unpack),
        false => y.chunks_exact_mut(layout.features.max(1)).enumerate().for_each(unpack),
    }
    y
}

#[inline(always)]
fn unpack_row<G: Grid>(
    grid: G,
    point: &impl Fn(u8) -> f32,
    codes: &[u8],
    scale: impl Fn(usize) -> Scale,
    layout: RowsLayout,
    y: &mut [f32],
) {
    let (width, in_byte) = (layout.width(), 8 / layout.width());
    let mask = u8::MAX >> (8 - width);
    for (block, y) in y.chunks_mut(layout.block).enumerate() {
        let (first, scale) = (block * layout.block, scale(block));
        match width {
            8 => {
                let codes = &codes[first..][..y.len()];
                y.iter_mut().zip(codes).for_each(|(y, code)| *y = grid.dequantize(point(*code), scale));
            }
            4 if first % 2 == 0 => {
                for (y, byte) in y.chunks_mut(2).zip(&codes[first / 2..]) {
                    y[0] = grid.dequantize(point(byte & 15), scale);
                    if let Some(y) = y.get_mut(1) {
                        *y = grid.dequantize(point(byte >> 4), scale);
                    }
                }
            }
            _ => {
                for (i, y) in y.iter_mut().enumerate() {
                    let place = first + i;
                    let code = (codes[place / in_byte] >> (place % in_byte * width)) & mask;
                    *y = grid.dequantize(point(code), scale);
                }
            }
        }
    }
}
