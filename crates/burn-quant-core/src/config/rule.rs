//! One rule: which quantizers, and what they do.

use globset::{Glob, GlobMatcher};
use serde::{Deserialize, Serialize};

use super::QuantizerConfig;
use crate::error::QuantError;

/// What a rule does with the quantizers that it matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Gives them this configuration, replacing all of an earlier one, and enables them.
    Set(Box<QuantizerConfig>),
    /// Switches them on with the configuration they have.
    Enable,
    /// Switches them off; they keep their configuration.
    Disable,
}

/// A glob over quantizer names, and what the quantizers that match do.
///
/// Names are `<layer path>.weight_quantizer`, `.input_quantizer` and `.output_quantizer`; in globs `*` crosses dots,
/// and `?`, `[ab]`, `[!ab]` and `{a,b}` mean what they do in a shell.
///
/// A rule that configures or enables is for products: `*input_quantizer` means the inputs of linear layers,
/// convolutions and attention, and quantizers in structs of yours. It leaves norms, pools and rectifiers in float,
/// whose rounding costs accuracy and saves nothing. To quantize these, name them: by the container ([`Rule::within`]),
/// or by a glob that matches nothing else, as `norm.input_quantizer`.
///
/// A rule that matches nothing is an error, unless it is optional, or one of several alternatives. Rules of
/// [`Rule::disable`] are required like others; the disable rules built into presets are optional.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The glob.
    pub quantizer: String,
    /// Only quantizers of structs with this type name, for example `Embedding`; `Linear` includes `QuantLinear`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// What to do.
    pub action: Action,
    /// Whether it may match nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// The alternatives that it is one of: of the rules with the same name here, at least one must match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub one_of: Option<String>,
}

impl Rule {
    /// Creates a rule that configures and enables the quantizers whose names match a glob.
    ///
    /// It is for products: norms, pools and activation functions are left out unless they are named or
    /// [`within`](Rule::within) is.
    pub fn set(quantizer: impl Into<String>, config: QuantizerConfig) -> Self {
        Self::new(quantizer, Action::Set(Box::new(config)))
    }

    /// Creates a rule that enables the quantizers whose names match a glob, as they are configured.
    ///
    /// It is for products, as [`Rule::set`].
    pub fn enable(quantizer: impl Into<String>) -> Self {
        Self::new(quantizer, Action::Enable)
    }

    /// Creates a rule that disables the quantizers whose names match a glob.
    ///
    /// It matches quantizers of all layers.
    pub fn disable(quantizer: impl Into<String>) -> Self {
        Self::new(quantizer, Action::Disable)
    }

    fn new(quantizer: impl Into<String>, action: Action) -> Self {
        Self { quantizer: quantizer.into(), container: None, action, optional: false, one_of: None }
    }

    /// Restricts the rule to quantizers of structs with this type name.
    ///
    /// burn's layer and the quantized one are the same: `Linear` and `QuantLinear`.
    pub fn within(mut self, container: impl Into<String>) -> Self {
        self.container = Some(container.into());
        self
    }

    /// Allows the rule to match nothing.
    ///
    /// A rule that is not optional and matches nothing is [`QuantError::NoMatch`].
    pub fn optional(mut self) -> Self {
        self.optional = true;
        self
    }

    /// Makes the rule one of several alternatives.
    ///
    /// A rule with this name may match nothing, as long as another one with the same name matches.
    pub fn one_of(mut self, alternatives: impl Into<String>) -> Self {
        self.one_of = Some(alternatives.into());
        self
    }

    /// Compiles the pattern of the rule.
    ///
    /// # Errors
    ///
    /// [`QuantError::BadPattern`].
    pub fn matcher(&self) -> Result<GlobMatcher, QuantError> {
        matcher(&self.quantizer)
    }
}

/// Compiles a pattern.
///
/// # Errors
///
/// [`QuantError::BadPattern`].
pub fn matcher(pattern: &str) -> Result<GlobMatcher, QuantError> {
    let bad = |e: globset::Error| QuantError::BadPattern { pattern: pattern.into(), reason: e.kind().to_string() };
    Ok(Glob::new(pattern).map_err(bad)?.compile_matcher())
}

/// Returns the three names most similar to a pattern, best first, for the error that says that it matches nothing.
pub fn near_misses<'a>(pattern: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    const SHOWN: usize = 3;
    let literal: String = pattern.chars().filter(|c| !"*?[]!{},".contains(*c)).collect();
    let mut scored: Vec<(f64, &str)> = names.map(|name| (strsim::jaro_winkler(&literal, name), name)).collect();
    scored.sort_by(|a, b| b.0.total_cmp(&a.0));
    scored.into_iter().take(SHOWN).map(|(_, name)| name.to_string()).collect()
}
