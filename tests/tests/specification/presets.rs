//! Built-in configurations against the reference's table, and its configurations read from JSON.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::nn::LinearConfig;
use burn::tensor::{Device, Tensor};
use burn_quant::config::{
    Action, AxisGroups, BiasConfig, BlockScale, Format, Granularity, Identity, IncludeMax, Preset, RangeSearch,
    RangeSource, Rotation, ScaleFormat, SiblingScales,
};
use burn_quant::error::{ImportProblem, InvalidConfig};
use burn_quant::nn::QuantLinear;
use burn_quant::{
    Algorithm, QuantConfig, QuantError, QuantizerConfig, Quantizers, Rule, presets, quantize, quantize_weights,
};
use burn_quant_tests::compare::relative_error;
use burn_quant_tests::{device, processor};

use crate::{spread, values};

const TABLE: &str = include_str!("../../data/presets.txt");

/// What an entry says: pattern, container, and attributes or nothing for off.
type Entry = (String, Option<String>, Option<QuantizerConfig>);

struct Row {
    reference: String,
    entries: Vec<Entry>,
    algorithm: String,
}

fn attributes(shorthand: &str) -> Option<QuantizerConfig> {
    use AxisGroups::{Each, Whole};
    if let Some((first, second)) = shorthand.split_once('+') {
        return Some(attributes(first)?.then(attributes(second)?));
    }
    if let Some(config) = shorthand.strip_suffix("~bias") {
        let heads_and_features = Granularity::Axes(vec![Whole, Each, Whole, Each]);
        return Some(attributes(config)?.with_bias(BiasConfig::new(heads_and_features)));
    }
    if let Some(config) = shorthand.strip_suffix("@rotate") {
        return Some(attributes(config)?.rotated(Rotation::default()));
    }
    if let Some(config) = shorthand.strip_suffix("=448") {
        return Some(QuantizerConfig { range: RangeSource::Constant(448.0), ..attributes(config)? });
    }
    let mx = |format| QuantizerConfig {
        scale: ScaleFormat::E8M0,
        granularity: Granularity::Block { size: 32 },
        range: RangeSource::Dynamic,
        ..QuantizerConfig::new(format)
    };
    let nv = |blocks, size| QuantizerConfig {
        scale: ScaleFormat::E4M3(blocks),
        granularity: Granularity::Block { size },
        ..QuantizerConfig::new(Format::E2M1)
    };
    let e4m3 = QuantizerConfig::new(Format::E4M3);
    Some(match shorthand {
        "off" => return None,
        "rotate" => QuantizerConfig::int(8).rotated(Rotation::default()).rotate_only(),
        "I8" => QuantizerConfig::int(8),
        "I8c" => QuantizerConfig { granularity: Granularity::PerChannel, ..QuantizerConfig::int(8) },
        "I4b" => QuantizerConfig { granularity: Granularity::Block { size: 128 }, ..QuantizerConfig::int(4) },
        "F8" => e4m3,
        "F8c" => QuantizerConfig { granularity: Granularity::PerChannel, ..e4m3 },
        "F8d" => QuantizerConfig { range: RangeSource::Dynamic, ..e4m3 },
        "F8t" => QuantizerConfig { granularity: Granularity::PerToken, range: RangeSource::Dynamic, ..e4m3 },
        "F8b" => QuantizerConfig { granularity: Granularity::Block2d { rows: 128, cols: 128 }, ..e4m3 },
        "MX4" => mx(Format::E2M1),
        "MX6" => mx(Format::E3M2),
        "MX8" => mx(Format::E4M3),
        "MXI8" => mx(QuantizerConfig::int(8).format),
        "NV" => nv(BlockScale::Dynamic, 16),
        "NV32" => nv(BlockScale::Dynamic, 32),
        "NVs" => nv(BlockScale::Static, 16),
        "NV46" => nv(BlockScale::StaticFourOverSix, 16),
        other => panic!("unknown attributes `{other}`"),
    })
}

fn pattern_and_container(text: &str) -> (String, Option<String>) {
    match text.split_once(" (") {
        Some((pattern, class)) => (pattern.into(), Some(class.trim_end_matches(')').into())),
        None => (text.into(), None),
    }
}

fn entries(text: &str, lists: &BTreeMap<&str, &str>) -> Vec<Entry> {
    let mut all = Vec::new();
    for entry in text.split(';').map(str::trim) {
        if let Some(list) = lists.get(entry) {
            all.extend(list.split(',').map(|name| {
                let (pattern, container) = pattern_and_container(name.trim());
                (pattern, container, None)
            }));
            continue;
        }
        let (pattern, rest) = entry.split_once(' ').unwrap();
        let (shorthand, container) = pattern_and_container(rest);
        let pattern = match pattern {
            "W" => "*weight_quantizer",
            "X" => "*input_quantizer",
            "O" => "*output_quantizer",
            "KV" => "*[kv]_bmm_quantizer",
            other => other,
        };
        all.push((pattern.into(), container, attributes(&shorthand)));
    }
    all
}

fn table() -> Vec<(String, Row)> {
    let lines = || TABLE.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let lists: BTreeMap<&str, &str> = lines().filter_map(|line| line.split_once(": ")).collect();
    let rows = lines().filter_map(|line| {
        let (name, row) = line.split_once(" = ")?;
        let [reference, entries, algorithm]: [&str; 3] = row.split(" | ").collect::<Vec<_>>().try_into().unwrap();
        let (reference, algorithm) = (reference.to_string(), algorithm.to_string());
        Some((name.to_string(), Row { reference, entries: self::entries(entries, &lists), algorithm }))
    });
    rows.collect()
}

#[test]
fn short_names_are_those_of_presets_and_no_long_names() {
    let short: Vec<(&str, &str)> =
        presets::all().iter().flat_map(|preset| preset.short_names().map(|short| (short, preset.name))).collect();
    assert_eq!(short.len(), 23);
    for (short, name) in short {
        assert_eq!(Preset::named(short).unwrap().name, name);
        assert!(presets::all().iter().all(|preset| preset.name != short), "{short}");
    }
    assert_eq!(QuantConfig::from_toml("preset = \"nvfp4_awq\"").unwrap(), presets::nvfp4_awq_lite());
}

#[test]
fn every_preset_is_its_row_of_the_table() {
    let table = table();
    let own: Vec<&str> =
        presets::all().iter().filter(|preset| preset.modelopt_name.is_none()).map(|preset| preset.name).collect();
    assert_eq!(own, ["int8_per_channel_per_token", "int4_awq_gptq"], "those that ModelOpt has no name for come last");
    assert_eq!(table.len(), presets::all().len() - own.len());
    assert_eq!(table.iter().filter(|(_, row)| !row.reference.contains('/')).count(), 39, "ModelOpt's constants");
    for (preset, (name, row)) in presets::all().iter().zip(table) {
        assert_eq!((preset.name, preset.modelopt_name), (name.as_str(), Some(row.reference.as_str())));
        let config = (preset.config)();
        let found: Vec<Entry> = config
            .rules
            .iter()
            .map(|rule| match &rule.action {
                Action::Set(config) => (rule.quantizer.clone(), rule.container.clone(), Some((**config).clone())),
                Action::Disable => (rule.quantizer.clone(), rule.container.clone(), None),
                Action::Enable => panic!("{name}: a preset starts from nothing"),
            })
            .collect();
        assert_eq!(found, row.entries, "{name}");
        assert_eq!(config.algorithm.name(), row.algorithm, "{name}");
    }
}

#[test]
fn the_options_of_algorithms_are_those_of_the_table() {
    let algorithm = |config: QuantConfig| config.algorithm;
    assert_eq!(algorithm(presets::int8_smoothquant()), Algorithm::smoothquant(1.0));
    assert_eq!(algorithm(presets::int4_awq()), Algorithm::awq_lite());
    assert_eq!(algorithm(presets::nvfp4_svdquant_default()), Algorithm::svdquant(32));
    let four_over_six = RangeSearch::Multipliers { start: 1.0, stop: 1.5, step: 0.5, include_max: IncludeMax::Always };
    assert_eq!(algorithm(presets::nvfp4_four_over_six()), Algorithm::Mse(four_over_six));
    let sweep = algorithm(presets::nvfp4_w4a4_weight_mse_fp8_sweep());
    assert_eq!(sweep, Algorithm::Mse(RangeSearch::E4m3Scales));
}

/// A model that has every layer the presets speak of.
#[derive(Module, Debug)]
struct Block {
    mlp: QuantLinear,
    o_proj: QuantLinear,
    lm_head: QuantLinear,
    attention: Attention,
}

#[derive(Module, Debug)]
struct Attention {
    q_bmm_quantizer: burn_quant::TensorQuantizer,
    k_bmm_quantizer: burn_quant::TensorQuantizer,
    v_bmm_quantizer: burn_quant::TensorQuantizer,
    experts: Experts,
}

#[derive(Module, Debug)]
struct Experts {
    experts: Vec<QuantLinear>,
}

impl Block {
    fn new(device: &Device) -> Self {
        let linear = || LinearConfig::new(64, 64).init(device).into();
        let off = || burn_quant::TensorQuantizer::disabled(burn_quant::place::Role::ChannelsLast);
        let experts = Experts { experts: vec![linear()] };
        let attention = Attention { q_bmm_quantizer: off(), k_bmm_quantizer: off(), v_bmm_quantizer: off(), experts };
        Self { mlp: linear(), o_proj: linear(), lm_head: linear(), attention }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.o_proj.forward(self.mlp.forward(x));
        let x = self.attention.experts.experts[0].forward(x);
        let heads = x.clone().reshape([1, 2, 4, 32]);
        let (q, k) = (self.attention.q_bmm_quantizer.forward(heads.clone()), heads.clone());
        let scores = q.matmul(self.attention.k_bmm_quantizer.forward(k).transpose());
        let mixed = scores.matmul(self.attention.v_bmm_quantizer.forward(heads)).reshape([4, 64]);
        self.lm_head.forward(mixed)
    }
}

#[test]
fn every_preset_quantizes_a_model() {
    let device = processor(); // each op is tested on every backend
    let x = spread([4, 64], &device);
    device.seed(3);
    let float = Block::new(&device);
    let expected = values(float.forward(x.clone()));
    for preset in presets::all() {
        let config = (preset.config)();
        match quantize(float.clone(), &config, |model| drop(model.forward(x.clone()))) {
            Ok((model, _)) => {
                let quantizers = Quantizers::of(&model);
                assert!(quantizers.iter().any(|(_, q)| q.is_enabled()), "{}", preset.name);
                assert!(!quantizers.iter().any(|(_, q)| q.is_uncalibrated()), "{}", preset.name);
                let y = values(model.forward(x.clone()));
                // a model of five layers: 8 bits are off by up to 8 %, 4 and 6 bits by up to 36 %; one not quantized by
                // nothing
                let few_bits = ["4", "mxfp6"].iter().any(|bits| preset.name.contains(bits));
                let (off, bound) = (relative_error(&y, &expected), if few_bits { 0.5 } else { 0.12 });
                assert!(off > 1e-3 && off < bound, "{}: off by {off}", preset.name);
            }
            // convolutions and layer norms of diffusion models are not in this model, nor mixers
            Err(other) => panic!("{}: {other}", preset.name),
        }
    }
}

#[test]
fn a_preset_for_layers_that_a_model_lacks_is_an_error() {
    let (_, device) = device();
    let error = quantize_weights(LinearConfig::new(4, 4).init(&device), &presets::mxfp4_mlp_weight_only());
    let Err(QuantError::NoneMatched { patterns, near_misses }) = error else { panic!("nothing to quantize") };
    assert_eq!(patterns, ["*mlp*weight_quantizer", "*block_sparse_moe*weight_quantizer"]);
    assert_eq!(near_misses, ["weight_quantizer"]);
}

#[test]
fn presets_survive_both_recipe_languages() {
    for preset in presets::all() {
        let config = (preset.config)();
        assert_eq!(QuantConfig::from_json(&config.to_json()).as_ref(), Ok(&config), "{}", preset.name);
        assert_eq!(QuantConfig::from_toml(&config.to_toml()).as_ref(), Ok(&config), "{}", preset.name);
    }
}

fn import(json: &str) -> QuantConfig {
    QuantConfig::from_modelopt_json(json).unwrap_or_else(|e| panic!("{json}: {e}"))
}

#[test]
fn entries_keep_their_order_and_roles_are_found_for_axes() {
    let config = import(
        r#"{"quant_cfg": [
            {"quantizer_name": "*", "enable": false},
            {"quantizer_name": "*weight_quantizer", 
             "cfg": {"num_bits": 4, "block_sizes": {"-1": 128, "type": "static"}}},
            {"quantizer_name": "*input_quantizer",
             "cfg": {"num_bits": [4, 3], "type": "dynamic", "block_sizes": {"-1": null}}},
            {"quantizer_name": "*output_quantizer", "cfg": {"num_bits": 8, "axis": -1, "pass_through_bwd": false}},
            {"quantizer_name": "*", "parent_class": "nn.BatchNorm2d", "enable": false},
            {"quantizer_name": "*head.weight_quantizer", "cfg": [{"num_bits": 8, "axis": 0}, {"num_bits": "e4m3"}]}
        ], "algorithm": {"method": "awq_lite", "alpha_step": 0.25}}"#,
    );
    let set = |name, config| Rule::set(name, config).one_of("quant_cfg");
    assert_eq!(
        config.rules,
        [
            Rule::disable("*").optional(),
            set("*weight_quantizer", QuantizerConfig::int(4).per_block(128)),
            set("*input_quantizer", QuantizerConfig::e4m3().per_token().dynamic()),
            set("*output_quantizer", QuantizerConfig::int(8).per_channel().clipped()),
            Rule::disable("*").within("BatchNorm").optional(),
            set("*head.weight_quantizer", QuantizerConfig::int(8).per_channel().then(QuantizerConfig::e4m3())),
        ]
    );
    assert_eq!(
        config.algorithm,
        Algorithm::AwqLite { alpha_step: 0.25, sharing: SiblingScales::PerLayer, identity: Identity::Tried }
    );
}

#[test]
fn block_formats_constants_rotations_and_biases_are_read() {
    let of = |attributes: &str| {
        let json = format!(r#"{{"quant_cfg": [{{"quantizer_name": "*[kv]_bmm_quantizer", "cfg": {attributes}}}]}}"#);
        let Action::Set(config) = import(&json).rules.remove(0).action else { panic!("{attributes}") };
        *config
    };
    let mx = r#"{"num_bits": [3, 2], "block_sizes": {"-1": 32, "type": "dynamic", "scale_bits": [8, 0]}}"#;
    assert_eq!(of(mx), QuantizerConfig::mx(Format::E3M2));
    let nv = r#"{"num_bits": [2, 1], "effective_bits": 4.5, "use_constant_amax": true,
        "block_sizes": {"-1": 16, "type": "dynamic", "scale_bits": [4, 3]}}"#;
    assert_eq!(of(nv), QuantizerConfig::nvfp4().constant(448.0));
    assert_eq!(of(r#"{"num_bits": [4, 3], "constant_amax": 2688}"#), QuantizerConfig::e4m3().constant(2688.0));
    let rotated = r#"{"num_bits": 8, "rotate": {"enable": true, "mode": "rotate_back", "block_size": 16}}"#;
    let after = burn_quant::config::RotationOutput::Original;
    assert_eq!(of(rotated), QuantizerConfig::int(8).rotated(Rotation { block: Some(16), signs: None, output: after }));
    let affine = r#"{"num_bits": [4, 3], "bias": {"-2": null, "-4": null, "type": "static", "method": "max_min"}}"#;
    use AxisGroups::{Each, Whole};
    let bias = BiasConfig::new(Granularity::Axes(vec![Whole, Each, Whole, Each])).max_min();
    assert_eq!(of(affine), QuantizerConfig::e4m3().with_bias(bias));
    // off, but it rotates
    let json = r#"{"quant_cfg": [{"quantizer_name": "*q_bmm_quantizer", "cfg": {"rotate": true}, "enable": false}]}"#;
    let rotates = QuantizerConfig::int(8).rotated(Rotation::default()).rotate_only();
    assert_eq!(import(json).rules, [Rule::set("*q_bmm_quantizer", rotates).one_of("quant_cfg")]);
}

#[test]
fn the_deprecated_dictionary_is_read_in_its_order() {
    let config = import(
        r#"{"quant_cfg": {
            "*weight_quantizer": {"num_bits": 8, "axis": 0},
            "*input_quantizer": {"enable": false},
            "nn.Linear": {"*output_quantizer": {"num_bits": 8, "enable": false}},
            "default": {"enable": false}
        }, "algorithm": "max"}"#,
    );
    let names: Vec<(&str, Option<&str>)> =
        config.rules.iter().map(|rule| (rule.quantizer.as_str(), rule.container.as_deref())).collect();
    let output = ("*output_quantizer", Some("Linear"));
    assert_eq!(names, [("*weight_quantizer", None), ("*input_quantizer", None), output, output, ("*", None)]);
    assert_eq!(config.rules[3].action, Action::Disable, "configured, then off");
    assert_eq!(config.rules[4].action, Action::Disable, "`default` stands where it is written");
}

#[test]
fn without_an_algorithm_ranges_are_dynamic() {
    let config = import(r#"{"quant_cfg": [{"quantizer_name": "*", "cfg": {"num_bits": [4, 3]}}], "algorithm": null}"#);
    assert_eq!(config.algorithm, Algorithm::None);
    let Action::Set(attributes) = &config.rules[0].action else { panic!("attributes") };
    assert_eq!(attributes.range, RangeSource::Dynamic);
    let empty = import("{}");
    assert_eq!((empty.rules.len(), empty.algorithm), (1, Algorithm::Max), "ModelOpt's defaults");
}

#[test]
fn what_cannot_be_read_says_where_and_why() {
    let of = |json: &str| match QuantConfig::from_modelopt_json(json) {
        Err(QuantError::ModelOpt { at, problem }) => (at, problem),
        other => panic!("{json}: {other:?}"),
    };
    let entry = |entry: &str| of(&format!(r#"{{"quant_cfg": [{entry}]}}"#));
    let cfg = |cfg: &str| {
        let (at, problem) = entry(&format!(r#"{{"quantizer_name": "*weight_quantizer", "cfg": {cfg}}}"#));
        assert!(at.starts_with("$.quant_cfg[0].cfg"), "{at}");
        problem
    };
    let unknown = |key: &str| ImportProblem::UnknownKey { key: key.into() };
    assert!(matches!(of("{").1, ImportProblem::NotJson { .. }));
    assert_eq!(of(r#"{"quant_config": []}"#), ("$".into(), unknown("quant_config")));
    assert_eq!(entry(r#"{"quantizer_name": "*", "enabled": true}"#).1, unknown("enabled"));
    assert_eq!(entry(r#"{"quantizer_name": "*"}"#).1, ImportProblem::NothingSaid);
    assert_eq!(entry(r#"{"quantizer_name": "*", "cfg": {}}"#).1, ImportProblem::EmptyConfig);
    assert_eq!(entry(r#"{"a": {"num_bits": 8}, "b": {}}"#).1, ImportProblem::Missing { key: "quantizer_name" });
    let class = entry(r#"{"quantizer_name": "*", "parent_class": "nn.Bilinear", "enable": false}"#);
    assert_eq!(class, ("$.quant_cfg[0].parent_class".into(), ImportProblem::Class { class: "nn.Bilinear".into() }));
    assert!(matches!(of(r#"{"quant_cfg": "int8"}"#).1, ImportProblem::Value { .. }));
    assert!(matches!(of(r#"{"algorithm": "awq"}"#).1, ImportProblem::Value { .. }));
    assert_eq!(of(r#"{"algorithm": {"method": "gptq", "blocks": 1}}"#).1, unknown("blocks"));
    assert_eq!(of(r#"{"algorithm": {"alpha": 1}}"#).1, ImportProblem::Missing { key: "method" });

    assert_eq!(cfg(r#"{"enable": true}"#), ImportProblem::OnlyEnable);
    assert_eq!(cfg(r#"{"num_bit": 8}"#), unknown("num_bit"));
    for wrong in [
        r#"{"num_bits": 0}"#,
        r#"{"num_bits": 1}"#,
        r#"{"num_bits": [3, 3]}"#,
        r#"{"num_bits": "int8"}"#,
        r#"{"num_bits": 8, "type": "sometimes"}"#,
        r#"{"num_bits": 8, "effective_bits": 17}"#,
        r#"{"num_bits": 8, "trt_high_precision_dtype": "Double"}"#,
        r#"{"num_bits": 8, "bias": {"type": "static"}}"#,
        r#"{"num_bits": 8, "block_sizes": {"type": "static"}}"#,
        r#"{"num_bits": 8, "rotate": {"enable": true, "block_size": true}}"#,
        r#"{"num_bits": 4, "block_sizes": {"-1": 0}}"#,
        r#"{"num_bits": 8, "constant_amax": 1e300}"#,
    ] {
        assert!(matches!(cfg(wrong), ImportProblem::Value { .. }), "{wrong}: {:?}", cfg(wrong));
    }
    let exclusive = |a, b| ImportProblem::Exclusive { a, b };
    assert_eq!(cfg(r#"{"axis": 0, "block_sizes": {"-1": 16}}"#), exclusive("axis", "block_sizes"));
    let constants = cfg(r#"{"use_constant_amax": true, "constant_amax": 2.0}"#);
    assert_eq!(constants, exclusive("use_constant_amax", "constant_amax"));
    assert!(matches!(cfg(r#"{"num_bits": 8, "axis": 1}"#), ImportProblem::Axes { target: "weights", .. }));
    assert!(matches!(cfg(r#"{"num_bits": 8, "block_sizes": {"0": 16}}"#), ImportProblem::Axes { .. }));
    assert!(matches!(cfg(r#"{"num_bits": [3, 2]}"#), ImportProblem::NeedsDynamicBlocks { .. }));
    assert!(matches!(
        cfg(r#"{"num_bits": [2, 1], "block_sizes": {"-1": 16}}"#),
        ImportProblem::NeedsDynamicBlocks { .. }
    ));
    let blocks = cfg(r#"{"num_bits": [2, 1], "block_sizes": {"-1": 16, "type": "dynamic"}}"#);
    assert_eq!(blocks, ImportProblem::DynamicBlocksWithoutScale);
    let static_mx = cfg(r#"{"num_bits": [4, 3], "block_sizes": {"-1": 32, "scale_bits": [8, 0]}}"#);
    assert_eq!(static_mx, ImportProblem::Invalid(InvalidConfig::StaticPowersOfTwo));
    let constant = cfg(r#"{"num_bits": 8, "constant_amax": -1.0}"#);
    assert_eq!(constant, ImportProblem::Invalid(InvalidConfig::ConstantRange { found: -1.0 }));
    let rotation = cfg(r#"{"num_bits": 8, "rotate": {"enable": true, "block_size": 12}}"#);
    assert_eq!(rotation, ImportProblem::Invalid(InvalidConfig::RotationBlock { found: 12 }));
    for (unsupported, name) in [
        (r#"{"fake_quant": false}"#, "fake_quant"),
        (r#"{"learn_amax": true}"#, "learn_amax"),
        (r#"{"backend": "mine"}"#, "backend"),
        (r#"{"calibrator": "histogram"}"#, "calibrator"),
    ] {
        let ImportProblem::Unsupported { key, .. } = cfg(unsupported) else { panic!("{unsupported}") };
        assert_eq!(key, name);
    }
}

#[test]
fn a_configuration_with_any_stretch_missing_is_refused_or_can_be_written_again() {
    let whole = r#"{"quant_cfg": [
        {"quantizer_name": "*", "enable": false},
        {"quantizer_name": "*weight_quantizer", "parent_class": "nn.Linear",
         "cfg": [{"num_bits": 4, "block_sizes": {"-1": 128, "type": "static"}}, {"num_bits": [4, 3]}]},
        {"quantizer_name": "*[kv]_bmm_quantizer", "cfg": {"num_bits": [2, 1], "constant_amax": 2.5,
         "rotate": {"enable": true, "block_size": 16}, "bias": {"-2": null, "-4": null, "type": "static"},
         "block_sizes": {"-1": 16, "type": "dynamic", "scale_bits": [4, 3]}}}
    ], "algorithm": {"method": "mse", "step_size": 0.1}}"#;
    assert_eq!(import(whole).rules.len(), 3);
    let mut read = 0;
    for start in 0..whole.len() {
        for end in start + 1..whole.len().min(start + 40) {
            let Ok(config) = QuantConfig::from_modelopt_json(&[&whole[..start], &whole[end..]].concat()) else {
                continue;
            };
            read += 1;
            assert_eq!(QuantConfig::from_json(&config.to_json()).as_ref(), Ok(&config));
            assert_eq!(QuantConfig::from_toml(&config.to_toml()).as_ref(), Ok(&config));
        }
    }
    assert!(read > 100, "white space, entries and attributes can be left out: {read}");
}
