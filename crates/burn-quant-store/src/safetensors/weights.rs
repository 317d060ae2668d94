//! How each quantized weight is stored, and why: what `burn-quant.weights` says.

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::{DType, Tensor, TensorData};
use burn_quant_core::compress::{FloatInputs, PackedForm, WeightCodes};
use burn_quant_core::config::ScaleFormat;
use burn_quant_core::model::{Path, Quantizers, Visit, visit};
use burn_quant_core::quantizer::TensorQuantizer;
use burn_quant_numerics::{BlockScale, Format};
use serde::{Deserialize, Serialize};

/// What the metadata says of a quantized weight.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "stored", rename_all = "snake_case")]
pub(super) enum StoredWeight {
    /// The codes of a packed model, which stay codes.
    Packed(CodesForm),
    /// The codes of a fake-quantized model, which become floats again.
    Codes(CodesForm),
    /// Floats as the quantizer left them, for want of a packed form.
    Rounded {
        /// The name of the quantizer.
        quantizer: String,
    },
    /// Floats as they came to the quantizer, which would change rounded ones once more.
    Unrounded {
        /// The name of the quantizer.
        quantizer: String,
    },
}

/// What codes mean.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct CodesForm {
    /// The name of the quantizer, whose configuration is in the plan.
    pub(super) quantizer: String,
    /// The number format of a code: `int4`, `e2m1`.
    elements: String,
    /// Bits of a code.
    bits: u8,
    /// Elements that share a scale, along each axis; of blocks of a kernel, along those of `[out, in·k…]`.
    group: Vec<usize>,
    /// What a packed weight says of itself.
    #[serde(flatten)]
    pub(super) form: PackedForm,
}

impl CodesForm {
    /// The form that a quantizer gives a weight, whose packed form was checked.
    pub(super) fn new(name: &str, quantizer: &TensorQuantizer, form: &PackedForm) -> Self {
        let (format, groups) = (quantizer.config().format, quantizer.groups(&form.shape));
        Self {
            quantizer: name.into(),
            elements: format.to_string(),
            bits: format.bits(),
            group: (0..groups.counts().len()).map(|axis| groups.size(axis)).collect(),
            form: form.clone(),
        }
    }
}

/// A quantized weight of a model as it is written.
pub(super) struct Weight {
    /// The name of its quantizer.
    pub(super) name: String,
    pub(super) quantizer: TensorQuantizer,
    pub(super) values: Values,
}

/// What is written of a weight.
pub(super) enum Values {
    /// The codes of a packed model.
    Packed(WeightCodes),
    /// The codes of a fake-quantized one.
    Codes(WeightCodes),
    /// Rounded floats.
    Rounded(TensorData),
    /// The floats of the parameter.
    Unrounded,
}

impl Weight {
    /// What the metadata says of it.
    pub(super) fn stored(&self) -> StoredWeight {
        let form = |codes: &WeightCodes| CodesForm::new(&self.name, &self.quantizer, &codes.form);
        match &self.values {
            Values::Packed(codes) => StoredWeight::Packed(form(codes)),
            Values::Codes(codes) => StoredWeight::Codes(form(codes)),
            Values::Rounded(_) => StoredWeight::Rounded { quantizer: self.name.clone() },
            Values::Unrounded => StoredWeight::Unrounded { quantizer: self.name.clone() },
        }
    }
}

/// The weights of a model whose quantizers are on, by path.
pub(super) fn weights_of<M: Module>(model: &M) -> BTreeMap<String, Weight> {
    let mut weights = Weights { quantizers: Quantizers::of(model), found: BTreeMap::new() };
    visit(model, &mut weights);
    weights.found
}

struct Weights {
    quantizers: Quantizers,
    found: BTreeMap<String, Weight>,
}

impl Visit for Weights {
    fn parameter<const D: usize>(&mut self, at: &Path, param: &Param<Tensor<D>>) {
        let name = at.weight_quantizer_name();
        let Some(quantizer) = self.quantizers.find(&name) else { return };
        let values = match WeightCodes::of(quantizer) {
            Some(codes) => Values::Packed(codes),
            None if quantizer.is_enabled() => values_of(param.base(), quantizer),
            None => return,
        };
        let quantizer = quantizer.clone();
        self.found.insert(at.joined(), Weight { name, quantizer, values });
    }
}

/// What is written of a fake-quantized weight: the smallest from which its quantizer makes the same values again.
///
/// That is tried out. A quantizer may change what it has rounded: one that rotates, or takes its range from the data.
fn values_of<const D: usize>(weight: Tensor<D>, quantizer: &TensorQuantizer) -> Values {
    let config = quantizer.config();
    // scales that are found in the data, and rounded: whether they are found again depends on the device
    let refound = config.scale == ScaleFormat::E4M3(BlockScale::Dynamic) && config.format != Format::E2M1;
    if quantizer.is_uncalibrated() || refound {
        return Values::Unrounded;
    }
    let value = quantizer.forward(weight.clone().detach()).detach();
    let rounded = value.clone().into_data();
    if !are_equal(&quantizer.forward(value).into_data(), &rounded) {
        return Values::Unrounded;
    }
    let packed = quantizer.packing(weight, FloatInputs::Exact);
    let codes = packed.ok().and_then(|packed| WeightCodes::of(&packed));
    let decoded = |codes: &WeightCodes| {
        let values = codes.values(quantizer).ok()?;
        Some(floats(values, codes.form.shape.clone(), rounded.dtype()))
    };
    match codes {
        Some(codes) if decoded(&codes).is_some_and(|decoded| are_equal(&decoded, &rounded)) => Values::Codes(codes),
        _ => Values::Rounded(rounded),
    }
}

/// Floats of a dtype.
pub(super) fn floats(values: Vec<f32>, shape: Vec<usize>, dtype: DType) -> TensorData {
    TensorData::new(values, shape).convert_dtype(dtype)
}

/// Whether values are equal bit for bit, but for the sign of zero.
fn are_equal(a: &TensorData, b: &TensorData) -> bool {
    a.dtype() == b.dtype() && a.iter::<f64>().eq(b.iter::<f64>())
}
