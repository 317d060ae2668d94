//! Recipes, what is read from ModelOpt, and errors.

use burn::module::Module;
use burn::nn::{Linear, LinearConfig};
use burn::tensor::Device;
use burn_quant::calibrate::SkipReason;
use burn_quant::config::{
    Action, BlockScale, Format, Granularity, Identity, IncludeMax, RangeSearch, RangeSource, ScaleFormat, SiblingScales,
};
use burn_quant::error::{ImportProblem, InvalidConfig, NoSchemeReason, NotPackedReason, NotScoredReason};
use burn_quant::nn::QuantLinear;
use burn_quant::ops::NotPacked;
use burn_quant::place::Role;
use burn_quant::search::SearchFormat;
use burn_quant::{Algorithm, QuantConfig, QuantError, QuantizerConfig, Rule, presets, quantize, quantize_weights};
use burn_quant_tests::device;

use crate::spread;

/// The sentence of every error that the crate can return, by the name of its variant; numbers are as large as they
/// come.
fn every_error() -> Vec<(&'static str, String)> {
    let huge = 1e300;
    let (tiny, large) = (1e-38f32, 3e38f32);
    let text = || "encoder.layers.0.fc1".to_string();
    let texts = || vec![text(), "head".to_string()];
    macro_rules! errors {
        ($($enum:ident::$variant:ident $fields:tt),+ $(,)?) => {
            vec![$((
                concat!(stringify!($enum), "::", stringify!($variant)),
                errors!(@ $enum $variant $fields).to_string(),
            )),+]
        };
        (@ $enum:ident $variant:ident {}) => { $enum::$variant };
        (@ $enum:ident $variant:ident $fields:tt) => { $enum::$variant $fields };
    }
    errors![
        QuantError::NoMatch { pattern: text(), container: Some("Linear".into()), near_misses: texts() },
        QuantError::NoActivations { pattern: "*input_quantizer".into(), weights: 12 },
        QuantError::NoWeightEnabled { enabled_by: "*weight_quantizer".into(), disabled_by: "*".into() },
        QuantError::NoneMatched { patterns: texts(), near_misses: vec![] },
        QuantError::UnknownAlgorithm { name: text(), known: texts() },
        QuantError::NoAlgorithm { name: "awq".into(), near_misses: texts() },
        QuantError::UnknownFormat { name: "int9x".into(), near_misses: texts() },
        QuantError::UnknownPreset { name: text(), near_misses: texts() },
        QuantError::NoLayer { option: "overrides", pattern: text(), near_misses: texts() },
        QuantError::AlgorithmOption { algorithm: text(), option: "alpha", expected: "0 to 1", found: huge },
        QuantError::CustomOptions { name: text(), reason: text() },
        QuantError::AlgorithmInSequence { name: text() },
        QuantError::NeedsData { algorithm: text() },
        QuantError::MissingStatistics { name: text(), missing: "Gram matrix" },
        QuantError::AlreadyQuantized { by: "TensorQuantizer" },
        QuantError::ChannelsDiffer { left: usize::MAX, right: 1 },
        QuantError::HistogramsDiffer { name: text(), left: tiny, right: large },
        QuantError::UnknownQuantizer { name: text(), near_misses: texts() },
        QuantError::BadPattern { pattern: text(), reason: text() },
        QuantError::Config { name: text(), problem: InvalidConfig::EmptyBlock },
        QuantError::ForeignReparameterization { path: text(), found: text() },
        QuantError::NeedsForwardLoop { names: texts() },
        QuantError::NeverObserved { name: text() },
        QuantError::NothingObserved { name: text() },
        QuantError::NonFiniteWeight { name: text() },
        QuantError::StepsConflict { at: text(), first: text(), second: text(), why: "both change the weight" },
        QuantError::StepOrder { layer: text(), first: "gptq` rounds it".into(), then: "smoothquant` moves it".into() },
        QuantError::NotBurn { quantizer: text(), what: "rounds its inputs" },
        QuantError::Range { found: "-1".into(), expected: "finite and not negative" },
        QuantError::BurnQuantized { path: text() },
        QuantError::AlgorithmRange {
            algorithm: "mine".into(),
            quantizer: text(),
            found: "3 ranges".into(),
            expected: "1, one per group, finite and not negative".into(),
        },
        QuantError::NotPacked { path: text(), reason: NotPackedReason::Uncalibrated },
        QuantError::Packed { path: text() },
        QuantError::NotCached { layer: text(), tokens: "values", reason: NotPackedReason::ChangingRange },
        QuantError::NotCached { layer: String::new(), tokens: "keys", reason: NotPackedReason::Disabled },
        QuantError::NoBurnScheme { path: text(), reason: NoSchemeReason::Uncalibrated },
        NoSchemeReason::Uncalibrated {},
        NoSchemeReason::Packed {},
        NoSchemeReason::Format { format: "int3 with scales in e8m0".into() },
        NoSchemeReason::MoreThanRounding { what: "rotates" },
        NoSchemeReason::Blocks { shape: vec![512, 8], block: vec![512, 1] },
        NoSchemeReason::PackedBlocks { together: 4, block: vec![64, 1] },
        NoSchemeReason::Device { problem: "no such kernel".into() },
        NoSchemeReason::Values { expected: large, found: -large },
        NotPackedReason::ChangingRange {},
        NotPackedReason::NotOfTokens {},
        NotPackedReason::NoWeight {},
        NotPackedReason::Disabled {},
        NotPackedReason::Uncalibrated {},
        NotPackedReason::Layout { shape: vec![3, 4, 5] },
        NotPackedReason::MoreThanRounding { what: "rotates" },
        NotPackedReason::Bias { found: large },
        NotPackedReason::ChannelGroups { expected: 2, found: 1 },
        NotPackedReason::Codes { source: NotPacked::Range { found: large } },
        QuantError::NonFinite { name: text(), batch: Some(u64::MAX) },
        QuantError::NegativeUnsigned { name: text(), lowest: -large },
        QuantError::GroupsChanged { name: text(), expected: 1, found: 2 },
        QuantError::ModelOpt { at: "$.quant_cfg".into(), problem: ImportProblem::NothingSaid },
        QuantError::Search { problem: text() },
        QuantError::Infeasible { effective_bits: huge, least: 4.5 },
        QuantError::NotScored { layer: text(), reason: NotScoredReason::NoGradient },
        QuantError::ScoreNotFinite { layer: text(), format: text(), score: f64::NAN },
        QuantError::LossNotFinite { batch: 3, loss: f64::INFINITY },
        QuantError::NoBatches { step: "scoring" },
        QuantError::SearchState { problem: text() },
        QuantError::Checkpoint { reason: text() },
        QuantError::Recipe { language: "TOML", reason: text() },
        NotScoredReason::NoActivationQuantizer { container: "Embedding".into() },
        NotScoredReason::NotReached {},
        NotScoredReason::NoGradient {},
        InvalidConfig::EmptyBlock {},
        InvalidConfig::TokensOfWeight {},
        InvalidConfig::StaticActivationGroups { granularity: "per-token" },
        InvalidConfig::Rank { expected: 1, found: 2 },
        InvalidConfig::Layout { axis: 3, rank: 2 },
        InvalidConfig::RoleOfLayer { layer: "Conv2d".into(), found: Role::ChannelsLast, expected: Role::ChannelsFirst },
        InvalidConfig::BlocksOfActivation {},
        InvalidConfig::ScaleWithoutBlocks { scale: ScaleFormat::E8M0 },
        InvalidConfig::FormatOfScale { format: Format::Nf4, scale: ScaleFormat::E8M0 },
        InvalidConfig::StaticPowersOfTwo {},
        InvalidConfig::ConstantPowersOfTwo {},
        InvalidConfig::StaticBlocksOfDynamicRange {},
        InvalidConfig::StaticBlocksOfConstantRange {},
        InvalidConfig::ConstantRange { found: -large },
        InvalidConfig::BlocksOfBias {},
        InvalidConfig::BiasOfEachElement {},
        InvalidConfig::BiasOfUnsigned {},
        InvalidConfig::RotationBlock { found: 3 },
        InvalidConfig::RotationAxis { len: 10, block: 4 },
        InvalidConfig::NoRangeToLearn {},
        InvalidConfig::LearnedRangesWithoutLsq {},
        InvalidConfig::LearnedRangesOfScale { format: Format::Nf4, scale: ScaleFormat::E8M0 },
        InvalidConfig::UnroundedPreScale {},
        InvalidConfig::NothingToDo {},
        InvalidConfig::NestedChain {},
        ImportProblem::NotJson { reason: text() },
        ImportProblem::NotYaml { reason: text() },
        ImportProblem::Import { name: text(), reason: text() },
        ImportProblem::UnknownKey { key: text() },
        ImportProblem::Value { expected: "a number", found: "1e300".into() },
        ImportProblem::Missing { key: "method" },
        ImportProblem::NothingSaid {},
        ImportProblem::EmptyConfig {},
        ImportProblem::OnlyEnable {},
        ImportProblem::Exclusive { a: "axis", b: "block_sizes" },
        ImportProblem::Axes { axes: "[0, 1]".into(), target: "weights" },
        ImportProblem::DynamicBlocksWithoutScale {},
        ImportProblem::NeedsDynamicBlocks { bits: "[5, 2]".into() },
        ImportProblem::Class { class: "nn.Bilinear".into() },
        ImportProblem::Unsupported { key: "backend", value: text(), instead: "write a module of your own" },
        ImportProblem::Invalid(InvalidConfig::EmptyBlock),
        SkipReason::NoActivationQuantizer {},
        SkipReason::NoData {},
        SkipReason::Overflow {},
        SkipReason::NoTokens {},
        SkipReason::NotLinear {},
        SkipReason::InputChain {},
        SkipReason::WeightChain {},
        SkipReason::Rotated {},
        SkipReason::InputGranularity {},
        SkipReason::InputNotQuantized {},
        SkipReason::NotInt8 {},
        SkipReason::NotInteger {},
        SkipReason::DynamicRange {},
        SkipReason::NoBlocks {},
        SkipReason::NotE4m3Scales {},
        SkipReason::NotNvfp4 {},
        SkipReason::NotPerTensor {},
        SkipReason::WeightBias {},
        SkipReason::NoBias {},
        SkipReason::NoBranch {},
        SkipReason::Singular {},
        SkipReason::Configured {},
        SkipReason::NotMine {},
        SkipReason::OtherBlocks {},
        SkipReason::NoGain {},
        SkipReason::Custom { reason: text() },
    ]
}

/// The variants of public error enums in a file, as `Enum::Variant`.
fn variants(source: &str, enums: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for name in enums {
        let start = source.find(&format!("pub enum {name} {{")).unwrap_or_else(|| panic!("no enum {name}"));
        let body = source[start..].split("\n}").next().unwrap_or_default();
        let lines = body.lines().skip(1).filter(|line| line.starts_with("    ") && !line.starts_with("     "));
        let names = lines.map(|line| line.trim().split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default());
        found.extend(names.filter(|name| !name.is_empty()).map(|variant| format!("{name}::{variant}")));
    }
    found
}

pub(super) fn f30() {
    let errors = every_error();
    let source = |file: &str| {
        let path = format!("{}/../crates/burn-quant-{file}", env!("CARGO_MANIFEST_DIR"));
        std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
    };
    let mut all = Vec::new();
    for (file, error) in [
        ("core/src/error/mod.rs", "QuantError"),
        ("core/src/error/no_scheme.rs", "NoSchemeReason"),
        ("core/src/error/not_packed.rs", "NotPackedReason"),
        ("core/src/error/not_scored.rs", "NotScoredReason"),
        ("core/src/error/invalid_config.rs", "InvalidConfig"),
        ("core/src/error/import.rs", "ImportProblem"),
        ("calibrate/src/solve/algorithm.rs", "SkipReason"),
    ] {
        let of_file = variants(&source(file), &[error]);
        assert!(of_file.len() > 2, "{file}: {of_file:?}");
        all.extend(of_file);
    }
    assert!(all.len() > 80, "{all:?}");
    for variant in all {
        assert!(errors.iter().any(|(name, _)| *name == variant), "{variant} is printed here too");
    }
    for (name, error) in &errors {
        assert!(!error.contains("  ") && !error.contains('\n'), "{name}: one line, single spaces: {error}");
        assert!(!error.starts_with(char::is_uppercase) || error.starts_with("E8M0") || error.starts_with("ModelOpt"));
        let longest = error.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or_default();
        assert!(longest <= 20, "{name}: a number of {longest} digits: {error}");
    }
    // an embedding of `burn_quant::nn` has no quantizer for its indices either: it is not told to become one
    let slot = |container: &str| NotScoredReason::NoActivationQuantizer { container: container.into() }.to_string();
    assert!(slot("Linear").contains("use the layer of `burn_quant::nn` in its place"));
    assert_eq!(slot("Embedding"), "an `Embedding` has no quantizer for its input; score by divergence, or disable it");
    let said = errors.iter().filter(|(name, _)| name.starts_with("SkipReason") || name.starts_with("NotScored"));
    for (name, error) in said {
        assert!(!error.contains("make it a layer of"), "{name}: {error}");
    }
}

pub(super) fn f46() {
    let error = QuantConfig::preset("int8_defualt").unwrap_err();
    assert_eq!(format!("{error:?}"), error.to_string());
    assert!(error.to_string().contains("near misses: `int8_"), "{error}");
    // what `fn main() -> Result<(), Box<dyn Error>>` prints
    let boxed: Box<dyn std::error::Error> = error.into();
    assert_eq!(format!("Error: {boxed:?}"), format!("Error: {boxed}"));
    let problem = InvalidConfig::RotationBlock { found: 3 };
    assert_eq!(format!("{problem:?}"), problem.to_string());
    let problem = ImportProblem::Missing { key: "method" };
    assert_eq!(format!("{problem:?}"), problem.to_string());
    assert_eq!(format!("{:?}", SkipReason::NoGain), SkipReason::NoGain.to_string());
    assert_eq!(format!("{:?}", NotScoredReason::NotReached), NotScoredReason::NotReached.to_string());
}

#[derive(Module, Debug)]
struct Plain {
    fc: Linear,
    head: Linear,
}

fn plain(device: &Device) -> Plain {
    let linear = || LinearConfig::new(16, 16).init(device);
    Plain { fc: linear(), head: linear() }
}

pub(super) fn f47() {
    let (_, device) = device();
    let x = spread([2, 16], &device);
    let forward = |model: &Plain| drop(model.head.forward(model.fc.forward(x.clone())));
    // what every newcomer tries first
    let error = quantize(plain(&device), &presets::int8_default(), forward).unwrap_err();
    assert_eq!(error, QuantError::NoActivations { pattern: "*input_quantizer".into(), weights: 2 });
    let said = error.to_string();
    assert!(said.contains("replace `use burn::nn` by `use burn_quant::nn`") && !said.contains("optional"), "{said}");
    // a pattern for weights is a typo, and so is one for activations where there are some
    let typo = QuantConfig::new().with_rule(Rule::set("fc.weight_quantizr", QuantizerConfig::int(8)));
    assert!(matches!(quantize_weights(plain(&device), &typo), Err(QuantError::NoMatch { .. })));
    let layer: QuantLinear = LinearConfig::new(16, 16).init(&device).into();
    let typo = QuantConfig::new().with_rule(Rule::set("fc.input_quantizer", QuantizerConfig::int(8)));
    assert!(matches!(quantize_weights(layer, &typo), Err(QuantError::NoMatch { .. })));
    // a loop that runs nothing, or another model
    let layer: QuantLinear = LinearConfig::new(16, 16).init(&device).into();
    let unused = quantize(layer, &presets::int8_default(), |_| {}).unwrap_err();
    assert_eq!(unused, QuantError::NothingObserved { name: "input_quantizer".into() });
    let said = unused.to_string();
    assert!(
        said.contains("the forward loop ran no batch") && said.contains("run the model that the closure is given"),
        "{said}"
    );
}

fn modelopt(json: &str) -> Result<QuantConfig, ImportProblem> {
    match QuantConfig::from_modelopt_json(json) {
        Ok(config) => Ok(config),
        Err(QuantError::ModelOpt { problem, .. }) => Err(problem),
        Err(other) => panic!("an error of reading: {other}"),
    }
}

fn algorithm(json: &str) -> Result<Algorithm, ImportProblem> {
    let weights = r#"[{"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 4, "block_sizes": {"-1": 16}}}]"#;
    modelopt(&format!(r#"{{"quant_cfg": {weights}, "algorithm": {json}}}"#)).map(|config| config.algorithm)
}

pub(super) fn f36_algorithms() {
    // as ModelOpt 0.47 writes its configurations out: every option, those of the machinery with their defaults
    let common = r#""moe_calib_experts_ratio": null, "layerwise": {"enable": false,
        "get_qdq_activations_from_prev_layer": false, "checkpoint_dir": null, "save_every": 1,
        "calib_mutates_weights": true}"#;
    let multipliers = |include_max| RangeSearch::Multipliers { start: 0.25, stop: 4.0, step: 0.1, include_max };
    for (options, expected) in [
        (
            r#""method": "max", "distributed_sync": true, "sync_expert_weight_amax": false, "shared_states": null,
               "skip_forward_without_activation_calib": false"#,
            Algorithm::Max,
        ),
        (
            r#""method": "mse", "step_size": 0.1, "start_multiplier": 0.25, "stop_multiplier": 4.0,
               "fp8_scale_sweep": false, "distributed_sync": false, "shared_states": null"#,
            Algorithm::Mse(multipliers(IncludeMax::Always)),
        ),
        (r#""method": "awq_lite", "alpha_step": 0.1, "debug": true"#, Algorithm::awq_lite()),
        (
            r#""method": "awq_clip", "max_co_batch_size": 1024, "max_tokens_per_batch": 64, "min_clip_ratio": 0.5,
               "shrink_step": 0.05, "debug": false"#,
            Algorithm::awq_clip(),
        ),
        (
            r#""method": "nvfp4_act_headroom", "anchor_percentile": 1.0, "upper_percentile": 99.99, "rho": 16384.0,
               "weight_scale_algorithm": {"method": "max"}"#,
            Algorithm::activation_headroom(),
        ),
    ] {
        assert_eq!(algorithm(&format!("{{{options}, {common}}}")), Ok(expected), "{options}");
    }
    let gptq = algorithm(r#"{"method": "gptq", "perc_damp": 0.01, "block_size": 128, "fused": true}"#).unwrap();
    assert!(matches!(gptq, Algorithm::Gptq { damping: 0.01, block_size: 128, .. }), "a kernel, not a result");
    assert!(algorithm(r#"{"method": "svdquant", "lowrank": 8, "debug": false}"#).is_ok());

    // what would change the result is refused, by the key
    let refused = |json: &str| match algorithm(json) {
        Err(ImportProblem::Unsupported { key, .. }) => key,
        other => panic!("{json}: {other:?}"),
    };
    assert_eq!(refused(r#"{"method": "gptq", "layerwise": {"enable": true}}"#), "layerwise");
    assert_eq!(refused(r#"{"method": "max", "moe_calib_experts_ratio": 0.5}"#), "moe_calib_experts_ratio");
    assert_eq!(refused(r#"{"method": "max", "sync_expert_weight_amax": true}"#), "sync_expert_weight_amax");
    assert_eq!(
        refused(r#"{"method": "mse", "shared_states": {"weight_global_amax": {"patterns": []}}}"#),
        "shared_states"
    );
    let weights = r#"{"method": "nvfp4_act_headroom", "weight_scale_algorithm": {"method": "mse"}}"#;
    assert_eq!(refused(weights), "weight_scale_algorithm");
    let unknown = algorithm(r#"{"method": "max", "alpha": 1}"#);
    assert_eq!(unknown, Err(ImportProblem::UnknownKey { key: "alpha".into() }));

    // and the layers that ModelOpt 0.47 leaves in float are those of the presets
    assert!(presets::int8_default().rules.contains(&Rule::disable("*self_attention.conv1d*").optional()));
}

pub(super) fn f36_axes() {
    let granularity = |name: &str, cfg: &str| {
        let entry = format!(r#"{{"quant_cfg": [{{"quantizer_name": "{name}", "cfg": {{"num_bits": 8, {cfg}}}}}]}}"#);
        modelopt(&entry).map(|config| match &config.rules[0].action {
            Action::Set(config) => config.granularity.clone(),
            other => panic!("{other:?}"),
        })
    };
    let (weights, inputs) = ("*weight_quantizer", "*input_quantizer");
    // PyTorch's weights are [out, in]: what is kept is the output channel
    for axis in [
        r#""axis": 0"#,
        r#""axis": [0]"#,
        r#""axis": -2"#,
        r#""block_sizes": {"-1": null}"#,
        r#""block_sizes": {"1": null}"#,
    ] {
        assert_eq!(granularity(weights, axis), Ok(Granularity::PerChannel), "{axis}");
    }
    for blocks in [r#""block_sizes": {"-1": 32}"#, r#""block_sizes": {"1": 32}"#] {
        assert_eq!(granularity(weights, blocks), Ok(Granularity::Block { size: 32 }), "{blocks}");
    }
    for blocks in [r#""block_sizes": {"-1": 32, "-2": 16}"#, r#""block_sizes": {"1": 32, "0": 16}"#] {
        assert_eq!(granularity(weights, blocks), Ok(Granularity::Block2d { rows: 16, cols: 32 }), "{blocks}");
    }
    assert_eq!(granularity(inputs, r#""axis": [-1]"#), Ok(Granularity::PerChannel));
    assert_eq!(granularity(inputs, r#""axis": []"#), Ok(Granularity::PerTensor));
    // a scale for each input channel of a weight is none of these
    for axis in [r#""axis": -1"#, r#""axis": 1"#, r#""block_sizes": {"-2": null}"#] {
        assert!(matches!(granularity(weights, axis), Err(ImportProblem::Axes { .. })), "{axis}");
    }
    assert!(
        matches!(granularity("*", r#""axis": 0"#), Err(ImportProblem::Axes { .. })),
        "of weights, or of activations?"
    );
}

pub(super) fn f36_none_enabled() {
    let (_, device) = device();
    let error = |config: &QuantConfig| quantize_weights(plain(&device), config).map(drop).unwrap_err();
    let none = |enabled: &str, disabled: &str| QuantError::NoWeightEnabled {
        enabled_by: enabled.into(),
        disabled_by: disabled.into(),
    };
    // the entry that switches everything off comes last
    let reversed = QuantConfig::from_modelopt_json(
        r#"{"quant_cfg": [{"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 8, "axis": 0}},
                          {"quantizer_name": "*", "enable": false}]}"#,
    );
    assert_eq!(error(&reversed.unwrap()), none("*weight_quantizer", "*"));
    let config = presets::int8_weight_only().with_rule(Rule::disable("fc.*")).with_rule(Rule::disable("head.*"));
    assert_eq!(error(&config), none("*weight_quantizer", "head.*"));
    // one that is left is enough, and rules that ask for no weight may leave none
    let config = presets::int8_weight_only().with_rule(Rule::disable("fc.*"));
    assert!(quantize_weights(plain(&device), &config).is_ok());
    assert!(quantize_weights(plain(&device), &QuantConfig::new().with_rule(Rule::disable("*"))).is_ok());
}

fn toml(recipe: &str) -> QuantConfig {
    QuantConfig::from_toml(recipe).unwrap_or_else(|e| panic!("{e}"))
}

pub(super) fn f54_preset() {
    let config = toml(
        r#"
        preset = "int8_default"
        algorithm = "smoothquant"

        [[rules]]
        quantizer = "encoder.0.*weight_quantizer"
        action = { set = { format = "int4" } }
        "#,
    );
    let expected = presets::int8_default()
        .with_rule(Rule::set("encoder.0.*weight_quantizer", QuantizerConfig::int(4)))
        .with_algorithm(Algorithm::smoothquant(1.0));
    assert_eq!(config, expected);
    // alone it is the preset, with the preset's own algorithm; ModelOpt's names will do
    assert_eq!(toml(r#"preset = "int4_awq""#), presets::int4_awq());
    assert_eq!(QuantConfig::from_json(r#"{"preset": "INT4_AWQ_CFG"}"#), Ok(presets::int4_awq()));
    let nothing = QuantConfig::from_json(r#"{"algorithm": "max"}"#).unwrap_err().to_string();
    assert!(nothing.contains("neither `rules` nor a `preset`"), "{nothing}");
}

pub(super) fn f54_formats() {
    let set = |format: &str| {
        let rule = format!(r#"{{"rules": [{{"quantizer": "*", "action": {{"set": {{"format": "{format}"}}}}}}]}}"#);
        match &QuantConfig::from_json(&rule).unwrap_or_else(|e| panic!("{e}")).rules[0].action {
            Action::Set(config) => (**config).clone(),
            other => panic!("{other:?}"),
        }
    };
    let four_over_six = QuantizerConfig::nvfp4().with_scale(ScaleFormat::E4M3(BlockScale::StaticFourOverSix));
    for (name, config) in [
        ("int8", QuantizerConfig::int(8)),
        ("int4", QuantizerConfig::int(4)),
        ("uint4", QuantizerConfig::uint(4)),
        ("e4m3", QuantizerConfig::e4m3()),
        ("fp8", QuantizerConfig::e4m3()),
        ("nf4", QuantizerConfig::new(Format::Nf4)),
        ("nvfp4", QuantizerConfig::nvfp4()),
        ("nvfp4 static", QuantizerConfig::nvfp4_static()),
        ("nvfp4 4/6", four_over_six),
        ("mxfp4", QuantizerConfig::mx(Format::E2M1)),
        ("mx e2m1", QuantizerConfig::mx(Format::E2M1)),
        ("mxint8", QuantizerConfig::mxint8()),
    ] {
        assert_eq!(set(name), config, "{name}");
    }
    // what the summary prints of any quantizer of a preset can be read
    for preset in presets::all() {
        for rule in (preset.config)().rules {
            let Action::Set(config) = rule.action else { continue };
            let plain = QuantizerConfig { bias: None, rotation: None, ..QuantizerConfig::new(config.format) };
            let plain = plain.with_scale(config.scale);
            let named = QuantizerConfig::named(&plain.kind()).unwrap();
            assert_eq!((named.format, named.scale), (config.format, config.scale), "{}", preset.name);
        }
    }
    // and only what differs from it is written
    let written = QuantConfig::new().with_rule(Rule::set("*", QuantizerConfig::nvfp4()));
    let json = serde_json::to_string(&written).unwrap();
    assert_eq!(json, r#"{"rules":[{"quantizer":"*","action":{"set":{"format":"nvfp4"}}}]}"#);
    let written =
        QuantConfig::new().with_rule(Rule::set("*", QuantizerConfig::int(4).per_block(64).dynamic().clipped()));
    let set = r#"{"format":"int4","granularity":{"block":{"size":64}},"range":"dynamic","gradient":"clipped"}"#;
    let json = serde_json::to_string(&written).unwrap();
    assert_eq!(json, format!(r#"{{"rules":[{{"quantizer":"*","action":{{"set":{set}}}}}]}}"#));
    assert_eq!(QuantConfig::from_json(&json), Ok(written));
}

pub(super) fn f54_algorithms() {
    let read = |algorithm: &str| toml(&format!("rules = []\nalgorithm = {algorithm}")).algorithm;
    for (name, algorithm) in [
        ("max", Algorithm::Max),
        ("none", Algorithm::None),
        ("awq_lite", Algorithm::awq_lite()),
        ("awq_full", Algorithm::awq_full()),
        ("smoothquant", Algorithm::smoothquant(1.0)),
        ("svdquant", Algorithm::svdquant(32)),
        ("gptq", Algorithm::gptq()),
        ("mse", Algorithm::Mse(RangeSearch::default())),
        ("entropy", Algorithm::entropy()),
        ("percentile", Algorithm::percentile(99.99)),
    ] {
        assert_eq!(read(&format!("{name:?}")), algorithm, "{name}");
        let json = serde_json::to_string(&algorithm).unwrap();
        assert_eq!(json, format!("{name:?}"), "defaults are left out");
    }
    // what is said is taken, the rest stays as it is
    assert_eq!(read("{ smoothquant = { alpha = 0.5 } }"), Algorithm::smoothquant(0.5));
    assert_eq!(
        read("{ gptq = { damping = 0.05 } }"),
        match Algorithm::gptq() {
            Algorithm::Gptq { block_size, act_order, inputs, .. } =>
                Algorithm::Gptq { damping: 0.05, block_size, act_order, inputs },
            other => other,
        }
    );
    assert_eq!(read(r#"["awq_lite", "gptq"]"#), Algorithm::Sequence(vec![Algorithm::awq_lite(), Algorithm::gptq()]));
    let joint = Algorithm::AwqLite { alpha_step: 0.1, sharing: SiblingScales::Shared, identity: Identity::Tried };
    assert_eq!(read(r#"{ awq_lite = { sharing = "joint" } }"#), joint);
    for algorithm in [joint, Algorithm::Sequence(vec![Algorithm::smoothquant(0.5), Algorithm::gptq()])] {
        let config = QuantConfig::new().with_algorithm(algorithm);
        assert_eq!(QuantConfig::from_json(&config.to_json()).as_ref(), Ok(&config));
        assert_eq!(QuantConfig::from_toml(&config.to_toml()).as_ref(), Ok(&config));
    }
}

pub(super) fn f54_old() {
    // as the release before wrote NVFP4, MXFP4 and AWQ-lite
    let recipe = r#"{"rules": [
        {"quantizer": "a", "action": {"set": {"format": "e2m1", "granularity": {"block": {"size": 16}},
            "scale": {"e4m3": "dynamic"}, "range": "static", "gradient": "pass_through"}}},
        {"quantizer": "b", "action": {"set": {"format": "e2m1", "granularity": {"block": {"size": 32}},
            "scale": "e8m0", "range": "dynamic", "gradient": "pass_through"}}},
        {"quantizer": "c", "action": {"set": {"format": {"int": {"bits": 4, "signedness": "unsigned", "span": "full"}},
            "granularity": "per_channel", "range": {"constant": 2.0}, "gradient": "lsq"}}}
    ], "algorithm": {"awq_lite": {"alpha_step": 0.2, "sharing": "joint"}}}"#;
    let third = QuantizerConfig { range: RangeSource::Constant(2.0), ..QuantizerConfig::uint(4).per_channel().lsq() };
    let expected = QuantConfig::new()
        .with_rule(Rule::set("a", QuantizerConfig::nvfp4()))
        .with_rule(Rule::set("b", QuantizerConfig::mx(Format::E2M1)))
        .with_rule(Rule::set("c", third))
        .with_algorithm(Algorithm::AwqLite {
            alpha_step: 0.2,
            sharing: SiblingScales::Shared,
            identity: Identity::Tried,
        });
    assert_eq!(QuantConfig::from_json(recipe), Ok(expected));
}

pub(super) fn f54_near_misses() {
    let Err(QuantError::UnknownPreset { near_misses, .. }) = SearchFormat::preset("int8_defualt") else {
        panic!("a typo")
    };
    assert_eq!((near_misses.len(), near_misses[0].as_str()), (3, "int8_default"));
    let refused = |recipe: &str| QuantConfig::from_toml(recipe).unwrap_err().to_string();
    let said = refused(r#"preset = "int8_defualt""#);
    assert!(said.contains("near misses: `int8_default`") && said.len() < 300, "{said}");
    let said = refused("[[rules]]\nquantizer = \"*\"\naction = { set = { format = \"nvpf4\" } }");
    assert!(said.contains("there is no format `nvpf4` (near misses: `nvfp4`"), "{said}");
    let said = refused("rules = []\nalgorithm = \"awq_light\"");
    assert!(said.contains("there is no algorithm `awq_light` (near misses: `awq_lite`"), "{said}");
}

pub(super) fn f54_yaml() {
    // the shape of a recipe of ModelOpt: numerics and units are files that are imported
    let recipe = "
imports:
  base_disable_all: configs/ptq/units/base_disable_all
  fp8: configs/numerics/fp8
  inputs: configs/ptq/units/inputs

metadata:
  recipe_type: ptq
  description: FP8 weights per channel, INT8 inputs
quantize:
  algorithm:
    method: awq_lite
  quant_cfg:
    - $import: base_disable_all
    - quantizer_name: '*weight_quantizer'
      cfg:
        $import: fp8
        axis: 0
    - $import: inputs
";
    // a list comes as a second document, after the imports
    let inputs = "imports:
  int8: configs/numerics/int8
---
- quantizer_name: '*input_quantizer'
  cfg:
    $import: int8
- quantizer_name: '*kv*input_quantizer'
  enable: false
";
    let int8 = "num_bits: 8\nblock_sizes:\n  -1: 32\n  type: dynamic\n  scale_bits: e8m0\n";
    let files = |name: &str| match name {
        "configs/ptq/units/base_disable_all" => Ok("quantizer_name: '*'\nenable: false\n".to_string()),
        "configs/numerics/fp8" => Ok("num_bits: e4m3\naxis:\n".to_string()),
        "configs/ptq/units/inputs" => Ok(inputs.to_string()),
        "configs/numerics/int8" => Ok(int8.to_string()),
        other => Err(format!("no file {other}")),
    };
    let config = QuantConfig::from_modelopt_yaml(recipe, files).unwrap_or_else(|e| panic!("{e}"));
    let json = r#"{"quant_cfg": [
        {"quantizer_name": "*", "enable": false},
        {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": [4, 3], "axis": 0}},
        {"quantizer_name": "*input_quantizer", "cfg": {"num_bits": 8, "block_sizes": {"-1": 32, "type": "dynamic",
            "scale_bits": [8, 0]}}},
        {"quantizer_name": "*kv*input_quantizer", "enable": false}
    ], "algorithm": {"method": "awq_lite"}}"#;
    assert_eq!(Ok(config), QuantConfig::from_modelopt_json(json));

    let refused = |recipe: &str| match QuantConfig::from_modelopt_yaml(recipe, files) {
        Err(QuantError::ModelOpt { at, problem }) => (at, problem),
        other => panic!("{other:?}"),
    };
    let missing = "imports: {a: configs/none}\nquant_cfg:\n  - $import: a\n";
    let reason = "no file configs/none".to_string();
    assert_eq!(refused(missing).1, ImportProblem::Import { name: "a".into(), reason });
    let unknown = refused("quant_cfg:\n  - $import: b\n");
    assert!(matches!(unknown.1, ImportProblem::Import { name, .. } if name == "b"));
    assert!(matches!(refused("quant_cfg: [").1, ImportProblem::NotYaml { .. }));
    let itself = |_: &str| Ok("imports: {a: a}\n---\n- $import: a\n".to_string());
    let found = QuantConfig::from_modelopt_yaml("imports: {a: a}\nquant_cfg:\n  - $import: a\n", itself);
    assert!(matches!(found, Err(QuantError::ModelOpt { problem: ImportProblem::Import { .. }, .. })), "a circle");
}
