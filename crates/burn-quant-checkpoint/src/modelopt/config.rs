//! `hf_quant_config.json` and the `quantization_config` of `config.json`.

use serde_json::{Map, Value, json};

use super::QuantAlgo;
use crate::{CheckpointError, Folder};

/// The format of keys and values, ModelOpt's `kv_cache_quant_algo`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum KvAlgo {
    /// E4M3 under a scale of the tensor.
    Fp8,
    /// NVFP4.
    Nvfp4,
    /// NVFP4 around a bias.
    Nvfp4Affine,
}

impl KvAlgo {
    /// Returns the name that files have.
    ///
    /// In upper case.
    pub const fn name(self) -> &'static str {
        match self {
            KvAlgo::Fp8 => "FP8",
            KvAlgo::Nvfp4 => "NVFP4",
            KvAlgo::Nvfp4Affine => "NVFP4_AFFINE",
        }
    }

    /// Returns the format of a name.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Unknown`].
    pub fn of_name(name: &str) -> Result<Self, CheckpointError> {
        [KvAlgo::Fp8, KvAlgo::Nvfp4, KvAlgo::Nvfp4Affine].into_iter().find(|algo| algo.name() == name).ok_or_else(
            || CheckpointError::Unknown {
                what: "`kv_cache_quant_algo`".into(),
                found: name.into(),
                known: "FP8, NVFP4 and NVFP4_AFFINE",
            },
        )
    }

    fn scheme(self) -> Value {
        match self {
            KvAlgo::Fp8 => json!({"dynamic": false, "num_bits": 8, "type": "float"}),
            other => other.name().into(),
        }
    }
}

/// A quantized layer, as the configuration of a folder has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerAlgo {
    /// Its name.
    pub name: String,
    /// Its format.
    pub algo: QuantAlgo,
    /// Elements that share a scale, in formats whose files say so.
    pub group_size: Option<usize>,
}

/// What the configuration of a folder says of its layers.
///
/// # Example
///
/// ```
/// use burn_quant_checkpoint::modelopt::{QuantAlgo, Quantization};
///
/// let mut quantization = Quantization::default();
/// quantization.layer("model.layers.0.mlp.down_proj", QuantAlgo::Fp8, None);
/// quantization.exclude("lm_head");
/// assert_eq!(quantization.hf_quant_config()["quantization"]["quant_algo"], "FP8");
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quantization {
    layers: Vec<LayerAlgo>,
    kv: Option<KvAlgo>,
    excluded: Vec<String>,
}

impl Quantization {
    /// Adds a quantized layer.
    ///
    /// `group_size` is written for formats with blocks.
    pub fn layer(&mut self, name: impl Into<String>, algo: QuantAlgo, group_size: Option<usize>) {
        let group_size = group_size.filter(|_| algo.has_group_size());
        self.layers.push(LayerAlgo { name: name.into(), algo, group_size });
    }

    /// Adds a layer that stays in float: a linear layer, an embedding, or the router of experts.
    ///
    /// Where all layers below a path stay in float, a pattern for the path is written.
    pub fn exclude(&mut self, name: impl Into<String>) {
        self.excluded.push(name.into());
    }

    /// Sets the format of keys and values.
    ///
    /// One for all layers.
    pub fn set_kv(&mut self, algo: KvAlgo) {
        self.kv = Some(algo);
    }

    /// Returns the quantized layers, in their order.
    ///
    /// Each expert by itself.
    pub fn layers(&self) -> &[LayerAlgo] {
        &self.layers
    }

    /// Returns the format of keys and values.
    ///
    /// `None` if they are not quantized.
    pub fn kv(&self) -> Option<KvAlgo> {
        self.kv
    }

    /// The one format of all layers.
    fn single(&self) -> Option<&LayerAlgo> {
        let first = self.layers.first()?;
        let same = |other: &LayerAlgo| (other.algo, other.group_size) == (first.algo, first.group_size);
        self.layers.iter().all(same).then_some(first)
    }

    /// Names of layers, all experts of a layer under one name, each once.
    fn modules(&self) -> Vec<(&str, &LayerAlgo)> {
        let mut modules: Vec<(&str, &LayerAlgo)> = Vec::new();
        for layer in &self.layers {
            let name = module(&layer.name);
            if !modules.iter().any(|(other, _)| *other == name) {
                modules.push((name, layer));
            }
        }
        modules
    }

    /// Returns the content of `hf_quant_config.json`.
    ///
    /// ModelOpt's form, with this crate as the producer.
    pub fn hf_quant_config(&self) -> Value {
        let mut quantization = Map::new();
        let kv = self.kv.map_or(Value::Null, |algo| algo.name().into());
        match self.single() {
            None if self.layers.is_empty() => {
                quantization.insert("quant_algo".into(), Value::Null);
                quantization.insert("kv_cache_quant_algo".into(), kv);
                quantization.insert("exclude_modules".into(), self.patterns().into());
            }
            Some(layer) => {
                quantization.insert("quant_algo".into(), layer.algo.name().into());
                quantization.insert("kv_cache_quant_algo".into(), kv);
                quantization.extend(details(layer));
                quantization.insert("exclude_modules".into(), self.patterns().into());
            }
            None => {
                quantization.insert("quant_algo".into(), MIXED.into());
                quantization.insert("kv_cache_quant_algo".into(), kv);
                quantization.insert("quantized_layers".into(), self.quantized_layers());
            }
        }
        json!({"producer": producer(), "quantization": quantization})
    }

    /// Returns the `quantization_config` of `config.json`.
    ///
    /// ModelOpt's form, with this crate as the producer.
    pub fn quantization_config(&self) -> Value {
        let mut config = Map::new();
        let single = self.single();
        match single {
            Some(layer) => {
                if let Some(group) = group(layer, vec!["Linear".into()]) {
                    config.insert("config_groups".into(), json!({"group_0": group}));
                }
                config.insert("ignore".into(), self.patterns().into());
                config.insert("quant_algo".into(), layer.algo.name().into());
            }
            None if self.layers.is_empty() => {
                config.insert("ignore".into(), self.patterns().into());
                config.insert("quant_algo".into(), Value::Null);
            }
            None => {
                let mut groups: Vec<(&LayerAlgo, Vec<String>)> = Vec::new();
                for (name, layer) in self.modules() {
                    let same = |(other, _): &&mut (&LayerAlgo, Vec<String>)| {
                        (other.algo, other.group_size) == (layer.algo, layer.group_size)
                    };
                    match groups.iter_mut().find(same) {
                        Some((_, targets)) => targets.push(name.into()),
                        None => groups.push((layer, vec![name.into()])),
                    }
                }
                let groups = groups.into_iter().filter_map(|(layer, mut targets)| {
                    targets.sort();
                    group(layer, targets)
                });
                let groups: Map<String, Value> =
                    groups.enumerate().map(|(i, group)| (format!("group_{i}"), group)).collect();
                config.insert("config_groups".into(), groups.into());
                config.insert("quantized_layers".into(), self.quantized_layers());
                config.insert("ignore".into(), Value::Array(Vec::new()));
                config.insert("quant_algo".into(), MIXED.into());
            }
        }
        if let Some(kv) = self.kv {
            config.insert("kv_cache_scheme".into(), kv.scheme());
        }
        config.insert("producer".into(), producer());
        config.insert("quant_method".into(), "modelopt".into());
        config.into()
    }

    fn quantized_layers(&self) -> Value {
        let layers = self.modules().into_iter().map(|(name, layer)| {
            let mut value = Map::from_iter([("quant_algo".to_string(), layer.algo.name().into())]);
            value.extend(details(layer));
            (name.to_string(), value.into())
        });
        Value::Object(layers.collect())
    }

    /// The shortest patterns that name what is excluded and nothing that is quantized, sorted.
    fn patterns(&self) -> Vec<String> {
        let quantized = |pattern: &str| self.layers.iter().any(|layer| layer.name.starts_with(pattern));
        let mut patterns: Vec<String> = self
            .excluded
            .iter()
            .map(|name| {
                let mut ends = name.match_indices('.').map(|(at, _)| at);
                let prefix = ends.find_map(|end| match &name[..end] {
                    path if !quantized(path) => Some(format!("{path}*")),
                    path if !quantized(&format!("{path}.")) => Some(format!("{path}.*")),
                    _ => None,
                });
                prefix.unwrap_or_else(|| name.clone())
            })
            .collect();
        patterns.sort();
        patterns.dedup();
        patterns
    }

    /// Reads what the configuration of a folder says, if it is one of ModelOpt's.
    ///
    /// Layers are those that have a `weight_scale`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Unknown`] for a format that is not known, [`CheckpointError::Contradiction`] if a layer has
    /// scales and is said to be in float, or the other way round.
    pub fn of(folder: &Folder) -> Result<Option<Self>, CheckpointError> {
        let of_file = folder.json("hf_quant_config.json")?;
        let of_config = folder.config().get("quantization_config");
        let is_modelopt = of_config.and_then(|config| config.get("quant_method")).is_some_and(|it| it == "modelopt");
        let quantization = match (&of_file, of_config) {
            (Some(file), _) => &file["quantization"],
            (None, Some(config)) if is_modelopt => config,
            _ => return Ok(None),
        };
        let kv = match &quantization["kv_cache_quant_algo"] {
            Value::String(name) => Some(KvAlgo::of_name(name)?),
            _ => match &quantization["kv_cache_scheme"] {
                Value::String(name) => Some(KvAlgo::of_name(name)?),
                Value::Object(_) => Some(KvAlgo::Fp8),
                _ => None,
            },
        };
        let mut read = Self { kv, ..Self::default() };
        let scaled: Vec<&str> = folder.names().filter_map(|name| name.strip_suffix(".weight_scale")).collect();
        let size = |value: &Value| value["group_size"].as_u64().and_then(|size| usize::try_from(size).ok());
        let algo = |value: &Value| match value["quant_algo"].as_str() {
            Some(name) => QuantAlgo::of_name(name),
            None => Err(CheckpointError::Value {
                key: "quant_algo".into(),
                expected: "the name of a format",
                found: value["quant_algo"].to_string(),
            }),
        };
        if quantization["quant_algo"] == MIXED {
            let Some(layers) = quantization["quantized_layers"].as_object() else {
                return Err(CheckpointError::Value {
                    key: "quantized_layers".into(),
                    expected: "an object of layers and formats",
                    found: quantization["quantized_layers"].to_string(),
                });
            };
            for name in scaled {
                let Some(value) = layers.get(name).or_else(|| layers.get(module(name))) else {
                    return Err(CheckpointError::Contradiction {
                        name: name.into(),
                        one: "has a `weight_scale`".into(),
                        other: "is none of `quantized_layers`".into(),
                    });
                };
                read.layer(name, algo(value)?, size(value));
            }
            for name in layers.keys() {
                if !read.layers.iter().any(|layer| &layer.name == name || module(&layer.name) == name) {
                    return Err(CheckpointError::Contradiction {
                        name: name.clone(),
                        one: "is one of `quantized_layers`".into(),
                        other: "has no `weight_scale`".into(),
                    });
                }
            }
        } else if !quantization["quant_algo"].is_null() {
            let excluded = quantization.get("exclude_modules").or_else(|| quantization.get("ignore"));
            let patterns: Vec<&str> =
                excluded.and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_str).collect();
            for name in scaled {
                if let Some(pattern) = patterns.iter().find(|pattern| matches(pattern, name)) {
                    return Err(CheckpointError::Contradiction {
                        name: name.into(),
                        one: "has a `weight_scale`".into(),
                        other: format!("is excluded by `{pattern}`"),
                    });
                }
                read.layer(name, algo(quantization)?, size(quantization));
            }
            read.excluded = patterns.iter().map(|pattern| String::from(*pattern)).collect();
        }
        Ok(Some(read))
    }
}

const MIXED: &str = "MIXED_PRECISION";

/// The name under which mixed folders list a layer: all experts of a layer are one.
fn module(name: &str) -> &str {
    let end = name.match_indices(".experts.").find_map(|(at, found)| {
        let rest = &name[at + found.len()..];
        rest.starts_with(|c: char| c.is_ascii_digit()).then_some(at + ".experts".len())
    });
    &name[..end.unwrap_or(name.len())]
}

/// Whether a name, or what it is part of, has a pattern with stars at its end or anywhere.
fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => name == pattern || name.strip_prefix(pattern).is_some_and(|rest| rest.starts_with('.')),
        Some((before, after)) => {
            let Some(rest) = name.strip_prefix(before) else { return false };
            after.is_empty() || (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(after, &rest[at..]))
        }
    }
}

fn producer() -> Value {
    json!({"name": "burn-quant", "version": env!("CARGO_PKG_VERSION")})
}

/// What a format says beside its name.
fn details(layer: &LayerAlgo) -> Vec<(String, Value)> {
    let mut details = Vec::new();
    if let Some(size) = layer.group_size {
        details.push(("group_size".into(), size.into()));
    }
    if layer.algo.has_scale_flags() {
        details.push(("has_zero_point".into(), false.into()));
        details.push(("pre_quant_scale".into(), true.into()));
    }
    details
}

/// An entry of `config_groups`, for formats that have one.
fn group(layer: &LayerAlgo, targets: Vec<String>) -> Option<Value> {
    let mut numbers = Map::new();
    numbers.insert("dynamic".into(), false.into());
    let mut group = Map::new();
    match layer.algo {
        QuantAlgo::Fp8 => {
            numbers.insert("num_bits".into(), 8.into());
            numbers.insert("type".into(), "float".into());
        }
        QuantAlgo::Nvfp4 | QuantAlgo::W4A16Nvfp4 | QuantAlgo::Nvfp4Svd => {
            numbers.insert("num_bits".into(), 4.into());
            numbers.insert("type".into(), "float".into());
            numbers.insert("group_size".into(), layer.group_size.into());
        }
        _ => return None,
    }
    if layer.algo != QuantAlgo::W4A16Nvfp4 {
        group.insert("input_activations".into(), numbers.clone().into());
    }
    group.insert("weights".into(), numbers.into());
    if layer.algo == QuantAlgo::Nvfp4Svd {
        group.insert("has_zero_point".into(), false.into());
        group.insert("pre_quant_scale".into(), true.into());
    }
    group.insert("targets".into(), targets.into());
    Some(group.into())
}
