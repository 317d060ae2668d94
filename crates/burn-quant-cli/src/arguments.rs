//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::device::Backend;

/// Quantizes language models, and says what became of them.
#[derive(Debug, Parser)]
#[command(
    name = "burn-quant",
    version,
    after_help = "Examples:
  burn-quant quantize SmolLM2-135M --recipe nvfp4 --calib wiki.txt --format modelopt --out SmolLM2-nvfp4
  burn-quant eval SmolLM2-nvfp4 --against SmolLM2-135M --text wiki.test.txt
  burn-quant diagnose SmolLM2-135M --recipe int8 --calib wiki.txt --text wiki.test.txt --html report.html
  burn-quant chat SmolLM2-nvfp4 --prompt \"How many bits has a byte?\"
  burn-quant inspect SmolLM2-nvfp4
  burn-quant presets

A FOLDER is that of a Hugging Face model: config.json, *.safetensors, tokenizer.json."
)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    pub command: Command,
    /// Print the result as JSON on stdout, and nothing else there.
    #[arg(long, global = true, help_heading = "Global options")]
    pub json: bool,
    /// Print the result only: no progress, no warnings.
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub quiet: bool,
    /// Where models run.
    #[arg(long, global = true, value_enum, default_value_t, help_heading = "Global options")]
    pub device: Backend,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Quantize(QuantizeOptions),
    Diagnose(DiagnoseOptions),
    Eval(EvalOptions),
    Chat(ChatOptions),
    Inspect(InspectOptions),
    Convert(ConvertOptions),
    /// List the recipes that are built in.
    ///
    /// With the formats of weights and activations, the algorithm, whether calibration data is needed, and which
    /// checkpoint formats hold the result.
    Presets,
}

/// Quantize a model and write it for a server.
///
/// Weight-only recipes and those with dynamic activations need no data. All others are calibrated with windows of the
/// tokens of a text, --calib.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  burn-quant quantize SmolLM2-135M --recipe fp8_pc_pt --format compressed-tensors --out SmolLM2-fp8-token
  burn-quant quantize SmolLM2-135M --recipe nvfp4 --calib wiki.txt --format modelopt --out SmolLM2-nvfp4
  burn-quant quantize SmolLM2-135M --recipe fp8+fp8_kv --calib wiki.txt --format compressed-tensors --out SmolLM2-fp8
  burn-quant quantize SmolLM2-135M --recipe int4_awq --calib wiki.txt --format gguf --out SmolLM2-q4.gguf
  burn-quant quantize Llama-8B --recipe fp8 --calib wiki.txt --memory 6GiB --format modelopt --out Llama-8B-FP8
  burn-quant quantize SmolLM2-135M --auto 6 --formats nvfp4,fp8 --calib wiki.txt --format modelopt --out SmolLM2-auto")]
pub(crate) struct QuantizeOptions {
    /// The folder of a model in float.
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// A preset, several (fp8+fp8_kv: the second adds its rules), or a file: TOML, JSON, or YAML of ModelOpt.
    #[arg(long, value_name = "NAME|FILE", required_unless_present = "auto", conflicts_with = "auto")]
    pub recipe: Option<String>,
    #[command(flatten)]
    pub calibration: CalibrationOptions,
    /// Search the best format of each layer within so many bits per parameter, 16 for what stays in float.
    #[arg(long, value_name = "BITS", value_parser = bits, requires = "formats", requires = "calib")]
    pub auto: Option<f64>,
    /// Presets for --auto to choose from, separated by commas.
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "auto")]
    pub formats: Vec<String>,
    /// How --auto finds out what a format costs.
    #[arg(long, value_enum, default_value_t, requires = "auto")]
    pub score: Score,
    /// What to write.
    #[arg(long, value_enum)]
    pub format: ExportFormat,
    /// Where to write: a new folder, or a new file for gguf.
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
    /// Take at most so much memory: 8GiB, 500MB. A model that needs more is quantized layer by layer, which an
    /// interruption does not lose: the same command goes on where it was.
    #[arg(long, value_name = "SIZE", value_parser = crate::units::parse_bytes, conflicts_with = "auto")]
    pub memory: Option<u64>,
    /// Where layers that are done are kept meanwhile [default: the path of --out with .work].
    #[arg(long, value_name = "DIR", requires = "memory")]
    pub work: Option<PathBuf>,
}

impl QuantizeOptions {
    /// What the recipe is called on the command line.
    pub(crate) fn recipe_name(&self) -> &str {
        self.recipe.as_deref().unwrap_or_default()
    }
}

/// Reads bits per parameter.
fn bits(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(bits) if 0.0 < bits && bits <= 16.0 => Ok(bits),
        _ => Err("expected a number above 0, 16 at most".into()),
    }
}

/// What a recipe is calibrated with.
#[derive(Args, Debug)]
pub(crate) struct CalibrationOptions {
    /// A text file to calibrate with.
    #[arg(long, value_name = "TEXT")]
    pub calib: Option<PathBuf>,
    /// Windows of the text to calibrate with.
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub samples: u32,
    /// Tokens of a window [default: 512, or as many as the model was made for].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub tokens: Option<u32>,
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// ModelOpt's unified folder: vLLM, SGLang, TensorRT-LLM.
    Modelopt,
    /// The folder of llm-compressor: vLLM, transformers.
    CompressedTensors,
    /// One file: llama.cpp.
    Gguf,
    /// A folder with burn-quant's own records: exact, for this tool and burn programs.
    Burnpack,
}

impl ExportFormat {
    /// The name on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            ExportFormat::Modelopt => "modelopt",
            ExportFormat::CompressedTensors => "compressed-tensors",
            ExportFormat::Gguf => "gguf",
            ExportFormat::Burnpack => "burnpack",
        }
    }
}

/// How a search finds out what a format costs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Score {
    /// By gradients of the loss: one backward pass per window.
    #[default]
    Gradient,
    /// By the divergence of outputs: one forward pass per window, layer and format.
    Divergence,
    /// By the errors of layers, from calibration statistics: the fastest.
    LayerError,
}

/// Find out which layers of a model a recipe hurts, why, and what to change.
///
/// The model is quantized in memory, compared with itself in float on windows of --text, three passes each, and nothing
/// is written but the report. Findings come with rules for a recipe file.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  burn-quant diagnose SmolLM2-135M --recipe int8 --calib wiki.txt --text wiki.test.txt --html report.html
  burn-quant diagnose SmolLM2-135M --recipe int4_wo --text wiki.test.txt --windows 2 --sensitivity")]
pub(crate) struct DiagnoseOptions {
    /// The folder of a model in float.
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
    /// A preset, several (fp8+fp8_kv: the second adds its rules), or a file: TOML, JSON, or YAML of ModelOpt.
    #[arg(long, value_name = "NAME|FILE")]
    pub recipe: String,
    #[command(flatten)]
    pub calibration: CalibrationOptions,
    /// A text file to compare the models on.
    #[arg(long, value_name = "FILE")]
    pub text: PathBuf,
    /// Windows of that text.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    pub windows: u32,
    /// Take the perplexity with each layer quantized alone, and with all but that one, too: slow.
    #[arg(long)]
    pub sensitivity: bool,
    /// Write the report as a page that opens from disk.
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
}

/// Measure how well a model predicts a text, how fast it runs, and what it takes.
///
/// Perplexity is exp of the mean negative log-likelihood of every token but the first of its window. With --against,
/// the divergence from the float model and the share of equal most likely tokens, too.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  burn-quant eval SmolLM2-135M --text wiki.test.txt
  burn-quant eval SmolLM2-nvfp4 --against SmolLM2-135M --text wiki.test.txt --windows 32
  burn-quant eval SmolLM2-int8 --packed --text wiki.test.txt --json")]
pub(crate) struct EvalOptions {
    /// The folder or file of a model: in float, ModelOpt, compressed-tensors, GGUF, burnpack.
    #[arg(value_name = "FOLDER|FILE")]
    pub model: PathBuf,
    /// The model in float.
    #[arg(long, value_name = "FLOAT")]
    pub against: Option<PathBuf>,
    /// A text file.
    #[arg(long, value_name = "FILE")]
    pub text: PathBuf,
    /// Windows of the text to predict.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..))]
    pub windows: u32,
    /// Tokens of a window [default: 512, or as many as the model was made for].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..))]
    pub tokens: Option<u32>,
    /// Keep weights in their codes, as a server does.
    #[arg(long)]
    pub packed: bool,
    /// The folder of the tokenizer, for a model that has none.
    #[arg(long, value_name = "FOLDER")]
    pub tokenizer: Option<PathBuf>,
}

/// Talk with a model.
///
/// With --prompt one answer is written to stdout. Without it, each line of stdin is a question, and Ctrl-C ends an
/// answer, Ctrl-D the conversation. A model without a chat template goes on with your text.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  burn-quant chat SmolLM2-nvfp4
  burn-quant chat SmolLM2-nvfp4 --prompt \"Name three number formats.\" --max-tokens 64
  burn-quant chat SmolLM2-nvfp4 --system \"You are brief.\" --temperature 0.7 --top-p 0.9 --seed 1")]
pub(crate) struct ChatOptions {
    /// The folder or file of a model: in float, ModelOpt, compressed-tensors, GGUF, burnpack.
    #[arg(value_name = "FOLDER|FILE")]
    pub model: PathBuf,
    /// Answer this, and end.
    #[arg(long, short, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Instructions for the whole conversation.
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// What logits are divided by: 0 always takes the likeliest token.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub temperature: f32,
    /// Choose from so many of the likeliest tokens.
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Choose from the likeliest tokens that have this probability together.
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub top_p: f32,
    /// What tokens that are there already are made less likely by: 1 for nothing.
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    pub repetition_penalty: f32,
    /// The most tokens of an answer.
    #[arg(long, value_name = "N", default_value_t = 256)]
    pub max_tokens: usize,
    /// The seed: the same one writes the same answer.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Keep weights in their codes, as a server does.
    #[arg(long)]
    pub packed: bool,
    /// The folder of the tokenizer, for a model that has none.
    #[arg(long, value_name = "FOLDER")]
    pub tokenizer: Option<PathBuf>,
}

/// Show what a checkpoint holds, without loading a model.
///
/// Layers, formats, bits per weight with all scales, bytes. Scales that look wrong are listed: not finite, zero, more
/// than 1000 times the median of their layer, or of a layer that is said not to be quantized.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  burn-quant inspect SmolLM2-nvfp4
  burn-quant inspect SmolLM2-nvfp4/model.safetensors --layers
  burn-quant inspect SmolLM2-nvfp4 --json")]
pub(crate) struct InspectOptions {
    /// A folder, a .safetensors file, or a .gguf file.
    #[arg(value_name = "FILE|FOLDER")]
    pub path: PathBuf,
    /// List each layer, and not layers of a kind together.
    #[arg(long)]
    pub layers: bool,
}

/// Turn a GGUF file or a quantized folder into the folder of a model in float.
///
/// Tensors are the values of its codes; what was done to activations is lost. Configuration and tokenizer of a GGUF
/// file are made of its metadata. All commands take the folder, so a model that is published in codes alone can be
/// quantized in another format.
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  burn-quant convert SmolLM2.Q4_1.gguf --out SmolLM2
  burn-quant convert SmolLM2-nvfp4 --dtype bf16 --out SmolLM2-bf16")]
pub(crate) struct ConvertOptions {
    /// A .gguf file, or the folder of a model: ModelOpt, compressed-tensors, AutoAWQ, GPTQ, float.
    #[arg(value_name = "FILE|FOLDER")]
    pub source: PathBuf,
    /// The type of the tensors: f16 and bf16 round them.
    #[arg(long, value_enum, default_value_t = FloatType::F32)]
    pub dtype: FloatType,
    /// Where the folder goes: a path where nothing is.
    #[arg(long, value_name = "PATH")]
    pub out: PathBuf,
}

/// Types of floats in files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FloatType {
    F32,
    F16,
    Bf16,
}
