//! The attributes of a quantizer: formats with scales of their own, biases, rotations, chains, constant ranges.

use burn::module::Module;
use burn::nn::LinearConfig;
use burn::tensor::{DType, Device, Tensor};
use burn_quant::calibrate::observe;
use burn_quant::config::{AxisGroups, BiasConfig, BlockScale, Format, Granularity, RangeSource, Rotation, ScaleFormat};
use burn_quant::error::InvalidConfig;
use burn_quant::nn::{self, QuantLinear};
use burn_quant::ops::numerics::{Grid, IntFormat, Minifloat, TwoLevel};
use burn_quant::place::Role;
use burn_quant::quantizer::Buffer;
use burn_quant::{
    Algorithm, QuantConfig, QuantError, QuantizerConfig, Quantizers, Rule, TensorQuantizer, fold_weights, quantize,
    quantize_weights, summary,
};
use burn_quant_tests::{device, devices};

use crate::{assert_same, spread, values};

fn tensor<const D: usize>(values: &[f32], shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::<1>::from_data(values, device).reshape(shape)
}

fn quantizer(config: QuantizerConfig) -> TensorQuantizer {
    TensorQuantizer::new(config, Role::ChannelsLast)
}

/// A quantizer that saw batches.
fn calibrated<const D: usize>(config: QuantizerConfig, batches: &[Tensor<D>]) -> TensorQuantizer {
    #[derive(Module, Debug)]
    struct Probe {
        quantizer: TensorQuantizer,
    }
    let probe = Probe { quantizer: TensorQuantizer::disabled(Role::ChannelsLast) };
    let config = QuantConfig::new().with_rule(Rule::set("quantizer", config));
    let (probe, _) = quantize(probe, &config, |probe| {
        batches.iter().for_each(|batch| drop(probe.quantizer.forward(batch.clone())));
    })
    .unwrap();
    probe.quantizer
}

#[test]
fn mx_blocks_need_no_calibration_and_follow_the_reference_vector() {
    for (name, device) in devices() {
        let b = [0.11, -0.27, 0.52, 0.9, -1.3, 2.2, -3.7, 5.1];
        let x = tensor(&b, [1, 8], &device);
        let y = |format| values(quantizer(QuantizerConfig::mx(format)).forward(x.clone()));
        assert_same(&y(Format::E2M1), &[0.0, -0.5, 0.5, 1.0, -1.5, 2.0, -4.0, 6.0], &name);
        assert_same(&y(Format::E3M2), &[0.109375, -0.25, 0.5, 0.875, -1.25, 2.0, -3.5, 5.0], &name);
        assert_same(&y(Format::E4M3), &[0.109375, -0.28125, 0.5, 0.875, -1.25, 2.25, -3.75, 5.0], &name);
        let int8 = values(quantizer(QuantizerConfig::mxint8()).forward(x.clone()));
        assert_same(&int8, &[0.125, -0.25, 0.5, 0.875, -1.3125, 2.1875, -3.6875, 5.125], &name);
    }
}

#[test]
fn nvfp4_calibrates_the_range_of_the_tensor_and_static_nvfp4_that_of_blocks_too() {
    let (name, device) = device();
    let batch = tensor(&[0.11, -0.27, 0.52, 0.9, -1.3, 2.2, -3.7, 5.1], [1, 8], &device);
    let activation = calibrated(QuantizerConfig::nvfp4(), &[batch.clone() * 0.5, batch.clone()]);
    assert_eq!(values(activation.amax().unwrap()), [5.1]);
    let y = values(activation.forward(batch.clone()));
    assert_same(&y, &[0.0, -0.5, 0.5, 1.0, -1.5, 3.0, -4.0, 6.0].map(|code| code * 0.85), name); // 5.1 / 6

    // a weight [in, out] of two columns, blocks of 2 along `in`
    let layer = || -> QuantLinear {
        let mut layer: QuantLinear = LinearConfig::new(4, 2).init(&device).into();
        let weight = tensor(&[3.0, 0.5, -6.0, 0.25, 1.0, 12.0, 0.5, -2.0], [4, 2], &device);
        layer.weight = burn::module::Param::from_tensor(weight);
        layer
    };
    let config = QuantizerConfig { granularity: Granularity::Block { size: 2 }, ..QuantizerConfig::nvfp4_static() };
    let rules = QuantConfig::new().with_rule(Rule::set("weight_quantizer", config));
    let (layer, _) = quantize_weights(layer(), &rules).unwrap();
    let quantizers = Quantizers::of(&layer);
    let quantizer = quantizers.get("weight_quantizer").unwrap();
    assert_eq!(values(quantizer.amax().unwrap()), [6.0, 0.5, 1.0, 12.0]); // by `in`, then by `out`
    assert_eq!(values(quantizer.buffer(Buffer::GlobalAmax).unwrap()), [12.0]);
    let grid = TwoLevel::new(Minifloat::E2M1, BlockScale::Static, 12.0);
    let fq = |x: f32, amax: f32| grid.fake_quant(x, grid.scale(amax));
    let expected = [fq(3.0, 6.0), fq(0.5, 0.5), fq(-6.0, 6.0), fq(0.25, 0.5)];
    assert_same(&values(layer.weight.val())[..4], &expected, name);
}

#[test]
fn a_bias_centres_what_is_rounded_and_its_range() {
    let (name, device) = device();
    // two tokens with three channels around 10, -4 and 0
    let batches = [
        tensor(&[11.0, -3.0, 0.5, 9.0, -5.0, -0.5], [2, 3], &device),
        tensor(&[12.0, -4.0, 0.25, 8.0, -4.0, -0.25], [2, 3], &device),
    ];
    for method in [BiasConfig::new(Granularity::PerChannel), BiasConfig::new(Granularity::PerChannel).max_min()] {
        let quantizer = calibrated(QuantizerConfig::int(4).with_bias(method), &batches);
        assert_eq!(values(quantizer.buffer(Buffer::Bias).unwrap()), [10.0, -4.0, 0.0]);
        assert_eq!(values(quantizer.amax().unwrap()), [2.0]);
        // steps of 2/7 around each bias
        let y = values(quantizer.forward(batches[0].clone()));
        let grid = IntFormat::signed(4).unwrap().grid();
        let expected = [(1.0, 10.0), (1.0, -4.0), (0.5, 0.0), (-1.0, 10.0), (-1.0, -4.0), (-0.5, 0.0)];
        assert_same(&y, &expected.map(|(x, bias)| grid.fake_quant(x, grid.scale(2.0)) + bias), name);
    }
    // per token, from every tensor anew: nothing to calibrate
    let dynamic = BiasConfig::new(Granularity::PerToken).max_min().dynamic();
    let config = QuantizerConfig::int(8).per_token().dynamic().with_bias(dynamic);
    let y = values(self::quantizer(config).forward(tensor(&[1.0, 2.0, 3.0, -7.0, -7.0, -5.0], [2, 3], &device)));
    assert_same(&y, &[1.0, 2.0, 3.0, -7.0, -7.0, -5.0], name); // ends and middle of each token are codes
}

#[test]
fn the_bias_of_nvfp4_keys_is_used() {
    let (name, device) = device();
    let x = spread([2, 2, 4, 16], &device) + 3.0;
    use AxisGroups::{Each, Whole};
    let bias = BiasConfig::new(Granularity::Axes(vec![Whole, Each, Whole, Each]));
    let plain = calibrated(QuantizerConfig::nvfp4(), std::slice::from_ref(&x));
    let affine = calibrated(QuantizerConfig::nvfp4().with_bias(bias), std::slice::from_ref(&x));
    assert_eq!(values(affine.buffer(Buffer::Bias).unwrap()).len(), 2 * 16);
    let error =
        |quantizer: &TensorQuantizer| -> f32 { values((quantizer.forward(x.clone()) - x.clone()).abs().mean())[0] };
    // values lie between 1 and 5, biases around 3: what is left to round is half as large
    assert!(error(&affine) < 0.7 * error(&plain), "{name}: {} of {}", error(&affine), error(&plain));
}

#[test]
fn statistics_of_a_bias_merge_in_any_order() {
    let (_, device) = device();
    let batches: Vec<Tensor<2>> = (0..4).map(|i| spread([3, 5], &device) * (i as f32 + 0.5) + 1.0).collect();
    let layer: QuantLinear = LinearConfig::new(5, 2).init(&device).into();
    let bias = BiasConfig::new(Granularity::PerChannel).max_min();
    let rules = QuantConfig::new().with_rule(Rule::set("input_quantizer", QuantizerConfig::int(8).with_bias(bias)));
    let (layer, report) = quantize(layer, &rules, |layer| {
        batches.iter().for_each(|batch| drop(layer.forward(batch.clone())));
    })
    .unwrap();
    let shard = |range: std::ops::Range<usize>| {
        let run =
            |layer: &QuantLinear| batches[range.clone()].iter().for_each(|batch| drop(layer.forward(batch.clone())));
        observe(&layer, &Algorithm::Max, run).unwrap()
    };
    let merged = shard(2..4).merge(shard(0..2)).unwrap();
    let (found, expected) = (merged.get("input_quantizer").unwrap(), report.statistics.get("input_quantizer").unwrap());
    let bias = |seen: &burn_quant::calibrate::Statistics| seen.bias.clone().unwrap();
    assert_eq!((bias(found).lowest, bias(found).highest), (bias(expected).lowest, bias(expected).highest));
    let json = serde_json::to_string(&merged).unwrap();
    assert_eq!(serde_json::from_str::<burn_quant::calibrate::ModelStatistics>(&json).unwrap(), merged);
}

#[test]
fn a_chain_quantizes_one_after_the_other_and_calibrates_each_stage_on_what_comes_in() {
    for (name, device) in devices() {
        let x = spread([8, 6], &device);
        let config = QuantizerConfig::int(4).per_channel().then(QuantizerConfig::e4m3());
        let rules = QuantConfig::new().with_rule(Rule::set("weight_quantizer", config));
        let mut layer: QuantLinear = LinearConfig::new(8, 6).init(&device).into();
        layer.weight = burn::module::Param::from_tensor(x.clone());
        let (layer, report) = quantize_weights(layer, &rules).unwrap();
        let largest = values(x.clone()).into_iter().fold(0f32, |a, x| a.max(x.abs()));
        assert_eq!(report.statistics.get("weight_quantizer").unwrap().amax.len(), 6);
        assert_eq!(report.statistics.get("weight_quantizer.1").unwrap().amax, [largest]);

        let alone = |config, amax: Tensor<1>| {
            let mut quantizer = TensorQuantizer::new(config, Role::ChannelsLast);
            quantizer.set_amax(amax);
            quantizer
        };
        let amax = Quantizers::of(&layer).get("weight_quantizer").unwrap().amax().unwrap();
        let first = alone(QuantizerConfig::int(4).per_channel(), amax).forward(x.clone());
        let second = alone(QuantizerConfig::e4m3(), Tensor::from_data([largest], &device)).forward(first);
        assert_same(&values(layer.weight.val()), &values(second), &name);
        let folded = fold_weights(layer.clone()).unwrap(); // all stages at once
        assert_same(&values(folded.weight.base()), &values(layer.weight.val()), &name);

        let table = summary(&layer).to_string();
        assert!(table.contains("weight_quantizer    int4    per-channel  static"), "{table}");
        assert!(table.contains("weight_quantizer.1  e4m3    per-tensor   static"), "{table}");
        assert!(table.contains("1 of 3 quantizers enabled: 1 int4 + e4m3;"), "a chain is one quantizer: {table}");
    }
}

#[test]
fn gradients_pass_a_chain_straight_through() {
    let (_, device) = device();
    let device = device.autodiff();
    let x = spread([4, 4], &device).require_grad();
    let config = QuantizerConfig::int(4).per_token().dynamic().then(QuantizerConfig::e4m3().dynamic());
    let y = quantizer(config).forward(x.clone());
    let upstream = spread([4, 4], &device);
    let gradients = (y * upstream.clone()).sum().backward();
    assert_eq!(values(x.grad(&gradients).unwrap()), values(upstream.without_autodiff()));
}

#[test]
fn a_rotation_keeps_products_and_spreads_outliers() {
    for (name, device) in devices() {
        let mut x = vec![0.01f32; 2 * 32];
        x[5] = 8.0;
        let x = tensor(&x, [2, 32], &device);
        let w = spread([32, 3], &device);
        let exact = values(x.clone().matmul(w.clone()));
        let rotation = Rotation { signs: Some(7), ..Rotation::default() };
        let rotate = |role| TensorQuantizer::new(QuantizerConfig::int(8).rotated(rotation).rotate_only(), role);
        let weight = Role::Weight(burn_quant::place::WeightLayout::new(1, 0));
        let product = rotate(Role::ChannelsLast).forward(x.clone()).matmul(rotate(weight).forward(w));
        for (found, expected) in values(product).iter().zip(&exact) {
            assert!((found - expected).abs() < 1e-4, "{name}: {found}, {expected}");
        }
        let spread_out = values(rotate(Role::ChannelsLast).forward(x.clone()));
        let largest = spread_out.iter().fold(0f32, |a, x| a.max(x.abs()));
        assert!(largest < 1.5, "{name}: 8 / sqrt(32) = 1.41 and little else, found {largest}");

        // rotated back, the error of INT4 is spread over the block instead of wiping out what is small
        let back = Rotation { output: burn_quant::config::RotationOutput::Original, ..rotation };
        let error = |config: QuantizerConfig| {
            values((quantizer(config.dynamic()).forward(x.clone()) - x.clone()).abs().mean())[0]
        };
        let plain = values(quantizer(QuantizerConfig::int(2).dynamic()).forward(x.clone()));
        assert_eq!(plain[0], 0.0, "{name}: beside an outlier, small values vanish");
        assert!(error(QuantizerConfig::int(8).rotated(back)) < 0.01, "{name}");
    }
}

#[test]
fn the_gradient_of_a_rotation_is_its_inverse() {
    let (_, device) = device();
    for device in [device.clone().autodiff(), device.autodiff().gradient_checkpointing()] {
        let x = spread([3, 8], &device).require_grad();
        let rotation = Rotation { block: Some(4), signs: Some(3), ..Rotation::default() };
        let rotate = quantizer(QuantizerConfig::int(8).rotated(rotation).rotate_only());
        let upstream = spread([3, 8], &device) + 0.5;
        let gradients = (rotate.forward(x.clone()) * upstream.clone()).sum().backward();
        // dL/dx = upstream · Rᵀ, and rotating that gives upstream again
        let gradient = x.grad(&gradients).unwrap();
        let again = values(rotate.forward(gradient));
        for (found, expected) in again.iter().zip(values(upstream.without_autodiff())) {
            assert!((found - expected).abs() < 1e-6, "{found}, {expected}");
        }
    }
}

#[test]
fn the_hadamard_transform_is_sylvesters_along_any_axis() {
    use burn_quant::ops::{Direction, Hadamard, hadamard};
    let (name, device) = device();
    for dtype in [DType::F32, DType::F16] {
        if !device.supports_dtype(dtype) {
            continue;
        }
        let x = spread([3, 8, 5], &device).cast(dtype);
        for (axis, block) in [(1, 8), (1, 4), (1, 2), (1, 1)] {
            let rotation = Hadamard { axis, block, signs: None, direction: Direction::Forward };
            let found = values(hadamard(x.clone(), rotation));
            let elements = values(x.clone());
            for (i, found) in found.iter().enumerate() {
                let (outer, row, column) = (i / 40, i / 5 % 8, i % 5);
                let first = row / block * block;
                // H[i, j] = (−1)^popcount(i & j)
                let sign = |j: usize| if (((row - first) & j).count_ones()).is_multiple_of(2) { 1.0 } else { -1.0 };
                let sum: f64 =
                    (0..block).map(|j| sign(j) * f64::from(elements[outer * 40 + (first + j) * 5 + column])).sum();
                let expected = sum / (block as f64).sqrt();
                let step = if dtype == DType::F16 { 2e-3 } else { 1e-6 };
                assert!(
                    (f64::from(*found) - expected).abs() <= step * expected.abs().max(1.0),
                    "{name}: {found}, {expected}"
                );
            }
        }
    }
}

#[test]
fn a_constant_range_needs_no_data() {
    let (name, device) = device();
    let x = tensor(&[3.0, -500.0, 17.0], [1, 3], &device);
    let cast = quantizer(QuantizerConfig::e4m3().constant(448.0));
    assert!(!cast.needs_calibration() && !cast.is_uncalibrated());
    assert_same(&values(cast.forward(x)), &[3.0, -448.0, 16.0], name);
}

#[test]
fn a_pre_quantization_scale_acts_before_everything_else_and_when_rounding_is_off() {
    let (name, device) = device();
    let x = tensor(&[0.0, 0.4, 1.1, 2.0], [1, 4], &device);
    let mut quantizer = quantizer(QuantizerConfig::int(8));
    quantizer.set_amax(Tensor::from_data([127.0], &device));
    assert_same(&values(quantizer.forward(x.clone())), &[0.0, 0.0, 1.0, 2.0], name);
    quantizer.set_buffer(Buffer::PreQuantScale, Tensor::from_data([1.0, 2.0, 3.0, 4.0], &device));
    assert_same(&values(quantizer.forward(x.clone())), &[0.0, 1.0, 3.0, 8.0], name);
    quantizer.disable();
    assert_same(&values(quantizer.forward(x)), &[0.0, 0.4 * 2.0, 1.1 * 3.0, 2.0 * 4.0], name);
}

#[test]
fn a_changed_configuration_keeps_what_still_fits() {
    let (_, device) = device();
    let mut quantizer = quantizer(QuantizerConfig::int(8).per_channel());
    quantizer.set_amax(Tensor::ones([3], &device));
    quantizer.set_config(QuantizerConfig::int(4).per_channel());
    assert!(quantizer.amax().is_some(), "the same groups");
    quantizer.set_config(QuantizerConfig::int(4).per_channel().rotated(Rotation::default()));
    assert!(quantizer.amax().is_none(), "of other values");
    quantizer.set_amax(Tensor::ones([3], &device));
    quantizer.set_config(QuantizerConfig::int(4).per_channel().rotated(Rotation::default()).constant(1.0));
    assert!(quantizer.amax().is_none(), "another source");
    quantizer.set_config(QuantizerConfig::int(4).then(QuantizerConfig::int(2)).then(QuantizerConfig::e4m3()));
    assert_eq!(quantizer.stages("q").map(|(name, _)| name).collect::<Vec<_>>(), ["q", "q.1", "q.2"]);
    quantizer.set_config(QuantizerConfig::int(4));
    assert_eq!(quantizer.stages("q").count(), 1);
}

#[test]
#[should_panic(expected = "`global_amax` is not set, as its configuration does not use it")]
fn a_buffer_that_the_configuration_does_not_use_is_refused() {
    let (_, device) = device();
    quantizer(QuantizerConfig::int(8)).set_buffer(Buffer::GlobalAmax, Tensor::ones([1], &device));
}

/// One error each.
#[test]
fn combinations_that_cannot_be_are_refused_at_once() {
    use InvalidConfig::*;
    let block = |config: QuantizerConfig| config.per_block(16);
    let bias = |granularity| QuantizerConfig::int(8).with_bias(BiasConfig::new(granularity));
    let rotated = |block| QuantizerConfig::int(8).rotated(Rotation { block: Some(block), ..Rotation::default() });
    let static_blocks = ScaleFormat::E4M3(BlockScale::Static);
    let four_over_six = ScaleFormat::E4M3(BlockScale::StaticFourOverSix);
    let e8m0 = ScaleFormat::E8M0;
    let range = |range, config: QuantizerConfig| QuantizerConfig { range, ..config };
    for (config, problem) in [
        (QuantizerConfig::int(8).per_block(0), EmptyBlock),
        (QuantizerConfig::e4m3().with_scale(e8m0).dynamic(), ScaleWithoutBlocks { scale: e8m0 }),
        (
            block(QuantizerConfig::uint(4)).with_scale(e8m0).dynamic(),
            FormatOfScale { format: QuantizerConfig::uint(4).format, scale: e8m0 },
        ),
        (
            block(QuantizerConfig::new(Format::Nf4)).with_scale(static_blocks),
            FormatOfScale { format: Format::Nf4, scale: static_blocks },
        ),
        (
            block(QuantizerConfig::int(4)).with_scale(four_over_six),
            FormatOfScale { format: QuantizerConfig::int(4).format, scale: four_over_six },
        ),
        (range(RangeSource::Static, QuantizerConfig::mxint8()), StaticPowersOfTwo),
        (QuantizerConfig::mxint8().constant(1.0), ConstantPowersOfTwo),
        (QuantizerConfig::nvfp4_static().dynamic(), StaticBlocksOfDynamicRange),
        (QuantizerConfig::nvfp4_static().constant(1.0), StaticBlocksOfConstantRange),
        (QuantizerConfig::int(8).constant(0.0), ConstantRange { found: 0.0 }),
        (bias(Granularity::Block { size: 4 }), BlocksOfBias),
        (bias(Granularity::Axes(vec![AxisGroups::Each; 2])), BiasOfEachElement),
        (QuantizerConfig::uint(8).with_bias(BiasConfig::new(Granularity::PerTensor)), BiasOfUnsigned),
        (rotated(12), RotationBlock { found: 12 }),
        (rotated(1), RotationBlock { found: 1 }),
        (QuantizerConfig::int(8).rotate_only(), NothingToDo),
        (QuantizerConfig::int(8).then(QuantizerConfig::int(4).then(QuantizerConfig::int(2))), NestedChain),
        (QuantizerConfig::int(8).then(QuantizerConfig::int(8).per_block(0)), EmptyBlock),
    ] {
        assert_eq!(config.validate(), Err(problem), "{config:?}");
    }
}

#[test]
fn what_does_not_suit_a_tensor_is_refused_by_the_quantizers_name() {
    let (_, device) = device();
    let refused = |pattern: &str, config: QuantizerConfig| {
        let layer: QuantLinear = LinearConfig::new(12, 6).init(&device).into();
        let rules = QuantConfig::new().with_rule(Rule::set(pattern, config));
        match quantize(layer, &rules, |_| {}) {
            Err(QuantError::Config { name, problem }) if name == pattern => problem,
            other => panic!("expected a refusal, found {other:?}"),
        }
    };
    let rotated = |block| QuantizerConfig::int(8).rotated(Rotation { block, ..Rotation::default() });
    // `in` has 12 elements: blocks of 4, or of 2, but not of 8
    let problem = refused("weight_quantizer", rotated(Some(8)));
    assert_eq!(problem, InvalidConfig::RotationAxis { len: 12, block: 8 });
    let tokens = QuantizerConfig::int(8).with_bias(BiasConfig::new(Granularity::PerToken));
    assert_eq!(refused("weight_quantizer", tokens.clone()), InvalidConfig::TokensOfWeight);
    let per_token = InvalidConfig::StaticActivationGroups { granularity: "per-token" };
    assert_eq!(refused("input_quantizer", tokens), per_token);
    let block = InvalidConfig::StaticActivationGroups { granularity: "block" };
    assert_eq!(refused("input_quantizer", QuantizerConfig::nvfp4_static()), block);
    let chain = QuantizerConfig::int(8).then(QuantizerConfig::int(8).per_token());
    assert_eq!(refused("input_quantizer", chain), per_token);

    let layer: QuantLinear = LinearConfig::new(12, 6).init(&device).into();
    let rules = QuantConfig::new().with_rule(Rule::set("weight_quantizer", rotated(None)));
    let (layer, _) = quantize_weights(layer, &rules).unwrap(); // the largest power of two that divides 12
    assert_eq!(layer.weight.val().dims(), [12, 6]);
}

#[test]
fn slots_take_little_of_the_stack() {
    // a module lies on the stack, and that of a thread is small: a quantizer keeps what it has on the heap
    assert!(size_of::<TensorQuantizer>() <= 160);
    assert!(
        size_of::<nn::Lstm>() <= 3 * size_of::<burn::nn::Lstm>(),
        "eight layers with two activation quantizers each"
    );
}
