//! What parameters are called in folders.

use crate::config::{Architecture, DecoderConfig};

/// The name that a layer of the decoder has in files: that of the decoder, but for Mixtral's experts.
///
/// `model.layers.0.mlp.experts.3.gate_proj` is `model.layers.0.block_sparse_moe.experts.3.w1` there.
pub(crate) fn in_files(config: &DecoderConfig, layer: &str) -> String {
    if config.architecture != Architecture::Mixtral || !layer.contains(".mlp.") {
        return layer.to_string();
    }
    let renamed = layer.replace(".mlp.", ".block_sparse_moe.");
    match renamed.rsplit_once('.') {
        Some((expert, "gate_proj")) => format!("{expert}.w1"),
        Some((expert, "down_proj")) => format!("{expert}.w2"),
        Some((expert, "up_proj")) => format!("{expert}.w3"),
        _ => renamed,
    }
}
