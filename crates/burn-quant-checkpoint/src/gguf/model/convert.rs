//! A Hugging Face folder as a GGUF file.

use std::path::PathBuf;

use super::write::{GgufModelWriter, ModelSource, TensorData};
use crate::gguf::{GgmlType, PlannedTensor};
use crate::{CheckpointError, Folder};

/// Converts a folder of floats to a GGUF file. Tensors are read and written one by one, each in the type that
/// `ggml_type` returns for its name and shape.
///
/// Tensors of one axis are written as F32 whatever it returns. `tokenizer.json`, `tokenizer_config.json` and
/// `chat_template.jinja` are read if they are there.
///
/// # Errors
///
/// Those of [`GgufModelWriter`] and [`Folder`]; [`CheckpointError::Dtype`] for a tensor that is not stored in floats.
///
/// # Example
///
/// ```no_run
/// use burn_quant_checkpoint::Folder;
/// use burn_quant_checkpoint::gguf::{GgmlType, convert_folder};
///
/// let folder = Folder::open("SmolLM2-135M")?;
/// let matrices = |name: &str, _: &[usize]| if name == "lm_head.weight" { GgmlType::Q8_0 } else { GgmlType::Q4_0 };
/// convert_folder(&folder, "SmolLM2", matrices, "SmolLM2.Q4_0.gguf")?;
/// # Ok::<(), burn_quant_checkpoint::CheckpointError>(())
/// ```
pub fn convert_folder(
    folder: &Folder,
    name: &str,
    ggml_type: impl Fn(&str, &[usize]) -> GgmlType,
    path: impl Into<PathBuf>,
) -> Result<(), CheckpointError> {
    let (tokenizer, tokenizer_config) = (folder.json("tokenizer.json")?, folder.json("tokenizer_config.json")?);
    let template = folder.path().join("chat_template.jinja");
    let chat_template = match template.is_file() {
        true => {
            Some(std::fs::read_to_string(&template).map_err(|source| CheckpointError::Io { path: template, source })?)
        }
        false => None,
    };
    let source = ModelSource {
        tokenizer: tokenizer.as_ref(),
        tokenizer_config: tokenizer_config.as_ref(),
        chat_template: chat_template.as_deref(),
        ..ModelSource::new(name, folder.config())
    };
    let planned = |name: &str| {
        let shape = folder.info(name).expect("a name of the folder has a tensor").shape.clone();
        let ggml = if shape.len() == 1 { GgmlType::F32 } else { ggml_type(name, &shape) };
        PlannedTensor::new(name, shape, ggml)
    };
    let plan: Vec<_> = folder.names().map(planned).collect();
    let mut writer = GgufModelWriter::create(path, &source, &plan)?;
    for name in folder.names() {
        writer.tensor(name, TensorData::Floats(&folder.tensor(name)?.to_f32(name)?))?;
    }
    writer.finish().map(|_| ())
}
