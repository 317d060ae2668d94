//! burn's transformers of quantized layers.

mod decoder;
mod encoder;
mod pwff;

pub use decoder::{
    QuantTransformerDecoder, QuantTransformerDecoderConfig, QuantTransformerDecoderLayer,
    TransformerDecoderAutoregressiveCache, TransformerDecoderInput, TransformerDecoderLayerAutoregressiveCache,
};
pub use encoder::{
    QuantTransformerEncoder, QuantTransformerEncoderConfig, QuantTransformerEncoderLayer,
    TransformerEncoderAutoregressiveCache, TransformerEncoderInput, TransformerEncoderLayerAutoregressiveCache,
};
pub use pwff::{QuantPositionWiseFeedForward, QuantPositionWiseFeedForwardConfig};

#[doc(no_inline)]
pub use self::{
    QuantPositionWiseFeedForward as PositionWiseFeedForward,
    QuantPositionWiseFeedForwardConfig as PositionWiseFeedForwardConfig, QuantTransformerDecoder as TransformerDecoder,
    QuantTransformerDecoderConfig as TransformerDecoderConfig, QuantTransformerDecoderLayer as TransformerDecoderLayer,
    QuantTransformerEncoder as TransformerEncoder, QuantTransformerEncoderConfig as TransformerEncoderConfig,
    QuantTransformerEncoderLayer as TransformerEncoderLayer,
};
