//! Rules to plan, plan to model.

use std::collections::BTreeMap;

use burn::module::{Module, Reparameterization};
use serde::{Deserialize, Serialize};

use super::{Weight, WeightLayouts, attach, weights};
use crate::config::near_misses;
use crate::{Action, QuantConfig, QuantError, QuantizerConfig, Quantizers, Role, Rule, TensorQuantizer};

/// What one quantizer of a model does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlannedQuantizer {
    /// Its configuration.
    pub config: QuantizerConfig,
    /// What its tensors are.
    pub role: Role,
    /// Whether it is on.
    pub enabled: bool,
}

/// The resolved configuration of every quantizer of a model, by name: what rules come down to.
///
/// It is what calibration, training, records and export agree on, and plain data.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Plan {
    /// The quantizers by name.
    pub quantizers: BTreeMap<String, PlannedQuantizer>,
}

impl Plan {
    /// The plan that a model carries out now.
    pub fn of<M: Module>(model: &M) -> Self {
        let planned = |quantizer: &TensorQuantizer| PlannedQuantizer {
            config: quantizer.config().clone(),
            role: quantizer.role(),
            enabled: quantizer.is_enabled(),
        };
        let quantizers = Quantizers::of(model);
        Self { quantizers: quantizers.iter().map(|(name, q)| (name.to_string(), planned(q))).collect() }
    }
}

/// Attaches a quantizer to every known weight of a model and configures all quantizers as the rules say.
///
/// Nothing is calibrated. Ranges that still fit are kept, so placing the same configuration again changes nothing. Weights
/// that no rule enables get a disabled quantizer, which is the identity and can be enabled later; a weight with a
/// reparameterization of another kind is left alone unless a rule enables its quantizer.
///
/// # Errors
///
/// [`QuantError::NoMatch`] for a required rule without a match, [`QuantError::NoActivations`] for one that is for activations, where the
/// model quantizes none, [`QuantError::NoWeightEnabled`] if rules enable weights and later ones disable all of them,
/// [`QuantError::BadPattern`], [`QuantError::Config`] for a configuration that does not fit its quantizer, and
/// [`QuantError::ForeignReparameterization`].
pub fn place<M: Module>(model: M, config: &QuantConfig, layouts: &WeightLayouts) -> Result<(M, Plan), QuantError> {
    place_with(model, config, layouts, NoWeights::Refused)
}

/// Whether rules may enable weights and then disable all of them.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum NoWeights {
    /// An error: as in ModelOpt, it is a mistake in the rules.
    Refused,
    /// Nothing is said: a search takes the layers out of its base that it is about to choose formats for.
    Allowed,
}

pub(crate) fn place_with<M: Module>(
    model: M,
    config: &QuantConfig,
    layouts: &WeightLayouts,
    none: NoWeights,
) -> Result<(M, Plan), QuantError> {
    let candidates = candidates(&model, layouts);
    let planned = apply_rules(&candidates, &config.rules, none)?;
    for (candidate, planned) in candidates.iter().zip(&planned) {
        candidate.check(planned)?;
    }
    let quantizers = candidates.iter().zip(&planned).filter(|(c, p)| c.foreign().is_none() || p.enabled);
    let plan = Plan { quantizers: quantizers.map(|(c, p)| (c.name.clone(), p.clone())).collect() };
    let model = install_plan(model, &plan)?;
    Ok((model, plan))
}

/// Gives a model exactly the quantizers of a plan: attaches those of weights that lack one, and configures the others.
///
/// # Errors
///
/// [`QuantError::UnknownQuantizer`] if the plan names a slot or a weight that the model lacks,
/// [`QuantError::Config`] if a configuration does not fit its quantizer, and [`QuantError::ForeignReparameterization`].
pub fn install_plan<M: Module>(model: M, plan: &Plan) -> Result<M, QuantError> {
    let mut present = Quantizers::of(&model);
    let weights: BTreeMap<String, Weight> = weights(&model).into_iter().map(|w| (w.quantizer.clone(), w)).collect();
    let mut attached = BTreeMap::new();
    for (name, planned) in &plan.quantizers {
        planned.check(name, weights.get(name).map(|weight| weight.shape.as_slice()))?;
        if let Ok(quantizer) = present.get_mut(name) {
            planned.configure(quantizer);
            continue;
        }
        let weight = weights.get(name).ok_or_else(|| QuantError::UnknownQuantizer {
            name: name.clone(),
            near_misses: near_misses(name, present.names().chain(weights.keys().map(String::as_str))),
        })?;
        if let Some(found) = &weight.reparameterization {
            let (path, found) = (weight.path.clone(), found.clone());
            return Err(QuantError::ForeignReparameterization { path, found });
        }
        let mut quantizer = TensorQuantizer::disabled(planned.role);
        planned.configure(&mut quantizer);
        attached.insert(weight.path.clone(), quantizer);
    }
    Ok(attach(present.install(model)?, attached))
}

impl PlannedQuantizer {
    /// Whether the configuration suits the quantizer; the shape is known for weights only.
    pub(crate) fn check(&self, name: &str, shape: Option<&[usize]>) -> Result<(), QuantError> {
        let checked = if self.enabled { self.config.suits(self.role, shape) } else { Ok(()) };
        checked.map_err(|problem| QuantError::Config { name: name.into(), problem })
    }

    pub(crate) fn configure(&self, quantizer: &mut TensorQuantizer) {
        quantizer.set_config(self.config.clone());
        if self.enabled { quantizer.enable() } else { quantizer.disable() }
    }
}

/// A quantizer that a rule may match: one the model has, or one that a weight could get.
struct Candidate {
    name: String,
    container: String,
    now: PlannedQuantizer,
    weight: Option<Weight>,
}

impl Candidate {
    /// Whether it belongs to a struct of this type name, or to the quantized layer of that name.
    fn is_in(&self, container: &str) -> bool {
        self.container == container || self.container.strip_prefix("Quant") == Some(container)
    }

    fn is_weight(&self) -> bool {
        matches!(self.now.role, Role::Weight(_))
    }

    fn check(&self, planned: &PlannedQuantizer) -> Result<(), QuantError> {
        if let (true, Some((path, found))) = (planned.enabled, self.foreign()) {
            return Err(QuantError::ForeignReparameterization { path, found });
        }
        planned.check(&self.name, self.weight.as_ref().map(|weight| weight.shape.as_slice()))
    }

    /// The path and the name of a reparameterization that is not ours.
    fn foreign(&self) -> Option<(String, String)> {
        let weight = self.weight.as_ref()?;
        let found = weight.reparameterization.as_deref().filter(|name| *name != TensorQuantizer::NAME)?;
        Some((weight.path.clone(), found.to_string()))
    }
}

fn candidates<M: Module>(model: &M, layouts: &WeightLayouts) -> Vec<Candidate> {
    let (present, plan) = (Quantizers::of(model), Plan::of(model));
    let mut weights: BTreeMap<String, Weight> = weights(model).into_iter().map(|w| (w.quantizer.clone(), w)).collect();
    let mut candidates: Vec<Candidate> = present
        .containers()
        .map(|(name, container)| Candidate {
            name: name.to_string(),
            container: container.to_string(),
            now: plan.quantizers[name].clone(),
            weight: weights.remove(name),
        })
        .collect();
    for (name, weight) in weights {
        if let Some(layout) = layouts.get(&weight.container, &weight.field) {
            let role = Role::Weight(layout);
            let now = PlannedQuantizer { config: QuantizerConfig::default(), role, enabled: false };
            candidates.push(Candidate { name, container: weight.container.clone(), now, weight: Some(weight) });
        }
    }
    candidates
}

fn apply_rules(candidates: &[Candidate], rules: &[Rule], none: NoWeights) -> Result<Vec<PlannedQuantizer>, QuantError> {
    let mut alternatives: BTreeMap<&str, (Vec<String>, bool)> = BTreeMap::new();
    let (mut enabled_by, mut disabled_by) = (None, None);
    let mut planned: Vec<_> = candidates.iter().map(|c| PlannedQuantizer { enabled: false, ..c.now.clone() }).collect();
    for rule in rules {
        let matcher = rule.matcher()?;
        let mut matched = false;
        for (candidate, planned) in candidates.iter().zip(&mut planned) {
            let container = rule.container.as_ref().is_none_or(|container| candidate.is_in(container));
            if !container || !matcher.is_match(&candidate.name) {
                continue;
            }
            matched = true;
            if candidate.is_weight() {
                let last = if rule.action == Action::Disable { &mut disabled_by } else { &mut enabled_by };
                *last = Some(&rule.quantizer);
            }
            match &rule.action {
                Action::Set(config) => {
                    planned.config = (**config).clone();
                    planned.enabled = true;
                }
                Action::Enable => planned.enabled = true,
                Action::Disable => planned.enabled = false,
            }
        }
        if let Some(group) = &rule.one_of {
            let (patterns, any) = alternatives.entry(group).or_default();
            patterns.push(rule.quantizer.clone());
            *any |= matched;
            continue;
        }
        if !matched && !rule.optional {
            return Err(no_match(candidates, rule));
        }
    }
    let weights = || candidates.iter().zip(&planned).filter(|(candidate, _)| candidate.is_weight());
    if let (Some(enabled), Some(disabled), NoWeights::Refused) = (enabled_by, disabled_by, none)
        && !weights().any(|(_, planned)| planned.enabled)
    {
        return Err(QuantError::NoWeightEnabled { enabled_by: enabled.clone(), disabled_by: disabled.clone() });
    }
    if let Some((patterns, _)) = alternatives.into_values().find(|(_, any)| !any) {
        let near_misses = near_misses(&patterns[0], candidates.iter().map(|c| c.name.as_str()));
        return Err(QuantError::NoneMatched { patterns, near_misses });
    }
    Ok(planned)
}

/// Why a rule matches nothing: a typo, or a pattern for activations on a model of burn's own layers.
fn no_match(candidates: &[Candidate], rule: &Rule) -> QuantError {
    let pattern = rule.quantizer.clone();
    let of_activations = ["input_quantizer", "output_quantizer", "bmm_quantizer", "softmax_quantizer"];
    let weights = candidates.iter().filter(|candidate| candidate.is_weight()).count();
    if weights > 0 && weights == candidates.len() && of_activations.iter().any(|name| pattern.contains(name)) {
        return QuantError::NoActivations { pattern, weights };
    }
    let near_misses = near_misses(&pattern, candidates.iter().map(|candidate| candidate.name.as_str()));
    QuantError::NoMatch { pattern, container: rule.container.clone(), near_misses }
}
