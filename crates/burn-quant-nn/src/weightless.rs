//! Layers of burn without a weight to quantize: pools, norms, and the leaky rectifier.

use burn::tensor::ops::MaxPoolOptions;
use burn::tensor::{Device, Tensor};
use burn_nn::norm::{
    BatchNorm, BatchNormConfig, GroupNorm, GroupNormConfig, InstanceNorm, InstanceNormConfig, LayerNorm,
    LayerNormConfig, LocalResponseNorm, LocalResponseNormConfig, RmsNorm, RmsNormConfig,
};
use burn_nn::pool::{
    AdaptiveAvgPool1d, AdaptiveAvgPool1dConfig, AdaptiveAvgPool2d, AdaptiveAvgPool2dConfig, AdaptiveAvgPool3d,
    AdaptiveAvgPool3dConfig, AvgPool1d, AvgPool1dConfig, AvgPool2d, AvgPool2dConfig, MaxPool1d, MaxPool1dConfig,
    MaxPool2d, MaxPool2dConfig,
};
use burn_nn::{LeakyRelu, LeakyReluConfig, PaddingConfig1d, PaddingConfig2d};

use burn_quant_core::layout::Role;
use burn_quant_ops::max_pool2d;

weightless! {
    AvgPool1d => QuantAvgPool1d, ChannelsFirst, 3;
    AvgPool2d => QuantAvgPool2d, ChannelsFirst, 4;
    MaxPool1d => QuantMaxPool1d, ChannelsFirst, 3;
    AdaptiveAvgPool1d => QuantAdaptiveAvgPool1d, ChannelsFirst, 3;
    AdaptiveAvgPool2d => QuantAdaptiveAvgPool2d, ChannelsFirst, 4;
    AdaptiveAvgPool3d => QuantAdaptiveAvgPool3d, ChannelsFirst, 5;
    BatchNorm => QuantBatchNorm, ChannelsFirst, any;
    InstanceNorm => QuantInstanceNorm, ChannelsFirst, any;
    GroupNorm => QuantGroupNorm, ChannelsFirst, any;
    LocalResponseNorm => QuantLocalResponseNorm, ChannelsFirst, any;
    LayerNorm => QuantLayerNorm, ChannelsLast, any;
    RmsNorm => QuantRmsNorm, ChannelsLast, any;
    LeakyRelu => QuantLeakyRelu, ChannelsLast, any;
}

activation_quantized! { MaxPool2d => QuantMaxPool2d, ChannelsFirst; }

impl crate::layer::ActivationQuantized<MaxPool2d> {
    /// Applies the layer with its quantizers.
    ///
    /// Shapes are those of burn's layer; a disabled quantizer is the identity. On the CPU places of maxima, which
    /// nothing but gradients takes, are not found.
    pub fn forward(&self, input: Tensor<4>) -> Tensor<4> {
        self.around(input, |layer, input| {
            let MaxPool2d { kernel_size, stride, padding, dilation, ceil_mode } = layer;
            let padding = match padding {
                PaddingConfig2d::Valid => [(0, 0); 2],
                PaddingConfig2d::Explicit(top, left, bottom, right) => [(*top, *bottom), (*left, *right)],
                PaddingConfig2d::Same => return layer.forward(input), // burn knows how much that is
            };
            let options = MaxPoolOptions::new(*kernel_size).with_stride(*stride).with_dilation(*dilation);
            max_pool2d(input, options.with_padding_pairs(padding).with_ceil_mode(*ceil_mode))
        })
    }
}

layer_config! {
    QuantAvgPool1dConfig = AvgPool1dConfig => QuantAvgPool1d ();
    new(kernel_size: usize);
    /// Sets the stride, which is the size of the window otherwise.
    with_stride(stride: usize);
    /// Sets the padding.
    with_padding(padding: PaddingConfig1d);
    /// Sets whether padding counts in the average.
    with_count_include_pad(count_include_pad: bool);
    /// Sets whether the size of the output is rounded up.
    with_ceil_mode(ceil_mode: bool);
}

layer_config! {
    QuantAvgPool2dConfig = AvgPool2dConfig => QuantAvgPool2d ();
    new(kernel_size: [usize; 2]);
    /// Sets the stride, which is the size of the window otherwise.
    with_strides(strides: [usize; 2]);
    /// Sets the padding.
    with_padding(padding: PaddingConfig2d);
    /// Sets whether padding counts in the average.
    with_count_include_pad(count_include_pad: bool);
    /// Sets whether the size of the output is rounded up.
    with_ceil_mode(ceil_mode: bool);
}

layer_config! {
    QuantMaxPool1dConfig = MaxPool1dConfig => QuantMaxPool1d ();
    new(kernel_size: usize);
    /// Sets the stride, which is the size of the window otherwise.
    with_stride(stride: usize);
    /// Sets the padding.
    with_padding(padding: PaddingConfig1d);
    /// Sets the spacing between the elements of a window.
    with_dilation(dilation: usize);
    /// Sets whether the size of the output is rounded up.
    with_ceil_mode(ceil_mode: bool);
}

layer_config! {
    QuantMaxPool2dConfig = MaxPool2dConfig => QuantMaxPool2d ();
    new(kernel_size: [usize; 2]);
    /// Sets the stride, which is the size of the window otherwise.
    with_strides(strides: [usize; 2]);
    /// Sets the padding.
    with_padding(padding: PaddingConfig2d);
    /// Sets the spacing between the elements of a window.
    with_dilation(dilation: [usize; 2]);
    /// Sets whether the size of the output is rounded up.
    with_ceil_mode(ceil_mode: bool);
}

layer_config! {
    QuantAdaptiveAvgPool1dConfig = AdaptiveAvgPool1dConfig => QuantAdaptiveAvgPool1d ();
    new(output_size: usize);
}

layer_config! {
    QuantAdaptiveAvgPool2dConfig = AdaptiveAvgPool2dConfig => QuantAdaptiveAvgPool2d ();
    new(output_size: [usize; 2]);
}

layer_config! {
    QuantAdaptiveAvgPool3dConfig = AdaptiveAvgPool3dConfig => QuantAdaptiveAvgPool3d ();
    new(output_size: [usize; 3]);
}

layer_config! {
    QuantBatchNormConfig = BatchNormConfig => QuantBatchNorm (device);
    new(num_features: usize);
    /// Sets the number that keeps the denominator from zero.
    with_epsilon(epsilon: f64);
    /// Sets how much of a batch enters the running statistics.
    with_momentum(momentum: f64);
}

layer_config! {
    QuantInstanceNormConfig = InstanceNormConfig => QuantInstanceNorm (device);
    new(num_channels: usize);
    /// Sets the number that keeps the denominator from zero.
    with_epsilon(epsilon: f64);
    /// Sets whether the outputs are scaled and shifted.
    with_affine(affine: bool);
}

layer_config! {
    QuantGroupNormConfig = GroupNormConfig => QuantGroupNorm (device);
    new(num_groups: usize, num_channels: usize);
    /// Sets the number that keeps the denominator from zero.
    with_epsilon(epsilon: f64);
    /// Sets whether the outputs are scaled and shifted.
    with_affine(affine: bool);
}

layer_config! {
    QuantLayerNormConfig = LayerNormConfig => QuantLayerNorm (device);
    new(d_model: usize);
    /// Sets the number that keeps the denominator from zero.
    with_epsilon(epsilon: f64);
    /// Sets whether the outputs are shifted.
    with_bias(bias: bool);
}

layer_config! {
    QuantRmsNormConfig = RmsNormConfig => QuantRmsNorm (device);
    new(d_model: usize);
    /// Sets the number that keeps the denominator from zero.
    with_epsilon(epsilon: f64);
}

layer_config! {
    QuantLocalResponseNormConfig = LocalResponseNormConfig => QuantLocalResponseNorm ();
    new(size: usize);
    /// Sets the factor of the sum of squares.
    with_alpha(alpha: f64);
    /// Sets the exponent.
    with_beta(beta: f64);
    /// Sets what is added to the sum.
    with_k(k: f64);
}

layer_config! {
    QuantLeakyReluConfig = LeakyReluConfig => QuantLeakyRelu ();
    new();
    /// Sets the slope below zero.
    with_negative_slope(negative_slope: f64);
}
