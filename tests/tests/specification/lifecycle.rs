//! Quantizers survive what burn does to modules.

use burn::module::{Module, ModuleMapper, Param};
use burn::nn::LinearConfig;
use burn::nn::conv::Conv2dConfig;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{DType, Device, Tensor};
use burn_quant::nn::{QuantConv2d, QuantLinear};
use burn_quant::{Algorithm, QuantConfig, QuantizerConfig, Quantizers, Rule, presets, quantize, summary};
use burn_quant_tests::{device, devices};

use crate::{assert_same, spread, values};

#[derive(Module, Debug)]
struct Net {
    conv: QuantConv2d,
    fc: Vec<QuantLinear>,
}

impl Net {
    fn new(device: &Device) -> Self {
        let fc = |i, o| LinearConfig::new(i, o).init(device).into();
        Self { conv: Conv2dConfig::new([1, 2], [2, 2]).init(device).into(), fc: vec![fc(8, 6), fc(6, 3)] }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.conv.forward(x).flatten(1, 3);
        self.fc.iter().fold(x, |x, layer| layer.forward(x))
    }
}

fn quantized(device: &Device) -> Net {
    let x = spread([4, 1, 3, 3], device);
    quantize(Net::new(device), &presets::int8_default(), |model| drop(model.forward(x.clone()))).unwrap().0
}

fn output(model: &Net, device: &Device) -> Vec<f32> {
    values(model.forward(spread([4, 1, 3, 3], device)).without_autodiff())
}

/// Weights are taken out of a model while its layers are solved, and let go one by one.
#[test]
fn what_no_algorithm_changes_comes_back_as_it_was() {
    for (_, device) in devices() {
        let weights = |model: &Net| {
            let fc = model.fc.iter().map(|layer| (layer.weight.id, values(layer.weight.base().without_autodiff())));
            let conv = (model.conv.weight.id, values(model.conv.weight.base().without_autodiff()));
            fc.chain([conv]).collect::<Vec<_>>()
        };
        let model = Net::new(&device).no_grad();
        let before = weights(&model);
        let one = Algorithm::ForLayers { layers: vec!["fc.0".into()], algorithm: Box::new(Algorithm::gptq()) };
        let config = QuantConfig::new().with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(3)));
        let config = config.with_rule(Rule::set("*input_quantizer", QuantizerConfig::int(8))).with_algorithm(one);
        let x = spread([4, 1, 3, 3], &device);
        let (quantized, _) = quantize(model.clone(), &config, |model| drop(model.forward(x.clone()))).unwrap();
        let after = weights(&quantized);
        assert_eq!(after[1..], before[1..]);
        assert_eq!(after[0].0, before[0].0, "the same parameter");
        assert_ne!(after[0].1, before[0].1, "with other values");
        assert_eq!(weights(&model), before, "the caller's model");
        assert!(!quantized.fc[1].weight.is_require_grad(), "frozen as it was");
    }
}

#[test]
fn clones_moves_forks_and_changes_of_mode_keep_them() {
    let (_, plain) = device();
    let device = plain.clone().autodiff();
    let model = quantized(&device);
    let (table, expected) = (summary(&model), output(&model, &device));
    let kept = |model: &Net, device: &Device, what: &str| {
        assert_eq!(summary(model), table, "{what}");
        assert_same(&output(model, device), &expected, what);
    };
    kept(&model.clone(), &device, "clone");
    kept(&model.clone().to_device(&plain), &device, "to_device");
    kept(&model.clone().fork(&device), &device, "fork");
    kept(&model.valid(), &plain, "valid");
    kept(&model.valid().train(), &device, "valid, then train");
    kept(&model.clone().no_grad(), &device, "no_grad");
    kept(&model.clone().freeze().unfreeze(), &device, "freeze, then unfreeze");
}

#[test]
fn a_clone_is_independent() {
    let (_, device) = device();
    let model = quantized(&device);
    let before = output(&model, &device);
    let mut quantizers = Quantizers::of(&model);
    quantizers.iter_mut().for_each(|(_, quantizer)| quantizer.disable());
    let float = quantizers.install(model.clone()).unwrap();
    assert_ne!(output(&float, &device), before);
    assert_same(&output(&model, &device), &before, "the original");
}

#[test]
fn training_changes_weights_and_not_ranges() {
    let (_, device) = device();
    let device = device.autodiff();
    // everything is made trainable, ranges must not be
    let mut model = quantized(&device).set_require_grad(true);
    let ranges = |model: &Net| -> Vec<Vec<f32>> {
        Quantizers::of(model).iter().filter_map(|(_, q)| q.amax()).map(|amax| values(amax.without_autodiff())).collect()
    };
    let (before, weights) = (ranges(&model), values(model.fc[0].weight.base()));
    assert_eq!(before.len(), 6);
    let mut optimizer = AdamWConfig::new().init();
    let mut losses = Vec::new();
    for _ in 0..20 {
        let loss = model.forward(spread([4, 1, 3, 3], &device)).powf_scalar(2.0).mean();
        losses.push(values(loss.clone().without_autodiff())[0]);
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(0.02, model, gradients);
    }
    assert_eq!(ranges(&model), before);
    assert_ne!(values(model.fc[0].weight.base()), weights);
    assert!(losses[19] < 0.5 * losses[0], "quantization-aware training trains: {losses:?}");
    // and what is trained stays quantized: the layer sees its weight on the grid of the range from before
    let quantizers = Quantizers::of(&model);
    let (weight, base) = (model.fc[0].weight.val(), model.fc[0].weight.base());
    let rounded = quantizers.get("fc.0.weight_quantizer").unwrap().forward(base.clone());
    assert_same(&values(weight.clone()), &values(rounded), "the weight that the layer sees");
    assert_ne!(values(weight), values(base));
    let float = burn_quant::disable(model.clone(), "*").unwrap();
    assert_ne!(output(&float, &device), output(&model, &device), "quantizers are on");
}

#[test]
fn a_cast_of_the_model_leaves_ranges_in_f32() {
    struct Cast(DType);
    impl ModuleMapper for Cast {
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            param.map(|tensor| tensor.cast(self.0))
        }
    }
    let (_, device) = device();
    if !device.supports_dtype(DType::F16) {
        return;
    }
    let model = quantized(&device);
    let table = summary(&model);
    let model = model.map(&mut Cast(DType::F16));
    assert_eq!(model.fc[0].weight.val().dtype(), DType::F16);
    assert_eq!(summary(&model), table);
    let y = model.forward(spread([4, 1, 3, 3], &device).cast(DType::F16));
    assert_eq!(y.dtype(), DType::F16);
}

#[test]
fn burns_own_record_keeps_ranges_between_quantized_models() {
    let (_, device) = device();
    let model = quantized(&device);
    let expected = output(&model, &device);
    let record = model.into_record();
    let loaded = quantized(&device).load_record(record);
    assert_same(&output(&loaded, &device), &expected, "loaded");
}

#[test]
fn a_model_that_is_cloned_or_moved_while_it_is_observed_reports_all_the_same() {
    let (_, plain) = device();
    let device = plain.clone().autodiff();
    let x = spread([4, 1, 3, 3], &device);
    let config = presets::int8_default();
    let (direct, _) = quantize(Net::new(&device), &config, |model| drop(model.forward(x.clone()))).unwrap();
    let (cloned, _) =
        quantize(Net::new(&device).load_record(direct.clone().into_record().allow_unused(true)), &config, |model| {
            model.valid().clone().fork(&plain).forward(x.clone());
        })
        .unwrap();
    assert_eq!(summary(&cloned), summary(&direct));
}

#[test]
fn quantizing_again_applies_the_new_rules_and_calibrates_again() {
    let (_, device) = device();
    let model = quantized(&device);
    let x = spread([4, 1, 3, 3], &device) * 10.0;
    let config =
        QuantConfig::new().with_rule(Rule::set("fc.0.input_quantizer", QuantizerConfig::uint(4).per_channel()));
    let error = quantize(model.clone(), &config, |model| drop(model.forward(x.clone()))).unwrap_err();
    assert!(error.to_string().contains("`fc.0.input_quantizer` is unsigned but saw -"), "{error}");
    let config = QuantConfig::new().with_rule(Rule::set("fc.0.input_quantizer", QuantizerConfig::int(4).per_channel()));
    let (model, report) = quantize(model, &config, |model| drop(model.forward(x.clone()))).unwrap();
    assert_eq!(report.statistics.len(), 1, "all others are disabled");
    let quantizers = Quantizers::of(&model);
    assert_eq!(quantizers.get("fc.0.input_quantizer").unwrap().amax().unwrap().dims(), [8]);
}
