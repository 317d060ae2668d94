//! burn's convolutions with quantizers before and after them.

use burn::module::{Param, ParamId};
use burn::tensor::{Device, Tensor};
use burn_nn::conv::{
    Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Conv3d, Conv3dConfig, ConvTranspose1d, ConvTranspose1dConfig,
    ConvTranspose2d, ConvTranspose2dConfig, ConvTranspose3d, ConvTranspose3dConfig, DeformConv2d, DeformConv2dConfig,
};
use burn_nn::{Initializer, PaddingConfig1d, PaddingConfig2d, PaddingConfig3d};

use super::packed::packed;
use crate::layer::{ActivationQuantized, SingleOperation};
use burn_quant_core::layout::Role;
use burn_quant_core::quantizer::TensorQuantizer;

/// Rows of the table of convolutions: the layer, its weight, and what it is given beside the input.
macro_rules! convolutions {
    ($(
        $layer:ident => $quant:ident,
        weight $rank:literal $weight_shape:literal, groups $groups:ident, with ($($argument:ident: $type:ty),*);
        $(#[$note:meta])*
    )*) => {
        $(
            #[doc = concat!("burn's [`", stringify!($layer), "`] with quantizers before and after it.")]
            ///
            /// # Shapes
            ///
            #[doc = concat!("`weight`: `", $weight_shape, "`; input `[batch, channels_in, ...]`, output `[batch, \
                channels_out, ...]`.")]
            $(#[$note])*
            pub type $quant = ActivationQuantized<$layer>;

            impl crate::layer::sealed::Sealed for $layer {}

            impl SingleOperation for $layer {
                const CONTAINER: &'static str = concat!("Struct:", stringify!($quant));
                const ROLE: Role = Role::ChannelsFirst;

                fn new_input_quantizer(&self) -> TensorQuantizer {
                    TensorQuantizer::disabled(Role::ChannelsFirst).before_convolution(self.$groups)
                }
            }

            impl ActivationQuantized<$layer> {
                /// Applies the layer with its quantizers.
                ///
                /// Shapes are those of burn's layer; a disabled quantizer is the identity.
                pub fn forward(&self, input: Tensor<$rank>, $($argument: $type),*) -> Tensor<$rank> {
                    if let Some(output) = packed(self, &input) {
                        return output;
                    }
                    let layer: $layer = (**self).clone();
                    let (weight, bias) = (self.weight.val(), self.bias.as_ref().map(Param::val));
                    self.product(input, weight, bias, move |x, weight: Tensor<$rank>, bias| {
                        let weight = Param::initialized(ParamId::from(0), weight);
                        let bias = bias.map(|bias| Param::initialized(ParamId::from(1), bias));
                        $layer { weight, bias, ..layer.clone() }.forward(x, $($argument.clone()),*)
                    })
                }
            }
        )*
    };
}

convolutions! {
    Conv1d => QuantConv1d, weight 3 "[channels_out, channels_in / groups, kernel]", groups groups, with ();
    ///
    /// # Training
    ///
    /// burn 0.22.1 computes a wrong gradient of the weight where there are several groups and the stride does not
    /// divide `length + 2 · padding − kernel`: pad the input so that it does. Outputs and calibration are right.
    Conv2d => QuantConv2d, weight 4 "[channels_out, channels_in / groups, kernel, kernel]", groups groups, with ();
    Conv3d => QuantConv3d,
    weight 5 "[channels_out, channels_in / groups, kernel, kernel, kernel]", groups groups, with ();
    ConvTranspose1d => QuantConvTranspose1d,
    weight 3 "[channels_in, channels_out / groups, kernel]", groups groups, with ();
    ConvTranspose2d => QuantConvTranspose2d,
    weight 4 "[channels_in, channels_out / groups, kernel, kernel]", groups groups, with ();
    ConvTranspose3d => QuantConvTranspose3d,
    weight 5 "[channels_in, channels_out / groups, kernel, kernel, kernel]", groups groups, with ();
    DeformConv2d => QuantDeformConv2d,
    weight 4 "[channels_out, channels_in / weight_groups, kernel, kernel]", groups weight_groups,
    with (offset: Tensor<4>, mask: Option<Tensor<4>>);
}

layer_config! {
    QuantConv1dConfig = Conv1dConfig => QuantConv1d (device);
    new(channels_in: usize, channels_out: usize, kernel_size: usize);
    /// Sets the stride.
    with_stride(stride: usize);
    /// Sets the spacing between kernel elements.
    with_dilation(dilation: usize);
    /// Sets the number of groups of channels.
    with_groups(groups: usize);
    /// Sets the padding.
    with_padding(padding: PaddingConfig1d);
    /// Sets whether there is a bias.
    with_bias(bias: bool);
    /// Sets how the parameters begin.
    with_initializer(initializer: Initializer);
}

layer_config! {
    QuantConv2dConfig = Conv2dConfig => QuantConv2d (device);
    new(channels: [usize; 2], kernel_size: [usize; 2]);
    /// Sets the stride.
    with_stride(stride: [usize; 2]);
    /// Sets the spacing between kernel elements.
    with_dilation(dilation: [usize; 2]);
    /// Sets the number of groups of channels.
    with_groups(groups: usize);
    /// Sets the padding.
    with_padding(padding: PaddingConfig2d);
    /// Sets whether there is a bias.
    with_bias(bias: bool);
    /// Sets how the parameters begin.
    with_initializer(initializer: Initializer);
}

layer_config! {
    QuantConv3dConfig = Conv3dConfig => QuantConv3d (device);
    new(channels: [usize; 2], kernel_size: [usize; 3]);
    /// Sets the stride.
    with_stride(stride: [usize; 3]);
    /// Sets the spacing between kernel elements.
    with_dilation(dilation: [usize; 3]);
    /// Sets the number of groups of channels.
    with_groups(groups: usize);
    /// Sets the padding.
    with_padding(padding: PaddingConfig3d);
    /// Sets whether there is a bias.
    with_bias(bias: bool);
    /// Sets how the parameters begin.
    with_initializer(initializer: Initializer);
}

layer_config! {
    QuantConvTranspose1dConfig = ConvTranspose1dConfig => QuantConvTranspose1d (device);
    new(channels: [usize; 2], kernel_size: usize);
    /// Sets the stride.
    with_stride(stride: usize);
    /// Sets the spacing between kernel elements.
    with_dilation(dilation: usize);
    /// Sets the number of groups of channels.
    with_groups(groups: usize);
    /// Sets the padding.
    with_padding(padding: usize);
    /// Sets the padding of the output.
    with_padding_out(padding_out: usize);
    /// Sets whether there is a bias.
    with_bias(bias: bool);
    /// Sets how the parameters begin.
    with_initializer(initializer: Initializer);
}

layer_config! {
    QuantConvTranspose2dConfig = ConvTranspose2dConfig => QuantConvTranspose2d (device);
    new(channels: [usize; 2], kernel_size: [usize; 2]);
    /// Sets the stride.
    with_stride(stride: [usize; 2]);
    /// Sets the spacing between kernel elements.
    with_dilation(dilation: [usize; 2]);
    /// Sets the number of groups of channels.
    with_groups(groups: usize);
    /// Sets the padding.
    with_padding(padding: [usize; 2]);
    /// Sets the padding of the output.
    with_padding_out(padding_out: [usize; 2]);
    /// Sets whether there is a bias.
    with_bias(bias: bool);
    /// Sets how the parameters begin.
    with_initializer(initializer: Initializer);
}

layer_config! {
    QuantConvTranspose3dConfig = ConvTranspose3dConfig => QuantConvTranspose3d (device);
    new(channels: [usize; 2], kernel_size: [usize; 3]);
    /// Sets the stride.
    with_stride(stride: [usize; 3]);
    /// Sets the spacing between kernel elements.
    with_dilation(dilation: [usize; 3]);
    /// Sets the number of groups of channels.
    with_groups(groups: usize);
    /// Sets the padding.
    with_padding(padding: [usize; 3]);
    /// Sets the padding of the output.
    with_padding_out(padding_out: [usize; 3]);
    /// Sets whether there is a bias.
    with_bias(bias: bool);
    /// Sets how the parameters begin.
    with_initializer(initializer: Initializer);
}

layer_config! {
    QuantDeformConv2dConfig = DeformConv2dConfig => QuantDeformConv2d (device);
    new(channels: [usize; 2], kernel_size: [usize; 2]);
    /// Sets the stride.
    with_stride(stride: [usize; 2]);
    /// Sets the spacing between kernel elements.
    with_dilation(dilation: [usize; 2]);
    /// Sets the number of groups of channels.
    with_weight_groups(weight_groups: usize);
    /// Sets the number of groups of offsets.
    with_offset_groups(offset_groups: usize);
    /// Sets the padding.
    with_padding(padding: PaddingConfig2d);
    /// Sets whether there is a bias.
    with_bias(bias: bool);
    /// Sets how the parameters begin.
    with_initializer(initializer: Initializer);
}
