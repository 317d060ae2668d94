//! Calibrators: a quantizer in a model, observed batch by batch.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use burn_quant::calibrate::{Histogram, Statistics};
use burn_quant::config::{BiasConfig, BinWidth, Granularity, HistogramConfig, IntFormat, IntSpan, Signedness, Zeros};
use burn_quant::nn::QuantLinear;
use burn_quant::place::Role;
use burn_quant::quantizer::Buffer;
use burn_quant::{Algorithm, QuantConfig, QuantizerConfig, Quantizers, Rule, TensorQuantizer, calibrate, quantize};

use crate::config::{as_the_reference, by_axes};
use crate::index::{Case, Golden, Outcome, bitwise, close, values, within};

#[derive(Module, Debug)]
struct Probe {
    quantizer: TensorQuantizer,
}

/// All that a case may expect. Candidates and losses of a weight search are those that the expected range was chosen
/// from.
const EXPECTED: [&str; 9] =
    ["amax", "global_amax", "initial_amax", "bias", "y", "hist", "bin_edges", "candidates", "losses"];

pub(crate) fn run(golden: &Golden, case: &Case, device: &Device) -> Outcome {
    if let Err(why) = case.expects_only(&EXPECTED) {
        return Outcome::Failed(why);
    }
    match case.config["calibrator"].as_str() {
        Some("max") if case.config["axis"].is_null() => check::<1>(golden, case, device).into(),
        Some("max") => check::<2>(golden, case, device).into(),
        Some("bias") => bias(golden, case, device).into(),
        Some("histogram") => histogram(golden, case, device).into(),
        Some("nvfp4_act_headroom") => headroom(golden, case, device).into(),
        Some(other) => Outcome::Failed(format!("calibrator {other} is not known")),
        None if case.config.get("algorithm").is_some() => range_search(golden, case, device).into(),
        None => calibrate_weights(golden, case).into(),
    }
}

/// What quantizers saw of all batches, given what an algorithm asks for.
fn observed<const D: usize>(
    batches: &[Tensor<D>],
    config: QuantizerConfig,
    algorithm: Algorithm,
    device: &Device,
) -> Result<(Statistics, f32), String> {
    let probe = (
        Probe { quantizer: TensorQuantizer::disabled(Role::ChannelsLast) },
        burn::module::Param::from_tensor(Tensor::<1>::zeros([1], device)),
    );
    let config = QuantConfig::new().with_rule(Rule::set("*quantizer", config)).with_algorithm(algorithm);
    let run = |(probe, _): &(Probe, _)| batches.iter().for_each(|batch| drop(probe.quantizer.forward(batch.clone())));
    let (model, report) = quantize(probe, &config, run).map_err(|e| e.to_string())?;
    let seen = report.statistics.iter().next().ok_or("nothing was observed")?.1.clone();
    Ok((seen, values(model.0.quantizer.amax().ok_or("no amax")?)[0]))
}

/// Counts, and the ranges that each method finds in them.
///
/// The reference's histograms of numpy begin at the least magnitude of the first batch; the methods are checked on
/// them, and the collection on those of torch.
fn histogram(golden: &Golden, case: &Case, device: &Device) -> Result<(), String> {
    let bins = case.config["num_bins"].as_u64().expect("bins") as usize;
    let unsigned = case.config["unsigned"] == true;
    let (signedness, bits) = (
        if unsigned { Signedness::Unsigned } else { Signedness::Signed },
        case.config["num_bits"].as_u64().expect("bits") as u8,
    );
    let format = IntFormat::new(bits, signedness, IntSpan::Full).expect("a format");
    let zeros = if case.config["skip_zeros"] == true { Zeros::Skipped } else { Zeros::Counted };
    let config = HistogramConfig { bins, width: BinWidth::FirstBatch, zeros };
    let edges = golden.values(case, &case.expected["bin_edges"]);
    let counts = golden.data(case, &case.expected["hist"]).convert::<f64>().try_into_vec::<f64>().expect("counts");
    let counts: Vec<u64> = counts.into_iter().map(|count| count as u64).collect();
    let width = (edges[counts.len()] - edges[0]) / counts.len() as f32;
    let reference = Histogram { origin: edges[0], width, counts };

    let quantizer = QuantizerConfig::new(format.into());
    let batches = batches::<1>(golden, case, device);
    let seen = if case.config["torch_hist"] == true {
        let algorithm = Algorithm::Percentile { percentile: 99.0, histogram: config };
        let (seen, _) = observed(&batches, quantizer.clone(), algorithm, device)?;
        let seen = seen.histogram.ok_or("no histogram")?;
        let moved: u64 = seen.counts.iter().zip(&reference.counts).map(|(a, b)| a.abs_diff(*b)).sum();
        // a value on the border of two bins may be in either: two differences each
        if seen.counts.len() != reference.counts.len() || seen.total() != reference.total() || moved > 8 {
            let (found, expected) = (seen.counts.len(), reference.counts.len());
            return Err(format!("{moved} counts differ in {found} bins, expected {expected}"));
        }
        for (i, edge) in edges.iter().enumerate() {
            let found = seen.edge(i);
            if !within(found.into(), (*edge).into(), (2.0 * f32::EPSILON * edge).into()) {
                return Err(format!("edge {i}: {found:e}, expected {edge:e}"));
            }
        }
        seen
    } else {
        reference
    };
    for (method, expected) in case.other["amax"].as_object().expect("ranges by method") {
        let (arguments, amax) = (&expected["args"], expected["amax"].as_f64().expect("a range") as f32);
        let count = |key: &str| arguments[key].as_u64().map(|count| count as usize).unwrap_or(1);
        let found = match arguments["method"].as_str() {
            Some("percentile") => calibrate::percentile(&seen, arguments["percentile"].as_f64().expect("a percentile")),
            Some("entropy") => calibrate::entropy(&seen, format, count("start_bin"), count("stride")),
            None if method == "mse_as_intended" => {
                calibrate::histogram_mse(&seen, format.into(), count("start_bin"), count("stride"))
            }
            _ if method == "mse_as_shipped" => continue, // a fault of the reference
            _ => return Err(format!("method {method} is not known")),
        };
        let mut found = found.ok_or("no range")?;
        if case.config["torch_hist"] == false {
            // the edges of numpy's histograms are not quite evenly spaced where they have grown
            let halves = ((found - seen.origin) / seen.width * 2.0).round() as usize;
            found = (edges[halves / 2] + edges[halves.div_ceil(2)]) / 2.0;
        }
        close(method, &[found], &[amax], 3e-7)?;
    }
    Ok(())
}

fn headroom(golden: &Golden, case: &Case, device: &Device) -> Result<(), String> {
    let batches = batches::<2>(golden, case, device);
    let number = |key: &str| case.config[key].as_f64().expect("a number") as f32;
    let algorithm = Algorithm::ActivationHeadroom {
        anchor_percentile: number("anchor_percentile"),
        upper_percentile: number("upper_percentile"),
        rho: number("rho"),
    };
    let block = case.config["block_size"].as_u64().expect("a block") as usize;
    let (seen, amax) = observed(&batches, QuantizerConfig::nvfp4().per_block(block), algorithm, device)?;
    let counts: Vec<f32> = seen.blocks.ok_or("no blocks")?.counts.iter().map(|count| *count as f32).collect();
    let expected = golden.values(case, &case.expected["hist"]);
    let moved: f32 = counts.iter().zip(&expected).map(|(a, b)| (a - b).abs()).sum();
    if counts.len() != expected.len() || !within(moved.into(), 0.0, 4.0) {
        return Err(format!("{moved} counts differ"));
    }
    close("amax", &[amax], &[case.other["amax"].as_f64().expect("a range") as f32], 1e-6)
}

/// Ranges of a linear layer's weight, and its outputs.
fn range_search(golden: &Golden, case: &Case, device: &Device) -> Result<(), String> {
    let weight: Tensor<2> = golden.tensor(case, case.input("weight"), device);
    let x: Tensor<2> = golden.tensor(case, case.input("x"), device);
    let [outputs, inputs] = weight.dims();
    let layer: QuantLinear = Linear { weight: Param::from_tensor(weight.transpose()), bias: None }.into();
    let recipe = serde_json::json!({
        "quant_cfg": [
            { "quantizer_name": "*", "enable": false },
            { "quantizer_name": "*weight_quantizer", "cfg": case.config["weight_quantizer"] },
        ],
        "algorithm": case.config["algorithm"],
    });
    let mut config = QuantConfig::from_modelopt_json(&recipe.to_string()).map_err(|e| e.to_string())?;
    if let Algorithm::Mse(search) | Algorithm::LocalHessian { search, .. } = &mut config.algorithm {
        as_the_reference(search);
    }
    let run = |layer: &QuantLinear| drop(layer.forward(x.clone()));
    let calibrated = |config: &QuantConfig| quantize(layer.clone(), config, run).map_err(|e| e.to_string());
    let (initial, _) = calibrated(&config.clone().with_algorithm(Algorithm::Max))?;
    let (found, global) = ranges_by_outputs(&initial, outputs)?;
    bitwise("initial amax", &found, &golden.values(case, &case.expected["initial_amax"]))?;
    let (layer, _) = calibrated(&config)?;
    let (amax, chosen_global) = ranges_by_outputs(&layer, outputs)?;
    bitwise("amax", &amax, &golden.values(case, &case.expected["amax"]))?;
    if let Some(key) = case.expected.get("global_amax") {
        bitwise("global amax", &chosen_global.ok_or("no global amax")?, &golden.values(case, key))?;
        bitwise("initial global amax", &global.ok_or("no global amax")?, &golden.values(case, key))?;
    }
    // the quantized weight
    let y = golden.data(case, &case.expected["y"]);
    if y.shape().to_vec() != [outputs, inputs] {
        return Err(format!("y is {:?}, expected the shape of the weight", y.shape()));
    }
    let weight = values(layer.weight.val().transpose());
    bitwise("quantized weight", &weight, &golden.values(case, &case.expected["y"]))
}

/// The ranges of a linear weight, output by output as the reference has them, and that of the whole.
fn ranges_by_outputs(layer: &QuantLinear, outputs: usize) -> Result<(Vec<f32>, Option<Vec<f32>>), String> {
    let quantizers = Quantizers::of(layer);
    let quantizer = quantizers.get("weight_quantizer").map_err(|e| e.to_string())?;
    let amax = quantizer.amax().ok_or("no amax")?;
    let per_output = amax.dims()[0] / outputs;
    let amax = if per_output > 1 { values(amax.reshape([per_output, outputs]).transpose()) } else { values(amax) };
    Ok((amax, quantizer.buffer(Buffer::GlobalAmax).map(values)))
}

/// The reference's older way to calibrate weights: a histogram of each channel, or of the tensor.
fn calibrate_weights(golden: &Golden, case: &Case) -> Result<(), String> {
    let data = golden.data(case, case.input("weight"));
    let columns = data.shape()[1];
    let weight = golden.values(case, case.input("weight"));
    let config = &case.config["calibrate_weights"];
    let config = if config.is_null() { &case.config } else { config };
    let rows = if config["perchannel"] == false { weight.len() } else { columns };
    let histogram = HistogramConfig { bins: 2048, width: BinWidth::FirstBatch, zeros: Zeros::Counted };
    let range = |values: &[f32]| match config["method"].as_str() {
        Some("max") => Ok(values.iter().fold(0f32, |top, x| top.max(x.abs()))),
        Some("percentile") => {
            let percentile = config["percentile"].as_f64().unwrap_or(99.99);
            calibrate::percentile(&Histogram::of(values, &histogram), percentile).ok_or("no range".to_string())
        }
        other => Err(format!("method {other:?}")),
    };
    let found = weight.chunks(rows).map(range).collect::<Result<Vec<f32>, String>>()?;
    close("amax", &found, &golden.values(case, &case.expected["amax"]), 3e-7)
}

/// Rank 1: all values; rank 2: rows as long as the case's `view` says, `... reshaped to [-1, 10]`, what does not fill
/// one left out.
fn batches<const D: usize>(golden: &Golden, case: &Case, device: &Device) -> Vec<Tensor<D>> {
    let view = case.config["view"].as_str().unwrap_or("flat");
    let columns = view.rsplit_once("[-1, ").and_then(|(_, rest)| rest.trim_end_matches(']').parse::<usize>().ok());
    let batch = |key: &str| {
        let flat = golden.values(case, key);
        let shape: Vec<usize> = match (D, columns) {
            (1, _) => vec![flat.len()],
            (_, Some(columns)) => vec![flat.len() / columns, columns],
            _ => panic!("{}: a view in rows, found `{view}`", case.name),
        };
        let used: usize = shape.iter().product();
        let shape: [usize; D] = shape.try_into().expect("as many axes as the rank");
        Tensor::<1>::from_data(&flat[..used], device).reshape(shape)
    };
    case.numbered_inputs("batch").into_iter().map(batch).collect()
}

/// A quantizer that saw all batches.
fn calibrated<const D: usize>(
    golden: &Golden,
    case: &Case,
    device: &Device,
    config: QuantizerConfig,
) -> Result<TensorQuantizer, String> {
    let batches = batches::<D>(golden, case, device);
    let probe = Probe { quantizer: TensorQuantizer::disabled(Role::ChannelsLast) };
    let probe_with_parameter = (probe, burn::module::Param::from_tensor(Tensor::<1>::zeros([1], device)));
    let config = QuantConfig::new().with_rule(Rule::set("*quantizer", config));
    let calibrated = quantize(probe_with_parameter, &config, |(probe, _)| {
        for batch in &batches {
            probe.quantizer.forward(batch.clone());
        }
    });
    let (model, report) = calibrated.map_err(|e| e.to_string())?;
    let name = Quantizers::of(&model).names().next().expect("one quantizer").to_string();
    if report.statistics.get(&name).map(|seen| seen.calls) != Some(batches.len() as _) {
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
