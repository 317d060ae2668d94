//! Statistics -> ranges. One algorithm, one file; each is a pure function.

mod max;

pub use max::max;

use burn::module::Module;
use burn::tensor::{Device, Tensor};

use crate::place::{Weight, weights};
use crate::{Algorithm, ModelStatistics, QuantError, Quantizers, TensorQuantizer};

/// Gives every enabled static quantizer of a model the range that an algorithm finds in the statistics.
///
/// # Errors
///
/// [`QuantError::NeverObserved`] for a quantizer without statistics, and [`QuantError::UnknownQuantizer`] for
/// statistics without a quantizer: they are of another model.
pub fn calibrate<M: Module>(model: M, statistics: &ModelStatistics, algorithm: Algorithm) -> Result<M, QuantError> {
    let mut quantizers = Quantizers::of(&model);
    let weights = weights(&model);
    for (name, _) in statistics.iter() {
        quantizers.get(name)?;
    }
    for (name, quantizer) in quantizers.iter_mut() {
        let Some(seen) = statistics.get(name) else {
            if quantizer.is_uncalibrated() {
                return Err(QuantError::NeverObserved { name: name.into() });
            }
            continue;
        };
        let amax = match algorithm {
            Algorithm::Max => max(seen),
        };
        set_range(quantizer, &amax, &device_of(name, &weights));
    }
    quantizers.install(model)
}

fn set_range(quantizer: &mut TensorQuantizer, amax: &[f32], device: &Device) {
    if quantizer.config().range == crate::Range::Static {
        quantizer.set_amax(Tensor::from_data(amax, device));
    }
}

/// Where the layer of a quantizer lives: the device of its own parameters, else of the model's first.
fn device_of(name: &str, weights: &[Weight]) -> Device {
    let layer = name.rsplit_once('.').map_or("", |(layer, _)| layer);
    let own = weights.iter().find(|w| w.quantizer == name || w.path.starts_with(&format!("{layer}.")));
    own.or(weights.first()).map(|weight| weight.device.clone()).unwrap_or_default()
}
