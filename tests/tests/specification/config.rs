//! Rules, presets, recipes and their errors.

use burn::module::Module;
use burn::nn::LinearConfig;
use burn::tensor::{Device, Tensor};
use burn_quant::calibrate::observe;
use burn_quant::config::{ActOrder, Granularity, IncludeMax, RangeSearch, RotationOutput, SiblingScales};
use burn_quant::error::InvalidConfig;
use burn_quant::nn::QuantLinear;
use burn_quant::search::{AutoQuantizeConfig, Cost, Objective};
use burn_quant::{
    Algorithm, QuantConfig, QuantError, QuantizerConfig, Quantizers, Rule, disable, enable, presets, quantize,
    quantize_weights,
};
use burn_quant_tests::device;

use crate::{spread, values};

#[derive(Module, Debug)]
struct Decoder {
    fc: QuantLinear,
    lm_head: QuantLinear,
}

impl Decoder {
    fn new(device: &Device) -> Self {
        let linear = || LinearConfig::new(4, 4).init(device).into();
        Self { fc: linear(), lm_head: linear() }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.lm_head.forward(self.fc.forward(x))
    }
}

fn enabled(config: &QuantConfig) -> Vec<String> {
    let (_, device) = device();
    let x = spread([2, 4], &device);
    let (model, _) = quantize(Decoder::new(&device), config, |model| drop(model.forward(x.clone()))).unwrap();
    let quantizers = Quantizers::of(&model);
    quantizers.iter().filter(|(_, q)| q.is_enabled()).map(|(name, _)| name.to_string()).collect()
}

fn error(config: &QuantConfig) -> QuantError {
    let (_, device) = device();
    let x = spread([2, 4], &device);
    quantize(Decoder::new(&device), config, |model| drop(model.forward(x.clone()))).unwrap_err()
}

#[test]
fn the_last_rule_that_matches_wins_and_replaces() {
    let config = QuantConfig::new()
        .with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(4).per_channel()))
        .with_rule(Rule::set("fc.*_quantizer", QuantizerConfig::int(8)))
        .with_rule(Rule::disable("fc.output_quantizer"))
        .with_rule(Rule::disable("*"))
        .with_rule(Rule::enable("fc.weight_quantizer"));
    assert_eq!(enabled(&config), ["fc.weight_quantizer"]);
    let (_, device) = device();
    let (model, _) = quantize_weights(Decoder::new(&device), &config).unwrap();
    let quantizers = Quantizers::of(&model);
    assert_eq!(quantizers.get("fc.weight_quantizer").unwrap().config(), &QuantizerConfig::int(8));
}

#[test]
fn presets_leave_output_heads_in_float() {
    assert_eq!(enabled(&presets::int8_default()), ["fc.weight_quantizer", "fc.input_quantizer"]);
    assert_eq!(enabled(&presets::fp8_default()), ["fc.weight_quantizer", "fc.input_quantizer"]);
    assert_eq!(enabled(&presets::int8_weight_only()), ["fc.weight_quantizer"]);
    assert_eq!(enabled(&presets::int4_blockwise_weight_only()), ["fc.weight_quantizer"]);
}

#[test]
fn a_rule_may_be_confined_to_a_container() {
    let rule = Rule::set("*weight_quantizer", QuantizerConfig::int(8));
    assert_eq!(enabled(&QuantConfig::new().with_rule(rule.clone().within("QuantLinear"))).len(), 2);
    let QuantError::NoMatch { container, .. } = error(&QuantConfig::new().with_rule(rule.within("Conv2d"))) else {
        panic!("no container of that type");
    };
    assert_eq!(container.as_deref(), Some("Conv2d"));
}

#[test]
fn a_rule_without_a_match_lists_near_misses_unless_it_is_optional() {
    let typo = Rule::set("fc.weights_quantizer", QuantizerConfig::int(8));
    let QuantError::NoMatch { pattern, near_misses, .. } = error(&QuantConfig::new().with_rule(typo.clone())) else {
        panic!("a typo must be an error");
    };
    assert_eq!((pattern.as_str(), near_misses[0].as_str()), ("fc.weights_quantizer", "fc.weight_quantizer"));
    assert_eq!(enabled(&QuantConfig::new().with_rule(typo.optional())), [""; 0]);
    assert!(matches!(error(&QuantConfig::new().with_rule(Rule::enable("fc.[a"))), QuantError::BadPattern { .. }));
}

#[test]
fn configurations_that_do_not_fit_are_refused_by_name() {
    let (_, device) = device();
    let refused = |pattern: &str, config: QuantizerConfig| {
        let config = QuantConfig::new().with_rule(Rule::set(pattern, config));
        match quantize(Decoder::new(&device), &config, |_| {}) {
            Err(QuantError::Config { name, problem }) => (name, problem),
            other => panic!("expected a refusal, found {other:?}"),
        }
    };
    let at = |name: &str, problem| (name.to_string(), problem);
    let tokens = refused("fc.weight_quantizer", QuantizerConfig::int(8).per_token().dynamic());
    assert_eq!(tokens, at("fc.weight_quantizer", InvalidConfig::TokensOfWeight));
    let groups = refused("*.input_quantizer", QuantizerConfig::int(8).per_token());
    let problem = InvalidConfig::StaticActivationGroups { granularity: "per-token" };
    assert_eq!(groups, at("fc.input_quantizer", problem), "the quantizer is named, not the pattern");
    let empty = refused("fc.weight_quantizer", QuantizerConfig::int(8).per_block(0));
    assert_eq!(empty, at("fc.weight_quantizer", InvalidConfig::EmptyBlock));
    let axes = Granularity::Axes(vec![burn_quant::config::AxisGroups::Each; 3]);
    let rank = refused("fc.weight_quantizer", QuantizerConfig::int(8).with_granularity(axes));
    assert_eq!(rank, at("fc.weight_quantizer", InvalidConfig::Rank { expected: 3, found: 2 }));
}

#[test]
fn static_activations_need_data_that_reaches_them() {
    let (_, device) = device();
    let config = presets::int8_default();
    let QuantError::NeedsForwardLoop { names } = quantize_weights(Decoder::new(&device), &config).unwrap_err() else {
        panic!("activations need data");
    };
    assert_eq!(names, ["fc.input_quantizer"]);
    let unreached = quantize(Decoder::new(&device), &config, |_| {}).unwrap_err();
    assert_eq!(unreached, QuantError::NothingObserved { name: "fc.input_quantizer".into() });
}

#[test]
fn dynamic_activations_need_no_data() {
    let (_, device) = device();
    let config =
        QuantConfig::new().with_rule(Rule::set("*input_quantizer", QuantizerConfig::int(8).per_token().dynamic()));
    let (model, report) = quantize_weights(Decoder::new(&device), &config).unwrap();
    assert!(report.statistics.is_empty());
    // the scale of a token does not depend on the other tokens
    let x = spread([2, 4], &device);
    let both = model.forward(x.clone());
    let first = model.forward(x.slice([0..1, 0..4]));
    assert_eq!(values(both.slice([0..1, 0..4])), values(first));
}

#[test]
fn bad_calibration_data_names_the_quantizer() {
    let (_, device) = device();
    for bad in [f32::NAN, f32::INFINITY] {
        let x = Tensor::<2>::from_data([[1.0, bad, 0.0, 0.0]], &device);
        let found = quantize(Decoder::new(&device), &presets::int8_default(), |model| drop(model.forward(x.clone())));
        assert_eq!(found.unwrap_err(), QuantError::NonFinite { name: "fc.input_quantizer".into(), batch: Some(0) });
    }
}

#[test]
fn the_range_is_the_largest_magnitude_of_all_batches_and_shards_merge_to_it() {
    let (_, device) = device();
    let config = QuantConfig::new().with_rule(Rule::set("fc.input_quantizer", QuantizerConfig::int(8)));
    let batches: Vec<Tensor<2>> =
        [0.5f32, -3.0, 2.0].map(|top| Tensor::from_data([[top, 0.1, 0.2, 0.3]], &device)).into();
    let (model, report) = quantize(Decoder::new(&device), &config, |model| {
        batches.iter().for_each(|batch| drop(model.forward(batch.clone())));
    })
    .unwrap();
    let seen = report.statistics.get("fc.input_quantizer").unwrap();
    assert_eq!((seen.amax.as_slice(), seen.calls), (&[3.0][..], 3));
    let shard = |range: std::ops::Range<usize>| {
        let run = |model: &Decoder| batches[range.clone()].iter().for_each(|batch| drop(model.forward(batch.clone())));
        observe(&model, &Algorithm::Max, run).unwrap()
    };
    assert_eq!(shard(0..1).merge(shard(1..3)).unwrap(), report.statistics);
    assert_eq!(shard(1..3).merge(shard(0..1)).unwrap(), report.statistics);
    // statistics travel as plain data
    let json = serde_json::to_string(&report.statistics).unwrap();
    assert_eq!(serde_json::from_str::<burn_quant::calibrate::ModelStatistics>(&json).unwrap(), report.statistics);
}

#[test]
fn placed_quantizers_are_switched_by_glob() {
    let (_, device) = device();
    let (model, _) = quantize_weights(Decoder::new(&device), &presets::int8_weight_only()).unwrap();
    let model = disable(model, "fc.*").unwrap();
    assert!(!Quantizers::of(&model).get("fc.weight_quantizer").unwrap().is_enabled());
    let model = enable(model, "fc.weight_*").unwrap();
    assert!(Quantizers::of(&model).get("fc.weight_quantizer").unwrap().is_enabled());
    assert!(matches!(disable(model.clone(), "decoder.*"), Err(QuantError::NoMatch { .. })));
    let never = enable(model, "fc.input_quantizer").unwrap_err();
    assert_eq!(never, QuantError::NeverObserved { name: "fc.input_quantizer".into() });
}

#[test]
fn unknown_names_are_errors_with_near_misses() {
    let (_, device) = device();
    let quantizers = Quantizers::of(&Decoder::new(&device));
    let Err(QuantError::UnknownQuantizer { near_misses, .. }) = quantizers.get("fc.imput_quantizer") else {
        panic!("no such quantizer");
    };
    assert_eq!(near_misses[0], "fc.input_quantizer");
    let other = LinearConfig::new(2, 2).init(&device);
    assert!(matches!(quantizers.install(other), Err(QuantError::UnknownQuantizer { .. })));
}

#[test]
fn a_recipe_of_this_release_stays_readable() {
    let recipe = r#"{"rules": [
        {"quantizer": "*weight_quantizer", "action": {"set": {
            "format": {"int": {"bits": 4, "signedness": "signed", "span": "narrow"}},
            "granularity": {"block": {"size": 32}}, "range": "static", "gradient": "clipped"}}},
        {"quantizer": "*", "container": "Embedding", "action": "disable", "optional": true}
    ], "algorithm": "max"}"#;
    let config = QuantConfig::from_json(recipe).unwrap();
    assert_eq!(config.rules[0].action, {
        use burn_quant::config::{Action, IntFormat, IntSpan, Signedness};
        let format = IntFormat::new(4, Signedness::Signed, IntSpan::Narrow).unwrap();
        Action::Set(Box::new(QuantizerConfig::new(format.into()).per_block(32).clipped()))
    });
    assert!(config.rules[1].optional);
}

#[test]
fn unknown_fields_and_impossible_values_of_a_recipe_are_errors() {
    for recipe in [
        r#"{"rules": [], "algorithm": "max", "alpha": 1}"#,
        r#"{"rules": [{"quantizer": "*", "action": "enable", "enabled": true}]}"#,
        r#"{"rules": [{"quantizer": "*", "action": {"set": {"format": {"int": {"bits": 17}}}}}]}"#,
        "not json",
    ] {
        assert!(matches!(QuantConfig::from_json(recipe), Err(QuantError::Recipe { language: "JSON", .. })), "{recipe}");
    }
    assert!(matches!(QuantConfig::from_toml("rules = 3"), Err(QuantError::Recipe { language: "TOML", .. })));
    for infinite in [
        "rules = []\nalgorithm = { smoothquant = { alpha = inf } }",
        "rules = []\nalgorithm = { awq_lite = { alpha_step = 1e300 } }",
    ] {
        assert!(
            matches!(QuantConfig::from_toml(infinite), Err(QuantError::Recipe { language: "TOML", .. })),
            "{infinite}"
        );
    }
}

/// Words that recipes had before they were renamed.
#[test]
fn older_words_of_recipes_are_read() {
    let algorithm = |json: &str| -> Algorithm { serde_json::from_str(json).unwrap_or_else(|e| panic!("{json}: {e}")) };
    let grid = RangeSearch::Multipliers { start: 0.5, stop: 1.0, step: 0.1, include_max: IncludeMax::OnGrid };
    let gptq = |act_order| Algorithm::Gptq { damping: 0.01, block_size: 128, act_order, inputs: Default::default() };
    let only = |algorithm| Algorithm::ForLayers { layers: vec!["fc*".into()], algorithm: Box::new(algorithm) };
    for (older, expected) in [
        (r#""mean_magnitude""#, Algorithm::LsqInit),
        (r#"{"of_layers": {"layers": ["fc*"], "algorithm": "mean_magnitude"}}"#, only(Algorithm::LsqInit)),
        (
            r#"{"mse": {"multipliers": {"start": 0.5, "stop": 1.0, "step": 0.1, "unscaled": "if_met"}}}"#,
            Algorithm::Mse(grid),
        ),
        (
            r#"{"smoothquant": {"alpha": 0.5, "sharing": "joint"}}"#,
            Algorithm::SmoothQuant { alpha: 0.5, sharing: SiblingScales::Shared },
        ),
        (r#"{"gptq": {"order": "activations"}}"#, gptq(ActOrder::On)),
        (r#"{"gptq": {"order": "natural"}}"#, gptq(ActOrder::Off)),
    ] {
        assert_eq!(algorithm(older), expected, "{older}");
    }
    let rotated = r#"{"format": "int8", "rotation": {"after": "rotate_back"}}"#;
    let rotated: QuantizerConfig = serde_json::from_str(rotated).unwrap();
    assert_eq!(rotated.rotation.unwrap().output, RotationOutput::Original);

    let search = r#"{
        "effective_bits": 6.0, "formats": ["int8_default"],
        "spaces": [{"layers": ["fc1"], "formats": ["int4_awq"], "unquantized": false}],
        "disabled": ["head"], "uncounted": ["embed"], "expert_share": 0.25,
        "cost": "reference", "objective": "reference_bisection"
    }"#;
    let search = AutoQuantizeConfig::from_json(search).unwrap();
    assert!(search.overrides.len() == 1 && !search.overrides[0].allow_float);
    assert_eq!((search.keep_float, search.exclude_from_budget), (vec!["head".to_string()], vec!["embed".to_string()]));
    assert_eq!((search.active_expert_fraction, search.cost), (0.25, Cost::ModelOpt));
    assert_eq!(search.objective, Objective::ModelOptBisection);
}

/// A block is written by its size alone, by the name of the method, or in full; anything else is told how.
#[test]
fn recipes_write_blocks_in_several_ways() {
    let read = |granularity: &str| {
        let set = format!(r#"{{"set": {{"format": "int4", "granularity": {granularity}}}}}"#);
        QuantConfig::from_json(&format!(r#"{{"rules": [{{"quantizer": "*", "action": {set}}}]}}"#))
    };
    let expected = QuantConfig::new().with_rule(Rule::set("*", QuantizerConfig::int(4).per_block(8)));
    for granularity in [r#"{"block": 8}"#, r#"{"block": {"size": 8}}"#, r#"{"per_block": 8}"#] {
        assert_eq!(read(granularity).unwrap(), expected, "{granularity}");
    }
    let error = read(r#"{"block": "eight"}"#).unwrap_err().to_string();
    assert!(error.contains("a block is written `{ block = 128 }`"), "{error}");
}
