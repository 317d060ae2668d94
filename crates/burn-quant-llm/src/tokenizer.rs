//! From text to tokens and back.

use std::path::Path;

use burn_quant_checkpoint::gguf::GgufModel;
use burn_quant_checkpoint::{CheckpointError, Folder};
use serde_json::Value;

use crate::LlmError;

/// The tokenizer of a Hugging Face folder: its `tokenizer.json`, and the tokens that end a text.
///
/// # Example
///
/// ```no_run
/// use burn_quant_checkpoint::Folder;
/// use burn_quant_llm::Tokenizer;
///
/// let tokenizer = Tokenizer::of_folder(&Folder::open("SmolLM2-135M")?)?;
/// let tokens = tokenizer.encode("Quantization is")?;
/// assert_eq!(tokenizer.decode(&tokens)?, "Quantization is");
/// # Ok::<(), burn_quant_llm::LlmError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    end_tokens: Vec<u32>,
}

impl Tokenizer {
    /// Reads the tokenizer of a folder.
    ///
    /// The tokens that end a text are those of `generation_config.json`, or else of `config.json`, or else the
    /// `eos_token` of `tokenizer_config.json`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`] if the folder has no `tokenizer.json`, [`LlmError::Tokenizer`] if the file is not what
    /// it should be.
    pub fn of_folder(folder: &Folder) -> Result<Self, LlmError> {
        Self::of_path(folder.path())
    }

    /// Reads the tokenizer of a folder that need not have weights, as [`Tokenizer::of_folder`] does.
    ///
    /// # Errors
    ///
    /// Those of [`Tokenizer::of_folder`].
    pub fn of_path(folder: impl AsRef<Path>) -> Result<Self, LlmError> {
        let folder = folder.as_ref();
        let path = folder.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|source| CheckpointError::Io { path, source })?;
        let inner = tokenizers::Tokenizer::from_bytes(bytes).map_err(failed)?;
        let mut end_tokens = Vec::new();
        for file in ["generation_config.json", "config.json"] {
            if end_tokens.is_empty() {
                end_tokens = ids(&json(folder, file)?["eos_token_id"]);
            }
        }
        if end_tokens.is_empty() {
            let config = json(folder, "tokenizer_config.json")?;
            end_tokens.extend(content(&config["eos_token"]).and_then(|token| inner.token_to_id(token)));
        }
        Ok(Self { inner, end_tokens })
    }

    /// Reads the tokenizer that a GGUF file holds.
    ///
    /// The token that ends a text is the file's `tokenizer.ggml.eos_token_id`.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`] if the file has no tokenizer, or one of a kind that is not known.
    pub fn of_gguf(gguf: &GgufModel) -> Result<Self, LlmError> {
        let tokenizer = Self::from_json(&gguf.tokenizer()?)?;
        let end = gguf.gguf().metadata().find_count("tokenizer.ggml.eos_token_id")?;
        Ok(tokenizer.with_end_tokens(end.and_then(|id| u32::try_from(id).ok())))
    }

    /// Creates a tokenizer from the content of a `tokenizer.json`.
    ///
    /// No token ends a text; see [`Tokenizer::with_end_tokens`].
    ///
    /// # Errors
    ///
    /// [`LlmError::Tokenizer`] if it is not one.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant_llm::Tokenizer;
    ///
    /// let tokenizer = Tokenizer::from_json(&serde_json::json!({
    ///     "model": {"type": "WordLevel", "vocab": {"four": 0, "bits": 1}, "unk_token": "bits"},
    ///     "pre_tokenizer": {"type": "Whitespace"},
    /// }))?;
    /// assert_eq!(tokenizer.encode("four bits")?, [0, 1]);
    /// # Ok::<(), burn_quant_llm::LlmError>(())
    /// ```
    pub fn from_json(json: &Value) -> Result<Self, LlmError> {
        let inner = json.to_string().parse().map_err(failed)?;
        Ok(Self { inner, end_tokens: Vec::new() })
    }

    /// Sets the tokens that end a text.
    ///
    /// Replaces those of the folder.
    pub fn with_end_tokens(mut self, tokens: impl IntoIterator<Item = u32>) -> Self {
        self.end_tokens = tokens.into_iter().collect();
        self
    }

    /// Returns the tokens of a text, without those that models expect around one.
    ///
    /// Special tokens that the text spells out, as chat templates do, are single tokens.
    ///
    /// # Errors
    ///
    /// [`LlmError::Tokenizer`] if the text has a word that the vocabulary has no token for.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, LlmError> {
        self.encoded(text, SpecialTokens::Omitted)
    }

    /// Returns the tokens of a text, with those that the model expects around one: often a token that begins it.
    ///
    /// # Errors
    ///
    /// Those of [`Tokenizer::encode`].
    pub fn encode_with_special_tokens(&self, text: &str) -> Result<Vec<u32>, LlmError> {
        self.encoded(text, SpecialTokens::Added)
    }

    fn encoded(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, LlmError> {
        // `encode_fast` counts no offsets, which nobody reads
        let encoding = self.inner.encode_fast(text, special == SpecialTokens::Added).map_err(failed)?;
        Ok(encoding.get_ids().to_vec())
    }

    /// Returns the text of tokens, without special ones.
    ///
    /// Bytes that are no UTF-8 become `�`. To decode tokens one by one, see [`Tokenizer::stream`].
    ///
    /// # Errors
    ///
    /// [`LlmError::Tokenizer`] if the decoder fails.
    pub fn decode(&self, tokens: &[u32]) -> Result<String, LlmError> {
        self.inner.decode(tokens, true).map_err(failed)
    }

    /// Returns a decoder of tokens that come one by one.
    ///
    /// A character of many bytes may take many tokens: it appears with the last of them.
    pub fn stream(&self) -> TextStream<'_> {
        TextStream { tokenizer: self, tokens: Vec::new(), shown: 0, first: 0 }
    }

    /// Returns the number of a token.
    ///
    /// `None` if the vocabulary has no such token.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// Returns the tokens that end a text.
    ///
    /// None if the folder names none.
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// Returns the number of tokens, added ones among them.
    ///
    /// A model may have more, so that its table has a round number of rows.
    pub fn vocabulary(&self) -> usize {
        self.inner.get_vocab_size(true)
    }
}

#[derive(PartialEq)]
enum SpecialTokens {
    Added,
    Omitted,
}

/// Text of tokens that come one by one.
///
/// # Example
///
/// ```
/// use burn_quant_llm::Tokenizer;
///
/// # let tokenizer = Tokenizer::from_json(&serde_json::json!({
/// #     "model": {"type": "BPE", "vocab": {"Ã": 0, "¤": 1}, "merges": []},
/// #     "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
/// # }))?;
/// let mut text = tokenizer.stream(); // of a vocabulary of bytes, where "ä" is two tokens
/// assert_eq!(text.push(0)?, "");
/// assert_eq!(text.push(1)?, "ä");
/// # Ok::<(), burn_quant_llm::LlmError>(())
/// ```
#[derive(Clone, Debug)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    tokens: Vec<u32>,
    /// Tokens before this one are shown.
    shown: usize,
    /// Where decoding begins: far enough back that spaces between words are seen.
    first: usize,
}

impl TextStream<'_> {
    /// Adds a token and returns the text that it completes.
    ///
    /// Empty while a character is incomplete.
    ///
    /// # Errors
    ///
    /// [`LlmError::Tokenizer`] if the decoder fails.
    pub fn push(&mut self, token: u32) -> Result<String, LlmError> {
        self.tokens.push(token);
        let before = self.tokenizer.decode(&self.tokens[self.first..self.shown])?;
        let text = self.tokenizer.decode(&self.tokens[self.first..])?;
        if text.ends_with(char::REPLACEMENT_CHARACTER) {
            return Ok(String::new());
        }
        self.first = self.shown;
        self.shown = self.tokens.len();
        Ok(text.strip_prefix(before.as_str()).unwrap_or(&text).to_string())
    }

    /// Ends the text and returns what is left of it: `�` for a character that is incomplete.
    ///
    /// # Errors
    ///
    /// [`LlmError::Tokenizer`] if the decoder fails.
    pub fn finish(self) -> Result<String, LlmError> {
        let before = self.tokenizer.decode(&self.tokens[self.first..self.shown])?;
        let text = self.tokenizer.decode(&self.tokens[self.first..])?;
        Ok(text.strip_prefix(before.as_str()).unwrap_or_default().to_string())
    }
}

/// The text of a token as configurations have it: itself, or the `content` of an object.
pub(crate) fn content(token: &Value) -> Option<&str> {
    token.as_str().or_else(|| token["content"].as_str())
}

/// A JSON file of a folder; null if there is none.
pub(crate) fn json(folder: &Path, file: &str) -> Result<Value, LlmError> {
    let path = folder.join(file);
    match std::fs::read(&path) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes)
            .map_err(|e| CheckpointError::Json { file: file.into(), source: e.into() })?),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Value::Null),
        Err(source) => Err(CheckpointError::Io { path, source }.into()),
    }
}

/// One number or many.
fn ids(value: &Value) -> Vec<u32> {
    let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    values.iter().filter_map(Value::as_u64).filter_map(|id| u32::try_from(id).ok()).collect()
}

fn failed(source: Box<dyn std::error::Error + Send + Sync>) -> LlmError {
    LlmError::Tokenizer { source }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A vocabulary of the bytes of some letters and of "€", and one special token.
    fn tokenizer() -> Tokenizer {
        Tokenizer::from_json(&serde_json::json!({
            "added_tokens": [{
                "id": 6, "content": "<|end|>", "special": true,
                "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            }],
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [{"SpecialToken": {"id": "<|end|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
                "special_tokens": {"<|end|>": {"id": "<|end|>", "ids": [6], "tokens": ["<|end|>"]}},
            },
            "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "Ġ": 2, "â": 3, "Ĥ": 4, "¬": 5}, "merges": []},
        }))
        .unwrap()
    }

    #[test]
    fn neighbours_with_the_highest_score_are_joined_first() {
        use burn_quant_checkpoint::gguf::{Metadata, tokenizer_json};

        let texts = ["<unk>", "<s>", "</s>", "<0xE2>", "<0x82>", "<0xAC>", "▁", "a", "b", "▁a", "ab", "▁ab"];
        let mut metadata = Metadata::new();
        metadata.set("tokenizer.ggml.model", "llama");
        metadata.set("tokenizer.ggml.tokens", texts.map(String::from).to_vec());
        metadata.set("tokenizer.ggml.token_type", vec![2, 3, 3, 6, 6, 6, 1, 1, 1, 1, 1, 1]);
        metadata.set("tokenizer.ggml.scores", [&[0.0; 9][..], &[-2.0, -1.0, -3.0]].concat());
        metadata.set("tokenizer.ggml.bos_token_id", 1u32);
        let tokenizer = Tokenizer::from_json(&tokenizer_json(&metadata).unwrap()).unwrap();
        assert_eq!(tokenizer.encode("ab").unwrap(), [11], "`ab`, then `▁ab`");
        assert_eq!(tokenizer.encode("aab").unwrap(), [9, 10], "`ab`, then `▁a`");
        assert_eq!(tokenizer.encode("a €").unwrap(), [9, 6, 3, 4, 5], "no token has €: its bytes");
        assert_eq!(tokenizer.decode(&[9, 6, 3, 4, 5]).unwrap(), "a €");
        assert_eq!(tokenizer.encode_with_special_tokens("ab").unwrap(), [1, 11], "a file that says nothing begins so");
        metadata.set("tokenizer.ggml.add_bos_token", false);
        metadata.set("tokenizer.ggml.add_space_prefix", false);
        let tokenizer = Tokenizer::from_json(&tokenizer_json(&metadata).unwrap()).unwrap();
        assert_eq!(tokenizer.encode_with_special_tokens("ab").unwrap(), [10]);
        assert_eq!(tokenizer.decode(&[11]).unwrap(), " ab", "nothing was put before it");
    }

    #[test]
    fn special_tokens_are_added_on_request_and_left_out_of_texts() {
        let tokenizer = tokenizer();
        assert_eq!(tokenizer.encode("ab").unwrap(), [0, 1]);
        assert_eq!(tokenizer.encode_with_special_tokens("ab").unwrap(), [6, 0, 1]);
        assert_eq!(tokenizer.encode("a<|end|>").unwrap(), [0, 6], "one that is spelled out");
        assert_eq!(tokenizer.decode(&[6, 0, 1, 6]).unwrap(), "ab");
        assert_eq!((tokenizer.id("<|end|>"), tokenizer.id("no")), (Some(6), None));
        assert_eq!(tokenizer.vocabulary(), 7);
    }

    #[test]
    fn a_stream_shows_whole_characters_and_what_is_left_at_the_end() {
        let tokenizer = tokenizer();
        let mut stream = tokenizer.stream();
        let shown: Vec<String> = [0, 2, 3, 4, 5, 1, 3].into_iter().map(|token| stream.push(token).unwrap()).collect();
        assert_eq!(shown, ["a", " ", "", "", "€", "b", ""]);
        assert_eq!(stream.finish().unwrap(), "\u{fffd}");
    }

    #[test]
    fn what_is_no_tokenizer_is_an_error_with_its_cause() {
        let error = Tokenizer::from_json(&serde_json::json!({"model": 1})).unwrap_err();
        assert!(matches!(&error, LlmError::Tokenizer { source } if !source.to_string().is_empty()), "{error:?}");
    }

    #[test]
    fn ends_of_texts_are_one_number_or_many() {
        use serde_json::json;
        assert_eq!(ids(&json!(2)), [2]);
        assert_eq!(ids(&json!([151_645, 151_643])), [151_645, 151_643]);
        assert_eq!(ids(&json!(null)), [0u32; 0]);
    }
}
