//! Whatever the bytes are, `safetensors_from_bytes` gives a model or an error, and what it gives runs.
//!
//! Half of the inputs are files as they are. The others are a sound file without a digest, whose header or tensors have
//! other bytes in the place of some.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use burn::nn::LinearConfig;
use burn::tensor::{DType, Device, Tensor};
use burn_quant::nn::QuantLinear;
use burn_quant::{QuantizerConfig, Rule, presets, quantize};
use burn_quant_store::{safetensors_from_bytes, safetensors_to_bytes};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Bytes(&'a [u8]),
    Changes(Vec<Change<'a>>),
}

/// Bytes in the place of a stretch of the file, after the length of its header.
#[derive(Arbitrary, Debug)]
struct Change<'a> {
    start: u16,
    len: u8,
    bytes: &'a [u8],
}

fn fresh() -> QuantLinear {
    LinearConfig::new(4, 3).init(&Device::flex()).into()
}

/// Header and tensors of a file with blocks of NVFP4 and a static range.
static SOUND: LazyLock<(Vec<u8>, Vec<u8>)> = LazyLock::new(|| {
    let config = presets::int8_default().with_rule(Rule::set("weight_quantizer", QuantizerConfig::nvfp4_static()));
    let x = Tensor::<2>::from_data([[1.0, -2.0, 0.5, 3.0]], &Device::flex());
    let (layer, _) = quantize(fresh(), &config, |layer| drop(layer.forward(x.clone()))).expect("a sound layer");
    let file = safetensors_to_bytes(&layer).expect("a sound file");
    let (len, rest) = file.split_first_chunk().expect("the length of the header");
    let (header, tensors) = rest.split_at(u64::from_le_bytes(*len) as usize);
    let mut header: Value = serde_json::from_slice(header).expect("JSON");
    header["__metadata__"].as_object_mut().expect("metadata").remove("burn-quant.digest");
    (serde_json::to_vec(&header).expect("JSON"), tensors.to_vec())
});

fn changed(changes: Vec<Change>) -> Vec<u8> {
    let (mut header, mut tensors) = SOUND.clone();
    for Change { start, len, bytes } in changes.into_iter().take(8) {
        let part = if len % 4 == 0 { &mut tensors } else { &mut header };
        let start = usize::from(start) % part.len().max(1);
        let end = part.len().min(start + usize::from(len));
        part.splice(start..end, bytes.iter().copied());
    }
    [&(header.len() as u64).to_le_bytes()[..], &header, &tensors].concat()
}

fuzz_target!(|input: Input| {
    let bytes = match input {
        Input::Bytes(bytes) => bytes.to_vec(),
        Input::Changes(changes) => changed(changes),
    };
    let Ok(layer) = safetensors_from_bytes(fresh(), &bytes) else { return };
    // weights of any float dtype are restored; burn's layers run if all of them have that of the input
    let of_f32 = layer.weight.base().dtype() == DType::F32;
    if of_f32 && layer.bias.as_ref().is_none_or(|bias| bias.val().dtype() == DType::F32) {
        let _ = layer.forward(Tensor::<2>::ones([2, 4], &Device::flex()));
    }
});
