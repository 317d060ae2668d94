//! Configurations as JSON and TOML: those of a quantization, and those of a search.

use std::fmt::Display;

use serde::Serialize;
use serde::de::DeserializeOwned;

use burn_quant_core::error::QuantError;

/// Writes a configuration as JSON.
///
/// # Panics
///
/// If it is not plain data with string keys.
pub fn to_json<T: Serialize>(config: &T) -> String {
    serde_json::to_string_pretty(config).expect(PLAIN)
}

/// Reads a configuration from JSON.
///
/// # Errors
///
/// [`QuantError::Recipe`] if the text is not JSON, or has unknown fields or impossible values.
pub fn from_json<T: Serialize + DeserializeOwned>(recipe: &str) -> Result<T, QuantError> {
    finite(serde_json::from_str(recipe), "JSON")
}

/// Writes a configuration as TOML.
///
/// # Panics
///
/// As [`to_json`].
#[cfg(feature = "toml")]
pub fn to_toml<T: Serialize>(config: &T) -> String {
    toml::to_string(config).expect(PLAIN)
}

/// Reads a configuration from TOML.
///
/// # Errors
///
/// As [`from_json`].
#[cfg(feature = "toml")]
pub fn from_toml<T: Serialize + DeserializeOwned>(recipe: &str) -> Result<T, QuantError> {
    finite(toml::from_str(recipe), "TOML")
}

const PLAIN: &str = "a config is plain data with string keys";

/// What was read, if its numbers are finite: others cannot be written again, and mean nothing.
fn finite<T: Serialize, E: Display>(read: Result<T, E>, language: &'static str) -> Result<T, QuantError> {
    fn has_null(value: &serde_json::Value) -> bool {
        match value {
            serde_json::Value::Null => true, // what JSON makes of infinity and NaN; absent fields are left out
            serde_json::Value::Array(values) => values.iter().any(has_null),
            serde_json::Value::Object(fields) => fields.values().any(has_null),
            _ => false,
        }
    }
    let refused = |reason: String| QuantError::Recipe { language, reason };
    let config = read.map_err(|e| refused(e.to_string()))?;
    let value = serde_json::to_value(&config).expect(PLAIN);
    if has_null(&value) {
        return Err(refused("a number is infinite, or not a number".into()));
    }
    Ok(config)
}
