//! burn's convolutions with quantizers, under its names and ours.

mod layers;
mod packed;

pub use layers::{
    QuantConv1d, QuantConv1dConfig, QuantConv2d, QuantConv2dConfig, QuantConv3d, QuantConv3dConfig,
    QuantConvTranspose1d, QuantConvTranspose1dConfig, QuantConvTranspose2d, QuantConvTranspose2dConfig,
    QuantConvTranspose3d, QuantConvTranspose3dConfig, QuantDeformConv2d, QuantDeformConv2dConfig,
};

#[doc(no_inline)]
pub use self::{
    QuantConv1d as Conv1d, QuantConv1dConfig as Conv1dConfig, QuantConv2d as Conv2d, QuantConv2dConfig as Conv2dConfig,
    QuantConv3d as Conv3d, QuantConv3dConfig as Conv3dConfig, QuantConvTranspose1d as ConvTranspose1d,
    QuantConvTranspose1dConfig as ConvTranspose1dConfig, QuantConvTranspose2d as ConvTranspose2d,
    QuantConvTranspose2dConfig as ConvTranspose2dConfig, QuantConvTranspose3d as ConvTranspose3d,
    QuantConvTranspose3dConfig as ConvTranspose3dConfig, QuantDeformConv2d as DeformConv2d,
    QuantDeformConv2dConfig as DeformConv2dConfig,
};
