//! `quantization_config` of AutoAWQ, AutoGPTQ and GPTQModel.

use serde_json::{Map, Value};

use crate::CheckpointError;

/// Who wrote the folder.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Method {
    Awq,
    Gptq {
        /// Whether zero points are stored less one: the first checkpoint format.
        zeros_less_one: bool,
    },
}

/// What is read of a configuration.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Config {
    pub(super) method: Method,
    pub(super) bits: u8,
    /// Inputs of a group; `None` for all of them, stored as −1.
    pub(super) group_size: Option<usize>,
    /// Whether AWQ's layers must have zero points.
    pub(super) zero_point: bool,
    /// Parts of the names of layers that are not quantized.
    not_converted: Vec<String>,
}

impl Config {
    /// Reads `quantization_config`; `None` if it is of another method.
    pub(super) fn parse(json: &Value) -> Result<Option<Self>, CheckpointError> {
        let Some(map) = json.as_object() else {
            return Ok(None);
        };
        let (method, known): (_, &[u64]) = match map.get("quant_method").and_then(Value::as_str) {
            Some("awq") => (awq(map)?, &[4]),
            Some("gptq") => (gptq(map)?, &[2, 3, 4, 8]),
            _ => return Ok(None),
        };
        let bits = get(map, "bits").or(get(map, "w_bit"));
        let bits = match bits.map(Value::as_u64) {
            Some(Some(bits)) if known.contains(&bits) => bits as u8,
            _ => {
                let known = if method == Method::Awq { "4" } else { "2, 3, 4, 8" };
                return Err(unknown("bits", bits, known));
            }
        };
        let size = get(map, "group_size").or(get(map, "q_group_size"));
        let group_size = match size.map(Value::as_i64) {
            None => Some(128),
            Some(Some(-1)) => None,
            Some(Some(size @ 1..)) => usize::try_from(size).ok(),
            Some(_) => return Err(value("group_size", "at least 1, or -1", size)),
        };
        let zero_point = match get(map, "zero_point") {
            None => true,
            Some(Value::Bool(zero_point)) => *zero_point,
            other => return Err(value("zero_point", "true or false", other)),
        };
        Ok(Some(Self { method, bits, group_size, zero_point, not_converted: not_converted(map)? }))
    }

    /// Whether a layer with quantized tensors may have them.
    pub(super) fn check(&self, layer: &str) -> Result<(), CheckpointError> {
        if self.not_converted.iter().any(|part| layer.contains(part.as_str())) {
            return Err(CheckpointError::Ignored { name: layer.into(), key: "modules_to_not_convert" });
        }
        Ok(())
    }
}

/// The value of a key that is not null.
fn get<'a>(map: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    map.get(key).filter(|value| !value.is_null())
}

fn value(key: &str, expected: &'static str, found: Option<&Value>) -> CheckpointError {
    let key = format!("quantization_config.{key}");
    CheckpointError::Value { key, expected, found: found.map_or("missing".into(), Value::to_string) }
}

fn unknown(key: &str, found: Option<&Value>, known: &'static str) -> CheckpointError {
    let what = format!("quantization_config.{key}");
    CheckpointError::Unknown { what, found: found.map_or("missing".into(), Value::to_string), known }
}

/// Lower-case text of a key.
fn text(map: &Map<String, Value>, key: &str) -> Result<Option<String>, CheckpointError> {
    match get(map, key) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.to_lowercase())),
        other => Err(value(key, "a string", other)),
    }
}

fn awq(map: &Map<String, Value>) -> Result<Method, CheckpointError> {
    match text(map, "version")?.as_deref() {
        None | Some("gemm") => Ok(Method::Awq),
        _ => Err(unknown("version", get(map, "version"), "gemm")),
    }
}

fn gptq(map: &Map<String, Value>) -> Result<Method, CheckpointError> {
    if let Some(Value::Bool(true)) = get(map, "is_marlin_format") {
        return Err(unknown("is_marlin_format", get(map, "is_marlin_format"), "false"));
    }
    match get(map, "dynamic") {
        None => {}
        Some(Value::Object(layers)) if layers.is_empty() => {}
        other => return Err(unknown("dynamic", other, "the same settings for all layers")),
    }
    match text(map, "checkpoint_format")?.as_deref() {
        None | Some("gptq" | "") => Ok(Method::Gptq { zeros_less_one: true }),
        Some("gptq_v2") => Ok(Method::Gptq { zeros_less_one: false }),
        _ => Err(unknown("checkpoint_format", get(map, "checkpoint_format"), "gptq, gptq_v2")),
    }
}

fn not_converted(map: &Map<String, Value>) -> Result<Vec<String>, CheckpointError> {
    match get(map, "modules_to_not_convert") {
        None => Ok(Vec::new()),
        Some(Value::Array(names)) => {
            let names = names.iter().map(|name| name.as_str().map(str::to_string));
            let names: Option<Vec<String>> = names.collect();
            names.ok_or_else(|| value("modules_to_not_convert", "names", get(map, "modules_to_not_convert")))
        }
        other => Err(value("modules_to_not_convert", "a list of names", other)),
    }
}
