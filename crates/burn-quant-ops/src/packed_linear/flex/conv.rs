//! Convolutions: the same product with its factors swapped, so that outputs come out as planes of an image.
//!
//! ```text
//! image     f32 [n, c, z, y, x]  ──►  q + 128 of a byte, padded, [n, z, y, x, c]
//! windows   16 pixels side by side, four inputs of each in a word     the panels of the product
//! kernel    rows of signed codes, one for each output                 its activations
//! y         Σ (q + 128) · w − 128 · Σ w, times the scales of x and w, plus the bias
//! ```
//!
//! Inputs of a window are ordered by the elements of the kernel and by channels within them, so that a window is a few
//! runs of bytes. A channel that is convolved with kernels of its own, as in depthwise convolutions, has too few inputs
//! for products of four: its planes are multiplied element by element.

use burn_flex::FlexTensor;
use burn_quant_numerics::packed::{PANEL, STEP, Tiles};
use burn_quant_numerics::{Grid, IntGrid, amax};
use rayon::prelude::*;

use super::activations::{IntegerRows, RowTile, RowTiles};
use super::codes::{Bytes, write_bytes};
use super::tile::{Panels, Scales, integers};
use super::vectors::{Portable, Tile, Vectors};
use super::{Columns, Destination, Instructions, Weight, zero_of};
use crate::flex::vectorized;
use crate::packed_linear::{PackedLayout, activation_grid};

#[cfg(target_arch = "x86_64")]
use super::vectors::{Avx2, Avx512, AvxVnni};

/// An image and the geometry of its convolution; axes are depth, height and width.
pub(crate) struct Image<'a> {
    /// `[batch, channels, axes…]`.
    pub(crate) x: &'a [f32],
    pub(crate) batch: usize,
    pub(crate) channels: usize,
    pub(crate) axes: [usize; 3],
    pub(crate) output: [usize; 3],
    pub(crate) kernel: [usize; 3],
    pub(crate) stride: [usize; 3],
    /// Before and after.
    pub(crate) padding: [(usize, usize); 3],
    pub(crate) dilation: [usize; 3],
    pub(crate) groups: usize,
}

impl Image<'_> {
    /// Whether each channel has kernels of its own.
    fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.channels == self.groups
    }
}

/// The code of zero in an image.
const ZERO: u8 = 128;
/// Panels of pixels that are laid out at a time.
const PANELS: usize = 8;
/// A panel of products has one scale, which stands in the kernel.
static ONES: [f32; PANEL] = [1.0; PANEL];

/// Convolves an image with a packed kernel: `[batch, outputs, output axes…]`.
pub(crate) fn convolve(
    layout: PackedLayout,
    words: &FlexTensor,
    ranges: &FlexTensor,
    range: f32,
    bias: Option<&[f32]>,
    image: &Image,
) -> Vec<f32> {
    let weight = Weight::of_ranges(layout, words, ranges);
    let work = Convolution { weight, image, range, bias };
    work.with(Instructions::available().next().expect("any processor is portable"))
}

pub(super) struct Convolution<'a> {
    pub(super) weight: Weight<'a>,
    pub(super) image: &'a Image<'a>,
    pub(super) range: f32,
    pub(super) bias: Option<&'a [f32]>,
}

impl Convolution<'_> {
    pub(super) fn with(&self, instructions: Instructions) -> Vec<f32> {
        match instructions {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512 => self.run::<Avx512>(),
            #[cfg(target_arch = "x86_64")]
            Instructions::AvxVnni => self.run::<AvxVnni>(),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => self.run::<Avx2>(),
            Instructions::Portable => self.run::<Portable>(),
        }
    }

    fn run<V: Vectors>(&self) -> Vec<f32> {
        let (image, outputs) = (self.image, self.weight.layout.outputs());
        let pixels = image.output.iter().product::<usize>();
        let mut y = vec![0.0f32; image.batch * outputs * pixels];
        if y.is_empty() {
            return y;
        }
        let kernel = self.kernel();
        let codes = Codes::of(image, activation_grid(), self.range);
        match image.is_depthwise() {
            true => self.planes(&kernel, &codes, &mut y),
            false => self.windows::<V>(&kernel, &codes, &mut y),
        }
        y
    }

    /// The signed codes of the kernel, `[output][input]`.
    fn kernel(&self) -> Vec<i8> {
        let Weight { layout, words, .. } = self.weight;
        let (tiles, zero) = (layout.tiles(), zero_of(layout.format()) as u8);
        let mut bytes = Vec::new();
        let words = match tiles.bits() {
            8 => words,
            _ => {
                write_bytes(tiles, words, 0..tiles.panels(), &mut bytes);
                &bytes
            }
        };
        let (inputs, steps) = (tiles.inputs(), tiles.padded_inputs() / STEP);
        let mut kernel = vec![0i8; layout.outputs() * inputs];
        for (output, kernel) in kernel.chunks_exact_mut(inputs).enumerate() {
            let first = output / PANEL * steps * PANEL + output % PANEL;
            for (step, codes) in kernel.chunks_mut(STEP).enumerate() {
                let word = words[first + step * PANEL].to_le_bytes();
                codes.iter_mut().zip(word).for_each(|(code, byte)| *code = byte.wrapping_sub(zero) as i8);
            }
        }
        kernel
    }

    /// The range of an output times this is what a sum is multiplied with, for an image.
    fn constant(&self, codes: &Codes, image: usize) -> f32 {
        let step = if codes.is_number[image] { self.range / activation_grid().max() } else { f32::NAN };
        step * self.weight.constant()
    }

    fn bias(&self, output: usize) -> f32 {
        self.bias.map_or(0.0, |bias| bias[output])
    }

    /// Products of windows and kernels.
    fn windows<V: Vectors>(&self, kernel: &[i8], codes: &Codes, y: &mut [f32]) {
        let (image, outputs) = (self.image, self.weight.layout.outputs());
        let inputs = self.weight.layout.inputs();
        let tiles = Tiles::new(inputs, PANEL, inputs, 8).expect("codes of a byte");
        let of_group = outputs / image.groups;
        let row_tiles = RowTiles::new(of_group, V::WIDE_TILES);
        let rows: Vec<IntegerRows<V>> = (0..image.groups)
            .map(|group| {
                let kernel = &kernel[group * of_group * inputs..][..of_group * inputs];
                IntegerRows::of_codes(kernel, tiles, &row_tiles)
            })
            .collect();
        let windows = Windows::new(image, inputs);
        let pixels = image.output.iter().product::<usize>();
        let panels = pixels.div_ceil(PANEL);
        let chunks = panels.div_ceil(PANELS);
        let destination = Destination(y.as_mut_ptr());
        let job = |job: usize| {
            let destination = &destination;
            let (image_at, group, chunk) = (job / (chunks * image.groups), job / chunks % image.groups, job % chunks);
            let first = chunk * PANELS;
            let count = PANELS.min(panels - first);
            let words = windows.panels(codes, image_at, group, first, count);
            let constant = self.constant(codes, image_at);
            let output = image_at * outputs + group * of_group;
            // SAFETY: the planes of the group are within the result.
            let planes = unsafe { destination.0.add(output * pixels) };
            for RowTile { first: row, rows: len, size, before } in row_tiles.iter() {
                let wide = V::WIDE_TILES.iter().find(|(rows, _)| *rows == size).map_or(1, |(_, panels)| *panels);
                for panel in (0..count).step_by(wide) {
                    let columns =
                        Columns { y: planes, rows: of_group, outputs: pixels, first: (first + panel) * PANEL };
                    let stride = tiles.padded_inputs() / STEP * PANEL;
                    let panels = Panels {
                        tiles,
                        words: words[panel * stride..].as_ptr(),
                        stride,
                        scales: Scales::Same(ONES.as_ptr()),
                        first: 0,
                        count: wide.min(count - panel),
                    };
                    let tile = WindowTile::<V> {
                        panels,
                        x: rows[group].x[before * tiles.padded_inputs() / STEP..].as_ptr(),
                        sums: rows[group].sums[before..].as_ptr(),
                        factors: std::array::from_fn(|i| match i < len {
                            true => self.weight.range(group * of_group + row + i) * constant,
                            false => 0.0,
                        }),
                        bias: std::array::from_fn(
                            |i| if i < len { self.bias(group * of_group + row + i) } else { 0.0 },
                        ),
                        y: Columns { rows: len, ..columns.rows(row, len) },
                    };
                    // SAFETY: the processor has the instructions, since they were chosen among those; rows and panels
                    // are whole, and their buffers as long as the layout says.
                    unsafe { V::run_wide(&tile, size) };
                }
            }
        };
        let jobs = image.batch * image.groups * chunks;
        match self.is_large() && jobs > 1 {
            true => (0..jobs).into_par_iter().for_each(job),
            false => (0..jobs).for_each(job),
        }
    }

    /// Planes of an image, each times kernels of its own.
    fn planes(&self, kernel: &[i8], codes: &Codes, y: &mut [f32]) {
        let (image, outputs) = (self.image, self.weight.layout.outputs());
        let [_, height, width] = codes.axes;
        let [_, rows, columns] = image.output;
        let (stride, dilation) = (image.stride, image.dilation);
        let elements = image.kernel.iter().product::<usize>();
        let of_group = outputs / image.groups;
        let pixels = image.output.iter().product::<usize>();
        let plane = |(at, y): (usize, &mut [f32])| {
            let (image_at, output) = (at / outputs, at % outputs);
            let x = codes.plane(image_at, output / of_group);
            let factor = self.weight.range(output) * self.constant(codes, image_at);
            let (kernel, bias) = (&kernel[output * elements..][..elements], self.bias(output));
            let mut sums = vec![0i32; columns];
            for (row, y) in y.chunks_exact_mut(columns).enumerate() {
                let (z, row) = (row / rows, row % rows);
                sums.fill(0);
                for (element, weight) in kernel.iter().enumerate() {
                    let [_, kernel_height, kernel_width] = image.kernel;
                    let kz = element / (kernel_height * kernel_width);
                    let (ky, kx) = (element / kernel_width % kernel_height, element % kernel_width);
                    let line = (z * stride[0] + kz * dilation[0]) * height + row * stride[1] + ky * dilation[1];
                    let x = &x[line * width + kx * dilation[2]..];
                    let weight = i32::from(*weight);
                    vectorized(
                        #[inline(always)]
                        || match stride[2] {
                            1 => sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += weight * i32::from(*x)),
                            stride => {
                                let x = x.iter().step_by(stride);
                                sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += weight * i32::from(*x))
                            }
                        },
                    );
                }
                y.iter_mut().zip(&sums).for_each(|(y, sum)| *y = *sum as f32 * factor + bias);
            }
        };
        match self.is_large() {
            true => y.par_chunks_exact_mut(pixels).enumerate().for_each(plane),
            false => y.chunks_exact_mut(pixels).enumerate().for_each(plane),
        }
    }

    /// Whether the work is worth more than one thread.
    fn is_large(&self) -> bool {
        let pixels = self.image.batch * self.image.output.iter().product::<usize>();
        let multiplications = pixels * self.weight.layout.inputs() * self.weight.layout.outputs();
        rayon::current_num_threads() > 1 && (multiplications >= 5_000_000 || self.image.x.len() >= 1 << 17)
    }
}

/// An image as codes, padded.
struct Codes {
    /// Channels side by side, for windows: `[image, axes…, channel]`.
    bytes: Vec<u8>,
    /// Channels apart, for planes: `[image, channel, axes…]`.
    planes: Vec<i16>,
    axes: [usize; 3],
    channels: usize,
    /// Of each image.
    is_number: Vec<bool>,
}

impl Codes {
    fn of(image: &Image, grid: IntGrid, range: f32) -> Self {
        let channels = image.channels;
        let axes: [usize; 3] = std::array::from_fn(|axis| {
            let (before, after) = image.padding[axis];
            before + image.axes[axis] + after
        });
        let size = axes.iter().product::<usize>() * channels;
        let apart = image.is_depthwise();
        let mut codes = Self {
            bytes: if apart { Vec::new() } else { vec![ZERO; image.batch * size] },
            planes: if apart { vec![0; image.batch * size] } else { Vec::new() },
            axes,
            channels,
            is_number: vec![true; image.batch],
        };
        if size == 0 || image.x.is_empty() {
            return codes;
        }
        let [depth, height, width] = image.axes;
        let scale = grid.scale(range);
        let fill = |x: &[f32], is_number: &mut bool, mut write: Write| {
            *is_number = !vectorized(
                #[inline(always)]
                || amax(x),
            )
            .is_nan();
            let mut line = vec![0i8; width];
            for (at, x) in x.chunks_exact(width.max(1)).enumerate() {
                vectorized(
                    #[inline(always)]
                    || line.iter_mut().zip(x).for_each(|(code, x)| *code = grid.round(x * scale.to_grid) as i32 as i8),
                );
                let (channel, z, y) = (at / (depth * height), at / height % depth, at % height);
                let [before_z, before_y, before_x] = [0, 1, 2].map(|axis: usize| image.padding[axis].0);
                let row = (z + before_z) * axes[1] + y + before_y;
                match &mut write {
                    Write::Bytes(bytes) => {
                        let bytes = &mut bytes[(row * axes[2] + before_x) * channels + channel..];
                        let bytes = bytes.iter_mut().step_by(channels);
                        bytes.zip(&line).for_each(|(byte, code)| *byte = *code as u8 ^ ZERO);
                    }
                    Write::Planes(planes) => {
                        let plane = &mut planes[(channel * axes[0] * axes[1] + row) * axes[2] + before_x..];
                        plane.iter_mut().zip(&line).for_each(|(code, byte)| *code = i16::from(*byte));
                    }
                }
            }
        };
        let images = image.x.par_chunks_exact(image.x.len() / image.batch).zip(&mut codes.is_number);
        match apart {
            true => {
                let planes = codes.planes.par_chunks_exact_mut(size);
                images.zip(planes).for_each(|((x, is_number), planes)| fill(x, is_number, Write::Planes(planes)));
            }
            false => {
                let bytes = codes.bytes.par_chunks_exact_mut(size);
                images.zip(bytes).for_each(|((x, is_number), bytes)| fill(x, is_number, Write::Bytes(bytes)));
            }
        }
        codes
    }

    fn plane(&self, image: usize, channel: usize) -> &[i16] {
        let size = self.axes.iter().product::<usize>();
        &self.planes[(image * self.channels + channel) * size..][..size]
    }
}

enum Write<'a> {
    Bytes(&'a mut [u8]),
    Planes(&'a mut [i16]),
}

/// Where the inputs of windows lie in an image of codes.
struct Windows<'a> {
    image: &'a Image<'a>,
    /// Where the runs of a window begin, from its first byte.
    runs: Vec<usize>,
    /// Bytes of a run.
    run: usize,
    inputs: usize,
    /// Bytes from one image, plane, line and pixel to the next.
    strides: [usize; 4],
}

impl<'a> Windows<'a> {
    fn new(image: &'a Image<'a>, inputs: usize) -> Self {
        let [depth, height, width]: [usize; 3] = std::array::from_fn(|axis| {
            let (before, after) = image.padding[axis];
            before + image.axes[axis] + after
        });
        let channels = image.channels;
        let strides = [depth * height * width * channels, height * width * channels, width * channels, channels];
        let [kernel_depth, kernel_height, kernel_width] = image.kernel;
        let [_, plane, line, pixel] = strides;
        // neighbours of a line are one run, if all their channels count
        let (in_line, run) = match image.groups == 1 && image.dilation[2] == 1 {
            true => (1, kernel_width * channels),
            false => (kernel_width, channels / image.groups),
        };
        let mut runs = Vec::with_capacity(kernel_depth * kernel_height * in_line);
        for z in 0..kernel_depth {
            for y in 0..kernel_height {
                let first = z * image.dilation[0] * plane + y * image.dilation[1] * line;
                runs.extend((0..in_line).map(|x| first + x * image.dilation[2] * pixel));
            }
        }
        Self { image, runs, run, inputs, strides }
    }

    /// Panels of 16 pixels each, `[panel][step][pixel]`; pixels beyond the last repeat it.
    fn panels(&self, codes: &Codes, image: usize, group: usize, first: usize, count: usize) -> Vec<u32> {
        let steps = self.inputs.div_ceil(STEP);
        let [_, rows, columns] = self.image.output;
        let pixels = self.image.output.iter().product::<usize>();
        let [images, plane, line, pixel] = self.strides;
        let stride = self.image.stride;
        let channels = group * (self.image.channels / self.image.groups);
        let mut words = vec![0u32; count * steps * PANEL];
        let mut bytes = vec![0u8; steps * STEP];
        for (panel, words) in words.chunks_exact_mut(steps * PANEL).enumerate() {
            for lane in 0..PANEL {
                let at = ((first + panel) * PANEL + lane).min(pixels - 1);
                let (z, y, x) = (at / (rows * columns), at / columns % rows, at % columns);
                let start =
                    image * images + z * stride[0] * plane + y * stride[1] * line + x * stride[2] * pixel + channels;
                let lane = &mut words[lane..];
                if self.run.is_multiple_of(STEP) {
                    let runs =
                        self.runs.iter().flat_map(|run| codes.bytes[start + run..][..self.run].chunks_exact(STEP));
                    lane.iter_mut().step_by(PANEL).zip(runs).for_each(|(word, four)| *word = word_of(four));
                } else {
                    for (to, run) in bytes.chunks_mut(self.run).zip(&self.runs) {
                        to.copy_from_slice(&codes.bytes[start + run..][..self.run]);
                    }
                    let fours = bytes.chunks_exact(STEP);
                    lane.iter_mut().step_by(PANEL).zip(fours).for_each(|(word, four)| *word = word_of(four));
                }
            }
        }
        words
    }
}

fn word_of(four: &[u8]) -> u32 {
    u32::from_le_bytes(four.try_into().expect("four bytes"))
}

/// The most rows of a tile.
const ROWS: usize = 12;

/// Outputs of a kernel times windows.
struct WindowTile<V: Vectors> {
    panels: Panels,
    x: *const V::Step,
    sums: *const i32,
    /// What the sums of each row are multiplied with.
    factors: [f32; ROWS],
    bias: [f32; ROWS],
    y: Columns,
}

impl<V: Vectors> Tile<V> for WindowTile<V> {
    #[inline(always)]
    unsafe fn run<const R: usize, const P: usize>(&self) {
        // SAFETY: the caller's.
        unsafe {
            let totals = integers::<V, Bytes, R, P>(Bytes, i32::from(ZERO), self.panels, self.x, self.sums);
            for (row, totals) in totals.iter().enumerate() {
                let (factor, bias) = (V::floats(self.factors[row]), V::floats(self.bias[row]));
                for (panel, total) in totals.iter().take(self.panels.count).enumerate() {
                    self.y.write::<V>(row, panel, V::multiply_add(*total, factor, bias));
                }
            }
        }
    }
}
