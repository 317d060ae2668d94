//! Run with `cargo run --release -p auto-quantize -- cnn`; `--help` lists models and options.

use std::io::Read;
use std::path::{Path, PathBuf};

use auto_quantize::{Comparison, cnn, gpt, minilm};
use clap::{Parser, ValueEnum};
use fashion_mnist::device::Backend;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The best format of each layer at 4.5, 5, 6 and 8 bits per parameter, against uniform formats and wider first and
/// last layers.
#[derive(Parser)]
struct Arguments {
    /// The model.
    #[arg(value_enum)]
    model: Model,
    /// Where to compute; each device is a feature of this crate.
    #[arg(long, value_enum, default_value_t = Backend::Flex)]
    device: Backend,
    /// Seed of weights and batches.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Passes over the data of the network's float training.
    #[arg(long, default_value_t = 12)]
    epochs: u64,
    /// Images that the network is trained on, and evaluated on, at most.
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    images: usize,
    /// Steps of the language model's float training.
    #[arg(long, default_value_t = 1000)]
    steps: usize,
    /// Windows of held-out text that the language model is evaluated on.
    #[arg(long, default_value_t = 128)]
    windows: usize,
    /// A record of the language model's weights: read if it is there instead of training, else written.
    #[arg(long)]
    weights: Option<PathBuf>,
    /// The folder with published models that `examples/pretrained/fetch.sh` filled.
    #[arg(long)]
    models: Option<PathBuf>,
    /// Also write the results to this file.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Also draw the comparison to this file.
    #[arg(long)]
    svg: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Model {
    /// A small convolutional network, by its accuracy on Fashion-MNIST.
    Cnn,
    /// A character-level language model, by its bits per character.
    Gpt,
    /// A published sentence encoder, by the cosine to its float embeddings.
    Minilm,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let comparison = compare(&arguments)?;
    println!("{comparison}");
    if let Some(path) = arguments.json {
        let text = serde_json::to_string_pretty(&comparison)?;
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    if let Some(path) = arguments.svg {
        plot::write(&path, &comparison.plot.to_svg())?;
    }
    Ok(())
}

fn compare(arguments: &Arguments) -> Result<Comparison, Box<dyn std::error::Error>> {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let (device, text) = (arguments.device.device()?, examples.join("char-gpt/data/moby-dick.txt.gz"));
    match arguments.model {
        Model::Cnn => {
            let data = examples.join("fashion-mnist/data");
            cnn::run(&data, &device, arguments.seed, arguments.epochs, arguments.images, true)
        }
        Model::Gpt => gpt::run(&char_gpt::Options {
            device,
            seed: arguments.seed,
            text,
            steps: arguments.steps,
            qat_steps: 0,
            windows: arguments.windows,
            weights: arguments.weights.clone(),
            progress: true,
        }),
        Model::Minilm => {
            let models = arguments.models.as_ref().ok_or("`--models` says where the published models are")?;
            let mut moby_dick = String::new();
            let file = std::fs::File::open(&text).map_err(|e| format!("{}: {e}", text.display()))?;
            flate2::read::GzDecoder::new(file).read_to_string(&mut moby_dick)?;
            minilm::run(models, &moby_dick, &device, true)
        }
    }
}
