//! The range with which a learned one begins: twice the mean magnitude, by the square root of the highest code.
//!
//! ```text
//! step = 2 · mean |x| / √hi        amax = hi · step = 2 · mean |x| · √hi
//! ```
//!
//! Source: Esser et al. 2020, "Learned Step Size Quantization", arXiv:1902.08153, §2.1. At 2 to 4 bits it clips what is
//! rare; it is a start for training, not a range to keep. Our choices: an activation whose mean is zero keeps its range
//! by `max`, and so does every quantizer that has no f32 scales.

use burn::tensor::Tensor;
use burn_quant_ops::numerics::{Format, ScaleFormat};

use super::ranges::activation;
use super::{CalibrationAlgorithm, KernelProblem, LayerProblem, SkipReason, Solution, Stage};
use crate::observe::{InputStatistics, Statistics, StatisticsRequest};
use burn_quant_core::config::Granularity;
use burn_quant_core::quantizer::TensorQuantizer;
use burn_quant_core::quantizer::groups::group_sums;
use burn_quant_core::with_rank;

/// The range of a weight by its mean magnitude.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LsqInit;

impl CalibrationAlgorithm for LsqInit {
    fn name(&self) -> &str {
        "lsq_init"
    }

    fn stage(&self) -> Stage {
        Stage::Clip
    }

    fn supports_pointwise(&self) -> bool {
        true
    }

    fn layer(&self, layer: &LayerProblem) -> Result<Solution, SkipReason> {
        let quantizer = of_weight(layer.weight_quantizer(), &layer.native(layer.weight()))?;
        Ok(Solution::new(layer.with_weight_quantizer(quantizer)))
    }

    fn kernel(&self, kernel: &KernelProblem) -> Result<TensorQuantizer, SkipReason> {
        with_rank!(kernel.weight(), weight => of_weight(kernel.quantizer(), &weight))
    }

    fn request(&self, quantizer: &TensorQuantizer) -> Result<StatisticsRequest, SkipReason> {
        let config = activation(quantizer)?;
        let granularity = matches!(config.granularity, Granularity::PerTensor | Granularity::PerChannel);
        if config.scale != ScaleFormat::F32 || !granularity {
            return Err(SkipReason::NotPerTensor);
        }
        Ok(StatisticsRequest::new().with_channels(InputStatistics::Means))
    }

    fn range(&self, quantizer: &TensorQuantizer, seen: &Statistics) -> Result<Vec<f32>, SkipReason> {
        of_activation(quantizer, seen).ok_or(SkipReason::NoGain)
    }
}

/// A quantizer with the ranges of a weight of any rank; it has ranges by `max` already.
fn of_weight<const D: usize>(quantizer: &TensorQuantizer, weight: &Tensor<D>) -> Result<TensorQuantizer, SkipReason> {
    let config = quantizer.config();
    if !config.then.is_empty() {
        return Err(SkipReason::WeightChain);
    }
    if config.bias.is_some() {
        return Err(SkipReason::WeightBias);
    }
    if config.rotation.is_some() {
        return Err(SkipReason::Rotated);
    }
    if !config.has_static_range() || config.scale != ScaleFormat::F32 {
        return Err(SkipReason::DynamicRange);
    }
    let groups = quantizer.range_groups(&weight.dims());
    let (sums, counts) = (group_sums(weight.clone().abs(), &groups), group_sums(weight.ones_like(), &groups));
    let mut found = quantizer.clone();
    found.set_amax(sums / counts * factor(config.format));
    Ok(found)
}

/// The range of an activation, of the tensor or of each channel.
fn of_activation(quantizer: &TensorQuantizer, seen: &Statistics) -> Option<Vec<f32>> {
    let channels = seen.channels.as_ref().filter(|channels| channels.tokens > 0)?;
    let factor = factor(quantizer.config().format);
    let means: Vec<f32> = channels.sum_abs.iter().map(|sum| (*sum as f64 / channels.tokens as f64) as f32).collect();
    let amax: Vec<f32> = match quantizer.config().granularity {
        Granularity::PerChannel => means.into_iter().map(|mean| mean * factor).collect(),
        _ => vec![means.iter().sum::<f32>() / means.len() as f32 * factor],
    };
    amax.iter().all(|amax| *amax > 0.0).then_some(amax)
}

/// `2 √hi`
fn factor(format: Format) -> f32 {
    2.0 * format.max().sqrt()
}
