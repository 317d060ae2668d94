//! What a diagnosis advises, on single layers with one thing wrong; the recipe that it leads to mends it.
//!
//! Eight more faults are planted by the example `diagnose`.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use burn_quant::nn::{Linear, LinearConfig};
use burn_quant::place::Role;
use burn_quant::{Algorithm, QuantConfig, QuantizerConfig, Quantizers, Rule, TensorQuantizer, quantize};
use burn_quant_report::{Better, DiagnoseOptions, Diagnosis, FindingKind, Severity, diagnose};
use burn_quant_tests::device;

use crate::{spread, values};

/// Two layers on one input.
#[derive(Module, Debug)]
struct Siblings {
    query: Linear,
    key: Linear,
}

impl Siblings {
    fn of(weight: Tensor<2>) -> Self {
        let layer = || {
            let [inputs, outputs] = weight.dims();
            let mut layer = LinearConfig::new(inputs, outputs).init(&weight.device());
            layer.weight = Param::from_tensor(weight.clone());
            layer.bias = Some(Param::from_tensor(Tensor::zeros([outputs], &weight.device())));
            layer
        };
        Self { query: layer(), key: layer() }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.query.forward(x.clone()) + self.key.forward(x)
    }

    fn diagnosed(&self, quantized: &Self, x: &Tensor<2>) -> Diagnosis {
        let forward = |model: &Self, x: &Tensor<2>| model.forward(x.clone());
        diagnose(self, quantized, [x.clone()], forward, DiagnoseOptions::new()).unwrap()
    }

    fn quantized(&self, config: &QuantConfig, data: &Tensor<2>) -> Self {
        quantize(self.clone(), config, |model| drop(model.forward(data.clone()))).unwrap().0
    }

    /// With other ranges than those that were calibrated.
    fn with_amax(self, ranges: &[(&str, &[f32])]) -> Self {
        let (_, device) = device();
        let mut quantizers = Quantizers::of(&self);
        for (name, amax) in ranges {
            quantizers.get_mut(name).unwrap().set_amax(Tensor::from_data(*amax, &device));
        }
        quantizers.install(self).unwrap()
    }
}

fn only(quantizer: &str, config: QuantizerConfig) -> QuantConfig {
    QuantConfig::new().with_rule(Rule::set(quantizer, config)).with_algorithm(Algorithm::Max)
}

/// A weight of eight inputs and four outputs.
fn weight() -> Tensor<2> {
    spread([8, 4], &device().1)
}

/// Twelve tokens of about the same size.
fn tokens() -> Tensor<2> {
    spread([12, 8], &device().1)
}

fn own_sqnr(diagnosis: &Diagnosis, layer: &str) -> f64 {
    diagnosis.layers.iter().find(|it| it.path == layer).unwrap().own_sqnr.unwrap()
}

#[test]
fn a_token_far_larger_than_the_others_asks_for_ranges_of_tokens() {
    let (_, device) = device();
    let float = Siblings::of(weight());
    let first = Tensor::<2>::from_data([[300.0], [1.0], [1.0]], &device).repeat_dim(1, 4).reshape([12, 1]);
    let x = tokens() * first.slice_assign([1..4, 0..1], Tensor::ones([3, 1], &device)); // the first of twelve
    let recipe = only("*input_quantizer", QuantizerConfig::int(8));
    let before = float.diagnosed(&float.quantized(&recipe, &x), &x);
    // the signal to noise of tensors and channels is that of the large token: 35 and 40 dB
    let found: Vec<_> = before.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(found, [FindingKind::OutlierTokens, FindingKind::OutlierTokens], "{before}");
    let mended = before.findings.iter().fold(recipe, |recipe, finding| finding.mend(&recipe));
    let after = float.diagnosed(&float.quantized(&mended, &x), &x);
    assert_eq!(after.findings, [], "{after}");
}

#[test]
fn a_range_twenty_times_the_data_is_said_to_waste_bits() {
    let float = Siblings::of(weight());
    let recipe = only("query.input_quantizer", QuantizerConfig::int(8));
    let quantized = float.quantized(&recipe, &(tokens() * 20.0));
    let diagnosis = float.diagnosed(&quantized, &tokens());
    let finding = &diagnosis.findings[0];
    assert_eq!((finding.kind, finding.at.as_str()), (FindingKind::Unused, "query.input_quantizer"), "{diagnosis}");
    assert!(finding.message.contains("20.0 times") && finding.message.contains("4.3 bits"), "{}", finding.message);
}

#[test]
fn ranges_of_two_channels_that_were_exchanged_are_named() {
    let (_, device) = device();
    let columns = Tensor::<2>::from_data([[1.0, 10.0, 1.0, 1.0]], &device);
    let float = Siblings::of(weight() * columns);
    let recipe = only("query.weight_quantizer", QuantizerConfig::int(8).per_channel());
    let quantized = float.quantized(&recipe, &tokens());
    let quantizers = Quantizers::of(&quantized);
    let mut amax = values(quantizers.find("query.weight_quantizer").unwrap().amax().unwrap());
    amax.swap(0, 1);
    let wrong = quantized.with_amax(&[("query.weight_quantizer", &amax)]);
    let diagnosis = float.diagnosed(&wrong, &tokens());
    let finding = &diagnosis.findings[0];
    assert_eq!(finding.kind, FindingKind::SwappedRanges, "{diagnosis}");
    assert!(finding.message.contains("channels 0 and 1"), "{}", finding.message);
    let mended = float.quantized(&finding.mend(&recipe), &tokens());
    assert!(own_sqnr(&float.diagnosed(&mended, &tokens()), "query") > 35.0);
}

#[test]
fn siblings_with_one_input_have_one_range_and_nobody_set_it() {
    let float = Siblings::of(weight());
    let recipe = only("*input_quantizer", QuantizerConfig::int(8));
    let quantized = float.quantized(&recipe, &(tokens() * 0.1));
    let diagnosis = float.diagnosed(&quantized, &tokens());
    let found: Vec<_> = diagnosis.findings.iter().map(|finding| finding.kind).collect();
    assert_eq!(found, [FindingKind::Saturated, FindingKind::Saturated], "{diagnosis}");
}

#[test]
fn weights_on_three_values_have_too_few_bits_and_get_more() {
    let float = Siblings::of(weight());
    let recipe = only("query.weight_quantizer", QuantizerConfig::int(2));
    let before = float.diagnosed(&float.quantized(&recipe, &tokens()), &tokens());
    let finding = &before.findings[0];
    assert_eq!((finding.kind, finding.at.as_str()), (FindingKind::TooFewBits, "query.weight_quantizer"), "{before}");
    let after = float.diagnosed(&float.quantized(&finding.mend(&recipe), &tokens()), &tokens());
    assert!(own_sqnr(&after, "query") > own_sqnr(&before, "query") + 10.0, "{after}");
}

#[test]
fn errors_that_are_all_of_one_sign_go_into_the_bias() {
    let (_, device) = device();
    // rounding to multiples of 1/7 takes 0.05 from each weight but the largest; inputs are all near 1
    let float = Siblings::of(Tensor::full([8, 4], 2.0 / 7.0 + 0.05, &device).slice_fill([0..1, 0..4], 1.0));
    let x = tokens() * 0.1 + 1.0;
    let recipe = only("query.weight_quantizer", QuantizerConfig::int(4).constant(1.0));
    let before = float.diagnosed(&float.quantized(&recipe, &x), &x);
    let shift = before.findings.iter().find(|finding| finding.kind == FindingKind::ShiftedOutput).unwrap();
    assert_eq!(shift.at, "query");
    let after = float.diagnosed(&float.quantized(&shift.mend(&recipe), &x), &x);
    assert!(own_sqnr(&after, "query") > own_sqnr(&before, "query") + 10.0, "{after}");
}

/// Quantizers in a list, whose names end in digits as those of stages do.
#[derive(Module, Debug)]
struct Listed {
    inputs: Vec<TensorQuantizer>,
}

#[test]
fn quantizers_of_a_list_are_no_stages_of_a_chain() {
    let (_, device) = device();
    let quantizer = || TensorQuantizer::new(QuantizerConfig::int(2).constant(1.0), Role::ChannelsLast);
    let quantized = Listed { inputs: vec![quantizer(), quantizer()] };
    let float = Listed { inputs: (0..2).map(|_| TensorQuantizer::disabled(Role::ChannelsLast)).collect() };
    // 0.6 becomes 1 in either, and 1 stays
    let forward = |model: &Listed, x: &Tensor<1>| model.inputs.iter().fold(x.clone(), |x, it| it.forward(x));
    let x = Tensor::<1>::from_data([0.6], &device);
    let of = |model: &Listed| f64::from(values(forward(model, &x))[0]);
    let options = DiagnoseOptions::new().with_metric("output", Better::Higher, of).with_sensitivity();
    let diagnosis = diagnose(&float, &quantized, [x.clone()], forward, options).unwrap();
    let taken: Vec<_> = diagnosis.sensitivity.iter().map(|it| (it.only as f32, it.without as f32)).collect();
    assert_eq!(taken, [(1.0, 0.6)], "the layer of both is the list");
}

#[test]
fn a_constant_range_that_does_not_fit_is_left_to_calibration() {
    let float = Siblings::of(weight());
    for constant in [0.05, 448.0] {
        let recipe = only("query.input_quantizer", QuantizerConfig::int(8).constant(constant));
        let before = float.diagnosed(&float.quantized(&recipe, &tokens()), &tokens());
        let finding = &before.findings[0];
        assert!(finding.advice.contains("instead of a constant"), "{before}");
        let after = float.diagnosed(&float.quantized(&finding.mend(&recipe), &tokens()), &tokens());
        assert_eq!(after.findings, [], "{after}");
        assert!(own_sqnr(&after, "query") > 40.0, "{after}");
    }
}

#[test]
fn a_range_that_a_float_format_does_not_mind_is_no_finding() {
    let float = Siblings::of(weight());
    // as the presets of KV caches have it: values of E4M3 are as dense at a hundredth of its range, and so are scales
    for (format, least) in [(QuantizerConfig::e4m3(), 25.0), (QuantizerConfig::nvfp4(), 15.0)] {
        let recipe = only("query.input_quantizer", format.constant(448.0));
        let diagnosis = float.diagnosed(&float.quantized(&recipe, &tokens()), &tokens());
        assert_eq!(diagnosis.findings, [], "{diagnosis}");
        assert!(own_sqnr(&diagnosis, "query") > least, "{diagnosis}");
    }
}

#[test]
fn clipping_one_value_that_would_round_all_others_away_is_a_note() {
    let float = Siblings::of(weight());
    // steps of 20/7 for 8192 values within 2 make more noise than 18 taken from one of them
    let one = spread([1024, 8], &device().1).slice_fill([0..1, 0..1], 20.0);
    let recipe = only("query.input_quantizer", QuantizerConfig::int(4));
    let clipped = float.diagnosed(&float.quantized(&recipe, &tokens()), &one);
    let [token, note] = &clipped.findings[..] else { panic!("two findings: {clipped}") };
    assert_eq!((note.kind, note.severity), (FindingKind::Saturated, Severity::Note), "{clipped}");
    assert!(note.rules.is_empty() && note.step.is_none(), "a range for all is no better: {note:?}");
    let rounded = float.diagnosed(&float.quantized(&recipe, &one), &one);
    assert!(own_sqnr(&rounded, "query") < own_sqnr(&clipped, "query"), "{rounded}\n{clipped}");
    // a range for each token is
    assert_eq!(token.kind, FindingKind::OutlierTokens, "{clipped}");
    let mended = float.diagnosed(&float.quantized(&token.mend(&recipe), &one), &one);
    assert!(own_sqnr(&mended, "query") > own_sqnr(&clipped, "query") + 6.0, "{mended}\n{clipped}");
}

#[test]
fn a_range_that_is_no_number_is_told_as_that() {
    let float = Siblings::of(weight());
    let recipe = only("query.input_quantizer", QuantizerConfig::int(8));
    for (amax, words) in [(0.0, "A range is 0"), (f32::NAN, "A range is NaN"), (f32::INFINITY, "A range is inf")] {
        let wrong = float.quantized(&recipe, &tokens()).with_amax(&[("query.input_quantizer", &[amax])]);
        let diagnosis = float.diagnosed(&wrong, &tokens());
        let finding = diagnosis.findings.iter().find(|it| it.kind == FindingKind::Uncalibrated);
        let finding = finding.unwrap_or_else(|| panic!("{amax}: {diagnosis}"));
        assert!(finding.message.starts_with(words), "{}", finding.message);
        let mended = float.diagnosed(&float.quantized(&finding.mend(&recipe), &tokens()), &tokens());
        assert_eq!(mended.findings, [], "{mended}");
    }
    // a channel of zeros has a range of 0, as it should
    let float = Siblings::of(weight().slice_fill([0..8, 0..1], 0.0));
    let recipe = only("query.weight_quantizer", QuantizerConfig::int(8).per_channel());
    let ranges = ("query.weight_quantizer", &[0.0, 2.0, f32::NAN, 2.0][..]);
    let diagnosis = float.diagnosed(&float.quantized(&recipe, &tokens()).with_amax(&[ranges]), &tokens());
    let finding = diagnosis.findings.iter().find(|it| it.kind == FindingKind::Uncalibrated).unwrap();
    assert!(finding.message.starts_with("A range is NaN, and the data reach 1."), "{}", finding.message);
}

#[test]
fn a_layer_with_other_weights_has_no_quantizer_to_blame() {
    let float = Siblings::of(weight());
    let recipe = only("*input_quantizer", QuantizerConfig::int(8));
    let other = Siblings::of(weight().flip([0])).quantized(&recipe, &tokens());
    let diagnosis = float.diagnosed(&other, &tokens());
    let found: Vec<_> = diagnosis.findings.iter().map(|it| (it.kind, it.at.as_str())).collect();
    let expected = ["query", "key"].map(|layer| (FindingKind::AnotherLayer, layer));
    assert_eq!(found, expected, "{diagnosis}");
    assert!(diagnosis.findings.iter().all(|it| it.rules.is_empty()), "no rule mends it");
}

#[test]
fn a_weight_that_gptq_rounded_to_few_values_gets_more() {
    let float = Siblings::of(weight());
    let int2 = QuantizerConfig::int(2).per_channel();
    let inputs = Rule::set("*input_quantizer", QuantizerConfig::int(8));
    let recipe = only("*weight_quantizer", int2).with_rule(inputs).with_algorithm(Algorithm::gptq());
    let before = float.diagnosed(&float.quantized(&recipe, &tokens()), &tokens());
    let finding = &before.findings[0];
    assert_eq!((finding.kind, finding.at.as_str()), (FindingKind::TooFewBits, "query.weight_quantizer"), "{before}");
    let after = float.diagnosed(&float.quantized(&finding.mend(&recipe), &tokens()), &tokens());
    assert!(own_sqnr(&after, "query") > 25.0, "{after}");
}

#[test]
fn what_is_not_finite_in_the_float_model_is_not_blamed_on_ranges() {
    let float = Siblings::of(weight());
    let recipe = only("*input_quantizer", QuantizerConfig::int(8));
    let quantized = float.quantized(&recipe, &tokens());
    for value in [f32::NAN, f32::INFINITY] {
        let diagnosis = float.diagnosed(&quantized, &tokens().slice_fill([3..4, 2..3], value));
        let found: Vec<_> = diagnosis.findings.iter().map(|it| (it.kind, it.at.as_str())).collect();
        assert_eq!(found, [(FindingKind::NotFinite, "query")], "{diagnosis}");
    }
}

#[test]
fn channels_that_are_lost_where_nothing_is_lost_are_no_finding() {
    // one input a billionth of the others, under weights like the others': its part of the output is nothing
    let float = Siblings::of(weight());
    let (_, device) = device();
    let x = tokens() * Tensor::<2>::ones([1, 8], &device).slice_fill([0..1, 5..6], 1e-9);
    let recipe = only("*input_quantizer", QuantizerConfig::int(8));
    let diagnosis = float.diagnosed(&float.quantized(&recipe, &x), &x);
    assert_eq!(diagnosis.findings, [], "{diagnosis}");
    let input = diagnosis.quantizers.iter().find(|it| it.name == "query.input_quantizer").unwrap();
    assert_eq!(input.lost_channels, 1);
}
