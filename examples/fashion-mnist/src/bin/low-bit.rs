//! Run with `cargo run --release -p fashion-mnist --bin low-bit`; `--help` lists the options.

use std::path::PathBuf;

use clap::Parser;
use fashion_mnist::device::Backend;
use fashion_mnist::low_bit::{Options, run};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A residual network of 20 layers on Fashion-MNIST: float training, then networks of few bits with learned step sizes.
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
    /// Bits of weights and activations.
    #[arg(long, value_delimiter = ',', default_value = "4,3,2")]
    bits: Vec<u8>,
    /// Passes over the data, of each training.
    #[arg(long, default_value_t = 20)]
    epochs: u64,
    /// Images that are learned from and tested with, at most: fewer for a quick look.
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true)]
    images: usize,
    /// Temperature of the distillation from the float network.
    #[arg(long, default_value_t = 2.0)]
    temperature: f64,
    /// Also write the results to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let device = arguments.device.device()?;
    let results = run(&Options {
        device,
        seed: arguments.seed,
        data: arguments.data,
        bits: arguments.bits,
        epochs: arguments.epochs,
        images: arguments.images,
        temperature: arguments.temperature,
        progress: true,
    })?;
    println!("{results}");
    if let Some(path) = arguments.json {
        let text = serde_json::to_string_pretty(&results)?;
        std::fs::write(&path, text).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    Ok(())
}
