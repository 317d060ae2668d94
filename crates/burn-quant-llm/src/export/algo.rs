//! Which of ModelOpt's formats the quantizers of a layer are.

use burn_quant::config::{BlockScale, Format, Granularity, RangeSource, Rounding, ScaleFormat};
use burn_quant::quantizer::Buffer;
use burn_quant::{QuantizerConfig, TensorQuantizer};
use burn_quant_checkpoint::modelopt::{LinearState, QuantAlgo};
use burn_quant_checkpoint::{Dtype, Element, NotExportable};

use super::{buffer, low_rank, refuse, transposed};
use crate::LlmError;

/// What is known of a layer's inputs.
enum Input {
    Float,
    Int8,
    Int8PerToken,
    Fp8,
    Fp8Dynamic,
    Fp8PerToken,
    Nvfp4,
    Mxfp8,
    Mxfp4,
    Other,
}

impl Input {
    fn of(quantizer: &TensorQuantizer) -> Self {
        let config = quantizer.config();
        let plain = config.bias.is_none() && config.rotation.is_none() && config.then.is_empty();
        let is_static = matches!(config.range, RangeSource::Static | RangeSource::Constant(_));
        let per_token = config.granularity == Granularity::PerToken && config.range == RangeSource::Dynamic;
        let blocks = |size| config.granularity == Granularity::Block { size };
        match (config.format, config.scale) {
            _ if !quantizer.is_enabled() => Input::Float,
            _ if !plain || config.rounding == Rounding::Off => Input::Other,
            (Format::Int(int), ScaleFormat::F32) if int.bits() == 8 && is_static && is_per_tensor(config) => {
                Input::Int8
            }
            (Format::Int(int), ScaleFormat::F32) if int.bits() == 8 && per_token => Input::Int8PerToken,
            (Format::E4M3, ScaleFormat::F32) if is_static && is_per_tensor(config) => Input::Fp8,
            (Format::E4M3, ScaleFormat::F32) if is_per_tensor(config) => Input::Fp8Dynamic,
            (Format::E4M3, ScaleFormat::F32) if per_token => Input::Fp8PerToken,
            (Format::E2M1, ScaleFormat::E4M3(BlockScale::Dynamic)) if is_static && blocks(16) => Input::Nvfp4,
            (Format::E4M3, ScaleFormat::E8M0) if blocks(32) => Input::Mxfp8,
            (Format::E2M1, ScaleFormat::E8M0) if blocks(32) => Input::Mxfp4,
            _ => Input::Other,
        }
    }
}

fn is_per_tensor(config: &QuantizerConfig) -> bool {
    config.granularity == Granularity::PerTensor
}

/// The format of a layer, and the elements of a block.
pub(super) fn algo(quantizer: &TensorQuantizer, input: &TensorQuantizer) -> Option<(QuantAlgo, usize)> {
    let config = quantizer.config();
    if config.bias.is_some() || config.rotation.is_some() || config.rounding == Rounding::Off {
        return None;
    }
    let block = match config.granularity {
        Granularity::Block { size } => Some(size),
        _ => None,
    };
    let scaled = input.buffer(Buffer::PreQuantScale).is_some();
    let branch = input.buffer(Buffer::LowRankDown).is_some();
    let by_channels = matches!(config.granularity, Granularity::PerChannel | Granularity::PerTensor);
    let to_input = Input::of(input);
    Some(match (config.format, config.scale, &config.then[..]) {
        (Format::Int(int), ScaleFormat::F32, [then]) if int.bits() == 4 => match to_input {
            Input::Fp8 if is_per_tensor(then) && then.format == Format::E4M3 => (QuantAlgo::W4A8Awq, block?),
            _ => return None,
        },
        (.., [_, ..]) => return None,
        (Format::Int(int), ScaleFormat::F32, _) if !branch && int.bits() <= 8 && (by_channels || block.is_some()) => {
            match (int.bits(), to_input) {
                (4, Input::Float) if block.is_some() => (QuantAlgo::Int4Awq, block?),
                (8, Input::Int8) if by_channels => (QuantAlgo::Int8SmoothQuant, 0),
                (8, Input::Float) if by_channels && !scaled => (QuantAlgo::Int8WeightOnly, 0),
                (bits, Input::Float) => (QuantAlgo::IntWeightOnly { bits }, block.unwrap_or(0)),
                (bits, Input::Int8PerToken) => (QuantAlgo::IntPerToken { bits }, block.unwrap_or(0)),
                _ => return None,
            }
        }
        (Format::E4M3, ScaleFormat::F32, _) if !scaled && !branch => match (to_input, &config.granularity) {
            (Input::Fp8, Granularity::PerTensor) => (QuantAlgo::Fp8, 0),
            (Input::Fp8PerToken, Granularity::PerChannel) => (QuantAlgo::Fp8PerChannelPerToken, 0),
            (Input::Float, Granularity::Block2d { rows: 128, cols: 128 }) => (QuantAlgo::Fp8Blocks, 128),
            _ => return None,
        },
        (Format::E4M3, ScaleFormat::E8M0, _) if block == Some(32) && !scaled && !branch => match to_input {
            Input::Mxfp8 => (QuantAlgo::Mxfp8, 32),
            _ => return None,
        },
        (Format::E2M1, ScaleFormat::E8M0, _) if block == Some(32) && !scaled && !branch => match to_input {
            Input::Mxfp4 => (QuantAlgo::Mxfp4, 32),
            Input::Float => (QuantAlgo::Mxfp4WeightOnly, 32),
            Input::Fp8 | Input::Fp8Dynamic => (QuantAlgo::W4A8Mxfp4Fp8, 32),
            _ => return None,
        },
        (Format::E2M1, ScaleFormat::E4M3(_), _) => match (to_input, branch, scaled) {
            (Input::Nvfp4, true, _) => (QuantAlgo::Nvfp4Svd, block?),
            (Input::Nvfp4, false, true) => (QuantAlgo::Nvfp4Awq, block?),
            (Input::Nvfp4, false, false) => (QuantAlgo::Nvfp4, block?),
            (Input::Float, false, false) => (QuantAlgo::W4A16Nvfp4, block?),
            (Input::Fp8, false, false) => (QuantAlgo::W4A8Nvfp4Fp8, block?),
            _ => return None,
        },
        _ => return None,
    })
}

/// The error of quantizers that no checkpoint has.
pub(super) fn unknown(name: &str, quantizer: &TensorQuantizer, input: &TensorQuantizer) -> LlmError {
    let inputs = if input.is_enabled() { input.config().kind() } else { "float".into() };
    let found =
        format!("{} weights ({:?}) with {inputs} inputs", quantizer.config().kind(), quantizer.config().granularity);
    let known = "the pairs of presets: integers with float or INT8 inputs, FP8, W4A8, NVFP4, MXFP8, MXFP4";
    refuse(name, NotExportable::Format { found, known })
}

/// A layer with its ranges, as ModelOpt has them: `weight` is `[outputs, inputs]`.
pub(super) fn state(
    name: &str,
    quantizer: &TensorQuantizer,
    input: &TensorQuantizer,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    [outputs, inputs]: [usize; 2],
    dtype: Dtype,
) -> Result<LinearState, LlmError> {
    let (algo, block) = algo(quantizer, input).ok_or_else(|| unknown(name, quantizer, input))?;
    // four over six leaves room for scales 1.5 times as large: under that of the tensor they end at 256, not at 448
    let room = |amax: f32| match quantizer.config().scale {
        ScaleFormat::E4M3(blocks) => amax * (BlockScale::Static.max() / blocks.max()),
        _ => amax,
    };
    let uncalibrated = |quantizer| refuse(name, NotExportable::Uncalibrated { quantizer });
    let range = |quantizer: &TensorQuantizer| match quantizer.config().range {
        RangeSource::Constant(amax) => Some(amax),
        _ => buffer(quantizer, Buffer::Amax).and_then(|amax| amax.first().copied()),
    };
    let kept = match quantizer.config().range {
        RangeSource::Constant(amax) => Some(vec![amax]),
        _ => buffer(quantizer, Buffer::Amax),
    };
    let kept = match (kept, quantizer.packed()) {
        (None, Some(packed)) => super::packed_ranges(packed),
        (kept, _) => kept,
    };
    let mut state = LinearState {
        algo,
        dtype,
        outputs,
        inputs,
        weight,
        bias,
        block,
        weight_amax: Vec::new(),
        global_amax: buffer(quantizer, Buffer::GlobalAmax).and_then(|amax| amax.first().copied()).map(room),
        second_amax: quantizer.stages("").nth(1).and_then(|(_, stage)| range(stage)),
        input_amax: algo.input_max().and_then(|_| range(input)),
        pre_quant_scale: buffer(input, Buffer::PreQuantScale),
        low_rank: low_rank(input, [outputs, inputs]),
    };
    if algo.is_mx() {
        return Ok(state);
    }
    let per_block = |rows: usize| inputs.div_ceil(block.max(1)) * rows;
    state.weight_amax = match (kept, quantizer.config().range) {
        (Some(amax), _) => match algo {
            algo if amax.len() == 1 && block == 0 && matches!(algo.element(), Element::Int(_)) => {
                vec![amax[0]; outputs]
            }
            QuantAlgo::Fp8Blocks => transposed(&amax, inputs.div_ceil(block), outputs.div_ceil(block)),
            _ if amax.len() == per_block(outputs) && amax.len() > 1 && block > 0 => {
                transposed(&amax, inputs.div_ceil(block), outputs)
            }
            _ => amax,
        },
        (None, RangeSource::Dynamic) => {
            // taken from the weight at every use, and so once here
            state.weight_amax =
                if quantizer.config().granularity == Granularity::PerTensor { vec![0.0] } else { Vec::new() };
            state.recalibrate();
            std::mem::take(&mut state.weight_amax)
        }
        (None, _) => return Err(uncalibrated("weight_quantizer")),
    };
    Ok(state)
}
