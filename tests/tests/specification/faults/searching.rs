//! Searches, their scores and what is printed of them.

use std::cell::RefCell;

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_quant::error::NotScoredReason;
use burn_quant::nn::QuantLinear;
use burn_quant::search::{
    AutoQuantization, AutoQuantizeConfig, Choice, SearchFormat, SearchOverride, SearchState, auto_quantize,
};
use burn_quant::train::Distillation;
use burn_quant::{
    Algorithm, QuantConfig, QuantError, QuantizerConfig, Rule, presets, quantize, quantize_weights, summary,
};
use burn_quant_tests::device;

use crate::{assert_close, spread, values};

/// Two layers.
#[derive(Module, Debug)]
struct Mlp {
    fc: QuantLinear,
    head: QuantLinear,
}

fn layer(d_in: usize, d_out: usize, device: &Device) -> QuantLinear {
    QuantLinear::from(Linear { weight: Param::from_tensor(spread([d_in, d_out], device) * 0.1), bias: None })
}

impl Mlp {
    fn new(device: &Device) -> Self {
        Self { fc: layer(16, 16, device), head: layer(16, 4, device) }
    }

    fn forward(&self, x: &Tensor<2>) -> Tensor<2> {
        self.head.forward(relu(self.fc.forward(x.clone())))
    }
}

fn batches(device: &Device) -> Vec<Tensor<2>> {
    (1..=3).map(|i| spread([8, 16], device) * (0.5 + 0.25 * i as f64)).collect()
}

fn mean_square(y: Tensor<2>, _: &Tensor<2>) -> Tensor<1> {
    y.powf_scalar(2.0).mean()
}

fn format(bits: u8) -> SearchFormat {
    let config = QuantConfig::new()
        .with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(bits).per_channel()))
        .with_rule(Rule::set("*input_quantizer", QuantizerConfig::int(8)));
    SearchFormat::new(format!("int{bits}"), config)
}

fn config(effective_bits: f64) -> AutoQuantizeConfig {
    AutoQuantizeConfig::new(effective_bits, [format(4), format(8)]).with_batches(3, 3)
}

fn search(config: &AutoQuantizeConfig) -> Result<SearchState, QuantError> {
    let (_, device) = device();
    auto_quantize(Mlp::new(&device), config, batches, Mlp::forward, mean_square).map(|(_, state)| state)
}

pub(super) fn f15() {
    let no_layer = |option: &'static str, pattern: &str, near_misses: &[&str]| {
        let near_misses = near_misses.iter().map(|name| name.to_string()).collect();
        QuantError::NoLayer { option, pattern: pattern.into(), near_misses }
    };
    let space =
        |layer: &str| SearchOverride { layers: vec![layer.into()], formats: vec![format(8)], allow_float: true };
    for (typo, error) in [
        (config(12.0).keep_float("haed"), no_layer("keep_float", "haed", &["head", "fc"])),
        (config(12.0).with_override(space("haed")), no_layer("overrides", "haed", &["head", "fc"])),
        (config(12.0).with_group("^(haed)"), no_layer("groups", "^(haed)", &["head", "fc"])),
        (
            config(12.0).exclude_from_budget("haed.*"),
            no_layer("exclude_from_budget", "haed.*", &["head", "head.weight", "fc.weight"]),
        ),
    ] {
        assert_eq!(search(&typo).unwrap_err(), error);
    }
    // each of them, spelt right, matches; so does the parameter of a layer that no format quantizes
    let mut int4 = format(4);
    int4.config = int4.config.with_rule(Rule::disable("head.*"));
    let config =
        AutoQuantizeConfig::new(16.0, [int4]).with_batches(3, 3).keep_float("head").exclude_from_budget("*.weight");
    assert!(matches!(search(&config), Err(QuantError::Search { problem }) if problem == "no parameter counts"));

    // an algorithm for some layers only is the same kind of pattern
    let (_, device) = device();
    let algorithm = Algorithm::ForLayers { layers: vec!["haed".into()], algorithm: Box::new(Algorithm::gptq()) };
    let config = presets::int8_weight_only().with_algorithm(algorithm);
    let found = quantize(Mlp::new(&device), &config, |model| drop(model.forward(&batches(&device)[0])));
    assert_eq!(found.unwrap_err(), no_layer("layers", "haed", &["head", "fc"]));
}

/// What is searched by divergence: the logits of `x + f(x)`, where `f` is a layer whose weights are multiples of the
/// INT8 step, so that the quantized layer computes the same.
pub(super) fn f23() {
    let (_, device) = device();
    let exact = || {
        let weight: Vec<f32> = (0..64).map(|i| (i * 37 % 255) as f32 - 127.0).collect();
        let weight = Tensor::<1>::from_data(weight.as_slice(), &device).reshape([8, 8]) / 127.0;
        QuantLinear::from(Linear { weight: Param::from_tensor(weight), bias: None })
    };
    let rules = QuantConfig::new().with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(8)));
    let data = |device: &Device| (0..4).map(|i| spread([16, 8], device) * (1.0 + i as f64)).collect::<Vec<_>>();
    // a causal mask: the class on the diagonal, and those after it, are ruled out by -∞
    let forward = |layer: &QuantLinear, x: &Tensor<2>| {
        let logits = layer.forward(x.clone());
        let mask = Tensor::<2>::ones([16, 8], &logits.device()).triu(1).equal_elem(1.0);
        logits.mask_fill(mask, f32::NEG_INFINITY)
    };
    let config = AutoQuantizeConfig::new(12.0, [SearchFormat::new("int8", rules)]).with_batches(4, 4);
    let (_, state) = AutoQuantization::new(&config).by_divergence(exact(), data, forward).unwrap();
    let score = state.groups[0].choices[0].score.unwrap();
    assert!((0.0..1e-4).contains(&score), "the same outputs but for rounding, with a mask: {score}");

    // a budget that nothing meets: what was calibrated and scored is there to be solved for another one
    let saved = RefCell::new(Vec::new());
    let keep = |state: &SearchState| {
        saved.borrow_mut().push(state.clone());
        Ok(())
    };
    // exact costs are known after calibration: scales of channels of AWQ bring 8.5 bits to more
    let mut awq = format(8);
    awq.config.algorithm = Algorithm::awq_lite();
    let tight = AutoQuantizeConfig::new(10.2, [awq]).with_batches(3, 3).with_override(SearchOverride {
        layers: vec!["*".into()],
        formats: vec![{
            let mut awq = format(8);
            awq.config.algorithm = Algorithm::awq_lite();
            awq
        }],
        allow_float: false,
    });
    let search = AutoQuantization::new(&tight).with_checkpoint(keep);
    let found = search.by_divergence(Mlp::new(&device), batches, Mlp::forward);
    let Err(QuantError::Infeasible { least, .. }) = found else { panic!("the scales do not fit") };
    let saved = saved.into_inner();
    assert_eq!(saved.len(), 1, "the calibration, which took the time");
    let more = AutoQuantizeConfig { effective_bits: least, ..tight.clone() };
    let again = AutoQuantization::new(&more).with_state(saved[0].clone());
    let (_, state) = again.by_divergence(Mlp::new(&device), batches, Mlp::forward).unwrap();
    assert_eq!(state.candidates, saved[0].candidates);
}

pub(super) fn f23_distillation() {
    let (_, device) = device();
    let device = device.autodiff();
    let masked = f32::NEG_INFINITY;
    let teacher = Tensor::<2>::from_data([[0.0, 0.0, masked], [1.0, 1.0, 1.0]], &device);
    // the student rules out the same class: ln(p/q) = ln((1/2)/(3/4)) and ln((1/2)/(1/4)), and 0 for the third
    let student = Tensor::<2>::from_data([[3f32.ln(), 0.0, masked], [1.0, 1.0, 1.0]], &device).require_grad();
    let loss = Distillation::new(1.0).loss(student.clone(), teacher);
    let row = 0.5 * (0.5f32 / 0.75).ln() + 0.5 * (0.5f32 / 0.25).ln();
    let gradients = loss.backward();
    assert_close(&values(loss), &[row / 2.0], 1e-6, "the mean of two rows, the second of which is learned already");
    // ∂KL/∂s = (q − p) / rows
    let expected = [(0.75 - 0.5) / 2.0, (0.25 - 0.5) / 2.0, 0.0, 0.0, 0.0, 0.0];
    assert_close(&values(student.grad(&gradients).unwrap()), &expected, 1e-6, "gradients");
}

pub(super) fn f29() {
    let (_, device) = device();
    let reason = |forward: &dyn Fn(&Mlp, &Tensor<2>) -> Tensor<2>| {
        let found = auto_quantize(Mlp::new(&device), &config(12.0), batches, forward, mean_square);
        match found.map(drop) {
            Err(QuantError::NotScored { layer, reason }) => (layer, reason),
            other => panic!("a layer without a score: {other:?}"),
        }
    };
    let detached = |model: &Mlp, x: &Tensor<2>| model.head.forward(model.fc.forward(x.clone()).detach());
    assert_eq!(reason(&detached), ("fc".into(), NotScoredReason::NoGradient));
    let unused = |model: &Mlp, x: &Tensor<2>| {
        drop(model.head.forward(model.fc.forward(x.clone())));
        model.fc.forward(x.clone())
    };
    assert_eq!(reason(&unused), ("head".into(), NotScoredReason::NoGradient));
    // calibration reaches the head, scoring does not: there the device computes gradients
    let never = |model: &Mlp, x: &Tensor<2>| {
        if x.device().is_autodiff() { model.fc.forward(x.clone()) } else { model.forward(x) }
    };
    assert_eq!(reason(&never), ("head".into(), NotScoredReason::NotReached));

    #[derive(Module, Debug)]
    struct Plain {
        fc: Linear,
    }
    let plain = Plain { fc: Linear { weight: Param::from_tensor(spread([16, 4], &device)), bias: None } };
    let mut weights = format(8);
    weights.config.rules.pop();
    let config = AutoQuantizeConfig::new(16.0, [weights]).with_batches(3, 3);
    let forward = |model: &Plain, x: &Tensor<2>| model.fc.forward(x.clone());
    let Err(error) = auto_quantize(plain, &config, batches, forward, mean_square) else { panic!("no slot") };
    let reason = NotScoredReason::NoActivationQuantizer { container: "Linear".into() };
    assert_eq!(error, QuantError::NotScored { layer: "fc".into(), reason });
    let advice = "a `Linear` has no quantizer for its input; use the layer of `burn_quant::nn` in its place";
    assert!(error.to_string().contains(advice), "{error}");
}

pub(super) fn f29_numbers() {
    let (_, device) = device();
    // the gradients of the second batch are numbers, its loss is none
    let batch = RefCell::new(0);
    let nan = |y: Tensor<2>, _: &Tensor<2>| {
        *batch.borrow_mut() += 1;
        let wrong = if *batch.borrow() == 2 { f32::NAN } else { 0.0 };
        y.powf_scalar(2.0).mean() + wrong
    };
    let found = auto_quantize(Mlp::new(&device), &config(12.0), batches, Mlp::forward, nan);
    assert!(matches!(found, Err(QuantError::LossNotFinite { batch: 1, loss }) if loss.is_nan()));

    // loops of one's own hand over gradients alone: those of a loss that is NaN are NaN
    let config = config(12.0);
    let search = AutoQuantization::new(&config);
    let found = search.by_gradients_of(
        Mlp::new(&device),
        |model, n| batches(&device).iter().take(n).for_each(|x| drop(model.forward(x))),
        |model, step| step((model.forward(&spread([8, 16], &device.clone().autodiff())) * f32::NAN).sum().backward()),
    );
    let Err(QuantError::ScoreNotFinite { layer, format, score }) = found else { panic!("a score that is NaN") };
    assert_eq!((layer.as_str(), format.as_str(), score.is_nan()), ("fc", "int4", true));

    // batches are those that there were, not those that were asked for
    let many = AutoQuantizeConfig::new(12.0, [format_of(8)]).with_batches(512, 128);
    let (_, state) = AutoQuantization::new(&many).by_layer_error(Mlp::new(&device), batches, Mlp::forward).unwrap();
    assert_eq!(state.scored_batches, 3);
    let weights = {
        let mut format = format_of(8);
        format.config.rules.pop();
        AutoQuantizeConfig::new(12.0, [format]).with_batches(512, 128)
    };
    let none = |_: &Device| Vec::<Tensor<2>>::new();
    let scoring = QuantError::NoBatches { step: "scoring" };
    let gram = AutoQuantization::new(&weights).by_layer_error(Mlp::new(&device), none, Mlp::forward);
    assert_eq!(gram.err(), Some(scoring.clone()));
    let divergence = AutoQuantization::new(&weights).by_divergence(Mlp::new(&device), none, Mlp::forward);
    assert_eq!(divergence.err(), Some(scoring.clone()));
    let gradient = AutoQuantization::new(&weights).by_gradient(Mlp::new(&device), none, Mlp::forward, mean_square);
    assert_eq!(gradient.err(), Some(scoring));
}

fn format_of(bits: u8) -> SearchFormat {
    format(bits)
}

/// Sixty layers whose every bit is worth the same: no selection is better than another, and their number is 2^60.
pub(super) fn f35() {
    let mut state = search(&config(12.0)).unwrap();
    let unit = state.groups[0].units[0].clone();
    let group = |i: usize| {
        let mut group = state.groups[0].clone();
        let worth = 1.0 + values(spread([60], &device().1))[i].abs() as f64;
        group.units = vec![burn_quant::search::Unit { layer: format!("layer{i}"), ..unit.clone() }];
        let choice =
            |format: &str, cost, score| Choice { format: Some(format.into()), cost, score: Some(score), allowed: true };
        group.choices = vec![choice("int4", 4.0, worth), choice("int8", 4.0 + worth, 0.0)];
        group
    };
    state.groups = (0..60).map(group).collect();
    (state.counted, state.other_bits) = (60.0, 0.0);
    let all: f64 = state.groups.iter().map(|group| group.choices[1].cost - 4.0).sum();
    let half = 4.0 + all / 2.0 / 60.0;
    let selection = state.solve(half).unwrap();
    // the relaxation spends the whole budget, which leaves half of the worth: no selection can do better
    let least = all - all / 2.0;
    assert!(selection.gap > 0.0 && selection.gap < 1e-3 * least, "{}", selection.gap);
    assert!((selection.score - selection.gap - least).abs() < 1e-9 * least, "{selection:?}");
    assert!(state.table_of(Some(&selection)).to_string().contains("above the least"));
    // where the solver gets to the end, nothing is left open; and a selection that was saved before has no gap
    let small = search(&config(9.0)).unwrap().best.unwrap();
    assert_eq!(small.gap, 0.0);
    let json = serde_json::to_string(&small).unwrap();
    assert!(!json.contains("gap"), "{json}");
    assert_eq!(serde_json::from_str::<burn_quant::search::Selection>(&json).unwrap(), small);
}

pub(super) fn f59_loops() {
    let (_, device) = device();
    // a batch that cannot be cloned: both closures borrow it
    struct Batch {
        inputs: Tensor<2>,
        targets: Tensor<2>,
    }
    let data = |device: &Device| {
        batches(device)
            .into_iter()
            .map(|inputs| Batch { targets: inputs.clone().narrow(1, 0, 4), inputs })
            .collect::<Vec<_>>()
    };
    let forward = |model: &Mlp, batch: &Batch| model.forward(&batch.inputs);
    let loss = |y: Tensor<2>, batch: &Batch| (y - batch.targets.clone()).powf_scalar(2.0).mean();
    let (_, state) = auto_quantize(Mlp::new(&device), &config(12.0), data, forward, loss).unwrap();
    assert_eq!(state.scored_batches, 3);
}

pub(super) fn f59_reports() {
    let (_, device) = device();
    let rules = QuantConfig::new()
        .with_rule(Rule::set("fc.weight_quantizer", QuantizerConfig::int(4).per_channel()))
        .with_rule(Rule::set("fc.input_quantizer", QuantizerConfig::int(8)));
    let run = |config: &QuantConfig| {
        quantize(Mlp::new(&device), config, |model| drop(model.forward(&batches(&device)[0]))).unwrap()
    };
    let (model, report) = run(&rules);
    let report = report.to_string();
    assert!(report.ends_with("2 of 6 quantizers enabled, 1 pass over the data"), "{report}");
    let (_, weights) = quantize_weights(Mlp::new(&device), &presets::int8_weight_only()).unwrap();
    assert!(weights.to_string().ends_with("2 of 6 quantizers enabled, no data"), "{weights}");

    // fc: 256 codes of 4 bits, 16 scales and that of the input; head: 64 weights in half precision
    let bits = (256.0 * 4.0 + 17.0 * 32.0 + 64.0 * 16.0) / 320.0;
    let table = summary(&model);
    assert!((table.bits_per_parameter(16) - bits).abs() < 1e-9, "{}", table.bits_per_parameter(16));
    let lines: Vec<String> = table.to_string().lines().map(String::from).collect();
    let name = |line: &String| line.split_whitespace().next().unwrap_or_default().to_string();
    assert_eq!(
        lines.iter().map(name).take(3).collect::<Vec<_>>(),
        ["quantizer", "fc.weight_quantizer", "fc.input_quantizer"]
    );
    let last = "2 of 6 quantizers enabled: 1 int4, 1 int8; 8.10 bits per parameter, 16 where it is in float";
    assert_eq!(lines[3..], [last]);
    assert_eq!(table.with_disabled().to_string().lines().count(), 1 + 6 + 1, "all of them, where that is asked for");
}
