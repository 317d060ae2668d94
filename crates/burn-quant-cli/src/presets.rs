//! `burn-quant presets`: the recipes that are built in.

use burn_quant::config::{Action, Granularity, Preset, QuantConfig, QuantizerConfig, RangeSource};
use burn_quant::presets;
use serde::Serialize;

use crate::error::CliError;
use crate::output::Output;
use crate::table::{Align, Table};

/// A preset, as it is listed.
#[derive(Debug, Serialize)]
struct Row {
    name: &'static str,
    short_names: Vec<&'static str>,
    modelopt_name: Option<&'static str>,
    weights: Option<String>,
    inputs: Option<String>,
    keys_and_values: Option<String>,
    algorithm: String,
    needs_data: bool,
    /// The checkpoint formats that hold the result.
    formats: Vec<&'static str>,
}

/// Prints all presets for language models.
pub(crate) fn run(output: &Output) -> Result<(), CliError> {
    let rows: Vec<Row> = presets::all().iter().filter(|preset| is_for_decoders(preset.name)).map(row).collect();
    output.result(&rows, || text(&rows));
    Ok(())
}

/// Presets for diffusion models and for state-space models are for layers that decoders have not.
fn is_for_decoders(name: &str) -> bool {
    !name.starts_with("diffusion") && !name.starts_with("mamba") && !matches!(name, "nvfp4_kv_rotate" | "nvfp4_fp8_mha")
}

fn row(preset: &Preset) -> Row {
    let config = (preset.config)();
    let of = |quantizer: &str| last(&config, quantizer).map(described);
    Row {
        name: preset.name,
        short_names: preset.short_names().collect(),
        modelopt_name: preset.modelopt_name,
        weights: of("weight_quantizer"),
        inputs: of("input_quantizer"),
        keys_and_values: of("v_bmm_quantizer").or_else(|| of("*[kv]_bmm_quantizer")),
        algorithm: config.algorithm.steps().iter().map(|step| step.name()).collect::<Vec<_>>().join("+"),
        needs_data: needs_data(&config),
        formats: formats(preset.name).to_vec(),
    }
}

/// What the last rule says that sets quantizers of a kind.
fn last<'a>(config: &'a QuantConfig, quantizer: &str) -> Option<&'a QuantizerConfig> {
    config.rules.iter().rev().find_map(|rule| match &rule.action {
        Action::Set(config) if rule.quantizer.ends_with(quantizer) => Some(config.as_ref()),
        _ => None,
    })
}

/// Whether a recipe cannot do without calibration data.
fn needs_data(config: &QuantConfig) -> bool {
    let activations = |rule: &burn_quant::Rule| match &rule.action {
        Action::Set(config) => !rule.quantizer.ends_with("weight_quantizer") && config.needs_calibration(),
        _ => false,
    };
    let of_weights = ["none", "max", "mse", "lsq_init"].contains(&config.algorithm.name());
    !of_weights || config.rules.iter().any(activations) && config.algorithm.name() != "none"
}

/// A format and which elements share a scale: `int4 /128`.
fn described(config: &QuantizerConfig) -> String {
    let shared = match &config.granularity {
        Granularity::PerTensor => String::new(),
        Granularity::PerChannel => " /channel".into(),
        Granularity::PerToken => " /token".into(),
        Granularity::Block { size } => format!(" /{size}"),
        Granularity::Block2d { rows, cols } => format!(" /{rows}x{cols}"),
        _ => " /axes".into(),
    };
    let constant = if matches!(config.range, RangeSource::Constant(_)) { " cast" } else { "" };
    let then: String = config.then.iter().map(|stage| format!("+{}", stage.kind())).collect();
    format!("{}{then}{shared}{constant}", config.kind())
}

/// The checkpoint formats that hold the result of a preset on a decoder, besides burnpack, which holds all.
fn formats(name: &str) -> &'static [&'static str] {
    const ALL: &[&str] = &["modelopt", "compressed-tensors", "gguf"];
    const FOLDERS: &[&str] = &["modelopt", "compressed-tensors"];
    const MODELOPT: &[&str] = &["modelopt"];
    match name {
        "int8_weight_only" | "int4_blockwise_weight_only" | "int4_awq" | "int4_awq_gptq" => ALL,
        "mxfp4_mlp_weight_only" => &["compressed-tensors", "gguf"],
        "w4a8_awq_beta" | "w4a8_mxfp4_fp8" | "nvfp4_svdquant_default" | "w4a8_nvfp4_fp8" => MODELOPT,
        "nvfp4_mlp_weight_only" => MODELOPT,
        "fp8_affine_kv" | "nvfp4_kv" | "nvfp4_affine_kv" | "kv_nvfp4_cast" => MODELOPT,
        "int8_per_channel_per_token" => &["compressed-tensors"],
        "mxfp6_default" | "mxint8_default" => &[],
        _ => FOLDERS,
    }
}

fn text(rows: &[Row]) -> String {
    use Align::Left;
    let letters = |row: &Row| -> String {
        let letter = |(letter, format)| if row.formats.contains(&format) { letter } else { '-' };
        [('M', "modelopt"), ('C', "compressed-tensors"), ('G', "gguf")].map(letter).iter().collect()
    };
    let name = |row: &Row| row.short_names.first().copied().unwrap_or(row.name).to_string();
    let or_float = |cell: &Option<String>| cell.clone().unwrap_or_else(|| "float".into());
    let mut models = Table::new([Left, Left, Left, Left, Left, Left]);
    models.row(["recipe", "weights", "inputs", "algorithm", "data", "out"]);
    let mut caches = Table::new([Left, Left, Left, Left]);
    caches.row(["added by +", "keys and values", "data", "out"]);
    for row in rows {
        let data = if row.needs_data { "yes" } else { "-" };
        match (&row.weights, &row.keys_and_values) {
            (None, Some(format)) => caches.row([row.name.to_string(), format.clone(), data.into(), letters(row)]),
            _ => {
                let cells = [name(row), or_float(&row.weights), or_float(&row.inputs), row.algorithm.clone()];
                models.row(cells.into_iter().chain([data.to_string(), letters(row)]));
            }
        }
    }
    format!(
        "{models}\n{caches}\n\
         /n: elements that share a scale. data: --calib is needed. out: M modelopt,\n\
         C compressed-tensors, G gguf; burnpack holds all. Long names: --json.\n\
         A cache is added to a recipe: --recipe fp8+fp8_kv"
    )
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use std::path::Path;

    use burn::tensor::Device;
    use burn_quant_checkpoint::Folder;
    use burn_quant_llm::Decoder;

    use super::*;
    use crate::arguments::ExportFormat;
    use crate::quantize::{calibrated, for_format, write};

    /// The formats that a preset can be written in, found out by writing it.
    fn written(preset: &Preset, folder: &Folder, decoder: &Decoder) -> Vec<&'static str> {
        let window: Vec<u32> = (0..16).collect();
        let place = tempfile::tempdir().unwrap();
        let formats = [ExportFormat::Modelopt, ExportFormat::CompressedTensors, ExportFormat::Gguf];
        let mut last: Option<(QuantConfig, Decoder)> = None;
        let holds = |format: &ExportFormat| {
            let config = for_format((preset.config)(), decoder, *format);
            // most presets are the same for all formats
            let (config, quantized) = last.take().filter(|(known, _)| *known == config).unwrap_or_else(|| {
                let windows = std::slice::from_ref(&window);
                let (quantized, _) = calibrated(decoder.clone(), &config, windows, None, &Output::silent()).unwrap();
                (config, quantized)
            });
            let result = write(&quantized, folder, &place.path().join(format.name()), *format);
            last = Some((config, quantized));
            result.is_ok()
        };
        formats.into_iter().filter(holds).map(ExportFormat::name).collect()
    }

    #[test]
    fn the_formats_that_are_listed_are_those_that_hold_a_preset() {
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data/checkpoints/models/llama_wide");
        let folder = Folder::open(model).unwrap();
        let decoder = Decoder::load(&folder, &Device::flex()).unwrap();
        let here = |preset: &&Preset| {
            // for models with experts alone
            is_for_decoders(preset.name) && preset.name != "nvfp4_experts_only"
        };
        let differ: Vec<_> = presets::all()
            .iter()
            .filter(here)
            .map(|preset| (preset.name, formats(preset.name), written(preset, &folder, &decoder)))
            .filter(|(_, listed, written)| *listed != written.as_slice())
            .collect();
        assert!(differ.is_empty(), "name, listed, written: {differ:#?}");
    }
}
