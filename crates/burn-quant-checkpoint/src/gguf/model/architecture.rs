//! Architectures that are known, and the sizes that names and rows depend on.

use serde_json::Value;

use crate::CheckpointError;
use crate::gguf::Metadata;

/// The values of `model_type` that are known.
const KNOWN: &str = "llama, mistral, mixtral, qwen2, qwen3 and qwen3_moe";

/// The most experts of a layer that are read; llama.cpp has 512.
const MOST_EXPERTS: usize = 4096;

/// An architecture of both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// Llama and Mistral: `llama` in GGUF.
    Llama,
    /// Llama with experts: `llama` in GGUF too.
    Mixtral,
    /// Qwen 2 and 2.5.
    Qwen2,
    /// Qwen 3.
    Qwen3,
    /// Qwen 3 with experts.
    Qwen3Moe,
}

impl Family {
    /// Returns `general.architecture`, which is also what its keys begin with.
    pub(super) fn gguf(self) -> &'static str {
        match self {
            Family::Llama | Family::Mixtral => "llama",
            Family::Qwen2 => "qwen2",
            Family::Qwen3 => "qwen3",
            Family::Qwen3Moe => "qwen3moe",
        }
    }

    /// Returns `model_type` and the class of `architectures`.
    pub(super) fn hugging_face(self) -> (&'static str, &'static str) {
        match self {
            Family::Llama => ("llama", "LlamaForCausalLM"),
            Family::Mixtral => ("mixtral", "MixtralForCausalLM"),
            Family::Qwen2 => ("qwen2", "Qwen2ForCausalLM"),
            Family::Qwen3 => ("qwen3", "Qwen3ForCausalLM"),
            Family::Qwen3Moe => ("qwen3_moe", "Qwen3MoeForCausalLM"),
        }
    }

    /// Returns whether layers have experts.
    pub(super) fn has_experts(self) -> bool {
        matches!(self, Family::Mixtral | Family::Qwen3Moe)
    }
}

/// A model's architecture, and sizes that names and rows depend on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Architecture {
    pub(super) family: Family,
    pub(super) layers: usize,
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    /// Elements of a head.
    pub(super) head: usize,
    /// Experts of a layer; zero if there are none.
    pub(super) experts: usize,
}

impl Architecture {
    /// Reads the architecture of a `config.json`.
    pub(super) fn of_config(config: &Value) -> Result<Self, CheckpointError> {
        let family = match config["model_type"].as_str() {
            Some("llama" | "mistral") => Family::Llama,
            Some("mixtral") => Family::Mixtral,
            Some("qwen2") => Family::Qwen2,
            Some("qwen3") => Family::Qwen3,
            Some("qwen3_moe") => Family::Qwen3Moe,
            _ => {
                let found = config["model_type"].to_string();
                return Err(CheckpointError::Unknown { what: "model_type".into(), found, known: KNOWN });
            }
        };
        let heads = count(config, "num_attention_heads")?;
        let head = match find_count(config, "head_dim")? {
            Some(head) => head,
            None => count(config, "hidden_size")? / heads.max(1),
        };
        let experts = match (family.has_experts(), find_count(config, "num_local_experts")?) {
            (false, _) => 0,
            (true, Some(experts)) => experts,
            (true, None) => count(config, "num_experts")?,
        };
        Self {
            family,
            layers: count(config, "num_hidden_layers")?,
            heads,
            kv_heads: find_count(config, "num_key_value_heads")?.unwrap_or(heads),
            head,
            experts,
        }
        .checked("num_attention_heads", "head_dim")
    }

    /// Reads the architecture of a file.
    pub(super) fn of_metadata(metadata: &Metadata) -> Result<Self, CheckpointError> {
        let name = metadata.text("general.architecture")?;
        let key = |key: &str| format!("{name}.{key}");
        let experts = metadata.find_count(&key("expert_count"))?.unwrap_or(0);
        let family = match (name, experts) {
            ("llama", 0) => Family::Llama,
            ("llama", _) => Family::Mixtral,
            ("qwen2", _) => Family::Qwen2,
            ("qwen3", _) => Family::Qwen3,
            ("qwen3moe", _) => Family::Qwen3Moe,
            _ => {
                return Err(CheckpointError::Unknown {
                    what: "general.architecture".into(),
                    found: name.into(),
                    known: "llama, qwen2, qwen3 and qwen3moe",
                });
            }
        };
        let heads = metadata.count(&key("attention.head_count"))?;
        let head = match metadata.find_count(&key("attention.key_length"))? {
            Some(head) => head,
            None => metadata.count(&key("embedding_length"))? / heads.max(1),
        };
        Self {
            family,
            layers: metadata.count(&key("block_count"))?,
            heads,
            kv_heads: metadata.find_count(&key("attention.head_count_kv"))?.unwrap_or(heads),
            head,
            experts,
        }
        .checked(&key("attention.head_count"), &key("attention.key_length"))
    }

    /// Checks what the order of rows is computed from.
    fn checked(self, heads: &str, head: &str) -> Result<Self, CheckpointError> {
        let wrong = |key: &str, expected, found: usize| {
            Err(CheckpointError::Value { key: key.into(), expected, found: found.to_string() })
        };
        if self.heads == 0 || self.kv_heads == 0 {
            return wrong(heads, "at least one head", 0);
        }
        if self.head == 0 || !self.head.is_multiple_of(2) {
            return wrong(head, "an even number of elements", self.head);
        }
        if self.experts > MOST_EXPERTS {
            return wrong("the number of experts", "at most 4096", self.experts);
        }
        Ok(self)
    }
}

/// Returns a count of a configuration that must be there.
pub(super) fn count(config: &Value, key: &str) -> Result<usize, CheckpointError> {
    find_count(config, key)?.ok_or_else(|| CheckpointError::Missing { name: key.into(), near_misses: Vec::new() })
}

/// Returns a count of a configuration that may be missing or null.
pub(super) fn find_count(config: &Value, key: &str) -> Result<Option<usize>, CheckpointError> {
    match config.get(key) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => match value.as_u64().and_then(|count| u32::try_from(count).ok()) {
            Some(count) => Ok(Some(count as usize)),
            None => Err(CheckpointError::Value {
                key: key.into(),
                expected: "a number of at most 32 bits",
                found: value.to_string(),
            }),
        },
    }
}
