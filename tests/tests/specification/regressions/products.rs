//! What broke in the packed products of other toolkits: sums of 16 bits, tails, and batches that repeat one row.

use burn::module::Param;
use burn::nn::Linear;
use burn::nn::conv::Conv2dConfig;
use burn::tensor::Tensor;
use burn_quant::compress::{compress_weights, decompress};
use burn_quant::config::{Format, GradientRule, IntFormat, IntSpan, Signedness};
use burn_quant::nn::{QuantConv2d, QuantLinear};
use burn_quant::ops::{Activations, FakeQuant, Groups, PackedTensor, Ranges, packed_linear};
use burn_quant::{Quantizers, compress, presets, quantize};
use burn_quant_store::{from_bytes, to_bytes};
use burn_quant_tests::device;

use crate::{assert_close, spread, values};

fn packed(weight: Tensor<2>, format: Format, groups: Groups) -> PackedTensor {
    let spec = FakeQuant { format, groups, gradient: GradientRule::PassThrough };
    PackedTensor::pack(weight, Ranges::Dynamic, spec).unwrap()
}

/// 512 products of the largest codes, 255 and 127: a sum of two does not fit 16 bits.
pub(super) fn t12() {
    let (_, device) = device();
    let unsigned = IntFormat::new(8, Signedness::Unsigned, IntSpan::Full).unwrap().into();
    let weight = Tensor::<2>::full([512, 3], 255.0, &device);
    let weight = packed(weight, unsigned, Groups::per_tensor(&[512, 3]));
    let y = packed_linear(Tensor::<2>::full([2, 512], 127.0, &device), &weight, Activations::Int8PerToken);
    let expected = 512.0 * 255.0 * 127.0; // 16,581,120, which f32 holds
    assert_close(&values(y), &[expected; 6], 3e-7, "the largest codes");
}

/// Every number of columns, inputs and rows around the sizes of tiles, and a batch that is one row repeated.
pub(super) fn t13() {
    let (name, device) = device();
    let int4: Format = IntFormat::signed(4).unwrap().into();
    let (inputs, outputs): (&[usize], &[usize]) = match name {
        "flex" => (&[1, 31, 32, 33, 100], &[1, 2, 3, 7, 15, 16, 17, 31, 32, 33, 47, 48, 49, 63, 64, 65, 69]),
        _ => (&[1, 33], &[1, 16, 17]), // there are no tiles where the weight is unpacked first
    };
    for &inputs in inputs {
        for &outputs in outputs {
            let weight = packed(spread([inputs, outputs], &device), int4, Groups::blocks(&[inputs, outputs], 0, 32));
            let unpacked = weight.unpack();
            for rows in [1, 2, 3, 5, 8, 9] {
                let x = spread::<2>([rows, inputs], &device);
                let what = format!("{rows} x {inputs} x {outputs}");
                let y = packed_linear(x.clone(), &weight, Activations::Float);
                assert_close(&values(y), &values(x.matmul(unpacked.clone())), 3e-6, &what);
            }
            let row = spread::<2>([1, inputs], &device);
            let once = values(packed_linear(row.clone(), &weight, Activations::Int8PerToken));
            let repeated = packed_linear(row.expand([4, inputs]), &weight, Activations::Int8PerToken);
            assert_close(&values(repeated), &once.repeat(4), 1e-6, "one row four times");
        }
    }
}

/// A bias far above what the steps of inputs and weights can count: packed layers add it in float. An exporter has the
/// same test for what it writes.
pub(super) fn t17() {
    let (_, device) = device();
    for outputs in [1, 3] {
        let weight = spread::<2>([8, outputs], &device) * 1e-9;
        let bias = Some(Param::from_tensor(Tensor::full([outputs], 5.0, &device)));
        let layer = QuantLinear::from(Linear { weight: Param::from_tensor(weight), bias });
        let x = spread::<2>([4, 8], &device);
        let expected = values(layer.forward(x.clone()));
        let (layer, _) = quantize(layer, &presets::int8_default(), |layer| drop(layer.forward(x.clone()))).unwrap();
        let (packed, _) = compress(layer).unwrap();
        assert_close(&values(packed.forward(x)), &expected, 1e-6, "weights of a billionth beside a bias of 5");
    }
}

/// A depthwise convolution with a scale for each of its kernels, which differ by a factor of a thousand: packed and
/// simulated are within a thousandth of a step of each output.
pub(super) fn t18() {
    let (_, device) = device();
    let sizes = Tensor::<1>::from_data([1.0, 0.001, 1000.0, 30.0], &device).reshape([4, 1, 1, 1]);
    let mut conv: QuantConv2d = Conv2dConfig::new([4, 4], [3, 3]).with_groups(4).with_bias(false).init(&device).into();
    conv.weight = Param::from_tensor(spread::<4>([4, 1, 3, 3], &device) * sizes);
    let images = spread::<4>([2, 4, 6, 6], &device);
    let (conv, _) = quantize(conv, &presets::int8_default(), |conv| drop(conv.forward(images.clone()))).unwrap();
    let (packed, _) = compress(conv.clone()).unwrap();
    let (found, expected) = (packed.forward(images.clone()), conv.forward(images));
    for channel in 0..4 {
        let of = |y: &Tensor<4>| values(y.clone().narrow(1, channel, 1));
        assert_close(&of(&found), &of(&expected), 3e-6, &format!("channel {channel}"));
    }
}

/// What is unpacked, quantized and packed again has the same values, and with f32 scales the same codes. Ranges are
/// then those of rounded weights, of which a power of two may be the next smaller: so a file is written of the
/// codes that are there, and of nothing that is computed again. An exporter has the same test for files.
pub(super) fn t42() {
    let (_, device) = device();
    let weight = spread::<2>([40, 9], &device);
    let new = || QuantLinear::from(Linear { weight: Param::from_tensor(weight.clone()), bias: None });
    let (int8, int4) = (presets::int8_weight_only(), presets::int4_blockwise_weight_only());
    for (config, same_codes) in [(int8, true), (int4, true), (presets::mxfp4_default(), false)] {
        let (packed, _) = compress_weights(new(), &config).unwrap();
        let (again, _) = compress_weights(decompress(packed.clone()).unwrap(), &config).unwrap();
        assert_close(&values(again.weight.val()), &values(packed.weight.val()), 3e-7, "packed again");
        let codes = |layer: &QuantLinear| {
            let quantizers = Quantizers::of(layer);
            quantizers.get("weight_quantizer").unwrap().packed().unwrap().packed().codes()
        };
        assert_eq!(codes(&again) == codes(&packed), same_codes);
        let restored = from_bytes(new(), to_bytes(&packed).unwrap()).unwrap();
        assert_eq!(codes(&restored), codes(&packed), "of a file");
    }
}
