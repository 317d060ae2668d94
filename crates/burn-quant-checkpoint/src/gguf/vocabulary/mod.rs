//! Tokenizers: `tokenizer.json` as metadata, and back.
//!
//! * `pre` pre-tokenizers, which GGUF has by name
//! * `write` `tokenizer.json` as `tokenizer.ggml.*`
//! * `read` a tokenizer as `tokenizer.json`, `sentence_piece` what is special about one with scores
//!
//! | `tokenizer.ggml.model` | tokenizer | written | read back |
//! |---|---|---|---|
//! | `gpt2` | byte-level BPE, with merges | yes | yes |
//! | `llama` | BPE with bytes for unknown characters, with scores | yes | yes |

mod pre;
mod read;
mod sentence_piece;
mod write;

pub use read::{tokenizer_config_json, tokenizer_json};
pub(super) use write::set_tokenizer;

/// Types of tokens, as in `llama_token_type`.
mod token_type {
    pub(super) const NORMAL: i32 = 1;
    pub(super) const UNKNOWN: i32 = 2;
    pub(super) const CONTROL: i32 = 3;
    pub(super) const USER_DEFINED: i32 = 4;
    pub(super) const UNUSED: i32 = 5;
    pub(super) const BYTE: i32 = 6;
}

/// How a space looks in tokens of byte-level BPE.
const BYTE_LEVEL_SPACE: char = 'Ġ';
