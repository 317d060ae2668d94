//! What to quantize, and how: plain data, saved as JSON or TOML recipes.
//!
//! ```text
//! QuantConfig = [ Rule: glob over quantizer names (and containers) -> set | enable | disable ]   last match wins
//!             + Algorithm that turns observations into ranges
//! ```

mod preset;
mod quantizer;
mod rule;

pub use quantizer::{Granularity, QuantizerConfig, Range};
pub use rule::{Action, Rule};
pub(crate) use rule::{matcher, near_misses};

use serde::{Deserialize, Serialize};

use crate::QuantError;

/// How the ranges of static quantizers are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Algorithm {
    /// The largest magnitude seen: see [`max`](crate::max).
    #[default]
    Max,
}

/// An ordered list of rules, and the algorithm that finds the ranges.
///
/// Every quantizer starts disabled. Rules apply in order, and the last one that matches a quantizer wins and replaces what
/// earlier ones said.
///
/// # Example
///
/// ```
/// use burn_quant::{QuantConfig, QuantizerConfig, Rule};
///
/// let config = QuantConfig::int8_weight_only() // a preset, refined
///     .with_rule(Rule::set("decoder.*weight_quantizer", QuantizerConfig::int(4).per_block(32)))
///     .with_rule(Rule::disable("decoder.last.*"));
/// let recipe = config.to_json();
/// assert_eq!(QuantConfig::from_json(&recipe)?, config);
/// # Ok::<(), burn_quant::QuantError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantConfig {
    /// What each quantizer does; the last match wins.
    pub rules: Vec<Rule>,
    /// How ranges are found.
    #[serde(default)]
    pub algorithm: Algorithm,
}

impl QuantConfig {
    /// A configuration without rules: it disables everything.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a rule, which takes precedence over those before it.
    pub fn with_rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// The configuration as a JSON recipe.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a config is plain data with string keys")
    }

    /// A configuration from a JSON recipe.
    ///
    /// # Errors
    ///
    /// [`QuantError::Recipe`] if the text is not JSON, or has unknown fields or impossible values.
    pub fn from_json(recipe: &str) -> Result<Self, QuantError> {
        serde_json::from_str(recipe).map_err(|e| QuantError::Recipe { language: "JSON", reason: e.to_string() })
    }

    /// The configuration as a TOML recipe.
    #[cfg(feature = "toml")]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("a config is plain data with string keys")
    }

    /// A configuration from a TOML recipe.
    ///
    /// # Errors
    ///
    /// As [`QuantConfig::from_json`].
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "toml")] {
    /// use burn_quant::QuantConfig;
    ///
    /// let config = QuantConfig::from_toml(r#"
    ///     [[rules]]
    ///     quantizer = "*weight_quantizer"
    ///     action = { set = { format = { int = { bits = 4 } }, granularity = { block = { size = 64 } } } }
    ///
    ///     [[rules]]
    ///     quantizer = "*head*"
    ///     action = "disable"
    /// "#)?;
    /// assert_eq!(config.rules.len(), 2);
    /// # }
    /// # Ok::<(), burn_quant::QuantError>(())
    /// ```
    #[cfg(feature = "toml")]
    pub fn from_toml(recipe: &str) -> Result<Self, QuantError> {
        toml::from_str(recipe).map_err(|e| QuantError::Recipe { language: "TOML", reason: e.to_string() })
    }
}
