//! Tokenizers, from `tokenizer.json` and back.

use burn_quant_checkpoint::CheckpointError;
use burn_quant_checkpoint::gguf::{
    GgufModel, GgufModelWriter, Metadata, ModelSource, Value, tokenizer_config_json, tokenizer_json,
};
use serde_json::json;

use super::{data, reference};

const LLAMA_3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}|",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

fn config(vocabulary: usize) -> serde_json::Value {
    json!({
        "model_type": "llama", "hidden_size": 64, "intermediate_size": 32, "num_attention_heads": 4,
        "num_hidden_layers": 1, "max_position_embeddings": 128, "vocab_size": vocabulary, "bos_token_id": 0,
        "eos_token_id": [3, 0],
    })
}

/// A byte-level tokenizer of four tokens and one merge.
fn byte_level(pre_tokenizer: serde_json::Value) -> serde_json::Value {
    json!({
        "added_tokens": [
            {"id": 0, "content": "<s>", "special": true}, {"id": 4, "content": "<tool>", "special": false},
        ],
        "pre_tokenizer": pre_tokenizer,
        "post_processor": {"type": "Sequence", "processors": [{"type": "ByteLevel"}, {
            "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}],
        }]},
        "model": {"type": "BPE", "vocab": {"<s>": 0, "Ġ": 1, "a": 2, "Ġa": 3}, "merges": [["Ġ", "a"]]},
    })
}

/// Metadata of a model with a tokenizer.
fn metadata(source: ModelSource<'_>) -> Result<Metadata, CheckpointError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.gguf");
    GgufModelWriter::create(&path, &source, &[])?.finish()?;
    Ok(GgufModel::open(&path)?.gguf().metadata().clone())
}

fn digits() -> serde_json::Value {
    json!({"type": "Sequence", "pretokenizers": [
        {"type": "Digits", "individual_digits": true},
        {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
    ]})
}

#[test]
fn tokens_have_types_and_the_first_one_is_known() {
    let (config, tokenizer) = (config(6), byte_level(digits()));
    let metadata = metadata(ModelSource { tokenizer: Some(&tokenizer), ..ModelSource::new("m", &config) }).unwrap();
    let get = |key: &str| metadata.get(&format!("tokenizer.ggml.{key}"));
    assert_eq!(get("model").unwrap().as_str(), Some("gpt2"));
    assert_eq!(get("pre").unwrap().as_str(), Some("smollm"));
    assert_eq!(get("tokens").unwrap().as_strings().unwrap(), ["<s>", "Ġ", "a", "Ġa", "<tool>", "[PAD5]"]);
    assert_eq!(get("token_type").unwrap().as_integers().unwrap(), [3, 1, 1, 1, 4, 5]);
    assert_eq!(get("merges").unwrap().as_strings().unwrap(), ["Ġ a"]);
    assert_eq!((get("bos_token_id"), get("eos_token_id")), (Some(&Value::U32(0)), Some(&Value::U32(3))));
    assert_eq!(get("add_bos_token"), Some(&Value::Bool(true))); // by the post-processor
    assert_eq!((get("padding_token_id"), get("unknown_token_id")), (None, None));
}

#[test]
fn a_configuration_of_the_tokenizer_names_tokens_and_the_template() {
    let (config, tokenizer) = (config(6), byte_level(digits()));
    let names = json!({
        "bos_token": {"content": "a"}, "pad_token": "<s>", "unk_token": "<s>", "add_bos_token": false,
        "chat_template": "{{ messages }}",
    });
    let source = ModelSource {
        tokenizer: Some(&tokenizer),
        tokenizer_config: Some(&names),
        pre_tokenizer: Some("refact"),
        ..ModelSource::new("m", &config)
    };
    let metadata = metadata(source).unwrap();
    for (key, value) in [
        ("tokenizer.ggml.bos_token_id", Value::U32(2)),
        ("tokenizer.ggml.padding_token_id", Value::U32(0)),
        ("tokenizer.ggml.unknown_token_id", Value::U32(0)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
        ("tokenizer.ggml.pre", Value::String("refact".into())),
        ("tokenizer.chat_template", Value::String("{{ messages }}".into())),
    ] {
        assert_eq!(metadata.get(key), Some(&value), "{key}");
    }
    let expected = json!({
        "add_bos_token": false, "bos_token": "a", "eos_token": "Ġa", "pad_token": "<s>", "unk_token": "<s>",
        "chat_template": "{{ messages }}",
    });
    assert_eq!(tokenizer_config_json(&metadata).unwrap(), expected);
}

#[test]
fn pre_tokenizers_are_recognised_and_come_back() {
    let split = |regex: &str| {
        json!({"type": "Sequence", "pretokenizers": [
            {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false},
            {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false},
        ]})
    };
    let gpt2 = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    for (json, name) in [
        (gpt2, "gpt-2"),
        (digits(), "smollm"),
        (split(LLAMA_3), "llama-bpe"),
        (split(&LLAMA_3.replace("{1,3}", "")), "qwen2"),
    ] {
        let (config, tokenizer) = (config(5), byte_level(json.clone()));
        let metadata = metadata(ModelSource { tokenizer: Some(&tokenizer), ..ModelSource::new("m", &config) }).unwrap();
        assert_eq!(metadata.text("tokenizer.ggml.pre").unwrap(), name);
        assert_eq!(tokenizer_json(&metadata).unwrap()["pre_tokenizer"], json, "{name}");
    }
    let (config, tokenizer) = (config(5), byte_level(split("[0-9]")));
    let error = metadata(ModelSource { tokenizer: Some(&tokenizer), ..ModelSource::new("m", &config) }).unwrap_err();
    assert!(matches!(error, CheckpointError::Unknown { what, .. } if what == "pre_tokenizer"));
}

#[test]
fn a_byte_level_tokenizer_comes_back() {
    let (config, tokenizer) = (config(5), byte_level(digits()));
    let metadata = metadata(ModelSource { tokenizer: Some(&tokenizer), ..ModelSource::new("m", &config) }).unwrap();
    let back = tokenizer_json(&metadata).unwrap();
    assert_eq!(back["model"]["vocab"], json!({"<s>": 0, "Ġ": 1, "a": 2, "Ġa": 3, "<tool>": 4}));
    assert_eq!(back["model"]["merges"], json!(["Ġ a"]));
    let added = back["added_tokens"].as_array().unwrap();
    let added: Vec<_> = added.iter().map(|token| (&token["content"], &token["special"])).collect();
    assert_eq!(added, [(&json!("<s>"), &json!(true)), (&json!("<tool>"), &json!(false))]);
    let template = &back["post_processor"]["processors"][1];
    assert_eq!(template["single"][0]["SpecialToken"]["id"], json!("<s>"));
    assert_eq!(template["special_tokens"]["<s>"]["ids"], json!([0]));
}

#[test]
fn the_tokenizer_of_the_reference_comes_back_without_the_merge_that_only_llama_cpp_needs() {
    let back = GgufModel::open(reference("F32")).unwrap().tokenizer().unwrap();
    let text = std::fs::read_to_string(data("llama/tokenizer.json")).unwrap();
    let tokenizer: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(back["model"]["vocab"], tokenizer["model"]["vocab"]);
    assert_eq!(back["model"]["merges"], json!([]));
    assert_eq!(back["added_tokens"], json!([]));
}

#[test]
fn a_tokenizer_with_bytes_for_unknown_characters_has_scores() {
    let config = config(7);
    let tokenizer = json!({
        "added_tokens": [{"id": 1, "content": "<s>", "special": true}, {"id": 0, "content": "<unk>", "special": true}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}]},
        "model": {
            "type": "BPE", "byte_fallback": true, "unk_token": "<unk>",
            "vocab": {"<unk>": 0, "<s>": 1, "<0x0A>": 2, "▁": 3, "a": 4, "aa": 5, "▁a": 6},
            "merges": ["▁ a", "a a"],
        },
    });
    let metadata = metadata(ModelSource { tokenizer: Some(&tokenizer), ..ModelSource::new("m", &config) }).unwrap();
    let get = |key: &str| metadata.get(&format!("tokenizer.ggml.{key}")).unwrap();
    assert_eq!(get("model").as_str(), Some("llama"));
    assert_eq!(get("token_type").as_integers().unwrap(), [2, 3, 6, 1, 1, 1, 1]);
    assert_eq!(get("scores"), &Value::from(vec![0.0, 0.0, 0.0, 0.0, 0.0, -2.0, -1.0])); // the first merge wins
    assert_eq!(get("add_space_prefix"), &Value::Bool(true));
    // and back, by the scores
    let back = tokenizer_json(&metadata).unwrap();
    assert_eq!(back["model"]["vocab"], tokenizer["model"]["vocab"]);
    assert_eq!(back["model"]["merges"], json!([["▁", "a"], ["a", "a"]]));
    assert_eq!((&back["model"]["unk_token"], &back["model"]["byte_fallback"]), (&json!("<unk>"), &json!(true)));
    assert_eq!(back["normalizer"]["normalizers"][0], json!({"type": "Prepend", "prepend": "▁"}));
}

#[test]
fn scores_that_are_missing_or_too_few_are_errors() {
    let text = |text: &str| text.to_string();
    let mut metadata = Metadata::new();
    metadata.set("tokenizer.ggml.model", "llama");
    metadata.set("tokenizer.ggml.tokens", vec![text("a"), text("b"), text("ab")]);
    let missing = tokenizer_json(&metadata).unwrap_err();
    assert!(matches!(missing, CheckpointError::Missing { name, .. } if name == "tokenizer.ggml.scores"));
    metadata.set("tokenizer.ggml.scores", vec![0.0, 1.0]);
    assert!(matches!(tokenizer_json(&metadata), Err(CheckpointError::Contradiction { .. })));
    metadata.set("tokenizer.ggml.scores", vec![0.0, f32::NAN, 1.0]);
    assert_eq!(tokenizer_json(&metadata).unwrap()["model"]["merges"], json!([["a", "b"]]));
    metadata.set("tokenizer.ggml.model", "bert");
    assert!(matches!(tokenizer_json(&metadata), Err(CheckpointError::Unknown { found, .. }) if found == "bert"));
}

#[test]
fn more_tokens_than_the_model_has_are_a_contradiction() {
    let (config, tokenizer) = (config(4), byte_level(digits())); // `<tool>` is the fifth
    let error = metadata(ModelSource { tokenizer: Some(&tokenizer), ..ModelSource::new("m", &config) }).unwrap_err();
    assert!(matches!(error, CheckpointError::Contradiction { .. }), "{error:?}");
}
