//! Packed models: codes in the place of weights, in everything that is done with a model.

use std::collections::BTreeSet;

use burn::module::Module;
use burn::nn::conv::{
    Conv1dConfig, Conv2dConfig, Conv3dConfig, ConvTranspose1dConfig, ConvTranspose2dConfig, ConvTranspose3dConfig,
};
use burn::nn::{Linear, LinearConfig};
use burn::tensor::{Device, Int, Tensor};
use burn_quant::compress::{CompressReport, WithoutPackedForm, compress_with, decompress, memory};
use burn_quant::config::Format;
use burn_quant::nn::{ActivationQuantized, QuantConv2d, QuantEmbedding, QuantEmbeddingConfig, QuantLinear};
use burn_quant::quantizer::Buffer;
use burn_quant::train::QuantLora;
use burn_quant::{
    Algorithm, QuantConfig, QuantError, QuantizerConfig, Quantizers, Rule, compress, fold_weights, presets, quantize,
    quantize_weights,
};
use burn_quant_tests::{device, devices};

use crate::{assert_close, assert_same, spread, values};

#[derive(Module, Debug)]
struct Mlp {
    fc1: QuantLinear,
    fc2: QuantLinear,
    /// Of burn: its weight is unpacked when it runs.
    head: Linear,
}

impl Mlp {
    fn new(device: &Device) -> Self {
        let layer = |inputs, outputs| LinearConfig::new(inputs, outputs).init(device);
        Self { fc1: layer(40, 33).into(), fc2: layer(33, 33).into(), head: layer(33, 5) }
    }

    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        let x = self.fc2.forward(self.fc1.forward(x).tanh()).tanh();
        self.head.forward(x)
    }
}

/// A quantized MLP of one of the presets and others, and data for it.
fn quantized(config: &QuantConfig, device: &Device) -> (Mlp, Tensor<2>) {
    let x = spread::<2>([6, 40], device);
    let (model, _) = quantize(Mlp::new(device), config, |model| drop(model.forward(x.clone()))).unwrap();
    (model, x)
}

fn weights(config: QuantizerConfig) -> QuantConfig {
    QuantConfig::new().with_rule(Rule::set("*weight_quantizer", config))
}

fn configs() -> Vec<(&'static str, QuantConfig)> {
    vec![
        ("INT8", presets::int8_default()),
        ("INT8 smoothed", presets::int8_smoothquant()),
        ("FP8", presets::fp8_default()),
        ("NVFP4", presets::nvfp4_default()),
        ("NVFP4 with a branch", presets::nvfp4_svdquant_default()),
        ("MXFP4", presets::mxfp4_default()),
        ("INT4 blocks", presets::int4_blockwise_weight_only()),
        ("INT4 AWQ", presets::int4_awq()),
        ("NF4", weights(QuantizerConfig::new(Format::Nf4).per_block(16))),
        ("INT3", weights(QuantizerConfig::int(3).per_channel())),
        ("INT8 dynamic", weights(QuantizerConfig::int(8).per_channel()).with_rule(tokens())),
    ]
}

fn tokens() -> Rule {
    Rule::set("*input_quantizer", QuantizerConfig::int(8).per_token().dynamic())
}

#[test]
fn a_packed_model_computes_what_the_quantized_one_computes() {
    let (_, device) = device();
    for (name, config) in configs() {
        let (model, x) = quantized(&config, &device);
        let (packed, report) = compress(model.clone()).unwrap();
        assert_eq!(report.packed.len(), 3, "{name}: {report}");
        let expected = values(model.forward(x.clone()));
        // a step of the inputs of a later layer may flip where f32 sums differ in their last place
        assert_close(&values(packed.forward(x.clone())), &expected, 1e-2, name);
        let (first, x) = (values(model.fc1.forward(x.clone())), x);
        assert_close(&values(packed.fc1.forward(x)), &first, 3e-6, name);
    }
}

/// The product rounds its result as the output's quantizer would, and only where that does nothing more.
#[test]
fn a_packed_layer_rounds_its_output() {
    let (_, device) = device();
    let off = |layer: &QuantLinear| {
        let mut layer = layer.clone();
        layer.output_quantizer.disable();
        layer
    };
    for (name, config, beyond) in [
        ("INT8", presets::int8_default(), QuantizerConfig::int(8)),
        ("INT8 with a smoothed input, to FP8", presets::int8_smoothquant(), QuantizerConfig::new(Format::E4M3)),
        ("a branch", presets::nvfp4_svdquant_default(), QuantizerConfig::int(8)),
        ("a range for each token", presets::int8_default(), QuantizerConfig::int(8).per_token().dynamic()),
    ] {
        let (model, x) = quantized(&config.with_rule(Rule::set("*output_quantizer", beyond)), &device);
        let (packed, _) = compress(model).unwrap();
        let expected = packed.fc1.output_quantizer.forward(off(&packed.fc1).forward(x.clone()));
        assert_same(&values(packed.fc1.forward(x)), &values(expected), name);
    }
}

#[test]
fn codes_have_the_values_of_fake_quantization_and_take_their_bits() {
    let (_, device) = device();
    for (name, config) in configs() {
        let (model, _) = quantized(&config, &device);
        let (packed, report) = compress(model.clone()).unwrap();
        assert_close(&values(packed.fc2.weight.val()), &values(model.fc2.weight.val()), 3e-7, name);
        let (unpacked, folded) = (decompress(packed).unwrap(), fold_weights(model).unwrap());
        assert_close(&values(unpacked.fc2.weight.val()), &values(folded.fc2.weight.val()), 3e-7, name);
        assert_close(&values(unpacked.head.weight.val()), &values(folded.head.weight.val()), 3e-7, name);
        assert!(report.packed_bytes() < report.float_bytes, "{name}: {report}");
    }
    let (model, _) = quantized(&presets::int8_weight_only(), &device);
    let (_, report) = compress(model).unwrap();
    // 48 columns of 33 rows padded to 36, and their scales: panels of 16 columns are filled up
    assert_eq!(report.packed["fc2.weight"], 48 * 36 + 48 * 4);
    assert!(report.to_string().starts_with("3 weights packed: "), "{report}");
}

/// The report says which layers are of burn, and so unpack: one of three here, and then four, of which three are named.
#[test]
fn a_report_names_the_weights_that_are_unpacked_at_every_use() {
    let (_, device) = device();
    let (model, _) = quantized(&presets::int8_weight_only(), &device);
    let (_, report) = compress(model).unwrap();
    assert_eq!(report.unpacked_at_use, BTreeSet::from(["head.weight".to_string()]));
    let last = |report: &CompressReport| report.to_string().lines().last().unwrap().to_string();
    let why = "unpacked at every use, as only layers of `burn_quant::nn` multiply codes";
    assert_eq!(last(&report), format!("1 of them {why}: `head.weight`"));

    let layers: Vec<Linear> = (0..4).map(|_| LinearConfig::new(4, 4).init(&device)).collect();
    let (_, report) = compress(quantize_weights(layers, &presets::int8_weight_only()).unwrap().0).unwrap();
    assert_eq!(last(&report), format!("4 of them {why}: `0.weight`, `1.weight`, `2.weight` and 1 more"));

    let ours: QuantLinear = LinearConfig::new(4, 4).init(&device).into();
    let table = QuantEmbeddingConfig::new(4, 4).init(&device);
    let conv: QuantConv2d = Conv2dConfig::new([1, 1], [2, 2]).init(&device).into();
    let (_, report) =
        compress(quantize_weights((ours, table, conv), &weights(QuantizerConfig::int(8))).unwrap().0).unwrap();
    assert_eq!((report.packed.len(), report.unpacked_at_use.len()), (3, 0), "{report}");
}

#[test]
fn packed_models_are_cloned_moved_validated_and_trained_around() {
    for (name, device) in devices() {
        let (model, x) = quantized(&presets::int8_default(), &device);
        let (packed, _) = compress(model).unwrap();
        let expected = values(packed.forward(x.clone()));
        let x_plain = x.clone().without_autodiff();
        assert_same(&values(packed.clone().to_device(&device).forward(x.clone())), &expected, &name);
        assert_same(&values(packed.clone().fork(&device).forward(x.clone())), &expected, &name);
        let record = packed.clone().into_record();
        assert_same(&values(packed.clone().load_record(record).forward(x.clone())), &expected, &name);
        if device.is_autodiff() {
            // the plain model multiplies integers, the other rounds first
            let valid = packed.valid();
            assert_close(&values(valid.forward(x_plain)), &expected, 1e-2, &name);
            // under gradient checkpointing burn's own float models do not run again after this: the setting is lost
            let again = if name.starts_with("checkpointed") { packed } else { valid.train() };
            assert_same(&values(again.forward(x.clone())), &expected, &name);
            let x = x.require_grad();
            let gradients = again.forward(x.clone()).sum().backward();
            assert!(values(x.grad(&gradients).unwrap()).iter().any(|gradient| *gradient != 0.0), "{name}");
            assert!(again.fc1.weight.base().grad(&gradients).is_none(), "{name}: codes are not trained");
        }
    }
}

/// Factors of low rank beside a packed weight train as those beside a fake-quantized one do.
#[test]
fn factors_train_over_a_packed_base() {
    let (_, device) = device();
    let device = device.autodiff();
    let (model, x) = quantized(&weights(QuantizerConfig::new(Format::Nf4).per_block(16)), &device);
    let adapted = QuantLora::new(4).adapt(model.clone()).unwrap();
    let packed = QuantLora::new(4).adapt(compress(model).unwrap().0).unwrap();
    let up = spread::<1>([4 * 33], &device);
    let with_factors = |model: Mlp| {
        let mut quantizers = Quantizers::of(&model);
        let quantizer = quantizers.get_mut("fc1.weight_quantizer").unwrap();
        quantizer.set_buffer(Buffer::LowRankDown, spread::<1>([40 * 4], &device));
        quantizer.set_buffer(Buffer::LowRankUp, up.clone());
        quantizers.install(model).unwrap()
    };
    let (adapted, packed) = (with_factors(adapted), with_factors(packed));
    let expected = values(adapted.fc1.forward(x.clone()));
    assert_close(&values(packed.fc1.forward(x.clone())), &expected, 1e-5, "with factors");
    assert_close(&values(packed.fc1.weight.val()), &values(adapted.fc1.weight.val()), 1e-6, "the parameter's value");
}

/// Strides, padding of its own on each side, dilation, groups, depthwise kernels, one to three axes, and kernels of a
/// single channel: the packed layer computes what the quantized one does.
#[test]
fn convolutions_run_on_their_codes() {
    macro_rules! check {
        ($($config:expr, $image:expr;)*) => {$(
            for (name, device) in devices() {
                let layer = ActivationQuantized::from($config.init(&device));
                let images = spread($image, &device);
                // on a GPU the kernel is unpacked, which other tests do with 5 bits, too
                let widths = if name == "flex" { &[8, 5][..] } else { &[8] };
                for bits in widths.iter().copied() {
                    let config = if bits == 8 { presets::int8_default() } else { weights_of(bits) };
                    let calibrated = quantize(layer.clone(), &config, |layer| drop(layer.forward(images.clone())));
                    let (layer, _) = calibrated.unwrap();
                    let (packed, report) = compress(layer.clone()).unwrap();
                    assert_eq!(report.packed.len(), 1);
                    let what = format!("{name}: {bits} bits, {}", stringify!($config));
                    let expected = values(layer.forward(images.clone()));
                    assert_close(&values(packed.forward(images.clone())), &expected, 3e-6, &what);
                    assert_close(&values(packed.weight.val()), &values(layer.weight.val()), 3e-7, &what);
                }
            }
        )*};
    }
    use burn::nn::PaddingConfig1d as Pad1;
    use burn::nn::PaddingConfig2d as Pad2;
    use burn::nn::PaddingConfig3d as Pad3;
    check! {
        Conv1dConfig::new(3, 5, 3).with_padding(Pad1::Explicit(1, 0)), [2, 3, 9];
        Conv1dConfig::new(4, 20, 2).with_padding(Pad1::Same).with_dilation(1), [1, 4, 40];
        Conv2dConfig::new([1, 16], [3, 3]).with_padding(Pad2::Explicit(1, 1, 1, 1)), [1, 1, 28, 28];
        Conv2dConfig::new([4, 33], [3, 2]).with_stride([2, 1]), [2, 4, 7, 6];
        Conv2dConfig::new([5, 7], [2, 3]).with_dilation([2, 3]).with_padding(Pad2::Explicit(0, 2, 3, 1)), [2, 5, 8, 9];
        Conv2dConfig::new([6, 8], [1, 1]).with_groups(2).with_bias(false), [1, 6, 5, 5];
        Conv2dConfig::new([12, 9], [3, 3]).with_groups(3).with_stride([1, 2]).with_padding(Pad2::Same), [2, 12, 6, 7];
        Conv2dConfig::new([5, 10], [3, 3]).with_groups(5).with_stride([2, 2]), [2, 5, 9, 9];
        Conv2dConfig::new([8, 8], [3, 3]).with_groups(8).with_padding(Pad2::Explicit(1, 1, 1, 1)), [3, 8, 6, 6];
        Conv3dConfig::new([3, 4], [2, 2, 3]).with_padding(Pad3::Explicit(1, 0, 1)), [1, 3, 4, 5, 6];
        ConvTranspose1dConfig::new([4, 6], 3).with_stride(2), [2, 4, 5];
        ConvTranspose1dConfig::new([4, 6], 2).with_stride(3).with_padding(2).with_padding_out(1), [2, 4, 5];
        ConvTranspose2dConfig::new([4, 6], [3, 2]).with_groups(2), [2, 4, 5, 6];
        ConvTranspose2dConfig::new([20, 5], [3, 3]).with_stride([2, 2]).with_padding([1, 1]).with_padding_out([1, 1])
            .with_bias(false), [2, 20, 4, 5];
        ConvTranspose2dConfig::new([3, 18], [2, 3]).with_dilation([2, 3]).with_padding([0, 4]), [1, 3, 4, 6];
        ConvTranspose3dConfig::new([2, 3], [2, 1, 2]), [1, 2, 3, 3, 3];
    }
}

/// Codes above 127 are no signed bytes: such kernels run in float.
#[cfg(feature = "flex")] // what is special about its kernels
#[test]
fn unsigned_kernels_of_8_bits_keep_their_large_codes() {
    let device = Device::flex();
    let config = presets::int8_default().with_rule(Rule::set("*weight_quantizer", QuantizerConfig::uint(8)));
    let x = Tensor::<3>::from_data([[[1.0, 0.5]]], &device);
    let mut conv = Conv1dConfig::new(1, 2, 1).with_bias(false).init(&device);
    conv.weight = conv.weight.map(|_| Tensor::from_data([[[1.0]], [[127.0 / 255.0]]], &device));
    let conv = ActivationQuantized::from(conv);
    let (conv, _) = quantize(conv, &config, |conv| drop(conv.forward(x.clone()))).unwrap();
    let expected = values(conv.forward(x.clone()));
    assert_close(&values(compress(conv).unwrap().0.forward(x.clone())), &expected, 1e-6, "a convolution");
    let mut up = ConvTranspose1dConfig::new([1, 2], 1).with_bias(false).init(&device);
    up.weight = up.weight.map(|_| Tensor::from_data([[[1.0], [127.0 / 255.0]]], &device));
    let up = ActivationQuantized::from(up);
    let (up, _) = quantize(up, &config, |up| drop(up.forward(x.clone()))).unwrap();
    let expected = values(up.forward(x.clone()));
    assert_close(&values(compress(up).unwrap().0.forward(x)), &expected, 1e-6, "a transposed one");
}

/// What is cut off may be all that there is; no images have no result.
#[cfg(feature = "flex")] // what is special about its kernels
#[test]
fn transposed_convolutions_have_empty_results_as_burns_do() {
    let device = Device::flex();
    for (config, shape) in [
        (ConvTranspose1dConfig::new([1, 1], 1).with_padding(1), [1, 1, 2]),
        (ConvTranspose1dConfig::new([3, 2], 2).with_stride(2), [0, 3, 4]),
    ] {
        let up = ActivationQuantized::from(config.init(&device));
        let calibrate = Tensor::<3>::ones([1, shape[1], 4], &device);
        let (up, _) = quantize(up, &presets::int8_default(), |up| drop(up.forward(calibrate.clone()))).unwrap();
        let x = Tensor::<3>::from_data(burn::tensor::TensorData::ones::<f32, _>(shape), &device);
        let expected = up.forward(x.clone()).dims();
        assert_eq!(compress(up).unwrap().0.forward(x).dims(), expected);
    }
}

/// The table of bytes, as the book shows it of the first example's network.
#[test]
fn memory_is_counted_layer_by_layer() {
    #[derive(Module, Debug)]
    struct Cnn {
        conv1: QuantConv2d,
        conv2: QuantConv2d,
        fc1: QuantLinear,
        fc2: QuantLinear,
    }
    let (_, device) = device();
    let conv = |channels| Conv2dConfig::new(channels, [3, 3]).init(&device).into();
    let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(&device).into();
    let (conv1, conv2) = (conv([1, 16]), conv([16, 32]));
    let model = Cnn { conv1, conv2, fc1: linear(1568, 64), fc2: linear(64, 10) };
    let forward = |model: &Cnn| {
        let x = model.conv2.forward(model.conv1.forward(spread([1, 1, 11, 11], &device)));
        let x = x.reshape([1, 1568]);
        drop(model.fc2.forward(model.fc1.forward(x)));
    };
    let (model, _) = quantize(model, &presets::int8_default(), forward).unwrap();
    let expected = "\
layer  held as       bytes  of float
conv1  int8 packed     324    50.6 %
conv2  int8 packed    4868    26.2 %
fc1    int8 packed  100868    25.1 %
fc2    int8 packed    1132    43.5 %
total               107192    25.3 %";
    assert_eq!(memory(&compress(model).unwrap().0).to_string(), expected);
}

/// INT8 inputs, and weights of fewer bits.
fn weights_of(bits: u8) -> QuantConfig {
    presets::int8_default().with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(bits).per_channel()))
}

/// A number that is none reaches the outputs of its image and no others.
#[test]
fn an_image_that_is_not_a_number_stays_alone() {
    let (_, device) = device();
    let conv: QuantConv2d = Conv2dConfig::new([2, 3], [2, 2]).init(&device).into();
    let images = spread::<4>([2, 2, 4, 4], &device);
    let (conv, _) = quantize(conv, &presets::int8_default(), |conv| drop(conv.forward(images.clone()))).unwrap();
    let (packed, _) = compress(conv).unwrap();
    let broken = images.clone().slice_fill([1..2, 0..1, 0..1, 0..1], f32::NAN);
    let (whole, broken) = (values(packed.forward(images)), values(packed.forward(broken)));
    assert_same(&broken[..whole.len() / 2], &whole[..whole.len() / 2], "the image without it");
    assert!(broken[whole.len() / 2..].iter().any(|y| y.is_nan()));
}

/// Of a packed table only the rows that are asked for are unpacked, whatever their scales are.
#[test]
fn embeddings_unpack_the_rows_they_need() {
    for (name, device) in devices() {
        let table: QuantEmbedding = QuantEmbeddingConfig::new(40, 21).init(&device);
        let indices = Tensor::<2, Int>::from_data([[3, 0, 39], [17, 3, 16]], &device);
        for config in [
            QuantizerConfig::int(8).per_channel(),
            QuantizerConfig::int(3).per_block(8),
            QuantizerConfig::new(Format::Nf4).per_block(16),
            QuantizerConfig::mx(Format::E4M3),
            QuantizerConfig::nvfp4(),
        ] {
            let what = format!("{name}: {}", config.kind());
            let (table, _) = quantize_weights(table.clone(), &weights(config)).unwrap();
            let (packed, _) = compress(table.clone()).unwrap();
            let expected = values(table.forward(indices.clone()));
            assert_close(&values(packed.forward(indices.clone())), &expected, 3e-7, &what);
        }
    }
}

#[test]
fn weight_only_convolutions_unpack_their_weights() {
    let (_, device) = device();
    let conv: QuantConv2d = Conv2dConfig::new([4, 6], [3, 3]).init(&device).into();
    let images = spread::<4>([2, 4, 6, 6], &device);
    let (conv, _) = quantize_weights(conv, &presets::int4_blockwise_weight_only()).unwrap();
    let (packed, report) = compress(conv.clone()).unwrap();
    assert_eq!(report.packed.len(), 1);
    assert_close(&values(packed.forward(images.clone())), &values(conv.forward(images)), 2e-6, "images");
}

#[test]
fn what_cannot_be_packed_is_named_and_stays_only_if_that_is_wanted() {
    let (_, device) = device();
    let twice = weights(QuantizerConfig::int(8).then(QuantizerConfig::e4m3()));
    let (model, x) = quantized(&twice, &device);
    let error = compress(model.clone()).unwrap_err().to_string();
    assert_eq!(
        error,
        "`fc1.weight` cannot be packed: its quantizer has further stages, which codes cannot hold; \
         `compress_with(model, WithoutPackedForm::Keep)` leaves such weights fake-quantized"
    );
    let (kept, report) = compress_with(model.clone(), WithoutPackedForm::Keep).unwrap();
    assert_eq!((report.packed.len(), report.kept.len()), (0, 3));
    assert_same(&values(kept.forward(x.clone())), &values(model.forward(x)), "nothing changed");

    let (model, _) = quantized(&weights(QuantizerConfig::int(16)), &device);
    let error = compress(model).unwrap_err().to_string();
    assert!(error.contains("at most 8 bits, and those of NF4 scales in f32: found int16"), "{error}");
}

#[test]
fn a_packed_model_is_not_quantized_again() {
    let (_, device) = device();
    let (model, x) = quantized(&presets::int8_default(), &device);
    let (packed, _) = compress(model).unwrap();
    let run = |model: &Mlp| drop(model.forward(x.clone()));
    let error = quantize(packed.clone(), &presets::int8_default(), run).unwrap_err();
    assert!(error.to_string().starts_with("`fc1.weight` is packed: quantize the float model, or `decompress`"));
    let observed = burn_quant::calibrate::observe(&packed, &Algorithm::Max, run);
    assert!(matches!(observed, Err(QuantError::Packed { .. })));
    let (again, report) = compress(packed.clone()).unwrap();
    assert_eq!(report.packed.len(), 0, "what is packed stays as it is");
    assert_same(&values(again.forward(x.clone())), &values(packed.forward(x)), "packed twice");
}
