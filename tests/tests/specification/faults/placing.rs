//! Which parameters are weights, and along which axes they are quantized.

use burn::module::{Module, Param, Quantizer};
use burn::nn::conv::{Conv2d, Conv2dConfig, ConvTranspose2dConfig};
use burn::nn::{LinearConfig, LinearLayout};
use burn::tensor::Tensor;
use burn::tensor::quantization::{Calibration, QuantScheme};
use burn_quant::calibrate::{QuantizeOptions, Warning};
use burn_quant::config::Rotation;
use burn_quant::error::InvalidConfig;
use burn_quant::nn::{self as quant, QuantConvTranspose2d, QuantLinear};
use burn_quant::place::{Role, WeightLayout, WeightLayouts};
use burn_quant::train::QuantLora;
use burn_quant::{
    Algorithm, QuantConfig, QuantError, QuantizerConfig, Quantizers, Rule, TensorQuantizer, presets, quantize,
    quantize_weights, quantize_with,
};
use burn_quant_tests::device;

use crate::{assert_same, spread, values};

fn ranges<M: Module>(model: &M, quantizer: &str) -> Vec<f32> {
    values(Quantizers::of(model).get(quantizer).unwrap().amax().unwrap())
}

/// Kernels of magnitude 1, .1, .01, .001: with one scale for all the last would round to nothing.
pub(super) fn output_channels_of_transposed_convolutions_are_counted_in_each_group() {
    let (_, device) = device();
    let magnitudes = Tensor::<1>::from_data([1.0, 0.1, 0.01, 0.001], &device).reshape([4, 1, 1, 1]);
    let kernel = spread::<4>([4, 1, 2, 2], &device) * magnitudes;
    let largest = values(kernel.clone().abs().max_dim(3).max_dim(2));
    for with_bias in [true, false] {
        let config = ConvTranspose2dConfig::new([4, 4], [2, 2]).with_groups(4).with_bias(with_bias);
        let mut layer: QuantConvTranspose2d = config.init(&device).into();
        layer.weight = Param::from_tensor(kernel.clone());
        let (layer, _) = quantize_weights(layer, &presets::int8_weight_only()).unwrap();
        assert_eq!(ranges(&layer, "weight_quantizer"), largest, "one range for each kernel, bias: {with_bias}");
        let last = values(layer.weight.val().slice(3..4));
        assert!(last.iter().any(|w| w.abs() > 5e-4), "the smallest kernel is not rounded to zero: {last:?}");
    }
    // burn's own layer, whose groups its bias tells: six channels in two groups of three
    let layer = ConvTranspose2dConfig::new([4, 6], [2, 2]).with_groups(2).init(&device);
    let (layer, _) = quantize_weights(layer, &presets::int8_weight_only()).unwrap();
    assert_eq!(ranges(&layer, "weight_quantizer").len(), 6);
    // blocks do not reach from one group into the next
    let config = QuantConfig::new().with_rule(Rule::set("weight_quantizer", QuantizerConfig::int(4).per_block(4)));
    let layer = ConvTranspose2dConfig::new([4, 6], [2, 2]).with_groups(2).init(&device);
    let (layer, _) = quantize_weights(layer, &config).unwrap();
    assert_eq!(ranges(&layer, "weight_quantizer").len(), 2 * 3 * 4, "groups, channels of each, places of the kernel");
}

#[derive(Module, Debug)]
struct Pair {
    left: Param<Tensor<2>>,
    right: Param<Tensor<2>>,
}

/// Each of several weights in one struct is solved once, by itself.
pub(super) fn several_weights_of_one_struct_are_solved_apart() {
    let (_, device) = device();
    let right = spread([8, 2], &device) * 4.0;
    let pair = Pair { left: Param::from_tensor(spread([8, 2], &device)), right: Param::from_tensor(right) };
    let layout = WeightLayout::new(1, 0);
    let layouts = WeightLayouts::new().register("Pair", "left", layout).register("Pair", "right", layout);
    let config = QuantConfig::new().with_rule(Rule::set("*weight_quantizer", QuantizerConfig::nvfp4_static()));
    let config = config.with_algorithm(Algorithm::Mse(burn_quant::config::RangeSearch::E4m3Scales));
    let (pair, report) = quantize_with(pair, &config, QuantizeOptions::new().with_layouts(layouts), |_| {}).unwrap();
    let layers: Vec<&str> = report.layers.iter().map(|layer| layer.layer.as_str()).collect();
    assert_eq!(layers, ["left", "right"]);
    let global = |name: &str| {
        let quantizers = Quantizers::of(&pair);
        values(quantizers.get(name).unwrap().buffer(burn_quant::quantizer::Buffer::GlobalAmax).unwrap())[0]
    };
    assert_eq!(global("right_weight_quantizer"), 4.0 * global("left_weight_quantizer"), "no shared range");
}

/// A layer of the user's with the name of burn's, and weights the other way round.
mod theirs {
    use super::*;

    #[derive(Module, Debug)]
    pub(super) struct Linear {
        pub(super) weight: Param<Tensor<2>>,
        pub(super) bias: Param<Tensor<1>>,
    }

    #[derive(Module, Debug)]
    pub(super) struct QuantumNet {
        pub(super) fc: Linear,
    }
}

/// burn tells no more than the name of a struct: its shapes tell the rest.
pub(super) fn a_struct_is_not_burns_because_of_its_name() {
    let (_, device) = device();
    let net = || {
        let weight = Param::from_tensor(spread([5, 3], &device)); // [out, in]
        theirs::QuantumNet { fc: theirs::Linear { weight, bias: Param::from_tensor(Tensor::zeros([5], &device)) } }
    };
    let config = presets::int8_weight_only();
    let error = quantize_weights(net(), &config).unwrap_err();
    assert!(matches!(error, QuantError::NoMatch { .. }), "no weight is known: {error}");
    // registered by path, its output channels are rows
    let layouts = WeightLayouts::new().register_at("fc.weight", WeightLayout::new(0, 1));
    let (net, _) = quantize_with(net(), &config, QuantizeOptions::new().with_layouts(layouts), |_| {}).unwrap();
    assert_eq!(ranges(&net, "fc.weight_quantizer").len(), 5);
    assert_eq!(burn_quant::place::burn_layer_name("QuantumNet"), "QuantumNet");
    assert_eq!(burn_quant::place::burn_layer_name("QuantConv2d"), "Conv2d");
}

/// Blocks of a kernel lie along all that one output sums over.
pub(super) fn blocks_of_kernels_lie_along_the_contracted_elements() {
    let (_, device) = device();
    let config = QuantConfig::new().with_rule(Rule::set("weight_quantizer", QuantizerConfig::int(4).per_block(32)));
    let pixel = Conv2dConfig::new([64, 2], [1, 1]).init(&device);
    let weight = pixel.weight.val();
    let (pixel, _) = quantize_weights(pixel, &config).unwrap();
    let blocks: Vec<f32> = values(weight.clone().abs().reshape([4, 32]).max_dim(1));
    assert_eq!(ranges(&pixel, "weight_quantizer"), blocks, "two blocks of 32 input channels for each output");
    // the same as the linear layer of the same weights
    let linear = burn::nn::Linear { weight: Param::from_tensor(weight.reshape([2, 64]).transpose()), bias: None };
    let (linear, _) = quantize_weights(linear, &config).unwrap();
    assert_same(&values(pixel.weight.val().reshape([2, 64])), &values(linear.weight.val().transpose()), "weights");

    let (kernel, _) = quantize_weights(Conv2dConfig::new([4, 2], [3, 3]).init(&device), &config).unwrap();
    assert_eq!(ranges(&kernel, "weight_quantizer").len(), 2 * 2, "36 elements for each output: blocks of 32 and of 4");
}

/// burn keeps the weight of a layer in column layout the other way round until it is made.
pub(super) fn a_column_layout_is_known_before_the_weight_is_made() {
    let (_, device) = device();
    let layer = |bias| LinearConfig::new(8, 6).with_layout(LinearLayout::Col).with_bias(bias).init(&device);
    for bias in [true, false] {
        let config = presets::int8_weight_only();
        let (layer8, _) = quantize_weights(layer(bias), &config).unwrap();
        assert_eq!(ranges(&layer8, "weight_quantizer").len(), 6, "output channels, bias: {bias}");
        let factors = QuantLora::new(2).adapt(layer8).unwrap();
        assert_eq!(factors.forward(spread::<2>([3, 8], &device)).dims(), [3, 6]);
        // eight inputs can be rotated, six cannot
        let rotated = QuantizerConfig::int(4).per_channel().rotated(Rotation { block: Some(8), ..Rotation::default() });
        let config = QuantConfig::new().with_rule(Rule::set("weight_quantizer", rotated));
        quantize_weights(layer(bias), &config).unwrap();
        let gptq = presets::int8_weight_only().with_algorithm(Algorithm::gptq());
        let run = |layer: &QuantLinear| drop(layer.forward(spread::<2>([32, 8], &device)));
        let (_, report) = quantize(QuantLinear::from(layer(bias)), &gptq, run).unwrap();
        assert_eq!(report.layers[0].steps[0].skipped, None, "bias: {bias}");
    }
}

/// burn's own quantization is refused by name, and a weight that burn quantizes afterwards still computes.
pub(super) fn tensors_that_burn_quantized_do_not_panic() {
    let (_, device) = device();
    let mut burns = Quantizer::new(Calibration::MinMax, QuantScheme::default());
    let float = LinearConfig::new(8, 4).with_bias(false).init(&device);
    let quantized = float.clone().quantize_weights(&mut burns);
    match quantize_weights(quantized, &presets::int8_weight_only()).unwrap_err() {
        QuantError::BurnQuantized { path } => assert_eq!(path, "weight"),
        other => panic!("{other}"),
    }
    let (ours, _) = quantize_weights(float, &presets::int8_weight_only()).unwrap();
    let both = ours.quantize_weights(&mut burns);
    assert!(values(both.forward(spread::<2>([2, 8], &device))).iter().all(|y| y.is_finite()));
}

/// What stays in float is in the report, and so is a layout that matched nothing.
pub(super) fn what_stays_in_float_is_in_the_report() {
    let (_, device) = device();
    let (left, right) = (spread([4, 2], &device), spread([4, 2], &device));
    let pair = (
        Pair { left: Param::from_tensor(left), right: Param::from_tensor(right) },
        LinearConfig::new(4, 2).init(&device),
    );
    let layout = WeightLayout::new(1, 0);
    let layouts = WeightLayouts::new().register("Pair", "left", layout).register("Piar", "right", layout);
    let (_, report) =
        quantize_with(pair, &presets::int8_weight_only(), QuantizeOptions::new().with_layouts(layouts), |_| {})
            .unwrap();
    assert_eq!(report.float, ["0.right"], "biases are vectors");
    assert_eq!(report.warnings, [Warning::UnusedLayout { layout: "Piar.right".into() }]);
}

/// A model with products, a norm, a pool and a rectifier.
#[derive(Module, Debug)]
struct Mixed {
    conv: quant::conv::Conv2d,
    norm: quant::BatchNorm,
    relu: quant::LeakyRelu,
    pool: quant::pool::AvgPool2d,
    layer_norm: quant::LayerNorm,
    fc: QuantLinear,
}

impl Mixed {
    fn new(device: &burn::tensor::Device) -> Self {
        Self {
            conv: quant::conv::Conv2dConfig::new([2, 4], [3, 3]).init(device),
            norm: quant::BatchNormConfig::new(4).init(device),
            relu: quant::LeakyReluConfig::new().init(),
            pool: quant::pool::AvgPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            layer_norm: quant::LayerNormConfig::new(16).init(device),
            fc: quant::LinearConfig::new(16, 3).init(device),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.pool.forward(self.relu.forward(self.norm.forward(self.conv.forward(x))));
        let batch = x.dims()[0];
        self.fc.forward(self.layer_norm.forward(x.reshape([batch, 16])))
    }
}

/// `*input_quantizer` means inputs of products; what has none is quantized where a rule names it. A preset and
/// ModelOpt's own file of it are one configuration, and do the same to a model.
pub(super) fn rules_are_for_products() {
    let (_, device) = device();
    let x = spread::<4>([2, 2, 6, 6], &device);
    let on = |config: &QuantConfig| {
        let (model, _) = quantize(Mixed::new(&device), config, |model| drop(model.forward(x.clone()))).unwrap();
        let quantizers = Quantizers::of(&model);
        let on = quantizers.iter().filter(|(_, quantizer)| quantizer.is_enabled()).map(|(name, _)| name.to_string());
        on.collect::<Vec<_>>()
    };
    let inputs = Rule::set("*input_quantizer", QuantizerConfig::int(8));
    assert_eq!(on(&QuantConfig::new().with_rule(inputs.clone())), ["conv.input_quantizer", "fc.input_quantizer"]);
    let all = QuantConfig::new().with_rule(Rule::set("*", QuantizerConfig::int(8)));
    let products = ["weight", "input", "output"].map(|tensor| format!("{tensor}_quantizer"));
    let mut found = on(&all);
    let mut expected: Vec<String> =
        ["conv", "fc"].iter().flat_map(|layer| products.iter().map(move |name| format!("{layer}.{name}"))).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
    // named by a path, by a glob that matches nothing else, or by the container; disabling reaches everything
    let named = |rule: Rule| on(&QuantConfig::new().with_rule(inputs.clone()).with_rule(rule));
    let with = |name: &str| {
        let mut all = vec!["conv.input_quantizer".to_string(), "fc.input_quantizer".into(), name.into()];
        all.sort();
        all
    };
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    let int8 = QuantizerConfig::int(8);
    assert_eq!(sorted(named(Rule::set("pool.input_quantizer", int8.clone()))), with("pool.input_quantizer"));
    assert_eq!(sorted(named(Rule::set("layer_*input_quantizer", int8.clone()))), with("layer_norm.input_quantizer"));
    let within = Rule::set("*input_quantizer", int8.clone()).within("BatchNorm");
    assert_eq!(sorted(named(within.clone())), with("norm.input_quantizer"));
    let off = QuantConfig::new().with_rule(inputs).with_rule(within).with_rule(Rule::disable("*input_quantizer"));
    assert_eq!(on(&off), [""; 0]);

    let disabled = |name: &str| format!(r#"{{"quantizer_name": "{name}", "enable": false}}"#);
    let floats =
        presets::int8_default().rules.into_iter().filter(|rule| rule.action == burn_quant::config::Action::Disable);
    let classes = ["nn.BatchNorm1d", "nn.BatchNorm2d", "nn.BatchNorm3d", "nn.LeakyReLU", "nn.Embedding"];
    let classes =
        classes.map(|class| format!(r#"{{"parent_class": "{class}", "quantizer_name": "*", "enable": false}}"#));
    let entries: Vec<String> = [
        disabled("*"),
        r#"{"quantizer_name": "*weight_quantizer", "cfg": {"num_bits": 8, "axis": 0}}"#.into(),
        r#"{"quantizer_name": "*input_quantizer", "cfg": {"num_bits": 8, "axis": null}}"#.into(),
    ]
    .into_iter()
    .chain(floats.filter(|rule| rule.container.is_none()).map(|rule| disabled(&rule.quantizer)))
    .chain(classes)
    .collect();
    let json = format!(r#"{{"quant_cfg": [{}], "algorithm": {{"method": "smoothquant"}}}}"#, entries.join(","));
    let read = QuantConfig::from_modelopt_json(&json).unwrap();
    let preset = presets::int8_smoothquant();
    assert_eq!(read.algorithm, preset.algorithm);
    assert_eq!(on(&read), on(&preset));
    let products = ["conv.weight_quantizer", "conv.input_quantizer", "fc.weight_quantizer", "fc.input_quantizer"];
    assert_eq!(on(&preset), products);
}

/// A quantizer of the user's own beside burn's convolution.
#[derive(Module, Debug)]
struct Block {
    input_quantizer: TensorQuantizer,
    conv: Conv2d,
}

/// A quantizer beside burn's own convolution may look for channels where the convolution has none: the report says so.
pub(super) fn a_quantizer_beside_a_convolution_of_burn_is_warned_of() {
    let (_, device) = device();
    let images = spread::<4>([2, 8, 14, 14], &device);
    let warnings = |role: Role, config: QuantizerConfig| {
        let conv = Conv2dConfig::new([8, 2], [3, 3]).init(&device);
        let block = Block { input_quantizer: TensorQuantizer::disabled(role), conv };
        let config = QuantConfig::new().with_rule(Rule::set("input_quantizer", config));
        let run = |block: &Block| drop(block.conv.forward(block.input_quantizer.forward(images.clone())));
        let (block, report) = quantize(block, &config, run).unwrap();
        (ranges(&block, "input_quantizer").len(), report.warnings)
    };
    let per_channel = || QuantizerConfig::int(8).per_channel();
    let elsewhere = Warning::ChannelsElsewhere { quantizer: "input_quantizer".into(), layer: "conv".into() };
    assert!(elsewhere.to_string().contains("make it with `Role::ChannelsFirst`"), "{elsewhere}");
    assert_eq!(warnings(Role::ChannelsLast, per_channel()), (14, vec![elsewhere]), "a range for each of 14 columns");
    assert_eq!(warnings(Role::ChannelsFirst, per_channel()), (8, vec![]));
    assert_eq!(warnings(Role::ChannelsLast, QuantizerConfig::int(8)), (1, vec![]), "all channels have one range");
}

/// The quantizer of a convolution's inputs has its channels on axis 1: one that looks for them on the last axis is an
/// error. Files of the names that roles had before are read.
pub(super) fn a_role_that_does_not_suit_its_layer_is_an_error() {
    let (_, device) = device();
    let config = QuantConfig::new().with_rule(Rule::set("*input_quantizer", QuantizerConfig::int(8).per_channel()));
    let mut conv: quant::conv::Conv2d = quant::conv::Conv2dConfig::new([8, 2], [3, 3]).init(&device);
    let images = spread::<4>([2, 8, 14, 14], &device);
    let run = |conv: &quant::conv::Conv2d| drop(conv.forward(images.clone()));
    let (quantized, _) = quantize(conv.clone(), &config, run).unwrap();
    assert_eq!(ranges(&quantized, "input_quantizer").len(), 8, "a range for each channel, not for each of 14 columns");
    conv.input_quantizer = TensorQuantizer::disabled(Role::ChannelsLast);
    let error = quantize(conv, &config, run).map(drop).unwrap_err();
    let role = |layer: &str, found, expected| QuantError::Config {
        name: "input_quantizer".into(),
        problem: InvalidConfig::RoleOfLayer { layer: layer.into(), found, expected },
    };
    assert_eq!(error, role("Conv2d", Role::ChannelsLast, Role::ChannelsFirst));
    assert!(error.to_string().contains("make it with `Role::ChannelsFirst`"), "{error}");
    let mut linear: QuantLinear = quant::LinearConfig::new(8, 2).init(&device);
    linear.input_quantizer = TensorQuantizer::disabled(Role::ChannelsFirst);
    let run = |linear: &QuantLinear| drop(linear.forward(spread::<2>([3, 8], &device)));
    let error = quantize(linear, &config, run).map(drop).unwrap_err();
    assert_eq!(error, role("Linear", Role::ChannelsFirst, Role::ChannelsLast));

    for (name, old, expected) in
        [("channels_last", "features", Role::ChannelsLast), ("channels_first", "images", Role::ChannelsFirst)]
    {
        assert_eq!(serde_json::to_value(expected).unwrap(), name);
        for written in [name, old] {
            assert_eq!(serde_json::from_value::<Role>(written.into()).unwrap(), expected, "{written}");
        }
    }
}
