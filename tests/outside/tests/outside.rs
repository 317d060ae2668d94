//! Algorithms from outside the toolkit: what each finds, by hand and by the pipeline.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv1dConfig, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use burn_quant::calibrate::{LayerReport, QuantizeOptions, SkipReason};
use burn_quant::nn::{QuantConv1d, QuantConv2d, QuantLinear};
use burn_quant::search::{AutoQuantization, AutoQuantizeConfig, SearchFormat};
use burn_quant::{Algorithm, QuantConfig, QuantError, QuantizerConfig, Quantizers, Rule, quantize_with};
use burn_quant_outside::algorithms;

fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().convert::<f32>().try_into_vec().expect("f32 values")
}

/// Three bits: the highest code is 3, so a range is three steps wide.
fn weights() -> QuantConfig {
    QuantConfig::new().with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(3).per_channel()))
}

fn inputs() -> QuantConfig {
    QuantConfig::new().with_rule(Rule::set("*input_quantizer", QuantizerConfig::int(3)))
}

fn solved<M: Module>(model: M, config: &QuantConfig, run: impl FnMut(&M)) -> Result<(M, Vec<LayerReport>), QuantError> {
    let options = QuantizeOptions::new().with_algorithms(algorithms());
    quantize_with(model, config, options, run).map(|(model, report)| (model, report.layers))
}

fn amax<M: Module>(model: &M, quantizer: &str) -> Vec<f32> {
    values(Quantizers::of(model).get(quantizer).unwrap().amax().unwrap())
}

fn squared_error<const D: usize>(x: Tensor<D>, y: Tensor<D>) -> f32 {
    values((x - y).square().sum())[0]
}

#[test]
fn a_range_of_activations_ends_two_deviations_above_the_mean() {
    let device = Device::flex();
    // 64 magnitudes 1/2 and one 4 1/16 more, each in the middle of a bin: 4096 bins of 2^-9 hold them
    let half_a_bin = 1.0 / 1024.0;
    let data: Vec<f32> = (0..65).map(|i| if i == 8 { 4.5625 } else { 0.5 } + half_a_bin).collect();
    let signed: Vec<f32> = data.iter().enumerate().map(|(i, x)| if i % 2 == 0 { *x } else { -x }).collect();
    let x = Tensor::<1>::from_data(signed.as_slice(), &device).unsqueeze::<2>();
    let layer = || QuantLinear::from(LinearConfig::new(65, 1).init(&device));
    let run = |layer: &QuantLinear| drop(layer.forward(x.clone()));
    let (max, _) = solved(layer(), &inputs(), run).unwrap();
    let clip = inputs().with_algorithm(Algorithm::custom("mean_deviation", [("count", 2.into())]));
    let (clipped, report) = solved(layer(), &clip, run).unwrap();

    // mean: 1/2 + 65/16 / 65 = 9/16; deviation: 65/16 · √64 / 65 = 1/2; 9/16 + 2 · 1/2 = 25/16
    assert_eq!(amax(&max, "input_quantizer"), [4.5625 + half_a_bin]);
    assert_eq!(amax(&clipped, "input_quantizer"), [1.5625 + half_a_bin]);
    assert_eq!(report[0].steps[0].choices["amax"], 1.5625 + half_a_bin);
    // max has steps of 1.5 and makes zeros of 64 halves: 64 · 0.5²; three steps of 0.52 clip one value by 3: 3² and
    // 64 · 0.02²
    let error = |layer: &QuantLinear| {
        squared_error(Quantizers::of(layer).get("input_quantizer").unwrap().forward(x.clone()), x.clone())
    };
    assert!((error(&max) - 16.0).abs() < 0.1, "{}", error(&max));
    assert!((error(&clipped) - 9.0).abs() < 0.1, "{}", error(&clipped));
}

/// Three inputs and two outputs; the second output is on its grid already.
fn linear(device: &Device) -> QuantLinear {
    let weight = Tensor::<2>::from_data([[3.0, 3.0], [1.25, 1.0], [2.375, -2.0]], device);
    Linear { weight: Param::from_tensor(weight), bias: None }.into()
}

/// Eight tokens whose Gram matrix is `diag(1, 3, 1)`.
fn tokens(device: &Device) -> Tensor<2> {
    let (a, b, c, none) = ([1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [0.0; 3]);
    Tensor::from_data([a, b, b, b, c, none, none, none], device)
}

#[test]
fn the_scale_of_each_output_is_that_of_the_least_error_of_the_output() {
    let device = Device::flex();
    let x = tokens(&device);
    let run = |layer: &QuantLinear| drop(layer.forward(x.clone()));
    let config = weights().with_algorithm(Algorithm::custom("fitted_scale", []));
    let (layer, report) = solved(linear(&device), &config, run).unwrap();

    // codes 3, 1, 2: yᵀGy = 9 + 3 + 4 = 16, wᵀGy = 9 + 3.75 + 4.75 = 17.5, a ratio of 1.09375
    assert_eq!(amax(&layer, "weight_quantizer"), [3.0 * 1.09375, 3.0]);
    let expected = [3.0 * 1.09375, 3.0, 1.09375, 1.0, 2.0 * 1.09375, -2.0];
    assert_eq!(values(layer.weight.base()), expected, "the weight is on its new grid");
    assert_eq!(values(layer.weight.val()), expected, "and rounding leaves it there");
    assert_eq!(report[0].steps[0].choices["mean ratio"], (1.09375 + 1.0) / 2.0);
    // of 8 tokens and 2 outputs: 3 · 0.25² + 0.375² = 0.328125, which 1.5² / 16 = 0.140625 less leaves 0.1875 of
    assert_eq!(report[0].error_before, Some(0.328125 / 16.0));
    assert_eq!(report[0].error_after, Some(0.1875 / 16.0));
    let measured = squared_error(layer.forward(x.clone()), linear(&device).forward(x.clone()));
    assert_eq!(measured, 0.1875);
}

#[test]
fn the_range_of_a_kernel_is_that_of_the_least_squared_error_whatever_its_rank() {
    let device = Device::flex();
    // codes 3, 1, 2, 1, 1: Σy² = 16, Σwy = 9 + 1.25 + 4.75 + 1.25 + 1 = 17.25, a ratio of 1.078125, and the same codes
    let kernel = [3.0, 1.25, 2.375, 1.25, 1.0, 0.0, 0.0, 0.0, 0.0];
    let on_the_grid = [0.0, 0.0, 0.0, 0.0, -3.0, 0.0, 2.0, 0.0, 1.0];
    let config = weights().with_algorithm(Algorithm::custom("lloyd", []));
    let expected = [3.0 * 1.078125, 3.0];
    // 2 · 0.25² + 0.375² = 0.265625, less 1.25² / 16
    let (before, after) = (0.265625, 0.16796875);

    let mut image = Conv2dConfig::new([1, 2], [3, 3]).with_bias(false).init(&device);
    image.weight = Param::from_tensor(
        Tensor::<1>::from_data([kernel, on_the_grid].concat().as_slice(), &device).reshape([2, 1, 3, 3]),
    );
    let image = QuantConv2d::from(image);
    let error = |conv: &QuantConv2d| squared_error(conv.weight.val(), image.weight.base());
    let (max, _) = solved(image.clone(), &weights(), |_| {}).unwrap();
    let (lloyd, report) = solved(image.clone(), &config, |_| {}).unwrap();
    assert_eq!(amax(&lloyd, "weight_quantizer"), expected);
    assert_eq!((error(&max), error(&lloyd)), (before, after));
    assert_eq!((report[0].steps[0].algorithm.as_str(), &report[0].steps[0].skipped), ("lloyd", &None));

    let mut signal = Conv1dConfig::new(1, 2, 9).with_bias(false).init(&device);
    signal.weight = Param::from_tensor(
        Tensor::<1>::from_data([kernel, on_the_grid].concat().as_slice(), &device).reshape([2, 1, 9]),
    );
    let signal = QuantConv1d::from(signal);
    let (lloyd, _) = solved(signal.clone(), &config, |_| {}).unwrap();
    assert_eq!(amax(&lloyd, "weight_quantizer"), expected);
    assert_eq!(squared_error(lloyd.weight.val(), signal.weight.base()), after);
}

/// Values that are spread over -2..2 and differ from element to element; the same on every call.
fn spread(len: usize, device: &Device) -> Tensor<1> {
    let values: Vec<f32> =
        (0..len).map(|i| ((i * 2_654_435_761 + 12_345) % 1_000_003) as f32 / 250_000.75 - 2.0).collect();
    Tensor::from_data(values.as_slice(), device)
}

/// A batch with tails: the cubes of spread values.
fn images(device: &Device) -> Tensor<4> {
    spread(256, device).powi_scalar(3).reshape([16, 1, 4, 4])
}

#[derive(Module, Debug)]
struct Net {
    conv: QuantConv2d,
    fc: QuantLinear,
}

impl Net {
    fn new(device: &Device) -> Self {
        let mut conv = Conv2dConfig::new([1, 2], [3, 3]).with_bias(false).init(device);
        conv.weight = Param::from_tensor(spread(18, device).reshape([2, 1, 3, 3]));
        let weight = Param::from_tensor(spread(24, device).reshape([8, 3]));
        Self { conv: conv.into(), fc: Linear { weight, bias: None }.into() }
    }

    /// `[batch, 1, 4, 4]` to `[batch, 3]`.
    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        self.fc.forward(self.conv.forward(x).flatten(1, 3))
    }
}

const RECIPE: &str = r#"{
    "rules": [
        { "quantizer": "*weight_quantizer", "action": { "set": { "format": "int3", "granularity": "per_channel" } } },
        { "quantizer": "*input_quantizer", "action": { "set": { "format": "int8" } } }
    ],
    "algorithm": [
        { "custom": { "name": "mean_deviation", "options": { "count": 1.5 } } },
        { "custom": { "name": "lloyd" } },
        { "custom": { "name": "fitted_scale" } }
    ]
}"#;

#[test]
fn a_recipe_names_all_three_for_the_whole_model() {
    let device = Device::flex();
    let config = QuantConfig::from_json(RECIPE).unwrap();
    assert_eq!(QuantConfig::from_json(&config.to_json()).unwrap(), config);
    let x = images(&device);
    let run = |model: &Net| drop(model.forward(x.clone()));
    let (model, report) = solved(Net::new(&device), &config, run).unwrap();
    let steps =
        |layer: &LayerReport| layer.steps.iter().map(|step| (step.algorithm.clone(), step.skipped.clone())).collect();
    let found: Vec<(&str, Vec<_>)> = report.iter().map(|layer| (layer.layer.as_str(), steps(layer))).collect();
    let solved_by = |algorithm: &str| (algorithm.to_string(), None);
    let not_linear = ("fitted_scale".to_string(), Some(SkipReason::NotLinear));
    assert_eq!(
        found,
        [
            ("conv.input_quantizer", vec![solved_by("mean_deviation")]),
            ("fc.input_quantizer", vec![solved_by("mean_deviation")]),
            ("conv", vec![solved_by("lloyd"), not_linear]),
            ("fc", vec![solved_by("fitted_scale")]),
        ]
    );
    assert!(report[3].error_ratio().unwrap() < 1.0, "{}", report[3]);

    // each step is the same by itself
    let alone = |algorithm| {
        let config = QuantConfig { algorithm, ..config.clone() };
        solved(Net::new(&device), &config, run).unwrap().0
    };
    for (algorithm, quantizer) in [
        (Algorithm::custom("mean_deviation", [("count", 1.5.into())]), "fc.input_quantizer"),
        (Algorithm::custom("lloyd", []), "conv.weight_quantizer"),
        (Algorithm::custom("fitted_scale", []), "fc.weight_quantizer"),
    ] {
        assert_eq!(amax(&alone(algorithm), quantizer), amax(&model, quantizer), "{quantizer}");
    }
}

#[test]
fn a_search_calibrates_its_formats_with_them() {
    let device = Device::flex();
    let format = SearchFormat::new("int3_lloyd", QuantConfig::from_json(RECIPE).unwrap());
    let config = AutoQuantizeConfig::new(16.0, [format]).with_batches(1, 1);
    let x = images(&device);
    let search = |algorithms| {
        let data = |_: &Device| vec![x.clone()];
        let search = AutoQuantization::new(&config).with_algorithms(algorithms);
        search.by_divergence(Net::new(&device), data, |model: &Net, x| model.forward(x.clone()))
    };
    let (_, state) = search(algorithms()).unwrap();
    assert!(state.best.is_some());
    let unknown = QuantError::UnknownAlgorithm { name: "mean_deviation".into(), known: vec![] };
    assert_eq!(search(Default::default()).err(), Some(unknown));
}

#[test]
fn what_is_wrong_with_an_option_is_said_before_the_data_is_read() {
    let device = Device::flex();
    let run = |_: &QuantLinear| panic!("the data is read");
    let error = |algorithm| solved(linear(&device), &weights().with_algorithm(algorithm), run).unwrap_err().to_string();
    let text = error(Algorithm::custom("lloyd", [("steps", "many".into())]));
    assert!(text.contains("`steps` is a number above 0"), "{text}");
    let text = error(Algorithm::custom("fitted_scale", [("ratio", 2.into())]));
    assert!(text.contains("`ratio` is not an option"), "{text}");
    let text = error(Algorithm::custom("loyd", []));
    assert!(text.contains("loyd") && text.contains("lloyd"), "{text}");
}
