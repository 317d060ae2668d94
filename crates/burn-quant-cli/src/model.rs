//! Models by their path: folders of Hugging Face, of other systems, of this tool; files.

use std::io::Read;
use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};
use burn_quant::Quantizers;
use burn_quant::compress::{WithoutPackedForm, compress_with, memory};
use burn_quant_checkpoint::gguf::GgufModel;
use burn_quant_checkpoint::{CheckpointError, Folder, FolderWriter};
use burn_quant_llm::{ChatTemplate, Decoder, DecoderConfig, LlmError, Tokenizer};
use burn_quant_store::{StoreError, restore};

use crate::error::CliError;
use crate::output::Output;

/// The record of a folder that this tool wrote.
pub(crate) const RECORD: &str = "model.bpk";

/// A decoder, and where it is from.
pub(crate) struct Model {
    /// The decoder.
    pub decoder: Decoder,
    /// The folder or file.
    pub path: PathBuf,
    /// The file, if it is a GGUF file, which has its own tokenizer.
    gguf: Option<GgufModel>,
}

impl Model {
    /// Loads a model of any kind.
    ///
    /// # Errors
    ///
    /// [`CliError::Model`], [`CliError::Record`] or [`CliError::Kind`] with the path.
    pub(crate) fn load(path: &Path, device: &Device, output: &Output) -> Result<Self, CliError> {
        let spinner = output.spinner(&format!("loading {}", path.display()));
        let failed = CliError::of_model(path, "loaded");
        let mut gguf = None;
        let decoder = match kind(path)? {
            Kind::HuggingFace => {
                let folder = Folder::open(path).map_err(LlmError::from).map_err(&failed)?;
                Decoder::load(&folder, device).map_err(&failed)?
            }
            Kind::Gguf => {
                let file = GgufModel::open(path).map_err(LlmError::from).map_err(&failed)?;
                let decoder = Decoder::load_gguf(&file, DType::F32, device).map_err(&failed)?;
                gguf = Some(file);
                decoder
            }
            Kind::Burnpack => {
                let file = path.join("config.json");
                let config = std::fs::read(&file).map_err(CliError::of_file(&file, "read"))?;
                let json = serde_json::from_slice(&config).map_err(std::io::Error::other);
                let json = json.map_err(CliError::of_file(&file, "read"))?;
                let config = DecoderConfig::of_json(&json).map_err(&failed)?;
                let record = path.join(RECORD);
                let of_record = |error| {
                    let source = match error {
                        StoreError::InFile { source, .. } => source, // which says the file once more
                        error => Box::new(error),
                    };
                    CliError::Record { path: record.clone(), what: "read", source }
                };
                restore(Decoder::new(config, device), &record).map_err(of_record)?
            }
        };
        spinner.finish_and_clear();
        Ok(Self { decoder, path: path.into(), gguf })
    }

    /// Packs its weights, if that is asked for.
    ///
    /// Weights without a packed form stay as they are, with a warning.
    ///
    /// # Errors
    ///
    /// [`CliError::Model`].
    pub(crate) fn packed(self, packed: bool, output: &Output) -> Result<Self, CliError> {
        if !packed {
            return Ok(self);
        }
        let Self { decoder, path, gguf } = self;
        let (decoder, report) = compress_with(decoder, WithoutPackedForm::Keep)
            .map_err(LlmError::from)
            .map_err(CliError::of_model(&path, "packed"))?;
        if report.packed.is_empty() {
            output.warning(format!("no weight of `{}` is quantized, so none is packed", path.display()));
        }
        for (layer, reason) in &report.kept {
            output.warning(format!("`{layer}` stays in float: {reason}"));
        }
        Ok(Self { decoder, path, gguf })
    }

    /// Reads its tokenizer, or that of another folder.
    ///
    /// # Errors
    ///
    /// [`CliError::Model`].
    pub(crate) fn tokenizer(&self, folder: Option<&PathBuf>) -> Result<Tokenizer, CliError> {
        let path = folder.unwrap_or(&self.path);
        let tokenizer = match &self.gguf {
            Some(gguf) if folder.is_none() => Tokenizer::of_gguf(gguf),
            _ => Tokenizer::of_path(path),
        };
        tokenizer.map_err(CliError::of_model(path, "used as a tokenizer"))
    }

    /// Reads its chat template, or that of another folder.
    ///
    /// # Errors
    ///
    /// [`CliError::Model`].
    pub(crate) fn template(&self, folder: Option<&PathBuf>) -> Result<Option<ChatTemplate>, CliError> {
        let path = folder.unwrap_or(&self.path);
        let template = match &self.gguf {
            Some(gguf) if folder.is_none() => ChatTemplate::of_gguf(gguf),
            _ => ChatTemplate::of_path(path),
        };
        template.map_err(CliError::of_model(path, "used as a chat template"))
    }

    /// Returns whether a weight or an activation of it is quantized, or packed already.
    pub(crate) fn is_quantized(&self) -> bool {
        let is_packed = || memory(&self.decoder).bytes() < memory(&self.decoder).float_bytes();
        Quantizers::of(&self.decoder).iter().any(|(_, quantizer)| quantizer.is_enabled()) || is_packed()
    }

    /// Returns the name of the folder or file.
    pub(crate) fn name(&self) -> String {
        name(&self.path)
    }

    /// Returns the class of the model.
    pub(crate) fn architecture(&self) -> &'static str {
        self.decoder.config().architecture.name()
    }

    /// Returns the number of its parameters, without ranges and scales of quantizers.
    pub(crate) fn parameters(&self) -> usize {
        let linears = self.decoder.linears().into_iter().map(|(_, linear)| {
            let bias = linear.bias.as_ref().map_or(0, |bias| bias.lazy_shape().num_elements());
            linear.weight.lazy_shape().num_elements() + bias
        });
        let norms = self.decoder.norms().into_iter().map(|(_, norm)| norm.gamma.lazy_shape().num_elements());
        self.decoder.model.embed_tokens.weight.lazy_shape().num_elements() + linears.chain(norms).sum::<usize>()
    }
}

/// A folder with the configuration and the tokenizer of another one.
pub(crate) fn folder_of_record(folder: &Folder, out: &Path) -> Result<(), CheckpointError> {
    let mut writer = FolderWriter::create(out)?;
    let mut config = folder.config().clone();
    if let Some(config) = config.as_object_mut() {
        config.remove("quantization_config");
    }
    writer.json("config.json", &config)?;
    writer.copy_others(folder.path())?;
    writer.finish()?;
    // what a folder without tensors has
    let empty = out.join("model.safetensors");
    std::fs::remove_file(&empty).map_err(|source| CheckpointError::Io { path: empty, source })
}

/// Returns the last part of a path.
pub(crate) fn name(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
}

/// What a path leads to.
enum Kind {
    HuggingFace,
    Burnpack,
    Gguf,
}

fn kind(path: &Path) -> Result<Kind, CliError> {
    let wrong = |found| CliError::Kind { path: path.into(), found, expected: "the folder of a model, or a GGUF file" };
    match path.extension().and_then(|extension| extension.to_str()) {
        _ if path.is_dir() && path.join(RECORD).is_file() => Ok(Kind::Burnpack),
        Some("gguf") if !path.exists() => {
            let source = std::io::ErrorKind::NotFound.into();
            Err(CliError::File { path: path.into(), what: "read", source })
        }
        _ if path.is_dir() || !path.exists() => Ok(Kind::HuggingFace),
        Some("gguf") => Ok(Kind::Gguf),
        Some("safetensors") => Err(wrong("a single safetensors file")),
        Some("bpk") => Err(wrong("a single burnpack file")),
        _ if is_gguf(path) => Ok(Kind::Gguf),
        _ => Err(wrong("a file")),
    }
}

/// Whether a file begins as GGUF files do, whatever it is called.
pub(crate) fn is_gguf(path: &Path) -> bool {
    let mut magic = [0; 4];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == *b"GGUF"
}
