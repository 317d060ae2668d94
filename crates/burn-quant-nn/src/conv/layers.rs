//! burn's convolutions with activation quantizers. One macro, as they differ in their fields only.

use burn::config::Config;
use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Tensor};
use burn_nn::conv::{
    Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Conv3d, Conv3dConfig, ConvTranspose1d, ConvTranspose1dConfig,
    ConvTranspose2d, ConvTranspose2dConfig, ConvTranspose3d, ConvTranspose3dConfig, DeformConv2d, DeformConv2dConfig,
};
use burn_nn::{Initializer, PaddingConfig1d, PaddingConfig2d, PaddingConfig3d};

use burn_quant_core::error::QuantError;
use burn_quant_core::layout::Role;
use burn_quant_core::quantizer::TensorQuantizer;

macro_rules! quantized_convolution {
    (
        $layer:ident => $quant:ident,
        rank $rank:literal, weight $weight_shape:literal, groups $groups:ident,
            forward ($($argument:ident: $argument_type:ty),*),
        $(note $note:literal,)?
        { $($(#[$attribute:meta])* $field:ident: $type:ty = $doc:literal,)* }
    ) => {
        #[doc = concat!("burn's [`", stringify!($layer), "`] with quantizers before and after it.")]
        ///
        /// # Shapes
        ///
        #[doc = concat!("`weight`: `", $weight_shape, "`; input `[batch, channels_in, ...]`, output `[batch, \
            channels_out, ...]`.")]
        $(
            ///
            #[doc = $note]
        )?
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
            /// Applies the layer with its quantizers.
            ///
            /// Shapes are those of burn's layer; a disabled quantizer is the identity.
            pub fn forward(&self, input: Tensor<$rank>, $($argument: $argument_type),*) -> Tensor<$rank> {
                $(let $field = self.$field.clone();)*
                let (weight, bias) = (self.weight.val(), self.bias.as_ref().map(Param::val));
                let output = self.input_quantizer.layer(input, weight, bias, move |x, weight: Tensor<$rank>, bias| {
                    let weight = Param::initialized(ParamId::from(0), weight);
                    let bias = bias.map(|bias| Param::initialized(ParamId::from(1), bias));
                    let layer = $layer { weight, bias, $($field: $field.clone(),)* };
                    layer.forward(x, $($argument.clone()),*)
                });
                self.output_quantizer.forward(output)
            }

            /// Returns burn's layer, which computes the same; with the weight's quantizer if it has one.
            ///
            /// # Errors
            ///
            /// [`QuantError::NotBurn`] if the quantizer of the input or of the output is enabled, or scales the input.
            pub fn to_burn(&self) -> Result<$layer, QuantError> {
                self.input_quantizer.refuse("input_quantizer")?;
                self.output_quantizer.refuse("output_quantizer")?;
                Ok($layer { weight: self.weight.clone(), bias: self.bias.clone(), $($field: self.$field.clone(),)* })
            }
        }

        impl From<$layer> for $quant {
            fn from(layer: $layer) -> Self {
                let groups = layer.$groups;
                Self {
                    weight: layer.weight,
                    bias: layer.bias,
                    $($field: layer.$field,)*
                    input_quantizer: TensorQuantizer::disabled(Role::ChannelsFirst).before_convolution(groups),
                    output_quantizer: TensorQuantizer::disabled(Role::ChannelsFirst),
                }
            }
        }
    };
}

quantized_convolution! {
    Conv1d => QuantConv1d,
    rank 3, weight "[channels_out, channels_in / groups, kernel]", groups groups, forward (),
    note "# Training

burn 0.22.1 computes a wrong gradient of the weight where there are several groups and the stride does not divide
`length + 2 · padding − kernel`: pad the input so that it does. Outputs and calibration are right.",
    {
        stride: usize = "Stride.",
        kernel_size: usize = "Size of the kernel.",
        dilation: usize = "Spacing between kernel elements.",
        groups: usize = "Groups of channels.",
        #[module(skip)] padding: PaddingConfig1d = "Padding.",
    }
}

quantized_convolution! {
    Conv2d => QuantConv2d,
    rank 4, weight "[channels_out, channels_in / groups, kernel, kernel]", groups groups, forward (),
    {
        stride: [usize; 2] = "Stride.",
        kernel_size: [usize; 2] = "Size of the kernel.",
        dilation: [usize; 2] = "Spacing between kernel elements.",
        groups: usize = "Groups of channels.",
        #[module(skip)] padding: PaddingConfig2d = "Padding.",
    }
}

quantized_convolution! {
    Conv3d => QuantConv3d,
    rank 5, weight "[channels_out, channels_in / groups, kernel, kernel, kernel]", groups groups, forward (),
    {
        stride: [usize; 3] = "Stride.",
        kernel_size: [usize; 3] = "Size of the kernel.",
        dilation: [usize; 3] = "Spacing between kernel elements.",
        groups: usize = "Groups of channels.",
        #[module(skip)] padding: PaddingConfig3d = "Padding.",
    }
}

quantized_convolution! {
    ConvTranspose1d => QuantConvTranspose1d,
    rank 3, weight "[channels_in, channels_out / groups, kernel]", groups groups, forward (),
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
    ConvTranspose2d => QuantConvTranspose2d,
    rank 4, weight "[channels_in, channels_out / groups, kernel, kernel]", groups groups, forward (),
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
    ConvTranspose3d => QuantConvTranspose3d,
    rank 5, weight "[channels_in, channels_out / groups, kernel, kernel, kernel]", groups groups, forward (),
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

quantized_convolution! {
    DeformConv2d => QuantDeformConv2d,
    rank 4, weight "[channels_out, channels_in / weight_groups, kernel, kernel]", groups weight_groups,
    forward (offset: Tensor<4>, mask: Option<Tensor<4>>),
    {
        stride: [usize; 2] = "Stride.",
        kernel_size: [usize; 2] = "Size of the kernel.",
        dilation: [usize; 2] = "Spacing between kernel elements.",
        weight_groups: usize = "Groups of channels.",
        offset_groups: usize = "Groups of offsets.",
        #[module(skip)] padding: PaddingConfig2d = "Padding.",
    }
}

config_like_burns! {
    Conv1dConfig, QuantConv1dConfig => QuantConv1d (device) {
        /// Channels of the input.
        channels_in: usize,
        /// Channels of the output.
        channels_out: usize,
        /// Size of the kernel.
        kernel_size: usize,
        /// Stride.
        #[config(default = "1")]
        stride: usize,
        /// Spacing between kernel elements.
        #[config(default = "1")]
        dilation: usize,
        /// Groups of channels.
        #[config(default = 1)]
        groups: usize,
        /// Padding.
        #[config(default = "PaddingConfig1d::Valid")]
        padding: PaddingConfig1d,
        /// Whether there is a bias.
        #[config(default = true)]
        bias: bool,
        /// How the parameters begin.
        #[config(default = "Initializer::KaimingUniform { gain: 1.0 / 3f64.sqrt(), fan_out_only: false }")]
        initializer: Initializer,
    }
}

config_like_burns! {
    Conv2dConfig, QuantConv2dConfig => QuantConv2d (device) {
        /// Channels of the input and of the output.
        channels: [usize; 2],
        /// Size of the kernel.
        kernel_size: [usize; 2],
        /// Stride.
        #[config(default = "[1, 1]")]
        stride: [usize; 2],
        /// Spacing between kernel elements.
        #[config(default = "[1, 1]")]
        dilation: [usize; 2],
        /// Groups of channels.
        #[config(default = 1)]
        groups: usize,
        /// Padding.
        #[config(default = "PaddingConfig2d::Valid")]
        padding: PaddingConfig2d,
        /// Whether there is a bias.
        #[config(default = true)]
        bias: bool,
        /// How the parameters begin.
        #[config(default = "Initializer::KaimingUniform { gain: 1.0 / 3f64.sqrt(), fan_out_only: false }")]
        initializer: Initializer,
    }
}

config_like_burns! {
    Conv3dConfig, QuantConv3dConfig => QuantConv3d (device) {
        /// Channels of the input and of the output.
        channels: [usize; 2],
        /// Size of the kernel.
        kernel_size: [usize; 3],
        /// Stride.
        #[config(default = "[1, 1, 1]")]
        stride: [usize; 3],
        /// Spacing between kernel elements.
        #[config(default = "[1, 1, 1]")]
        dilation: [usize; 3],
        /// Groups of channels.
        #[config(default = 1)]
        groups: usize,
        /// Padding.
        #[config(default = "PaddingConfig3d::Valid")]
        padding: PaddingConfig3d,
        /// Whether there is a bias.
        #[config(default = true)]
        bias: bool,
        /// How the parameters begin.
        #[config(default = "Initializer::KaimingUniform { gain: 1.0 / 3f64.sqrt(), fan_out_only: false }")]
        initializer: Initializer,
    }
}

config_like_burns! {
    ConvTranspose1dConfig, QuantConvTranspose1dConfig => QuantConvTranspose1d (device) {
        /// Channels of the input and of the output.
        channels: [usize; 2],
        /// Size of the kernel.
        kernel_size: usize,
        /// Stride.
        #[config(default = "1")]
        stride: usize,
        /// Spacing between kernel elements.
        #[config(default = "1")]
        dilation: usize,
        /// Groups of channels.
        #[config(default = 1)]
        groups: usize,
        /// Padding.
        #[config(default = "0")]
        padding: usize,
        /// Padding of the output.
        #[config(default = "0")]
        padding_out: usize,
        /// Whether there is a bias.
        #[config(default = true)]
        bias: bool,
        /// How the parameters begin.
        #[config(default = "Initializer::KaimingUniform { gain: 1.0 / 3f64.sqrt(), fan_out_only: false }")]
        initializer: Initializer,
    }
}

config_like_burns! {
    ConvTranspose2dConfig, QuantConvTranspose2dConfig => QuantConvTranspose2d (device) {
        /// Channels of the input and of the output.
        channels: [usize; 2],
        /// Size of the kernel.
        kernel_size: [usize; 2],
        /// Stride.
        #[config(default = "[1, 1]")]
        stride: [usize; 2],
        /// Spacing between kernel elements.
        #[config(default = "[1, 1]")]
        dilation: [usize; 2],
        /// Groups of channels.
        #[config(default = 1)]
        groups: usize,
        /// Padding.
        #[config(default = "[0, 0]")]
        padding: [usize; 2],
        /// Padding of the output.
        #[config(default = "[0, 0]")]
        padding_out: [usize; 2],
        /// Whether there is a bias.
        #[config(default = true)]
        bias: bool,
        /// How the parameters begin.
        #[config(default = "Initializer::KaimingUniform { gain: 1.0 / 3f64.sqrt(), fan_out_only: false }")]
        initializer: Initializer,
    }
}

config_like_burns! {
    ConvTranspose3dConfig, QuantConvTranspose3dConfig => QuantConvTranspose3d (device) {
        /// Channels of the input and of the output.
        channels: [usize; 2],
        /// Size of the kernel.
        kernel_size: [usize; 3],
        /// Stride.
        #[config(default = "[1, 1, 1]")]
        stride: [usize; 3],
        /// Spacing between kernel elements.
        #[config(default = "[1, 1, 1]")]
        dilation: [usize; 3],
        /// Groups of channels.
        #[config(default = 1)]
        groups: usize,
        /// Padding.
        #[config(default = "[0, 0, 0]")]
        padding: [usize; 3],
        /// Padding of the output.
        #[config(default = "[0, 0, 0]")]
        padding_out: [usize; 3],
        /// Whether there is a bias.
        #[config(default = true)]
        bias: bool,
        /// How the parameters begin.
        #[config(default = "Initializer::KaimingUniform { gain: 1.0 / 3f64.sqrt(), fan_out_only: false }")]
        initializer: Initializer,
    }
}

config_like_burns! {
    DeformConv2dConfig, QuantDeformConv2dConfig => QuantDeformConv2d (device) {
        /// Channels of the input and of the output.
        channels: [usize; 2],
        /// Size of the kernel.
        kernel_size: [usize; 2],
        /// Stride.
        #[config(default = "[1, 1]")]
        stride: [usize; 2],
        /// Spacing between kernel elements.
        #[config(default = "[1, 1]")]
        dilation: [usize; 2],
        /// Groups of channels.
        #[config(default = 1)]
        weight_groups: usize,
        /// Groups of offsets.
        #[config(default = 1)]
        offset_groups: usize,
        /// Padding.
        #[config(default = "PaddingConfig2d::Valid")]
        padding: PaddingConfig2d,
        /// Whether there is a bias.
        #[config(default = true)]
        bias: bool,
        /// How the parameters begin.
        #[config(default = "Initializer::KaimingUniform { gain: 1.0 / 3f64.sqrt(), fan_out_only: false }")]
        initializer: Initializer,
    }
}
