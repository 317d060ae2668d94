//! Products with a packed matrix, exactly: what every kernel is tested against.
//!
//! ```text
//! W = [inputs, outputs], packed       w = point(code) · step of its block
//!
//! float activations     y = Σ_k x_k · w_k                               in f64, rounded once
//! integer activations   y = s_x · c · Σ_b f32(Σ_{k in b} q_k · i_k) · t_b     inner exact, outer in f32 and in order
//!
//! i = point(code) / unit, an integer        t = amax of the block, or its scale in E8M0 or E4M3
//! c = unit / max for f32 scales, else unit  s_x = step of the row of activations, q its codes
//! ```
//!
//! Integer products are those of the values of fake quantization, but for f32 rounding of the scales: `s_x · c · t` is
//! rounded where a fake-quantized value is rounded itself.
//!
//! Our choice: the scale of a row is applied last, once.

use crate::packed::{PANEL, PackError, Tiles};
use crate::{AnyGrid, Elements, Format, Grid, Scale, ScaleFormat};

/// A packed matrix `[inputs, outputs]`: codes and scales in [`Tiles`], as slices of words.
///
/// Scales in f32 are ranges, one a word; those in E8M0 and E4M3 are bytes, four a word.
///
/// # Example
///
/// ```
/// use burn_quant_numerics::packed::Tiles;
/// use burn_quant_numerics::{IntFormat, PackedMatrix, ScaleFormat};
///
/// let weight = [1.0, -2.0, 0.5, 4.0]; // [2, 2]
/// let tiles = Tiles::new(2, 2, 2, 8)?;
/// let format = IntFormat::signed(8).unwrap().into();
/// let (mut words, mut scales) = ([0; 16], [0; 16]);
/// let amax = |_block, output: usize| [1.0, 4.0][output];
/// let codes = |input: usize, output: usize| weight[2 * input + output];
/// PackedMatrix::pack(tiles, format, ScaleFormat::F32, 0.0, amax, codes, &mut words, &mut scales)?;
/// let packed = PackedMatrix::new(tiles, format, ScaleFormat::F32, 0.0, &words, &scales)?;
/// assert_eq!([packed.value(0, 0), packed.value(0, 1)], [1.0, -64.0 * 4.0 / 127.0]);
/// let mut y = [0.0; 2];
/// packed.product(&[1.0, 2.0], &mut y)?;
/// assert_eq!(y[0], 1.0 + 2.0 * (64.0 / 127.0));
/// # Ok::<(), burn_quant_numerics::packed::PackError>(())
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PackedMatrix<'a> {
    tiles: Tiles,
    grid: AnyGrid,
    words: &'a [u32],
    scales: &'a [u32],
}

/// The words that the scales of a layout take.
///
/// One for each in f32, one for four in E8M0 and E4M3.
pub const fn scale_words(tiles: Tiles, scale: ScaleFormat) -> usize {
    match scale {
        ScaleFormat::F32 => tiles.scales(),
        ScaleFormat::E8M0 | ScaleFormat::E4M3(_) => tiles.scales() / 4,
    }
}

/// Returns what is stored of the scale at a place among the words of a layout.
///
/// Places are those of [`Tiles::scale_place`]; see [`AnyGrid::stored_scale`].
///
/// # Panics
///
/// If there is no such place.
#[inline(always)]
pub fn load_scale(format: ScaleFormat, scales: &[u32], place: usize) -> u32 {
    match format {
        ScaleFormat::F32 => scales[place],
        ScaleFormat::E8M0 | ScaleFormat::E4M3(_) => (scales[place / 4] >> (8 * (place % 4))) & 0xff,
    }
}

/// Stores a scale at its place among the words of a layout, which are zero before.
///
/// Places are those of [`Tiles::scale_place`]; what is stored is what [`AnyGrid::stored_scale`] returns.
///
/// # Panics
///
/// If there is no such place.
#[inline(always)]
pub fn store_scale(format: ScaleFormat, scales: &mut [u32], place: usize, stored: u32) {
    match format {
        ScaleFormat::F32 => scales[place] = stored,
        ScaleFormat::E8M0 | ScaleFormat::E4M3(_) => scales[place / 4] |= stored << (8 * (place % 4)),
    }
}

impl<'a> PackedMatrix<'a> {
    /// Makes a matrix of its words; the range of the tensor matters to E4M3 scales only.
    ///
    /// # Errors
    ///
    /// [`PackError::Format`] for codes of more than 8 bits, [`PackError::Length`] unless there are as many words as the
    /// layout has.
    pub fn new(
        tiles: Tiles,
        format: Format,
        scale: ScaleFormat,
        global_amax: f32,
        words: &'a [u32],
        scales: &'a [u32],
    ) -> Result<Self, PackError> {
        check(tiles, format, scale, words.len(), scales.len())?;
        Ok(Self { tiles, grid: AnyGrid::new(format, scale, global_amax), words, scales })
    }

    /// Packs a matrix of real values with the ranges of its blocks.
    ///
    /// `amax` gives the range of a block and an output, `weight` the value of an input and an output; the range of the
    /// tensor matters to E4M3 scales only. Values round as by fake quantization.
    ///
    /// # Errors
    ///
    /// Those of [`PackedMatrix::new`].
    #[allow(clippy::too_many_arguments)] // what is packed, how, and where to
    pub fn pack(
        tiles: Tiles,
        format: Format,
        scale: ScaleFormat,
        global_amax: f32,
        amax: impl Fn(usize, usize) -> f32,
        weight: impl Fn(usize, usize) -> f32,
        words: &mut [u32],
        scales: &mut [u32],
    ) -> Result<(), PackError> {
        check(tiles, format, scale, words.len(), scales.len())?;
        let scales_of_panel = (scale_words(tiles, scale) / tiles.panels().max(1)).max(1);
        let panels = words.chunks_exact_mut(tiles.panel_words().max(1)).zip(scales.chunks_exact_mut(scales_of_panel));
        for (panel, (words, scales)) in panels.enumerate() {
            let first = panel * PANEL;
            Self::pack_panel(
                tiles,
                AnyGrid::new(format, scale, global_amax),
                panel,
                &amax,
                |input, row| row.iter_mut().enumerate().for_each(|(i, value)| *value = weight(input, first + i)),
                words,
                scales,
            );
        }
        Ok(())
    }

    /// Packs 16 outputs of a matrix: what [`pack`](PackedMatrix::pack) does for each panel, so that threads can share
    /// them.
    ///
    /// `row` gives the values of an input, as many as the panel has outputs; `words` and `scales` are those of the
    /// panel. The grid is that of the matrix.
    ///
    /// # Panics
    ///
    /// Unless there are as many words as a panel has, and codes of as many bits as the layout.
    #[inline(always)] // into functions with the instructions of the processor
    pub fn pack_panel(
        tiles: Tiles,
        grid: AnyGrid,
        panel: usize,
        amax: impl Fn(usize, usize) -> f32,
        row: impl Fn(usize, &mut [f32]),
        words: &mut [u32],
        scales: &mut [u32],
    ) {
        let (first, count) = (panel * PANEL, PANEL.min(tiles.outputs() - panel * PANEL));
        let format = if matches!(grid, AnyGrid::Plain(_)) { ScaleFormat::F32 } else { ScaleFormat::E8M0 };
        scales.fill(0);
        for block in 0..tiles.blocks() {
            for output in 0..count {
                store_scale(format, scales, block * PANEL + output, grid.stored_scale(amax(block, first + output)));
            }
        }
        let scales = &*scales;
        let scale_of = |block: usize| -> [Scale; PANEL] {
            core::array::from_fn(|output| grid.scale_of_stored(load_scale(format, scales, block * PANEL + output)))
        };
        let zero = grid.elements().code(0.0);
        // a match for the panel, and not for each value
        let elements = grid.elements();
        match grid {
            AnyGrid::Plain(Elements::Int(grid)) => pack_codes(tiles, grid, elements, count, scale_of, row, words, zero),
            AnyGrid::Plain(Elements::Nf4(grid)) => pack_codes(tiles, grid, elements, count, scale_of, row, words, zero),
            AnyGrid::Plain(Elements::Minifloat(grid)) => {
                pack_codes(tiles, grid, elements, count, scale_of, row, words, zero)
            }
            AnyGrid::Mx(grid) => pack_codes(tiles, grid, elements, count, scale_of, row, words, zero),
            AnyGrid::TwoLevel(grid) => pack_codes(tiles, grid, elements, count, scale_of, row, words, zero),
        }
    }

    /// Returns the layout.
    ///
    /// With it the shape.
    pub fn tiles(&self) -> Tiles {
        self.tiles
    }

    /// Returns the grid of the matrix.
    ///
    /// With the range of the tensor, if it has one.
    pub fn grid(&self) -> AnyGrid {
        self.grid
    }

    /// Returns the scale of a block and an output.
    ///
    /// It is that of fake quantization.
    pub fn scale(&self, block: usize, output: usize) -> Scale {
        let format = match self.grid {
            AnyGrid::Plain(_) => ScaleFormat::F32,
            _ => ScaleFormat::E8M0, // bytes
        };
        self.grid.scale_of_stored(load_scale(format, self.scales, self.tiles.scale_place(block, output)))
    }

    /// Returns an element: what fake quantization makes of the value that was packed, bit for bit but for the sign of
    /// zero.
    ///
    /// # Panics
    ///
    /// If the matrix has no such element.
    pub fn value(&self, input: usize, output: usize) -> f32 {
        let code = self.tiles.code(self.words, input, output);
        self.grid.value(code, self.scale(input / self.tiles.block(), output))
    }

    /// Returns the factor of a block and an output that an integer product multiplies with, without `c`.
    fn factor(&self, block: usize, output: usize) -> f32 {
        match self.grid {
            AnyGrid::Plain(_) => f32::from_bits(self.scales[self.tiles.scale_place(block, output)]),
            _ => self.scale(block, output).from_grid,
        }
    }

    /// Multiplies rows of activations with the matrix: `x` is `[rows, inputs]`, `y` is `[rows, outputs]`.
    ///
    /// # Errors
    ///
    /// [`PackError::Length`] unless the slices hold as many whole rows.
    pub fn product(&self, x: &[f32], y: &mut [f32]) -> Result<(), PackError> {
        let (inputs, outputs) = (self.tiles.inputs(), self.tiles.outputs());
        let rows = rows(x.len(), inputs, y.len(), outputs)?;
        for row in 0..rows {
            let x = &x[row * inputs..][..inputs];
            for output in 0..outputs {
                let terms = x.iter().enumerate().map(|(input, x)| f64::from(*x) * f64::from(self.value(input, output)));
                y[row * outputs + output] = terms.sum::<f64>() as f32;
            }
        }
        Ok(())
    }

    /// Multiplies rows of integer activations with the matrix: codes `[rows, inputs]`, of INT8 or wider, and a step for
    /// each row.
    ///
    /// # Errors
    ///
    /// [`PackError::Length`] unless the slices hold as many whole rows, and [`PackError::Format`] if the elements are
    /// not integers in units of a power of two.
    pub fn integer_product<Q: Copy + Into<i64>>(
        &self,
        codes: &[Q],
        steps: &[f32],
        y: &mut [f32],
    ) -> Result<(), PackError> {
        let (inputs, outputs) = (self.tiles.inputs(), self.tiles.outputs());
        let elements = self.grid.elements();
        let Some(unit) = elements.unit() else { return Err(PackError::Inexact) };
        super::packed::check("steps", steps.len(), rows(codes.len(), inputs, y.len(), outputs)?)?;
        let constant = match self.grid {
            AnyGrid::Plain(_) => unit / elements.max(),
            _ => unit,
        };
        for (row, step) in steps.iter().enumerate() {
            let codes = &codes[row * inputs..][..inputs];
            for output in 0..outputs {
                let sum = codes.chunks(self.tiles.block()).enumerate().fold(0.0, |sum, (block, codes)| {
                    let first = block * self.tiles.block();
                    let integer = |input| (elements.point(self.tiles.code(self.words, input, output)) / unit) as i64;
                    let products = codes.iter().enumerate().map(|(i, code)| (*code).into() * integer(first + i));
                    sum + products.sum::<i64>() as f32 * self.factor(block, output)
                });
                y[row * outputs + output] = sum * constant * step;
            }
        }
        Ok(())
    }

    /// Returns how many inputs a block may have so that sums of products with INT8 activations fit an i32.
    ///
    /// 131,071 for INT8: `128 · 128` each.
    pub fn most_inputs(elements: Elements) -> Option<usize> {
        let unit = elements.unit()?;
        let largest = match elements {
            Elements::Int(grid) => grid.hi().max(-grid.lo()),
            other => (other.max() / unit) as i32,
        };
        Some((i32::MAX / (128 * largest)) as usize)
    }
}

/// Packs the values of a panel, rounded to a grid.
#[allow(clippy::too_many_arguments)] // as above
#[inline(always)]
fn pack_codes<G: Grid>(
    tiles: Tiles,
    grid: G,
    elements: Elements,
    count: usize,
    scale_of: impl Fn(usize) -> [Scale; PANEL],
    row: impl Fn(usize, &mut [f32]),
    words: &mut [u32],
    zero: u8,
) {
    let (mut block, mut scales) = (usize::MAX, [Scale { to_grid: 0.0, from_grid: 1.0 }; PANEL]);
    tiles.pack_panel(words, zero, |input, codes| {
        if input / tiles.block() != block {
            block = input / tiles.block();
            scales = scale_of(block);
        }
        let mut values = [0.0; PANEL];
        row(input, &mut values[..count]);
        for ((code, value), scale) in codes.iter_mut().zip(values).zip(scales).take(count) {
            *code = elements.code(grid.round(grid.units(value, scale)));
        }
    });
}

fn check(tiles: Tiles, format: Format, scale: ScaleFormat, words: usize, scales: usize) -> Result<(), PackError> {
    if format.bits() != tiles.bits() {
        return Err(PackError::Format { found: format });
    }
    debug_assert!(tiles.scales().is_multiple_of(PANEL));
    super::packed::check("words of codes", words, tiles.words())?;
    super::packed::check("words of scales", scales, scale_words(tiles, scale))
}

/// How many rows there are of inputs and of outputs.
fn rows(x: usize, inputs: usize, y: usize, outputs: usize) -> Result<usize, PackError> {
    let rows = x.checked_div(inputs).or_else(|| y.checked_div(outputs)).unwrap_or(0);
    super::packed::check("activations", x, rows * inputs)?;
    super::packed::check("outputs", y, rows * outputs)?;
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlockScale, IntFormat};
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    fn formats() -> impl Iterator<Item = (Format, ScaleFormat)> {
        let ints = (2..=8).map(|bits| Format::from(IntFormat::signed(bits).unwrap()));
        let floats = [Format::E4M3, Format::E5M2, Format::E3M2, Format::E2M3, Format::E2M1, Format::E1M2, Format::Nf4];
        ints.chain(floats).flat_map(|format| {
            [ScaleFormat::F32, ScaleFormat::E8M0, ScaleFormat::E4M3(BlockScale::Dynamic)].map(|scale| (format, scale))
        })
    }

    /// Values between −1 and 1 without a pattern.
    fn noise(seed: usize, len: usize) -> Vec<f32> {
        let value = |i: usize| ((i + seed).wrapping_mul(2_654_435_761) >> 7) % 2001;
        (0..len).map(|i| value(i) as f32 / 1000.0 - 1.0).collect()
    }

    #[test]
    fn an_integer_product_is_exact_and_scales_are_applied_in_order() {
        // two blocks of two inputs, one output: 3·(−8) + 5·7 = 11 under 0.5, −128·7 + 1·1 = −895 under 2
        let tiles = Tiles::new(4, 1, 2, 4).unwrap();
        let format = IntFormat::signed(4).unwrap().into();
        let (mut words, mut scales) = (vec![0; tiles.words()], vec![0; tiles.scales()]);
        let (amax, codes) = ([0.5 * 7.0, 2.0 * 7.0], [-8.0 * 0.5, 7.0 * 0.5, 7.0 * 2.0, 1.0 * 2.0]);
        let weight = |input: usize, _| codes[input];
        PackedMatrix::pack(tiles, format, ScaleFormat::F32, 0.0, |b, _| amax[b], weight, &mut words, &mut scales)
            .unwrap();
        let packed = PackedMatrix::new(tiles, format, ScaleFormat::F32, 0.0, &words, &scales).unwrap();
        let mut y = [0.0];
        packed.integer_product(&[3i8, 5, -128, 1], &[0.25], &mut y).unwrap();
        assert_eq!(y, [(11.0 * 3.5 + -895.0 * 14.0) * (0.25 * (1.0f32 / 7.0))]);
    }

    #[test]
    fn slices_of_other_lengths_and_elements_that_are_no_integers_are_refused() {
        let tiles = Tiles::new(4, 1, 4, 8).unwrap();
        let (words, scales) = (vec![0; tiles.words()], vec![0; tiles.scales()]);
        let packed = PackedMatrix::new(tiles, Format::E4M3, ScaleFormat::F32, 0.0, &words, &scales).unwrap();
        assert_eq!(packed.integer_product(&[0i8; 4], &[1.0], &mut [0.0]), Err(PackError::Inexact));
        let length = PackError::Length { what: "activations", expected: 4, found: 5 };
        assert_eq!(packed.product(&[0.0; 5], &mut [0.0]), Err(length));
        let other = PackedMatrix::new(tiles, Format::E2M1, ScaleFormat::F32, 0.0, &words, &scales);
        assert_eq!(other.unwrap_err(), PackError::Format { found: Format::E2M1 });
    }

    #[test]
    fn the_most_inputs_that_an_i32_sums() {
        let most = |bits| PackedMatrix::most_inputs(Elements::of(IntFormat::signed(bits).unwrap().into()));
        assert_eq!((most(8), most(4)), (Some(131_071), Some(2_097_151)));
        assert_eq!(PackedMatrix::most_inputs(Elements::of(Format::E2M1)), Some(1_398_101)); // 128 · 12
        assert_eq!(PackedMatrix::most_inputs(Elements::of(Format::Nf4)), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn elements_are_those_of_fake_quantization_and_both_products_agree(
            rows in 1usize..4, inputs in 1usize..70, outputs in 1usize..40, block in 1usize..80, seed in 0usize..1000,
        ) {
            let weight = noise(seed, inputs * outputs);
            let codes: Vec<i8> = noise(seed + 7, rows * inputs).iter().map(|x| (x * 127.0) as i8).collect();
            let steps: Vec<f32> = (0..rows).map(|row| 0.01 * (row + 1) as f32).collect();
            let x: Vec<f32> = codes.iter().enumerate().map(|(i, code)| f32::from(*code) * steps[i / inputs]).collect();
            for (format, scale) in formats() {
                let tiles = Tiles::new(inputs, outputs, block, format.bits()).unwrap();
                let amax = |block: usize, output: usize| {
                    let inputs = block * tiles.block()..inputs.min((block + 1) * tiles.block());
                    inputs.map(|input| weight[input * outputs + output].abs()).fold(0.0, f32::max)
                };
                let (mut words, mut scales) = (vec![0; tiles.words()], vec![0; scale_words(tiles, scale)]);
                let at = |input: usize, output: usize| weight[input * outputs + output];
                PackedMatrix::pack(tiles, format, scale, 1.0, amax, at, &mut words, &mut scales).unwrap();
                let packed = PackedMatrix::new(tiles, format, scale, 1.0, &words, &scales).unwrap();
                let grid = AnyGrid::new(format, scale, 1.0);
                for input in 0..inputs {
                    for output in 0..outputs {
                        let scale_of = grid.scale(amax(input / tiles.block(), output));
                        let expected = grid.fake_quant(at(input, output), scale_of);
                        prop_assert_eq!(packed.value(input, output), expected, "{} {}", format, scale);
                    }
                }
                let (mut float, mut integer) = (vec![0.0; rows * outputs], vec![0.0; rows * outputs]);
                packed.product(&x, &mut float).unwrap();
                if Elements::of(format).unit().is_none() {
                    continue;
                }
                packed.integer_product(&codes, &steps, &mut integer).unwrap();
                for (i, (float, integer)) in float.iter().zip(&integer).enumerate() {
                    let magnitude: f32 = (0..inputs)
                        .map(|k| (x[i / outputs * inputs + k] * packed.value(k, i % outputs)).abs())
                        .sum();
                    prop_assert!((float - integer).abs() <= 1e-6 * magnitude, "{format} {scale}: {float} {integer}");
                }
            }
        }
    }
}
