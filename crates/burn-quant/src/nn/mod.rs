//! burn's layers with slots for activation quantizers.
//!
//! ```text
//! forward(x) = output_quantizer( layer( input_quantizer(x), weight_quantizer(weight), bias ) )
//! ```
//!
//! Each has the fields of burn's layer of the same name, so pretrained records load into it, and two slots; the weight
//! quantizer is attached to the weight itself, as on burn's own layers. New slots are disabled: the layer is exactly
//! burn's until the model is quantized. `From` burn's layer makes one from a trained layer, and
//! `to_float` gives burn's layer back.
//!
//! # Example
//!
//! ```
//! # #[cfg(feature = "flex")] {
//! use burn::tensor::{Device, Tensor};
//! use burn_nn::conv::Conv2dConfig;
//! use burn_quant::nn::{QuantConv2d, QuantConv2dConfig};
//!
//! let config = Conv2dConfig::new([1, 4], [3, 3]);
//! let device = Device::flex();
//! let from_config: QuantConv2d = QuantConv2dConfig::new(config.clone()).init(&device);
//! let from_layer: QuantConv2d = config.init(&device).into();
//! let image = Tensor::<4>::ones([1, 1, 8, 8], &device);
//! assert_eq!(from_layer.forward(image.clone()).to_data(), from_layer.to_float().forward(image).to_data());
//! assert!(!from_config.input_quantizer.is_enabled());
//! # }
//! ```

mod conv;
mod linear;

pub use conv::{
    QuantConv1d, QuantConv1dConfig, QuantConv2d, QuantConv2dConfig, QuantConv3d, QuantConv3dConfig,
    QuantConvTranspose1d, QuantConvTranspose1dConfig, QuantConvTranspose2d, QuantConvTranspose2dConfig,
    QuantConvTranspose3d, QuantConvTranspose3dConfig,
};
pub use linear::{QuantLinear, QuantLinearConfig};
