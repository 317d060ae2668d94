//! Run with `cargo run --release -p number-formats`; `--help` lists the options.
//!
//! Quantizes the same values in every format and prints how much of them is lost, for how many bits. `--svg FILE` draws
//! the plot of the book's chapter on number formats.

mod data;
mod drawing;

use std::path::PathBuf;

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use burn_quant::config::{BlockScale, Format, Granularity, ScaleFormat};
use burn_quant::{QuantConfig, QuantError, QuantizerConfig, Rule, quantize_weights};
use clap::Parser;
use serde::Serialize;

/// The error of every number format against its bits.
#[derive(Parser)]
struct Arguments {
    /// Seed of the data.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also draw a plot into this file.
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Also write the results to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What a format makes of the data.
#[derive(Serialize)]
struct Outcome {
    format: &'static str,
    /// Bits per value, scales included.
    bits: f64,
    /// Signal to quantization noise, in dB: 10·log10(Σx² / Σ(x − y)²).
    gaussian_db: f64,
    heavy_tailed_db: f64,
}

/// Rows and columns of the data: a weight of 1024 outputs.
const SHAPE: [usize; 2] = [1024, 1024];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let device = Device::flex();
    let gaussian = data::gaussian(SHAPE, arguments.seed, &device);
    let heavy_tailed = data::heavy_tailed(SHAPE, arguments.seed, &device);
    let mut outcomes = Vec::new();
    println!("{:22} {:>6}  {:>12}  {:>16}", "format", "bits", "Gaussian, dB", "heavy-tailed, dB");
    for (format, config) in formats() {
        let bits = bits_per_value(&config);
        let gaussian_db = signal_to_noise(&gaussian, &config)?;
        let heavy_tailed_db = signal_to_noise(&heavy_tailed, &config)?;
        println!("{format:22} {bits:6.3}  {gaussian_db:12.1}  {heavy_tailed_db:16.1}");
        outcomes.push(Outcome { format, bits, gaussian_db, heavy_tailed_db });
    }
    if let Some(file) = arguments.json {
        let text = serde_json::to_string_pretty(&outcomes)?;
        std::fs::write(&file, text).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    if let Some(file) = arguments.svg {
        plot::write(&file, &drawing::rows(&outcomes))?;
    }
    Ok(())
}

fn formats() -> Vec<(&'static str, QuantizerConfig)> {
    let int = |bits: u8, block| QuantizerConfig::int(bits).per_block(block);
    let float = |format| QuantizerConfig::new(format);
    vec![
        ("INT2 block 32", int(2, 32)),
        ("INT3 block 32", int(3, 32)),
        ("INT4 block 128", int(4, 128)),
        ("INT4 block 32", int(4, 32)),
        ("INT6 block 128", int(6, 128)),
        ("INT8 per channel", QuantizerConfig::int(8).per_channel()),
        ("INT8 per tensor", QuantizerConfig::int(8)),
        ("NF4 block 64", float(Format::Nf4).per_block(64)),
        ("E4M3 per tensor", float(Format::E4M3)),
        ("E5M2 per tensor", float(Format::E5M2)),
        ("MXFP4", QuantizerConfig::mx(Format::E2M1)),
        ("MXFP6 E3M2", QuantizerConfig::mx(Format::E3M2)),
        ("MXFP6 E2M3", QuantizerConfig::mx(Format::E2M3)),
        ("MXFP8 E4M3", QuantizerConfig::mx(Format::E4M3)),
        ("MXFP8 E5M2", QuantizerConfig::mx(Format::E5M2)),
        ("MXINT8", QuantizerConfig::mxint8()),
        ("NVFP4", QuantizerConfig::nvfp4()),
        ("NVFP4 static", QuantizerConfig::nvfp4_static()),
        ("INT4, E4M3 scales", int(4, 16).with_scale(ScaleFormat::E4M3(BlockScale::Dynamic))),
    ]
}

/// Bits of codes and scales over the number of values.
fn bits_per_value(config: &QuantizerConfig) -> f64 {
    let [rows, columns] = SHAPE.map(|len| len as f64);
    let per_scale = match config.granularity {
        Granularity::Block { size } => size as f64,
        Granularity::PerChannel => rows,
        _ => rows * columns,
    };
    let (scale, tensor) = match config.scale {
        ScaleFormat::F32 => (32.0, 0.0),
        ScaleFormat::E8M0 => (8.0, 0.0),
        ScaleFormat::E4M3(_) => (8.0, 32.0 / (rows * columns)),
    };
    f64::from(config.format.bits()) + scale / per_scale + tensor
}

/// The data as the weight of a layer, quantized.
fn signal_to_noise(x: &Tensor<2>, config: &QuantizerConfig) -> Result<f64, QuantError> {
    let layer = Linear { weight: Param::from_tensor(x.clone()), bias: None };
    let rules = QuantConfig::new().with_rule(Rule::set("weight_quantizer", config.clone()));
    let (layer, _) = quantize_weights(layer, &rules)?;
    let energy = |x: Tensor<2>| f64::from((x.clone() * x).sum().into_scalar::<f32>());
    Ok(10.0 * (energy(x.clone()) / energy(x.clone() - layer.weight.val())).log10())
}
