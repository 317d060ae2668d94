//! Calibration data through the float model -> statistics of every quantizer that needs some.
//!
//! * weights are read directly, each once; no data is needed for them
//! * activations report while the user's forward loop runs; the model computes in float, in validation mode
//! * nothing is hung on the model: an observing copy is made, run and dropped

mod statistics;

pub use statistics::{BiasStatistics, ModelStatistics, Statistics};

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Tensor;

use crate::place::show_weights;
use crate::quantizer::{Mode, Observer, Seen};
use crate::{QuantError, Quantizers, Role, TensorQuantizer};

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
        let observed = quantizer.is_enabled() && !is_weight(quantizer);
        quantizer.for_each_stage(name, |name, stage| {
            stage.set_mode(if observed && is_observed(stage) { observer(name, &mut observers) } else { Mode::Float });
        });
    }
    let observing = quantizers.install(model.valid())?;
    forward_loop(&observing);
    drop(observing);

    let mut statistics = observe_weights(model)?;
    collect(observers, &mut statistics)?;
    Ok(statistics)
}

/// Statistics of the weights alone: no data, no forward pass.
///
/// # Errors
///
/// [`QuantError::NonFinite`] for NaN or infinite weights, and [`QuantError::NegativeUnsigned`].
pub fn observe_weights<M: Module>(model: &M) -> Result<ModelStatistics, QuantError> {
    let mut quantizers = Quantizers::of(model);
    let (mut observers, mut observing) = (BTreeMap::new(), BTreeMap::new());
    for (name, quantizer) in quantizers.iter_mut().filter(|(_, q)| q.needs_calibration() && is_weight(q)) {
        quantizer.for_each_stage(name, |name, stage| {
            stage.set_mode(if is_observed(stage) { observer(name, &mut observers) } else { Mode::Float });
        });
        observing.insert(name.to_string(), quantizer.clone());
    }
    show_weights(model, observing);
    let mut statistics = ModelStatistics::default();
    collect(observers, &mut statistics)?;
    Ok(statistics)
}

fn observer(name: String, observers: &mut BTreeMap<String, Observer>) -> Mode {
    let observer = Observer::default();
    observers.insert(name, observer.clone());
    Mode::Observe(observer)
}

/// Brings what was seen to the host.
fn collect(observers: BTreeMap<String, Observer>, statistics: &mut ModelStatistics) -> Result<(), QuantError> {
    for (name, observer) in observers {
        let seen = observer.seen();
        if let Some((expected, found)) = seen.changed {
            return Err(QuantError::GroupsChanged { name, expected, found });
        }
        let Seen { amax: Some(amax), lowest, bias, calls, .. } = seen else {
            return Err(QuantError::NeverObserved { name });
        };
        let bias = bias.map(|bias| BiasStatistics {
            extent: bias.extent,
            means: host(bias.means),
            lowest: host(bias.lowest),
            highest: host(bias.highest),
        });
        let lowest = lowest.map(|lowest| host(lowest)[0]);
        statistics.insert(name, Statistics { amax: host(amax), lowest, bias, calls })?;
    }
    Ok(())
}

/// Whether a stage of a quantizer that is on has something to find.
fn is_observed(stage: &TensorQuantizer) -> bool {
    stage.config().has_static_range() || stage.config().has_static_bias()
}

fn is_weight(quantizer: &TensorQuantizer) -> bool {
    matches!(quantizer.role(), Role::Weight(_))
}

fn host(values: Tensor<1>) -> Vec<f32> {
    values.into_data().convert::<f32>().try_into_vec().expect("f32 data")
}
