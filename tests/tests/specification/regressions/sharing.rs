//! What broke elsewhere where parts of a model are shared, called twice, searched or excluded.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::{DType, Device, Tensor};
use burn_quant::nn::QuantLinear;
use burn_quant::place::{Plan, Role};
use burn_quant::search::{AutoQuantization, AutoQuantizeConfig, SearchFormat, SearchGroup, SearchState, auto_quantize};
use burn_quant::{
    QuantConfig, QuantizerConfig, Quantizers, Rule, TensorQuantizer, fold_weights, presets, quantize, quantize_weights,
};
use burn_quant_store::{from_bytes, to_bytes};
use burn_quant_tests::device;

use crate::{assert_close, assert_same, spread, values};

fn linear<const IN: usize, const OUT: usize>(gain: f64, device: &Device) -> QuantLinear {
    Linear { weight: Param::from_tensor(spread([IN, OUT], device) * gain), bias: None }.into()
}

/// A body and a head that may be one parameter.
#[derive(Module, Debug)]
struct Net {
    body: QuantLinear,
    head: QuantLinear,
}

impl Net {
    fn forward(&self, x: &Tensor<2>) -> Tensor<2> {
        self.head.forward(self.body.forward(x.clone()).tanh())
    }
}

/// The head is the body's weight, and rules leave it in float: the weight stays one parameter under two names, of which
/// one is rounded, in a file too. Layers that happen to be equal stay two.
pub(super) fn t35() {
    let (_, device) = device();
    let body = linear::<8, 8>(0.3, &device);
    let tied = || Net { head: body.clone(), body: body.clone() };
    let equal = || Net { head: linear::<8, 8>(0.3, &device), body: linear::<8, 8>(0.3, &device) };
    let x = spread::<2>([4, 8], &device);
    let config = QuantConfig::new()
        .with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(4).per_channel()))
        .with_rule(Rule::disable("head.*"));
    for (what, one, net) in [("tied", true, tied()), ("equal", false, equal())] {
        let float = values(net.body.weight.val());
        let (quantized, report) = quantize_weights(net.clone(), &config).unwrap();
        assert_eq!(report.warnings, [], "{what}: no weight was changed");
        let restored = from_bytes(net.clone(), to_bytes(&quantized).unwrap()).unwrap();
        for (what, net) in [(what, &quantized), ("restored", &restored)] {
            assert_eq!(net.body.weight.id == net.head.weight.id, one, "{what}: one parameter, or two");
            assert_eq!(values(net.head.weight.val()), float, "{what}: the head is in float");
            assert_eq!(
                (values(net.body.weight.base()), values(net.head.weight.base())),
                (float.clone(), float.clone())
            );
            assert_ne!(values(net.body.weight.val()), float, "{what}: the body is rounded");
        }
        assert_same(&values(restored.forward(&x)), &values(quantized.forward(&x)), what);
        // rounded for good, the two are different, and no optimizer may take them for one
        let folded = fold_weights(quantized).unwrap();
        assert_ne!(values(folded.body.weight.val()), values(folded.head.weight.val()), "{what}");
        assert_ne!(folded.body.weight.id, folded.head.weight.id, "{what}: folded");
    }
}

/// A layer that a forward pass calls twice, and one whose two calls have a quantizer each.
#[derive(Module, Debug)]
struct Twice {
    shared: QuantLinear,
    first: TensorQuantizer,
    second: TensorQuantizer,
}

/// A range is that of all calls of its quantizer: 1 and 10 make 10. Two quantizers have one each.
pub(super) fn t37() {
    let (_, device) = device();
    let new = || TensorQuantizer::disabled(Role::ChannelsLast);
    let model = Twice { shared: linear::<4, 4>(1.0, &device), first: new(), second: new() };
    let of = |largest: f32| Tensor::<2>::from_data([[largest, -0.5 * largest, 0.0, 0.25 * largest]], &device);
    let rules = QuantConfig::new()
        .with_rule(Rule::set("shared.input_quantizer", QuantizerConfig::int(8)))
        .with_rule(Rule::set("{first,second}", QuantizerConfig::int(8)));
    for [a, b] in [[1.0, 10.0], [10.0, 1.0]] {
        let (model, report) = quantize(model.clone(), &rules, |model: &Twice| {
            model.shared.forward(of(a));
            model.shared.forward(of(b));
            model.first.forward(of(a));
            model.second.forward(of(b));
        })
        .unwrap();
        let range = |name: &str| values(Quantizers::of(&model).get(name).unwrap().amax().unwrap());
        assert_eq!(range("shared.input_quantizer"), [10.0]);
        assert_eq!(report.statistics.get("shared.input_quantizer").unwrap().calls, 2);
        assert_eq!((range("first"), range("second")), (vec![a], vec![b]));
    }
}

fn int(bits: u8) -> SearchFormat {
    let config = QuantConfig::new()
        .with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(bits).per_channel()))
        .with_rule(Rule::set("*input_quantizer", QuantizerConfig::int(8)));
    SearchFormat::new(format!("int{bits}"), config)
}

fn scores(group: &SearchGroup) -> Vec<f64> {
    let formats = group.choices.iter().filter(|choice| choice.format.is_some());
    formats.map(|choice| choice.score.unwrap()).collect()
}

/// Multiplying the loss by 1e20, or by 1e-20, multiplies scores by its square and changes no choice; in bf16 too, where
/// the factor is a power of two so that gradients are rounded alike.
pub(super) fn t38_overflow() {
    let (_, device) = device();
    let net = || Net { body: linear::<16, 16>(0.2, &device), head: linear::<16, 4>(0.1, &device) };
    let config = AutoQuantizeConfig::new(9.0, [int(4), int(8)]).with_batches(2, 2);
    let search = |net: Net, factor: f32, dtype: DType| -> SearchState {
        let data =
            |device: &Device| (1..=2).map(|i| spread([8, 16], device).cast(dtype) * i).collect::<Vec<Tensor<2>>>();
        let forward = |net: &Net, x: &Tensor<2>| net.forward(x);
        let loss = |y: Tensor<2>, _: &Tensor<2>| (y.clone() * y).cast(DType::F32).mean() * factor;
        auto_quantize(net, &config, data, forward, loss).unwrap().1
    };
    let plain = search(net(), 1.0, DType::F32);
    for factor in [1e20f32, 1e-20] {
        let scaled = search(net(), factor, DType::F32);
        for (group, expected) in scaled.groups.iter().zip(&plain.groups) {
            for (found, expected) in scores(group).into_iter().zip(scores(expected)) {
                let ratio = found / (expected * f64::from(factor) * f64::from(factor));
                assert!((ratio - 1.0).abs() < 1e-4, "{}: {found:e} for {expected:e}", group.name());
            }
        }
        let formats = |state: &SearchState| state.best.as_ref().unwrap().formats.clone();
        assert_eq!(formats(&scaled), formats(&plain), "{factor:e}");
    }
    if device.supports_dtype(DType::BF16) {
        let half = || Net { body: cast(net().body), head: cast(net().head) };
        let (plain, scaled) = (search(half(), 1.0, DType::BF16), search(half(), 2f32.powi(66), DType::BF16));
        for (group, expected) in scaled.groups.iter().zip(&plain.groups) {
            for (found, expected) in scores(group).into_iter().zip(scores(expected)) {
                let ratio = found / (expected * 2f64.powi(132));
                assert!((ratio - 1.0).abs() < 1e-4, "{}: {found:e} for {expected:e}", group.name());
            }
        }
    }
}

fn cast(layer: QuantLinear) -> QuantLinear {
    let weight = layer.weight.val().cast(DType::BF16);
    Linear { weight: Param::from_tensor(weight), bias: None }.into()
}

#[derive(Module, Debug)]
struct Mixture {
    experts: Vec<QuantLinear>,
    head: QuantLinear,
}

/// The last of three experts, each a group of its own, sees no token: it is scored like the most sensitive of its
/// siblings and not 0, which would give it the fewest bits; state and table name it.
pub(super) fn t38_experts() {
    let (_, device) = device();
    let model = || Mixture {
        experts: [0.1, 0.4, 0.2].map(|gain| linear::<16, 16>(gain, &device)).into(),
        head: linear::<16, 4>(0.1, &device),
    };
    let mut config = AutoQuantizeConfig::new(16.0, [int(4), int(8)]).with_batches(2, 2);
    config.groups.clear();
    let data = |device: &Device| vec![spread::<2>([8, 16], device), spread::<2>([8, 16], device) * 0.5];
    let forward = |model: &Mixture, x: &Tensor<2>| {
        model.head.forward(model.experts[0].forward(x.clone()) + model.experts[1].forward(x.clone()))
    };
    let loss = |y: Tensor<2>, _: &Tensor<2>| (y.clone() * y).mean();
    let (_, by_gradient) = auto_quantize(model(), &config, data, forward, loss).unwrap();
    let (_, by_divergence) = AutoQuantization::new(&config).by_divergence(model(), data, forward).unwrap();
    for state in [by_gradient, by_divergence] {
        let of = |name: &str| scores(state.groups.iter().find(|group| group.name() == name).unwrap());
        let (first, second, last) = (of("experts.0"), of("experts.1"), of("experts.2"));
        let largest: Vec<f64> = first.iter().zip(&second).map(|(a, b)| a.max(*b)).collect();
        assert_eq!(last, largest);
        assert!(last.iter().all(|score| *score > 0.0), "{last:?}");
        assert_eq!(state.unreached, ["experts.2"]);
        let table = state.table().to_string();
        assert!(table.ends_with("no batch reached `experts.2`: scored like their siblings"), "{table}");
        // where bits are short, the expert of which nothing is known is not the one that pays
        let tight = state.solve(state.bits_range().0 + 1.0).unwrap();
        let bits = |name: &str| tight.formats[name].clone();
        assert!(bits("experts.2") >= bits("experts.0").min(bits("experts.1")), "{tight:?}");
    }
}

/// A rule that comes later and leaves one layer out wins: on a preset, in recipes, in ModelOpt's, and in a search.
pub(super) fn t39() {
    let (_, device) = device();
    let net = || Net { body: linear::<16, 16>(0.2, &device), head: linear::<16, 4>(0.1, &device) };
    let x = spread::<2>([8, 16], &device);
    let preset = presets::int8_default().with_rule(Rule::disable("head.*"));
    let json = r#"{"preset": "int8_default", "rules": [{"quantizer": "head.*", "action": "disable"}]}"#;
    let toml = "preset = \"int8_default\"\n[[rules]]\nquantizer = \"head.*\"\naction = \"disable\"\n";
    let modelopt = r#"{"quant_cfg": [{"quantizer_name": "*", "enable": false},
        {"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 8, "axis": 0}},
        {"quantizer_name": "*input_quantizer", "cfg": {"num_bits": 8}},
        {"quantizer_name": "head.*", "enable": false}], "algorithm": "max"}"#;
    for (what, config) in [
        ("preset", preset.clone()),
        ("JSON", QuantConfig::from_json(json).unwrap()),
        ("TOML", QuantConfig::from_toml(toml).unwrap()),
        ("written and read", QuantConfig::from_json(&preset.to_json()).unwrap()),
        ("ModelOpt", QuantConfig::from_modelopt_json(modelopt).unwrap()),
    ] {
        let (model, _) = quantize(net(), &config, |net: &Net| drop(net.forward(&x))).unwrap();
        let plan = Plan::of(&model);
        let on: Vec<&str> =
            plan.quantizers.iter().filter(|(_, planned)| planned.enabled).map(|(name, _)| name.as_str()).collect();
        assert_eq!(on, ["body.input_quantizer", "body.weight_quantizer"], "{what}");
        let body = model.body.forward(x.clone()).tanh();
        assert_close(&values(model.forward(&x)), &values(net().head.forward(body)), 0.0, what);
    }
    // in a search: by a rule of the format, and by the search's own list
    let mut format = int(8);
    format.config = format.config.with_rule(Rule::disable("head.*"));
    let by_rule = AutoQuantizeConfig::new(16.0, [format]).with_batches(1, 1);
    let by_list = AutoQuantizeConfig::new(16.0, [int(8)]).with_batches(1, 1).keep_float("head");
    for config in [by_rule, by_list] {
        let data = |device: &Device| vec![spread::<2>([8, 16], device)];
        let forward = |net: &Net, x: &Tensor<2>| net.forward(x);
        let (_, state) = AutoQuantization::new(&config).by_layer_error(net(), data, forward).unwrap();
        let cheapest = state.solve(state.bits_range().0).unwrap();
        let head = cheapest.formats.get("head").cloned().flatten();
        assert_eq!((cheapest.formats["body"].as_deref(), head), (Some("int8"), None));
        let model = state.apply(net(), &cheapest).unwrap();
        assert_eq!(values(model.head.weight.val()), values(net().head.weight.val()));
    }
}
