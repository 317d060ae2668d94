//! Folders of compressed-tensors: what their codes are, written again, and loaded.

use burn::tensor::Device;
use burn_quant_checkpoint::compressed_tensors::{Quantization, write_layer};
use burn_quant_checkpoint::{Dtype, Folder, Tensor as Stored};
use burn_quant_llm::Decoder;
use sha2::{Digest, Sha256};

use super::index::{Checkpoints, Entry};

pub(crate) fn run(checkpoints: &Checkpoints, entry: &Entry, device: &Device) -> Vec<String> {
    let (_place, folder) = checkpoints.folder(&entry.path);
    let quantization = match Quantization::of(&folder) {
        Ok(quantization) => quantization.expect("a folder of compressed-tensors"),
        Err(error) => return vec![format!("its configuration is not read: {error}")],
    };
    let layers = match quantization.layers(&folder) {
        Ok(layers) => layers,
        Err(error) => return vec![error.to_string()],
    };
    let dtype = match entry.more["dequantized_dtype"].as_str() {
        Some("bfloat16") => Dtype::BF16,
        _ => Dtype::F32,
    };
    let sums = entry.more["dequantized_sha256"].as_object().expect("checksums");
    let mut problems = Vec::new();
    if layers.len() != sums.len() {
        problems.push(format!("{} quantized layers, expected {}", layers.len(), sums.len()));
    }
    for name in &layers {
        let layer = match quantization.layer(&folder, name) {
            Ok(layer) => layer,
            Err(error) => {
                problems.push(format!("{name} is not read: {error}"));
                continue;
            }
        };
        let shape = vec![layer.weight.outputs, layer.weight.inputs];
        let values = Stored::from_f32(dtype, shape, &layer.weight.dequantize());
        let sum: String = Sha256::digest(values.bytes()).iter().map(|byte| format!("{byte:02x}")).collect();
        if sums.get(&format!("{name}.weight")).is_none_or(|expected| *expected != sum.as_str()) {
            problems.push(format!("{name}: other values than the package's"));
        }
        let format = quantization.scheme(name).expect("a quantized layer has a scheme").format;
        match write_layer(name, &layer, format) {
            Ok(tensors) => problems.extend(tensors.iter().filter_map(|(name, tensor)| differs(&folder, name, tensor))),
            Err(error) => problems.push(format!("{name} is not written: {error}")),
        }
    }
    if let Err(error) = Decoder::load(&folder, device) {
        problems.push(format!("it is not loaded: {error}"));
    }
    problems
}

fn differs(folder: &Folder, name: &str, tensor: &Stored) -> Option<String> {
    match folder.find(name).expect("a tensor is read") {
        Some(expected) if expected == *tensor => None,
        Some(expected) => Some(format!(
            "{name}: {} {:?}, expected {} {:?}",
            tensor.dtype(),
            tensor.shape(),
            expected.dtype(),
            expected.shape()
        )),
        None => Some(format!("{name}: is not in the reference")),
    }
}
