//! What to search for: plain data, saved as JSON or TOML.

use std::collections::BTreeMap;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use burn_quant_calibrate::config::{Preset, QuantConfig, recipe};
use burn_quant_core::error::QuantError;
use burn_quant_core::error::number;

/// One of the formats that a layer may get: an ordinary configuration with a name.
///
/// Its rules say which layers can have it. Only quantizers of weights and of their inputs are searched; those of
/// outputs, attention products and caches belong into [`AutoQuantizeConfig::base`]. Recipes may have the name of a
/// built-in configuration instead.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchFormat {
    /// Its name in states and reports.
    pub name: String,
    /// What it does, and how it is calibrated.
    pub config: QuantConfig,
    /// Bits of an element under [`Cost::ModelOpt`], if not those that follow from the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bits: Option<f64>,
    /// Batches that it is calibrated with, if fewer than the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration_batches: Option<usize>,
}

impl SearchFormat {
    /// Creates a format: a configuration under a name.
    ///
    /// The name is what tables, states and selections say.
    pub fn new(name: impl Into<String>, config: QuantConfig) -> Self {
        Self { name: name.into(), config, bits: None, calibration_batches: None }
    }

    /// A built-in configuration, by its name here or in ModelOpt.
    ///
    /// # Errors
    ///
    /// [`QuantError::UnknownPreset`] with the most similar names.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant::presets;
    /// use burn_quant::search::SearchFormat;
    ///
    /// assert_eq!(SearchFormat::preset("FP8_DEFAULT_CFG")?, SearchFormat::preset("fp8_default")?);
    /// assert_eq!(SearchFormat::preset("fp8_default")?.config, presets::fp8_default());
    /// # Ok::<(), burn_quant::QuantError>(())
    /// ```
    pub fn preset(name: &str) -> Result<Self, QuantError> {
        Ok(Preset::named(name)?.into())
    }
}

impl From<&Preset> for SearchFormat {
    fn from(preset: &Preset) -> Self {
        Self::new(preset.name, (preset.config)())
    }
}

/// Formats as recipes have them: whole, or by the name of a built-in configuration.
fn formats<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<SearchFormat>, D::Error> {
    struct Written(SearchFormat);

    impl<'de> Deserialize<'de> for Written {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(WrittenVisitor).map(Written)
        }
    }

    struct WrittenVisitor;

    impl<'de> Visitor<'de> for WrittenVisitor {
        type Value = SearchFormat;

        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a format, or the name of a built-in configuration")
        }

        fn visit_str<E: Error>(self, name: &str) -> Result<SearchFormat, E> {
            SearchFormat::preset(name).map_err(E::custom)
        }

        fn visit_map<A: MapAccess<'de>>(self, fields: A) -> Result<SearchFormat, A::Error> {
            SearchFormat::deserialize(MapAccessDeserializer::new(fields))
        }
    }

    let written = Vec::<Written>::deserialize(deserializer)?;
    Ok(written.into_iter().map(|Written(format)| format).collect())
}

/// Formats of some layers, which replace those of all layers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SearchOverride {
    /// Globs of the paths of layers. Every group that they match is to be covered whole, and by one override only.
    pub layers: Vec<String>,
    /// What these layers may get.
    #[serde(deserialize_with = "formats")]
    pub formats: Vec<SearchFormat>,
    /// Whether they may stay in float.
    #[serde(default = "yes", alias = "unquantized")]
    pub allow_float: bool,
}

fn yes() -> bool {
    true
}

/// How bits are counted.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cost {
    /// All that a file of the model holds: codes, scales of both levels, zero points, scales of channels, and every
    /// parameter that is not quantized. Bits per parameter of the whole model.
    ///
    /// ```text
    /// bits = Σ_quantized ( numel · format_bits + scales · scale_bits + 32 · others ) + float_bits · Σ_others numel
    /// ```
    Exact {
        /// Bits of an element that is not quantized: 16, as models are deployed in half precision.
        float_bits: u8,
    },
    /// ModelOpt's rule: the fewest bits of the quantizers of a layer, scales not counted but for NVFP4's (4.5), 16 if
    /// it is not quantized. Bits per weight of the layers that are searched.
    #[serde(rename = "modelopt", alias = "reference")]
    ModelOpt,
}

impl Default for Cost {
    fn default() -> Self {
        Cost::Exact { float_bits: 16 }
    }
}

/// What is as small as it can be within the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Objective {
    /// The sum of the scores: an integer program, solved exactly.
    #[default]
    Sum,
    /// The largest score, with the fewest bits for it.
    Largest,
    /// ModelOpt's bisection of the largest score, 100 halvings whose last selection counts, even where it is above the
    /// budget.
    #[serde(rename = "modelopt_bisection", alias = "reference_bisection")]
    ModelOptBisection,
}

/// What [`auto_quantize`](super::auto_quantize) searches for, within how many bits.
///
/// # Example
///
/// ```
/// use burn_quant::search::{AutoQuantizeConfig, SearchFormat};
///
/// let formats = ["int4_blockwise_weight_only", "int8_default"].map(|name| SearchFormat::preset(name).unwrap());
/// let config = AutoQuantizeConfig::new(6.0, formats).keep_float("head");
/// assert_eq!(AutoQuantizeConfig::from_json(&config.to_json())?, config);
/// # Ok::<(), burn_quant::QuantError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AutoQuantizeConfig {
    /// The budget: bits per parameter, counted as [`cost`](AutoQuantizeConfig::cost) says.
    pub effective_bits: f64,
    /// What every layer may get, besides staying as it is.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "formats")]
    pub formats: Vec<SearchFormat>,
    /// Other formats for some layers.
    #[serde(default, alias = "spaces", skip_serializing_if = "Vec::is_empty")]
    pub overrides: Vec<SearchOverride>,
    /// Configuration applied before the search. Its rules are ignored for layers that are searched. With it and without
    /// formats, only the layers of overrides are searched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<QuantConfig>,
    /// Regular expressions of layers that get one format together: those with an equal first capture.
    #[serde(default = "default_groups")]
    pub groups: Vec<String>,
    /// Globs of layers that stay as they are, with their groups; they count.
    #[serde(default, alias = "disabled", skip_serializing_if = "Vec::is_empty")]
    pub keep_float: Vec<String>,
    /// How bits are counted.
    #[serde(default)]
    pub cost: Cost,
    /// Globs of layers and parameters that do not count; a group does not count if they match all of its layers or
    /// their weights.
    #[serde(default, alias = "uncounted", skip_serializing_if = "Vec::is_empty")]
    pub exclude_from_budget: Vec<String>,
    /// Weight of expert layers in the budget: 1.0 budgets the size of the model, `top_k / experts` the bytes that are
    /// read per token.
    #[serde(default = "whole", alias = "expert_share", skip_serializing_if = "is_whole")]
    pub active_expert_fraction: f64,
    /// Multiplications of each layer in a run, by its path. If there are some, the budget is bits per multiplication: a
    /// layer counts as often as its weights are multiplied, and what multiplies nothing does not count.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub multiplications: BTreeMap<String, f64>,
    /// What is minimised.
    #[serde(default)]
    pub objective: Objective,
    /// Batches that each format is calibrated with.
    #[serde(default = "calibration_batches")]
    pub calibration_batches: usize,
    /// Batches that the layers are scored with.
    #[serde(default = "score_batches")]
    pub score_batches: usize,
    /// A name of the data: a state that was scored with data of another name is refused.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub data: String,
}

fn whole() -> f64 {
    1.0
}

fn is_whole(share: &f64) -> bool {
    *share == 1.0
}

fn calibration_batches() -> usize {
    512
}

fn score_batches() -> usize {
    128
}

/// Layers that are fed by one tensor and deployed as one product, the experts of a layer, and the gates of a recurrent
/// cell.
///
/// Source: ModelOpt 0.47, `quant_grouping_rules`, which does not group layers at the root of a model; names of burn's
/// own layers are added. The two layers of burn's `SwiGlu` share an input, but have the names of those of a
/// feed-forward block, which do not: group them by a pattern of your own, as `^(.+\.swiglu)\.linear_(?:inner|outer)$`.
pub fn default_groups() -> Vec<String> {
    [
        r"^(?:(.+)\.)?(?:q_proj|k_proj|v_proj)$",
        r"^(?:(.+)\.)?(?:query|key|value)$",
        r"^((?:.+\.)?(?:local_)?experts)\.\d+(?:\..+)?$",
        r"^(?:(.+)\.)?(?:gate_proj|up_proj)$",
        r"^(.+)\.\d+\.w[123]$",
        r"^(.+)\.w[123]_linear\.\d+$",
        r"^(.+)\.linear_attn\.(?:in_proj_qkv|in_proj_z)$",
        r"^(.+)\.linear_attn\.(?:in_proj_a|in_proj_b)$",
        r"^(?:(.+)\.)?[a-z]+_gate\.(?:input_transform|hidden_transform)$",
    ]
    .map(String::from)
    .into()
}

impl AutoQuantizeConfig {
    /// Creates a search for the best of `formats`, or float, of each layer within a budget of bits per parameter.
    ///
    /// Bits are counted exactly; everything else has ModelOpt's defaults.
    pub fn new(effective_bits: f64, formats: impl IntoIterator<Item = SearchFormat>) -> Self {
        Self {
            effective_bits,
            formats: formats.into_iter().collect(),
            overrides: Vec::new(),
            base: None,
            groups: default_groups(),
            keep_float: Vec::new(),
            cost: Cost::default(),
            exclude_from_budget: Vec::new(),
            active_expert_fraction: 1.0,
            multiplications: BTreeMap::new(),
            objective: Objective::Sum,
            calibration_batches: calibration_batches(),
            score_batches: score_batches(),
            data: String::new(),
        }
    }

    /// Gives some layers other formats.
    ///
    /// Layers of one group must be covered by one override.
    pub fn with_override(mut self, space: SearchOverride) -> Self {
        self.overrides.push(space);
        self
    }

    /// Applies a configuration before the search.
    ///
    /// Its rules are ignored for layers that are searched.
    pub fn with_base(mut self, base: QuantConfig) -> Self {
        self.base = Some(base);
        self
    }

    /// Adds a regular expression of layers that get one format together: those with an equal first capture.
    ///
    /// It comes before the [default ones](default_groups).
    pub fn with_group(mut self, pattern: impl Into<String>) -> Self {
        self.groups.insert(0, pattern.into());
        self
    }

    /// Adds groups of layers by their paths, each to get one format: those that read the same activations, as a
    /// captured graph shows them (`GraphModel::siblings` of `burn-quant-graph`).
    ///
    /// They come before all patterns.
    pub fn with_siblings(self, siblings: &[Vec<String>]) -> Self {
        siblings.iter().fold(self, |config, layers| {
            let layers: Vec<String> = layers.iter().map(|layer| regex::escape(layer)).collect();
            config.with_group(format!("^()(?:{})$", layers.join("|")))
        })
    }

    /// Keeps the layers whose paths match a glob in float, with their groups.
    ///
    /// They count in the budget. A glob that matches nothing is an error.
    pub fn keep_float(mut self, layers: impl Into<String>) -> Self {
        self.keep_float.push(layers.into());
        self
    }

    /// Leaves the layers or parameters whose paths match a glob out of the budget.
    ///
    /// They are searched all the same. A glob that matches nothing is an error.
    pub fn exclude_from_budget(mut self, layers: impl Into<String>) -> Self {
        self.exclude_from_budget.push(layers.into());
        self
    }

    /// Budgets bits per multiplication in place of bits per parameter: operations, not bytes.
    ///
    /// A convolution multiplies each weight at every pixel, a linear layer once for each token: what runs long is to
    /// have few bits. `multiplications` are those of each layer in a run, by its path; `Graph::multiplications` of
    /// `burn-quant-graph` counts them. A layer that is searched and not named is an error.
    ///
    /// ```text
    /// effective bits = Σ multiplications · bits of the layer / elements  /  Σ multiplications
    /// ```
    pub fn with_multiplications(mut self, multiplications: BTreeMap<String, f64>) -> Self {
        self.multiplications = multiplications;
        self
    }

    /// Changes how bits are counted.
    ///
    /// See [`Cost`].
    pub fn with_cost(mut self, cost: Cost) -> Self {
        self.cost = cost;
        self
    }

    /// Changes what is minimised.
    ///
    /// See [`Objective`].
    pub fn with_objective(mut self, objective: Objective) -> Self {
        self.objective = objective;
        self
    }

    /// Changes the numbers of batches for calibration and for scoring.
    ///
    /// 512 and 128 without it.
    pub fn with_batches(mut self, calibration: usize, score: usize) -> Self {
        (self.calibration_batches, self.score_batches) = (calibration, score);
        self
    }

    /// Writes the configuration as a JSON recipe.
    ///
    /// [`from_json`](AutoQuantizeConfig::from_json) reads it.
    pub fn to_json(&self) -> String {
        recipe::to_json(self)
    }

    /// A configuration from a JSON recipe.
    ///
    /// # Errors
    ///
    /// [`QuantError::Recipe`] if the text is not JSON, or has unknown fields, impossible values, or a format that is
    /// not built in.
    pub fn from_json(recipe: &str) -> Result<Self, QuantError> {
        recipe::from_json(recipe)
    }

    /// Writes the configuration as a TOML recipe.
    ///
    /// [`from_toml`](AutoQuantizeConfig::from_toml) reads it.
    #[cfg(feature = "toml")]
    pub fn to_toml(&self) -> String {
        recipe::to_toml(self)
    }

    /// A configuration from a TOML recipe.
    ///
    /// # Errors
    ///
    /// As [`AutoQuantizeConfig::from_json`].
    ///
    /// # Example
    ///
    /// ```
    /// # #[cfg(feature = "toml")] {
    /// use burn_quant::search::AutoQuantizeConfig;
    ///
    /// let config = AutoQuantizeConfig::from_toml(r#"
    ///     effective_bits = 6.0
    ///     formats = ["int4_awq", "int8_default"]
    ///     keep_float = ["head"]
    ///
    ///     [[overrides]]
    ///     layers = ["encoder.0.*"]
    ///     formats = ["int8_default"]
    /// "#)?;
    /// assert_eq!(config.formats.len(), 2);
    /// assert_eq!(AutoQuantizeConfig::from_toml(&config.to_toml())?, config);
    /// # }
    /// # Ok::<(), burn_quant::QuantError>(())
    /// ```
    #[cfg(feature = "toml")]
    pub fn from_toml(recipe: &str) -> Result<Self, QuantError> {
        recipe::from_toml(recipe)
    }

    /// All formats, those of overrides too, each once.
    pub(super) fn all_formats(&self) -> Vec<&SearchFormat> {
        let mut all: Vec<&SearchFormat> = Vec::new();
        for format in self.formats.iter().chain(self.overrides.iter().flat_map(|space| &space.formats)) {
            if !all.contains(&format) {
                all.push(format);
            }
        }
        all
    }

    pub(super) fn validate(&self) -> Result<(), QuantError> {
        let invalid = |problem: String| Err(QuantError::Search { problem });
        check_bits(self.effective_bits)?;
        if !(self.active_expert_fraction > 0.0 && self.active_expert_fraction <= 1.0) {
            return invalid(format!(
                "`active_expert_fraction` is above 0 and at most 1, found {}",
                number(self.active_expert_fraction)
            ));
        }
        if self.all_formats().is_empty() {
            return invalid("there is no format to choose: give `formats`, or `overrides`".into());
        }
        if let Some(space) = self.overrides.iter().find(|space| space.formats.is_empty() && !space.allow_float) {
            return invalid(format!("the override of `{}` has nothing to choose", space.layers.join("`, `")));
        }
        let all = self.all_formats();
        for (i, format) in all.iter().enumerate() {
            if all[..i].iter().any(|other| other.name == format.name) {
                return invalid(format!("two formats have the name `{}`", format.name));
            }
        }
        if self.calibration_batches == 0 || self.score_batches == 0 {
            return invalid("`calibration_batches` and `score_batches` are at least 1".into());
        }
        Ok(())
    }
}

/// A budget is a number of bits.
pub(super) fn check_bits(effective_bits: f64) -> Result<(), QuantError> {
    if effective_bits > 0.0 && effective_bits <= 32.0 {
        return Ok(());
    }
    let found = number(effective_bits);
    Err(QuantError::Search { problem: format!("`effective_bits` is above 0 and at most 32, found {found}") })
}
