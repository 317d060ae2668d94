//! An ordinary burn training loop, evaluation, and generation.

use burn::grad_clipping::GradientClippingConfig;
use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::activation::{log_softmax, softmax};
use burn::tensor::{Device, Tensor};
use indicatif::{ProgressBar, ProgressStyle};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::model::CharGpt;
use crate::text::{Batch, CONTEXT, Text};

/// How to train.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    /// Batches.
    pub steps: usize,
    /// Windows of a batch.
    pub batch: usize,
    /// Learning rate after the first tenth; it rises to it and falls to zero along a cosine.
    pub learning_rate: f64,
    /// Seed of the windows.
    pub seed: u64,
}

impl Schedule {
    fn rate(&self, step: usize) -> f64 {
        let (warm, step) = ((self.steps / 10).max(1) as f64, step as f64 + 1.0);
        let fall = (step - warm) / (self.steps as f64 - warm).max(1.0);
        let share = if step < warm { step / warm } else { 0.5 * (1.0 + (std::f64::consts::PI * fall).cos()) };
        self.learning_rate * share
    }
}

/// Trains a model with AdamW.
pub fn train(mut model: CharGpt, text: &Text, schedule: Schedule, device: &Device, bar: &ProgressBar) -> CharGpt {
    let mut optimizer = AdamWConfig::new().with_grad_clipping(Some(GradientClippingConfig::Norm(1.0))).init();
    bar.set_length(schedule.steps as u64);
    for (step, batch) in text.windows(schedule.batch, schedule.seed, device).take(schedule.steps).enumerate() {
        let logits = model.forward(batch.inputs);
        let loss = CrossEntropyLossConfig::new()
            .init(device)
            .forward(logits.flatten::<2>(0, 1), batch.targets.flatten::<1>(0, 1));
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(schedule.rate(step), model, gradients);
        bar.inc(1);
    }
    bar.finish_and_clear();
    model
}

/// The bits that a model needs for each character of a text: its mean negative log2 probability.
pub fn bits_per_character(model: &CharGpt, text: &[Batch]) -> f64 {
    let model = model.valid();
    let (mut nats, mut characters) = (0.0, 0);
    for batch in text {
        let log_likely = log_softmax(model.forward(batch.inputs.clone()), 2);
        let of_targets = log_likely.gather(2, batch.targets.clone().unsqueeze_dim(2));
        nats -= of_targets.sum().into_scalar::<f32>() as f64;
        characters += batch.targets.dims().iter().product::<usize>();
    }
    nats / characters as f64 / std::f64::consts::LN_2
}

/// Continues a text to the length of a window, a character at a time from the cache of those before.
pub fn generate(model: &CharGpt, text: &Text, beginning: &str, seed: u64, device: &Device) -> String {
    const TEMPERATURE: f32 = 0.7;
    let (model, mut rng) = (model.valid(), StdRng::seed_from_u64(seed));
    let (mut characters, mut cache) = (text.encode(beginning), model.cache());
    while characters.len() < CONTEXT {
        let so_far = Tensor::<1, burn::tensor::Int>::from_data(characters.as_slice(), device).unsqueeze();
        let likely = softmax(model.next(so_far, &mut cache) / TEMPERATURE, 1);
        let likely: Vec<f32> = likely.into_data().try_into_vec().expect("f32 probabilities");
        let mut rest: f32 = rng.random();
        let next = likely.iter().position(|p| {
            rest -= p;
            rest < 0.0
        });
        characters.push(next.unwrap_or(likely.len() - 1) as i32);
    }
    text.decode(&characters)
}

/// A bar for a step of the example; hidden unless `shown`.
pub fn bar(name: &'static str, shown: bool) -> ProgressBar {
    if !shown {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix:22} {wide_bar} {pos}/{len} {elapsed}").expect("a valid template");
    ProgressBar::new(0).with_style(style).with_prefix(name)
}
