//! The network.

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_quant::nn::conv::{Conv2d, Conv2dConfig};
use burn_quant::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn_quant::nn::{Linear, LinearConfig, PaddingConfig2d}; // burn's layers with activation quantizers

/// A network that [`train`](crate::train::train) trains.
pub trait Classifier: Module {
    /// `[batch, 1, 28, 28]` to the logits of 10 classes.
    fn logits(&self, images: Tensor<4>) -> Tensor<2>;
}

impl Classifier for Cnn {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        self.forward(images)
    }
}

/// Two convolutions, two linear layers. Its activation quantizers are disabled when it is built: it is an ordinary
/// float model.
#[derive(Module, Debug)]
pub struct Cnn {
    conv1: Conv2d,
    conv2: Conv2d,
    pool: MaxPool2d,
    fc1: Linear,
    fc2: Linear,
}

impl Cnn {
    /// A network with random weights.
    pub fn new(device: &Device) -> Self {
        let conv = |channels| {
            Conv2dConfig::new(channels, [3, 3]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1)).init(device)
        };
        let linear = |d_input, d_output| LinearConfig::new(d_input, d_output).init(device);
        Self {
            conv1: conv([1, 16]),
            conv2: conv([16, 32]),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            fc1: linear(32 * 7 * 7, 64),
            fc2: linear(64, 10),
        }
    }

    /// `[batch, 1, 28, 28]` to the logits of 10 classes.
    pub fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = self.pool.forward(relu(self.conv1.forward(images)));
        let x = self.pool.forward(relu(self.conv2.forward(x)));
        self.fc2.forward(relu(self.fc1.forward(x.flatten(1, 3))))
    }
}
