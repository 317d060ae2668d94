//! Folders that ModelOpt wrote: packed again from its own state, and what they mean when they are loaded.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{DType, Device};
use burn_quant::config::Format;
use burn_quant::{QuantizerConfig, Quantizers};
use burn_quant_checkpoint::modelopt::{Folding, LinearState, QuantAlgo};
use burn_quant_checkpoint::{Element, Folder, KvQuantizer, LowRank, Minifloat};
use burn_quant_llm::{Decoder, ExportState};
use serde_json::Value;

use super::calibration;
use super::index::{Checkpoints, Entry, Tensors, distance};

pub(crate) fn run(checkpoints: &Checkpoints, entry: &Entry, device: &Device) -> Vec<String> {
    let reference = checkpoints.file(entry.reference.as_ref().expect("an export has a reference"));
    let (_place, folder) = checkpoints.folder(&entry.path);
    let mut problems = meaning(checkpoints, entry, &folder, &reference, device);
    problems.extend(bytes(checkpoints, entry, &folder, &reference, device));
    if entry.more["config"].get("auto_quantize").is_none() {
        problems.extend(calibration::run(checkpoints, entry, &folder, &reference, device));
    }
    problems
}

/// What the folder computes when it is loaded.
fn meaning(
    checkpoints: &Checkpoints,
    entry: &Entry,
    folder: &Folder,
    reference: &Tensors,
    device: &Device,
) -> Vec<String> {
    // in the type in which the reference computes
    let dtype = match folder.config()["dtype"].as_str() {
        Some("bfloat16") => DType::BF16,
        _ => DType::F32,
    };
    let decoder = match Decoder::load_as(folder, dtype, device) {
        Ok(decoder) => decoder,
        Err(error) => return vec![format!("it is not loaded: {error}")],
    };
    let decoder = without_ignored_biases(decoder);
    let expected = reference.get("logits_prepared").unwrap_or_else(|| &reference["logits"]);
    let positions: Vec<usize> = entry.more["logits_positions"]
        .as_array()
        .expect("positions")
        .iter()
        .map(|position| position.as_u64().expect("a position") as usize)
        .collect();
    let logits = decoder.forward(checkpoints.evaluation(device), &mut decoder.cache());
    let [batch, tokens, vocabulary] = logits.dims();
    let logits: Vec<f32> = logits.cast(DType::F32).into_data().try_into_vec().expect("floats");
    let found: Vec<f32> = (0..batch)
        .flat_map(|b| positions.iter().map(move |t| (b * tokens + t) * vocabulary))
        .flat_map(|first| logits[first..first + vocabulary].to_vec())
        .collect();
    let far = distance(&found, &expected.to_f32("logits").expect("floats"));
    let bound = entry.tolerance("logits_rel_fro").expect("a bound");
    // ModelOpt's packing is not its simulation everywhere: W4A8_NVFP4_FP8 is simulated in blocks of 16 and written in
    // blocks of 32, and in bf16 quotients and ties are rounded otherwise. Such a folder is another model than that of
    // the recorded logits; its bytes are compared all the same.
    if entry.more["dequant_vs_fakequant"]["differ"].as_u64().expect("a number") > 0 {
        return Vec::new();
    }
    match far <= bound {
        true => Vec::new(),
        false => vec![format!("the loaded folder's logits are {far:.2e} away, bound {bound:.0e}")],
    }
}

/// ModelOpt calibrates the bias of keys and values in NVFP4, writes it, and ignores it in simulation: its logits are
/// those without.
fn without_ignored_biases(decoder: Decoder) -> Decoder {
    let mut quantizers = Quantizers::of(&decoder);
    for (name, quantizer) in quantizers.iter_mut() {
        if name.ends_with("_bmm_quantizer") && quantizer.config().format == Format::E2M1 && quantizer.is_enabled() {
            let amax = quantizer.amax();
            quantizer.set_config(QuantizerConfig::nvfp4());
            amax.into_iter().for_each(|amax| quantizer.set_amax(amax));
        }
    }
    quantizers.install(decoder).expect("they are the decoder's own")
}

/// The folder, written again from the float model and the recorded state.
fn bytes(
    checkpoints: &Checkpoints,
    entry: &Entry,
    folder: &Folder,
    reference: &Tensors,
    device: &Device,
) -> Vec<String> {
    let (_place, float) = checkpoints.folder(&format!("models/{}", entry.model));
    let decoder = Decoder::load(&float, device).expect("the float model is loaded");
    let decoder = if folder.has("lm_head.weight_scale") { decoder.untied() } else { decoder };
    let mut state = ExportState::of(&decoder).expect("a float model has a state");
    let unknown = recorded(&mut state, entry, folder, reference);
    let mut problems = Vec::new();
    let mut prepared = state.clone();
    if let Err(error) = prepared.prepare(Folding::AsModelOpt) {
        return vec![format!("it is not prepared: {error}")];
    }
    let is_svd = prepared.layers.values().any(|layer| layer.algo == QuantAlgo::Nvfp4Svd);
    if !is_svd {
        problems.extend(compare_prepared(&prepared, reference));
    }
    let place = tempfile::tempdir().expect("a temporary folder");
    let written = match state.write_modelopt(&float, &place.path().join("out")) {
        Ok(written) => Folder::open(written).expect("what is written is read"),
        Err(error) => return vec![format!("it is not written: {error}")],
    };
    problems.extend(compare_tensors(folder, &written, &unknown));
    for file in ["config.json", "hf_quant_config.json", "generation_config.json"] {
        let [expected, found] =
            [folder, &written].map(|folder| folder.json(file).expect("JSON").map(|it| norm(it, "")));
        if expected != found {
            let text = |value: Option<Value>| value.map_or("missing".into(), |value| value.to_string());
            problems.push(format!("{file} is {}, expected {}", text(found), text(expected)));
        }
    }
    problems
}

/// Puts ModelOpt's calibrated state into an export; layers whose weights are not recorded are returned.
fn recorded(state: &mut ExportState, entry: &Entry, folder: &Folder, reference: &Tensors) -> BTreeSet<String> {
    let quantization = burn_quant_checkpoint::modelopt::Quantization::of(folder).expect("a configuration");
    let quantization = quantization.expect("ModelOpt's configuration");
    let floats = |name: &str| reference.get(name).map(|tensor| tensor.to_f32(name).expect("floats"));
    let first = |name: &str| floats(name).map(|values| values[0]);
    let mut unknown = BTreeSet::new();
    let dtype = state.config.dtype;
    for layer in quantization.layers() {
        let name = &layer.name;
        let tensor = state.floats.remove(&format!("{name}.weight")).expect("the float model has the layer");
        let bias = state.floats.remove(&format!("{name}.bias")).map(|bias| bias.to_f32("bias").expect("floats"));
        state.unquantized.retain(|other| other != name);
        let (outputs, inputs) = (tensor.shape()[0], tensor.shape()[1]);
        let mut weight = tensor.to_f32(name).expect("floats");
        let is_svd = layer.algo == QuantAlgo::Nvfp4Svd;
        // the decomposition is not ours to repeat: what comes out of it is recorded for some layers
        let calibrated = |key: &str| {
            let prepared = format!("prepared/{name}.{key}");
            let key = format!("calibrated/{name}.{key}");
            if is_svd && reference.contains_key(&prepared) { prepared } else { key }
        };
        let scale = floats(&calibrated("input_quantizer._pre_quant_scale"));
        match floats(&format!("prepared_weight/{name}.weight")).filter(|_| is_svd) {
            Some(prepared) => weight = prepared,
            None if is_svd => drop(unknown.insert(name.clone())),
            None => {
                if let Some(scale) = &scale {
                    let factor = floats(&format!("weight_factor/{name}"));
                    let factor = factor.unwrap_or_else(|| scale.iter().map(|s| 1.0 / s).collect());
                    for row in weight.chunks_exact_mut(inputs) {
                        row.iter_mut().zip(&factor).for_each(|(w, f)| *w *= f);
                    }
                    dtype.round(&mut weight);
                }
            }
        }
        let amax = floats(&calibrated("weight_quantizer._amax"))
            .or_else(|| floats(&calibrated("weight_quantizer.0._amax")))
            .or_else(|| expert_amax(name, outputs, reference));
        let input_amax = first(&calibrated("input_quantizer._amax")).or_else(|| first(&expert_input(name)));
        let (down, up) =
            (calibrated("weight_quantizer._svdquant_lora_a"), calibrated("weight_quantizer._svdquant_lora_b"));
        let mut low_rank = reference.get(&down).map(|tensor| LowRank {
            rank: tensor.shape()[0],
            down: floats(&down).expect("a factor"),
            up: floats(&up).expect("a factor"),
        });
        if is_svd && low_rank.is_none() {
            low_rank = burn_quant_checkpoint::modelopt::layer(folder, layer).expect("a layer").low_rank;
        }
        let block = match layer.algo {
            QuantAlgo::Fp8Blocks => 128,
            algo if algo.is_mx() => 32,
            _ => layer.group_size.unwrap_or(0),
        };
        let mut linear = LinearState {
            algo: layer.algo,
            dtype,
            outputs,
            inputs,
            weight,
            bias,
            block,
            weight_amax: if layer.algo.is_mx() { Vec::new() } else { amax.unwrap_or_default() },
            global_amax: first(&calibrated("weight_quantizer._global_amax")),
            second_amax: first(&calibrated("weight_quantizer.1._amax")),
            input_amax: input_amax.filter(|_| layer.algo.input_max().is_some()),
            pre_quant_scale: scale,
            low_rank,
        };
        if linear.weight_amax.is_empty() {
            linear.recalibrate();
        }
        state.layers.insert(name.clone(), linear);
    }
    for name in state.layers.keys().cloned().collect::<Vec<_>>() {
        let Some((path, kind)) = name.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "k_proj" | "v_proj")) else {
            continue;
        };
        let quantizer = format!("calibrated/{path}.{}_bmm_quantizer", &kind[..1]);
        if let Some(amax) = first(&format!("{quantizer}._amax")) {
            let fp8 = entry.more["kv_cache_quant_algo"] == "FP8";
            let element = Element::Float(if fp8 { Minifloat::E4M3 } else { Minifloat::E2M1 });
            let bias = floats(&format!("{quantizer}._bias_value"));
            state.kv.insert(name, KvQuantizer { element, scale: amax / 448.0, bias });
        }
    }
    unknown
}

/// The range of the weight of an expert: gate and up are one tensor in the reference, the rows of the gate first.
fn expert_amax(name: &str, outputs: usize, reference: &Tensors) -> Option<Vec<f32>> {
    let (path, expert, part) = expert(name)?;
    let fused = if part == "down_proj" { "down_proj" } else { "gate_up_proj" };
    let key = format!("calibrated/{path}.{fused}_weight_quantizers.{expert}._amax");
    let amax = reference.get(&key)?.to_f32(&key).expect("floats");
    Some(match part {
        _ if amax.len() == 1 || part == "down_proj" => amax,
        "gate_proj" => amax[..outputs].to_vec(),
        _ => amax[outputs..].to_vec(),
    })
}

fn expert_input(name: &str) -> String {
    let Some((path, _, part)) = expert(name) else { return String::new() };
    let fused = if part == "down_proj" { "down_proj" } else { "gate_up_proj" };
    format!("calibrated/{path}.{fused}_input_quantizer._amax")
}

/// The path of the experts in the reference, the number of one and the name of its part.
fn expert(name: &str) -> Option<(String, &str, &'static str)> {
    let (path, rest) = name.split_once(".experts.")?;
    let (number, part) = rest.split_once('.')?;
    let part = match part {
        "gate_proj" | "w1" => "gate_proj",
        "up_proj" | "w3" => "up_proj",
        _ => "down_proj",
    };
    Some((format!("{}.experts", path.replace("block_sparse_moe", "mlp")), number, part))
}

/// Ranges and scales after the preparation.
fn compare_prepared(state: &ExportState, reference: &Tensors) -> Vec<String> {
    let mut problems = Vec::new();
    for (key, tensor) in reference {
        let Some(name) = key.strip_prefix("prepared/") else { continue };
        let expected = tensor.to_f32(key).expect("floats");
        let Some((layer, buffer)) = [".input_quantizer.", ".weight_quantizer."].iter().find_map(|part| {
            let (layer, buffer) = name.split_once(part)?;
            Some((layer, format!("{part}{buffer}")))
        }) else {
            continue; // fused experts, whose ranges are compared as packed
        };
        let Some(linear) = state.layers.get(layer) else {
            problems.push(format!("{key}: no such layer"));
            continue;
        };
        let found = match &buffer[..] {
            ".input_quantizer._amax" => linear.input_amax.map(|amax| vec![amax]),
            ".input_quantizer._pre_quant_scale" => linear.pre_quant_scale.clone(),
            ".weight_quantizer._amax" | ".weight_quantizer.0._amax" => Some(linear.weight_amax.clone()),
            ".weight_quantizer.1._amax" => linear.second_amax.map(|amax| vec![amax]),
            ".weight_quantizer._global_amax" => linear.global_amax.map(|amax| vec![amax]),
            other => {
                problems.push(format!("{key}: {other} is not known"));
                continue;
            }
        };
        if found.as_deref() != Some(&expected) {
            problems.push(format!("{key}: not equal after the preparation"));
        }
    }
    problems
}

/// Names, types, shapes and bytes, except of layers whose weights are not known.
fn compare_tensors(expected: &Folder, found: &Folder, unknown: &BTreeSet<String>) -> Vec<String> {
    let names: BTreeSet<&str> = expected.names().chain(found.names()).collect();
    let mut problems = Vec::new();
    for name in names {
        let is_unknown = unknown.iter().any(|layer| {
            let of_layer = name.strip_prefix(layer.as_str()).and_then(|rest| rest.strip_prefix('.'));
            of_layer.is_some_and(|rest| matches!(rest, "weight" | "weight_scale" | "weight_scale_2"))
        });
        let [expected, found] = [expected, found].map(|folder| folder.find(name).expect("a tensor is read"));
        match (expected, found) {
            (Some(expected), Some(found)) if expected.shape() == found.shape() && expected.dtype() == found.dtype() => {
                let differ = expected.bytes().iter().zip(found.bytes()).filter(|(a, b)| a != b).count();
                if differ > 0 && !is_unknown {
                    problems.push(format!("{name}: {differ} of {} bytes differ", found.bytes().len()));
                }
            }
            (Some(expected), Some(found)) => problems.push(format!(
                "{name}: {} {:?}, expected {} {:?}",
                found.dtype(),
                found.shape(),
                expected.dtype(),
                expected.shape()
            )),
            (Some(_), None) => problems.push(format!("{name}: is not written")),
            (None, _) => problems.push(format!("{name}: is not in the reference")),
        }
    }
    problems
}

/// A JSON value without what may differ: producers and versions, the order of sets, the numbers of groups.
fn norm(value: Value, key: &str) -> Value {
    const IGNORED: [&str; 4] = ["producer", "version", "transformers_version", "_name_or_path"];
    match value {
        Value::Object(fields) => {
            let fields: BTreeMap<String, Value> = fields
                .into_iter()
                .filter(|(key, _)| !IGNORED.contains(&key.as_str()))
                .map(|(key, value)| {
                    (if key == "torch_dtype" { "dtype".into() } else { key.clone() }, norm(value, &key))
                })
                .collect();
            if key != "config_groups" {
                return Value::Object(fields.into_iter().collect());
            }
            let mut groups: Vec<Value> = fields.into_values().collect();
            groups.sort_by_key(Value::to_string);
            Value::Array(groups)
        }
        Value::Array(values) => {
            let mut values: Vec<Value> = values.into_iter().map(|value| norm(value, "")).collect();
            if matches!(key, "ignore" | "exclude_modules" | "targets") {
                values.sort_by_key(Value::to_string);
            }
            Value::Array(values)
        }
        other => other,
    }
}
