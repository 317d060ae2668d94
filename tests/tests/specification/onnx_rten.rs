//! Files in INT8, which a runtime in Rust runs: rten, whose products of pairs are in floats.

use burn::module::Module;
use burn::nn::conv::Conv2dConfig;
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{LinearConfig, LstmConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_quant::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn_quant::nn::{QuantConv2d, QuantLinear, QuantLstm};
use burn_quant::{QuantConfig, presets, quantize};
use burn_quant_onnx::{Exporter, OnnxModel, Profile};
use burn_quant_tests::device;
use rten::{Model, ValueOrView};
use rten_tensor::prelude::*;

use crate::{assert_close, spread, values};

/// Runs a file with one input and one output.
fn run<const D: usize>(onnx: &OnnxModel, x: Tensor<D>) -> Vec<f32> {
    let (shape, model) = (x.dims(), Model::load(onnx.to_bytes()).unwrap());
    let x = rten_tensor::Tensor::from_data(&shape, values(x));
    let (input, output) = (model.input_ids()[0], model.output_ids()[0]);
    let found = model.run(vec![(input, ValueOrView::from(x.view()))], &[output], None).unwrap().remove(0);
    let found: rten_tensor::Tensor<f32> = found.try_into().unwrap();
    found.to_vec()
}

#[derive(Module, Debug)]
struct Cnn {
    conv: QuantConv2d,
    pool: MaxPool2d,
    fc: QuantLinear,
}

impl Cnn {
    fn new(device: &Device) -> Self {
        Self {
            conv: Conv2dConfig::new([2, 6], [3, 3]).init(device).into(),
            pool: MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            fc: LinearConfig::new(6 * 9, 10).init(device).into(),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        self.fc.forward(self.pool.forward(relu(self.conv.forward(x))).flatten(1, 3))
    }
}

fn encoder(device: &Device) -> TransformerEncoder {
    TransformerEncoderConfig::new(16, 32, 2, 2).with_dropout(0.0).init(device)
}

fn encoded(encoder: &TransformerEncoder, x: Tensor<3>) -> Tensor<3> {
    encoder.forward(TransformerEncoderInput::new(x))
}

fn last_state(lstm: &QuantLstm, x: Tensor<3>) -> Tensor<3> {
    lstm.forward(x, None).0
}

/// Quantizes a model, writes it for any size of its first axis, and compares with what burn computes of a third size.
fn check<M: Module, const I: usize, const O: usize>(
    (model, config): (M, &QuantConfig),
    profile: Profile,
    inputs: impl Fn(usize) -> Tensor<I>,
    forward: impl Fn(&M, Tensor<I>) -> Tensor<O>,
    what: &str,
) {
    let (model, _) = quantize(model, config, |model| drop(forward(model, inputs(4)))).unwrap();
    let exporter = Exporter::new().with_profile(profile);
    let onnx = exporter.export_any_size(&model, [3, 5].map(&inputs), &forward).unwrap();
    assert!(onnx.operators().iter().any(|(operator, _)| *operator == "DequantizeLinear"), "{what}: {onnx}");
    assert_close(&run(&onnx, inputs(4)), &values(forward(&model, inputs(4))), 1e-6, what);
}

#[test]
fn a_runtime_in_rust_computes_what_burn_does() {
    let (_, device) = device();
    let sequences = |batch: usize| spread::<3>([batch, 5, 16], &device);
    let presets = [
        ("INT8", presets::int8_default()),
        ("SmoothQuant", presets::int8_smoothquant()),
        ("INT8 weights", presets::int8_weight_only()),
        ("INT8 tokens", presets::int8_per_channel_per_token()),
    ];
    for (name, config) in &presets {
        for profile in [Profile::OnnxRuntime, Profile::TensorRt] {
            let what = format!("{name}, {profile:?}");
            check((encoder(&device), config), profile, sequences, encoded, &format!("encoder, {what}"));
            let lstm = || QuantLstm::from(LstmConfig::new(16, 8, true).init(&device));
            check((lstm(), config), profile, sequences, last_state, &format!("LSTM, {what}"));
        }
        // it has no rectifier of codes, which the other profile writes
        let images = |batch: usize| spread::<4>([batch, 2, 8, 8], &device);
        check((Cnn::new(&device), config), Profile::TensorRt, images, Cnn::forward, &format!("CNN, {name}"));
    }
}
