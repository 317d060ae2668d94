//! `tokenizer.json` as metadata.
//!
//! Source: `get_vocab_base` of llama.cpp's `convert_hf_to_gguf.py`, `SpecialVocab` of gguf-python 0.19.0.

use std::collections::HashMap;

use serde_json::Value;

use super::pre::PreTokenizer;
use super::{BYTE_LEVEL_SPACE, token_type};
use crate::CheckpointError;
use crate::gguf::{Metadata, ModelSource};

/// The most tokens of a vocabulary.
const MOST_TOKENS: usize = 1 << 24;

/// Adds the tokenizer of a model to its metadata.
///
/// # Errors
///
/// [`CheckpointError::Unknown`] for a model or pre-tokenizer that is not known, [`CheckpointError::Value`] for a token
/// that is not as expected, [`CheckpointError::Contradiction`] for more tokens than the model has.
pub(in super::super) fn set_tokenizer(
    metadata: &mut Metadata,
    source: &ModelSource<'_>,
    tokenizer: &Value,
) -> Result<(), CheckpointError> {
    let model = &tokenizer["model"];
    if model["type"] != "BPE" {
        let (what, found) = ("model.type".into(), model["type"].to_string());
        return Err(CheckpointError::Unknown { what, found, known: "BPE" });
    }
    let is_byte_level = model["byte_fallback"] != Value::Bool(true);
    let tokens = Tokens::new(tokenizer, source.config, is_byte_level)?;
    let merges = merges(model)?;
    metadata.set("tokenizer.ggml.model", if is_byte_level { "gpt2" } else { "llama" });
    let pre = match (source.pre_tokenizer, is_byte_level) {
        (Some(pre), _) => pre,
        (None, true) => PreTokenizer::recognise(&tokenizer["pre_tokenizer"], !merges.is_empty())?,
        (None, false) => "default",
    };
    metadata.set("tokenizer.ggml.pre", pre);
    metadata.set("tokenizer.ggml.tokens", tokens.texts.clone());
    if is_byte_level {
        metadata.set("tokenizer.ggml.token_type", tokens.types.clone());
        // llama.cpp refuses files without merges; this one is of a token that does not exist, or should
        let none = vec![format!("{BYTE_LEVEL_SPACE} {BYTE_LEVEL_SPACE}")];
        let joined = merges.iter().map(|[a, b]| format!("{a} {b}")).collect();
        metadata.set("tokenizer.ggml.merges", if merges.is_empty() { none } else { joined });
    } else {
        metadata.set("tokenizer.ggml.scores", tokens.scores(&merges));
        metadata.set("tokenizer.ggml.token_type", tokens.types.clone());
    }
    set_special(metadata, source, tokenizer, &tokens);
    if !is_byte_level {
        metadata.set("tokenizer.ggml.add_space_prefix", adds_space(tokenizer));
    }
    let template = source.tokenizer_config.and_then(|config| config["chat_template"].as_str());
    if let Some(template) = source.chat_template.or(template) {
        metadata.set("tokenizer.chat_template", template);
    }
    Ok(())
}

/// Tokens by identifier.
struct Tokens {
    texts: Vec<String>,
    types: Vec<i32>,
    ids: HashMap<String, usize>,
}

impl Tokens {
    fn new(tokenizer: &Value, config: &Value, is_byte_level: bool) -> Result<Self, CheckpointError> {
        let vocabulary =
            tokenizer["model"]["vocab"].as_object().ok_or_else(|| wrong("model.vocab", "an object", ""))?;
        let mut ids = HashMap::new();
        for (text, id) in vocabulary {
            let id = id
                .as_u64()
                .filter(|id| *id < MOST_TOKENS as u64)
                .ok_or_else(|| wrong("model.vocab", "numbers", text))?;
            ids.insert(text.clone(), (id as usize, token_type::NORMAL));
        }
        for added in tokenizer["added_tokens"].as_array().map_or(&[][..], |added| added) {
            let text = added["content"].as_str().ok_or_else(|| wrong("added_tokens", "texts", &added.to_string()))?;
            let id = added["id"].as_u64().filter(|id| *id < MOST_TOKENS as u64);
            let id = id.ok_or_else(|| wrong("added_tokens", "numbers", text))?;
            let is_control = added["special"] == Value::Bool(true) || looks_special(text);
            let kind = if is_control { token_type::CONTROL } else { token_type::USER_DEFINED };
            ids.insert(text.into(), (id as usize, kind));
        }
        let len = ids.values().map(|(id, _)| id + 1).max().unwrap_or(0);
        let wanted = config["vocab_size"].as_u64().map_or(len, |size| (size as usize).min(MOST_TOKENS));
        if len > wanted {
            return Err(CheckpointError::Contradiction {
                name: "tokenizer.json".into(),
                one: format!("has {len} tokens"),
                other: format!("`vocab_size` is {wanted}"),
            });
        }
        let mut texts: Vec<String> = (0..wanted).map(|id| format!("[PAD{id}]")).collect();
        let mut types = vec![token_type::UNUSED; wanted];
        let unknown = tokenizer["model"]["unk_token"].as_str();
        for (text, (id, kind)) in &ids {
            texts[*id].clone_from(text);
            types[*id] = match kind {
                _ if !is_byte_level && is_byte(text) => token_type::BYTE,
                _ if !is_byte_level && unknown == Some(text) => token_type::UNKNOWN,
                kind => *kind,
            };
        }
        Ok(Self { texts, types, ids: ids.into_iter().map(|(text, (id, _))| (text, id)).collect() })
    }

    /// Returns scores by which tokens are merged: minus the rank of the merge that makes them, else zero.
    ///
    /// Our choice: `tokenizer.json` has no scores, and its merges are in the order of those that it was made from.
    fn scores(&self, merges: &[[String; 2]]) -> Vec<f32> {
        let mut scores = vec![0.0; self.texts.len()];
        for (rank, [a, b]) in merges.iter().enumerate().rev() {
            if let Some(id) = self.ids.get(&format!("{a}{b}")) {
                scores[*id] = -(rank as f32 + 1.0);
            }
        }
        scores
    }
}

/// Returns pairs of merges, which files have as pairs or as texts with a space between.
fn merges(model: &Value) -> Result<Vec<[String; 2]>, CheckpointError> {
    let merges = model["merges"].as_array().map_or(&[][..], |merges| merges);
    let pair = |merge: &Value| {
        let (a, b) = match merge {
            Value::String(text) => text.split_once(' ')?,
            pair => (pair[0].as_str()?, pair[1].as_str()?),
        };
        // a space in a token would end it: tokens of byte-level BPE have another character for it
        let whole = |text: &str| text.replace(' ', &BYTE_LEVEL_SPACE.to_string());
        Some([whole(a), whole(b)])
    };
    merges.iter().map(|merge| pair(merge).ok_or_else(|| wrong("model.merges", "pairs", &merge.to_string()))).collect()
}

/// Adds identifiers of special tokens, and whether the first one is put before a text.
fn set_special(metadata: &mut Metadata, source: &ModelSource<'_>, tokenizer: &Value, tokens: &Tokens) {
    let named = |key: &str| {
        let token = &source.tokenizer_config?[key];
        tokens.ids.get(token.as_str().or_else(|| token["content"].as_str())?).copied()
    };
    let configured = |key: &str| {
        let id = &source.config[key];
        id.as_u64().or_else(|| id[0].as_u64()).map(|id| id as usize).filter(|id| *id < tokens.texts.len())
    };
    let bos = named("bos_token").or_else(|| configured("bos_token_id"));
    let eos = named("eos_token").or_else(|| configured("eos_token_id"));
    let model_unknown = tokenizer["model"]["unk_token"].as_str().and_then(|text| tokens.ids.get(text).copied());
    let unknown = named("unk_token").or(model_unknown);
    // llama.cpp does not print padding, so that an ordinary token cannot be it
    let is_hidden = |id: &usize| tokens.types[*id] != token_type::NORMAL;
    let padding = named("pad_token").or_else(|| configured("pad_token_id")).filter(is_hidden);
    for (key, id) in [("bos", bos), ("eos", eos), ("unknown", unknown), ("padding", padding)] {
        if let Some(id) = id {
            metadata.set(format!("tokenizer.ggml.{key}_token_id"), id as u32);
        }
    }
    let adds_bos = match source.tokenizer_config.and_then(|config| config["add_bos_token"].as_bool()) {
        Some(adds) => adds,
        None => bos.is_some_and(|bos| begins_with(&tokenizer["post_processor"], &tokens.texts[bos])),
    };
    metadata.set("tokenizer.ggml.add_bos_token", adds_bos);
}

/// Returns whether a post-processor puts a token before a text.
fn begins_with(processor: &Value, token: &str) -> bool {
    if let Some(steps) = processor["processors"].as_array() {
        return steps.iter().any(|step| step["type"] == "TemplateProcessing" && begins_with(step, token));
    }
    processor["single"][0]["SpecialToken"]["id"] == token
}

/// Returns whether a space is put before a text.
fn adds_space(tokenizer: &Value) -> bool {
    let normalizer = &tokenizer["normalizer"];
    let steps = normalizer["normalizers"].as_array().map_or(std::slice::from_ref(normalizer), |steps| steps);
    let pre = &tokenizer["pre_tokenizer"];
    steps.iter().any(|step| step["type"] == "Prepend")
        || pre["type"] == "Metaspace" && pre["prepend_scheme"].as_str().is_some_and(|scheme| scheme != "never")
}

/// Returns whether a token is a control token by its looks, as converters take it.
fn looks_special(text: &str) -> bool {
    matches!(text, "<pad>" | "<mask>" | "<2mass>" | "[@BOS@]")
        || text.starts_with("<|") && text.ends_with("|>")
        || text.starts_with("<｜") && text.ends_with("｜>")
        || text.starts_with("<unused")
}

/// Returns whether a token stands for a byte: `<0x0A>`.
fn is_byte(text: &str) -> bool {
    let digits = text.strip_prefix("<0x").and_then(|rest| rest.strip_suffix('>'));
    digits.is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

fn wrong(key: &str, expected: &'static str, found: &str) -> CheckpointError {
    CheckpointError::Value { key: format!("{key} of tokenizer.json"), expected, found: found.into() }
}
