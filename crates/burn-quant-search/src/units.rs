//! Which layers are searched, which of them together, and what each may get.

use burn::module::Module;
use globset::GlobMatcher;
use regex::Regex;
use serde::{Deserialize, Serialize};

use super::{AutoQuantizeConfig, SearchFormat, default_groups};
use burn_quant_calibrate::config::QuantConfig;
use burn_quant_core::config::Rule;
use burn_quant_core::config::{matcher, near_misses};
use burn_quant_core::error::QuantError;
use burn_quant_core::model::Quantizers;
use burn_quant_core::model::{LayerRef, ModelIndex, layers};
use burn_quant_core::place::{Plan, PlannedQuantizer, WeightLayouts, place};

/// A layer that is searched: a weight, and the quantizers of it and of its input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unit {
    /// The path of the layer.
    pub layer: String,
    /// The path of its weight.
    pub weight: String,
    /// The shape of its weight.
    pub shape: Vec<usize>,
    /// The path of its bias, if it has one.
    pub bias: Option<String>,
    /// The name of its weight's quantizer.
    pub weight_quantizer: String,
    /// The name of its input's quantizer, if it has an activation quantizer.
    pub input_quantizer: Option<String>,
}

impl Unit {
    pub(super) fn of(layer: LayerRef) -> Self {
        Self {
            layer: layer.name,
            weight: layer.weight,
            shape: layer.shape,
            bias: layer.bias,
            weight_quantizer: layer.weight_quantizer,
            input_quantizer: layer.input_quantizer,
        }
    }

    /// Returns the elements of its weight.
    ///
    /// The product of its shape.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The names of its quantizers.
    pub(super) fn quantizers(&self) -> impl Iterator<Item = &String> {
        std::iter::once(&self.weight_quantizer).chain(&self.input_quantizer)
    }
}

/// What one format is to one layer: the configurations of its quantizers, or `None` if the rules of the format leave
/// its weight alone.
pub(super) type Planned = Option<Vec<(String, PlannedQuantizer)>>;

/// Layers that get one format.
pub(super) struct Group {
    pub(super) units: Vec<Unit>,
    /// The formats that it may get, by their place among all.
    pub(super) formats: Vec<usize>,
    /// Whether it may stay as it is.
    pub(super) allow_float: bool,
}

/// A model's layers in groups, and what all formats are to them: `planned[format][unit]`, units in the order of the
/// groups.
pub(super) struct Layout<'a> {
    pub(super) groups: Vec<Group>,
    pub(super) formats: Vec<&'a SearchFormat>,
    pub(super) planned: Vec<Vec<Planned>>,
}

impl<'a> Layout<'a> {
    /// `base` is the model with a quantizer on every known weight.
    pub(super) fn of<M: Module>(
        base: &M,
        config: &'a AutoQuantizeConfig,
        layouts: &WeightLayouts,
    ) -> Result<Self, QuantError> {
        let formats = config.all_formats();
        let mut units: Vec<Unit> = Vec::new();
        let mut plans = Vec::new();
        for format in &formats {
            let (placed, plan) = place(base.clone(), &format.config, layouts)?;
            for layer in layers(&ModelIndex::of(&placed), false) {
                let unit = Unit::of(layer);
                if !units.contains(&unit) {
                    units.push(unit);
                }
            }
            plans.push(plan);
        }
        // in the order of the model, whichever format came first
        let order: Vec<String> = Quantizers::of(base).names().map(String::from).collect();
        units.sort_by_key(|unit| order.iter().position(|name| *name == unit.weight_quantizer));
        if units.is_empty() {
            return Err(QuantError::Search { problem: "the formats quantize no weight of the model".into() });
        }
        patterns_match(base, config, &units)?;
        let groups = grouped(units, config)?;
        let groups: Vec<Group> = groups
            .into_iter()
            .map(|units| of_space(units, config, &formats))
            .filter_map(Result::transpose)
            .collect::<Result<_, _>>()?;
        let units = || groups.iter().flat_map(|group| &group.units);
        let planned = plans.iter().map(|plan| units().map(|unit| planned(unit, plan)).collect()).collect();
        let mut layout = Self { groups, formats, planned };
        layout.drop_formats_of_no_unit();
        Ok(layout)
    }

    /// The units of all groups, in order, with their group.
    pub(super) fn units(&self) -> impl Iterator<Item = (usize, &Unit)> {
        self.groups.iter().enumerate().flat_map(|(g, group)| group.units.iter().map(move |unit| (g, unit)))
    }

    /// A format is a choice of a group only if its rules quantize a layer of it.
    fn drop_formats_of_no_unit(&mut self) {
        let mut first = 0;
        for group in &mut self.groups {
            let units = first..first + group.units.len();
            group.formats.retain(|format| self.planned[*format][units.clone()].iter().any(Option::is_some));
            if group.formats.is_empty() {
                group.allow_float = true;
            }
            first = units.end;
        }
    }

    /// The configuration that calibrates a format: every layer that may get it has it, all others are off.
    pub(super) fn config_of(&self, format: usize) -> QuantConfig {
        let mut config = QuantConfig::new().with_algorithm(self.formats[format].config.algorithm.clone());
        for ((group, _), planned) in self.units().zip(&self.planned[format]) {
            if self.groups[group].formats.contains(&format) {
                config.rules.extend(planned.iter().flatten().flat_map(rules));
            }
        }
        config
    }
}

/// The rules that make a quantizer what is planned, and nothing else.
pub(super) fn rules((name, planned): &(String, PlannedQuantizer)) -> Vec<Rule> {
    let name = globset::escape(name);
    if planned.enabled { vec![Rule::set(name, planned.config.clone())] } else { vec![Rule::disable(name)] }
}

fn planned(unit: &Unit, plan: &Plan) -> Planned {
    if !plan.quantizers.get(&unit.weight_quantizer)?.enabled {
        return None;
    }
    Some(unit.quantizers().filter_map(|name| Some((name.clone(), plan.quantizers.get(name)?.clone()))).collect())
}

/// Whether every pattern matches something: a typo must not change what is searched in silence.
fn patterns_match<M: Module>(base: &M, config: &AutoQuantizeConfig, units: &[Unit]) -> Result<(), QuantError> {
    let searched: Vec<&str> = units.iter().map(|unit| unit.layer.as_str()).collect();
    let index = ModelIndex::lazy_of(base);
    let layers = index.layer_paths();
    let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
    let parameters = index.parameters().iter().map(|parameter| parameter.path.as_str());
    let counted: Vec<&str> = layers.iter().copied().chain(parameters).collect();
    let spaces = config.overrides.iter().flat_map(|space| &space.layers);
    let globs = spaces.map(|glob| ("overrides", glob, &searched));
    let globs = globs.chain(config.keep_float.iter().map(|glob| ("keep_float", glob, &layers)));
    let globs = globs.chain(config.exclude_from_budget.iter().map(|glob| ("exclude_from_budget", glob, &counted)));
    for (option, pattern, names) in globs {
        let glob = matcher(pattern)?;
        if !names.iter().any(|name| glob.is_match(name)) {
            let near_misses = near_misses(pattern, names.iter().copied());
            return Err(QuantError::NoLayer { option, pattern: pattern.clone(), near_misses });
        }
    }
    // the default ones are for many kinds of models
    let default = default_groups();
    for pattern in config.groups.iter().filter(|pattern| !default.contains(pattern)) {
        let rule = group_rule(pattern)?;
        if !searched.iter().any(|layer| rule.is_match(layer)) {
            let near_misses = near_misses(pattern, searched.iter().copied());
            return Err(QuantError::NoLayer { option: "groups", pattern: pattern.clone(), near_misses });
        }
    }
    Ok(())
}

/// The regular expression of layers that belong together.
fn group_rule(pattern: &str) -> Result<Regex, QuantError> {
    let bad = |reason: String| QuantError::BadPattern { pattern: pattern.into(), reason };
    let rule = Regex::new(pattern).map_err(|e| bad(e.to_string()))?;
    if rule.captures_len() < 2 {
        return Err(bad("it captures nothing: what layers of one group have in common".into()));
    }
    Ok(rule)
}

/// Units by group, in the order of their first members.
fn grouped(units: Vec<Unit>, config: &AutoQuantizeConfig) -> Result<Vec<Vec<Unit>>, QuantError> {
    let rules: Vec<Regex> = config.groups.iter().map(|pattern| group_rule(pattern)).collect::<Result<_, _>>()?;
    /// The rule, and what it captured.
    type Key = Option<(usize, String)>;
    let mut groups: Vec<(Key, Vec<Unit>)> = Vec::new();
    for unit in units {
        let key = rules.iter().enumerate().find_map(|(i, rule)| {
            let captures = rule.captures(&unit.layer)?;
            Some((i, captures.get(1).map_or(String::new(), |key| key.as_str().to_string())))
        });
        match groups.iter_mut().find(|(other, _)| key.is_some() && *other == key) {
            Some((_, units)) => units.push(unit),
            None => groups.push((key, vec![unit])),
        }
    }
    Ok(groups.into_iter().map(|(_, units)| units).collect())
}

/// A group with what it may get; `None` if it is not searched.
fn of_space(
    units: Vec<Unit>,
    config: &AutoQuantizeConfig,
    formats: &[&SearchFormat],
) -> Result<Option<Group>, QuantError> {
    let place = |format: &SearchFormat| formats.iter().position(|other| *other == format).expect("it is one of all");
    let places = |formats: &[SearchFormat]| formats.iter().map(place).collect::<Vec<_>>();
    let mut found: Option<(&[String], Group)> = None;
    for space in &config.overrides {
        let covered = covered(&units, &matchers(&space.layers)?);
        if covered == 0 {
            continue;
        }
        let group = || units.iter().map(|unit| unit.layer.as_str()).collect::<Vec<_>>().join("`, `");
        let space_of = || space.layers.join("`, `");
        if covered < units.len() {
            let problem = format!("the override of `{}` covers only a part of the group `{}`", space_of(), group());
            return Err(QuantError::Search { problem });
        }
        if let Some((other, _)) = found {
            let problem =
                format!("the overrides of `{}` and `{}` both cover `{}`", other.join("`, `"), space_of(), group());
            return Err(QuantError::Search { problem });
        }
        let group = Group { units: units.clone(), formats: places(&space.formats), allow_float: space.allow_float };
        found = Some((&space.layers, group));
    }
    let searched = !config.formats.is_empty() || config.base.is_none();
    let default = || Group { formats: places(&config.formats), allow_float: true, units: units.clone() };
    let group = found.map(|(_, group)| group).or_else(|| searched.then(default));
    let disabled = covered(&units, &matchers(&config.keep_float)?) > 0;
    Ok(group.map(|group| if disabled { Group { formats: Vec::new(), allow_float: true, ..group } } else { group }))
}

/// How many units match a glob.
fn covered(units: &[Unit], globs: &[GlobMatcher]) -> usize {
    units.iter().filter(|unit| globs.iter().any(|glob| glob.is_match(&unit.layer))).count()
}

pub(super) fn matchers(globs: &[String]) -> Result<Vec<GlobMatcher>, QuantError> {
    globs.iter().map(|glob| matcher(glob)).collect()
}
