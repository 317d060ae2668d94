//! Measures every figure that the project has set itself, one line each: name, value, bound, `met` or `short`.
//!
//! `cargo run --release -p burn-quant-benches` measures all that takes minutes; `--only TEXT` those whose name contains
//! a text, `--cold` also how long a cold build with tests takes. Ratios compare pieces of work that ran in turns, the
//! shortest time of each.

mod graph;
mod packed;
mod report;
mod search;
mod structure;

use std::mem::MaybeUninit;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use burn::tensor::{DType, Tensor};
use burn_quant::calibrate::observe;
use burn_quant::config::{ActOrder, CalibrationInputs, GradientRule};
use burn_quant::ops::{FakeQuant, Groups, Ranges, fake_quant, group_amax};
use burn_quant::place::{WeightLayouts, place};
use burn_quant::{Algorithm, QuantConfig, presets, quantize};
use burn_quant_benches::calibration::{Stack, tokens, w4};
use burn_quant_benches::{
    Mlp, SIDE, Workload, device, dynamic_specs, dynamic_weight_specs, input, int8, moby_dick, pair, shortest, specs,
    step,
};
use clap::Parser;
use fashion_mnist::model::Cnn;
use fashion_mnist::{Options, Results};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Arguments {
    /// Only figures whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Also build and test from nothing, in a folder of its own.
    #[arg(long)]
    cold: bool,
    /// Only print how much memory one piece of work takes: what this program runs of itself.
    #[arg(long, value_enum, hide = true)]
    memory: Option<search::Memory>,
    /// Formats that are scored there.
    #[arg(long, default_value_t = 1, hide = true)]
    formats: usize,
}

/// One line of the table.
struct Figure {
    name: String,
    value: f64,
    bound: f64,
    /// Whether the value is to be at least the bound.
    at_least: bool,
}

impl Figure {
    fn at_most(name: impl Into<String>, value: f64, bound: f64) -> Self {
        Self { name: name.into(), value, bound, at_least: false }
    }

    fn at_least(name: impl Into<String>, value: f64, bound: f64) -> Self {
        Self { name: name.into(), value, bound, at_least: true }
    }

    fn print(&self) {
        let met = if self.at_least { self.value >= self.bound } else { self.value <= self.bound };
        let sign = if self.at_least { ">=" } else { "<=" };
        let verdict = if met { "met" } else { "short" };
        println!("{:58} {:9.3}  {sign} {:7.3}  {verdict}", self.name, self.value, self.bound);
    }
}

/// A group of figures that are measured together.
type Group = (&'static str, fn() -> Vec<Figure>);

fn main() {
    let arguments = Arguments::parse();
    if let Some(memory) = arguments.memory {
        return search::print_peak(memory, arguments.formats);
    }
    let mut groups: Vec<Group> = vec![
        ("forward", forward),
        ("in place", in_place),
        ("dynamic", dynamic),
        ("forward and clipped backward", backward),
        ("half precision", half_precision),
        ("QAT step", qat_step),
        ("calibration cost", calibration_cost),
        ("calibration gain", calibration_gain),
        ("Fashion-MNIST", fashion_mnist),
        ("char GPT", char_gpt),
        ("residual network", low_bit),
        ("MiniLM", minilm),
        ("SmolLM2 INT8", report::smollm),
        ("planted faults", report::faults),
        ("page of 200 layers", report::page),
        ("diagnosis cost", report::cost),
        ("2,000 layers", structure::many_layers),
        ("hops to the kernel", structure::hops),
        ("documentation", structure::documentation),
        ("auto-quantize cost", search::cost),
        ("auto-quantize accuracy", search::accuracy),
        ("packed linear layers", packed::linears),
        ("packed glue", packed::glue),
        ("packed convolutions", packed::convolutions),
        ("packed sizes", packed::sizes),
        ("packed cache", packed::cache),
        ("packed LoRA", packed::qlora),
        ("packed MiniLM", packed::minilm),
        ("ONNX files", graph::files),
        ("MiniLM from a graph", graph::minilm),
        ("replays of published models", graph::replays),
        ("ONNX Runtime", graph::runtime),
        ("golden", golden),
        ("calibration gain on golden models", golden_gain),
    ];
    if arguments.cold {
        groups.push(("cold cargo test", cold_test));
    }
    for (name, measure) in groups {
        if name.to_lowercase().contains(&arguments.only.to_lowercase()) {
            measure().iter().for_each(Figure::print);
        }
    }
}

/// The time of a copy of the tensor by all threads is the unit: the same bytes read, and as many written to new memory.
fn forward() -> Vec<Figure> {
    let (device, data) = (device(), vec![1f32; SIDE * SIDE]);
    let x = input(&device);
    specs()
        .into_iter()
        .map(|(name, spec)| {
            let amax = group_amax(x.clone(), &spec.groups);
            let times = shortest(
                15,
                &mut [&mut || drop(std::hint::black_box(copy_by_all_threads(&data))), &mut || {
                    let y = fake_quant(x.clone(), amax.clone(), spec.clone());
                    device.sync().expect("the device is alive");
                    drop(y);
                }],
            );
            Figure::at_most(format!("forward, {name} / copy by all threads"), ratio(&times), 1.15)
        })
        .collect()
}

/// Ranges from the data; the unit is a clone by one thread. Blocks of weights, which stand in columns, are printed too:
/// they have no bound.
fn dynamic() -> Vec<Figure> {
    let (device, data) = (device(), vec![1f32; SIDE * SIDE]);
    let x = input(&device);
    let times = shortest(
        15,
        &mut [&mut || drop(std::hint::black_box(data.clone())), &mut || {
            drop(std::hint::black_box(copy_by_all_threads(&data)))
        }],
    );
    println!("# the limit: a copy of the data by all threads takes {:.3} of the clone", ratio(&times));
    let measure = |ranges: &Ranges, spec: &FakeQuant| {
        let times = shortest(
            15,
            &mut [&mut || drop(std::hint::black_box(data.clone())), &mut || {
                let y = fake_quant(x.clone(), ranges.clone(), spec.clone());
                device.sync().expect("the device is alive");
                drop(y);
            }],
        );
        ratio(&times)
    };
    for (name, ranges, spec) in dynamic_weight_specs(&device) {
        println!("# dynamic forward, {name} along the first axis / clone: {:.3}", measure(&ranges, &spec));
    }
    let figure = |(name, ranges, spec): (&str, Ranges, FakeQuant)| {
        let bound = if name == "INT8 per token" { 1.0 } else { 1.5 };
        Figure::at_most(format!("dynamic forward, {name} / clone"), measure(&ranges, &spec), bound)
    };
    dynamic_specs(&device).into_iter().map(figure).collect()
}

/// A copy in new memory, each thread its share.
fn copy_by_all_threads(data: &[f32]) -> Vec<MaybeUninit<f32>> {
    let mut copy = Vec::with_capacity(data.len());
    copy.resize_with(data.len(), MaybeUninit::uninit);
    let share = data.len().div_ceil(std::thread::available_parallelism().map_or(1, usize::from));
    std::thread::scope(|scope| {
        for (from, to) in data.chunks(share).zip(copy.chunks_mut(share)) {
            scope.spawn(move || to.write_copy_of_slice(from).len());
        }
    });
    copy
}

fn in_place() -> Vec<Figure> {
    let data = vec![1f32; SIDE * SIDE];
    let (_, spec) = specs().swap_remove(0);
    let device = device();
    let mut x = Some(input(&device));
    let amax = Tensor::<1>::from_data([4.0], &device);
    let times = shortest(
        15,
        &mut [&mut || drop(std::hint::black_box(data.clone())), &mut || {
            x = x.take().map(|x| fake_quant(x, amax.clone(), spec.clone()))
        }],
    );
    vec![Figure::at_most("in place, int8 per tensor / clone", ratio(&times), 0.4)]
}

fn backward() -> Vec<Figure> {
    let device = device().autodiff();
    let x = input(&device).require_grad();
    let amax = Tensor::<1>::from_data([2.0], &device);
    let spec = int8(Groups::per_tensor(&[SIDE, SIDE]), GradientRule::Clipped);
    let run = |op: &dyn Fn(Tensor<2>) -> Tensor<2>| {
        let gradients = op(x.clone()).sum().backward();
        let gradient = x.grad(&gradients);
        device.sync().expect("the device is alive");
        drop(gradient);
    };
    let times = shortest(
        10,
        &mut [&mut || run(&|x| x * 1.0), &mut || {
            run(&|x| fake_quant(x, amax.clone(), spec.clone()));
        }],
    );
    vec![Figure::at_most("forward and clipped backward / x * 1.0", ratio(&times), 1.2)]
}

fn half_precision() -> Vec<Figure> {
    let device = device();
    let x = input(&device);
    let amax = Tensor::<1>::from_data([4.0], &device);
    let (_, spec) = specs().swap_remove(0);
    let run = |x: &Tensor<2>| {
        let y = fake_quant(x.clone(), amax.clone(), spec.clone());
        device.sync().expect("the device is alive");
        drop(y);
    };
    let figure = |(name, dtype)| {
        let narrow = x.clone().cast(dtype);
        let times = shortest(15, &mut [&mut || run(&x), &mut || run(&narrow)]);
        Figure::at_most(format!("half precision, {name} / f32"), ratio(&times), 1.0)
    };
    [("f16", DType::F16), ("bf16", DType::BF16)].map(figure).into()
}

fn qat_step() -> Vec<Figure> {
    let device = device().autodiff();
    vec![step_figure("MLP", Mlp::new(&device)), step_figure("CNN", Cnn::new(&device))]
}

fn step_figure<M: Workload>(name: &str, model: M) -> Figure {
    let device = device().autodiff();
    let (float, quantized, batch, labels) = pair(model, &device);
    let run = |model: &M| {
        let model = step(model.clone(), &batch, &labels, &device);
        device.sync().expect("the device is alive");
        drop(model);
    };
    let times = shortest(30, &mut [&mut || run(&float), &mut || run(&quantized)]);
    Figure::at_most(format!("QAT step / float step, {name}"), ratio(&times), 1.2)
}

/// The unit is one plain forward pass of the calibration data, in float.
fn calibration_cost() -> Vec<Figure> {
    let device = device();
    let (model, x) = (Stack::new(20.0, &device), tokens(1, &device));
    let sync = || device.sync().expect("the device is alive");
    let (placed, _) = place(model.clone(), &w4(), &WeightLayouts::new()).expect("it has weights");
    let calibrate = |algorithm: Algorithm| {
        let config = w4().with_algorithm(algorithm);
        let mut calls = 0;
        let (quantized, report) = quantize(model.clone(), &config, |model| {
            calls += 1;
            drop(model.forward(x.clone()));
        })
        .expect("the stack is quantized");
        assert_eq!((calls, report.passes), (1, 1), "one pass over the data");
        sync();
        drop(quantized);
    };
    let times = shortest(
        3,
        &mut [
            &mut || {
                drop(model.forward(x.clone()));
                sync();
            },
            &mut || {
                let seen = observe(&placed, &Algorithm::awq_lite(), |model| drop(model.forward(x.clone())));
                drop(seen.expect("finite data"));
            },
            &mut || calibrate(Algorithm::awq_lite()),
            &mut || calibrate(Algorithm::awq_clip()),
            &mut || calibrate(Algorithm::awq_full()),
            &mut || calibrate(Algorithm::gptq()),
        ],
    );
    let cost = |i: usize| times[i].as_secs_f64() / times[0].as_secs_f64();
    println!(
        "# one plain forward pass takes {:.1} ms; AWQ-full / forward: {:.1}",
        times[0].as_secs_f64() * 1e3,
        cost(4)
    );
    vec![
        Figure::at_most("observation / forward", cost(1), 2.0),
        Figure::at_most("AWQ-lite / forward", cost(2), 12.0),
        Figure::at_most("AWQ-clip / forward", cost(3), 60.0),
        Figure::at_most("GPTQ / forward", cost(5), 60.0),
    ]
}

/// Output errors over layers, relative to rounding to the nearest with ranges by `max`: on the calibration tokens, and
/// on others.
fn calibration_gain() -> Vec<Figure> {
    let device = device();
    let (model, x, fresh) = (Stack::new(20.0, &device), tokens(1, &device), tokens(2, &device));
    let calibrated = |config: &QuantConfig| {
        let (quantized, _) =
            quantize(model.clone(), config, |model| drop(model.forward(x.clone()))).expect("it is quantized");
        quantized
    };
    let w4 = |algorithm| calibrated(&w4().with_algorithm(algorithm));
    let int8 = |algorithm| calibrated(&presets::int8_default().with_algorithm(algorithm));
    let mut figures = Vec::new();
    let mut compare = |name: &str, better: Stack, base: &Stack, bound: Option<f64>| {
        for (data, x) in [("calibration tokens", &x), ("other tokens", &fresh)] {
            let ratio = better.error(&model, x) / base.error(&model, x);
            match bound {
                Some(bound) => figures.push(Figure::at_most(format!("{name}, {data}"), ratio, bound)),
                None => println!("# {name}, {data}: {ratio:.3}"),
            }
        }
    };
    let nearest = w4(Algorithm::Max);
    compare("W4 AWQ-full / nearest", w4(Algorithm::awq_full()), &nearest, Some(0.7));
    compare("W4 GPTQ / nearest", w4(Algorithm::gptq()), &nearest, Some(0.6));
    let act_order =
        Algorithm::Gptq { damping: 0.01, block_size: 128, act_order: ActOrder::On, inputs: CalibrationInputs::Float };
    compare("W4 GPTQ, act order / nearest", w4(act_order), &nearest, None);
    let both = Algorithm::Sequence(vec![Algorithm::awq_lite(), Algorithm::gptq()]);
    compare("W4 AWQ-lite and GPTQ / nearest", w4(both), &nearest, None);
    let plain = int8(Algorithm::Max);
    compare("W8A8 SmoothQuant 0.5 / max", int8(Algorithm::smoothquant(0.5)), &plain, Some(0.5));
    figures
}

fn fashion_mnist() -> Vec<Figure> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/fashion-mnist/data");
    let run = |seed| {
        let options = Options { device: device(), seed, data: data.clone(), progress: false };
        fashion_mnist::run(&options).expect("the example runs")
    };
    let results: Vec<Results> = (1..=3).map(run).collect();
    let points = |value: fn(&Results) -> f64| results.iter().map(value).sum::<f64>() / results.len() as f64 * 100.0;
    let float = points(|r| r.float_acc);
    let (int8, ptq, qat) = (points(|r| r.int8_ptq_acc), points(|r| r.w4a4_ptq_acc), points(|r| r.w4a4_qat_acc));
    let recovered = (qat - ptq) / (float - ptq) * 100.0;
    println!("# Fashion-MNIST, 3 seeds: float {float:.2}, INT8 {int8:.2}, W4A4 {ptq:.2}, W4A4 trained {qat:.2} %");
    println!("# W4A4 training recovers {recovered:.0} % of the loss; the figure is 80 %, or the next line");
    vec![
        Figure::at_most("Fashion-MNIST, float - INT8, points", float - int8, 0.3),
        Figure::at_most("Fashion-MNIST, float - W4A4 trained, points", float - qat, 0.5),
    ]
}

/// Bits per character against those of the float model, in percent.
fn char_gpt() -> Vec<Figure> {
    let text = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/char-gpt/data/moby-dick.txt.gz");
    let results = char_gpt::run(&char_gpt::Options {
        device: device(),
        seed: 1,
        text,
        steps: 1200,
        qat_steps: 200,
        windows: 256,
        weights: None,
        progress: false,
    });
    let results = results.expect("the example runs");
    let percent = |recipe: &str| 100.0 * results.loss(recipe).expect("the recipe is there");
    let (plain, learned) = (percent("W3A3, trained"), percent("W3A3, LSQ, trained"));
    println!("# char GPT: float {:.4} bits per character", results.rows[0].bits);
    vec![
        Figure::at_most("char GPT, INT8 to float, %", percent("INT8"), 0.5),
        Figure::at_most("char GPT, W4A8 trained to float, %", percent("W4A8, trained"), 1.0),
        Figure::at_most("char GPT, W3A3 trained with learned ranges to float, %", learned, plain),
        Figure::at_most("char GPT, FP8 cache to float, %", percent("FP8 cache").abs(), 0.2),
    ]
}

/// Points of accuracy that few bits cost after training.
fn low_bit() -> Vec<Figure> {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/fashion-mnist/data");
    let run = |seed| {
        let (device, data, bits) = (device(), data.clone(), vec![4, 3, 2]);
        let options = fashion_mnist::low_bit::Options {
            device,
            seed,
            data,
            bits,
            epochs: 20,
            images: usize::MAX,
            temperature: 2.0,
            progress: false,
        };
        fashion_mnist::low_bit::run(&options).expect("the example runs")
    };
    let results: Vec<_> = (1..=3).map(run).collect();
    let mean = |values: Vec<f64>| values.iter().sum::<f64>() / values.len() as f64;
    println!("# residual network, 3 seeds: float {:.2} %", 100.0 * mean(results.iter().map(|r| r.float).collect()));
    let figure = |(bits, bound)| {
        let drop = mean(results.iter().map(|r| r.drop(bits).expect("it was trained")).collect());
        Figure::at_most(format!("residual network, float - W{bits}A{bits} LSQ, points"), drop, bound)
    };
    [(4, 0.3), (3, 0.8), (2, 2.5)].map(figure).into()
}

/// Only where the variable `BURN_QUANT_MODELS` names the folder that `examples/pretrained/fetch.sh` filled.
fn minilm() -> Vec<Figure> {
    let Some(models) = std::env::var_os("BURN_QUANT_MODELS").map(std::path::PathBuf::from) else {
        println!("# MiniLM: not measured, as BURN_QUANT_MODELS names no folder with the published models");
        return Vec::new();
    };
    let text = moby_dick();
    let table = pretrained::minilm::evaluate(&models, &text, &device(), pretrained::minilm::recipes())
        .expect("the example runs");
    let (int8, nearest, awq) = ("INT8, smoothed and corrected", "INT4 weights, nearest", "INT4 weights, AWQ");
    let get = |recipe, column| table.get(recipe, column).expect("the recipe is there");
    let change = |column| (get(int8, column) - get("float", column)).abs();
    let per_token = "INT8, a range per token";
    let lost = |column| get("float", column) - get(per_token, column);
    let mut figures = vec![
        Figure::at_least("MiniLM INT8, cosine to float", get("INT8", "cosine"), 0.99),
        Figure::at_least("MiniLM INT8 per token, cosine to float", get(per_token, "cosine"), 0.99),
        Figure::at_most("MiniLM INT8 per token, WordSim lost", lost("WordSim-353"), 0.005),
        Figure::at_most("MiniLM INT8 per token, SimLex lost", lost("SimLex-999"), 0.005),
        Figure::at_least("MiniLM INT8 smoothed and corrected, cosine to float", get(int8, "cosine"), 0.99),
        Figure::at_most("MiniLM INT8 smoothed and corrected, WordSim change", change("WordSim-353"), 0.005),
        Figure::at_most("MiniLM INT8 smoothed and corrected, SimLex change", change("SimLex-999"), 0.005),
    ];
    for column in ["cosine", "WordSim-353", "SimLex-999"] {
        figures.push(Figure::at_least(
            format!("MiniLM INT4 AWQ, {column} (nearest)"),
            get(awq, column),
            get(nearest, column),
        ));
    }
    figures
}

/// The golden runner counts; a run with a failure is short of all.
fn golden() -> Vec<Figure> {
    let output = Command::new(env!("CARGO"))
        .args(["test", "--quiet", "-p", "burn-quant-tests", "--test", "golden"])
        .output()
        .expect("cargo runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().rev().find_map(|line| line.strip_prefix("golden: ")).unwrap_or("0 passed, 1 failed");
    println!("# golden: {line}");
    let failed = line.split(", ").nth(1).and_then(|part| part.split(' ').next()?.parse().ok()).unwrap_or(f64::INFINITY);
    vec![Figure::at_most("golden cases that fail", failed, 0.0)]
}

/// Signal to noise of outputs on the golden models, in decibels, against that of the reference's own result.
fn golden_gain() -> Vec<Figure> {
    let output = Command::new(env!("CARGO"))
        .args(["test", "--quiet", "-p", "burn-quant-tests", "--test", "golden", "--", "--gain"])
        .output()
        .expect("cargo runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter_map(|line| line.strip_prefix("gain "));
    lines
        .map(|line| {
            let parts: Vec<&str> = line.split(' ').collect();
            let decibels = |i: usize| parts[i].parse::<f64>().expect("decibels");
            Figure::at_least(format!("{}, dB (reference)", parts[0]), decibels(1), decibels(2))
        })
        .collect()
}

fn cold_test() -> Vec<Figure> {
    let folder = std::env::temp_dir().join(format!("burn-quant-cold-{}", std::process::id()));
    let start = Instant::now();
    let status = Command::new(env!("CARGO")).args(["test", "--workspace", "--target-dir"]).arg(&folder).status();
    let minutes = start.elapsed().as_secs_f64() / 60.0;
    let passed = status.is_ok_and(|status| status.success());
    let _ = std::fs::remove_dir_all(&folder);
    vec![
        Figure::at_most("cold cargo test, minutes", minutes, 10.0),
        Figure::at_least("cold cargo test passes", f64::from(u8::from(passed)), 1.0),
    ]
}

/// The second time over the first.
fn ratio(times: &[std::time::Duration]) -> f64 {
    times[1].as_secs_f64() / times[0].as_secs_f64()
}
