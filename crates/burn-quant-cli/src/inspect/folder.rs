//! Layers of safetensors: what they are is told by the types and shapes of their tensors.

use std::collections::BTreeMap;

use burn_quant_checkpoint::{CheckpointError, Dtype, Folder, TensorInfo, awq_gptq, compressed_tensors, modelopt};

use super::{Part, Read, Suspicion, scales};

/// Tensors of a layer that are no part of its weight.
const BESIDE: [&str; 11] = [
    "bias",
    "input_scale",
    "input_global_scale",
    "k_scale",
    "v_scale",
    "k_bias",
    "v_bias",
    "output_scale",
    "pre_quant_scale",
    "svdquant_lora_a",
    "svdquant_lora_b",
];

pub(super) fn read(folder: &Folder) -> Result<Read, CheckpointError> {
    let mut layers: BTreeMap<&str, Tensors<'_>> = BTreeMap::new();
    for name in folder.names() {
        let (layer, leaf) = name.rsplit_once('.').unwrap_or(("", name));
        let info = folder.info(name).expect("a name of the folder");
        layers.entry(layer).or_default().0.insert(leaf, info);
    }
    let mut parts = Vec::new();
    for (name, tensors) in &layers {
        parts.push(tensors.part(folder, name)?);
    }
    parts.sort_by_key(|part| order(&part.name));
    let (quantization, contradiction) = quantization(folder);
    let mut suspicious: Vec<Suspicion> = contradiction.into_iter().collect();
    for (layer, tensors) in &layers {
        if let (Some(weight), Some(_)) = (tensors.0.get("weight"), tensors.0.get("weight_scale"))
            && weight.dtype.is_float()
        {
            let problem = format!("there, and the weight is {}", weight.dtype);
            suspicious.push(Suspicion { tensor: format!("{layer}.weight_scale"), problem });
        }
    }
    suspicious.extend(scales::suspicious(folder)?);
    Ok((quantization, parts, suspicious))
}

/// Numbers in their order: layer 10 after layer 9.
fn order(name: &str) -> Vec<(u64, String)> {
    let word = |word: &str| match word.parse() {
        Ok(number) => (number, String::new()),
        Err(_) => (0, word.to_string()),
    };
    name.split('.').map(word).collect()
}

/// Who quantized a folder, and what its configuration and its tensors disagree about.
fn quantization(folder: &Folder) -> (String, Option<Suspicion>) {
    let config = &folder.config()["quantization_config"];
    let method = config["quant_method"].as_str();
    let told = |key: &str| config[key].as_str().map_or(String::new(), |value| format!(", {value}"));
    let (name, layers) = match method {
        Some("compressed-tensors") => {
            let layers = compressed_tensors::Quantization::of(folder)
                .and_then(|found| found.map_or(Ok(0), |of| of.layers(folder).map(|layers| layers.len())));
            (format!("compressed-tensors{}", told("format")), layers)
        }
        Some(method @ ("awq" | "gptq")) => {
            let layers = awq_gptq::Quantization::of(folder)
                .and_then(|found| found.map_or(Ok(0), |of| of.layers(folder).map(|layers| layers.len())));
            (method.to_string(), layers)
        }
        Some(other) if other != "modelopt" => (format!("{other}, which is not known here"), Ok(0)),
        _ => match modelopt::Quantization::of(folder) {
            Ok(None) => (if folder.config().is_null() { "a file of its own" } else { "not quantized" }.into(), Ok(0)),
            Ok(Some(of)) => (format!("ModelOpt{}", told("quant_algo")), Ok(of.layers().len())),
            Err(error) => (format!("ModelOpt{}", told("quant_algo")), Err(error)),
        },
    };
    match layers {
        Ok(0) => (name, None),
        Ok(n) => (format!("{name}, {n} quantized layers"), None),
        Err(error) => (name, Some(Suspicion { tensor: "the configuration".into(), problem: error.to_string() })),
    }
}

/// The tensors of a layer by the last part of their names.
#[derive(Default)]
struct Tensors<'a>(BTreeMap<&'a str, &'a TensorInfo>);

/// What a weight is.
struct Weight {
    format: String,
    shape: Vec<usize>,
}

fn size(info: &TensorInfo) -> u64 {
    info.shape.iter().product::<usize>() as u64 * info.dtype.size() as u64
}

impl Tensors<'_> {
    fn part(&self, folder: &Folder, name: &str) -> Result<Part, CheckpointError> {
        let Weight { format, shape } = self.weight(folder, name)?;
        let bytes: u64 = self.0.values().map(|info| size(info)).sum();
        let beside: u64 = BESIDE.iter().filter_map(|leaf| self.0.get(leaf)).map(|info| size(info)).sum();
        let elements = if shape.is_empty() { 0 } else { shape.iter().product::<usize>() as u64 };
        let bits = if elements == 0 { 0.0 } else { 8.0 * (bytes - beside) as f64 / elements as f64 };
        Ok(Part { name: name.into(), format, shape, elements, bits, bytes })
    }

    fn weight(&self, folder: &Folder, name: &str) -> Result<Weight, CheckpointError> {
        let scale = self.0.get("weight_scale").copied();
        Ok(match (self.0.get("weight"), self.0.get("weight_packed"), self.0.get("qweight")) {
            (Some(weight), ..) => of_weight(weight, scale, self.0.contains_key("weight_scale_2")),
            (_, Some(packed), _) => {
                let place = format!("{name}.weight_shape");
                let said = if folder.has(&place) { folder.tensor(&place)?.to_i64(&place)? } else { Vec::new() };
                of_packed(packed, scale, said.last().map(|inputs| *inputs as usize))
            }
            (.., Some(codes)) => of_qweight(codes, self.0.get("scales").copied(), self.0.get("g_idx").copied()),
            _ => {
                // tensors without a weight: buffers, biases, scales of a cache
                let dtypes: Vec<String> = self.0.values().map(|info| info.dtype.to_string()).collect();
                let format = if self.0.contains_key("k_scale") { "scales".into() } else { dtypes.join(" ") };
                Weight { format, shape: Vec::new() }
            }
        })
    }
}

/// `weight`, by its type and that of its scales.
fn of_weight(weight: &TensorInfo, scale: Option<&TensorInfo>, second: bool) -> Weight {
    let double = |axis: usize| {
        let mut shape = weight.shape.clone();
        shape.get_mut(axis).into_iter().for_each(|axis| *axis *= 2);
        shape
    };
    let of_scale = scale.map(|scale| scale.dtype);
    let power = matches!(of_scale, Some(Dtype::U8 | Dtype::F8E8M0));
    let (name, shape) = match (weight.dtype, of_scale) {
        (Dtype::F8E4M3, _) if power => ("MXFP8", weight.shape.clone()),
        (Dtype::F8E4M3, _) => ("FP8", weight.shape.clone()),
        (Dtype::I8, _) => ("INT8", weight.shape.clone()),
        (Dtype::U8, Some(Dtype::F8E4M3)) => ("NVFP4", double(1)),
        (Dtype::U8, _) if power => ("MXFP4", double(1)),
        (Dtype::U8, Some(_)) if second => ("INT4+E4M3", double(0)),
        (Dtype::U8, Some(_)) => ("INT4", double(0)),
        (dtype, _) => return Weight { format: dtype.to_string(), shape: weight.shape.clone() },
    };
    Weight { format: format!("{name}{}", granularity(&shape, scale)), shape }
}

/// `weight_packed` of compressed-tensors: bytes of small floats, or words of integers.
fn of_packed(packed: &TensorInfo, scale: Option<&TensorInfo>, said: Option<usize>) -> Weight {
    let rows = packed.shape.first().copied().unwrap_or(0);
    let columns = packed.shape.get(1).copied().unwrap_or(0);
    let of_scale = scale.map(|scale| scale.dtype);
    let (name, inputs) = match (packed.dtype, of_scale) {
        (Dtype::U8, Some(Dtype::F8E4M3)) => ("NVFP4".to_string(), columns * 2),
        (Dtype::U8, _) => {
            let inputs = scale.and_then(|scale| scale.shape.get(1)).map_or(columns * 2, |blocks| blocks * 32);
            (format!("MXFP{}", columns * 8 / inputs.max(1)), inputs)
        }
        _ => {
            let inputs = said.unwrap_or(columns * 8);
            (format!("INT{}", columns * 32 / inputs.max(1)), inputs)
        }
    };
    let shape = vec![rows, inputs];
    Weight { format: format!("{name}{}", granularity(&shape, scale)), shape }
}

/// `qweight` of AutoAWQ, `[in, out/8]`, or of GPTQ, `[in·bits/32, out]`.
fn of_qweight(codes: &TensorInfo, scales: Option<&TensorInfo>, groups: Option<&TensorInfo>) -> Weight {
    let (rows, columns) = (codes.shape.first().copied().unwrap_or(0), codes.shape.get(1).copied().unwrap_or(0));
    let of_scales = scales.map_or((1, columns), |info| (info.shape[0], info.shape.last().copied().unwrap_or(0)));
    let (name, inputs, outputs, bits) = match of_scales.1 == columns {
        false => ("AWQ", rows, of_scales.1, 4),
        true => {
            let inputs = groups.map_or(rows * 8, |groups| groups.shape[0]);
            ("GPTQ", inputs, columns, rows * 32 / inputs.max(1))
        }
    };
    let block = inputs / of_scales.0.max(1);
    Weight { format: format!("{name} INT{bits} /{block}"), shape: vec![outputs, inputs] }
}

/// Which elements share a scale: nothing for all of them, `/channel`, `/128`, `/128x128`.
fn granularity(shape: &[usize], scale: Option<&TensorInfo>) -> String {
    let (Some(scale), &[outputs, inputs]) = (scale, shape) else { return String::new() };
    let axes: Vec<usize> = scale.shape.iter().copied().filter(|axis| *axis != 1).collect();
    match axes[..] {
        [] => String::new(),
        [rows] if rows == outputs => " /channel".into(),
        [rows, columns] if rows == outputs => format!(" /{}", inputs.div_ceil(columns)),
        [rows, columns] => format!(" /{}x{}", outputs.div_ceil(rows), inputs.div_ceil(columns)),
        _ => " /?".into(),
    }
}
