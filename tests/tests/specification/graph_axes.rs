//! Graphs and files with several free axes: batches of any size, of sequences of any length.

use burn::module::Module;
use burn::nn::attention::{MhaInput, generate_autoregressive_mask};
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{Embedding, EmbeddingConfig, Linear, LinearConfig, LstmConfig, PositionalEncodingConfig};
use burn::tensor::{Bool, Device, Int, Tensor};
use burn_quant::{presets, quantize};
use burn_quant_graph::{Graph, GraphError, GraphModel, Length, capture_with_free_axes};
use burn_quant_onnx::{Exporter, OnnxError};
use burn_quant_tests::device;

use crate::onnx_runtime::{Files, Nothing};
use crate::spread;

/// A batch of sequences, and the padding of each.
type Tokens = (Tensor<2, Int>, Tensor<2, Bool>);

/// A small transformer with positions that are learned, of burn's own layers.
#[derive(Module, Debug)]
struct Language {
    table: Embedding,
    positions: Embedding,
    encoder: TransformerEncoder,
    head: Linear,
}

impl Language {
    fn new(device: &Device) -> Self {
        Self {
            table: EmbeddingConfig::new(20, 32).init(device),
            positions: EmbeddingConfig::new(16, 32).init(device),
            encoder: TransformerEncoderConfig::new(32, 48, 2, 1).with_dropout(0.0).init(device),
            head: LinearConfig::new(32, 20).init(device),
        }
    }

    /// Each token looks at those before it.
    fn forward(&self, (tokens, padding): Tokens) -> Tensor<3> {
        let ([batch, len], device) = (tokens.dims(), tokens.device());
        let places = Tensor::arange(0..len as i64, &device).reshape([1, len]).repeat_dim(0, batch);
        let x = self.table.forward(tokens) + self.positions.forward(places);
        let earlier = generate_autoregressive_mask(batch, len, &device);
        let x = TransformerEncoderInput::new(x).mask_pad(padding).mask_attn(earlier);
        self.head.forward(self.encoder.forward(x))
    }

    /// The rows of the head, of all tokens of all sequences.
    fn rows(&self, tokens: Tokens) -> Tensor<2> {
        self.forward(tokens).flatten(0, 1)
    }
}

fn tokens([batch, len]: [usize; 2], device: &Device) -> Tokens {
    let ids: Vec<i32> = (0..batch * len).map(|i| (i * 7 % 20) as i32).collect();
    let padding: Vec<bool> = (0..batch * len).map(|i| i / len == 1 && i % len + 1 == len).collect();
    (
        Tensor::<1, Int>::from_data(ids.as_slice(), device).reshape([batch, len]),
        Tensor::<1, Bool>::from_data(padding.as_slice(), device).reshape([batch, len]),
    )
}

/// The first sizes, and each changed.
const CAPTURED: [[usize; 2]; 3] = [[3, 5], [4, 5], [3, 7]];
/// Sizes that are not captured.
const OTHERS: [[usize; 2]; 6] = [[2, 9], [5, 3], [1, 6], [7, 2], [2, 16], [3, 1]];

fn lengths(graph: &Graph, tensor: usize) -> Vec<String> {
    graph.lengths(&graph.outputs()[tensor]).iter().map(Length::to_string).collect()
}

#[test]
fn batches_and_sequences_of_any_size_are_replayed_bit_for_bit() {
    let (_, device) = device();
    let language = Language::new(&device);
    let inputs = || CAPTURED.map(|sizes| tokens(sizes, &device));
    let graph = capture_with_free_axes(&language, inputs(), Language::rows).unwrap();
    assert_eq!(lengths(&graph, 0), ["n0·n1", "20"]);
    let of_inputs: Vec<_> = graph.free_axes().iter().map(|axis| (axis.size, axis.of_inputs.clone())).collect();
    assert_eq!(of_inputs, [(3, vec![(0, 0), (1, 0)]), (5, vec![(0, 1), (1, 1)])]);
    let text = graph.to_string();
    assert!(text.starts_with("inputs  %0 [n0, n1], %1 [n0, n1]\n"), "{text}");
    assert!(text.contains("[n0, 2, n1, n1] = Softmax"), "{text}");
    assert!(graph.to_dot().contains("[label=\"n0×2×n1×16\"]"), "{}", graph.to_dot());

    let json = serde_json::to_string(&graph).unwrap();
    let mut replay = serde_json::from_str::<Graph>(&json).unwrap().replay(&device).unwrap();
    let model = GraphModel::new(graph, &device).unwrap();
    let (quantized, _) = quantize(model.clone(), &presets::int8_default(), |model| {
        [[3, 5], [2, 8]].into_iter().for_each(|sizes| drop(model.forward::<_, Tensor<2>>(tokens(sizes, &device))));
    })
    .unwrap();
    let mut again = quantized.graph().unwrap().replay(&device).unwrap();
    for sizes in OTHERS.into_iter().chain(CAPTURED) {
        let expected = language.rows(tokens(sizes, &device)).to_data();
        assert_eq!(replay.run::<_, Tensor<2>>(tokens(sizes, &device)).unwrap().to_data(), expected, "{sizes:?}");
        assert_eq!(model.forward::<_, Tensor<2>>(tokens(sizes, &device)).to_data(), expected, "model, {sizes:?}");
        let expected: Tensor<2> = quantized.forward(tokens(sizes, &device));
        let found: Tensor<2> = again.run(tokens(sizes, &device)).unwrap();
        assert_eq!(found.to_data(), expected.to_data(), "quantized, {sizes:?}");
    }
    let (ids, padding) = tokens([2, 4], &device);
    let unlike = replay.run::<_, Tensor<2>>((ids, padding.slice([0..2, 0..3]))).unwrap_err();
    assert_eq!(unlike, GraphError::Shape { index: 1, expected: vec![2, 4], found: vec![2, 3] });
}

/// burn records a linear layer in one way for three rows and in another for six: both are one.
#[test]
fn layers_that_are_recorded_in_two_ways_are_one_layer() {
    let (_, device) = device();
    let layer = LinearConfig::new(8, 8).init(&device);
    let forward = |layer: &Linear, x: Tensor<3>| layer.forward(layer.forward(x).tanh());
    let x = |[batch, rows]: [usize; 2]| spread::<3>([batch, rows, 8], &device);
    let graph = capture_with_free_axes(&layer, [x([2, 3]), x([2, 9]), x([5, 3])], forward).unwrap();
    let mut replay = graph.replay(&device).unwrap();
    for sizes in [[2, 3], [1, 4], [6, 2], [2, 32], [40, 7]] {
        let found: Tensor<3> = replay.run(x(sizes)).unwrap();
        assert_eq!(found.to_data(), forward(&layer, x(sizes)).to_data(), "{sizes:?}");
    }
}

#[test]
fn files_have_two_free_axes() {
    let (_, device) = device();
    let mut files = Files::new();
    let language = Language::new(&device);
    let inputs = || CAPTURED.map(|sizes| tokens(sizes, &device));
    let exporter = Exporter::new().with_axis_names(["batch", "tokens"]).with_input_names(["ids", "padding"]);
    let onnx = exporter.export_any_size(&language, inputs(), Language::rows).unwrap();
    let text = onnx.to_string();
    assert!(text.starts_with("input ids: Int32 [batch, tokens]\ninput padding: Bool [batch, tokens]\n"), "{text}");
    assert!(text.ends_with("output output: Float [batch * tokens, 20]\n"), "{text}");
    for sizes in OTHERS {
        let name = format!("rows-{}x{}", sizes[0], sizes[1]);
        files.add(&name, &onnx, tokens(sizes, &device), language.rows(tokens(sizes, &device)));
    }
    for preset in ["int8_default", "nvfp4_default", "int4_blockwise_weight_only"] {
        let config = presets::all().iter().find(|found| found.name == preset).unwrap().config;
        let graph = capture_with_free_axes(&language, inputs(), Language::forward).unwrap();
        let model = GraphModel::new(graph, &device).unwrap();
        let calibrate = |model: &GraphModel| drop(model.forward::<_, Tensor<3>>(tokens([4, 8], &device)));
        let (model, _) = quantize(model, &config(), calibrate).unwrap();
        let onnx = Exporter::new().graph(&model.graph().unwrap()).unwrap();
        assert!(onnx.to_string().ends_with("output output: Float [batch, sequence, 20]\n"), "{onnx}");
        for sizes in [[2, 9], [5, 3], [1, 6]] {
            let (name, x) = (format!("{preset}-{}x{}", sizes[0], sizes[1]), || tokens(sizes, &device));
            files.add(&name, &onnx, x(), model.forward::<_, Tensor<3>>(x()));
        }
    }
    // of a table of sines the first rows, and an attention of burn's
    let positions = PositionalEncodingConfig::new(8).with_max_sequence_size(32).init(&device);
    let attention = burn::nn::attention::MultiHeadAttentionConfig::new(8, 2).init(&device);
    let x = |[batch, len]: [usize; 2]| spread::<3>([batch, len, 8], &device);
    let model = (positions, attention);
    let forward = |(positions, attention): &(burn::nn::PositionalEncoding, burn::nn::attention::MultiHeadAttention),
                   x: Tensor<3>| {
        let output = attention.forward(MhaInput::self_attn(positions.forward(x)));
        (output.context, output.weights)
    };
    let onnx = Exporter::new().export_any_size(&model, CAPTURED.map(x), forward).unwrap();
    for sizes in OTHERS {
        files.add(&format!("positions-{}x{}", sizes[0], sizes[1]), &onnx, x(sizes), forward(&model, x(sizes)));
    }
    let names = Exporter::new().with_axis_names(["n"]).export_any_size(&model, CAPTURED.map(x), forward).unwrap_err();
    assert!(matches!(names, OnnxError::Names { boundary: "free axes", expected: 2, found: 1 }), "{names}");
    files.check();
}

#[test]
fn sizes_that_are_not_free_are_errors_that_say_why() {
    let (_, device) = device();
    let x = |[batch, len]: [usize; 2]| spread::<3>([batch, len, 4], &device);
    let lstm = LstmConfig::new(4, 3, true).init(&device);
    let unrolled = capture_with_free_axes(&lstm, CAPTURED.map(x), |lstm, x| lstm.forward(x, None).0).unwrap_err();
    let unrolled = unrolled.to_string();
    assert!(unrolled.contains("what is unrolled over an axis, as recurrent layers are over a sequence"), "{unrolled}");
    // the batch is free, and so are inputs of another size beside it
    let batches = [x([3, 5]), x([4, 5])];
    let graph = capture_with_free_axes(&lstm, batches, |lstm, x| lstm.forward(x, None).0).unwrap();
    let mut replay = graph.replay(&device).unwrap();
    for batch in [1, 2, 9] {
        let found: Tensor<3> = replay.run(x([batch, 5])).unwrap();
        assert_eq!(found.to_data(), lstm.forward(x([batch, 5]), None).0.to_data(), "{batch}");
    }

    let of = |inputs: [Tensor<3>; 3], forward: fn(&Nothing, Tensor<3>) -> Tensor<3>| {
        capture_with_free_axes(&Nothing, inputs, forward).unwrap_err()
    };
    let longer = of(CAPTURED.map(x), |_, x| Tensor::cat(vec![x.clone(), x.slice_dim(1, 0..1)], 1));
    let GraphError::NoProduct { operation, axis, shapes, .. } = &longer else { panic!("{longer}") };
    assert_eq!((operation.as_str(), *axis), ("Cat", 1));
    assert_eq!(shapes.each_ref().map(|shape| shape.to_vec()), [vec![3, 6, 4], vec![3, 8, 4]]);
    assert!(longer.to_string().contains("axis 1 is no product of them"), "{longer}");
    let constant = of(CAPTURED.map(x), |_, x| {
        let squares: Vec<i32> = (0..x.dims()[1] as i32).map(|i| i * i).collect();
        x.clone() + Tensor::<1, Int>::from_data(squares.as_slice(), &x.device()).float().reshape([1, -1, 1])
    });
    assert!(matches!(&constant, GraphError::ConstantOfSize { shape, .. } if shape == &[5]), "{constant}");
    let twice = of([x([3, 5]), x([4, 5]), x([7, 5])], |_, x| x.tanh()).to_string();
    assert!(twice.contains("two captures change axis 0 of input 0"), "{twice}");
    let both = of([x([3, 5]), x([4, 7]), x([3, 7])], |_, x| x.tanh()).to_string();
    assert!(both.contains("for two free axes add a capture for each"), "{both}");
    // the sizes are multiplied, and a number of that size is added: of other sizes it is another
    let counted = of(CAPTURED.map(x), |_, x| {
        let [batch, len, _] = x.dims();
        x * ((batch - 3) * (len - 5)) as f32
    });
    assert!(matches!(counted, GraphError::Varies { .. }), "{counted}");
}
