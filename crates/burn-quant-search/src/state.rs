//! What a search knows: candidates, scores and costs; budgets are solved from it without the data.

use std::collections::BTreeMap;

use burn::module::Module;
use serde::{Deserialize, Serialize};

use super::candidate::{Candidate, with_candidates};
use super::config::check_bits;
use super::knapsack::{self, Item, within};
use super::{AutoQuantizeConfig, Objective, QuantizerState, Unit, minimax};
use burn_quant_calibrate::observe::experts;
use burn_quant_core::config::Rule;
use burn_quant_core::error::QuantError;
use burn_quant_core::error::number;
use burn_quant_core::model::ModelIndex;
use burn_quant_core::model::{Quantizers, quantizer_devices};
use burn_quant_core::place::{WeightLayouts, place};

/// What a score is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoreMethod {
    /// Squared change of the loss to first order: `gradient.rs`.
    Gradient,
    /// Divergence of the outputs from those of the float model: `divergence.rs`.
    Divergence,
    /// Relative squared error of the outputs of layers, from statistics alone: `gram_score.rs`.
    #[serde(alias = "gram")]
    LayerError,
}

/// One of the formats that a group may get.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// The name of the format; `None` where the layers stay as they are.
    pub format: Option<String>,
    /// Bits of all weights of the group, with all that belongs to them.
    pub cost: f64,
    /// What it costs in loss, as scored; `None` before scoring.
    pub score: Option<f64>,
    /// Whether it may be chosen.
    pub allowed: bool,
}

/// Layers that get one format.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchGroup {
    /// The layers; the group is called by the first.
    pub units: Vec<Unit>,
    /// What it may get, the fewest bits first.
    pub choices: Vec<Choice>,
}

impl SearchGroup {
    /// Returns the name of the group: that of its first layer.
    ///
    /// Tables and selections call it so.
    pub fn name(&self) -> &str {
        &self.units[0].layer
    }

    /// The scores of its choices, made monotone: more bits are never worse, as a format with fewer bits could be stored
    /// in them.
    pub fn monotone_scores(&self) -> Vec<f64> {
        let mut least = f64::INFINITY;
        let scores = self.choices.iter().map(|choice| {
            least = least.min(choice.score.unwrap_or(f64::INFINITY));
            least
        });
        scores.collect()
    }
}

/// One format for each group, within a budget.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// The format of each group, by its name; `None` where it stays as it is.
    pub formats: BTreeMap<String, Option<String>>,
    /// Bits per parameter, counted as the search counts.
    pub effective_bits: f64,
    /// The budget.
    pub budget: f64,
    /// The sum of the scores, or the largest of them if that was minimised.
    pub score: f64,
    /// Whether the bits are within the budget: always, except under [`Objective::ModelOptBisection`].
    pub within_budget: bool,
    /// How far the score may be above the least that the budget allows: 0 if no selection is better, which the solver
    /// proves unless its memory runs out. Not known, and 0, of selections of one's own and under
    /// [`Objective::ModelOptBisection`].
    #[serde(default, skip_serializing_if = "is_zero")]
    pub gap: f64,
}

fn is_zero(number: &f64) -> bool {
    *number == 0.0
}

/// What the base configuration of a search makes of the layers that are not searched.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BaseResult {
    /// Layers with a quantized weight.
    pub layers: Vec<(Unit, Candidate)>,
    /// All other quantizers, by name.
    pub quantizers: BTreeMap<String, QuantizerState>,
}

/// Everything that a search found out: it is saved after calibration and after scoring, resumed, and solved for any
/// budget.
///
/// # Example
///
/// See [`auto_quantize`](super::auto_quantize).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchState {
    /// What was searched for.
    pub config: AutoQuantizeConfig,
    /// What the scores are.
    pub method: ScoreMethod,
    /// A hash of the float weights that are searched.
    pub model: u64,
    /// The layers, their formats, scores and costs.
    pub groups: Vec<SearchGroup>,
    /// What the base configuration makes of the model.
    #[serde(default)]
    pub base: BaseResult,
    /// Bits of all parameters that are not searched, and count.
    pub other_bits: f64,
    /// Parameters that count.
    pub counted: f64,
    /// What the formats make of the layers: by format, then by layer's weight quantizer.
    pub candidates: BTreeMap<String, BTreeMap<String, Candidate>>,
    /// Batches that the scores are sums over, or that the statistics were asked of; 0 before scoring.
    pub scored_batches: usize,
    /// Groups of experts that no batch of the scoring moved, by name: they have the scores of their siblings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unreached: Vec<String>,
    /// The selection for the budget of the configuration.
    pub best: Option<Selection>,
}

impl SearchState {
    /// The best selection for another budget, without any forward pass.
    ///
    /// # Errors
    ///
    /// [`QuantError::Search`] for a budget that is none, or a state without scores, and [`QuantError::Infeasible`] for
    /// one below the least bits.
    pub fn solve(&self, effective_bits: f64) -> Result<Selection, QuantError> {
        check_bits(effective_bits)?;
        self.validate()?;
        if self.scored_batches == 0 {
            return Err(QuantError::Search { problem: "the state has no scores yet: resume the search".into() });
        }
        let budget = effective_bits * self.counted - self.other_bits;
        let allowed: Vec<Vec<(usize, Item)>> = self.groups.iter().map(items).collect();
        let groups: Vec<Vec<Item>> =
            allowed.iter().map(|group| group.iter().map(|(_, item)| *item).collect()).collect();
        let infeasible =
            |least: f64| QuantError::Infeasible { effective_bits, least: (least + self.other_bits) / self.counted };
        let least = knapsack_cost(&groups, |group| group.iter().map(|item| item.cost).fold(f64::INFINITY, f64::min));
        let proven = |chosen: Vec<usize>| knapsack::Solution { chosen, gap: 0.0 };
        let knapsack::Solution { chosen, gap } = match self.config.objective {
            Objective::Sum => knapsack::solve(&groups, budget).map_err(infeasible)?,
            Objective::Largest if within(least, budget) => proven(minimax::smallest_maximum(&groups, budget)),
            Objective::ModelOptBisection if within(least, budget) => proven(minimax::bisection(&groups, budget)),
            _ => return Err(infeasible(least)),
        };
        let item = |(group, j): (&Vec<Item>, &usize)| group[*j];
        let items: Vec<Item> = groups.iter().zip(&chosen).map(item).collect();
        let cost: f64 = items.iter().map(|item| item.cost).sum();
        let scores = items.iter().map(|item| item.score);
        let formats = self
            .groups
            .iter()
            .zip(&allowed)
            .zip(&chosen)
            .map(|((group, allowed), j)| (group.name().to_string(), group.choices[allowed[*j].0].format.clone()));
        Ok(Selection {
            formats: formats.collect(),
            effective_bits: (cost + self.other_bits) / self.counted,
            budget: effective_bits,
            score: match self.config.objective {
                Objective::Sum => scores.sum(),
                Objective::Largest | Objective::ModelOptBisection => scores.fold(0.0, f64::max),
            },
            within_budget: within(cost, budget),
            gap,
        })
    }

    /// The fewest and the most bits per parameter that a selection can have.
    pub fn bits_range(&self) -> (f64, f64) {
        let bits = |pick: fn(f64, f64) -> f64, start: f64| {
            let cost = |group: &SearchGroup| {
                group.choices.iter().filter(|choice| choice.allowed).map(|choice| choice.cost).fold(start, pick)
            };
            (self.groups.iter().map(cost).sum::<f64>() + self.other_bits) / self.counted
        };
        (bits(f64::min, f64::INFINITY), bits(f64::max, 0.0))
    }

    /// Bits per parameter of a selection of one's own, by the names of groups; those that are not named stay as they
    /// are.
    ///
    /// # Errors
    ///
    /// [`QuantError::SearchState`] for a group or a format that is not there.
    pub fn selection(&self, formats: &BTreeMap<String, Option<String>>) -> Result<Selection, QuantError> {
        let problem = |problem: String| QuantError::SearchState { problem };
        if let Some(unknown) = formats.keys().find(|name| self.groups.iter().all(|group| group.name() != *name)) {
            return Err(problem(format!("there is no group `{unknown}`")));
        }
        let (mut cost, mut score, mut chosen) = (self.other_bits, 0.0, BTreeMap::new());
        for group in &self.groups {
            let format = formats.get(group.name()).cloned().flatten();
            let j = group.choices.iter().position(|choice| choice.format == format).ok_or_else(|| {
                problem(format!("`{}` has no format `{}`", group.name(), format.clone().unwrap_or_default()))
            })?;
            cost += group.choices[j].cost;
            score += group.monotone_scores()[j];
            chosen.insert(group.name().to_string(), format);
        }
        let bits = cost / self.counted;
        Ok(Selection { formats: chosen, effective_bits: bits, budget: bits, score, within_budget: true, gap: 0.0 })
    }

    /// One format for every group that has it; the others stay as they are.
    ///
    /// # Errors
    ///
    /// As [`SearchState::selection`].
    pub fn uniform(&self, format: &str) -> Result<Selection, QuantError> {
        let has = |group: &&SearchGroup| group.choices.iter().any(|choice| choice.format.as_deref() == Some(format));
        let named = self.groups.iter().filter(has);
        self.selection(&named.map(|group| (group.name().to_string(), Some(format.to_string()))).collect())
    }

    /// A float model with the formats of a selection.
    ///
    /// # Errors
    ///
    /// [`QuantError::SearchState`] if the model is not the one that was searched.
    pub fn apply<M: Module>(&self, model: M, selection: &Selection) -> Result<M, QuantError> {
        self.apply_with(model, selection, &WeightLayouts::new())
    }

    /// [`apply`](SearchState::apply) with another table of weights.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn apply_with<M: Module>(
        &self,
        model: M,
        selection: &Selection,
        layouts: &WeightLayouts,
    ) -> Result<M, QuantError> {
        self.check(&model)?;
        let (model, _) = place(model, &[] as &[Rule], layouts)?;
        let fixed = self.base.layers.iter().map(|(unit, candidate)| (unit, candidate));
        let layers: Vec<_> = fixed.chain(self.chosen(selection)?).collect();
        let model = with_candidates(model, layers.into_iter())?;
        let (mut quantizers, devices) = (Quantizers::of(&model), quantizer_devices(&model));
        for (name, state) in &self.base.quantizers {
            let device = devices.get(name).cloned().unwrap_or_default();
            *quantizers.get_mut(name)? = state.build(name, &device)?.recreated_on(&device);
        }
        quantizers.install(model)
    }

    /// The layers that a selection quantizes, with what they become.
    pub(super) fn chosen(&self, selection: &Selection) -> Result<Vec<(&Unit, &Candidate)>, QuantError> {
        let mut chosen = Vec::new();
        for group in &self.groups {
            let Some(Some(format)) = selection.formats.get(group.name()) else { continue };
            let candidates = self.candidates.get(format).ok_or_else(|| QuantError::SearchState {
                problem: format!("the format `{format}` is not calibrated"),
            })?;
            chosen.extend(group.units.iter().filter_map(|unit| Some((unit, candidates.get(&unit.weight_quantizer)?))));
        }
        Ok(chosen)
    }

    /// Whether a model is the one that was searched.
    ///
    /// # Errors
    ///
    /// [`QuantError::SearchState`] that says what differs.
    pub fn check<M: Module>(&self, model: &M) -> Result<(), QuantError> {
        let problem = |problem: String| Err(QuantError::SearchState { problem });
        let index = ModelIndex::of(model);
        let fixed = self.base.layers.iter().map(|(unit, candidate)| (unit, vec![candidate]));
        let searched = self
            .groups
            .iter()
            .flat_map(|group| &group.units)
            .map(|unit| (unit, self.candidates.values().filter_map(|of| of.get(&unit.weight_quantizer)).collect()));
        for (unit, candidates) in fixed.chain(searched) {
            let shape = |path: &String| index.parameter_at(path).map(|weight| &weight.shape);
            match shape(&unit.weight) {
                None => return problem(format!("the model has no weight `{}`", unit.weight)),
                Some(found) if *found != unit.shape => {
                    return problem(format!("`{}` has the shape {found:?}, not {:?}", unit.weight, unit.shape));
                }
                Some(_) => {}
            }
            let bias = unit.bias.as_ref().and_then(shape).map(|shape| shape.iter().product::<usize>());
            for candidate in candidates {
                let weight = candidate.weight.as_ref().is_none_or(|values| values.len() == unit.elements());
                if !weight || candidate.bias.as_ref().is_some_and(|values| Some(values.len()) != bias) {
                    return problem(format!("a candidate of `{}` has another size than the layer", unit.layer));
                }
                candidate.check(unit)?;
                if candidate.quantizers.keys().any(|name| !unit.quantizers().any(|own| own == name)) {
                    return problem(format!("a candidate of `{}` has quantizers of another layer", unit.layer));
                }
            }
        }
        if self.model != fingerprint(model, self.groups.iter().flat_map(|group| &group.units)) {
            return problem("the model has other weights".into());
        }
        Ok(())
    }

    /// A hash of the float weights of groups in a model: what [`model`](SearchState::model) is compared with.
    pub fn fingerprint<M: Module>(model: &M, groups: &[SearchGroup]) -> u64 {
        fingerprint(model, groups.iter().flat_map(|group| &group.units))
    }

    /// Whether all scores are numbers: those of a model that computes a NaN are not, and must not be kept.
    pub(super) fn check_scores(&self) -> Result<(), QuantError> {
        for group in &self.groups {
            for choice in &group.choices {
                if let Some(score) = choice.score.filter(|score| !score.is_finite()) {
                    let format = choice.format.clone().unwrap_or_else(|| "none".into());
                    return Err(QuantError::ScoreNotFinite { layer: group.name().into(), format, score });
                }
            }
        }
        Ok(())
    }

    /// Gives experts that no batch reached the scores of their siblings, and lists them in `unreached`: for each format
    /// the largest.
    ///
    /// Their own score is 0 in every format, which would give them the fewest bits for want of data.
    pub(super) fn lend_scores(&mut self) {
        let formats = |group: &SearchGroup| {
            let scored = group.choices.iter().filter_map(|choice| Some((choice.format.clone()?, choice.score?)));
            scored.collect::<BTreeMap<String, f64>>()
        };
        // of groups of experts alone: which layers they have, whatever the number of the expert
        let families = |group: &SearchGroup| {
            let families = group.units.iter().map(|unit| experts::family(&unit.layer));
            families.collect::<Option<Vec<String>>>()
        };
        let mut largest: BTreeMap<Vec<String>, BTreeMap<String, f64>> = BTreeMap::new();
        let mut unreached = Vec::new();
        for (g, group) in self.groups.iter().enumerate() {
            let (Some(families), scores) = (families(group), formats(group)) else { continue };
            if !scores.is_empty() && scores.values().all(|score| *score == 0.0) {
                unreached.push((g, families));
                continue;
            }
            let known = largest.entry(families).or_default();
            scores.into_iter().for_each(|(format, score)| {
                let most = known.entry(format).or_default();
                *most = most.max(score);
            });
        }
        self.unreached.clear();
        for (g, families) in unreached {
            self.unreached.push(self.groups[g].name().to_string());
            let Some(siblings) = largest.get(&families) else { continue };
            let most = siblings.values().copied().fold(0.0, f64::max);
            for choice in self.groups[g].choices.iter_mut() {
                let Some(format) = &choice.format else { continue };
                choice.score = Some(siblings.get(format).copied().unwrap_or(most));
            }
        }
    }

    /// Whether its numbers make sense, whoever wrote them.
    fn validate(&self) -> Result<(), QuantError> {
        let problem = |problem: String| Err(QuantError::SearchState { problem });
        if !(self.counted > 0.0 && self.counted.is_finite() && self.other_bits >= 0.0 && self.other_bits.is_finite()) {
            return problem(format!(
                "it counts {} parameters and {} other bits",
                number(self.counted),
                number(self.other_bits)
            ));
        }
        for group in &self.groups {
            if group.units.is_empty() || group.choices.iter().all(|choice| !choice.allowed) {
                return problem("a group has no layer, or no choice".into());
            }
            let sound = |number: f64| number >= 0.0 && number.is_finite();
            let unsound = |choice: &&Choice| !sound(choice.cost) || !choice.score.is_none_or(sound);
            if let Some(choice) = group.choices.iter().find(unsound) {
                let format = choice.format.as_deref().unwrap_or("none");
                let (name, score) = (group.name(), choice.score.unwrap_or_default());
                return problem(format!(
                    "`{name}` as {format} costs {} and has the score {}",
                    number(choice.cost),
                    number(score)
                ));
            }
        }
        Ok(())
    }

    /// Whether this state can be continued for a configuration: everything but budget and objective is to be equal.
    pub(super) fn continues(&self, config: &AutoQuantizeConfig, method: ScoreMethod) -> Result<(), QuantError> {
        let problem = |what: &str| Err(QuantError::SearchState { problem: format!("it was searched with {what}") });
        let own = &self.config;
        if self.method != method {
            return problem("another method of scoring");
        }
        if own.data != config.data {
            return problem(&format!("the data `{}`", own.data));
        }
        if own.all_formats() != config.all_formats() {
            return problem("other formats");
        }
        let free = |config: &AutoQuantizeConfig| AutoQuantizeConfig {
            effective_bits: 1.0,
            objective: Objective::Sum,
            ..config.clone()
        };
        if free(own) != free(config) { problem("another configuration") } else { Ok(()) }
    }

    /// What all formats plan for the layers, to find out whether a state is of the same model.
    pub(super) fn is_of(&self, groups: &[SearchGroup]) -> bool {
        let shape = |group: &SearchGroup| {
            let choices = group.choices.iter().map(|choice| (choice.format.clone(), choice.allowed));
            (group.units.clone(), choices.collect::<BTreeMap<_, _>>())
        };
        self.groups.iter().map(shape).eq(groups.iter().map(shape))
    }
}

/// The choices of a group that may be chosen, with monotone scores.
fn items(group: &SearchGroup) -> Vec<(usize, Item)> {
    let scores = group.monotone_scores();
    let all = group.choices.iter().zip(scores).enumerate();
    all.filter(|(_, (choice, _))| choice.allowed)
        .map(|(j, (choice, score))| (j, Item { cost: choice.cost, score }))
        .collect()
}

fn knapsack_cost(groups: &[Vec<Item>], cost: impl Fn(&Vec<Item>) -> f64) -> f64 {
    groups.iter().map(cost).sum()
}

/// FNV-1a of the float weights of units, as f32.
pub(super) fn fingerprint<'a, M: Module>(model: &M, units: impl Iterator<Item = &'a Unit> + Clone) -> u64 {
    let floats = super::candidate::Floats::of(model, units.clone());
    let mut hash = 0xcbf2_9ce4_8422_2325u64;
    for unit in units {
        for value in burn_quant_core::model::host(floats.weight(unit).without_autodiff()) {
            hash = (hash ^ u64::from(value.to_bits())).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
    hash
}
