//! A residual network of 20 layers.
//!
//! Source: He, Zhang, Ren, Sun 2015, "Deep Residual Learning for Image Recognition", arXiv:1512.03385, §4.2; here the
//! first convolution has stride 2, as the images are small and grey, and shortcuts that change the shape are
//! convolutions of one pixel.

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_quant::nn::conv::{Conv2d, Conv2dConfig};
use burn_quant::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig, PaddingConfig2d};

use crate::model::Classifier;

#[derive(Module, Debug)]
struct Block {
    conv1: Conv2d,
    bn1: BatchNorm,
    conv2: Conv2d,
    bn2: BatchNorm,
    shortcut: Option<Conv2d>,
}

/// Images to the logits of 10 classes, through 9 residual blocks of 16, 32 and 64 channels.
#[derive(Module, Debug)]
pub struct ResNet {
    stem: Conv2d,
    bn: BatchNorm,
    blocks: Vec<Block>,
    fc: Linear,
}

fn conv(channels: [usize; 2], kernel: usize, stride: usize, device: &Device) -> Conv2d {
    let side = kernel / 2;
    Conv2dConfig::new(channels, [kernel, kernel])
        .with_stride([stride, stride])
        .with_padding(PaddingConfig2d::Explicit(side, side, side, side))
        .with_bias(false)
        .init(device)
}

impl ResNet {
    /// A network with random weights.
    pub fn new(device: &Device) -> Self {
        let norm = |channels| BatchNormConfig::new(channels).init(device);
        let block = |d_in: usize, d_out: usize| {
            let stride = d_out / d_in;
            Block {
                conv1: conv([d_in, d_out], 3, stride, device),
                bn1: norm(d_out),
                conv2: conv([d_out, d_out], 3, 1, device),
                bn2: norm(d_out),
                shortcut: (stride > 1).then(|| conv([d_in, d_out], 1, stride, device)),
            }
        };
        let channels = [16, 16, 16, 16, 32, 32, 32, 64, 64, 64];
        Self {
            stem: conv([1, 16], 3, 2, device),
            bn: norm(16),
            blocks: channels.windows(2).map(|pair| block(pair[0], pair[1])).collect(),
            fc: LinearConfig::new(64, 10).init(device),
        }
    }
}

impl Block {
    fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        let x = relu(self.bn1.forward(self.conv1.forward(input.clone())));
        let x = self.bn2.forward(self.conv2.forward(x));
        let shortcut = match &self.shortcut {
            Some(conv) => conv.forward(input),
            None => input,
        };
        relu(x + shortcut)
    }
}

impl Classifier for ResNet {
    fn logits(&self, images: Tensor<4>) -> Tensor<2> {
        let x = relu(self.bn.forward(self.stem.forward(images)));
        let x = self.blocks.iter().fold(x, |x, block| block.forward(x));
        let [batch, channels, _, _] = x.dims();
        self.fc.forward(x.mean_dim(3).mean_dim(2).reshape([batch, channels]))
    }
}
