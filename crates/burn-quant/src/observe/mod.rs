//! Calibration data through the float model -> statistics of every quantizer that needs some.
//!
//! * weights are read directly, each once; no data is needed for them
//! * activations report while the user's forward loop runs; the model computes in float, in validation mode
//! * nothing is hung on the model: an observing copy is made, run and dropped

mod statistics;

pub use statistics::{ModelStatistics, Statistics};

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Tensor;

use crate::place::weight_amax;
use crate::quantizer::{Mode, Observer};
use crate::{QuantError, Quantizers, Range, Role, TensorQuantizer};

/// Statistics of all enabled static quantizers of a model.
///
/// `forward_loop` gets a copy of the model in validation mode that computes in float; it runs the calibration batches and
/// drops the outputs. Statistics stay on the device while it runs, and come to the host when it has ended, quantizer by
/// quantizer.
///
/// Calibration may be split: observe shards of the data, [merge](ModelStatistics::merge) the statistics,
/// [solve](crate::calibrate) once.
///
/// # Errors
///
/// [`QuantError::NonFinite`] for NaN or infinite data, [`QuantError::NegativeUnsigned`],
/// [`QuantError::GroupsChanged`], and [`QuantError::NeverObserved`] for a quantizer that the loop did not reach.
pub fn observe<M: Module>(model: &M, forward_loop: impl FnOnce(&M)) -> Result<ModelStatistics, QuantError> {
    let mut quantizers = Quantizers::of(model);
    let mut observers = BTreeMap::new();
    for (name, quantizer) in quantizers.iter_mut() {
        if is_observed(quantizer) && !is_weight(quantizer) {
            let observer = Observer::default();
            observers.insert(name.to_string(), observer.clone());
            quantizer.set_mode(Mode::Observe(observer));
        } else {
            quantizer.set_mode(Mode::Float);
        }
    }
    let observing = quantizers.install(model.valid())?;
    forward_loop(&observing);
    drop(observing);

    let mut statistics = observe_weights(model)?;
    for (name, observer) in observers {
        let seen = observer.seen();
        if let Some((expected, found)) = seen.changed {
            return Err(QuantError::GroupsChanged { name, expected, found });
        }
        let Some(amax) = seen.amax else { return Err(QuantError::NeverObserved { name }) };
        let observed = Statistics { amax: host(amax), lowest: seen.lowest.map(host_scalar), calls: seen.calls };
        statistics.insert(name, observed)?;
    }
    Ok(statistics)
}

/// Statistics of the weights alone: no data, no forward pass.
///
/// # Errors
///
/// [`QuantError::NonFinite`] for NaN or infinite weights, and [`QuantError::NegativeUnsigned`].
pub fn observe_weights<M: Module>(model: &M) -> Result<ModelStatistics, QuantError> {
    let quantizers = Quantizers::of(model);
    let observed = quantizers.iter().filter(|(_, q)| is_observed(q) && is_weight(q));
    let observed: BTreeMap<_, _> = observed.map(|(name, q)| (name.to_string(), q.clone())).collect();
    let mut statistics = ModelStatistics::default();
    for (name, range) in weight_amax(model, observed) {
        let observed = Statistics { amax: host(range.amax), lowest: range.lowest.map(host_scalar), calls: 1 };
        statistics.insert(name, observed)?;
    }
    Ok(statistics)
}

fn is_observed(quantizer: &TensorQuantizer) -> bool {
    quantizer.is_enabled() && quantizer.config().range == Range::Static
}

fn is_weight(quantizer: &TensorQuantizer) -> bool {
    matches!(quantizer.role(), Role::Weight(_))
}

fn host(values: Tensor<1>) -> Vec<f32> {
    values.into_data().convert::<f32>().try_into_vec().expect("f32 data")
}

fn host_scalar(value: Tensor<1>) -> f32 {
    host(value)[0]
}
