//! Codes and scales of each format, bit for bit as ModelOpt packs them.
//!
//! ```text
//! FP8            s = amax / 448                       E4M3(w / s)          in bf16 models w / s is rounded to bf16
//! INT8           s = amax / 127                       rne(w / s)           clamped to −128 .. 127
//! INT4           s = amax / 7                         rne(w / s)           two outputs a byte, the even one low
//! NVFP4          s₂ = amax / (6 · 448), s = E4M3(amax_b / (6 · s₂))        E2M1(w / (s · s₂)), two inputs a byte
//! MXFP8, MXFP4   e = ⌈log2(amax_b / 448 or 6)⌉        E4M3 or E2M1(w / 2^e)
//! ```
//!
//! Two deviations: E4M3 codes saturate, where ModelOpt writes NaN for values above 464 scales, and FP8 weights that are
//! all zero have a scale of 1, where it writes a scale of zero and codes that are NaN.
//!
//! Source: ModelOpt 0.47, `modelopt.torch.export.quant_utils.to_quantized_weight` and `qtensor`.

use burn_quant_numerics::{Minifloat, round_half_to_even};

use super::{KvAlgo, LinearState, QuantAlgo};
use crate::dtype::round_to;
use crate::{CheckpointError, Dtype, KvQuantizer, NotExportable, Tensor};

/// Packs a layer: all tensors that a folder has of it, with their names.
///
/// `weight`, `weight_scale`, `weight_scale_2`, `input_scale`, `pre_quant_scale`, `bias` and the factors of a branch of
/// low rank, as far as the format has them.
///
/// # Errors
///
/// [`CheckpointError::NotExportable`] if the format cannot hold the layer, for instance because its inputs are no whole
/// number of blocks.
pub fn pack(name: &str, layer: &LinearState) -> Result<Vec<(String, Tensor)>, CheckpointError> {
    let refuse = |reason| Err(CheckpointError::NotExportable { name: name.into(), format: layer.algo.name(), reason });
    if !layer.algo.is_modelopt() {
        let (found, known) = (layer.algo.to_string(), "the formats of ModelOpt's presets");
        return refuse(NotExportable::Format { found, known });
    }
    if let Err(reason) = check(layer) {
        return refuse(reason);
    }
    if layer.has_row_blocks() && !layer.inputs.is_multiple_of(layer.block) {
        return refuse(NotExportable::Ragged { axis: "inputs", len: layer.inputs, block: layer.block });
    }
    if layer.has_row_blocks() && !layer.outputs.is_multiple_of(2) {
        return refuse(NotExportable::Ragged { axis: "outputs", len: layer.outputs, block: 2 });
    }
    let mut tensors = Vec::new();
    let mut add = |suffix: &str, tensor: Tensor| tensors.push((format!("{name}.{suffix}"), tensor));
    let (outputs, inputs) = (layer.outputs, layer.inputs);
    match layer.algo {
        QuantAlgo::Fp8 => {
            let scale = fp8_scale(layer.weight_amax[0]);
            let mut quotients: Vec<f32> = layer.weight.iter().map(|w| w / scale).collect();
            round_to(layer.dtype, &mut quotients); // a scalar does not widen the type of the weight
            add("weight", e4m3(vec![outputs, inputs], quotients.into_iter()));
            add("weight_scale", Tensor::scalar(scale));
        }
        QuantAlgo::Fp8PerChannelPerToken => {
            let scales: Vec<f32> = layer.weight_amax.iter().map(|amax| fp8_scale(*amax)).collect();
            add("weight", e4m3(vec![outputs, inputs], by_rows(layer, &scales)));
            add("weight_scale", Tensor::from_f32(Dtype::F32, vec![outputs], &scales));
        }
        QuantAlgo::Fp8Blocks => {
            let (block, columns) = (layer.block, inputs.div_ceil(layer.block));
            let scales: Vec<f32> = layer.weight_amax.iter().map(|amax| fp8_scale(*amax)).collect();
            let scale = |i: usize| scales[i / inputs / block * columns + i % inputs / block];
            let quotients = layer.weight.iter().enumerate().map(|(i, w)| w / scale(i));
            add("weight", e4m3(vec![outputs, inputs], quotients));
            add(
                "weight_scale",
                match scales[..] {
                    [scale] => Tensor::scalar(scale),
                    _ => Tensor::from_f32(Dtype::F32, vec![outputs.div_ceil(block), 1, columns, 1], &scales),
                },
            );
        }
        QuantAlgo::Int8SmoothQuant | QuantAlgo::Int8WeightOnly => {
            let scales: Vec<f32> = layer.weight_amax.iter().map(|amax| amax / 127.0).collect();
            let codes = by_rows(layer, &scales).map(|q| round_half_to_even(q).clamp(-128.0, 127.0) as i8 as u8);
            add("weight", Tensor::new(Dtype::I8, vec![outputs, inputs], codes.collect()));
            add("weight_scale", Tensor::from_f32(Dtype::F32, vec![outputs], &scales));
        }
        QuantAlgo::Int4Awq | QuantAlgo::W4A8Awq => {
            let blocks = inputs / layer.block;
            let scales: Vec<f32> = layer.weight_amax.iter().map(|amax| amax / 7.0).collect();
            let code = |i: usize| {
                let q = layer.weight[i] / scales[i / inputs * blocks + i % inputs / layer.block];
                round_half_to_even(q).clamp(-8.0, 7.0) as i8 as u8 & 15
            };
            let pairs = (0..outputs / 2 * inputs).map(|i| (i / inputs * 2 * inputs) + i % inputs);
            let bytes = pairs.map(|i| code(i) | code(i + inputs) << 4).collect();
            add("weight", Tensor::new(Dtype::U8, vec![outputs / 2, inputs], bytes));
            add("weight_scale", Tensor::from_f32(Dtype::F32, vec![outputs, blocks], &scales));
            if let Some(amax) = layer.second_amax {
                add("weight_scale_2", Tensor::scalar(amax / 448.0));
            }
        }
        algo if algo.is_nvfp4() => {
            let (scales, codes, tensor_scale) = nvfp4(layer);
            add("weight", Tensor::new(Dtype::U8, vec![outputs, inputs / 2], pairs(&codes)));
            add("weight_scale", Tensor::new(Dtype::F8E4M3, vec![outputs, inputs / layer.block], scales));
            add("weight_scale_2", Tensor::scalar(tensor_scale));
        }
        algo => {
            let (scales, codes) = mx(layer);
            let (dtype, columns, codes) = match algo {
                QuantAlgo::Mxfp8 => (Dtype::F8E4M3, inputs, codes),
                _ => (Dtype::U8, inputs / 2, pairs(&codes)),
            };
            add("weight", Tensor::new(dtype, vec![outputs, columns], codes));
            add("weight_scale", Tensor::new(Dtype::U8, vec![outputs, inputs / layer.block], scales));
        }
    }
    if let (Some(amax), Some(max)) = (layer.input_amax, layer.algo.input_max()) {
        add("input_scale", Tensor::scalar(amax / max));
    }
    if let Some(scale) = &layer.pre_quant_scale {
        add("pre_quant_scale", Tensor::from_f32(layer.dtype, vec![inputs], scale));
    }
    if let Some(branch) = &layer.low_rank {
        let (down, up) = (vec![branch.rank, inputs], vec![outputs, branch.rank]);
        add("weight_quantizer._svdquant_lora_a", Tensor::from_f32(layer.dtype, down, &branch.down));
        add("weight_quantizer._svdquant_lora_b", Tensor::from_f32(layer.dtype, up, &branch.up));
    }
    if let Some(bias) = &layer.bias {
        add("bias", Tensor::from_f32(layer.dtype, vec![outputs], bias));
    }
    Ok(tensors)
}

/// Returns the tensors of keys or values that are quantized: `k_scale`, `k_bias`, `v_scale`, `v_bias`.
///
/// `name` is that of the projection, `heads` the number of its heads.
pub fn kv_tensors(name: &str, quantizer: &KvQuantizer, heads: usize) -> Vec<(String, Tensor)> {
    let kind = if name.ends_with("v_proj") { 'v' } else { 'k' };
    let mut tensors = vec![(format!("{name}.{kind}_scale"), Tensor::scalar(quantizer.scale))];
    if let Some(bias) = &quantizer.bias {
        let shape = vec![1, heads, 1, bias.len() / heads.max(1)];
        tensors.push((format!("{name}.{kind}_bias"), Tensor::from_f32(Dtype::F32, shape, bias)));
    }
    tensors
}

impl KvAlgo {
    /// Returns what keys and values are rounded to.
    ///
    /// E4M3, or E2M1 for NVFP4.
    pub fn element(self) -> Minifloat {
        match self {
            KvAlgo::Fp8 => Minifloat::E4M3,
            KvAlgo::Nvfp4 | KvAlgo::Nvfp4Affine => Minifloat::E2M1,
        }
    }
}

/// Whether a format can hold a layer.
pub(super) fn check(layer: &LinearState) -> Result<(), NotExportable> {
    let (algo, block) = (layer.algo, layer.block);
    if let Some(found) = layer.weight.iter().find(|w| !w.is_finite()) {
        return Err(NotExportable::NotANumber { what: "an element of the weight", found: *found });
    }
    let blocks = algo.is_nvfp4() || algo.is_mx() || layer.has_row_blocks();
    if blocks && (block == 0 || (!layer.has_row_blocks() && !layer.inputs.is_multiple_of(block))) {
        return Err(NotExportable::Ragged { axis: "inputs", len: layer.inputs, block });
    }
    let nibbles = algo.is_nvfp4() || matches!(algo, QuantAlgo::Mxfp4 | QuantAlgo::W4A8Mxfp4Fp8);
    if nibbles && !layer.inputs.is_multiple_of(2) {
        return Err(NotExportable::Ragged { axis: "inputs", len: layer.inputs, block: 2 });
    }
    let per_block = if blocks { layer.outputs * layer.inputs.div_ceil(block) } else { 0 };
    let ranges = match algo {
        QuantAlgo::Fp8 => 1,
        QuantAlgo::Fp8PerChannelPerToken | QuantAlgo::Int8SmoothQuant | QuantAlgo::Int8WeightOnly => layer.outputs,
        QuantAlgo::Fp8Blocks if block == 0 => return Err(NotExportable::Block { found: 0, expected: "128" }),
        QuantAlgo::Fp8Blocks => layer.outputs.div_ceil(block) * layer.inputs.div_ceil(block),
        _ if layer.has_row_blocks() => per_block,
        QuantAlgo::IntWeightOnly { .. } | QuantAlgo::IntPerToken { .. } => layer.outputs,
        algo if algo.is_mx() => layer.weight_amax.len(),
        _ if layer.global_amax.is_some() => per_block,
        _ => 1,
    };
    if layer.weight_amax.len() != ranges {
        return Err(NotExportable::Uncalibrated { quantizer: "weight_quantizer" });
    }
    let is_dynamic = algo == QuantAlgo::W4A8Mxfp4Fp8; // it may be
    if algo.input_max().is_some() && layer.input_amax.is_none() && !is_dynamic {
        return Err(NotExportable::Uncalibrated { quantizer: "input_quantizer" });
    }
    if algo == QuantAlgo::W4A8Awq && layer.second_amax.is_none() {
        return Err(NotExportable::Uncalibrated { quantizer: "weight_quantizer.1" });
    }
    let all = layer.weight_amax.iter().chain(&layer.input_amax).chain(&layer.second_amax).chain(&layer.global_amax);
    match all.into_iter().find(|amax| !amax.is_finite() || **amax < 0.0) {
        Some(found) => Err(NotExportable::NotANumber { what: "a range", found: *found }),
        None => Ok(()),
    }
}

/// The scale of FP8 weights; that of zeros alone is 1, as nothing can be divided by zero.
fn fp8_scale(amax: f32) -> f32 {
    if amax == 0.0 { 1.0 } else { amax / 448.0 }
}

/// Each element by the scale of its row.
fn by_rows<'a>(layer: &'a LinearState, scales: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
    layer
        .weight
        .chunks_exact(layer.inputs.max(1))
        .zip(scales)
        .flat_map(|(row, scale)| row.iter().map(move |w| w / scale))
}

fn e4m3(shape: Vec<usize>, values: impl Iterator<Item = f32>) -> Tensor {
    Tensor::new(Dtype::F8E4M3, shape, values.map(|x| Minifloat::E4M3.encode(x)).collect())
}

/// Two codes a byte, the first in the low nibble.
fn pairs(codes: &[u8]) -> Vec<u8> {
    codes.as_chunks::<2>().0.iter().map(|[low, high]| low | high << 4).collect()
}

fn amax(values: &[f32]) -> f32 {
    values.iter().fold(0.0, |most: f32, x| most.max(x.abs()))
}

/// Scales in E4M3, codes, and the scale of the tensor.
fn nvfp4(layer: &LinearState) -> (Vec<u8>, Vec<u8>, f32) {
    let e4m3 = Minifloat::E4M3;
    let most = if layer.algo == QuantAlgo::W4A8Nvfp4Fp8 { 448.0 } else { 6.0 * 448.0 };
    let tensor_scale = layer.global_amax.unwrap_or_else(|| layer.weight_amax[0]) / most;
    let (mut scales, mut codes) = (Vec::new(), Vec::with_capacity(layer.weight.len()));
    for (i, block) in layer.weight.chunks_exact(layer.block).enumerate() {
        let one_for_zero = |scale: f32| if scale == 0.0 { 1.0 } else { scale };
        let scale = match layer.global_amax {
            None => one_for_zero(amax(block) / (6.0 * tensor_scale)),
            Some(global) => one_for_zero(layer.weight_amax[i] / 6.0) * 448.0 / (global / 6.0),
        };
        let code = e4m3.encode(scale.clamp(f32::from_bits(0x3b00_0000), 448.0)); // from 2^-9, the least E4M3 number
        let scale = e4m3.decode(code) * tensor_scale;
        scales.push(code);
        codes.extend(block.iter().map(|w| e2m1(w / scale, w / scale < 0.0)));
    }
    (scales, codes, tensor_scale)
}

/// The nearest E2M1 number, ties to even, with a sign bit of its own.
fn e2m1(x: f32, negative: bool) -> u8 {
    Minifloat::E2M1.encode(x.abs()) | u8::from(negative) << 3
}

/// Powers of two with bias 127, and codes.
fn mx(layer: &LinearState) -> (Vec<u8>, Vec<u8>) {
    let max = if layer.algo == QuantAlgo::Mxfp8 { 448.0 } else { 6.0 };
    let (mut scales, mut codes) = (Vec::new(), Vec::with_capacity(layer.weight.len()));
    for block in layer.weight.chunks_exact(layer.block) {
        // the logarithm is rounded to f32 before it is rounded up; that of zero is the lowest
        let exponent = f64::from(amax(block) / max).log2() as f32;
        let exponent = exponent.max(-127.0).ceil().min(127.0);
        scales.push((exponent + 127.0) as u8);
        let factor = (-exponent).exp2();
        codes.extend(block.iter().map(|w| match layer.algo {
            QuantAlgo::Mxfp8 => Minifloat::E4M3.encode((w * factor).clamp(-448.0, 448.0)),
            _ => e2m1_towards_zero(w / exponent.exp2()),
        }));
    }
    (scales, codes)
}

/// The nearest E2M1 number, ties towards zero; zero has the sign bit.
fn e2m1_towards_zero(x: f32) -> u8 {
    const BOUNDS: [f32; 7] = [0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0];
    let code = BOUNDS.iter().filter(|bound| x.abs() > **bound).count() as u8;
    code | u8::from(x <= 0.0) << 3
}
