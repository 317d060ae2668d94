//! Scores by gradients: what a format changes the loss by, to first order, squared.
//!
//! ```text
//! S(g, r) = Σ_batches Σ_layers Σ_elements (G ⊙ (y_r − y))²        G = ∂L/∂y of the layer in the float model
//! ```
//!
//! One forward and backward pass of the float model per batch, in which no gradient of a weight is computed; then one
//! product per layer and format, on the kept inputs, layer by layer. A training step takes three products per layer, so
//! a batch costs `(3 + formats) / 3` of one.
//!
//! Source: ModelOpt 0.47, `AutoQuantizeGradientSearcher`, whose sum this is (not averaged over batches, without a
//! factor one half); it evaluates the formats in the forward pass and keeps one output per format until the backward.
//! ModelOpt clips terms at 1e10, which makes all formats alike where a loss is large; here sums are in units of the
//! largest gradient, and nothing is clipped.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::Gradients;

use super::candidate::Floats;
use super::operand::QuantizedLayerView;
use super::probe::{GradientTap, ScaledSquares};
use super::{SearchGroup, SearchState};
use burn_quant_calibrate::observe::experts;
use burn_quant_core::error::{NotScoredReason, QuantError};
use burn_quant_core::model::{ModelIndex, Watched, watch};
use burn_quant_core::quantizer::Tap;

/// A layer with all its formats, and what was summed up so far.
struct Scored {
    group: usize,
    name: String,
    tap: Arc<GradientTap>,
    float: QuantizedLayerView,
    /// The places of the choices of its group, and what they make of the layer.
    candidates: Vec<(usize, QuantizedLayerView)>,
    /// Whether a batch reached it.
    ran: bool,
    sums: Option<ScaledSquares>,
}

/// Scores of all layers; gradients of the loss are handed to it batch by batch.
pub(super) struct GradientScorer {
    layers: Vec<Scored>,
    batches: usize,
}

impl GradientScorer {
    /// The model that is run, in evaluation mode with gradients, and the scorer.
    pub(super) fn new<M: Module>(base: &M, state: &SearchState) -> Result<(Watched<M>, Self), QuantError> {
        let model = base.clone().train().freeze();
        let index = ModelIndex::lazy_of(&model);
        let mut taps: HashMap<String, Arc<GradientTap>> = HashMap::new();
        let floats = Floats::of(&model, state.groups.iter().flat_map(|group| &group.units));
        let mut layers = Vec::new();
        for (g, group) in state.groups.iter().enumerate() {
            for unit in &group.units {
                let candidates = group.choices.iter().enumerate().filter_map(|(j, choice)| {
                    let candidate = state.candidates.get(choice.format.as_ref()?)?.get(&unit.weight_quantizer)?;
                    Some(candidate.operand(unit, &floats).map(|operand| (j, operand)))
                });
                let candidates: Vec<_> = candidates.collect::<Result<_, _>>()?;
                if candidates.is_empty() {
                    continue;
                }
                let slot = unit.input_quantizer.as_ref().ok_or_else(|| {
                    let container = index.parameter_at(&unit.weight).map(|weight| weight.container.clone());
                    let reason = NotScoredReason::NoActivationQuantizer { container: container.unwrap_or_default() };
                    QuantError::NotScored { layer: unit.layer.clone(), reason }
                })?;
                let (float, tap) = (floats.float(unit, &index.quantizers), Arc::<GradientTap>::default());
                taps.insert(slot.clone(), tap.clone());
                let name = unit.layer.clone();
                layers.push(Scored { group: g, name, tap, float, candidates, ran: false, sums: None });
            }
        }
        let model = watch(model, |name, _| taps.get(name).map(|tap| tap.clone() as Arc<dyn Tap>));
        Ok((model, Self { layers, batches: 0 }))
    }

    /// Adds a batch: the gradients of its loss.
    pub(super) fn add(&mut self, gradients: &Gradients) {
        self.batches += 1;
        for layer in &mut self.layers {
            let records = layer.tap.take();
            if records.is_empty() {
                continue;
            }
            layer.ran = true;
            // a recurrent layer is called at every step: its weight is quantized once
            let operands: Vec<QuantizedLayerView> =
                layer.candidates.iter().map(|(_, operand)| operand.prepared()).collect();
            for record in records {
                let Some(squares) = record.squares(gradients, &layer.float, &operands) else { continue };
                layer.sums = Some(match layer.sums.take() {
                    None => squares,
                    Some(sums) => sums.plus(squares),
                });
            }
        }
    }

    /// The sums, as scores of the state; only here do they come to the host.
    pub(super) fn finish(self, state: &mut SearchState) -> Result<(), QuantError> {
        if self.batches == 0 {
            return Err(QuantError::NoBatches { step: "scoring" });
        }
        for group in &mut state.groups {
            group.choices.iter_mut().for_each(|choice| choice.score = Some(0.0));
        }
        let mut unreached: BTreeMap<usize, String> = BTreeMap::new();
        for layer in self.layers {
            let group = &mut state.groups[layer.group];
            let Some(sums) = layer.sums else {
                if layer.ran || !group.units.iter().all(|unit| experts::is_expert(&unit.layer)) {
                    let reason = if layer.ran { NotScoredReason::NoGradient } else { NotScoredReason::NotReached };
                    return Err(QuantError::NotScored { layer: layer.name, reason });
                }
                unreached.entry(layer.group).or_insert(layer.name);
                continue;
            };
            for ((j, _), sum) in layer.candidates.iter().zip(sums.on_host()) {
                *group.choices[*j].score.get_or_insert(0.0) += sum;
            }
        }
        state.check_scores()?;
        state.lend_scores();
        let scored = |group: &SearchGroup| group.choices.iter().any(|choice| choice.score.is_some_and(|s| s > 0.0));
        if let Some((_, layer)) = unreached.into_iter().find(|(group, _)| !scored(&state.groups[*group])) {
            return Err(QuantError::NotScored { layer, reason: NotScoredReason::NotReached });
        }
        state.scored_batches = self.batches;
        Ok(())
    }
}
