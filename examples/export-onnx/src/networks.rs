//! Three small networks: convolutions, a block of a transformer, and a recurrent layer.

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use burn_quant::nn::conv::{Conv2d, Conv2dConfig};
use burn_quant::nn::pool::{AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, MaxPool2d, MaxPool2dConfig};
use burn_quant::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn_quant::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, Lstm, LstmConfig, PaddingConfig2d};

/// Convolutions, batch norms and pools, and a linear layer.
#[derive(Module, Debug)]
pub(crate) struct Cnn {
    conv1: Conv2d,
    norm: BatchNorm,
    pool: MaxPool2d,
    conv2: Conv2d,
    mean: AdaptiveAvgPool2d,
    fc: Linear,
}

impl Cnn {
    pub(crate) fn new(device: &Device) -> Self {
        let conv = |channels| Conv2dConfig::new(channels, [3, 3]).with_padding(PaddingConfig2d::Explicit(1, 1, 1, 1));
        Self {
            conv1: conv([1, 16]).init(device),
            norm: BatchNormConfig::new(16).init(device),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            conv2: conv([16, 32]).init(device),
            mean: AdaptiveAvgPool2dConfig::new([1, 1]).init(),
            fc: LinearConfig::new(32, 10).init(device),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.pool.forward(relu(self.norm.forward(self.conv1.forward(x))));
        let x = self.mean.forward(relu(self.conv2.forward(x)));
        self.fc.forward(x.flatten(1, 3))
    }
}

/// Attention and a feed-forward network, with norms.
#[derive(Module, Debug)]
pub(crate) struct Block {
    encoder: TransformerEncoder,
    head: Linear,
}

impl Block {
    pub(crate) fn new(device: &Device) -> Self {
        let encoder = TransformerEncoderConfig::new(32, 64, 2, 1).with_dropout(0.0).with_norm_first(true);
        Self { encoder: encoder.init(device), head: LinearConfig::new(32, 16).init(device) }
    }

    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.head.forward(self.encoder.forward(TransformerEncoderInput::new(x)))
    }
}

/// A recurrent layer, which is unrolled.
#[derive(Module, Debug)]
pub(crate) struct Recurrent {
    lstm: Lstm,
    head: Linear,
}

impl Recurrent {
    pub(crate) fn new(device: &Device) -> Self {
        Self { lstm: LstmConfig::new(32, 32, true).init(device), head: LinearConfig::new(32, 8).init(device) }
    }

    pub(crate) fn forward(&self, x: Tensor<3>) -> Tensor<3> {
        self.head.forward(self.lstm.forward(x, None).0)
    }
}

/// Values that are spread over -2..2, the same on every call.
pub(crate) fn spread<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    let len: usize = shape.iter().product();
    let values: Vec<f32> =
        (0..len).map(|i| ((i * 2_654_435_761 + 12_345) % 1_000_003) as f32 / 250_000.75 - 2.0).collect();
    Tensor::from_data(TensorData::new(values, shape), device)
}
