//! Layers without a weight to quantize — pooling, normalization, a leaky rectifier — with activation quantizers around
//! them.
//!
//! All are one type, [`ActivationQuantized`]: burn's layer, a quantizer before it and one after it.

use std::borrow::{Borrow, BorrowMut};
use std::ops::{Deref, DerefMut};

use burn::config::Config;
use burn::module::{
    Content, Devices, DisplaySettings, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
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

use burn_quant_core::error::QuantError;
use burn_quant_core::layout::Role;
use burn_quant_core::quantizer::TensorQuantizer;

/// A layer that has no weight, as rules and records know it.
pub trait QuantizableActivation: Module + ModuleDisplay {
    /// The type name of the layer with activation quantizers, which rules match: `QuantLayerNorm`.
    const CONTAINER: &'static str;
    /// What its inputs and outputs are.
    const ROLE: Role;
}

/// A layer of burn with a quantizer before it and one after it, both off until a rule of yours enables them.
///
/// Records have the paths of burn's layer and, beside them, those of the activation quantizers. Fields of the layer are
/// reached through it.
///
/// A rule switches them on if it names them, by the container or by a glob that matches no product; `*input_quantizer`
/// leaves them off, in presets and in recipes that are read from ModelOpt's (`QuantConfig::from_modelopt_json`).
/// ModelOpt itself quantizes what comes into pooling and most norms.
#[derive(Clone, Debug)]
pub struct ActivationQuantized<L> {
    layer: L,
    /// Quantizes the input; disabled in a new layer.
    pub input_quantizer: TensorQuantizer,
    /// Quantizes the output; disabled in a new layer and by every preset.
    pub output_quantizer: TensorQuantizer,
}

impl<L: QuantizableActivation> ActivationQuantized<L> {
    /// Returns burn's layer, which computes the same.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotBurn`] if the quantizer of the input or of the output is enabled.
    pub fn to_burn(&self) -> Result<L, QuantError> {
        self.input_quantizer.refuse(INPUT)?;
        self.output_quantizer.refuse(OUTPUT)?;
        Ok(self.layer.clone())
    }

    fn around<const D: usize>(&self, input: Tensor<D>, layer: impl FnOnce(&L, Tensor<D>) -> Tensor<D>) -> Tensor<D> {
        self.output_quantizer.forward(layer(&self.layer, self.input_quantizer.forward(input)))
    }

    /// The same with `f` applied to each part.
    fn each(self, f: &impl Each) -> Self {
        Self {
            layer: f.on(self.layer),
            input_quantizer: f.on(self.input_quantizer),
            output_quantizer: f.on(self.output_quantizer),
        }
    }
}

/// What is done with each part of a module.
trait Each {
    fn on<M: Module>(&self, module: M) -> M;
}

impl<L: QuantizableActivation> From<L> for ActivationQuantized<L> {
    fn from(layer: L) -> Self {
        Self {
            layer,
            input_quantizer: TensorQuantizer::disabled(L::ROLE),
            output_quantizer: TensorQuantizer::disabled(L::ROLE),
        }
    }
}

impl<L> Deref for ActivationQuantized<L> {
    type Target = L;

    fn deref(&self) -> &L {
        &self.layer
    }
}

impl<L> DerefMut for ActivationQuantized<L> {
    fn deref_mut(&mut self) -> &mut L {
        &mut self.layer
    }
}

impl<L> Borrow<L> for ActivationQuantized<L> {
    fn borrow(&self) -> &L {
        &self.layer
    }
}

impl<L> BorrowMut<L> for ActivationQuantized<L> {
    fn borrow_mut(&mut self) -> &mut L {
        &mut self.layer
    }
}

const INPUT: &str = "input_quantizer";
const OUTPUT: &str = "output_quantizer";

impl<L: QuantizableActivation> Module for ActivationQuantized<L> {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.layer.visit(visitor);
        for (name, slot) in [(INPUT, &self.input_quantizer), (OUTPUT, &self.output_quantizer)] {
            visitor.enter_module(name, L::CONTAINER);
            slot.visit(visitor);
            visitor.exit_module(name, L::CONTAINER);
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        let layer = self.layer.map(mapper);
        let [input_quantizer, output_quantizer] =
            [(INPUT, self.input_quantizer), (OUTPUT, self.output_quantizer)].map(|(name, slot)| {
                mapper.enter_module(name, L::CONTAINER);
                let slot = slot.map(mapper);
                mapper.exit_module(name, L::CONTAINER);
                slot
            });
        Self { layer, input_quantizer, output_quantizer }
    }

    fn to_device(self, device: &Device) -> Self {
        struct To<'a>(&'a Device);
        impl Each for To<'_> {
            fn on<M: Module>(&self, module: M) -> M {
                module.to_device(self.0)
            }
        }
        self.each(&To(device))
    }

    fn fork(self, device: &Device) -> Self {
        struct Fork<'a>(&'a Device);
        impl Each for Fork<'_> {
            fn on<M: Module>(&self, module: M) -> M {
                module.fork(self.0)
            }
        }
        self.each(&Fork(device))
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        let devices = self.layer.collect_devices(devices);
        self.output_quantizer.collect_devices(self.input_quantizer.collect_devices(devices))
    }

    fn materialize(self) -> Self {
        struct Materialize;
        impl Each for Materialize {
            fn on<M: Module>(&self, module: M) -> M {
                module.materialize()
            }
        }
        self.each(&Materialize)
    }

    fn valid(&self) -> Self {
        struct Valid;
        impl Each for Valid {
            fn on<M: Module>(&self, module: M) -> M {
                module.valid()
            }
        }
        self.clone().each(&Valid)
    }

    fn train(self) -> Self {
        struct Train;
        impl Each for Train {
            fn on<M: Module>(&self, module: M) -> M {
                module.train()
            }
        }
        self.each(&Train)
    }
}

impl<L: QuantizableActivation> ModuleDisplayDefault for ActivationQuantized<L> {
    fn content(&self, content: Content) -> Option<Content> {
        content
            .set_top_level_type(L::CONTAINER.trim_start_matches("Struct:"))
            .add("layer", &self.layer)
            .add(INPUT, &self.input_quantizer)
            .add(OUTPUT, &self.output_quantizer)
            .optional()
    }
}

impl<L: QuantizableActivation> ModuleDisplay for ActivationQuantized<L> {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        None
    }
}

macro_rules! slotted {
    ($layer:ident => $quant:ident, $role:ident, rank $rank:literal) => {
        slotted!(@type $layer => $quant, $role);

        impl ActivationQuantized<$layer> {
            /// Applies the layer with its quantizers.
            ///
            /// Shapes are those of burn's layer; a disabled quantizer is the identity.
            pub fn forward(&self, input: Tensor<$rank>) -> Tensor<$rank> {
                self.around(input, |layer, input| layer.forward(input))
            }
        }
    };
    ($layer:ident => $quant:ident, $role:ident, any rank) => {
        slotted!(@type $layer => $quant, $role);

        impl ActivationQuantized<$layer> {
            /// Applies the layer with its quantizers.
            ///
            /// Shapes are those of burn's layer; a disabled quantizer is the identity.
            pub fn forward<const D: usize>(&self, input: Tensor<D>) -> Tensor<D> {
                self.around(input, |layer, input| layer.forward(input))
            }
        }
    };
    (@type $layer:ident => $quant:ident, $role:ident) => {
        #[doc = concat!("burn's [`", stringify!($layer), "`] with quantizers before and after it.")]
        pub type $quant = ActivationQuantized<$layer>;

        impl QuantizableActivation for $layer {
            const CONTAINER: &'static str = concat!("Struct:", stringify!($quant));
            const ROLE: Role = Role::$role;
        }
    };
}

slotted!(AvgPool1d => QuantAvgPool1d, ChannelsFirst, rank 3);
slotted!(AvgPool2d => QuantAvgPool2d, ChannelsFirst, rank 4);
slotted!(MaxPool1d => QuantMaxPool1d, ChannelsFirst, rank 3);
slotted!(MaxPool2d => QuantMaxPool2d, ChannelsFirst, rank 4);
slotted!(AdaptiveAvgPool1d => QuantAdaptiveAvgPool1d, ChannelsFirst, rank 3);
slotted!(AdaptiveAvgPool2d => QuantAdaptiveAvgPool2d, ChannelsFirst, rank 4);
slotted!(AdaptiveAvgPool3d => QuantAdaptiveAvgPool3d, ChannelsFirst, rank 5);
slotted!(BatchNorm => QuantBatchNorm, ChannelsFirst, any rank);
slotted!(InstanceNorm => QuantInstanceNorm, ChannelsFirst, any rank);
slotted!(GroupNorm => QuantGroupNorm, ChannelsFirst, any rank);
slotted!(LocalResponseNorm => QuantLocalResponseNorm, ChannelsFirst, any rank);
slotted!(LayerNorm => QuantLayerNorm, ChannelsLast, any rank);
slotted!(RmsNorm => QuantRmsNorm, ChannelsLast, any rank);
slotted!(LeakyRelu => QuantLeakyRelu, ChannelsLast, any rank);

/// The configuration of a [`QuantAvgPool1d`], field by field that of burn's: [`AvgPool1dConfig`].
#[derive(Config, Debug)]
pub struct QuantAvgPool1dConfig {
    /// Size of the window.
    pub kernel_size: usize,
    /// Stride; the size of the window unless it is set.
    #[config(default = "kernel_size")]
    pub stride: usize,
    /// Padding.
    #[config(default = "PaddingConfig1d::Valid")]
    pub padding: PaddingConfig1d,
    /// Whether padding counts in the average.
    #[config(default = true)]
    pub count_include_pad: bool,
    /// Whether the size of the output is rounded up.
    #[config(default = false)]
    pub ceil_mode: bool,
}

config_conversions! { AvgPool1dConfig, QuantAvgPool1dConfig => QuantAvgPool1d () { kernel_size, stride, padding,
count_include_pad, ceil_mode } }

/// The configuration of a [`QuantAvgPool2d`], field by field that of burn's: [`AvgPool2dConfig`].
#[derive(Config, Debug)]
pub struct QuantAvgPool2dConfig {
    /// Size of the window.
    pub kernel_size: [usize; 2],
    /// Stride; the size of the window unless it is set.
    #[config(default = "kernel_size")]
    pub strides: [usize; 2],
    /// Padding.
    #[config(default = "PaddingConfig2d::Valid")]
    pub padding: PaddingConfig2d,
    /// Whether padding counts in the average.
    #[config(default = true)]
    pub count_include_pad: bool,
    /// Whether the size of the output is rounded up.
    #[config(default = false)]
    pub ceil_mode: bool,
}

config_conversions! { AvgPool2dConfig, QuantAvgPool2dConfig => QuantAvgPool2d () { kernel_size, strides, padding,
count_include_pad, ceil_mode } }

/// The configuration of a [`QuantMaxPool1d`], field by field that of burn's: [`MaxPool1dConfig`].
#[derive(Config, Debug)]
pub struct QuantMaxPool1dConfig {
    /// Size of the window.
    pub kernel_size: usize,
    /// Stride; the size of the window unless it is set.
    #[config(default = "kernel_size")]
    pub stride: usize,
    /// Padding.
    #[config(default = "PaddingConfig1d::Valid")]
    pub padding: PaddingConfig1d,
    /// Spacing between the elements of a window.
    #[config(default = "1")]
    pub dilation: usize,
    /// Whether the size of the output is rounded up.
    #[config(default = false)]
    pub ceil_mode: bool,
}

config_conversions! { MaxPool1dConfig, QuantMaxPool1dConfig => QuantMaxPool1d () {
    kernel_size, stride, padding, dilation, ceil_mode
} }

/// The configuration of a [`QuantMaxPool2d`], field by field that of burn's: [`MaxPool2dConfig`].
#[derive(Config, Debug)]
pub struct QuantMaxPool2dConfig {
    /// Size of the window.
    pub kernel_size: [usize; 2],
    /// Stride; the size of the window unless it is set.
    #[config(default = "kernel_size")]
    pub strides: [usize; 2],
    /// Padding.
    #[config(default = "PaddingConfig2d::Valid")]
    pub padding: PaddingConfig2d,
    /// Spacing between the elements of a window.
    #[config(default = "[1, 1]")]
    pub dilation: [usize; 2],
    /// Whether the size of the output is rounded up.
    #[config(default = false)]
    pub ceil_mode: bool,
}

config_conversions! { MaxPool2dConfig, QuantMaxPool2dConfig => QuantMaxPool2d () {
    kernel_size, strides, padding, dilation, ceil_mode
} }

config_like_burns! {
    AdaptiveAvgPool1dConfig, QuantAdaptiveAvgPool1dConfig => QuantAdaptiveAvgPool1d () {
        /// Size of the output.
        output_size: usize,
    }
}

config_like_burns! {
    AdaptiveAvgPool2dConfig, QuantAdaptiveAvgPool2dConfig => QuantAdaptiveAvgPool2d () {
        /// Size of the output.
        output_size: [usize; 2],
    }
}

config_like_burns! {
    AdaptiveAvgPool3dConfig, QuantAdaptiveAvgPool3dConfig => QuantAdaptiveAvgPool3d () {
        /// Size of the output.
        output_size: [usize; 3],
    }
}

config_like_burns! {
    BatchNormConfig, QuantBatchNormConfig => QuantBatchNorm (device) {
        /// Channels.
        num_features: usize,
        /// Keeps the denominator from zero.
        #[config(default = 1e-5)]
        epsilon: f64,
        /// How much of a batch enters the running statistics.
        #[config(default = 0.1)]
        momentum: f64,
    }
}

config_like_burns! {
    InstanceNormConfig, QuantInstanceNormConfig => QuantInstanceNorm (device) {
        /// Channels.
        num_channels: usize,
        /// Keeps the denominator from zero.
        #[config(default = 1e-5)]
        epsilon: f64,
        /// Whether the outputs are scaled and shifted.
        #[config(default = true)]
        affine: bool,
    }
}

config_like_burns! {
    GroupNormConfig, QuantGroupNormConfig => QuantGroupNorm (device) {
        /// Groups of channels.
        num_groups: usize,
        /// Channels.
        num_channels: usize,
        /// Keeps the denominator from zero.
        #[config(default = 1e-5)]
        epsilon: f64,
        /// Whether the outputs are scaled and shifted.
        #[config(default = true)]
        affine: bool,
    }
}

config_like_burns! {
    LayerNormConfig, QuantLayerNormConfig => QuantLayerNorm (device) {
        /// Features.
        d_model: usize,
        /// Keeps the denominator from zero.
        #[config(default = 1e-5)]
        epsilon: f64,
        /// Whether the outputs are shifted.
        #[config(default = true)]
        bias: bool,
    }
}

config_like_burns! {
    RmsNormConfig, QuantRmsNormConfig => QuantRmsNorm (device) {
        /// Features.
        d_model: usize,
        /// Keeps the denominator from zero.
        #[config(default = 1e-5)]
        epsilon: f64,
    }
}

config_like_burns! {
    LocalResponseNormConfig, QuantLocalResponseNormConfig => QuantLocalResponseNorm () {
        /// Channels of a neighbourhood.
        size: usize,
        /// Factor of the sum of squares.
        #[config(default = 0.0001)]
        alpha: f64,
        /// Exponent.
        #[config(default = 0.75)]
        beta: f64,
        /// What is added to the sum.
        #[config(default = 1.0)]
        k: f64,
    }
}

config_like_burns! {
    LeakyReluConfig, QuantLeakyReluConfig => QuantLeakyRelu () {
        /// Slope below zero.
        #[config(default = 0.01)]
        negative_slope: f64,
    }
}
