//! Tensors of GGUF files.

use std::path::Path;

use burn_quant_checkpoint::CheckpointError;
use burn_quant_checkpoint::gguf::Gguf;

use super::{Part, Read, Suspicion, scales};

pub(super) fn read(path: &Path) -> Result<Read, CheckpointError> {
    let file = Gguf::open(path)?;
    let (mut parts, mut suspicious) = (Vec::new(), Vec::new());
    for tensor in file.tensors() {
        let (elements, bytes) = (tensor.shape.iter().product::<usize>() as u64, tensor.byte_len());
        let name = tensor.name.strip_suffix(".weight").unwrap_or(&tensor.name).to_string();
        let bits = 8.0 * bytes as f64 / elements.max(1) as f64;
        parts.push(Part { name, format: tensor.ggml.to_string(), shape: tensor.shape.clone(), elements, bits, bytes });
        if tensor.ggml.block() > 1 && tensor.ggml.is_decoded() {
            let problem = scales::problem(&file.matrix(&tensor.name)?.scales);
            suspicious.extend(problem.map(|problem| Suspicion { tensor: tensor.name.clone(), problem }));
        }
    }
    let architecture = file.metadata().text("general.architecture").unwrap_or("unknown").to_string();
    Ok((format!("GGUF version {}, {architecture}", file.version()), parts, suspicious))
}
