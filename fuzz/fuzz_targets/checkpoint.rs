//! Whatever a checkpoint of another system holds, reading it gives layers or an error: folders of ModelOpt,
//! compressed-tensors, AutoAWQ and GPTQ, whose tensors and configurations contradict each other or not, and GGUF files.
#![no_main]

use arbitrary::Arbitrary;
use burn_quant_checkpoint::gguf::{Gguf, GgufModel};
use burn_quant_checkpoint::modelopt::{self, KvAlgo};
use burn_quant_checkpoint::{Folder, awq_gptq, compressed_tensors};
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    /// A safetensors file as it is.
    Safetensors(&'a [u8]),
    /// A GGUF file as it is.
    Gguf(&'a [u8]),
    /// A GGUF file whose first bytes are right.
    AfterMagic(&'a [u8]),
    /// A configuration, and tensors of a layer.
    Layer { config: u8, text: &'a str, bits: u8, group: u8, tensors: Vec<Tensor<'a>> },
}

#[derive(Arbitrary, Debug)]
struct Tensor<'a> {
    name: u8,
    dtype: u8,
    shape: [u8; 2],
    axes: u8,
    bytes: &'a [u8],
}

const NAMES: [&str; 16] = [
    "weight",
    "weight_scale",
    "weight_scale_2",
    "input_scale",
    "pre_quant_scale",
    "weight_packed",
    "weight_shape",
    "weight_zero_point",
    "weight_global_scale",
    "input_global_scale",
    "qweight",
    "qzeros",
    "scales",
    "g_idx",
    "k_scale",
    "weight_g_idx",
];
const DTYPES: [(&str, usize); 9] =
    [("F32", 4), ("F16", 2), ("BF16", 2), ("F8_E4M3", 1), ("U8", 1), ("I8", 1), ("I32", 4), ("I64", 8), ("F8_E8M0", 1)];

fuzz_target!(|input: Input| run(input));

fn run(input: Input) {
    match input {
        Input::Safetensors(bytes) => read(json!({}), bytes.to_vec()),
        Input::Gguf(bytes) => gguf(bytes.to_vec()),
        Input::AfterMagic(bytes) => gguf([&b"GGUF\x03\0\0\0"[..], bytes].concat()),
        Input::Layer { config, text, bits, group, tensors } => {
            let config = match config % 6 {
                0 => {
                    let algo = modelopt::QuantAlgo::ALL[usize::from(bits) % modelopt::QuantAlgo::ALL.len()];
                    let name = algo.name();
                    json!({"quant_method": "modelopt", "quant_algo": name, "group_size": group, "ignore": [text]})
                }
                1 => json!({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": {
                    "l": {"quant_algo": text, "group_size": group}}}),
                2 => json!({"quant_method": "compressed-tensors", "format": text, "ignore": [],
                    "config_groups": {"g": {"targets": ["Linear"], "weights": {"num_bits": bits, "type": "int",
                    "strategy": "group", "group_size": group, "symmetric": group % 2 == 0}}}}),
                3 => json!({"quant_method": "compressed-tensors", "format": "pack-quantized", "ignore": [text],
                    "config_groups": {"g": {"targets": ["re:.*"], "weights": {"num_bits": bits, "type": "int",
                    "strategy": "channel"}}}}),
                4 => json!({"quant_method": "awq", "bits": bits, "group_size": group, "zero_point": true,
                    "version": "gemm"}),
                _ => json!({"quant_method": "gptq", "bits": bits, "group_size": group, "desc_act": group % 2 == 0,
                    "checkpoint_format": text}),
            };
            read(json!({"quantization_config": config}), file(&tensors));
        }
    }
}

/// A safetensors file that is in order, whatever its tensors are.
fn file(tensors: &[Tensor]) -> Vec<u8> {
    let (mut header, mut data) = (serde_json::Map::new(), Vec::new());
    for tensor in tensors {
        let name = format!("l.{}", NAMES[usize::from(tensor.name) % NAMES.len()]);
        let (dtype, size) = DTYPES[usize::from(tensor.dtype) % DTYPES.len()];
        let shape: Vec<usize> =
            tensor.shape.iter().take(usize::from(tensor.axes) % 3).map(|n| usize::from(*n)).collect();
        let len = shape.iter().product::<usize>() * size;
        if header.contains_key(&name) || len > 1 << 16 {
            continue;
        }
        let begin = data.len();
        let more = tensor.bytes.iter().copied().chain(std::iter::repeat(0)).take(len);
        data.extend(more);
        header.insert(name, json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]}));
    }
    let header = Value::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

fn read(config: Value, file: Vec<u8>) {
    let Ok(folder) = Folder::parse(config, vec![("model.safetensors".into(), file)]) else { return };
    let names: Vec<String> = folder.names().map(String::from).collect();
    names.iter().for_each(|name| drop(folder.tensor(name).map(|tensor| tensor.to_f32(name))));
    let values = |layer: burn_quant_checkpoint::QuantizedLayer| drop(layer.weight.dequantize());
    if let Ok(Some(quantization)) = modelopt::Quantization::of(&folder) {
        quantization.layers().iter().for_each(|layer| modelopt::layer(&folder, layer).map(values).unwrap_or_default());
        let _ = modelopt::kv(&folder, "l", KvAlgo::Fp8);
    }
    if let Ok(Some(quantization)) = compressed_tensors::Quantization::of(&folder)
        && let Ok(layers) = quantization.layers(&folder)
    {
        layers.iter().for_each(|name| quantization.layer(&folder, name).map(values).unwrap_or_default());
    }
    if let Ok(Some(quantization)) = awq_gptq::Quantization::of(&folder)
        && let Ok(layers) = quantization.layers(&folder)
    {
        layers.iter().for_each(|name| quantization.layer(&folder, name).map(values).unwrap_or_default());
    }
}

fn gguf(bytes: Vec<u8>) {
    let Ok(file) = Gguf::parse(bytes) else { return };
    let names: Vec<String> = file.tensors().iter().map(|tensor| tensor.name.clone()).collect();
    for name in &names {
        let _ = file.floats(name);
        let _ = file.matrix(name).map(|matrix| matrix.dequantize());
    }
    if let Ok(model) = GgufModel::new(file) {
        let _ = (model.config(), model.tokenizer(), model.tokenizer_config());
    }
}
