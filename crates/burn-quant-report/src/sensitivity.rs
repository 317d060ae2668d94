//! What each layer does to the metric of the user.
//!
//! Quantizers are bypassed by taps: the model is not changed, and smoothed layers stay smoothed.

use std::sync::Arc;
use std::time::Instant;

use burn::module::Module;
use burn_quant_core::model::{layer_of, watch};
use burn_quant_core::quantizer::{Bypass, Tap};

use crate::case::{Cases, QuantizerCase};
use crate::diagnosis::{Operand, Sensitivity};
use crate::options::DiagnoseProgress;

/// Takes the metric with each layer quantized alone, and with all but that one.
pub(crate) fn sensitivity<M: Module>(
    model: &M,
    cases: &Cases,
    metric: &mut dyn FnMut(&M) -> f64,
    progress: &mut dyn FnMut(DiagnoseProgress),
) -> Vec<Sensitivity> {
    let mut layers: Vec<&str> = cases.quantizers.iter().map(|quantizer| quantizer.shown.layer.as_str()).collect();
    layers.dedup();
    let (start, of) = (Instant::now(), layers.len());
    let mut take = |layer: &str| {
        let is_weight = |quantizer: &&QuantizerCase| quantizer.shown.operand == Operand::Weight;
        let (weights, activations): (Vec<_>, Vec<_>) = cases.quantizers_of(layer).partition(is_weight);
        let both = !weights.is_empty() && !activations.is_empty();
        let mut with = |quantized: &dyn Fn(&str) -> bool| metric(&bypassing(model, quantized));
        let named =
            |quantizers: &[&QuantizerCase], name: &str| quantizers.iter().any(|it| is_stage(name, &it.shown.name));
        Sensitivity {
            layer: layer.into(),
            only: with(&|name| layer_of(name_of_head(name)) == layer),
            without: with(&|name| layer_of(name_of_head(name)) != layer),
            weights: both.then(|| with(&|name| named(&weights, name))).filter(|metric| metric.is_finite()),
            activations: both.then(|| with(&|name| named(&activations, name))).filter(|metric| metric.is_finite()),
        }
    };
    let mut found = Vec::with_capacity(of);
    for layer in layers {
        found.push(take(layer));
        let done = found.len();
        let remaining = start.elapsed() / done as u32 * (of - done) as u32;
        progress(DiagnoseProgress::Sensitivity { layer: layer.into(), done, of, remaining });
    }
    found
}

/// The model for validation, in which only some quantizers round.
fn bypassing<M: Module>(model: &M, quantized: &dyn Fn(&str) -> bool) -> burn_quant_core::model::Watched<M> {
    let bypass: Arc<dyn Tap> = Arc::new(Bypass);
    watch(model.valid(), |name, _| (!quantized(name)).then(|| bypass.clone()))
}

/// The name of a chain, of one of its stages: those after the first are `<name>.1`, `<name>.2`.
fn name_of_head(name: &str) -> &str {
    match name.rsplit_once('.') {
        Some((head, stage)) if stage.bytes().all(|byte| byte.is_ascii_digit()) => head,
        _ => name,
    }
}

fn is_stage(name: &str, head: &str) -> bool {
    name_of_head(name) == head
}
