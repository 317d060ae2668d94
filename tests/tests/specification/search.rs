//! Auto-quantize: what is searched, how it is scored and counted, and what becomes of the result.

use std::cell::Cell;
use std::collections::BTreeMap;

use burn::module::{Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_quant::nn::{self as quant, QuantLinear};
use burn_quant::place::Plan;
use burn_quant::search::{
    AutoQuantization, AutoQuantizeConfig, Cost, Objective, SearchFormat, SearchOverride, SearchProgress, SearchState,
    auto_quantize,
};
use burn_quant::{Algorithm, QuantConfig, QuantError, QuantizerConfig, Quantizers, Rule, presets, quantize};
use burn_quant_store::{StoreError, load_search, restore, save, save_search};
use burn_quant_tests::device;

use crate::{assert_close, assert_same, spread, values};

/// Three layers, of which the first is much larger than the last.
#[derive(Module, Debug)]
struct Mlp {
    fc1: QuantLinear,
    fc2: QuantLinear,
    head: QuantLinear,
}

impl Mlp {
    fn new(device: &Device) -> Self {
        let linear = |d_in: usize, d_out: usize, scale: f64| {
            let layer = Linear {
                weight: Param::from_tensor(spread([d_in, d_out], device) * scale),
                bias: Some(Param::from_tensor(spread([d_out], device) * 0.1)),
            };
            QuantLinear::from(layer)
        };
        Self { fc1: linear(16, 32, 0.2), fc2: linear(32, 16, 0.1), head: linear(16, 4, 0.5) }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.head.forward(relu(self.fc2.forward(relu(self.fc1.forward(x)))))
    }
}

fn batches(device: &Device) -> Vec<Tensor<2>> {
    (1..=3).map(|i| spread([8, 16], device) * (0.5 + 0.25 * i as f64)).collect()
}

fn forward(model: &Mlp, x: &Tensor<2>) -> Tensor<2> {
    model.forward(x.clone())
}

fn loss(y: Tensor<2>, _: &Tensor<2>) -> Tensor<1> {
    y.powf_scalar(2.0).mean()
}

fn int4() -> SearchFormat {
    SearchFormat::new(
        "int4",
        QuantConfig::new().with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(4).per_block(16))),
    )
}

fn int8() -> SearchFormat {
    SearchFormat::new("int8", presets::int8_default())
}

fn config(effective_bits: f64) -> AutoQuantizeConfig {
    AutoQuantizeConfig::new(effective_bits, [int4(), int8()]).with_batches(3, 3)
}

fn search(config: &AutoQuantizeConfig) -> Result<(Mlp, SearchState), QuantError> {
    let (_, device) = device();
    auto_quantize(Mlp::new(&device), config, batches, forward, loss)
}

fn problem<T>(result: Result<T, QuantError>) -> String {
    result.err().expect("an error").to_string()
}

fn formats(state: &SearchState, group: &str) -> Vec<Option<String>> {
    let group = state.groups.iter().find(|other| other.name() == group).expect("the group is there");
    group.choices.iter().map(|choice| choice.format.clone()).collect()
}

#[test]
fn the_score_of_a_format_is_the_squared_change_of_the_loss() {
    // y = x W, L = Σ c ⊙ y: the gradient at y is c, and the score Σ (c ⊙ (Q(x) Q(W) − x W))², summed over batches
    let (_, device) = device();
    let layer = || QuantLinear::from(Linear { weight: Param::from_tensor(spread([16, 4], &device)), bias: None });
    let c = |device: &Device| spread([8, 4], device) + 0.5;
    let config = AutoQuantizeConfig::new(12.0, [int8()]).with_batches(3, 2);
    let forward = |layer: &QuantLinear, x: &Tensor<2>| layer.forward(x.clone());
    let loss = |y: Tensor<2>, _: &Tensor<2>| (y.clone() * c(&y.device())).sum();
    let (_, state) = auto_quantize(layer(), &config, batches, forward, loss).unwrap();

    let (quantized, _) = quantize(layer(), &presets::int8_default(), |layer| {
        batches(&device).into_iter().for_each(|x| drop(layer.forward(x)));
    })
    .unwrap();
    let score = |x: Tensor<2>| {
        let change = quantized.forward(x.clone()) - layer().forward(x);
        values((change * c(&device)).powf_scalar(2.0).sum())[0]
    };
    let expected: f32 = batches(&device).into_iter().take(2).map(score).sum();
    let found = state.groups[0].choices.iter().map(|choice| choice.score.unwrap() as f32).collect::<Vec<_>>();
    assert_close(&found, &[expected, 0.0], 1e-4, "int8, and none");
    assert_eq!(state.scored_batches, 2);
}

#[test]
fn bits_are_those_of_codes_scales_and_everything_else() {
    let (_, state) = search(&config(12.0)).unwrap();
    // fc1: 512 weights. int4: 32 columns x 1 block of 16. int8: a scale per column, one for the inputs.
    let cost = |format: Option<&str>| {
        state.groups[0].choices.iter().find(|choice| choice.format.as_deref() == format).unwrap().cost
    };
    assert_eq!(cost(Some("int4")), 512.0 * 4.0 + 32.0 * 32.0);
    assert_eq!(cost(Some("int8")), 512.0 * 8.0 + 32.0 * 32.0 + 32.0);
    assert_eq!(cost(None), 512.0 * 16.0);
    assert_eq!(state.other_bits, 16.0 * (32.0 + 16.0 + 4.0), "biases");
    assert_eq!(state.counted, (512 + 32 + 512 + 16 + 64 + 4) as f64, "all parameters");

    let (_, state) = search(&config(8.0).with_cost(Cost::ModelOpt)).unwrap();
    let costs: Vec<f64> = state.groups[2].choices.iter().map(|choice| choice.cost).collect();
    assert_eq!(costs, [4.0 * 64.0, 8.0 * 64.0, 16.0 * 64.0]);
    assert_eq!((state.other_bits, state.counted), (0.0, 1088.0), "weights alone");

    let (_, state) = search(&config(12.0).exclude_from_budget("fc1").exclude_from_budget("*.bias")).unwrap();
    assert!(state.groups[0].choices.iter().all(|choice| choice.cost == 0.0));
    assert_eq!((state.other_bits, state.counted), (0.0, 512.0 + 64.0));
    let best = state.best.unwrap();
    assert_eq!(best.formats["fc1"], None, "what costs nothing stays as it is");
}

#[test]
fn more_bits_are_never_worse() {
    let (_, state) = search(&config(12.0)).unwrap();
    let (least, most) = state.bits_range();
    let curve = state.curve(20).unwrap();
    assert!(curve.points.len() > 3, "{curve:?}");
    for pair in curve.points.windows(2) {
        let [a, b] = [&pair[0].selection, &pair[1].selection];
        assert!(a.effective_bits < b.effective_bits && a.score >= b.score, "{a:?} {b:?}");
    }
    let bits = |i: usize| curve.points[i].selection.effective_bits;
    assert!(bits(0) >= least && (bits(curve.points.len() - 1) - most).abs() < 1e-9);
    assert_eq!(curve.to_csv().lines().count(), curve.points.len() + 1);
    assert_eq!(curve.to_svg().matches("<circle").count(), curve.points.len() - 1, "a score of zero has no logarithm");
    let table = state.table().to_string();
    assert!(table.lines().any(|line| line.starts_with("fc1") && line.contains("int4")), "{table}");
}

#[test]
fn a_budget_below_the_least_bits_fails_before_any_calibration() {
    let (_, device) = device();
    let runs = Cell::new(0);
    let counted = |model: &Mlp, x: &Tensor<2>| {
        runs.set(runs.get() + 1);
        model.forward(x.clone())
    };
    let found = auto_quantize(Mlp::new(&device), &config(4.0), batches, counted, loss);
    let Err(QuantError::Infeasible { effective_bits, least }) = found else { panic!("an error") };
    let least_bits = (1088.0 * 4.0 + (32.0 + 32.0 + 4.0) * 32.0 + 52.0 * 16.0) / 1140.0;
    assert_eq!((effective_bits, runs.get()), (4.0, 0));
    assert!((least - least_bits).abs() < 1e-9, "{least}, {least_bits}");
    assert!(matches!(search(&config(0.0)), Err(QuantError::Search { .. })));
    assert!(matches!(search(&AutoQuantizeConfig::new(8.0, [])), Err(QuantError::Search { .. })));
}

#[test]
fn rules_of_a_format_say_which_layers_can_have_it() {
    let mut int4 = int4();
    int4.config = int4.config.with_rule(Rule::disable("head.*"));
    let config = AutoQuantizeConfig::new(12.0, [int4, int8()]).with_batches(3, 3).keep_float("fc2");
    let (_, state) = search(&config).unwrap();
    let some = |names: &[&str]| names.iter().map(|name| Some(name.to_string())).chain([None]).collect::<Vec<_>>();
    assert_eq!(formats(&state, "fc1"), some(&["int4", "int8"]));
    assert_eq!(formats(&state, "fc2"), some(&[]), "keep_float");
    assert_eq!(formats(&state, "head"), some(&["int8"]));
}

#[test]
fn layers_of_a_group_get_one_format() {
    let together = config(7.0).with_group("^(fc)[12]$");
    let (model, state) = search(&together).unwrap();
    assert_eq!(state.groups.iter().map(|group| group.units.len()).collect::<Vec<_>>(), [2, 1]);
    let plan = Plan::of(&model);
    let of = |name: &str| plan.quantizers[name].config.format;
    assert_eq!(of("fc1.weight_quantizer"), of("fc2.weight_quantizer"));
    assert!(matches!(search(&config(8.0).with_group("fc")), Err(QuantError::BadPattern { .. })), "it captures nothing");
    assert!(matches!(search(&config(8.0).with_group("(")), Err(QuantError::BadPattern { .. })));
}

#[test]
fn spaces_have_formats_of_their_own() {
    let space = |layers: &[&str], allow_float| SearchOverride {
        layers: layers.iter().map(|layer| layer.to_string()).collect(),
        formats: vec![int8()],
        allow_float,
    };
    let (_, state) = search(&config(12.0).with_override(space(&["fc1"], false))).unwrap();
    assert_eq!(state.groups[0].choices.iter().filter(|choice| choice.allowed).count(), 1);
    assert_eq!(state.best.unwrap().formats["fc1"].as_deref(), Some("int8"), "it has no other choice");

    let partly = config(12.0).with_group("^(fc)[12]$").with_override(space(&["fc1"], true));
    assert!(problem(search(&partly)).contains("covers only a part of the group `fc1`, `fc2`"));
    let twice = config(12.0).with_override(space(&["fc*"], true)).with_override(space(&["fc1"], true));
    assert!(problem(search(&twice)).contains("both cover `fc1`"));
}

#[test]
fn a_search_is_read_from_a_recipe() {
    let recipe = r#"
        effective_bits = 6.0
        formats = [
            "int8_default",
            { name = "mine", config = { rules = [{ quantizer = "*weight_quantizer", action = "enable" }] } },
        ]
        cost = "reference"
    "#;
    let config = AutoQuantizeConfig::from_toml(recipe).unwrap();
    let mine = QuantConfig::new().with_rule(Rule::enable("*weight_quantizer"));
    let formats = [SearchFormat::preset("int8_default").unwrap(), SearchFormat::new("mine", mine)];
    assert_eq!(config, AutoQuantizeConfig::new(6.0, formats).with_cost(Cost::ModelOpt));
    assert_eq!(AutoQuantizeConfig::from_toml(&config.to_toml()).unwrap(), config);
    assert_eq!(AutoQuantizeConfig::from_json(&config.to_json()).unwrap(), config);

    let refused = |from: &str, to: &str| problem(AutoQuantizeConfig::from_toml(&recipe.replacen(from, to, 1)));
    assert!(
        refused("int8_default", "int8_defualt").contains("configuration `int8_defualt` (near misses: `int8_default`")
    );
    assert!(refused("\"enable\"", "\"enabel\"").contains("unknown variant `enabel`"));
    assert!(refused("cost", "costs").contains("unknown field `costs`"));
    assert!(refused("6.0", "inf").contains("a number is infinite"));
}

#[test]
fn a_base_configuration_holds_what_is_not_searched() {
    let (_, device) = device();
    // its algorithm changes weights, but not those of the layer that is searched
    let base = presets::fp8_default()
        .with_rule(Rule::set("head.output_quantizer", QuantizerConfig::int(8)))
        .with_algorithm(Algorithm::awq_lite());
    let space = SearchOverride { layers: vec!["fc2".into()], formats: vec![int4(), int8()], allow_float: true };
    let config = AutoQuantizeConfig::new(10.0, []).with_batches(3, 3).with_base(base).with_override(space);
    let (model, state) = search(&config).unwrap();
    assert_eq!(state.groups.len(), 1);
    let plan = Plan::of(&model);
    assert_eq!(plan.quantizers["fc1.weight_quantizer"].config, QuantizerConfig::e4m3());
    assert!(plan.quantizers["head.output_quantizer"].enabled);
    // fc1 and head in E4M3: 576 codes, two scales of weights, two of inputs, those of their 16 channels each; biases
    assert_eq!(state.other_bits, 576.0 * 8.0 + 4.0 * 32.0 + 32.0 * 32.0 + 52.0 * 16.0);
    let best = state.best.as_ref().unwrap();
    let applied = state.apply(Mlp::new(&device), best).unwrap();
    let x = batches(&device).remove(0);
    assert_same(&values(applied.forward(x.clone())), &values(model.forward(x.clone())), "applied again");
    let (configured, _) = quantize(Mlp::new(&device), &state.config_of(best), |model| {
        batches(&device).into_iter().for_each(|x| drop(model.forward(x)));
    })
    .unwrap();
    assert_same(&values(configured.forward(x.clone())), &values(model.forward(x)), "configured again");
}

#[test]
fn the_result_is_an_ordinary_configuration() {
    // formats with algorithms of their own, which follow one another, each for its layers
    let (_, device) = device();
    let mut awq = int4();
    (awq.name, awq.config.algorithm) = ("int4_awq".into(), Algorithm::awq_lite());
    let smooth = SearchFormat::new("int8_smooth", presets::int8_smoothquant());
    let config = AutoQuantizeConfig::new(9.0, [awq, smooth]).with_batches(3, 3);
    let (model, state) = search(&config).unwrap();
    let formats =
        BTreeMap::from([("fc1", "int4_awq"), ("fc2", "int8_smooth")].map(|(a, b)| (a.into(), Some(b.into()))));
    let mixed = state.selection(&formats).unwrap();
    for (selection, what) in [(state.best.as_ref().unwrap(), "best"), (&mixed, "mixed")] {
        let config = QuantConfig::from_json(&state.config_of(selection).to_json()).unwrap();
        let (configured, _) = quantize(Mlp::new(&device), &config, |model| {
            batches(&device).into_iter().for_each(|x| drop(model.forward(x)));
        })
        .unwrap();
        let x = batches(&device).remove(1);
        let applied = state.apply(Mlp::new(&device), selection).unwrap();
        assert_same(&values(configured.forward(x.clone())), &values(applied.forward(x)), what);
    }
    assert!(matches!(&state.config_of(&mixed).algorithm, Algorithm::Sequence(steps) if steps.len() == 2));
    let best = state.apply(Mlp::new(&device), state.best.as_ref().unwrap()).unwrap();
    let x = batches(&device).remove(2);
    assert_same(&values(best.forward(x.clone())), &values(model.forward(x)), "the model that the search returned");
    let unknown = BTreeMap::from([("fc3".to_string(), None)]);
    assert!(problem(state.selection(&unknown)).contains("no group `fc3`"));
}

#[test]
fn a_search_is_continued_where_it_stopped() {
    let (_, device) = device();
    let runs = Cell::new(0);
    let counted = |model: &Mlp, x: &Tensor<2>| {
        runs.set(runs.get() + 1);
        model.forward(x.clone())
    };
    let (config, mut saved) = (config(7.0), Vec::new());
    let checkpoint = |state: &SearchState| {
        saved.push(state.clone());
        Ok(())
    };
    let search = AutoQuantization::new(&config).with_checkpoint(checkpoint);
    let (model, whole) = search.by_gradient(Mlp::new(&device), batches, counted, loss).unwrap();
    assert_eq!(runs.get(), 9, "two formats are calibrated with three batches, and three are scored");
    let again = |state: &SearchState, config: &AutoQuantizeConfig, model: Mlp| {
        runs.set(0);
        AutoQuantization::new(config).with_state(state.clone()).by_gradient(model, batches, counted, loss)
    };
    let (_, continued) = again(&saved[0], &config, Mlp::new(&device)).unwrap();
    assert_eq!((continued, runs.get()), (whole.clone(), 3), "only the scoring");
    let other = AutoQuantizeConfig { effective_bits: 9.5, ..config.clone() };
    let (resolved, state) = again(&saved[1], &other, Mlp::new(&device)).unwrap();
    assert_eq!((state.best.clone().unwrap(), runs.get()), (whole.solve(9.5).unwrap(), 0), "nothing is run");
    let applied = whole.apply(Mlp::new(&device), state.best.as_ref().unwrap()).unwrap();
    let x = batches(&device).remove(0);
    assert_same(&values(resolved.forward(x.clone())), &values(applied.forward(x.clone())), "another budget");
    let applied = whole.apply(Mlp::new(&device), whole.best.as_ref().unwrap()).unwrap();
    assert_same(&values(model.forward(x.clone())), &values(applied.forward(x)), "the same budget");

    let refused = |config: &AutoQuantizeConfig, model: Mlp| problem(again(&saved[1], config, model));
    let int8_only = AutoQuantizeConfig { formats: vec![int8()], ..config.clone() };
    assert!(refused(&int8_only, Mlp::new(&device)).contains("other formats"));
    let other_data = AutoQuantizeConfig { data: "test".into(), ..config.clone() };
    assert!(refused(&other_data, Mlp::new(&device)).contains("data"));
    assert!(refused(&config.clone().keep_float("fc1"), Mlp::new(&device)).contains("another configuration"));
    let mut changed = Mlp::new(&device);
    changed.fc1.weight = changed.fc1.weight.clone().map(|weight| weight * 2.0);
    assert!(refused(&config, changed).contains("other weights"));
    let by_divergence = AutoQuantization::new(&config).with_state(saved[1].clone());
    let found = by_divergence.by_divergence(Mlp::new(&device), batches, forward);
    assert!(problem(found).contains("another method"));
    let failing = AutoQuantization::new(&config).with_checkpoint(|_| Err("the disk is full".into()));
    assert!(problem(failing.by_gradient(Mlp::new(&device), batches, forward, loss)).contains("the disk is full"));
}

#[test]
fn a_state_is_saved_and_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("search.bpk");
    let mut awq = int4();
    awq.config.algorithm = Algorithm::awq_lite();
    let config = AutoQuantizeConfig::new(9.0, [awq, int8()]).with_batches(3, 3);
    let (_, mut state) = search(&config).unwrap();
    state.groups[0].choices[0].score = Some(3.8595771669529845e-7); // a number that quick parsers miss by its last bit
    save_search(&state, &path).unwrap();
    assert_eq!(load_search(&path).unwrap(), state, "changed weights, scales and ranges too");

    let bytes = std::fs::read(&path).unwrap();
    for cut in (0..bytes.len()).step_by(97) {
        std::fs::write(&path, &bytes[..cut]).unwrap();
        assert!(load_search(&path).is_err(), "cut at {cut}");
    }
    let (_, device) = device();
    save_search(&state, &path).unwrap();
    let not_a_model = restore(Mlp::new(&device), &path).unwrap_err();
    assert!(matches!(not_a_model.reason(), StoreError::NotQuantized { .. }));
    save(&Mlp::new(&device), &path).unwrap();
    let not_a_search = load_search(&path).unwrap_err();
    assert!(matches!(not_a_search.reason(), StoreError::NotSearch { .. }));
    assert!(not_a_search.to_string().starts_with(&format!("`{}`: the file holds no search", path.display())));
    assert_eq!(format!("{not_a_search:?}"), not_a_search.to_string(), "the cause is not said twice");
}

#[test]
fn progress_is_told_step_by_step() {
    let (_, device) = device();
    let (config, mut steps) = (config(8.0), Vec::new());
    let search = AutoQuantization::new(&config).with_progress(|progress| steps.push(progress));
    search.by_gradient(Mlp::new(&device), batches, forward, loss).unwrap();
    let kind = |step: &SearchProgress| match step {
        SearchProgress::Planned { groups, formats } => format!("{groups} groups, {formats} formats"),
        SearchProgress::Calibrated { format, done, of, .. } => format!("{format} {done}/{of}"),
        SearchProgress::Scored { done, of, .. } => format!("{done}/{of}"),
        SearchProgress::Solved => "solved".into(),
        other => format!("{other:?}"),
    };
    let steps: Vec<String> = steps.iter().map(kind).collect();
    assert_eq!(steps, ["3 groups, 2 formats", "int4 1/2", "int8 2/2", "1/3", "2/3", "3/3", "solved"]);
}

/// burn's own layers: no activation quantizers, weights only.
#[derive(Module, Debug)]
struct Unmodified {
    fc1: Linear,
    fc2: Linear,
}

impl Unmodified {
    fn new(device: &Device) -> Self {
        let linear = |d_in, d_out| Linear { weight: Param::from_tensor(spread([d_in, d_out], device)), bias: None };
        Self { fc1: linear(16, 8), fc2: linear(8, 4) }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.fc2.forward(relu(self.fc1.forward(x)))
    }
}

#[test]
fn unmodified_models_are_scored_by_divergence_or_statistics() {
    let (_, device) = device();
    let config = AutoQuantizeConfig::new(9.0, [int4()]).with_batches(3, 3);
    let forward = |model: &Unmodified, x: &Tensor<2>| model.forward(x.clone());
    let by_gradient = auto_quantize(Unmodified::new(&device), &config, batches, forward, loss);
    assert!(matches!(by_gradient, Err(QuantError::NotScored { layer, .. }) if layer == "fc1"));

    let divergence = AutoQuantization::new(&config).by_divergence(Unmodified::new(&device), batches, forward);
    let (model, state) = divergence.unwrap();
    let scores: Vec<f64> = state.groups.iter().map(|group| group.choices[0].score.unwrap()).collect();
    assert!(scores.iter().all(|score| *score > 0.0), "{scores:?}");
    assert_eq!(Quantizers::of(&model).iter().filter(|(_, q)| q.is_enabled()).count(), 1, "the better half");

    let gram = AutoQuantization::new(&config).by_layer_error(Unmodified::new(&device), batches, forward);
    let (_, state) = gram.unwrap();
    // a layer without an activation quantizer is scored by its weight: ‖ΔW‖² / ‖W‖²
    let (quantized, _) = burn_quant::quantize_weights(Unmodified::new(&device), &int4().config).unwrap();
    let float = Unmodified::new(&device).fc1.weight.val();
    let change = values((quantized.fc1.weight.val() - float.clone()).powf_scalar(2.0).sum())[0];
    let expected = change / values(float.powf_scalar(2.0).sum())[0];
    assert_close(&[state.groups[0].choices[0].score.unwrap() as f32], &[expected], 1e-4, "relative error");
}

#[test]
fn statistics_tell_the_error_of_outputs() {
    // inputs that are normal in truth: the score is the relative error of the outputs on them, but for chance
    let (_, device) = device();
    device.seed(1);
    let data =
        |device: &Device| vec![Tensor::<2>::random([512, 16], burn::tensor::Distribution::Normal(0.0, 1.0), device)];
    let float = || QuantLinear::from(Linear { weight: Param::from_tensor(spread([16, 8], &device)), bias: None });
    let config = AutoQuantizeConfig::new(12.0, [int4(), int8()]).with_batches(1, 1);
    let forward = |layer: &QuantLinear, x: &Tensor<2>| layer.forward(x.clone());
    let (_, state) = AutoQuantization::new(&config).by_layer_error(float(), data, forward).unwrap();
    for format in ["int4", "int8"] {
        let layer = state.apply(float(), &state.uniform(format).unwrap()).unwrap();
        let x = data(&device).remove(0);
        let y = float().forward(x.clone());
        let error = values((layer.forward(x) - y.clone()).powf_scalar(2.0).mean())[0];
        let relative = error / values(y.powf_scalar(2.0).mean())[0];
        let score =
            state.groups[0].choices.iter().find(|c| c.format.as_deref() == Some(format)).unwrap().score.unwrap();
        let ratio = score as f32 / relative;
        assert!((0.8..1.25).contains(&ratio), "{format}: {score} of {relative}");
    }
}

/// Searches a model twice: every group has scores that follow the widths of steps, and the same ones again.
fn assert_scored<M: Module, const D: usize, const E: usize>(
    model: &M,
    x: fn(&Device) -> Tensor<D>,
    forward: impl Fn(&M, &Tensor<D>) -> Tensor<E>,
    groups: &[&str],
) {
    let config = AutoQuantizeConfig::new(16.0, [int4(), int8()]).with_batches(1, 1);
    let loss = |y: Tensor<E>, _: &Tensor<D>| y.powf_scalar(2.0).mean();
    let search = || auto_quantize(model.clone(), &config, |device| vec![x(device)], &forward, loss).unwrap().1;
    let state = search();
    assert_eq!(state.groups.iter().map(|group| group.name()).collect::<Vec<_>>(), groups);
    for group in &state.groups {
        let score = |format: &str| {
            let choice = group.choices.iter().find(|choice| choice.format.as_deref() == Some(format));
            choice.and_then(|choice| choice.score).unwrap_or_else(|| panic!("{}: no score of {format}", group.name()))
        };
        // Scores are squares of errors. The steps of 4 bits are 127 / 7 = 18 times as wide, so 330 times the score,
        // less because blocks of 16 have ranges of their own and because int8 rounds inputs too.
        let ratio = score("int4") / score("int8");
        assert!((10.0..500.0).contains(&ratio), "{}: int4 scores {ratio} times int8", group.name());
    }
    assert_eq!(search(), state, "dropout is off, and running statistics do not run");
}

#[test]
fn convolutions_are_scored_by_gradients() {
    #[derive(Module, Debug)]
    struct Convolutions {
        conv: quant::conv::Conv2d,
        norm: quant::BatchNorm,
        dropout: quant::Dropout,
        depthwise: quant::conv::Conv2d,
        transposed: quant::conv::ConvTranspose2d,
    }
    let (_, device) = device();
    device.seed(7);
    let model = Convolutions {
        conv: quant::conv::Conv2dConfig::new([1, 4], [3, 3]).init(&device),
        norm: quant::BatchNormConfig::new(4).init(&device),
        dropout: quant::DropoutConfig::new(0.5).init(),
        depthwise: quant::conv::Conv2dConfig::new([4, 4], [3, 3]).with_groups(4).init(&device),
        transposed: quant::conv::ConvTranspose2dConfig::new([4, 8], [2, 2]).init(&device),
    };
    let forward = |model: &Convolutions, x: &Tensor<4>| {
        let x = model.dropout.forward(model.norm.forward(model.conv.forward(x.clone())));
        model.transposed.forward(model.depthwise.forward(x))
    };
    assert_scored(&model, |device| spread([2, 1, 7, 7], device), forward, &["conv", "depthwise", "transposed"]);
}

#[test]
fn attention_and_gates_are_scored_by_gradients() {
    #[derive(Module, Debug)]
    struct Block {
        attention: quant::attention::MultiHeadAttention,
        swiglu: quant::SwiGlu,
    }
    let (_, device) = device();
    device.seed(7);
    let model = Block {
        attention: quant::attention::MultiHeadAttentionConfig::new(8, 2).init(&device),
        swiglu: quant::SwiGluConfig::new(8, 8).init(&device),
    };
    let forward = |model: &Block, x: &Tensor<3>| {
        model.swiglu.forward(model.attention.forward(quant::attention::MhaInput::self_attn(x.clone())).context)
    };
    let groups = ["attention.query", "attention.output", "swiglu.linear_inner", "swiglu.linear_outer"];
    assert_scored(&model, |device| spread([2, 5, 8], device), forward, &groups);
}

#[test]
fn recurrent_layers_are_scored_by_gradients() {
    let (_, device) = device();
    device.seed(7);
    let model = quant::LstmConfig::new(8, 8, true).init(&device);
    let forward = |model: &quant::Lstm, x: &Tensor<3>| model.forward(x.clone(), None).0;
    assert_scored(&model, |device| spread([2, 5, 8], device), forward, &["input_gate.input_transform"]);
}

#[test]
fn experts_share_a_format_and_count_as_often_as_tokens_read_them() {
    #[derive(Module, Debug)]
    struct Mixture {
        experts: Vec<QuantLinear>,
    }
    let (_, device) = device();
    let expert = |_| QuantLinear::from(LinearConfig::new(16, 4).init(&device));
    let model = Mixture { experts: (0..3).map(expert).collect() };
    let forward = |model: &Mixture, x: &Tensor<2>| model.experts[0].forward(x.clone());
    let mut config = AutoQuantizeConfig::new(16.0, [int8()]).with_batches(3, 3);
    let (_, state) = auto_quantize(model.clone(), &config, batches, forward, loss).unwrap();
    assert_eq!(state.groups.len(), 1, "experts of a layer share a format");
    config.groups.clear();
    config.active_expert_fraction = 0.25;
    let (_, state) = auto_quantize(model, &config, batches, forward, loss).unwrap();
    let scores: Vec<f64> = state.groups.iter().map(|group| group.choices[0].score.unwrap()).collect();
    assert!(scores[0] > 0.0 && scores[1..] == [scores[0]; 2], "experts without tokens are scored like the first");
    assert_eq!(state.groups[1].choices[1].cost, 64.0 * 16.0 / 4.0, "a quarter of the experts is read for a token");
}

#[test]
fn the_largest_score_can_be_minimised() {
    let (_, mut state) = search(&config(7.0)).unwrap();
    let sum = state.solve(7.0).unwrap();
    state.config.objective = Objective::Largest;
    let largest = state.solve(7.0).unwrap();
    let largest_of = |formats: &BTreeMap<String, Option<String>>| {
        let score = |group: &burn_quant::search::SearchGroup| {
            let j = group.choices.iter().position(|choice| choice.format == formats[group.name()]).unwrap();
            group.monotone_scores()[j]
        };
        state.groups.iter().map(score).max_by(f64::total_cmp).unwrap()
    };
    assert_eq!(largest.score, largest_of(&largest.formats));
    assert!(largest.score <= largest_of(&sum.formats) && largest.within_budget);
    assert!(matches!(state.solve(3.0), Err(QuantError::Infeasible { .. })));
}

#[test]
fn a_state_that_makes_no_sense_is_refused() {
    let (_, device) = device();
    let (_, state) = search(&config(8.0)).unwrap();
    let best = state.best.clone().unwrap();
    let refused = |change: &dyn Fn(&mut SearchState)| {
        let mut broken = state.clone();
        change(&mut broken);
        problem(broken.solve(8.0).and_then(|_| broken.apply(Mlp::new(&device), &best)))
    };
    assert!(refused(&|state| state.groups[0].choices[0].score = Some(f64::NAN)).contains("has the score NaN"));
    assert!(refused(&|state| state.groups[0].choices.clear()).contains("no choice"));
    assert!(refused(&|state| state.counted = 0.0).contains("counts 0 parameters"));
    assert!(refused(&|state| state.scored_batches = 0).contains("no scores yet"));
    assert!(refused(&|state| state.groups[0].units[0].shape = vec![4, 4]).contains("has the shape"));
    let first = |state: &mut SearchState, change: &dyn Fn(&mut Vec<f32>)| {
        let candidate = state.candidates.get_mut("int8").unwrap().get_mut("fc1.weight_quantizer").unwrap();
        change(candidate.quantizers.get_mut("fc1.weight_quantizer").unwrap().stages[0].get_mut("amax").unwrap());
    };
    assert!(refused(&|state| first(state, &|amax| amax.truncate(3))).contains("has 32 groups, then 3"));
    assert!(refused(&|state| first(state, &|amax| amax[0] = -1.0)).contains("saw a NaN or an infinity"));
}
