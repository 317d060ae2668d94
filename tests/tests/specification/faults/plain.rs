//! What leaves as a plain model computes what the quantized one computed, or is refused.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use burn_quant::calibrate::Warning;
use burn_quant::fold::fold_to_burn;
use burn_quant::nn::{EmbeddingConfig, QuantLinear};
use burn_quant::place::Role;
use burn_quant::quantizer::Buffer;
use burn_quant::train::QuantLora;
use burn_quant::{
    Algorithm, QuantConfig, QuantError, QuantizerConfig, Quantizers, Rule, TensorQuantizer, calibrate, disable,
    fold_weights, presets, quantize, quantize_weights,
};
use burn_quant_tests::device;

use crate::{assert_close, spread, values};

fn w4(algorithm: Algorithm) -> QuantConfig {
    QuantConfig::new()
        .with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(4).per_block(8)))
        .with_algorithm(algorithm)
}

fn linear(device: &Device) -> QuantLinear {
    Linear { weight: Param::from_tensor(spread([16, 8], device)), bias: None }.into()
}

/// burn's layer has neither scale nor branch: both go into the weight, or the layer is refused.
pub(super) fn burns_layer_computes_the_same() {
    let (_, device) = device();
    let gain: Vec<f32> = (0..16).map(|c| if c == 2 { 30.0 } else { 1.0 }).collect();
    let x = spread::<2>([64, 16], &device) * Tensor::<1>::from_data(gain.as_slice(), &device).unsqueeze();
    for algorithm in [Algorithm::awq_lite(), Algorithm::svdquant(4), Algorithm::Max] {
        let name = algorithm.name().to_string();
        let (layer, _) = quantize(linear(&device), &w4(algorithm), |layer| drop(layer.forward(x.clone()))).unwrap();
        let expected = values(layer.forward(x.clone()));
        let burns: Linear = layer.to_burn().unwrap();
        assert_close(&values(burns.forward(x.clone())), &expected, 1e-5, &format!("to_burn after {name}"));

        // a record of the folded model, read by burn alone
        let record = fold_to_burn(layer.clone()).unwrap().into_record();
        let fresh = Linear { weight: Param::from_tensor(Tensor::zeros([16, 8], &device)), bias: None };
        let loaded = fresh.load_record(record);
        assert_close(&values(loaded.forward(x.clone())), &expected, 1e-5, &format!("a record after {name}"));
        let folded = fold_weights(layer).unwrap();
        assert_close(&values(folded.forward(x.clone())), &expected, 1e-5, &format!("folded after {name}"));
    }
    // inputs that are rounded cannot leave
    let config = presets::int8_default().with_algorithm(Algorithm::smoothquant(0.5));
    let (layer, _) = quantize(linear(&device), &config, |layer| drop(layer.forward(x.clone()))).unwrap();
    let refused = QuantError::NotBurn { quantizer: "input_quantizer".into(), what: "is enabled" };
    assert_eq!(layer.to_burn().unwrap_err(), refused);
    assert_eq!(fold_to_burn(layer.clone()).unwrap_err(), refused);
    let float_inputs = disable(layer, "input_quantizer").unwrap();
    let expected = values(float_inputs.forward(x.clone()));
    assert_close(&values(float_inputs.to_burn().unwrap().forward(x)), &expected, 1e-5, "without its input quantizer");
}

struct Freeze;

impl ModuleMapper for Freeze {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.set_require_grad(false)
    }
}

fn trained<M: Module>(model: &M, quantizer: &str) -> bool {
    Quantizers::of(model).get(quantizer).unwrap().amax().unwrap().is_require_grad()
}

/// What the user froze stays frozen, whatever gives it a new value.
pub(super) fn frozen_ranges_stay_frozen() {
    let device = device().1.autodiff();
    let rules = QuantConfig::new().with_rule(Rule::set("weight_quantizer", QuantizerConfig::int(4).lsq()));
    let config = rules.with_algorithm(Algorithm::LsqInit);
    let (layer, _) = quantize_weights(linear(&device), &config).unwrap();
    assert!(trained(&layer, "weight_quantizer"), "a learned range is trained");
    let frozen = layer.clone().map(&mut Freeze);
    let (again, _) = quantize_weights(frozen, &config).unwrap();
    assert!(!trained(&again, "weight_quantizer"), "calibrated again, and still frozen");
    assert!(!trained(&Module::train(again.valid()), "weight_quantizer"), "after validation too");

    let adapted = QuantLora::new(2).adapt(layer).unwrap();
    assert!(!trained(&adapted, "weight_quantizer"), "adapters are trained, and nothing else");
    let quantizers = Quantizers::of(&adapted);
    let factor = quantizers.get("weight_quantizer").unwrap().buffer(Buffer::LowRankUp).unwrap();
    assert!(factor.is_require_grad());
}

#[derive(Module, Debug)]
struct Tied {
    body: QuantLinear,
    head: QuantLinear,
}

/// A weight that is changed is not tied to one that is not.
pub(super) fn tied_weights_do_not_diverge_under_one_id() {
    let (_, device) = device();
    let body: QuantLinear = Linear { weight: Param::from_tensor(spread([8, 8], &device)), bias: None }.into();
    let model = Tied { head: body.clone(), body };
    assert_eq!(model.head.weight.id, model.body.weight.id, "tied");
    let x = spread::<2>([32, 8], &device);
    let run = |model: &Tied| drop(model.head.forward(model.body.forward(x.clone())));
    let gptq = |rule: &str| {
        let rules = QuantConfig::new().with_rule(Rule::set(rule, QuantizerConfig::int(4).per_block(8)));
        rules.with_algorithm(Algorithm::gptq())
    };
    let (untied, report) = quantize(model.clone(), &gptq("body.weight_quantizer"), run).unwrap();
    assert_ne!(untied.head.weight.id, untied.body.weight.id);
    assert_eq!(values(untied.head.weight.val()), values(model.head.weight.val()), "the head keeps its weight");
    assert_eq!(report.warnings, [Warning::Untied { path: "body.weight".into() }]);
    // ranges alone change no weight
    let max = QuantConfig::new().with_rule(Rule::set("body.weight_quantizer", QuantizerConfig::int(8)));
    let (tied, report) = quantize(model, &max, run).unwrap();
    assert_eq!(tied.head.weight.id, tied.body.weight.id);
    assert!(report.warnings.is_empty());
}

/// burn allows one reparameterization: its adapters take the place of a quantizer, and ours stand beside it.
pub(super) fn burns_adapters_and_ours() {
    let (_, device) = device();
    let (layer, _) = quantize_weights(linear(&device), &w4(Algorithm::Max)).unwrap();
    let adapted = QuantLora::new(2).adapt(layer.clone()).unwrap();
    assert!(adapted.weight.reparameterization::<TensorQuantizer>().is_some(), "quantized and adapted");
    assert_eq!(values(adapted.weight.val()), values(layer.weight.val()), "the same before training");
    // `param.map` of burn drops what is attached: the weight is float again, and says so
    let mut mapped = layer;
    mapped.weight = mapped.weight.clone().map(|weight| weight * 1.0);
    assert_eq!(Quantizers::of(&mapped).names().collect::<Vec<_>>(), ["input_quantizer", "output_quantizer"]);
}

/// Impossible options are taken as the least possible one; impossible ranges are refused where they are set.
pub(super) fn impossible_numbers_end() {
    let seen = burn_quant::calibrate::Histogram { origin: 0.0, width: 0.5, counts: vec![9, 5, 4, 1] };
    let int4 = burn_quant::config::IntFormat::signed(4).unwrap();
    assert_eq!(calibrate::entropy(&seen, int4, 0, 0), calibrate::entropy(&seen, int4, 1, 1), "and it ends");
    assert!(calibrate::entropy(&seen, int4, 0, 0).unwrap() > 0.0, "a range of nothing is none");
    assert_eq!(calibrate::histogram_mse(&seen, int4.into(), 0, 0), calibrate::histogram_mse(&seen, int4.into(), 0, 1));

    let (_, device) = device();
    let mut quantizer = TensorQuantizer::new(QuantizerConfig::int(8), Role::ChannelsLast);
    for (amax, what) in [([f32::NAN], "NaN"), ([-0.5], "-0.5"), ([f32::INFINITY], "inf")] {
        let error = quantizer.try_set_amax(Tensor::from_data(amax, &device)).unwrap_err();
        assert!(error.to_string().contains(what), "{error}");
    }
    assert_eq!(quantizer.amax().map(values), None, "nothing was set");
    quantizer.try_set_amax(Tensor::from_data([0.5], &device)).unwrap();
    assert_eq!(values(quantizer.amax().unwrap()), [0.5]);
}

/// Only the rows that are looked up are quantized, and they are those of the quantized table.
pub(super) fn an_embedding_quantizes_the_rows_it_looks_up() {
    let (_, device) = device();
    let indices = || Tensor::<2, burn::tensor::Int>::from_data([[3, 0], [3, 11]], &device);
    for config in [
        QuantizerConfig::int(4),
        QuantizerConfig::int(4).per_channel(),
        QuantizerConfig::int(4).per_block(4),
        QuantizerConfig::int(4).dynamic(),
        QuantizerConfig::int(4).per_channel().dynamic(),
        QuantizerConfig::mx(burn_quant::config::Format::E2M1),
        QuantizerConfig::nvfp4(),
        QuantizerConfig::nvfp4_static(),
        QuantizerConfig::int(4).per_block(4).then(QuantizerConfig::e4m3()),
    ] {
        let rules = QuantConfig::new().with_rule(Rule::set("weight_quantizer", config.clone()));
        let mut layer = EmbeddingConfig::new(12, 32).init(&device);
        layer.weight = Param::from_tensor(spread([12, 32], &device));
        let (layer, _) = quantize_weights(layer, &rules).unwrap();
        let expected = layer.to_burn().unwrap().forward(indices()); // burn's layer quantizes the whole table
        assert_eq!(values(layer.forward(indices())), values(expected), "{}", config.kind());
    }
}

/// A copy for validation rounds its weights once; what changes a weight is seen.
pub(super) fn a_model_for_validation_rounds_once() {
    let device = device().1.autodiff();
    let (layer, _) = quantize_weights(linear(&device), &w4(Algorithm::Max)).unwrap();
    let valid = layer.valid();
    let first = values(valid.weight.val());
    assert_eq!(first, values(layer.weight.val()));
    assert_eq!(values(valid.weight.val()), first, "and again");

    struct Double;
    impl ModuleMapper for Double {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if D == 2 { param.map(|weight| weight * 2.0) } else { param }
        }
    }
    let doubled = valid.map(&mut Double);
    assert_ne!(values(doubled.weight.val()), first, "a weight that was mapped is rounded anew");
    let train = Module::train(layer.valid());
    assert!(train.weight.val().is_require_grad() || train.weight.val().device().is_autodiff());
}
