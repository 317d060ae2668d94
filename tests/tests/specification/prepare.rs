//! Float layers that compute the same and are easier to quantize.

use burn::module::{Module, Param, RunningState};
use burn::nn::conv::{Conv1dConfig, Conv2dConfig, ConvTranspose2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_quant::nn::QuantConv2d;
use burn_quant::prepare::{LinearMap, equalize, fold_batch_norm};
use burn_quant::{QuantError, presets, quantize_weights};
use burn_quant_tests::{device, devices};

use crate::{spread, values};

/// A norm that has seen data: no running statistic is 0 or 1.
fn norm(channels: usize, device: &Device) -> BatchNorm {
    let mut norm = BatchNormConfig::new(channels).init(device);
    norm.gamma = Param::from_tensor(spread([channels], device) + 1.5);
    norm.beta = Param::from_tensor(spread([channels], device));
    norm.running_mean = RunningState::new(spread([channels], device) * 0.5);
    norm.running_var = RunningState::new(spread([channels], device).abs() + 0.25);
    norm
}

fn assert_close<const D: usize>(what: &str, a: Tensor<D>, b: Tensor<D>) {
    crate::assert_close(&values(a), &values(b), 1e-5, what);
}

#[test]
fn a_layer_with_its_norm_folded_computes_the_same() {
    // in training a norm computes with the statistics of the batch: folding is for inference
    let (name, device) = device();
    let x = spread([2, 4, 6, 6], &device);
    // grouped, with a bias and without; transposed
    let conv: QuantConv2d = Conv2dConfig::new([4, 6], [3, 3]).with_groups(2).init(&device).into();
    let norm = norm(6, &device);
    let folded = fold_batch_norm(conv.clone(), norm.clone()).unwrap();
    assert_close(name, folded.forward(x.clone()), norm.forward(conv.forward(x.clone())));

    let transposed = ConvTranspose2dConfig::new([4, 6], [2, 2]).with_groups(2).with_bias(false).init(&device);
    let y = norm.forward(transposed.forward(x.clone()));
    let folded = fold_batch_norm(transposed, norm.clone()).unwrap();
    assert!(folded.bias.is_some(), "the shift needs a place");
    assert_close(name, folded.forward(x), y);

    let x = spread([5, 4], &device);
    let linear = LinearConfig::new(4, 6).init(&device);
    let folded = fold_batch_norm(linear.clone(), norm.clone()).unwrap();
    assert_close(name, folded.forward(x.clone()), norm.forward(linear.forward(x)));
}

#[test]
fn equalized_layers_compute_the_same_and_have_equal_ranges() {
    for (name, device) in devices() {
        let x = spread([2, 4, 9], &device);
        let first = Conv1dConfig::new(4, 6, 3).init(&device);
        let second = Conv1dConfig::new(6, 4, 3).with_groups(2).init(&device);
        let y = second.forward(relu(first.forward(x.clone())));
        let (first, second) = equalize(first, second).unwrap();
        assert_close(&name, second.forward(relu(first.forward(x))), y);
        let outputs: Tensor<1> = first.weight().abs().max_dim(3).max_dim(2).reshape([6]);
        let inputs: Tensor<1> = second.weight().abs().max_dim(3).max_dim(1).reshape([6]);
        assert_close(&name, outputs, inputs);
    }
}

#[test]
fn what_does_not_fit_or_is_quantized_is_an_error() {
    let (_, device) = device();
    let linear = |inputs, outputs| -> Linear { LinearConfig::new(inputs, outputs).init(&device) };
    let differ = Err(QuantError::ChannelsDiffer { left: 6, right: 5 });
    assert_eq!(equalize(linear(4, 6), linear(5, 2)).map(drop), differ);
    let norm_of_5 = fold_batch_norm(linear(4, 6), norm(5, &device)).map(drop);
    assert_eq!(norm_of_5, Err(QuantError::ChannelsDiffer { left: 6, right: 5 }));
    let (quantized, _) = quantize_weights(linear(4, 6), &presets::int8_weight_only()).unwrap();
    let quantized = fold_batch_norm(quantized, norm(6, &device)).map(drop);
    assert_eq!(quantized, Err(QuantError::AlreadyQuantized { by: "weight_quantizer" }));
}

#[test]
fn trained_parameters_are_trained_on() {
    let device = device().1.autodiff();
    let (first, second) =
        equalize(LinearConfig::new(4, 6).init(&device), LinearConfig::new(6, 2).init(&device)).unwrap();
    let gradients = second.forward(first.forward(spread([3, 4], &device))).mean().backward();
    assert!(first.weight.val().grad(&gradients).is_some());
    assert_eq!(first.valid().weight.val().dims(), [4, 6]);
}
