//! The network of the example `fashion-mnist`.

use std::path::Path;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::Device;
use burn_quant::search::AutoQuantizeConfig;
use fashion_mnist::data::{Batch, Dataset};
use fashion_mnist::model::Cnn;
use fashion_mnist::train::{BATCH, Schedule, accuracy, train};

use crate::comparison::{Comparison, Task, compare, search};
use crate::{bar, integers};

/// Batches that formats are calibrated and layers scored with, of the training data.
pub const BATCHES: usize = 64;

/// Integers of equal bits for weights and inputs, within a budget.
pub fn config(effective_bits: f64) -> AutoQuantizeConfig {
    AutoQuantizeConfig::new(effective_bits, [4, 5, 6, 8].map(|bits| integers(bits, bits)))
        .with_batches(BATCHES, BATCHES)
}

/// Trains the network, searches, and compares.
///
/// # Errors
///
/// If the data cannot be read, or a model cannot be quantized.
pub fn run(
    data: &Path,
    device: &Device,
    seed: u64,
    epochs: u64,
    images: usize,
    shown: bool,
) -> Result<Comparison, Box<dyn std::error::Error>> {
    let training = Dataset::read(data, "train")?.first(images);
    let test = Dataset::read(data, "test")?.first(images).batches(250, device);
    let autodiff = device.clone().autodiff();
    autodiff.seed(seed);
    let schedule = Schedule { epochs, learning_rate: 2e-3, seed };
    let float = train(Cnn::new(&autodiff), &training, schedule, &autodiff, &bar("training", shown));

    let answered = |batch: &Batch| {
        let labels = float.valid().forward(batch.images.clone()).argmax(1).flatten::<1>(0, 1);
        Batch { labels, ..batch.clone() }
    };
    let answers: Vec<Batch> = test.iter().map(answered).collect();

    let (config, bar) = (config(8.0), bar("search", shown));
    let batches = |device: &Device| training.shuffled(BATCH, seed, device).collect::<Vec<_>>();
    let (_, state) = search(&config, &bar).by_gradient(
        float.clone(),
        batches,
        |model: &Cnn, batch: &Batch| model.forward(batch.images.clone()),
        |logits, batch| CrossEntropyLossConfig::new().init(&logits.device()).forward(logits, batch.labels.clone()),
    )?;
    if shown {
        println!("{}\n", state.table());
    }
    let task = Task {
        name: "Fashion-MNIST network",
        measures: &["accuracy", "answers of the float model"],
        more_is_better: true,
        float: &float,
        ends: &["conv1", "fc2"],
        evaluate: &|model| vec![accuracy(model, &test), accuracy(model, &answers)],
    };
    Ok(compare(&task, &state)?)
}
