//! What may be wrong with a language model.

use std::path::PathBuf;

use burn_quant::QuantError;
use burn_quant_checkpoint::CheckpointError;
use burn_quant_store::StoreError;

/// What is wrong with a language model, or with what it is told to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LlmError {
    /// A checkpoint that cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A model that cannot be quantized so.
    #[error(transparent)]
    Quantize(#[from] QuantError),
    /// An architecture that is not known.
    #[error("the architecture `{found}` is not known; known are {}", known.join(", "))]
    Architecture {
        /// Its name.
        found: String,
        /// Those that are known.
        known: Vec<&'static str>,
    },
    /// A setting of an architecture that is not supported.
    #[error("`{key}` is {found} in `config.json`; supported is {supported}")]
    Setting {
        /// The key.
        key: String,
        /// Its value.
        found: String,
        /// What is supported.
        supported: &'static str,
    },
    /// Tensors that the model has no place for.
    #[error("{} tensors have no place in the model, first `{}`", names.len(), names[0])]
    Unused {
        /// Their names.
        names: Vec<String>,
    },
    /// A tokenizer that cannot be read, or a text that it refuses.
    #[error("the tokenizer fails")]
    Tokenizer {
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A chat template that is no Jinja, or that refuses a conversation.
    #[error("the chat template fails")]
    Template {
        /// The cause, with the template's own words.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A record of a part that cannot be read or written.
    #[error(transparent)]
    Record(Box<StoreError>),
    /// A work folder that cannot be used.
    #[error("`{}` cannot be worked in: {reason}", path.display())]
    Work {
        /// Its path, or that of a file in it.
        path: PathBuf,
        /// Why not.
        reason: String,
    },
    /// A text too short for what is asked.
    #[error("the text has {found} tokens, and at least {wanted} are needed")]
    TooShort {
        /// Its tokens.
        found: usize,
        /// What is needed.
        wanted: usize,
    },
    /// A number that is out of its range.
    #[error("{what} is {found}, expected {expected}")]
    Option {
        /// What it is.
        what: &'static str,
        /// Its value.
        found: String,
        /// Its range.
        expected: &'static str,
    },
}

impl From<StoreError> for LlmError {
    fn from(error: StoreError) -> Self {
        Self::Record(Box::new(error))
    }
}
