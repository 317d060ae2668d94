//! From a GGUF file to a Hugging Face folder in float.

use std::path::{Path, PathBuf};

use burn_quant_checkpoint::gguf::GgufModel;
use burn_quant_checkpoint::{Dtype, FolderWriter, Tensor};

use crate::LlmError;

/// Writes the model of a GGUF file as a Hugging Face folder in float: tensors are the values of its codes.
///
/// Configuration and tokenizer are made of the file's metadata, so that everything that takes a folder takes the
/// result. `dtype` is the type of the tensors; f16 and bf16 round them. The folder appears at `out` when it is
/// complete.
///
/// # Errors
///
/// [`LlmError::Checkpoint`] if the file holds another architecture or tokenizer than can be described, or the folder
/// exists.
pub fn folder_of_gguf(gguf: &GgufModel, dtype: Dtype, out: &Path) -> Result<PathBuf, LlmError> {
    let mut writer = FolderWriter::create(out)?;
    let mut config = gguf.config()?;
    if let Some(config) = config.as_object_mut() {
        let name = match dtype {
            Dtype::BF16 => "bfloat16",
            Dtype::F16 => "float16",
            _ => "float32",
        };
        config.insert("dtype".into(), name.into());
    }
    writer.json("config.json", &config)?;
    writer.json("tokenizer.json", &gguf.tokenizer()?)?;
    writer.json("tokenizer_config.json", &gguf.tokenizer_config()?)?;
    for name in gguf.names() {
        let shape = gguf.shape(name).unwrap_or_default().to_vec();
        writer.tensor(name, Tensor::from_f32(dtype, shape, &gguf.floats(name)?))?;
    }
    Ok(writer.finish()?)
}
