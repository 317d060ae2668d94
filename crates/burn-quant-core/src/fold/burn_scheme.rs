//! Handing quantized weights over to burn's own quantization: tensors of burn's dtype `QFloat`.
//!
//! ```text
//! weight, ranges ──► folded weight, scale = amax / max ──► codes = rne(weight / scale), which are the codes it has
//! ```

use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::tensor::quantization::{QuantScheme, QuantStore, QuantValue, QuantizationParameters, ScaleDtype};
use burn::tensor::{DType, Device, Tensor};
use burn_quant_ops::numerics::{Format, IntSpan, MIN_AMAX, ScaleFormat, Signedness};
use burn_quant_ops::{Groups, group_amax};

use super::fold_weights;
use crate::config::RangeSource;
use crate::error::{NoSchemeReason, QuantError};
use crate::model::{Map, ModelIndex, Path, map};
use crate::quantizer::{Buffer, TensorQuantizer, packed};

/// Folds a model, and hands its quantized weights over to burn's own quantization: they become tensors of burn's dtype
/// `QFloat`, with the codes and the scales that they have here.
///
/// What of burn takes quantized tensors takes such weights, and burn saves them. burn unpacks a weight whenever it is
/// used; [`compress`](crate::compress::compress()) makes models that are fast. Activation quantizers stay, as
/// [`fold_weights`] leaves them. Values are read back once, and compared.
///
/// In burn 0.22.1, reshaping a tensor that is quantized in blocks quantizes it anew, and its linear layer reshapes its
/// weight. A scale for each channel is a block too. Products of such weights are exact by `matmul`, and off by steps of
/// the format in that layer; those with one scale are exact in both. FP8 and FP4 are rounded to integers by burn's CPU
/// backend, which is found out here.
///
/// # Errors
///
/// [`QuantError::NoBurnScheme`] with the first weight that burn's quantization does not hold, and the reason: burn has
/// scales for a tensor and for blocks of at most 255 elements along an axis, which divide it. Those of
/// [`fold_weights`].
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::tensor::{DType, Device, Tensor};
/// use burn_quant::fold::{fold_to_burn_scheme, fold_weights};
/// use burn_quant::nn::LinearConfig;
/// use burn_quant::{QuantConfig, QuantizerConfig, Rule, quantize_weights};
///
/// let config = QuantConfig::new().with_rule(Rule::set("weight_quantizer", QuantizerConfig::int(4).per_block(32)));
/// let (layer, _) = quantize_weights(LinearConfig::new(64, 8).init(&Device::flex()), &config)?;
/// let (burns, folded) = (fold_to_burn_scheme(layer.clone())?, fold_weights(layer)?);
/// assert!(matches!(burns.weight.val().dtype(), DType::QFloat(_)));
/// let difference = burns.weight.val().dequantize() - folded.weight.val();
/// assert!(difference.abs().max().into_scalar::<f32>() < 1e-6);
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn fold_to_burn_scheme<M: Module>(model: M) -> Result<M, QuantError> {
    let index = ModelIndex::of(&model);
    let mut plan = BTreeMap::new();
    for weight in index.parameters() {
        let Some(quantizer) = index.quantizers.find(&weight.quantizer).filter(|quantizer| quantizer.is_enabled())
        else {
            continue;
        };
        let store = weight.device.settings().quantization.scheme.store;
        let scheme = Scheme::of(quantizer, &weight.shape, store, &weight.device);
        let scheme = scheme.map_err(|reason| QuantError::NoBurnScheme { path: weight.path.clone(), reason })?;
        plan.insert(weight.path.clone(), scheme);
    }
    drop(index);
    let mut handing = HandOver { plan, error: None };
    let model = map(fold_weights(model)?, &mut handing);
    match handing.error {
        Some((path, reason)) => Err(QuantError::NoBurnScheme { path, reason }),
        None => Ok(model),
    }
}

/// How burn holds a weight.
struct Scheme {
    scheme: QuantScheme,
    groups: Groups,
    /// The ranges, unless they are those of the values.
    amax: Option<Tensor<1>>,
    /// The largest number of the format.
    max: f32,
}

impl Scheme {
    fn of(
        quantizer: &TensorQuantizer,
        shape: &[usize],
        store: QuantStore,
        device: &Device,
    ) -> Result<Self, NoSchemeReason> {
        if quantizer.packed().is_some() {
            return Err(NoSchemeReason::Packed);
        }
        if quantizer.is_uncalibrated() {
            return Err(NoSchemeReason::Uncalibrated);
        }
        packed::more_than_rounding(quantizer).map_or(Ok(()), |what| Err(NoSchemeReason::MoreThanRounding { what }))?;
        let config = quantizer.config();
        let value = match (config.format, config.scale) {
            (Format::Int(format), ScaleFormat::F32) if format.signedness() == Signedness::Signed => {
                match (format.bits(), format.span()) {
                    (8, IntSpan::Full) => Some(QuantValue::Q8F),
                    (8, IntSpan::Narrow) => Some(QuantValue::Q8S),
                    (4, IntSpan::Full) => Some(QuantValue::Q4F),
                    (4, IntSpan::Narrow) => Some(QuantValue::Q4S),
                    (2, IntSpan::Full) => Some(QuantValue::Q2F),
                    (2, IntSpan::Narrow) => Some(QuantValue::Q2S),
                    _ => None,
                }
            }
            (Format::E4M3, ScaleFormat::F32) => Some(QuantValue::E4M3),
            (Format::E5M2, ScaleFormat::F32) => Some(QuantValue::E5M2),
            (Format::E2M1, ScaleFormat::F32) => Some(QuantValue::E2M1),
            _ => None,
        };
        let value = value.ok_or_else(|| NoSchemeReason::Format {
            format: format!("{} with scales in {}", config.format, config.scale),
        })?;
        let groups = quantizer.groups(shape);
        let block: Vec<usize> = (0..groups.shape().len()).map(|axis| groups.size(axis)).collect();
        let scheme = QuantScheme::default().with_store(store).with_value(value);
        let scheme = if groups.len() == 1 {
            scheme.per_tensor(ScaleDtype::F32)
        } else {
            let divided = groups.shape() == shape && shape.iter().zip(&block).all(|(len, block)| len % block == 0);
            let bytes: Option<Vec<u8>> = block.iter().map(|block| u8::try_from(*block).ok()).collect();
            let Some(bytes) = bytes.filter(|_| divided) else {
                return Err(NoSchemeReason::Blocks { shape: groups.shape().to_vec(), block });
            };
            let together = 32 / value.size_bits();
            if matches!(store, QuantStore::PackedU32(_)) && !block[block.len() - 1].is_multiple_of(together) {
                return Err(NoSchemeReason::PackedBlocks { together, block });
            }
            scheme.per_block(bytes, ScaleDtype::F32)
        };
        let amax = match config.range {
            RangeSource::Static => quantizer.buffer(Buffer::Amax).map(Tensor::without_autodiff),
            RangeSource::Dynamic => None,
            RangeSource::Constant(amax) => Some(Tensor::full([groups.len()], amax, (device, DType::F32))),
        };
        Ok(Self { scheme, groups, amax, max: config.format.max() })
    }
}

struct HandOver {
    plan: BTreeMap<String, Scheme>,
    error: Option<(String, NoSchemeReason)>,
}

impl Map for HandOver {
    fn parameter<const D: usize>(&mut self, at: &Path, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let path = at.joined();
        let Some(scheme) = self.plan.remove(&path).filter(|_| self.error.is_none()) else { return param };
        let Scheme { scheme, groups, amax, max } = scheme;
        let weight = param.val().without_autodiff();
        let device = weight.device();
        // what the weight was rounded to when it was folded
        let tolerance = if weight.dtype() == DType::F16 { 1e-3 } else { 1e-6 };
        let weight = weight.cast(DType::F32);
        let amax = amax.map_or_else(|| group_amax(weight.clone(), &groups), |amax| amax.to_device(&device));
        // a group of zeros
        let scales = (amax.clone() / max).mask_fill(amax.lower_equal_elem(MIN_AMAX), 1.0);
        let quantized = weight.clone().quantize(&scheme, QuantizationParameters { scales, global: None });
        let values = |tensor: Tensor<D>| {
            let data = tensor.try_into_data().map_err(|e| NoSchemeReason::Device { problem: e.to_string() })?;
            Ok(data.convert::<f32>().iter::<f32>().collect::<Vec<f32>>())
        };
        let (expected, found) = match (values(weight), values(quantized.clone().dequantize())) {
            (Ok(expected), Ok(found)) => (expected, found),
            (Err(reason), _) | (_, Err(reason)) => {
                self.error = Some((path, reason));
                return param;
            }
        };
        let close = |(expected, found): &(&f32, &f32)| (**expected - **found).abs() <= tolerance * expected.abs();
        if let Some((expected, found)) = expected.iter().zip(&found).find(|pair| !close(pair)) {
            self.error = Some((path, NoSchemeReason::Values { expected: *expected, found: *found }));
            return param;
        }
        param.set_require_grad(false).map(|_| quantized)
    }
}
