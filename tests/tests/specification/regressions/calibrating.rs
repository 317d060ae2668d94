//! What broke in the calibration of other toolkits: experts without tokens, siblings, norms, shards of the data.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Tensor};
use burn_quant::calibrate::{ModelStatistics, SkipReason, Warning, calibrate, observe};
use burn_quant::config::SiblingScales;
use burn_quant::nn::QuantLinear;
use burn_quant::place::place;
use burn_quant::quantizer::Buffer;
use burn_quant::search::{AutoQuantization, AutoQuantizeConfig, SearchFormat, SearchState};
use burn_quant::{
    Algorithm, QuantConfig, QuantizerConfig, Quantizers, Rule, TensorQuantizer, disable, fold_weights, presets,
    quantize, quantize_weights, summary,
};
use burn_quant_tests::device;

use crate::{assert_close, assert_same, spread, values};

/// A layer whose weights are spread up to 2, times a gain.
fn linear<const IN: usize, const OUT: usize>(gain: f64, device: &Device) -> QuantLinear {
    Linear { weight: Param::from_tensor(spread([IN, OUT], device) * gain), bias: None }.into()
}

fn buffer<M: Module>(model: &M, quantizer: &str, buffer: Buffer) -> Vec<f32> {
    values(Quantizers::of(model).get(quantizer).unwrap().buffer(buffer).unwrap_or_else(|| panic!("{quantizer}")))
}

/// A dynamic-block quantizer that saw only zeros: calibration names it, and what comes later is still a number.
pub(super) fn t02() {
    let (_, device) = device();
    let zeros = Tensor::<2>::zeros([3, 32], &device);
    let config = presets::nvfp4_default();
    let (layer, report) =
        quantize(linear::<32, 4>(1.0, &device), &config, |layer| drop(layer.forward(zeros.clone()))).unwrap();
    assert_eq!(report.warnings, [Warning::OnlyZeros { quantizer: "input_quantizer".into() }]);
    assert_eq!(buffer(&layer, "input_quantizer", Buffer::Amax), [0.0]);
    // the scale of the tensor that is stored for it
    let scale = burn_quant::ops::numerics::packed::nvfp4::tensor_scale(0.0);
    assert_eq!(scale, 1.0, "positive and finite");
    assert_eq!(values(layer.forward(zeros)), [0.0; 12]);
    let y = values(layer.forward(spread([3, 32], &device)));
    assert!(y.iter().all(|y| y.is_finite()), "{y:?}");
}

#[derive(Module, Debug)]
struct Mixture {
    experts: Vec<QuantLinear>,
}

fn mixture(device: &Device) -> Mixture {
    Mixture { experts: (1..=4).map(|i| linear::<16, 8>(0.25 * i as f64, device)).collect() }
}

/// Four experts, and all tokens go to the first: each of the others has a range of its own weights and the range of the
/// first one's inputs, its input quantizer is on, its weights are unchanged, and the report names the three.
pub(super) fn t20() {
    let (_, device) = device();
    let rules = QuantConfig::new()
        .with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(4).per_block(8)))
        .with_rule(Rule::set("*input_quantizer", QuantizerConfig::int(8)));
    let x = spread::<2>([32, 16], &device);
    let run = |model: &Mixture| drop(model.experts[0].forward(x.clone()));
    for algorithm in [Algorithm::awq_lite(), Algorithm::awq_full()] {
        let name = algorithm.name().to_string();
        let float = mixture(&device);
        let (model, report) = quantize(float.clone(), &rules.clone().with_algorithm(algorithm), run).unwrap();
        let seen = report.statistics.get("experts.0.input_quantizer").unwrap().amax.clone();
        for (i, (expert, float)) in model.experts.iter().zip(&float.experts).enumerate().skip(1) {
            let blocks = values(float.weight.val().reshape([2, 8, 8]).abs().max_dim(1));
            let weight = format!("experts.{i}.weight_quantizer");
            assert_eq!(buffer(&model, &weight, Buffer::Amax), blocks, "{name}");
            assert!(expert.input_quantizer.is_enabled(), "{name}");
            assert_eq!(values(expert.input_quantizer.amax().unwrap()), seen, "{name}");
            assert_eq!(values(expert.weight.base()), values(float.weight.val()), "{name}");
        }
        let all = |layer: &&burn_quant::calibrate::LayerReport, reason: SkipReason| {
            layer.steps.iter().all(|step| step.skipped == Some(reason.clone()))
        };
        let layers: Vec<&str> = report
            .layers
            .iter()
            .filter(|layer| !layer.layer.ends_with("quantizer") && all(layer, SkipReason::NoData))
            .map(|layer| layer.layer.as_str())
            .collect();
        assert_eq!(layers, ["experts.1", "experts.2", "experts.3"], "{name}");
        let inputs = report.layers.iter().filter(|layer| all(layer, SkipReason::NoTokens));
        assert_eq!(inputs.count(), 3, "{name}: ranges that are borrowed");
    }
}

#[derive(Module, Debug)]
struct Gated {
    gate_proj: QuantLinear,
    up_proj: QuantLinear,
}

#[derive(Module, Debug)]
struct GatedExperts {
    experts: Vec<Gated>,
}

/// Weights of 16 inputs and 4 outputs whose largest magnitude is exactly `amax`.
fn up_to(amax: f32, device: &Device) -> QuantLinear {
    let weight = spread::<2>([16, 4], device) * (0.4 * amax);
    Linear { weight: Param::from_tensor(weight.slice_fill([0..1, 0..1], amax)), bias: None }.into()
}

/// Gate and up projection become one product when deployed, under one scale of the tensor: that of the larger. An
/// expert without tokens has the same. Dynamic blocks keep the range of their own tensor, as in ModelOpt, where the
/// exporter joins them.
pub(super) fn t21() {
    let (_, device) = device();
    let expert = || Gated { gate_proj: up_to(1.0, &device), up_proj: up_to(4.0, &device) };
    let x = spread::<2>([32, 16], &device);
    let run = |model: &GatedExperts| {
        model.experts[0].gate_proj.forward(x.clone());
        model.experts[0].up_proj.forward(x.clone());
    };
    let rules = QuantConfig::new().with_rule(Rule::set("*weight_quantizer", QuantizerConfig::nvfp4_static()));
    let mse = Algorithm::Mse(burn_quant::config::RangeSearch::E4m3Scales);
    for algorithm in [Algorithm::Max, mse, Algorithm::gptq()] {
        let name = algorithm.name().to_string();
        let config = rules.clone().with_algorithm(algorithm);
        let (model, _) = quantize(GatedExperts { experts: vec![expert(), expert()] }, &config, run).unwrap();
        for layer in ["experts.0.gate_proj", "experts.0.up_proj", "experts.1.gate_proj", "experts.1.up_proj"] {
            let found = buffer(&model, &format!("{layer}.weight_quantizer"), Buffer::GlobalAmax);
            assert_eq!(found, [4.0], "{name}: {layer}");
        }
    }
    // dynamic blocks: the range that is kept is that of the tensor
    let dynamic = QuantConfig::new().with_rule(Rule::set("*weight_quantizer", QuantizerConfig::nvfp4()));
    let (model, _) = quantize(GatedExperts { experts: vec![expert()] }, &dynamic, run).unwrap();
    let own = |layer: &str| buffer(&model, &format!("experts.0.{layer}.weight_quantizer"), Buffer::Amax);
    assert_eq!((own("gate_proj"), own("up_proj")), (vec![1.0], vec![4.0]));
    // smoothing moves the ranges of both, and they stay equal
    let config = rules.with_algorithm(Algorithm::awq_lite());
    let (model, _) = quantize(GatedExperts { experts: vec![expert(), expert()] }, &config, run).unwrap();
    for expert in ["experts.0", "experts.1"] {
        let of = |layer: &str| buffer(&model, &format!("{expert}.{layer}.weight_quantizer"), Buffer::GlobalAmax);
        assert_eq!(of("gate_proj"), of("up_proj"), "{expert}");
        assert!(of("up_proj")[0] > 0.0, "{expert}");
    }
}

#[derive(Module, Debug)]
struct Projections {
    q_proj: QuantLinear,
    k_proj: QuantLinear,
    v_proj: Option<QuantLinear>,
}

impl Projections {
    fn forward(&self, x: &Tensor<2>) -> Vec<f32> {
        let layers = [Some(&self.q_proj), Some(&self.k_proj), self.v_proj.as_ref()];
        layers.into_iter().flatten().flat_map(|layer| values(layer.forward(x.clone()))).collect()
    }
}

/// Queries and keys are smoothed together where values are switched off, or not there: with all quantizers off the
/// model computes what it computed before.
pub(super) fn t23() {
    let (_, device) = device();
    let gain: Vec<f32> = (0..16).map(|c| if c == 5 { 50.0 } else { 1.0 }).collect();
    let x = spread::<2>([32, 16], &device) * Tensor::<1>::from_data(gain.as_slice(), &device).unsqueeze();
    let awq = Algorithm::AwqLite { alpha_step: 0.1, sharing: SiblingScales::Shared, identity: Default::default() };
    let smooth = Algorithm::SmoothQuant { alpha: 0.5, sharing: SiblingScales::Shared };
    for algorithm in [smooth, awq] {
        for v_proj in [Some(linear::<16, 8>(0.3, &device)), None] {
            let float =
                Projections { q_proj: linear::<16, 8>(0.1, &device), k_proj: linear::<16, 8>(0.2, &device), v_proj };
            let what = format!("{}, values: {}", algorithm.name(), float.v_proj.is_some());
            let config = presets::int8_default()
                .with_rule(Rule::disable("v_proj.*").optional())
                .with_algorithm(algorithm.clone());
            let (model, _) = quantize(float.clone(), &config, |model: &Projections| drop(model.forward(&x))).unwrap();
            let scale = |layer: &QuantLinear| layer.input_quantizer.buffer(Buffer::PreQuantScale).map(values);
            assert_eq!(scale(&model.q_proj), scale(&model.k_proj), "{what}: one scale for both");
            assert!(scale(&model.q_proj).is_some_and(|scale| scale.iter().any(|s| *s != 1.0)), "{what}: smoothed");
            if let (Some(v), Some(before)) = (&model.v_proj, &float.v_proj) {
                assert_eq!(scale(v), None, "{what}");
                assert_eq!(values(v.weight.val()), values(before.weight.val()), "{what}");
            }
            let off = disable(model, "*").unwrap();
            assert_close(&off.forward(&x), &float.forward(&x), 1e-5, &what);
        }
    }
}

/// A norm whose gain is `1 + w`, as some models have it: no type of burn's, and nothing may be folded into it.
#[derive(Module, Debug)]
struct CentredNorm {
    weight: Param<Tensor<1>>,
}

#[derive(Module, Debug)]
struct Block {
    norm: CentredNorm,
    fc: QuantLinear,
}

impl Block {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let scale = (x.clone() * x.clone()).mean_dim(1).sqrt();
        self.fc.forward(x / scale * (self.norm.weight.val() + 1.0).unsqueeze())
    }
}

/// Smoothing goes into the layer and its own scale: a norm before it keeps its weight to the bit, and the model its
/// outputs, folded too.
pub(super) fn t24() {
    let (_, device) = device();
    let float = Block {
        norm: CentredNorm { weight: Param::from_tensor(spread([16], &device)) },
        fc: linear::<16, 8>(0.5, &device),
    };
    let x = spread::<2>([32, 16], &device);
    for algorithm in [Algorithm::smoothquant(0.5), Algorithm::awq_lite()] {
        let name = algorithm.name().to_string();
        let config = presets::int8_default().with_algorithm(algorithm);
        let (model, _) = quantize(float.clone(), &config, |model| drop(model.forward(x.clone()))).unwrap();
        assert!(model.fc.input_quantizer.buffer(Buffer::PreQuantScale).is_some(), "{name}: smoothed");
        let off = disable(model, "*").unwrap();
        let folded = fold_weights(off.clone()).unwrap();
        for (what, model) in [("switched off", off), ("folded", folded)] {
            assert_same(&values(model.norm.weight.val()), &values(float.norm.weight.val()), &format!("{name}, {what}"));
            let (y, expected) = (values(model.forward(x.clone())), values(float.forward(x.clone())));
            assert_close(&y, &expected, 1e-5, &format!("{name}, {what}"));
        }
    }
}

/// A search shows the float model to the user's loop, whatever its formats do to weights; and a channel without inputs
/// and without weights gets scales that are numbers.
pub(super) fn t25() {
    let (_, device) = device();
    let float = Projections {
        q_proj: linear::<16, 8>(0.1, &device),
        k_proj: linear::<16, 8>(0.2, &device),
        v_proj: Some(linear::<16, 8>(0.3, &device)),
    };
    let weights = |model: &Projections| {
        let layers = [Some(&model.q_proj), Some(&model.k_proj), model.v_proj.as_ref()];
        layers
            .into_iter()
            .flatten()
            .flat_map(|layer| values(layer.weight.base().without_autodiff()))
            .collect::<Vec<_>>()
    };
    let before = weights(&float);
    let format = |name: &str, algorithm| SearchFormat::new(name, presets::int8_default().with_algorithm(algorithm));
    let formats = [format("smooth", Algorithm::smoothquant(0.5)), format("awq", Algorithm::awq_full())];
    let config = AutoQuantizeConfig::new(16.0, formats).with_batches(2, 2);
    let data = |device: &Device| vec![spread::<2>([8, 16], device), spread::<2>([8, 16], device) * 0.5];
    let forward = |model: &Projections, x: &Tensor<2>| {
        assert_eq!(weights(model), before, "calibration and scoring see the float weights");
        let layers = [Some(&model.q_proj), Some(&model.k_proj), model.v_proj.as_ref()];
        let outputs = layers.into_iter().flatten().map(|layer| layer.forward(x.clone()));
        outputs.reduce(|a, b| a + b).unwrap()
    };
    let mut saved = 0;
    let search = AutoQuantization::new(&config).with_checkpoint(|state| {
        saved += 1;
        assert_eq!(state.model, SearchState::fingerprint(&float, &state.groups));
        Ok(())
    });
    let loss = |y: Tensor<2>, _: &Tensor<2>| (y.clone() * y).mean();
    let (_, state) = search.by_gradient(float.clone(), data, forward, loss).unwrap();
    assert_eq!(saved, 2);
    let smoothed = state.apply(float.clone(), &state.uniform("smooth").unwrap()).unwrap();
    assert_ne!(weights(&smoothed), before, "a format that smooths, once it is chosen");

    // the third channel has neither inputs nor weights, the fourth no inputs, the fifth no weights
    let mut dead = linear::<16, 8>(0.3, &device);
    dead.weight = dead.weight.clone().map(|w| w.slice_fill([2..3, 0..8], 0.0).slice_fill([4..5, 0..8], 0.0));
    let x = spread::<2>([32, 16], &device).slice_fill([0..32, 2..4], 0.0);
    for algorithm in [Algorithm::smoothquant(0.5), Algorithm::smoothquant(1.0), Algorithm::awq_lite()] {
        let name = algorithm.name().to_string();
        let config = presets::int8_default().with_algorithm(algorithm);
        let (layer, _) = quantize(dead.clone(), &config, |layer| drop(layer.forward(x.clone()))).unwrap();
        let scale = values(layer.input_quantizer.buffer(Buffer::PreQuantScale).expect("it is smoothed"));
        assert!(scale.iter().all(|s| *s > 0.0 && s.is_finite()), "{name}: {scale:?}");
        assert!(values(layer.forward(x.clone())).iter().all(|y| y.is_finite()), "{name}");
    }
}

/// Blocks of 64 and of 128 are different models in training, before a step and after it, and the summary tells them
/// apart.
pub(super) fn t31() {
    let device = device().1.autodiff();
    let x = spread::<2>([4, 256], &device);
    let trained = |size: usize| {
        let rule = Rule::set("weight_quantizer", QuantizerConfig::int(4).per_block(size));
        let (layer, _) = quantize_weights(linear::<256, 8>(1.0, &device), &QuantConfig::new().with_rule(rule)).unwrap();
        let ranges = buffer(&layer, "weight_quantizer", Buffer::Amax).len();
        let (before, table) = (values(layer.forward(x.clone()).without_autodiff()), summary(&layer).to_string());
        let gradients = layer.forward(x.clone()).powi_scalar(2).mean().backward();
        let gradients = GradientsParams::from_grads(gradients, &layer);
        let layer = SgdConfig::new().init().step(1e-3, layer, gradients);
        (ranges, table, before, values(layer.forward(x.clone()).without_autodiff()))
    };
    let (fine, coarse) = (trained(64), trained(128));
    assert_eq!((fine.0, coarse.0), (8 * 256 / 64, 8 * 256 / 128));
    assert!(fine.1.contains("int4    block 64 "), "{}", fine.1);
    assert!(coarse.1.contains("int4    block 128 "), "{}", coarse.1);
    assert_ne!(fine.2, coarse.2);
    assert_ne!(fine.3, coarse.3);
    assert_ne!(fine.2, fine.3, "it is trained");
}

/// A range is that of all batches: of 1 and 10 it is 10, whichever comes first.
pub(super) fn t32() {
    let (_, device) = device();
    let x = spread::<2>([4, 16], &device);
    let largest = values(x.clone().abs().max())[0];
    for gains in [[1.0, 10.0], [10.0, 1.0]] {
        let run = |layer: &QuantLinear| gains.iter().for_each(|gain| drop(layer.forward(x.clone() * *gain)));
        let (layer, report) = quantize(linear::<16, 8>(1.0, &device), &presets::int8_default(), run).unwrap();
        assert_eq!(buffer(&layer, "input_quantizer", Buffer::Amax), [10.0 * largest], "{gains:?}");
        assert_eq!(report.statistics.get("input_quantizer").unwrap().calls, 2);
    }
}

/// Two shards of the data, one of which has no token for the last expert: merged, in either order, they are worth what
/// one process sees. All numbers are small integers, so that sums do not depend on their order.
pub(super) fn t33() {
    let (_, device) = device();
    let integers = |rows: usize, offset: usize| {
        let numbers: Vec<f32> = (0..16 * rows).map(|i| ((i * 7 + offset) % 11) as f32 - 5.0).collect();
        Tensor::<1>::from_data(numbers.as_slice(), &device).reshape([rows, 16])
    };
    let first = |model: &Mixture| model.experts.iter().for_each(|expert| drop(expert.forward(integers(8, 1))));
    let second = |model: &Mixture| model.experts[..3].iter().for_each(|expert| drop(expert.forward(integers(6, 4))));
    let rules = QuantConfig::new()
        .with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(4).per_block(8)))
        .with_rule(Rule::set("*input_quantizer", QuantizerConfig::int(8)));
    let (placed, _) = place(mixture(&device), &rules, &Default::default()).unwrap();
    for algorithm in [Algorithm::Max, Algorithm::percentile(99.0), Algorithm::awq_lite(), Algorithm::gptq()] {
        let name = algorithm.name().to_string();
        let seen = |run: &dyn Fn(&Mixture)| observe(&placed, &algorithm, run).unwrap();
        let alone = seen(&|model: &Mixture| {
            first(model);
            second(model);
        });
        let quantizers = |seen: &ModelStatistics| {
            let (model, _) = calibrate(placed.clone(), seen, &algorithm).unwrap();
            let of = |(name, quantizer): (&str, &TensorQuantizer)| {
                let kept = Buffer::ALL.map(|buffer| quantizer.buffer(buffer).map(values));
                (name.to_string(), quantizer.is_enabled(), kept)
            };
            let weights: Vec<Vec<f32>> = model.experts.iter().map(|expert| values(expert.weight.base())).collect();
            (Quantizers::of(&model).iter().map(of).collect::<Vec<_>>(), weights)
        };
        let expected = quantizers(&alone);
        let (a, b) = (seen(&first), seen(&second));
        assert!(b.get("experts.3.input_quantizer").is_none(), "{name}: the second shard has nothing for it");
        for (what, merged) in [("first", a.clone().merge(b.clone())), ("second", b.merge(a))] {
            let merged = merged.unwrap();
            assert_eq!(merged.len(), alone.len(), "{name}: no layer is lost, {what} shard first");
            assert_eq!(merged.get("experts.3.input_quantizer").unwrap().calls, 1);
            assert_eq!(quantizers(&merged), expected, "{name}: {what} shard first");
        }
    }
}
