//! Few bits: a residual network with learned step sizes, LSQ, that learns from its float self.

use std::path::PathBuf;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_quant::train::Distillation;
use burn_quant::{Algorithm, QuantConfig, QuantizerConfig, Rule, quantize};
use serde::Serialize;

use crate::data::{Batch, Dataset};
use crate::model::Classifier;
use crate::resnet::ResNet;
use crate::train::{BATCH, Schedule, accuracy, bar, train, train_with};

/// What to run.
pub struct Options {
    /// The device, without autodiff.
    pub device: Device,
    /// Seed of weights and shuffling.
    pub seed: u64,
    /// Folder of the data files.
    pub data: PathBuf,
    /// Bits of weights and activations, one network each.
    pub bits: Vec<u8>,
    /// Passes over the data, of the float training and of each of the others.
    pub epochs: u64,
    /// Images that are learned from and tested with, at most.
    pub images: usize,
    /// Temperature of the distillation.
    pub temperature: f64,
    /// Whether to draw progress bars and print what happens.
    pub progress: bool,
}

/// What came out; accuracies are fractions of the test images.
#[derive(Clone, Debug, Serialize)]
pub struct Results {
    /// The float network.
    pub float: f64,
    /// Quantized networks.
    pub quantized: Vec<Quantized>,
}

/// A network of few bits.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantized {
    /// Bits of weights and activations.
    pub bits: u8,
    /// As the method begins.
    pub calibrated: f64,
    /// After training.
    pub trained: f64,
}

/// Weights and activations of `bits` bits whose step sizes are learned; the first and the last layer have 8, as in the
/// paper.
///
/// Activations come from a ReLU, so they have no sign.
pub fn lsq(bits: u8) -> QuantConfig {
    let int = QuantizerConfig::int;
    QuantConfig::new()
        .with_rule(Rule::set("*weight_quantizer", int(bits).lsq()))
        .with_rule(Rule::set("blocks.*input_quantizer", QuantizerConfig::uint(bits).lsq()))
        .with_rule(Rule::set("{stem,fc}.weight_quantizer", int(8).lsq()))
        .with_rule(Rule::set("{stem,fc}.input_quantizer", int(8).lsq()))
        .with_algorithm(Algorithm::LsqInit)
}

/// Runs the whole example.
///
/// # Errors
///
/// If a file cannot be read, or a network cannot be quantized.
pub fn run(options: &Options) -> Result<Results, Box<dyn std::error::Error>> {
    let (device, seed, shown) = (options.device.clone().autodiff(), options.seed, options.progress);
    let read = |name| Dataset::read(&options.data, name).map(|dataset| dataset.first(options.images));
    let training = read("train")?;
    let test = read("test")?.batches(250, &options.device);
    let calibration: Vec<Batch> = training.shuffled(BATCH, seed, &options.device).take(4).collect();

    device.seed(seed);
    let schedule = Schedule { epochs: options.epochs, learning_rate: 5e-3, seed };
    let float = train(ResNet::new(&device), &training, schedule, &device, &bar("float training", shown));
    let teacher = float.valid();
    let mut results = Results { float: accuracy(&float, &test), quantized: Vec::new() };
    for &bits in &options.bits {
        let (network, _) = quantize(float.clone(), &lsq(bits), |network| {
            calibration.iter().for_each(|batch| drop(network.logits(batch.images.clone())));
        })?;
        let calibrated = accuracy(&network, &test);
        let schedule = Schedule { epochs: options.epochs, learning_rate: 2e-3, seed: seed + 1 };
        let network =
            train_with(network, &training, schedule, &device, &bar("LSQ training", shown), |network, batch| {
                let labels = teacher.logits(batch.images.clone().inner());
                Distillation::new(options.temperature).loss(network.logits(batch.images), Tensor::from_inner(labels))
            });
        let quantized = Quantized { bits, calibrated, trained: accuracy(&network, &test) };
        if shown {
            eprintln!("float {:.3}, {quantized:?}", results.float);
        }
        results.quantized.push(quantized);
    }
    Ok(results)
}

impl Results {
    /// Points of accuracy that training at some bits leaves lost.
    pub fn drop(&self, bits: u8) -> Option<f64> {
        let network = self.quantized.iter().find(|network| network.bits == bits)?;
        Some(100.0 * (self.float - network.trained))
    }
}

impl std::fmt::Display for Results {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "float            {:6.1} %", 100.0 * self.float)?;
        for Quantized { bits, calibrated, trained } in &self.quantized {
            let (calibrated, trained) = (100.0 * calibrated, 100.0 * trained);
            write!(f, "\nW{bits}A{bits}, calibrated {calibrated:6.1} %   trained {trained:6.1} %")?;
        }
        Ok(())
    }
}
