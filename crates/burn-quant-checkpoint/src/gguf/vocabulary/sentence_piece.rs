//! A tokenizer of SentencePiece as the model of `tokenizer.json`.
//!
//! A file has a score for each token. Of all neighbours whose joined text is a token, those with the highest score are
//! joined, again and again. `tokenizer.json` has merges in their order instead:
//!
//! ```text
//! merges of a token t    (l, r) with t = l·r, both tokens
//! their rank             by the score of t, highest first; by identifier where scores are equal
//! ```
//!
//! Characters that no token has become bytes, `<0x00>` to `<0xFF>`; spaces become `▁`.
//!
//! Source: Kudo and Richardson 2018, "SentencePiece", arXiv:1808.06226; `llm_tokenizer_spm` of llama.cpp. Where a token
//! is made in two ways at once, or two tokens have one score, the order may be another one than there.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::token_type;
use crate::CheckpointError;
use crate::gguf::{Metadata, Value as Stored};

/// What a space is in tokens.
const SPACE: &str = "▁";

/// Bytes of the longest token that merges make: far more than SentencePiece's limit of 16 characters.
const LONGEST: usize = 256;

/// Returns the parts of a `tokenizer.json` that are SentencePiece's: normalizer, decoder and model.
pub(super) struct SentencePiece {
    pub(super) normalizer: Value,
    pub(super) decoder: Value,
    pub(super) model: Value,
}

impl SentencePiece {
    pub(super) fn of(
        metadata: &Metadata,
        tokens: &[String],
        types: &[i32],
        vocabulary: Value,
    ) -> Result<Self, CheckpointError> {
        let scores = metadata.required("tokenizer.ggml.scores", "floats", Stored::as_floats)?;
        if scores.len() != tokens.len() {
            return Err(CheckpointError::Contradiction {
                name: "tokenizer.ggml.scores".into(),
                one: format!("has {} scores", scores.len()),
                other: format!("there are {} tokens", tokens.len()),
            });
        }
        let prefix = metadata.optional("tokenizer.ggml.add_space_prefix", "a boolean", Stored::as_bool)?;
        let prefix = prefix.unwrap_or(true);
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": SPACE});
        let mut normalizers = vec![json!({"type": "Prepend", "prepend": SPACE}), replace];
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": SPACE}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
            json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}),
        ];
        if !prefix {
            normalizers.remove(0);
            decoders.pop();
        }
        let unknown = types.iter().position(|kind| *kind == token_type::UNKNOWN);
        Ok(Self {
            normalizer: json!({"type": "Sequence", "normalizers": normalizers}),
            decoder: json!({"type": "Sequence", "decoders": decoders}),
            model: json!({
                "type": "BPE",
                "dropout": null,
                "unk_token": unknown.map(|id| &tokens[id]),
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": true,
                "byte_fallback": true,
                "ignore_merges": false,
                "merges": merges(tokens, types, scores),
                "vocab": vocabulary,
            }),
        })
    }
}

/// Returns the merges that make ordinary tokens, in their order.
fn merges(tokens: &[String], types: &[i32], scores: &[f32]) -> Vec<[String; 2]> {
    let ordinary = |id: &usize| matches!(types[*id], token_type::NORMAL | token_type::USER_DEFINED);
    let known: HashMap<&str, usize> = (0..tokens.len()).filter(ordinary).map(|id| (tokens[id].as_str(), id)).collect();
    let mut order: Vec<usize> =
        (0..tokens.len()).filter(|id| types[*id] == token_type::NORMAL && tokens[*id].len() <= LONGEST).collect();
    order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let pairs = |id: usize| {
        let splits = tokens[id].char_indices().skip(1).map(move |(at, _)| tokens[id].split_at(at));
        splits.filter(|(left, right)| known.contains_key(left) && known.contains_key(right))
    };
    order.into_iter().flat_map(pairs).map(|(left, right)| [left.to_string(), right.to_string()]).collect()
}
