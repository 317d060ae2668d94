//! What may go wrong in a command, and what to do then.

use std::path::{Path, PathBuf};

use burn_quant::QuantError;
use burn_quant_checkpoint::{CheckpointError, NotExportable};
use burn_quant_llm::LlmError;
use burn_quant_report::DiagnoseError;
use burn_quant_store::StoreError;

use crate::units::{bytes, plural};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CliError {
    /// A model that cannot be loaded, run or written.
    #[error("`{}` cannot be {what}", path.display())]
    Model {
        /// The folder or file.
        path: PathBuf,
        /// `loaded`, `quantized` and so on.
        what: &'static str,
        /// The cause.
        source: Box<LlmError>,
    },
    /// A model that cannot be diagnosed.
    #[error("the model cannot be diagnosed")]
    Diagnosis {
        /// The cause.
        source: Box<DiagnoseError>,
    },
    /// A recipe that cannot be read.
    #[error("`{name}` is no recipe")]
    Recipe {
        /// As it was given.
        name: String,
        /// The cause.
        source: Box<QuantError>,
    },
    /// Less memory than one layer of a model takes.
    #[error("`--memory {}` is too little for this model: one part of it takes {}", bytes(*limit), bytes(*needed))]
    Memory {
        /// What is needed.
        needed: u64,
        /// What was given.
        limit: u64,
    },
    /// A recipe that needs data, and none was given.
    #[error("the recipe `{name}` needs calibration data: {why}")]
    NeedsData {
        /// As it was given.
        name: String,
        /// What needs it.
        why: String,
    },
    /// A file that cannot be read or written.
    #[error("`{}` cannot be {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        what: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// A burnpack file that cannot be read or written.
    #[error("`{}` cannot be {what}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// `read` or `written`.
        what: &'static str,
        /// The cause.
        source: Box<StoreError>,
    },
    /// A result that is there already.
    #[error("`{}` exists", path.display())]
    Exists {
        /// The place.
        path: PathBuf,
    },
    /// A file of a kind that the command does not read.
    #[error("`{}` is {found}, expected {expected}", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
        /// What it is.
        found: &'static str,
        /// What is read.
        expected: &'static str,
    },
    /// A model that was never built into this binary's backend.
    #[error("this binary was built without `{name}`")]
    Device {
        /// The device, and the feature.
        name: &'static str,
    },
    /// Arguments that do not go together.
    #[error("{problem}")]
    Usage {
        /// What does not.
        problem: String,
    },
}

impl CliError {
    /// Names the model that an error is about.
    pub(crate) fn of_model(path: &Path, what: &'static str) -> impl Fn(LlmError) -> Self {
        move |source| CliError::Model { path: path.into(), what, source: Box::new(source) }
    }

    /// Says of a recipe that it needs data, where there is none; of other errors, which model cannot be quantized.
    pub(crate) fn of_recipe(error: QuantError, recipe: &str, folder: &Path) -> Self {
        let name = recipe.to_string();
        match error {
            QuantError::NeedsData { algorithm } => {
                Self::NeedsData { name, why: format!("its algorithm is `{algorithm}`") }
            }
            QuantError::NeedsForwardLoop { names } => {
                let why = format!("{} are static, first `{}`", plural(names.len(), "activation"), names[0]);
                Self::NeedsData { name, why }
            }
            other => Self::of_model(folder, "quantized")(other.into()),
        }
    }

    /// Names the file that an error is about.
    pub(crate) fn of_file(path: &Path, what: &'static str) -> impl Fn(std::io::Error) -> Self {
        move |source| CliError::File { path: path.into(), what, source }
    }

    /// 2 for wrong usage, 1 for all else.
    pub(crate) fn code(&self) -> u8 {
        match self {
            CliError::Usage { .. } => 2,
            _ => 1,
        }
    }

    /// Returns what to do about it.
    pub(crate) fn hint(&self) -> Option<String> {
        Some(match self {
            CliError::NeedsData { .. } => {
                "add `--calib TEXT` with a text file, or take a recipe that needs no data: see `burn-quant presets`"
                    .into()
            }
            CliError::Recipe { source, .. } if matches!(**source, QuantError::UnknownPreset { .. }) => {
                "`burn-quant presets` lists all of them; a file ends in .toml, .json or .yaml".into()
            }
            CliError::Memory { .. } => {
                "give more, or none: without `--memory` the whole model is quantized at once".into()
            }
            CliError::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                "there is no such file: compare its path".into()
            }
            CliError::Exists { .. } => "give another `--out` or `--html`, or remove it first".into(),
            CliError::Device { name } => format!("build it with `cargo install burn-quant-cli --features {name}`"),
            CliError::Model { source, path, .. } => of_llm(source, path)?,
            _ => return None,
        })
    }
}

fn of_llm(error: &LlmError, path: &Path) -> Option<String> {
    Some(match error {
        LlmError::Checkpoint(CheckpointError::Io { path: missing, source })
            if source.kind() == std::io::ErrorKind::NotFound =>
        {
            match missing.file_name().and_then(|name| name.to_str()) {
                Some("config.json") if path.is_dir() => {
                    "expected the folder of a Hugging Face model: config.json, *.safetensors, tokenizer.json".into()
                }
                Some("tokenizer.json") => {
                    "copy that of the model there; `eval` and `chat` take `--tokenizer FOLDER`, too".into()
                }
                _ => "there is no such file or folder".into(),
            }
        }
        LlmError::TooShort { .. } => "give a longer text, or shorter windows: `--tokens N`".into(),
        LlmError::Checkpoint(CheckpointError::NotExportable { reason: NotExportable::PreQuantScale, .. }) => {
            "`--format modelopt` and `--format burnpack` hold such scales; or take a recipe without AWQ and SmoothQuant"
                .into()
        }
        LlmError::Checkpoint(CheckpointError::NotExportable { reason: NotExportable::Ragged { .. }, .. }) => {
            "take a recipe file whose `granularity = { block = N }` divides that, or `--format burnpack`, which holds \
             a last block that is shorter"
                .into()
        }
        LlmError::Checkpoint(CheckpointError::NotExportable { .. }) => {
            "`burn-quant presets` says which formats hold a recipe; `--format burnpack` holds all of them".into()
        }
        _ => return None,
    })
}
