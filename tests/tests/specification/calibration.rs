//! Calibration: what is observed, what each algorithm makes of it, and what all of them promise.

use burn::module::{Module, Param};
use burn::nn::conv::Conv2dConfig;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{DType, Device, Tensor};
use burn_quant::calibrate::{
    CalibrationAlgorithm, Histogram, LayerReport, QuantizeOptions, SkipReason, Stage, Statistics, StatisticsRequest,
    calibrate, observe,
};
use burn_quant::config::{
    ActOrder, CalibrationInputs, HistogramConfig, Identity, IncludeMax, RangeSearch, SiblingScales,
};
use burn_quant::nn::{QuantConv2d, QuantLinear};
use burn_quant::place::place;
use burn_quant::quantizer::Buffer;
use burn_quant::{
    Algorithm, QuantConfig, QuantError, QuantizerConfig, Quantizers, Rule, TensorQuantizer, fold_weights, presets,
    quantize, quantize_weights, quantize_with,
};
use burn_quant_tests::compare::{relative_error, within};
use burn_quant_tests::{device, devices};

use crate::{spread, values};

/// The weight of section 11 of the reference's description, `[8, 4]`: `sin(0.1·(8r + c + 1)²)`.
fn reference_weight(device: &Device) -> Tensor<2> {
    let value = |i: usize| (0.1 * ((i + 1) as f64).powi(2)).sin() as f32;
    Tensor::<1>::from_data(std::array::from_fn::<f32, 32, _>(value), device).reshape([4, 8]).transpose()
}

/// Its inputs, `[6, 8]`: `cos(0.7·(8t + c))`, channel 2 four times as large.
fn reference_inputs(device: &Device) -> Tensor<2> {
    let value = |i: usize| ((0.7 * i as f64).cos() * if i % 8 == 2 { 4.0 } else { 1.0 }) as f32;
    Tensor::<1>::from_data(std::array::from_fn::<f32, 48, _>(value), device).reshape([6, 8])
}

fn linear(weight: Tensor<2>) -> QuantLinear {
    Linear { weight: Param::from_tensor(weight), bias: None }.into()
}

fn w8a8() -> QuantConfig {
    QuantConfig::new()
        .with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(8).per_channel()))
        .with_rule(Rule::set("*input_quantizer", QuantizerConfig::int(8)))
}

fn w4(block: usize) -> QuantConfig {
    QuantConfig::new().with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(4).per_block(block)))
}

/// The reference's layer, calibrated on its inputs.
fn reference(config: QuantConfig, algorithm: Algorithm) -> (QuantLinear, Vec<LayerReport>) {
    let (_, device) = device();
    let x = reference_inputs(&device);
    let layer = linear(reference_weight(&device));
    let (layer, report) =
        quantize(layer, &config.with_algorithm(algorithm), |layer| drop(layer.forward(x.clone()))).unwrap();
    assert_eq!(report.passes, 1);
    (layer, report.layers)
}

fn buffer(layer: &QuantLinear, quantizer: &str, buffer: Buffer) -> Vec<f32> {
    values(Quantizers::of(layer).get(quantizer).unwrap().buffer(buffer).unwrap())
}

/// Numbers of the reference are printed with seven decimals.
fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        let bound = f64::from(2e-6 * expected.abs().max(1.0));
        assert!(within((*found).into(), (*expected).into(), bound), "{found}, expected {expected}");
    }
}

fn first_output(layer: &QuantLinear) -> Vec<f32> {
    values(layer.forward(reference_inputs(&device().1)))[..4].to_vec()
}

#[test]
fn smoothquant_gives_the_numbers_of_the_reference() {
    let (layer, report) = reference(w8a8(), Algorithm::smoothquant(1.0));
    let scale = [1.0, 1.0001414, 0.2501414, 1.0012736, 1.0022662, 1.0035447, 1.0493698, 1.0439341];
    assert_close(&buffer(&layer, "input_quantizer", Buffer::PreQuantScale), &scale);
    assert_close(&buffer(&layer, "input_quantizer", Buffer::Amax), &[1.0]);
    let amax = [3.131536, 1.7975727, 3.9961357, 2.3982203];
    assert_close(&buffer(&layer, "weight_quantizer", Buffer::Amax), &amax);
    assert_close(&first_output(&layer), &[0.8059399, 0.3247646, -0.3607398, -3.309095]);
    assert_eq!(report[0].steps[0].choices["alpha"], 1.0);

    let (layer, _) = reference(w8a8(), Algorithm::smoothquant(0.5));
    let scale = [0.9848298, 0.9992933, 0.5000412, 1.0004233, 0.9650024, 0.9799414, 1.0153601, 0.9989245];
    assert_close(&buffer(&layer, "input_quantizer", Buffer::PreQuantScale), &scale);
    assert_close(&buffer(&layer, "input_quantizer", Buffer::Amax), &[1.9990338]);
    assert_close(&first_output(&layer), &[0.8006977, 0.3299286, -0.312922, -3.3486466]);
}

#[test]
fn awq_gives_the_numbers_of_the_reference() {
    let (layer, report) = reference(w4(4), Algorithm::awq_lite());
    assert_eq!(report[0].steps[0].choices["alpha"], 0.3);
    let scale = [1.1225467, 0.8822261, 1.2401129, 0.8168433, 0.974068, 0.8228942, 0.8063782, 0.8792638];
    let found = buffer(&layer, "input_quantizer", Buffer::PreQuantScale);
    assert_close(&found.iter().map(|factor| 1.0 / factor).collect::<Vec<_>>(), &scale);
    assert_close(&first_output(&layer), &[0.7268624, 0.3486564, -0.2757247, -3.2518432]);
    // the loss at the exponent 0.3: of four outputs, averaged
    let error = report[0].error_after.unwrap();
    assert!((error - 0.0055803).abs() < 2e-7, "{error}");

    let (layer, report) = reference(w4(4), Algorithm::awq_clip());
    // ranges of blocks are numbered by inputs first
    let amax = [0.9495949, 0.7274173, 0.9995992, 0.8486791, 0.8350847, 0.8826678, 0.861204, 0.9126279];
    assert_close(&buffer(&layer, "weight_quantizer", Buffer::Amax), &amax);
    assert!(report[0].error_ratio().unwrap() < 1.0);
}

#[test]
fn svdquant_and_gptq_give_the_numbers_of_the_reference() {
    let (layer, _) = reference(w8a8(), Algorithm::svdquant(2));
    let scale = [0.8965935, 1.1408278, 0.8115938, 1.2321433, 1.0080992, 1.1908787, 1.2195526, 1.112879];
    assert_close(&buffer(&layer, "input_quantizer", Buffer::PreQuantScale), &scale);
    assert_close(&buffer(&layer, "input_quantizer", Buffer::Amax), &[3.2445397]);
    let (down, up) = (Buffer::LowRankDown, Buffer::LowRankUp);
    let (down, up) = (buffer(&layer, "input_quantizer", down), buffer(&layer, "input_quantizer", up));
    // the first output's weights in the branch
    let product = |i: usize| down[2 * i] * up[0] + down[2 * i + 1] * up[4];
    let expected = [-0.019907, 0.3872764, 0.7670307, -0.1063218, 0.1243253, -0.3659465, -0.4126209, -0.4568761];
    assert_close(&(0..8).map(product).collect::<Vec<_>>(), &expected);
    assert_close(&buffer(&layer, "weight_quantizer", Buffer::Amax), &[0.9175698, 0.6567807, 0.5728265, 0.704422]);

    let gptq =
        Algorithm::Gptq { damping: 0.01, block_size: 4, act_order: ActOrder::Off, inputs: CalibrationInputs::Float };
    let (layer, _) = reference(w4(4), gptq);
    let weight = values(layer.weight.val().transpose());
    let expected = [0.1427962, 0.4283887, 0.7139812, 0.9995736, 0.7017519, -0.4210511, -1.1228031, 0.0];
    assert_close(&weight[..8], &expected);
    assert_eq!(values(layer.weight.base().transpose()), weight, "weights are on the grid");
}

#[test]
fn a_range_search_tries_the_range_itself_where_the_reference_does_not() {
    let weight = |algorithm| {
        let (_, device) = device();
        let config = QuantConfig::new()
            .with_rule(Rule::set("weight_quantizer", QuantizerConfig::int(8).per_channel()))
            .with_algorithm(algorithm);
        let (layer, _) = quantize_weights(linear(reference_weight(&device)), &config).unwrap();
        let change = layer.weight.val() - layer.weight.base();
        values((change.clone() * change).sum_dim(0))[1]
    };
    // row 1: 3.58e-5 with the reference's multipliers, 3.01e-5 by max
    let multipliers =
        |include_max| Algorithm::Mse(RangeSearch::Multipliers { start: 0.25, stop: 4.0, step: 0.1, include_max });
    let (reference, max) = (weight(multipliers(IncludeMax::OnGrid)), weight(Algorithm::Max));
    assert!((reference - 3.58e-5).abs() < 1e-7, "{reference}");
    assert!((max - 3.01e-5).abs() < 1e-7, "{max}");
    assert!(weight(multipliers(IncludeMax::Always)) <= max);
}

/// A model with siblings, a convolution, a layer without an activation quantizer and one that no data reaches.
#[derive(Module, Debug)]
struct Net {
    conv: QuantConv2d,
    attention: Attention,
    plain: Linear,
    idle: QuantLinear,
}

#[derive(Module, Debug)]
struct Attention {
    q_proj: QuantLinear,
    k_proj: QuantLinear,
    o_proj: QuantLinear,
}

impl Net {
    fn new(device: &Device) -> Self {
        let layer = |inputs, outputs, offset: f32| {
            Linear {
                weight: Param::from_tensor(spread([inputs, outputs], device) + offset),
                bias: Some(Param::from_tensor(spread([outputs], device))),
            }
            .into()
        };
        let mut conv = Conv2dConfig::new([1, 2], [3, 3]).with_bias(false).init(device);
        conv.weight = Param::from_tensor(spread([2, 1, 3, 3], device));
        let mut plain = LinearConfig::new(6, 5).with_bias(false).init(device);
        plain.weight = Param::from_tensor(spread([6, 5], device));
        Self {
            conv: conv.into(),
            attention: Attention { q_proj: layer(8, 12, 0.0), k_proj: layer(8, 12, 0.5), o_proj: layer(12, 6, 0.0) },
            plain,
            idle: layer(8, 3, 0.0),
        }
    }

    /// `[batch, 1, 4, 4]` to `[batch, 5]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x: Tensor<2> = self.conv.forward(x).flatten(1, 3);
        let mixed = self.attention.q_proj.forward(x.clone()) * self.attention.k_proj.forward(x).tanh();
        self.plain.forward(self.attention.o_proj.forward(mixed))
    }
}

fn images(seed: usize, batch: usize, device: &Device) -> Tensor<4> {
    spread([batch, 1, 4, 4], device) * (seed as f32 + 1.0) + seed as f32 * 0.1
}

fn report_of<'a>(reports: &'a [LayerReport], layer: &str) -> &'a LayerReport {
    reports.iter().find(|report| report.layer == layer).unwrap_or_else(|| panic!("no report of {layer}"))
}

#[test]
fn every_layer_that_is_passed_by_is_in_the_report_with_its_reason() {
    let (_, device) = device();
    let x = images(0, 6, &device);
    let config = w4(8).with_algorithm(Algorithm::awq_full());
    let (model, report) = quantize(Net::new(&device), &config, |model| drop(model.forward(x.clone()))).unwrap();
    let skipped = |layer: &str| report_of(&report.layers, layer).steps[0].skipped.clone();
    assert_eq!(skipped("conv"), Some(SkipReason::NotLinear));
    assert_eq!(skipped("plain"), Some(SkipReason::NoActivationQuantizer));
    assert_eq!(skipped("idle"), Some(SkipReason::NoData));
    assert_eq!(skipped("attention.o_proj"), None);
    // all weights are calibrated all the same, and a layer without data has the form of the others
    assert!(Quantizers::of(&model).iter().all(|(_, quantizer)| !quantizer.is_uncalibrated()));
    let idle = Quantizers::of(&model).get("idle.input_quantizer").unwrap().buffer(Buffer::PreQuantScale);
    assert_eq!(values(idle.unwrap()), [1.0; 8]);
    let text = report.to_string();
    assert!(text.contains("plain: awq_lite, awq_clip skipped, it has no quantizer for its inputs"), "{text}");
    let json = serde_json::to_string(&report).unwrap();
    assert_eq!(serde_json::from_str::<burn_quant::calibrate::Report>(&json).unwrap().layers.len(), report.layers.len());
}

#[test]
fn weights_alone_are_not_calibrated_by_an_algorithm_that_needs_data() {
    let (_, device) = device();
    for algorithm in [Algorithm::awq_lite(), Algorithm::gptq(), Algorithm::percentile(99.0)] {
        let name = algorithm.name().to_string();
        let error = quantize_weights(Net::new(&device), &w4(8).with_algorithm(algorithm)).unwrap_err();
        assert_eq!(error, QuantError::NeedsData { algorithm: name });
    }
    let (model, report) =
        quantize_weights(Net::new(&device), &w4(8).with_algorithm(Algorithm::Mse(RangeSearch::default()))).unwrap();
    assert!(report.layers.iter().all(|layer| layer.steps[0].skipped.is_none()), "convolutions too");
    assert!(Quantizers::of(&model).iter().all(|(_, quantizer)| !quantizer.is_uncalibrated()));
}

#[test]
fn siblings_share_a_scale_if_they_are_asked_to() {
    let (_, device) = device();
    let x = images(0, 6, &device);
    let scales = |sharing| {
        let algorithm = Algorithm::AwqLite { alpha_step: 0.1, sharing, identity: Identity::NotTried };
        let run = |model: &Net| drop(model.forward(x.clone()));
        let (model, _) = quantize(Net::new(&device), &w4(4).with_algorithm(algorithm), run).unwrap();
        ["q", "k"].map(|name| {
            let name = format!("attention.{name}_proj.input_quantizer");
            values(Quantizers::of(&model).get(&name).unwrap().buffer(Buffer::PreQuantScale).unwrap())
        })
    };
    let [q, k] = scales(SiblingScales::Shared);
    assert_eq!(q, k);
    let [q, k] = scales(SiblingScales::PerLayer);
    assert_ne!(q, k);
}

#[test]
fn siblings_with_static_nvfp4_weights_share_the_range_of_the_tensor() {
    let (_, device) = device();
    let config = QuantConfig::new().with_rule(Rule::set("*_proj.weight_quantizer", QuantizerConfig::nvfp4_static()));
    let (model, _) = quantize_weights(Net::new(&device), &config).unwrap();
    let quantizers = Quantizers::of(&model);
    let of = |name: &str, buffer| {
        values(quantizers.get(&format!("attention.{name}.weight_quantizer")).unwrap().buffer(buffer).unwrap())
    };
    let largest = |name: &str| of(name, Buffer::Amax).into_iter().max_by(f32::total_cmp).unwrap();
    let shared = largest("q_proj").max(largest("k_proj"));
    assert_eq!(of("q_proj", Buffer::GlobalAmax), [shared]);
    assert_eq!(of("k_proj", Buffer::GlobalAmax), [shared]);
    assert_eq!(of("o_proj", Buffer::GlobalAmax), [largest("o_proj")]);
}

#[test]
fn shards_of_the_data_are_worth_the_whole() {
    let (_, device) = device();
    let config = w8a8();
    let algorithm = Algorithm::Sequence(vec![Algorithm::percentile(99.0), Algorithm::gptq()]);
    let (placed, _) = place(Net::new(&device), &config, &Default::default()).unwrap();
    let placed = burn_quant::disable(placed, "idle.*").unwrap();
    let observe = |seeds: std::ops::Range<usize>| {
        let run = |model: &Net| seeds.clone().for_each(|seed| drop(model.forward(images(seed, 4 + seed, &device))));
        observe(&placed, &algorithm, run).unwrap()
    };
    let whole = observe(0..4);
    let shards = observe(2..4).merge(observe(0..2)).unwrap();
    // as a file would hold it
    let shards: burn_quant::calibrate::ModelStatistics =
        serde_json::from_str(&serde_json::to_string(&shards).unwrap()).unwrap();
    for (name, seen) in whole.iter() {
        let merged = shards.get(name).unwrap();
        assert_eq!((&seen.amax, &seen.histogram), (&merged.amax, &merged.histogram), "{name}");
        assert!(name.contains("weight") || seen.calls == 4 && merged.calls == 4, "{name}");
        let Some((seen, merged)) = seen.channels.as_ref().zip(merged.channels.as_ref()) else { continue };
        assert_eq!((&seen.amax, seen.tokens), (&merged.amax, merged.tokens), "{name}");
        let (seen, merged) = (&seen.gram.as_ref().unwrap().upper, &merged.gram.as_ref().unwrap().upper);
        crate::assert_close(merged, seen, 1e-6, name);
    }
    let amax = |statistics| {
        let (model, _) = calibrate(placed.clone(), statistics, &algorithm).unwrap();
        values(Quantizers::of(&model).get("attention.o_proj.input_quantizer").unwrap().amax().unwrap())
    };
    assert_eq!(amax(&whole), amax(&shards));
}

#[test]
fn statistics_of_another_algorithm_say_what_is_missing() {
    let (_, device) = device();
    let (placed, _) = place(linear(reference_weight(&device)), &w8a8(), &Default::default()).unwrap();
    let run = |layer: &QuantLinear| drop(layer.forward(reference_inputs(&device)));
    let seen = observe(&placed, &Algorithm::smoothquant(0.5), run).unwrap();
    let missing = |missing| Some(QuantError::MissingStatistics { name: "input_quantizer".into(), missing });
    assert_eq!(calibrate(placed.clone(), &seen, &Algorithm::gptq()).err(), missing("Gram matrix"));
    assert_eq!(calibrate(placed.clone(), &seen, &Algorithm::entropy()).err(), missing("histogram"));
    assert!(calibrate(placed, &seen, &Algorithm::smoothquant(0.5)).is_ok());
}

#[test]
fn a_memory_budget_splits_observation_and_changes_nothing() {
    let (_, device) = device();
    let x = images(0, 16, &device);
    let config = w4(4).with_algorithm(Algorithm::gptq());
    let run = |budget: Option<usize>| {
        let mut calls = 0;
        let options = QuantizeOptions::new();
        let options = match budget {
            Some(bytes) => options.with_memory_budget(bytes),
            None => options,
        };
        let (model, report) = quantize_with(Net::new(&device), &config, options, |model| {
            calls += 1;
            drop(model.forward(x.clone()));
        })
        .unwrap();
        assert_eq!(report.passes, calls);
        (calls, values(model.forward(x.clone())))
    };
    // q and k, 8 channels each, stay together; o has 12
    let (once, y) = run(None);
    assert_eq!(once, 1);
    for (bytes, passes) in [(4 * (64 + 64 + 64 + 144), 1), (4 * 220, 2), (0, 3)] {
        assert_eq!(run(Some(bytes)), (passes, y.clone()), "{bytes} bytes");
    }
}

#[test]
fn bad_data_names_the_batch() {
    let (_, device) = device();
    let mut batches = vec![images(0, 2, &device); 4];
    batches[2] = batches[2].clone() * f32::INFINITY;
    for config in [w8a8(), w4(4).with_algorithm(Algorithm::gptq())] {
        let config = config.with_rule(Rule::disable("idle.*"));
        let run = |model: &Net| batches.iter().for_each(|batch| drop(model.forward(batch.clone())));
        let error = quantize(Net::new(&device), &config, run).unwrap_err();
        let QuantError::NonFinite { name, batch } = error else { panic!("{error}") };
        assert_eq!(batch, Some(2), "{name}");
    }
}

#[test]
fn histograms_do_not_depend_on_the_order_of_batches() {
    for (name, device) in devices() {
        let config = HistogramConfig { bins: 64, ..HistogramConfig::default() };
        let algorithm = Algorithm::Percentile { percentile: 99.0, histogram: config };
        let (placed, _) = place(linear(spread([8, 3], &device)), &w8a8(), &Default::default()).unwrap();
        let batches: Vec<Tensor<2>> =
            [0.01, 3.0, 0.0, 40.0, 1.0].iter().map(|s| spread([5, 8], &device) * *s).collect();
        let seen = |order: [usize; 5]| {
            let run = |layer: &QuantLinear| order.iter().for_each(|i| drop(layer.forward(batches[*i].clone())));
            observe(&placed, &algorithm, run).unwrap().get("input_quantizer").unwrap().histogram.clone().unwrap()
        };
        let all: Vec<f32> = batches.iter().flat_map(|batch| values(batch.clone())).collect();
        assert_eq!(seen([0, 1, 2, 3, 4]), Histogram::of(&all, &config), "{name}");
        assert_eq!(seen([3, 0, 2, 4, 1]), Histogram::of(&all, &config), "{name}");
    }
}

/// All algorithms of layers, and the formats they are tried on.
fn algorithms() -> Vec<Algorithm> {
    let act_order =
        Algorithm::Gptq { damping: 0.01, block_size: 5, act_order: ActOrder::On, inputs: CalibrationInputs::Quantized };
    vec![
        Algorithm::Mse(RangeSearch::default()),
        Algorithm::Mse(RangeSearch::E4m3Scales),
        Algorithm::local_hessian(),
        Algorithm::percentile(99.9),
        Algorithm::Entropy { start_bin: 16, stride: 1, histogram: HistogramConfig::default() },
        Algorithm::HistogramMse { start_bin: 16, stride: 7, histogram: HistogramConfig::default() },
        Algorithm::MovingAverage { momentum: 0.9 },
        Algorithm::activation_headroom(),
        Algorithm::smoothquant(0.5),
        Algorithm::AwqFull {
            alpha_step: 0.25,
            min_clip_ratio: 0.5,
            shrink_step: 0.1,
            sharing: SiblingScales::Shared,
            identity: Identity::Tried,
        },
        Algorithm::svdquant(3),
        Algorithm::gptq(),
        act_order,
        Algorithm::AdaRound { iterations: 20, regularization: 3.0 },
        Algorithm::BiasCorrection,
        Algorithm::Sequence(vec![Algorithm::awq_lite(), Algorithm::gptq(), Algorithm::BiasCorrection]),
    ]
}

/// The table of algorithms is longer than that of the contract by those that are no more than a part of another, and by
/// the one that is where training begins, not a range to keep.
#[test]
fn every_algorithm_is_in_the_table_of_the_contract() {
    let parts: Vec<String> = algorithms()
        .iter()
        .flat_map(|algorithm| algorithm.steps().iter().map(|step| step.name().to_string()))
        .collect();
    let names = Algorithm::all().into_iter().map(|algorithm| algorithm.name().to_string());
    let missing: Vec<String> = names.filter(|name| !parts.contains(name)).collect();
    assert_eq!(missing, ["none", "max", "lsq_init", "awq_clip"]);
}

/// Formats, and the relative error of a layer's output that none of the algorithms may exceed: half as much again as
/// the worst of them makes.
fn formats() -> Vec<(&'static str, QuantConfig, f64)> {
    let both = |weight: QuantizerConfig, input: QuantizerConfig| {
        QuantConfig::new()
            .with_rule(Rule::set("*weight_quantizer", weight))
            .with_rule(Rule::set("*input_quantizer", input))
    };
    let mx = QuantizerConfig::mx;
    let w4a8 = QuantizerConfig::int(4).per_block(4).then(QuantizerConfig::e4m3());
    vec![
        ("W8A8", w8a8(), 0.008),
        ("W4, ragged blocks", w4(5), 0.05),
        ("NVFP4", both(QuantizerConfig::nvfp4(), QuantizerConfig::nvfp4()), 0.17),
        ("static NVFP4", both(QuantizerConfig::nvfp4_static(), QuantizerConfig::nvfp4()), 0.17),
        ("MXFP4", both(mx(burn_quant::config::Format::E2M1), mx(burn_quant::config::Format::E4M3)), 0.11),
        ("W4A8", both(w4a8, QuantizerConfig::e4m3()), 0.08),
    ]
}

/// Each algorithm is finite and repeatable on every format, and survives what real data has.
#[test]
fn the_contract_of_algorithms() {
    let (_, device) = device();
    let ordinary = spread([12, 11], &device) * 2.0;
    let channel = |factor: f32| {
        let factors: Vec<f32> = (0..11).map(|i| if i == 3 { factor } else { 1.0 }).collect();
        ordinary.clone() * Tensor::<1>::from_data(factors.as_slice(), &device).unsqueeze::<2>()
    };
    let data = [
        ("ordinary data", ordinary.clone()),
        ("a dead channel", channel(0.0)),
        ("an outlier channel", channel(1e4)),
        ("one token", ordinary.clone().slice([0..1, 0..11])),
        ("nothing but zeros", ordinary.clone() * 0.0),
    ];
    // a software GPU is slow, and what differs from backend to backend is tested without algorithms: there one line of
    // the table
    let on_host = burn_quant_tests::device().0 == "flex";
    let (formats, data) = if on_host { (formats(), &data[..]) } else { (formats().split_off(3), &data[2..3]) };
    let each = if on_host { 1 } else { 3 };
    for algorithm in algorithms().into_iter().step_by(each) {
        for (format, config, bound) in formats.clone() {
            let config = config.with_algorithm(algorithm.clone());
            for (what, x) in data {
                let solve = || {
                    let layer = linear(spread([11, 6], &device));
                    let run = |layer: &QuantLinear| drop(layer.forward(x.clone()));
                    let (layer, report) = quantize(layer, &config, run).unwrap();
                    // an algorithm of activations has nothing to do where only weights are quantized
                    let reported = !report.layers.is_empty() || config.rules.len() == 1;
                    assert!(reported, "{}, {format}: nothing is reported", algorithm.name());
                    (values(layer.forward(x.clone())), report.layers)
                };
                let ((y, report), again) = (solve(), solve());
                let case = format!("{}, {format}, {what}", algorithm.name());
                assert!(y.iter().all(|y| y.is_finite()), "{case}: {y:?}");
                assert_eq!((&y, &report), (&again.0, &again.1), "{case}: not repeatable");
                let float = values(linear(spread([11, 6], &device)).forward(x.clone()));
                let off = relative_error(&y, &float);
                if *what == "nothing but zeros" {
                    assert_eq!(off, 0.0, "{case}: zeros give zeros");
                } else {
                    // a model that is not quantized at all is off by nothing
                    assert!(off > 0.0 && off <= bound, "{case}: off by {off}");
                }
            }
        }
    }
}

#[test]
fn half_precision_models_are_calibrated_too() {
    let (_, device) = device();
    for dtype in [DType::F16, DType::BF16] {
        if !device.supports_dtype(dtype) {
            continue;
        }
        let x = spread([12, 8], &device).cast(dtype);
        for algorithm in algorithms() {
            let layer = linear(spread([8, 6], &device).cast(dtype));
            let float = values(layer.forward(x.clone()));
            let config = w8a8().with_algorithm(algorithm.clone());
            let (layer, _) = quantize(layer, &config, |layer| drop(layer.forward(x.clone()))).unwrap();
            assert_eq!(layer.weight.base().dtype(), dtype, "{}", algorithm.name());
            let y = values(layer.forward(x.clone()));
            // eight bits of a layer this small: the worst algorithm is off by 0.6 %, in bf16
            let off = relative_error(&y, &float);
            assert!(off > 0.0 && off <= 0.01, "{} {dtype:?}: off by {off}", algorithm.name());
        }
    }
}

/// Ranges of kernels are searched in f32, whatever the kernel is in: they are those of its values.
#[test]
fn ranges_of_kernels_in_half_precision_are_searched_in_f32() {
    let (_, device) = device();
    let searches = |name: &str| matches!(name, "nvfp4_four_over_six" | "nvfp4_w4a4_weight_mse_fp8_sweep");
    let presets: Vec<_> = presets::all().iter().filter(|preset| searches(preset.name)).collect();
    assert_eq!(presets.len(), 2);
    for dtype in [DType::F16, DType::BF16].into_iter().filter(|dtype| device.supports_dtype(*dtype)) {
        for preset in &presets {
            let ranges = |of: DType| {
                let mut layer: QuantConv2d = Conv2dConfig::new([16, 6], [3, 3]).with_bias(false).init(&device).into();
                // squares of changes are nothing in f16
                let weight = spread::<4>([6, 16, 3, 3], &device) * 1e-3;
                layer.weight = Param::from_tensor(weight.cast(dtype).cast(of));
                let images = spread::<4>([2, 16, 4, 4], &device).cast(of);
                let calibrated = quantize(layer, &(preset.config)(), |layer| drop(layer.forward(images.clone())));
                let layer = calibrated.unwrap().0;
                let quantizer: &TensorQuantizer = layer.weight.reparameterization().unwrap();
                values(quantizer.amax().unwrap())
            };
            assert_eq!(ranges(dtype), ranges(DType::F32), "{} in {dtype:?}", preset.name);
        }
    }
}

#[test]
fn a_model_that_is_trained_stays_so() {
    let (_, device) = device();
    let device = device.autodiff();
    let x = spread([12, 8], &device);
    let config = w8a8().with_algorithm(Algorithm::Sequence(vec![Algorithm::awq_lite(), Algorithm::BiasCorrection]));
    let layer = LinearConfig::new(8, 6).init(&device).into();
    let (layer, _) = quantize(layer, &config, |layer: &QuantLinear| drop(layer.forward(x.clone()))).unwrap();
    let gradients = layer.forward(x).powi_scalar(2).mean().backward();
    assert!(layer.weight.base().grad(&gradients).is_some());
    assert!(layer.bias.as_ref().unwrap().val().grad(&gradients).is_some());
}

#[test]
fn gptq_adaround_and_bias_correction_lower_the_error_they_are_for() {
    let (_, device) = device();
    // correlated inputs: errors can be made up for
    let x = spread([64, 4], &device).matmul(spread([4, 16], &device)) + spread([64, 16], &device) * 0.2 + 0.3;
    let bias = Some(Param::from_tensor(Tensor::zeros([8], &device)));
    let layer =
        || QuantLinear::from(Linear { weight: Param::from_tensor(spread([16, 8], &device)), bias: bias.clone() });
    let solved = |algorithm: Algorithm| {
        let config = QuantConfig::new()
            .with_rule(Rule::set("weight_quantizer", QuantizerConfig::int(3).per_channel()))
            .with_algorithm(algorithm);
        let (solved, report) = quantize(layer(), &config, |layer| drop(layer.forward(x.clone()))).unwrap();
        let change = solved.forward(x.clone()) - layer().forward(x.clone());
        let error = |x: Tensor<2>| values((x.clone() * x).mean())[0];
        (error(change.clone()), values(change.mean_dim(0)), report.layers.first().cloned())
    };
    let (nearest, ..) = solved(Algorithm::Max);
    let (gptq, _, report) = solved(Algorithm::gptq());
    assert!(gptq < 0.7 * nearest, "{gptq} of {nearest}");
    // what the report says of the Gram matrix is what running the layer gives
    let report = report.unwrap();
    assert!((report.error_after.unwrap() as f32 / gptq - 1.0).abs() < 1e-3, "{report}");
    assert!((report.error_before.unwrap() as f32 / nearest - 1.0).abs() < 1e-3, "{report}");
    let (adaround, ..) = solved(Algorithm::AdaRound { iterations: 500, regularization: 3.0 });
    assert!(adaround < 0.7 * nearest, "{adaround} of {nearest}");
    let (corrected, means, _) = solved(Algorithm::BiasCorrection);
    assert!(corrected < nearest);
    assert!(means.iter().all(|mean| mean.abs() < 1e-5), "{means:?}");
}

#[test]
fn a_branch_of_low_rank_stays_when_weights_are_folded_and_when_quantizers_are_off() {
    let (layer, _) = reference(w8a8(), Algorithm::svdquant(2));
    let (_, device) = device();
    let x = reference_inputs(&device);
    let y = values(layer.forward(x.clone()));
    let folded = fold_weights(layer.clone()).unwrap();
    assert_eq!(values(folded.forward(x.clone())), y);
    let off = burn_quant::disable(layer, "*").unwrap();
    let float = linear(reference_weight(&device)).forward(x.clone());
    let off = off.forward(x);
    assert!(values((off - float).abs().max())[0] < 1e-5, "smoothing and the branch leave the layer what it was");
}

#[test]
fn options_out_of_range_are_errors() {
    let (_, device) = device();
    let run = |algorithm: Algorithm| {
        let run = |layer: &QuantLinear| drop(layer.forward(reference_inputs(&device)));
        quantize(linear(reference_weight(&device)), &w8a8().with_algorithm(algorithm), run).unwrap_err()
    };
    let option = |algorithm: Algorithm, name: &str| {
        let error = run(algorithm);
        assert!(matches!(&error, QuantError::AlgorithmOption { option, .. } if *option == name), "{error}");
    };
    option(Algorithm::smoothquant(1.5), "alpha");
    option(Algorithm::smoothquant(f32::NAN), "alpha");
    option(Algorithm::percentile(100.5), "percentile");
    option(Algorithm::svdquant(0), "rank");
    option(Algorithm::ActivationHeadroom { anchor_percentile: 1.0, upper_percentile: 99.0, rho: 3e4 }, "rho");
    let search = RangeSearch::Multipliers { start: 2.0, stop: 1.0, step: 0.1, include_max: Default::default() };
    option(Algorithm::Mse(search), "stop");
    option(
        Algorithm::AwqLite { alpha_step: 0.0, sharing: SiblingScales::PerLayer, identity: Identity::Tried },
        "alpha_step",
    );
    let nested = Algorithm::Sequence(vec![Algorithm::Sequence(vec![])]);
    assert_eq!(run(nested), QuantError::AlgorithmInSequence { name: "sequence".into() });
    let custom = |options| Algorithm::Custom { name: "mine".into(), options };
    assert_eq!(run(custom(Default::default())), QuantError::UnknownAlgorithm { name: "mine".into(), known: vec![] });
}

/// An algorithm of the user's that gives other than a finite range per group is an error that names it, and no panic
/// in the first forward pass.
#[test]
fn ranges_of_an_algorithm_are_checked() {
    struct Fixed(Vec<f32>);
    impl CalibrationAlgorithm for Fixed {
        fn name(&self) -> &str {
            "fixed"
        }
        fn stage(&self) -> Stage {
            Stage::Clip
        }
        fn request(&self, _: &TensorQuantizer) -> Result<StatisticsRequest, SkipReason> {
            Ok(StatisticsRequest::new())
        }
        fn range(&self, _: &TensorQuantizer, _: &Statistics) -> Result<Vec<f32>, SkipReason> {
            Ok(self.0.clone())
        }
        fn needs_data(&self) -> bool {
            true
        }
    }
    let (_, device) = device();
    let config = QuantConfig::new()
        .with_rule(Rule::set("*input_quantizer", QuantizerConfig::int(8)))
        .with_algorithm(Algorithm::custom("fixed", []));
    let quantized = |ranges: Vec<f32>| {
        let layer: QuantLinear = LinearConfig::new(8, 8).init(&device).into();
        let options = QuantizeOptions::new().with_algorithm("fixed", move |_| Ok(Box::new(Fixed(ranges.clone()))));
        let run = |layer: &QuantLinear| drop(layer.forward(spread::<2>([4, 8], &device)));
        quantize_with(layer, &config, options, run).map(|(layer, _)| values(layer.input_quantizer.amax().unwrap()))
    };
    assert_eq!(quantized(vec![1.5]).unwrap(), [1.5]);
    for (ranges, found) in [
        (vec![1.0, 2.0, 3.0], "3 ranges"),
        (vec![], "0 ranges"),
        (vec![f32::NAN], "a range of NaN"),
        (vec![f32::INFINITY], "a range of inf"),
        (vec![-1.0], "a range of -1"),
    ] {
        let error = quantized(ranges).unwrap_err().to_string();
        let ranges = "its ranges are 1, one per group, finite and not negative";
        assert_eq!(error, format!("the algorithm `fixed` gave `input_quantizer` {found}: {ranges}"));
    }
}
