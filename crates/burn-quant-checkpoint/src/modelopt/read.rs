//! A layer of a folder as codes and scales.

use std::collections::BTreeMap;

use burn_quant_numerics::{E8m0, Minifloat, round_half_to_even};

use super::config::LayerAlgo;
use super::pack::check;
use super::{KvAlgo, LinearState, QuantAlgo, pack};
use crate::{
    CheckpointError, Dtype, Element, Folder, Inputs, KvQuantizer, LowRank, Offset, QuantizedLayer, QuantizedMatrix,
    ScaleKind, Tensor,
};

/// Reads a quantized layer: its codes and scales, exactly.
///
/// Values of its weight are f32, whatever the type of the model.
///
/// # Errors
///
/// [`CheckpointError::Missing`], [`CheckpointError::Dtype`] and [`CheckpointError::Shape`] if its tensors are not those
/// of its format, [`CheckpointError::Value`] if a scale is not a number.
pub fn layer(folder: &Folder, layer: &LayerAlgo) -> Result<QuantizedLayer, CheckpointError> {
    read(&Reader { find: &|name| folder.find(name), name: &layer.name }, layer.algo)
}

/// Packs a layer, and returns its codes and scales.
///
/// What a folder with the tensors of [`pack`] means.
///
/// # Errors
///
/// Those of [`pack`].
pub fn quantized(name: &str, state: &LinearState) -> Result<QuantizedLayer, CheckpointError> {
    if state.algo == QuantAlgo::Mxfp4WeightOnly {
        let layer = quantized(name, &LinearState { algo: QuantAlgo::Mxfp4, ..state.clone() })?;
        return Ok(QuantizedLayer { inputs: Inputs::Float, ..layer });
    }
    // a last block may be shorter, but in ModelOpt's own folders
    if !state.algo.is_modelopt() || state.algo == QuantAlgo::Int4Awq {
        return integers(name, state);
    }
    let tensors = BTreeMap::from_iter(pack(name, state)?);
    let layer = read(&Reader { find: &|name| Ok(tensors.get(name).cloned()), name }, state.algo)?;
    Ok(QuantizedLayer { weight: QuantizedMatrix { dtype: state.dtype, ..layer.weight }, ..layer })
}

/// `q = rne(w / s)` with `s = amax / (2^(bits − 1) − 1)`, of each output or block.
fn integers(name: &str, state: &LinearState) -> Result<QuantizedLayer, CheckpointError> {
    check(state).map_err(|reason| CheckpointError::NotExportable {
        name: name.into(),
        format: state.algo.name(),
        reason,
    })?;
    let bits = state.algo.element().bits();
    let most = ((1u32 << (bits - 1)) - 1) as f32;
    let scales: Vec<f32> = state.weight_amax.iter().map(|amax| amax / most).collect();
    let block = if state.block == 0 { state.inputs.max(1) } else { state.block };
    let code = |w: &f32, scale: f32| {
        let q = if scale == 0.0 { 0.0 } else { round_half_to_even(w / scale) };
        q.clamp(-most - 1.0, most) as i8 as u8
    };
    let blocks = state.weight.chunks_exact(state.inputs.max(1)).flat_map(|row| row.chunks(block));
    let codes = blocks.zip(&scales).flat_map(|(block, scale)| block.iter().map(move |w| code(w, *scale))).collect();
    let weight = QuantizedMatrix {
        outputs: state.outputs,
        inputs: state.inputs,
        element: state.algo.element(),
        codes,
        block_outputs: 1,
        block_inputs: block,
        scales,
        scale_kind: ScaleKind::Float,
        offset: Offset::None,
        then_e4m3: None,
        dtype: state.dtype,
    };
    let inputs = match state.algo {
        QuantAlgo::IntPerToken { .. } => Inputs::PerToken { element: Element::Int(8) },
        _ => Inputs::Float,
    };
    let (pre_quant_scale, low_rank) = (state.pre_quant_scale.clone(), state.low_rank.clone());
    Ok(QuantizedLayer { weight, inputs, pre_quant_scale, low_rank })
}

fn read(reader: &Reader<'_>, algo: QuantAlgo) -> Result<QuantizedLayer, CheckpointError> {
    let stored = reader.tensor("weight")?;
    let expected = match algo {
        QuantAlgo::Int8SmoothQuant | QuantAlgo::Int8WeightOnly => Dtype::I8,
        _ if algo.element() == Element::Float(Minifloat::E4M3) => Dtype::F8E4M3,
        _ => Dtype::U8,
    };
    if stored.dtype() != expected {
        let expected = match expected {
            Dtype::I8 => "I8",
            Dtype::U8 => "U8",
            _ => "F8_E4M3",
        };
        return Err(CheckpointError::Dtype { name: reader.named("weight"), expected, found: stored.dtype() });
    }
    let &[rows, columns] = stored.shape() else {
        return Err(CheckpointError::Shape {
            name: reader.named("weight"),
            expected: "two axes".into(),
            found: stored.shape().to_vec(),
        });
    };
    let is_int4 = matches!(algo, QuantAlgo::Int4Awq | QuantAlgo::W4A8Awq);
    let nibbles = algo.element() == Element::Float(Minifloat::E2M1);
    let [outputs, inputs] = [if is_int4 { rows * 2 } else { rows }, if nibbles { columns * 2 } else { columns }];
    let codes = match (is_int4, nibbles) {
        (true, _) => int4(stored.bytes(), columns),
        (_, true) => stored.bytes().iter().flat_map(|byte| [byte & 15, byte >> 4]).collect(),
        _ => stored.into_bytes(),
    };
    let (scales, kind, [block_outputs, block_inputs]) = scales(reader, algo, [outputs, inputs])?;
    if let Some(found) = scales.iter().find(|scale| !scale.is_finite()) {
        return Err(reader.not_a_number("weight_scale", *found));
    }
    let weight = QuantizedMatrix {
        outputs,
        inputs,
        element: algo.element(),
        codes,
        block_outputs,
        block_inputs,
        scales,
        scale_kind: kind,
        offset: Offset::None,
        then_e4m3: match algo {
            QuantAlgo::W4A8Awq => Some(reader.scale("weight_scale_2")?),
            _ => None,
        },
        dtype: Dtype::F32,
    };
    let e4m3 = Element::Float(Minifloat::E4M3);
    let quantized_inputs = match algo {
        QuantAlgo::W4A8Mxfp4Fp8 if reader.find("input_scale")?.is_none() => Inputs::Dynamic { element: e4m3 },
        QuantAlgo::Fp8 | QuantAlgo::W4A8Awq | QuantAlgo::W4A8Nvfp4Fp8 | QuantAlgo::W4A8Mxfp4Fp8 => {
            Inputs::Static { element: e4m3, scale: reader.scale("input_scale")? }
        }
        QuantAlgo::Int8SmoothQuant => Inputs::Static { element: Element::Int(8), scale: reader.scale("input_scale")? },
        QuantAlgo::Nvfp4 | QuantAlgo::Nvfp4Awq | QuantAlgo::Nvfp4Svd => {
            Inputs::Nvfp4 { tensor_scale: reader.scale("input_scale")? }
        }
        QuantAlgo::Fp8PerChannelPerToken => Inputs::PerToken { element: e4m3 },
        QuantAlgo::Mxfp8 | QuantAlgo::Mxfp4 => Inputs::Mx { element: algo.element(), block: 32 },
        _ => Inputs::Float,
    };
    let low_rank = match reader.find("weight_quantizer._svdquant_lora_a")? {
        None => None,
        Some(down) => {
            let rank = down.shape().first().copied().unwrap_or(0);
            let down = reader.floats("weight_quantizer._svdquant_lora_a", down, &[rank, inputs])?;
            let up = reader.tensor("weight_quantizer._svdquant_lora_b")?;
            let up = reader.floats("weight_quantizer._svdquant_lora_b", up, &[outputs, rank])?;
            Some(LowRank { rank, down, up })
        }
    };
    let pre_quant_scale = match reader.find("pre_quant_scale")? {
        None => None,
        Some(scale) => Some(reader.floats("pre_quant_scale", scale, &[inputs])?),
    };
    Ok(QuantizedLayer { weight, inputs: quantized_inputs, pre_quant_scale, low_rank })
}

/// Reads what is done to keys or values: `name` is that of their projection, `…k_proj` or `…v_proj`.
///
/// `None` if the folder has no scale of it.
///
/// # Errors
///
/// [`CheckpointError::Shape`] and [`CheckpointError::Dtype`] if the scale is not one float.
pub fn kv(folder: &Folder, name: &str, algo: KvAlgo) -> Result<Option<KvQuantizer>, CheckpointError> {
    let reader = Reader { find: &|name| folder.find(name), name };
    let kind = if name.ends_with("v_proj") { "v" } else { "k" };
    let scale = format!("{kind}_scale");
    if reader.find(&scale)?.is_none() {
        return Ok(None);
    }
    let bias = format!("{kind}_bias");
    let bias = match reader.find(&bias)? {
        None => None,
        Some(tensor) => Some(tensor.to_f32(&reader.named(&bias))?),
    };
    Ok(Some(KvQuantizer { element: Element::Float(algo.element()), scale: reader.scale(&scale)?, bias }))
}

/// The tensors of a layer.
struct Reader<'a> {
    find: &'a dyn Fn(&str) -> Result<Option<Tensor>, CheckpointError>,
    name: &'a str,
}

impl Reader<'_> {
    fn named(&self, suffix: &str) -> String {
        format!("{}.{suffix}", self.name)
    }

    fn tensor(&self, suffix: &str) -> Result<Tensor, CheckpointError> {
        let name = self.named(suffix);
        (self.find)(&name)?.ok_or(CheckpointError::Missing { name, near_misses: Vec::new() })
    }

    fn find(&self, suffix: &str) -> Result<Option<Tensor>, CheckpointError> {
        (self.find)(&self.named(suffix))
    }

    fn scale(&self, suffix: &str) -> Result<f32, CheckpointError> {
        let scale = self.tensor(suffix)?.to_scalar(&self.named(suffix))?;
        if scale.is_finite() { Ok(scale) } else { Err(self.not_a_number(suffix, scale)) }
    }

    fn not_a_number(&self, suffix: &str, found: f32) -> CheckpointError {
        CheckpointError::Value { key: self.named(suffix), expected: "a finite number", found: found.to_string() }
    }

    fn floats(&self, suffix: &str, tensor: Tensor, shape: &[usize]) -> Result<Vec<f32>, CheckpointError> {
        self.shaped(suffix, &tensor, shape)?;
        tensor.to_f32(&self.named(suffix))
    }

    fn shaped(&self, suffix: &str, tensor: &Tensor, shape: &[usize]) -> Result<(), CheckpointError> {
        if tensor.shape() == shape {
            return Ok(());
        }
        let (expected, found) = (format!("{shape:?}"), tensor.shape().to_vec());
        Err(CheckpointError::Shape { name: self.named(suffix), expected, found })
    }

    /// A tensor of scales `[outputs, blocks]` of bytes, and the inputs of a block.
    fn bytes(&self, dtype: Dtype, [outputs, inputs]: [usize; 2]) -> Result<(Vec<u8>, usize), CheckpointError> {
        let (suffix, scales) = ("weight_scale", self.tensor("weight_scale")?);
        if scales.dtype() != dtype {
            let expected = if dtype == Dtype::U8 { "U8" } else { "F8_E4M3" };
            return Err(CheckpointError::Dtype { name: self.named(suffix), expected, found: scales.dtype() });
        }
        let block = self.block(suffix, &scales, [outputs, inputs])?;
        Ok((scales.into_bytes(), block))
    }

    /// The inputs of a block, if scales are `[outputs, blocks]` and blocks divide the inputs.
    fn block(&self, suffix: &str, scales: &Tensor, [outputs, inputs]: [usize; 2]) -> Result<usize, CheckpointError> {
        match *scales.shape() {
            [rows, blocks] if rows == outputs && blocks > 0 && inputs.is_multiple_of(blocks) => Ok(inputs / blocks),
            _ => Err(CheckpointError::Shape {
                name: self.named(suffix),
                expected: format!("[{outputs}, a number that divides {inputs}]"),
                found: scales.shape().to_vec(),
            }),
        }
    }
}

/// Scales in f32, how they are stored, and the shape of a block.
type Scales = (Vec<f32>, ScaleKind, [usize; 2]);

fn scales(reader: &Reader<'_>, algo: QuantAlgo, [outputs, inputs]: [usize; 2]) -> Result<Scales, CheckpointError> {
    let suffix = "weight_scale";
    Ok(match algo {
        QuantAlgo::Fp8 => (vec![reader.scale(suffix)?], ScaleKind::Float, [outputs.max(1), inputs.max(1)]),
        QuantAlgo::Fp8PerChannelPerToken | QuantAlgo::Int8SmoothQuant | QuantAlgo::Int8WeightOnly => {
            let scales = reader.floats(suffix, reader.tensor(suffix)?, &[outputs])?;
            (scales, ScaleKind::Float, [1, inputs.max(1)])
        }
        QuantAlgo::Fp8Blocks => {
            const BLOCK: usize = 128;
            let scales = reader.tensor(suffix)?;
            if scales.shape().is_empty() {
                return Ok((vec![reader.scale(suffix)?], ScaleKind::Float, [outputs.max(1), inputs.max(1)]));
            }
            let shape = [outputs.div_ceil(BLOCK), 1, inputs.div_ceil(BLOCK), 1];
            (reader.floats(suffix, scales, &shape)?, ScaleKind::Float, [BLOCK, BLOCK])
        }
        QuantAlgo::Int4Awq | QuantAlgo::W4A8Awq => {
            let scales = reader.tensor(suffix)?;
            let block = reader.block(suffix, &scales, [outputs, inputs])?;
            (scales.to_f32(&reader.named(suffix))?, ScaleKind::Float, [1, block])
        }
        _ if algo.is_nvfp4() => {
            let (codes, block) = reader.bytes(Dtype::F8E4M3, [outputs, inputs])?;
            let tensor_scale = reader.scale("weight_scale_2")?;
            let scales = codes.iter().map(|code| Minifloat::E4M3.decode(*code) * tensor_scale).collect();
            (scales, ScaleKind::E4M3 { codes, tensor_scale }, [1, block])
        }
        _ => {
            let (bytes, block) = reader.bytes(Dtype::U8, [outputs, inputs])?;
            let scales = bytes.iter().map(|byte| E8m0::from_byte(*byte).value()).collect();
            (scales, ScaleKind::E8M0(bytes), [1, block])
        }
    })
}

/// Codes of two rows a byte, as `i8` each.
fn int4(bytes: &[u8], columns: usize) -> Vec<u8> {
    let signed = |nibble: u8| ((nibble << 4) as i8 >> 4) as u8;
    let mut codes = Vec::with_capacity(bytes.len() * 2);
    for row in bytes.chunks_exact(columns.max(1)) {
        codes.extend(row.iter().map(|byte| signed(byte & 15)));
        codes.extend(row.iter().map(|byte| signed(byte >> 4)));
    }
    codes
}
