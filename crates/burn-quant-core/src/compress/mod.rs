//! Codes in the place of floats: a quantized model becomes a packed one, and back.
//!
//! ```text
//! weight, quantizer ──pack──► codes, scales        the parameter is a view of one zero
//!                   ◄─unpack─                      the float weight is the quantized one
//! ```

use std::collections::{BTreeMap, BTreeSet};

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor};

pub use crate::quantizer::packed::{
    FloatInputs, PackedForm, PackedTokens, PackedWeight, PackedWords, TokenCodec, WeightCodes,
};

use crate::error::{NotPackedReason, QuantError};
use crate::fold::fold_weights;
use crate::layout::burn_layer_name;
use crate::model::{Map, ModelIndex, Path, layer_of, map, within};
use crate::quantizer::TensorQuantizer;

/// What becomes of weights that have no packed form.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum WithoutPackedForm {
    /// Nothing is packed, and the first of them is the error.
    #[default]
    Refuse,
    /// They stay fake-quantized, and are listed in the report.
    Keep,
}

/// How a model is packed.
///
/// # Example
///
/// ```
/// use burn_quant::compress::{CompressOptions, FloatInputs};
///
/// let fast = CompressOptions::new().with_float_inputs(FloatInputs::Int15);
/// assert_ne!(fast, CompressOptions::default()); // which is exact
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CompressOptions {
    without_packed_form: WithoutPackedForm,
    float_inputs: FloatInputs,
}

impl CompressOptions {
    /// Creates the options that [`compress()`] has: every quantized weight has a packed form, and inputs that are not
    /// rounded are multiplied as floats.
    ///
    /// Each `with_` method changes one.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what becomes of weights that have no packed form.
    ///
    /// By default they are an error.
    pub fn with_weights_without_packed_form(self, without_packed_form: WithoutPackedForm) -> Self {
        Self { without_packed_form, ..self }
    }

    /// Sets what packed linear layers do with inputs that are not rounded.
    ///
    /// By default they are multiplied as floats.
    pub fn with_float_inputs(self, float_inputs: FloatInputs) -> Self {
        Self { float_inputs, ..self }
    }
}

impl From<WithoutPackedForm> for CompressOptions {
    fn from(without_packed_form: WithoutPackedForm) -> Self {
        Self { without_packed_form, ..Self::default() }
    }
}

/// What was packed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CompressReport {
    /// Bytes of each packed weight, by path.
    pub packed: BTreeMap<String, usize>,
    /// Weights that stay fake-quantized, by path, with the reason.
    pub kept: BTreeMap<String, NotPackedReason>,
    /// Packed weights of other layers than those of `burn_quant::nn`: each is unpacked at every use of it.
    pub unpacked_at_use: BTreeSet<String>,
    /// Bytes that the packed weights took as f32.
    pub float_bytes: usize,
}

/// How many weights a report names in one line.
const NAMED: usize = 3;

impl CompressReport {
    /// Returns the bytes of all packed weights.
    ///
    /// Codes and scales.
    pub fn packed_bytes(&self) -> usize {
        self.packed.values().sum()
    }
}

impl std::fmt::Display for CompressReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.packed.is_empty() && self.kept.is_empty() {
            return f.write_str("no weight was packed: none is quantized, or those that are were packed before");
        }
        for (path, why) in &self.kept {
            writeln!(f, "`{path}` stays fake-quantized: {why}")?;
        }
        let (packed, float) = (self.packed_bytes(), self.float_bytes);
        let share = 100.0 * packed as f64 / float.max(1) as f64;
        write!(f, "{} weights packed: {packed} bytes, {share:.1} % of {float} in f32", self.packed.len())?;
        if self.unpacked_at_use.is_empty() {
            return Ok(());
        }
        let count = self.unpacked_at_use.len();
        let names: Vec<&str> = self.unpacked_at_use.iter().map(String::as_str).take(NAMED).collect();
        let more = if count > NAMED { format!(" and {} more", count - NAMED) } else { String::new() };
        write!(
            f,
            "\n{count} of them unpacked at every use, as only layers of `burn_quant::nn` multiply codes: `{}`{more}",
            names.join("`, `")
        )
    }
}

/// Packs the weights of a quantized model: codes and scales take the place of floats.
///
/// Outputs are those of the quantized model, but for the order of f32 sums and the rounding of scales. Of
/// `burn_quant::nn`, linear layers and all that is built of them multiply with the codes, on the CPU convolutions too
/// if their input is INT8 with one static range, and embeddings unpack only the rows that are asked for. Layers of
/// `burn::nn`, and everything else, unpack the whole weight at every call, which saves memory and costs time. A weight
/// whose quantizer is off stays in float. The codes are those of fake quantization, bit for bit, and [`decompress`]
/// returns its values.
///
/// # Errors
///
/// [`QuantError::NotPacked`] with the first weight that has no packed form, and the reason; see [`compress_with`].
///
/// # Source
///
/// ModelOpt 0.47, `compress`.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::tensor::{Device, Tensor};
/// use burn_quant::nn::LinearConfig;
/// use burn_quant::{compress, presets, quantize_weights};
///
/// let device = Device::flex();
/// let (layer, _) = quantize_weights(LinearConfig::new(256, 64).init(&device), &presets::int8_weight_only())?;
/// let (packed, report) = compress(layer.clone())?;
/// assert_eq!(report.packed_bytes(), 256 * 64 + 64 * 4); // a byte for each weight, a scale for each output
/// let x = Tensor::<2>::ones([1, 256], &device);
/// let (y, expected) = (packed.forward(x.clone()), layer.forward(x));
/// assert!((y - expected).abs().max().into_scalar::<f32>() < 1e-4);
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn compress<M: Module>(model: M) -> Result<(M, CompressReport), QuantError> {
    compress_with(model, CompressOptions::default())
}

/// Does what [`compress()`] does, and says what becomes of weights that have no packed form, or of inputs that are not
/// rounded.
///
/// # Errors
///
/// Those of [`compress()`]; none for weights without a packed form if they are kept.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::tensor::Device;
/// use burn_quant::compress::{WithoutPackedForm, compress_with};
/// use burn_quant::nn::LinearConfig;
/// use burn_quant::{QuantConfig, QuantError, QuantizerConfig, Rule, compress, quantize_weights};
///
/// let twice = QuantizerConfig::int(8).then(QuantizerConfig::e4m3()); // rounds to one grid, and then to another
/// let config = QuantConfig::new().with_rule(Rule::set("*weight_quantizer", twice));
/// let (layer, _) = quantize_weights(LinearConfig::new(8, 4).init(&Device::flex()), &config)?;
/// assert!(matches!(compress(layer.clone()), Err(QuantError::NotPacked { .. })));
/// let (_, report) = compress_with(layer, WithoutPackedForm::Keep)?;
/// assert!(report.kept.contains_key("weight"));
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn compress_with<M: Module>(
    model: M,
    options: impl Into<CompressOptions>,
) -> Result<(M, CompressReport), QuantError> {
    let options = options.into();
    let index = ModelIndex::of(&model);
    let mut plan = BTreeMap::new();
    // ours have a quantizer after them
    let multiplies_codes = |path: &str| {
        let output = index.quantizers.container_of(&within(layer_of(path), "output_quantizer"));
        output.is_some_and(|container| burn_layer_name(container) != container)
    };
    let mut others = BTreeSet::new();
    let mut report = CompressReport::default();
    for weight in index.parameters() {
        let Some(quantizer) = index.quantizers.find(&weight.quantizer) else { continue };
        if !quantizer.is_enabled() || quantizer.packed().is_some() {
            continue;
        }
        match (quantizer.check_packing(&weight.shape), options.without_packed_form) {
            (Ok(()), _) => {
                if !multiplies_codes(&weight.path) {
                    others.insert(weight.path.clone());
                }
                plan.insert(weight.path.clone(), quantizer.clone());
            }
            (Err(reason), WithoutPackedForm::Keep) => _ = report.kept.insert(weight.path.clone(), reason),
            (Err(reason), WithoutPackedForm::Refuse) => {
                return Err(QuantError::NotPacked { path: weight.path.clone(), reason });
            }
        }
    }
    drop(index);
    let mut pack = Pack { plan, options, packed: BTreeMap::new(), report, error: None };
    let model = map(model, &mut pack);
    match pack.error {
        Some((path, reason)) => Err(QuantError::NotPacked { path, reason }),
        None => {
            others.retain(|path| pack.report.packed.contains_key(path));
            Ok((model, CompressReport { unpacked_at_use: others, ..pack.report }))
        }
    }
}

/// Unpacks the weights of a packed model into floats: the values of fake quantization, with factors of low rank added,
/// as [`fold_weights`] leaves them. Activation quantizers stay; the floats from before rounding are gone.
///
/// # Errors
///
/// Those of [`fold_weights`].
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::tensor::Device;
/// use burn_quant::compress::decompress;
/// use burn_quant::nn::LinearConfig;
/// use burn_quant::{compress, fold_weights, presets, quantize_weights};
///
/// let (layer, _) =
///     quantize_weights(LinearConfig::new(8, 4).init(&Device::flex()), &presets::int8_weight_only())?;
/// let (packed, _) = compress(layer.clone())?;
/// let (unpacked, folded) = (decompress(packed)?, fold_weights(layer)?);
/// assert_eq!(unpacked.weight.to_data(), folded.weight.to_data());
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn decompress<M: Module>(model: M) -> Result<M, QuantError> {
    fold_weights(model)
}

/// Packs weights one after the other, and lets go of each float before the next.
struct Pack {
    /// The quantizers of weights that are packed, by the path of the weight.
    plan: BTreeMap<String, TensorQuantizer>,
    options: CompressOptions,
    /// The quantizers of weights that were, by name, until they take their place.
    packed: BTreeMap<String, TensorQuantizer>,
    report: CompressReport,
    error: Option<(String, NotPackedReason)>,
}

impl Map for Pack {
    fn parameter<const D: usize>(&mut self, at: &Path, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = at.joined();
        let Some(quantizer) = self.plan.remove(&path).filter(|_| self.error.is_none()) else { return param };
        let packing = quantizer.packing(param.base(), self.options.float_inputs);
        let quantizer = match (packing, self.options.without_packed_form) {
            (Ok(quantizer), _) => quantizer,
            (Err(reason), WithoutPackedForm::Keep) => {
                self.report.kept.insert(path, reason);
                return param;
            }
            (Err(reason), WithoutPackedForm::Refuse) => {
                self.error = Some((path, reason));
                return param;
            }
        };
        let bytes = quantizer.packed().map_or(0, PackedWeight::bytes);
        self.report.packed.insert(path, bytes);
        self.report.float_bytes += 4 * param.base().shape().num_elements();
        self.packed.insert(at.weight_quantizer_name(), quantizer);
        placeholder(param, None)
    }

    fn quantizer(&mut self, at: &Path, quantizer: TensorQuantizer) -> TensorQuantizer {
        self.packed.remove(&at.quantizer_name()).unwrap_or(quantizer)
    }
}

/// What stands for a parameter whose values are codes: a view of one zero.
fn placeholder<const D: usize>(param: Param<Tensor<D>>, dtype: Option<DType>) -> Param<Tensor<D>> {
    param.set_require_grad(false).map(|weight| {
        let (shape, dtype) = (weight.dims(), dtype.unwrap_or(weight.dtype()));
        Tensor::<D>::zeros([1; D], (&weight.device(), dtype)).expand(shape)
    })
}

/// Gives a model packed weights that were read from a file, by the names of their quantizers, which it has.
///
/// Weights that the model holds in float there are let go.
///
/// # Errors
///
/// [`QuantError::UnknownQuantizer`] if the model lacks one of them, [`QuantError::NotPacked`] if words are not those of
/// a weight that its quantizer rounds, and [`QuantError::Packed`] if weights of the model are packed already.
pub fn hold_words<M: Module>(model: M, words: BTreeMap<String, PackedWords>) -> Result<M, QuantError> {
    let index = ModelIndex::lazy_of(&model);
    index.refuse_packed()?;
    let mut hold = Hold::default();
    for (name, words) in words {
        let quantizer = index.quantizers.get(&name)?;
        let device = index.device_of(&name).unwrap_or_default();
        let path = index.weight_of(&name).map_or(&name, |weight| &weight.path).clone();
        let holding = quantizer.holding_words(&words, &device);
        let holding = holding.map_err(|reason| QuantError::NotPacked { path: path.clone(), reason })?;
        hold.quantizers.insert(name, holding);
        hold.weights.insert(path, words.form.dtype);
    }
    drop(index);
    Ok(map(model, &mut hold))
}

/// Puts quantizers with packed weights in their places, and placeholders in those of the weights.
#[derive(Default)]
struct Hold {
    quantizers: BTreeMap<String, TensorQuantizer>,
    /// The weights with their dtypes.
    weights: BTreeMap<String, DType>,
}

impl Map for Hold {
    fn parameter<const D: usize>(&mut self, at: &Path, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        match self.weights.get(&at.joined()) {
            Some(dtype) => placeholder(param, Some(*dtype)),
            None => param,
        }
    }

    fn quantizer(&mut self, at: &Path, quantizer: TensorQuantizer) -> TensorQuantizer {
        self.quantizers.remove(&at.quantizer_name()).unwrap_or(quantizer)
    }
}

/// Returns the forms of the packed weights of a model, by the names of their quantizers.
///
/// With the plan and the words they are all of a packed model.
pub fn packed_forms<M: Module>(model: &M) -> BTreeMap<String, PackedForm> {
    let index = ModelIndex::lazy_of(model);
    let form = |(name, quantizer): (&str, &TensorQuantizer)| Some((name.to_string(), quantizer.packed()?.form()));
    index.quantizers.iter().filter_map(form).collect()
}

/// Returns a model for burn's record, in which what stands for packed weights takes no room: its shape is lost.
pub fn for_record<M: Module>(model: M) -> M {
    struct Shrink(BTreeSet<String>);
    impl Map for Shrink {
        fn parameter<const D: usize>(&mut self, at: &Path, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if !self.0.contains(&at.weight_quantizer_name()) {
                return param;
            }
            param.map(|weight| Tensor::zeros([1; D], (&weight.device(), weight.dtype())))
        }
    }
    let packed: BTreeSet<String> = packed_forms(&model).into_keys().collect();
    if packed.is_empty() { model } else { map(model, &mut Shrink(packed)) }
}
