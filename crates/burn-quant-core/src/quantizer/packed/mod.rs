//! A weight that is nothing but codes and scales: what a weight's quantizer holds in a packed model.
//!
//! * `matrix` a weight as a matrix of inputs and outputs
//! * `codes` codes and scales in the order of the parameter
//! * `refusal` why a weight has no packed form
//! * `tokens` keys and values of a cache

mod codes;
mod matrix;
mod refusal;
mod tokens;

pub use burn_quant_ops::{PackedConv, PackedConvTranspose};

pub use self::codes::WeightCodes;
pub use self::tokens::{PackedTokens, TokenCodec};

use std::fmt;

use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_quant_ops::numerics::packed::PackError;
use burn_quant_ops::numerics::{Format, IntFormat};
use burn_quant_ops::{
    Activations, Around, FakeQuant, GradientRule, NotPacked, OutputRounding, PackedLayout, PackedOffsets, PackedScales,
    PackedTensor, Pointwise, convolves_integers, is_flex, multiplies_integers, packed_conv, packed_conv_transpose,
    packed_linear_fused,
};
use serde::{Deserialize, Serialize};

pub(crate) use self::refusal::more_than_rounding;

use self::matrix::Matrix;
use super::forward::through_factors;
use super::{Buffer, TensorQuantizer, bias};
use crate::config::{Granularity, RangeSource, ScaleFormat};
use crate::error::NotPackedReason;

/// A packed weight: what the quantizer of a weight holds once [`compress`](crate::compress::compress()) packed it.
///
/// The parameter that it belongs to is a view of a single zero, so that the model holds no float copy of the weight.
/// What asks for the parameter's value unpacks it, for as long as it is used; layers of `burn_quant::nn` multiply with
/// the codes instead. Codes and scales are parameters of their own, which are moved with the model, and which no
/// optimizer changes.
#[derive(Clone, Debug)]
pub struct PackedWeight {
    words: Param<Tensor<1, Int>>,
    scales: Scales,
    /// The bias that values are around, of each output.
    offsets: Option<Param<Tensor<1>>>,
    layout: PackedLayout,
    matrix: Matrix,
    dtype: DType,
    float_inputs: FloatInputs,
}

/// What a packed linear layer does with inputs that its quantizer does not round.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FloatInputs {
    /// Multiplies them as floats.
    #[default]
    Exact,
    /// Rounds them to 15 bits with the range of each token, where there are integer products: an approximation that is
    /// faster. A value is off by at most 1/32512 of the largest of its token.
    ///
    /// Weights in NF4 and in floats of more than 4 bits are multiplied as floats all the same, and so is everything on
    /// GPU backends and under autodiff.
    Int15,
}

impl FloatInputs {
    fn activations(self) -> Activations {
        match self {
            FloatInputs::Exact => Activations::Float,
            FloatInputs::Int15 => Activations::Int15PerToken,
        }
    }

    fn is_exact(&self) -> bool {
        *self == FloatInputs::Exact
    }
}

/// What a file says of a packed weight beside its words and the configuration of its quantizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PackedForm {
    /// The shape of the weight.
    pub shape: Vec<usize>,
    /// The range of the tensor, which E4M3 scales stand under; 0 elsewhere.
    pub global_amax: f32,
    /// What the parameter was before, and is when it is asked for.
    #[serde(default = "f32_weight", skip_serializing_if = "is_f32")]
    pub dtype: DType,
    /// What is done with inputs that are not rounded.
    #[serde(default, skip_serializing_if = "FloatInputs::is_exact")]
    pub float_inputs: FloatInputs,
    /// The groups of channels of a transposed convolution whose columns the words have side by side; 1 elsewhere.
    #[serde(default = "one_group", skip_serializing_if = "is_one_group")]
    pub channel_groups: usize,
}

fn one_group() -> usize {
    1
}

fn is_one_group(groups: &usize) -> bool {
    *groups == 1
}

fn f32_weight() -> DType {
    DType::F32
}

fn is_f32(dtype: &DType) -> bool {
    *dtype == DType::F32
}

/// A packed weight as a file has it.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedWords {
    /// What the words mean.
    pub form: PackedForm,
    /// The codes.
    pub words: Vec<u32>,
    /// The scales: f32, or four codes in a word.
    pub scales: Vec<u32>,
    /// The bias of each output, if the quantizer rounds around one.
    pub offsets: Option<Vec<f32>>,
}

#[derive(Clone, Debug)]
enum Scales {
    Ranges(Param<Tensor<1>>),
    Codes(Param<Tensor<1, Int>>),
}

const CONTAINER: &str = "Struct:PackedWeight";

impl PackedWeight {
    /// Whether a weight of this shape can be packed, as far as its values do not matter.
    pub(super) fn check(shape: &[usize], quantizer: &TensorQuantizer) -> Result<(), NotPackedReason> {
        refusal::check(quantizer)?;
        Self::layout(shape, quantizer).map(drop)
    }

    /// How a quantizer has a weight of this shape packed.
    fn layout(shape: &[usize], quantizer: &TensorQuantizer) -> Result<(Matrix, PackedLayout), NotPackedReason> {
        let mut matrix = Matrix::of(shape, quantizer.role)?;
        let groups = matrix.groups(&quantizer.groups(shape))?;
        let &[inputs, outputs] = groups.shape() else { unreachable!("a matrix has two axes") };
        let (config, block) = (&quantizer.config, groups.size(0));
        let layout = PackedLayout::new(inputs, outputs, block, config.format, config.scale).map_err(NotPacked::from)?;
        quantizer.bias_groups(shape).map_or(Ok(()), |groups| matrix.check_bias(&groups))?;
        Ok((matrix, layout))
    }

    /// Packs what a quantizer makes of a weight.
    pub(super) fn pack<const D: usize>(
        weight: Tensor<D>,
        quantizer: &TensorQuantizer,
        float_inputs: FloatInputs,
    ) -> Result<Self, NotPackedReason> {
        refusal::check(quantizer)?;
        let (weight, dtype, shape) = (weight.clone().detach(), weight.dtype(), weight.dims());
        let mut matrix = Matrix::of(&weight.dims(), quantizer.role)?;
        let groups = quantizer.groups(&weight.dims());
        let of_matrix = matrix.groups(&groups)?;
        // a kernel in blocks is rounded as a matrix
        let bias = match (D, groups.shape()) {
            (3.., &[rows, columns]) => quantizer.bias_of(&weight.clone().reshape([rows, columns])),
            _ => quantizer.bias_of(&weight),
        };
        bias.as_ref().map_or(Ok(()), |bias| matrix.check_bias(&bias.groups))?;
        let ranges = matrix.ranges(quantizer.ranges(&weight, &groups, bias.as_ref()), &groups);
        let weight = match &bias {
            Some(bias) if bias.groups.shape().len() == D => bias::subtract(weight, bias.values.clone(), &bias.groups),
            Some(bias) => {
                let [rows, columns] = [0, 1].map(|axis| bias.groups.shape()[axis]);
                let centred = bias::subtract(weight.reshape([rows, columns]), bias.values.clone(), &bias.groups);
                centred.reshape(shape)
            }
            None => weight,
        };
        let spec =
            FakeQuant { format: quantizer.config.format, groups: of_matrix, gradient: GradientRule::PassThrough };
        let offsets = bias.map(|bias| matrix.bias(bias).cast(DType::F32));
        if let Some(offsets) = &offsets {
            check_bias(&offsets.clone().into_data().try_into_vec::<f32>().expect("f32 data"))?;
        }
        let packed = PackedTensor::pack(matrix.of_tensor(weight), ranges, spec)?;
        Ok(Self::new(with_bias(packed, offsets), matrix, dtype, float_inputs))
    }

    /// Makes a weight of words that were read from a file.
    pub(super) fn from_words(
        words: &PackedWords,
        quantizer: &TensorQuantizer,
        device: &Device,
    ) -> Result<Self, NotPackedReason> {
        let PackedWords { form, words, scales, offsets } = words;
        if !quantizer.enabled {
            return Err(NotPackedReason::Disabled);
        }
        refusal::check_form(quantizer)?;
        let (matrix, layout) = Self::layout(&form.shape, quantizer)?;
        let layout = layout.with_global_amax(form.global_amax);
        if form.channel_groups != matrix.channel_groups() {
            let (expected, found) = (matrix.channel_groups(), form.channel_groups);
            return Err(NotPackedReason::ChannelGroups { expected, found });
        }
        let expected = if quantizer.config.bias.is_some() { layout.outputs() } else { 0 };
        let found = offsets.as_ref().map_or(0, Vec::len);
        if found != expected {
            return Err(NotPacked::from(PackError::Length { what: "offsets", expected, found }).into());
        }
        let offsets = match offsets {
            Some(offsets) => {
                check_bias(offsets)?;
                Some(Tensor::from_data(TensorData::new(offsets.clone(), [1, expected]), (device, DType::F32)))
            }
            None => None,
        };
        let packed = with_bias(PackedTensor::from_words(layout, words, scales, device)?, offsets);
        Ok(Self::new(packed, matrix, form.dtype, form.float_inputs))
    }

    fn new(packed: PackedTensor, matrix: Matrix, dtype: DType, float_inputs: FloatInputs) -> Self {
        let constant = |codes| Param::initialized(ParamId::new(), codes);
        let scales = match packed.scales {
            PackedScales::Ranges(ranges) => Scales::Ranges(Param::from_tensor(ranges).set_require_grad(false)),
            PackedScales::Codes(codes) => Scales::Codes(constant(codes)),
        };
        let offsets = packed.offsets.map(|offsets| {
            let values = offsets.values().reshape([packed.layout.outputs()]);
            Param::from_tensor(values).set_require_grad(false)
        });
        let words = Param::initialized(ParamId::new(), packed.words);
        Self { words, scales, offsets, layout: packed.layout, matrix, dtype, float_inputs }
    }

    /// Whether these are the codes of what a quantizer does.
    pub(super) fn is_of(&self, quantizer: &TensorQuantizer) -> bool {
        let layout = Self::layout(self.shape(), quantizer);
        let same = |(matrix, layout): (Matrix, PackedLayout)| {
            matrix == self.matrix && layout.with_global_amax(self.layout.global_amax()) == self.layout
        };
        quantizer.enabled && refusal::check_form(quantizer).is_ok() && layout.is_ok_and(same)
    }

    /// Returns what its words mean, beside the configuration of its quantizer.
    ///
    /// With both, the words of a file are a weight again.
    pub fn form(&self) -> PackedForm {
        let (shape, global_amax) = (self.matrix.shape().to_vec(), self.layout.global_amax());
        let channel_groups = self.matrix.channel_groups();
        PackedForm { shape, global_amax, dtype: self.dtype, float_inputs: self.float_inputs, channel_groups }
    }

    /// Returns the weight as fake quantization left it, f32.
    ///
    /// The rank is that of the parameter.
    pub fn unpack<const D: usize>(&self) -> Tensor<D> {
        self.matrix.to_tensor(self.values(self.packed()))
    }

    /// The values of codes, around their bias.
    fn values(&self, packed: PackedTensor) -> Tensor<2> {
        match (&packed.offsets, self.dtype) {
            (Some(offsets), DType::F16 | DType::BF16) => {
                // the rounded value, the bias and their sum are numbers of the dtype
                let offsets = offsets.values().cast(self.dtype);
                let values = PackedTensor { offsets: None, ..packed }.unpack().cast(self.dtype);
                (values + offsets).cast(DType::F32)
            }
            _ => packed.unpack(),
        }
    }

    /// Returns rows of a table, f32 `[n, features]`: nothing but these is unpacked.
    ///
    /// `None` if the weight is not a table of rows, as that of an embedding is.
    pub fn rows(&self, rows: Tensor<1, Int>) -> Option<Tensor<2>> {
        let [n] = rows.dims();
        if self.matrix.shape().len() != 2 || !self.matrix.has_outputs_first() || n == 0 {
            return None;
        }
        match (&self.offsets, self.dtype) {
            (Some(_), DType::F16 | DType::BF16) => Some(self.values(self.packed().select(rows)).transpose()),
            _ => Some(self.packed().columns(rows)),
        }
    }

    /// Returns the codes and scales as a matrix `[inputs, outputs]`.
    ///
    /// Inputs are what a product sums over.
    pub fn packed(&self) -> PackedTensor {
        let scales = match &self.scales {
            Scales::Ranges(ranges) => PackedScales::Ranges(ranges.val()),
            Scales::Codes(codes) => PackedScales::Codes(codes.val()),
        };
        let packed = PackedTensor { words: self.words.val(), scales, layout: self.layout, offsets: None };
        with_bias(packed, self.offsets.as_ref().map(|offsets| offsets.val().reshape([1, self.layout.outputs()])))
    }

    /// Returns the shape of the weight.
    ///
    /// It is that of the parameter.
    pub fn shape(&self) -> &[usize] {
        self.matrix.shape()
    }

    /// The bias of each output, read from the device.
    fn offsets_on_host(&self) -> Option<Vec<f32>> {
        self.offsets.as_ref().map(|offsets| offsets.val().into_data().try_into_vec().expect("f32 data"))
    }

    /// Returns the bytes of codes, scales and a bias.
    ///
    /// They are all that the weight takes.
    pub fn bytes(&self) -> usize {
        self.layout.bytes() + self.offsets.as_ref().map_or(0, |_| size_of::<f32>() * self.layout.outputs())
    }
}

/// A weight around a bias, f32 `[1, outputs]`.
fn with_bias(packed: PackedTensor, bias: Option<Tensor<2>>) -> PackedTensor {
    let inputs = packed.layout.inputs().max(1);
    match bias {
        Some(bias) => packed.with_offsets(PackedOffsets::new(bias, inputs)),
        None => packed,
    }
}

/// Whether a bias is a number.
fn check_bias(bias: &[f32]) -> Result<(), NotPackedReason> {
    match bias.iter().find(|bias| !bias.is_finite()) {
        Some(found) => Err(NotPackedReason::Bias { found: *found }),
        None => Ok(()),
    }
}

impl TensorQuantizer {
    /// Runs a linear layer whose weight this quantizer holds packed: rounds the input as its quantizer says, multiplies
    /// it with the codes, adds branches of low rank and the bias, rounds the sum as the output's quantizer says, and
    /// applies a function to each element.
    ///
    /// INT8 activations, per token or with one range, are multiplied as integers; others are rounded first. `None` if
    /// the weight is not packed, or the layer is watched: then the product takes the parameter's value.
    pub fn linear<const D: usize>(
        &self,
        [input, output]: [&TensorQuantizer; 2],
        x: &Tensor<D>,
        bias: Option<Tensor<1>>,
        function: Option<Pointwise>,
    ) -> Option<Tensor<D>> {
        let packed = self.packed.as_deref().filter(|_| input.tap.get().is_none())?;
        let weight = packed.packed();
        let factors = self.buffer(Buffer::LowRankDown).zip(self.buffer(Buffer::LowRankUp));
        // where a gradient is wanted, the input's own quantizer rounds it, by its rule
        let activations = activations_of(input).filter(|_| multiplies_integers(&x.device(), packed.layout));
        // what is added to the product, in its pass
        let bias = bias.map(|bias| {
            let mut shape = [1; D];
            shape[D - 1] = bias.dims()[0];
            bias.reshape(shape)
        });
        let addend = [input.low_rank(x), bias].into_iter().flatten().reduce(|sum, next| sum + next);
        let rounding = output.rounding_of_results().filter(|_| is_flex(&x.device()));
        let stays = rounding.is_none() && !output.does_nothing();
        let in_pass = function.filter(|_| !stays);
        let y = match (activations, factors) {
            (Some(activations), None) => {
                let pre_quant_scale = input.buffer(Buffer::PreQuantScale);
                let around = Around { pre_quant_scale, addend, output: rounding, function: in_pass };
                packed_linear_fused(x.clone(), &weight, activations, around)
            }
            (_, factors) => {
                let x = input.forward(x.clone());
                let activations =
                    if input.is_enabled() { Activations::Float } else { packed.float_inputs.activations() };
                let branch = factors.map(|(down, up)| through_factors(x.clone(), down, up));
                let addend = [branch, addend].into_iter().flatten().reduce(|sum, next| sum + next);
                let around = Around { pre_quant_scale: None, addend, output: rounding, function: in_pass };
                packed_linear_fused(x, &weight, activations, around)
            }
        };
        Some(match (stays, function) {
            (false, _) => y,
            (true, None) => output.forward(y),
            (true, Some(function)) => function.apply(output.forward(y)),
        })
    }

    /// Whether [`TensorQuantizer::forward`] gives back what it takes.
    fn does_nothing(&self) -> bool {
        let acts = [Buffer::PreQuantScale, Buffer::LowRankDown].iter().any(|buffer| self.buffer(*buffer).is_some());
        !self.is_enabled() && self.tap.get().is_none() && !acts
    }

    /// What this quantizer does to the result of a layer, if it is to round under one static range, and no more.
    fn rounding_of_results(&self) -> Option<OutputRounding> {
        let config = self.config();
        let plain = self.is_enabled()
            && self.tap.get().is_none()
            && (&config.granularity, config.range) == (&Granularity::PerTensor, RangeSource::Static)
            && config.scale == ScaleFormat::F32
            && !config.has_two_ranges()
            && refusal::check_rounding(self).is_ok()
            && self.buffer(Buffer::PreQuantScale).is_none()
            && self.buffer(Buffer::LowRankDown).is_none();
        let range = self.buffer(Buffer::Amax).filter(|_| plain)?;
        Some(OutputRounding { format: config.format, range, gradient: config.gradient })
    }
}

impl TensorQuantizer {
    /// Runs a convolution whose kernel this quantizer holds packed, and whose input is INT8 with one static range: in
    /// integers, on the CPU.
    ///
    /// `None` if the kernel is not packed, the layer is watched, or something else is needed: then the convolution
    /// takes the parameter's value.
    pub fn convolution<const D: usize>(
        &self,
        input: &TensorQuantizer,
        x: &Tensor<D>,
        bias: Option<Tensor<1>>,
        geometry: PackedConv,
    ) -> Option<Tensor<D>> {
        let packed =
            self.packed.as_deref().filter(|packed| input.tap.get().is_none() && packed.matrix.sums_windows())?;
        if !convolves_integers(&x.device(), packed.layout) || input.buffer(Buffer::LowRankDown).is_some() {
            return None;
        }
        let activations = activations_of(input).filter(|found| matches!(found, Activations::Int8(_)))?;
        Some(packed_conv(input.smoothed(x.clone()), &packed.packed(), bias, &geometry, activations))
    }
}

impl TensorQuantizer {
    /// Runs a transposed convolution whose kernel this quantizer holds packed, and whose input is INT8 with one static
    /// range: in integers, on the CPU.
    ///
    /// `None` if the kernel is not packed, the layer is watched, or something else is needed: then the convolution
    /// takes the parameter's value.
    pub fn convolution_transpose<const D: usize>(
        &self,
        input: &TensorQuantizer,
        x: &Tensor<D>,
        bias: Option<Tensor<1>>,
        geometry: PackedConvTranspose,
    ) -> Option<Tensor<D>> {
        let packed =
            self.packed.as_deref().filter(|packed| input.tap.get().is_none() && !packed.matrix.has_outputs_first())?;
        let integers = convolves_integers(&x.device(), packed.layout);
        let of_groups = geometry.groups() == packed.matrix.channel_groups();
        if !integers || !of_groups || input.buffer(Buffer::LowRankDown).is_some() {
            return None;
        }
        let activations = activations_of(input).filter(|found| matches!(found, Activations::Int8(_)))?;
        Some(packed_conv_transpose(input.smoothed(x.clone()), &packed.packed(), bias, &geometry, activations))
    }
}

/// Codes of 8 bits with their integers, if that is what a quantizer makes of activations, and nothing else.
fn activations_of(input: &TensorQuantizer) -> Option<Activations> {
    let config = input.config();
    let int8 = config.format == Format::Int(IntFormat::signed(8).expect("8 bits"));
    let plain = input.is_enabled() && int8 && refusal::check_rounding(input).is_ok();
    match (plain, &config.granularity, config.range) {
        (true, Granularity::PerToken, RangeSource::Dynamic) => Some(Activations::Int8PerToken),
        (true, Granularity::PerTensor, RangeSource::Static) => input.buffer(Buffer::Amax).map(Activations::Int8),
        _ => None,
    }
}

impl PackedWeight {
    pub(super) fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        visitor.enter_module("words", CONTAINER);
        visitor.visit_int(&self.words);
        visitor.exit_module("words", CONTAINER);
        visitor.enter_module("scales", CONTAINER);
        match &self.scales {
            Scales::Ranges(ranges) => visitor.visit_float(ranges),
            Scales::Codes(codes) => visitor.visit_int(codes),
        }
        visitor.exit_module("scales", CONTAINER);
        if let Some(offsets) = &self.offsets {
            visitor.enter_module("offsets", CONTAINER);
            visitor.visit_float(offsets);
            visitor.exit_module("offsets", CONTAINER);
        }
    }

    pub(super) fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        mapper.enter_module("words", CONTAINER);
        let words = mapper.map_int(self.words);
        mapper.exit_module("words", CONTAINER);
        mapper.enter_module("scales", CONTAINER);
        let scales = match self.scales {
            Scales::Ranges(ranges) => Scales::Ranges(mapper.map_float(ranges)),
            Scales::Codes(codes) => Scales::Codes(mapper.map_int(codes)),
        };
        mapper.exit_module("scales", CONTAINER);
        let offsets = self.offsets.map(|offsets| {
            mapper.enter_module("offsets", CONTAINER);
            let offsets = mapper.map_float(offsets);
            mapper.exit_module("offsets", CONTAINER);
            offsets
        });
        Self { words, scales, offsets, ..self }
    }

    pub(super) fn moved(self, device: &Device) -> Self {
        let scales = match self.scales {
            Scales::Ranges(ranges) => Scales::Ranges(Module::to_device(ranges, device)),
            Scales::Codes(codes) => Scales::Codes(Module::to_device(codes, device)),
        };
        let offsets = self.offsets.map(|offsets| Module::to_device(offsets, device));
        Self { words: Module::to_device(self.words, device), scales, offsets, ..self }
    }

    pub(super) fn fork(self, device: &Device) -> Self {
        let scales = match self.scales {
            Scales::Ranges(ranges) => Scales::Ranges(Module::fork(ranges, device)),
            Scales::Codes(codes) => Scales::Codes(Module::fork(codes, device)),
        };
        let offsets = self.offsets.map(|offsets| Module::fork(offsets, device));
        Self { words: Module::fork(self.words, device), scales, offsets, ..self }
    }

    pub(super) fn collect_devices(&self, devices: Devices) -> Devices {
        let devices = self.words.collect_devices(devices);
        match &self.scales {
            Scales::Ranges(ranges) => ranges.collect_devices(devices),
            Scales::Codes(codes) => codes.collect_devices(devices),
        }
    }

    pub(super) fn valid(&self) -> Self {
        let scales = match &self.scales {
            Scales::Ranges(ranges) => Scales::Ranges(ranges.valid()),
            Scales::Codes(codes) => Scales::Codes(codes.valid()),
        };
        let offsets = self.offsets.as_ref().map(Module::valid);
        let (layout, matrix, dtype, float_inputs) = (self.layout, self.matrix.clone(), self.dtype, self.float_inputs);
        Self { words: self.words.valid(), scales, offsets, layout, matrix, dtype, float_inputs }
    }

    pub(super) fn train(self) -> Self {
        let scales = match self.scales {
            Scales::Ranges(ranges) => Scales::Ranges(Module::train(ranges).set_require_grad(false)),
            Scales::Codes(codes) => Scales::Codes(Module::train(codes)),
        };
        let offsets = self.offsets.map(|offsets| Module::train(offsets).set_require_grad(false));
        Self { words: Module::train(self.words), scales, offsets, ..self }
    }
}

impl fmt::Display for PackedWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "packed in {} bytes", self.bytes())
    }
}
