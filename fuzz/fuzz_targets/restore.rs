//! Whatever the bytes are, `restore` gives a model or an error, and what it gives runs.
//!
//! Half of the inputs are files as they are. The others are changes to a sound file, which gets the digest of what it
//! then holds: without one, everything behind the digest would stay unseen.
#![no_main]

use std::sync::LazyLock;

use arbitrary::Arbitrary;
use burn::nn::LinearConfig;
use burn::tensor::{Bytes, DType, Device, Shape, Tensor};
use burn_pack::{Reader, Tensor as PackTensor, Writer};
use burn_quant::config::Format;
use burn_quant::nn::QuantLinear;
use burn_quant::{QuantizerConfig, Rule, compress, presets, quantize};
use burn_quant_store::{Restore, from_bytes, to_bytes, with_new_digest};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Input<'a> {
    Bytes(&'a [u8]),
    Changes(Vec<Change<'a>>),
    PackedChanges(Vec<Change<'a>>),
}

#[derive(Arbitrary, Debug)]
enum Change<'a> {
    /// Puts a text in place of a stretch of the plan, or of the forms of packed weights.
    Plan { start: u16, len: u8, text: &'a str },
    /// Takes a tensor out.
    Drop { tensor: u8 },
    /// Gives a tensor another shape and other bytes.
    Replace { tensor: u8, shape: [u8; 2], rank: bool, kind: u8, bytes: &'a [u8] },
    /// Adds a buffer to a quantizer.
    Add { quantizer: u8, buffer: u8, len: u8, value: f32 },
}

fn fresh() -> QuantLinear {
    LinearConfig::new(4, 3).init(&Device::flex()).into()
}

/// A sound file, with a chain, blocks and a disabled quantizer.
static SOUND: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let config = presets::int8_default()
        .with_rule(Rule::set("weight_quantizer", QuantizerConfig::int(4).per_block(2).then(QuantizerConfig::e4m3())))
        .with_rule(Rule::set("output_quantizer", QuantizerConfig::int(8).per_channel()));
    let x = Tensor::<2>::from_data([[1.0, -2.0, 0.5, 3.0]], &Device::flex());
    let (layer, _) = quantize(fresh(), &config, |layer| drop(layer.forward(x.clone()))).expect("a sound layer");
    to_bytes(&layer).expect("a sound file").to_vec()
});

/// The same of a packed weight, whose codes are not all numbers.
static PACKED: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let config = presets::int8_default().with_rule(Rule::set("weight_quantizer", QuantizerConfig::mx(Format::E4M3)));
    let x = Tensor::<2>::from_data([[1.0, -2.0, 0.5, 3.0]], &Device::flex());
    let (layer, _) = quantize(fresh(), &config, |layer| drop(layer.forward(x.clone()))).expect("a sound layer");
    to_bytes(&compress(layer).expect("a packed layer").0).expect("a sound file").to_vec()
});

fn changed(sound: &[u8], changes: Vec<Change>) -> Option<Bytes> {
    let reader = Reader::from_bytes(Bytes::from_bytes_vec(sound.to_vec())).ok()?;
    let mut metadata = reader.metadata().clone();
    let mut tensors = reader.into_tensors().ok()?;
    for change in changes.into_iter().take(8) {
        match change {
            Change::Plan { start, len, text } => {
                let key = if len % 2 == 0 { "burn-quant.plan" } else { "burn-quant.packed" };
                let Some(plan) = metadata.get_mut(key) else { continue };
                let start = usize::from(start) % plan.len().max(1);
                let end = plan.len().min(start + usize::from(len));
                if plan.is_char_boundary(start) && plan.is_char_boundary(end) {
                    plan.replace_range(start..end, text);
                }
            }
            Change::Drop { tensor } if !tensors.is_empty() => {
                tensors.remove(usize::from(tensor) % tensors.len());
            }
            Change::Replace { tensor, shape, rank, kind, bytes } if !tensors.is_empty() => {
                let i = usize::from(tensor) % tensors.len();
                let dtypes = [DType::F32, DType::F16, DType::BF16, DType::F64, DType::I32, DType::U8];
                let dtype = dtypes[usize::from(kind) % 6];
                let shape: Vec<usize> = shape.iter().take(1 + usize::from(rank)).map(|n| usize::from(*n)).collect();
                let len = shape.iter().product::<usize>() * dtype.size();
                let bytes: Vec<u8> = bytes.iter().copied().chain(std::iter::repeat(0)).take(len).collect();
                let bytes = Bytes::from_bytes_vec(bytes);
                tensors[i] = PackTensor::new(tensors[i].name.clone(), dtype, Shape::from(shape), None, bytes);
            }
            Change::Add { quantizer, buffer, len, value } => {
                let weight = ["weight.weight_quantizer", "weight.weight_quantizer.1"];
                let owners = ["input_quantizer", "output_quantizer", weight[0], weight[1]];
                let buffers = ["amax", "global_amax", "bias", "pre_quant_scale", "low_rank_down", "low_rank_up"];
                let name = format!("{}.{}", owners[usize::from(quantizer) % 4], buffers[usize::from(buffer) % 6]);
                let bytes = vec![value.to_le_bytes(); usize::from(len)].concat();
                let shape = Shape::from(vec![usize::from(len)]);
                tensors.retain(|tensor| tensor.name != name);
                tensors.push(PackTensor::new(name, DType::F32, shape, None, Bytes::from_bytes_vec(bytes)));
            }
            _ => {}
        }
    }
    let writer = metadata.iter().fold(Writer::new(tensors), |writer, (key, value)| writer.with_metadata(key, value));
    with_new_digest(writer.into_bytes().ok()?).ok()
}

fuzz_target!(|input: Input| {
    let bytes = match input {
        Input::Bytes(bytes) => Some(Bytes::from_bytes_vec(bytes.to_vec())),
        Input::Changes(changes) => changed(&SOUND, changes),
        Input::PackedChanges(changes) => changed(&PACKED, changes),
    };
    let Some(bytes) = bytes else { return };
    let _ = Restore::new().allow_missing().allow_unused().load_bytes(fresh(), bytes.clone());
    // weights of any float dtype are restored; burn's layers run if all of them have that of the input
    let of_f32 = |layer: &QuantLinear| {
        layer.weight.base().dtype() == DType::F32 && layer.bias.as_ref().is_none_or(|b| b.val().dtype() == DType::F32)
    };
    if let Some(layer) = from_bytes(fresh(), bytes).ok().filter(of_f32) {
        let _ = layer.forward(Tensor::<2>::ones([2, 4], &Device::flex()));
    }
});
