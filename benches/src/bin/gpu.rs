//! Times operations on a GPU: fake quantization against a copy of the same tensor on the device, training steps against
//! float, and packed products against burn's own.
//!
//! `cargo run --release -p burn-quant-benches --no-default-features --features cuda --bin gpu`; `peers/gpu.py` prints
//! what PyTorch takes for the copy and the products. Each time is the mean of calls that stand in the device's queue
//! together, in the shortest of five runs: starting a kernel costs what the device waits for it, no more.

use std::time::Instant;

use burn::module::Module;
use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::activation::relu;
use burn::tensor::{DType, Device, Distribution, FloatDType, Int, IntDType, Tensor};
use burn_quant::config::{Format, GradientRule, IntFormat};
use burn_quant::nn::{QuantLinear, QuantLinearConfig};
use burn_quant::ops::{Activations, FakeQuant, Groups, PackedTensor, Ranges, fake_quant, packed_linear};
use burn_quant::{presets, quantize};
use burn_quant_benches::device;
use char_gpt::model::{CharGpt, Size};
use char_gpt::text::CONTEXT;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Arguments {
    /// Only parts whose name contains this: `fake quant`, `training`, `packed`.
    #[arg(long, default_value = "")]
    only: String,
    /// Train in bf16: what new tensors of the device are, so it holds for the whole run.
    #[arg(long)]
    bf16: bool,
    /// Only tensors of 4096 · 4096.
    #[arg(long)]
    small: bool,
    /// Rows and columns of packed weights.
    #[arg(long, default_value_t = 4096)]
    side: usize,
    /// Multiply packed weights in f32 alone: a device need not have bf16.
    #[arg(long)]
    f32: bool,
}

fn main() {
    let arguments = Arguments::parse();
    let mut device = device();
    if arguments.bf16 {
        device.configure((FloatDType::BF16, IntDType::I32)).expect("a device that computes in bf16");
    }
    let wanted = |name: &str| name.contains(&arguments.only);
    if wanted("fake quant") {
        let sides: &[usize] = if arguments.small { &[4096] } else { &[4096, 16384] };
        for side in sides {
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                fake_quantization(*side, dtype, &device);
            }
        }
    }
    if wanted("packed") {
        packed(arguments.side, if arguments.f32 { DType::F32 } else { DType::BF16 }, &device);
    }
    if wanted("training") {
        training(&device.clone().autodiff());
    }
}

/// Seconds of a call.
fn seconds<T>(device: &Device, mut call: impl FnMut() -> T) -> f64 {
    let sync = || device.sync().expect("the device is alive");
    let mut run = |calls: usize| {
        let start = Instant::now();
        for _ in 0..calls {
            let result = call();
            device.flush().expect("the device is alive"); // or fusion merges the calls
            drop(result);
        }
        sync();
        start.elapsed().as_secs_f64() / calls as f64
    };
    let compiled = (0..4).map(|_| run(1)).fold(f64::INFINITY, f64::min); // and tuned
    let calls = (0.02 / compiled).ceil().clamp(1.0, 100.0) as usize;
    (0..5).map(|_| run(calls)).fold(f64::INFINITY, f64::min)
}

/// Formats with the ranges that they are measured with, by name.
fn formats(side: usize, device: &Device) -> Vec<(&'static str, Option<Ranges>, FakeQuant)> {
    let shape = [side, side];
    let int8 = Format::from(IntFormat::signed(8).expect("8 bits exist"));
    let spec = |format, groups| FakeQuant { format, groups, gradient: GradientRule::Clipped };
    let (tensor, rows) = (Groups::per_tensor(&shape), Groups::per_channel(&shape, 0));
    let blocks = |size| Groups::blocks(&shape, 1, size);
    let two_level = || Some(Ranges::TwoLevel { global_amax: Tensor::from_data([5.5f32], device) });
    vec![
        ("INT8 per tensor, static", None, spec(int8, tensor.clone())),
        ("INT8 per channel, static", None, spec(int8, rows.clone())),
        ("INT8 per token, dynamic", Some(Ranges::Dynamic), spec(int8, rows.clone())),
        ("E4M3 per tensor, static", None, spec(Format::E4M3, tensor)),
        ("E4M3 per token, dynamic", Some(Ranges::Dynamic), spec(Format::E4M3, rows)),
        ("INT4 block 128, static", None, spec(IntFormat::signed(4).expect("4 bits exist").into(), blocks(128))),
        ("MXFP8, dynamic", Some(Ranges::PowersOfTwo), spec(Format::E4M3, blocks(32))),
        ("MXFP4, dynamic", Some(Ranges::PowersOfTwo), spec(Format::E2M1, blocks(32))),
        ("NVFP4, dynamic", two_level(), spec(Format::E2M1, blocks(16))),
    ]
}

/// Forward, and forward with backward, beside `x * 1.0`, which reads the tensor once and writes it once.
fn fake_quantization(side: usize, dtype: DType, device: &Device) {
    let normal = Tensor::<2>::random([side, side], Distribution::Normal(0.0, 1.0), &device.clone().autodiff());
    let x = normal.cast(dtype).detach().require_grad();
    let plain = x.clone().inner();
    let gradient = |y: Tensor<2>| x.grad(&y.backward());
    let copy = seconds(device, || plain.clone() * 1.0);
    let copy_both = seconds(device, || gradient(x.clone() * 1.0));
    let gigabytes = 2.0 * (side * side * dtype.size()) as f64 / 1e9;
    println!(
        "# {side} x {side}, {dtype:?}: milliseconds, GB/s, copy / op; forward and backward, the same of the copy's"
    );
    println!("copy\t{:.3}\t{:.0}\t1.00\t{:.3}\t1.00", copy * 1e3, gigabytes / copy, copy_both * 1e3);
    for (name, ranges, spec) in formats(side, device) {
        let ranges = ranges.unwrap_or_else(|| {
            let groups = spec.groups.counts().iter().product::<usize>();
            Ranges::from(Tensor::<1>::full([groups], 3.0, device))
        });
        let forward = seconds(device, || fake_quant(plain.clone(), ranges.clone(), spec.clone()));
        let both = seconds(device, || gradient(fake_quant(x.clone(), ranges.clone(), spec.clone())));
        println!(
            "{name}\t{:.3}\t{:.0}\t{:.2}\t{:.3}\t{:.2}",
            forward * 1e3,
            gigabytes / forward,
            copy / forward,
            both * 1e3,
            copy_both / both
        );
    }
}

/// Eight square weights in turn, so that none waits in a cache.
fn packed(side: usize, dtype: DType, device: &Device) {
    const BATCHES: [usize; 6] = [1, 8, 16, 32, 64, 512];
    let normal = |rows| Tensor::<2>::random([rows, side], Distribution::Normal(0.0, 1.0), device);
    let weights: Vec<_> = (0..8).map(|_| normal(side).cast(DType::F32)).collect();
    let inputs = BATCHES.map(|rows| normal(rows).cast(dtype));
    println!("# 8 weights of {side} x {side} in turn, microseconds a product of {dtype:?}, batches {BATCHES:?}");
    let line = |name: &str, time: &dyn Fn(&Tensor<2>) -> f64| {
        let times: Vec<String> = inputs.iter().map(|x| format!("{:.1}", time(x) * 1e6)).collect();
        println!("{name}\t{}", times.join("\t"));
    };
    let dense = |name: &str, dtype: DType| {
        let weights: Vec<_> = weights.iter().map(|weight| weight.clone().cast(dtype)).collect();
        line(name, &|x| {
            let x = x.clone().cast(dtype);
            let mut next = weights.iter().cycle();
            seconds(device, || x.clone().matmul(next.next().expect("it has no end").clone()))
        });
    };
    if dtype != DType::F32 {
        dense(&format!("burn, {dtype:?}"), dtype);
    }
    dense("burn, F32", DType::F32);
    let int = |bits| Format::from(IntFormat::signed(bits).expect("such integers exist"));
    let two_level = Ranges::TwoLevel { global_amax: Tensor::from_data([5.5f32], device) };
    for (name, format, block, ranges, activations) in [
        ("W8", int(8), side, Ranges::Dynamic, Activations::Float),
        ("W8, INT8 tokens", int(8), side, Ranges::Dynamic, Activations::Int8PerToken),
        ("W4 block 128", int(4), 128, Ranges::Dynamic, Activations::Float),
        ("W4 block 32", int(4), 32, Ranges::Dynamic, Activations::Float),
        ("E4M3", Format::E4M3, side, Ranges::Dynamic, Activations::Float),
        ("MXFP4", Format::E2M1, 32, Ranges::PowersOfTwo, Activations::Float),
        ("NVFP4", Format::E2M1, 16, two_level, Activations::Float),
    ] {
        let groups = match block == side {
            true => Groups::per_channel(&[side, side], 1),
            false => Groups::blocks(&[side, side], 0, block),
        };
        let spec = FakeQuant { format, groups, gradient: GradientRule::PassThrough };
        let pack = |weight: &Tensor<2>| PackedTensor::pack(weight.clone(), ranges.clone(), spec.clone());
        let weights: Vec<_> = weights.iter().map(|weight| pack(weight).expect("it packs")).collect();
        line(name, &|x| {
            let mut next = weights.iter().cycle();
            seconds(device, || packed_linear(x.clone(), next.next().expect("it has no end"), activations.clone()))
        });
    }
}

/// Three layers of 4096 features.
#[derive(Module, Debug)]
struct Wide {
    layers: Vec<QuantLinear>,
}

/// Steps of float models and of their INT8 selves: weights per channel, activations per tensor.
fn training(device: &Device) {
    println!("# milliseconds of a step of SGD, {:?}: float, INT8, INT8 / float", device.settings().float_dtype);
    let linear = || QuantLinearConfig::new(4096, 4096).init(device);
    let wide = Wide { layers: (0..3).map(|_| linear()).collect() };
    let x = Tensor::<2>::random([4096, 4096], Distribution::Normal(0.0, 1.0), device);
    let labels = Tensor::<1, Int>::arange(0..4096, device);
    let forward = |model: &Wide| model.layers.iter().fold(x.clone(), |x, layer| relu(layer.forward(x)));
    steps("MLP 3 x 4096, batch 4096", wide, forward, labels, device);
    let large = Size { width: 1024, layers: 8, heads: 16 };
    for (name, size) in [("char GPT, 4 layers of 128", Size::SMALL), ("char GPT, 8 layers of 1024", large)] {
        const BATCH: usize = 16;
        let model = CharGpt::new(80, size, device);
        let ids = Tensor::<1, Int>::arange(0..(BATCH * CONTEXT) as i64, device).remainder_scalar(80);
        let windows = ids.clone().reshape([BATCH, CONTEXT]);
        steps(name, model, |model| model.forward(windows.clone()).flatten(0, 1), ids, device);
    }
}

fn steps<M: Module>(name: &str, float: M, forward: impl Fn(&M) -> Tensor<2>, labels: Tensor<1, Int>, device: &Device) {
    let calibrate = |model: &M| drop(forward(model));
    let (quantized, _) = quantize(float.clone(), &presets::int8_default(), calibrate).expect("it is quantized");
    let time = |model: M| {
        let (mut model, mut sgd) = (Some(model), SgdConfig::new().init());
        seconds(device, || {
            let before = model.take().expect("a step leaves a model");
            let loss = CrossEntropyLossConfig::new().init(device).forward(forward(&before), labels.clone());
            let gradients = GradientsParams::from_grads(loss.backward(), &before);
            model = Some(sgd.step(1e-4, before, gradients));
        })
    };
    let (of_float, of_quantized) = (time(float), time(quantized));
    println!("{name}\t{:.2}\t{:.2}\t{:.2}", of_float * 1e3, of_quantized * 1e3, of_quantized / of_float);
}
