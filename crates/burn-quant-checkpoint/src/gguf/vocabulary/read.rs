//! A byte-level tokenizer as `tokenizer.json` and `tokenizer_config.json`.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::pre::PreTokenizer;
use super::token_type;
use crate::CheckpointError;
use crate::gguf::{Metadata, Value as Stored};

/// Returns the `tokenizer.json` of a byte-level tokenizer, for the `tokenizers` crate.
///
/// Control and user-defined tokens become added tokens, the former of them special. Merges of tokens that do not exist
/// are left out: llama.cpp ignores them, `tokenizers` does not accept them.
///
/// # Errors
///
/// [`CheckpointError::Missing`] for a file without a tokenizer, [`CheckpointError::Unknown`] for a model other than
/// `gpt2` or a pre-tokenizer that is not known, [`CheckpointError::Value`] for values of other types,
/// [`CheckpointError::Twice`] for a token that is there twice.
///
/// # Example
///
/// ```
/// use burn_quant_checkpoint::gguf::{Metadata, tokenizer_json};
///
/// let text = |text: &str| text.to_string();
/// let mut metadata = Metadata::new();
/// metadata.set("tokenizer.ggml.model", "gpt2");
/// metadata.set("tokenizer.ggml.pre", "smollm");
/// metadata.set("tokenizer.ggml.tokens", vec![text("<|end|>"), text("a"), text("b"), text("ab")]);
/// metadata.set("tokenizer.ggml.token_type", vec![3, 1, 1, 1]);
/// metadata.set("tokenizer.ggml.merges", vec![text("a b")]);
/// let tokenizer = tokenizer_json(&metadata)?;
/// assert_eq!(tokenizer["model"]["vocab"]["ab"], 3);
/// assert_eq!(tokenizer["added_tokens"][0]["content"], "<|end|>");
/// assert_eq!(tokenizer["pre_tokenizer"]["pretokenizers"][0]["type"], "Digits");
/// # Ok::<(), burn_quant_checkpoint::CheckpointError>(())
/// ```
pub fn tokenizer_json(metadata: &Metadata) -> Result<Value, CheckpointError> {
    let model = metadata.text("tokenizer.ggml.model")?;
    if model != "gpt2" {
        let what = "tokenizer.ggml.model".into();
        return Err(CheckpointError::Unknown { what, found: model.into(), known: "gpt2: byte-level BPE" });
    }
    let pre = metadata.optional("tokenizer.ggml.pre", "a text", Stored::as_str)?.unwrap_or("default");
    let pre = PreTokenizer::of_name(pre)?;
    let tokens = metadata.required("tokenizer.ggml.tokens", "texts", Stored::as_strings)?;
    let types = metadata.optional("tokenizer.ggml.token_type", "integers", Stored::as_integers)?;
    let types = types.unwrap_or_else(|| vec![token_type::NORMAL; tokens.len()]);
    if types.len() != tokens.len() {
        return Err(CheckpointError::Contradiction {
            name: "tokenizer.ggml.token_type".into(),
            one: format!("has {} types", types.len()),
            other: format!("there are {} tokens", tokens.len()),
        });
    }
    let mut vocabulary = Map::new();
    for (id, token) in tokens.iter().enumerate() {
        if let Some(first) = vocabulary.insert(token.clone(), id.into()) {
            let (first, second) = (format!("token {first}"), format!("token {id}"));
            return Err(CheckpointError::Twice { name: token.clone(), first, second });
        }
    }
    let added: Vec<Value> = tokens.iter().zip(&types).enumerate().filter_map(added_token).collect();
    let first = match metadata.optional("tokenizer.ggml.add_bos_token", "a boolean", Stored::as_bool)? {
        Some(true) => metadata.find_count("tokenizer.ggml.bos_token_id")?.and_then(|id| Some((id, tokens.get(id)?))),
        _ => None,
    };
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": added,
        "normalizer": pre.normalizer(),
        "pre_tokenizer": pre.json(),
        "post_processor": post_processor(first),
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE",
            "dropout": null,
            "unk_token": null,
            "continuing_subword_prefix": null,
            "end_of_word_suffix": null,
            "fuse_unk": false,
            "byte_fallback": false,
            "ignore_merges": pre.ignores_merges(),
            "merges": merges(metadata, tokens)?,
            "vocab": vocabulary,
        },
    }))
}

/// Returns the `tokenizer_config.json` of a tokenizer: names of special tokens, and the chat template.
///
/// # Errors
///
/// [`CheckpointError::Missing`] for a file without a tokenizer, [`CheckpointError::Value`] for values of other types.
///
/// # Example
///
/// ```
/// use burn_quant_checkpoint::gguf::{Metadata, tokenizer_config_json};
///
/// let mut metadata = Metadata::new();
/// metadata.set("tokenizer.ggml.tokens", vec!["<s>".to_string(), "a".to_string()]);
/// metadata.set("tokenizer.ggml.bos_token_id", 0u32);
/// assert_eq!(tokenizer_config_json(&metadata)?["bos_token"], "<s>");
/// # Ok::<(), burn_quant_checkpoint::CheckpointError>(())
/// ```
pub fn tokenizer_config_json(metadata: &Metadata) -> Result<Value, CheckpointError> {
    let tokens = metadata.required("tokenizer.ggml.tokens", "texts", Stored::as_strings)?;
    let mut config = Map::new();
    if let Some(adds) = metadata.optional("tokenizer.ggml.add_bos_token", "a boolean", Stored::as_bool)? {
        config.insert("add_bos_token".into(), adds.into());
    }
    for (ours, theirs) in [("bos", "bos"), ("eos", "eos"), ("pad", "padding"), ("unk", "unknown")] {
        let id = metadata.find_count(&format!("tokenizer.ggml.{theirs}_token_id"))?;
        if let Some(token) = id.and_then(|id| tokens.get(id)) {
            config.insert(format!("{ours}_token"), token.as_str().into());
        }
    }
    if let Some(template) = metadata.optional("tokenizer.chat_template", "a text", Stored::as_str)? {
        config.insert("chat_template".into(), template.into());
    }
    Ok(Value::Object(config))
}

/// Returns an entry of `added_tokens` for a control or user-defined token.
fn added_token((id, (token, kind)): (usize, (&String, &i32))) -> Option<Value> {
    let is_special = *kind == token_type::CONTROL;
    (is_special || *kind == token_type::USER_DEFINED).then(|| {
        json!({
            "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": is_special,
        })
    })
}

/// Returns the merges whose tokens exist, as texts.
fn merges(metadata: &Metadata, tokens: &[String]) -> Result<Vec<Value>, CheckpointError> {
    let merges = metadata.required("tokenizer.ggml.merges", "texts", Stored::as_strings)?;
    let known: HashSet<&str> = tokens.iter().map(String::as_str).collect();
    let exists = |merge: &&String| {
        merge
            .split_once(' ')
            .is_some_and(|(a, b)| known.contains(a) && known.contains(b) && known.contains(format!("{a}{b}").as_str()))
    };
    Ok(merges.iter().filter(exists).map(|merge| merge.as_str().into()).collect())
}

/// Returns the post-processor: puts a token before a text, if there is one to be put there.
fn post_processor(first: Option<(usize, &String)>) -> Value {
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true});
    let Some((id, token)) = first else { return byte_level };
    let special = |kind: u8| json!({"SpecialToken": {"id": token, "type_id": kind}});
    let sequence = |text: &str, kind: u8| json!({"Sequence": {"id": text, "type_id": kind}});
    json!({"type": "Sequence", "processors": [byte_level, {
        "type": "TemplateProcessing",
        "single": [special(0), sequence("A", 0)],
        "pair": [special(0), sequence("A", 0), special(1), sequence("B", 1)],
        "special_tokens": {token.as_str(): {"id": token, "ids": [id], "tokens": [token]}},
    }]})
}
