//! ModelOpt's configurations, read as JSON.
//!
//! ```text
//! { "quant_cfg": [ { "quantizer_name", "parent_class", "cfg", "enable" }, ... ], "algorithm": ... }
//! ```
//!
//! The ordered list of entries and the deprecated dictionary are both read. Patterns keep their order and meaning. ModelOpt
//! writes axes by number for PyTorch's layouts; roles are found from them, and an axis that has none is an error:
//!
//! | ModelOpt | weights | activations |
//! |---|---|---|
//! | `axis: null` | per tensor | per tensor |
//! | `axis: 0` | per channel | error |
//! | `axis: -1` | error | per channel |
//! | `block_sizes: {-1: n}` | blocks along the contracted axis | blocks of channels |
//! | `block_sizes: {-1: n, -2: m}` | two-dimensional blocks | error |
//! | `block_sizes: {-1: null}` | error | per token |
//!
//! Unknown keys, and attributes that mean nothing here, are errors. Entries may match nothing, as in ModelOpt; if none of those
//! that configure quantizers matches, placing the configuration is an error.
//!
//! Source: ModelOpt 0.47, `QuantizeConfig` and `QuantizerAttributeConfig`.

use std::collections::BTreeMap;

use burn_quant_ops::AxisGroups;
use burn_quant_ops::GradientRule;
use burn_quant_ops::numerics::{BlockScale, Format, IntFormat, IntSpan, ScaleFormat, Signedness};
use serde_json::{Map, Value};
use thiserror::Error;

use super::{
    Action, AfterRounding, Algorithm, BiasConfig, BiasMethod, BiasSource, Granularity, QuantConfig, QuantizerConfig,
    Range, RangeSearch, Rotation, Rounding, Rule,
};
use crate::{InvalidConfig, QuantError};

/// Why a configuration of ModelOpt could not be read.
#[derive(Debug, Clone, PartialEq, Error)]
#[non_exhaustive]
pub enum ImportProblem {
    /// The text is not JSON.
    #[error("not JSON: {reason}")]
    NotJson {
        /// What the parser says.
        reason: String,
    },
    /// A key that ModelOpt does not have.
    #[error("unknown key `{key}`")]
    UnknownKey {
        /// The key.
        key: String,
    },
    /// A value of another type, or outside its range.
    #[error("expected {expected}, found {found}")]
    Value {
        /// What would be right.
        expected: &'static str,
        /// What stands there.
        found: String,
    },
    /// An entry lacks a key.
    #[error("`{key}` is missing")]
    Missing {
        /// The key.
        key: &'static str,
    },
    /// An entry says neither what to configure nor whether to enable.
    #[error("an entry needs `cfg` or `enable`")]
    NothingSaid,
    /// An enabled entry with an empty configuration.
    #[error("an enabled entry has an empty `cfg`: leave it out to keep the attributes")]
    EmptyConfig,
    /// Attributes that only enable.
    #[error("attributes cannot be only {{\"enable\": true}}: use the entry's `enable`")]
    OnlyEnable,
    /// Two attributes that exclude each other.
    #[error("`{a}` and `{b}` exclude each other")]
    Exclusive {
        /// One.
        a: &'static str,
        /// The other.
        b: &'static str,
    },
    /// An axis that means nothing for the tensors that the pattern names.
    #[error("axes {axes} have no meaning for {target}: see the table of `QuantConfig::from_modelopt_json`")]
    Axes {
        /// As they are written.
        axes: String,
        /// Weights, activations, or quantizers of any kind.
        target: &'static str,
    },
    /// A dynamic block without scale bits, which ModelOpt's own documentation shows and its code refuses.
    #[error("dynamic `block_sizes` need `scale_bits`, [4, 3] or [8, 0]")]
    DynamicBlocksWithoutScale,
    /// A format that needs dynamic block scales.
    #[error("`num_bits` {bits} needs dynamic `block_sizes`")]
    NeedsDynamicBlocks {
        /// As it is written.
        bits: String,
    },
    /// A class of PyTorch without a counterpart in burn.
    #[error("the class `{class}` has no counterpart among burn's layers")]
    Class {
        /// The class.
        class: String,
    },
    /// An attribute of ModelOpt that has no counterpart.
    #[error("`{key}` = {value} has no counterpart: {instead}")]
    Unsupported {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What to do.
        instead: &'static str,
    },
    /// The attributes do not fit each other.
    #[error("{0}")]
    Invalid(#[from] InvalidConfig),
}

/// A problem, and where in the JSON it is.
type Problem = (String, ImportProblem);

fn problem<T>(at: &str, problem: ImportProblem) -> Result<T, Problem> {
    Err((at.to_string(), problem))
}

fn wrong<T>(at: &str, expected: &'static str, found: &Value) -> Result<T, Problem> {
    problem(at, ImportProblem::Value { expected, found: found.to_string() })
}

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
    /// | `axis: 0` | per channel | error |
    /// | `axis: -1` | error | per channel |
    /// | `block_sizes: {-1: n}` | blocks along the contracted axis | blocks of channels |
    /// | `block_sizes: {-1: n, -2: m}` | two-dimensional blocks | error |
    /// | `block_sizes: {-1: null}` | error | per token |
    ///
    /// Without an algorithm, ranges that would be static are dynamic, as ModelOpt's are that nothing calibrates.
    /// `effective_bits` and `trt_high_precision_dtype` are checked and left out: bits are counted, and exporters have options
    /// of their own.
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
    /// assert_eq!(config.rules[1], Rule::set("*weight_quantizer", QuantizerConfig::int(8).per_channel()).one_of("quant_cfg"));
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

fn object<'a>(at: &str, value: &'a Value) -> Result<&'a Map<String, Value>, Problem> {
    value.as_object().map_or_else(|| wrong(at, "an object", value), Ok)
}

/// An object with no other keys than these.
fn keys(at: &str, object: &Map<String, Value>, known: &[&str]) -> Result<(), Problem> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => problem(at, ImportProblem::UnknownKey { key: key.clone() }),
        None => Ok(()),
    }
}

fn boolean(at: &str, value: &Value) -> Result<bool, Problem> {
    value.as_bool().map_or_else(|| wrong(at, "true or false", value), Ok)
}

fn number(at: &str, value: &Value) -> Result<f32, Problem> {
    value.as_f64().map_or_else(|| wrong(at, "a number", value), |number| Ok(number as f32))
}

fn count(at: &str, value: &Value) -> Result<usize, Problem> {
    let count = value.as_u64().filter(|count| *count > 0).and_then(|count| usize::try_from(count).ok());
    count.map_or_else(|| wrong(at, "a positive integer", value), Ok)
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
    let algorithm = top.get("algorithm").map_or(Ok(Algorithm::Max), |value| algorithm("$.algorithm", value))?;
    let rules = if algorithm == Algorithm::None { rules.into_iter().map(uncalibrated).collect() } else { rules };
    Ok(QuantConfig { rules, algorithm })
}

/// What ModelOpt does with a quantizer that nothing calibrates: it takes the range of every tensor.
fn uncalibrated(mut rule: Rule) -> Rule {
    if let Action::Set(config) = &mut rule.action {
        let stages = std::iter::once(&mut config.range).chain(config.then.iter_mut().map(|stage| &mut stage.range));
        stages.filter(|range| **range == Range::Static).for_each(|range| *range = Range::Dynamic);
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

const ATTRIBUTES: [&str; 18] = [
    "enable",
    "num_bits",
    "effective_bits",
    "axis",
    "fake_quant",
    "unsigned",
    "narrow_range",
    "learn_amax",
    "type",
    "block_sizes",
    "bias",
    "trt_high_precision_dtype",
    "calibrator",
    "rotate",
    "pass_through_bwd",
    "backend",
    "use_constant_amax",
    "constant_amax",
];

/// The attributes of one quantizer; `None` if there are none.
fn attributes(at: &str, name: &str, value: &Value, enabled: bool) -> Result<Option<QuantizerConfig>, Problem> {
    let attributes = object(at, value)?;
    keys(at, attributes, &[&ATTRIBUTES[..], &["backend_extra_args"]].concat())?;
    if attributes.is_empty() {
        return Ok(None);
    }
    if let (1, Some(enable)) = (attributes.len(), attributes.get("enable")) {
        let only = boolean(&format!("{at}.enable"), enable)?;
        return if only && enabled { problem(at, ImportProblem::OnlyEnable) } else { Ok(None) };
    }
    let reader = Reader { at, attributes };
    let config = reader.config(Target::of(name))?;
    config.validate().map_err(|invalid| (at.to_string(), invalid.into()))?;
    Ok(Some(config))
}

/// What a pattern names.
#[derive(Clone, Copy, PartialEq)]
enum Target {
    Weights,
    Activations,
    Any,
}

impl Target {
    fn of(name: &str) -> Self {
        if name.contains("weight_quantizer") {
            Target::Weights
        } else if ["input_quantizer", "output_quantizer", "bmm_quantizer", "softmax_quantizer"]
            .iter()
            .any(|part| name.contains(part))
        {
            Target::Activations
        } else {
            Target::Any
        }
    }

    fn name(self) -> &'static str {
        match self {
            Target::Weights => "weights",
            Target::Activations => "activations",
            Target::Any => "quantizers of any kind",
        }
    }
}

/// The attributes of a quantizer, by key.
struct Reader<'a> {
    at: &'a str,
    attributes: &'a Map<String, Value>,
}

/// `block_sizes`, taken apart.
#[derive(Default)]
struct Blocks {
    /// By axis; `None` is the whole axis.
    sizes: BTreeMap<i64, Option<usize>>,
    dynamic: bool,
    scale: Option<(u64, u64)>,
    four_over_six: bool,
}

impl Reader<'_> {
    /// An attribute that is there and not null, with its place.
    fn get(&self, key: &str) -> Option<(String, &Value)> {
        let value = self.attributes.get(key).filter(|value| !value.is_null())?;
        Some((format!("{}.{key}", self.at), value))
    }

    fn flag(&self, key: &str, default: bool) -> Result<bool, Problem> {
        self.get(key).map_or(Ok(default), |(at, value)| boolean(&at, value))
    }

    fn unsupported<T>(&self, key: &'static str, value: &Value, instead: &'static str) -> Result<T, Problem> {
        problem(&format!("{}.{key}", self.at), ImportProblem::Unsupported { key, value: value.to_string(), instead })
    }

    fn config(&self, target: Target) -> Result<QuantizerConfig, Problem> {
        self.refuse_what_has_no_counterpart()?;
        let blocks = self.blocks()?;
        let format = self.format(blocks.as_ref())?;
        let mut config = QuantizerConfig::new(format).with_granularity(self.granularity(target, blocks.as_ref())?);
        config.range = self.range()?;
        if let Some(blocks) = &blocks {
            config.scale = self.scale(blocks)?;
        }
        if config.scale == ScaleFormat::E8M0 {
            config.range = Range::Dynamic;
        }
        if !self.flag("pass_through_bwd", true)? {
            config.gradient = GradientRule::Clipped;
        }
        config.bias = self.bias()?;
        config.rotation = self.rotation()?;
        Ok(config)
    }

    fn refuse_what_has_no_counterpart(&self) -> Result<(), Problem> {
        if !self.flag("fake_quant", true)? {
            return self.unsupported("fake_quant", &Value::Bool(false), "pack the weights after quantizing");
        }
        if self.flag("learn_amax", false)? {
            return self.unsupported("learn_amax", &Value::Bool(true), "it is deprecated in ModelOpt");
        }
        if let Some((_, value)) = self.get("backend") {
            return self.unsupported("backend", value, "write a module of your own");
        }
        if let Some((_, value)) = self.get("calibrator").filter(|(_, value)| *value != "max") {
            return self.unsupported("calibrator", value, "name an algorithm");
        }
        if let Some((at, bits)) = self.get("effective_bits") {
            effective_bits(&at, bits)?;
        }
        match self.get("trt_high_precision_dtype") {
            Some((at, value)) if !["Float", "Half", "BFloat16"].iter().any(|name| value == name) => {
                wrong(&at, "Float, Half or BFloat16", value)
            }
            _ => Ok(()),
        }
    }

    fn format(&self, blocks: Option<&Blocks>) -> Result<Format, Problem> {
        let Some((at, value)) = self.get("num_bits") else { return self.integer(8) };
        if let Some(bits) = value.as_u64() {
            return match u8::try_from(bits) {
                Ok(bits) => self.integer(bits),
                Err(_) => wrong(&at, "2 to 16 bits", value),
            };
        }
        let format = match minifloat(value) {
            Some((4, 3)) => Format::E4M3,
            Some((5, 2)) => Format::E5M2,
            Some((3, 2)) => Format::E3M2,
            Some((2, 3)) => Format::E2M3,
            Some((2, 1)) => Format::E2M1,
            Some((1, 2)) => Format::E1M2,
            _ => return wrong(&at, "a number of bits, or [4,3], [5,2], [3,2], [2,3], [2,1] or [1,2]", value),
        };
        let dynamic = blocks.is_some_and(|blocks| blocks.dynamic);
        let static_scales = blocks.is_some_and(|blocks| blocks.scale.is_some());
        match format {
            Format::E4M3 => Ok(format),
            Format::E2M1 if dynamic || static_scales => Ok(format),
            _ if dynamic => Ok(format),
            _ => problem(&at, ImportProblem::NeedsDynamicBlocks { bits: value.to_string() }),
        }
    }

    fn integer(&self, bits: u8) -> Result<Format, Problem> {
        let signedness = if self.flag("unsigned", false)? { Signedness::Unsigned } else { Signedness::Signed };
        let span = if self.flag("narrow_range", false)? { IntSpan::Narrow } else { IntSpan::Full };
        match IntFormat::new(bits, signedness, span) {
            Ok(format) => Ok(format.into()),
            Err(_) => wrong(&format!("{}.num_bits", self.at), "2 to 16 bits", &bits.into()),
        }
    }

    fn blocks(&self) -> Result<Option<Blocks>, Problem> {
        let Some((at, value)) = self.get("block_sizes") else { return Ok(None) };
        if self.get("axis").is_some() {
            return problem(self.at, ImportProblem::Exclusive { a: "axis", b: "block_sizes" });
        }
        let mut blocks = Blocks::default();
        for (key, value) in object(&at, value)? {
            let at = format!("{at}.{key}");
            match key.as_str() {
                "type" => blocks.dynamic = kind(&at, value)?,
                "scale_bits" if value.is_null() => {}
                "scale_bits" => match minifloat(value) {
                    Some(scale @ ((4, 3) | (8, 0))) => blocks.scale = Some(scale),
                    _ if value.is_u64() => {
                        let instead = "double-quantized scales are a matter of packing";
                        return self.unsupported("block_sizes", value, instead);
                    }
                    _ => return wrong(&at, "[4, 3] or [8, 0]", value),
                },
                "scale_block_sizes" => {
                    return self.unsupported("block_sizes", value, "double-quantized scales are a matter of packing");
                }
                "four_over_six" => blocks.four_over_six = value.as_bool().unwrap_or(value != &Value::from(0)),
                axis => {
                    let Ok(axis) = axis.parse() else {
                        return problem(&at, ImportProblem::UnknownKey { key: key.clone() });
                    };
                    let size = if value.is_null() { None } else { Some(count(&at, value)?) };
                    blocks.sizes.insert(axis, size);
                }
            }
        }
        if blocks.sizes.is_empty() || (blocks.dynamic && blocks.sizes.len() != 1) {
            return wrong(&at, "a size for an axis, for exactly one if dynamic", value);
        }
        Ok(Some(blocks))
    }

    fn scale(&self, blocks: &Blocks) -> Result<ScaleFormat, Problem> {
        let at = format!("{}.block_sizes", self.at);
        match (blocks.scale, blocks.dynamic) {
            (None, true) => problem(&at, ImportProblem::DynamicBlocksWithoutScale),
            (None, false) => Ok(ScaleFormat::F32),
            (Some((8, 0)), true) => Ok(ScaleFormat::E8M0),
            (Some((8, 0)), false) => problem(&at, ImportProblem::Invalid(InvalidConfig::StaticPowersOfTwo)),
            (Some(_), true) => Ok(ScaleFormat::E4M3(BlockScale::Dynamic)),
            (Some(_), false) if blocks.four_over_six => Ok(ScaleFormat::E4M3(BlockScale::StaticFourOverSix)),
            (Some(_), false) => Ok(ScaleFormat::E4M3(BlockScale::Static)),
        }
    }

    fn granularity(&self, target: Target, blocks: Option<&Blocks>) -> Result<Granularity, Problem> {
        let axes = |axes: String| problem(self.at, ImportProblem::Axes { axes, target: target.name() });
        let Some(blocks) = blocks else {
            let Some((at, axis)) = self.get("axis") else { return Ok(Granularity::PerTensor) };
            return match (axis.as_i64(), target) {
                (Some(0), Target::Weights) | (Some(-1), Target::Activations) => Ok(Granularity::PerChannel),
                (None, _) if !axis.is_array() => wrong(&at, "an axis, a list of axes, or null", axis),
                _ => axes(axis.to_string()),
            };
        };
        let sizes: Vec<(i64, Option<usize>)> = blocks.sizes.iter().map(|(axis, size)| (*axis, *size)).collect();
        match (sizes.as_slice(), target) {
            ([(-1, Some(size))], _) => Ok(Granularity::Block { size: *size }),
            ([(-2, Some(rows)), (-1, Some(cols))], Target::Weights) => {
                Ok(Granularity::Block2d { rows: *rows, cols: *cols })
            }
            ([(-1, None)], Target::Activations) => Ok(Granularity::PerToken),
            _ => axes(format!("{:?}", blocks.sizes)),
        }
    }

    fn range(&self) -> Result<Range, Problem> {
        let dynamic = self.get("type").map_or(Ok(false), |(at, value)| kind(&at, value))?;
        let constant = self.get("constant_amax").map(|(at, value)| number(&at, value)).transpose()?;
        match (self.flag("use_constant_amax", false)?, constant) {
            (true, Some(_)) => {
                problem(self.at, ImportProblem::Exclusive { a: "use_constant_amax", b: "constant_amax" })
            }
            (true, None) => Ok(Range::Constant(448.0)),
            (false, Some(amax)) => Ok(Range::Constant(amax)),
            (false, None) if dynamic => Ok(Range::Dynamic),
            (false, None) => Ok(Range::Static),
        }
    }

    fn bias(&self) -> Result<Option<BiasConfig>, Problem> {
        let Some((at, value)) = self.get("bias") else { return Ok(None) };
        let (mut reduced, mut source, mut method) = (Vec::new(), BiasSource::Static, BiasMethod::Mean);
        for (key, value) in object(&at, value)? {
            let at = format!("{at}.{key}");
            match key.as_str() {
                "type" if kind(&at, value)? => source = BiasSource::Dynamic,
                "type" => {}
                "method" if value == "mean" => {}
                "method" if value == "max_min" => method = BiasMethod::MaxMin,
                "method" => return wrong(&at, "mean or max_min", value),
                axis => match axis.parse::<i64>() {
                    Ok(axis) => reduced.push(axis),
                    Err(_) => return problem(&at, ImportProblem::UnknownKey { key: key.clone() }),
                },
            }
        }
        reduced.sort_unstable();
        use AxisGroups::{Each, Whole};
        let granularity = match reduced.as_slice() {
            [] => return wrong(&at, "at least one axis to reduce", value),
            [-1] => Granularity::PerToken,
            [-4, -2] => Granularity::Axes(vec![Whole, Each, Whole, Each]), // keys and values: per head and feature
            _ => {
                let axes = format!("{reduced:?}");
                return problem(&at, ImportProblem::Axes { axes, target: "a bias" });
            }
        };
        Ok(Some(BiasConfig { granularity, method, source }))
    }

    fn rotation(&self) -> Result<Option<Rotation>, Problem> {
        let Some((at, value)) = self.get("rotate") else { return Ok(None) };
        if let Some(enable) = value.as_bool() {
            return Ok(enable.then(Rotation::default));
        }
        let fields = object(&at, value)?;
        keys(&at, fields, &["enable", "mode", "rotate_fp32", "block_size"])?;
        let reader = Reader { at: &at, attributes: fields };
        reader.flag("rotate_fp32", false)?; // arithmetic is f32 in any case
        let after = match reader.get("mode") {
            None => AfterRounding::Stay,
            Some((_, mode)) if mode == "rotate" => AfterRounding::Stay,
            Some((_, mode)) if mode == "rotate_back" => AfterRounding::RotateBack,
            Some((at, mode)) => return wrong(&at, "rotate or rotate_back", mode),
        };
        let block = reader.get("block_size").map(|(at, value)| count(&at, value)).transpose()?;
        let rotation = Rotation { block, signs: None, after };
        Ok(reader.flag("enable", false)?.then_some(rotation))
    }
}

/// `static` or `dynamic`; whether it is the latter.
fn kind(at: &str, value: &Value) -> Result<bool, Problem> {
    match value.as_str() {
        Some("static") => Ok(false),
        Some("dynamic") => Ok(true),
        _ => wrong(at, "static or dynamic", value),
    }
}

/// Exponent and mantissa bits: `[4, 3]` or `"e4m3"`.
fn minifloat(value: &Value) -> Option<(u64, u64)> {
    match value {
        Value::Array(parts) => match parts.as_slice() {
            [exponent, mantissa] => Some((exponent.as_u64()?, mantissa.as_u64()?)),
            _ => None,
        },
        Value::String(name) => {
            let (exponent, mantissa) = name.strip_prefix('e')?.split_once('m')?;
            Some((exponent.parse().ok()?, mantissa.parse().ok()?))
        }
        _ => None,
    }
}

fn effective_bits(at: &str, value: &Value) -> Result<(), Problem> {
    let bits = number(at, value)?;
    if bits > 0.0 && bits <= 16.0 { Ok(()) } else { wrong(at, "more than 0 and at most 16 bits", value) }
}

/// An algorithm by name, or by a dictionary with its options.
fn algorithm(at: &str, value: &Value) -> Result<Algorithm, Problem> {
    let empty = Map::new();
    let (name, options) = match value {
        Value::Null => return Ok(Algorithm::None),
        Value::String(name) => (name.as_str(), &empty),
        Value::Object(options) => match options.get("method") {
            Some(Value::String(name)) => (name.as_str(), options),
            Some(Value::Null) => return Ok(Algorithm::None),
            _ => return problem(at, ImportProblem::Missing { key: "method" }),
        },
        other => return wrong(at, "the name of an algorithm, or its options", other),
    };
    let reader = Reader { at, attributes: options };
    let float = |key: &str, default: f32| reader.get(key).map_or(Ok(default), |(at, value)| number(&at, value));
    let size = |key: &str, default: usize| reader.get(key).map_or(Ok(default), |(at, value)| count(&at, value));
    let known = |known: &[&str]| keys(at, options, &[&["method"], known].concat());
    let search = |default: bool| -> Result<RangeSearch, Problem> {
        let start = float("start_multiplier", 0.25)?;
        let (stop, step) = (float("stop_multiplier", 4.0)?, float("step_size", 0.1)?);
        let multipliers = RangeSearch::Multipliers { start, stop, step };
        Ok(if reader.flag("fp8_scale_sweep", default)? { RangeSearch::E4m3Scales } else { multipliers })
    };
    const SEARCH: [&str; 4] = ["step_size", "start_multiplier", "stop_multiplier", "fp8_scale_sweep"];
    match name {
        "max" => known(&[]).map(|()| Algorithm::Max),
        "mse" => {
            known(&SEARCH)?;
            Ok(Algorithm::Mse(search(false)?))
        }
        "local_hessian" => {
            known(&[&SEARCH[..], &["block_size"]].concat())?;
            Ok(Algorithm::LocalHessian { search: search(true)?, block_size: size("block_size", 16)? })
        }
        "nvfp4_act_headroom" => {
            known(&["anchor_percentile", "upper_percentile", "rho"])?;
            Ok(Algorithm::ActivationHeadroom {
                anchor_percentile: float("anchor_percentile", 1.0)?,
                upper_percentile: float("upper_percentile", 99.99)?,
                rho: float("rho", 16384.0)?,
            })
        }
        "smoothquant" => {
            known(&["alpha"])?;
            Ok(Algorithm::SmoothQuant { alpha: float("alpha", 1.0)? })
        }
        "awq_lite" => {
            known(&["alpha_step"])?;
            Ok(Algorithm::AwqLite { alpha_step: float("alpha_step", 0.1)? })
        }
        "awq_clip" => {
            // how many rows and tokens are taken at a time changes the memory, not the result
            known(&["min_clip_ratio", "shrink_step", "max_co_batch_size", "max_tokens_per_batch"])?;
            Ok(Algorithm::AwqClip {
                min_clip_ratio: float("min_clip_ratio", 0.5)?,
                shrink_step: float("shrink_step", 0.05)?,
            })
        }
        "awq_full" => {
            known(&["alpha_step", "min_clip_ratio", "shrink_step", "max_co_batch_size", "max_tokens_per_batch"])?;
            Ok(Algorithm::AwqFull {
                alpha_step: float("alpha_step", 0.1)?,
                min_clip_ratio: float("min_clip_ratio", 0.5)?,
                shrink_step: float("shrink_step", 0.05)?,
            })
        }
        "svdquant" => {
            known(&["lowrank"])?;
            Ok(Algorithm::SvdQuant { rank: size("lowrank", 32)? })
        }
        "gptq" => {
            known(&["perc_damp", "block_size"])?;
            Ok(Algorithm::Gptq { damping: float("perc_damp", 0.01)?, block_size: size("block_size", 128)? })
        }
        _ => wrong(at, "an algorithm of ModelOpt", value),
    }
}
