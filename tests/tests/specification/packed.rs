//! Packed weights: the codes of fake quantization, products with them, and their gradient.

use burn::tensor::{DType, Device, Tensor};
use burn_quant::config::{BlockScale, Format, GradientRule, IntFormat};
use burn_quant::ops::{
    Activations, FakeQuant, Groups, NotPacked, PackedTensor, Ranges, fake_quant, multiplies_integers, packed_linear,
};
use burn_quant_tests::{device, devices};

use crate::{assert_close, assert_same, spread, values};

fn spec(format: Format, groups: Groups) -> FakeQuant {
    FakeQuant { format, groups, gradient: GradientRule::PassThrough }
}

fn int(bits: u8) -> Format {
    IntFormat::signed(bits).unwrap().into()
}

/// Formats with each kind of scale that they have, and the groups of a weight `[inputs, outputs]`.
fn kinds(shape: [usize; 2], device: &Device) -> Vec<(String, Ranges, FakeQuant)> {
    let global_amax = Tensor::<1>::from_data([2.0], device);
    let mut kinds = Vec::new();
    let blocks = |size| Groups::blocks(&shape, 0, size);
    let mut add = |name: &str, ranges: Ranges, format: Format, groups: Groups| {
        kinds.push((format!("{name} {format}"), ranges, spec(format, groups)));
    };
    let floats = [Format::E4M3, Format::E5M2, Format::E3M2, Format::E2M3, Format::E2M1, Format::E1M2, Format::Nf4];
    for format in (2..=8).map(int).chain(floats) {
        add("per tensor", Ranges::Dynamic, format, Groups::per_tensor(&shape));
        add("per channel", Ranges::Dynamic, format, Groups::per_channel(&shape, 1));
        add("blocks of 8,", Ranges::Dynamic, format, blocks(8));
        if format != Format::Nf4 {
            add("powers of two,", Ranges::PowersOfTwo, format, blocks(8));
        }
    }
    for format in [Format::E2M1, int(4)] {
        add("two levels,", Ranges::TwoLevel { global_amax: global_amax.clone() }, format, blocks(16));
        let amax = Tensor::full([blocks(16).len()], 1.5, (device, DType::F32));
        for blocks_of in [BlockScale::Static, BlockScale::StaticFourOverSix] {
            let ranges =
                Ranges::TwoLevelStatic { amax: amax.clone(), global_amax: global_amax.clone(), blocks: blocks_of };
            add("two static levels,", ranges, format, blocks(16));
        }
    }
    let square = Groups::new(&shape, &[burn_quant::config::AxisGroups::Blocks(8); 2]);
    add("square blocks,", Ranges::Dynamic, Format::E4M3, square);
    kinds
}

#[test]
fn a_packed_weight_is_the_fake_quantized_one() {
    let (name, device) = device();
    for shape in [[24, 20], [37, 5]] {
        for (kind, ranges, spec) in kinds(shape, &device) {
            let weight = spread::<2>(shape, &device);
            let packed = PackedTensor::pack(weight.clone(), ranges.clone(), spec.clone()).unwrap();
            let (found, expected) = (values(packed.unpack()), values(fake_quant(weight, ranges, spec)));
            let what = format!("{name}, {kind}, {shape:?}");
            match name {
                "flex" => assert_same(&found, &expected, &what),
                // division on a GPU may be off by two units in the last place
                _ => assert_close(&found, &expected, 3e-7, &what),
            }
        }
    }
}

#[test]
fn products_are_those_of_the_fake_quantized_tensors() {
    for (name, device) in devices() {
        let x = spread::<3>([2, 3, 24], &device);
        let rows = x.clone().reshape([6, 24]);
        let static_range = Tensor::<1>::from_data([1.5], &device);
        for (kind, ranges, weight_spec) in kinds([24, 20], &device) {
            let weight = spread::<2>([24, 20], &device);
            let packed = PackedTensor::pack(weight.clone(), ranges.clone(), weight_spec.clone()).unwrap();
            let weight = fake_quant(weight, ranges, weight_spec);
            for (activations, x_q) in [
                (Activations::Float, rows.clone()),
                (
                    Activations::Int8PerToken,
                    fake_quant(rows.clone(), Ranges::Dynamic, spec(int(8), Groups::per_channel(&[6, 24], 0))),
                ),
                (
                    Activations::Int8(static_range.clone()),
                    fake_quant(rows.clone(), static_range.clone(), spec(int(8), Groups::per_tensor(&[6, 24]))),
                ),
            ] {
                let what = format!("{name}, {kind}, {activations:?}");
                let y = packed_linear(x.clone(), &packed, activations);
                assert_eq!(y.dims(), [2, 3, 20]);
                assert_close(&values(y), &values(x_q.matmul(weight.clone())), 2e-6, &what);
            }
        }
    }
}

/// Off by at most half a step of each value, `amax / 32512`, times the weights; exact where there are no integers.
#[test]
fn activations_of_15_bits_are_nearly_floats() {
    for (name, device) in devices() {
        let x = spread::<2>([6, 24], &device);
        let half_steps = x.clone().abs().max_dim(1) / 32512.0;
        for (kind, ranges, weight_spec) in kinds([24, 20], &device) {
            let packed = PackedTensor::pack(spread::<2>([24, 20], &device), ranges, weight_spec).unwrap();
            let exact = values(packed_linear(x.clone(), &packed, Activations::Float));
            let found = values(packed_linear(x.clone(), &packed, Activations::Int15PerToken));
            let what = format!("{name}, {kind}");
            if !multiplies_integers(&device, packed.layout) {
                assert_same(&found, &exact, &what);
                continue;
            }
            assert_ne!(found, exact, "{what}");
            let bounds = values(half_steps.clone().matmul(packed.unpack().abs().sum_dim(0)));
            for ((found, exact), bound) in found.iter().zip(&exact).zip(bounds) {
                assert!((found - exact).abs() <= bound + 1e-6, "{what}: {found}, exactly {exact}, within {bound}");
            }
        }
    }
}

/// The scale of the tensor is below what counts as a scale of a block at all: only the largest blocks have one.
#[test]
fn small_weights_under_two_levels_keep_their_scale() {
    let (_, device) = device();
    let weight = spread::<2>([32, 20], &device) * 5e-5;
    let global_amax = weight.clone().abs().max();
    let spec = spec(Format::E2M1, Groups::blocks(&[32, 20], 0, 16));
    let ranges = Ranges::TwoLevel { global_amax };
    let packed = PackedTensor::pack(weight.clone(), ranges.clone(), spec.clone()).unwrap();
    let x = spread::<2>([3, 32], &device);
    let expected = values(x.clone().matmul(fake_quant(weight, ranges, spec)));
    assert!(expected.iter().any(|y| *y != 0.0));
    assert_close(&values(packed_linear(x, &packed, Activations::Float)), &expected, 2e-6, "small");
}

#[test]
fn views_and_halves_are_multiplied_too() {
    let (_, device) = device();
    let weight = spread::<2>([24, 20], &device);
    let packed = PackedTensor::pack(weight, Ranges::Dynamic, spec(int(4), Groups::blocks(&[24, 20], 0, 8))).unwrap();
    let x = spread::<2>([24, 5], &device);
    let straight = Tensor::<2>::from_data(x.clone().transpose().into_data(), &device);
    let expected = values(packed_linear(straight.clone(), &packed, Activations::Int8PerToken));
    let found = values(packed_linear(x.transpose(), &packed, Activations::Int8PerToken));
    assert_same(&found, &expected, "a transposed view");
    let row = straight.clone().narrow(0, 0, 1);
    let found = values(packed_linear(row.clone().expand([3, 24]), &packed, Activations::Float));
    let expected = values(packed_linear(row, &packed, Activations::Float)).repeat(3);
    assert_close(&found, &expected, 1e-6, "one row three times");
    if device.supports_dtype(DType::F16) {
        let half = packed_linear(straight.clone().cast(DType::F16), &packed, Activations::Float);
        assert_eq!(half.dtype(), DType::F16);
        let full = packed_linear(straight.cast(DType::F16).cast(DType::F32), &packed, Activations::Float);
        assert_same(&values(half), &values(full.cast(DType::F16)), "rounded once");
    }
}

/// `dL/dx = (dL/dy) · Wᵀ`, and zero where a given range clips.
#[test]
fn the_gradient_goes_to_the_activations() {
    for (name, device) in devices().into_iter().skip(1) {
        let weight = spread::<2>([24, 20], &device);
        let spec = spec(int(8), Groups::per_channel(&[24, 20], 1));
        let packed = PackedTensor::pack(weight.clone().without_autodiff(), Ranges::Dynamic, spec.clone()).unwrap();
        let weight = fake_quant(weight, Ranges::Dynamic, spec);
        let x = spread::<2>([6, 24], &device).require_grad();
        let seed = spread::<2>([6, 20], &device);
        let gradient = |activations: Activations| {
            let y = packed_linear(x.clone(), &packed, activations);
            let gradients = (y * seed.clone()).sum().backward();
            values(x.grad(&gradients).unwrap())
        };
        let expected = values(seed.clone().matmul(weight.transpose()));
        assert_close(&gradient(Activations::Float), &expected, 2e-6, &name);
        assert_close(&gradient(Activations::Int8PerToken), &expected, 2e-6, &name);
        assert_close(&gradient(Activations::Int15PerToken), &expected, 2e-6, &name);
        let inside = values(x.clone()).into_iter().map(|x| if x.abs() <= 1.5 { 1.0 } else { 0.0 });
        let clipped: Vec<f32> = expected.iter().zip(inside).map(|(gradient, inside)| gradient * inside).collect();
        let range = Tensor::<1>::from_data([1.5], &device);
        assert_close(&gradient(Activations::Int8(range)), &clipped, 2e-6, &name);
    }
}

#[test]
fn weights_without_a_packed_form_are_refused_with_the_reason() {
    let (_, device) = device();
    let weight = spread::<2>([8, 4], &device);
    let refused = |weight: Tensor<2>, ranges: Ranges, format: Format, groups: Groups| {
        PackedTensor::pack(weight, ranges, spec(format, groups)).unwrap_err().to_string()
    };
    let whole = Groups::per_tensor(&[8, 4]);
    let bits = refused(weight.clone(), Ranges::Dynamic, int(16), whole.clone());
    assert_eq!(bits, "packed codes have at most 8 bits, and those of NF4 scales in f32: found int16");
    let infinite = Tensor::<1>::from_data([f32::INFINITY], &device);
    let range = refused(weight.clone(), infinite.into(), int(8), whole.clone());
    assert_eq!(range, "a range is finite and not negative, found inf");
    let nan = weight.clone().mask_fill(weight.clone().equal_elem(values(weight)[6]), f32::NAN);
    let amax = Tensor::<1>::from_data([1.0], &device);
    let error = PackedTensor::pack(nan, amax, spec(int(8), whole)).unwrap_err();
    assert!(matches!(error, NotPacked::Weight { at: [1, 2], .. }), "{error}");
}
