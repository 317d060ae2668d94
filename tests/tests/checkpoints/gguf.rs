//! GGUF files: what their codes are, written again from the float model, and loaded.

use burn::tensor::{DType, Device};
use burn_quant_checkpoint::gguf::{GgmlType, Gguf, GgufModel, convert_folder};
use burn_quant_llm::Decoder;
use sha2::{Digest, Sha256};

use super::index::{Checkpoints, Entry};

pub(crate) fn run(checkpoints: &Checkpoints, entry: &Entry, device: &Device) -> Vec<String> {
    let path = checkpoints.path(&entry.path);
    let model = match GgufModel::open(&path) {
        Ok(model) => model,
        Err(error) => return vec![format!("it is not read: {error}")],
    };
    let mut problems = Vec::new();
    let sums = entry.more.get("dequantized_sha256").and_then(|sums| sums.as_object());
    for (name, sum) in sums.into_iter().flatten() {
        match model.gguf().floats(name) {
            Err(error) => problems.push(format!("{name} is not read: {error}")),
            Ok(values) => {
                let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
                let found: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
                if *sum != found.as_str() {
                    problems.push(format!("{name}: other values than gguf-python's"));
                }
            }
        }
    }
    // written again: tensors byte for byte, the same metadata
    let (_place, float) = checkpoints.folder(&format!("models/{}", entry.model));
    let place = tempfile::tempdir().expect("a temporary folder");
    let out = place.path().join("out.gguf");
    let ggml = |name: &str, _: &[usize]| model.ggml(name).unwrap_or(GgmlType::F32);
    let name = model.gguf().metadata().text("general.name").unwrap_or_default().to_string();
    if let Err(error) = convert_folder(&float, &name, ggml, &out) {
        problems.push(format!("it is not written: {error}"));
        return problems;
    }
    let [expected, found] = [&path, &out].map(|path| Gguf::open(path).expect("a file"));
    for tensor in expected.tensors() {
        let [a, b] = [&expected, &found].map(|file| file.bytes(&tensor.name).ok());
        if a.is_none() || a != b {
            problems.push(format!("{}: other bytes are written", tensor.name));
        }
    }
    for (key, value) in expected.metadata().iter() {
        if found.metadata().get(key) != Some(value) {
            problems.push(format!("{key}: {:?}, expected {value:?}", found.metadata().get(key)));
        }
    }
    if let Err(error) = Decoder::load_gguf(&model, DType::F32, device) {
        problems.push(format!("it is not loaded: {error}"));
    }
    problems
}
