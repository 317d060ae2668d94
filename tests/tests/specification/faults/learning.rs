//! Learned ranges as ModelOpt has them: one before rounding, one after.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Device, Tensor};
use burn_quant::config::{
    Action, BiasConfig, BlockScale, Format, GradientRule, Granularity, LearnedAmax, LearnedRanges, PreScale,
    ScaleFormat,
};
use burn_quant::error::{ImportProblem, InvalidConfig};
use burn_quant::nn::QuantLinear;
use burn_quant::place::Role;
use burn_quant::quantizer::Buffer;
use burn_quant::search::{AutoQuantization, AutoQuantizeConfig, SearchFormat};
use burn_quant::{
    Algorithm, QuantConfig, QuantError, QuantizerConfig, Quantizers, Rule, TensorQuantizer, fold_weights,
    quantize_weights, summary,
};
use burn_quant_store::{StoreError, from_bytes, search_from_bytes, search_to_bytes, to_bytes};
use burn_quant_tests::{device, device_without_kernel};

use crate::{assert_close, assert_same, spread, values};

/// Devices that record gradients: with kernels, under checkpointing, and without kernels.
fn recording() -> Vec<Device> {
    let (_, plain) = device();
    let with = [plain.clone().autodiff(), plain.autodiff().gradient_checkpointing()];
    with.into_iter().chain(device_without_kernel().map(Device::autodiff)).collect()
}

/// `y`, and the gradients of `Σ g·y` to `x` and to the ranges before and after rounding.
fn value_and_gradients<const N: usize>(
    config: &QuantizerConfig,
    x: [f32; N],
    g: [f32; N],
    buffers: &[(Buffer, &[f32])],
    device: &Device,
) -> [Vec<f32>; 4] {
    let mut quantizer = TensorQuantizer::new(config.clone(), Role::ChannelsLast);
    buffers.iter().for_each(|(buffer, data)| quantizer.set_buffer(*buffer, Tensor::from_data(*data, device)));
    let x = Tensor::<2>::from_data([x], device).require_grad();
    let y = quantizer.forward(x.clone());
    let gradients = (y.clone() * Tensor::<2>::from_data([g], device)).sum().backward();
    let of_range = |buffer| quantizer.buffer(buffer).unwrap().grad(&gradients).map_or(Vec::new(), values);
    let of_ranges = [Buffer::Amax, Buffer::AmaxPost].map(of_range);
    let [pre, post] = of_ranges;
    [values(y.without_autodiff()), values(x.grad(&gradients).unwrap()), pre, post]
}

/// Three bits, codes −4 to 3, s_pre = 1/2 and s_post = 2:
///
/// ```text
/// x / s_pre    1.2   −5   2.4   18   −3.8      beyond: −5 and 18
/// codes          1   −4     2    3     −4
/// ∂/∂s_post = Σ g·code                        = 1 − 8 + 6 + 12 − 20 = −9
/// ∂/∂s_pre  = −s_post / s_pre² · Σ g·x inside = −8 · (0.6 + 3.6 − 9.5) = 42.4
/// ∂/∂x      = g · s_post / s_pre inside       = 4g
/// ```
///
/// A range is hi = 3 scales.
pub(super) fn f32_scales() {
    let int3 = QuantizerConfig::int(3);
    let (x, g) = ([0.6, -2.5, 1.2, 9.0, -1.9], [1.0, 2.0, 3.0, 4.0, 5.0]);
    let ranges: [(Buffer, &[f32]); 2] = [(Buffer::Amax, &[1.5]), (Buffer::AmaxPost, &[6.0])];
    for device in recording() {
        let of = |learned| value_and_gradients(&int3.clone().lsq_with(learned), x, g, &ranges, &device);
        let both = of(LearnedRanges::pre_and_post());
        assert_same(&both[0], &[2.0, -8.0, 4.0, 6.0, -8.0], "y = code · s_post");
        assert_close(&both[1], &[4.0, 0.0, 12.0, 0.0, 20.0], 1e-6, "to x");
        assert_close(&both[2], &[42.4 / 3.0], 1e-6, "to the range before rounding");
        assert_close(&both[3], &[-9.0 / 3.0], 1e-6, "to the range after rounding");
        // the range that is not learned is a constant
        let (pre, post) = (of(LearnedRanges::pre()), of(LearnedRanges::post()));
        assert_eq!((pre[2].clone(), pre[3].clone()), (both[2].clone(), vec![]));
        assert_eq!((post[2].clone(), post[3].clone()), (vec![], both[3].clone()));
        assert_eq!([&pre[..2], &post[..2]], [&both[..2], &both[..2]]);
    }
    // one range for both has the sum of their gradients, without the factor of the paper: with s = 1/2 after rounding
    // too, ∂/∂s_pre = −(0.6 + 3.6 − 9.5) / s = 10.6, and ∂/∂s = 10.6 − 9
    let device = device().1.autodiff();
    let gradient = |config: QuantizerConfig| {
        let mut quantizer = TensorQuantizer::new(config, Role::ChannelsLast);
        quantizer.set_amax(Tensor::from_data([1.5], &device));
        let y = quantizer.forward(Tensor::<2>::from_data([x], &device)) * Tensor::<2>::from_data([g], &device);
        values(quantizer.amax().unwrap().grad(&y.sum().backward()).unwrap())
    };
    assert_close(&gradient(int3.clone().lsq_with(LearnedRanges::tied())), &[1.6 / 3.0], 1e-5, "tied");
    // the factor for 5 values of one example: hi² / √(5 · hi)
    let factor = 9.0 / 15f32.sqrt();
    assert_close(&gradient(int3.lsq()), &[1.6 / 3.0 * factor], 1e-5, "as in the paper");
}

/// NVFP4 in blocks of 2 with a range of the tensor of 6 · 448, so scales are E4M3 numbers up to T = 448, and not below
/// 448 / 512 = 0.875.
///
/// ```text
///            block 1                          block 2
/// s_pre      1.1 -> 1.125                     0.5 -> 0.875, no gradient
/// s_post     2.2 -> 2.25                      500 -> 448, no gradient
/// x / s_pre  0.89, 8.9 (beyond)               −1.14, 0.34
/// codes      1, 6                             −1, 0.5
/// ∂/∂s_post  1 + 6                            0
/// ∂/∂s_pre   −1 / 1.125² · 2.25               0
/// ```
///
/// With s_pre in f32: −1 / 1.1² · 2.25, and codes −2 and 0.5 of block 2 with −(−1 + 0.3) / 0.5² · 448.
pub(super) fn e4m3_scales() {
    let (x, g) = ([1.0, 10.0, -1.0, 0.3], [1.0; 4]);
    let ranges: [(Buffer, &[f32]); 3] =
        [(Buffer::Amax, &[6.6, 3.0]), (Buffer::GlobalAmax, &[2688.0]), (Buffer::AmaxPost, &[13.2, 3000.0])];
    let nvfp4 = QuantizerConfig::nvfp4_static().per_block(2);
    let both = LearnedRanges::pre_and_post();
    for device in recording() {
        let of = |learned| value_and_gradients(&nvfp4.clone().lsq_with(learned), x, g, &ranges, &device);
        let [y, dx, pre, post] = of(both);
        assert_same(&y, &[2.25, 13.5, -448.0, 224.0], "y = code · s_post");
        assert_close(&dx, &[2.0, 0.0, 512.0, 512.0], 1e-6, "to x");
        assert_close(&pre, &[-1.0 / (1.125 * 1.125) * 2.25 / 6.0, 0.0], 1e-6, "to the ranges before rounding");
        assert_close(&post, &[7.0 / 6.0, 0.0], 1e-6, "to the ranges after rounding");
        let [y, _, pre, post] = of(both.with_unrounded_pre_scale());
        assert_same(&y, &[2.25, 13.5, -896.0, 224.0], "y with an f32 scale before rounding");
        assert_close(&pre, &[-1.0 / 1.21 * 2.25 / 6.0, 0.7 * 4.0 * 448.0 / 6.0], 1e-6, "the f32 scale");
        assert_close(&post, &[7.0 / 6.0, 0.0], 1e-6, "unchanged");
    }
    // as calibrated, both ranges are one, and the quantizer is the one without learned ranges
    let (_, device) = device();
    let calibrated = |config: QuantizerConfig| {
        let quantizer = TensorQuantizer::new(config, Role::ChannelsLast);
        let x = spread::<2>([3, 32], &device);
        values(quantizer.calibrated_max(&x).forward(x))
    };
    let nvfp4 = QuantizerConfig::nvfp4_static();
    for learned in [LearnedRanges::post(), both, LearnedRanges::tied()] {
        let found = calibrated(nvfp4.clone().lsq_with(learned));
        assert_close(&found, &calibrated(nvfp4.clone()), 1e-6, "as calibrated");
    }
}

fn linear(learned: LearnedRanges, device: &Device) -> QuantLinear {
    let layer: QuantLinear = Linear { weight: Param::from_tensor(spread([16, 4], device)), bias: None }.into();
    let weights = QuantizerConfig::int(4).per_block(8).lsq_with(learned);
    let config = QuantConfig::new().with_rule(Rule::set("weight_quantizer", weights));
    quantize_weights(layer, &config).unwrap().0
}

fn range(layer: &QuantLinear, buffer: Buffer) -> Vec<f32> {
    let quantizer = Quantizers::of(layer).get("weight_quantizer").unwrap().clone();
    values(quantizer.buffer(buffer).unwrap().without_autodiff())
}

fn step(layer: QuantLinear, rate: f64, device: &Device) -> QuantLinear {
    let x = spread::<2>([3, 16], device).require_grad(); // so that a frozen model has a gradient
    let gradients = layer.forward(x).powi_scalar(2).sum().backward();
    let gradients = GradientsParams::from_grads(gradients, &layer);
    SgdConfig::new().init().step(rate, layer, gradients)
}

/// One step of SGD: both ranges begin as the calibrated one, and only what is learned moves, on to positive values.
pub(super) fn trained() {
    let device = device().1.autodiff();
    for (learned, moves) in [
        (LearnedRanges::default(), [false, true]),
        (LearnedRanges::pre(), [true, false]),
        (LearnedRanges::pre_and_post(), [true, true]),
    ] {
        let what = format!("{learned:?}");
        let before = linear(learned, &device);
        let calibrated = range(&before, Buffer::Amax);
        assert_eq!(range(&before, Buffer::AmaxPost), calibrated, "{what}");
        let after = step(before, 1e-3, &device);
        let moved = [Buffer::Amax, Buffer::AmaxPost].map(|buffer| range(&after, buffer) != calibrated);
        assert_eq!(moved, moves, "{what}");
        let far = step(after.clone(), 1e6, &device);
        for buffer in [Buffer::Amax, Buffer::AmaxPost] {
            assert!(range(&far, buffer).iter().all(|range| *range > 0.0 && range.is_finite()), "{what} {buffer:?}");
        }
        // a copy for validation computes the same, and training goes on from it
        let x = spread::<2>([2, 16], &device);
        let valid = after.valid();
        assert_same(&values(valid.forward(x.clone().without_autodiff())), &values(after.forward(x)), &what);
        let resumed = step(valid.train(), 1e-3, &device);
        let moved = [Buffer::Amax, Buffer::AmaxPost].map(|buffer| range(&resumed, buffer) != range(&after, buffer));
        assert_eq!(moved, moves, "{what}, after validation");
        // what is frozen stays
        let frozen = step(after.clone().no_grad(), 1e-3, &device);
        for buffer in [Buffer::Amax, Buffer::AmaxPost] {
            assert_eq!(range(&frozen, buffer), range(&after, buffer), "{what}, frozen {buffer:?}");
        }
    }
}

pub(super) fn saved_and_folded() {
    let device = device().1.autodiff();
    let trained = step(linear(LearnedRanges::post(), &device), 1e-3, &device);
    let (pre, post) = (range(&trained, Buffer::Amax), range(&trained, Buffer::AmaxPost));
    assert_ne!(pre, post);

    // from a file, and trained on: the range after rounding is still the one that moves
    let fresh =
        || -> QuantLinear { Linear { weight: Param::from_tensor(Tensor::zeros([16, 4], &device)), bias: None }.into() };
    let restored = from_bytes(fresh(), to_bytes(&trained).unwrap()).unwrap();
    assert_eq!((range(&restored, Buffer::Amax), range(&restored, Buffer::AmaxPost)), (pre.clone(), post.clone()));
    assert_same(&values(restored.weight.val()), &values(trained.weight.val()), "restored");
    let further = step(restored, 1e-3, &device);
    assert_eq!(range(&further, Buffer::Amax), pre);
    assert_ne!(range(&further, Buffer::AmaxPost), post);
    let text = summary(&trained).to_string();
    assert!(text.contains(" -> "), "both ranges: {text}");

    // a file without the second range, or with one of another length, is refused
    let changed = |change: &dyn Fn(&mut TensorQuantizer)| {
        let mut quantizers = Quantizers::of(&trained);
        change(quantizers.get_mut("weight_quantizer").unwrap());
        from_bytes(fresh(), to_bytes(&quantizers.install(trained.clone()).unwrap()).unwrap()).unwrap_err()
    };
    let missing = changed(&|quantizer| quantizer.clear_buffer(Buffer::AmaxPost));
    assert!(matches!(&missing, StoreError::MissingRange { name } if name == "weight_quantizer"), "{missing}");
    let longer = changed(&|quantizer| quantizer.set_buffer(Buffer::AmaxPost, Tensor::ones([9], &device)));
    let at = "weight.weight_quantizer.amax_post";
    assert!(matches!(&longer, StoreError::Shape { path, .. } if path == at), "{longer}");

    // a folded weight is codes times the scale after rounding, so it is packed without loss by that range
    let folded = fold_weights(trained.clone()).unwrap();
    assert_same(&values(folded.weight.val()), &values(trained.weight.val()), "folded");
    let mut packing = TensorQuantizer::new(
        QuantizerConfig::int(4).per_block(8),
        Quantizers::of(&trained).get("weight_quantizer").unwrap().role(),
    );
    packing.set_amax(Tensor::from_data(post.as_slice(), &device));
    let packed = values(packing.forward(folded.weight.val()).without_autodiff());
    assert_close(&packed, &values(folded.weight.val().without_autodiff()), 1e-6, "packed");

    // a range that was there is where both begin, and of two there is none to go on with
    let mut quantizer = TensorQuantizer::new(QuantizerConfig::int(4), Role::ChannelsLast);
    quantizer.set_amax(Tensor::from_data([1.5f32], &device));
    quantizer.set_config(QuantizerConfig::int(4).lsq_with(LearnedRanges::post()));
    let ranges = |quantizer: &TensorQuantizer| {
        [Buffer::Amax, Buffer::AmaxPost].map(|buffer| quantizer.buffer(buffer).map(|x| values(x.without_autodiff())))
    };
    assert_eq!(ranges(&quantizer), [Some(vec![1.5]), Some(vec![1.5])]);
    quantizer.set_config(QuantizerConfig::int(4).lsq_with(LearnedRanges::pre_and_post()));
    assert_eq!(ranges(&quantizer), [Some(vec![1.5]), Some(vec![1.5])], "learned otherwise, and kept");
    quantizer.clear_buffer(Buffer::AmaxPost);
    assert!(quantizer.is_uncalibrated());
    quantizer.set_config(QuantizerConfig::int(4));
    assert_eq!(ranges(&quantizer), [None, None]);
}

/// A search keeps both ranges, through a file too.
pub(super) fn searched() {
    let (_, device) = device();
    let weights = QuantizerConfig::int(4).per_block(8).lsq_with(LearnedRanges::post());
    let format = QuantConfig::new().with_rule(Rule::set("*weight_quantizer", weights));
    let config = AutoQuantizeConfig::new(8.0, [SearchFormat::new("int4 lsq", format)]);
    let layer: QuantLinear = Linear { weight: Param::from_tensor(spread([16, 4], &device)), bias: None }.into();
    let data = |device: &Device| vec![spread::<2>([3, 16], device)];
    let search = AutoQuantization::new(&config);
    let (found, state) = search.by_divergence(layer.clone(), data, |layer, x| layer.forward(x.clone())).unwrap();
    assert_eq!(range(&found, Buffer::AmaxPost), range(&found, Buffer::Amax));
    let read = search_from_bytes(search_to_bytes(&state).unwrap()).unwrap();
    assert_eq!(read, state);
    let (resumed, _) = AutoQuantization::new(&config)
        .with_state(read)
        .by_divergence(layer, data, |layer, x| layer.forward(x.clone()))
        .unwrap();
    assert_eq!(range(&resumed, Buffer::AmaxPost), range(&found, Buffer::AmaxPost));
}

pub(super) fn configured() {
    let post = LearnedRanges::post();
    let four_over_six = ScaleFormat::E4M3(BlockScale::StaticFourOverSix);
    let int4 = QuantizerConfig::int(4);
    for (config, expected) in [
        (int4.clone().dynamic().lsq_with(post), InvalidConfig::NoRangeToLearn),
        (int4.clone().constant(1.0).lsq_with(post), InvalidConfig::NoRangeToLearn),
        (QuantizerConfig::mxint8().lsq_with(post), InvalidConfig::NoRangeToLearn),
        (int4.clone().with_bias(BiasConfig::new(Granularity::PerTensor)).lsq_with(post), InvalidConfig::NoRangeToLearn),
        (int4.clone().lsq_with(post).pact(), InvalidConfig::LearnedRangesWithoutLsq),
        (int4.clone().lsq_with(post.with_unrounded_pre_scale()), InvalidConfig::UnroundedPreScale),
        (
            QuantizerConfig::nvfp4().lsq_with(post),
            InvalidConfig::LearnedRangesOfScale { format: Format::E2M1, scale: ScaleFormat::E4M3(BlockScale::Dynamic) },
        ),
        (
            QuantizerConfig::nvfp4_static().with_scale(four_over_six).lsq_with(post),
            InvalidConfig::LearnedRangesOfScale { format: Format::E2M1, scale: four_over_six },
        ),
    ] {
        assert_eq!(config.validate(), Err(expected), "{config:?}");
    }
    // a recipe says so in a word, and recipes without learned ranges are written as before
    for (config, written) in [
        (int4.clone().lsq(), r#"{"format":"int4","gradient":"lsq"}"#),
        (int4.clone().lsq_with(post), r#"{"format":"int4","gradient":"lsq","learned_ranges":{"learned":"post"}}"#),
        (
            QuantizerConfig::nvfp4_static().lsq_with(LearnedRanges::tied().with_unrounded_pre_scale()),
            r#"{"format":"nvfp4 static","gradient":"lsq","learned_ranges":{"learned":"tied","pre_scale":"unrounded"}}"#,
        ),
    ] {
        assert_eq!(config.validate(), Ok(()));
        assert_eq!(serde_json::to_string(&config).unwrap(), written);
        assert_eq!(serde_json::from_str::<QuantizerConfig>(written).unwrap(), config);
    }
    let short = r#"{"format":"int4","gradient":"lsq","learned_ranges":{}}"#;
    assert_eq!(serde_json::from_str::<QuantizerConfig>(short).unwrap(), int4.lsq_with(post), "ModelOpt's default");
}

/// The quantizers of weights and inputs in ModelOpt's configuration with this algorithm, and the algorithm.
fn modelopt(weights: &str, algorithm: &str) -> Result<([QuantizerConfig; 2], Algorithm), ImportProblem> {
    let weights = format!(r#"{{"quantizer_name": "*weight_quantizer", "cfg": {weights}}}"#);
    let inputs = r#"{"quantizer_name": "*input_quantizer", "cfg": {"num_bits": 8}}"#;
    let json = format!(r#"{{"quant_cfg": [{weights}, {inputs}], "algorithm": {algorithm}}}"#);
    let config = match QuantConfig::from_modelopt_json(&json) {
        Ok(config) => config,
        Err(QuantError::ModelOpt { problem, .. }) => return Err(problem),
        Err(other) => panic!("an error of reading: {other}"),
    };
    let set = |rule: usize| match &config.rules[rule].action {
        Action::Set(config) => QuantizerConfig::clone(config),
        other => panic!("{other:?}"),
    };
    Ok(([set(0), set(1)], config.algorithm))
}

pub(super) fn imported() {
    let int4 = r#"{"num_bits": 4, "block_sizes": {"-1": 16}}"#;
    let nvfp4 = |kind: &str| {
        format!(r#"{{"num_bits": [2, 1], "block_sizes": {{"-1": 16, "type": "{kind}", "scale_bits": [4, 3]}}}}"#)
    };
    let lsq = |options: &str| format!(r#"{{"method": "lsq", "scale_algorithm": {{"method": "max"}}, {options}}}"#);
    let learned = |algorithm: &str| {
        let ([weights, inputs], start) = modelopt(int4, algorithm).unwrap();
        assert_eq!((inputs.learned_ranges, inputs.gradient), (None, GradientRule::PassThrough), "weights only");
        let rule = if weights.learned_ranges.is_some() { GradientRule::Lsq } else { GradientRule::PassThrough };
        assert_eq!(weights.gradient, rule);
        (weights.learned_ranges, start)
    };
    // by its name: the range after rounding, from the least squared error
    let (ranges, start) = learned(r#""lsq""#);
    assert_eq!(ranges, Some(LearnedRanges::post()));
    assert!(matches!(start, Algorithm::Mse(_)), "{start:?}");
    for (options, expected) in [
        (r#""learnable_amax": ["post"]"#, Some(LearnedRanges::post())),
        (r#""learnable_amax": "pre""#, Some(LearnedRanges::pre())),
        (r#""learnable_amax": ["post", "pre"], "tied_amax": false"#, Some(LearnedRanges::pre_and_post())),
        (r#""learnable_amax": ["pre", "post"], "tied_amax": true"#, Some(LearnedRanges::tied())),
        (r#""learnable_amax": [], "tied_amax": true"#, None),
        (r#""quantize_pre_scale": false"#, Some(LearnedRanges::post())), // f32 scales are not rounded anyway
    ] {
        assert_eq!(learned(&lsq(options)), (expected, Algorithm::Max), "{options}");
    }
    let unrounded = lsq(r#""learnable_amax": ["pre", "post"], "quantize_pre_scale": false"#);
    let ([weights, _], _) = modelopt(&nvfp4("static"), &unrounded).unwrap();
    let expected = LearnedRanges { learned: LearnedAmax::PreAndPost, pre_scale: PreScale::Unrounded };
    assert_eq!(weights, QuantizerConfig::nvfp4_static().lsq_with(expected));
    // block scales from the data are not learned, there or here
    let ([weights, _], _) = modelopt(&nvfp4("dynamic"), &unrounded).unwrap();
    assert_eq!(weights, QuantizerConfig::nvfp4());

    // one range for both is learned for both; and what is not a range is named
    for options in [r#""tied_amax": true"#, r#""learnable_amax": ["pre", "middle"]"#, r#""learnable_amax": [1]"#] {
        let refused = modelopt(int4, &lsq(options)).unwrap_err();
        assert!(matches!(refused, ImportProblem::Value { .. }), "{options}: {refused}");
    }
}
