//! The layers with activation quantizers: burn's layers until they are quantized, and then the composition of their
//! quantizers.

use burn::module::Module;
use burn::nn::conv::{
    Conv1dConfig, Conv2dConfig, Conv3dConfig, ConvTranspose1dConfig, ConvTranspose2dConfig, ConvTranspose3dConfig,
};
use burn::nn::{Linear, LinearConfig, LinearLayout};
use burn::tensor::{Device, Tensor};
use burn_quant::calibrate::Warning;
use burn_quant::config::{GradientRule, IntFormat};
use burn_quant::nn::{
    QuantConv1d, QuantConv2d, QuantConv3d, QuantConvTranspose1d, QuantConvTranspose2d, QuantConvTranspose3d,
    QuantLinear,
};
use burn_quant::ops::{FakeQuant, Groups, fake_quant, group_amax};
use burn_quant::{QuantConfig, QuantizerConfig, Quantizers, Rule, presets, quantize};
use burn_quant_tests::device;

use crate::{assert_same, spread, values};

fn int4<const D: usize>(x: Tensor<D>, groups: Groups) -> Tensor<D> {
    let amax = group_amax(x.clone(), &groups);
    let spec = FakeQuant { format: IntFormat::signed(4).unwrap().into(), groups, gradient: GradientRule::PassThrough };
    fake_quant(x, amax, spec)
}

fn int4_everywhere() -> QuantConfig {
    QuantConfig::new()
        .with_rule(Rule::set("weight_quantizer", QuantizerConfig::int(4).per_channel()))
        .with_rule(Rule::set("input_quantizer", QuantizerConfig::int(4)))
        .with_rule(Rule::set("output_quantizer", QuantizerConfig::int(4)))
}

/// Quantizes input and weight by hand, runs burn's layer, and quantizes the output by hand.
macro_rules! specifies {
    ($test:ident, $quant:ty, $config:expr, input $input:expr, channels on axis $axis:literal) => {
        #[test]
        fn $test() {
            let (_, device): (_, Device) = device();
            let float = $config.init(&device);
            let layer: $quant = float.clone().into();
            let x = spread($input, &device);
            let same = values(layer.forward(x.clone()));
            assert_same(&same, &values(float.forward(x.clone())), "disabled quantizers are the identity");

            let (layer, _) = quantize(layer, &int4_everywhere(), |layer| drop(layer.forward(x.clone()))).unwrap();
            let mut by_hand = float.clone();
            let weight = float.weight.val();
            let groups = Groups::per_channel(&weight.dims(), $axis);
            by_hand.weight = burn::module::Param::from_tensor(int4(weight, groups));
            // the output quantizer was calibrated on the float layer
            let seen =
                values(group_amax(float.forward(x.clone()), &Groups::per_tensor(&float.forward(x.clone()).dims())));
            let y = by_hand.forward(int4(x.clone(), Groups::per_tensor(&x.dims())));
            let spec = FakeQuant {
                format: IntFormat::signed(4).unwrap().into(),
                groups: Groups::per_tensor(&y.dims()),
                gradient: GradientRule::PassThrough,
            };
            let expected = fake_quant(y, Tensor::from_data(seen.as_slice(), &device), spec);
            assert_same(&values(layer.forward(x)), &values(expected), "quantized");
        }
    };
}

specifies!(linear, QuantLinear, LinearConfig::new(6, 5), input [3, 6], channels on axis 1);
specifies!(linear_with_columns, QuantLinear, LinearConfig::new(6, 5).with_layout(LinearLayout::Col), input [3, 6],
    channels on axis 1);
specifies!(linear_over_tokens, QuantLinear, LinearConfig::new(6, 5).with_bias(false), input [2, 3, 6],
    channels on axis 1);
specifies!(conv1d, QuantConv1d, Conv1dConfig::new(2, 4, 3), input [2, 2, 9], channels on axis 0);
specifies!(conv2d, QuantConv2d, Conv2dConfig::new([2, 4], [3, 3]).with_groups(2), input [2, 2, 6, 7],
    channels on axis 0);
specifies!(conv3d, QuantConv3d, Conv3dConfig::new([1, 2], [2, 2, 2]), input [1, 1, 4, 5, 4], channels on axis 0);
specifies!(conv_transpose1d, QuantConvTranspose1d, ConvTranspose1dConfig::new([3, 2], 3), input [2, 3, 6],
    channels on axis 1);
specifies!(conv_transpose2d, QuantConvTranspose2d, ConvTranspose2dConfig::new([3, 2], [3, 3]), input [1, 3, 4, 5],
    channels on axis 1);
specifies!(conv_transpose3d, QuantConvTranspose3d, ConvTranspose3dConfig::new([2, 3], [2, 2, 2]), input [1, 2, 3, 3,
    3], channels on axis 1);

#[test]
fn a_record_of_burns_layer_loads_into_the_layer_with_slots() {
    use burn::module::Module;
    let (_, device) = device();
    let float = LinearConfig::new(4, 3).init(&device);
    let layer: QuantLinear = LinearConfig::new(4, 3).init(&device).into();
    let layer = layer.load_record(float.clone().into_record());
    assert_eq!(values(layer.weight.val()), values(float.weight.val()));
}

#[test]
fn images_have_their_channels_on_the_second_axis() {
    let (_, device) = device();
    let layer: QuantConv2d = Conv2dConfig::new([3, 2], [1, 1]).init(&device).into();
    let config = QuantConfig::new().with_rule(Rule::set("input_quantizer", QuantizerConfig::int(8).per_channel()));
    let image = Tensor::<4>::from_data([[[[1.0, -2.0]], [[3.0, 0.0]], [[-5.0, 4.0]]]], &device);
    let (layer, _) = quantize(layer, &config, |layer| drop(layer.forward(image.clone()))).unwrap();
    let amax = Quantizers::of(&layer).get("input_quantizer").unwrap().amax().unwrap();
    assert_eq!(values(amax), [2.0, 3.0, 5.0]);
}

/// A layer of burn's among those of `nn`.
#[derive(Module, Debug)]
struct Mixed {
    fc1: QuantLinear,
    fc2: Linear,
}

/// A model that was only half built of `nn` is quantized by half: the report says which layers were left out, and what
/// stays in float.
#[test]
fn a_layer_of_burn_among_those_of_nn_is_warned_of() {
    let (_, device) = device();
    let config = LinearConfig::new(8, 8);
    let mixed = Mixed { fc1: config.init(&device).into(), fc2: config.init(&device) };
    let run = |model: &Mixed| drop(model.fc2.forward(model.fc1.forward(spread::<2>([4, 8], &device))));
    let (_, report) = quantize(mixed.clone(), &presets::int8_default(), run).unwrap();
    assert_eq!(report.warnings, [Warning::InputsInFloat { layer: "fc2".into() }]);
    let (_, report) = quantize(mixed, &presets::int8_weight_only(), run).unwrap();
    assert_eq!(report.warnings, [], "no inputs are quantized");

    let config = QuantConfig::new().with_rule(Rule::set("fc1.*weight_quantizer", QuantizerConfig::int(8)));
    let linear = LinearConfig::new(8, 8);
    let mixed = Mixed { fc1: linear.init(&device).into(), fc2: linear.init(&device) };
    let (_, report) = quantize(mixed, &config, run).unwrap();
    assert!(report.to_string().contains("in float: fc2.weight"), "{report}");
}
