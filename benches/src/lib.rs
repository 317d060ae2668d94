//! What the benches and the figures share: devices, inputs, and training steps.

pub mod calibration;

use std::io::Read;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Distribution, Int, Tensor};
use burn_quant::config::{Format, GradientRule, IntFormat};
use burn_quant::nn::{QuantLinear, QuantLinearConfig};
use burn_quant::ops::{FakeQuant, Groups, Ranges};
use burn_quant::{presets, quantize};
use fashion_mnist::model::Cnn;

/// Rows and columns of the tensor that the ops are measured on: 64 MiB of f32.
pub const SIDE: usize = 4096;

/// The device of this build.
pub fn device() -> Device {
    #[cfg(feature = "cuda")]
    return Device::cuda(0);
    #[cfg(all(feature = "wgpu", not(feature = "cuda")))]
    return Device::wgpu(Default::default());
    #[cfg(not(any(feature = "wgpu", feature = "cuda")))]
    Device::flex()
}

/// The text that language models are evaluated on: Moby-Dick.
///
/// # Panics
///
/// If it is not in the repository.
pub fn moby_dick() -> String {
    let mut text = String::new();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/char-gpt/data/moby-dick.txt.gz");
    let file = std::fs::File::open(path).expect("the text is in the repository");
    flate2::read::GzDecoder::new(file).read_to_string(&mut text).expect("the text is gzipped");
    text
}

/// Returns the table of exported files in ONNX Runtime that the script beside their example prints, in Markdown.
///
/// # Errors
///
/// If the script does not run, or a file is wrong.
pub fn onnx_runtime_table(python: &Path, folder: &Path) -> Result<String, Box<dyn std::error::Error>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/export-onnx/check.py");
    let run = Command::new(python).arg(script).arg(folder).arg("--table").output();
    let run = run.map_err(|error| format!("{}: {error}", python.display()))?;
    match run.status.success() {
        true => Ok(String::from_utf8(run.stdout)?),
        false => Err(String::from_utf8_lossy(&run.stderr).into()),
    }
}

/// Normal data, `[4096, 4096]`.
pub fn input(device: &Device) -> Tensor<2> {
    Tensor::random([SIDE, SIDE], Distribution::Normal(0.0, 1.0), device)
}

/// INT8 with the groups given.
pub fn int8(groups: Groups, gradient: GradientRule) -> FakeQuant {
    FakeQuant { format: IntFormat::signed(8).expect("8 bits exist").into(), groups, gradient }
}

/// The granularities that are measured, by name.
pub fn specs() -> Vec<(&'static str, FakeQuant)> {
    let shape = [SIDE, SIDE];
    let pass = GradientRule::PassThrough;
    vec![
        ("int8 per tensor", int8(Groups::per_tensor(&shape), pass)),
        ("int8 per channel, axis 0", int8(Groups::per_channel(&shape, 0), pass)),
        ("int8 per channel, axis 1", int8(Groups::per_channel(&shape, 1), pass)),
        ("int8 block 128, axis 0", int8(Groups::blocks(&shape, 0, 128), pass)),
        ("int8 block 128, axis 1", int8(Groups::blocks(&shape, 1, 128), pass)),
        ("e4m3 per tensor", FakeQuant { format: Format::E4M3, groups: Groups::per_tensor(&shape), gradient: pass }),
    ]
}

/// The formats whose ranges are taken from the data, by name: blocks along the last axis, as activations have them.
pub fn dynamic_specs(device: &Device) -> Vec<(&'static str, Ranges, FakeQuant)> {
    let shape = [SIDE, SIDE];
    let spec = |format, groups| FakeQuant { format, groups, gradient: GradientRule::PassThrough };
    let blocks = |size| Groups::blocks(&shape, 1, size);
    let global_amax = Tensor::from_data([5.5f32], device);
    vec![
        ("NVFP4", Ranges::TwoLevel { global_amax }, spec(Format::E2M1, blocks(16))),
        ("MXFP8", Ranges::PowersOfTwo, spec(Format::E4M3, blocks(32))),
        ("MXFP4", Ranges::PowersOfTwo, spec(Format::E2M1, blocks(32))),
        ("INT8 per token", Ranges::Dynamic, int8(Groups::per_channel(&shape, 0), GradientRule::PassThrough)),
    ]
}

/// The same with blocks along the first axis, as the weights of linear layers have them.
pub fn dynamic_weight_specs(device: &Device) -> Vec<(&'static str, Ranges, FakeQuant)> {
    let columns = |groups: &Groups| match groups.counts() {
        [SIDE, count] if *count > 1 => Groups::blocks(&[SIDE, SIDE], 0, SIDE / count),
        _ => Groups::per_channel(&[SIDE, SIDE], 1),
    };
    let specs = dynamic_specs(device).into_iter();
    specs.map(|(name, ranges, spec)| (name, ranges, FakeQuant { groups: columns(&spec.groups), ..spec })).collect()
}

/// A multilayer perceptron, 784-1024-1024-10.
#[derive(Module, Debug)]
pub struct Mlp {
    fc1: QuantLinear,
    fc2: QuantLinear,
    fc3: QuantLinear,
}

impl Mlp {
    /// With random weights.
    pub fn new(device: &Device) -> Self {
        let linear = |i, o| QuantLinearConfig::new(i, o).init(device);
        Self { fc1: linear(784, 1024), fc2: linear(1024, 1024), fc3: linear(1024, 10) }
    }

    /// `[batch, 784]` to `[batch, 10]`.
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.fc3.forward(relu(self.fc2.forward(relu(self.fc1.forward(x)))))
    }
}

/// A model with one batch to train on.
pub trait Workload: Module {
    /// The logits of the batch.
    fn logits(&self, batch: &Tensor<2>) -> Tensor<2>;
    /// Images of the batch.
    const BATCH: usize;
}

impl Workload for Mlp {
    const BATCH: usize = 128;

    fn logits(&self, batch: &Tensor<2>) -> Tensor<2> {
        self.forward(batch.clone())
    }
}

impl Workload for Cnn {
    const BATCH: usize = 64;

    fn logits(&self, batch: &Tensor<2>) -> Tensor<2> {
        self.forward(batch.clone().reshape([Self::BATCH, 1, 28, 28]))
    }
}

/// A float model, the same quantized to INT8 (weights per channel, activations per tensor), and a batch.
pub fn pair<M: Workload>(float: M, device: &Device) -> (M, M, Tensor<2>, Tensor<1, Int>) {
    let (batch, labels) = batch::<M>(device);
    let calibrate = |model: &M| drop(model.logits(&batch));
    let (quantized, _) = quantize(float.clone(), &presets::int8_default(), calibrate).expect("the model quantizes");
    (float, quantized, batch, labels)
}

/// A batch of random images, and labels.
pub fn batch<M: Workload>(device: &Device) -> (Tensor<2>, Tensor<1, Int>) {
    let images = Tensor::random([M::BATCH, 784], Distribution::Uniform(0.0, 1.0), device);
    let labels = Tensor::from_data((0..M::BATCH as i32).map(|i| i % 10).collect::<Vec<_>>().as_slice(), device);
    (images, labels)
}

/// One step of SGD: forward, backward, update.
pub fn step<M: Workload>(model: M, batch: &Tensor<2>, labels: &Tensor<1, Int>, device: &Device) -> M {
    step_by(model, |model| CrossEntropyLossConfig::new().init(device).forward(model.logits(batch), labels.clone()))
}

/// One step of SGD by a loss.
pub fn step_by<M: Module>(model: M, loss: impl FnOnce(&M) -> Tensor<1>) -> M {
    let gradients = GradientsParams::from_grads(loss(&model).backward(), &model);
    SgdConfig::new().init().step(1e-4, model, gradients)
}

/// The shortest time of each of several pieces of work, run in turns so that they meet the same machine.
pub fn shortest(rounds: usize, work: &mut [&mut dyn FnMut()]) -> Vec<Duration> {
    let mut shortest = vec![Duration::MAX; work.len()];
    for round in 0..rounds + 2 {
        for (work, shortest) in work.iter_mut().zip(&mut shortest) {
            let start = Instant::now();
            work();
            if round >= 2 {
                *shortest = start.elapsed().min(*shortest); // the first two rounds warm up
            }
        }
    }
    shortest
}
