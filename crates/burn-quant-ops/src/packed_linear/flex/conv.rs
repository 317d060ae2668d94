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
//!
//! Offsets of outputs are multiplied with the sums of windows.

use std::mem::MaybeUninit;

use burn_flex::FlexTensor;
use burn_quant_numerics::packed::{PANEL, STEP, Tiles};
use burn_quant_numerics::{Grid, IntGrid, amax};
use rayon::prelude::*;

use super::activations::{IntegerRows, RowTile, RowTiles, code_of};
use super::codes::{Bytes, write_bytes};
use super::sums::window_sums;
use super::tile::{Panels, Scales, integers};
use super::vectors::{Portable, Tile, Vectors};
use super::{Columns, Destination, Instructions, Weight, zero_of};
use crate::flex::vectorized;
use crate::packed_linear::{PackedLayout, activation_grid};

#[cfg(target_arch = "x86_64")]
use super::vectors::{Avx2, Avx512, AvxVnni};
#[cfg(target_arch = "aarch64")]
use super::vectors::{NeonDot, NeonMatrix};

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
/// Pixels of a plane whose sums stay in the cache.
const LINES: usize = 2048;
/// A panel of products has one scale, which stands in the kernel.
static ONES: [f32; PANEL] = [1.0; PANEL];

/// Convolves an image with a packed kernel: `[batch, outputs, output axes…]`.
pub(crate) fn convolve(
    layout: PackedLayout,
    words: &FlexTensor,
    ranges: &FlexTensor,
    range: f32,
    bias: Option<&[f32]>,
    offsets: Option<&[f32]>,
    image: &Image,
) -> Vec<f32> {
    let weight = Weight::of_ranges(layout, words, ranges);
    let work = Convolution { weight, image, range, bias, offsets };
    work.with(Instructions::best())
}

pub(super) struct Convolution<'a> {
    pub(super) weight: Weight<'a>,
    pub(super) image: &'a Image<'a>,
    pub(super) range: f32,
    pub(super) bias: Option<&'a [f32]>,
    /// What is added to the values of the codes of each output.
    pub(super) offsets: Option<&'a [f32]>,
}

impl Convolution<'_> {
    pub(super) fn with(&self, instructions: Instructions) -> Vec<f32> {
        match instructions {
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx512Vbmi | Instructions::Avx512 => self.run::<Avx512>(),
            #[cfg(target_arch = "x86_64")]
            Instructions::AvxVnni => self.run::<AvxVnni>(),
            #[cfg(target_arch = "x86_64")]
            Instructions::Avx2 => self.run::<Avx2>(),
            #[cfg(target_arch = "aarch64")]
            Instructions::NeonMatrix => self.run::<NeonMatrix>(),
            #[cfg(target_arch = "aarch64")]
            Instructions::NeonDot => self.run::<NeonDot>(),
            Instructions::Portable => self.run::<Portable>(),
        }
    }

    fn run<V: Vectors>(&self) -> Vec<f32> {
        let (image, outputs) = (self.image, self.weight.layout.outputs());
        let pixels = image.output.iter().product::<usize>();
        let len = image.batch * outputs * pixels;
        let mut y: Vec<f32> = Vec::with_capacity(len);
        if len == 0 {
            return y;
        }
        if self.weight.layout.inputs() == 0 {
            y.extend((0..len).map(|at| self.bias(at / pixels % outputs)));
            return y;
        }
        let codes = Codes::of(image, activation_grid(), self.range, self.is_large());
        match image.is_depthwise() {
            true => self.planes(&self.kernel(), &codes, &mut y.spare_capacity_mut()[..len]),
            false => self.windows::<V>(&codes, &mut y.spare_capacity_mut()[..len]),
        }
        // SAFETY: every output of every pixel was written.
        unsafe { y.set_len(len) };
        if let Some(offsets) = self.offsets.filter(|_| !image.is_depthwise()) {
            self.add_offsets(offsets, &mut y);
        }
        y
    }

    /// Adds the offset of each output times the sums of windows.
    fn add_offsets(&self, offsets: &[f32], y: &mut [f32]) {
        let (image, sums, outputs) = (self.image, window_sums(self.image, self.range), offsets.len());
        let pixels = image.output.iter().product::<usize>();
        let add = |(at, y): (usize, &mut [f32])| {
            let (image_at, output) = (at / outputs, at % outputs);
            let group = image_at * image.groups + output / (outputs / image.groups);
            let (sums, offset) = (&sums[group * pixels..][..pixels], offsets[output]);
            vectorized(
                #[inline(always)]
                || y.iter_mut().zip(sums).for_each(|(y, sum)| *y += offset * sum),
            );
        };
        match self.is_large() {
            true => y.par_chunks_exact_mut(pixels).enumerate().for_each(add),
            false => y.chunks_exact_mut(pixels).enumerate().for_each(add),
        }
    }

    /// Words of four codes, `[panel][step][output]`, and how many steps there are.
    fn words<'b>(&'b self, bytes: &'b mut Vec<u32>) -> (&'b [u32], usize) {
        let Weight { layout, words, .. } = self.weight;
        let tiles = layout.tiles();
        let words = match tiles.bits() {
            8 => words,
            _ => {
                write_bytes(tiles, words, 0..tiles.panels(), bytes);
                bytes
            }
        };
        (words, tiles.padded_inputs() / STEP)
    }

    /// The signed codes of the kernel, `[output][input]`.
    fn kernel(&self) -> Vec<i8> {
        let layout = self.weight.layout;
        let (inputs, zero) = (layout.inputs(), zero_of(layout.format()) as u8);
        let mut bytes = Vec::new();
        let (words, steps) = self.words(&mut bytes);
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

    /// The outputs of a group as rows of steps: those of a window, of which the last of a run may be filled up with
    /// zeros.
    fn rows<V: Vectors>(
        &self,
        group: usize,
        kernel: &Kernel,
        windows: &Windows,
        row_tiles: &RowTiles,
    ) -> IntegerRows<V> {
        let (layout, of_group) = (self.weight.layout, row_tiles.rows());
        let zero = u32::from_le_bytes([zero_of(layout.format()) as u8; STEP]);
        let steps = windows.offsets.len();
        let (words, panel_steps) = match kernel {
            Kernel::Words(words, steps) => (words, steps),
            Kernel::Codes(kernel) => {
                let inputs = layout.inputs();
                let mut codes = vec![0i8; of_group * steps * STEP];
                for (row, codes) in codes.chunks_exact_mut(steps * STEP).enumerate() {
                    let kernel = &kernel[(group * of_group + row) * inputs..][..inputs];
                    let filled_up = windows.run.next_multiple_of(STEP);
                    for (codes, run) in codes.chunks_exact_mut(filled_up).zip(kernel.chunks_exact(windows.run)) {
                        codes[..run.len()].copy_from_slice(run);
                    }
                }
                return IntegerRows::of_codes(&codes, steps, row_tiles);
            }
        };
        let signed = |word: u32| {
            // a byte for itself: no borrow crosses into the next
            let high = 0x8080_8080;
            ((word | high) - (zero & !high)) ^ ((word ^ !zero) & high)
        };
        IntegerRows::of_steps(steps, row_tiles, |row, step| {
            let output = group * of_group + row;
            signed(words[(output / PANEL * panel_steps + step) * PANEL + output % PANEL])
        })
    }

    /// The value of a step of an image; NaN of one that has a NaN.
    fn step(&self, codes: &Codes, image: usize) -> f32 {
        if codes.is_number[image] { self.range / activation_grid().max() } else { f32::NAN }
    }

    /// What the range of an output is multiplied with, for an image.
    fn constant(&self, codes: &Codes, image: usize) -> f32 {
        self.step(codes, image) * self.weight.constant()
    }

    fn bias(&self, output: usize) -> f32 {
        self.bias.map_or(0.0, |bias| bias[output])
    }

    /// Products of windows and kernels.
    fn windows<V: Vectors>(&self, codes: &Codes, y: &mut [MaybeUninit<f32>]) {
        let (image, outputs) = (self.image, self.weight.layout.outputs());
        let windows = Windows::new(image);
        let inputs = windows.offsets.len() * STEP;
        let tiles = Tiles::new(inputs, PANEL, inputs, 8).expect("codes of a byte");
        let stride = inputs / STEP * PANEL;
        let of_group = outputs / image.groups;
        let row_tiles = RowTiles::new(of_group, V::WIDE_TILES);
        let mut bytes = Vec::new();
        let kernel = match windows.run.is_multiple_of(STEP) {
            true => {
                let (words, steps) = self.words(&mut bytes);
                Kernel::Words(words, steps)
            }
            false => Kernel::Codes(self.kernel()),
        };
        let groups: Vec<Group<V>> = (0..image.groups)
            .map(|group| {
                let (mut ranges, mut bias) = (vec![0.0; row_tiles.computed()], vec![0.0; row_tiles.computed()]);
                for RowTile { first, rows, before, .. } in row_tiles.iter() {
                    for row in 0..rows {
                        let output = group * of_group + first + row;
                        (ranges[before + row], bias[before + row]) = (self.weight.range(output), self.bias(output));
                    }
                }
                Group { rows: self.rows(group, &kernel, &windows, &row_tiles), ranges, bias }
            })
            .collect();
        let pixels = image.output.iter().product::<usize>();
        let panels = pixels.div_ceil(PANEL);
        let chunks = panels.div_ceil(PANELS);
        let destination = Destination(y.as_mut_ptr().cast());
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
            let Group { rows, ranges, bias } = &groups[group];
            for RowTile { first: row, rows: len, size, before } in row_tiles.iter() {
                let wide = V::WIDE_TILES.iter().find(|(rows, _)| *rows == size).map_or(1, |(_, panels)| *panels);
                for panel in (0..count).step_by(wide) {
                    let columns =
                        Columns { y: planes, addend: None, rows: len, outputs: pixels, first: (first + panel) * PANEL };
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
                        x: rows.x[before * inputs / STEP..].as_ptr(),
                        sums: rows.sums[before..].as_ptr(),
                        ranges: ranges[before..].as_ptr(),
                        bias: bias[before..].as_ptr(),
                        constant,
                        y: columns.rows(row, len),
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

    /// Planes of an image, each times kernels of its own: lines of windows at a time, element by element.
    fn planes(&self, kernel: &[i8], codes: &Codes, y: &mut [MaybeUninit<f32>]) {
        let (image, outputs) = (self.image, self.weight.layout.outputs());
        let [_, rows, columns] = image.output;
        let ([_, kernel_height, kernel_width], stride, dilation) = (image.kernel, image.stride, image.dilation);
        let (lines, len) = (codes.axes[1] / stride[1], codes.axes[2] / stride[2]);
        let elements = image.kernel.iter().product::<usize>();
        let of_group = outputs / image.groups;
        let pixels = image.output.iter().product::<usize>();
        let at_once = (LINES / len).clamp(1, rows);
        let plane = |(at, y): (usize, &mut [MaybeUninit<f32>])| {
            let (image_at, output) = (at / outputs, at % outputs);
            let x = codes.plane(image_at, output / of_group);
            let factor = self.weight.range(output) * self.constant(codes, image_at);
            let (kernel, bias) = (&kernel[output * elements..][..elements], self.bias(output));
            let offset = self.offsets.map(|offsets| offsets[output] * self.step(codes, image_at));
            let (mut products, mut sums) = (vec![0i32; at_once * len], vec![0i32; at_once * len]);
            vectorized(
                #[inline(always)]
                || {
                    let parts = y.chunks_exact_mut(rows * columns).enumerate();
                    let parts = parts.flat_map(|(z, y)| {
                        let lines = y.chunks_mut(at_once * columns).enumerate();
                        lines.map(move |(i, y)| (z, i * at_once, y))
                    });
                    for (z, first, y) in parts {
                        let run = (y.len() / columns - 1) * len + columns;
                        products[..run].fill(0);
                        sums[..run].fill(0);
                        for (element, weight) in kernel.iter().enumerate() {
                            let depth = z * stride[0] + element / (kernel_height * kernel_width) * dilation[0];
                            let shift_y = element / kernel_width % kernel_height * dilation[1];
                            let shift_x = element % kernel_width * dilation[2];
                            let part = (depth * stride[1] + shift_y % stride[1]) * stride[2] + shift_x % stride[2];
                            let line = part * lines + first + shift_y / stride[1];
                            let (x, weight) = (&x[line * len + shift_x / stride[2]..][..run], i32::from(*weight));
                            products.iter_mut().zip(x).for_each(|(product, x)| *product += weight * i32::from(*x));
                            if offset.is_some() {
                                sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += i32::from(*x));
                            }
                        }
                        for (line, y) in y.chunks_exact_mut(columns).enumerate() {
                            let line = line * len..line * len + columns;
                            let products = products[line.clone()].iter().map(|product| *product as f32 * factor + bias);
                            match offset {
                                None => y.iter_mut().zip(products).for_each(|(y, product)| _ = y.write(product)),
                                Some(offset) => {
                                    let values =
                                        products.zip(&sums[line]).map(|(product, sum)| product + *sum as f32 * offset);
                                    y.iter_mut().zip(values).for_each(|(y, value)| _ = y.write(value));
                                }
                            }
                        }
                    }
                },
            );
        };
        match self.is_large() {
            true => y.par_chunks_exact_mut(pixels).enumerate().for_each(plane),
            false => y.chunks_exact_mut(pixels).enumerate().for_each(plane),
        }
    }

    /// Whether the work is worth more than one thread.
    fn is_large(&self) -> bool {
        let outputs = self.image.batch * self.image.output.iter().product::<usize>() * self.weight.layout.outputs();
        let multiplications = outputs * self.weight.layout.inputs();
        rayon::current_num_threads() > 1 && (multiplications >= 5_000_000 || outputs >= 1 << 16)
    }
}

/// The codes of a kernel as windows need them.
enum Kernel<'a> {
    /// As they lie, and the steps of an output: runs of windows are whole steps.
    Words(&'a [u32], usize),
    /// Signed, `[output][input]`.
    Codes(Vec<i8>),
}

/// The outputs of a group of channels.
struct Group<V: Vectors> {
    rows: IntegerRows<V>,
    /// Of the kernels, row by row of the tiles.
    ranges: Vec<f32>,
    bias: Vec<f32>,
}

/// An image as codes, padded.
struct Codes {
    /// Channels side by side, for windows: `[image, axes…, channel]`.
    bytes: Vec<u8>,
    /// Channels apart, for planes, and so that neighbouring windows read neighbours: `[image, channel, depth, line of a
    /// stride, column of a stride, line, column]`.
    planes: Vec<i16>,
    /// Filled up to whole strides for planes.
    axes: [usize; 3],
    channels: usize,
    /// Of each image.
    is_number: Vec<bool>,
}

impl Codes {
    fn of(image: &Image, grid: IntGrid, range: f32, threads: bool) -> Self {
        let (channels, apart) = (image.channels, image.is_depthwise());
        let axes: [usize; 3] = std::array::from_fn(|axis| {
            let (before, after) = image.padding[axis];
            let len = before + image.axes[axis] + after;
            if apart && axis > 0 { len.next_multiple_of(image.stride[axis]) } else { len }
        });
        let size = axes.iter().product::<usize>() * channels;
        let mut codes = Self {
            // a step is read whole where a run ends before it
            bytes: if apart { Vec::new() } else { vec![ZERO; image.batch * size + STEP] },
            planes: if apart { vec![0; image.batch * size] } else { Vec::new() },
            axes,
            channels,
            is_number: vec![true; image.batch],
        };
        if size == 0 || image.x.is_empty() {
            return codes;
        }
        let [depth, height, width] = image.axes;
        let [before_z, before_y, before_x] = image.padding.map(|(before, _)| before);
        let scale = grid.scale(range);
        // a line of the image, and of the padded one
        let lines = || (0..depth).flat_map(|z| (0..height).map(move |y| (z * height + y, z + before_z, y + before_y)));
        let work = |x: &[f32], is_number: &mut bool, bytes: &mut [u8], planes: &mut [i16]| {
            let mut rounded = vec![0i8; x.len()];
            let largest = vectorized(
                #[inline(always)]
                || {
                    rounded.iter_mut().zip(x).for_each(|(code, x)| *code = code_of(grid.round(x * scale.to_grid)));
                    amax(x)
                },
            );
            *is_number = !largest.is_nan();
            let plane = depth * height * width;
            for (line, z, y) in lines() {
                let row = (z * axes[1] + y) * axes[2] + before_x;
                let [_, stride_y, stride_x] = image.stride;
                for channel in 0..channels {
                    let line = &rounded[channel * plane + line * width..][..width];
                    if apart {
                        for first in 0..stride_x.min(width) {
                            let column = before_x + first;
                            let part =
                                ((channel * axes[0] + z) * stride_y + y % stride_y) * stride_x + column % stride_x;
                            let row = part * (axes[1] / stride_y) + y / stride_y;
                            let to = &mut planes[row * (axes[2] / stride_x) + column / stride_x..];
                            let from = line[first..].iter().step_by(stride_x);
                            to.iter_mut().zip(from).for_each(|(code, byte)| *code = i16::from(*byte));
                        }
                    } else {
                        let to = &mut bytes[row * channels + channel..][..(width - 1) * channels + 1];
                        to.iter_mut().step_by(channels).zip(line).for_each(|(to, code)| *to = *code as u8 ^ ZERO);
                    }
                }
            }
        };
        let images = image.x.len() / image.batch;
        let Self { bytes, planes, is_number, .. } = &mut codes;
        // one of the two is empty
        let parts = |i: usize| if i < image.batch { size } else { 0 };
        let mut jobs = Vec::with_capacity(image.batch);
        let (mut bytes, mut planes) = (bytes.as_mut_slice(), planes.as_mut_slice());
        for (i, (x, is_number)) in image.x.chunks_exact(images).zip(is_number.iter_mut()).enumerate() {
            let (first, rest) = std::mem::take(&mut bytes).split_at_mut(if apart { 0 } else { parts(i) });
            bytes = rest;
            let (of_planes, rest) = std::mem::take(&mut planes).split_at_mut(if apart { parts(i) } else { 0 });
            planes = rest;
            jobs.push((x, is_number, first, of_planes));
        }
        match threads && image.batch > 1 {
            true => jobs.into_par_iter().for_each(|(x, number, bytes, planes)| work(x, number, bytes, planes)),
            false => jobs.into_iter().for_each(|(x, number, bytes, planes)| work(x, number, bytes, planes)),
        }
        codes
    }

    fn plane(&self, image: usize, channel: usize) -> &[i16] {
        let size = self.axes.iter().product::<usize>();
        &self.planes[(image * self.channels + channel) * size..][..size]
    }
}

/// Where the inputs of windows lie in an image of codes.
struct Windows {
    /// Where the window of each pixel begins, filled up to whole panels with the last.
    starts: Vec<usize>,
    /// Where each step of a window begins, from its first byte.
    offsets: Vec<usize>,
    /// Bytes that lie side by side; the last step of them reads on into what is multiplied with zero.
    run: usize,
    /// Bytes of an image.
    image: usize,
    /// Channels of a group.
    channels: usize,
}

impl Windows {
    fn new(image: &Image) -> Self {
        let [depth, height, width]: [usize; 3] = std::array::from_fn(|axis| {
            let (before, after) = image.padding[axis];
            before + image.axes[axis] + after
        });
        let channels = image.channels;
        let (plane, line, pixel) = (height * width * channels, width * channels, channels);
        let [kernel_depth, kernel_height, kernel_width] = image.kernel;
        // neighbours of a line are one run, if all their channels count
        let (in_line, run) = match image.groups == 1 && image.dilation[2] == 1 {
            true => (1, kernel_width * channels),
            false => (kernel_width, channels / image.groups),
        };
        let mut offsets = Vec::new();
        for z in 0..kernel_depth {
            for y in 0..kernel_height {
                for x in 0..in_line {
                    let first = z * image.dilation[0] * plane + y * image.dilation[1] * line;
                    let first = first + x * image.dilation[2] * pixel;
                    offsets.extend((0..run).step_by(STEP).map(|byte| first + byte));
                }
            }
        }
        let ([planes, rows, columns], stride) = (image.output, image.stride);
        let mut starts = Vec::with_capacity((planes * rows * columns).next_multiple_of(PANEL));
        for z in 0..planes {
            for y in 0..rows {
                let first = z * stride[0] * plane + y * stride[1] * line;
                starts.extend((0..columns).map(|x| first + x * stride[2] * pixel));
            }
        }
        let last = starts.last().copied().unwrap_or(0);
        starts.resize(starts.len().next_multiple_of(PANEL), last);
        Self { starts, offsets, run, image: depth * plane, channels: channels / image.groups }
    }

    /// Panels of 16 pixels each, `[panel][step][pixel]`; pixels beyond the last repeat it.
    fn panels(&self, codes: &Codes, image: usize, group: usize, first: usize, count: usize) -> Vec<u32> {
        let bytes = &codes.bytes[image * self.image + group * self.channels..];
        let starts = &self.starts[first * PANEL..(first + count) * PANEL];
        let (last, largest) = (starts.iter().max().unwrap_or(&0), self.offsets.last().unwrap_or(&0));
        assert!(last + largest + STEP <= bytes.len(), "windows lie within their image");
        let mut words = Vec::with_capacity(starts.len() * self.offsets.len());
        for starts in starts.chunks_exact(PANEL) {
            for offset in &self.offsets {
                // SAFETY: every step of every window lies within the image, as was just seen: no offset is larger than
                // the last.
                let word = |start: &usize| unsafe {
                    u32::from_le(bytes.as_ptr().add(start + offset).cast::<u32>().read_unaligned())
                };
                words.extend(starts.iter().map(word));
            }
        }
        words
    }
}

/// Outputs of a kernel times windows.
struct WindowTile<V: Vectors> {
    panels: Panels,
    x: *const V::Step,
    sums: *const i32,
    /// Of the kernels; with `constant` what the sums of each row are multiplied with.
    ranges: *const f32,
    bias: *const f32,
    constant: f32,
    y: Columns,
}

impl<V: Vectors> Tile<V> for WindowTile<V> {
    #[inline(always)]
    unsafe fn run<const R: usize, const P: usize>(&self) {
        // SAFETY: the caller's.
        unsafe {
            let totals = integers::<V, Bytes, R, P, 1>(Bytes, i32::from(ZERO), self.panels, self.x, self.sums);
            for (row, totals) in totals.iter().enumerate() {
                let factor = V::floats(*self.ranges.add(row) * self.constant);
                let bias = V::floats(*self.bias.add(row));
                for (panel, total) in totals.iter().take(self.panels.count).enumerate() {
                    self.y.write::<V>(row, panel, V::multiply_add(*total, factor, bias));
                }
            }
        }
    }
}
