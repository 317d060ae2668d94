//! The straight-through gradient against its formula: finite differences cannot see it.

use burn::tensor::{DType, Device, Tensor};
use burn_quant::config::{Format, GradientRule, IntFormat};
use burn_quant::ops::{FakeQuant, Groups, fake_quant};
use burn_quant_tests::device;

use crate::{assert_close, spread, values};

/// Devices that record gradients.
fn recording() -> Vec<(String, Device)> {
    let mut devices = burn_quant_tests::devices();
    let without = burn_quant_tests::device_without_kernel();
    devices.extend(without.map(|device| ("autodiff<ndarray>".into(), device.autodiff())));
    devices.retain(|(_, device)| device.is_autodiff());
    devices
}

fn int2(gradient: GradientRule) -> FakeQuant {
    FakeQuant { format: IntFormat::signed(2).unwrap().into(), groups: Groups::per_tensor(&[6]), gradient }
}

#[test]
fn codes_round_half_to_even_then_clip_and_the_gradient_stops_outside_the_range() {
    // two signed bits, amax 0.5: scale 2, codes -2..=1
    let x = [-2.0, -0.75, -0.5, 0.25, 0.5, 9.0];
    // x·2 = -4 (clipped), -1.5 (tie to -2), -1, 0.5 (tie to 0), 1, 18 (clipped)
    let y = [-1.0, -1.0, -0.5, 0.0, 0.5, 0.5];
    let upstream = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let clipped = [0.0, 0.0, 3.0, 4.0, 5.0, 0.0]; // |x| <= 0.5, the bound included
    for (name, device) in recording() {
        for (rule, expected) in [(GradientRule::PassThrough, upstream), (GradientRule::Clipped, clipped)] {
            let input = Tensor::<1>::from_data(x, &device).require_grad();
            let amax = Tensor::<1>::from_data([0.5], &device);
            let output = fake_quant(input.clone(), amax, int2(rule));
            assert_eq!(values(output.clone().without_autodiff()), y, "{name}");
            let gradients = (output * Tensor::<1>::from_data(upstream, &device)).sum().backward();
            assert_eq!(values(input.grad(&gradients).unwrap()), expected, "{name}, {rule:?}");
        }
    }
}

#[test]
fn the_gradient_is_masked_group_by_group_whatever_the_layout() {
    for (name, device) in recording() {
        let groups = Groups::per_channel(&[4, 3], 1);
        let ranges = [0.5, 1.0, 1.5];
        let spec = FakeQuant { format: Format::E4M3, groups, gradient: GradientRule::Clipped };
        let input = spread([3, 4], &device).require_grad();
        let output = fake_quant(input.clone().transpose(), Tensor::from_data(ranges, &device), spec);
        let gradients = output.sum().backward();
        let expected: Vec<f32> = values(input.clone().without_autodiff())
            .iter()
            .enumerate()
            .map(|(i, x)| if x.abs() <= ranges[i / 4] { 1.0 } else { 0.0 })
            .collect();
        assert_eq!(values(input.grad(&gradients).unwrap()), expected, "{name}");
    }
}

/// Two signed bits, amax 0.5: the grid reaches from -1 to 0.5 in steps of 0.5.
#[test]
fn learned_ranges_get_the_error_of_rounding_where_the_grid_reaches_and_the_value_beyond() {
    let x = [-2.0, -0.75, -0.25, 0.125, 0.5, 9.0];
    let y = [-1.0, -1.0, 0.0, 0.0, 0.5, 0.5]; // -4 (clipped), -1.5 (tie to -2), -0.5 (tie to 0), 0.25, 1, 18 (clipped)
    let upstream = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let inside = [0.0, 2.0, 3.0, 4.0, 5.0, 0.0];
    // (y - x) / amax where the grid reaches, y / amax beyond
    let lsq: f32 = (-2.0) + 2.0 * (-0.5) + 3.0 * 0.5 + 4.0 * (-0.25) + 5.0 * 0.0 + 6.0 * 1.0;
    let pact: f32 = (-2.0) + 6.0 * 1.0;
    for (name, device) in recording() {
        for (rule, expected) in [(GradientRule::Lsq, lsq), (GradientRule::Pact, pact)] {
            let input = Tensor::<1>::from_data(x, &device).require_grad();
            let amax = Tensor::<1>::from_data([0.5], &device).require_grad();
            let output = fake_quant(input.clone(), amax.clone(), int2(rule));
            assert_eq!(values(output.clone().without_autodiff()), y, "{name}");
            let gradients = (output * Tensor::<1>::from_data(upstream, &device)).sum().backward();
            assert_eq!(values(input.grad(&gradients).unwrap()), inside, "{name}, {rule:?}");
            assert_eq!(values(amax.grad(&gradients).unwrap()), [expected], "{name}, {rule:?}");
        }
    }
}

#[test]
fn gradients_of_learned_ranges_are_sums_over_their_groups_in_any_layout_and_dtype() {
    for (name, device) in recording() {
        for groups in [Groups::per_channel(&[4, 6], 1), Groups::blocks(&[4, 6], 1, 4), Groups::per_channel(&[4, 6], 0)]
        {
            for dtype in [DType::F32, DType::F16] {
                if !device.supports_dtype(dtype) {
                    continue;
                }
                let spec = FakeQuant { format: Format::E2M1, groups: groups.clone(), gradient: GradientRule::Lsq };
                let ranges: Vec<f32> = (0..groups.len()).map(|i| 0.75 + 0.125 * i as f32).collect();
                let input = spread([6, 4], &device).cast(dtype).detach().require_grad();
                let amax = Tensor::<1>::from_data(ranges.as_slice(), &device).require_grad();
                let output = fake_quant(input.clone().transpose(), amax.clone(), spec);
                let (x, y) =
                    (values(input.clone().transpose().without_autodiff()), values(output.clone().without_autodiff()));
                let gradients = output.sum().backward();
                let mut expected = vec![0f32; groups.len()];
                for (i, (x, y)) in x.iter().zip(&y).enumerate() {
                    let group = groups.of_element(i);
                    expected[group] += (if x.abs() <= ranges[group] { y - x } else { *y }) / ranges[group];
                }
                let found = values(amax.grad(&gradients).unwrap());
                assert_close(&found, &expected, 1e-6, &format!("{name}, {dtype:?}, {groups:?}"));
                assert!(values(input.grad(&gradients).unwrap()).contains(&0.0), "{name}: some values are beyond");
            }
        }
    }
}

#[test]
fn an_input_without_gradient_still_teaches_its_range_also_under_checkpointing() {
    let (_, plain) = device();
    let mut found = Vec::new();
    for device in [plain.clone().autodiff(), plain.autodiff().gradient_checkpointing()] {
        let amax = Tensor::<1>::from_data([1.0], &device).require_grad();
        let output = fake_quant(spread([6], &device), amax.clone(), int2(GradientRule::Lsq)).exp();
        found.push(values(amax.grad(&output.sum().backward()).unwrap()));
    }
    assert_eq!(found[0], found[1]);
    assert_ne!(found[0], [0.0]);
}

#[test]
fn a_chain_of_operations_keeps_its_gradient_under_checkpointing() {
    // exp needs its output in the backward pass, the op its input: both may be recomputed
    let (_, plain) = device();
    let mut results = Vec::new();
    for device in [plain.clone().autodiff(), plain.autodiff().gradient_checkpointing()] {
        let input = spread([6], &device).require_grad();
        let amax = Tensor::<1>::from_data([1.0], &device);
        let hidden = fake_quant((input.clone() * 0.5).exp(), amax.clone(), int2(GradientRule::Clipped));
        let output = fake_quant(hidden.clone() * hidden, amax, int2(GradientRule::PassThrough)).exp();
        let gradients = output.sum().backward();
        results.push(values(input.grad(&gradients).unwrap()));
    }
    assert_eq!(results[0], results[1]);
    assert!(results[0].iter().any(|g| *g != 0.0));
}

#[test]
fn the_range_has_no_gradient() {
    for (name, device) in recording() {
        let input = spread([6], &device).require_grad();
        let amax = Tensor::<1>::from_data([1.0], &device).require_grad();
        let gradients = fake_quant(input.clone(), amax.clone(), int2(GradientRule::Clipped)).sum().backward();
        assert!(input.grad(&gradients).is_some(), "{name}");
        assert!(amax.grad(&gradients).is_none(), "{name}");
    }
}

#[test]
fn an_untracked_input_is_quantized_without_recording() {
    for (name, device) in recording() {
        let input = spread([6], &device);
        let weight = spread([6], &device).require_grad();
        let amax = Tensor::<1>::from_data([2.0], &device);
        let quantized = fake_quant(input, amax, int2(GradientRule::Clipped));
        let expected = values(quantized.clone().without_autodiff());
        let gradients = (quantized * weight.clone()).sum().backward();
        assert_eq!(values(weight.grad(&gradients).unwrap()), expected, "{name}");
    }
}
