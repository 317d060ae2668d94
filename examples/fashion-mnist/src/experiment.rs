//! Train, quantize, fine-tune, save, restore, compare.

use std::path::PathBuf;
use std::time::Instant;

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::Device;
use burn_quant::{QuantConfig, QuantizerConfig, Rule, presets, quantize, summary};
use burn_quant_store::{restore, save};
use serde::Serialize;

use crate::data::{Batch, Dataset};
use crate::model::Cnn;
use crate::train::{BATCH, Schedule, accuracy, bar, loss, train};

/// What to run.
pub struct Options {
    /// The device, without autodiff.
    pub device: Device,
    /// Seed of weights and shuffling.
    pub seed: u64,
    /// Folder of the data files.
    pub data: PathBuf,
    /// Whether to draw progress bars and print what happens.
    pub progress: bool,
}

/// What came out; accuracies are fractions of the 1000 test images.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Results {
    /// The float model.
    pub float_acc: f64,
    /// INT8 weights per channel and activations per tensor, calibrated.
    pub int8_ptq_acc: f64,
    /// INT4 weights per channel and activations per tensor, calibrated.
    pub w4a4_ptq_acc: f64,
    /// The same after quantization-aware training.
    pub w4a4_qat_acc: f64,
    /// Time of a training step, quantized over float: medians of interleaved steps.
    pub qat_step_ratio: f64,
    /// Size of the float model's record in bytes.
    pub float_bytes: u64,
    /// Size of the quantized model's record in bytes; its weights are stored in f32.
    pub quantized_bytes: u64,
    /// Whether the restored model gives the outputs of the saved one, bit for bit.
    pub restored_equal: bool,
}

/// INT4 weights and activations: coarse enough that accuracy falls without training.
pub fn w4a4() -> QuantConfig {
    QuantConfig::new()
        .with_rule(Rule::set("*weight_quantizer", QuantizerConfig::int(4).per_channel()))
        .with_rule(Rule::set("*input_quantizer", QuantizerConfig::int(4)))
}

/// Runs the whole example.
///
/// # Errors
///
/// If a file cannot be read or written, or a model cannot be quantized or restored.
pub fn run(options: &Options) -> Result<Results, Box<dyn std::error::Error>> {
    let (device, seed, shown) = (options.device.clone().autodiff(), options.seed, options.progress);
    let training = Dataset::read(&options.data, "train")?;
    let test = Dataset::read(&options.data, "test")?.batches(250, &options.device);
    let calibration: Vec<Batch> = training.shuffled(BATCH, seed, &options.device).take(8).collect();

    device.seed(seed);
    let schedule = Schedule { epochs: 12, learning_rate: 2e-3, seed };
    let float = train(Cnn::new(&device), &training, schedule, &device, &bar("float training", shown));

    let calibrate = |config: &QuantConfig, name| {
        let bar = bar(name, shown);
        bar.set_length(calibration.len() as u64);
        quantize(float.clone(), config, |model| {
            for batch in &calibration {
                model.forward(batch.images.clone());
                bar.inc(1);
            }
            bar.finish();
        })
    };
    let (int8, _) = calibrate(&presets::int8_default(), "INT8 calibration")?;
    let (w4a4, _) = calibrate(&w4a4(), "W4A4 calibration")?;

    let schedule = Schedule { epochs: 12, learning_rate: 2e-3, seed: seed + 1 };
    let tuned = train(w4a4.clone(), &training, schedule, &device, &bar("W4A4 training", shown));

    let folder = tempfile::tempdir()?;
    let (float_path, path) = (folder.path().join("float.bpk"), folder.path().join("w4a4.bpk"));
    float.clone().save_file(&float_path)?;
    save(&tuned, &path)?;
    let restored = restore(Cnn::new(&options.device), &path)?;
    if shown {
        println!("\n{}\n", summary(&restored));
    }

    Ok(Results {
        float_acc: accuracy(&float, &test),
        int8_ptq_acc: accuracy(&int8, &test),
        w4a4_ptq_acc: accuracy(&w4a4, &test),
        w4a4_qat_acc: accuracy(&tuned, &test),
        qat_step_ratio: step_ratio(&float, &int8, &training, &device),
        float_bytes: std::fs::metadata(&float_path)?.len(),
        quantized_bytes: std::fs::metadata(&path)?.len(),
        restored_equal: same_outputs(&tuned, &restored, &test),
    })
}

/// Training step of the INT8 model over that of the float model: medians of steps taken in turns.
fn step_ratio(float: &Cnn, quantized: &Cnn, data: &Dataset, device: &Device) -> f64 {
    const STEPS: usize = 30;
    let mut times = [Vec::new(), Vec::new()];
    let mut models = [float.clone(), quantized.clone()];
    let mut optimizers = [AdamWConfig::new().init(), AdamWConfig::new().init()];
    for batch in data.shuffled(BATCH, 0, device).take(STEPS) {
        for i in 0..2 {
            let start = Instant::now();
            let gradients = GradientsParams::from_grads(loss(&models[i], batch.clone()).backward(), &models[i]);
            models[i] = optimizers[i].step(1e-4, models[i].clone(), gradients);
            device.sync().expect("the device is alive");
            times[i].push(start.elapsed().as_secs_f64());
        }
    }
    let [float, quantized] = times.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[STEPS / 2]
    });
    quantized / float
}

fn same_outputs(a: &Cnn, b: &Cnn, data: &[Batch]) -> bool {
    let (a, b) = (a.valid(), b.valid());
    data.iter().all(|batch| {
        let (a, b) = (a.forward(batch.images.clone()), b.forward(batch.images.clone()));
        a.into_data() == b.into_data()
    })
}

impl std::fmt::Display for Results {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kib = |bytes: u64| bytes as f64 / 1024.0;
        writeln!(f, "model                  accuracy   record")?;
        writeln!(f, "float                  {:7.1} %  {:6.0} KiB", self.float_acc * 100.0, kib(self.float_bytes))?;
        writeln!(f, "INT8, calibrated       {:7.1} %", self.int8_ptq_acc * 100.0)?;
        writeln!(f, "W4A4, calibrated       {:7.1} %", self.w4a4_ptq_acc * 100.0)?;
        let kib = kib(self.quantized_bytes);
        writeln!(
            f,
            "W4A4, trained          {:7.1} %  {kib:6.0} KiB (f32 weights + quantizers)",
            self.w4a4_qat_acc * 100.0
        )?;
        let same = if self.restored_equal { "the same outputs" } else { "DIFFERENT outputs" };
        writeln!(f, "saved and restored: {same}")?;
        write!(f, "training step, INT8 / float: {:.2}", self.qat_step_ratio)
    }
}
