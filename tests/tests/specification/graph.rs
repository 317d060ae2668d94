//! A forward pass as a graph: what is recorded of models and of their quantizers, and that it computes what they do.

use burn::module::Module;
use burn::nn::conv::Conv2dConfig;
use burn::nn::{BatchNorm, BatchNormConfig, LinearConfig, LstmConfig, PaddingConfig2d};
use burn::tensor::activation::{relu, silu};
use burn::tensor::{Bool, Device, Distribution, Int, Tensor};
use burn_quant::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn_quant::nn::{self, EmbeddingConfig, QuantConv2d, QuantEmbedding, QuantLinear};
use burn_quant::{
    QuantConfig, QuantError, QuantizerConfig, Rule, compress, fold_weights, presets, quantize, quantize_weights,
};
use burn_quant_graph::ir::OperationIr;
use burn_quant_graph::{Graph, GraphError, Length, ProductKind, RecordedOp, Values, capture, capture_with_free_axis};
use burn_quant_tests::{device, devices};

use crate::spread;

/// A convolution, a batch norm, a pool, and a linear layer.
#[derive(Module, Debug)]
struct Cnn {
    conv: QuantConv2d,
    norm: BatchNorm,
    pool: nn::pool::MaxPool2d,
    fc: QuantLinear,
}

impl Cnn {
    fn new(device: &Device) -> Self {
        let conv = Conv2dConfig::new([1, 4], [3, 3]).with_padding(PaddingConfig2d::Same).init(device);
        Self {
            conv: conv.into(),
            norm: BatchNormConfig::new(4).init(device),
            pool: nn::pool::MaxPool2dConfig::new([2, 2]).with_strides([2, 2]).init(),
            fc: LinearConfig::new(64, 10).init(device).into(),
        }
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = self.pool.forward(relu(self.norm.forward(self.conv.forward(x))));
        self.fc.forward(x.flatten(1, 3))
    }
}

/// Tokens to vectors, attention, and a gated product.
#[derive(Module, Debug)]
struct Language {
    table: QuantEmbedding,
    encoder: TransformerEncoder,
    mlp: Gated,
}

#[derive(Module, Debug)]
struct Gated {
    inner: QuantLinear,
    up: QuantLinear,
}

impl Language {
    fn new(device: &Device) -> Self {
        let linear = || -> QuantLinear { LinearConfig::new(32, 24).with_bias(false).init(device).into() };
        Self {
            table: EmbeddingConfig::new(20, 32).init(device),
            encoder: TransformerEncoderConfig::new(32, 48, 2, 1).with_dropout(0.0).init(device),
            mlp: Gated { inner: linear(), up: linear() },
        }
    }

    fn forward(&self, (tokens, padding): (Tensor<2, Int>, Tensor<2, Bool>)) -> Tensor<3> {
        let x = TransformerEncoderInput::new(self.table.forward(tokens)).mask_pad(padding);
        let x = self.encoder.forward(x);
        silu(self.mlp.inner.forward(x.clone())) * self.mlp.up.forward(x)
    }
}

fn tokens(device: &Device) -> (Tensor<2, Int>, Tensor<2, Bool>) {
    let padding = [[false; 5], [false, false, false, true, true]];
    let tokens = [[3, 0, 19, 7, 7], [1, 2, 4, 0, 0]];
    (Tensor::from_data(tokens, device), Tensor::from_data(padding, device))
}

/// The graph of a model, which computes the same again and again, with other values too.
#[track_caller]
fn check<M: Module, I: Values + Clone, const D: usize>(
    model: &M,
    [inputs, others]: [I; 2],
    forward: impl Fn(&M, I) -> Tensor<D>,
    device: &Device,
    what: &str,
) -> Graph {
    let graph = capture(model, inputs.clone(), &forward).unwrap_or_else(|error| panic!("{what}: {error}"));
    let mut replay = graph.replay(device).unwrap();
    for inputs in [inputs.clone(), others, inputs] {
        let found: Tensor<D> = replay.run(inputs.clone()).unwrap();
        assert_eq!(found.to_data(), forward(&model.valid(), inputs).to_data(), "{what}");
    }
    graph
}

/// Some presets are for the layers of language models, and none of their rules names one of the small networks.
#[test]
fn the_graph_of_every_preset_computes_what_the_model_does() {
    let (name, device) = device();
    let images = [spread([2, 1, 8, 8], &device), spread::<4>([2, 1, 8, 8], &device) * 0.7];
    let sentences = [tokens(&device), tokens(&device)];
    let steps = [spread::<3>([2, 3, 8], &device), spread::<3>([2, 3, 8], &device) * 0.7];
    let states = |lstm: &nn::Lstm, x: Tensor<3>| lstm.forward(x, None).0;
    let (mut of_language_models, mut of_experts, mut recurrent) = (0, Vec::new(), 0);
    // a GPU backend compiles kernels for each: a part of them says enough there
    let each = if name == "flex" { 1 } else { 12 };
    for preset in presets::all().iter().step_by(each) {
        let (config, what) = ((preset.config)(), format!("{name}, {}", preset.name));
        let calibrate = |model: &Cnn| drop(model.forward(images[0].clone()));
        match quantize(Cnn::new(&device), &config, calibrate) {
            Ok((cnn, _)) => _ = check(&cnn, images.clone(), Cnn::forward, &device, &format!("CNN, {what}")),
            Err(QuantError::NoneMatched { .. } | QuantError::NoMatch { .. }) => of_language_models += 1,
            Err(error) => panic!("{what}: {error}"),
        }
        let calibrate = |model: &Language| drop(model.forward(tokens(&device)));
        match quantize(Language::new(&device), &config, calibrate) {
            Ok((model, _)) => {
                _ = check(&model, sentences.clone(), Language::forward, &device, &format!("transformer, {what}"));
            }
            Err(QuantError::NoneMatched { .. }) => of_experts.push(preset.name),
            Err(error) => panic!("{what}: {error}"),
        }
        let calibrate = |lstm: &nn::Lstm| drop(states(lstm, steps[0].clone()));
        match quantize(nn::LstmConfig::new(8, 6, true).init(&device), &config, calibrate) {
            Ok((lstm, _)) => {
                _ = check(&lstm, steps.clone(), states, &device, &format!("LSTM, {what}"));
                recurrent += 1;
            }
            Err(QuantError::NoneMatched { .. } | QuantError::NoMatch { .. }) => {}
            Err(error) => panic!("{what}: {error}"),
        }
    }
    if each == 1 {
        assert_eq!(recurrent, 36, "presets quantize an LSTM");
        assert_eq!((of_language_models, of_experts), (12, vec!["nvfp4_experts_only"]));
    }
}

/// A quantizer is one node, of the weight and of the input; nothing is left of what does not reach the outputs.
#[test]
fn quantizers_are_nodes() {
    let (_, device) = device();
    let x = spread::<2>([2, 8], &device);
    let layer: QuantLinear = LinearConfig::new(8, 4).init(&device).into();
    let (layer, _) = quantize(layer, &presets::int8_default(), |layer| drop(layer.forward(x.clone()))).unwrap();
    let graph = capture(&layer, x, QuantLinear::forward::<2>).unwrap();
    assert_eq!(
        graph.to_string(),
        "inputs  %0 [2, 8]\n\
         %1 [8, 4] = burn_quant::fake_quant(weight, weight.weight_quantizer.amax)\n\
         %2 [2, 8] = burn_quant::fake_quant(%0, input_quantizer.amax)\n\
         %3 [2, 4] = Matmul(%2, %1)\n\
         %4 [1, 4] = Reshape(bias)\n\
         %5 [2, 4] = Add(%3, %4)\n\
         outputs %5 [2, 4]"
    );
    assert!(graph.to_dot().contains("  op2 -> op4 [label=\"2×4\"];\n"), "{}", graph.to_dot());
    let recorded = graph.operations().iter().filter_map(|operation| match operation {
        OperationIr::Custom(op) => Some(RecordedOp::of(op, op.inputs[0].shape.as_slice()).unwrap()),
        _ => None,
    });
    let formats: Vec<String> = recorded
        .map(|op| match op {
            RecordedOp::FakeQuant(call) => format!("{} of {} groups", call.spec.format, call.spec.groups.len()),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(formats, ["int8 of 4 groups", "int8 of 1 groups"]);
}

/// Layers of burn, on devices with autodiff and without; the model and its statistics stay where they are.
#[test]
fn unmodified_models_are_captured_and_stay_as_they_are() {
    for (name, device) in devices() {
        let plain = burn_quant_tests::device().1;
        let lstm = LstmConfig::new(6, 5, true).init(&device);
        let x = || spread::<3>([2, 3, 6], &plain);
        check(&lstm, [x(), x() * 0.3], |lstm, x| lstm.forward(x, None).0, &plain, &format!("LSTM, {name}"));
        let cnn = Cnn::new(&device);
        let x = spread::<4>([2, 1, 8, 8], &device);
        let graph = capture(&cnn, x.clone(), Cnn::forward).unwrap();
        assert_eq!(graph.inputs().len(), 1, "{name}");
        // its statistics are on its own device still
        assert_eq!(cnn.forward(x).dims(), [2, 10], "{name}");
    }
}

/// Codes stay codes: of linear layers, tables, and kernels.
#[test]
fn packed_models_are_captured_with_their_codes() {
    let (name, device) = device();
    let weights = |config: QuantizerConfig| QuantConfig::new().with_rule(Rule::set("*weight_quantizer", config));
    let tokens8 = Rule::set("*input_quantizer", QuantizerConfig::int(8).per_token().dynamic());
    for (what, config) in [
        ("INT8", presets::int8_default()),
        ("INT4 blocks", weights(QuantizerConfig::int(4).per_block(8))),
        ("NVFP4", weights(QuantizerConfig::nvfp4())),
        ("INT8 tokens", weights(QuantizerConfig::int(8).per_channel()).with_rule(tokens8)),
    ] {
        let run = |model: &Language| drop(model.forward(tokens(&device)));
        let (model, _) = quantize(Language::new(&device), &config, run).unwrap();
        let (packed, _) = compress(model).unwrap();
        let inputs = [tokens(&device), tokens(&device)];
        let graph = check(&packed, inputs, Language::forward, &device, &format!("{name}, {what}"));
        let products = graph.products();
        let weights = products.iter().filter_map(|product| product.weight.as_deref()).collect::<Vec<_>>();
        assert!(weights.contains(&"mlp.inner.weight"), "{what}: {weights:?}");
        let rows = products.iter().filter(|product| product.kind == ProductKind::Embedding).count();
        assert_eq!(rows, 1, "{what}: {graph}");
    }
}

/// A convolution of codes is one node, which convolves integers again.
#[test]
fn packed_convolutions_are_captured_with_their_codes() {
    let (name, device) = device();
    let images = [spread::<4>([2, 1, 8, 8], &device), spread::<4>([2, 1, 8, 8], &device) * 0.7];
    let run = |model: &Cnn| drop(model.forward(images[0].clone()));
    let (float, _) = quantize(Cnn::new(&device), &presets::int8_default(), run).unwrap();
    let (packed, _) = compress(float.clone()).unwrap();
    let graph = match name {
        "flex" => check(&packed, images.clone(), Cnn::forward, &device, "packed CNN"),
        // the model unpacks kernels there, and burn may convolve in another order
        _ => capture(&packed, images[0].clone(), Cnn::forward).unwrap(),
    };
    let products = |graph: &Graph| -> Vec<_> {
        graph.products().into_iter().map(|p| (p.kind, p.weight, p.multiplications, p.elements)).collect()
    };
    assert_eq!(products(&graph), products(&capture(&float, images[0].clone(), Cnn::forward).unwrap()));
    let recorded: Vec<RecordedOp> = graph
        .operations()
        .iter()
        .filter_map(|operation| match operation {
            OperationIr::Custom(op) => RecordedOp::of(op, op.inputs[0].shape.as_slice()).ok(),
            _ => None,
        })
        .collect();
    assert!(matches!(recorded[..], [RecordedOp::PackedConv(_), RecordedOp::PackedLinear(_)]), "{graph}");

    // an image of any size
    let sizes = [[2, 1, 8, 8], [3, 1, 8, 8]].map(|shape| spread::<4>(shape, &device));
    let graph = capture_with_free_axis(&packed, sizes, Cnn::forward).unwrap();
    let x = spread::<4>([5, 1, 8, 8], &device);
    let found: Tensor<2> = graph.replay(&device).unwrap().run(x.clone()).unwrap();
    let off = (found - packed.forward(x)).abs().max().into_scalar::<f32>();
    assert!(off <= if name == "flex" { 0.0 } else { 1e-5 }, "{off}");
}

/// What reads the same activations, found by following tensors and not by names.
#[test]
fn siblings_share_an_input() {
    let (_, device) = device();
    let siblings = |graph: &Graph| graph.siblings();
    let run = |model: &Language| drop(model.forward(tokens(&device)));
    let (quantized, _) = quantize(Language::new(&device), &presets::int8_default(), run).unwrap();
    let expected = [
        ["query", "key", "value"].map(|of| format!("encoder.layers.0.mha.{of}.weight")).to_vec(),
        ["inner", "up"].map(|of| format!("mlp.{of}.weight")).to_vec(),
    ];
    for model in [Language::new(&device), quantized] {
        let graph = capture(&model, tokens(&device), Language::forward).unwrap();
        let found: Vec<Vec<String>> = siblings(&graph);
        assert_eq!(found, expected);
    }
}

#[test]
fn products_have_their_costs() {
    let (_, device) = device();
    let graph = capture(&Cnn::new(&device), spread([2, 1, 8, 8], &device), Cnn::forward).unwrap();
    let products = graph.products();
    let found: Vec<_> = products.iter().map(|p| (p.kind, p.weight.as_deref(), p.multiplications, p.elements)).collect();
    assert_eq!(
        found,
        [
            (ProductKind::Convolution, Some("conv.weight"), 2 * 4 * 64 * 9, 4 * 9),
            (ProductKind::Linear, Some("fc.weight"), 2 * 64 * 10, 640),
        ]
    );
    let graph = capture(&Language::new(&device), tokens(&device), Language::forward).unwrap();
    let attention = graph.products().into_iter().filter(|product| product.kind == ProductKind::Activations);
    // two sentences, two heads, five tokens by five, sixteen features: scores, and the sums of values
    assert_eq!(attention.map(|product| product.multiplications).collect::<Vec<_>>(), [2 * 2 * 5 * 5 * 16; 2]);
}

/// A graph is plain data.
#[test]
fn graphs_are_saved_and_loaded() {
    let (_, device) = device();
    let x = spread::<4>([2, 1, 8, 8], &device);
    let run = |model: &Cnn| drop(model.forward(x.clone()));
    let (cnn, _) = quantize(Cnn::new(&device), &presets::fp8_default(), run).unwrap();
    let json = serde_json::to_string(&capture(&cnn, x.clone(), Cnn::forward).unwrap()).unwrap();
    let graph: Graph = serde_json::from_str(&json).unwrap();
    let y: Tensor<2> = graph.replay(&device).unwrap().run(x.clone()).unwrap();
    assert_eq!(y.to_data(), cnn.forward(x).to_data());
    let folded = fold_weights(cnn).unwrap();
    assert_eq!(folded.fc.weight.dims(), [64, 10]);
}

/// An axis is free if it is all that differs, and the same is done for each of its sizes.
#[test]
fn the_axis_in_which_two_captures_differ_is_free() {
    let (_, device) = device();
    let images = |batch: usize| spread::<4>([batch, 1, 8, 8], &device);
    let cnn = Cnn::new(&device);
    let graph = capture_with_free_axis(&cnn, [images(3), images(5)], Cnn::forward).unwrap();
    let lengths = |graph: &Graph, tensor| graph.lengths(tensor).iter().map(Length::to_string).collect::<Vec<_>>();
    let free = graph.free_axes();
    assert_eq!((free.len(), free[0].size, &free[0].of_inputs[..]), (1, 3, &[(0, 0)][..]));
    assert_eq!(lengths(&graph, &graph.outputs()[0]), ["n0", "10"]);
    // sentences of six tokens: a linear layer has six rows for each
    let x = |batch: usize| spread::<3>([batch, 6, 8], &device);
    let layer: QuantLinear = LinearConfig::new(8, 64).init(&device).into();
    let graph = capture_with_free_axis(&layer, [x(3), x(5)], QuantLinear::forward::<3>).unwrap();
    let products = graph.products();
    let rows = graph.operations()[products[0].operation].inputs().next().unwrap();
    assert_eq!((rows.shape.to_vec(), lengths(&graph, rows)), (vec![18, 8], vec!["6·n0".to_string(), "8".into()]));

    let varies = |inputs, forward: fn(&QuantLinear, Tensor<3>) -> Tensor<3>| match capture_with_free_axis(
        &layer, inputs, forward,
    )
    .unwrap_err()
    {
        GraphError::Varies { what } => what,
        other => panic!("{other}"),
    };
    let same = varies([x(3), x(3)], QuantLinear::forward::<3>);
    assert_eq!(same, "the inputs of two captures have the same shapes");
    let two = varies([x(3), spread([5, 7, 8], &device)], QuantLinear::forward::<3>);
    assert!(two.contains("a capture changes one size"), "{two}");
    let unrolled = varies([x(3), x(5)], |layer, x| {
        let steps = x.dims()[0];
        (0..steps).fold(layer.forward(x), |y, _| y.tanh())
    });
    assert!(unrolled.contains("operations are done for sizes [3] and [5]: what is unrolled"), "{unrolled}");
    let divides = varies([x(3), x(5)], |layer, x| {
        let batch = x.dims()[0] as f32;
        layer.forward(x) / batch
    });
    assert!(divides.contains("DivScalar, is another for sizes [3] and [5]"), "{divides}");
    let one = varies([x(1), x(5)], QuantLinear::forward::<3>);
    assert!(one.contains("sizes of at least 2"), "{one}");
}

#[test]
fn what_cannot_be_captured_says_where() {
    let (_, device) = device();
    let layer: QuantLinear = LinearConfig::new(8, 4).init(&device).into();
    let x = spread::<2>([2, 8], &device);
    let reads = |layer: &QuantLinear, x: Tensor<2>| {
        let y = layer.forward(x);
        let largest = y.clone().abs().max().into_scalar::<f32>();
        y / largest
    };
    let error = capture(&layer, x.clone(), reads).unwrap_err();
    let GraphError::Forward { reason, after } = &error else { panic!("{error}") };
    assert_eq!(reason, "it reads the value of a tensor that it computes");
    assert_eq!(after, "Reshape of `bias`, and then up to Max", "{error}");

    let constant = Tensor::<2>::random([2, 4], Distribution::Default, &device);
    let elsewhere = |layer: &QuantLinear, x: Tensor<2>| layer.forward(x) + constant.clone();
    let error = capture(&layer, x.clone(), elsewhere).unwrap_err().to_string();
    assert!(error.contains("not on the same device"), "{error}");
    let error = capture(&layer, x.clone(), |_: &QuantLinear, _: Tensor<2>| constant.clone()).unwrap_err();
    assert_eq!(error, GraphError::Output { index: 0 });

    let mut replay = capture(&layer, x.clone(), QuantLinear::forward::<2>).unwrap().replay(&device).unwrap();
    let other = replay.run::<_, Tensor<2>>(spread::<2>([3, 8], &device)).unwrap_err();
    assert_eq!(other, GraphError::Shape { index: 0, expected: vec![2, 8], found: vec![3, 8] });
    let none = replay.run::<_, Tensor<2>>(Vec::<Tensor<2>>::new()).unwrap_err();
    assert_eq!(none, GraphError::Count { boundary: "inputs", expected: 1, found: 0 });
    let integers = replay.run::<_, Tensor<2>>(Tensor::<2, Int>::zeros([2, 8], &device)).unwrap_err();
    assert!(matches!(integers, GraphError::Dtype { index: 0, .. }), "{integers}");
    let rank = replay.run::<_, Tensor<3>>(x.clone()).unwrap_err();
    assert!(matches!(rank, GraphError::OutputType { index: 0, .. }), "{rank}");
    let two = replay.run::<_, (Tensor<2>, Tensor<2>)>(x.clone()).unwrap_err();
    assert!(matches!(two, GraphError::Count { boundary: "outputs", .. }), "{two}");
    let autodiff = replay.run::<_, Tensor<2>>(spread::<2>([2, 8], &device.clone().autodiff())).unwrap_err();
    assert!(matches!(autodiff, GraphError::Elsewhere { index: 0, .. }), "{autodiff}");
    let graph = capture(&layer, x.clone(), QuantLinear::forward::<2>).unwrap();
    let on_autodiff = graph.replay(&device.autodiff()).err().expect("graphs do not train");
    assert!(matches!(on_autodiff, GraphError::Device { .. }), "{on_autodiff}");
    let again: Tensor<2> = replay.run(x.clone()).unwrap();
    assert_eq!(again.to_data(), layer.forward(x).to_data());
    let weights = quantize_weights(layer, &presets::int8_weight_only());
    assert!(weights.is_ok(), "a model that was captured is quantized as any other");
}
