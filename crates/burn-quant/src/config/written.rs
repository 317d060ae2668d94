//! Configurations as recipes have them: names for what has one, and nothing that is as it would be anyway.
//!
//! | | short | whole |
//! |---|---|---|
//! | a quantizer | `format = "nvfp4"` | `format = "e2m1"`, `granularity`, `scale`, `range` |
//! | an algorithm | `algorithm = "awq_lite"` | `algorithm = { awq_lite = { alpha_step = 0.1, sharing = "separate" } }` |
//! | a configuration | `preset = "int8_default"` | all of its `rules` |
//!
//! Both are read; what is written is the short one for quantizers and algorithms, and all rules.

use std::fmt;

use burn_quant_ops::GradientRule;
use burn_quant_ops::numerics::{Format, ScaleFormat};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Algorithm, BiasConfig, Granularity, QuantConfig, QuantizerConfig, Range, Rotation, Rounding, Rule};
use crate::QuantError;

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A [`QuantizerConfig`] in a recipe.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenQuantizer {
    format: WrittenFormat,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    granularity: Option<Granularity>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scale: Option<ScaleFormat>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    range: Option<Range>,
    #[serde(default, skip_serializing_if = "is_default")]
    gradient: GradientRule,
    #[serde(default, skip_serializing_if = "is_default")]
    rounding: Rounding,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bias: Option<BiasConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rotation: Option<Rotation>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    then: Vec<QuantizerConfig>,
}

impl TryFrom<WrittenQuantizer> for QuantizerConfig {
    type Error = QuantError;

    fn try_from(written: WrittenQuantizer) -> Result<Self, QuantError> {
        let named = match written.format {
            WrittenFormat::Named(name) => QuantizerConfig::named(&name)?,
            WrittenFormat::Whole(format) => QuantizerConfig::new(format),
        };
        Ok(QuantizerConfig {
            format: named.format,
            granularity: written.granularity.unwrap_or(named.granularity),
            scale: written.scale.unwrap_or(named.scale),
            range: written.range.unwrap_or(named.range),
            gradient: written.gradient,
            rounding: written.rounding,
            bias: written.bias,
            rotation: written.rotation,
            then: written.then,
        })
    }
}

impl From<QuantizerConfig> for WrittenQuantizer {
    fn from(config: QuantizerConfig) -> Self {
        let (format, named) = match config.name() {
            Some((name, named)) => (WrittenFormat::Named(name), named),
            None => (WrittenFormat::Whole(config.format), QuantizerConfig::new(config.format)),
        };
        Self {
            format,
            granularity: (config.granularity != named.granularity).then_some(config.granularity),
            scale: (config.scale != named.scale).then_some(config.scale),
            range: (config.range != named.range).then_some(config.range),
            gradient: config.gradient,
            rounding: config.rounding,
            bias: config.bias,
            rotation: config.rotation,
            then: config.then,
        }
    }
}

/// The name of a format, or its elements in full: `{ int = { bits = 4, span = "narrow" } }`.
#[derive(Serialize)]
#[serde(untagged)]
enum WrittenFormat {
    Named(String),
    Whole(Format),
}

impl<'de> Deserialize<'de> for WrittenFormat {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FormatVisitor;

        impl<'de> Visitor<'de> for FormatVisitor {
            type Value = WrittenFormat;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a format, such as \"int8\", or { int = { bits = 8 } }")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<WrittenFormat, E> {
                Ok(WrittenFormat::Named(name.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<WrittenFormat, A::Error> {
                Format::deserialize(MapAccessDeserializer::new(map)).map(WrittenFormat::Whole)
            }
        }

        deserializer.deserialize_any(FormatVisitor)
    }
}

impl<'de> Deserialize<'de> for Algorithm {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AlgorithmVisitor;

        impl<'de> Visitor<'de> for AlgorithmVisitor {
            type Value = Algorithm;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of an algorithm, the name with its options, or a list of algorithms")
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<Algorithm, E> {
                Algorithm::named(name).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, steps: A) -> Result<Algorithm, A::Error> {
                Vec::deserialize(SeqAccessDeserializer::new(steps)).map(Algorithm::Sequence)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Algorithm, A::Error> {
                Algorithm::deserialize(MapAccessDeserializer::new(map)) // the derived one
            }
        }

        deserializer.deserialize_any(AlgorithmVisitor)
    }
}

impl Serialize for Algorithm {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match Algorithm::named(self.name()) {
            Ok(named) if named == *self => serializer.serialize_str(self.name()),
            _ => Algorithm::serialize(self, serializer), // the derived one
        }
    }
}

/// A [`QuantConfig`] in a recipe.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WrittenConfig {
    #[serde(default)]
    preset: Option<String>,
    #[serde(default)]
    rules: Option<Vec<Rule>>,
    #[serde(default)]
    algorithm: Option<Algorithm>,
}

impl TryFrom<WrittenConfig> for QuantConfig {
    type Error = String;

    fn try_from(written: WrittenConfig) -> Result<Self, String> {
        let mut config = match (&written.preset, &written.rules) {
            (None, None) => return Err("there are neither `rules` nor a `preset`".into()),
            (Some(name), _) => QuantConfig::preset(name).map_err(|e| e.to_string())?,
            (None, Some(_)) => QuantConfig::new(),
        };
        config.rules.extend(written.rules.into_iter().flatten());
        if let Some(algorithm) = written.algorithm {
            config.algorithm = algorithm;
        }
        Ok(config)
    }
}
