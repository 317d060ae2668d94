//! The sentence encoder of the example `pretrained`.

use std::path::Path;

use burn::tensor::{Device, Distribution, Tensor};
use burn_quant::search::AutoQuantizeConfig;
use pretrained::minilm::{MiniLm, Sentences, embeddings, published};

use crate::comparison::{Comparison, Task, compare, search};
use crate::{bar, integers};

/// Integer weights of 4 to 8 bits with 8-bit inputs; embeddings, half of the model, stay as they are and do not count.
pub fn config(effective_bits: f64, batches: usize) -> AutoQuantizeConfig {
    let config = AutoQuantizeConfig::new(effective_bits, [4, 5, 6, 8].map(|bits| integers(bits, 8)));
    config.with_batches(batches, batches).exclude_from_budget("embeddings.*")
}

/// Reads the published model, searches, and compares.
///
/// There are no labels to have a loss of. The loss is the product of the embeddings with random numbers: the mean
/// square of its changes is that of the embeddings.
///
/// # Errors
///
/// If a file cannot be read, or the model cannot be quantized.
pub fn run(models: &Path, text: &str, device: &Device, shown: bool) -> Result<Comparison, Box<dyn std::error::Error>> {
    let (float, task) = published(models, text, device)?;
    let expected = embeddings(&float, &task.evaluation);
    let (config, bar) = (config(8.0, task.calibration.len()), bar("search", shown));
    let data = |device: &Device| {
        let moved = |batch: &Sentences| Sentences {
            words: batch.words.clone().to_device(device),
            padding: batch.padding.clone().to_device(device),
        };
        task.calibration.iter().map(moved).collect::<Vec<_>>()
    };
    device.seed(1);
    let loss = |y: Tensor<2>, _: &Sentences| (y.clone() * y.random_like(Distribution::Normal(0.0, 1.0)).detach()).sum();
    let forward = |model: &MiniLm, batch: &Sentences| model.forward(batch);
    let (_, state) = search(&config, &bar).by_gradient(float.clone(), data, forward, loss)?;
    if shown {
        println!("{}\n", state.table());
    }
    let compared = Task {
        name: "all-MiniLM-L6-v2",
        measures: &["cosine to the float embeddings", "WordSim-353", "SimLex-999"],
        more_is_better: true,
        float: &float,
        ends: &["encoder.layers.0.mha.query", "encoder.layers.5.pwff.linear_outer"],
        evaluate: &|model| task.scores(&embeddings(model, &task.evaluation), &expected),
    };
    Ok(compare(&compared, &state)?)
}
