//! Calibration by several processes: each observes its share of the data, one merges and solves.
//!
//! `cargo run --release -p data-parallel`
//!
//! ```text
//! worker 0: images 0, 2, 4, ...  ──observe──► shard-0.bpk ─┐
//! worker 1: images 1, 3, 5, ...  ──observe──► shard-1.bpk ─┴─ merge ──solve──► the model that one process would make
//! ```

use std::path::{Path, PathBuf};
use std::process::Command;

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_quant::calibrate::{ModelStatistics, calibrate, observe};
use burn_quant::nn::{QuantLinear, QuantLinearConfig};
use burn_quant::place::{WeightLayouts, place};
use burn_quant::{Algorithm, QuantConfig, presets};
use burn_quant_store::{load_statistics, save_statistics};
use clap::Parser;
use fashion_mnist::data::Dataset;
use serde::Serialize;

const IMAGES: usize = 1024;
const BATCH: usize = 128;

#[derive(Parser)]
struct Arguments {
    /// Writes the results here too.
    #[arg(long)]
    json: Option<PathBuf>,
    /// How many processes share the data.
    #[arg(long, default_value_t = 2)]
    workers: usize,
    /// Observes this share of the data, and nothing else: how the example calls itself.
    #[arg(long, requires = "output")]
    shard: Option<usize>,
    /// Where a worker leaves what it saw.
    #[arg(long)]
    output: Option<PathBuf>,
}

#[derive(Serialize)]
struct Results {
    workers: usize,
    /// Ranges that differ from those of one process, of all.
    ranges_that_differ: usize,
    ranges: usize,
    /// The largest difference of a sum, relative to the largest sum of its layer.
    sums_rel: f64,
    /// The error of outputs that quantization causes, merged over one process.
    error_ratio: f64,
}

#[derive(Module, Debug)]
struct Mlp {
    fc1: QuantLinear,
    fc2: QuantLinear,
    fc3: QuantLinear,
}

impl Mlp {
    /// The same weights in every process: a real one would load them.
    fn new(device: &Device) -> Self {
        device.seed(3);
        let linear = |inputs, outputs| QuantLinearConfig::new(inputs, outputs).init(device);
        Self { fc1: linear(784, 256), fc2: linear(256, 128), fc3: linear(128, 10) }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = images.flatten(1, 3);
        self.fc3.forward(relu(self.fc2.forward(relu(self.fc1.forward(x)))))
    }
}

/// AWQ-lite, then GPTQ on what it leaves: both work on the same statistics.
fn algorithm() -> Algorithm {
    Algorithm::Sequence(vec![Algorithm::awq_lite(), Algorithm::gptq()])
}

fn config() -> QuantConfig {
    let weights = burn_quant::QuantizerConfig::int(4).per_block(32);
    presets::int8_default().with_rule(burn_quant::Rule::set("*weight_quantizer", weights)).with_algorithm(algorithm())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let device = Device::flex();
    let (model, _) = place(Mlp::new(&device), &config(), &WeightLayouts::new())?;
    let batches = images(&device)?;
    if let (Some(shard), Some(output)) = (arguments.shard, &arguments.output) {
        let own: Vec<_> = batches.into_iter().skip(shard).step_by(arguments.workers).collect();
        save_statistics(&observed(&model, &own)?, output)?;
        return Ok(());
    }

    let folder = tempfile::tempdir()?;
    let files: Vec<PathBuf> =
        (0..arguments.workers).map(|shard| folder.path().join(format!("shard-{shard}.bpk"))).collect();
    run_workers(&files)?;
    let mut merged = ModelStatistics::default();
    for file in &files {
        merged = merged.merge(load_statistics(file)?)?;
    }
    let whole = observed(&model, &batches)?;
    let results = compare(&model, &whole, &merged, &batches, arguments.workers)?;
    println!("{} workers, {} images", results.workers, IMAGES);
    println!("ranges that differ from one process's   {} of {}", results.ranges_that_differ, results.ranges);
    println!("largest relative difference of a sum    {:.1e}", results.sums_rel);
    println!("output error / that of one process      {:.6}", results.error_ratio);
    if let Some(file) = arguments.json {
        let text = serde_json::to_string_pretty(&results)?;
        std::fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    Ok(())
}

fn images(device: &Device) -> std::io::Result<Vec<Tensor<4>>> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fashion-mnist/data");
    let batches = Dataset::read(&data, "train")?.batches(BATCH, device);
    Ok(batches.into_iter().take(IMAGES / BATCH).map(|batch| batch.images).collect())
}

/// Starts this program once per share, and waits for all.
fn run_workers(files: &[PathBuf]) -> Result<(), Box<dyn std::error::Error>> {
    let start = |(shard, file): (usize, &PathBuf)| {
        let mut worker = Command::new(std::env::current_exe()?);
        worker.args(["--workers", &files.len().to_string(), "--shard", &shard.to_string()]).arg("--output").arg(file);
        worker.spawn()
    };
    let workers = files.iter().enumerate().map(start).collect::<Result<Vec<_>, std::io::Error>>()?;
    for (shard, mut worker) in workers.into_iter().enumerate() {
        let status = worker.wait()?;
        if !status.success() {
            return Err(format!("worker {shard} ended with {status}").into());
        }
    }
    Ok(())
}

fn observed(model: &Mlp, batches: &[Tensor<4>]) -> Result<ModelStatistics, burn_quant::QuantError> {
    observe(model, &algorithm(), |model| batches.iter().for_each(|batch| drop(model.forward(batch.clone()))))
}

fn compare(
    model: &Mlp,
    whole: &ModelStatistics,
    merged: &ModelStatistics,
    batches: &[Tensor<4>],
    workers: usize,
) -> Result<Results, Box<dyn std::error::Error>> {
    let (mut differ, mut ranges, mut sums_rel) = (0, 0, 0f64);
    for (name, seen) in whole.iter() {
        let other = merged.get(name).ok_or("a quantizer is missing")?;
        ranges += seen.amax.len();
        differ += seen.amax.iter().zip(&other.amax).filter(|(a, b)| a != b).count();
        let gram =
            |s: &burn_quant::calibrate::Statistics| s.channels.as_ref().and_then(|channels| channels.gram.clone());
        if let (Some(one), Some(both)) = (gram(seen), gram(other)) {
            let top = one.upper.iter().fold(0f32, |top, x| top.max(x.abs()));
            let off = one.upper.iter().zip(&both.upper).fold(0f32, |off, (a, b)| off.max((a - b).abs()));
            sums_rel = sums_rel.max(f64::from(off / top));
        }
    }
    let (float, images) = (Mlp::new(&Device::flex()), batches[0].clone());
    let error = |statistics: &ModelStatistics| -> Result<f64, burn_quant::QuantError> {
        let (quantized, _) = calibrate(model.clone(), statistics, &algorithm())?;
        let change = quantized.forward(images.clone()) - float.forward(images.clone());
        Ok(f64::from((change.clone() * change).mean().into_scalar::<f32>()))
    };
    let error_ratio = error(merged)? / error(whole)?;
    Ok(Results { workers, ranges_that_differ: differ, ranges, sums_rel, error_ratio })
}
