//! GGUF, against what gguf-python 0.19.0 writes and reads (`tests/data/gguf`).

#[path = "gguf/blocks.rs"]
mod blocks;
#[path = "gguf/files.rs"]
mod files;
#[path = "gguf/hostile.rs"]
mod hostile;
#[path = "gguf/models.rs"]
mod models;
#[path = "gguf/tokenizers.rs"]
mod tokenizers;

use std::path::{Path, PathBuf};

/// The quantized types that the model is stored in.
const TYPES: [&str; 4] = ["Q8_0", "Q4_0", "Q4_1", "MXFP4"];

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/gguf").join(file)
}

/// The model in one of the types.
fn reference(ggml: &str) -> PathBuf {
    data(&format!("llama-{}.gguf", ggml.to_lowercase()))
}

/// The bits of floats: NaN and zeros are compared too.
fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|x| x.to_bits()).collect()
}

/// A tensor of a safetensors file, as bytes.
fn tensor(file: &str, name: &str) -> Vec<u8> {
    let file = std::fs::read(data(file)).unwrap();
    safetensors::SafeTensors::deserialize(&file).unwrap().tensor(name).unwrap().data().to_vec()
}

/// A tensor of a safetensors file, in F32.
fn floats(file: &str, name: &str) -> Vec<f32> {
    tensor(file, name).as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}
