//! Statistics -> the range of every quantizer by `max`, and which activations can have another.

use burn::tensor::{Device, Tensor};

use super::{SkipReason, affine, max};
use crate::config::HistogramConfig;
use crate::observe::{Statistics, StatisticsRequest};
use burn_quant_core::config::{Granularity, QuantizerConfig, RangeSource};
use burn_quant_core::error::{InvalidConfig, QuantError};
use burn_quant_core::quantizer::{Buffer, TensorQuantizer};
use burn_quant_ops::numerics::ScaleFormat;

/// Sets the ranges, and the bias, of one stage of a quantizer.
pub(super) fn set_ranges(
    stage: &mut TensorQuantizer,
    name: &str,
    seen: &Statistics,
    device: &Device,
) -> Result<(), QuantError> {
    let tensor = |values: &[f32]| Tensor::<1>::from_data(values, device);
    let amax = match (&seen.bias, &stage.config().bias) {
        (Some(bias), Some(config)) => {
            let of_other_groups = |found| QuantError::GroupsChanged { name: name.into(), expected: found, found: 0 };
            let problem = |problem| QuantError::Config { name: name.into(), problem };
            if let Granularity::Axes(axes) = &config.granularity
                && axes.len() != bias.extent.len()
            {
                let (expected, found) = (axes.len(), bias.extent.len());
                return Err(problem(InvalidConfig::Rank { expected, found }));
            }
            let biases = stage.bias_groups(&bias.extent).expect("a bias has groups");
            if biases.len() != bias.means.len() || bias.extent.iter().product::<usize>() != bias.lowest.len() {
                return Err(of_other_groups(bias.means.len()));
            }
            let ranges = stage.range_groups(&bias.extent);
            let (bias, amax) = affine(bias, seen.calls, config.method, &biases, &ranges);
            stage.set_buffer(Buffer::Bias, tensor(&bias));
            amax
        }
        _ => max(seen),
    };
    if stage.config().has_static_range() && !amax.is_empty() {
        stage.set_amax(tensor(&amax));
        if stage.has_static_blocks() {
            stage.set_buffer(Buffer::GlobalAmax, tensor(&[amax.iter().copied().fold(0.0, f32::max)]));
        }
    }
    Ok(())
}

/// The configuration of an activation quantizer whose range a single number per group is, found in calibration.
///
/// # Errors
///
/// Why it has no such range.
pub(super) fn activation(quantizer: &TensorQuantizer) -> Result<&QuantizerConfig, SkipReason> {
    let config = quantizer.config();
    if config.range != RangeSource::Static || !config.has_static_range() {
        return Err(SkipReason::DynamicRange);
    }
    if !config.then.is_empty() {
        return Err(SkipReason::InputChain);
    }
    if config.bias.is_some() {
        return Err(SkipReason::InputGranularity);
    }
    Ok(config)
}

/// The same, of one range for the whole tensor and f32 scales.
fn per_tensor(quantizer: &TensorQuantizer) -> Result<&QuantizerConfig, SkipReason> {
    let config = activation(quantizer)?;
    let whole = config.granularity == Granularity::PerTensor && config.scale == ScaleFormat::F32;
    if whole { Ok(config) } else { Err(SkipReason::NotPerTensor) }
}

/// A histogram, for an algorithm that finds the range of a whole tensor.
///
/// # Errors
///
/// As [`per_tensor`].
pub(super) fn histogram(
    quantizer: &TensorQuantizer,
    histogram: HistogramConfig,
) -> Result<StatisticsRequest, SkipReason> {
    per_tensor(quantizer).map(|_| StatisticsRequest::new().with_histogram(histogram))
}
