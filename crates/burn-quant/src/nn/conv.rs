//! burn's convolutions with slots. One macro, as they differ in their fields only.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor};
use burn_nn::conv::{
    Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Conv3d, Conv3dConfig, ConvTranspose1d, ConvTranspose1dConfig,
    ConvTranspose2d, ConvTranspose2dConfig, ConvTranspose3d, ConvTranspose3dConfig,
};
use burn_nn::{PaddingConfig1d, PaddingConfig2d, PaddingConfig3d};

use crate::{Role, TensorQuantizer};

macro_rules! quantized_convolution {
    (
        $layer:ident, $layer_config:ident => $quant:ident, $quant_config:ident,
        rank $rank:literal, weight $weight_shape:literal,
        { $($(#[$attribute:meta])* $field:ident: $type:ty = $doc:literal,)* }
    ) => {
        #[doc = concat!("The configuration of a [`", stringify!($quant), "`]: that of burn's [`", stringify!($layer), "`].")]
        #[derive(Config, Debug)]
        pub struct $quant_config {
            /// burn's layer.
            pub layer: $layer_config,
        }

        impl $quant_config {
            /// A layer with fresh weights and disabled slots.
            pub fn init(&self, device: &Device) -> $quant {
                self.layer.init(device).into()
            }
        }

        #[doc = concat!("burn's [`", stringify!($layer), "`] with quantizers before and after it.")]
        ///
        /// # Shapes
        ///
        #[doc = concat!("`weight`: `", $weight_shape, "`; input `[batch, channels_in, ...]`, output `[batch, channels_out, ...]`.")]
        #[derive(Module, Debug)]
        pub struct $quant {
            #[doc = concat!("The weight, `", $weight_shape, "`.")]
            pub weight: Param<Tensor<$rank>>,
            /// The bias, `[channels_out]`.
            pub bias: Option<Param<Tensor<1>>>,
            $(
                #[doc = $doc]
                $(#[$attribute])*
                pub $field: $type,
            )*
            /// Quantizes the input; disabled in a new layer.
            pub input_quantizer: TensorQuantizer,
            /// Quantizes the output; disabled in a new layer and by every preset.
            pub output_quantizer: TensorQuantizer,
        }

        impl $quant {
            /// The layer with its quantizers.
            pub fn forward(&self, input: Tensor<$rank>) -> Tensor<$rank> {
                self.output_quantizer.forward(self.to_float().forward(self.input_quantizer.forward(input)))
            }

            /// burn's layer with the same parameters, and the weight's quantizer if it has one.
            pub fn to_float(&self) -> $layer {
                $layer { weight: self.weight.clone(), bias: self.bias.clone(), $($field: self.$field.clone(),)* }
            }
        }

        impl From<$layer> for $quant {
            fn from(layer: $layer) -> Self {
                Self {
                    weight: layer.weight,
                    bias: layer.bias,
                    $($field: layer.$field,)*
                    input_quantizer: TensorQuantizer::disabled(Role::Images),
                    output_quantizer: TensorQuantizer::disabled(Role::Images),
                }
            }
        }
    };
}

quantized_convolution! {
    Conv1d, Conv1dConfig => QuantConv1d, QuantConv1dConfig,
    rank 3, weight "[channels_out, channels_in / groups, kernel]",
    {
        stride: usize = "Stride.",
        kernel_size: usize = "Size of the kernel.",
        dilation: usize = "Spacing between kernel elements.",
        groups: usize = "Groups of channels.",
        #[module(skip)] padding: PaddingConfig1d = "Padding.",
    }
}

quantized_convolution! {
    Conv2d, Conv2dConfig => QuantConv2d, QuantConv2dConfig,
    rank 4, weight "[channels_out, channels_in / groups, kernel, kernel]",
    {
        stride: [usize; 2] = "Stride.",
        kernel_size: [usize; 2] = "Size of the kernel.",
        dilation: [usize; 2] = "Spacing between kernel elements.",
        groups: usize = "Groups of channels.",
        #[module(skip)] padding: PaddingConfig2d = "Padding.",
    }
}

quantized_convolution! {
    Conv3d, Conv3dConfig => QuantConv3d, QuantConv3dConfig,
    rank 5, weight "[channels_out, channels_in / groups, kernel, kernel, kernel]",
    {
        stride: [usize; 3] = "Stride.",
        kernel_size: [usize; 3] = "Size of the kernel.",
        dilation: [usize; 3] = "Spacing between kernel elements.",
        groups: usize = "Groups of channels.",
        #[module(skip)] padding: PaddingConfig3d = "Padding.",
    }
}

quantized_convolution! {
    ConvTranspose1d, ConvTranspose1dConfig => QuantConvTranspose1d, QuantConvTranspose1dConfig,
    rank 3, weight "[channels_in, channels_out / groups, kernel]",
    {
        stride: usize = "Stride.",
        kernel_size: usize = "Size of the kernel.",
        dilation: usize = "Spacing between kernel elements.",
        groups: usize = "Groups of channels.",
        padding: usize = "Padding.",
        padding_out: usize = "Padding of the output.",
        channels: [usize; 2] = "Channels in and out.",
    }
}

quantized_convolution! {
    ConvTranspose2d, ConvTranspose2dConfig => QuantConvTranspose2d, QuantConvTranspose2dConfig,
    rank 4, weight "[channels_in, channels_out / groups, kernel, kernel]",
    {
        stride: [usize; 2] = "Stride.",
        kernel_size: [usize; 2] = "Size of the kernel.",
        dilation: [usize; 2] = "Spacing between kernel elements.",
        groups: usize = "Groups of channels.",
        padding: [usize; 2] = "Padding.",
        padding_out: [usize; 2] = "Padding of the output.",
        channels: [usize; 2] = "Channels in and out.",
    }
}

quantized_convolution! {
    ConvTranspose3d, ConvTranspose3dConfig => QuantConvTranspose3d, QuantConvTranspose3dConfig,
    rank 5, weight "[channels_in, channels_out / groups, kernel, kernel, kernel]",
    {
        stride: [usize; 3] = "Stride.",
        kernel_size: [usize; 3] = "Size of the kernel.",
        dilation: [usize; 3] = "Spacing between kernel elements.",
        groups: usize = "Groups of channels.",
        padding: [usize; 3] = "Padding.",
        padding_out: [usize; 3] = "Padding of the output.",
        channels: [usize; 2] = "Channels in and out.",
    }
}
