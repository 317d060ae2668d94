//! The built-in configurations: those of ModelOpt 0.47, by the same names in snake case, and what it has no name for.
//!
//! # Example
//!
//! ```
//! use burn_quant::{QuantizerConfig, Rule, presets};
//!
//! let config = presets::int8_weight_only() // refined
//!     .with_rule(Rule::set("decoder.*weight_quantizer", QuantizerConfig::int(4).per_block(32)))
//!     .with_rule(Rule::disable("decoder.last.*"));
//! assert_eq!(config.rules.last().unwrap().quantizer, "decoder.last.*");
//! ```

use burn_quant_ops::AxisGroups;
use burn_quant_ops::numerics::{BlockScale, Format, ScaleFormat};

use super::{ActOrder, Algorithm, CalibrationInputs, IncludeMax, QuantConfig, RangeSearch};
use burn_quant_core::config::{BiasConfig, Granularity, QuantizerConfig, Rotation, Rule, near_misses};
use burn_quant_core::error::QuantError;

const WEIGHTS: &str = "*weight_quantizer";
const INPUTS: &str = "*input_quantizer";
/// The layers of which a model need not have all kinds.
const LAYERS: &str = "layers";
const OUTPUTS: &str = "*output_quantizer";
const KEYS_AND_VALUES: &str = "*[kv]_bmm_quantizer";

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

/// Containers that are left in float by default. Rules that name no container leave norms and pools in float too.
const CONTAINERS_LEFT_IN_FLOAT: [&str; 3] = ["BatchNorm", "LeakyRelu", "Embedding"];

/// Layers of hybrid state-space models that are left in float: latent projections and attention.
const MAMBA_LEFT_IN_FLOAT: [&str; 8] = [
    "*fc1_latent_proj*",
    "*fc2_latent_proj*",
    "*q_proj*",
    "*k_proj*",
    "*v_proj*",
    "*o_proj*",
    "*self_attention.linear_qkv*",
    "*self_attention.linear_proj*",
];

/// Short names, those of ModelOpt's `hf_ptq.py` among them.
const SHORT_NAMES: [(&str, &str); 23] = [
    ("int8", "int8_default"),
    ("int8_sq", "int8_smoothquant"),
    ("int8_wo", "int8_weight_only"),
    ("int8_pc_pt", "int8_per_channel_per_token"),
    ("fp8", "fp8_default"),
    ("fp8_pc_pt", "fp8_per_channel_per_token"),
    ("fp8_pb_wo", "fp8_2d_blockwise_weight_only"),
    ("int4", "int4_blockwise_weight_only"),
    ("int4_wo", "int4_blockwise_weight_only"),
    ("w4a8_awq", "w4a8_awq_beta"),
    ("mxfp8", "mxfp8_default"),
    ("mxfp6", "mxfp6_default"),
    ("mxfp4", "mxfp4_default"),
    ("mxint8", "mxint8_default"),
    ("nvfp4", "nvfp4_default"),
    ("nvfp4_wo", "w4a16_nvfp4"),
    ("nvfp4_awq", "nvfp4_awq_lite"),
    ("nvfp4_svdquant", "nvfp4_svdquant_default"),
    ("nvfp4_mse", "nvfp4_w4a4_weight_mse_fp8_sweep"),
    ("nvfp4_local_hessian", "nvfp4_w4a4_weight_local_hessian"),
    ("kv_fp8", "fp8_kv"),
    ("kv_fp8_affine", "fp8_affine_kv"),
    ("kv_nvfp4", "nvfp4_kv"),
];

/// A built-in configuration and its names.
#[derive(Clone, Copy, Debug)]
pub struct Preset {
    /// The name of its function, and in recipes.
    pub name: &'static str,
    /// ModelOpt's name: a constant, or a file of its recipes. `None` of those that only this toolkit has.
    pub modelopt_name: Option<&'static str>,
    /// Makes it.
    pub config: fn() -> QuantConfig,
}

impl Preset {
    /// The built-in configuration of a name: ours, a short one, or ModelOpt's.
    ///
    /// # Errors
    ///
    /// [`QuantError::UnknownPreset`] with the most similar names.
    pub fn named(name: &str) -> Result<&'static Self, QuantError> {
        let all = all();
        let long = SHORT_NAMES.iter().find(|(short, _)| *short == name).map_or(name, |(_, long)| long);
        let found = all.iter().find(|preset| preset.name == long || preset.modelopt_name == Some(name));
        found.ok_or_else(|| {
            let names = if name.contains(char::is_uppercase) {
                near_misses(name, all.iter().filter_map(|preset| preset.modelopt_name))
            } else {
                let short = SHORT_NAMES.iter().map(|(short, _)| *short);
                near_misses(name, all.iter().map(|preset| preset.name).chain(short))
            };
            QuantError::UnknownPreset { name: name.into(), near_misses: names }
        })
    }

    /// Returns its short names.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant::config::Preset;
    ///
    /// assert!(Preset::named("int4_blockwise_weight_only")?.short_names().eq(["int4", "int4_wo"]));
    /// # Ok::<(), burn_quant::QuantError>(())
    /// ```
    pub fn short_names(&self) -> impl Iterator<Item = &'static str> {
        let name = self.name;
        SHORT_NAMES.into_iter().filter(move |(_, long)| *long == name).map(|(short, _)| short)
    }
}

impl QuantConfig {
    /// A built-in configuration by its name: ours, a short one, or ModelOpt's.
    ///
    /// # Errors
    ///
    /// [`QuantError::UnknownPreset`] with the most similar names.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant::{QuantConfig, presets};
    ///
    /// assert_eq!(QuantConfig::preset("int8_default")?, presets::int8_default());
    /// assert_eq!(QuantConfig::preset("int8")?, presets::int8_default());
    /// assert_eq!(QuantConfig::preset("INT8_DEFAULT_CFG")?, presets::int8_default());
    /// # Ok::<(), burn_quant::QuantError>(())
    /// ```
    pub fn preset(name: &str) -> Result<Self, QuantError> {
        Ok((Preset::named(name)?.config)())
    }
}

macro_rules! modelopt {
    () => {
        None
    };
    ($name:literal) => {
        Some($name)
    };
}

macro_rules! presets {
    ($( $(#[$doc:meta])* $name:ident $(= $reference:literal)?: $body:expr; )*) => {
        $(
            $(#[$doc])*
            $(
                #[doc = ""]
                #[doc = concat!("ModelOpt's `", $reference, "`.")]
            )?
            pub fn $name() -> QuantConfig {
                $body
            }
        )*

        /// Returns all built-in configurations: ModelOpt's in the order of its table, then those of this toolkit.
        ///
        /// # Example
        ///
        /// ```
        /// use burn_quant::presets;
        ///
        /// let awq = presets::all().iter().find(|preset| preset.name == "int4_awq").unwrap();
        /// assert_eq!((awq.modelopt_name, (awq.config)()), (Some("INT4_AWQ_CFG"), presets::int4_awq()));
        /// ```
        pub fn all() -> &'static [Preset] {
            const {
                &[$(Preset { name: stringify!($name), modelopt_name: modelopt!($($reference)?), config: $name }),*]
            }
        }
    };
}

presets! {
    /// INT8 weights per output channel, INT8 activations per tensor; static, `max` calibration.
    int8_default = "INT8_DEFAULT_CFG": preset([set(WEIGHTS, int8_per_channel()), set(INPUTS, QuantizerConfig::int(8))]);

    /// INT8 weights per output channel and activations per tensor, with outliers of activations moved into the weights.
    int8_smoothquant = "INT8_SMOOTHQUANT_CFG":
        int8_default().with_algorithm(Algorithm::smoothquant(1.0));

    /// INT8 weights per output channel; activations in float.
    int8_weight_only = "INT8_WEIGHT_ONLY_CFG": preset([set(WEIGHTS, int8_per_channel()), off(INPUTS)]);

    /// E4M3 weights and activations, per tensor; static, `max` calibration.
    fp8_default = "FP8_DEFAULT_CFG":
        preset([set(WEIGHTS, QuantizerConfig::e4m3()), set(INPUTS, QuantizerConfig::e4m3())]);

    /// E4M3 weights per output channel, E4M3 activations per token, dynamic.
    fp8_per_channel_per_token = "FP8_PER_CHANNEL_PER_TOKEN_CFG": preset([
        set(WEIGHTS, QuantizerConfig::e4m3().per_channel()),
        set(INPUTS, QuantizerConfig::e4m3().per_token().dynamic()),
    ]);

    /// E4M3 weights in blocks of 128 by 128; activations in float.
    fp8_2d_blockwise_weight_only = "FP8_2D_BLOCKWISE_WEIGHT_ONLY_CFG": {
        let blocks = Granularity::Block2d { rows: 128, cols: 128 };
        preset([set(WEIGHTS, QuantizerConfig::e4m3().with_granularity(blocks)), off(INPUTS)])
    };

    /// INT4 weights in blocks of 128 along the contracted axis; activations in float.
    int4_blockwise_weight_only = "INT4_BLOCKWISE_WEIGHT_ONLY_CFG": preset([set(WEIGHTS, int4_blocks()), off(INPUTS)]);

    /// INT4 weights in blocks of 128 with channels scaled by search; activations in float.
    int4_awq = "INT4_AWQ_CFG":
        int4_blockwise_weight_only().with_algorithm(Algorithm::awq_lite());

    /// INT4 weights in blocks of 128, then E4M3, with channels scaled by search; E4M3 activations per tensor.
    w4a8_awq_beta = "W4A8_AWQ_BETA_CFG": preset([
        set(WEIGHTS, int4_blocks().then(QuantizerConfig::e4m3())),
        set(INPUTS, QuantizerConfig::e4m3()),
    ])
    .with_algorithm(Algorithm::awq_lite());

    /// MXFP8 (E4M3) weights and activations; nothing to calibrate.
    mxfp8_default = "MXFP8_DEFAULT_CFG": uncalibrated(QuantizerConfig::mx(Format::E4M3));

    /// MXFP6 (E3M2) weights and activations; nothing to calibrate.
    mxfp6_default = "MXFP6_DEFAULT_CFG": uncalibrated(QuantizerConfig::mx(Format::E3M2));

    /// MXFP4 weights and activations; nothing to calibrate.
    mxfp4_default = "MXFP4_DEFAULT_CFG": uncalibrated(QuantizerConfig::mx(Format::E2M1));

    /// MXINT8 weights and activations; nothing to calibrate.
    mxint8_default = "MXINT8_DEFAULT_CFG": uncalibrated(QuantizerConfig::mxint8());

    /// MXFP4 weights, E4M3 activations per tensor, dynamic, as ModelOpt's uncalibrated ones are; nothing to calibrate.
    w4a8_mxfp4_fp8 = "W4A8_MXFP4_FP8_CFG": preset([
        set(WEIGHTS, QuantizerConfig::mx(Format::E2M1)),
        set(INPUTS, QuantizerConfig::e4m3().dynamic()),
    ])
    .with_algorithm(Algorithm::None);

    /// MXFP4 weights of feed-forward layers; everything else in float.
    mxfp4_mlp_weight_only = "MXFP4_MLP_WEIGHT_ONLY_CFG": preset(feed_forward_weights(QuantizerConfig::mx(Format::E2M1)))
        .with_algorithm(Algorithm::None);

    /// NVFP4 weights and activations; `max` calibration of their tensors' ranges.
    nvfp4_default = "NVFP4_DEFAULT_CFG": nvfp4(Algorithm::Max);

    /// NVFP4 with channels scaled by search.
    nvfp4_awq_lite = "NVFP4_AWQ_LITE_CFG": nvfp4(Algorithm::awq_lite());

    /// NVFP4 with ranges of weights clipped by search.
    nvfp4_awq_clip = "NVFP4_AWQ_CLIP_CFG": nvfp4(Algorithm::awq_clip());

    /// NVFP4 with both.
    nvfp4_awq_full = "NVFP4_AWQ_FULL_CFG":
        nvfp4(Algorithm::awq_full());

    /// NVFP4 with a low-rank branch of rank 32 beside each weight.
    nvfp4_svdquant_default = "NVFP4_SVDQUANT_DEFAULT_CFG": nvfp4(Algorithm::svdquant(32));

    /// NVFP4 whose weight blocks choose between 6 and 4 as their largest element.
    nvfp4_four_over_six = "NVFP4_FOUR_OVER_SIX_CFG": {
        let weight = QuantizerConfig::nvfp4().with_scale(ScaleFormat::E4M3(BlockScale::StaticFourOverSix));
        let search = RangeSearch::Multipliers { start: 1.0, stop: 1.5, step: 0.5, include_max: IncludeMax::Always };
        preset([set(WEIGHTS, weight), set(INPUTS, QuantizerConfig::nvfp4())]).with_algorithm(Algorithm::Mse(search))
    };

    /// NVFP4 whose weight scales are those of least squared error.
    nvfp4_w4a4_weight_mse_fp8_sweep = "NVFP4_W4A4_WEIGHT_MSE_FP8_SWEEP_CFG":
        nvfp4_static(Algorithm::Mse(RangeSearch::E4m3Scales));

    /// NVFP4 whose weight scales are those of least output error.
    nvfp4_w4a4_weight_local_hessian = "NVFP4_W4A4_WEIGHT_LOCAL_HESSIAN_CFG":
        nvfp4_static(Algorithm::local_hessian());

    /// NVFP4 weights; activations in float.
    w4a16_nvfp4 = "W4A16_NVFP4_CFG": preset([set(WEIGHTS, QuantizerConfig::nvfp4())]);

    /// NVFP4 weights in blocks of 32, E4M3 activations per tensor.
    w4a8_nvfp4_fp8 = "W4A8_NVFP4_FP8_CFG":
        preset([set(WEIGHTS, QuantizerConfig::nvfp4().per_block(32)), set(INPUTS, QuantizerConfig::e4m3())]);

    /// NVFP4 weights of feed-forward layers in blocks of 32; everything else in float.
    nvfp4_mlp_weight_only = "NVFP4_MLP_WEIGHT_ONLY_CFG":
        preset(feed_forward_weights(QuantizerConfig::nvfp4().per_block(32)));

    /// NVFP4 weights and activations of mixture-of-experts layers; everything else in float.
    nvfp4_experts_only = "NVFP4_EXPERTS_ONLY_CFG": preset(nvfp4_in(["*block_sparse_moe*", "*.experts.*"]));

    /// NVFP4 weights and activations of feed-forward and mixture-of-experts layers; everything else in float.
    nvfp4_mlp_only = "NVFP4_MLP_ONLY_CFG": preset(nvfp4_in([
        "*mlp*",
        "*.mixer.up_proj.",
        "*.mixer.down_proj.",
        "*block_sparse_moe*",
        "*.experts.*",
    ]));

    /// NVFP4 weights and activations of feed-forward layers and of the output projections of attention.
    nvfp4_omlp_only = "NVFP4_OMLP_ONLY_CFG": preset(nvfp4_in([
        "*o_proj*",
        "*mlp*",
        "*.mixer.up_proj.",
        "*.mixer.down_proj.",
        "*block_sparse_moe*",
    ]));

    /// E4M3 for hybrid state-space models, attention and latent projections in float.
    mamba_moe_fp8_aggressive = "MAMBA_MOE_FP8_AGGRESSIVE_CFG": mamba(fp8_default(), &[]);

    /// The same, mixer projections in float too.
    mamba_moe_fp8_conservative = "MAMBA_MOE_FP8_CONSERVATIVE_CFG": mamba(fp8_default(), &MIXERS);

    /// NVFP4 for hybrid state-space models, attention and latent projections in float.
    mamba_moe_nvfp4_aggressive = "MAMBA_MOE_NVFP4_AGGRESSIVE_CFG": mamba(nvfp4_default(), &[]);

    /// The same, mixer projections in float too.
    mamba_moe_nvfp4_conservative = "MAMBA_MOE_NVFP4_CONSERVATIVE_CFG": mamba(nvfp4_default(), &MIXERS);

    /// NVFP4 layers around E4M3 attention.
    nvfp4_fp8_mha = "NVFP4_FP8_MHA_CONFIG": {
        let e4m3 = |name| set(name, QuantizerConfig::e4m3()).optional();
        rules([
            set(WEIGHTS, QuantizerConfig::nvfp4()),
            set(INPUTS, QuantizerConfig::nvfp4()),
            off(OUTPUTS),
            e4m3("*[qkv]_bmm_quantizer"),
            e4m3("*softmax_quantizer"),
            e4m3("*p_bmm_quantizer"),
            e4m3("transformer_blocks*bmm2_output_quantizer"),
        ])
    };

    /// E4M3 keys and values, per tensor; to be [added](QuantConfig::extend) to another configuration.
    fp8_kv = "FP8_KV_CFG": rules([set(KEYS_AND_VALUES, QuantizerConfig::e4m3())]);

    /// E4M3 keys and values around a bias per head and feature; to be [added](QuantConfig::extend).
    fp8_affine_kv = "FP8_AFFINE_KV_CFG":
        rules([set(KEYS_AND_VALUES, QuantizerConfig::e4m3().with_bias(per_head_and_feature()))]);

    /// NVFP4 keys and values; to be [added](QuantConfig::extend) to another configuration.
    nvfp4_kv = "NVFP4_KV_CFG": rules([set(KEYS_AND_VALUES, QuantizerConfig::nvfp4())]);

    /// NVFP4 keys and values around a bias per head and feature; to be [added](QuantConfig::extend).
    ///
    /// ModelOpt calibrates this bias and then ignores it; here it is used.
    nvfp4_affine_kv = "NVFP4_AFFINE_KV_CFG":
        rules([set(KEYS_AND_VALUES, QuantizerConfig::nvfp4().with_bias(per_head_and_feature()))]);

    /// NVFP4 keys and values, keys after a rotation that queries share.
    nvfp4_kv_rotate = "NVFP4_KV_ROTATE_CFG": rules([
        set("*q_bmm_quantizer", QuantizerConfig::default().rotated(Rotation::default()).rotate_only()),
        set("*k_bmm_quantizer", QuantizerConfig::nvfp4().rotated(Rotation::default())),
        set("*v_bmm_quantizer", QuantizerConfig::nvfp4()),
    ]);

    /// E4M3 keys and values on the format's own range, ±448: a cast; to be [added](QuantConfig::extend).
    kv_fp8_cast = "kv/fp8_cast": rules([set(KEYS_AND_VALUES, QuantizerConfig::e4m3().constant(448.0))]);

    /// NVFP4 keys and values under a constant range of 448; to be [added](QuantConfig::extend).
    kv_nvfp4_cast = "kv/nvfp4_cast": rules([set(KEYS_AND_VALUES, QuantizerConfig::nvfp4().constant(448.0))]);

    /// E4M3 for diffusion models, attention weights included.
    diffusion_fp8 = "diffusion/fp8": rules([
        set(WEIGHTS, QuantizerConfig::e4m3()),
        set(INPUTS, QuantizerConfig::e4m3()),
        off(OUTPUTS),
        softmax(),
    ]);

    /// INT8 for diffusion models.
    diffusion_int8 = "diffusion/int8":
        rules([set(WEIGHTS, int8_per_channel()), set(INPUTS, QuantizerConfig::int(8)), off(OUTPUTS)]);

    /// NVFP4 for diffusion models, attention weights in E4M3.
    diffusion_nvfp4 = "diffusion/nvfp4": rules([
        set(WEIGHTS, QuantizerConfig::nvfp4()),
        set(INPUTS, QuantizerConfig::nvfp4()),
        off(OUTPUTS),
        softmax(),
        off("*").within("LayerNorm"),
    ]);

    /// NVFP4 linear layers and E4M3 convolutions for diffusion models; projections to queries, keys and values in
    /// float.
    diffusion_nvfp4_fp8_conv = "diffusion/nvfp4_fp8_conv": rules([
        set(WEIGHTS, QuantizerConfig::nvfp4()).within("Linear").one_of(LAYERS),
        set(INPUTS, QuantizerConfig::nvfp4()).within("Linear").one_of(LAYERS),
        off("*to_[qkv].weight_quantizer"),
        off("*to_[qkv].input_quantizer"),
        set(WEIGHTS, QuantizerConfig::e4m3()).within("Conv2d").one_of(LAYERS),
        set(INPUTS, QuantizerConfig::e4m3()).within("Conv2d").one_of(LAYERS),
        off(OUTPUTS),
        softmax(),
    ]);

    /// NVFP4 layers with a low-rank branch around E4M3 attention, for diffusion models.
    diffusion_nvfp4_fp8_mha = "diffusion/nvfp4_fp8_mha": rules([
        set(WEIGHTS, QuantizerConfig::nvfp4()),
        set(INPUTS, QuantizerConfig::nvfp4()),
        off(OUTPUTS),
        set("*[qkv]_bmm_quantizer", QuantizerConfig::e4m3()).optional(),
        softmax(),
        set("*bmm2_output_quantizer", QuantizerConfig::e4m3()).optional(),
        off("*").within("LayerNorm"),
    ])
    .with_algorithm(Algorithm::svdquant(32));

    /// INT8 weights per output channel, INT8 activations per token, dynamic; nothing to calibrate.
    ///
    /// For transformers: a few of their tokens have values ten and more times those of the others, and one range for
    /// all tokens leaves the others a handful of values. What [`int8_default`] loses so, this keeps: SmolLM2-135M has a
    /// perplexity of 56.4, where `int8_default` has 142 and float 55.2. It is the W8A8 of llm-compressor.
    int8_per_channel_per_token: preset([
        set(WEIGHTS, int8_per_channel()),
        set(INPUTS, QuantizerConfig::int(8).per_token().dynamic()),
    ]);

    /// INT4 weights in blocks of 128: channels scaled by search, then rounded one after the other, those of the
    /// strongest inputs first; activations in float.
    ///
    /// What [`int4_awq`] leaves, GPTQ corrects. The strongest inputs come first, while all others are left to correct
    /// them.
    int4_awq_gptq: int4_blockwise_weight_only().with_algorithm(Algorithm::Sequence(vec![
        Algorithm::awq_lite(),
        Algorithm::Gptq {
            damping: 0.01,
            block_size: 128,
            act_order: ActOrder::On,
            inputs: CalibrationInputs::Float,
        },
    ]));
}

const MIXERS: [&str; 2] = ["*mixer.in_proj*", "*mixer.out_proj*"];

fn set(name: &str, config: QuantizerConfig) -> Rule {
    Rule::set(name, config)
}

/// A disable rule of a preset may match nothing.
fn off(name: &str) -> Rule {
    Rule::disable(name).optional()
}

fn softmax() -> Rule {
    set("*softmax_quantizer", QuantizerConfig::e4m3()).optional()
}

fn int8_per_channel() -> QuantizerConfig {
    QuantizerConfig::int(8).per_channel()
}

fn int4_blocks() -> QuantizerConfig {
    QuantizerConfig::int(4).per_block(128)
}

/// The bias of keys and values `[batch, heads, tokens, features]`.
fn per_head_and_feature() -> BiasConfig {
    use AxisGroups::{Each, Whole};
    BiasConfig::new(Granularity::Axes(vec![Whole, Each, Whole, Each]))
}

/// Feed-forward layers go by one name or the other.
fn feed_forward_weights(config: QuantizerConfig) -> [Rule; 2] {
    ["*mlp*weight_quantizer", "*block_sparse_moe*weight_quantizer"].map(|name| set(name, config.clone()).one_of(LAYERS))
}

/// NVFP4 weights and inputs of the layers whose names start so; each may be missing, not all.
fn nvfp4_in<const N: usize>(layers: [&str; N]) -> impl Iterator<Item = Rule> {
    layers.into_iter().flat_map(|layer| {
        ["weight_quantizer", "input_quantizer"]
            .map(|quantizer| set(&format!("{layer}{quantizer}"), QuantizerConfig::nvfp4()).one_of(LAYERS))
    })
}

fn nvfp4(algorithm: Algorithm) -> QuantConfig {
    preset([set(WEIGHTS, QuantizerConfig::nvfp4()), set(INPUTS, QuantizerConfig::nvfp4())]).with_algorithm(algorithm)
}

fn nvfp4_static(algorithm: Algorithm) -> QuantConfig {
    let rules = [set(WEIGHTS, QuantizerConfig::nvfp4_static()), set(INPUTS, QuantizerConfig::nvfp4())];
    preset(rules).with_algorithm(algorithm)
}

/// Weights and activations in a format that needs no calibration.
fn uncalibrated(config: QuantizerConfig) -> QuantConfig {
    preset([set(WEIGHTS, config.clone()), set(INPUTS, config)]).with_algorithm(Algorithm::None)
}

fn mamba(config: QuantConfig, mixers: &[&str]) -> QuantConfig {
    let left = MAMBA_LEFT_IN_FLOAT.iter().chain(mixers).map(|name| off(name));
    left.fold(config, QuantConfig::with_rule)
}

/// Rules, then those that leave heads and embeddings in float.
fn preset(rules: impl IntoIterator<Item = Rule>) -> QuantConfig {
    let names = LEFT_IN_FLOAT.into_iter().map(off);
    let containers = CONTAINERS_LEFT_IN_FLOAT.into_iter().map(|container| off("*").within(container));
    self::rules(rules.into_iter().chain(names).chain(containers))
}

fn rules(rules: impl IntoIterator<Item = Rule>) -> QuantConfig {
    QuantConfig { rules: rules.into_iter().collect(), algorithm: Algorithm::Max }
}
