//! Folders that ModelOpt wrote, made by our own calibration of the float model on the reference's data.

use burn::tensor::{DType, Device};
use burn_quant::{QuantConfig, Rule, quantize};
use burn_quant_checkpoint::Folder;
use burn_quant_checkpoint::modelopt::QuantAlgo;
use burn_quant_llm::{Decoder, ExportState, Target, recipe_for};

use super::index::{Checkpoints, Entry, Tensors};

/// What the float model becomes by the entry's recipe, and how it differs from ModelOpt's.
pub(crate) fn run(
    checkpoints: &Checkpoints,
    entry: &Entry,
    folder: &Folder,
    reference: &Tensors,
    device: &Device,
) -> Vec<String> {
    let json = entry.more["config"].to_string();
    let config = match QuantConfig::from_modelopt_json(&json) {
        Ok(config) => config,
        Err(error) => return vec![format!("its recipe is not read: {error}")],
    };
    // the index leaves out what the recipes switch off
    let off = ["*lm_head*", "*embed_tokens*", "*mlp.gate.*"];
    let config = off.iter().fold(config, |config, name| config.with_rule(Rule::disable(*name).optional()));
    let (_place, float) = checkpoints.folder(&format!("models/{}", entry.model));
    let dtype = match float.config()["dtype"].as_str() {
        Some("bfloat16") => DType::BF16,
        _ => DType::F32,
    };
    let decoder = Decoder::load_as(&float, dtype, device).expect("the float model is loaded");
    // in a mixture ModelOpt smooths attention only
    let config = recipe_for(config, decoder.config(), Target::ModelOpt);
    let batches = checkpoints.calibration(device);
    let calibrated = quantize(decoder, &config, |decoder| {
        batches.iter().for_each(|batch| drop(decoder.forward(batch.clone(), &mut decoder.cache())));
    });
    let state = match calibrated
        .map_err(|e| e.to_string())
        .and_then(|(decoder, _)| ExportState::of(&decoder).map_err(|e| e.to_string()))
    {
        Ok(state) => state,
        Err(error) => return vec![format!("it is not calibrated: {error}")],
    };
    // Losses of a search are rounded to bf16 by the reference, so that it takes other exponents than a search in f32:
    // scales of inputs, and all that depends on them, are not compared.
    let searched = state.layers.values().any(|layer| layer.pre_quant_scale.is_some()) && !json.contains("smoothquant");
    if searched && dtype == DType::BF16 {
        return Vec::new();
    }
    let mut problems = ranges(&state, entry, reference);
    let is_svd = state.layers.values().any(|layer| layer.algo == QuantAlgo::Nvfp4Svd);
    let place = tempfile::tempdir().expect("a temporary folder");
    match state.write_modelopt(&float, &place.path().join("out")) {
        Err(error) => problems.push(format!("own calibration is not written: {error}")),
        Ok(_) if is_svd => {} // factors are unique up to rotation only
        Ok(written) => {
            // scales of inputs in bf16 are equal to 2^-6, and codes follow them
            let share = if json.contains("smoothquant") && dtype == DType::BF16 { 0.98 } else { 0.999 };
            problems.extend(codes(folder, &Folder::open(written).expect("what is written is read"), share));
        }
    }
    problems
}

/// Ranges and scales of inputs against the recorded ones.
fn ranges(state: &ExportState, entry: &Entry, reference: &Tensors) -> Vec<String> {
    let bound = |name: &str| entry.tolerance(name).unwrap_or(0.0);
    let mut problems = Vec::new();
    for (key, tensor) in reference {
        let Some(name) = key.strip_prefix("calibrated/") else { continue };
        let expected = tensor.to_f32(key).expect("floats");
        let parts = [".input_quantizer.", ".weight_quantizer."];
        let layer_and_buffer = parts.iter().find_map(|part| {
            let (layer, buffer) = name.split_once(part)?;
            Some((layer, *part, buffer))
        });
        let (found, bound) = match layer_and_buffer {
            Some((layer, part, buffer)) => {
                let Some(linear) = state.layers.get(layer) else {
                    problems.push(format!("{key}: the layer is not quantized"));
                    continue;
                };
                match (part, buffer) {
                    (".input_quantizer.", "_amax") => {
                        (linear.input_amax.map(|amax| vec![amax]), bound("activation_amax_rel"))
                    }
                    (".input_quantizer.", "_pre_quant_scale") => {
                        (linear.pre_quant_scale.clone(), bound("pre_quant_scale_rel"))
                    }
                    (_, "_amax" | "0._amax") => (Some(linear.weight_amax.clone()), bound("weight_amax")),
                    (_, "1._amax") => (linear.second_amax.map(|amax| vec![amax]), bound("weight_amax")),
                    (_, "_global_amax") => (linear.global_amax.map(|amax| vec![amax]), bound("weight_amax")),
                    _ => continue, // factors of low rank are unique up to rotation
                }
            }
            None => match name.rsplit_once("_bmm_quantizer.") {
                Some((quantizer, buffer)) => {
                    let kv = state.kv.get(&format!("{quantizer}_proj"));
                    match buffer {
                        // ModelOpt subtracts the mean of the batches so far, and we that of all
                        "_amax" if kv.is_some_and(|kv| kv.bias.is_some()) => {
                            (kv.map(|kv| vec![kv.scale * 448.0]), 0.03)
                        }
                        "_amax" => (kv.map(|kv| vec![kv.scale * 448.0]), bound("activation_amax_rel").max(1e-6)),
                        _ => (kv.and_then(|kv| kv.bias.clone()), 1e-4),
                    }
                }
                None => continue, // fused experts: compared as codes and scales
            },
        };
        let largest = expected.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let close = |found: &[f32]| {
            let near = |a: &f32, b: &f32| f64::from((a - b).abs()) <= bound * f64::from(b.abs().max(largest * 1e-3));
            found.len() == expected.len() && found.iter().zip(&expected).all(|(a, b)| near(a, b))
        };
        match found {
            Some(found) if close(&found) => {}
            Some(found) if found.len() != expected.len() => {
                problems.push(format!("{key}: {} numbers, expected {}", found.len(), expected.len()));
            }
            Some(found) => {
                let relative = |(a, b): (&f32, &f32)| (a - b).abs() / b.abs().max(largest * 1e-3);
                let worst = found.iter().zip(&expected).map(relative).max_by(f32::total_cmp).unwrap_or(0.0);
                problems.push(format!("{key}: {worst:.1e} away, bound {bound:.0e}"));
            }
            None => problems.push(format!("{key}: not calibrated")),
        }
    }
    problems
}

/// Whether so many of the bytes of weights are equal.
fn codes(expected: &Folder, found: &Folder, share: f64) -> Vec<String> {
    let (mut equal, mut all) = (0, 0);
    for name in expected.names().filter(|name| name.ends_with(".weight")) {
        let (expected, found) = (expected.tensor(name).expect("a tensor"), found.tensor(name));
        let Ok(found) = found else { return vec![format!("{name} is not written")] };
        if expected.shape() != found.shape() || expected.dtype() != found.dtype() {
            return vec![format!("{name}: another shape or type")];
        }
        if !expected.dtype().is_float() {
            all += expected.bytes().len();
            equal += expected.bytes().iter().zip(found.bytes()).filter(|(a, b)| a == b).count();
        }
    }
    match equal as f64 >= share * all as f64 {
        true => Vec::new(),
        false => vec![format!("{equal} of {all} bytes of codes are equal by own calibration, fewer than {share}")],
    }
}
