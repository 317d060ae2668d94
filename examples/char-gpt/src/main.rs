//! Run with `cargo run --release -p char-gpt`; `--help` lists the options.

use std::path::PathBuf;

use burn::tensor::Device;
use char_gpt::{Options, run};
use clap::{Parser, ValueEnum};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A character-level GPT: trained, quantized by several recipes, trained on, and generating from a quantized cache.
#[derive(Parser)]
struct Arguments {
    /// Where to compute; each device is a feature of this crate.
    #[arg(long, value_enum, default_value_t = Backend::Flex)]
    device: Backend,
    /// Seed of weights, windows and generation.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Steps of the float training.
    #[arg(long, default_value_t = 1000)]
    steps: usize,
    /// Steps of each quantization-aware training.
    #[arg(long, default_value_t = 200)]
    qat_steps: usize,
    /// Windows of held-out text that are evaluated.
    #[arg(long, default_value_t = 256)]
    windows: usize,
    /// The gzipped text.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/data/moby-dick.txt.gz"))]
    text: PathBuf,
    /// A record of float weights: read if it is there instead of training, else written.
    #[arg(long)]
    weights: Option<PathBuf>,
    /// Also write the results to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Backend {
    Flex,
    Wgpu,
    Cuda,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let results = run(&Options {
        device: device(arguments.device)?,
        seed: arguments.seed,
        text: arguments.text,
        steps: arguments.steps,
        qat_steps: arguments.qat_steps,
        windows: arguments.windows,
        weights: arguments.weights,
        progress: true,
    })?;
    println!("{results}");
    if let Some(path) = arguments.json {
        let text = serde_json::to_string_pretty(&results)?;
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}

fn device(backend: Backend) -> Result<Device, String> {
    match backend {
        #[cfg(feature = "flex")]
        Backend::Flex => Ok(Device::flex()),
        #[cfg(feature = "wgpu")]
        Backend::Wgpu => Ok(Device::wgpu(Default::default())),
        #[cfg(feature = "cuda")]
        Backend::Cuda => Ok(Device::cuda(0)),
        #[allow(unreachable_patterns)]
        other => {
            let name = other.to_possible_value().expect("every device has a name").get_name().to_string();
            Err(format!("this binary was built without `{name}`: add `--features {name}` to the cargo command"))
        }
    }
}
