//! Run with `cargo run --release -p fashion-mnist`; `--help` lists the options.

use std::path::PathBuf;

use clap::Parser;
use fashion_mnist::device::Backend;
use fashion_mnist::{Options, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Float training, INT8 and W4A4 quantization and quantization-aware training of a small CNN on Fashion-MNIST.
#[derive(Parser)]
struct Arguments {
    /// Where to compute; each device is a feature of this crate.
    #[arg(long, value_enum, default_value_t = Backend::Flex)]
    device: Backend,
    /// Seed of weights and shuffling.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder of the data files.
    #[arg(long, default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/data"))]
    data: PathBuf,
    /// Also write the results to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let device = arguments.device.device()?;
    let results = run(&Options { device, seed: arguments.seed, data: arguments.data, progress: true })?;
    println!("{results}");
    if let Some(path) = arguments.json {
        let text = serde_json::to_string_pretty(&results)?;
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}
