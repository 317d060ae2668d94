//! ONNX of models in half precision.

use burn::module::Param;
use burn::nn::conv::Conv2dConfig;
use burn::tensor::activation::relu;
use burn::tensor::{DType, Tensor};
use burn_quant::nn::QuantConv2d;
use burn_quant::{presets, quantize};
use burn_quant_onnx::export;
use burn_quant_tests::device;

use crate::onnx_runtime::Files;

/// A network in f16 whose results are exact: of one channel, times one or minus one, in steps of a power of two.
#[test]
fn convolutions_in_f16_stay_codes_and_keep_their_rectifiers() {
    let (_, device) = device();
    let mut files = Files::new();
    let images = |largest: f32| {
        let values = [largest, 1.0, -1.0, 0.5, -0.25, -1.5, 0.125, 0.75, -0.5];
        Tensor::<1>::from_data(values, &device).reshape([1, 1, 3, 3])
    };
    let conv = |d_in: usize, weight: &[f32]| -> QuantConv2d {
        let mut conv: QuantConv2d = Conv2dConfig::new([d_in, 2], [1, 1]).with_bias(false).init(&device).into();
        let weight = Tensor::<1>::from_data(weight, &device).reshape([2, d_in, 1, 1]);
        conv.weight = Param::from_tensor(weight.cast(DType::F16));
        conv
    };
    let forward = |net: &[QuantConv2d; 2], x: Tensor<4>| {
        net[1].forward(relu(net[0].forward(x.cast(DType::F16)))).cast(DType::F32)
    };
    // 127 steps of 1 / 64, and 448 of 1 / 256
    for (name, config, largest) in
        [("int8", presets::int8_default(), 127.0 / 64.0), ("fp8", presets::fp8_default(), 1.75)]
    {
        let images = || images(largest);
        let net = [conv(1, &[1.0, -1.0]), conv(2, &[1.0, 0.0, 0.0, 1.0])];
        let (net, _) = quantize(net, &config, |net| drop(forward(net, images()))).unwrap();
        let onnx = export(&net, images(), forward).unwrap();
        files.add(name, &onnx, images(), forward(&net, images()));
    }

    // ONNX has convolutions of this type from opset 22 on
    let mut net = conv(1, &[1.0, -1.0]);
    net.weight = Param::from_tensor(net.weight.val().cast(DType::BF16));
    let forward = |net: &QuantConv2d, x: Tensor<4>| net.forward(x.cast(DType::BF16)).cast(DType::F32);
    let onnx = export(&net, images(1.75), forward).unwrap();
    assert_eq!(onnx.opset(), 22);
    files.add("bf16", &onnx, images(1.75), forward(&net, images(1.75)));
    files.check();
}
