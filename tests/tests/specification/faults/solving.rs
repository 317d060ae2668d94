//! What algorithms make of layers, and of what other algorithms made of them.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::nn::conv::Conv2dConfig;
use burn::tensor::{Device, Tensor};
use burn_quant::calibrate::smoothquant;
use burn_quant::calibrate::{Report, SkipReason, Warning};
use burn_quant::config::{CalibrationInputs, Granularity, RangeSearch};
use burn_quant::nn::{LinearConfig, QuantConv2d, QuantLinear};
use burn_quant::quantizer::Buffer;
use burn_quant::{
    Algorithm, QuantConfig, QuantError, QuantizerConfig, Quantizers, Rule, presets, quantize, quantize_weights,
};
use burn_quant_tests::device;

use crate::{assert_close, spread, values};

/// A layer `[16, 8]` whose third input is 30 times the others, and its inputs `[64, 16]`.
fn with_outlier(device: &Device) -> (QuantLinear, Tensor<2>) {
    let layer = Linear { weight: Param::from_tensor(spread([16, 8], device)), bias: None };
    let gain: Vec<f32> = (0..16).map(|c| if c == 2 { 30.0 } else { 1.0 }).collect();
    let inputs = spread::<2>([64, 16], device) * Tensor::<1>::from_data(gain.as_slice(), device).unsqueeze();
    (layer.into(), inputs)
}

fn w4() -> QuantConfig {
    w4_of("weight_quantizer")
}

fn w4_of(weights: &str) -> QuantConfig {
    QuantConfig::new().with_rule(Rule::set(weights, QuantizerConfig::int(4).per_block(8)))
}

/// Two layers that see the same inputs.
#[derive(Module, Debug)]
struct Two {
    first: QuantLinear,
    second: QuantLinear,
}

impl Two {
    fn new() -> Self {
        let layer = || with_outlier(&device().1).0;
        Self { first: layer(), second: layer() }
    }

    fn forward(&self, x: &Tensor<2>) {
        self.first.forward(x.clone());
        self.second.forward(x.clone());
    }
}

fn solved(algorithm: Algorithm) -> Result<(QuantLinear, Report), QuantError> {
    let (layer, x) = with_outlier(&device().1);
    quantize(layer, &w4().with_algorithm(algorithm), |layer| drop(layer.forward(x.clone())))
}

/// The mean squared error of the outputs, relative to the mean square of the float layer's.
fn output_error(layer: &QuantLinear) -> f32 {
    let (float, x) = with_outlier(&device().1);
    let (y, expected) = (layer.forward(x.clone()), float.forward(x));
    let square = |x: Tensor<2>| values((x.clone() * x).mean())[0];
    square(y - expected.clone()) / square(expected)
}

fn sequence(steps: impl Into<Vec<Algorithm>>) -> Algorithm {
    Algorithm::Sequence(steps.into())
}

/// Smoothing divides the branch as it divides the weight, and a second branch stands beside the first.
pub(super) fn a_branch_survives_what_comes_after_it() {
    let alone = output_error(&solved(Algorithm::svdquant(4)).unwrap().0);
    for then in [Algorithm::awq_lite(), Algorithm::svdquant(2)] {
        let name = then.name().to_string();
        let (layer, _) = solved(sequence([Algorithm::svdquant(4), then.clone()])).unwrap();
        let error = output_error(&layer);
        assert!(error <= 1.1 * alone, "svdquant, {name}: {error}, svdquant alone: {alone}");

        // a model with a branch that is quantized once more
        let (layer, x) = (solved(Algorithm::svdquant(4)).unwrap().0, with_outlier(&device().1).1);
        let (again, _) = quantize(layer, &w4().with_algorithm(then), |layer| drop(layer.forward(x.clone()))).unwrap();
        let error = output_error(&again);
        assert!(error <= 1.1 * alone, "svdquant, then {name} in another run: {error}, svdquant alone: {alone}");
    }
}

/// A step that would undo one before it is refused, with both names.
pub(super) fn steps_that_undo_others_are_refused() {
    let mse = || Algorithm::Mse(RangeSearch::default());
    for (first, then) in [
        (Algorithm::awq_clip(), Algorithm::awq_lite()),
        (mse(), Algorithm::smoothquant(0.5)),
        (Algorithm::gptq(), Algorithm::awq_lite()),
        (Algorithm::gptq(), Algorithm::svdquant(2)),
        (Algorithm::gptq(), Algorithm::awq_clip()),
        (mse(), Algorithm::awq_clip()),
        (Algorithm::gptq(), Algorithm::adaround()),
        (Algorithm::BiasCorrection, Algorithm::gptq()),
    ] {
        let names = [first.name().to_string(), then.name().to_string()];
        match solved(sequence([first.clone(), then.clone()])).unwrap_err() {
            QuantError::StepOrder { layer, first, then } => {
                assert_eq!(layer, "weight", "the layer is the model");
                assert!(first.starts_with(&names[0]) && then.starts_with(&names[1]), "{first}, {then}");
            }
            other => panic!("{names:?}: {other}"),
        }
        // each for its own layer: nothing is undone
        let only = |algorithm, layer: &str| Algorithm::ForLayers { layers: vec![layer.into()], algorithm };
        let apart = sequence([only(Box::new(first), "first"), only(Box::new(then), "second")]);
        let (x, config) = (with_outlier(&device().1).1, w4_of("*weight_quantizer").with_algorithm(apart));
        let two = quantize(Two::new(), &config, |model: &Two| model.forward(&x));
        assert!(two.is_ok(), "{names:?}: {:?}", two.err());
    }
    // the other way round each of them adds to the other
    let both = output_error(&solved(sequence([Algorithm::awq_lite(), Algorithm::gptq()])).unwrap().0);
    let gptq = output_error(&solved(Algorithm::gptq()).unwrap().0);
    assert!(both <= gptq, "{both}, gptq alone: {gptq}");
}

/// W (out × in) = [[.5, -.25, 0], [.125, 1, 0]]: the third channel has no weights, and an outlier.
pub(super) fn a_channel_without_weights_does_not_set_the_range() {
    let (_, device) = device();
    let weight = Tensor::from_data([[0.5, 0.125], [-0.25, 1.0], [0.0, 0.0]], &device);
    let layer = QuantLinear::from(Linear { weight: Param::from_tensor(weight), bias: None });
    let x = Tensor::<2>::from_data([[1.0, 2.0, 100.0], [-0.6, 1.1, 40.0]], &device);
    let config = presets::int8_default().with_algorithm(Algorithm::smoothquant(1.0));
    let (layer, _) = quantize(layer, &config, |layer| drop(layer.forward(x.clone()))).unwrap();
    let buffer = |buffer| values(layer.input_quantizer.buffer(buffer).unwrap());
    assert_close(&buffer(Buffer::PreQuantScale), &[1.0, 0.5, 0.01], 1e-6, "ModelOpt's scale");
    assert_close(&buffer(Buffer::Amax), &[1.0], 1e-6, "smoothed inputs reach to 1");
    assert_close(&values(layer.forward(x)), &[0.0, 2.126, -0.575, 1.027], 5e-4, "ModelOpt's outputs");
    // at α = 0 inputs do not count, not even of a channel that has none
    assert_eq!(smoothquant(&[0.0, 2.0], &[0.25, 0.5], 0.0), [0.25, 0.5]);
}

/// Where all shares cost nothing the largest is taken: inputs that were zero say nothing of the weights.
pub(super) fn a_block_without_inputs_keeps_its_range() {
    let (_, device) = device();
    let layer = QuantLinear::from(Linear { weight: Param::from_tensor(spread([16, 4], &device)), bias: None });
    let x = spread::<2>([32, 16], &device).slice_fill([0..32, 8..16], 0.0);
    let run = |algorithm| {
        let rules = QuantConfig::new().with_rule(Rule::set("weight_quantizer", QuantizerConfig::int(2).per_block(8)));
        let config = rules.with_algorithm(algorithm);
        let (layer, _) = quantize(layer.clone(), &config, |layer| drop(layer.forward(x.clone()))).unwrap();
        values(Quantizers::of(&layer).get("weight_quantizer").unwrap().amax().unwrap())
    };
    let (max, clipped) = (run(Algorithm::Max), run(Algorithm::awq_clip()));
    assert_eq!(clipped[4..], max[4..], "the second block of each output had no inputs");
    assert_ne!(clipped[..4], max[..4], "the first is clipped");
}

/// Algorithms that work on data get none, and say so.
pub(super) fn an_empty_loop_is_an_error() {
    let (layer, _) = with_outlier(&device().1);
    for algorithm in [Algorithm::awq_lite(), Algorithm::gptq(), Algorithm::adaround(), Algorithm::svdquant(2)] {
        let name = algorithm.name().to_string();
        let error = quantize(layer.clone(), &w4().with_algorithm(algorithm), |_| {}).unwrap_err();
        assert_eq!(error, QuantError::NothingObserved { name: "input_quantizer".into() }, "{name}");
    }
    // the model from outside runs, and the one that observes does not
    let (outer, x) = with_outlier(&device().1);
    let run = |_: &QuantLinear| drop(outer.forward(x.clone()));
    let error = quantize(layer, &w4().with_algorithm(Algorithm::gptq()), run).unwrap_err();
    assert!(error.to_string().contains("run the model that the closure is given"), "{error}");
}

/// Ragged inputs and convolutions are searched by squared error; blocks of another size are refused.
pub(super) fn local_hessian_falls_back_to_squared_error() {
    let (_, device) = device();
    let (search, block_size) = (RangeSearch::default(), 8);
    let hessian = |block_size| Algorithm::LocalHessian { search, block_size, inputs: CalibrationInputs::Float };
    let config = QuantizerConfig::int(4).per_block(8);
    let rules = || QuantConfig::new().with_rule(Rule::set("weight_quantizer", config.clone()));

    let ragged = QuantLinear::from(Linear { weight: Param::from_tensor(spread([12, 4], &device)), bias: None });
    let x = spread::<2>([32, 12], &device);
    let amax = |algorithm| {
        let config = rules().with_algorithm(algorithm);
        let (layer, _) = quantize(ragged.clone(), &config, |layer| drop(layer.forward(x.clone()))).unwrap();
        values(Quantizers::of(&layer).get("weight_quantizer").unwrap().amax().unwrap())
    };
    assert_eq!(amax(hessian(block_size)), amax(Algorithm::Mse(search)), "12 inputs are no blocks of 8");
    assert_ne!(amax(Algorithm::Mse(search)), amax(Algorithm::Max), "and the search finds something");

    let conv: QuantConv2d = Conv2dConfig::new([2, 4], [2, 2]).init(&device).into();
    let x = spread::<4>([2, 2, 4, 4], &device);
    let amax = |algorithm| {
        let config = rules().with_algorithm(algorithm);
        let (layer, _) = quantize(conv.clone(), &config, |layer| drop(layer.forward(x.clone()))).unwrap();
        values(Quantizers::of(&layer).get("weight_quantizer").unwrap().amax().unwrap())
    };
    assert_eq!(amax(hessian(block_size)), amax(Algorithm::Mse(search)), "a convolution");

    let (_, report) = solved(hessian(16)).unwrap();
    assert_eq!(report.layers[0].steps[0].skipped, Some(SkipReason::OtherBlocks), "blocks of 8, asked for 16");
}

/// Exponents and shares are decimal numbers, as in ModelOpt.
pub(super) fn steps_are_decimal_numbers() {
    let exponent = |step| {
        let sharing = burn_quant::config::SiblingScales::PerLayer;
        let algorithm =
            Algorithm::AwqLite { alpha_step: step, sharing, identity: burn_quant::config::Identity::NotTried };
        solved(algorithm).unwrap().1.layers[0].steps[0].choices["alpha"]
    };
    // nine steps of 0.1 are 0.9, and not 0.90000004
    let tenths: Vec<f32> = (0..=10).map(|k| format!("0.{k}").replace("0.10", "1.0").parse().unwrap()).collect();
    assert!(tenths.contains(&exponent(0.1)), "{}", exponent(0.1));
}

/// GPTQ follows a dynamic range per output channel as it follows one per block: the whole column is one block.
pub(super) fn gptq_follows_dynamic_ranges_of_channels() {
    let (_, device) = device();
    let layer = QuantLinear::from(Linear { weight: Param::from_tensor(spread([16, 4], &device)), bias: None });
    let x = spread::<2>([64, 16], &device);
    let weight = |config: QuantizerConfig| {
        let rules = QuantConfig::new().with_rule(Rule::set("weight_quantizer", config.dynamic()));
        let config = rules.with_algorithm(Algorithm::gptq());
        let (layer, _) = quantize(layer.clone(), &config, |layer| drop(layer.forward(x.clone()))).unwrap();
        values(layer.weight.base())
    };
    let int4 = || QuantizerConfig::int(4);
    assert_eq!(weight(int4().per_channel()), weight(int4().with_granularity(Granularity::Block { size: 16 })));
}

/// A layer that no exponent makes better stays as it is; what got worse nevertheless is marked.
pub(super) fn awq_is_never_worse_than_nothing() {
    let (_, device) = device();
    for outputs in [2, 3, 5, 7] {
        let layer: QuantLinear = LinearConfig::new(24, outputs).init(&device);
        let x = spread::<2>([48, 24], &device);
        let config = w4().with_algorithm(Algorithm::awq_lite());
        let (_, report) = quantize(layer, &config, |layer| drop(layer.forward(x.clone()))).unwrap();
        let layer = &report.layers[0];
        assert!(layer.error_after <= layer.error_before, "{layer}");
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
    }
    // INT2 weights of one output, whose mean SmoothQuant at α = 1 makes useless
    let weight = Tensor::<2>::from_data([[1.0], [0.001], [1.0], [0.001]], &device);
    let layer = QuantLinear::from(Linear { weight: Param::from_tensor(weight), bias: None });
    let x = Tensor::<2>::from_data([[0.01, 10.0, 0.01, 10.0], [0.01, -10.0, 0.01, 10.0]], &device);
    let identity = burn_quant::config::Identity::NotTried;
    let forced = Algorithm::AwqLite { alpha_step: 1.0, sharing: burn_quant::config::SiblingScales::PerLayer, identity };
    let (_, report) = quantize(layer, &w4().with_algorithm(forced), |layer| drop(layer.forward(x.clone()))).unwrap();
    let layer = &report.layers[0];
    let grew = layer.error_after > layer.error_before;
    let marked = report.warnings.iter().any(|warning| matches!(warning, Warning::Worse { .. }));
    assert_eq!(grew, marked, "{report}");
}

/// The report has the error of every quantized layer under an algorithm.
pub(super) fn weights_without_data_are_solved_all_the_same() {
    let (layer, _) = with_outlier(&device().1);
    let config = w4().with_algorithm(Algorithm::Mse(RangeSearch::default()));
    let (layer, report) = quantize_weights(layer, &config).unwrap();
    assert!(report.layers[0].weight_sqnr > report.layers[0].weight_sqnr_before, "{report}");
    assert_eq!(Module::num_params(&layer), 16 * 8 + 2 * 8, "a range for each block of 8");
}

/// CalibrationInputs whose products are too large for f32 leave a layer as it is, with the reason, and so do weights
/// whose errors are; nothing becomes a NaN.
pub(super) fn what_overflows_leaves_a_layer_as_it_is() {
    let (layer, x) = with_outlier(&device().1);
    let algorithms = [
        Algorithm::awq_lite(),
        Algorithm::awq_full(),
        Algorithm::svdquant(2),
        Algorithm::gptq(),
        Algorithm::adaround(),
    ];
    for algorithm in algorithms {
        let name = algorithm.name().to_string();
        let config = w4().with_algorithm(algorithm);
        let (solved, report) = quantize(layer.clone(), &config, |layer| drop(layer.forward(x.clone() * 1e20))).unwrap();
        let steps = &report.layers[0].steps;
        assert!(steps.iter().all(|step| step.skipped == Some(SkipReason::Overflow)), "{name}: {report}");
        assert_eq!((report.layers[0].error_before, report.layers[0].error_after), (None, None), "{name}");
        assert_eq!(values(solved.weight.base()), values(layer.weight.val()), "{name}");
        assert!(values(solved.forward(x.clone())).iter().all(|y| y.is_finite()), "{name}");
    }
    // weights of 1e25: the square of an error is infinite whatever the exponent
    let large: QuantLinear = Linear { weight: Param::from_tensor(layer.weight.val() * 1e25), bias: None }.into();
    for algorithm in [Algorithm::awq_lite(), Algorithm::adaround()] {
        let name = algorithm.name().to_string();
        let config = w4().with_algorithm(algorithm);
        let (solved, report) = quantize(large.clone(), &config, |layer| drop(layer.forward(x.clone()))).unwrap();
        assert_eq!(report.layers[0].steps[0].skipped, Some(SkipReason::NoGain), "{name}");
        assert_eq!(values(solved.weight.base()), values(large.weight.val()), "{name}");
        assert!(values(solved.forward(x.clone())).iter().all(|y| y.is_finite()), "{name}");
    }
}
