//! Scores by divergence: how far one layer in a format moves the outputs of the whole model.
//!
//! ```text
//! S(g, r) = Σ_batches Σ_{tokens, classes} p · (log p − log q)
//! p = softmax of the float model, q with only group g in format r
//! ```
//!
//! It needs no gradients, labels or activation quantizers: any model will do, weight-only formats of unmodified layers
//! too. It costs one forward pass per batch, group and format.
//!
//! Source: ModelOpt 0.47, `AutoQuantizeKLDivSearcher`.

use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{DType, Device, Tensor};

use super::candidate::with_candidates;
use super::progress::Clock;
use super::{SearchProgress, SearchState, Unit};
use burn_quant_core::error::QuantError;
use burn_quant_core::model::{device_of, host};
use burn_quant_ops::relative_entropy;

/// Scores all groups; `forward` runs a batch through a model, to its logits.
pub(super) fn score<M: Module, I: IntoIterator, const D: usize>(
    base: &M,
    state: &mut SearchState,
    data: &impl Fn(&Device) -> I,
    forward: impl Fn(&M, &I::Item) -> Tensor<D>,
    progress: &mut dyn FnMut(SearchProgress),
) -> Result<(), QuantError> {
    let float = base.valid();
    let mut models = Vec::new();
    for (g, group) in state.groups.iter().enumerate() {
        for (j, choice) in group.choices.iter().enumerate() {
            let Some(format) = &choice.format else { continue };
            let of = |unit: &Unit| state.candidates.get(format)?.get(&unit.weight_quantizer);
            let chosen: Vec<_> = group.units.iter().filter_map(|unit| Some((unit, of(unit)?))).collect();
            models.push((g, j, with_candidates(float.clone(), chosen.into_iter())?, None::<Tensor<1>>));
        }
    }
    let mut clock = Clock::new(state.config.score_batches);
    for batch in data(&device_of(&float)).into_iter().take(state.config.score_batches) {
        let before = log_probabilities(forward(&float, &batch));
        for (_, _, model, sum) in &mut models {
            let here = divergence(before.clone(), forward(model, &batch));
            *sum = Some(sum.take().map_or(here.clone(), |sum| sum + here));
        }
        progress(clock.scored());
    }
    state.groups.iter_mut().flat_map(|group| &mut group.choices).for_each(|choice| choice.score = Some(0.0));
    if clock.done == 0 {
        return Err(QuantError::NoBatches { step: "scoring" });
    }
    for (g, j, _, sum) in models {
        let score = sum.map(|sum| f64::from(host(sum)[0]));
        // no divergence is negative, but the rounded sum of one may be; `f64::max` would make a NaN 0
        state.groups[g].choices[j].score = score.map(|score| if score < 0.0 { 0.0 } else { score });
    }
    state.check_scores()?;
    state.lend_scores();
    state.scored_batches = clock.done;
    Ok(())
}

/// The divergence of the outputs of a batch, summed over its examples, `[1]`: logits `[..., classes]`, as log
/// probabilities of the float model and logits of the other.
fn divergence<const D: usize>(float: Tensor<D>, logits: Tensor<D>) -> Tensor<1> {
    relative_entropy(float, log_probabilities(logits)).sum()
}

/// Log probabilities of logits `[..., classes]`, f32.
fn log_probabilities<const D: usize>(logits: Tensor<D>) -> Tensor<D> {
    log_softmax(logits.without_autodiff().cast(DType::F32), D - 1)
}
