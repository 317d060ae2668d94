//! The configuration of a folder: schemes, which layers have which, and which have none.
//!
//! ```text
//! exact names  before  regular expressions  before  classes       layers in `ignore` have no scheme
//! ```
//!
//! Source: compressed-tensors 0.20.0, `QuantizationConfig`, `match_targets`. Our choice: a folder does not say of which
//! class a layer is, so every layer with quantized tensors is a `Linear`, and other classes match nothing.

use serde_json::{Map, Value};

use super::pattern::Pattern;
use super::scheme::{Args, Format, Scheme, value};
use crate::CheckpointError;

/// What of a configuration is read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    groups: Vec<Group>,
    ignore: Vec<Target>,
    /// How keys and values are quantized before they are kept.
    pub(super) kv_cache: Option<Args>,
}

/// Layers of one scheme; without quantized weights, of none.
#[derive(Clone, Debug, PartialEq)]
struct Group {
    targets: Vec<Target>,
    scheme: Option<Scheme>,
}

#[derive(Clone, Debug, PartialEq)]
enum Target {
    /// A name, or a class.
    Name(String),
    /// `re:`, and what follows it.
    Pattern(String, Pattern),
}

impl Target {
    fn parse(at: &str, json: &Value) -> Result<Self, CheckpointError> {
        let Value::String(text) = json else {
            return Err(value(at, "a string", json));
        };
        match text.strip_prefix("re:") {
            None => Ok(Target::Name(text.clone())),
            Some(expression) => {
                let pattern = Pattern::new(expression).ok_or_else(|| CheckpointError::Unknown {
                    what: at.into(),
                    found: text.clone(),
                    known: "regular expressions without backreferences, flags, lookbehinds and nested lookaheads",
                })?;
                Ok(Target::Pattern(expression.into(), pattern))
            }
        }
    }

    fn list(at: &str, json: Option<&Value>) -> Result<Vec<Self>, CheckpointError> {
        match json {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(targets)) => {
                targets.iter().enumerate().map(|(i, target)| Self::parse(&format!("{at}[{i}]"), target)).collect()
            }
            Some(other) => Err(value(at, "a list of strings", other)),
        }
    }

    /// How exactly a layer is meant: 0 by its name, 1 by a pattern, 2 by its class; `None` if it is not. Patterns come
    /// in the order of their texts, as in the package.
    fn rank(&self, layer: &str) -> Option<(u8, &str)> {
        match self {
            Target::Name(name) if name == layer => Some((0, name)),
            Target::Pattern(text, pattern) if pattern.matches(layer) => Some((1, text)),
            Target::Name(name) if name == "Linear" => Some((2, name)),
            _ => None,
        }
    }
}

impl Config {
    /// Reads `quantization_config`.
    pub(super) fn parse(json: &Value) -> Result<Self, CheckpointError> {
        let key = "quantization_config";
        let Value::Object(map) = json else {
            return Err(value(key, "an object", json));
        };
        refuse_other_compression(map)?;
        let global = match map.get("format") {
            None | Some(Value::Null) => None,
            Some(Value::String(format)) => Some(format.as_str()),
            Some(other) => return Err(value("quantization_config.format", "a string", other)),
        };
        let groups = match map.get("config_groups") {
            Some(Value::Object(groups)) => groups,
            other => {
                let found = other.unwrap_or(&Value::Null);
                return Err(value("quantization_config.config_groups", "an object of groups", found));
            }
        };
        let groups = groups.iter().map(|(name, group)| Group::parse(&format!("config_groups.{name}"), group, global));
        let kv_cache = map.get("kv_cache_scheme").filter(|scheme| !scheme.is_null());
        Ok(Self {
            groups: groups.collect::<Result<_, _>>()?,
            ignore: Target::list("quantization_config.ignore", map.get("ignore"))?,
            kv_cache: kv_cache.map(|scheme| Args::parse("kv_cache_scheme", scheme)).transpose()?,
        })
    }

    /// Whether a layer is in `ignore`.
    pub(super) fn ignores(&self, layer: &str) -> bool {
        self.ignore.iter().any(|target| target.rank(layer).is_some())
    }

    /// The scheme of a layer: that of the most exact target.
    pub(super) fn scheme(&self, layer: &str) -> Option<&Scheme> {
        // of the same target twice, the last counts
        let ranked = self.groups.iter().rev().filter_map(|group| Some((group.rank(layer)?, group)));
        ranked.min_by(|(one, _), (other, _)| one.cmp(other)).and_then(|(_, group)| group.scheme.as_ref())
    }
}

impl Group {
    /// The rank of the most exact target.
    fn rank(&self, layer: &str) -> Option<(u8, &str)> {
        self.targets.iter().filter_map(|target| target.rank(layer)).min()
    }

    fn parse(at: &str, json: &Value, global: Option<&str>) -> Result<Self, CheckpointError> {
        let Value::Object(map) = json else {
            return Err(value(at, "an object with targets and weights", json));
        };
        let args = |key: &str| {
            let json = map.get(key).filter(|args| !args.is_null());
            json.map(|json| Args::parse(&format!("{at}.{key}"), json)).transpose()
        };
        let own = match map.get("format") {
            None | Some(Value::Null) => None,
            Some(Value::String(format)) => Some(format.as_str()),
            Some(other) => return Err(value(&format!("{at}.format"), "a string", other)),
        };
        let targets = Target::list(&format!("{at}.targets"), map.get("targets"))?;
        let (weights, inputs, outputs) = (args("weights")?, args("input_activations")?, args("output_activations")?);
        let Some(weights) = weights else {
            return Ok(Self { targets, scheme: None });
        };
        // of mixed precision each group has a format
        let Some(format) = own.or(global.filter(|format| *format != "mixed-precision")) else {
            return Err(value(&format!("{at}.format"), "a format", &Value::Null));
        };
        let format = Format::parse(&format!("{at}.format"), format)?;
        Ok(Self { targets, scheme: Some(Scheme { format, weights, inputs, outputs }) })
    }
}

/// What changes the meaning of tensors and is not known here must not be there.
fn refuse_other_compression(map: &Map<String, Value>) -> Result<(), CheckpointError> {
    let unknown = |what: &str, found: String, known| CheckpointError::Unknown { what: what.into(), found, known };
    match map.get("quantization_status") {
        None | Some(Value::Null) => {}
        Some(Value::String(status)) if status == "compressed" => {}
        Some(other) => return Err(unknown("quantization_status", other.to_string(), "compressed")),
    }
    let sparsity = map.get("sparsity_config").and_then(|config| config.get("format")).and_then(Value::as_str);
    if let Some(format) = sparsity.filter(|format| *format != "dense") {
        return Err(unknown("sparsity_config.format", format.into(), "dense"));
    }
    let transforms = map.get("transform_config").and_then(|config| config.get("config_groups"));
    match transforms.and_then(Value::as_object) {
        Some(groups) if !groups.is_empty() => {
            Err(unknown("transform_config", groups.keys().cloned().collect::<Vec<_>>().join(", "), "no transforms"))
        }
        _ => Ok(()),
    }
}
