//! The CPU kernels: codes are read once per tile of rows, multiplied in registers, and scaled on the way out.
//!
//! * `instructions` which of them the processor has
//! * `vectors` 16 columns in the registers at hand: AVX-512 or AVX with VNNI, AVX2, NEON with `usmmla` or `sdot`, any
//! * `codes` words as operands
//! * `activations` the rows, interleaved, as floats or as codes
//! * `tile` the inner loops
//! * `conv` convolutions: windows of an image in the place of weights, and the kernel in that of rows
//! * `sums` what offsets of a kernel are multiplied with
//! * `gelu` of many elements at a time
//!
//! Columns are divided among threads, several parts for each, so that a thread that is held up holds up nobody else;
//! small products stay on the calling thread, since waking another takes longer.

mod activations;
mod codes;
mod conv;
mod gelu;
mod instructions;
mod sums;
#[cfg(test)]
mod tests;
mod tile;
mod vectors;

use burn::backend::Flex;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{Bytes, DType};
use burn_flex::{FlexTensor, Layout};
use burn_quant_numerics::packed::{PANEL, STEP};
use burn_quant_numerics::{AnyGrid, Elements, Format, Grid, PackedMatrix, ScaleFormat, scale_words};
use rayon::prelude::*;

use self::activations::{IntegerRows, RowRange, RowTile, RowTiles, Rows, float_rows};
#[cfg(target_arch = "x86_64")]
use self::codes::half_points;
use self::codes::{
    Bytes as ByteCodes, Codes, E4m3, Integers, NibbleTable, Nibbles, Points, Table16, Table256, are_read_in_place,
    integers, points, write_bytes,
};
pub(crate) use self::conv::{Image, convolve};
pub(super) use self::gelu::gelu;
use self::instructions::Instructions;
pub(crate) use self::sums::window_sums;
use self::tile::{Panels, Scales};
use self::vectors::{Portable, Tile, Vectors};
use super::fused::{FusedCall, PackedLinearFusedOps};
use super::{ActivationKind, PackedCall, PackedLayout, PackedLinearOps, activation_grid};
use crate::fake_quant::flex::rounding_of_range;
use crate::flex::{Kernel, elements, row_major};

impl PackedLinearOps for Flex {
    fn packed_linear(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        scale_codes: IntTensor<Self>,
        activation_range: FloatTensor<Self>,
        call: PackedCall,
    ) -> FloatTensor<Self> {
        product(x, words, ranges, scale_codes, activation_range, call, Beside::default())
    }

    fn packed_unpack(
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        scale_codes: IntTensor<Self>,
        layout: PackedLayout,
    ) -> FloatTensor<Self> {
        let ranges = row_major(ranges).0;
        let [words, scale_codes] = [words, scale_codes].map(|tensor| row_major(tensor).0);
        let y = Weight::new(layout, &words, &ranges, &scale_codes).unpack();
        let shape = [layout.inputs(), layout.outputs()];
        FlexTensor::new(Bytes::from_elems(y), Layout::contiguous(shape.into()), DType::F32)
    }

    fn packed_columns(
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        scale_codes: IntTensor<Self>,
        outputs: IntTensor<Self>,
        layout: PackedLayout,
    ) -> FloatTensor<Self> {
        let outputs = row_major(outputs).0;
        let outputs = indices_of(&outputs);
        let ranges = row_major(ranges).0;
        let [words, scale_codes] = [words, scale_codes].map(|tensor| row_major(tensor).0);
        let y = Weight::new(layout, &words, &ranges, &scale_codes).columns(outputs);
        let shape = [outputs.len(), layout.inputs()];
        FlexTensor::new(Bytes::from_elems(y), Layout::contiguous(shape.into()), DType::F32)
    }
}

impl PackedLinearFusedOps for Flex {
    fn packed_linear_fused(
        x: FloatTensor<Self>,
        pre_quant_scale: FloatTensor<Self>,
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        scale_codes: IntTensor<Self>,
        activation_range: FloatTensor<Self>,
        addend: FloatTensor<Self>,
        output_range: FloatTensor<Self>,
        call: FusedCall,
    ) -> FloatTensor<Self> {
        let FusedCall { call, scales_inputs, adds, output, function } = call;
        let rounding = output.map(|call| rounding_of_range(&call, elements::<f32>(&row_major(output_range).0)[0]));
        let function = function.map(|function| Box::new(function) as Box<dyn Kernel>);
        let beside = Beside {
            factors: scales_inputs.then_some(pre_quant_scale),
            addend: adds.then_some(addend),
            after: [rounding, function].into_iter().flatten().collect(),
        };
        product(x, words, ranges, scale_codes, activation_range, call, beside)
    }
}

/// What a product has around it.
#[derive(Default)]
struct Beside {
    /// Of inputs.
    factors: Option<FlexTensor>,
    addend: Option<FlexTensor>,
    /// What is done to outputs, one after the other.
    after: Vec<Box<dyn Kernel>>,
}

/// A product of tensors.
fn product(
    x: FlexTensor,
    words: FlexTensor,
    ranges: FlexTensor,
    scale_codes: FlexTensor,
    activation_range: FlexTensor,
    call: PackedCall,
    Beside { factors, addend, after }: Beside,
) -> FlexTensor {
    let [x, ranges, activation_range] = [x, ranges, activation_range].map(|tensor| row_major(tensor).0);
    let [words, scale_codes] = [words, scale_codes].map(|tensor| row_major(tensor).0);
    let [factors, addend] = [factors, addend].map(|tensor| tensor.map(|tensor| row_major(tensor).0));
    let rows = x.layout().shape()[0];
    let range = match call.activations {
        ActivationKind::Float => None,
        ActivationKind::Int8PerToken => Some(RowRange::OfRow),
        ActivationKind::Int8 => Some(RowRange::Given(elements::<f32>(&activation_range)[0])),
        ActivationKind::Int15PerToken => Some(RowRange::OfRowInParts),
    };
    let weight = Weight::new(call.layout, &words, &ranges, &scale_codes);
    let x = Rows { values: elements::<f32>(&x), factors: factors.as_ref().map(elements::<f32>) };
    let addend = addend.as_ref().map(elements::<f32>);
    let y = Work { weight, x, rows, range, addend, after: &after }.dispatch();
    let shape = [rows, call.layout.outputs()];
    FlexTensor::new(Bytes::from_elems(y), Layout::contiguous(shape.into()), DType::F32)
}

/// The indices of a tensor of 64 bits, which lies row by row.
fn indices_of(tensor: &FlexTensor) -> &[i64] {
    let start = tensor.layout().start_offset();
    &tensor.storage::<i64>()[start..start + tensor.layout().num_elements()]
}

fn words_of(tensor: &FlexTensor) -> &[u32] {
    let start = tensor.layout().start_offset();
    bytemuck::cast_slice(&tensor.storage::<i32>()[start..start + tensor.layout().num_elements()])
}

/// A packed weight as slices.
#[derive(Clone, Copy)]
struct Weight<'a> {
    layout: PackedLayout,
    words: &'a [u32],
    scales: &'a [u32],
}

impl<'a> Weight<'a> {
    /// The slices of a weight, as long as its layout says.
    fn new(layout: PackedLayout, words: &'a FlexTensor, ranges: &'a FlexTensor, scale_codes: &'a FlexTensor) -> Self {
        let words = words_of(words);
        let scales = match layout.scale() {
            ScaleFormat::F32 => bytemuck::cast_slice(elements::<f32>(ranges)),
            ScaleFormat::E8M0 | ScaleFormat::E4M3(_) => words_of(scale_codes),
        };
        let (tiles, scale) = (layout.tiles(), layout.scale());
        assert_eq!(words.len(), tiles.words(), "packed_linear: as many words of codes as the layout has");
        assert_eq!(scales.len(), scale_words(tiles, scale), "packed_linear: as many scales as the layout has");
        Self { layout, words, scales }
    }

    /// The same of a weight whose scales are f32.
    fn of_ranges(layout: PackedLayout, words: &'a FlexTensor, ranges: &'a FlexTensor) -> Self {
        debug_assert_eq!(layout.scale(), ScaleFormat::F32);
        Self::new(layout, words, ranges, ranges)
    }

    /// The range of an output, of a weight with one block and f32 scales.
    fn range(&self, output: usize) -> f32 {
        f32::from_bits(self.scales[output])
    }

    fn scales(&self) -> Scales {
        match self.layout.scale() {
            ScaleFormat::F32 => Scales::F32(self.scales.as_ptr().cast()),
            ScaleFormat::E8M0 => Scales::E8m0(self.scales.as_ptr().cast()),
            ScaleFormat::E4M3(_) => Scales::E4m3(self.scales.as_ptr().cast()),
        }
    }

    /// What a point times what a kernel reads of its scale is multiplied with, to give the real value.
    fn constant(&self) -> f32 {
        match self.layout.grid() {
            AnyGrid::Plain(elements) => 1.0 / elements.max(),
            AnyGrid::Mx(_) => 1.0,
            AnyGrid::TwoLevel(grid) => grid.tensor_scale(),
        }
    }

    fn matrix(&self) -> PackedMatrix<'a> {
        let Self { layout, words, scales } = *self;
        PackedMatrix::new(layout.tiles(), layout.format(), layout.scale(), layout.global_amax(), words, scales)
            .expect("slices as long as the layout says")
    }

    /// The values of columns, `[n, inputs]`.
    fn columns(&self, outputs: &[i64]) -> Vec<f32> {
        let (matrix, inputs, all) = (self.matrix(), self.layout.inputs(), self.layout.outputs());
        let mut y = vec![0.0; outputs.len() * inputs];
        let column = |(i, y): (usize, &mut [f32])| {
            let output = usize::try_from(outputs[i]).ok().filter(|output| *output < all);
            let output = output.unwrap_or_else(|| panic!("PackedTensor::columns: index {} of {all}", outputs[i]));
            y.iter_mut().enumerate().for_each(|(input, y)| *y = matrix.value(input, output));
        };
        match y.len() >= 1 << 14 {
            true => y.par_chunks_mut(inputs.max(1)).enumerate().for_each(column),
            false => y.chunks_mut(inputs.max(1)).enumerate().for_each(column),
        }
        y
    }

    /// The values, row-major `[inputs, outputs]`.
    fn unpack(&self) -> Vec<f32> {
        let (matrix, layout) = (self.matrix(), self.layout);
        let (inputs, outputs) = (layout.inputs(), layout.outputs());
        let mut y = vec![0.0; inputs * outputs];
        let row = |(input, y): (usize, &mut [f32])| {
            y.iter_mut().enumerate().for_each(|(output, y)| *y = matrix.value(input, output));
        };
        y.par_chunks_mut(outputs.max(1)).enumerate().for_each(row);
        y
    }
}

/// A product to be computed.
struct Work<'a> {
    weight: Weight<'a>,
    /// `[rows, inputs]`.
    x: Rows<'a>,
    rows: usize,
    /// The ranges of rows that are quantized.
    range: Option<RowRange>,
    /// What is added, `[rows, outputs]`, or `[outputs]` to every row.
    addend: Option<&'a [f32]>,
    /// What is done to outputs then.
    after: &'a [Box<dyn Kernel>],
}

impl Work<'_> {
    fn dispatch(self) -> Vec<f32> {
        self.with(Instructions::best())
    }

    fn with(self, instructions: Instructions) -> Vec<f32> {
        match instructions {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vbmi => self.run_with_bytes(),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => self.run::<vectors::Avx512>(),
            #[cfg(target_arch = "x86_64")]
            Instructions::AvxVnni if self.range.is_none() => self.run::<vectors::Avx2>(), // nothing but floats
            #[cfg(target_arch = "x86_64")]
            Instructions::AvxVnni => self.run::<vectors::AvxVnni>(),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => self.run::<vectors::Avx2>(),
            #[cfg(target_arch = "aarch64")]
            Instructions::NeonMatrix => self.run::<vectors::NeonMatrix>(),
            #[cfg(target_arch = "aarch64")]
            Instructions::NeonDot => self.run::<vectors::NeonDot>(),
            Instructions::Portable => self.run::<Portable>(),
        }
    }

    /// Floats of a byte are looked up.
    #[cfg(target_arch = "x86_64")]
    fn run_with_bytes(self) -> Vec<f32> {
        let format = self.weight.layout.format();
        match (self.range, format) {
            (None, format) if format.bits() > 4 && !matches!(format, Format::Int(_)) => {
                let (high, low, signs) = half_points(format);
                self.floats::<vectors::Avx512Vbmi, _>(vectors::HalfTable { high: &high, low: &low, signs })
            }
            _ => self.run::<vectors::Avx512>(),
        }
    }

    fn run<V: Vectors>(self) -> Vec<f32> {
        let format = self.weight.layout.format();
        let bits = format.bits();
        match self.range {
            Some(range) => match (format, bits) {
                (Format::Int(_), 4) => self.integers::<V, _>(Nibbles, zero_of(format), range),
                (Format::Int(_), _) => self.integers::<V, _>(ByteCodes, zero_of(format), range),
                _ => {
                    let (table, zero) = integers(format);
                    self.integers::<V, _>(NibbleTable(table), zero, range)
                }
            },
            None => match (format, bits) {
                // SAFETY: the processor has the instructions, since they were chosen among those.
                (_, 4) => self.floats::<V, _>(Table16(unsafe { V::table(&points::<16>(format)) })),
                (Format::Int(_), _) => self.floats::<V, _>(Integers(zero_of(format))),
                (Format::E4M3, _) => self.floats::<V, _>(E4m3),
                _ => self.floats::<V, _>(Table256(&points::<256>(format))),
            },
        }
    }

    /// Activations of integers.
    fn integers<V: Vectors, C: Codes<V> + Send + Sync>(self, codes: C, zero: i32, range: RowRange) -> Vec<f32> {
        let (layout, tiles, parts) = (self.weight.layout, self.weight.layout.tiles(), range.parts());
        let wide = tiles.blocks() == 1 && !C::SMALL;
        let sizes = match (parts, wide) {
            (2, _) => V::SPLIT_TILES,
            (_, true) => V::WIDE_TILES,
            _ => V::TILES,
        };
        let row_tiles = RowTiles::new(self.rows, sizes);
        let threads = self.is_large();
        let rows = IntegerRows::<V>::new(self.x, tiles, activation_grid(), range, &row_tiles, threads);
        let unit = Elements::of(layout.format()).unit().expect("integers");
        let constant = self.weight.constant() * unit;
        let product = |panels: Panels, y: Columns| {
            for RowTile { first, rows: len, size, before } in row_tiles.iter() {
                let tile = IntegerTile::<V, C> {
                    codes,
                    zero,
                    panels,
                    x: rows.x[before * parts * tiles.padded_inputs() / STEP..].as_ptr(),
                    sums: rows.sums[before * parts * tiles.blocks()..].as_ptr(),
                    steps: &rows.steps[before..before + size],
                    constant,
                    y: y.rows(first, len),
                };
                // SAFETY: the processor has the instructions, since they were chosen among those; rows and panels are
                // whole, and their buffers as long as the layout says.
                unsafe {
                    match (parts, wide) {
                        (2, _) => V::run_split(&InParts(tile), size),
                        (_, true) => V::run_wide(&tile, size),
                        _ => V::run(&tile, size),
                    }
                }
            }
        };
        self.columns(product, panels_of(&row_tiles, sizes), threads)
    }

    /// Float activations.
    fn floats<V: Vectors, P: Points<V> + Send + Sync>(self, points: P) -> Vec<f32> {
        let tiles = self.weight.layout.tiles();
        let row_tiles = RowTiles::new(self.rows, V::TILES);
        let rows = float_rows(self.x, tiles, &row_tiles);
        let constant = self.weight.constant();
        let product = |panels: Panels, y: Columns| {
            for RowTile { first, rows: len, size, before } in row_tiles.iter() {
                let x = rows[before * tiles.padded_inputs()..].as_ptr();
                let tile = FloatTile { points, panels, x, constant, y: y.rows(first, len) };
                // SAFETY: as for integers.
                unsafe { V::run(&tile, size) };
            }
        };
        let threads = self.is_large();
        self.columns(product, panels_of(&row_tiles, V::TILES), threads)
    }

    /// Whether the work is worth more than one thread: about 50 microseconds.
    fn is_large(&self) -> bool {
        let multiplications = self.rows * self.weight.layout.inputs() * self.weight.layout.outputs();
        rayon::current_num_threads() > 1 && (multiplications >= 10_000_000 || self.weight.words.len() >= 1 << 20)
    }

    /// Calls `product` with panels, so many at a time, and where their outputs go.
    fn columns(&self, product: impl Fn(Panels, Columns) + Sync, group: usize, threads: bool) -> Vec<f32> {
        let (layout, tiles) = (self.weight.layout, self.weight.layout.tiles());
        let outputs = layout.outputs();
        if self.rows == 0 || tiles.inputs() == 0 {
            return vec![0.0; self.rows * outputs];
        }
        let mut y = Vec::with_capacity(self.rows * outputs);
        let destination = Destination(y.as_mut_ptr());
        // the same row again, if it is one for all
        let addend = self.addend.map(|addend| {
            assert!(addend.len() == outputs || addend.len() == self.rows * outputs, "packed_linear: rows are added");
            Addend { values: addend.as_ptr(), stride: if addend.len() == outputs { 0 } else { outputs } }
        });
        let scales = self.weight.scales();
        let work = |groups: std::ops::Range<usize>| {
            let destination = &destination;
            let mut bytes = Vec::new();
            let written = groups.start * group * PANEL..outputs.min(groups.end * group * PANEL);
            for first in groups.map(|i| i * group) {
                let count = group.min(tiles.panels() - first);
                let (words, stride) = match are_read_in_place(tiles) {
                    true => (self.weight.words[first * tiles.panel_words()..].as_ptr(), tiles.panel_words()),
                    false => {
                        write_bytes(tiles, self.weight.words, first..first + count, &mut bytes);
                        (bytes.as_ptr(), tiles.padded_inputs() / STEP * PANEL)
                    }
                };
                let columns = Columns { y: destination.0, addend, outputs, first: first * PANEL, rows: self.rows };
                product(Panels { tiles, words, stride, scales, first, count }, columns);
            }
            for row in 0..if self.after.is_empty() { 0 } else { self.rows } {
                let first = row * outputs + written.start;
                // SAFETY: these columns were written just now, and no other thread has them.
                let y = unsafe { std::slice::from_raw_parts_mut(destination.0.add(first), written.len()) };
                self.after.iter().for_each(|kernel| kernel.in_place(first, y));
            }
        };
        let groups = tiles.panels().div_ceil(group);
        let parts = if threads { groups.min(4 * rayon::current_num_threads()) } else { 1 };
        let part = |i: usize| i * groups / parts..(i + 1) * groups / parts;
        match parts {
            1 => work(0..groups),
            parts => (0..parts).into_par_iter().for_each(|i| work(part(i))),
        }
        // SAFETY: there is room for them, and every row of every panel was written.
        unsafe { y.set_len(self.rows * outputs) };
        y
    }
}

/// The most panels that a tile of these rows has.
fn panels_of(row_tiles: &RowTiles, sizes: &[(usize, usize)]) -> usize {
    let panels = |size: usize| sizes.iter().find(|(rows, _)| *rows == size).map_or(1, |(_, panels)| *panels);
    row_tiles.iter().map(|tile| panels(tile.size)).min().unwrap_or(1)
}

/// The code of zero of an integer format.
fn zero_of(format: Format) -> i32 {
    i32::from(Elements::of(format).code(0.0))
}

/// Where outputs are written; threads write different columns.
struct Destination(*mut f32);

// SAFETY: every thread writes other columns.
unsafe impl Sync for Destination {}

/// What is added to outputs.
#[derive(Clone, Copy)]
struct Addend {
    /// The first row.
    values: *const f32,
    /// From one row to the next.
    stride: usize,
}

// SAFETY: it points into a slice that outlives the work, and is only read.
unsafe impl Send for Addend {}
// SAFETY: as above.
unsafe impl Sync for Addend {}

/// Columns of the outputs.
#[derive(Clone, Copy)]
struct Columns {
    /// The first row.
    y: *mut f32,
    /// The same of what is added.
    addend: Option<Addend>,
    /// Rows that there are.
    rows: usize,
    /// Columns of the whole.
    outputs: usize,
    /// The first of these.
    first: usize,
}

impl Columns {
    /// So many rows from one on.
    fn rows(self, first: usize, rows: usize) -> Self {
        // SAFETY: the outputs have this row, and what is added has it, or one for all.
        let (y, addend) = unsafe {
            let of_rows = |Addend { values, stride }| Addend { values: values.add(first * stride), stride };
            (self.y.add(first * self.outputs), self.addend.map(of_rows))
        };
        Self { y, addend, rows, ..self }
    }

    /// Writes 16 columns of a row, or as many as there are.
    #[inline(always)]
    unsafe fn write<V: Vectors>(self, row: usize, panel: usize, values: V::Float) {
        let column = self.first + panel * PANEL;
        if row >= self.rows || column >= self.outputs {
            return;
        }
        // SAFETY: the row and the column are within the outputs.
        unsafe {
            let y = self.y.add(row * self.outputs + column);
            let addend = self.addend.map(|addend| addend.values.add(row * addend.stride + column));
            let mut last = [0.0; PANEL];
            if column + PANEL <= self.outputs {
                return match addend {
                    None => V::store(values, y),
                    Some(addend) => V::store(V::multiply_add(values, V::floats(1.0), V::load(addend)), y),
                };
            }
            let mut values = values;
            if let Some(addend) = addend {
                std::ptr::copy_nonoverlapping(addend, last.as_mut_ptr(), self.outputs - column);
                values = V::multiply_add(values, V::floats(1.0), V::load(last.as_ptr()));
            }
            V::store(values, last.as_mut_ptr());
            std::ptr::copy_nonoverlapping(last.as_ptr(), y, self.outputs - column);
        }
    }
}

/// A tile of integers with its operands.
struct IntegerTile<'a, V: Vectors, C> {
    codes: C,
    zero: i32,
    panels: Panels,
    x: *const V::Step,
    sums: *const i32,
    /// Of the rows.
    steps: &'a [f32],
    constant: f32,
    y: Columns,
}

/// The same of rows in two parts.
struct InParts<T>(T);

impl<V: Vectors, C: Codes<V>> Tile<V> for IntegerTile<'_, V, C> {
    #[inline(always)]
    unsafe fn run<const R: usize, const P: usize>(&self) {
        // SAFETY: the caller's.
        unsafe { self.run_in_parts::<R, P, 1>() }
    }
}

impl<V: Vectors, C: Codes<V>> Tile<V> for InParts<IntegerTile<'_, V, C>> {
    #[inline(always)]
    unsafe fn run<const R: usize, const P: usize>(&self) {
        // SAFETY: the caller's.
        unsafe { self.0.run_in_parts::<R, P, 2>() }
    }
}

impl<V: Vectors, C: Codes<V>> IntegerTile<'_, V, C> {
    #[inline(always)]
    unsafe fn run_in_parts<const R: usize, const P: usize, const N: usize>(&self) {
        // SAFETY: the caller's.
        unsafe {
            let totals = tile::integers::<V, C, R, P, N>(self.codes, self.zero, self.panels, self.x, self.sums);
            for (row, (totals, step)) in totals.iter().zip(self.steps).enumerate() {
                // one after the other: the product of two small ones may be none
                let (constant, step) = (V::floats(self.constant), V::floats(*step));
                for (panel, total) in totals.iter().take(self.panels.count).enumerate() {
                    let value = V::multiply_add(*total, constant, V::floats(0.0));
                    let value = V::multiply_add(value, step, V::floats(0.0));
                    self.y.write::<V>(row, panel, value);
                }
            }
        }
    }
}

/// A tile of floats with its operands.
struct FloatTile<T> {
    points: T,
    panels: Panels,
    x: *const f32,
    constant: f32,
    y: Columns,
}

impl<V: Vectors, T: Points<V>> Tile<V> for FloatTile<T> {
    #[inline(always)]
    unsafe fn run<const R: usize, const P: usize>(&self) {
        // SAFETY: the caller's.
        unsafe {
            let totals = tile::floats::<V, T, R, P>(self.points, self.panels, self.x);
            for (row, totals) in totals.iter().enumerate() {
                for (panel, total) in totals.iter().take(self.panels.count).enumerate() {
                    let value = V::multiply_add(*total, V::floats(self.constant), V::floats(0.0));
                    self.y.write::<V>(row, panel, value);
                }
            }
        }
    }
}
