//! A tokenizer as `tokenizer.json` and `tokenizer_config.json`.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::pre::PreTokenizer;
use super::sentence_piece::SentencePiece;
use super::token_type;
use crate::CheckpointError;
use crate::gguf::{Metadata, Value as Stored};

/// Returns the `tokenizer.json` of a tokenizer, for the `tokenizers` crate: byte-level BPE, or SentencePiece.
///
/// Control and user-defined tokens become added tokens, the former of them special. Merges of byte-level tokens that do
/// not exist are left out: llama.cpp ignores them, `tokenizers` does not accept them. Those of SentencePiece are found
/// by the scores of its tokens.
///
/// # Errors
///
/// [`CheckpointError::Missing`] for a file without a tokenizer, [`CheckpointError::Unknown`] for a model other than
/// `gpt2` and `llama` or a pre-tokenizer that is not known, [`CheckpointError::Value`] for values of other types,
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
    let is_byte_level = match metadata.text("tokenizer.ggml.model")? {
        "gpt2" => true,
        "llama" => false,
        other => {
            let known = "gpt2: byte-level BPE; llama: SentencePiece";
            return Err(CheckpointError::Unknown { what: "tokenizer.ggml.model".into(), found: other.into(), known });
        }
    };
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
    let adds = metadata.optional("tokenizer.ggml.add_bos_token", "a boolean", Stored::as_bool)?;
    let first = match adds.unwrap_or(!is_byte_level) {
        true => metadata.find_count("tokenizer.ggml.bos_token_id")?.and_then(|id| Some((id, tokens.get(id)?))),
        false => None,
    };
    let mut json = json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added});
    let parts = match is_byte_level {
        true => byte_level(metadata, tokens, vocabulary.into(), first)?,
        false => {
            let SentencePiece { normalizer, decoder, model } =
                SentencePiece::of(metadata, tokens, &types, vocabulary.into())?;
            let post_processor = first.map(put_before);
            json!({
                "normalizer": normalizer, "pre_tokenizer": null, "post_processor": post_processor, "decoder": decoder,
                "model": model,
            })
        }
    };
    if let (Some(json), Value::Object(parts)) = (json.as_object_mut(), parts) {
        json.extend(parts);
    }
    Ok(json)
}

/// Returns what is special about byte-level BPE.
fn byte_level(
    metadata: &Metadata,
    tokens: &[String],
    vocabulary: Value,
    first: Option<(usize, &String)>,
) -> Result<Value, CheckpointError> {
    let pre = metadata.optional("tokenizer.ggml.pre", "a text", Stored::as_str)?.unwrap_or("default");
    let pre = PreTokenizer::of_name(pre)?;
    let processor = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true});
    let processor = match first {
        Some(first) => json!({"type": "Sequence", "processors": [processor, put_before(first)]}),
        None => processor,
    };
    Ok(json!({
        "normalizer": pre.normalizer(),
        "pre_tokenizer": pre.json(),
        "post_processor": processor,
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

/// Returns the post-processor that puts a token before a text.
fn put_before((id, token): (usize, &String)) -> Value {
    let special = |kind: u8| json!({"SpecialToken": {"id": token, "type_id": kind}});
    let sequence = |text: &str, kind: u8| json!({"Sequence": {"id": text, "type_id": kind}});
    json!({
        "type": "TemplateProcessing",
        "single": [special(0), sequence("A", 0)],
        "pair": [special(0), sequence("A", 0), special(1), sequence("B", 1)],
        "special_tokens": {token.as_str(): {"id": token, "ids": [id], "tokens": [token]}},
    })
}
