//! Graphs: unmodified models against their twins, and the size of files in ONNX.

use burn::module::Module;
use burn::tensor::{Bool, Device, Distribution, Int, Tensor};
use burn_quant::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn_quant::quantizer::{Buffer, Quantizers};
use burn_quant::{QuantConfig, QuantizerConfig, Rule, presets, quantize};
use burn_quant_benches::device;
use burn_quant_graph::{GraphModel, capture, capture_with_free_axis};
use burn_quant_llm::Decoder;
use burn_quant_onnx::export;
use pretrained::minilm::{MiniLm, Sentences};
use pretrained::smollm::{self, SmolLm};

use super::Figure;

/// Files of a block of 512 features in ONNX, against f32.
pub(crate) fn files() -> Vec<Figure> {
    let device = device();
    let block: TransformerEncoder = TransformerEncoderConfig::new(512, 2048, 8, 1).with_dropout(0.0).init(&device);
    let x = Tensor::<3>::random([2, 8, 512], Distribution::Normal(0.0, 1.0), &device);
    let forward = |block: &TransformerEncoder, x: Tensor<3>| block.forward(TransformerEncoderInput::new(x));
    let bytes = |config: &QuantConfig| {
        let calibrate = |block: &TransformerEncoder| drop(forward(block, x.clone()));
        let (block, _) = quantize(block.clone(), config, calibrate).expect("it is quantized");
        export(&block, x.clone(), forward).expect("it is written").to_bytes().len() as f64
    };
    let float = bytes(&QuantConfig::new());
    let int4 = Rule::set("*weight_quantizer", QuantizerConfig::int(4).per_block(128));
    [("INT8", presets::int8_default(), 0.27), ("INT4 block 128", QuantConfig::new().with_rule(int4), 0.15)]
        .map(|(name, config, bound)| Figure::at_most(format!("ONNX file, {name} / f32"), bytes(&config) / float, bound))
        .into()
}

/// MiniLM from a graph, without its quantizers, against the model written with them: INT8 with SmoothQuant.
pub(crate) fn minilm() -> Vec<Figure> {
    let Some(models) = std::env::var_os("BURN_QUANT_MODELS").map(std::path::PathBuf::from) else {
        println!("# MiniLM from a graph: not measured, as BURN_QUANT_MODELS names no folder with the published models");
        return Vec::new();
    };
    let device = device();
    let text = burn_quant_benches::moby_dick();
    let (twin, _) = pretrained::minilm::published(&models, &text, &device).expect("the model is there");
    let forward = |model: &MiniLm, (words, padding): Words| model.forward(&Sentences { words, padding });
    let batches = [3, 5].map(|batch| words(batch, &device));
    let graph = capture_with_free_axis(&twin, batches, forward).expect("it is captured");
    let model = GraphModel::new(graph, &device).expect("graphs run there");
    let config = presets::int8_smoothquant();
    let (twin, _) = quantize(twin, &config, |model| drop(forward(model, words(8, &device)))).expect("it is quantized");
    let (model, _) = quantize(model, &config, |model| drop(model.forward::<_, Tensor<2>>(words(8, &device))))
        .expect("it is quantized");
    let of_twin = Quantizers::of(&twin);
    let other = Quantizers::of(&model);
    let data = |quantizer: &burn_quant::TensorQuantizer, buffer| quantizer.buffer(buffer).map(Tensor::into_data);
    let enabled = || of_twin.iter().filter(|(_, quantizer)| quantizer.is_enabled());
    let differ = enabled().filter(|(name, quantizer)| {
        let other = other.find(name);
        [Buffer::Amax, Buffer::PreQuantScale]
            .into_iter()
            .any(|buffer| other.is_none_or(|other| data(other, buffer) != data(quantizer, buffer)))
    });
    let differ = differ.count();
    let (y, z) = (forward(&twin, words(4, &device)), model.forward::<_, Tensor<2>>(words(4, &device)));
    println!("# MiniLM from a graph: {} quantizers", enabled().count());
    let off = (y - z).abs().max().into_scalar::<f32>();
    vec![
        Figure::at_most("MiniLM from a graph, quantizers that differ from the twin's", differ as f64, 0.0),
        Figure::at_most("MiniLM from a graph, largest difference to the twin", off.into(), 0.0),
    ]
}

/// The graphs of published models against the models, in some presets: the largest difference.
pub(crate) fn replays() -> Vec<Figure> {
    let Some(models) = std::env::var_os("BURN_QUANT_MODELS").map(std::path::PathBuf::from) else {
        println!("# replays of published models: not measured, as BURN_QUANT_MODELS names no folder with them");
        return Vec::new();
    };
    let (device, text) = (device(), burn_quant_benches::moby_dick());
    let (encoder, _) = pretrained::minilm::published(&models, &text, &device).expect("the model is there");
    let encoded = |model: &MiniLm, (words, padding): Words| model.forward(&Sentences { words, padding });
    let decoder = SmolLm::open(&models.join(smollm::FILE), &device).expect("the model is there").decoder;
    let decoded = |model: &Decoder, (words, _): Words| model.forward(words, &mut model.cache());
    let mut figures = Vec::new();
    for (name, config) in [
        ("float", QuantConfig::new()),
        ("INT8", presets::int8_default()),
        ("INT8 tokens", presets::int8_per_channel_per_token()),
        ("FP8", presets::fp8_default()),
        ("INT4", presets::int4_blockwise_weight_only()),
        ("NVFP4", presets::nvfp4_default()),
    ] {
        let inputs = || words(4, &device);
        let mut add = |model: &str, off: f32| {
            figures.push(Figure::at_most(format!("{model}, {name}, replay against the model"), off.into(), 0.0));
        };
        add("MiniLM", off_in_replay(encoder.clone(), &config, inputs, encoded));
        add("SmolLM2", off_in_replay(decoder.clone(), &config, inputs, decoded));
    }
    figures
}

/// Quantizes a model, and compares its graph with it; NaN is no number that is at most another.
fn off_in_replay<M: Module, const D: usize>(
    model: M,
    config: &QuantConfig,
    inputs: impl Fn() -> Words,
    forward: impl Fn(&M, Words) -> Tensor<D>,
) -> f32 {
    let (model, _) = quantize(model, config, |model| drop(forward(model, inputs()))).expect("it is quantized");
    let graph = capture(&model, inputs(), &forward).expect("it is captured");
    let found: Tensor<D> = graph.replay(&device()).expect("graphs run there").run(inputs()).expect("the inputs fit");
    (found - forward(&model, inputs())).abs().max().into_scalar()
}

/// Exported files in ONNX Runtime: speed, and products in integers.
pub(crate) fn runtime() -> Vec<Figure> {
    let variable = |name| std::env::var_os(name).map(std::path::PathBuf::from);
    let (Some(python), Some(folder)) = (variable("BURN_QUANT_ORT"), variable("BURN_QUANT_ONNX")) else {
        println!(
            "# ONNX Runtime: not measured, as BURN_QUANT_ORT names no Python with it, or BURN_QUANT_ONNX no folder \
             that `export-onnx --trained --models FOLDER` wrote"
        );
        return Vec::new();
    };
    let table = burn_quant_benches::onnx_runtime_table(&python, &folder).expect("the files are right");
    let mut figures = Vec::new();
    for line in table.lines().skip(2) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(|cell| cell.trim().trim_matches('`')).collect();
        let &[network, preset, _, _, integers, same, faster] = &cells[..] else { continue };
        let number = |text: &str| text.trim_end_matches('%').parse().unwrap_or(f64::NAN);
        let name = format!("{network} in ONNX Runtime, {preset}");
        match (network, preset) {
            // one thread, a processor with VNNI
            ("minilm", "int8_smoothquant_signed") => {
                figures.push(Figure::at_least(format!("{name}, float / time"), number(faster), 2.0));
                // the products of attention have no weights
                let attention = 12.0;
                let (found, all) = integers.split_once(" of ").map_or((0.0, 1.0), |(a, b)| (number(a), number(b)));
                figures.push(Figure::at_least(
                    format!("{name}, products in integers"),
                    found / (all - attention),
                    0.95,
                ));
            }
            ("fashion", "int8_default") => {
                figures.push(Figure::at_least(format!("{name}, same class, %"), number(same), 99.5));
                let (found, all) = integers.split_once(" of ").map_or((0.0, 1.0), |(a, b)| (number(a), number(b)));
                figures.push(Figure::at_least(format!("{name}, products in integers"), found / all, 0.95));
            }
            _ => {}
        }
    }
    figures
}

type Words = (Tensor<2, Int>, Tensor<2, Bool>);

/// Sentences of 16 of the 30,000 words, the last of each padded.
fn words(sentences: usize, device: &Device) -> Words {
    let ids: Vec<i32> = (0..sentences * 16).map(|i| (1000 + i * 977 % 20000) as i32).collect();
    let padding: Vec<bool> = (0..sentences * 16).map(|i| i % 16 > 12 + i / 16 % 4).collect();
    let shape = [sentences, 16];
    (
        Tensor::<1, Int>::from_data(ids.as_slice(), device).reshape(shape),
        Tensor::<1, Bool>::from_data(padding.as_slice(), device).reshape(shape),
    )
}
