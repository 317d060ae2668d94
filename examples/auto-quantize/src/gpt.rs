//! The language model of the example `char-gpt`.

use burn::nn::loss::CrossEntropyLossConfig;
use burn::tensor::{Device, Tensor};
use burn_quant::search::AutoQuantizeConfig;
use char_gpt::Options;
use char_gpt::experiment::float_model;
use char_gpt::model::CharGpt;
use char_gpt::text::{Batch, Text};
use char_gpt::train::bits_per_character;

use crate::comparison::{Comparison, Task, compare, search};
use crate::{bar, integers};

/// Batches that formats are calibrated and layers scored with, of the training text.
pub const BATCHES: usize = 8;

/// Integer weights of 3 to 8 bits with 8-bit inputs, within a budget.
pub fn config(effective_bits: f64) -> AutoQuantizeConfig {
    AutoQuantizeConfig::new(effective_bits, [3, 4, 5, 6, 8].map(|bits| integers(bits, 8)))
        .with_batches(BATCHES, BATCHES)
}

/// Trains the model or reads it, searches, and compares.
///
/// # Errors
///
/// If a file cannot be read or written, or a model cannot be quantized.
pub fn run(options: &Options) -> Result<Comparison, Box<dyn std::error::Error>> {
    let text = Text::read(&options.text)?;
    let held_out = text.held_out(options.windows, 16, &options.device);
    let float = float_model(options, &text, &options.device.clone().autodiff())?;

    let (config, bar) = (config(8.0), bar("search", options.progress));
    let batches = |device: &Device| text.windows(16, options.seed + 1000, device).take(BATCHES).collect::<Vec<_>>();
    let (_, state) = search(&config, &bar).by_gradient(
        float.clone(),
        batches,
        |model: &CharGpt, batch: &Batch| model.forward(batch.inputs.clone()),
        |logits: Tensor<3>, batch| {
            let loss = CrossEntropyLossConfig::new().init(&logits.device());
            loss.forward(logits.flatten::<2>(0, 1), batch.targets.clone().flatten::<1>(0, 1))
        },
    )?;
    if options.progress {
        println!("{}\n", state.table());
    }
    let task = Task {
        name: "character-level GPT",
        measures: &["bits per character"],
        more_is_better: false,
        float: &float,
        ends: &["blocks.layers.0.mha.query", "lm_head"],
        evaluate: &|model| vec![bits_per_character(model, &held_out)],
    };
    Ok(compare(&task, &state)?)
}
