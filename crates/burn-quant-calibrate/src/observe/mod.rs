//! Calibration data through the float model -> statistics of every quantizer that needs some.
//!
//! * weights are read directly, each once; no data is needed for them
//! * activations report to taps while the user's forward loop runs; the model computes in float, in validation mode
//! * nothing stays on the model: a watched copy is made, run and dropped
//!
//! What is collected depends on the algorithm: [`Statistics`] by quantizer.

pub mod experts;
mod gram;
mod histogram;
mod observer;
mod request;
mod statistics;

pub(crate) use gram::GramSums;
pub use gram::{Gram, GramMatrix};
pub use histogram::{BlockHistogram, Histogram};
pub(crate) use histogram::{DeviceBlockHistogram, DeviceHistogram};
pub use observer::CaptureAt;
pub(crate) use observer::{Observer, RunningStatistics};
pub use request::{InputStatistics, ModelRequest, StatisticsRequest};
pub use statistics::{BiasStatistics, ChannelStatistics, ModelStatistics, Statistics};

use std::cmp::Ordering::Equal;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};

use burn_quant_core::error::QuantError;
use burn_quant_core::layout::Role;
use burn_quant_core::model::{Path, Quantizers, Visit, host, visit, watch};
use burn_quant_core::quantizer::TensorQuantizer;
use burn_quant_core::quantizer::{Bypass, Tap};

/// What was observed of a model: statistics, and where the tensors were.
#[derive(Debug, Default)]
pub struct Observed {
    /// By name of the quantizer.
    pub statistics: ModelStatistics,
    /// The devices of activations, by quantizer.
    pub devices: HashMap<String, Device>,
}

/// Reads the statistics of the weights of a model: no data, no forward pass.
///
/// # Errors
///
/// [`QuantError::NonFiniteWeight`] for a NaN or an infinity, and [`QuantError::NegativeUnsigned`].
pub fn observe_weights<M: Module>(model: &M) -> Result<ModelStatistics, QuantError> {
    let mut statistics = ModelStatistics::default();
    of_weights(model, &Quantizers::of(model), &mut statistics)?;
    Ok(statistics)
}

/// Adds the statistics of the weights that need a range.
fn of_weights<M: Module>(
    model: &M,
    quantizers: &Quantizers,
    statistics: &mut ModelStatistics,
) -> Result<(), QuantError> {
    struct Weights<'a> {
        quantizers: &'a Quantizers,
        observers: BTreeMap<String, Observer>,
    }
    impl Visit for Weights<'_> {
        fn parameter<const D: usize>(&mut self, at: &Path, param: &Param<Tensor<D>>) {
            let name = at.weight_quantizer_name();
            let needed = self.quantizers.find(&name).filter(|quantizer| quantizer.needs_calibration());
            let Some(quantizer) = needed else { return };
            let weight = param.base().without_autodiff();
            if weight.dims().contains(&0) {
                return;
            }
            for (name, stage) in quantizer.stages(&name).filter(|(_, stage)| is_observed(stage)) {
                let observer = Observer::new(StatisticsRequest::default(), CaptureAt::Float);
                observer.observe(weight.clone(), stage);
                self.observers.insert(name, observer);
            }
        }
    }
    let mut weights = Weights { quantizers, observers: BTreeMap::new() };
    if quantizers.iter().any(|(_, quantizer)| is_weight(quantizer) && quantizer.needs_calibration()) {
        visit(model, &mut weights);
    }
    for (name, observer) in weights.observers {
        let seen = on_host(&name, observer.running())?;
        statistics.insert(name, seen).map_err(|error| match error {
            QuantError::NonFinite { name, .. } => QuantError::NonFiniteWeight { name },
            other => other,
        })?;
    }
    Ok(())
}

/// Runs the data once to find ranges, with the Gram matrices of some quantizers.
pub fn observe_ranges<M: Module>(
    model: &M,
    quantizers: &Quantizers,
    request: &ModelRequest,
    grams: &[String],
    forward_loop: &mut dyn FnMut(&M),
) -> Result<Observed, QuantError> {
    let grams: HashSet<&str> = grams.iter().map(String::as_str).collect();
    let bypass: Arc<dyn Tap> = Arc::new(Bypass);
    let mut observers: BTreeMap<String, Arc<Observer>> = BTreeMap::new();
    let mut required: HashSet<String> = HashSet::new();
    let mut heads = HashMap::new();
    for (head, quantizer) in quantizers.iter() {
        quantizer.stages(head).for_each(|(name, _)| drop(heads.insert(name, head.to_string())));
    }
    let watched = watch(model.valid(), |name, stage| {
        let mut wanted = request.of(name);
        if wanted.channels == Some(InputStatistics::Gram) && !grams.contains(name) {
            wanted.channels = Some(InputStatistics::Means);
        }
        let enabled = heads.get(name).and_then(|head| quantizers.find(head)).is_some_and(TensorQuantizer::is_enabled);
        let finds = enabled && is_observed(stage);
        if is_weight(stage) || !(finds || wanted != StatisticsRequest::default()) {
            return Some(bypass.clone());
        }
        if finds && !experts::is_expert(name) {
            required.insert(name.to_string());
        }
        let observer = Arc::new(Observer::new(wanted, CaptureAt::Float));
        observers.insert(name.to_string(), observer.clone());
        Some(observer)
    });
    forward_loop(&watched);
    drop(watched);

    let mut observed = Observed::default();
    of_weights(model, quantizers, &mut observed.statistics)?;
    let mut reached = false;
    let mut missing: Option<String> = None;
    for (name, observer) in observers {
        let running = observer.running();
        if running.calls == 0 {
            // a layer that no data reached is not calibrated by it; one of an expert may borrow a range
            if required.contains(&name) {
                missing.get_or_insert(name);
            }
            continue;
        }
        reached = true;
        if let Some(device) = running.device() {
            observed.devices.insert(name.clone(), device);
        }
        let seen = on_host(&name, running)?;
        observed.statistics.insert(name, seen)?;
    }
    match missing {
        Some(name) if !reached => Err(QuantError::NothingObserved { name }),
        Some(name) => Err(QuantError::NeverObserved { name }),
        None if !reached && !request.quantizers.is_empty() => {
            let name = request.quantizers.keys().min().cloned().unwrap_or_default();
            Err(QuantError::NothingObserved { name })
        }
        None => Ok(observed),
    }
}

/// Runs the data once more for Gram matrices alone: those of a float model, or of one with quantized activations.
pub(crate) fn observe_grams<M: Module>(
    model: &M,
    grams: &[String],
    at: CaptureAt,
    statistics: &mut ModelStatistics,
    forward_loop: &mut dyn FnMut(&M),
) {
    let grams: HashSet<&str> = grams.iter().map(String::as_str).collect();
    let bypass: Arc<dyn Tap> = Arc::new(Bypass);
    let mut observers: BTreeMap<String, Arc<Observer>> = BTreeMap::new();
    let request = StatisticsRequest::new().with_channels(InputStatistics::Gram);
    let watched = watch(model.valid(), |name, stage| {
        if grams.contains(name) {
            let observer = Arc::new(Observer::new(request, at));
            observers.insert(name.to_string(), observer.clone());
            return Some(observer);
        }
        // weights stay in float: it is for their sake that the inputs are looked at
        (at == CaptureAt::Float || is_weight(stage)).then(|| bypass.clone())
    });
    forward_loop(&watched);
    drop(watched);
    for (name, observer) in observers {
        let gram = observer.running().channels.and_then(|channels| channels.gram).map(GramSums::on_host);
        statistics.set_gram(&name, gram);
    }
}

/// Brings what was seen to the host.
fn on_host(name: &str, seen: RunningStatistics) -> Result<Statistics, QuantError> {
    if let Some((expected, found)) = seen.changed {
        return Err(QuantError::GroupsChanged { name: name.into(), expected, found });
    }
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
    let differ = |(left, right)| QuantError::HistogramsDiffer { name: name.into(), left, right };
    let mut history: Vec<Vec<f32>> = seen.history.into_iter().map(host).collect();
    if seen.unordered {
        history
            .sort_by(|a, b| a.iter().zip(b).map(|(a, b)| a.total_cmp(b)).find(|order| order.is_ne()).unwrap_or(Equal));
    }
    Ok(Statistics {
        amax: seen.amax.map(host).unwrap_or_default(),
        lowest: seen.lowest.map(|lowest| host(lowest)[0]),
        bias,
        calls: seen.calls,
        channels,
        histogram: DeviceHistogram::all_on_host(seen.histograms).map_err(differ)?,
        blocks: DeviceBlockHistogram::all_on_host(seen.blocks),
        history,
        first_non_finite: first.map(|call| call as u64),
    })
}

/// Whether a stage of an enabled quantizer has something to find.
fn is_observed(stage: &TensorQuantizer) -> bool {
    stage.config().has_static_range() || stage.config().has_static_bias()
}

pub(crate) fn is_weight(quantizer: &TensorQuantizer) -> bool {
    matches!(quantizer.role(), Role::Weight(_))
}
