//! What broke in the numbers of other toolkits: scales, dtypes, learned ranges, packing, histograms.

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{DType, Device, Tensor};
use burn_quant::calibrate::{ModelStatistics, observe};
use burn_quant::config::{
    AxisGroups, BlockScale, Format, GradientRule, HistogramConfig, IntFormat, IntSpan, RangeSearch, ScaleFormat,
    Signedness,
};
use burn_quant::nn::QuantLinear;
use burn_quant::ops::numerics::packed::{fp8, int4, int8, mx, nf4, nvfp4};
use burn_quant::ops::numerics::{AnyGrid, Grid, Minifloat, TwoLevel};
use burn_quant::ops::{FakeQuant, Groups, Ranges, fake_quant, group_amax};
use burn_quant::place::{Role, place};
use burn_quant::quantizer::Buffer;
use burn_quant::{
    Algorithm, QuantConfig, QuantizerConfig, Quantizers, Rule, TensorQuantizer, calibrate, quantize, quantize_weights,
};
use burn_quant_tests::compare::relative_error;
use burn_quant_tests::devices;

use crate::{assert_same, spread, values};

fn linear(weight: Tensor<2>) -> QuantLinear {
    Linear { weight: Param::from_tensor(weight), bias: None }.into()
}

fn weights_only(config: QuantizerConfig) -> QuantConfig {
    QuantConfig::new().with_rule(Rule::set("weight_quantizer", config))
}

/// A block of zeros has a scale that is a number, and is zeros again; the 64 x 64 others are 1e-3.
pub(super) fn t01() {
    let mut x = vec![1e-3f32; 64 * 64];
    x[160..176].fill(0.0);
    let mut scales = vec![0u8; 256];
    let amax: Vec<f32> = x.chunks(16).map(|block| block.iter().fold(0f32, |amax, x| amax.max(x.abs()))).collect();
    let tensor = nvfp4::tensor_scale(1e-3);
    for (what, pack) in [("dynamic", true), ("static", false)] {
        match pack {
            true => nvfp4::scales(&x, 16, tensor, &mut scales).unwrap(),
            false => nvfp4::static_scales(&amax, 1e-3, BlockScale::Static, &mut scales).unwrap(),
        }
        assert!(scales.iter().all(|scale| ![0x7f, 0xff].contains(scale)), "{what}: {scales:?}");
        let (mut packed, mut y) = (vec![0u8; x.len() / 2], vec![f32::NAN; x.len()]);
        nvfp4::pack(&x, 16, &scales, tensor, &mut packed).unwrap();
        nvfp4::unpack(&packed, 16, &scales, tensor, &mut y).unwrap();
        assert_eq!(y[160..176], [0.0; 16], "{what}");
        assert!(y[..160].iter().all(|y| (y - 1e-3).abs() <= 1e-9), "{what}: {:?}", &y[..16]);
    }
    // and in a model
    for (name, device) in devices() {
        let weight = Tensor::<1>::from_data(x.as_slice(), &device).reshape([64, 64]).transpose();
        let config = weights_only(QuantizerConfig::nvfp4_static());
        let (layer, _) = quantize_weights(linear(weight.clone()), &config).unwrap();
        let y = values(layer.weight.val().transpose());
        assert_eq!(y[160..176], [0.0; 16], "{name}");
        assert!(y.iter().all(|y| y.is_finite()), "{name}");
    }
}

/// Scales are made in f32 whatever the tensor is: a bf16 tensor has the ranges of the same numbers in f32, to the bit,
/// the same codes, and the same signal to noise within 0.05 dB.
pub(super) fn t04() {
    let (_, device) = burn_quant_tests::device();
    if !device.supports_dtype(DType::BF16) {
        return;
    }
    let half = (spread::<2>([64, 64], &device) * 0.37).cast(DType::BF16);
    let full = half.clone().cast(DType::F32);
    let x = values(full.clone());
    let int4: Format = IntFormat::signed(4).unwrap().into();
    for (format, groups) in [
        (int4, Groups::per_channel(&[64, 64], 0)),
        (int4, Groups::blocks(&[64, 64], 1, 16)),
        (Format::E4M3, Groups::per_tensor(&[64, 64])),
        (Format::E2M1, Groups::blocks(&[64, 64], 1, 32)),
    ] {
        let (of_half, of_full) = (group_amax(half.clone(), &groups), group_amax(full.clone(), &groups));
        assert_eq!(of_half.dtype(), DType::F32);
        assert_same(&values(of_half.clone()), &values(of_full.clone()), "ranges");
        let spec = FakeQuant { format, groups, gradient: GradientRule::PassThrough };
        let mut ranges = vec![(Ranges::Static(of_half), Ranges::Static(of_full)), (Ranges::Dynamic, Ranges::Dynamic)];
        if format == Format::E2M1 {
            ranges.push((Ranges::PowersOfTwo, Ranges::PowersOfTwo));
        }
        for (half_ranges, full_ranges) in ranges {
            let found = values(fake_quant(half.clone(), half_ranges, spec.clone()));
            let expected = fake_quant(full.clone(), full_ranges, spec.clone());
            assert_same(&found, &values(expected.clone().cast(DType::BF16)), "rounded once more, to bf16");
            let decibels = |y: &[f32]| -20.0 * relative_error(y, &x).log10();
            let (found, expected) = (decibels(&found), decibels(&values(expected)));
            assert!((found - expected).abs() < 0.05, "{format}: {found} dB in bf16, {expected} dB in f32");
        }
    }
}

#[derive(Module, Debug)]
struct Learned {
    quantizer: TensorQuantizer,
}

fn learned(rule: GradientRule, amax: f32, device: &Device) -> Learned {
    let config = QuantizerConfig { gradient: rule, ..QuantizerConfig::int(4) };
    let mut quantizer = TensorQuantizer::new(config, Role::ChannelsLast);
    quantizer.set_amax(Tensor::from_data([amax], device));
    Learned { quantizer }
}

/// A learned range that is almost zero, and one that a step of 1e6 throws far below it: values and gradients stay
/// numbers, and the range positive.
pub(super) fn t07() {
    let device = burn_quant_tests::device().1.autodiff();
    let x = || Tensor::<2>::from_data([[0.7f32, -0.3], [2.0, 0.0]], &device);
    for rule in [GradientRule::Lsq, GradientRule::Pact] {
        for amax in [1e-30, 1.0] {
            let mut model = learned(rule, amax, &device);
            for _ in 0..3 {
                let x = x().require_grad();
                let y = model.quantizer.forward(x.clone());
                assert!(values(y.clone().without_autodiff()).iter().all(|y| y.is_finite()), "{rule:?} {amax}");
                let gradients = y.powi_scalar(2).sum().backward();
                assert!(values(x.grad(&gradients).unwrap()).iter().all(|g| g.is_finite()), "{rule:?} {amax}");
                let gradients = GradientsParams::from_grads(gradients, &model);
                model = SgdConfig::new().init().step(1e6, model, gradients);
                let range = values(model.quantizer.amax().unwrap().without_autodiff())[0];
                assert!(range.is_finite() && range > 0.0, "{rule:?}: {range}");
            }
        }
    }
}

/// A step that carries a learned range below zero leaves its magnitude, so values keep their signs.
pub(super) fn t08() {
    let device = burn_quant_tests::device().1.autodiff();
    // Pact: one value beyond the range of 1, so d/damax sum(y) = 1, and a step of 1.5 leads to -0.5
    let model = learned(GradientRule::Pact, 1.0, &device);
    let x = Tensor::<2>::from_data([[3.0f32, 0.25]], &device);
    let gradients = GradientsParams::from_grads(model.quantizer.forward(x.clone()).sum().backward(), &model);
    let model = SgdConfig::new().init().step(1.5, model, gradients);
    assert_eq!(values(model.quantizer.amax().unwrap().without_autodiff()), [0.5]);
    let y = values(model.quantizer.forward(x).without_autodiff());
    assert_eq!(y, [0.5, 4.0 * 0.5 / 7.0], "the codes 7 and 3.5, to even, of 0.5 / 7");
}

/// A range that is set to -0.5 is 0.5, in every format and rule: values keep their signs. Where it is checked it is an
/// error.
pub(super) fn t08_set() {
    for (name, device) in devices() {
        let x = Tensor::<2>::from_data([[0.75f32, -0.75, 0.125, -0.01]], &device);
        let formats = [QuantizerConfig::int(8), QuantizerConfig::int(4), QuantizerConfig::e4m3()];
        let nf4 = QuantizerConfig::new(Format::Nf4);
        let lsq = QuantizerConfig::int(4).lsq();
        for config in formats.into_iter().chain([nf4, lsq, QuantizerConfig::nvfp4(), QuantizerConfig::e4m3().clipped()])
        {
            let what = format!("{name}: {} {:?}", config.kind(), config.gradient);
            let rounded = |amax: f32| {
                let mut quantizer = TensorQuantizer::new(config.clone(), Role::ChannelsLast);
                quantizer.set_amax(Tensor::from_data([amax], &device));
                assert_eq!(values(quantizer.amax().unwrap()), [0.5], "{what}");
                values(quantizer.forward(x.clone()))
            };
            let (below, above) = (rounded(-0.5), rounded(0.5));
            assert_same(&below, &above, &what);
            assert!(below[0] > 0.0 && below[1] < 0.0, "{what}: {below:?}");
            let mut quantizer = TensorQuantizer::new(config.clone(), Role::ChannelsLast);
            assert!(quantizer.try_set_amax(Tensor::from_data([-0.5f32], &device)).is_err(), "{what}");
        }
    }
}

/// `d sum(y²)/damax = 2y · y/amax` for clipped values: y = 1 and −8/7, so 2 + 128/49.
pub(super) fn t09() {
    let device = burn_quant_tests::device().1.autodiff();
    for rule in [GradientRule::Lsq, GradientRule::Pact] {
        let x = Tensor::<2>::from_data([[5.0f32, -5.0]], &device);
        let amax = Tensor::<1>::from_data([1.0f32], &device).require_grad();
        let spec = FakeQuant {
            format: IntFormat::signed(4).unwrap().into(),
            groups: Groups::per_tensor(&[1, 2]),
            gradient: rule,
        };
        let gradients = fake_quant(x, amax.clone(), spec).powi_scalar(2).sum().backward();
        let found = values(amax.grad(&gradients).unwrap())[0];
        assert!((found - (2.0 + 128.0 / 49.0)).abs() < 1e-6, "{rule:?}: {found}");
    }
}

/// The numbers of one group, packed and unpacked.
fn packed(format: Format, scale: ScaleFormat, x: &[f32], amax: f32, global: f32) -> Vec<f32> {
    let (mut y, len) = (vec![0f32; x.len()], x.len());
    let int = |bits| Format::from(IntFormat::signed(bits).unwrap());
    match (format, scale) {
        (_, ScaleFormat::E8M0) => {
            let (mut scales, mut codes) = (vec![0u8; 1], vec![0u8; len]);
            mx::scales(format, x, len, &mut scales).unwrap();
            mx::encode(format, x, len, &scales, &mut codes).unwrap();
            mx::decode(format, &codes, len, &scales, &mut y).unwrap();
        }
        (Format::E2M1, _) => {
            let (mut scales, mut codes) = (vec![0u8; 1], vec![0u8; len / 2]);
            let tensor = nvfp4::tensor_scale(global);
            match scale {
                ScaleFormat::E4M3(BlockScale::Dynamic) => nvfp4::scales(x, len, tensor, &mut scales).unwrap(),
                _ => nvfp4::static_scales(&[amax], global, BlockScale::Static, &mut scales).unwrap(),
            }
            nvfp4::pack(x, len, &scales, tensor, &mut codes).unwrap();
            nvfp4::unpack(&codes, len, &scales, tensor, &mut y).unwrap();
        }
        (Format::Nf4, _) => {
            let mut codes = vec![0u8; len / 2];
            nf4::pack(x, len, &[amax], &mut codes).unwrap();
            nf4::unpack(&codes, len, &[amax], &mut y).unwrap();
        }
        (Format::E4M3, _) => {
            let mut codes = vec![0u8; len];
            fp8::pack(x, fp8::scale(amax), &mut codes).unwrap();
            fp8::unpack(&codes, fp8::scale(amax), &mut y).unwrap();
        }
        (format, _) if format == int(8) => {
            let mut codes = vec![0i8; len];
            int8::pack(x, int8::scale(amax), &mut codes).unwrap();
            int8::unpack(&codes, int8::scale(amax), &mut y).unwrap();
        }
        _ => {
            let (mut scales, mut codes) = (vec![0f32; 1], vec![0u8; len / 2]);
            int4::scales(x, len, &mut scales).unwrap();
            int4::pack(x, len, &scales, &mut codes).unwrap();
            int4::unpack(&codes, len, &scales, &mut y).unwrap();
        }
    }
    y
}

/// What is packed is what was simulated. Layouts with E8M0 scales, dynamic NVFP4 and NF4 give the same bits; INT8,
/// INT4, FP8 and static NVFP4 store the scales that ModelOpt stores, which are rounded otherwise than those of fake
/// quantization: there what was simulated is packed, and values are within 2 units in the last place.
pub(super) fn t10() {
    use AxisGroups::{Blocks, Each, Whole};
    let (name, device) = burn_quant_tests::device();
    let int = |bits| Format::from(IntFormat::new(bits, Signedness::Signed, IntSpan::Full).unwrap());
    let mx = [Format::E2M1, Format::E3M2, Format::E2M3, Format::E4M3, Format::E5M2, int(8)];
    let mut cases: Vec<(Format, ScaleFormat)> = mx.map(|format| (format, ScaleFormat::E8M0)).to_vec();
    cases.extend([BlockScale::Dynamic, BlockScale::Static].map(|b| (Format::E2M1, ScaleFormat::E4M3(b))));
    cases.extend([int(8), int(4), Format::E4M3, Format::Nf4].map(|format| (format, ScaleFormat::F32)));
    // a GPU backend compiles a kernel for each case: every kind of scale, not every format under it
    let each = if name == "flex" { 1 } else { 3 };
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        if !device.supports_dtype(dtype) {
            continue;
        }
        let x = (spread::<2>([32, 128], &device) * 0.77).cast(dtype);
        let elements = values(x.clone());
        for axes in
            [[Whole, Whole], [Each, Whole], [Each, Blocks(16)], [Each, Blocks(32)], [Each, Blocks(128)], [Blocks(8); 2]]
        {
            let groups = Groups::new(&[32, 128], &axes);
            let amax = group_amax(x.clone(), &groups);
            let (ranges, global) = (values(amax.clone()), amax.clone().max());
            for (format, scale) in cases.iter().step_by(each) {
                let ranges_of = match scale {
                    ScaleFormat::E8M0 => Ranges::PowersOfTwo,
                    ScaleFormat::F32 => Ranges::Static(amax.clone()),
                    ScaleFormat::E4M3(BlockScale::Dynamic) => Ranges::TwoLevel { global_amax: global.clone() },
                    ScaleFormat::E4M3(blocks) => {
                        Ranges::TwoLevelStatic { amax: amax.clone(), global_amax: global.clone(), blocks: *blocks }
                    }
                };
                let gradient = GradientRule::PassThrough;
                let y =
                    fake_quant(x.clone(), ranges_of, FakeQuant { format: *format, groups: groups.clone(), gradient });
                let y = values(y);
                let what = format!("{format} {scale:?} {dtype:?} {axes:?}");
                for (group, range) in ranges.iter().enumerate() {
                    let places: Vec<usize> = (0..elements.len()).filter(|i| groups.of_element(*i) == group).collect();
                    let found: Vec<f32> = places.iter().map(|i| y[*i]).collect();
                    let ulps = match (scale, format) {
                        (ScaleFormat::F32, Format::Nf4) | (ScaleFormat::E8M0, _) => 0.0,
                        (ScaleFormat::E4M3(BlockScale::Dynamic), _) => 0.0,
                        _ if dtype == DType::F32 => 2.0 * f32::EPSILON,
                        _ if dtype == DType::F16 => 2f32.powi(-10),
                        _ => 2f32.powi(-7),
                    };
                    let own: Vec<f32> = match ulps == 0.0 {
                        true => places.iter().map(|i| elements[*i]).collect(),
                        false => found.clone(), // halfway between two codes the scales would decide
                    };
                    let packed = packed(*format, *scale, &own, *range, values(global.clone())[0]);
                    let packed = values(Tensor::<1>::from_data(packed.as_slice(), &device).cast(dtype));
                    for (a, b) in found.iter().zip(&packed) {
                        assert!(
                            (a - b).abs() <= ulps * b.abs(),
                            "{what}, group {group}: {a:e} simulated, {b:e} packed"
                        );
                    }
                }
            }
        }
    }
}

/// Batches in 0..1 and in 5..9: observed apart and merged, observed together, and counted at once. No value lies on the
/// border of two bins but zero.
pub(super) fn t11() {
    let (_, device) = burn_quant_tests::device();
    let low: Vec<f32> = (0..600).map(|i| i as f32 / 600.0).collect();
    let high: Vec<f32> = (0..400).map(|i| 5.001 + 3.998 * i as f32 / 400.0).collect();
    let both: Vec<f32> = low.iter().chain(&high).copied().collect();
    let algorithm = Algorithm::percentile(99.0);
    let rules = QuantConfig::new().with_rule(Rule::set("input_quantizer", QuantizerConfig::int(8)));
    let layer = linear(spread([10, 2], &device));
    let (layer, _) = place(layer, &rules, &Default::default()).unwrap();
    let observed = |batches: &[&[f32]]| -> ModelStatistics {
        let run = |layer: &QuantLinear| {
            for batch in batches {
                let x = Tensor::<1>::from_data(*batch, &device).reshape([batch.len() / 10, 10]);
                layer.forward(x);
            }
        };
        observe(&layer, &algorithm, run).unwrap()
    };
    let histogram = |seen: &ModelStatistics| seen.get("input_quantizer").unwrap().histogram.clone().unwrap();
    let union = burn_quant::calibrate::Histogram::of(&both, &HistogramConfig::default());
    let merged = observed(&[&low]).merge(observed(&[&high])).unwrap();
    let mut sorted = both.clone();
    sorted.sort_by(f32::total_cmp);
    let exact = sorted[989]; // the least value that 990 of 1000 do not exceed
    for (what, seen) in [("merged", histogram(&merged)), ("in one go", histogram(&observed(&[&low, &high])))] {
        assert_eq!(seen.total(), 1000, "{what}: no count is lost");
        assert_eq!((seen.origin, seen.width), (union.origin, union.width), "{what}");
        assert!(seen.counts == union.counts, "{what}: other counts");
        let found = calibrate::percentile(&seen, 99.0).unwrap();
        assert!((found - exact).abs() <= seen.width, "{what}: {found}, exactly {exact}, bins of {}", seen.width);
    }
    // the other way round is the same
    assert!(histogram(&observed(&[&high, &low])).counts == union.counts);
}

/// A weight of 60 inputs in blocks of 16: the last block of each of 512 outputs has 12 values. The range that the
/// search chooses has the least squared error of all multipliers, tried by hand.
pub(super) fn t14() {
    let (_, device) = burn_quant_tests::device();
    let weight = spread::<2>([60, 512], &device) * 0.4;
    let (start, stop, step) = (0.5f32, 1.0, 0.1);
    let search = RangeSearch::Multipliers { start, stop, step, include_max: Default::default() };
    let config = weights_only(QuantizerConfig::nvfp4_static()).with_algorithm(Algorithm::Mse(search));
    let (layer, _) = quantize_weights(linear(weight.clone()), &config).unwrap();
    let quantizers = Quantizers::of(&layer);
    let quantizer = quantizers.get("weight_quantizer").unwrap();
    let (amax, global) = (values(quantizer.amax().unwrap()), values(quantizer.buffer(Buffer::GlobalAmax).unwrap())[0]);
    assert_eq!(amax.len(), 4 * 512);
    let weight = values(weight);
    let grid = TwoLevel::new(Minifloat::E2M1, BlockScale::Static, global);
    for (group, chosen) in amax.iter().enumerate() {
        let (block, output) = (group / 512, group % 512);
        let own: Vec<f32> = (16 * block..60.min(16 * block + 16)).map(|row| weight[row * 512 + output]).collect();
        let error = |amax: f32| -> f64 {
            let scale = grid.scale(amax);
            own.iter().map(|x| f64::from(x - grid.fake_quant(*x, scale)).powi(2)).sum()
        };
        let top = own.iter().fold(0f32, |top, x| top.max(x.abs()));
        let best = (0..=5).map(|k| error(top * (start + k as f32 * step))).fold(f64::INFINITY, f64::min);
        assert!(
            error(*chosen) <= best * (1.0 + 1e-5) + 1e-12,
            "block {block} of output {output}: {} of {best}",
            error(*chosen)
        );
    }
}

/// 100 inputs in blocks of 64: the second block of each output has 36 values, and a range of its own.
pub(super) fn t15() {
    for (name, device) in devices() {
        let weight = spread::<2>([100, 32], &device);
        let (layer, _) =
            quantize_weights(linear(weight.clone()), &weights_only(QuantizerConfig::int(4).per_block(64))).unwrap();
        let amax = values(Quantizers::of(&layer).get("weight_quantizer").unwrap().amax().unwrap());
        assert_eq!(amax.len(), 2 * 32, "{name}");
        let (weight, y) = (values(weight), values(layer.weight.val()));
        let grid = AnyGrid::new(IntFormat::signed(4).unwrap().into(), ScaleFormat::F32, 0.0);
        for output in 0..32 {
            for rows in [0..64, 64..100] {
                let own: Vec<f32> = rows.clone().map(|row| weight[row * 32 + output]).collect();
                let top = own.iter().fold(0f32, |top, x| top.max(x.abs()));
                assert_eq!(amax[rows.start / 64 * 32 + output], top, "{name}");
                let expected: Vec<f32> = own.iter().map(|x| grid.fake_quant(*x, grid.scale(top))).collect();
                let found: Vec<f32> = rows.map(|row| y[row * 32 + output]).collect();
                assert_same(&found, &expected, &name);
            }
        }
    }
}

/// Learned rounding of blocks of 16 over 60 inputs: each value becomes one of its two neighbours on the grid of its
/// block, codes stay from -8 to 7, and a weight on the grid is left as it is.
pub(super) fn t16() {
    let (_, device) = burn_quant_tests::device();
    let x = spread::<2>([32, 8], &device).matmul(spread([8, 60], &device)) + spread([32, 60], &device) * 0.1;
    let adaround = Algorithm::AdaRound { iterations: 500, regularization: 3.0 };
    let config = weights_only(QuantizerConfig::int(4).per_block(16)).with_algorithm(adaround);
    let weight = spread::<2>([60, 6], &device);
    let run = |layer: &QuantLinear| drop(layer.forward(x.clone()));
    let (layer, _) = quantize(linear(weight.clone()), &config, run).unwrap();
    let amax = values(Quantizers::of(&layer).get("weight_quantizer").unwrap().amax().unwrap());
    assert_eq!(amax.len(), 4 * 6);
    let (weight, y) = (values(weight), values(layer.weight.val()));
    let mut moved = 0;
    for (i, (x, y)) in weight.iter().zip(&y).enumerate() {
        let step = amax[i / 6 / 16 * 6 + i % 6] / 7.0;
        let (units, code) = (x / step, y / step);
        assert!((code - code.round()).abs() < 1e-4 && (-8.0..=7.0).contains(&code.round()), "element {i}: code {code}");
        assert!((code - units).abs() < 1.0 + 1e-4, "element {i}: {units} became {code}");
        moved += usize::from((code - units).abs() > 0.5 + 1e-4);
    }
    assert!(moved > 0, "some values are not rounded to the nearest");
}
