//! A quantizer's configuration as recipes have it: a name for what has one, and nothing that is as it would be anyway.
//!
//! Short: `format = "nvfp4"`. Whole: `format = "e2m1"`, `granularity`, `scale`, `range`. Both are read; the short one
//! is written.

use std::fmt;

use burn_quant_ops::GradientRule;
use burn_quant_ops::numerics::{Format, ScaleFormat};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::learned_ranges::LearnedRanges;
use super::quantizer::{BiasConfig, Granularity, QuantizerConfig, RangeSource, Rotation, Rounding};
use crate::error::QuantError;

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
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
    range: Option<RangeSource>,
    #[serde(default, skip_serializing_if = "is_default")]
    gradient: GradientRule,
    #[serde(default, skip_serializing_if = "is_default")]
    rounding: Rounding,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    bias: Option<BiasConfig>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rotation: Option<Rotation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    learned_ranges: Option<LearnedRanges>,
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
            learned_ranges: written.learned_ranges,
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
            learned_ranges: config.learned_ranges,
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
