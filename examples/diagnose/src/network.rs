//! A network of five linear layers with rectifiers between them, and data for it.

use burn::module::{Module, Param};
use burn::tensor::activation::relu;
use burn::tensor::{DType, Device, Distribution, Tensor};
use burn_quant::nn;

/// Features between the layers.
pub(crate) const WIDTH: usize = 64;
/// Examples in a batch.
const EXAMPLES: usize = 128;

/// Five linear layers with rectifiers between them.
#[derive(Module, Debug)]
pub struct Network {
    pub(crate) fc1: nn::Linear,
    pub(crate) fc2: nn::Linear,
    pub(crate) fc3: nn::Linear,
    pub(crate) fc4: nn::Linear,
    pub(crate) fc5: nn::Linear,
}

impl Network {
    /// Creates a network with random weights; each layer doubles the size of its inputs or so.
    pub fn new(device: &Device) -> Self {
        let layer = || {
            let mut layer = nn::LinearConfig::new(WIDTH, WIDTH).init(device);
            let spread = 2.0 * (2.0 / WIDTH as f64).sqrt();
            let weight = Tensor::random([WIDTH, WIDTH], Distribution::Normal(0.0, spread), device);
            layer.weight = Param::from_tensor(weight);
            layer
        };
        Self { fc1: layer(), fc2: layer(), fc3: layer(), fc4: layer(), fc5: layer() }
    }

    /// Applies the network: `[examples, 64]` to `[examples, 64]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = relu(self.fc1.forward(x));
        let x = relu(self.fc2.forward(x));
        let x = relu(self.fc3.forward(x));
        let x = relu(self.fc4.forward(x));
        self.fc5.forward(x)
    }

    /// Makes batches for it.
    pub fn batches(device: &Device) -> Vec<Tensor<2>> {
        (0..4).map(|_| Tensor::random([EXAMPLES, WIDTH], Distribution::Normal(0.0, 1.0), device)).collect()
    }

    /// The network in another dtype.
    pub(crate) fn cast(mut self, dtype: DType) -> Self {
        for layer in [&mut self.fc1, &mut self.fc2, &mut self.fc3, &mut self.fc4, &mut self.fc5] {
            layer.weight = layer.weight.clone().map(|weight| weight.cast(dtype));
            layer.bias = layer.bias.take().map(|bias| bias.map(|bias| bias.cast(dtype)));
        }
        self
    }
}

/// Multiplies the outputs of a layer by a factor for each, weight and bias.
pub(crate) fn scale_outputs(layer: &mut nn::Linear, factors: Tensor<1>) {
    layer.weight = layer.weight.clone().map(|weight| weight * factors.clone().unsqueeze::<2>());
    layer.bias = layer.bias.take().map(|bias| bias.map(|bias| bias * factors.clone()));
}

/// Divides the inputs of a layer by a factor for each: it undoes [`scale_outputs`] of the layer before a rectifier.
pub(crate) fn unscale_inputs(layer: &mut nn::Linear, factors: Tensor<1>) {
    layer.weight = layer.weight.clone().map(|weight| weight / factors.clone().unsqueeze_dim::<2>(1));
}

/// Ones, but for one channel.
pub(crate) fn factors(channel: usize, factor: f32, device: &Device) -> Tensor<1> {
    let mut factors = [1.0; WIDTH];
    factors[channel] = factor;
    Tensor::from_floats(factors, device)
}
