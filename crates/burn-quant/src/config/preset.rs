//! The built-in configurations: those of ModelOpt 0.47, by the same names.

use super::{QuantConfig, QuantizerConfig, Rule};

const WEIGHTS: &str = "*weight_quantizer";
const INPUTS: &str = "*input_quantizer";

/// Names that are left in float by default: output heads, routers and gates, vision towers. Order does not matter.
const LEFT_IN_FLOAT: [&str; 19] = [
    "*block_sparse_moe.gate*",
    "*linear_attn.conv1d*",
    "*self_attention.conv1d*",
    "*linear_attn.in_proj_a*",
    "*linear_attn.in_proj_b*",
    "*lm_head*",
    "*mixer.conv1d*",
    "*mlp.gate.*",
    "*mlp.shared_expert_gate.*",
    "*output_layer*",
    "*proj_out.*",
    "*router*",
    "mtp.*",
    "output.*",
    "*embed_vision*",
    "*vision_tower*",
    "*visual*",
    "*vision_model*",
    "*multi_modal_projector*",
];

/// Containers that are left in float by default.
const CONTAINERS_LEFT_IN_FLOAT: [&str; 3] = ["BatchNorm", "LeakyRelu", "Embedding"];

impl QuantConfig {
    /// INT8 weights per output channel, INT8 activations per tensor; static, `max` calibration.
    ///
    /// ModelOpt's `INT8_DEFAULT_CFG`.
    pub fn int8_default() -> Self {
        Self::preset([
            Rule::set(WEIGHTS, QuantizerConfig::int(8).per_channel()),
            Rule::set(INPUTS, QuantizerConfig::int(8)),
        ])
    }

    /// INT8 weights per output channel; activations in float.
    ///
    /// ModelOpt's `INT8_WEIGHT_ONLY_CFG`.
    pub fn int8_weight_only() -> Self {
        let off = Rule::disable(INPUTS).optional();
        Self::preset([Rule::set(WEIGHTS, QuantizerConfig::int(8).per_channel()), off])
    }

    /// INT4 weights in blocks of 128 along the contracted axis; activations in float.
    ///
    /// ModelOpt's `INT4_BLOCKWISE_WEIGHT_ONLY_CFG`.
    pub fn int4_blockwise_weight_only() -> Self {
        let off = Rule::disable(INPUTS).optional();
        Self::preset([Rule::set(WEIGHTS, QuantizerConfig::int(4).per_block(128)), off])
    }

    /// E4M3 weights and activations, per tensor; static, `max` calibration.
    ///
    /// ModelOpt's `FP8_DEFAULT_CFG`.
    pub fn fp8_default() -> Self {
        Self::preset([Rule::set(WEIGHTS, QuantizerConfig::e4m3()), Rule::set(INPUTS, QuantizerConfig::e4m3())])
    }

    /// The rules of a preset, then those that leave heads and embeddings in float.
    fn preset(rules: impl IntoIterator<Item = Rule>) -> Self {
        let names = LEFT_IN_FLOAT.into_iter().map(|name| Rule::disable(name).optional());
        let containers = CONTAINERS_LEFT_IN_FLOAT.into_iter().map(|name| Rule::disable("*").within(name).optional());
        Self { rules: rules.into_iter().chain(names).chain(containers).collect(), ..Self::default() }
    }
}
