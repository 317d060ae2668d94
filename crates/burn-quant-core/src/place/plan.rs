//! Rules to plan, plan to model.

use std::collections::BTreeMap;

use burn::module::{Module, Reparameterization};
use serde::{Deserialize, Serialize};

use super::WeightLayouts;
use super::beside::{BesideConvolution, beside_convolutions, inputs_in_float};
use super::layout::Resolved;
use crate::config::near_misses;
use crate::config::{Action, QuantizerConfig, Rule};
use crate::error::{InvalidConfig, QuantError};
use crate::layout::Role;
use crate::layout::{burn_layer_name, has_no_product, role_of_inputs};
use crate::model::Quantizers;
use crate::model::{ModelIndex, ParameterRef, attach, layer_of, within};
use crate::quantizer::TensorQuantizer;

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
    /// Returns the plan that a model carries out now.
    ///
    /// It is what records save.
    pub fn of<M: Module>(model: &M) -> Self {
        let quantizers = Quantizers::of(model);
        let planned = |(name, quantizer): (&str, &TensorQuantizer)| (name.to_string(), PlannedQuantizer::of(quantizer));
        Self { quantizers: quantizers.iter().map(planned).collect() }
    }
}

/// Attaches a quantizer to every known weight of a model and configures all quantizers as the rules say.
///
/// Nothing is calibrated. Ranges that still fit are kept, so placing the same configuration again changes nothing.
/// Weights that no rule enables get a disabled quantizer, which is the identity and can be enabled later; a weight with
/// a reparameterization of another kind is left alone unless a rule enables its quantizer.
///
/// `rules` is a configuration, or a list of rules.
///
/// # Errors
///
/// [`QuantError::NoMatch`] for a required rule without a match, [`QuantError::NoActivations`] for one that is for
/// activations, where the model quantizes none, [`QuantError::NoWeightEnabled`] if rules enable weights and later ones
/// disable all of them, [`QuantError::BadPattern`], [`QuantError::Config`] for a configuration that does not fit its
/// quantizer, and [`QuantError::ForeignReparameterization`].
pub fn place<M: Module>(
    model: M,
    rules: &(impl AsRef<[Rule]> + ?Sized),
    layouts: &WeightLayouts,
) -> Result<(M, Plan), QuantError> {
    let placed = Placed::of(model, rules.as_ref(), layouts, NoWeights::Refused)?;
    Ok((placed.model, placed.plan))
}

/// Returns what rules come down to for a model, without making any of its parameters.
///
/// Weights whose parameters are lazy are not checked against blocks and groups, as their shapes are not final: that is
/// done when the plan is [installed](install_plan), or rules are [placed](place()).
///
/// # Errors
///
/// Those of [`place()`].
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::tensor::Device;
/// use burn_nn::LinearConfig; // burn's own layer
/// use burn_quant::place::{WeightLayouts, plan};
/// use burn_quant::presets;
///
/// let huge = LinearConfig::new(1 << 20, 1 << 20).init(&Device::flex()); // no memory is taken
/// let plan = plan(&huge, &presets::int8_weight_only(), &WeightLayouts::new())?;
/// assert!(plan.quantizers["weight_quantizer"].enabled);
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn plan<M: Module>(
    model: &M,
    rules: &(impl AsRef<[Rule]> + ?Sized),
    layouts: &WeightLayouts,
) -> Result<Plan, QuantError> {
    let index = ModelIndex::lazy_of(model);
    index.refuse_packed()?;
    planned(&index, &layouts.resolve(&index)?, rules.as_ref(), NoWeights::Refused, Shapes::OfLazyUnknown)
}

/// Which shapes are final.
#[derive(Clone, Copy, PartialEq)]
enum Shapes {
    /// All.
    Known,
    /// All but those of parameters that are not made yet.
    OfLazyUnknown,
}

/// What rules come down to.
fn planned(
    index: &ModelIndex,
    layouts: &Resolved,
    rules: &[Rule],
    none: NoWeights,
    shapes: Shapes,
) -> Result<Plan, QuantError> {
    let placements = placements(index, layouts);
    let planned = apply_rules(&placements, rules, none)?;
    for (placement, planned) in placements.iter().zip(&planned) {
        placement.check(planned, shapes)?;
    }
    let quantizers = placements.iter().zip(&planned).filter(|(c, p)| c.foreign().is_none() || p.enabled);
    Ok(Plan { quantizers: quantizers.map(|(c, p)| (c.name.clone(), p.clone())).collect() })
}

/// Whether rules may enable weights and then disable all of them.
#[derive(Clone, Copy, PartialEq)]
pub enum NoWeights {
    /// An error: as in ModelOpt, it is a mistake in the rules.
    Refused,
    /// Nothing is said: a search takes the layers out of its base that it is about to choose formats for.
    Allowed,
}

/// A model with its quantizers in place.
pub struct Placed<M> {
    /// The model.
    pub model: M,
    /// What its quantizers do.
    pub plan: Plan,
    /// Parameters of two or more axes that no weight quantizer belongs to, by path.
    pub float: Vec<String>,
    /// Registered layouts that no parameter of the model has.
    pub unused_layouts: Vec<String>,
    /// Layers with a quantized weight that had been rounded for good.
    pub folded: Vec<String>,
    /// Layers of burn's whose inputs stay in float, in a model that quantizes inputs of others.
    pub inputs_in_float: Vec<String>,
    /// Quantizers that look for channels elsewhere than the convolutions beside them.
    pub beside: Vec<BesideConvolution>,
}

impl<M: Module> Placed<M> {
    /// Does what [`place`] does.
    pub fn of(model: M, rules: &[Rule], layouts: &WeightLayouts, none: NoWeights) -> Result<Self, QuantError> {
        let index = ModelIndex::of(&model);
        index.refuse_packed()?;
        let resolved = layouts.resolve(&index)?;
        let plan = planned(&index, &resolved, rules, none, Shapes::Known)?;
        let float = |parameter: &&ParameterRef| {
            parameter.shape.len() > 1
                && plan.quantizers.get(&parameter.quantizer).is_none_or(|planned| !planned.enabled)
        };
        let float = index.parameters().iter().filter(float).map(|parameter| parameter.path.clone()).collect();
        let again = |layer: &String| {
            let weight =
                if layer == "weight" { TensorQuantizer::NAME.into() } else { within(layer, TensorQuantizer::NAME) };
            plan.quantizers.get(&weight).is_some_and(|planned| planned.enabled)
        };
        let folded = index.folded().into_iter().filter(again).collect();
        let beside = beside_convolutions(&index, &plan, &resolved);
        let inputs_in_float = inputs_in_float(&index, &plan);
        let model = install(model, &plan, index)?;
        Ok(Self { model, plan, float, unused_layouts: resolved.unused, folded, inputs_in_float, beside })
    }
}

/// Gives a model exactly the quantizers of a plan: attaches those of weights that lack one, and configures the others.
///
/// # Errors
///
/// [`QuantError::UnknownQuantizer`] if the plan names an activation quantizer or a weight that the model lacks,
/// [`QuantError::Config`] if a configuration does not fit its quantizer, and [`QuantError::ForeignReparameterization`].
pub fn install_plan<M: Module>(model: M, plan: &Plan) -> Result<M, QuantError> {
    let index = ModelIndex::lazy_of(&model);
    index.refuse_packed()?;
    install(model, plan, index)
}

fn install<M: Module>(model: M, plan: &Plan, mut index: ModelIndex) -> Result<M, QuantError> {
    let mut present = std::mem::take(&mut index.quantizers);
    let mut attached = BTreeMap::new();
    for (name, planned) in &plan.quantizers {
        let weight = index.weight_of(name);
        planned.check(name, weight.filter(|weight| !weight.is_lazy).map(|weight| weight.shape.as_slice()))?;
        if let Some(quantizer) = present.find_mut(name) {
            planned.configure(quantizer);
            continue;
        }
        let weight = weight.ok_or_else(|| QuantError::UnknownQuantizer {
            name: name.clone(),
            near_misses: near_misses(
                name,
                present.names().chain(index.parameters().iter().map(|weight| weight.quantizer.as_str())),
            ),
        })?;
        if let Some(found) = &weight.reparameterization {
            let (path, found) = (weight.path.clone(), found.clone());
            return Err(QuantError::ForeignReparameterization { path, found });
        }
        let mut quantizer = TensorQuantizer::disabled(planned.role);
        planned.configure(&mut quantizer);
        attached.insert(weight.path.clone(), quantizer);
    }
    let model = if present.is_empty() { model } else { present.install(model)? };
    Ok(attach(model, attached))
}

impl PlannedQuantizer {
    /// Returns what a quantizer does.
    ///
    /// A chain is one quantizer.
    pub fn of(quantizer: &TensorQuantizer) -> Self {
        Self { config: quantizer.config().clone(), role: quantizer.role(), enabled: quantizer.is_enabled() }
    }

    /// Whether the configuration suits the quantizer; the shape is known for weights only.
    pub fn check(&self, name: &str, shape: Option<&[usize]>) -> Result<(), QuantError> {
        let checked = if self.enabled { self.config.suits(self.role, shape) } else { Ok(()) };
        checked.map_err(|problem| QuantError::Config { name: name.into(), problem })
    }

    /// Makes a quantizer do what is planned, and switches it on or off.
    ///
    /// Ranges that still fit are kept.
    pub fn configure(&self, quantizer: &mut TensorQuantizer) {
        quantizer.set_config(self.config.clone());
        if self.enabled { quantizer.enable() } else { quantizer.disable() }
    }
}

/// A quantizer that a rule may match: one the model has, or one that a weight could get.
struct Placement<'a> {
    name: String,
    container: String,
    now: PlannedQuantizer,
    weight: Option<&'a ParameterRef>,
    /// Of an activation quantizer in a layer of burn's or ours with a weight: where the tensors of that layer have
    /// channels.
    of_layer: Option<Role>,
}

impl Placement<'_> {
    /// Whether it belongs to a struct of this type name: `Linear` and `QuantLinear` are one.
    fn is_in(&self, container: &str) -> bool {
        burn_layer_name(&self.container) == burn_layer_name(container)
    }

    fn is_weight(&self) -> bool {
        matches!(self.now.role, Role::Weight(_))
    }

    /// Whether it may belong to a product: any quantizer but those of norms, pools and rectifiers.
    fn is_of_product(&self) -> bool {
        !has_no_product(burn_layer_name(&self.container))
    }

    fn check(&self, planned: &PlannedQuantizer, shapes: Shapes) -> Result<(), QuantError> {
        if let (true, Some((path, found))) = (planned.enabled, self.foreign()) {
            return Err(QuantError::ForeignReparameterization { path, found });
        }
        if let Some(weight) = self.weight.filter(|weight| planned.enabled && weight.is_quantized) {
            return Err(QuantError::BurnQuantized { path: weight.path.clone() });
        }
        let (found, layer) = (planned.role, burn_layer_name(&self.container).to_string());
        if let Some(expected) = self.of_layer.filter(|expected| planned.enabled && *expected != found) {
            let problem = InvalidConfig::RoleOfLayer { layer, found, expected };
            return Err(QuantError::Config { name: self.name.clone(), problem });
        }
        let known = self.weight.filter(|weight| shapes == Shapes::Known || !weight.is_lazy);
        planned.check(&self.name, known.map(|weight| weight.shape.as_slice()))
    }

    /// The path and the name of a reparameterization that is not ours.
    fn foreign(&self) -> Option<(String, String)> {
        let weight = self.weight?;
        let found = weight.reparameterization.as_deref().filter(|name| *name != TensorQuantizer::NAME)?;
        Some((weight.path.clone(), found.to_string()))
    }
}

fn is_weight(quantizer: &TensorQuantizer) -> bool {
    matches!(quantizer.role(), Role::Weight(_))
}

fn placements<'a>(index: &'a ModelIndex, layouts: &Resolved) -> Vec<Placement<'a>> {
    let present = index.quantizers.iter().zip(index.quantizers.containers());
    let of_layer = |name: &str, quantizer: &TensorQuantizer| {
        let weight = index.parameter_at(&within(layer_of(name), "weight"))?;
        (!is_weight(quantizer) && layouts.get(&weight.path).is_some())
            .then(|| role_of_inputs(&weight.container))
            .flatten()
    };
    let mut placements: Vec<Placement<'_>> = present
        .map(|((name, quantizer), (_, container))| Placement {
            name: name.to_string(),
            container: container.to_string(),
            now: PlannedQuantizer::of(quantizer),
            weight: index.weight_of(name).filter(|_| is_weight(quantizer)),
            of_layer: of_layer(name, quantizer),
        })
        .collect();
    for weight in index.parameters().iter().filter(|weight| index.quantizers.find(&weight.quantizer).is_none()) {
        if let Some(layout) = layouts.get(&weight.path) {
            let now =
                PlannedQuantizer { config: QuantizerConfig::default(), role: Role::Weight(layout), enabled: false };
            let (name, container) = (weight.quantizer.clone(), weight.container.clone());
            placements.push(Placement { name, container, now, weight: Some(weight), of_layer: None });
        }
    }
    placements
}

fn apply_rules(
    candidates: &[Placement<'_>],
    rules: &[Rule],
    none: NoWeights,
) -> Result<Vec<PlannedQuantizer>, QuantError> {
    let mut alternatives: BTreeMap<&str, (Vec<String>, bool)> = BTreeMap::new();
    let (mut enabled_by, mut disabled_by) = (None, None);
    let mut planned: Vec<_> = candidates.iter().map(|c| PlannedQuantizer { enabled: false, ..c.now.clone() }).collect();
    for rule in rules {
        let matcher = rule.matcher()?;
        let mut matched = false;
        let named = |candidate: &Placement<'_>| {
            let container = rule.container.as_ref().is_none_or(|container| candidate.is_in(container));
            container && matcher.is_match(&candidate.name)
        };
        // what is switched on without saying where is what belongs to products, if some of it does
        let only_products = rule.container.is_none()
            && rule.action != Action::Disable
            && candidates.iter().any(|candidate| named(candidate) && candidate.is_of_product());
        for (candidate, planned) in candidates.iter().zip(&mut planned) {
            if !named(candidate) || only_products && !candidate.is_of_product() {
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
fn no_match(candidates: &[Placement<'_>], rule: &Rule) -> QuantError {
    let pattern = rule.quantizer.clone();
    let of_activations = ["input_quantizer", "output_quantizer", "bmm_quantizer", "softmax_quantizer"];
    let weights = candidates.iter().filter(|candidate| candidate.is_weight()).count();
    if weights > 0 && weights == candidates.len() && of_activations.iter().any(|name| pattern.contains(name)) {
        return QuantError::NoActivations { pattern, weights };
    }
    let near_misses = near_misses(&pattern, candidates.iter().map(|candidate| candidate.name.as_str()));
    QuantError::NoMatch { pattern, container: rule.container.clone(), near_misses }
}
