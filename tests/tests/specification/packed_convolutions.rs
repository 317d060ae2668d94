//! Packed convolutions around a bias or zero points, and transposed ones of several groups: what they compute, and that
//! they do it in integers on the CPU.

use burn::module::Module;
use burn::nn::conv::{
    Conv1dConfig, Conv2dConfig, Conv3dConfig, ConvTranspose1dConfig, ConvTranspose2dConfig, ConvTranspose3dConfig,
};
use burn::tensor::{Device, Tensor, TensorData};
use burn_quant::compress::{decompress, memory};
use burn_quant::config::{BiasConfig, Granularity, IntFormat};
use burn_quant::nn::{ActivationQuantized, QuantConv2d, QuantConvTranspose2d};
use burn_quant::ops::{
    Activations, FakeQuant, GradientRule, Groups, PackedConv, PackedConvTranspose, PackedOffsets, PackedTensor,
    packed_conv, packed_conv_transpose,
};
use burn_quant::{QuantConfig, QuantizerConfig, Rule, TensorQuantizer, compress, presets, quantize};
use burn_quant_graph::capture;
use burn_quant_graph::ir::OperationIr;
use burn_quant_onnx::Exporter;
use burn_quant_store::{StoreError, from_bytes, safetensors_from_bytes, safetensors_to_bytes, to_bytes};
use burn_quant_tests::{device, devices};

use crate::onnx_runtime::Files;
use crate::packed_files::changed;
use crate::{assert_close, assert_same, spread, values};

/// INT8 inputs with the range of the tensor.
fn weights(config: QuantizerConfig) -> QuantConfig {
    presets::int8_default().with_rule(Rule::set("*weight_quantizer", config))
}

/// Each number format and each scale that runs in integers, and biases for them.
fn kinds() -> Vec<QuantizerConfig> {
    let per_channel = || BiasConfig::new(Granularity::PerChannel);
    vec![
        QuantizerConfig::int(8).per_channel(),
        QuantizerConfig::int(4).per_channel(),
        QuantizerConfig::int(8),
        QuantizerConfig::int(4),
        QuantizerConfig::int(8).per_channel().with_bias(per_channel()),
        QuantizerConfig::int(5).per_channel().with_bias(per_channel().max_min()),
        QuantizerConfig::int(4).with_bias(per_channel().max_min()),
        QuantizerConfig::int(8).per_channel().with_bias(BiasConfig::new(Granularity::PerTensor).max_min()),
        QuantizerConfig::int(4).with_bias(BiasConfig::new(Granularity::PerTensor)),
    ]
}

/// Says of which rank a result is.
fn of_rank_of<const D: usize>(_: &Tensor<D>, tensor: Tensor<D>) -> Tensor<D> {
    tensor
}

macro_rules! check {
    ($kinds:expr; $($config:expr, $image:expr;)*) => {{
        let mut files = Files::new();
        $(for (name, device) in devices() {
            let mut layer = $config.init(&device);
            layer.weight = layer.weight.map(|weight| weight + 0.3); // off centre, so that a bias matters
            let layer = ActivationQuantized::from(layer);
            let images = spread($image, &device);
            for (i, config) in $kinds.into_iter().enumerate() {
                // elsewhere the kernel is unpacked, whatever it is of
                if name != "flex" && i % 4 != 0 {
                    continue;
                }
                let what = format!("{name}: {config:?}, {}", stringify!($config));
                let calibrated = quantize(layer.clone(), &weights(config), |layer| drop(layer.forward(images.clone())));
                let (layer, _) = calibrated.unwrap();
                let (packed, report) = compress(layer.clone()).unwrap();
                assert_eq!(report.packed.len(), 1);
                assert_same(&values(packed.weight.val()), &values(layer.weight.val()), &what);
                let expected = values(layer.forward(images.clone()));
                let found = packed.forward(images.clone());
                assert_close(&values(found.clone()), &expected, 3e-6, &what);

                if name.contains("autodiff") {
                    continue; // graphs run without it
                }
                let graph = capture(&packed, images.clone(), |layer, x| layer.forward(x)).unwrap();
                let nodes = graph.operations().iter().filter(|operation| matches!(operation, OperationIr::Custom(_)));
                assert_eq!(nodes.count(), 1, "{what}: {graph}");
                assert_eq!(graph.products().len(), 1, "{what}: {graph}");
                let mut replay = graph.replay(&device).unwrap();
                let replayed = values(of_rank_of(&found, replay.run(images.clone()).unwrap()));
                if name == "flex" {
                    assert_same(&replayed, &values(found.clone()), &what);
                    let onnx = Exporter::new().graph(&graph).unwrap();
                    files.add(&format!("{}_{i}", files.len()), &onnx, images.clone(), found);
                } else {
                    assert_close(&replayed, &values(found), 1e-6, &what);
                }
            }
        })*
        files.check();
    }};
}

/// One to three axes, strides, what is cut off and added, dilation, groups of one channel and of more.
#[test]
fn transposed_convolutions_of_several_groups_run_on_their_codes() {
    check! {
        kinds();
        ConvTranspose1dConfig::new([4, 6], 3).with_groups(2).with_stride(2), [2, 4, 5];
        ConvTranspose1dConfig::new([6, 6], 2).with_groups(6).with_stride(3).with_padding(1).with_padding_out(1),
            [2, 6, 5];
        ConvTranspose2dConfig::new([4, 6], [3, 2]).with_groups(2).with_bias(false), [2, 4, 5, 6];
        ConvTranspose2dConfig::new([5, 10], [3, 3]).with_groups(5).with_stride([2, 2]).with_padding([1, 1])
            .with_padding_out([1, 1]), [2, 5, 4, 5];
        ConvTranspose2dConfig::new([18, 36], [2, 3]).with_groups(3).with_dilation([2, 3]).with_padding([0, 4]),
            [1, 18, 4, 6];
        ConvTranspose3dConfig::new([4, 4], [2, 1, 2]).with_groups(2).with_stride([1, 2, 1]), [1, 4, 3, 2, 3];
        ConvTranspose3dConfig::new([3, 3], [1, 2, 2]).with_groups(3).with_bias(false), [2, 3, 2, 3, 3];
    }
}

/// The same of one group, and convolutions, with zeros of their own on each side.
#[test]
fn convolutions_around_a_bias_run_on_their_codes() {
    use burn::nn::PaddingConfig1d as Pad1;
    use burn::nn::PaddingConfig2d as Pad2;
    use burn::nn::PaddingConfig3d as Pad3;
    let around = || kinds().into_iter().filter(|config| config.bias.is_some()).collect::<Vec<_>>();
    check! {
        around();
        Conv1dConfig::new(3, 5, 3).with_padding(Pad1::Explicit(1, 0)), [2, 3, 9];
        Conv2dConfig::new([4, 33], [3, 2]).with_stride([2, 1]).with_bias(false), [2, 4, 7, 6];
        Conv2dConfig::new([5, 7], [2, 3]).with_dilation([2, 3]).with_padding(Pad2::Explicit(0, 2, 3, 1)), [2, 5, 8, 9];
        Conv2dConfig::new([12, 9], [3, 3]).with_groups(3).with_stride([1, 2]).with_padding(Pad2::Same), [2, 12, 6, 7];
        Conv2dConfig::new([5, 10], [3, 3]).with_groups(5).with_stride([2, 2]), [2, 5, 9, 9];
        Conv3dConfig::new([3, 4], [2, 2, 3]).with_padding(Pad3::Explicit(1, 0, 1)), [1, 3, 4, 5, 6];
        ConvTranspose1dConfig::new([4, 6], 2).with_stride(3).with_padding(2).with_padding_out(1), [2, 4, 5];
        ConvTranspose2dConfig::new([20, 5], [3, 3]).with_stride([2, 2]).with_padding([1, 1]).with_padding_out([1, 1])
            .with_bias(false), [2, 20, 4, 5];
        ConvTranspose2dConfig::new([3, 18], [2, 3]).with_dilation([2, 3]).with_padding([0, 4]), [1, 3, 4, 6];
        ConvTranspose3dConfig::new([2, 3], [2, 1, 2]), [1, 2, 3, 3, 3];
    }
}

/// A layer takes integers where its quantizer offers them.
#[cfg(feature = "flex")] // what is special about its kernels
#[test]
fn these_convolutions_run_in_integers_on_the_processor() {
    let device = Device::flex();
    let x = spread::<4>([1, 4, 3, 3], &device);
    for config in kinds() {
        for groups in [1, 2, 4] {
            let up = ConvTranspose2dConfig::new([4, 8], [2, 2]).with_groups(groups).init(&device);
            let run = |up: &QuantConvTranspose2d| drop(up.forward(x.clone()));
            let up = compress(quantize(up.into(), &weights(config.clone()), run).unwrap().0).unwrap().0;
            let quantizer = up.weight.reparameterization::<TensorQuantizer>().unwrap();
            let product = |of: usize| {
                let geometry = PackedConvTranspose::new(&[2, 2]).with_groups(of);
                quantizer.convolution_transpose(&up.input_quantizer, &x, None, geometry)
            };
            assert_eq!(product(groups).unwrap().dims(), [1, 8, 4, 4], "{groups} groups, {config:?}");
            // columns are in the order of the layer's groups
            assert!(product(3).is_none());

            let conv = Conv2dConfig::new([4, 8], [2, 2]).with_groups(groups).init(&device);
            let run = |conv: &QuantConv2d| drop(conv.forward(x.clone()));
            let conv = compress(quantize(conv.into(), &weights(config.clone()), run).unwrap().0).unwrap().0;
            let quantizer = conv.weight.reparameterization::<TensorQuantizer>().unwrap();
            let geometry = PackedConv::new(&[2, 2]).with_groups(groups);
            assert!(quantizer.convolution(&conv.input_quantizer, &x, None, geometry).is_some(), "{config:?}");
        }
    }
}

/// A kernel of whole numbers in steps of one.
fn kernel<const N: usize>(rows: &[[f32; N]], device: &Device) -> PackedTensor {
    let values = TensorData::new(rows.concat(), [rows.len(), N]);
    let groups = Groups::per_tensor(&[rows.len(), N]);
    let int8 = IntFormat::signed(8).unwrap().into();
    let spec = FakeQuant { format: int8, groups, gradient: GradientRule::PassThrough };
    PackedTensor::pack(Tensor::from_data(values, device), Tensor::<1>::from_data([127.0], device), spec).unwrap()
}

/// Floats, and INT8 in steps of one: of whole numbers they are the same.
fn roundings(device: &Device) -> [Activations; 2] {
    [Activations::Float, Activations::Int8(Tensor::from_data([127.0], device))]
}

/// `[in / groups, out · k]`: columns are ordered by outputs, group by group, and elements of the kernel within them.
#[test]
fn groups_of_a_transposed_convolution_have_columns_side_by_side() {
    for (name, device) in devices() {
        for activations in roundings(&device) {
            // two groups of two channels, of two outputs of one element
            let weight = kernel(&[[1.0, 2.0, 3.0, 4.0], [10.0, 20.0, 30.0, 40.0]], &device);
            let x = Tensor::<3>::from_data([[[1.0], [1.0], [2.0], [3.0]]], &device);
            let conv = PackedConvTranspose::new(&[1]).with_groups(2);
            let y = packed_conv_transpose(x, &weight, None, &conv, activations.clone());
            let expected = [11.0, 22.0, 2.0 * 3.0 + 3.0 * 30.0, 2.0 * 4.0 + 3.0 * 40.0];
            assert_same(&values(y), &expected, &name);

            // two channels with a kernel of two elements each
            let weight = kernel(&[[1.0, 2.0, 10.0, 20.0]], &device);
            let x = Tensor::<3>::from_data([[[3.0, 4.0], [5.0, 6.0]]], &device);
            let conv = PackedConvTranspose::new(&[2]).with_groups(2);
            let bias = Some(Tensor::<1>::from_data([0.5, -0.5], &device));
            let y = packed_conv_transpose(x, &weight, bias, &conv, activations);
            let expected = [3.5, 3.0 * 2.0 + 4.0 + 0.5, 8.5, 49.5, 5.0 * 20.0 + 6.0 * 10.0 - 0.5, 119.5];
            assert_same(&values(y), &expected, &name);
        }
    }
}

/// An offset is added to each element of its column: `x · (w + o) = x · w + (Σ x) · o`, and nothing where zeros are.
#[test]
fn offsets_are_added_to_kernels() {
    for (name, device) in devices() {
        for activations in roundings(&device) {
            // two outputs of a channel: kernels (1, 2) + 0.5 and (−1, −2) + 3
            let offsets = PackedOffsets::new(Tensor::from_data([[0.5, 3.0]], &device), 2);
            let weight = kernel(&[[1.0, -1.0], [2.0, -2.0]], &device).with_offsets(offsets);
            let x = Tensor::<3>::from_data([[[3.0, 4.0, 5.0]]], &device);
            let conv = PackedConv::new(&[2]).with_padding(&[(1, 1)]);
            let y = packed_conv(x, &weight, None, &conv, activations.clone());
            let first = [2.5 * 3.0, 1.5 * 3.0 + 2.5 * 4.0, 1.5 * 4.0 + 2.5 * 5.0, 1.5 * 5.0];
            let second = [3.0, 2.0 * 3.0 + 4.0, 2.0 * 4.0 + 5.0, 2.0 * 5.0];
            assert_same(&values(y), &[first, second].concat(), &name);

            // a channel for each output, and a bias of the result: 2 + 0.5 and 3 − 1
            let offsets = PackedOffsets::new(Tensor::from_data([[0.5, -1.0]], &device), 1);
            let weight = kernel(&[[2.0, 3.0]], &device).with_offsets(offsets);
            let x = Tensor::<3>::from_data([[[4.0, 8.0], [5.0, 6.0]]], &device);
            let bias = Some(Tensor::<1>::from_data([1.0, 0.0], &device));
            let y = packed_conv(x, &weight, bias, &PackedConv::new(&[1]).with_groups(2), activations.clone());
            assert_same(&values(y), &[2.5 * 4.0 + 1.0, 2.5 * 8.0 + 1.0, 2.0 * 5.0, 2.0 * 6.0], &name);

            // elements of a transposed kernel are columns with offsets of their own: (1.5, 2.5) and (9, 22)
            let offsets = PackedOffsets::new(Tensor::from_data([[0.5, 0.5, -1.0, 2.0]], &device), 1);
            let weight = kernel(&[[1.0, 2.0, 10.0, 20.0]], &device).with_offsets(offsets);
            let x = Tensor::<3>::from_data([[[3.0, 4.0], [5.0, 6.0]]], &device);
            let conv = PackedConvTranspose::new(&[2]).with_groups(2);
            let y = packed_conv_transpose(x, &weight, None, &conv, activations.clone());
            let expected = [4.5, 3.0 * 2.5 + 4.0 * 1.5, 10.0, 45.0, 5.0 * 22.0 + 6.0 * 9.0, 132.0];
            assert_same(&values(y), &expected, &name);

            // offsets of each input: 1 + 1 and 2 + 2
            let offsets = || PackedOffsets::new(Tensor::from_data([[1.0], [2.0]], &device), 1);
            let weight = kernel(&[[1.0], [2.0]], &device).with_offsets(offsets());
            let x = Tensor::<3>::from_data([[[3.0], [4.0]]], &device);
            let y = packed_conv(x.clone(), &weight, None, &PackedConv::new(&[1]), activations.clone());
            assert_same(&values(y), &[2.0 * 3.0 + 4.0 * 4.0], &name);
            let y = packed_conv_transpose(x, &weight, None, &PackedConvTranspose::new(&[1]), activations);
            assert_same(&values(y), &[2.0 * 3.0 + 4.0 * 4.0], &name);
        }
    }
}

/// The gradient to the input is the sum of what each element of it is multiplied with, offsets too.
#[test]
fn gradients_pass_kernels_around_offsets() {
    for (name, device) in devices().into_iter().filter(|(_, device)| device.is_autodiff()) {
        let range = || Activations::Int8(Tensor::from_data([127.0], &device));
        let offsets = PackedOffsets::new(Tensor::from_data([[0.5, 3.0]], &device), 2);
        let weight = kernel(&[[1.0, -1.0], [2.0, -2.0]], &device).with_offsets(offsets);
        let x = Tensor::<3>::from_data([[[3.0, 4.0, 5.0]]], &device).require_grad();
        let conv = PackedConv::new(&[2]).with_padding(&[(1, 1)]);
        let gradients = packed_conv(x.clone(), &weight, None, &conv, range()).sum().backward();
        assert_same(&values(x.grad(&gradients).unwrap()), &[1.5 + 2.5 + 2.0 + 1.0; 3], &name);

        let offsets = PackedOffsets::new(Tensor::from_data([[0.5, 0.5, -1.0, 2.0]], &device), 1);
        let weight = kernel(&[[1.0, 2.0, 10.0, 20.0]], &device).with_offsets(offsets);
        let x = Tensor::<3>::from_data([[[3.0], [5.0]]], &device).require_grad();
        let conv = PackedConvTranspose::new(&[2]).with_groups(2);
        let gradients = packed_conv_transpose(x.clone(), &weight, None, &conv, range()).sum().backward();
        assert_same(&values(x.grad(&gradients).unwrap()), &[1.5 + 2.5, 9.0 + 22.0], &name);
    }
}

/// No images have no result; no channels leave nothing but the bias.
#[cfg(feature = "flex")] // what is special about its kernels
#[test]
fn offsets_of_empty_images_add_nothing() {
    let device = Device::flex();
    let range = || Activations::Int8(Tensor::from_data([127.0], &device));
    let empty = |shape: [usize; 3]| Tensor::<3>::from_data(TensorData::zeros::<f32, _>(shape), &device);
    let offsets = |rows: usize| {
        let zeros = TensorData::zeros::<f32, _>([rows, 4]);
        PackedOffsets::new(Tensor::from_data(zeros, &device), 1)
    };
    let weight = kernel(&[[1.0, 2.0, 3.0, 4.0]], &device).with_offsets(offsets(1));
    let conv = PackedConv::new(&[1]).with_groups(2);
    assert_eq!(packed_conv(empty([0, 2, 3]), &weight, None, &conv, range()).dims(), [0, 4, 3]);
    let conv = PackedConvTranspose::new(&[2]).with_groups(2);
    assert_eq!(packed_conv_transpose(empty([0, 2, 3]), &weight, None, &conv, range()).dims(), [0, 2, 4]);

    let weight = kernel::<4>(&[], &device).with_offsets(offsets(0));
    let bias = Tensor::<1>::from_data([1.0, 2.0, 3.0, 4.0], &device);
    let conv = PackedConvTranspose::new(&[1]).with_groups(2);
    let y = packed_conv_transpose(empty([1, 0, 2]), &weight, Some(bias), &conv, range());
    assert_same(&values(y), &[1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0], "nothing but the bias");
}

/// A number that is none reaches the outputs of its image and no others.
#[test]
fn an_image_that_is_not_a_number_stays_alone_around_offsets() {
    let (name, device) = device();
    let range = || Activations::Int8(Tensor::from_data([127.0], &device));
    let weight = || {
        let offsets = PackedOffsets::new(Tensor::from_data([[0.5, -1.0]], &device), 1);
        kernel(&[[2.0, 3.0]], &device).with_offsets(offsets)
    };
    let x = Tensor::<3>::from_data([[[f32::NAN], [5.0]], [[4.0], [5.0]]], &device);
    let of_convolution = packed_conv(x.clone(), &weight(), None, &PackedConv::new(&[1]).with_groups(2), range());
    let conv = PackedConvTranspose::new(&[1]).with_groups(2);
    let of_transposed = packed_conv_transpose(x, &weight(), None, &conv, range());
    for y in [values(of_convolution), values(of_transposed)] {
        assert!(y[0].is_nan(), "{name}: {y:?}");
        assert_same(&y[2..], &[2.5 * 4.0, 2.0 * 5.0], name);
    }
}

/// Words of several groups side by side come back from files; those in another order are refused.
#[test]
fn transposed_convolutions_of_several_groups_are_kept_in_files() {
    let (_, device) = device();
    let x = spread::<4>([2, 8, 3, 3], &device);
    let new =
        || -> QuantConvTranspose2d { ConvTranspose2dConfig::new([8, 32], [1, 1]).with_groups(2).init(&device).into() };
    let kinds = [
        QuantizerConfig::int(8).per_channel(),
        QuantizerConfig::int(4),
        QuantizerConfig::int(8).per_channel().with_bias(BiasConfig::new(Granularity::PerChannel)),
        QuantizerConfig::int(4).per_block(2),
    ];
    for (i, config) in kinds.into_iter().enumerate() {
        let (layer, _) = quantize(new(), &weights(config), |layer| drop(layer.forward(x.clone()))).unwrap();
        let (packed, _) = compress(layer.clone()).unwrap();
        let expected = values(packed.forward(x.clone()));
        let whole = to_bytes(&packed).unwrap();
        let restored = from_bytes(new(), whole.clone()).unwrap();
        assert_eq!(memory(&restored), memory(&packed));
        assert_same(&values(restored.forward(x.clone())), &expected, "restored");
        let file = safetensors_to_bytes(&packed).unwrap();
        let restored = safetensors_from_bytes(new(), &file).unwrap();
        assert_same(&values(restored.forward(x.clone())), &expected, "of codes in the order of the weight");
        let floats = decompress(packed.clone()).unwrap();
        assert_same(&values(floats.weight.val()), &values(layer.weight.val()), "floats");
        let onnx = burn_quant_onnx::export(&packed, x.clone(), QuantConvTranspose2d::forward).unwrap();
        assert!(onnx.operators().iter().any(|(operator, _)| *operator == "ConvTranspose"), "{onnx}");
        let record = packed.clone().into_record();
        assert_same(&values(packed.load_record(record).forward(x.clone())), &expected, "a record");

        // blocks lie as the weight does
        let form = |from: &str, to: &str| {
            let bytes = changed(&whole, |_, metadata| {
                let forms = metadata.get_mut("burn-quant.packed").unwrap();
                assert!(forms.contains(from), "{forms}");
                *forms = forms.replace(from, to);
            });
            from_bytes(new(), bytes).unwrap_err()
        };
        let (error, [expected, found]) = match i {
            3 => (form("\"global_amax\"", "\"channel_groups\":2,\"global_amax\""), [1, 2]),
            // as of a file from before groups lay side by side
            _ => (form(",\"channel_groups\":2", ""), [2, 1]),
        };
        assert!(matches!(error, StoreError::PackedWeight { .. }), "{error}");
        assert_eq!(
            error.to_string(),
            format!(
                "the packed weight `weight` is damaged, or its quantizer is another: its words have the columns of \
                 {found} groups of channels side by side, where its quantizer has {expected}: pack the weight again"
            )
        );
    }
}
