//! Weights that are handed over to burn's own quantization: the same numbers, or the reason why not.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::quantization::{QuantScheme, QuantValue};
use burn::tensor::{DType, Device, Tensor};
use burn_quant::config::{Format, IntFormat, IntSpan, Signedness};
use burn_quant::error::NoSchemeReason;
use burn_quant::fold::fold_to_burn_scheme;
use burn_quant::{QuantConfig, QuantError, QuantizerConfig, Rule, compress, fold_weights, presets, quantize_weights};
use burn_quant_tests::{device, devices};

use crate::{assert_close, spread, values};

#[derive(Module, Debug)]
struct Net {
    conv: Conv2d,
    fc: Linear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self {
            conv: Conv2dConfig::new([2, 4], [2, 2]).init(device),
            fc: LinearConfig::new(64, 8).with_bias(false).init(device),
        }
    }
}

fn of_fc(weight: QuantizerConfig) -> QuantConfig {
    QuantConfig::new().with_rule(Rule::set("fc.weight_quantizer", weight))
}

fn scheme(weight: &Tensor<2>) -> QuantScheme {
    match weight.dtype() {
        DType::QFloat(scheme) => scheme,
        other => panic!("burn quantized it, found {other:?}"),
    }
}

#[test]
fn weights_keep_their_numbers_in_burns_own_quantization() {
    let narrow = |bits| Format::from(IntFormat::new(bits, Signedness::Signed, IntSpan::Narrow).unwrap());
    let configs = [
        (QuantizerConfig::int(8), QuantValue::Q8F, None),
        (QuantizerConfig::new(narrow(8)), QuantValue::Q8S, None),
        (QuantizerConfig::int(8).per_channel(), QuantValue::Q8F, Some(vec![64, 1])),
        (QuantizerConfig::int(4).per_block(32), QuantValue::Q4F, Some(vec![32, 1])),
        (QuantizerConfig::new(narrow(4)).per_block(16), QuantValue::Q4S, Some(vec![16, 1])),
        (QuantizerConfig::int(2).per_block(8).dynamic(), QuantValue::Q2F, Some(vec![8, 1])),
        (QuantizerConfig::int(8).constant(0.1), QuantValue::Q8F, None),
    ];
    for (name, device) in devices() {
        for (config, value, block) in configs.clone() {
            let (model, _) = quantize_weights(Net::new(&device), &of_fc(config)).unwrap();
            let x = spread::<2>([3, 64], &device);
            let folded = fold_weights(model.clone()).unwrap();
            // GPU backends pack neighbours along the last axis, which blocks of one column do not have
            let on_gpu = !name.contains("flex") && block.is_some();
            let burns = match fold_to_burn_scheme(model) {
                Err(QuantError::NoBurnScheme { reason: NoSchemeReason::PackedBlocks { .. }, .. }) if on_gpu => continue,
                other => other.unwrap(),
            };
            let found = scheme(&burns.fc.weight.val());
            assert_eq!(found.value, value, "{name}");
            assert_eq!(found.block_size().map(|size| size.to_dim_vec(2)), block.map(|b: Vec<u8>| b), "{name}");
            let (weight, expected) = (values(burns.fc.weight.val().dequantize()), values(folded.fc.weight.val()));
            assert_close(&weight, &expected, 1e-6, &name);
            // burn's linear layer reshapes its weight, and burn's reshape of blocks quantizes anew
            let products = x.clone().matmul(burns.fc.weight.val());
            assert_close(&values(products), &values(folded.fc.forward(x)), 1e-5, &name);
            assert_eq!(burns.conv.weight.val().dtype(), DType::F32, "{name}: what is not quantized stays");
        }
    }
}

/// A weight in half precision was rounded when it was folded; its codes are the same.
#[test]
fn weights_in_half_precision_are_handed_over() {
    let (name, device) = device();
    if name != "flex" || !device.supports_dtype(DType::F16) {
        return; // blocks of one column
    }
    let mut half = Net::new(&device);
    half.fc.weight = half.fc.weight.map(|weight| weight.cast(DType::F16));
    let (model, _) = quantize_weights(half, &of_fc(QuantizerConfig::int(8).per_channel())).unwrap();
    let folded = fold_weights(model.clone()).unwrap();
    let burns = fold_to_burn_scheme(model).unwrap();
    let (weight, expected) = (values(burns.fc.weight.val().dequantize()), values(folded.fc.weight.val()));
    assert_close(&weight, &expected, 1e-3, "f16");
}

#[test]
fn weights_that_burns_quantization_does_not_hold_are_refused_with_the_reason() {
    let (_, device) = device();
    let reason = |config: QuantizerConfig| {
        let (model, _) = quantize_weights(Net::new(&device), &of_fc(config)).unwrap();
        match fold_to_burn_scheme(model).unwrap_err() {
            QuantError::NoBurnScheme { path, reason } if path == "fc.weight" => reason,
            other => panic!("{other}"),
        }
    };
    for config in [QuantizerConfig::int(3), QuantizerConfig::mx(Format::E2M1), QuantizerConfig::new(Format::Nf4)] {
        assert!(matches!(reason(config), NoSchemeReason::Format { .. }));
    }
    let ragged = reason(QuantizerConfig::int(4).per_block(48));
    assert_eq!(ragged, NoSchemeReason::Blocks { shape: vec![64, 8], block: vec![48, 1] });
    let twice = QuantizerConfig::int(8).then(QuantizerConfig::e4m3());
    assert!(matches!(reason(twice), NoSchemeReason::MoreThanRounding { .. }));
    let long = LinearConfig::new(512, 4).init(&device);
    let (long, _) = quantize_weights(long, &presets::int8_weight_only()).unwrap();
    let QuantError::NoBurnScheme { reason, .. } = fold_to_burn_scheme(long).unwrap_err() else { panic!("a reason") };
    assert_eq!(reason, NoSchemeReason::Blocks { shape: vec![512, 4], block: vec![512, 1] });
    let (model, _) = quantize_weights(Net::new(&device), &of_fc(QuantizerConfig::int(8))).unwrap();
    let QuantError::NoBurnScheme { reason, .. } = fold_to_burn_scheme(compress(model).unwrap().0).unwrap_err() else {
        panic!("a reason")
    };
    assert_eq!(reason, NoSchemeReason::Packed);
}

/// burn's CPU backend rounds small floats to integers, without an error; the values are looked at.
#[test]
fn numbers_that_burn_gets_wrong_are_found_out() {
    let (name, device) = device();
    let (model, _) = quantize_weights(Net::new(&device), &of_fc(QuantizerConfig::e4m3())).unwrap();
    if name == "flex" {
        let QuantError::NoBurnScheme { reason, .. } = fold_to_burn_scheme(model).unwrap_err() else {
            panic!("a reason")
        };
        assert!(matches!(reason, NoSchemeReason::Values { .. }), "{reason}");
    }
}
