//! ModelOpt's configurations, read as JSON.
//!
//! ```text
//! { "quant_cfg": [ { "quantizer_name", "parent_class", "cfg", "enable" }, ... ], "algorithm": ... }
//! ```
//!
//! The ordered list of entries and the deprecated dictionary are both read. Patterns keep their order and meaning.
//! ModelOpt writes axes by number for PyTorch's layouts; roles are found from them, and an axis that has none is an
//! error:
//!
//! | ModelOpt | weights | activations |
//! |---|---|---|
//! | `axis: null` | per tensor | per tensor |
//! | `axis: 0`, `[0]`, `-2` | per channel | error |
//! | `axis: -1`, `[-1]` | error | per channel |
//! | `block_sizes: {-1: n}` | blocks along the contracted axis | blocks of channels |
//! | `block_sizes: {1: n}` | the same, of `[out, in]` | error |
//! | `block_sizes: {-1: n, -2: m}`, `{1: n, 0: m}` | two-dimensional blocks | error |
//! | `block_sizes: {-1: null}` | per channel | per token |
//!
//! Unknown keys, and attributes that mean nothing here, are errors. Entries may match nothing, as in ModelOpt; if none
//! of those that configure quantizers matches, placing the configuration is an error.
//!
//! Source: ModelOpt 0.47, `QuantizeConfig` and `QuantizerAttributeConfig`.

mod algorithm;
mod attributes;
mod problem;
#[cfg(feature = "yaml")]
mod yaml;

use burn_quant_ops::GradientRule;
use burn_quant_ops::numerics::{BlockScale, ScaleFormat};
use serde_json::{Map, Value};

use self::algorithm::{Learning, algorithm};
use self::attributes::{Target, attributes};
use self::problem::{Problem, boolean, effective_bits, keys, object, problem, wrong};
use super::{Algorithm, QuantConfig};
use burn_quant_core::config::{
    Action, Granularity, LearnedRanges, PreScale, QuantizerConfig, RangeSource, Rounding, Rule,
};
use burn_quant_core::error::{ImportProblem, QuantError};

impl QuantConfig {
    /// A configuration from one of ModelOpt, as JSON.
    ///
    /// # Errors
    ///
    /// [`QuantError::ModelOpt`] with the place in the JSON and the [`ImportProblem`].
    ///
    /// # Source
    ///
    /// ModelOpt 0.47; the ordered list of entries, and the deprecated dictionary by patterns.
    ///
    /// | ModelOpt | weights | activations |
    /// |---|---|---|
    /// | `axis: null` | per tensor | per tensor |
    /// | `axis: 0`, `[0]`, `-2` | per channel | error |
    /// | `axis: -1`, `[-1]` | error | per channel |
    /// | `block_sizes: {-1: n}` | blocks along the contracted axis | blocks of channels |
    /// | `block_sizes: {1: n}` | the same, of `[out, in]` | error |
    /// | `block_sizes: {-1: n, -2: m}`, `{1: n, 0: m}` | two-dimensional blocks | error |
    /// | `block_sizes: {-1: null}` | per channel | per token |
    ///
    /// Without an algorithm, ranges that would be static are dynamic, as ModelOpt's are that nothing calibrates.
    /// `effective_bits` and `trt_high_precision_dtype` are checked and left out: bits are counted, and exporters have
    /// options of their own.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant::{QuantConfig, QuantizerConfig, Rule};
    ///
    /// let config = QuantConfig::from_modelopt_json(r#"{
    ///     "quant_cfg": [
    ///         {"quantizer_name": "*", "enable": false},
    ///         {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 8, "axis": 0}},
    ///         {"quantizer_name": "*input_quantizer", "cfg": {"num_bits": [4, 3], "axis": null}}
    ///     ],
    ///     "algorithm": "max"
    /// }"#)?;
    /// let weights = QuantizerConfig::int(8).per_channel();
    /// assert_eq!(config.rules[1], Rule::set("*weight_quantizer", weights).one_of("quant_cfg"));
    /// # Ok::<(), burn_quant::QuantError>(())
    /// ```
    pub fn from_modelopt_json(json: &str) -> Result<Self, QuantError> {
        let parse = |json| serde_json::from_str(json);
        let value: Value = parse(json).map_err(|e: serde_json::Error| QuantError::ModelOpt {
            at: "$".into(),
            problem: ImportProblem::NotJson { reason: e.to_string() },
        })?;
        config(&value).map_err(|(at, problem)| QuantError::ModelOpt { at, problem })
    }
}

fn config(value: &Value) -> Result<QuantConfig, Problem> {
    let top = object("$", value)?;
    keys("$", top, &["quant_cfg", "algorithm", "effective_bits"])?;
    if let Some(bits) = top.get("effective_bits").filter(|bits| !bits.is_null()) {
        effective_bits("$.effective_bits", bits)?;
    }
    let rules = match top.get("quant_cfg") {
        None => vec![Rule::set("*", QuantizerConfig::int(8)).one_of("quant_cfg")],
        Some(Value::Array(entries)) => {
            let each = entries.iter().enumerate();
            let rules = each.map(|(i, value)| list_entry(&format!("$.quant_cfg[{i}]"), value));
            rules.collect::<Result<Vec<_>, _>>()?.concat()
        }
        Some(Value::Object(entries)) => legacy("$.quant_cfg", entries, None)?,
        Some(other) => return wrong("$.quant_cfg", "a list of entries, or a dictionary", other),
    };
    let max = Ok((Algorithm::Max, Learning::Off));
    let (algorithm, learning) = top.get("algorithm").map_or(max, |value| algorithm("$.algorithm", value))?;
    let rules = match learning {
        Learning::RangesOfWeights(ranges) => learned(rules, ranges)?,
        Learning::Off => rules,
    };
    let rules = if algorithm == Algorithm::None { rules.into_iter().map(uncalibrated).collect() } else { rules };
    Ok(QuantConfig { rules, algorithm })
}

/// What `lsq` does to the quantizers of weights in static blocks: their ranges are learned. Blocks whose scales come
/// from the data stay as they are.
fn learned(mut rules: Vec<Rule>, ranges: LearnedRanges) -> Result<Vec<Rule>, Problem> {
    for rule in &mut rules {
        let Action::Set(config) = &mut rule.action else { continue };
        let in_blocks = matches!(config.granularity, Granularity::Block { .. } | Granularity::Block2d { .. });
        let in_static_blocks =
            in_blocks && config.has_static_range() && config.scale != ScaleFormat::E4M3(BlockScale::Dynamic);
        if Target::of(&rule.quantizer) == Target::Weights && in_static_blocks {
            // an f32 scale is rounded nowhere, whatever the option says
            let pre_scale = if config.scale == ScaleFormat::F32 { PreScale::Rounded } else { ranges.pre_scale };
            config.gradient = GradientRule::Lsq;
            config.learned_ranges = Some(LearnedRanges { pre_scale, ..ranges });
            config.validate().map_err(|invalid| ("$.algorithm".to_string(), invalid.into()))?;
        }
    }
    Ok(rules)
}

/// What ModelOpt does with a quantizer that nothing calibrates: it takes the range of every tensor.
fn uncalibrated(mut rule: Rule) -> Rule {
    if let Action::Set(config) = &mut rule.action {
        let stages = std::iter::once(&mut config.range).chain(config.then.iter_mut().map(|stage| &mut stage.range));
        stages.filter(|range| **range == RangeSource::Static).for_each(|range| *range = RangeSource::Dynamic);
    }
    rule
}

/// An entry of the list, or a dictionary inside it, which is deprecated.
fn list_entry(at: &str, value: &Value) -> Result<Vec<Rule>, Problem> {
    let entry = object(at, value)?;
    if entry.contains_key("quantizer_name") {
        return self::entry(at, entry);
    }
    match entry.len() {
        1 => legacy(at, entry, None),
        _ if entry.keys().any(|key| key.starts_with("nn.")) => legacy(at, entry, None),
        _ => problem(at, ImportProblem::Missing { key: "quantizer_name" }),
    }
}

fn entry(at: &str, entry: &Map<String, Value>) -> Result<Vec<Rule>, Problem> {
    keys(at, entry, &["quantizer_name", "parent_class", "cfg", "enable"])?;
    let Some(name) = entry["quantizer_name"].as_str() else {
        return wrong(&format!("{at}.quantizer_name"), "a pattern", &entry["quantizer_name"]);
    };
    let class = match entry.get("parent_class") {
        None | Some(Value::Null) => None,
        Some(Value::String(class)) => Some(class.as_str()),
        Some(other) => return wrong(&format!("{at}.parent_class"), "the name of a class", other),
    };
    let enable = entry.get("enable").map(|value| boolean(&format!("{at}.enable"), value)).transpose()?;
    if enable.is_none() && !entry.contains_key("cfg") {
        return problem(at, ImportProblem::NothingSaid);
    }
    rules(at, name, class, entry.get("cfg"), enable.unwrap_or(true))
}

/// The deprecated dictionary: patterns, or classes with patterns inside.
fn legacy(at: &str, entries: &Map<String, Value>, class: Option<&str>) -> Result<Vec<Rule>, Problem> {
    let mut all = Vec::new();
    for (key, value) in entries {
        let at = format!("{at}[\"{key}\"]");
        if key.starts_with("nn.") && class.is_none() {
            all.extend(legacy(&at, object(&at, value)?, Some(key))?);
            continue;
        }
        let name = if key == "default" { "*" } else { key.as_str() };
        all.extend(match value {
            Value::Object(attributes) => {
                let mut attributes = attributes.clone();
                let enable = attributes.remove("enable").map(|value| boolean(&format!("{at}.enable"), &value));
                let enable = enable.transpose()?;
                let cfg = (!attributes.is_empty()).then_some(Value::Object(attributes));
                if cfg.is_none() && enable.is_none() {
                    return problem(&at, ImportProblem::EmptyConfig);
                }
                rules(&at, name, class, cfg.as_ref(), enable.unwrap_or(true))?
            }
            Value::Array(_) => rules(&at, name, class, Some(value), true)?,
            other => return wrong(&at, "attributes, or a list of them", other),
        });
    }
    Ok(all)
}

fn rules(at: &str, name: &str, class: Option<&str>, cfg: Option<&Value>, enable: bool) -> Result<Vec<Rule>, Problem> {
    let container = class.map(|class| container(at, class)).transpose()?;
    let within = |rule: Rule| match container {
        Some(container) => rule.within(container),
        None => rule,
    };
    let set = |config| within(Rule::set(name, config)).one_of("quant_cfg");
    let at = format!("{at}.cfg");
    let configured = match cfg {
        None | Some(Value::Null) => None,
        Some(Value::Array(stages)) => {
            let each = stages.iter().enumerate();
            let stages = each.map(|(i, value)| attributes(&format!("{at}[{i}]"), name, value, enable));
            let mut stages = stages.collect::<Result<Vec<_>, _>>()?.into_iter().flatten();
            stages.next().map(|first| QuantizerConfig { then: stages.collect(), ..first })
        }
        Some(value) => attributes(&at, name, value, enable)?,
    };
    let empty = cfg.is_some_and(|cfg| !cfg.is_null()) && configured.is_none();
    if empty && enable {
        return problem(&at, ImportProblem::EmptyConfig);
    }
    Ok(match configured {
        None if enable => vec![within(Rule::enable(name)).optional()],
        None => vec![within(Rule::disable(name)).optional()],
        // a quantizer that is off but rotates
        Some(config) if !enable && config.rotation.is_some() => {
            vec![set(QuantizerConfig { rounding: Rounding::Off, ..config })]
        }
        Some(config) if enable => vec![set(config)],
        Some(config) => vec![set(config), within(Rule::disable(name)).optional()],
    })
}

/// burn's name for a class of PyTorch.
fn container(at: &str, class: &str) -> Result<&'static str, Problem> {
    Ok(match class {
        "nn.Linear" => "Linear",
        "nn.Conv1d" => "Conv1d",
        "nn.Conv2d" => "Conv2d",
        "nn.Conv3d" => "Conv3d",
        "nn.ConvTranspose1d" => "ConvTranspose1d",
        "nn.ConvTranspose2d" => "ConvTranspose2d",
        "nn.ConvTranspose3d" => "ConvTranspose3d",
        "nn.BatchNorm1d" | "nn.BatchNorm2d" | "nn.BatchNorm3d" => "BatchNorm",
        "nn.InstanceNorm1d" | "nn.InstanceNorm2d" | "nn.InstanceNorm3d" => "InstanceNorm",
        "nn.LayerNorm" => "LayerNorm",
        "nn.LeakyReLU" => "LeakyRelu",
        "nn.Embedding" => "Embedding",
        "nn.MaxPool1d" => "MaxPool1d",
        "nn.MaxPool2d" => "MaxPool2d",
        "nn.AvgPool1d" => "AvgPool1d",
        "nn.AvgPool2d" => "AvgPool2d",
        "nn.AdaptiveAvgPool1d" => "AdaptiveAvgPool1d",
        "nn.AdaptiveAvgPool2d" => "AdaptiveAvgPool2d",
        "nn.RNN" => "Rnn",
        "nn.LSTM" => "Lstm",
        "nn.GRU" => "Gru",
        other => return problem(&format!("{at}.parent_class"), ImportProblem::Class { class: other.into() }),
    })
}
