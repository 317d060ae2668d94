//! What each layer does to the metric of the user.
//!
//! Quantizers are bypassed by taps: the model is not changed, and smoothed layers stay smoothed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use burn::module::Module;
use burn_quant_core::model::{Quantizers, Watched, layer_of, watch};
use burn_quant_core::quantizer::{Bypass, Tap, TensorQuantizer};

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
    let mut layers: Vec<&str> = Vec::new();
    for case in &cases.quantizers {
        if !layers.contains(&case.shown.layer.as_str()) {
            layers.push(&case.shown.layer);
        }
    }
    let heads = heads(model);
    let (start, of) = (Instant::now(), layers.len());
    let mut take = |layer: &str| {
        let is_weight = |quantizer: &&QuantizerCase| quantizer.shown.operand == Operand::Weight;
        let (weights, activations): (Vec<_>, Vec<_>) = cases.quantizers_of(layer).partition(is_weight);
        let both = !weights.is_empty() && !activations.is_empty();
        let mut with = |quantized: &dyn Fn(&str) -> bool| metric(&bypassing(model, &heads, quantized));
        let named = |quantizers: &[&QuantizerCase], head: &str| quantizers.iter().any(|it| it.shown.name == head);
        Sensitivity {
            layer: layer.into(),
            only: with(&|head| layer_of(head) == layer),
            without: with(&|head| layer_of(head) != layer),
            weights: both.then(|| with(&|head| named(&weights, head))).filter(|metric| metric.is_finite()),
            activations: both.then(|| with(&|head| named(&activations, head))).filter(|metric| metric.is_finite()),
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

/// The quantizer that each stage belongs to, by name.
fn heads<M: Module>(model: &M) -> HashMap<String, String> {
    let quantizers = Quantizers::of(model);
    let stages = |(head, quantizer): (&str, &TensorQuantizer)| -> Vec<(String, String)> {
        quantizer.stages(head).map(|(stage, _)| (stage, head.to_string())).collect()
    };
    quantizers.iter().flat_map(stages).collect()
}

/// The model for validation, in which only some quantizers round.
fn bypassing<M: Module>(model: &M, heads: &HashMap<String, String>, quantized: &dyn Fn(&str) -> bool) -> Watched<M> {
    let bypass: Arc<dyn Tap> = Arc::new(Bypass);
    let is_quantized = |name: &str| heads.get(name).is_some_and(|head| quantized(head));
    watch(model.clone(), |name, _| (!is_quantized(name)).then(|| bypass.clone())).into_valid()
}
