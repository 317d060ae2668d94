//! The small readers that say where a configuration could not be read, and why.

use serde_json::{Map, Value};

use burn_quant_core::error::ImportProblem;

/// A problem, and where in the JSON it is.
pub(super) type Problem = (String, ImportProblem);

pub(super) fn problem<T>(at: &str, problem: ImportProblem) -> Result<T, Problem> {
    Err((at.to_string(), problem))
}

pub(super) fn wrong<T>(at: &str, expected: &'static str, found: &Value) -> Result<T, Problem> {
    problem(at, ImportProblem::Value { expected, found: found.to_string() })
}

pub(super) fn object<'a>(at: &str, value: &'a Value) -> Result<&'a Map<String, Value>, Problem> {
    value.as_object().map_or_else(|| wrong(at, "an object", value), Ok)
}

/// An object with no other keys than these.
pub(super) fn keys(at: &str, object: &Map<String, Value>, known: &[&str]) -> Result<(), Problem> {
    match object.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => problem(at, ImportProblem::UnknownKey { key: key.clone() }),
        None => Ok(()),
    }
}

pub(super) fn boolean(at: &str, value: &Value) -> Result<bool, Problem> {
    value.as_bool().map_or_else(|| wrong(at, "true or false", value), Ok)
}

pub(super) fn number(at: &str, value: &Value) -> Result<f32, Problem> {
    let number = value.as_f64().map(|number| number as f32).filter(|number| number.is_finite());
    number.map_or_else(|| wrong(at, "a number in the range of f32", value), Ok)
}

pub(super) fn count(at: &str, value: &Value) -> Result<usize, Problem> {
    let count = value.as_u64().filter(|count| *count > 0).and_then(|count| usize::try_from(count).ok());
    count.map_or_else(|| wrong(at, "a positive integer", value), Ok)
}

pub(super) fn effective_bits(at: &str, value: &Value) -> Result<(), Problem> {
    let bits = number(at, value)?;
    if bits > 0.0 && bits <= 16.0 { Ok(()) } else { wrong(at, "more than 0 and at most 16 bits", value) }
}
