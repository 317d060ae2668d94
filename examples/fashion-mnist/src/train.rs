//! An ordinary burn training loop. It knows nothing of quantization: a quantized model is trained like a float one.

use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Tensor};
use indicatif::{ProgressBar, ProgressStyle};

use crate::data::{Batch, Dataset};
use crate::model::Classifier;

/// Images of a batch.
pub const BATCH: usize = 64;

/// How to train.
#[derive(Clone, Copy)]
pub struct Schedule {
    /// Passes over the data.
    pub epochs: u64,
    /// Learning rate of the first step; it falls linearly to a tenth.
    pub learning_rate: f64,
    /// Seed of the shuffling.
    pub seed: u64,
}

/// Trains a model with AdamW to answer with the labels.
pub fn train<M: Classifier>(model: M, data: &Dataset, schedule: Schedule, device: &Device, bar: &ProgressBar) -> M {
    train_with(model, data, schedule, device, bar, loss)
}

/// Trains a model with AdamW on any loss.
pub fn train_with<M: Classifier>(
    mut model: M,
    data: &Dataset,
    schedule: Schedule,
    device: &Device,
    bar: &ProgressBar,
    loss: impl Fn(&M, Batch) -> Tensor<1>,
) -> M {
    let mut optimizer = AdamWConfig::new().init();
    let steps = schedule.epochs * (data.len() / BATCH) as u64;
    bar.set_length(steps);
    let mut step = 0;
    for epoch in 0..schedule.epochs {
        for batch in data.shuffled(BATCH, schedule.seed.wrapping_mul(1000) + epoch, device) {
            let rate = schedule.learning_rate * (1.0 - 0.9 * step as f64 / steps as f64);
            let gradients = GradientsParams::from_grads(loss(&model, batch).backward(), &model);
            model = optimizer.step(rate, model, gradients);
            step += 1;
            bar.inc(1);
        }
    }
    bar.finish();
    model
}

/// The cross-entropy on one batch.
pub fn loss<M: Classifier>(model: &M, batch: Batch) -> Tensor<1> {
    let logits = model.logits(batch.images);
    CrossEntropyLossConfig::new().init(&logits.device()).forward(logits, batch.labels)
}

/// The fraction of images that a model classifies right.
pub fn accuracy<M: Classifier>(model: &M, data: &[Batch]) -> f64 {
    let model = model.valid();
    let (mut right, mut all) = (0, 0);
    for batch in data {
        let predicted = model.logits(batch.images.clone()).argmax(1).flatten::<1>(0, 1);
        right += predicted.equal(batch.labels.clone()).int().sum().into_scalar::<i64>();
        all += batch.labels.dims()[0];
    }
    right as f64 / all as f64
}

/// A bar for a step of the example; hidden unless `shown`.
pub fn bar(name: &'static str, shown: bool) -> ProgressBar {
    if !shown {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("{prefix:22} {wide_bar} {pos}/{len} {elapsed}").expect("a valid template");
    ProgressBar::new(0).with_style(style).with_prefix(name)
}
