//! Published and trained models: a sentence encoder, a language model, and what the examples train.

use std::io::Read;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Bool, Device, Int, Tensor};
use burn_quant::{QuantConfig, QuantizerConfig, Rule, presets, quantize};
use burn_quant_llm::Decoder;
use burn_quant_onnx::{Exporter, OnnxModel};
use char_gpt::model::{CharGpt, Size};
use fashion_mnist::model::Cnn;
use pretrained::minilm::{self, MiniLm, Sentences};
use pretrained::smollm::{self, SmolLm};

use crate::Failure;
use crate::case::Case;

/// Sentences and tokens of a batch.
const BATCH: [usize; 2] = [8, 64];

/// MiniLM-L6 in float and in the presets that ONNX Runtime runs fast, for batches of any size and sentences of any
/// length.
pub(crate) fn minilm(models: &Path, out: &Path, device: &Device) -> Result<Vec<String>, Failure> {
    let (float, task) = minilm::published(models, &moby_dick()?, device)?;
    let configs = [
        ("float", QuantConfig::new()),
        ("int8_smoothquant", presets::int8_smoothquant()),
        ("int8_weight_only", presets::int8_weight_only()),
        ("int4_blockwise_weight_only", presets::int4_blockwise_weight_only()),
    ];
    let mut written = Vec::new();
    for (preset, config) in configs {
        let calibrate = |model: &MiniLm| task.calibration.iter().for_each(|batch| drop(model.forward(batch)));
        let (model, _) = quantize(float.clone(), &config, calibrate)?;
        let batch = |sizes: [usize; 2]| words(&task.calibration, sizes, device);
        let (words, padding) = batch(BATCH);
        let y = model.forward(&Sentences { words: words.clone(), padding: padding.clone() });
        let files = [
            ("", Exporter::new()),
            ("_signed", Exporter::new().with_signed_weights()),
            ("_attention", Exporter::new().with_fused_attention()),
        ];
        // signs are of the integer products of one preset; attention is the same in all
        let of_preset = match preset {
            "int8_smoothquant" => &files[..2],
            "float" => &[files[0].clone(), files[2].clone()],
            _ => &files[..1],
        };
        for (suffix, exporter) in of_preset {
            let onnx = write(&model, [[3, 20], [5, 20], [3, 28]].map(batch), exporter.clone())?;
            let name = format!("minilm-{preset}{suffix}");
            onnx.save(out.join(format!("{name}.onnx")))?;
            let case = Case::new().integers("input.words", words.clone()).booleans("input.padding", padding.clone());
            case.floats("output.output", y.clone()).save(&out.join(format!("{name}.safetensors")))?;
            written.push(name);
        }
    }
    Ok(written)
}

/// SmolLM2-135M in float and with weights of 8 and 4 bits, for prompts of any length: the logits of all tokens.
pub(crate) fn smollm2(models: &Path, out: &Path, device: &Device) -> Result<Vec<String>, Failure> {
    let model = SmolLm::open(&models.join(smollm::FILE), device)?;
    let text = moby_dick()?;
    let window = &model.texts(&text, 1, 1)?.held_out[0];
    let prompt = |[batch, tokens]: [usize; 2]| {
        let ids: Vec<i32> = window.iter().take(batch * tokens).map(|id| *id as i32).collect();
        Tensor::<1, Int>::from_data(ids.as_slice(), device).reshape([batch, tokens])
    };
    let forward = |decoder: &Decoder, tokens: Tensor<2, Int>| decoder.forward(tokens, &mut decoder.cache());
    let exporter = Exporter::new().with_opset(23).with_input_names(["tokens"]).with_axis_names(["batch", "tokens"]);
    let int4 = QuantizerConfig::int(4).per_block(32);
    let mut written = Vec::new();
    for (preset, config) in [
        ("float", QuantConfig::new()),
        ("int8_weight_only", presets::int8_weight_only()),
        ("int4_block_32", QuantConfig::new().with_rule(Rule::set("*layers.*weight_quantizer", int4))),
    ] {
        let (decoder, _) = quantize(model.decoder.clone(), &config, |_: &Decoder| {})?;
        let onnx = exporter.export_any_size(&decoder, [[2, 5], [3, 5], [2, 7]].map(prompt), forward)?;
        let name = format!("smollm2-{preset}");
        onnx.save(out.join(format!("{name}.onnx")))?;
        let tokens = prompt([1, 64]);
        let case = Case::new().integers("input.tokens", tokens.clone());
        case.floats("output.output", forward(&decoder, tokens)).save(&out.join(format!("{name}.safetensors")))?;
        written.push(name);
    }
    Ok(written)
}

/// The text that models are calibrated with and asked about.
fn moby_dick() -> Result<String, Failure> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../char-gpt/data/moby-dick.txt.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path)?).read_to_string(&mut text)?;
    Ok(text)
}

/// The network of the first example, trained, with 500 images of the test set.
pub(crate) fn images(out: &Path, device: &Device) -> Result<Vec<String>, Failure> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fashion-mnist/data");
    let training = fashion_mnist::data::Dataset::read(&data, "train")?;
    let test = fashion_mnist::data::Dataset::read(&data, "test")?.batches(500, device).swap_remove(0);
    let learner = device.clone().autodiff();
    learner.seed(1);
    let schedule = fashion_mnist::train::Schedule { epochs: 6, learning_rate: 2e-3, seed: 1 };
    let bar = fashion_mnist::train::bar("float training", false);
    let float = fashion_mnist::train::train(Cnn::new(&learner), &training, schedule, &learner, &bar).valid();
    let calibration: Vec<_> = training.shuffled(64, 1, device).take(8).collect();
    let mut written = Vec::new();
    for (preset, config) in [
        ("float", QuantConfig::new()),
        ("int8_default", presets::int8_default()),
        ("int8_weight_only", presets::int8_weight_only()),
    ] {
        let calibrate = |model: &Cnn| calibration.iter().for_each(|batch| drop(model.forward(batch.images.clone())));
        let (model, _) = quantize(float.clone(), &config, calibrate)?;
        let sizes = [3, 5].map(|batch| test.images.clone().narrow(0, 0, batch));
        let name = format!("fashion-{preset}");
        Exporter::new().export_any_size(&model, sizes, Cnn::forward)?.save(out.join(format!("{name}.onnx")))?;
        let case = Case::new().floats("input.input", test.images.clone());
        let case = case.floats("output.output", model.forward(test.images.clone()));
        case.save(&out.join(format!("{name}.safetensors")))?;
        written.push(name);
    }
    Ok(written)
}

/// The language model of characters, trained for a few hundred steps.
pub(crate) fn characters(out: &Path, device: &Device) -> Result<Vec<String>, Failure> {
    use char_gpt::train::{Schedule, bar, train};
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../char-gpt/data/moby-dick.txt.gz");
    let text = char_gpt::text::Text::read(&path)?;
    let learner = device.clone().autodiff();
    learner.seed(1);
    let float = CharGpt::new(text.characters(), Size::SMALL, &learner);
    let schedule = Schedule { steps: 300, batch: 16, learning_rate: 2e-3, seed: 1 };
    let float = train(float, &text, schedule, &learner, &bar("float training", false)).valid();
    let windows = text.held_out(64, 8, device);
    let int4 = QuantizerConfig::int(4).per_block(128);
    let mut written = Vec::new();
    for (preset, config) in [
        ("float", QuantConfig::new()),
        ("int8_default", presets::int8_default()),
        ("int8_weight_only", presets::int8_weight_only()),
        ("int4_block_128", QuantConfig::new().with_rule(Rule::set("blocks.*weight_quantizer", int4))),
    ] {
        let calibrate = |model: &CharGpt| windows[1..].iter().for_each(|it| drop(model.forward(it.inputs.clone())));
        let (model, _) = quantize(float.clone(), &config, calibrate)?;
        let inputs = windows[0].inputs.clone();
        let sizes = [3, 5].map(|batch| inputs.clone().narrow(0, 0, batch));
        let name = format!("char-gpt-{preset}");
        let exporter = Exporter::new().with_input_names(["characters"]);
        exporter.export_any_size(&model, sizes, CharGpt::forward)?.save(out.join(format!("{name}.onnx")))?;
        let case = Case::new().integers("input.characters", inputs.clone());
        case.floats("output.output", model.forward(inputs)).save(&out.join(format!("{name}.safetensors")))?;
        written.push(name);
    }
    Ok(written)
}

type Words = (Tensor<2, Int>, Tensor<2, Bool>);

fn write(model: &MiniLm, batches: [Words; 3], exporter: Exporter) -> Result<OnnxModel, Failure> {
    let forward = |model: &MiniLm, (words, padding): Words| model.forward(&Sentences { words, padding });
    let exporter = exporter.with_input_names(["words", "padding"]).with_axis_names(["batch", "tokens"]);
    Ok(exporter.export_any_size(model, batches, forward)?)
}

/// Sentences of the calibration data, cut or padded to as many tokens.
fn words(batches: &[Sentences], [sentences, tokens]: [usize; 2], device: &Device) -> Words {
    let words = Tensor::<2, Int>::zeros([sentences, tokens], device);
    let padding = Tensor::<2, Int>::ones([sentences, tokens], device);
    let mut at = 0;
    let (mut all_words, mut all_padding) = (words, padding);
    for batch in batches {
        let [rows, columns] = batch.words.dims();
        let (rows, columns) = (rows.min(sentences - at), columns.min(tokens));
        if rows == 0 {
            break;
        }
        let place = [at..at + rows, 0..columns];
        let part = |tensor: Tensor<2, Int>| tensor.slice([0..rows, 0..columns]);
        all_words = all_words.slice_assign(place.clone(), part(batch.words.clone()));
        all_padding = all_padding.slice_assign(place, part(batch.padding.clone().int()));
        at += rows;
    }
    (all_words, all_padding.equal_elem(1))
}
