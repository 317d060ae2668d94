//! Run `examples/pretrained/fetch.sh models`, then `cargo run --release -p pretrained -- all --models models`; `--help`
//! lists the options.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::PathBuf;

use burn::tensor::Device;
use burn_quant::QuantConfig;
use clap::{Parser, ValueEnum};
use pretrained::smollm::SmolLm;
use pretrained::{efficientnet, fracast, minilm, smollm};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Published models, quantized by each recipe and evaluated on their task.
#[derive(Parser)]
struct Arguments {
    /// Which.
    #[arg(value_enum)]
    model: Model,
    /// The folder that `fetch.sh` filled.
    #[arg(long)]
    models: PathBuf,
    /// Windows of 512 tokens for the perplexity.
    #[arg(long, default_value_t = 8)]
    windows: usize,
    /// Windows of 512 tokens that the language model is calibrated with.
    #[arg(long, default_value_t = 32)]
    samples: usize,
    /// Write the language model for four servers into this folder, instead of comparing recipes.
    #[arg(long)]
    out: Option<PathBuf>,
    /// A gzipped text, for calibration and perplexity.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../char-gpt/data/moby-dick.txt.gz"))]
    text: PathBuf,
    /// Only recipes of the language models whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Also diagnose the sentence encoder in INT8, and write the page to this file.
    #[arg(long)]
    diagnosis: Option<PathBuf>,
    /// Also write the results to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Model {
    All,
    #[value(name = "minilm")]
    MiniLm,
    #[value(name = "smollm")]
    SmolLm,
    #[value(name = "efficientnet")]
    EfficientNet,
    Fracast,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let device = Device::default();
    let wanted = |model| arguments.model == Model::All || arguments.model == model;
    let called = |(name, _): &(&str, QuantConfig)| name.contains(&arguments.only);
    let (mut text, mut results) = (String::new(), BTreeMap::new());
    let file = std::fs::File::open(&arguments.text).map_err(|e| format!("{}: {e}", arguments.text.display()))?;
    flate2::read::GzDecoder::new(file).read_to_string(&mut text)?;

    if wanted(Model::Fracast) {
        let agreement = fracast::compare(&arguments.models)?;
        println!("\nFracast-0: {agreement:?}");
        results.insert("fracast", serde_json::to_value(agreement)?);
    }
    if wanted(Model::MiniLm) {
        let recipes = minilm::recipes().into_iter().filter(called);
        let table = minilm::evaluate(&arguments.models, &text, &device, recipes)?;
        println!("\nall-MiniLM-L6-v2\n{table}");
        results.insert("minilm", serde_json::to_value(table)?);
    }
    if let Some(path) = &arguments.diagnosis {
        let diagnosis = minilm::diagnosis(&arguments.models, &text, &device)?;
        println!("\n{diagnosis}");
        std::fs::write(path, diagnosis.html()).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    if wanted(Model::EfficientNet) {
        let table = efficientnet::evaluate(&arguments.models, &device)?;
        println!("\nEfficientNet-Lite0\n{table}");
        results.insert("efficientnet", serde_json::to_value(table)?);
    }
    if wanted(Model::SmolLm) {
        let model = SmolLm::open(&arguments.models.join(smollm::FILE), &device)?;
        let texts = model.texts(&text, arguments.samples, arguments.windows)?;
        if let Some(out) = &arguments.out {
            std::fs::create_dir_all(out).map_err(|e| format!("{}: {e}", out.display()))?;
            let written = smollm::write(&model, &texts, &device, out)?;
            results.insert("smollm files", serde_json::to_value(written)?);
        } else {
            let recipes = smollm::recipes().into_iter().filter(called);
            let table = smollm::evaluate(&model, &texts, &device, recipes)?;
            println!("\nSmolLM2-135M\n{table}");
            results.insert("smollm", serde_json::to_value(table)?);
        }
    }
    if let Some(path) = arguments.json {
        let text = serde_json::to_string_pretty(&results)?;
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}
