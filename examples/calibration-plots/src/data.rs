//! Layers and inputs that have what real ones have: correlated channels, outliers, heavy tails.

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{Device, Distribution, Tensor};
use burn_quant::nn::QuantLinear;

pub(crate) const CHANNELS: usize = 128;
pub(crate) const OUTPUTS: usize = 64;
pub(crate) const TOKENS: usize = 512;

pub(crate) fn normal<const D: usize>(seed: u64, shape: [usize; D], device: &Device) -> Tensor<D> {
    device.seed(seed);
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

/// Values with tails: normal ones to the third power, some of them.
pub(crate) fn heavy(seed: u64, shape: [usize; 2], device: &Device) -> Tensor<2> {
    let x = normal(seed, shape, device);
    x.clone() * (x.clone() * x.clone() * 0.3 + 0.7)
}

/// A linear layer with a bias.
pub(crate) fn layer(device: &Device) -> QuantLinear {
    let weight = heavy(1, [CHANNELS, OUTPUTS], device) / (CHANNELS as f32).sqrt();
    let bias = Some(Param::from_tensor(Tensor::zeros([OUTPUTS], device)));
    Linear { weight: Param::from_tensor(weight), bias }.into()
}

/// Inputs `[tokens, channels]`: a mixture of fewer causes, with a mean, as after a ReLU.
pub(crate) fn correlated(device: &Device) -> Tensor<2> {
    let mixing = normal(2, [CHANNELS / 4, CHANNELS], device) / (CHANNELS as f32 / 4.0).sqrt();
    normal(3, [TOKENS, CHANNELS / 4], device).matmul(mixing) + normal(4, [TOKENS, CHANNELS], device) * 0.1 + 0.2
}

/// The same with every sixteenth channel twenty times as large.
pub(crate) fn with_outliers(device: &Device) -> Tensor<2> {
    let gain: Vec<f32> = (0..CHANNELS).map(|channel| if channel % 16 == 5 { 20.0 } else { 1.0 }).collect();
    correlated(device) * Tensor::<1>::from_data(gain.as_slice(), device).unsqueeze::<2>()
}

/// The values of a tensor.
pub(crate) fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().convert::<f32>().try_into_vec().expect("f32 data")
}

/// The mean squared error of a layer's outputs.
pub(crate) fn output_error(layer: &QuantLinear, float: &QuantLinear, x: &Tensor<2>) -> f64 {
    let change = layer.forward(x.clone()) - float.forward(x.clone());
    f64::from((change.clone() * change).mean().into_scalar::<f32>())
}
