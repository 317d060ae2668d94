//! Packed models: the codes and scales of each layer, and the output.

use burn::tensor::{DType, Device};
use burn_quant::compress;
use burn_quant::compress::PackedWeight;
use burn_quant::config::{AxisGroups, Format, Granularity, Identity, ScaleFormat};
use burn_quant::search::SearchFormat;
use burn_quant::{Algorithm, Quantizers, TensorQuantizer, quantize};
use burn_quant_tests::compare::agrees;

use super::{Loader, Mlp, Network, Source};
use crate::index::{Case, Golden, Outcome, frobenius, values};
use crate::packed::Source as Packed;

pub(crate) fn run(golden: &Golden, case: &Case, device: &Device) -> Outcome {
    let model = case.config["model"].as_str().expect("a model");
    let float = golden.cases().iter().find(|other| other.name == format!("{model}_float"));
    let dtype = if case.other["dtype"] == "bf16" { DType::BF16 } else { DType::F32 };
    if !device.supports_dtype(dtype) {
        return Outcome::NotYet(format!("{dtype:?} on this device"));
    }
    let source = Source { golden, case: float.expect("the model in float"), device, dtype };
    check(&source, case).into()
}

fn check(source: &Source<'_>, case: &Case) -> Result<(), String> {
    case.expects_only(&["y", "y_fake_quant", "packed", "scale", "double_scale"])?;
    let (golden, device) = (source.golden, source.device);
    let preset = case.config["preset"].as_str().expect("a preset");
    let mut config = SearchFormat::preset(preset).map_err(|e| e.to_string())?.config;
    if let Algorithm::AwqLite { identity, .. } | Algorithm::AwqFull { identity, .. } = &mut config.algorithm {
        *identity = Identity::NotTried;
    }
    let sums = source.sums(false);
    let batches = source.batches::<Mlp>(device);
    let run = |model: &Mlp| batches.iter().for_each(|batch| drop(model.forward(batch.clone(), sums)));
    let (model, _) = quantize(Mlp::load(&Loader { source, device }), &config, run).map_err(|e| e.to_string())?;
    let (packed, _) = compress(model.clone()).map_err(|e| e.to_string())?;

    // what a mean of activations went into is equal but for the last place, where a code may flip
    let smoothed = ["awq", "smoothquant"].iter().any(|name| case.name.contains(name));
    let quantizers = (Quantizers::of(&model), Quantizers::of(&packed));
    for layer in case.expected.keys().filter_map(|key| key.strip_prefix("packed/")) {
        let name = format!("{layer}.weight_quantizer");
        let quantizer = quantizers.0.get(&name).map_err(|e| e.to_string())?;
        let held = quantizers.1.get(&name).ok().and_then(TensorQuantizer::packed).ok_or(format!("{layer}: floats"))?;
        check_layer(golden, case, layer, quantizer, held, &model.weight(layer), smoothed)?;
    }

    // The reference rounds scales of bf16 weights to bf16 when it packs them, and packs INT4 in blocks that run across
    // the ends of rows: what it then computes is not what it simulated. burn-quant's packed models do.
    let apart = case.other["max_abs_diff_to_fake_quant"].as_f64().expect("a distance");
    let expected = if apart < 1e-5 { "y" } else { "y_fake_quant" };
    let y = values(packed.forward(Mlp::input(source, "eval", device), sums));
    let float = golden.values(source.case, &source.case.expected["y"]);
    let expected = golden.values(case, &case.expected[expected]);
    // a scale of channels that differs in the last place of bf16 flips roundings everywhere: the output is then to be
    // as close to that of the float model as the reference's is, within a decibel
    let sqnr = |y: &[f32]| -20.0 * frobenius(y, &float).log10();
    let as_close = smoothed && source.dtype == DType::BF16 && (sqnr(&y) - sqnr(&expected)).abs() <= 1.0;
    agrees(&y, &expected, Some(&float), 1e-5).or_else(|why| if as_close { Ok(()) } else { Err(why) })
}

/// Our packing of the weight in the reference's layout gives its bytes; and so do the codes that the model multiplies.
fn check_layer(
    golden: &Golden,
    case: &Case,
    layer: &str,
    quantizer: &TensorQuantizer,
    held: &PackedWeight,
    weight: &(Vec<usize>, Vec<f32>),
    smoothed: bool,
) -> Result<(), String> {
    let (config, (shape, x)) = (quantizer.config(), weight.clone());
    let &[outputs, inputs] = shape.as_slice() else { return Err(format!("{layer}: {shape:?}")) };
    let axes = match config.granularity {
        Granularity::PerChannel => [AxisGroups::Each, AxisGroups::Whole],
        Granularity::Block { size } => [AxisGroups::Each, AxisGroups::Blocks(size)],
        Granularity::Block2d { rows, cols } => [AxisGroups::Blocks(rows), AxisGroups::Blocks(cols)],
        _ => [AxisGroups::Whole, AxisGroups::Whole],
    };
    let layer = format!("/{layer}");
    let source =
        Packed { golden, case, layer: layer.clone(), shape, x, bf16: case.other["dtype"] == "bf16", axes: Some(axes) };
    let int = |bits: u8| config.format.bits() == bits && matches!(config.format, Format::Int(_));
    let (packed, nibbles) = match (config.format, config.scale) {
        _ if int(8) => (source.bytes("int8"), None),
        _ if int(4) => (source.int4(), Some(4)),
        (Format::E2M1, ScaleFormat::E8M0) => (source.mxfp4(), Some(0)),
        (Format::E2M1, _) => (source.nvfp4(), Some(0)),
        (Format::E4M3, ScaleFormat::E8M0) => (source.mxfp8(), None),
        _ => (source.bytes("fp8_e4m3"), None),
    };
    if !smoothed {
        packed.map_err(|why| format!("{layer}: {why}"))?;
    }
    // INT4 of rows shorter than a block, scales of bf16, and ties of MXFP4, which the reference rounds towards zero
    let differs = (int(4) && !inputs.is_multiple_of(128)) || source.bf16 || config.scale == ScaleFormat::E8M0;
    if differs {
        return Ok(());
    }
    let expected = source.expected_bytes("packed");
    let codes = held.packed().codes();
    let code = |output: usize, input: usize| codes[input * outputs + output];
    let byte = |i: usize| match nibbles {
        None if int(8) => code(i / inputs, i % inputs).wrapping_sub(128),
        None => code(i / inputs, i % inputs),
        Some(high) => {
            let (output, input) = (2 * i / inputs, 2 * i % inputs);
            (code(output, input) << high) | (code(output, input + 1) << (4 - high))
        }
    };
    // zero has no sign in ours
    let nibble = |nibble: u8| if nibble == 8 { 0 } else { nibble };
    let signless = |byte: u8| match (nibbles, byte) {
        (Some(0), byte) => nibble(byte & 15) | (nibble(byte >> 4) << 4),
        (None, 0x80) if !int(8) => 0,
        _ => byte,
    };
    // the reference shrinks the weights of a dead channel to nothing, burn-quant leaves them
    let is_dead =
        |input: usize| int(8) && smoothed && (0..outputs).all(|output| expected[output * inputs + input] == 0);
    let differs = |i: &usize| signless(expected[*i]) != signless(byte(*i)) && !is_dead(*i % inputs);
    let others = (0..expected.len()).filter(differs).count();
    let allowed = if smoothed { expected.len() / 100 } else { 0 };
    if others > allowed {
        return Err(format!("{layer}: {others} of {} bytes of codes are others", expected.len()));
    }
    Ok(())
}
