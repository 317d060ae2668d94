//! Packed models at their edges: what once went wrong without a word.
#![cfg_attr(not(feature = "flex"), allow(unused_imports))] // most of it is about kernels of Flex

use burn::module::Param;
use burn::nn::LinearConfig;
use burn::nn::conv::Conv2dConfig;
use burn::tensor::{DType, Device, Int, Tensor, TensorData};
use burn_quant::config::{GradientRule, IntFormat};
use burn_quant::nn::{QuantConv2d, QuantEmbedding, QuantEmbeddingConfig, QuantLinear};
use burn_quant::ops::{Activations, FakeQuant, Groups, PackedConv, PackedTensor, Pointwise, Ranges, packed_conv};
use burn_quant::{
    QuantConfig, QuantError, QuantizerConfig, Quantizers, Rule, compress, disable, presets, quantize, quantize_weights,
};
use burn_quant_store::{StoreError, from_bytes, to_bytes};
use burn_quant_tests::device;

use crate::{assert_close, assert_same, spread, values};

fn weights(config: QuantizerConfig) -> QuantConfig {
    QuantConfig::new().with_rule(Rule::set("*weight_quantizer", config))
}

fn linear(inputs: usize, outputs: usize, device: &Device) -> QuantLinear {
    LinearConfig::new(inputs, outputs).init(device).into()
}

/// Blocks lie in a kernel as the weight does, over channels and the elements of each; here channels differ in size, so
/// that a block of others has another range.
#[test]
fn kernels_in_blocks_keep_the_blocks_of_the_weight() {
    let (_, device) = device();
    let sizes = Tensor::<1>::from_data([1.0, 0.01, 10.0, 0.3, 3.0, 0.1], &device).reshape([1, 6, 1, 1]);
    let mut conv: QuantConv2d = Conv2dConfig::new([6, 5], [3, 3]).init(&device).into();
    conv.weight = Param::from_tensor(spread::<4>([5, 6, 3, 3], &device) * sizes);
    let images = spread::<4>([2, 6, 5, 5], &device);
    for config in [weights(QuantizerConfig::int(4).per_block(4)), presets::nvfp4_default()] {
        let (conv, _) = quantize(conv.clone(), &config, |conv| drop(conv.forward(images.clone()))).unwrap();
        let (packed, _) = compress(conv.clone()).unwrap();
        assert_close(&values(packed.weight.val()), &values(conv.weight.val()), 3e-7, "weight");
        assert_close(&values(packed.forward(images.clone())), &values(conv.forward(images.clone())), 1e-5, "images");
    }
}

/// Rows that a table does not have are refused on the CPU, as in a table that is not packed.
#[cfg(feature = "flex")] // what is special about its kernels
#[test]
fn rows_outside_a_packed_table_panic() {
    let table: QuantEmbedding = QuantEmbeddingConfig::new(40, 3).init(&Device::flex());
    let (table, _) = quantize_weights(table, &weights(QuantizerConfig::int(8).per_channel())).unwrap();
    let (packed, _) = compress(table).unwrap();
    for index in [40, 47, -1, 4000] {
        let indices = Tensor::<2, Int>::from_data([[0, index]], &Device::flex());
        let forward = std::panic::AssertUnwindSafe(|| packed.forward(indices.clone()));
        let message = *std::panic::catch_unwind(forward).unwrap_err().downcast::<String>().unwrap();
        assert!(message.contains(&format!("index {index} of 40")), "{message}");
    }
    // a weight of some of the outputs is looked after with autodiff too
    let device = Device::flex().autodiff();
    let groups = Groups::per_channel(&[5, 19], 1);
    let spec = FakeQuant { format: IntFormat::signed(8).unwrap().into(), groups, gradient: GradientRule::PassThrough };
    let weight = PackedTensor::pack(spread::<2>([5, 19], &device), Ranges::Dynamic, spec).unwrap();
    for index in [-1, 19] {
        let outputs = Tensor::<1, Int>::from_data([index], &device);
        let select = std::panic::AssertUnwindSafe(|| weight.select(outputs.clone()));
        assert!(std::panic::catch_unwind(select).is_err(), "{index}");
    }
    let none = Tensor::<1, Int>::from_data(TensorData::new(Vec::<i64>::new(), [0]), &device);
    assert_eq!(weight.columns(none).dims(), [0, 5]);
}

#[test]
fn a_table_of_one_row_is_read_twice() {
    let (_, device) = device();
    let table: QuantEmbedding = QuantEmbeddingConfig::new(1, 4).init(&device);
    let (table, _) = quantize_weights(table, &weights(QuantizerConfig::int(8).per_channel())).unwrap();
    let row = values(table.weight.val());
    let indices = Tensor::<2, Int>::from_data([[0, 0]], &device);
    assert_same(&values(table.forward(indices)), &[row.clone(), row].concat(), "rows");
}

/// A packed weight is what its quantizer says: nothing takes its place, changes it, or switches it off unnoticed.
#[test]
fn a_packed_weight_is_not_changed_by_way_of_its_quantizer() {
    let (_, device) = device();
    let (layer, _) = quantize_weights(linear(40, 6, &device), &presets::int8_weight_only()).unwrap();
    let (packed, _) = compress(layer.clone()).unwrap();
    let is_packed = |result: Result<QuantLinear, QuantError>| {
        let error = result.unwrap_err();
        assert!(error.to_string().starts_with("`weight_quantizer` is packed: quantize the float model, or"));
    };
    let mut changed = Quantizers::of(&packed);
    changed.get_mut("weight_quantizer").unwrap().set_config(QuantizerConfig::int(4).per_block(8));
    is_packed(changed.install(packed.clone()));
    is_packed(Quantizers::of(&layer).install(packed.clone()));
    is_packed(disable(packed.clone(), "*weight_quantizer"));
    let same = Quantizers::of(&packed).install(packed.clone()).unwrap();
    assert_same(&values(same.weight.val()), &values(packed.weight.val()), "its own quantizers");

    let file = to_bytes(&packed).unwrap();
    let error = from_bytes(packed, file).unwrap_err();
    assert!(matches!(error, StoreError::Packed { .. }), "{error}");
}

/// Inputs are rounded by their own quantizer where a gradient is wanted: by its rule, and with that of its range.
#[test]
fn gradients_around_a_packed_weight_follow_the_rule_of_the_inputs() {
    let (_, device) = device();
    let device = device.autodiff();
    let x = spread::<2>([5, 12], &device);
    let beyond = x.clone() * 1.5;
    let with = |input: QuantizerConfig| presets::int8_default().with_rule(Rule::set("input_quantizer", input));
    for config in
        [with(QuantizerConfig::int(8)), with(QuantizerConfig::int(8).clipped()), with(QuantizerConfig::int(8).lsq())]
    {
        let (layer, _) = quantize(linear(12, 4, &device), &config, |layer| drop(layer.forward(x.clone()))).unwrap();
        let (packed, _) = compress(layer.clone()).unwrap();
        let gradients = |layer: &QuantLinear| {
            let x = beyond.clone().detach().require_grad();
            let gradients = layer.forward(x.clone()).sum().backward();
            let range = layer.input_quantizer.amax().unwrap().grad(&gradients).map(values);
            (values(x.grad(&gradients).unwrap()), range)
        };
        let ((found, range), (expected, of_range)) = (gradients(&packed), gradients(&layer));
        assert_close(&found, &expected, 1e-5, "inputs");
        assert_eq!(range.is_some(), of_range.is_some());
        assert_close(&range.unwrap_or_default(), &of_range.unwrap_or_default(), 1e-4, "range");
    }
}

#[cfg(feature = "flex")] // what is special about its kernels
#[test]
fn packed_weights_in_half_precision_come_back_in_it() {
    let device = Device::flex();
    let mut layer = LinearConfig::new(20, 5).init(&device);
    layer.weight = layer.weight.map(|weight| weight.cast(DType::F16));
    layer.bias = layer.bias.map(|bias| bias.map(|bias| bias.cast(DType::F16)));
    let (layer, _) = quantize_weights(layer, &presets::int8_weight_only()).unwrap();
    let (packed, _) = compress(layer).unwrap();
    let restored = from_bytes(LinearConfig::new(20, 5).init(&device), to_bytes(&packed).unwrap()).unwrap();
    assert_eq!(restored.weight.val().dtype(), DType::F16);
    let x = spread::<2>([2, 20], &device).cast(DType::F16);
    assert_same(&values(restored.forward(x.clone())), &values(packed.forward(x)), "outputs");
}

/// More inputs than an i32 sums exactly are multiplied as floats, in parts.
#[cfg(feature = "flex")] // what is special about its kernels
#[test]
fn very_long_sums_keep_their_places() {
    let device = Device::flex();
    let mut layer = linear(150_000, 1, &device);
    layer.weight = Param::from_tensor(Tensor::ones([150_000, 1], &device));
    layer.bias = None;
    let x = Tensor::<2>::ones([1, 150_000], &device);
    let (layer, _) = quantize(layer, &presets::int8_default(), |layer| drop(layer.forward(x.clone()))).unwrap();
    let (packed, _) = compress(layer).unwrap();
    assert_close(&values(packed.forward(x)), &[150_000.0], 1e-5, "a sum of ones");
}

#[cfg(feature = "flex")] // what is special about its kernels
#[test]
fn geometries_that_do_not_fit_are_named() {
    let device = Device::flex();
    let conv: QuantConv2d = Conv2dConfig::new([2, 3], [3, 3]).init(&device).into();
    let run = |conv: &QuantConv2d| drop(conv.forward(spread::<4>([1, 2, 4, 4], &device)));
    let (packed, _) = compress(quantize(conv, &presets::int8_default(), run).unwrap().0).unwrap();
    let message = |shape: [usize; 4]| {
        let forward = std::panic::AssertUnwindSafe(|| packed.forward(spread::<4>(shape, &device)));
        *std::panic::catch_unwind(forward).unwrap_err().downcast::<String>().unwrap()
    };
    assert_eq!(message([1, 2, 2, 6]), "packed_conv: a kernel that extends over 3 does not fit into 2");
    assert!(message([1, 5, 4, 4]).contains("packed_conv: the kernel is for 2 channels, the input has 5"));

    // three outputs are not those of two groups
    let quantizers = Quantizers::of(&packed);
    let weight = quantizers.get("weight_quantizer").unwrap().packed().unwrap().packed();
    let range = Tensor::<1>::from_data([1.0], &device);
    let forward = std::panic::AssertUnwindSafe(|| {
        let conv = PackedConv::new(&[3, 3]).with_groups(2);
        packed_conv(spread::<4>([1, 4, 4, 4], &device), &weight, None, &conv, Activations::Int8(range))
    });
    let message = *std::panic::catch_unwind(forward).unwrap_err().downcast::<String>().unwrap();
    assert_eq!(message, "packed_conv: 2 groups divide 4 channels and 3 outputs");
}

/// A reshape takes a length of 0 for the length that is there: batches without tokens once panicked, wherever the 0 was
/// not the first length.
#[test]
fn nothing_goes_through_a_packed_layer_in_any_shape() {
    let (_, device) = device();
    let none = |shape: [usize; 3]| Tensor::<3>::from_data(TensorData::zeros::<f32, _>(shape), &device);
    let inputs = QuantizerConfig::int(8).per_token().dynamic();
    let int8 = || QuantizerConfig::int(8);
    let output = |config: QuantizerConfig| Some(Rule::set("*output_quantizer", config));
    for output in [None, output(int8()), output(int8().dynamic()), output(int8().per_token().dynamic())] {
        let config = weights(int8().per_channel()).with_rule(Rule::set("*input_quantizer", inputs.clone()));
        let config = output.into_iter().fold(config, QuantConfig::with_rule);
        let x = spread::<3>([2, 3, 4], &device);
        let run = |layer: &QuantLinear| drop(layer.forward(x.clone()));
        let (layer, _) = quantize(linear(4, 5, &device), &config, run).unwrap();
        let (packed, _) = compress(layer).unwrap();
        for shape in [[0, 3, 4], [2, 0, 4], [0, 0, 4]] {
            let expected = [shape[0], shape[1], 5];
            assert_eq!(packed.forward(none(shape)).dims(), expected);
            assert_eq!(packed.forward_then(none(shape), Pointwise::Gelu).dims(), expected);
        }
    }
    // beside a branch of low rank
    let x = spread::<3>([2, 3, 32], &device);
    let run = |layer: &QuantLinear| drop(layer.forward(x.clone()));
    let (layer, _) = quantize(linear(32, 16, &device), &presets::nvfp4_svdquant_default(), run).unwrap();
    let (packed, _) = compress(layer).unwrap();
    assert_eq!(packed.forward(none([2, 0, 32])).dims(), [2, 0, 16]);
    assert_eq!(packed.forward(none([0, 3, 32])).dims(), [0, 3, 16]);
}

/// No tokens have no vectors, with a quantizer as without.
#[test]
fn of_no_rows_nothing_is_read() {
    let (_, device) = device();
    let none = || Tensor::<2, Int>::from_data(TensorData::new(Vec::<i64>::new(), [2, 0]), &device);
    for config in [QuantizerConfig::int(8).per_channel(), QuantizerConfig::nvfp4()] {
        let table: QuantEmbedding = QuantEmbeddingConfig::new(10, 32).init(&device);
        assert_eq!(table.forward(none()).dims(), [2, 0, 32]);
        let (table, _) = quantize_weights(table, &weights(config)).unwrap();
        assert_eq!(table.forward(none()).dims(), [2, 0, 32]);
        let (packed, _) = compress(table).unwrap();
        assert_eq!(packed.forward(none()).dims(), [2, 0, 32]);
    }
}
