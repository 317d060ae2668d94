//! Three small networks: convolutions, a block of a transformer, and a recurrent layer.

use burn::module::{Module, RunningState};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor, TensorData};
use burn_nn as plain; // burn's own layers
use burn_quant::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn_quant::nn::{Linear, LinearConfig, Lstm, LstmConfig};

/// Convolutions, a batch norm and pools, and a linear layer, all of burn.
#[derive(Module, Debug)]
pub(crate) struct Cnn {
    conv1: plain::conv::Conv2d,
    norm: plain::BatchNorm,
    pool: plain::pool::MaxPool2d,
    conv2: plain::conv::Conv2d,
    fc: plain::Linear,
}

impl Cnn {
    pub(crate) fn new(device: &Device) -> Self {
        let padding = plain::PaddingConfig2d::Explicit(1, 1, 1, 1);
        let conv = |channels| plain::conv::Conv2dConfig::new(channels, [3, 3]).with_padding(padding.clone());
        let mut norm = plain::BatchNormConfig::new(16).init(device);
        norm.running_mean = RunningState::new(spread([16], device) * 0.2);
        norm.running_var = RunningState::new(spread::<1>([16], device).abs() + 0.5);
        Self {
            conv1: conv([1, 16]).init(device),
            norm,
            pool: plain::pool::MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            conv2: conv([16, 32]).init(device),
            fc: plain::LinearConfig::new(32 * 3 * 3, 10).init(device),
        }
    }

    pub(crate) fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.pool.forward(relu(self.norm.forward(self.conv1.forward(x))));
        let x = self.pool.forward(relu(self.conv2.forward(x)));
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
