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

/// A cache has the layers of the model that it is used with.
fn assert_layers(expected: usize, found: usize) {
    assert_eq!(
        found, expected,
        "the cache is for {found} layers, the transformer has {expected}: make one with `new_autoregressive_cache` of \
         this transformer"
    );
}
