//! Faults of numbers: scales, gradients, and how tests compare.

use burn::tensor::{DType, Tensor};
use burn_quant::QuantizerConfig;
use burn_quant::TensorQuantizer;
use burn_quant::config::{BlockScale, Format, GradientRule, IntFormat, IntSpan, ScaleFormat, Signedness};
use burn_quant::ops::{FakeQuant, Groups, Ranges, fake_quant};
use burn_quant::place::Role;
use burn_quant::quantizer::Buffer;
use burn_quant_tests::{compare, devices};

use crate::{assert_close, values};

/// One block whose amax is that of the tensor, so the scale is amax / max, and every result a code of 448 or of 127.
/// ModelOpt gives `[9.82143e-5, -2.90179e-5, 1.964286e-4, 5e-4]` and `[9.84252e-5, -3.14961e-5, 2.007874e-4, 5e-4]`.
pub(super) fn f05() {
    let int8 = IntFormat::new(8, Signedness::Signed, IntSpan::Full).unwrap();
    let mut devices = devices();
    devices.extend(burn_quant_tests::device_without_kernel().map(|device| ("ndarray".into(), device)));
    for (name, device) in devices {
        let mut x = vec![0f32; 16];
        x[..4].copy_from_slice(&[1e-4, -3e-5, 2e-4, 5e-4]);
        let x = Tensor::<2>::from_data([<[f32; 16]>::try_from(x).unwrap()], &device);
        for (format, max, codes) in
            [(Format::E4M3, 448.0, [88.0, -26.0, 176.0, 448.0]), (int8.into(), 127.0, [25.0, -8.0, 51.0, 127.0])]
        {
            let expected: Vec<f32> = codes.into_iter().map(|code: f32| code * 5e-4 / max).collect();
            let spec =
                FakeQuant { format, groups: Groups::blocks(&[1, 16], 1, 16), gradient: GradientRule::PassThrough };
            let ranges = Ranges::TwoLevel { global_amax: Tensor::from_data([5e-4f32], &device) };
            let y = values(fake_quant(x.clone(), ranges, spec));
            assert_close(&y[..4], &expected, 2e-7, &format!("{name}, {format}"));
            assert_eq!(y[4..], [0.0; 12], "{name}, {format}");

            let config = QuantizerConfig::new(format).per_block(16).with_scale(ScaleFormat::E4M3(BlockScale::Dynamic));
            let mut quantizer = TensorQuantizer::new(config, Role::ChannelsLast);
            quantizer.set_buffer(Buffer::Amax, Tensor::from_data([5e-4f32], &device));
            assert_close(&values(quantizer.forward(x.clone()))[..4], &expected, 2e-7, &format!("{name}, quantizer"));
        }
    }
}

/// 1.005 is 1.0078125 in bf16. A range of the whole tensor is a scalar in ModelOpt, compared in the dtype of the
/// tensor, so 1.0078125 is within it; ranges of channels are f32 tensors, compared in f32, so there it is beyond.
pub(super) fn f21() {
    let (_, device) = burn_quant_tests::device();
    if !device.supports_dtype(DType::BF16) {
        return;
    }
    let int8: Format = IntFormat::signed(8).unwrap().into();
    let gradient = |device: &burn::tensor::Device, groups: Groups| {
        let x = Tensor::<2>::from_data([[1.0078125f32, 1.0], [1.015625, -1.0078125]], (device, DType::F32));
        let x = x.cast(DType::BF16).require_grad();
        let amax = Tensor::<1>::from_data(vec![1.005f32; groups.len()].as_slice(), (device, DType::F32));
        let spec = FakeQuant { format: int8, groups, gradient: GradientRule::Clipped };
        let gradients = fake_quant(x.clone(), amax, spec).sum().backward();
        values(x.grad(&gradients).unwrap())
    };
    let mut devices = vec![device.clone().autodiff(), device.autodiff().gradient_checkpointing()];
    devices.extend(burn_quant_tests::device_without_kernel().map(|device| device.autodiff()));
    for device in devices.into_iter().filter(|device| device.supports_dtype(DType::BF16)) {
        assert_eq!(gradient(&device, Groups::per_tensor(&[2, 2])), [1.0, 1.0, 0.0, 1.0], "{device:?}");
        assert_eq!(gradient(&device, Groups::per_channel(&[2, 2], 0)), [0.0, 1.0, 0.0, 0.0], "{device:?}");
    }
}

/// One NaN among numbers that are otherwise equal, found or expected, and both at once.
pub(super) fn f40() {
    let (numbers, with_nan) = ([1.0, -2.0, 3.0], [1.0, f32::NAN, 3.0]);
    for (found, expected) in [(with_nan, numbers), (numbers, with_nan), (with_nan, with_nan)] {
        assert_eq!(compare::largest_distance(&found, &expected), f64::INFINITY);
        assert_eq!(compare::relative_error(&found, &expected), f64::INFINITY);
        assert!(compare::close("y", &found, &expected, 1e9).is_err());
        assert!(compare::agrees(&found, &expected, None, 1e9).is_err());
    }
    assert!(!compare::within(f64::NAN, 1.0, 1e9) && !compare::within(1.0, 1.0, f64::NAN.max(-1.0)));
    assert_eq!(compare::largest(&with_nan), f64::INFINITY);
    // and a number that is missing is no agreement
    assert!(compare::close("y", &numbers[..2], &numbers, 1e9).is_err());
    assert_eq!(compare::relative_error(&numbers[..2], &numbers), f64::INFINITY);
    assert!(compare::close("y", &numbers, &numbers, 0.0).is_ok());
}

/// INT8 changes the output of a layer by less than the 2 % that isolated flips of roundings may: the float output is
/// refused, the quantized one taken, also with one flip.
pub(super) fn f42() {
    use burn::module::Param;
    use burn_quant::nn::QuantLinear;
    use burn_quant::{presets, quantize};
    let (_, device) = burn_quant_tests::device();
    let layer = || -> QuantLinear {
        burn::nn::Linear { weight: Param::from_tensor(crate::spread([32, 16], &device)), bias: None }.into()
    };
    let x = crate::spread::<2>([16, 32], &device) * 0.9;
    let run = |layer: &QuantLinear| drop(layer.forward(x.clone()));
    let (quantized, _) = quantize(layer(), &presets::int8_default(), run).unwrap();
    let (float, expected) = (values(layer().forward(x.clone())), values(quantized.forward(x.clone())));
    let off = compare::relative_error(&float, &expected);
    assert!(off > 1e-3 && off < 2e-2, "{off}");
    assert!(compare::agrees(&float, &expected, Some(&float), 1e-5).is_err());
    assert!(compare::agrees(&expected, &expected, Some(&float), 1e-5).is_ok());
    // an output that took one more step of its input's grid, 1.8 / 127, times a weight of 2
    let mut flipped = expected.clone();
    flipped[5] += 2.0 * 1.8 / 127.0;
    assert!(compare::close("y", &flipped, &expected, 1e-5).is_err());
    assert!(compare::agrees(&flipped, &expected, Some(&float), 1e-5).is_ok());
}
