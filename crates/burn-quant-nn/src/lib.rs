//! All of `burn::nn`, with the layers that can be quantized replaced: `use burn_quant::nn;` where `use burn::nn;` was.
//!
//! ```text
//! forward(x) = output_quantizer( layer( input_quantizer(x), weight_quantizer(weight), bias ) )
//! ```
//!
//! `nn::Linear` is [`QuantLinear`] here, `nn::LinearConfig` is [`QuantLinearConfig`], and so on for each layer of the
//! table, also in [`conv`], [`pool`], [`norm`], [`attention`] and [`transformer`]; everything else is burn's own. A
//! layer has the fields and a configuration the builders of burn's, so most models compile as they are and pretrained
//! records load. New activation quantizers are disabled: a layer computes what burn's does until its model is
//! quantized. `From` burn's layer makes one from a trained layer, and `to_burn` gives burn's layer back, or says what
//! it cannot carry.
//!
//! | layers | activation quantizers |
//! |---|---|
//! | [`QuantLinear`], convolutions, [`QuantDeformConv2d`] | `input_quantizer`, `output_quantizer` |
//! | [`QuantMultiHeadAttention`], [`QuantCrossAttention`] | those of four linear layers; `[qkvp]_bmm_quantizer` |
//! | [`QuantTransformerEncoder`], [`QuantTransformerDecoder`] and their layers | those of their parts |
//! | [`QuantRnn`], [`QuantLstm`], [`QuantGru`] and bidirectional ones | those of two linear layers for each gate |
//! | [`QuantEmbedding`] | `output_quantizer` |
//! | [`QuantSwiGlu`], [`QuantPositionWiseFeedForward`] | those of two linear layers |
//! | pooling, normalization, [`QuantLeakyRelu`] | `input_quantizer`, `output_quantizer`; presets leave them off |
//!
//! The weight quantizer is attached to the weight itself, as on burn's own layers.
//!
//! # Example
//!
//! ```
//! # #[cfg(feature = "flex")] {
//! use burn::module::Module;
//! use burn::tensor::{Device, Tensor};
//! use burn_quant::nn; // was: use burn::nn;
//!
//! #[derive(Module, Debug)]
//! struct Net { conv: nn::conv::Conv2d, norm: nn::BatchNorm, head: nn::Linear }
//!
//! let device = Device::flex();
//! let net = Net {
//!     conv: nn::conv::Conv2dConfig::new([1, 4], [3, 3]).with_bias(false).init(&device),
//!     norm: nn::BatchNormConfig::new(4).init(&device),
//!     head: nn::LinearConfig::new(4, 2).init(&device),
//! };
//! let image = Tensor::<4>::ones([1, 1, 8, 8], &device);
//! assert_eq!(net.conv.forward(image.clone()).to_data(), net.conv.to_burn().unwrap().forward(image).to_data());
//! assert!(!net.head.input_quantizer.is_enabled());
//! # }
//! ```

#[macro_use]
mod config;
#[macro_use]
mod layer;

pub mod attention;
pub mod conv;
mod embedding;
mod linear;
mod rnn;
mod swiglu;
pub mod transformer;
mod weightless;

pub use attention::{
    QuantCrossAttention, QuantCrossAttentionConfig, QuantMultiHeadAttention, QuantMultiHeadAttentionConfig,
};
pub use config::LayerConfig;
pub use conv::{
    QuantConv1d, QuantConv1dConfig, QuantConv2d, QuantConv2dConfig, QuantConv3d, QuantConv3dConfig,
    QuantConvTranspose1d, QuantConvTranspose1dConfig, QuantConvTranspose2d, QuantConvTranspose2dConfig,
    QuantConvTranspose3d, QuantConvTranspose3dConfig, QuantDeformConv2d, QuantDeformConv2dConfig,
};
pub use embedding::{QuantEmbedding, QuantEmbeddingConfig};
pub use layer::{ActivationQuantized, SingleOperation};
pub use linear::{QuantLinear, QuantLinearConfig};
pub use rnn::{
    QuantBiGru, QuantBiGruConfig, QuantBiLstm, QuantBiLstmConfig, QuantBiRnn, QuantBiRnnConfig, QuantGateController,
    QuantGru, QuantGruConfig, QuantLstm, QuantLstmConfig, QuantRnn, QuantRnnConfig,
};
pub use swiglu::{QuantSwiGlu, QuantSwiGluConfig};
pub use transformer::{
    QuantPositionWiseFeedForward, QuantPositionWiseFeedForwardConfig, QuantTransformerDecoder,
    QuantTransformerDecoderConfig, QuantTransformerDecoderLayer, QuantTransformerEncoder,
    QuantTransformerEncoderConfig, QuantTransformerEncoderLayer,
};
pub use weightless::*;

#[doc(no_inline)]
pub use burn_nn::*;

/// Names of burn for the layers that replace its own; a name that is written out wins over the glob above.
macro_rules! in_place_of_burns {
    ($($quant:ident as $burn:ident),* $(,)?) => {
        $(
            #[doc(no_inline)]
            pub use self::$quant as $burn;
        )*
    };
}

in_place_of_burns! {
    QuantLinear as Linear, QuantLinearConfig as LinearConfig,
    QuantEmbedding as Embedding, QuantEmbeddingConfig as EmbeddingConfig,
    QuantSwiGlu as SwiGlu, QuantSwiGluConfig as SwiGluConfig,
    QuantLeakyRelu as LeakyRelu, QuantLeakyReluConfig as LeakyReluConfig,
    QuantGateController as GateController,
    QuantRnn as Rnn, QuantRnnConfig as RnnConfig, QuantBiRnn as BiRnn, QuantBiRnnConfig as BiRnnConfig,
    QuantLstm as Lstm, QuantLstmConfig as LstmConfig, QuantBiLstm as BiLstm, QuantBiLstmConfig as BiLstmConfig,
    QuantGru as Gru, QuantGruConfig as GruConfig, QuantBiGru as BiGru, QuantBiGruConfig as BiGruConfig,
    QuantBatchNorm as BatchNorm, QuantBatchNormConfig as BatchNormConfig,
    QuantInstanceNorm as InstanceNorm, QuantInstanceNormConfig as InstanceNormConfig,
    QuantGroupNorm as GroupNorm, QuantGroupNormConfig as GroupNormConfig,
    QuantLayerNorm as LayerNorm, QuantLayerNormConfig as LayerNormConfig,
    QuantRmsNorm as RmsNorm, QuantRmsNormConfig as RmsNormConfig,
    QuantLocalResponseNorm as LocalResponseNorm, QuantLocalResponseNormConfig as LocalResponseNormConfig,
}

/// Pooling, with quantizers around it.
pub mod pool {
    #[doc(no_inline)]
    pub use super::{
        QuantAdaptiveAvgPool1d as AdaptiveAvgPool1d, QuantAdaptiveAvgPool1dConfig as AdaptiveAvgPool1dConfig,
        QuantAdaptiveAvgPool2d as AdaptiveAvgPool2d, QuantAdaptiveAvgPool2dConfig as AdaptiveAvgPool2dConfig,
        QuantAdaptiveAvgPool3d as AdaptiveAvgPool3d, QuantAdaptiveAvgPool3dConfig as AdaptiveAvgPool3dConfig,
        QuantAvgPool1d as AvgPool1d, QuantAvgPool1dConfig as AvgPool1dConfig, QuantAvgPool2d as AvgPool2d,
        QuantAvgPool2dConfig as AvgPool2dConfig, QuantMaxPool1d as MaxPool1d, QuantMaxPool1dConfig as MaxPool1dConfig,
        QuantMaxPool2d as MaxPool2d, QuantMaxPool2dConfig as MaxPool2dConfig,
    };
}

/// Normalization, with quantizers around it; burn's `Normalization`, which holds any of its own, is unchanged.
pub mod norm {
    #[doc(no_inline)]
    pub use super::{
        BatchNorm, BatchNormConfig, GroupNorm, GroupNormConfig, InstanceNorm, InstanceNormConfig, LayerNorm,
        LayerNormConfig, LocalResponseNorm, LocalResponseNormConfig, RmsNorm, RmsNormConfig,
    };
    #[doc(no_inline)]
    pub use burn_nn::norm::{Normalization, NormalizationConfig};
}
