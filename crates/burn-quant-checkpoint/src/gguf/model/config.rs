//! `config.json` as metadata, and back.
//!
//! Source: `set_gguf_parameters` of llama.cpp's `convert_hf_to_gguf.py`.

use serde_json::{Value, json};

use super::architecture::{Architecture, Family, count, find_count};
use super::rope::Scaling;
use crate::CheckpointError;
use crate::gguf::Metadata;

/// The quantization version of ggml's blocks.
const QUANTIZATION_VERSION: u32 = 2;

/// Returns the metadata of a `config.json`: everything but the tokenizer.
///
/// # Errors
///
/// [`CheckpointError::Missing`] or [`CheckpointError::Value`] for a key that is not there or is no number,
/// [`CheckpointError::Unknown`] for what ggml's architecture does not compute.
pub(super) fn metadata(
    config: &Value,
    architecture: &Architecture,
    name: &str,
    file_type: u32,
) -> Result<Metadata, CheckpointError> {
    check_computation(config, architecture.family)?;
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", architecture.family.gguf());
    metadata.set("general.name", name);
    let key = |key: &str| format!("{}.{key}", architecture.family.gguf());
    for (ours, theirs) in [
        ("block_count", "num_hidden_layers"),
        ("context_length", "max_position_embeddings"),
        ("embedding_length", "hidden_size"),
        ("feed_forward_length", "intermediate_size"),
    ] {
        metadata.set(key(ours), count(config, theirs)? as u32);
    }
    metadata.set(key("attention.head_count"), architecture.heads as u32);
    metadata.set(key("attention.head_count_kv"), architecture.kv_heads as u32);
    if let Some(head) = find_count(config, "head_dim")? {
        metadata.set(key("attention.key_length"), head as u32);
        metadata.set(key("attention.value_length"), head as u32);
    }
    let epsilon = float(config, "rms_norm_eps")?.unwrap_or(1e-6);
    metadata.set(key("attention.layer_norm_rms_epsilon"), epsilon as f32);
    metadata.set(key("rope.dimension_count"), architecture.head as u32);
    metadata.set(key("rope.freq_base"), theta(config)? as f32);
    match Scaling::of_config(config)? {
        // the factors of Llama 3 are a tensor
        Scaling::None | Scaling::Llama3(_) => {}
        Scaling::Linear { factor } => {
            metadata.set(key("rope.scaling.type"), "linear");
            metadata.set(key("rope.scaling.factor"), factor);
        }
        Scaling::Yarn { factor, original } => {
            metadata.set(key("rope.scaling.type"), "yarn");
            metadata.set(key("rope.scaling.factor"), factor);
            metadata.set(key("rope.scaling.original_context_length"), original as u32);
        }
    }
    if architecture.family.has_experts() {
        metadata.set(key("expert_count"), architecture.experts as u32);
        metadata.set(key("expert_used_count"), count(config, "num_experts_per_tok")? as u32);
    }
    if architecture.family == Family::Qwen3Moe {
        metadata.set(key("expert_feed_forward_length"), count(config, "moe_intermediate_size")? as u32);
    }
    metadata.set(key("vocab_size"), count(config, "vocab_size")? as u32);
    metadata.set("general.file_type", file_type);
    metadata.set("general.quantization_version", QUANTIZATION_VERSION);
    Ok(metadata)
}

/// Refuses what would be computed differently: an activation, layers without experts, weights that are not normalized.
fn check_computation(config: &Value, family: Family) -> Result<(), CheckpointError> {
    let unknown = |what: &str, known| {
        let (what, found) = (what.to_string(), config[what].to_string());
        Err(CheckpointError::Unknown { what, found, known })
    };
    if !matches!(config["hidden_act"].as_str(), None | Some("silu" | "swish")) {
        return unknown("hidden_act", "silu");
    }
    if family == Family::Qwen3Moe {
        if config["norm_topk_prob"] == Value::Bool(false) {
            return unknown("norm_topk_prob", "true");
        }
        if config["mlp_only_layers"].as_array().is_some_and(|layers| !layers.is_empty()) {
            return unknown("mlp_only_layers", "an empty list");
        }
        if find_count(config, "decoder_sparse_step")?.is_some_and(|step| step != 1) {
            return unknown("decoder_sparse_step", "1");
        }
    }
    Ok(())
}

/// Returns the base of the rotations, from either place where `transformers` has it.
pub(super) fn theta(config: &Value) -> Result<f64, CheckpointError> {
    let theta = match float(config, "rope_theta")? {
        Some(theta) => Some(theta),
        None => config.get("rope_parameters").map_or(Ok(None), |rope| float(rope, "rope_theta"))?,
    };
    Ok(theta.unwrap_or(10_000.0))
}

fn float(config: &Value, key: &str) -> Result<Option<f64>, CheckpointError> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_f64() {
            Some(float) => Ok(Some(float)),
            None => Err(CheckpointError::Value { key: key.into(), expected: "a number", found: value.to_string() }),
        },
    }
}

/// What metadata does not say about a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    /// Whether there is no `output.weight`, so that the embedding is the output too.
    pub(super) is_tied: bool,
    /// Whether queries, keys and values have biases.
    pub(super) has_bias: bool,
    /// Rows of the embedding.
    pub(super) vocabulary: usize,
    /// The tensor `rope_freqs.weight`.
    pub(super) rope_factors: Option<&'a [f32]>,
}

/// Returns the `config.json` that a file would have had.
///
/// # Errors
///
/// [`CheckpointError::Missing`] or [`CheckpointError::Value`] for a key that is not there or has another type,
/// [`CheckpointError::Unknown`] for a scaling of rotations that has no key in `config.json`.
pub(super) fn config(
    metadata: &Metadata,
    architecture: &Architecture,
    facts: Facts<'_>,
) -> Result<Value, CheckpointError> {
    let key = |key: &str| format!("{}.{key}", architecture.family.gguf());
    let count = |name: &str| metadata.count(&key(name));
    let (model_type, class) = architecture.family.hugging_face();
    let epsilon = metadata.find_float(&key("attention.layer_norm_rms_epsilon"))?.unwrap_or(1e-6);
    let theta = decimal(metadata.find_float(&key("rope.freq_base"))?.unwrap_or(10_000.0));
    let mut config = json!({
        "architectures": [class],
        "attention_bias": facts.has_bias,
        "dtype": "float32",
        "head_dim": architecture.head,
        "hidden_act": "silu",
        "hidden_size": count("embedding_length")?,
        "intermediate_size": count("feed_forward_length")?,
        "max_position_embeddings": count("context_length")?,
        "model_type": model_type,
        "num_attention_heads": architecture.heads,
        "num_hidden_layers": architecture.layers,
        "num_key_value_heads": architecture.kv_heads,
        "rms_norm_eps": decimal(epsilon),
        "rope_scaling": rope_scaling(metadata, &key, theta, facts.rope_factors)?,
        "rope_theta": theta,
        "tie_word_embeddings": facts.is_tied,
        "vocab_size": metadata.find_count(&key("vocab_size"))?.unwrap_or(facts.vocabulary),
    });
    if architecture.family.has_experts() {
        config["num_local_experts"] = architecture.experts.into();
        config["num_experts_per_tok"] = count("expert_used_count")?.into();
    }
    if architecture.family == Family::Qwen3Moe {
        config["num_experts"] = architecture.experts.into();
        config["moe_intermediate_size"] = count("expert_feed_forward_length")?.into();
        config["norm_topk_prob"] = true.into();
    }
    for (ours, theirs) in [("bos", "bos"), ("eos", "eos"), ("pad", "padding")] {
        if let Some(token) = metadata.find_count(&format!("tokenizer.ggml.{theirs}_token_id"))? {
            config[format!("{ours}_token_id")] = token.into();
        }
    }
    Ok(config)
}

fn rope_scaling(
    metadata: &Metadata,
    key: &impl Fn(&str) -> String,
    theta: f64,
    factors: Option<&[f32]>,
) -> Result<Value, CheckpointError> {
    if let Some(factors) = factors {
        return super::rope::Llama3::config_of(factors, theta);
    }
    let kind = key("rope.scaling.type");
    let factor = metadata.find_float(&key("rope.scaling.factor"))?.map(decimal);
    match metadata.optional(&kind, "a text", crate::gguf::Value::as_str)? {
        None | Some("none") => Ok(Value::Null),
        Some("linear") => Ok(json!({"rope_type": "linear", "factor": factor})),
        Some("yarn") => Ok(json!({
            "rope_type": "yarn", "factor": factor,
            "original_max_position_embeddings": metadata.find_count(&key("rope.scaling.original_context_length"))?,
        })),
        Some(other) => {
            Err(CheckpointError::Unknown { what: kind, found: other.into(), known: "none, linear and yarn" })
        }
    }
}

/// Returns the shortest decimal number that is this f32: 1e-5 rather than 9.999999747378752e-6.
fn decimal(x: f32) -> f64 {
    x.to_string().parse().expect("a float has a text")
}
