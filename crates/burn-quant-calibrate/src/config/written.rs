//! Configurations as recipes have them: names for what has one, and nothing that is as it would be anyway.
//!
//! | | short | whole |
//! |---|---|---|
//! | an algorithm | `algorithm = "awq_lite"` | `algorithm = { awq_lite = { alpha_step = 0.1, .. } }` |
//! | a configuration | `preset = "int8_default"` | all of its `rules` |
//!
//! Both are read; what is written is the short one for algorithms, and all rules.

use std::fmt;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Algorithm, QuantConfig};
use burn_quant_core::config::Rule;

pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
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
