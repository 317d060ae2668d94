//! Calibration data through the float model -> statistics of every quantizer that needs some.
//!
//! * weights are read directly, each once; no data is needed for them
//! * activations report while the user's forward loop runs; the model computes in float, in validation mode
//! * nothing is hung on the model: an observing copy is made, run and dropped
//!
//! What is collected depends on the algorithm: [`Statistics`] by quantizer.

pub(crate) mod experts;
mod gram;
mod histogram;
mod needs;
mod statistics;

pub(crate) use gram::GramSums;
pub use gram::{Gram, GramMatrix};
pub use histogram::{BlockHistogram, Histogram};
pub(crate) use histogram::{DeviceBlockHistogram, DeviceHistogram};
pub use needs::ChannelNeeds;
pub(crate) use needs::{Needs, StatisticsNeeds};
pub use statistics::{BiasStatistics, ChannelStatistics, ModelStatistics, Statistics};

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::Tensor;

use crate::place::show_weights;
use crate::quantizer::{Mode, Moment, Observer, Seen};
use crate::{Algorithm, QuantError, Quantization, Quantizers, Role, TensorQuantizer};

/// Statistics of all enabled static quantizers of a model, and of the layers that an algorithm works on.
///
/// `forward_loop` gets a copy of the model in validation mode that computes in float; it runs the calibration batches and
/// drops the outputs. It is called once, but for algorithms on quantized inputs. Statistics stay on the device while it
/// runs, and come to the host when it has ended, quantizer by quantizer.
///
/// Calibration may be split: observe shards of the data, [merge](ModelStatistics::merge) the statistics,
/// [solve](crate::calibrate) once.
///
/// # Errors
///
/// [`QuantError::NonFinite`] for NaN or infinite data, [`QuantError::NegativeUnsigned`],
/// [`QuantError::GroupsChanged`], [`QuantError::NeverObserved`] for a quantizer that the loop did not reach, unless it is one of an expert, and
/// [`QuantError::UnknownAlgorithm`] for a custom algorithm: see [`Quantization::observe`].
pub fn observe<M: Module>(
    model: &M,
    algorithm: &Algorithm,
    forward_loop: impl FnMut(&M),
) -> Result<ModelStatistics, QuantError> {
    Quantization::of_algorithm(algorithm).observe(model, forward_loop)
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
            let observed = is_observed(stage);
            stage.set_mode(if observed {
                observer(name, StatisticsNeeds::default(), &mut observers)
            } else {
                Mode::Float
            });
        });
        observing.insert(name.to_string(), quantizer.clone());
    }
    show_weights(model, observing);
    let mut statistics = ModelStatistics::default();
    collect(observers, &mut statistics)?;
    Ok(statistics)
}

/// One pass over the data that finds ranges, with the Gram matrices of some quantizers.
pub(crate) fn observe_ranges<M: Module>(
    model: &M,
    needs: &Needs,
    grams: &[String],
    forward_loop: &mut dyn FnMut(&M),
) -> Result<ModelStatistics, QuantError> {
    let mut quantizers = Quantizers::of(model);
    let mut observers = BTreeMap::new();
    for (name, quantizer) in quantizers.iter_mut() {
        let enabled = quantizer.is_enabled();
        let weight = is_weight(quantizer);
        quantizer.for_each_stage(name, |name, stage| {
            let mut wanted = needs.of(&name);
            if wanted.channels == Some(ChannelNeeds::Gram) && !grams.contains(&name) {
                wanted.channels = Some(ChannelNeeds::Ranges);
            }
            let observed = !weight && (enabled && is_observed(stage) || wanted != StatisticsNeeds::default());
            stage.set_mode(if observed { observer(name, wanted, &mut observers) } else { Mode::Float });
        });
    }
    let observing = quantizers.install(model.valid())?;
    forward_loop(&observing);
    drop(observing);

    let mut statistics = observe_weights(model)?;
    // a layer that no data reached is not calibrated by it; a static quantizer without a range is an error, unless it is
    // one of an expert, which may borrow a range
    let needed = Quantizers::of(model);
    let required = |name: &str| {
        !experts::is_expert(name) && needed.iter().any(|(head, q)| q.needs_calibration() && name.starts_with(head))
    };
    observers.retain(|name, observer: &mut Observer| observer.seen().calls > 0 || required(name));
    collect(observers, &mut statistics)?;
    Ok(statistics)
}

/// One more pass over the data, for Gram matrices alone: those of a float model, or of one with quantized activations.
pub(crate) fn observe_grams<M: Module>(
    model: &M,
    grams: &[String],
    quantized: Option<Moment>,
    statistics: &mut ModelStatistics,
    forward_loop: &mut dyn FnMut(&M),
) -> Result<(), QuantError> {
    let mut quantizers = Quantizers::of(model);
    let mut observers = BTreeMap::new();
    let needs = StatisticsNeeds { channels: Some(ChannelNeeds::Gram), ..StatisticsNeeds::default() };
    for (name, quantizer) in quantizers.iter_mut() {
        let mode = if grams.iter().any(|gram| gram == name) {
            let observer = Observer::new(needs);
            observers.insert(name.to_string(), observer.clone());
            match quantized {
                Some(moment) => Mode::ObserveQuantized(observer, moment),
                None => Mode::Observe(observer),
            }
        } else if quantized.is_some() && !is_weight(quantizer) {
            continue;
        } else {
            Mode::Float
        };
        let rest = if quantized.is_some() { Mode::Quantize } else { Mode::Float };
        quantizer.for_each_stage(name, |_, stage| stage.set_mode(rest.clone()));
        quantizer.set_mode(mode);
    }
    let observing = quantizers.install(model.valid())?;
    forward_loop(&observing);
    drop(observing);
    for (name, observer) in observers {
        let gram = observer.seen().channels.and_then(|channels| channels.gram).map(GramSums::on_host);
        statistics.set_gram(&name, gram);
    }
    Ok(())
}

fn observer(name: String, needs: StatisticsNeeds, observers: &mut BTreeMap<String, Observer>) -> Mode {
    let observer = Observer::new(needs);
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
        if seen.calls == 0 {
            return Err(QuantError::NeverObserved { name });
        }
        statistics.insert(name, on_host(seen))?;
    }
    Ok(())
}

fn on_host(seen: Seen) -> Statistics {
    let bias = seen.bias.map(|bias| BiasStatistics {
        extent: bias.extent,
        means: host(bias.means),
        lowest: host(bias.lowest),
        highest: host(bias.highest),
    });
    let channels = seen.channels.map(|channels| ChannelStatistics {
        tokens: channels.tokens,
        amax: host(channels.amax),
        sum: host(channels.sum),
        sum_abs: host(channels.sum_abs),
        gram: channels.gram.map(GramSums::on_host),
    });
    let first = seen.first_non_finite.map(|first| host(first)[0]).filter(|first| first.is_finite());
    Statistics {
        amax: seen.amax.map(host).unwrap_or_default(),
        lowest: seen.lowest.map(|lowest| host(lowest)[0]),
        bias,
        calls: seen.calls,
        channels,
        histogram: seen.histogram.and_then(DeviceHistogram::on_host),
        blocks: seen.blocks.map(DeviceBlockHistogram::on_host),
        history: seen.history.into_iter().map(host).collect(),
        first_non_finite: first.map(|call| call as u64),
    }
}

/// Whether a stage of a quantizer that is on has something to find.
fn is_observed(stage: &TensorQuantizer) -> bool {
    stage.config().has_static_range() || stage.config().has_static_bias()
}

pub(crate) fn is_weight(quantizer: &TensorQuantizer) -> bool {
    matches!(quantizer.role(), Role::Weight(_))
}

fn host(values: Tensor<1>) -> Vec<f32> {
    values.into_data().convert::<f32>().try_into_vec().expect("f32 data")
}
