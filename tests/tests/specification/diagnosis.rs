//! What a diagnosis measures, on networks whose errors can be worked out by hand.
//!
//! That planted faults are named and mended is tested by the example `diagnose`.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use burn_quant::nn::conv::{Conv2d, Conv2dConfig};
use burn_quant::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn_quant::nn::{Linear, LinearConfig};
use burn_quant::place::Role;
use burn_quant::{QuantConfig, QuantizerConfig, Quantizers, Rule, TensorQuantizer, compress, presets, quantize};
use burn_quant_report::{Better, CurvePoint, DiagnoseError, DiagnoseOptions, Diagnosis, NO_NOISE, Operand, diagnose};
use burn_quant_tests::device;

use crate::{spread, values};

#[derive(Module, Debug)]
struct Pair {
    first: Linear,
    second: Linear,
}

impl Pair {
    /// `x · [1, 0.4] · [2]`
    fn new(device: &Device) -> Self {
        let layer = |weight: Tensor<2>| {
            let [inputs, outputs] = weight.dims();
            let mut layer = LinearConfig::new(inputs, outputs).with_bias(false).init(device);
            layer.weight = Param::from_tensor(weight);
            layer
        };
        Self {
            first: layer(Tensor::from_data([[1.0], [0.4]], device)),
            second: layer(Tensor::from_data([[2.0]], device)),
        }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.second.forward(self.first.forward(x))
    }
}

/// Weights on -1, 0 and 1 times the largest.
fn ternary() -> QuantConfig {
    QuantConfig::new().with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(2)))
}

fn diagnosed(float: &Pair, quantized: &Pair, options: DiagnoseOptions<'_, Pair>) -> Diagnosis {
    let (_, device) = device();
    let batches = [[[1.0, 1.0]], [[1.0, -1.0]]].map(|batch| Tensor::<2>::from_data(batch, &device));
    diagnose(float, quantized, batches, |model, batch| model.forward(batch.clone()), options).unwrap()
}

fn ternary_pair() -> (Pair, Pair) {
    let (_, device) = device();
    let float = Pair::new(&device);
    let (quantized, _) = quantize(float.clone(), &ternary(), |_| {}).unwrap();
    (float, quantized)
}

#[track_caller]
fn assert_decibels(found: Option<f64>, expected: f64) {
    let found = found.expect("it was measured");
    assert!((found - expected).abs() < 1e-3, "{found} dB, expected {expected} dB");
}

#[test]
fn noise_is_measured_of_each_layer_by_itself_and_in_the_model() {
    let (float, quantized) = ternary_pair();
    let diagnosis = diagnosed(&float, &quantized, DiagnoseOptions::new());
    // the weight [1, 0.4] becomes [1, 0]: outputs 1.4 and 0.6 become 1 and 1
    let first = 10.0 * ((1.4_f64.powi(2) + 0.6_f64.powi(2)) / (2.0 * 0.4_f64.powi(2))).log10();
    let [layer, exact] = &diagnosis.layers[..] else { panic!("two layers: {diagnosis}") };
    assert_eq!((layer.path.as_str(), layer.format.as_str(), layer.calls), ("first", "int2 × float", 2));
    assert_decibels(layer.own_sqnr, first);
    assert_decibels(layer.sqnr, first);
    assert_eq!((layer.float_amax, layer.quantized_amax, layer.share), (1.4, 1.0, 1.0));
    assert_eq!(layer.shift, Some(0.0), "errors of -0.4 and 0.4");
    // the weight [2] is on its grid: the second layer makes no noise, and hands on that of the first
    assert_eq!((exact.own_sqnr, exact.share), (Some(NO_NOISE), 0.0));
    assert_decibels(exact.sqnr, first);
    assert_decibels(diagnosis.overview.output_sqnr, first);
}

#[test]
fn quantizers_of_weights_are_measured_without_data() {
    let (float, quantized) = ternary_pair();
    let diagnosis = diagnosed(&float, &quantized, DiagnoseOptions::new());
    let [weight, _] = &diagnosis.quantizers[..] else { panic!("two quantizers are on: {diagnosis}") };
    assert_eq!((weight.name.as_str(), weight.operand, weight.calls), ("first.weight_quantizer", Operand::Weight, 1));
    assert_decibels(weight.sqnr, 10.0 * ((1.0 + 0.16_f64) / 0.16).log10());
    assert_eq!((weight.zeroed, weight.clipped), (0.5, 0.0));
    assert_eq!(weight.grid, [1.0], "of -1, 0 and 1, what is between the values 0.4 and 1");
}

#[test]
fn inputs_beyond_the_range_are_counted() {
    let (_, device) = device();
    let float = Pair::new(&device);
    let input = QuantizerConfig::int(8).constant(0.5);
    let config = ternary().with_rule(Rule::set("first.input_quantizer", input));
    let (quantized, _) = quantize(float.clone(), &config, |_| {}).unwrap();
    let diagnosis = diagnosed(&float, &quantized, DiagnoseOptions::new());
    let input = diagnosis.quantizers.iter().find(|it| it.operand == Operand::Input).unwrap();
    assert_eq!((input.clipped, input.calls, input.range.as_str()), (1.0, 2, "constant"), "all inputs are 1 or -1");
    // what is left of 1, three times, is 0.5; of -1, once, -0.5 · 128 / 127
    let noise = 3.0 * 0.25 + (1.0 - 0.5 * 128.0 / 127.0_f64).powi(2);
    assert_decibels(input.sqnr, 10.0 * (4.0 / noise).log10());
}

#[test]
fn both_models_are_as_they_were() {
    let (_, device) = device();
    let (float, quantized) = ternary_pair();
    let x = Tensor::<2>::from_data([[1.0, 1.0]], &device);
    let before = [&float, &quantized].map(|model| values(model.forward(x.clone())));
    diagnosed(&float, &quantized, DiagnoseOptions::new());
    assert_eq!([&float, &quantized].map(|model| values(model.forward(x.clone()))), before);
    assert_eq!(before, [[2.8], [2.0]]);
}

#[test]
fn sensitivity_is_the_metric_with_some_quantizers_on() {
    let (_, device) = device();
    let (float, quantized) = ternary_pair();
    let x = Tensor::<2>::from_data([[1.0, 1.0]], &device);
    let output = move |model: &Pair| f64::from(values(model.forward(x.clone()))[0]);
    let options = DiagnoseOptions::new().with_metric("output", Better::Higher, output).with_sensitivity();
    let diagnosis = diagnosed(&float, &quantized, options);
    let metric = diagnosis.overview.metric.as_ref().unwrap();
    assert_eq!((metric.float as f32, metric.quantized as f32), (2.8, 2.0));
    let taken: Vec<_> =
        diagnosis.sensitivity.iter().map(|it| (it.layer.as_str(), it.only as f32, it.without as f32)).collect();
    assert_eq!(taken, [("first", 2.0, 2.8), ("second", 2.8, 2.0)]);
    assert!(diagnosis.sensitivity.iter().all(|it| it.weights.is_none()), "nothing but weights is quantized");
}

#[derive(Module, Debug)]
struct Vision {
    conv: Conv2d,
    encoder: TransformerEncoder,
}

impl Vision {
    fn new(device: &Device) -> Self {
        Self {
            conv: Conv2dConfig::new([3, 16], [3, 3]).init(device),
            encoder: TransformerEncoderConfig::new(16, 32, 2, 1).with_dropout(0.0).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<3> {
        let x = self.conv.forward(x).flatten::<3>(2, 3).swap_dims(1, 2);
        self.encoder.forward(TransformerEncoderInput::new(x))
    }
}

#[test]
fn convolutions_and_attention_are_measured_in_every_preset_of_eight_bits() {
    let (device_name, device) = device();
    let float = Vision::new(&device);
    let batches = [spread([2, 3, 6, 6], &device), spread([1, 3, 6, 6], &device)];
    let all = [presets::int8_default(), presets::fp8_default(), presets::mxfp8_default(), presets::int8_smoothquant()];
    // each compiles kernels of its own on a GPU, where the last has those of the first
    let presets = if device_name == "flex" { &all[..] } else { &all[3..] };
    for config in presets.iter().cloned() {
        let config = config.extend(presets::fp8_kv());
        let run = |model: &Vision| batches.iter().for_each(|batch| drop(model.forward(batch.clone())));
        let (quantized, _) = quantize(float.clone(), &config, run).unwrap();
        let forward = |model: &Vision, batch: &Tensor<4>| model.forward(batch.clone());
        let diagnosis = diagnose(&float, &quantized, batches.clone(), forward, DiagnoseOptions::new()).unwrap();
        let paths: Vec<&str> = diagnosis.layers.iter().map(|layer| layer.path.as_str()).collect();
        assert_eq!(paths[0], "conv", "layers are in the order of calls");
        assert_eq!(paths.len(), 7, "a convolution, four projections, two layers of the feed-forward network");
        for layer in &diagnosis.layers {
            assert!(layer.own_sqnr.is_some_and(|sqnr| sqnr > 20.0), "{}: {:?}", layer.path, layer.own_sqnr);
        }
        let attention = diagnosis.quantizers.iter().filter(|it| it.operand == Operand::Attention);
        assert_eq!(attention.clone().count(), 2, "keys and values");
        assert!(attention.clone().all(|it| it.calls == 2 && it.sqnr.is_some_and(|sqnr| sqnr > 20.0)));
        let again = Diagnosis::from_json(&diagnosis.to_json()).unwrap();
        assert_eq!(again, diagnosis);
    }
}

#[test]
fn what_cannot_be_diagnosed_is_said() {
    let (_, device) = device();
    let (float, quantized) = ternary_pair();
    let forward = |model: &Pair, batch: &Tensor<2>| model.forward(batch.clone());
    let none: [Tensor<2>; 0] = [];
    let error = diagnose(&float, &quantized, none, forward, DiagnoseOptions::new()).unwrap_err();
    assert!(matches!(error, DiagnoseError::NoData), "{error}");

    let empty = [Tensor::<2>::ones([0, 2], &device)];
    let error = diagnose(&float, &quantized, empty, forward, DiagnoseOptions::new()).unwrap_err();
    assert!(matches!(error, DiagnoseError::NoData), "{error}");

    let batch = [Tensor::<2>::ones([1, 2], &device)];
    let (packed, _) = compress(quantized.clone()).unwrap();
    let error = diagnose(&float, &packed, batch.clone(), forward, DiagnoseOptions::new()).unwrap_err();
    assert!(error.to_string().contains("first.weight"), "{error}");

    let mut quantizers = Quantizers::of(&quantized);
    let uncalibrated = TensorQuantizer::new(QuantizerConfig::int(8), Role::ChannelsLast);
    *quantizers.get_mut("second.input_quantizer").unwrap() = uncalibrated;
    let uncalibrated = quantizers.install(quantized.clone()).unwrap();
    let error = diagnose(&float, &uncalibrated, batch.clone(), forward, DiagnoseOptions::new()).unwrap_err();
    assert!(error.to_string().contains("`second.input_quantizer` is static and has no range"), "{error}");

    let mut wide = float.clone();
    wide.second.weight = Param::from_tensor(Tensor::ones([1, 3], &device));
    let error = diagnose(&wide, &quantized, batch.clone(), forward, DiagnoseOptions::new()).unwrap_err();
    let words =
        "`second.weight` is of the shape [1, 3] in the float model and of the shape [1, 1] in the quantized one";
    assert!(error.to_string().starts_with(words), "{error}");

    let mut calls = 0;
    let differ = |model: &Pair, batch: &Tensor<2>| {
        calls += 1;
        let rows = if calls == 1 { 1 } else { 2 };
        model.forward(batch.clone().repeat_dim(0, rows))
    };
    let error = diagnose(&float, &quantized, batch, differ, DiagnoseOptions::new()).unwrap_err();
    assert!(matches!(error, DiagnoseError::OutputsDiffer { batch: 0, .. }), "{error}");
}

#[derive(Module, Debug)]
struct Deep {
    layers: Vec<Linear>,
}

#[test]
fn models_of_two_depths_are_refused() {
    let (_, device) = device();
    let deep = |layers| Deep { layers: (0..layers).map(|_| LinearConfig::new(2, 2).init(&device)).collect() };
    let forward = |model: &Deep, x: &Tensor<2>| model.layers.iter().fold(x.clone(), |x, layer| layer.forward(x));
    let x = [spread([4, 2], &device)];
    for (float, quantized, words) in [
        (2, 3, "`layers.2.weight` is missing in the float model and of the shape [2, 2] in the quantized one"),
        (3, 2, "`layers.2.weight` is of the shape [2, 2] in the float model and missing in the quantized one"),
    ] {
        let error = diagnose(&deep(float), &deep(quantized), x.clone(), forward, DiagnoseOptions::new()).unwrap_err();
        assert!(error.to_string().starts_with(words), "{error}");
    }
}

#[test]
fn batches_without_examples_say_nothing() {
    let (_, device) = device();
    let (float, quantized) = ternary_pair();
    let batches = [[[1.0, 1.0]], [[1.0, -1.0]]].map(|batch| Tensor::<2>::from_data(batch, &device));
    let with = [batches[0].clone(), Tensor::zeros([0, 2], &device), batches[1].clone()];
    let forward = |model: &Pair, batch: &Tensor<2>| model.forward(batch.clone());
    let [without, with] = [batches.to_vec(), with.to_vec()]
        .map(|batches| diagnose(&float, &quantized, batches, forward, DiagnoseOptions::new()).unwrap());
    assert_eq!(with.layers, without.layers);
    assert_eq!((without.overview.batches, with.overview.batches), (2, 3));
}

#[test]
fn the_text_names_findings_and_counts_what_is_not_finite() {
    let (_, device) = device();
    let (float, quantized) = ternary_pair();
    let forward = |model: &Pair, batch: &Tensor<2>| model.forward(batch.clone());
    let batch = Tensor::<2>::from_data([[1.0, 1.0], [f32::NAN, 1.0]], &device);
    let text = diagnose(&float, &quantized, [batch], forward, DiagnoseOptions::new()).unwrap().to_string();
    assert!(text.contains("over 1 batch, 50.00 % of it not finite\n"), "{text}");
    assert!(text.contains("\n1. broken, float not finite: first\n"), "{text}");
    let text = diagnosed(&float, &float, DiagnoseOptions::new()).to_string();
    assert!(text.contains("0 of 4 quantizers are on; 16.00 bits"), "{text}");
    assert!(text.ends_with("\nnothing stands out"), "{text}");
}

#[test]
fn a_poor_output_that_no_layer_stands_out_for_is_said_to_be_poor() {
    let mut diagnosis = Diagnosis::default();
    for (sqnr, poor) in [(Some(15.0), true), (Some(25.0), false), (None, false)] {
        diagnosis.overview.output_sqnr = sqnr;
        let words = "tands out, but the output is poor";
        assert_eq!([diagnosis.to_string(), diagnosis.html()].map(|shown| shown.contains(words)), [poor; 2], "{sqnr:?}");
    }
}

#[test]
fn numbers_of_the_user_that_are_not_finite_are_read_again() {
    let (float, quantized) = ternary_pair();
    let points = [(4.0, f64::INFINITY), (f64::NEG_INFINITY, 1.0)];
    let curve = points.map(|(bits, score)| CurvePoint { bits, score, chosen: false });
    let mut recipe = Diagnosis::default().as_recipe("none");
    recipe.bits = f64::INFINITY;
    let options = DiagnoseOptions::new().with_curve(curve).with_recipes([recipe]);
    let diagnosis = diagnosed(&float, &quantized, options);
    assert_eq!(Diagnosis::from_json(&diagnosis.to_json()).unwrap(), diagnosis);
}
