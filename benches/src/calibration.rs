//! What calibration costs, and what it gains: eight linear layers with outlier channels.

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Distribution, Tensor};
use burn_quant::nn::QuantLinear;
use burn_quant::{QuantConfig, presets};

/// Channels of every layer.
pub const WIDTH: usize = 1024;
/// Calibration tokens.
pub const TOKENS: usize = 1024;
const LAYERS: usize = 8;
/// Every so many channels one is an outlier.
const EVERY: usize = 64;

/// Eight linear layers, each behind a norm whose gain has outliers, as those of language models have.
#[derive(Module, Debug)]
pub struct Stack {
    /// The layers.
    pub layers: Vec<QuantLinear>,
    gain: Param<Tensor<1>>,
}

impl Stack {
    /// Random weights; channels `17, 17 + 64, ...` of what every layer sees are `outlier` times the others.
    pub fn new(outlier: f32, device: &Device) -> Self {
        device.seed(7);
        let layer = |_| {
            let weight = Tensor::random([WIDTH, WIDTH], Distribution::Normal(0.0, (WIDTH as f64).powf(-0.5)), device);
            let mut layer: Linear = LinearConfig::new(WIDTH, WIDTH).with_bias(false).init(device);
            layer.weight = Param::from_tensor(weight);
            layer.into()
        };
        let gain: Vec<f32> = (0..WIDTH).map(|channel| if channel % EVERY == 17 { outlier } else { 1.0 }).collect();
        let gain = Param::from_tensor(Tensor::from_data(gain.as_slice(), device));
        Self { layers: (0..LAYERS).map(layer).collect(), gain }
    }

    /// Through all layers.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.layers.iter().fold(x, |x, layer| layer.forward(self.between(x)))
    }

    /// What a layer sees of the outputs of the one before it.
    fn between(&self, x: Tensor<2>) -> Tensor<2> {
        let x = relu(x);
        let power = (x.clone() * x.clone()).mean_dim(1).sqrt() + 1e-6;
        x / power * self.gain.val().unsqueeze()
    }

    /// The mean over layers of the squared error of outputs, relative to that of the float layer; every layer gets what
    /// it gets in the float model.
    pub fn error(&self, float: &Self, x: &Tensor<2>) -> f64 {
        let mut x = x.clone();
        let mut sum = 0.0;
        for (quantized, float) in self.layers.iter().zip(&float.layers) {
            let input = self.between(x);
            x = float.forward(input.clone());
            let change = quantized.forward(input) - x.clone();
            let square = |x: Tensor<2>| f64::from((x.clone() * x).mean().into_scalar::<f32>());
            sum += square(change) / square(x.clone());
        }
        sum / self.layers.len() as f64
    }
}

/// Tokens of a mixture: correlated channels, as activations have them.
pub fn tokens(seed: u64, device: &Device) -> Tensor<2> {
    let normal = |shape| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), device);
    device.seed(11);
    let mixing = normal([WIDTH / 4, WIDTH]) / (WIDTH as f32 / 4.0).sqrt();
    device.seed(seed);
    normal([TOKENS, WIDTH / 4]).matmul(mixing) + normal([TOKENS, WIDTH]) * 0.1
}

/// 4-bit weights in blocks of 128.
pub fn w4() -> QuantConfig {
    presets::int4_awq()
}
