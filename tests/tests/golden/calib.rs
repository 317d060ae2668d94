//! Calibrators: a quantizer in a model, observed batch by batch.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_quant::{
    BiasConfig, Buffer, Granularity, QuantConfig, QuantizerConfig, Quantizers, Role, Rule, TensorQuantizer, quantize,
};

use crate::config::by_axes;
use crate::index::{Case, Golden, Outcome, bitwise, close, values};

#[derive(Module, Debug)]
struct Probe {
    quantizer: TensorQuantizer,
}

pub(crate) fn run(golden: &Golden, case: &Case, device: &Device) -> Outcome {
    match case.config["calibrator"].as_str() {
        Some("max") if case.config["axis"].is_null() => check::<1>(golden, case, device).into(),
        Some("max") => check::<2>(golden, case, device).into(),
        Some("bias") => bias(golden, case, device).into(),
        Some(other) => Outcome::NotYet(format!("calibrator {other}")),
        None if case.config.get("algorithm").is_some() => {
            Outcome::NotYet(format!("algorithm {}", case.config["algorithm"]["method"].as_str().unwrap_or("?")))
        }
        None => Outcome::NotYet("calibrate_weights".into()),
    }
}

/// Rank 1: all values; rank 2: rows of ten, what does not fill a row left out.
fn batches<const D: usize>(golden: &Golden, case: &Case, device: &Device) -> Vec<Tensor<D>> {
    let batch = |i| {
        let flat = golden.values(case, case.input(&format!("batch{i}")));
        let rows = flat.len() / 10;
        let shape: Vec<usize> = if D == 1 { vec![flat.len()] } else { vec![rows, 10] };
        let used: usize = shape.iter().product();
        let shape: [usize; D] = shape.try_into().expect("as many axes as the rank");
        Tensor::<1>::from_data(&flat[..used], device).reshape(shape)
    };
    (0..4).map(batch).collect()
}

/// A quantizer that saw all batches.
fn calibrated<const D: usize>(
    golden: &Golden,
    case: &Case,
    device: &Device,
    config: QuantizerConfig,
) -> Result<TensorQuantizer, String> {
    let batches = batches::<D>(golden, case, device);
    let probe = Probe { quantizer: TensorQuantizer::disabled(Role::Features) };
    let probe_with_parameter = (probe, burn::module::Param::from_tensor(Tensor::<1>::zeros([1], device)));
    let config = QuantConfig::new().with_rule(Rule::set("*quantizer", config));
    let calibrated = quantize(probe_with_parameter, &config, |(probe, _)| {
        for batch in &batches {
            probe.quantizer.forward(batch.clone());
        }
    });
    let (model, report) = calibrated.map_err(|e| e.to_string())?;
    let name = Quantizers::of(&model).names().next().expect("one quantizer").to_string();
    if report.statistics.get(&name).map(|seen| seen.calls) != Some(4) {
        return Err("not every batch was seen".into());
    }
    Ok(model.0.quantizer)
}

fn check<const D: usize>(golden: &Golden, case: &Case, device: &Device) -> Result<(), String> {
    let quantizer = calibrated::<D>(golden, case, device, by_axes(&case.config, D))?;
    let amax = quantizer.amax().ok_or("no amax")?;
    bitwise("amax", &values(amax), &golden.values(case, &case.expected["amax"]))
}

fn bias(golden: &Golden, case: &Case, device: &Device) -> Result<(), String> {
    let per_channel = !case.config["reduce_axis"].is_null();
    let granularity = if per_channel { Granularity::PerChannel } else { Granularity::PerTensor };
    let (mean, config) = (case.config["method"] == "mean", BiasConfig::new(granularity));
    let config = if mean { config } else { config.max_min() };
    let quantizer = calibrated::<2>(golden, case, device, QuantizerConfig::int(8).with_bias(config))?;
    let found = values(quantizer.buffer(Buffer::Bias).ok_or("no bias")?);
    let expected = golden.values(case, &case.expected["bias"]);
    if mean { close("bias", &found, &expected, 1e-6) } else { bitwise("bias", &found, &expected) }
}
