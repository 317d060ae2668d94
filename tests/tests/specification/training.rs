//! Quantization-aware training beyond the straight-through gradient: ranges that are learned, observed again, and
//! switched.

use burn::module::{Module, Param};
use burn::nn::LinearConfig;
use burn::optim::{AdamConfig, GradientsParams, SgdConfig};
use burn::tensor::{Device, Tensor};
use burn_quant::calibrate::{calibrate, observe};
use burn_quant::error::InvalidConfig;
use burn_quant::nn::QuantLinear;
use burn_quant::place::{Plan, install_plan};
use burn_quant::train::Distillation;
use burn_quant::{
    Algorithm, QuantConfig, QuantError, QuantizerConfig, Quantizers, Rule, disable, quantize, quantize_weights,
};
use burn_quant_tests::device;

use crate::{assert_close, spread, values};

fn layer(device: &Device) -> QuantLinear {
    let layer = LinearConfig::new(6, 4).with_bias(false).init(device);
    let weight = Param::from_tensor(spread([6, 4], device));
    burn::nn::Linear { weight, ..layer }.into()
}

fn config(quantizer: impl Fn() -> QuantizerConfig) -> QuantConfig {
    QuantConfig::new()
        .with_rule(Rule::set("weight_quantizer", quantizer()))
        .with_rule(Rule::set("input_quantizer", quantizer()))
}

fn calibrated(device: &Device, config: &QuantConfig) -> QuantLinear {
    quantize(layer(device), config, |layer| drop(layer.forward(spread::<2>([5, 6], device)))).unwrap().0
}

fn amax(layer: &QuantLinear, name: &str) -> Vec<f32> {
    values(Quantizers::of(layer).get(name).unwrap().amax().unwrap().without_autodiff())
}

fn step(layer: QuantLinear, device: &Device, rate: f64) -> QuantLinear {
    let mut optimizer = SgdConfig::new().init();
    let x = spread::<2>([5, 6], device).require_grad(); // there is something to record even if all is frozen
    let loss = layer.forward(x).powi_scalar(2).mean();
    let gradients = GradientsParams::from_grads(loss.backward(), &layer);
    optimizer.step(rate, layer, gradients)
}

/// Twice the mean magnitude by the square root of the highest code, 3: Esser et al., §2.1.
#[test]
fn learned_ranges_begin_with_the_mean_magnitude() {
    let (_, device) = device();
    let config = config(|| QuantizerConfig::int(3).lsq()).with_algorithm(Algorithm::LsqInit);
    let layer = calibrated(&device, &config);
    let expected = |x: Vec<f32>| 2.0 * x.iter().map(|x| x.abs()).sum::<f32>() / x.len() as f32 * 3f32.sqrt();
    let weight = expected(values(spread([6, 4], &device)));
    let input = expected(values(spread([5, 6], &device)));
    assert_close(&amax(&layer, "weight_quantizer"), &[weight], 1e-6, "weight");
    assert_close(&amax(&layer, "input_quantizer"), &[input], 1e-6, "input");

    let per_channel = QuantConfig::new()
        .with_rule(Rule::set("weight_quantizer", QuantizerConfig::int(3).per_channel().lsq()))
        .with_algorithm(Algorithm::LsqInit);
    let (layer, _) = quantize_weights(self::layer(&device), &per_channel).unwrap();
    let columns = values(spread::<2>([6, 4], &device).transpose());
    let expected: Vec<f32> = columns.chunks(6).map(|column| expected(column.to_vec())).collect();
    assert_close(&amax(&layer, "weight_quantizer"), &expected, 1e-6, "channels of a weight, without data");
}

#[test]
fn an_image_begins_with_the_mean_magnitude_of_all_its_values() {
    use burn::nn::conv::Conv2dConfig;
    use burn_quant::nn::conv::QuantConv2d;

    let (_, device) = device();
    let images = spread::<4>([2, 3, 4, 5], &device);
    let layer: QuantConv2d = Conv2dConfig::new([3, 2], [3, 3]).init(&device).into();
    let config = config(|| QuantizerConfig::int(2).lsq()).with_algorithm(Algorithm::LsqInit);
    let (layer, _) = quantize(layer, &config, |layer| drop(layer.forward(images.clone()))).unwrap();
    let images = values(images);
    let mean = images.iter().map(|x| x.abs()).sum::<f32>() / images.len() as f32;
    let amax = values(Quantizers::of(&layer).get("input_quantizer").unwrap().amax().unwrap());
    assert_close(&amax, &[2.0 * mean], 1e-6, "the highest code is 1");
}

/// One step of plain gradient descent moves a step size as the paper says: by rate · gradient / √(N · hi).
#[test]
fn a_learned_range_moves_as_a_step_size_with_the_papers_gradient_scale() {
    let (_, plain) = device();
    let device = plain.autodiff();
    let rule = Rule::set("weight_quantizer", QuantizerConfig::int(3).lsq());
    let config = QuantConfig::new().with_rule(rule).with_algorithm(Algorithm::LsqInit);
    let (layer, _) = quantize_weights(self::layer(&device), &config).unwrap();
    let before = amax(&layer, "weight_quantizer")[0];

    // the gradient of the step size by hand: loss = mean((x q)²), q = round(w / s) s
    let s = before / 3.0;
    let w = values(layer.weight.base().without_autodiff());
    let x = spread::<2>([5, 6], &device).without_autodiff();
    let q: Vec<f32> = w.iter().map(|w| (w / s).round_ties_even().clamp(-4.0, 3.0) * s).collect();
    let q = Tensor::<1>::from_data(q.as_slice(), &x.device()).reshape([6, 4]);
    let upstream = values(x.clone().transpose().matmul(x.matmul(q.clone())) * (2.0 / 20.0));
    let derivative = w.iter().zip(values(q)).map(|(w, q)| {
        let code = w / s;
        if (-4.0..=3.0).contains(&code) { q / s - code } else { q / s }
    });
    let gradient: f32 = derivative.zip(upstream).map(|(d, u)| d * u).sum();

    let rate = 0.01;
    let after = amax(&step(layer, &device, rate), "weight_quantizer")[0];
    let expected = s - rate as f32 * gradient / (24f32 * 3.0).sqrt();
    assert_close(&[after / 3.0], &[expected], 1e-5, "the step size");
    assert_ne!(after, before);
}

#[test]
fn learned_ranges_are_trained_frozen_recorded_and_kept_positive() {
    let (_, plain) = device();
    let device = plain.autodiff();
    for quantizer in [QuantizerConfig::int(3).lsq(), QuantizerConfig::int(3).pact()] {
        let layer = calibrated(&device, &config(|| quantizer.clone()));
        let mut quantizers = Quantizers::of(&layer);
        quantizers.iter_mut().filter(|(_, q)| q.is_enabled()).for_each(|(_, q)| {
            q.set_amax(Tensor::from_data([1.0], &device)); // values are up to 2: some are beyond
        });
        let layer = quantizers.install(layer).unwrap();
        let before = [amax(&layer, "weight_quantizer"), amax(&layer, "input_quantizer")];
        let trained = step(layer.clone(), &device, 0.1);
        let after = [amax(&trained, "weight_quantizer"), amax(&trained, "input_quantizer")];
        assert!(before[0] != after[0] && before[1] != after[1], "{before:?} {after:?}");
        let frozen = step(layer.clone().freeze(), &device, 0.1);
        assert_eq!([amax(&frozen, "weight_quantizer"), amax(&frozen, "input_quantizer")], before, "frozen");
        let thrown = step(layer.clone(), &device, 1e6);
        assert!(amax(&thrown, "weight_quantizer")[0] > 0.0, "a range that is thrown beyond zero comes back");

        let again = layer.clone().load_record(trained.clone().into_record());
        assert_eq!(amax(&again, "input_quantizer"), after[1], "from a record");
        let moved = step(again.valid().train(), &device, 0.1);
        assert_ne!(amax(&moved, "input_quantizer"), after[1], "trained on after validation");
    }
}

#[test]
fn only_static_ranges_with_f32_scales_are_learned() {
    let (_, device) = device();
    let refused = [
        QuantizerConfig::int(8).dynamic().lsq(),
        QuantizerConfig::int(8).constant(1.0).pact(),
        QuantizerConfig::nvfp4().lsq(),
    ];
    for quantizer in refused {
        let config = QuantConfig::new().with_rule(Rule::set("weight_quantizer", quantizer));
        let problem = quantize_weights(layer(&device), &config).unwrap_err();
        assert!(matches!(problem, QuantError::Config { problem: InvalidConfig::NoRangeToLearn, .. }), "{problem}");
    }
}

#[test]
fn learning_three_bit_ranges_fits_better_than_training_under_fixed_ones() {
    let (_, plain) = device();
    let device = plain.autodiff();
    let x = spread::<2>([32, 6], &device).detach();
    let target = (x.clone().matmul(spread::<2>([6, 4], &device) * 1.3 + 0.2)).detach();
    let error = |quantizer: fn() -> QuantizerConfig, algorithm: Algorithm| {
        let mut layer = calibrated(&device, &config(quantizer).with_algorithm(algorithm));
        let mut optimizer = AdamConfig::new().init();
        for _ in 0..200 {
            let loss = (layer.forward(x.clone()) - target.clone()).powi_scalar(2).mean();
            let gradients = GradientsParams::from_grads(loss.backward(), &layer);
            layer = optimizer.step(0.02, layer, gradients);
        }
        values((layer.forward(x.clone()) - target.clone()).powi_scalar(2).mean().without_autodiff())[0]
    };
    let fixed = error(|| QuantizerConfig::int(3), Algorithm::Max);
    let learned = error(|| QuantizerConfig::int(3).lsq(), Algorithm::LsqInit);
    assert!(learned < 0.9 * fixed, "learned {learned}, fixed {fixed}");
}

#[test]
fn ranges_can_be_observed_again_and_quantizers_come_back_after_a_start_in_float() {
    let (_, plain) = device();
    let device = plain.autodiff();
    let layer = calibrated(&device, &config(|| QuantizerConfig::int(8)));
    let (plan, before) = (Plan::of(&layer), amax(&layer, "weight_quantizer"));

    let float = disable(layer, "*").unwrap();
    let x = spread::<2>([5, 6], &device);
    assert_eq!(
        values(float.forward(x.clone())),
        values(float.to_burn().unwrap().forward(x.clone())),
        "a start in float"
    );
    let trained = step(float, &device, 0.5);

    let layer = install_plan(trained, &plan).unwrap();
    assert!(layer.input_quantizer.is_enabled());
    assert_eq!(amax(&layer, "weight_quantizer"), before, "ranges are as they were");
    let statistics =
        observe(&layer, &Algorithm::Max, |layer| drop(layer.forward(x.clone().without_autodiff()))).unwrap();
    let (layer, _) = calibrate(layer, &statistics, &Algorithm::Max).unwrap();
    let largest = values(layer.weight.base().without_autodiff()).iter().fold(0f32, |a, w| a.max(w.abs()));
    assert_eq!(amax(&layer, "weight_quantizer"), [largest], "and now those of the trained weight");
}

/// `T² Σ p log(p / q)`, the mean of two examples, and its gradient `T (q − p) / examples`.
#[test]
fn distillation_is_the_divergence_at_a_temperature_and_teaches_the_student_alone() {
    let (_, plain) = device();
    let device = plain.autodiff();
    let (s, t, temperature) = ([[1.0f32, 2.0, 0.5], [0.0, 0.0, 3.0]], [[2.0f32, 0.0, 1.0], [0.0, 0.0, 3.0]], 2.0f32);
    let softmax = |row: [f32; 3]| {
        let e = row.map(|x| (x / temperature).exp());
        e.map(|x| x / e.iter().sum::<f32>())
    };
    let divergence = |i: usize| -> f32 { softmax(t[i]).iter().zip(softmax(s[i])).map(|(p, q)| p * (p / q).ln()).sum() };
    let expected = 4.0 * (divergence(0) + divergence(1)) / 2.0;

    let student = Tensor::<2>::from_data(s, &device).require_grad();
    let teacher = Tensor::<2>::from_data(t, &device).require_grad();
    let loss = Distillation::new(2.0).loss(student.clone(), teacher.clone());
    assert_close(&values(loss.clone().without_autodiff()), &[expected], 1e-6, "loss");
    let gradients = loss.backward();
    let gradient: Vec<f32> = (0..2)
        .flat_map(|i| {
            softmax(s[i]).into_iter().zip(softmax(t[i])).map(|(q, p)| temperature * (q - p) / 2.0).collect::<Vec<_>>()
        })
        .collect();
    assert_close(&values(student.grad(&gradients).unwrap()), &gradient, 1e-5, "gradient");
    assert!(teacher.grad(&gradients).is_none());

    let task = Tensor::<1>::from_data([10.0], &plain_of(&device));
    let both = Distillation::new(2.0).with_weight(0.25).with_task(
        student.without_autodiff(),
        teacher.without_autodiff(),
        task,
    );
    assert_close(&values(both), &[0.25 * expected + 7.5], 1e-6, "with the task");
}

fn plain_of(device: &Device) -> Device {
    Tensor::<1>::zeros([1], device).without_autodiff().device()
}

/// Only the factors move; the layer computes `Q(W) + A · B`, in the file and folded too.
#[test]
fn factors_of_low_rank_are_trained_over_a_frozen_quantized_weight() {
    use burn_quant::fold_weights;
    use burn_quant::quantizer::Buffer;
    use burn_quant::train::QuantLora;

    let (_, plain) = device();
    let device = plain.autodiff();
    let int4 = QuantConfig::new().with_rule(Rule::set("weight_quantizer", QuantizerConfig::int(4).per_channel()));
    let (quantized, _) = quantize_weights(layer(&device), &int4).unwrap();
    let adapted = QuantLora::new(2).adapt(quantized.clone()).unwrap();
    let x = spread::<2>([5, 6], &device);
    let outputs = |layer: &QuantLinear| values(layer.forward(x.clone()).without_autodiff());
    assert_eq!(outputs(&adapted), outputs(&quantized), "the second factor begins with zeros");

    let factors = |layer: &QuantLinear| {
        let quantizers = Quantizers::of(layer);
        let factor = |buffer| values(quantizers.get("weight_quantizer").unwrap().buffer(buffer).unwrap());
        [factor(Buffer::LowRankDown), factor(Buffer::LowRankUp)]
    };
    let trained = step(step(adapted.clone(), &device, 0.1), &device, 0.1); // the first step moves the zeros only
    assert_eq!(factors(&trained).each_ref().map(Vec::len), [6 * 2, 2 * 4]);
    assert!(factors(&trained).iter().zip(&factors(&adapted)).all(|(after, before)| after != before));
    assert_eq!(values(trained.weight.base().without_autodiff()), values(quantized.weight.base().without_autodiff()));
    assert_eq!(amax(&trained, "weight_quantizer"), amax(&quantized, "weight_quantizer"));
    let [down, up] = factors(&trained);
    let rounded = values(quantized.weight.val().without_autodiff());
    let expected: Vec<f32> =
        (0..24).map(|i| rounded[i] + (0..2).map(|r| down[i / 4 * 2 + r] * up[r * 4 + i % 4]).sum::<f32>()).collect();
    assert_close(&values(trained.weight.val().without_autodiff()), &expected, 1e-6, "Q(W) + A · B");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("adapted.bpk");
    burn_quant_store::save(&trained, &path).unwrap();
    let restored = burn_quant_store::restore(layer(&device), &path).unwrap();
    assert_eq!(outputs(&restored), outputs(&trained), "from a file");
    assert_ne!(factors(&step(restored, &device, 0.1)), factors(&trained), "trained on");
    let folded = fold_weights(trained.clone()).unwrap();
    assert_eq!(outputs(&folded), outputs(&trained), "folded");

    let none = QuantLora::new(2).with_pattern("head.*").adapt(trained.clone()).unwrap_err();
    assert!(matches!(none, QuantError::NoMatch { pattern, .. } if pattern == "head.*"));
    let float = QuantLora::new(2).adapt(layer(&device)).unwrap_err();
    assert!(matches!(float, QuantError::NoMatch { .. }), "nothing is quantized");
}

#[test]
fn weights_in_half_precision_are_trained_and_their_ranges_stay_f32() {
    use burn::tensor::DType;

    let (_, plain) = device();
    let device = plain.autodiff();
    for dtype in [DType::F16, DType::BF16] {
        if !device.supports_dtype(dtype) {
            continue;
        }
        let float = layer(&device);
        let weight = Param::from_tensor(float.weight.val().cast(dtype).detach());
        let float: QuantLinear = burn::nn::Linear { weight, bias: None }.into();
        let config = config(|| QuantizerConfig::int(3).lsq()).with_algorithm(Algorithm::LsqInit);
        let x = spread::<2>([5, 6], &device).cast(dtype);
        let (quantized, _) = quantize(float, &config, |layer| drop(layer.forward(x.clone()))).unwrap();
        let loss = quantized.forward(x.clone()).powi_scalar(2).mean();
        let gradients = GradientsParams::from_grads(loss.backward(), &quantized);
        let trained = SgdConfig::new().init().step(0.1, quantized.clone(), gradients);
        assert_eq!(trained.weight.base().dtype(), dtype);
        let range = Quantizers::of(&trained).get("weight_quantizer").unwrap().amax().unwrap();
        assert_eq!(range.dtype(), DType::F32);
        assert_ne!(amax(&trained, "weight_quantizer"), amax(&quantized, "weight_quantizer"), "{dtype:?}");
        assert_ne!(
            values(trained.weight.base().without_autodiff()),
            values(quantized.weight.base().without_autodiff()),
            "{dtype:?}"
        );
    }
}
