//! Train, quantize, fine-tune, save, restore, compare.

use std::path::PathBuf;
use std::time::Instant;

use burn::module::Module;
use burn::optim::{AdamWConfig, GradientsParams};
use burn::tensor::{Device, Tensor};
use burn_quant::compress::memory;
use burn_quant::{QuantConfig, QuantizerConfig, Rule, compress, presets, quantize, summary};
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
    /// Bytes of the float model in memory.
    pub float_memory_bytes: u64,
    /// Milliseconds of one image in float.
    pub float_image_ms: f64,
    /// The calibrated INT8 model, packed.
    pub int8_packed: Packed,
    /// The trained W4A4 model, packed.
    pub w4a4_packed: Packed,
    /// Whether the restored model gives the outputs of the saved one, bit for bit.
    pub restored_equal: bool,
}

/// A model whose weights are codes.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Packed {
    /// Fraction of the test images.
    pub accuracy: f64,
    /// Size of its record in bytes.
    pub file_bytes: u64,
    /// Bytes that it holds in memory.
    pub memory_bytes: u64,
    /// Milliseconds of one image.
    pub image_ms: f64,
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

    // codes instead of floats, saved and restored on the plain device
    let packed = |model: &Cnn, name: &str| -> Result<(Cnn, u64), Box<dyn std::error::Error>> {
        let (packed, _) = compress(model.valid())?;
        let path = folder.path().join(name);
        save(&packed, &path)?;
        Ok((restore(Cnn::new(&options.device), &path)?, std::fs::metadata(&path)?.len()))
    };
    let (int8_packed, int8_file) = packed(&int8, "int8-packed.bpk")?;
    let (w4a4_packed, w4a4_file) = packed(&tuned, "w4a4-packed.bpk")?;
    let image = test[0].images.clone().narrow(0, 0, 1);
    let times = milliseconds([&float.valid(), &int8_packed, &w4a4_packed], &image);
    let bytes = |model: &Cnn| memory(model).bytes() as u64;
    let deployed = |model: &Cnn, file_bytes: u64, image_ms: f64| Packed {
        accuracy: accuracy(model, &test),
        file_bytes,
        memory_bytes: bytes(model),
        image_ms,
    };

    Ok(Results {
        float_memory_bytes: bytes(&float),
        float_image_ms: times[0],
        int8_packed: deployed(&int8_packed, int8_file, times[1]),
        w4a4_packed: deployed(&w4a4_packed, w4a4_file, times[2]),
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

/// Milliseconds of one image at a time: the shortest of many, taken in turns.
fn milliseconds<const N: usize>(models: [&Cnn; N], image: &Tensor<4>) -> [f64; N] {
    const ROUNDS: usize = 200;
    let mut shortest = [f64::INFINITY; N];
    for _ in 0..ROUNDS {
        for (model, shortest) in models.iter().zip(&mut shortest) {
            let start = Instant::now();
            let logits = model.forward(image.clone());
            image.device().sync().expect("the device is alive");
            drop(logits);
            *shortest = shortest.min(start.elapsed().as_secs_f64() * 1e3);
        }
    }
    shortest
}

impl std::fmt::Display for Results {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let kib = |bytes: u64| format!("{:.0} KiB", bytes as f64 / 1024.0);
        let percent = |accuracy: f64| format!("{:.1} %", accuracy * 100.0);
        let row = |name: &str, accuracy: f64, file: Option<u64>, memory: Option<u64>, time: Option<f64>| {
            let size = |bytes: Option<u64>| bytes.map_or(String::new(), kib);
            let time = time.map_or(String::new(), |time| format!("{time:.3} ms"));
            let line = format!("{name:18}{:>10}{:>10}{:>10}{time:>12}", percent(accuracy), size(file), size(memory));
            line.trim_end().to_string()
        };
        let packed = |name: &str, model: &Packed| {
            row(name, model.accuracy, Some(model.file_bytes), Some(model.memory_bytes), Some(model.image_ms))
        };
        let (memory, time) = (Some(self.float_memory_bytes), Some(self.float_image_ms));
        writeln!(f, "{:18}{:>10}{:>10}{:>10}{:>12}", "model", "accuracy", "file", "memory", "one image")?;
        writeln!(f, "{}", row("float", self.float_acc, Some(self.float_bytes), memory, time))?;
        writeln!(f, "{}", row("INT8, calibrated", self.int8_ptq_acc, None, None, None))?;
        writeln!(f, "{}", packed("INT8, packed", &self.int8_packed))?;
        writeln!(f, "{}", row("W4A4, calibrated", self.w4a4_ptq_acc, None, None, None))?;
        writeln!(f, "{}", row("W4A4, trained", self.w4a4_qat_acc, Some(self.quantized_bytes), None, None))?;
        writeln!(f, "{}", packed("W4A4, packed", &self.w4a4_packed))?;
        let same = if self.restored_equal { "the same outputs" } else { "DIFFERENT outputs" };
        writeln!(f, "saved and restored: {same}")?;
        write!(f, "a training step of INT8 takes {:.2} times that of float", self.qat_step_ratio)
    }
}
