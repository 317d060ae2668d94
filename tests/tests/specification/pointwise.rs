//! Convolutions of one pixel are matrices: algorithms without a counterpart in ModelOpt treat them so.

use burn::module::Param;
use burn::nn::Linear;
use burn::nn::conv::Conv2dConfig;
use burn::tensor::{Device, Tensor};
use burn_quant::calibrate::{Report, SkipReason};
use burn_quant::nn::QuantLinear;
use burn_quant::nn::conv::QuantConv2d;
use burn_quant::{Algorithm, QuantConfig, QuantizerConfig, Rule, quantize};
use burn_quant_tests::device;

use crate::{assert_close, spread, values};

fn w3(algorithm: Algorithm) -> QuantConfig {
    QuantConfig::new()
        .with_rule(Rule::set("weight_quantizer", QuantizerConfig::int(3).per_channel()))
        .with_algorithm(algorithm)
}

/// Images `[2, 6, 3, 4]`, and their pixels as tokens `[24, 6]`.
fn images(device: &Device) -> (Tensor<4>, Tensor<2>) {
    let images = spread::<4>([2, 6, 3, 4], device);
    let tokens = images.clone().permute([0, 2, 3, 1]).reshape([24, 6]);
    (images, tokens)
}

fn convolution(weight: Tensor<4>, groups: usize, algorithm: &Algorithm) -> (QuantConv2d, Report) {
    let device = weight.device();
    let [outputs, inputs, kernel, _] = weight.dims();
    let config = Conv2dConfig::new([inputs * groups, outputs], [kernel, kernel]).with_groups(groups);
    let mut layer: QuantConv2d = config.init(&device).into();
    layer.weight = Param::from_tensor(weight);
    layer.bias = Some(Param::from_tensor(Tensor::zeros([outputs], &device)));
    let images = images(&device).0;
    quantize(layer, &w3(algorithm.clone()), |layer| drop(layer.forward(images.clone()))).unwrap()
}

#[test]
fn a_convolution_of_one_pixel_becomes_what_the_linear_layer_becomes() {
    let (_, device) = device();
    let weight = spread::<2>([6, 4], &device);
    let steps = vec![Algorithm::adaround(), Algorithm::BiasCorrection];
    let algorithm = Algorithm::Sequence(steps);
    let bias = Some(Param::from_tensor(Tensor::zeros([4], &device)));
    let layer = Linear { weight: Param::from_tensor(weight.clone()), bias };
    let layer = QuantLinear::from(layer);
    let tokens = images(&device).1;
    let (linear, _) = quantize(layer, &w3(algorithm.clone()), |layer| drop(layer.forward(tokens.clone()))).unwrap();
    let (conv, report) = convolution(weight.transpose().reshape([4, 6, 1, 1]), 1, &algorithm);
    let layer = &report.layers[0];
    assert!(layer.steps.iter().all(|step| step.skipped.is_none()), "{layer:?}");
    let (before, after) = (layer.error_before.unwrap(), layer.error_after.unwrap());
    assert!(after > 0.0 && after < before, "{layer:?}");
    let found = conv.weight.val().reshape([4, 6]).transpose();
    assert_close(&values(found), &values(linear.weight.val()), 1e-6, "weight");
    let bias = |bias: &Option<Param<Tensor<1>>>| values(bias.as_ref().unwrap().val());
    assert_close(&bias(&conv.bias), &bias(&linear.bias), 1e-6, "bias");
}

#[test]
fn other_convolutions_and_the_references_algorithms_pass_by_with_a_reason() {
    let (_, device) = device();
    let adaround = Algorithm::AdaRound { iterations: 20, regularization: 3.0 };
    let in_groups = spread::<4>([6, 1, 1, 1], &device);
    let three = spread::<4>([2, 6, 3, 3], &device);
    let one = spread::<4>([4, 6, 1, 1], &device);
    let cases = [(in_groups, 6, &adaround), (three, 1, &adaround), (one.clone(), 1, &Algorithm::gptq())];
    for (weight, groups, algorithm) in cases {
        let shape = weight.dims();
        let (quantized, report) = convolution(weight.clone(), groups, algorithm);
        assert_eq!(report.layers[0].steps[0].skipped, Some(SkipReason::NotLinear), "{shape:?}");
        assert_eq!(values(quantized.weight.base()), values(weight), "{shape:?}");
    }
}
