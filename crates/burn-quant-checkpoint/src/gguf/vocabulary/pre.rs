//! Pre-tokenizers: how text is split before merges are applied. GGUF has a name for each, `tokenizer.ggml.pre`.
//!
//! Source: the regular expressions of llama.cpp's `llama-vocab.cpp`, and those of the models' `tokenizer.json`.

use serde_json::{Value, json};

use crate::CheckpointError;

/// The split of Llama 3: up to three digits at once.
const LLAMA_3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// The split of Qwen 2: one digit at once.
const QWEN_2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// What llama.cpp splits at where it knows nothing better, one after the other.
const DEFAULT: [&str; 4] = [
    r"[\p{P}\$\+<=>\^~\|]+",
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)",
    r"\p{N}+",
    r"[0-9][0-9][0-9]",
];

/// A pre-tokenizer that is known on both sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PreTokenizer {
    /// Single digits, then the split of GPT-2.
    SingleDigits,
    /// The split of GPT-2.
    Gpt2,
    /// The split of Llama 3.
    Llama3,
    /// The split of Qwen 2.
    Qwen2,
    /// That of llama.cpp for unknown models.
    Default,
}

/// Names in GGUF, the first of each being the one that is written.
const NAMES: [(&str, PreTokenizer); 14] = [
    ("smollm", PreTokenizer::SingleDigits),
    ("starcoder", PreTokenizer::SingleDigits),
    ("refact", PreTokenizer::SingleDigits),
    ("command-r", PreTokenizer::SingleDigits),
    ("codeshell", PreTokenizer::SingleDigits),
    ("gpt-2", PreTokenizer::Gpt2),
    ("olmo", PreTokenizer::Gpt2),
    ("mpt", PreTokenizer::Gpt2),
    ("llama-bpe", PreTokenizer::Llama3),
    ("llama3", PreTokenizer::Llama3),
    ("llama-v3", PreTokenizer::Llama3),
    ("qwen2", PreTokenizer::Qwen2),
    ("deepseek-r1-qwen", PreTokenizer::Qwen2),
    ("default", PreTokenizer::Default),
];

impl PreTokenizer {
    /// Returns the pre-tokenizer of a name in GGUF.
    pub(super) fn of_name(name: &str) -> Result<Self, CheckpointError> {
        NAMES.iter().find(|(other, _)| *other == name).map(|(_, pre)| *pre).ok_or_else(|| CheckpointError::Unknown {
            what: "tokenizer.ggml.pre".into(),
            found: name.into(),
            known: "smollm, starcoder, refact, command-r, codeshell, gpt-2, olmo, mpt, llama-bpe, qwen2 and default",
        })
    }

    /// Returns the name in GGUF of the pre-tokenizer of a `tokenizer.json`.
    ///
    /// Without merges, text is never joined, so that any split is right: `default` is the name of none.
    pub(super) fn recognise(json: &Value, has_merges: bool) -> Result<&'static str, CheckpointError> {
        let steps = match json["pretokenizers"].as_array() {
            Some(steps) if json["type"] == "Sequence" => &steps[..],
            _ => std::slice::from_ref(json),
        };
        let (last, before) = steps.split_last().unwrap_or((&Value::Null, &[]));
        let is_byte_level = last["type"] == "ByteLevel";
        let splits = last["use_regex"].as_bool().unwrap_or(true);
        match before {
            [] if is_byte_level && splits => return Ok("gpt-2"),
            [] if is_byte_level && !has_merges => return Ok("default"),
            [step] if is_byte_level && splits && *step == json!({"type": "Digits", "individual_digits": true}) => {
                return Ok("smollm");
            }
            [split] if is_byte_level && !splits && split["type"] == "Split" && split["behavior"] == "Isolated" => {
                match split["pattern"]["Regex"].as_str() {
                    Some(LLAMA_3) => return Ok("llama-bpe"),
                    Some(QWEN_2) => return Ok("qwen2"),
                    _ => {}
                }
            }
            _ => {}
        }
        Err(CheckpointError::Unknown {
            what: "pre_tokenizer".into(),
            found: json.to_string().chars().take(300).collect(),
            known: "those of GPT-2, SmolLM, Llama 3 and Qwen 2; a name of `tokenizer.ggml.pre` can be given instead",
        })
    }

    /// Returns the pre-tokenizer for `tokenizer.json`.
    pub(super) fn json(self) -> Value {
        let byte_level = |use_regex: bool| {
            json!({
                "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": use_regex,
            })
        };
        let split = |regex: &str| {
            json!({
                "type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false,
            })
        };
        let sequence = |steps: Vec<Value>| json!({"type": "Sequence", "pretokenizers": steps});
        match self {
            PreTokenizer::Gpt2 => byte_level(true),
            PreTokenizer::SingleDigits => {
                sequence(vec![json!({"type": "Digits", "individual_digits": true}), byte_level(true)])
            }
            PreTokenizer::Llama3 => sequence(vec![split(LLAMA_3), byte_level(false)]),
            PreTokenizer::Qwen2 => sequence(vec![split(QWEN_2), byte_level(false)]),
            PreTokenizer::Default => {
                sequence(DEFAULT.iter().map(|regex| split(regex)).chain([byte_level(false)]).collect())
            }
        }
    }

    /// Returns the normalizer for `tokenizer.json`: null, or the canonical composition of Qwen.
    pub(super) fn normalizer(self) -> Value {
        if self == PreTokenizer::Qwen2 { json!({"type": "NFC"}) } else { Value::Null }
    }

    /// Returns whether words that are tokens are not merged, as in Llama 3.
    pub(super) fn ignores_merges(self) -> bool {
        self == PreTokenizer::Llama3
    }
}
