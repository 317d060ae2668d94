//! How a weight is packed, and packing it.

use std::ops::Range;

use burn::tensor::{Bytes, DType, Device, Int, Tensor, TensorData};
use burn_quant_numerics::packed::{PANEL, PackError, Tiles};
use burn_quant_numerics::{
    AnyGrid, E8m0, Elements, Format, Minifloat, PackedMatrix, ScaleFormat, load_scale, scale_words,
};

use super::PackedOffsets;
use crate::Groups;
use crate::backend::{is_capture, is_cpu};
use crate::fake_quant::{FakeQuant, Inputs, Ranges, Scales};

/// The shape and the formats of a packed weight: with it, words are numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PackedLayout {
    tiles: Tiles,
    format: Format,
    scale: ScaleFormat,
    global_amax: f32,
}

impl PackedLayout {
    /// Creates the layout of a weight `[inputs, outputs]` with a scale for every `block` inputs of an output.
    ///
    /// # Errors
    ///
    /// [`PackError::EmptyBlock`], and [`PackError::Format`] for codes of more than 8 bits, and for NF4 with other than
    /// f32 scales.
    pub fn new(
        inputs: usize,
        outputs: usize,
        block: usize,
        format: Format,
        scale: ScaleFormat,
    ) -> Result<Self, PackError> {
        if format.bits() > 8 || (format == Format::Nf4 && scale != ScaleFormat::F32) {
            return Err(PackError::Format { found: format });
        }
        Ok(Self { tiles: Tiles::new(inputs, outputs, block, format.bits())?, format, scale, global_amax: 0.0 })
    }

    /// Sets the range of the tensor, which E4M3 scales stand under.
    ///
    /// Other scales do not use it.
    pub fn with_global_amax(self, global_amax: f32) -> Self {
        Self { global_amax, ..self }
    }

    /// Returns the range of the tensor.
    ///
    /// 0 where scales are not E4M3.
    pub fn global_amax(self) -> f32 {
        self.global_amax
    }

    /// Returns the rows of the weight, which products sum over.
    ///
    /// The last axis of the activations is as long.
    pub fn inputs(self) -> usize {
        self.tiles.inputs()
    }

    /// Returns the columns of the weight.
    ///
    /// The last axis of the result is as long.
    pub fn outputs(self) -> usize {
        self.tiles.outputs()
    }

    /// Returns the inputs that share a scale.
    ///
    /// All of them, if each output has one scale.
    pub fn block(self) -> usize {
        self.tiles.block()
    }

    /// Returns the number format of the codes.
    ///
    /// At most 8 bits.
    pub fn format(self) -> Format {
        self.format
    }

    /// Returns the format of the scales.
    ///
    /// f32, E8M0 or E4M3.
    pub fn scale(self) -> ScaleFormat {
        self.scale
    }

    /// Returns where codes and scales lie.
    ///
    /// It is the same on every backend.
    pub fn tiles(self) -> Tiles {
        self.tiles
    }

    /// Returns the bytes of codes and scales.
    ///
    /// Those that fill up panels and blocks count.
    pub fn bytes(self) -> usize {
        4 * (self.tiles.words() + scale_words(self.tiles, self.scale))
    }

    /// Returns whether products with INT8 activations can be sums of integers, exactly.
    ///
    /// The elements are integers in some unit, and an i32 holds the sum of a block. If not, activations are rounded and
    /// multiplied as floats.
    pub fn has_integer_products(self) -> bool {
        let small = match self.format {
            Format::Int(_) => true,
            other => other.bits() == 4, // more bits would need a larger table
        };
        small && PackedMatrix::most_inputs(Elements::of(self.format)).is_some_and(|most| self.block() <= most)
    }

    /// Returns the grid of the codes and their scales.
    ///
    /// With the range of the tensor.
    pub fn grid(self) -> AnyGrid {
        AnyGrid::new(self.format, self.scale, self.global_amax)
    }

    /// Checks what is stored of a scale: the bits of a range in f32, or a byte.
    ///
    /// # Errors
    ///
    /// [`NotPacked::Range`] for a range that is not finite or negative, [`NotPacked::Code`] for a byte that is no such
    /// number.
    pub fn check_scale(self, stored: u32) -> Result<(), NotPacked> {
        match self.scale {
            ScaleFormat::F32 => {
                let found = f32::from_bits(stored);
                if is_range(found) { Ok(()) } else { Err(NotPacked::Range { found }) }
            }
            ScaleFormat::E8M0 | ScaleFormat::E4M3(_) => {
                let found = stored as u8;
                // under dynamic scales of E4M3, one that is no number would count as 1
                let number = match self.scale {
                    ScaleFormat::E4M3(_) => Minifloat::E4M3.decode(found),
                    _ => E8m0::from_byte(found).value(),
                };
                let is_scale = is_range(number) && is_range(self.grid().scale_of_stored(stored).from_grid);
                if is_scale { Ok(()) } else { Err(NotPacked::Code { found }) }
            }
        }
    }
}

/// A weight `[inputs, outputs]` as codes and scales.
///
/// Both are on the device of the model, laid out as [`Tiles`] are.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Tensor};
/// use burn_quant_ops::numerics::IntFormat;
/// use burn_quant_ops::{Activations, FakeQuant, GradientRule, Groups, PackedTensor, Ranges, fake_quant, packed_linear};
///
/// let device = Device::flex();
/// let weight = Tensor::<2>::from_data([[0.5, -2.0], [0.25, 1.0], [-0.5, 0.1]], &device); // three inputs
/// let int4 = IntFormat::signed(4).unwrap().into();
/// let spec = FakeQuant { format: int4, groups: Groups::per_channel(&[3, 2], 1), gradient: GradientRule::PassThrough };
/// let packed = PackedTensor::pack(weight.clone(), Ranges::Dynamic, spec.clone()).unwrap();
/// assert_eq!(packed.unpack().to_data(), fake_quant(weight, Ranges::Dynamic, spec).to_data());
///
/// let x = Tensor::<2>::from_data([[1.0, 0.0, 1.0]], &device);
/// let y = packed_linear(x, &packed, Activations::Float);
/// assert_eq!(y.into_data().try_into_vec::<f32>().unwrap(), [0.0, -2.0]);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct PackedTensor {
    /// The codes, in words of 32 bits.
    pub words: Tensor<1, Int>,
    /// The scales.
    pub scales: PackedScales,
    /// What the words mean.
    pub layout: PackedLayout,
    /// What is added to the values of codes, if anything is.
    pub offsets: Option<PackedOffsets>,
}

/// The scales of a packed weight.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // tensors are handles
pub enum PackedScales {
    /// The range of each block and output, f32.
    Ranges(Tensor<1>),
    /// Codes in E8M0 or E4M3, four in a word of 32 bits.
    Codes(Tensor<1, Int>),
}

/// Why a weight could not be packed.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum NotPacked {
    /// The format or the layout has no packed form.
    Form(PackError),
    /// Groups that are no blocks of inputs.
    Groups {
        /// The shape of the weight.
        shape: Vec<usize>,
        /// The groups along each of its axes.
        counts: Vec<usize>,
    },
    /// A range that is not finite or negative.
    Range {
        /// The range.
        found: f32,
    },
    /// A weight with a value that is not finite.
    Weight {
        /// The input and the output that it belongs to.
        at: [usize; 2],
        /// The value.
        found: f32,
    },
    /// A code, of a weight or of a scale, that is no number.
    Code {
        /// The code.
        found: u8,
    },
}

impl From<PackError> for NotPacked {
    fn from(error: PackError) -> Self {
        NotPacked::Form(error)
    }
}

impl std::fmt::Display for NotPacked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NotPacked::Form(error) => error.fmt(f),
            NotPacked::Groups { shape, counts } => {
                write!(f, "groups of a packed weight are blocks of its inputs, found {counts:?} groups of {shape:?}")
            }
            NotPacked::Range { found } => write!(f, "a range is finite and not negative, found {found:e}"),
            NotPacked::Weight { at: [input, output], found } => {
                write!(f, "a packed weight is finite, found {found:e} at input {input}, output {output}")
            }
            NotPacked::Code { found } => write!(f, "codes of a packed weight are finite numbers, found {found:#04x}"),
        }
    }
}

impl std::error::Error for NotPacked {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            NotPacked::Form(error) => error.source(), // its sentence is that of the error
            _ => None,
        }
    }
}

impl PackedTensor {
    /// Packs what [`fake_quant`](crate::fake_quant()) makes of a weight: the same codes, on the device of the weight.
    ///
    /// Values are read from the device; packing is done once.
    ///
    /// # Shapes and units
    ///
    /// `weight`: `[inputs, outputs]`, which `spec.groups` divide; blocks of inputs, of a column or of several.
    ///
    /// # Errors
    ///
    /// [`NotPacked`] with the reason.
    pub fn pack(weight: Tensor<2>, ranges: impl Into<Ranges>, spec: FakeQuant) -> Result<Self, NotPacked> {
        let device = weight.device();
        let [inputs, outputs] = weight.dims();
        let Packing { scales, amax, global_amax } = Packing::new(&weight, ranges.into(), &spec)?;
        let groups = &spec.groups;
        let block = block_of(groups)?;
        let layout = PackedLayout::new(inputs, outputs, block, spec.format, scales.format())?;
        let values = host(weight);
        if let Some(i) = values.iter().position(|value| !value.is_finite()) {
            return Err(NotPacked::Weight { at: [i / outputs, i % outputs], found: values[i] });
        }
        let layout = layout.with_global_amax(global_amax);
        let tiles = layout.tiles();
        let group = |block: usize, output: usize| groups.of_element(block * tiles.block() * outputs + output);
        let (mut words, mut stored) = (Aligned::new(tiles.words()), Aligned::new(scale_words(tiles, layout.scale)));
        if tiles.words() > 0 {
            let words = words.words().chunks_exact_mut(tiles.panel_words());
            let stored = stored.words().chunks_exact_mut(scale_words(tiles, layout.scale) / tiles.panels());
            let (grid, range) = (layout.grid(), |block, output| amax[group(block, output)]);
            in_parallel(words.zip(stored).enumerate(), |(panel, (words, stored))| {
                let row = |input: usize, row: &mut [f32]| {
                    row.copy_from_slice(&values[input * outputs + panel * PANEL..][..row.len()]);
                };
                #[cfg(feature = "flex")]
                crate::flex::vectorized(
                    #[inline(always)]
                    || PackedMatrix::pack_panel(tiles, grid, panel, range, row, words, stored),
                );
                #[cfg(not(feature = "flex"))]
                PackedMatrix::pack_panel(tiles, grid, panel, range, row, words, stored);
            });
        }
        let (words, scales) = (words.into_tensor(&device), stored.into_scales(layout.scale, &device));
        Ok(Self { words, scales, layout, offsets: None })
    }

    /// Makes a packed weight of words that were read from a file: codes and scales, as [`PackedTensor::words`] and
    /// [`PackedTensor::scales`] hold them.
    ///
    /// # Errors
    ///
    /// [`NotPacked::Form`] unless there are as many words as the layout has, [`NotPacked::Code`] for codes that are no
    /// finite numbers, [`NotPacked::Range`] for scales that are none, or negative.
    pub fn from_words(layout: PackedLayout, words: &[u32], scales: &[u32], device: &Device) -> Result<Self, NotPacked> {
        PackedMatrix::new(layout.tiles(), layout.format, layout.scale, layout.global_amax, words, scales)?;
        let elements = Elements::of(layout.format);
        let is_number = |code: u8| elements.point(code).is_finite();
        if layout.format.bits() == 8 && !(0..=u8::MAX).all(is_number) {
            let codes = words.iter().flat_map(|word| word.to_le_bytes()); // a code of 8 bits is a byte of a word
            codes.into_iter().find(|code| !is_number(*code)).map_or(Ok(()), |found| Err(NotPacked::Code { found }))?;
        }
        check_scales(layout, scales)?;
        let copied = |from: &[u32]| {
            let mut aligned = Aligned::new(from.len());
            aligned.words().copy_from_slice(from);
            aligned
        };
        Ok(Self {
            words: copied(words).into_tensor(device),
            scales: copied(scales).into_scales(layout.scale, device),
            layout,
            offsets: None,
        })
    }

    /// Adds offsets to the values of the codes: a weight around zero points, or around a bias.
    ///
    /// [`packed_linear()`](super::packed_linear()) multiplies them with sums of activations; codes stay what they are.
    ///
    /// # Panics
    ///
    /// Unless there is an offset for each block of inputs and each output.
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "flex")] {
    /// use burn::tensor::{Device, Tensor};
    /// use burn_quant_ops::numerics::IntFormat;
    /// use burn_quant_ops::{Activations, FakeQuant, GradientRule, Groups, PackedOffsets, PackedTensor, packed_linear};
    ///
    /// let device = Device::flex();
    /// let codes = Tensor::<2>::from_data([[7.0], [-3.0]], &device); // two inputs
    /// let int4 = IntFormat::signed(4).unwrap().into();
    /// let spec = FakeQuant { format: int4, groups: Groups::per_tensor(&[2, 1]), gradient: GradientRule::PassThrough };
    /// let packed = PackedTensor::pack(codes, Tensor::<1>::from_data([7.0], &device), spec).unwrap();
    /// let packed = packed.with_offsets(PackedOffsets::new(Tensor::from_data([[0.5]], &device), 2));
    /// assert_eq!(packed.unpack().into_data().try_into_vec::<f32>().unwrap(), [7.5, -2.5]);
    /// let y = packed_linear(Tensor::<2>::from_data([[2.0, 4.0]], &device), &packed, Activations::Float);
    /// assert_eq!(y.into_data().try_into_vec::<f32>().unwrap(), [2.0 * 7.5 - 4.0 * 2.5]);
    /// # }
    /// ```
    pub fn with_offsets(self, offsets: PackedOffsets) -> Self {
        let shape = [self.layout.inputs(), self.layout.outputs()];
        assert!(offsets.are_of(shape), "PackedTensor: an offset for each block of inputs and each output of {shape:?}");
        Self { offsets: Some(offsets), ..self }
    }

    /// Whether each output has one offset for all of its inputs, or none.
    pub(crate) fn has_shared_offsets(&self) -> bool {
        self.offsets.as_ref().is_none_or(PackedOffsets::are_shared)
    }

    /// Returns some columns of the weight, f32 `[n, inputs]`: what an embedding takes of its table.
    ///
    /// Nothing but these is read and unpacked. `outputs` are indices, `[n]`.
    ///
    /// # Panics
    ///
    /// On the CPU if an index is none of an output; other devices do not read them.
    pub fn columns(&self, outputs: Tensor<1, Int>) -> Tensor<2> {
        let ([n], inputs) = (outputs.dims(), self.layout.inputs());
        if n * inputs == 0 {
            return Tensor::zeros([n, inputs], (&self.words.device(), DType::F32));
        }
        let device = self.words.device();
        match is_cpu(&device) || is_capture(&device) {
            true => super::columns(self, outputs.cast(DType::I64)),
            false => self.select(outputs).unpack().transpose(),
        }
    }

    /// Returns a weight of some of the outputs, in their order.
    ///
    /// Nothing but these is read, on the device. `outputs` are indices, `[n]`; `n` is at least one.
    ///
    /// # Panics
    ///
    /// If there are no indices, and on the CPU if one is none of an output; other devices do not read them.
    pub fn select(&self, outputs: Tensor<1, Int>) -> Self {
        let [n] = outputs.dims();
        assert!(n > 0, "PackedTensor::select: there are indices");
        if is_cpu(&self.words.device()) {
            let indices = outputs.clone().into_data().convert::<i64>().try_into_vec::<i64>().expect("integers");
            let within = 0..self.layout.outputs() as i64;
            let outside = indices.iter().find(|index| !within.contains(index));
            assert!(outside.is_none(), "PackedTensor::select: index {} of {}", outside.unwrap_or(&0), within.end);
        }
        let offsets = self.offsets.as_ref().map(|offsets| offsets.select(outputs.clone()));
        let tiles = self.layout.tiles();
        let selected = Tiles::new(tiles.inputs(), n, tiles.block(), tiles.bits()).expect("the blocks of the weight");
        let layout = PackedLayout { tiles: selected, ..self.layout };
        if tiles.inputs() == 0 {
            return Self { layout, offsets, ..self.clone() }; // neither words nor scales
        }
        let (device, panels) = (self.words.device(), n.div_ceil(PANEL));
        // whole panels: the last index stands for those that are missing
        let missing = panels * PANEL - n;
        let last = outputs.clone().narrow(0, n - 1, 1);
        let columns = match missing {
            0 => outputs,
            missing => Tensor::cat(vec![outputs, last.repeat_dim(0, missing)], 0),
        };
        let columns = columns.cast(DType::I32).reshape([panels, 1, PANEL]);
        let (panel, lane) = (columns.clone() / PANEL as i32, columns % PANEL as i32);
        // where `[row of a panel] [column]` of the selected stand in `[panel] [row] [column]`
        let places = |rows: usize, width: usize, lane: Tensor<3, Int>| {
            let row = Tensor::<1, Int>::arange(0..rows as i64, (&device, DType::I32)).reshape([1, rows, 1]);
            let panel = panel.clone() * (rows * width) as i32;
            (panel + row * width as i32 + lane).reshape([panels * rows * PANEL])
        };
        let words = self.words.clone().select(0, places(tiles.panel_words() / PANEL, PANEL, lane.clone()));
        let blocks = tiles.blocks();
        let scales = match &self.scales {
            PackedScales::Ranges(ranges) => PackedScales::Ranges(ranges.clone().select(0, places(blocks, PANEL, lane))),
            PackedScales::Codes(codes) => {
                let byte = (lane.clone() % 4) * 8;
                let word = codes.clone().select(0, places(blocks, PANEL / 4, lane / 4));
                let byte = byte.repeat_dim(1, blocks).reshape([panels * blocks * PANEL]);
                let bytes = word.bitwise_right_shift(byte).bitwise_and_scalar(0xff);
                let bytes: Tensor<2, Int> = bytes.reshape([panels * blocks * PANEL / 4, 4]);
                let at = |i: usize| bytes.clone().slice([0..panels * blocks * PANEL / 4, i..i + 1]);
                let words =
                    (1..4).fold(at(0), |words, i| words.bitwise_or(at(i).bitwise_left_shift_scalar(8 * i as i32)));
                PackedScales::Codes(words.reshape([panels * blocks * PANEL / 4]))
            }
        };
        Self { words, scales, layout, offsets }
    }

    /// Returns the codes, row by row `[inputs, outputs]`.
    ///
    /// They are read from the device. Those of integers are counted from the lowest: 0 is −128 in INT8.
    pub fn codes(&self) -> Vec<u8> {
        let (words, tiles) = (host_words(&self.words), self.layout.tiles());
        let code = |i: usize| tiles.code(&words, i / tiles.outputs(), i % tiles.outputs());
        (0..tiles.inputs() * tiles.outputs()).map(code).collect()
    }

    /// Returns what is stored of the scales, row by row `[blocks, outputs]`: the bits of ranges in f32, or bytes.
    ///
    /// They are read from the device. See [`AnyGrid::stored_scale`].
    pub fn stored_scales(&self) -> Vec<u32> {
        let scales: Vec<u32> = match &self.scales {
            PackedScales::Ranges(ranges) => host(ranges.clone()).into_iter().map(f32::to_bits).collect(),
            PackedScales::Codes(codes) => host_words(codes),
        };
        let (tiles, format) = (self.layout.tiles(), self.layout.scale);
        let place = |i: usize| tiles.scale_place(i / tiles.outputs(), i % tiles.outputs());
        (0..tiles.blocks() * tiles.outputs()).map(|i| load_scale(format, &scales, place(i))).collect()
    }

    /// Returns the weight as fake quantization leaves it, f32 `[inputs, outputs]`.
    ///
    /// It is bit for bit the fake-quantized weight, but for the sign of zero.
    pub fn unpack(&self) -> Tensor<2> {
        super::unpack(self)
    }
}

fn host_words(words: &Tensor<1, Int>) -> Vec<u32> {
    let words: Vec<i32> = words.clone().into_data().convert::<i32>().try_into_vec().expect("i32 data");
    words.into_iter().map(|word| word as u32).collect()
}

/// Whether the scales that are stored are numbers that a weight can be multiplied with.
fn check_scales(layout: PackedLayout, scales: &[u32]) -> Result<(), NotPacked> {
    if !is_range(layout.global_amax) {
        return Err(NotPacked::Range { found: layout.global_amax });
    }
    match layout.scale {
        ScaleFormat::F32 => scales.iter().try_for_each(|word| layout.check_scale(*word)),
        ScaleFormat::E8M0 | ScaleFormat::E4M3(_) => {
            let mut codes = scales.iter().flat_map(|word| word.to_le_bytes());
            codes.try_for_each(|code| layout.check_scale(code.into()))
        }
    }
}

fn is_range(range: f32) -> bool {
    range.is_finite() && range >= 0.0
}

/// Ranges on the host.
struct Packing {
    scales: Scales,
    amax: Vec<f32>,
    global_amax: f32,
}

impl Packing {
    fn new(weight: &Tensor<2>, ranges: Ranges, spec: &FakeQuant) -> Result<Self, NotPacked> {
        let inputs = Inputs::new(ranges, None, spec.clone(), &weight.device());
        let scales = inputs.call.scales;
        let global_amax = match scales {
            Scales::TwoLevel(_) => host(inputs.global_amax)[0],
            _ => 0.0,
        };
        let amax = match scales.is_dynamic() {
            false => host(inputs.amax),
            true => host(crate::group_amax(weight.clone(), &spec.groups)),
        };
        let unusable = |amax: &f32| !(amax.is_finite() && *amax >= 0.0);
        let found = amax.iter().copied().chain([global_amax]).find(unusable);
        match found {
            Some(found) => Err(NotPacked::Range { found }),
            None => Ok(Self { scales, amax, global_amax }),
        }
    }
}

/// The inputs that share a range.
fn block_of(groups: &Groups) -> Result<usize, NotPacked> {
    match groups.shape() {
        &[inputs, _] => Ok(groups.size(0).min(inputs.max(1))),
        shape => Err(NotPacked::Groups { shape: shape.to_vec(), counts: groups.counts().to_vec() }),
    }
}

/// Packs panels, on all threads where there are some.
fn in_parallel<'a, I>(panels: I, pack: impl Fn((usize, (&'a mut [u32], &'a mut [u32]))) + Send + Sync)
where
    I: Iterator<Item = (usize, (&'a mut [u32], &'a mut [u32]))> + Send,
{
    #[cfg(feature = "flex")]
    rayon::iter::ParallelIterator::for_each(rayon::iter::ParallelBridge::par_bridge(panels), pack);
    #[cfg(not(feature = "flex"))]
    panels.for_each(pack);
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().expect("f32 data")
}

/// Words that begin at a cache line: a panel that lies across two costs up to a sixth of the time. Tensors are aligned
/// to 16 bytes only, so these are a part of a longer one.
struct Aligned {
    buffer: Vec<u32>,
    first: usize,
    words: usize,
}

impl Aligned {
    fn new(words: usize) -> Self {
        let buffer = vec![0; words + PANEL];
        let first = buffer.as_ptr().align_offset(PANEL * size_of::<u32>());
        Self { first: if first < PANEL { first } else { 0 }, buffer, words }
    }

    fn words(&mut self) -> &mut [u32] {
        &mut self.buffer[self.first..self.first + self.words]
    }

    /// The data of the longer tensor, and where the words are.
    fn into_data(self, dtype: DType) -> (TensorData, Range<usize>) {
        let place = self.first..self.first + self.words;
        let len = self.buffer.len();
        (TensorData::from_bytes(Bytes::from_elems(self.buffer), [len], dtype), place)
    }

    fn into_scales(self, scale: ScaleFormat, device: &Device) -> PackedScales {
        match scale {
            ScaleFormat::F32 => {
                let (ranges, place) = self.into_data(DType::F32);
                PackedScales::Ranges(Tensor::<1>::from_data(ranges, (device, DType::F32)).slice([place]))
            }
            ScaleFormat::E8M0 | ScaleFormat::E4M3(_) => PackedScales::Codes(self.into_tensor(device)),
        }
    }

    fn into_tensor(self, device: &Device) -> Tensor<1, Int> {
        let (words, place) = self.into_data(DType::I32);
        Tensor::<1, Int>::from_data(words, (device, DType::I32)).slice([place])
    }
}
