//! The other factor: rows of activations, interleaved for the tiles, as floats or as INT8 codes.
//!
//! ```text
//! codes     q = clamp(rne(x · (127 / amax)), −128, 127)      amax of the row, or one given      step = amax / 127
//! in parts  q = rne(x · (16256 / amax)) = 128 · high + low   high in −127..=127, low in −64..=63    amax / 16256
//! rows      [tile of rows] [step] [row of the tile] [part]   filled up as blocks are
//! sums      [tile of rows] [block] [row of the tile] [part]  Σ q, for the zero of the weights
//! ```
//!
//! A row with a value that is not a number has a step that is none either: its outputs are NaN. So are those of a row
//! with an infinity, unless the range is given, which clips it.

use burn_quant_numerics::packed::{STEP, Tiles};
use burn_quant_numerics::{Grid, IntGrid, amax};
use rayon::prelude::*;

use super::vectors::Vectors;
use crate::flex::vectorized;

/// Rows cut into tiles of the sizes at hand; the last rows of a tile may be missing, and count as zeros.
#[derive(Clone, Debug)]
pub(super) struct RowTiles {
    tiles: Vec<RowTile>,
    rows: usize,
}

/// Some rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RowTile {
    /// The first.
    pub(super) first: usize,
    /// How many there are.
    pub(super) rows: usize,
    /// How many are computed.
    pub(super) size: usize,
    /// How many are computed in the tiles before.
    pub(super) before: usize,
}

impl RowTiles {
    /// As few tiles as there can be, of nearly equal size: each reads the whole weight.
    pub(super) fn new(rows: usize, sizes: &[(usize, usize)]) -> Self {
        let most = sizes.last().expect("there are sizes").0;
        let count = rows.div_ceil(most);
        let fitting = |rows: usize| sizes.iter().map(|(size, _)| *size).find(|size| *size >= rows).unwrap_or(most);
        // nearly equal, or full ones and a rest: whichever computes less
        let equal: Vec<usize> = (0..count).map(|tile| (tile + 1) * rows / count - tile * rows / count).collect();
        let full: Vec<usize> = (0..count).map(|tile| most.min(rows - tile * most)).collect();
        let computed = |tiles: &[usize]| tiles.iter().map(|rows| fitting(*rows)).sum::<usize>();
        let chosen = if computed(&full) < computed(&equal) { full } else { equal };
        let (mut first, mut before) = (0, 0);
        let tiles = chosen.into_iter().map(|rows| {
            let tile = RowTile { first, rows, size: fitting(rows), before };
            (first, before) = (first + rows, before + tile.size);
            tile
        });
        let tiles = tiles.collect();
        Self { tiles, rows: before }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = RowTile> {
        self.tiles.iter().copied()
    }

    /// All rows that are computed.
    pub(super) fn computed(&self) -> usize {
        self.rows
    }

    /// The rows that there are.
    pub(super) fn rows(&self) -> usize {
        self.tiles.last().map_or(0, |tile| tile.first + tile.rows)
    }
}

/// Rows `[rows, inputs]`.
#[derive(Clone, Copy)]
pub(super) struct Rows<'a> {
    pub(super) values: &'a [f32],
    /// What each input is multiplied with first.
    pub(super) factors: Option<&'a [f32]>,
}

impl<'a> Rows<'a> {
    /// A row, which is written to `scaled` if there are factors.
    fn row<'b>(self, row: usize, inputs: usize, scaled: &'b mut Vec<f32>) -> &'b [f32]
    where
        'a: 'b,
    {
        let x = &self.values[row * inputs..][..inputs];
        let Some(factors) = self.factors else { return x };
        scaled.resize(inputs, 0.0);
        vectorized(
            #[inline(always)]
            || scaled.iter_mut().zip(x).zip(factors).for_each(|((scaled, x), factor)| *scaled = x * factor),
        );
        scaled
    }
}

/// Rows of codes.
pub(super) struct IntegerRows<V: Vectors> {
    pub(super) x: Vec<V::Step>,
    pub(super) sums: Vec<i32>,
    /// The step of each row.
    pub(super) steps: Vec<f32>,
}

/// Where ranges of rows come from.
#[derive(Clone, Copy, Debug)]
pub(super) enum RowRange {
    /// The largest magnitude of the row.
    OfRow,
    /// One for all.
    Given(f32),
    /// The largest magnitude of the row, of codes of 15 bits in two parts.
    OfRowInParts,
}

/// The largest code of 15 bits: 127 times the unit of its high part.
const LARGEST_IN_PARTS: f32 = 127.0 * PART;

/// The unit of the high part.
pub(super) const PART: f32 = 128.0;

impl RowRange {
    /// The INT8 codes of a value.
    pub(super) fn parts(self) -> usize {
        if matches!(self, RowRange::OfRowInParts) { 2 } else { 1 }
    }
}

impl<V: Vectors> IntegerRows<V> {
    /// Quantizes rows `[rows, inputs]`.
    pub(super) fn new(
        x: Rows,
        tiles: Tiles,
        grid: IntGrid,
        range: RowRange,
        row_tiles: &RowTiles,
        threads: bool,
    ) -> Self {
        let (padded, blocks, rows, n) = (tiles.padded_inputs(), tiles.blocks(), row_tiles.computed(), range.parts());
        let mut quantized = Self {
            x: vec![V::Step::default(); rows * n * padded / STEP],
            sums: vec![0; rows * n * blocks],
            steps: vec![0.0; rows],
        };
        let mut parts = Vec::with_capacity(row_tiles.tiles.len());
        let (mut x_rest, mut sums_rest, mut steps_rest) =
            (quantized.x.as_mut_slice(), quantized.sums.as_mut_slice(), quantized.steps.as_mut_slice());
        for tile in row_tiles.iter() {
            let (x, sums, steps);
            (x, x_rest) = x_rest.split_at_mut(tile.size * n * padded / STEP);
            (sums, sums_rest) = sums_rest.split_at_mut(tile.size * n * blocks);
            (steps, steps_rest) = steps_rest.split_at_mut(tile.size);
            parts.push((tile, x, sums, steps));
        }
        let work = |(tile, out, sums, steps): (RowTile, &mut [V::Step], &mut [i32], &mut [f32])| {
            let (mut codes, mut scaled) = (vec![0i8; n * padded], Vec::new());
            for (row, row_step) in steps.iter_mut().enumerate().take(tile.rows) {
                let x = x.row(tile.first + row, tiles.inputs(), &mut scaled);
                *row_step = quantize_row(x, tiles, grid, range, &mut codes);
                for (part, codes) in codes.chunks_exact(padded.max(1)).enumerate() {
                    let (at, rows) = (row * n + part, tile.size * n);
                    let four = codes.chunks_exact(STEP).map(|four| V::step(four.try_into().expect("a step of codes")));
                    out.iter_mut().skip(at).step_by(rows).zip(four).for_each(|(out, step)| *out = step);
                    for block in 0..blocks {
                        sums[block * rows + at] = sum(&codes[tiles.block_range(block)]);
                    }
                }
            }
        };
        if threads {
            parts.into_par_iter().for_each(work)
        } else {
            parts.into_iter().for_each(work)
        }
        quantized
    }
}

impl<V: Vectors> IntegerRows<V> {
    /// Rows of so many steps of signed codes, four in a word; the steps of their ranges are 0.
    pub(super) fn of_steps(steps: usize, row_tiles: &RowTiles, word: impl Fn(usize, usize) -> u32) -> Self {
        let rows = row_tiles.computed();
        let mut x = vec![V::Step::default(); rows * steps];
        let mut sums = vec![0; rows];
        for tile in row_tiles.iter() {
            let (x, sums) = (&mut x[tile.before * steps..], &mut sums[tile.before..]);
            for step in 0..steps {
                let x = &mut x[step * tile.size..][..tile.rows];
                for (row, (x, sum)) in x.iter_mut().zip(sums.iter_mut()).enumerate() {
                    let four = word(tile.first + row, step).to_le_bytes().map(|byte| byte as i8);
                    *x = V::step(four);
                    *sum += four.iter().map(|code| i32::from(*code)).sum::<i32>();
                }
            }
        }
        Self { x, sums, steps: vec![0.0; rows] }
    }

    /// Rows of codes `[rows, 4 · steps]`.
    pub(super) fn of_codes(codes: &[i8], steps: usize, row_tiles: &RowTiles) -> Self {
        Self::of_steps(steps, row_tiles, |row, step| {
            let four = &codes[(row * steps + step) * STEP..][..STEP];
            u32::from_le_bytes(<[i8; STEP]>::try_from(four).expect("four codes").map(|code| code as u8))
        })
    }
}

/// Quantizes a row, one part after the other, and returns its step.
fn quantize_row(x: &[f32], tiles: Tiles, grid: IntGrid, range: RowRange, codes: &mut [i8]) -> f32 {
    let largest = vectorized(
        #[inline(always)]
        || amax(x),
    );
    let (range, given) = match range {
        RowRange::OfRow => (largest, false),
        RowRange::Given(range) => (range, true),
        RowRange::OfRowInParts => {
            split_row(x, tiles, largest, codes);
            return if largest < f32::INFINITY { largest / LARGEST_IN_PARTS } else { f32::NAN };
        }
    };
    let scale = grid.scale(range);
    for (block, x) in x.chunks(tiles.block()).enumerate() {
        let codes = &mut codes[block * tiles.padded_block()..][..x.len()];
        vectorized(
            #[inline(always)]
            || codes.iter_mut().zip(x).for_each(|(code, x)| *code = code_of(grid.round(x * scale.to_grid))),
        );
    }
    let is_number = match given {
        true => !largest.is_nan(), // an infinity is clipped
        false => largest < f32::INFINITY,
    };
    if is_number { range / grid.max() } else { f32::NAN }
}

/// Quantizes a row to 15 bits: the high parts, then the low ones.
fn split_row(x: &[f32], tiles: Tiles, largest: f32, codes: &mut [i8]) {
    let to_grid = LARGEST_IN_PARTS / largest;
    let to_grid = if to_grid < f32::INFINITY { to_grid } else { 0.0 };
    let (high, low) = codes.split_at_mut(tiles.padded_inputs());
    for (block, x) in x.chunks(tiles.block()).enumerate() {
        let start = block * tiles.padded_block();
        let (high, low) = (&mut high[start..][..x.len()], &mut low[start..][..x.len()]);
        vectorized(
            #[inline(always)]
            || {
                for ((high, low), x) in high.iter_mut().zip(low).zip(x) {
                    let code = bits_of(x * to_grid) as i16;
                    *high = ((code + 64) >> 7) as i8;
                    *low = ((code + 64) & 0x7f) as i8 - 64;
                }
            },
        );
    }
}

/// An integer of a byte, from a float that is one; of NaN any.
///
/// A large power of two leaves it in the lowest bits, and vectors of them are made without the branches of a cast.
#[inline(always)]
pub(super) fn code_of(integer: f32) -> i8 {
    bits_of(integer) as i8
}

/// Rounds to the nearest integer, of ties to the even one, and leaves it in the lowest bits.
#[inline(always)]
fn bits_of(integer: f32) -> u32 {
    const LARGE: f32 = 1.5 * (1 << 23) as f32;
    (integer + LARGE).to_bits()
}

fn sum(codes: &[i8]) -> i32 {
    vectorized(
        #[inline(always)]
        || codes.iter().map(|code| i32::from(*code)).sum(),
    )
}

/// Interleaves rows of floats `[rows, inputs]` as tiles read them.
pub(super) fn float_rows(x: Rows, tiles: Tiles, row_tiles: &RowTiles) -> Vec<f32> {
    let padded = tiles.padded_inputs();
    let (mut out, mut scaled) = (vec![0.0; row_tiles.computed() * padded], Vec::new());
    for tile in row_tiles.iter() {
        let out = &mut out[tile.before * padded..][..tile.size * padded];
        for row in 0..tile.rows {
            let x = x.row(tile.first + row, tiles.inputs(), &mut scaled);
            for (block, x) in x.chunks(tiles.block()).enumerate() {
                let start = block * tiles.padded_block() * tile.size + row;
                out[start..].iter_mut().step_by(tile.size).zip(x).for_each(|(out, x)| *out = *x);
            }
        }
    }
    out
}
