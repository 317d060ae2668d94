//! Packed weights around a bias: what is added to the values of their codes, in products, tables and files.

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig, ConvTranspose2d, ConvTranspose2dConfig};
use burn::nn::{Embedding, EmbeddingConfig, LinearConfig};
use burn::tensor::{DType, Device, Int, Tensor};
use burn_quant::compress::memory;
use burn_quant::config::{AxisGroups, BiasConfig, Format, Granularity, IntFormat};
use burn_quant::nn::QuantLinear;
use burn_quant::ops::{
    Activations, FakeQuant, GradientRule, Groups, PackedOffsets, PackedTensor, Ranges, packed_linear,
};
use burn_quant::quantizer::Buffer;
use burn_quant::{QuantConfig, QuantizerConfig, Quantizers, Rule, compress, fold_weights, quantize, quantize_weights};
use burn_quant_store::{StoreError, from_bytes, to_bytes};
use burn_quant_tests::{device, devices};

use crate::packed_files::{changed, replaced};
use crate::{assert_close, assert_same, spread, values};

#[derive(Module, Debug)]
struct Net {
    fc: QuantLinear,
    conv: Conv2d,
    up: ConvTranspose2d,
    table: Embedding,
}

impl Net {
    /// With weights that are off centre, so that a bias matters.
    fn new(device: &Device) -> Self {
        let mut net = Self {
            fc: LinearConfig::new(24, 18).init(device).into(),
            conv: Conv2dConfig::new([4, 6], [2, 2]).with_groups(2).init(device),
            up: ConvTranspose2dConfig::new([4, 6], [2, 2]).with_stride([2, 2]).init(device),
            table: EmbeddingConfig::new(20, 24).init(device),
        };
        let off = |weight: Tensor<2>| weight + spread([1, 18], device);
        net.fc.weight = net.fc.weight.clone().map(off);
        net.conv.weight = net.conv.weight.map(|weight| weight + 0.3);
        net
    }

    fn outputs(&self, device: &Device) -> [Vec<f32>; 4] {
        let rows = Tensor::<2, Int>::from_data([[3, 0, 19]], device);
        [
            values(self.fc.forward(spread::<2>([5, 24], device))),
            values(self.conv.forward(spread([2, 4, 5, 5], device))),
            values(self.up.forward(spread([2, 4, 3, 3], device))),
            values(self.table.forward(rows)),
        ]
    }
}

fn config(weight: QuantizerConfig, tokens: bool) -> QuantConfig {
    let config = QuantConfig::new().with_rule(Rule::set("*weight_quantizer", weight));
    match tokens {
        true => config.with_rule(Rule::set("*input_quantizer", QuantizerConfig::int(8).per_token().dynamic())),
        false => config,
    }
}

/// A bias of the calibration or of the tensor, one or one of each output, with whole columns and with blocks.
#[test]
fn a_weight_around_a_bias_computes_what_it_computed() {
    for (name, device) in devices() {
        let per_channel = || BiasConfig::new(Granularity::PerChannel);
        for (bias, weight) in [
            (per_channel(), QuantizerConfig::int(8).per_channel()),
            (per_channel().max_min(), QuantizerConfig::int(4).per_channel()),
            (per_channel().dynamic(), QuantizerConfig::new(Format::Nf4).per_block(8)),
            (BiasConfig::new(Granularity::PerTensor), QuantizerConfig::int(4).per_block(8)),
            (BiasConfig::new(Granularity::PerTensor).max_min().dynamic(), QuantizerConfig::nvfp4()),
        ] {
            // autodiff adds nothing but the gradient, which has a test of its own
            for tokens in if name.starts_with("autodiff") { &[true][..] } else { &[false, true] } {
                let tokens = *tokens;
                let weight = weight.clone().with_bias(bias.clone());
                let what = format!("{name}, {}, {bias:?}, INT8 tokens: {tokens}", weight.kind());
                let (net, _) = quantize(Net::new(&device), &config(weight, tokens), |net| {
                    net.outputs(&device);
                })
                .unwrap();
                let (packed, _) = compress(net.clone()).unwrap();
                for (found, expected) in packed.outputs(&device).iter().zip(net.outputs(&device)) {
                    assert_close(found, &expected, 3e-6, &what);
                }
                let folded = fold_weights(net).unwrap();
                assert_close(&values(packed.fc.weight.val()), &values(folded.fc.weight.val()), 3e-7, &what);

                let restored = from_bytes(Net::new(&device), to_bytes(&packed).unwrap()).unwrap();
                assert_eq!(memory(&restored), memory(&packed), "{what}");
                for (found, expected) in restored.outputs(&device).iter().zip(packed.outputs(&device)) {
                    assert_same(found, &expected, &what);
                }
            }
        }
    }
}

/// A bias takes four bytes of each output.
#[test]
fn a_bias_is_counted() {
    let (_, device) = device();
    let bytes = |weight: QuantizerConfig| {
        let layer: QuantLinear = LinearConfig::new(32, 16).with_bias(false).init(&device).into();
        let (layer, _) = quantize_weights(layer, &config(weight, false)).unwrap();
        memory(&compress(layer).unwrap().0).bytes()
    };
    let int8 = || QuantizerConfig::int(8).per_channel();
    assert_eq!(bytes(int8()), 32 * 16 + 16 * 4);
    assert_eq!(bytes(int8().with_bias(BiasConfig::new(Granularity::PerChannel))), 32 * 16 + 16 * 4 + 16 * 4);
}

/// In half precision the rounded value, the bias and their sum are numbers of the dtype.
#[cfg(feature = "flex")] // what is special about its kernels
#[test]
fn halves_round_as_fake_quantization_does() {
    let device = Device::flex();
    for dtype in [DType::F16, DType::BF16] {
        let mut layer = LinearConfig::new(24, 18).with_bias(false).init(&device);
        layer.weight = layer.weight.map(|weight| (weight + spread([1, 18], &device)).cast(dtype));
        let weight = QuantizerConfig::int(4).per_channel().with_bias(BiasConfig::new(Granularity::PerChannel));
        let (layer, _) = quantize_weights(layer, &config(weight, false)).unwrap();
        let expected = values(layer.weight.val());
        let packed = compress(layer).unwrap().0.weight.val();
        assert_eq!(packed.dtype(), dtype);
        assert_same(&values(packed), &expected, "values");
    }
}

/// Zero points in blocks, as other tools have them: `w = (code − zero) · scale`.
#[test]
fn zero_points_of_blocks_are_offsets() {
    for (name, device) in devices() {
        let ([inputs, outputs], block) = ([20, 5], 8); // the last block has four
        let int4 = Format::from(IntFormat::signed(4).unwrap());
        let groups = Groups::blocks(&[inputs, outputs], 0, block);
        let spec = FakeQuant { format: int4, groups, gradient: GradientRule::PassThrough };
        let packed = PackedTensor::pack(spread([inputs, outputs], &device), Ranges::Dynamic, spec).unwrap();
        let without = values(packed.unpack());
        let offsets = spread::<2>([3, outputs], &device);
        let packed = packed.with_offsets(PackedOffsets::new(offsets.clone(), block));
        let offsets = values(offsets);
        let weight: Vec<f32> = (without.iter().enumerate())
            .map(|(i, value)| value + offsets[i / outputs / block * outputs + i % outputs])
            .collect();
        assert_same(&values(packed.unpack()), &weight, &name);
        let x = spread::<2>([3, inputs], &device);
        let (rows, mut expected) = (values(x.clone()), vec![0.0; 3 * outputs]);
        for (i, y) in expected.iter_mut().enumerate() {
            let (row, output) = (i / outputs * inputs, i % outputs);
            *y = (0..inputs).map(|k| rows[row + k] * weight[k * outputs + output]).sum();
        }
        assert_close(&values(packed_linear(x, &packed, Activations::Float)), &expected, 1e-6, &name);
        let some = packed.select(Tensor::from_data([4, 1], &device));
        let columns: Vec<f32> = weight.chunks(outputs).flat_map(|row| [row[4], row[1]]).collect();
        assert_same(&values(some.unpack()), &columns, &name);
    }
}

#[test]
fn what_is_no_bias_of_a_packed_weight_is_refused() {
    let (_, device) = device();
    let layer = || -> QuantLinear { LinearConfig::new(8, 4).init(&device).into() };
    let of_inputs = Granularity::Axes(vec![AxisGroups::Each, AxisGroups::Whole]);
    let weight = QuantizerConfig::int(8).with_bias(BiasConfig::new(of_inputs));
    let (around, _) = quantize_weights(layer(), &config(weight, false)).unwrap();
    let error = compress(around).unwrap_err().to_string();
    assert!(error.contains("rounds around a bias that inputs do not share"), "{error}");

    let weight = QuantizerConfig::int(8).with_bias(BiasConfig::new(Granularity::PerTensor));
    let (around, _) = quantize_weights(layer(), &config(weight, false)).unwrap();
    let (packed, _) = compress(around.clone()).unwrap();
    let mut quantizers = Quantizers::of(&around);
    let nan = Tensor::from_data([f32::NAN], &device);
    quantizers.get_mut("weight_quantizer").unwrap().set_buffer(Buffer::Bias, nan);
    let error = compress(quantizers.install(around).unwrap()).unwrap_err().to_string();
    assert!(error.contains("it rounds around a bias of NaN"), "{error}");

    let whole = to_bytes(&packed).unwrap().to_vec();
    let offsets = "weight.weight_quantizer.offsets";
    let missing = changed(&whole, |tensors, _| tensors.retain(|tensor| tensor.name != offsets));
    let error = from_bytes(layer(), missing).unwrap_err();
    assert!(matches!(&error, StoreError::MissingTensors { paths } if paths[..] == [offsets]), "{error}");
    for (values, what) in [(vec![0.0f32; 3], "expected a slice of 4 elements, found 3"), (vec![f32::NAN; 4], "of NaN")]
    {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let damaged = changed(&whole, |tensors, _| replaced(tensors, offsets, DType::F32, bytes));
        let error = from_bytes(layer(), damaged).unwrap_err().to_string();
        assert!(error.contains(what), "{error}");
    }
}

/// A kernel in blocks is rounded as a matrix, and so is its bias measured; a row of a table is rounded as the table is.
#[cfg(feature = "flex")] // what is special about its kernels
#[test]
fn values_are_those_of_fake_quantization_bit_for_bit() {
    let device = Device::flex();
    let blocks = QuantizerConfig::int(4).per_block(4).with_bias(BiasConfig::new(Granularity::PerChannel).dynamic());
    for seed in 0..20 {
        let mut conv = Conv2dConfig::new([3, 2], [3, 1]).init(&device);
        conv.weight = conv.weight.map(|weight| weight * (seed as f32 * 0.37 + 1.0) + 0.2);
        let (conv, _) = quantize_weights(conv, &config(blocks.clone(), false)).unwrap();
        let packed = compress(conv.clone()).unwrap().0;
        assert_same(&values(packed.weight.val()), &values(conv.weight.val()), "a kernel");
    }
    for dtype in [DType::F32, DType::F16, DType::BF16] {
        let mut table = EmbeddingConfig::new(8, 8).init(&device);
        table.weight = table.weight.map(|weight| (weight + 0.3).cast(dtype));
        let weight = QuantizerConfig::int(4).per_channel().with_bias(BiasConfig::new(Granularity::PerChannel));
        let (table, _) = quantize_weights(table, &config(weight, false)).unwrap();
        let table: burn_quant::nn::QuantEmbedding = table.into();
        let rows = Tensor::<2, Int>::from_data([[0, 7, 3]], &device);
        let packed = compress(table.clone()).unwrap().0;
        assert_same(&values(packed.forward(rows.clone())), &values(table.forward(rows)), &format!("{dtype:?}"));
    }
}

/// Groups of a transposed convolution have channels of their own, and so biases.
#[test]
fn groups_of_a_transposed_convolution_have_biases() {
    let (_, device) = device();
    let conv = ConvTranspose2dConfig::new([4, 4], [2, 1]).with_groups(2).init(&device);
    let weight = QuantizerConfig::int(8).with_bias(BiasConfig::new(Granularity::PerChannel).max_min());
    let (quantized, _) = quantize_weights(conv.clone(), &config(weight, false)).unwrap();
    let (found, expected) = (values(quantized.weight.val()), values(conv.weight.val()));
    let largest = expected.iter().fold(0f32, |largest, value| largest.max(value.abs()));
    assert_close(&found, &expected, 1.0 / 127.0 / largest.max(1e-3), "rounded around the middle of each channel");
}

#[cfg(feature = "flex")] // what is special about its kernels
#[test]
fn offsets_of_nothing_add_nothing() {
    let device = Device::flex();
    let int8 = Format::from(IntFormat::signed(8).unwrap());
    for (inputs, outputs, block) in [(0, 3, 1), (4, 0, 2), (4, 3, 2)] {
        let groups = Groups::per_tensor(&[inputs, outputs]);
        let spec = FakeQuant { format: int8, groups, gradient: GradientRule::PassThrough };
        let zeros = |rows: usize| {
            let data = burn::tensor::TensorData::zeros::<f32, _>([rows, outputs]);
            Tensor::<2>::from_data(data, &device)
        };
        let weight = Tensor::<2>::from_data(burn::tensor::TensorData::zeros::<f32, _>([inputs, outputs]), &device);
        let packed = PackedTensor::pack(weight, Tensor::<1>::from_data([1.0], &device), spec).unwrap();
        let packed = packed.with_offsets(PackedOffsets::new(zeros(inputs.div_ceil(block)), block));
        assert_eq!(packed.unpack().dims(), [inputs, outputs]);
        for activations in [Activations::Float, Activations::Int8PerToken] {
            let x = Tensor::<2>::from_data(burn::tensor::TensorData::ones::<f32, _>([2, inputs]), &device);
            assert_eq!(values(packed_linear(x, &packed, activations)), vec![0.0; 2 * outputs]);
        }
    }
}
