//! Statistics -> ranges. One algorithm, one file; each is a pure function.

mod affine;
mod max;

pub use affine::affine;
pub use max::max;

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::place::{Weight, weights};
use crate::{Algorithm, Buffer, InvalidConfig, ModelStatistics, QuantError, Quantizers, Statistics, TensorQuantizer};

/// Gives every enabled quantizer of a model the ranges and biases that an algorithm finds in the statistics.
///
/// # Errors
///
/// [`QuantError::AlgorithmNotThere`] for an algorithm that this release names but does not have,
/// [`QuantError::NeverObserved`] for a static quantizer without statistics, and [`QuantError::UnknownQuantizer`] for
/// statistics without a quantizer: they are of another model.
pub fn calibrate<M: Module>(model: M, statistics: &ModelStatistics, algorithm: &Algorithm) -> Result<M, QuantError> {
    algorithm.check()?;
    let mut quantizers = Quantizers::of(&model);
    let weights = weights(&model);
    let stages =
        |(name, quantizer): (&str, &TensorQuantizer)| quantizer.stages(name).map(|(name, _)| name).collect::<Vec<_>>();
    let names: Vec<String> = quantizers.iter().flat_map(stages).collect();
    if let Some((unknown, _)) = statistics.iter().find(|(name, _)| !names.iter().any(|known| known == name)) {
        return Err(quantizers.unknown(unknown));
    }
    let mut problem = None;
    for (name, quantizer) in quantizers.iter_mut() {
        let device = device_of(name, &weights);
        quantizer.for_each_stage(name, |name, stage| {
            if let Some(seen) = statistics.get(&name)
                && let Err(error) = set_ranges(stage, &name, seen, &device)
            {
                problem.get_or_insert(error);
            }
        });
        if quantizer.is_uncalibrated() {
            problem.get_or_insert(QuantError::NeverObserved { name: name.into() });
        }
    }
    problem.map_or_else(|| quantizers.install(model), Err)
}

/// The algorithm `max` for one stage of a quantizer.
fn set_ranges(stage: &mut TensorQuantizer, name: &str, seen: &Statistics, device: &Device) -> Result<(), QuantError> {
    let tensor = |values: &[f32]| Tensor::<1>::from_data(values, device);
    let amax = match (&seen.bias, &stage.config().bias) {
        (Some(bias), Some(config)) => {
            let of_other_groups = |found| QuantError::GroupsChanged { name: name.into(), expected: found, found: 0 };
            let problem = |problem| QuantError::Config { name: name.into(), problem };
            if let crate::Granularity::Axes(axes) = &config.granularity
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
    if stage.config().has_static_range() {
        stage.set_amax(tensor(&amax));
        if stage.has_static_blocks() {
            stage.set_buffer(Buffer::GlobalAmax, tensor(&[amax.iter().copied().fold(0.0, f32::max)]));
        }
    }
    Ok(())
}

/// Where the layer of each quantizer of a model lives, by name: what is calibrated or restored goes there.
pub fn quantizer_devices<M: Module>(model: &M) -> BTreeMap<String, Device> {
    let weights = weights(model);
    Quantizers::of(model).names().map(|name| (name.to_string(), device_of(name, &weights))).collect()
}

/// Where the layer of a quantizer lives: the device of its own parameters, else of the model's first.
fn device_of(name: &str, weights: &[Weight]) -> Device {
    let layer = name.rsplit_once('.').map_or("", |(layer, _)| layer);
    let own = weights.iter().find(|w| w.quantizer == name || w.path.starts_with(&format!("{layer}.")));
    own.or(weights.first()).map(|weight| weight.device.clone()).unwrap_or_default()
}
