//! ONNX files: what a quantized model is written as, and where there is ONNX Runtime, that it computes what burn does.

use burn::module::{Module, Param};
use burn::nn::conv::{Conv2dConfig, ConvTranspose2dConfig};
use burn::nn::pool::{MaxPool2d, MaxPool2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, LinearConfig, LstmConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Int, Tensor, s};
use burn_quant::compress::{WithoutPackedForm, compress_with};
use burn_quant::config::Format;
use burn_quant::nn::{QuantConv2d, QuantConvTranspose2d, QuantEmbedding, QuantEmbeddingConfig, QuantLinear};
use burn_quant::{QuantConfig, QuantizerConfig, Rule, compress, presets, quantize, quantize_weights};
use burn_quant_onnx::{ElementType, Exporter, OnnxError, OnnxModel, Profile, export};
use burn_quant_tests::device;

use crate::onnx_runtime::{Files, count};
use crate::spread;

fn linear(device: &Device) -> QuantLinear {
    LinearConfig::new(64, 32).init(device).into()
}

/// A layer in a preset, and a batch for it.
fn quantized(config: &QuantConfig) -> (QuantLinear, Tensor<2>) {
    let (_, device) = device();
    let x = spread([4, 64], &device);
    let (layer, _) = quantize(linear(&device), config, |layer| drop(layer.forward(x.clone()))).unwrap();
    (layer, x)
}

fn written(config: &QuantConfig) -> OnnxModel {
    let (layer, x) = quantized(config);
    export(&layer, x, QuantLinear::forward::<2>).unwrap()
}

fn weights(config: QuantizerConfig) -> QuantConfig {
    QuantConfig::new().with_rule(Rule::set("*weight_quantizer", config))
}

/// Names, types and shapes of what a file stores.
fn stored(onnx: &OnnxModel) -> Vec<String> {
    onnx.stored().map(|(name, element, dims)| format!("{name} {element:?} {dims:?}")).collect()
}

/// A packed kernel that is read twice, as that of a head over features of several sizes, is stored once.
#[test]
fn a_packed_kernel_that_is_read_twice_is_stored_once() {
    let (_, device) = device();
    let mut files = Files::new();
    let images = || (spread::<4>([2, 4, 6, 6], &device), spread::<4>([2, 4, 3, 3], &device));
    type Images = (Tensor<4>, Tensor<4>);
    let forward = |conv: &QuantConv2d, (x, y): Images| (conv.forward(x), conv.forward(y));
    for (name, config) in [("products", presets::int8_default()), ("unpacked", presets::int8_weight_only())] {
        let conv: QuantConv2d = Conv2dConfig::new([4, 6], [3, 3]).init(&device).into();
        let (conv, _) = quantize(conv, &config, |conv| drop(forward(conv, images()))).unwrap();
        for (form, conv) in [("float", conv.clone()), ("packed", compress(conv).unwrap().0)] {
            let onnx = export(&conv, images(), forward).unwrap();
            let found = onnx.stored().filter(|(name, ..)| name.starts_with("weight"));
            let found: Vec<_> = found.map(|(name, ..)| name).collect();
            assert_eq!(found, ["weight", "weight.scale", "weight.zero_point"], "{name}, {form}: {onnx}");
            files.add(&format!("{name}_{form}"), &onnx, images(), forward(&conv, images()));
        }
    }
    files.check();
}

/// ONNX Runtime rounds the bias of a convolution between codes, in steps of input times kernel; where the kernel has 4
/// bits, which run in float, the file adds it behind the convolution.
#[test]
fn a_bias_beside_a_kernel_of_4_bits_is_not_rounded() {
    let (_, device) = device();
    let mut files = Files::new();
    // steps of 2 / 127 and of 1 / 7: of one value each nothing is at the border between two codes
    let images = || spread::<4>([2, 4, 6, 6], &device);
    let config = presets::int8_default();
    let of_4_bits = Rule::set("*weight_quantizer", QuantizerConfig::int(4).per_channel());
    let forward = |net: &[QuantConv2d; 2], x: Tensor<4>| net[1].forward(relu(net[0].forward(x)));
    for (name, config, apart) in [("int8", config.clone(), 0), ("int4", config.with_rule(of_4_bits), 2)] {
        let mut net = [[4, 6], [6, 2]]
            .map(|channels| -> QuantConv2d { Conv2dConfig::new(channels, [3, 3]).init(&device).into() });
        for conv in &mut net {
            conv.weight = Param::from_tensor(spread(conv.weight.dims(), &device));
            let outputs = conv.weight.dims()[0];
            conv.bias = Some(Param::from_tensor(spread([outputs], &device)));
        }
        let (net, _) = quantize(net, &config, |net| drop(forward(net, images()))).unwrap();
        for (form, net) in [("float", net.clone()), ("packed", compress(net).unwrap().0)] {
            let onnx = export(&net, images(), forward).unwrap();
            assert_eq!(count(&onnx, "Add"), apart, "{name}, {form}: {onnx}");
            files.add(&format!("{name}_{form}"), &onnx, images(), forward(&net, images()));
        }
    }
    files.check();
}

/// It rounds a kernel that is constant, too: one in float, and one whose codes it makes floats of once.
#[test]
fn a_kernel_that_is_constant_is_not_rounded() {
    let (_, device) = device();
    let mut files = Files::new();
    let images = || spread::<4>([2, 4, 5, 5], &device);
    let forward =
        |(first, second): &(QuantConvTranspose2d, QuantConv2d), x: Tensor<4>| second.forward(relu(first.forward(x)));
    let float = Rule::disable("0.weight_quantizer");
    let nf4 = Rule::set("*weight_quantizer", QuantizerConfig::new(Format::Nf4).per_channel());
    let configs = [
        // scales of two groups of outputs
        ("int8", presets::int8_default()),
        ("float", presets::int8_default().with_rule(float)),
        ("nf4", presets::int8_default().with_rule(nf4)),
    ];
    for (name, config) in configs {
        for (bias, outputs) in [(true, 6), (false, 6), (false, 2)] {
            let first = ConvTranspose2dConfig::new([4, outputs], [3, 3]).with_groups(2).with_bias(bias);
            let second = Conv2dConfig::new([outputs, 4], [3, 3]);
            let mut net: (QuantConvTranspose2d, QuantConv2d) =
                (first.init(&device).into(), second.init(&device).into());
            net.0.weight = Param::from_tensor(spread(net.0.weight.dims(), &device));
            net.1.weight = Param::from_tensor(spread(net.1.weight.dims(), &device));
            let (net, _) = quantize(net, &config, |net| drop(forward(net, images()))).unwrap();
            let onnx = export(&net, images(), forward).unwrap();
            files.add(&format!("{name}_{outputs}_{bias}"), &onnx, images(), forward(&net, images()));
        }
    }
    files.check();
}

/// Nor where the runtime would merge a kernel with what comes next, or moves the rounding before it.
#[test]
fn a_kernel_is_not_rounded_by_way_of_what_comes_next() {
    let (_, device) = device();
    let mut files = Files::new();
    let images = || spread::<4>([2, 4, 6, 6], &device);
    type Net = (QuantConv2d, BatchNorm, QuantConv2d);
    type Pass = fn(&Net, Tensor<4>) -> Tensor<4>;
    let passes: [(&str, Pass); 4] = [
        ("norm", |net, x| net.2.forward(relu(net.1.forward(net.0.forward(x))))),
        ("factor", |net, x| net.2.forward(net.0.forward(x) * 2.5)),
        ("clamp", |net, x| net.2.forward(net.0.forward(x).clamp(0.0, 6.0))),
        ("part", |net, x| net.2.forward(net.0.forward(x).narrow(2, 0, 3))),
    ];
    let set = |config: QuantizerConfig| Rule::set("0.weight_quantizer", config.per_channel());
    for (kernel, rule) in [
        ("float", Rule::disable("0.weight_quantizer")),
        ("nf4", set(QuantizerConfig::new(Format::Nf4))),
        ("int4", set(QuantizerConfig::int(4))),
    ] {
        for (name, forward) in passes {
            let mut first: QuantConv2d = Conv2dConfig::new([4, 6], [3, 3]).init(&device).into();
            first.weight = Param::from_tensor(spread([6, 4, 3, 3], &device));
            let mut second: QuantConv2d = Conv2dConfig::new([6, 4], [2, 2]).init(&device).into();
            second.weight = Param::from_tensor(spread([4, 6, 2, 2], &device));
            let net: Net = (first, BatchNormConfig::new(6).init(&device), second);
            let config = presets::int8_default().with_rule(rule.clone());
            let (net, _) = quantize(net, &config, |net| drop(forward(net, images()))).unwrap();
            let onnx = export(&net, images(), forward).unwrap();
            files.add(&format!("{kernel}_{name}"), &onnx, images(), forward(&net, images()));
        }
    }
    files.check();
}

/// A model may be a parameter, whose path is empty: names in a file are not.
#[test]
fn a_parameter_that_is_a_model_has_a_name() {
    let (_, device) = device();
    let weight = Param::from_tensor(spread::<2>([3, 4], &device));
    let product = |weight: &Param<Tensor<2>>, x: Tensor<2>| x.matmul(weight.val());
    let onnx = export(&weight, spread([2, 3], &device), product).unwrap();
    assert_eq!(stored(&onnx), ["constant Float [3, 4]"]);
    let mut files = Files::new();
    files.add("product", &onnx, spread([2, 3], &device), product(&weight, spread([2, 3], &device)));
    files.check();
}

#[test]
fn int8_is_written_as_codes_and_pairs_under_the_models_paths() {
    let onnx = written(&presets::int8_default());
    assert_eq!((onnx.opset(), onnx.input_names(), onnx.output_names()), (21, vec!["input"], vec!["output"]));
    assert_eq!(
        stored(&onnx),
        [
            "weight Uint8 [64, 32]",
            "weight.scale Float [32]",
            "weight.zero_point Uint8 [32]",
            "input_quantizer.scale Float []",
            "input_quantizer.zero_point Uint8 []",
            "bias.negative Float [1, 32]",
        ]
    );
    assert_eq!(
        onnx.operators(),
        [("DequantizeLinear", 2), ("Identity", 1), ("MatMul", 1), ("QuantizeLinear", 1), ("Sub", 1)]
    );
    let (layer, x) = quantized(&presets::int8_default());
    let exporter = Exporter::new().with_profile(Profile::TensorRt).with_input_names(["x"]).with_output_names(["y"]);
    let onnx = exporter.export(&layer, x, QuantLinear::forward::<2>).unwrap();
    assert_eq!((onnx.input_names(), onnx.output_names()), (vec!["x"], vec!["y"]));
    let stored = stored(&onnx);
    assert!(
        stored.contains(&"input_quantizer.zero_point Int8 []".into()) && stored.contains(&"bias Float [1, 32]".into()),
        "{stored:?}"
    );
    assert_eq!(stored[0], "weight Int8 [64, 32]");
}

/// What a convolution computes is rounded at once, where the next quantizer rounds it behind a rectifier and a pool:
/// then ONNX Runtime multiplies in integers. What something else reads too stays as it is.
#[test]
fn convolutions_stay_codes_up_to_the_next_layer() {
    #[derive(Module, Debug)]
    struct Two {
        one: QuantConv2d,
        pool: MaxPool2d,
        two: QuantConv2d,
    }
    let (_, device) = device();
    let conv = |channels| -> QuantConv2d { Conv2dConfig::new(channels, [3, 3]).init(&device).into() };
    let x = spread::<4>([2, 1, 10, 10], &device);
    let pool = MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init();
    let two = Two { one: conv([1, 4]), pool, two: conv([4, 2]) };
    let plain = |two: &Two, x: Tensor<4>| {
        let x = two.pool.forward(relu(two.one.forward(x)));
        two.two.forward(x.swap_dims(2, 3))
    };
    let residual = |two: &Two, x: Tensor<4>| {
        let x = relu(two.one.forward(x));
        two.two.forward(x.clone()).mean() + x.mean()
    };
    let (two, _) = quantize(two, &presets::int8_default(), |two| drop(plain(two, x.clone()))).unwrap();
    let of = |profile| Exporter::new().with_profile(profile).export(&two, x.clone(), plain).unwrap();
    let inside = |onnx: &OnnxModel| {
        let count =
            |name| onnx.operators().iter().find(|(operator, _)| *operator == name).map_or(0, |(_, count)| *count);
        ["QuantizeLinear", "DequantizeLinear", "Clip", "Relu", "MaxPool", "Transpose"].map(count)
    };
    assert_eq!(inside(&of(Profile::OnnxRuntime)), [2, 4, 1, 0, 1, 1]);
    assert_eq!(inside(&of(Profile::TensorRt)), [2, 4, 0, 1, 1, 1]);
    let onnx = Exporter::new().export(&two, x.clone(), residual).unwrap();
    assert_eq!(inside(&onnx), [2, 4, 0, 1, 0, 0]);
    // the order is that of the file: a convolution, its codes, and what is done with them
    let text = of(Profile::OnnxRuntime).to_string();
    let operator = |line: &str| line.split_once(" = ")?.1.split_once('(').map(|(operator, _)| operator.to_string());
    let operators: Vec<String> = text.lines().filter_map(operator).collect();
    let order = operators.join(" ");
    assert!(order.contains("Conv QuantizeLinear Clip MaxPool Transpose DequantizeLinear"), "{text}");
}

/// A packed product rounds its activations itself: a convolution before it stays codes all the same.
#[test]
fn a_packed_network_has_the_products_of_the_network() {
    let (_, device) = device();
    let x = spread::<4>([3, 1, 10, 10], &device);
    let calibrate = |network: &Network| drop(network.forward(x.clone()));
    let (network, _) = quantize(Network::new(&device), &presets::int8_default(), calibrate).unwrap();
    let (packed, _) = compress(network.clone()).unwrap();
    let [written, of_packed] = [network, packed].map(|network| export(&network, x.clone(), Network::forward).unwrap());
    assert_eq!(of_packed.operators(), written.operators());
    let text = of_packed.to_string();
    assert!(text.contains("head.input_quantizer.QuantizeLinear = QuantizeLinear(two.Conv"), "{text}");
}

/// What a network of two convolutions and a linear layer is written as, node by node.
#[test]
fn the_nodes_of_a_network_are_those_of_the_snapshot() {
    let (_, device) = device();
    let (network, x) = (Network::new(&device), spread::<4>([3, 1, 10, 10], &device));
    for (name, config) in [("int8", presets::int8_default()), ("nvfp4", presets::nvfp4_default())] {
        let (network, _) = quantize(network.clone(), &config, |it| drop(it.forward(x.clone()))).unwrap();
        let sizes = [x.clone(), Tensor::cat(vec![x.clone(), x.clone()], 0).narrow(0, 0, 5)];
        let onnx = Exporter::new().export_any_size(&network, sizes, Network::forward).unwrap();
        insta::assert_snapshot!(format!("onnx_{name}"), onnx);
    }
}

/// Where `BURN_QUANT_ORT` names a Python with onnx, onnxruntime, safetensors and numpy, it runs files and compares.
#[test]
fn onnx_runtime_computes_what_burn_does() {
    let (name, device) = device();
    // files do not depend on the device, and a software GPU is slow
    let each = if name == "flex" { 1 } else { 12 };
    let x = spread::<4>([7, 1, 10, 10], &device);
    let mut files = Files::new();
    for preset in presets::all().iter().step_by(each) {
        let calibrate = |network: &Network| drop(network.forward(x.clone()));
        let Ok((network, _)) = quantize(Network::new(&device), &(preset.config)(), calibrate) else { continue };
        let (packed, _) = compress_with(network.clone(), WithoutPackedForm::Keep).unwrap();
        for (kind, network) in [("network", network), ("packed", packed)] {
            let sizes = [3, 5].map(|batch| x.clone().narrow(0, 0, batch));
            let onnx = Exporter::new().export_any_size(&network, sizes, Network::forward).unwrap();
            files.add(&format!("{kind}-{}", preset.name), &onnx, x.clone(), network.forward(x.clone()));
        }
    }
    assert!(files.len() > 30 / each);
    files.check();
}

#[derive(Module, Debug)]
struct Network {
    one: QuantConv2d,
    pool: MaxPool2d,
    two: QuantConv2d,
    head: QuantLinear,
}

impl Network {
    fn new(device: &Device) -> Self {
        let conv = |channels| -> QuantConv2d { Conv2dConfig::new(channels, [3, 3]).init(device).into() };
        let pool = MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init();
        Self { one: conv([1, 4]), pool, two: conv([4, 5]), head: LinearConfig::new(20, 3).init(device).into() }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.pool.forward(relu(self.one.forward(x)));
        self.head.forward(relu(self.two.forward(x)).flatten(1, 3))
    }
}

/// burn gives the matrix of some products an axis of one, which would keep it from runtimes.
#[test]
fn sequences_are_multiplied_with_the_matrix_itself() {
    let (_, device) = device();
    let x = spread::<3>([2, 64, 64], &device); // a multiple of 32: not folded into rows
    let (layer, _) = quantize(linear(&device), &presets::int8_default(), |l| drop(l.forward(x.clone()))).unwrap();
    let onnx = export(&layer, x, QuantLinear::forward::<3>).unwrap();
    let expected = [("Add", 1), ("DequantizeLinear", 2), ("Identity", 1), ("MatMul", 1), ("QuantizeLinear", 1)];
    assert_eq!(onnx.operators(), expected);
}

/// The type of the codes of each format, and of their scales.
#[test]
fn every_format_is_stored_as_its_codes() {
    let block = |config: QuantizerConfig| config.per_block(16);
    for (config, expected, opset) in [
        (QuantizerConfig::int(4).per_block(16), "weight Int4 [64, 32], weight.scale Float [4, 32]", 21),
        (QuantizerConfig::int(3).per_channel(), "weight Uint8 [64, 32], weight.scale Float [32]", 21),
        (QuantizerConfig::int(12), "weight Int16 [64, 32], weight.scale Float []", 21),
        (QuantizerConfig::e4m3(), "weight Float8E4M3FN [64, 32], weight.scale Float []", 21),
        (QuantizerConfig::nvfp4(), "weight Float4E2M1 [64, 32], weight.scale Float8E4M3FN [4, 32]", 23),
        (
            QuantizerConfig::mx(burn_quant::config::Format::E2M1),
            "weight Float4E2M1 [64, 32], weight.scale Float8E8M0 [2, 32]",
            24,
        ),
        (
            block(QuantizerConfig::new(burn_quant::config::Format::Nf4)),
            "weight Uint4 [64, 32], weight.scale Float [4, 32]",
            21,
        ),
    ] {
        let onnx = written(&weights(config.clone()));
        assert_eq!(stored(&onnx)[..2].join(", "), expected, "{}", config.kind());
        assert_eq!(onnx.opset(), opset, "{}", config.kind());
    }
}

/// Codes, scales and the rounding of inputs are those of the model before it was packed: the file is the same, byte for
/// byte.
#[test]
fn a_packed_model_is_written_as_it_was_before() {
    let per_token = QuantizerConfig::int(8).per_token().dynamic();
    for config in [
        presets::int8_default(),
        presets::int8_weight_only(),
        presets::int8_per_channel_per_token(),
        weights(QuantizerConfig::int(4).per_block(16)),
        weights(QuantizerConfig::int(3).per_channel()).with_rule(Rule::set("*input_quantizer", per_token)),
        weights(QuantizerConfig::e4m3().per_channel()),
        weights(QuantizerConfig::nvfp4()),
        weights(QuantizerConfig::mx(burn_quant::config::Format::E2M1)),
        weights(QuantizerConfig::mx(burn_quant::config::Format::E4M3)),
        weights(QuantizerConfig::new(burn_quant::config::Format::Nf4).per_block(16)),
    ] {
        let (layer, x) = quantized(&config);
        let (packed, report) = compress(layer.clone()).unwrap();
        assert_eq!(report.packed.len(), 1);
        let [before, after] =
            [layer, packed].map(|layer| export(&layer, x.clone(), QuantLinear::forward::<2>).unwrap());
        assert_eq!(stored(&after), stored(&before), "{:?}", config.rules[0]);
        assert!(after.to_bytes() == before.to_bytes(), "{:?}: {after}\n{before}", config.rules[0]);
    }
}

/// Codes of convolutions are written in the shape that they are read in, and a table by its rows.
#[test]
fn packed_convolutions_and_tables_are_codes_right_before_their_products() {
    let (_, device) = device();
    let x = spread::<4>([7, 1, 10, 10], &device);
    let calibrate = |network: &Network| drop(network.forward(x.clone()));
    let (network, _) = quantize(Network::new(&device), &presets::int8_default(), calibrate).unwrap();
    let (packed, _) = compress(network.clone()).unwrap();
    let [before, after] = [network, packed].map(|network| export(&network, x.clone(), Network::forward).unwrap());
    let of_weights = |onnx: &OnnxModel| -> Vec<String> {
        stored(onnx).into_iter().filter(|stored| stored.contains(".weight")).collect()
    };
    assert_eq!(of_weights(&after), of_weights(&before));
    let count = |onnx: &OnnxModel, operator: &str| {
        onnx.operators().iter().find(|(found, _)| *found == operator).map_or(0, |(_, count)| *count)
    };
    for operator in ["Conv", "MatMul", "QuantizeLinear", "DequantizeLinear", "Transpose"] {
        assert_eq!(count(&after, operator), count(&before, operator), "{operator}: {after}");
    }

    let table: QuantEmbedding = QuantEmbeddingConfig::new(10, 36).init(&device);
    let (table, _) = quantize_weights(table, &weights(QuantizerConfig::int(8).per_channel())).unwrap();
    let tokens = Tensor::<2, Int>::from_data([[1, 9], [3, 0]], &device);
    let (packed, _) = compress(table).unwrap();
    let onnx = export(&packed, tokens, QuantEmbedding::forward).unwrap();
    assert!(stored(&onnx).contains(&"weight Uint8 [36, 10]".into()), "{onnx}");
}

#[test]
fn files_have_the_size_of_their_codes() {
    let (_, device) = device();
    let layer = || -> QuantLinear { LinearConfig::new(512, 512).with_bias(false).init(&device).into() };
    let bytes = |config: &QuantConfig| {
        let (layer, _) = quantize_weights(layer(), config).unwrap();
        export(&layer, spread([2, 512], &device), QuantLinear::forward::<2>).unwrap().to_bytes().len() as f64
    };
    let float = bytes(&QuantConfig::new());
    assert!(bytes(&presets::int8_weight_only()) / float <= 0.27);
    assert!(bytes(&weights(QuantizerConfig::int(4).per_block(128))) / float <= 0.15);
}

#[derive(Module, Debug)]
struct Net {
    table: QuantEmbedding,
    conv: QuantConv2d,
    norm: BatchNorm,
    fc: QuantLinear,
}

impl Net {
    fn new(device: &Device) -> Self {
        Self {
            table: QuantEmbeddingConfig::new(10, 36).init(device),
            conv: Conv2dConfig::new([2, 4], [3, 3]).init(device).into(),
            norm: BatchNormConfig::new(4).init(device),
            fc: LinearConfig::new(64, 5).init(device).into(),
        }
    }

    fn forward(&self, (tokens, shift): (Tensor<2, Int>, Tensor<1>)) -> (Tensor<2>, Tensor<2, Int>) {
        let images = self.table.forward(tokens).reshape([3, 2, 6, 6]);
        let y = self.fc.forward(relu(self.norm.forward(self.conv.forward(images))).flatten(1, 3)) + shift.unsqueeze();
        (y.clone(), y.argmax(1))
    }
}

/// Several inputs and outputs, of several kinds; weights that are read twice, and layers in half precision.
#[test]
fn models_with_several_inputs_and_outputs_are_written() {
    let (_, device) = device();
    let inputs = || {
        let tokens = Tensor::<2, Int>::from_data([[1, 2], [0, 9], [3, 3]], &device);
        (tokens, spread([5], &device))
    };
    for config in [presets::int8_default(), presets::int4_blockwise_weight_only(), presets::mxfp4_default()] {
        let run = |net: &Net| drop(net.forward(inputs()));
        let (net, _) = quantize(Net::new(&device), &config, run).unwrap();
        let onnx = export(&net, inputs(), Net::forward).unwrap();
        assert_eq!(onnx.input_names(), ["input.0", "input.1"]);
        assert_eq!(onnx.output_names(), ["output.0", "output.1"]);
        let stored: Vec<_> = onnx.stored().collect();
        for weight in ["conv.weight", "fc.weight"] {
            let (_, element, _) = stored.iter().find(|(name, ..)| *name == weight).unwrap();
            assert_ne!(*element, ElementType::Float, "{weight}");
        }
        let names: std::collections::BTreeSet<_> = stored.iter().map(|(name, ..)| name).collect();
        assert_eq!(names.len(), stored.len(), "every name is given once");
    }
    let lstm = LstmConfig::new(4, 3, true).init(&device);
    let onnx = export(&lstm, spread::<3>([2, 3, 4], &device), |lstm, x| lstm.forward(x, None).0).unwrap();
    assert!(onnx.stored().any(|(name, ..)| name == "input_gate.input_transform.weight"));
}

/// Batches of any size: shapes are what is left, or are computed.
#[test]
fn an_axis_may_have_any_size() {
    let (_, device) = device();
    let images = |batch: usize| spread::<4>([batch, 2, 6, 6], &device);
    let net = |net: &Net, x: Tensor<4>| {
        let y = relu(net.norm.forward(net.conv.forward(x)));
        let zeros = Tensor::<2>::zeros([y.dims()[0], 5], &y.device());
        net.fc.forward(y.flatten(1, 3)) + zeros
    };
    let onnx = Exporter::new().with_axis_names(["n"]).export_any_size(&Net::new(&device), [images(3), images(5)], net);
    let bytes = onnx.unwrap().to_bytes();
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("\x0a\x01n") || holds("\x12\x01n"), "an axis is called n");
    assert!(holds("Shape") && holds("Concat"), "the shape of zeros is computed");

    let corner =
        |_: &Net, x: Tensor<4>| x.clone().slice_assign(s![.., .., 1..3, 1..3], x.slice(s![.., .., 0..2, 0..2]));
    let error = Exporter::new().export_any_size(&Net::new(&device), [images(3), images(5)], corner).unwrap_err();
    let error = error.to_string();
    assert!(error.ends_with("the size of `batch` is free, and a part is assigned to; capture one size"), "{error}");
}

#[test]
fn what_has_no_form_in_onnx_is_named() {
    let (_, device) = device();
    let (layer, x) = quantized(&presets::int8_default());
    let reads = |layer: &QuantLinear, x: Tensor<2>| {
        let y = layer.forward(x);
        let largest = y.clone().max().into_scalar::<f32>();
        y / largest
    };
    assert!(matches!(export(&layer, x.clone(), reads).unwrap_err(), OnnxError::Graph(_)));
    let names = Exporter::new().with_input_names(["a", "b"]).export(&layer, x.clone(), QuantLinear::forward::<2>);
    assert!(matches!(names.unwrap_err(), OnnxError::Names { expected: 1, found: 2, .. }));
    for (exporter, name) in [
        (Exporter::new().with_output_names(["input"]), "input"), // that of the input
        (Exporter::new().with_input_names([""]), ""),
    ] {
        let error = exporter.export(&layer, x.clone(), QuantLinear::forward::<2>).unwrap_err();
        assert!(matches!(&error, OnnxError::Name { name: found, .. } if found == name), "{error}");
        let expected = format!("`{name}` is no name for one of the inputs and outputs: each has one of its own");
        assert_eq!(error.to_string(), expected);
    }
    let sizes = [[3, 5], [4, 5], [3, 7]].map(|[batch, tokens]| Tensor::<3>::zeros([batch, tokens, 64], &device));
    let error = Exporter::new().with_axis_names(["n", "n"]).export_any_size(&layer, sizes, QuantLinear::forward::<3>);
    assert!(matches!(error.unwrap_err(), OnnxError::Name { boundary: "free axes", .. }));
    let missing = written(&presets::int8_default()).save("/no/such/folder/model.onnx").unwrap_err();
    assert!(missing.to_string().starts_with("/no/such/folder/model.onnx: "), "{missing}");
    let dynamic = Rule::set("*input_quantizer", QuantizerConfig::nvfp4().dynamic());
    let config = QuantConfig::new().with_rule(dynamic);
    let (layer, _) = quantize_weights(linear(&device), &config).unwrap();
    let error = export(&layer, x, QuantLinear::forward::<2>).unwrap_err().to_string();
    assert!(error.contains("a range is taken from the whole input; calibrate it"), "{error}");
}
