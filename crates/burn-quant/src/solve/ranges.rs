//! Statistics -> the range of every quantizer: by `max`, and of activations by what the algorithm says.

use burn::tensor::{Device, Tensor};

use super::{
    SkipReason, activation_headroom, affine, entropy, histogram_mse, max, mean_magnitude, moving_average, percentile,
};
use crate::{
    Algorithm, BlockScale, Buffer, Format, Granularity, InvalidConfig, QuantError, Range, ScaleFormat, Statistics,
    TensorQuantizer,
};

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

/// Whether an algorithm finds the ranges of activations, and of this one.
pub(super) fn suits(algorithm: &Algorithm, quantizer: &TensorQuantizer) -> Result<(), SkipReason> {
    let config = quantizer.config();
    if config.range != Range::Static || !config.has_static_range() {
        return Err(SkipReason::DynamicRange);
    }
    if !config.then.is_empty() {
        return Err(SkipReason::InputChain);
    }
    if config.bias.is_some() {
        return Err(SkipReason::InputGranularity);
    }
    let per_tensor = config.granularity == Granularity::PerTensor && config.scale == ScaleFormat::F32;
    let nvfp4 = config.format == Format::E2M1 && config.scale == ScaleFormat::E4M3(BlockScale::Dynamic);
    match algorithm {
        Algorithm::ActivationHeadroom { .. } if !nvfp4 => Err(SkipReason::NotNvfp4),
        Algorithm::ActivationHeadroom { .. } | Algorithm::MovingAverage { .. } => Ok(()),
        Algorithm::MeanMagnitude
            if config.scale == ScaleFormat::F32 && config.granularity == Granularity::PerChannel =>
        {
            Ok(())
        }
        _ if !per_tensor => Err(SkipReason::NotPerTensor),
        Algorithm::Entropy { .. } if !matches!(config.format, Format::Int(_)) => Err(SkipReason::NotInteger),
        _ => Ok(()),
    }
}

/// Whether an algorithm finds ranges of activations, and nothing of layers but their mean magnitude.
pub(super) fn is_of_activations(algorithm: &Algorithm) -> bool {
    matches!(
        algorithm.unrestricted(),
        Algorithm::MeanMagnitude
            | Algorithm::Percentile { .. }
            | Algorithm::Entropy { .. }
            | Algorithm::HistogramMse { .. }
            | Algorithm::MovingAverage { .. }
            | Algorithm::ActivationHeadroom { .. }
    )
}

/// The range of an activation by an algorithm that [suits] it; `None` if nothing but zeros, or too little, was seen.
pub(super) fn activation_range(
    algorithm: &Algorithm,
    quantizer: &TensorQuantizer,
    name: &str,
    seen: &Statistics,
) -> Result<Option<Vec<f32>>, QuantError> {
    let missing = |missing| QuantError::MissingStatistics { name: name.into(), missing };
    let histogram = || seen.histogram.as_ref().ok_or(missing("histogram"));
    let one = |amax: f32| vec![amax];
    // a range of zero rounds everything to zero: what lies below half a percent of bins keeps its largest magnitude
    let positive = |amax: &f32| *amax > 0.0;
    Ok(match *algorithm {
        Algorithm::Percentile { percentile: share, .. } => percentile(histogram()?, share).filter(positive).map(one),
        Algorithm::Entropy { start_bin, stride, .. } => match quantizer.config().format {
            Format::Int(format) => entropy(histogram()?, format, start_bin, stride).map(one),
            _ => None,
        },
        Algorithm::HistogramMse { start_bin, stride, .. } => {
            histogram_mse(histogram()?, quantizer.config().format, start_bin, stride).map(one)
        }
        Algorithm::MeanMagnitude if seen.channels.is_none() => Err(missing("sums over channels"))?,
        Algorithm::MeanMagnitude => mean_magnitude::of_activation(quantizer, seen),
        Algorithm::MovingAverage { momentum } => {
            Some(moving_average(&seen.history, momentum).ok_or(missing("history of batches"))?)
        }
        Algorithm::ActivationHeadroom { anchor_percentile, upper_percentile, rho } => {
            let blocks = seen.blocks.as_ref().ok_or(missing("histogram of block ranges"))?;
            activation_headroom(blocks, anchor_percentile, upper_percentile, rho).map(one)
        }
        _ => None,
    })
}
