//! What to quantize, and how: plain data, saved as JSON or TOML recipes.
//!
//! ```text
//! QuantConfig = [ Rule: glob over quantizer names (and containers) -> set | enable | disable ]   last match wins
//!             + Algorithm that turns observations into ranges
//! ```

mod algorithm;
mod import;
pub mod presets;
pub mod recipe;
mod written;

pub use algorithm::{
    ActOrder, Algorithm, BinWidth, CalibrationInputs, HistogramConfig, Identity, IncludeMax, RangeSearch,
    SiblingScales, Zeros,
};
pub use presets::Preset;

use serde::{Deserialize, Serialize};

use self::written::WrittenConfig;
use burn_quant_core::config::{Action, Rule};
use burn_quant_core::error::QuantError;

/// An ordered list of rules, and the algorithm that finds the ranges.
///
/// Every quantizer starts disabled. Rules apply in order, and the last one that matches a quantizer wins and replaces
/// what earlier ones said.
///
/// # Example
///
/// ```
/// use burn_quant::{QuantConfig, QuantizerConfig, Rule, presets};
///
/// let config = presets::int8_weight_only() // a preset, refined
///     .with_rule(Rule::set("decoder.*weight_quantizer", QuantizerConfig::int(4).per_block(32)))
///     .with_rule(Rule::disable("decoder.last.*"));
/// let recipe = config.to_json();
/// assert_eq!(QuantConfig::from_json(&recipe)?, config);
/// # Ok::<(), burn_quant::QuantError>(())
/// ```
///
/// # Recipes
///
/// A recipe may start from a built-in configuration and add rules. Formats are called what
/// [`summary`](burn_quant_core::summary::summary()) prints, an algorithm by its name has its default options, and
/// everything that is not said has its default:
///
/// ```
/// # #[cfg(feature = "toml")] {
/// use burn_quant::{Algorithm, QuantConfig, QuantizerConfig, Rule, presets};
///
/// let config = QuantConfig::from_toml(r#"
///     preset = "int8_default"
///     algorithm = "smoothquant"
///
///     [[rules]]
///     quantizer = "decoder.*weight_quantizer"
///     action = { set = { format = "int4", granularity = { block = { size = 32 } } } }
/// "#)?;
/// let expected = presets::int8_default()
///     .with_rule(Rule::set("decoder.*weight_quantizer", QuantizerConfig::int(4).per_block(32)))
///     .with_algorithm(Algorithm::smoothquant(1.0));
/// assert_eq!(config, expected);
/// # }
/// # Ok::<(), burn_quant::QuantError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(try_from = "WrittenConfig")]
pub struct QuantConfig {
    /// What each quantizer does; the last match wins.
    pub rules: Vec<Rule>,
    /// How ranges are found.
    #[serde(skip_serializing_if = "written::is_default")]
    pub algorithm: Algorithm,
}

impl QuantConfig {
    /// Creates a configuration without rules, which disables every quantizer.
    ///
    /// Add rules with [`with_rule`](QuantConfig::with_rule), or start from one of the [`presets`].
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a rule, which takes precedence over those before it.
    ///
    /// The last rule that matches a quantizer wins, and replaces what earlier ones said of it.
    pub fn with_rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    /// Returns the same rules with another calibration algorithm.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant::{Algorithm, presets};
    ///
    /// let config = presets::int8_default().with_algorithm(Algorithm::smoothquant(0.5));
    /// assert_eq!(config.algorithm.name(), "smoothquant");
    /// ```
    pub fn with_algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithm = algorithm;
        self
    }

    /// Appends the rules of another configuration, as those of a KV cache; keeps the algorithm, unless it calibrates
    /// nothing and the fragment has something to calibrate.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant::{Algorithm, presets};
    ///
    /// let config = presets::mxfp8_default().extend(presets::fp8_kv());
    /// assert_eq!(config.rules.last().unwrap().quantizer, "*[kv]_bmm_quantizer");
    /// assert_eq!(config.algorithm, Algorithm::Max); // MXFP8 alone needs none
    /// ```
    pub fn extend(mut self, fragment: QuantConfig) -> Self {
        let calibrates = |rule: &Rule| matches!(&rule.action, Action::Set(config) if config.needs_calibration());
        if self.algorithm == Algorithm::None && fragment.rules.iter().any(calibrates) {
            self.algorithm = fragment.algorithm;
        }
        self.rules.extend(fragment.rules);
        self
    }

    /// Writes the configuration as a JSON recipe.
    ///
    /// Formats and algorithms are written by their names where they have one; what has its default is left out.
    pub fn to_json(&self) -> String {
        recipe::to_json(self)
    }

    /// A configuration from a JSON recipe.
    ///
    /// # Errors
    ///
    /// [`QuantError::Recipe`] if the text is not JSON, or has unknown fields or impossible values.
    pub fn from_json(recipe: &str) -> Result<Self, QuantError> {
        recipe::from_json(recipe)
    }

    /// Writes the configuration as a TOML recipe.
    ///
    /// Formats and algorithms are written by their names where they have one; what has its default is left out.
    #[cfg(feature = "toml")]
    pub fn to_toml(&self) -> String {
        recipe::to_toml(self)
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
        recipe::from_toml(recipe)
    }
}

impl AsRef<[Rule]> for QuantConfig {
    fn as_ref(&self) -> &[Rule] {
        &self.rules
    }
}
