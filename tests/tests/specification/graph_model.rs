//! A graph as a model: unmodified networks are quantized as those written with `burn_quant::nn` are.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, RunningState};
use burn::nn::conv::Conv2dConfig;
use burn::tensor::activation::{gelu, relu};
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use burn_quant::calibrate::QuantizeOptions;

use burn_quant::nn::QuantConv2d;
use burn_quant::quantizer::{Buffer, Quantizers};
use burn_quant::search::{AutoQuantization, AutoQuantizeConfig, SearchFormat};
use burn_quant::{QuantConfig, QuantError, QuantizerConfig, Rule, compress, presets, quantize, quantize_with, summary};
use burn_quant_graph::{GraphError, GraphModel, capture, capture_with_free_axis};
use burn_quant_tests::{device, devices};

use crate::spread;

/// The same source with the layers of burn and with those of the toolkit.
macro_rules! networks {
    ($module:ident, $nn:path) => {
        mod $module {
            use super::*;
            use $nn as nn;

            #[derive(Module, Debug)]
            pub(super) struct Cnn {
                pub(super) conv: nn::conv::Conv2d,
                pub(super) norm: burn::nn::BatchNorm,
                depthwise: nn::conv::Conv2d,
                up: nn::conv::ConvTranspose2d,
                head: nn::Linear,
            }

            impl Cnn {
                pub(super) fn new(device: &Device) -> Self {
                    let conv = |channels| nn::conv::Conv2dConfig::new(channels, [3, 3]);
                    let mut norm = burn::nn::BatchNormConfig::new(4).init(device);
                    norm.running_mean = RunningState::new(spread([4], device) * 0.3);
                    norm.running_var = RunningState::new(spread::<1>([4], device).abs() + 0.5);
                    Self {
                        conv: conv([1, 4]).with_bias(false).init(device),
                        norm,
                        depthwise: conv([4, 4]).with_groups(4).with_stride([2, 2]).init(device),
                        up: nn::conv::ConvTranspose2dConfig::new([4, 3], [2, 2]).init(device),
                        head: nn::LinearConfig::new(27, 10).init(device),
                    }
                }

                pub(super) fn forward(&self, x: Tensor<4>) -> Tensor<2> {
                    let x = relu(self.norm.forward(self.conv.forward(x)));
                    let x = self.up.forward(relu(self.depthwise.forward(x)));
                    self.head.forward(x.flatten(1, 3))
                }
            }

            /// A table, attention, and a head without a bias.
            #[derive(Module, Debug)]
            pub(super) struct Language {
                table: nn::Embedding,
                encoder: nn::transformer::TransformerEncoder,
                head: nn::Linear,
            }

            impl Language {
                pub(super) fn new(device: &Device) -> Self {
                    let encoder = nn::transformer::TransformerEncoderConfig::new(32, 48, 2, 1).with_dropout(0.0);
                    Self {
                        table: nn::EmbeddingConfig::new(20, 32).init(device),
                        encoder: encoder.init(device),
                        head: nn::LinearConfig::new(32, 20).with_bias(false).init(device),
                    }
                }

                pub(super) fn forward(&self, (tokens, padding): (Tensor<2, Int>, Tensor<2, Bool>)) -> Tensor<3> {
                    let x = nn::transformer::TransformerEncoderInput::new(self.table.forward(tokens));
                    gelu(self.head.forward(self.encoder.forward(x.mask_pad(padding))))
                }
            }
        }
    };
}

networks!(plain, burn::nn);
networks!(ours, burn_quant::nn);

/// A module with the parameters of another, by their paths.
fn with_parameters_of<A: Module, B: Module>(from: &A, to: B) -> B {
    #[derive(Default)]
    struct Values(Vec<String>, BTreeMap<String, TensorData>);
    impl ModuleVisitor for Values {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }
        fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
            self.1.insert(self.0.join("."), param.val().into_data());
        }
    }
    impl ModuleMapper for Values {
        fn enter_module(&mut self, name: &str, _: &str) {
            self.0.push(name.into());
        }
        fn exit_module(&mut self, _: &str, _: &str) {
            self.0.pop();
        }
        fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            let data = self.1[&self.0.join(".")].clone();
            param.map(|old| Tensor::from_data(data, &old.device()))
        }
    }
    let mut values = Values::default();
    from.visit(&mut values);
    to.map(&mut values)
}

fn images(device: &Device) -> Tensor<4> {
    spread([2, 1, 8, 8], device)
}

fn tokens(device: &Device) -> (Tensor<2, Int>, Tensor<2, Bool>) {
    let padding = [[false; 5], [false, false, false, true, true]];
    (Tensor::from_data([[3, 0, 19, 7, 7], [1, 2, 4, 0, 0]], device), Tensor::from_data(padding, device))
}

fn cnns(device: &Device) -> (plain::Cnn, ours::Cnn, GraphModel) {
    let cnn = plain::Cnn::new(device);
    let twin = with_parameters_of(&cnn, ours::Cnn::new(device));
    let model = GraphModel::new(capture(&cnn, images(device), plain::Cnn::forward).unwrap(), device).unwrap();
    (cnn, twin, model)
}

fn languages(device: &Device) -> (plain::Language, ours::Language, GraphModel) {
    let language = plain::Language::new(device);
    let twin = with_parameters_of(&language, ours::Language::new(device));
    let graph = capture(&language, tokens(device), plain::Language::forward).unwrap();
    (language, twin, GraphModel::new(graph, device).unwrap())
}

/// The ranges of all enabled quantizers, by name.
fn ranges<M: Module>(model: &M) -> BTreeMap<String, Vec<f32>> {
    let amax = |buffer: Tensor<1>| buffer.into_data().convert::<f32>().try_into_vec::<f32>().unwrap();
    let quantizers = Quantizers::of(model);
    let enabled = quantizers.iter().filter(|(_, quantizer)| quantizer.is_enabled());
    enabled.map(|(name, it)| (name.to_string(), it.buffer(Buffer::Amax).map_or(Vec::new(), amax))).collect()
}

/// Names of parameters and quantizers are those of the source; what the graph does is what the source does.
#[test]
fn a_graph_becomes_a_model_with_the_paths_of_the_source() {
    let (_, device) = device();
    let (cnn, twin, model) = cnns(&device);
    let x = images(&device);
    assert_eq!(model.forward::<_, Tensor<2>>(x.clone()).to_data(), cnn.forward(x).to_data());
    assert_eq!(model.num_params(), cnn.num_params());
    let names = |quantizers: &Quantizers| quantizers.names().map(String::from).collect::<Vec<_>>();
    let expected: Vec<String> = names(&Quantizers::of(&twin));
    let mut found = names(&Quantizers::of(&model));
    found.sort_by_key(|name| expected.iter().position(|other| other == name));
    assert_eq!(found, expected);

    let (language, _, model) = languages(&device);
    let y: Tensor<3> = model.forward(tokens(&device));
    assert_eq!(y.to_data(), language.forward(tokens(&device)).to_data());
    assert_eq!(model.num_params(), language.num_params());
    assert!(names(&Quantizers::of(&model)).contains(&"matmul_0.lhs_quantizer".into()), "{model}");
    let shown = model.to_string();
    assert!(shown.contains("encoder.layers.0.mha.query: QuantLinear"), "{shown}");
}

/// The figure of unmodified models: the same ranges, and the same outputs bit for bit, simulated and packed, by every
/// preset that has a rule for the network.
#[test]
fn it_is_quantized_as_the_model_written_with_quantizers() {
    let (name, device) = device();
    // a GPU backend compiles kernels for each: a part of them says enough there
    let each = if name == "flex" { 1 } else { 12 };
    let mut quantized = 0;
    for preset in presets::all().iter().step_by(each) {
        let config = (preset.config)();
        let (_, twin, model) = cnns(&device);
        let x = images(&device);
        let of_twin = quantize(twin, &config, |twin| drop(twin.forward(x.clone())));
        let of_graph = quantize(model, &config, |model| drop(model.forward::<_, Tensor<2>>(x.clone())));
        match (of_twin, of_graph) {
            (Ok((twin, _)), Ok((model, _))) => {
                let what = format!("CNN, {}", preset.name);
                assert_eq!(ranges(&model), ranges(&twin), "{what}");
                let y: Tensor<2> = model.forward(x.clone());
                assert_eq!(y.to_data(), twin.forward(x.clone()).to_data(), "{what}");
                if let Ok((twin, _)) = compress(twin) {
                    let packed: Tensor<2> = compress(model).expect(&what).0.forward(x.clone());
                    assert_eq!(packed.to_data(), twin.forward(x).to_data(), "{what}, packed");
                }
                quantized += 1;
            }
            (Err(of_twin), Err(of_graph)) => assert_eq!(of_twin.to_string(), of_graph.to_string()),
            (of_twin, of_graph) => panic!("{}: {:?} {:?}", preset.name, of_twin.err(), of_graph.err()),
        }
        let (_, twin, model) = languages(&device);
        let of_twin = quantize(twin, &config, |twin| drop(twin.forward(tokens(&device))));
        let of_graph = quantize(model, &config, |model| drop(model.forward::<_, Tensor<3>>(tokens(&device))));
        let (Ok((twin, _)), Ok((model, _))) = (of_twin, of_graph) else { continue };
        let what = format!("transformer, {}", preset.name);
        // keys and values are quantized by name inside burn_quant's attention: a graph has products there
        let mut expected = ranges(&twin);
        if expected.keys().any(|name| name.contains("bmm_quantizer")) {
            expected.retain(|name, _| !name.contains("bmm_quantizer"));
            assert_eq!(ranges(&model), expected, "{what}");
            continue;
        }
        assert_eq!(ranges(&model), expected, "{what}");
        let y: Tensor<3> = model.forward(tokens(&device));
        assert_eq!(y.to_data(), twin.forward(tokens(&device)).to_data(), "{what}");
        quantized += 1;
    }
    if each == 1 {
        assert!(quantized >= 60, "{quantized} of the presets");
    }
}

/// The graph of the quantized model replays as the model runs, and once more after it was written and read.
#[test]
fn a_quantized_model_has_a_graph() {
    let (name, device) = device();
    let each = if name == "flex" { 4 } else { 24 };
    for preset in presets::all().iter().step_by(each) {
        let (_, _, model) = languages(&device);
        let run = |model: &GraphModel| drop(model.forward::<_, Tensor<3>>(tokens(&device)));
        let Ok((model, _)) = quantize(model, &(preset.config)(), run) else { continue };
        let expected: Tensor<3> = model.forward(tokens(&device));
        let graph = model.graph().unwrap();
        let text = serde_json::to_string(&graph).unwrap();
        for graph in [graph, serde_json::from_str(&text).unwrap()] {
            let found: Tensor<3> = graph.replay(&device).unwrap().run(tokens(&device)).unwrap();
            assert_eq!(found.to_data(), expected.to_data(), "{}", preset.name);
        }
        let graph = model.graph().unwrap();
        let weights: Vec<_> = graph.products().into_iter().filter_map(|product| product.weight).collect();
        assert!(weights.contains(&"encoder.layers.0.pwff.linear_inner.weight".into()), "{weights:?}");
        let again = GraphModel::new(graph, &device);
        assert!(matches!(again, Err(GraphError::Quantized { .. })), "{}", preset.name);
    }
}

/// The graph of a packed model is of a quantized one, too: the error names the weight.
#[test]
fn a_graph_of_packed_convolutions_is_no_float_model() {
    let (_, device) = device();
    let x = spread::<4>([2, 4, 5, 5], &device);
    let conv: QuantConv2d = Conv2dConfig::new([4, 6], [3, 3]).init(&device).into();
    let (conv, _) = quantize(vec![conv], &presets::int8_default(), |conv| drop(conv[0].forward(x.clone()))).unwrap();
    let (packed, _) = compress(conv.clone()).unwrap();
    for model in [conv, packed] {
        let graph = capture(&model, x.clone(), |conv: &Vec<QuantConv2d>, x: Tensor<4>| conv[0].forward(x)).unwrap();
        let error = GraphModel::new(graph, &device).unwrap_err();
        assert_eq!(error, GraphError::Quantized { name: "0.weight".into() });
    }
}

/// Batches of any size, in the graph of the float model and in that of the quantized one.
#[test]
fn a_free_axis_stays_free() {
    let (_, device) = device();
    let language = plain::Language::new(&device);
    let of_batch = |batch: usize| {
        let ids: Vec<i32> = (0..batch * 5).map(|i| (i * 7 % 20) as i32).collect();
        let padding = vec![false; batch * 5];
        let padding = Tensor::<1, Bool>::from_data(padding.as_slice(), &device).reshape([batch, 5]);
        (Tensor::<1, Int>::from_data(ids.as_slice(), &device).reshape([batch, 5]), padding)
    };
    let graph = capture_with_free_axis(&language, [3, 5].map(of_batch), plain::Language::forward).unwrap();
    let mut replay = graph.replay(&device).unwrap();
    let model = GraphModel::new(graph, &device).unwrap();
    let config = presets::int8_default();
    let (quantized, _) = quantize(model.clone(), &config, |model| {
        [4, 1].map(of_batch).into_iter().for_each(|batch| drop(model.forward::<_, Tensor<3>>(batch)));
    })
    .unwrap();
    let mut again = quantized.graph().unwrap().replay(&device).unwrap();
    for batch in [3, 1, 8, 2, 3] {
        let expected = language.forward(of_batch(batch)).to_data();
        assert_eq!(replay.run::<_, Tensor<3>>(of_batch(batch)).unwrap().to_data(), expected, "replay of {batch}");
        assert_eq!(model.forward::<_, Tensor<3>>(of_batch(batch)).to_data(), expected, "model of {batch}");
        let expected: Tensor<3> = quantized.forward(of_batch(batch));
        let found: Tensor<3> = again.run(of_batch(batch)).unwrap();
        assert_eq!(found.to_data(), expected.to_data(), "quantized, {batch}");
    }
    let (ids, padding) = of_batch(2);
    let wrong = model.run::<_, Tensor<3>>((ids.clone().narrow(1, 0, 4), padding));
    let expected = vec![2, 5];
    assert_eq!(wrong.unwrap_err(), GraphError::Shape { index: 0, expected, found: vec![2, 4] });
}

/// A norm is folded into the layer that the graph has before it, and neighbours get equal ranges.
#[test]
fn batch_norms_and_neighbours_are_found() {
    let (_, device) = device();
    let (cnn, _, model) = cnns(&device);
    let (folded, pairs) = model.fold_batch_norms().unwrap();
    assert_eq!(pairs, [("conv".to_string(), "norm".to_string())]);
    let expected = burn_quant::prepare::fold_batch_norm(cnn.conv.clone(), cnn.norm.clone()).unwrap();
    let x = images(&device);
    let near = |found: Tensor<2>, expected: Tensor<2>| {
        let largest = expected.clone().abs().max().into_scalar::<f32>();
        let off = (found - expected).abs().max().into_scalar::<f32>();
        assert!(off <= 1e-5 * largest, "{off} of {largest}");
    };
    near(folded.forward(x.clone()), cnn.forward(x.clone()));
    assert_eq!(folded.num_params(), cnn.num_params() - 4 * 4 + 4); // gamma, beta, mean and variance; a bias
    let graph = folded.graph().unwrap();
    assert!(!graph.to_string().contains("BatchNorm"), "{graph}");
    let bias = graph.values().iter().find(|(id, _)| graph.name(**id) == Some("conv.bias")).unwrap().1;
    assert_eq!(bias, &expected.bias.unwrap().val().into_data());

    let (equal, pairs) = folded.equalize().unwrap();
    let names = |(one, two): &(String, String)| format!("{one} {two}");
    // the head reads pixels of channels, not channels
    assert_eq!(pairs.iter().map(names).collect::<Vec<_>>(), ["conv depthwise", "depthwise up"]);
    near(equal.forward(x.clone()), cnn.forward(x));

    let (quantized, _) = quantize(equal, &presets::int8_default(), |model| {
        model.forward::<_, Tensor<2>>(images(&device));
    })
    .unwrap();
    assert!(matches!(quantized.equalize(), Err(QuantError::AlreadyQuantized { .. })));
}

/// Layers that read one tensor share what siblings share, whatever they are called.
#[test]
fn siblings_are_found_by_what_they_read() {
    #[derive(Module, Debug)]
    struct Gated {
        left: burn::nn::Linear,
        right: burn::nn::Linear,
        last: burn::nn::Linear,
    }
    let (_, device) = device();
    let linear = |inputs, outputs| burn::nn::LinearConfig::new(inputs, outputs).init(&device);
    let gated = Gated { left: linear(16, 8), right: linear(16, 8), last: linear(8, 4) };
    let forward =
        |gated: &Gated, x: Tensor<2>| gated.last.forward(gated.left.forward(x.clone()) * gated.right.forward(x));
    let x = spread::<2>([12, 16], &device);
    let model = GraphModel::new(capture(&gated, x.clone(), forward).unwrap(), &device).unwrap();
    let siblings = model.siblings().to_vec();
    assert_eq!(siblings, [["left", "right"]]);

    let smooth = burn_quant::Algorithm::SmoothQuant { alpha: 0.5, sharing: burn_quant::config::SiblingScales::Shared };
    let config = presets::int8_default().with_algorithm(smooth);
    let scales = |options: QuantizeOptions| {
        let (model, _) = quantize_with(model.clone(), &config, options, |model| {
            model.forward::<_, Tensor<2>>(x.clone());
        })
        .unwrap();
        let quantizers = Quantizers::of(&model);
        let scale = |name: &str| {
            let scale = quantizers.find(name).unwrap().buffer(Buffer::PreQuantScale).unwrap();
            scale.into_data()
        };
        (scale("left.input_quantizer"), scale("right.input_quantizer"))
    };
    let (left, right) = scales(QuantizeOptions::new());
    assert_ne!(left, right);
    let (left, right) = scales(QuantizeOptions::new().with_siblings(&siblings));
    assert_eq!(left, right);

    // a search gives them one format
    let formats = ["int8_weight_only", "int4_blockwise_weight_only"].map(|name| SearchFormat::preset(name).unwrap());
    let search = AutoQuantizeConfig::new(12.0, formats).with_batches(1, 1).with_siblings(&siblings);
    let data = |device: &Device| vec![spread::<2>([12, 16], device)];
    let forward = |model: &GraphModel, x: &Tensor<2>| model.forward::<_, Tensor<2>>(x.clone());
    let (_, state) = AutoQuantization::new(&search).by_divergence(model, data, forward).unwrap();
    let groups: Vec<Vec<&str>> =
        state.groups.iter().map(|group| group.units.iter().map(|unit| &*unit.layer).collect()).collect();
    assert_eq!(groups, [vec!["left", "right"], vec!["last"]]);
}

/// A budget of operations: a kernel of nine weights counts for the pixels that it meets.
#[test]
fn a_search_budgets_multiplications() {
    let (_, device) = device();
    let (_, _, model) = cnns(&device);
    let multiplications = model.multiplications().clone();
    // two images: 4 channels of 6 x 6 pixels, of 2 x 2; 4 channels of 2 x 2 meet 3 of 2 x 2; 27 inputs meet 10 outputs
    let expected = [("conv", 2 * 4 * 36 * 9), ("depthwise", 2 * 4 * 4 * 9), ("head", 2 * 270), ("up", 2 * 16 * 12)];
    let expected = expected.map(|(layer, count)| (layer.to_string(), f64::from(count)));
    assert_eq!(multiplications, expected.into());

    let formats = ["int8_weight_only"].map(|name| SearchFormat::preset(name).unwrap());
    let data = |device: &Device| vec![images(device)];
    let forward = |model: &GraphModel, x: &Tensor<4>| model.forward::<_, Tensor<2>>(x.clone());
    let search = AutoQuantizeConfig::new(12.0, formats).with_batches(1, 1);
    let search_by = |counts| {
        AutoQuantization::new(&search.clone().with_multiplications(counts)).by_divergence(model.clone(), data, forward)
    };
    let (_, state) = search_by(multiplications.clone()).unwrap();
    for group in &state.groups {
        let float = group.choices.iter().find(|choice| choice.format.is_none()).unwrap();
        assert_eq!(float.cost, 16.0 * multiplications[group.name()], "{}", group.name());
    }
    assert_eq!(state.counted, multiplications.values().sum::<f64>());
    assert!(state.best.unwrap().effective_bits <= 12.0);

    let unknown = search_by([("conv".to_string(), 1.0)].into()).unwrap_err().to_string();
    assert!(unknown.contains("its multiplications are not known"), "{unknown}");
}

/// One weight at several places, a table that is the head too, weights of other names, and weights that are transposed.
#[test]
fn layers_are_found_however_they_are_written() {
    #[derive(Module, Debug)]
    struct Odd {
        table: burn::nn::Embedding,
        cell: Cell,
        twice: burn::nn::Linear,
    }

    #[derive(Module, Debug)]
    struct Cell {
        w: Param<Tensor<2>>,
        transposed: Param<Tensor<2>>,
        gain: Param<Tensor<1>>,
    }

    let (name, device) = device();
    let parameter = |shape| Param::from_tensor(spread::<2>(shape, &device));
    let odd = Odd {
        table: burn::nn::EmbeddingConfig::new(9, 16).init(&device),
        cell: Cell {
            w: parameter([16, 16]),
            transposed: parameter([16, 16]),
            gain: Param::from_tensor(spread([16], &device)),
        },
        twice: burn::nn::LinearConfig::new(16, 16).init(&device),
    };
    let forward = |odd: &Odd, ids: Tensor<2, Int>| {
        let x = odd.table.forward(ids.clone());
        let x = x.matmul(odd.cell.w.val().unsqueeze()) * odd.cell.gain.val().unsqueeze();
        let x = x.matmul(odd.cell.transposed.val().transpose().unsqueeze());
        let x = odd.twice.forward(relu(odd.twice.forward(x)));
        let first = odd.table.weight.val().select(0, ids.flatten::<1>(0, 1)).unsqueeze::<3>();
        x.matmul(odd.table.weight.val().transpose().unsqueeze()) + first.slice([0..1, 0..1, 0..9])
    };
    let ids = Tensor::from_data([[0, 8, 3, 3]], &device);
    let model = GraphModel::new(capture(&odd, ids.clone(), forward).unwrap(), &device).unwrap();
    let expected = forward(&odd, ids.clone());
    assert_eq!(model.forward::<_, Tensor<3>>(ids.clone()).to_data(), expected.to_data(), "{name}");
    let layers = |text: &str| text.lines().filter(|line| line.contains("weight_quantizer")).count();

    let weights = QuantConfig::new().with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(8).per_channel()));
    let inputs = weights.with_rule(Rule::set("*input_quantizer", QuantizerConfig::int(8)));
    let run = |model: &GraphModel| drop(model.forward::<_, Tensor<3>>(ids.clone()));
    let (model, report) = quantize(model, &inputs, run).unwrap();
    let text = summary(&model).to_string();
    assert_eq!(layers(&text), 4, "{text}"); // table, w, transposed, twice
    for input in ["cell.w.input_quantizer", "cell.transposed.input_quantizer", "twice.input_quantizer"] {
        assert!(report.statistics.get(input).is_some(), "{input}: {text}");
    }
    assert_eq!(report.statistics.get("twice.input_quantizer").unwrap().calls, 2);
    let simulated = model.forward::<_, Tensor<3>>(ids.clone());
    let graph: Tensor<3> = model.graph().unwrap().replay(&device).unwrap().run(ids.clone()).unwrap();
    assert_eq!(graph.to_data(), simulated.to_data(), "{name}");
    let (packed, _) = compress(model).unwrap();
    let off = (packed.forward::<_, Tensor<3>>(ids) - simulated.clone()).abs().max().into_scalar::<f32>();
    assert!(off <= 1e-4 * simulated.abs().max().into_scalar::<f32>(), "{off}");
}

/// The model is one of burn's: it is saved and restored, cloned, and moved.
#[test]
fn records_hold_a_graph_model() {
    let (_, device) = device();
    let (cnn, twin, model) = cnns(&device);
    let x = images(&device);
    let config = presets::int8_default();
    let run = |model: &GraphModel| drop(model.forward::<_, Tensor<2>>(x.clone()));
    let (quantized, _) = quantize(model.clone(), &config, run).unwrap();
    let expected = quantized.forward::<_, Tensor<2>>(x.clone()).to_data();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.bpk");
    burn_quant_store::save(&quantized, &file).unwrap();
    let fresh = GraphModel::new(capture(&cnn, x.clone(), plain::Cnn::forward).unwrap(), &device).unwrap();
    let restored = burn_quant_store::restore(fresh, &file).unwrap();
    assert_eq!(restored.forward::<_, Tensor<2>>(x.clone()).to_data(), expected);
    // what has the same paths takes the record too
    let twin = burn_quant_store::restore(twin, &file).unwrap();
    assert_eq!(twin.forward(x.clone()).to_data(), expected);
    let moved = quantized.clone().fork(&device);
    assert_eq!(moved.forward::<_, Tensor<2>>(x).to_data(), expected);
}

/// What does not run says why.
#[test]
fn faults_are_named() {
    let (_, device) = device();
    let (cnn, _, model) = cnns(&device);
    let x = images(&device);
    let missing = model.run::<_, Tensor<2>>((x.clone(), x.clone())).unwrap_err();
    assert_eq!(missing, GraphError::Count { boundary: "inputs", expected: 1, found: 2 });
    let rank = model.run::<_, Tensor<3>>(x.clone()).unwrap_err();
    assert!(matches!(rank, GraphError::OutputType { index: 0, .. }), "{rank}");
    // and runs again
    assert_eq!(model.forward::<_, Tensor<2>>(x.clone()).to_data(), cnn.forward(x.clone()).to_data());
    for (name, device) in devices().into_iter().skip(1) {
        let graph = capture(&cnn, x.clone(), plain::Cnn::forward).unwrap();
        assert!(matches!(GraphModel::new(graph, &device), Err(GraphError::Device { .. })), "{name}");
    }
}
