//! What a decoder is: read from the `config.json` of a Hugging Face folder.

use std::fmt;

use burn_quant_checkpoint::{CheckpointError, Dtype};
use serde_json::Value;

use crate::LlmError;

/// A family of decoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// Llama 1 to 3, SmolLM2 and others under its name.
    Llama,
    /// Llama with a window of attention.
    Mistral,
    /// Mistral with a mixture of experts.
    Mixtral,
    /// Llama with biases of queries, keys and values.
    Qwen2,
    /// Llama with norms of the queries and keys of each head.
    Qwen3,
    /// Qwen3 with a mixture of experts.
    Qwen3Moe,
    /// Llama with norms around one, scaled embeddings and a gated GELU.
    Gemma,
}

impl Architecture {
    /// All of them.
    pub const ALL: [Architecture; 7] = [
        Architecture::Llama,
        Architecture::Mistral,
        Architecture::Mixtral,
        Architecture::Qwen2,
        Architecture::Qwen3,
        Architecture::Qwen3Moe,
        Architecture::Gemma,
    ];

    /// Returns the name of the class that `config.json` has.
    ///
    /// `LlamaForCausalLM`, and so on.
    pub const fn name(self) -> &'static str {
        match self {
            Architecture::Llama => "LlamaForCausalLM",
            Architecture::Mistral => "MistralForCausalLM",
            Architecture::Mixtral => "MixtralForCausalLM",
            Architecture::Qwen2 => "Qwen2ForCausalLM",
            Architecture::Qwen3 => "Qwen3ForCausalLM",
            Architecture::Qwen3Moe => "Qwen3MoeForCausalLM",
            Architecture::Gemma => "GemmaForCausalLM",
        }
    }

    fn of(config: &Value) -> Result<Self, LlmError> {
        let class = config["architectures"].as_array().and_then(|names| names.first()).and_then(Value::as_str);
        let by_type = |architecture: &Self| config["model_type"] == architecture.model_type();
        let found = match class {
            Some(name) => Self::ALL.into_iter().find(|architecture| architecture.name() == name),
            None => Self::ALL.into_iter().find(by_type),
        };
        found.ok_or_else(|| LlmError::Architecture {
            found: class.map_or_else(|| config["model_type"].to_string(), String::from),
            known: Self::ALL.iter().map(|architecture| architecture.name()).collect(),
        })
    }

    const fn model_type(self) -> &'static str {
        match self {
            Architecture::Llama => "llama",
            Architecture::Mistral => "mistral",
            Architecture::Mixtral => "mixtral",
            Architecture::Qwen2 => "qwen2",
            Architecture::Qwen3 => "qwen3",
            Architecture::Qwen3Moe => "qwen3_moe",
            Architecture::Gemma => "gemma",
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The function of a gated feed-forward layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// `x · σ(x)`.
    Silu,
    /// The Gaussian error linear unit, by the hyperbolic tangent.
    GeluTanh,
    /// The Gaussian error linear unit.
    Gelu,
}

/// How frequencies of rotary positions are stretched for contexts longer than those of training.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// They are not.
    None,
    /// Divided by a factor.
    Linear {
        /// The factor.
        factor: f64,
    },
    /// Llama 3: low frequencies are divided by a factor, high ones stay, those between are blended.
    Llama3 {
        /// The factor.
        factor: f64,
        /// Turns within the original context below which a frequency is low.
        low_freq_factor: f64,
        /// Turns above which it is high.
        high_freq_factor: f64,
        /// Positions of training.
        original_positions: f64,
    },
    /// YaRN: as Llama 3 by a ramp over dimensions, and attention is sharpened.
    Yarn {
        /// The factor.
        factor: f64,
        /// Turns below which a frequency is low.
        beta_slow: f64,
        /// Turns above which it is high.
        beta_fast: f64,
        /// Positions of training.
        original_positions: f64,
        /// What cosines and sines are multiplied with.
        attention_factor: f64,
    },
}

/// A mixture of experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Experts {
    /// Their number.
    pub count: usize,
    /// Those that each token passes.
    pub per_token: usize,
    /// Features within an expert.
    pub intermediate: usize,
    /// Whether the weights of a token's experts are made to add up to one.
    pub normalized: bool,
}

/// What a decoder is.
///
/// # Example
///
/// ```
/// use burn_quant_llm::{Architecture, DecoderConfig};
///
/// let json = serde_json::json!({
///     "architectures": ["LlamaForCausalLM"], "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4,
///     "num_hidden_layers": 2, "num_key_value_heads": 2, "rms_norm_eps": 1e-5, "vocab_size": 256,
/// });
/// let config = DecoderConfig::of_json(&json)?;
/// assert_eq!((config.architecture, config.head), (Architecture::Llama, 16));
/// # Ok::<(), burn_quant_llm::LlmError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct DecoderConfig {
    /// Its family.
    pub architecture: Architecture,
    /// Tokens that it knows.
    pub vocabulary: usize,
    /// Features of a token between layers.
    pub hidden: usize,
    /// Features within a feed-forward layer.
    pub intermediate: usize,
    /// Layers.
    pub layers: usize,
    /// Heads of queries.
    pub heads: usize,
    /// Heads of keys and values.
    pub kv_heads: usize,
    /// Features of a head.
    pub head: usize,
    /// What norms add to the mean square.
    pub epsilon: f64,
    /// The base of rotary positions.
    pub rope_theta: f64,
    /// Their scaling.
    pub rope_scaling: RopeScaling,
    /// The longest context.
    pub positions: usize,
    /// Whether the head is the table of embeddings.
    pub tied: bool,
    /// Whether queries, keys and values have biases, and whether the output of attention has one.
    pub attention_bias: [bool; 2],
    /// Whether feed-forward layers have biases.
    pub mlp_bias: bool,
    /// The function of feed-forward layers.
    pub activation: Activation,
    /// The experts, in layers that have them.
    pub experts: Option<Experts>,
    /// For each layer, whether it has experts.
    pub sparse: Vec<bool>,
    /// For each layer, the number of tokens that a token sees, itself among them.
    pub windows: Vec<Option<usize>>,
    /// The type of parameters in the folder.
    pub dtype: Dtype,
    /// Tokens that end a text.
    pub end_tokens: Vec<u32>,
    /// The token that begins one.
    pub begin_token: Option<u32>,
}

impl DecoderConfig {
    /// Reads the content of a `config.json`.
    ///
    /// # Errors
    ///
    /// [`LlmError::Architecture`] with the known ones, [`LlmError::Setting`] for one that is not supported, and
    /// [`CheckpointError::Value`] for a key that is missing or of another kind.
    pub fn of_json(json: &Value) -> Result<Self, LlmError> {
        let architecture = Architecture::of(json)?;
        let reader = Reader { json };
        let (hidden, heads) = (reader.positive("hidden_size")?, reader.positive("num_attention_heads")?);
        let layers = reader.count("num_hidden_layers")?;
        let kv_heads = reader.optional("num_key_value_heads")?.unwrap_or(heads);
        if kv_heads == 0 || heads % kv_heads != 0 {
            return Err(LlmError::Setting {
                key: "num_key_value_heads".into(),
                found: kv_heads.to_string(),
                supported: "a divisor of `num_attention_heads`",
            });
        }
        let head = match reader.optional("head_dim")? {
            Some(head) => head,
            None if hidden % heads == 0 => hidden / heads,
            None => return Err(reader.wrong("head_dim", "a number").into()),
        };
        if head == 0 || head % 2 != 0 {
            return Err(LlmError::Setting {
                key: "head_dim".into(),
                found: head.to_string(),
                supported: "an even number",
            });
        }
        let activation = match json.get("hidden_activation").filter(|it| it.is_string()).unwrap_or(&json["hidden_act"])
        {
            Value::Null => Activation::Silu,
            Value::String(name) => match name.as_str() {
                "silu" | "swish" => Activation::Silu,
                "gelu_pytorch_tanh" | "gelu_new" => Activation::GeluTanh,
                // what Gemma's first files say, and its models never had
                "gelu" if architecture == Architecture::Gemma => Activation::GeluTanh,
                "gelu" => Activation::Gelu,
                found => {
                    return Err(LlmError::Setting {
                        key: "hidden_act".into(),
                        found: format!("`{found}`"),
                        supported: "`silu`, `gelu` or `gelu_pytorch_tanh`",
                    });
                }
            },
            _ => return Err(reader.wrong("hidden_act", "a text").into()),
        };
        let bias = reader.flag("attention_bias", false);
        let experts = match architecture {
            Architecture::Mixtral | Architecture::Qwen3Moe => Some(experts(&reader, architecture)?),
            _ => None,
        };
        let dense = reader.integers("mlp_only_layers");
        let step = reader.optional("decoder_sparse_step")?.unwrap_or(1).max(1);
        let sparse = (0..layers).map(|i| experts.is_some() && !dense.contains(&(i as u64)) && (i + 1) % step == 0);
        Ok(Self {
            architecture,
            vocabulary: reader.positive("vocab_size")?,
            hidden,
            intermediate: reader.positive("intermediate_size")?,
            layers,
            heads,
            kv_heads,
            head,
            epsilon: reader.epsilon("rms_norm_eps")?,
            rope_theta: rope(json, "rope_theta").and_then(Value::as_f64).unwrap_or(10_000.0),
            rope_scaling: scaling(json)?,
            positions: reader.optional("max_position_embeddings")?.unwrap_or(usize::MAX),
            tied: reader.flag("tie_word_embeddings", architecture == Architecture::Gemma),
            attention_bias: match architecture {
                Architecture::Qwen2 => [true, false],
                _ => [bias, bias],
            },
            mlp_bias: reader.flag("mlp_bias", false),
            activation,
            experts,
            sparse: sparse.collect(),
            windows: windows(&reader, layers)?,
            dtype: match json.get("dtype").or_else(|| json.get("torch_dtype")).and_then(Value::as_str) {
                Some("bfloat16") => Dtype::BF16,
                Some("float16") => Dtype::F16,
                _ => Dtype::F32,
            },
            end_tokens: match &json["eos_token_id"] {
                Value::Array(tokens) => tokens.iter().filter_map(Value::as_u64).map(|token| token as u32).collect(),
                token => token.as_u64().into_iter().map(|token| token as u32).collect(),
            },
            begin_token: json["bos_token_id"].as_u64().map(|token| token as u32),
        })
    }

    /// Returns whether a layer's queries and keys are normed.
    ///
    /// Qwen3 does it.
    pub fn has_query_norms(&self) -> bool {
        matches!(self.architecture, Architecture::Qwen3 | Architecture::Qwen3Moe)
    }

    /// Returns whether norms multiply with one more than their weight.
    ///
    /// Gemma does it.
    pub fn has_norms_around_one(&self) -> bool {
        self.architecture == Architecture::Gemma
    }
}

struct Reader<'a> {
    json: &'a Value,
}

impl Reader<'_> {
    fn wrong(&self, key: &str, expected: &'static str) -> CheckpointError {
        let found = self.json.get(key).map_or("missing".to_string(), Value::to_string);
        CheckpointError::Value { key: key.into(), expected, found }
    }

    fn optional(&self, key: &str) -> Result<Option<usize>, CheckpointError> {
        match self.json.get(key) {
            None | Some(Value::Null) => Ok(None),
            // sizes beyond this are none of a model
            Some(value) => match value.as_u64().filter(|number| *number < 1 << 40) {
                Some(number) => Ok(Some(number as usize)),
                None => Err(self.wrong(key, "a whole number")),
            },
        }
    }

    fn positive(&self, key: &str) -> Result<usize, CheckpointError> {
        self.optional(key)?.filter(|number| *number > 0).ok_or_else(|| self.wrong(key, "a positive number"))
    }

    /// How many there are of what takes memory before a tensor is read.
    fn count(&self, key: &str) -> Result<usize, CheckpointError> {
        let count = self.positive(key)?;
        if count <= MOST { Ok(count) } else { Err(self.wrong(key, "at most 16384")) }
    }

    fn epsilon(&self, key: &str) -> Result<f64, CheckpointError> {
        let epsilon = self.number(key)?.unwrap_or(1e-6);
        if epsilon > 0.0 && epsilon.is_finite() { Ok(epsilon) } else { Err(self.wrong(key, "a number above 0")) }
    }

    fn number(&self, key: &str) -> Result<Option<f64>, CheckpointError> {
        match self.json.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or_else(|| self.wrong(key, "a number")),
        }
    }

    fn flag(&self, key: &str, default: bool) -> bool {
        self.json.get(key).and_then(Value::as_bool).unwrap_or(default)
    }

    fn integers(&self, key: &str) -> Vec<u64> {
        self.json.get(key).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_u64).collect()
    }
}

/// The most layers, and the most experts of a layer: far more than any model has.
const MOST: usize = 1 << 14;

fn experts(reader: &Reader<'_>, architecture: Architecture) -> Result<Experts, CheckpointError> {
    let count = match reader.optional("num_local_experts")? {
        Some(count) => count,
        None => reader.count("num_experts")?,
    };
    if count > MOST {
        return Err(reader.wrong("num_local_experts", "at most 16384"));
    }
    let is_mixtral = architecture == Architecture::Mixtral;
    let intermediate = if is_mixtral { "intermediate_size" } else { "moe_intermediate_size" };
    let per_token = reader.positive("num_experts_per_tok")?;
    if per_token > count {
        return Err(reader.wrong("num_experts_per_tok", "at most the number of experts"));
    }
    let normalized = is_mixtral || reader.flag("norm_topk_prob", false);
    Ok(Experts { count, per_token, intermediate: reader.positive(intermediate)?, normalized })
}

/// A parameter of rotary positions: of `rope_parameters`, or of the model itself in older files.
fn rope<'a>(json: &'a Value, key: &str) -> Option<&'a Value> {
    json["rope_parameters"].get(key).or_else(|| json.get(key)).filter(|value| !value.is_null())
}

fn scaling(json: &Value) -> Result<RopeScaling, LlmError> {
    let given = match (&json["rope_scaling"], &json["rope_parameters"]) {
        (Value::Object(_), _) => &json["rope_scaling"],
        (_, Value::Object(_)) => &json["rope_parameters"],
        _ => return Ok(RopeScaling::None),
    };
    let kind = given.get("rope_type").or_else(|| given.get("type")).and_then(Value::as_str).unwrap_or("default");
    let number = |key: &str| given.get(key).and_then(Value::as_f64);
    let needed = |key: &str| {
        number(key).filter(|number| *number > 0.0).ok_or_else(|| CheckpointError::Value {
            key: format!("rope_scaling.{key}"),
            expected: "a positive number",
            found: given.get(key).map_or("missing".into(), Value::to_string),
        })
    };
    let original = || match number("original_max_position_embeddings") {
        Some(positions) => Ok(positions),
        None => json["max_position_embeddings"].as_f64().ok_or_else(|| CheckpointError::Value {
            key: "rope_scaling.original_max_position_embeddings".into(),
            expected: "a number",
            found: "missing".into(),
        }),
    };
    Ok(match kind {
        "default" => RopeScaling::None,
        "linear" => RopeScaling::Linear { factor: needed("factor")? },
        "llama3" => RopeScaling::Llama3 {
            factor: needed("factor")?,
            low_freq_factor: needed("low_freq_factor")?,
            high_freq_factor: needed("high_freq_factor")?,
            original_positions: original()?,
        },
        "yarn" => {
            let factor = needed("factor")?;
            let sharpened = if factor <= 1.0 { 1.0 } else { 0.1 * factor.ln() + 1.0 };
            RopeScaling::Yarn {
                factor,
                beta_slow: number("beta_slow").unwrap_or(1.0),
                beta_fast: number("beta_fast").unwrap_or(32.0),
                original_positions: original()?,
                attention_factor: number("attention_factor").unwrap_or(sharpened),
            }
        }
        found => {
            return Err(LlmError::Setting {
                key: "rope_scaling.rope_type".into(),
                found: format!("`{found}`"),
                supported: "`default`, `linear`, `llama3` or `yarn`",
            });
        }
    })
}

fn windows(reader: &Reader<'_>, layers: usize) -> Result<Vec<Option<usize>>, CheckpointError> {
    let window = reader.optional("sliding_window")?.filter(|_| reader.flag("use_sliding_window", true));
    let types = reader.json.get("layer_types").and_then(Value::as_array);
    let first = reader.optional("max_window_layers")?.unwrap_or(0);
    let slides = |i: usize| match types {
        Some(types) => types.get(i).is_some_and(|kind| kind == "sliding_attention"),
        None => reader.json.get("use_sliding_window").is_none() || i >= first,
    };
    Ok((0..layers).map(|i| window.filter(|_| slides(i))).collect())
}
