//! Figures of how the toolkit is built: what a large model costs before its weights are read, how deep a forward pass
//! is, and what its documentation leaves out.

use std::backtrace::Backtrace;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use burn::module::{Module, Param};
use burn::nn::Linear;
use burn::tensor::Tensor;
use burn_quant::nn::{LinearConfig, QuantLinear};
use burn_quant::{Quantizers, presets, quantize_weights};
use burn_quant_benches::device;

use crate::Figure;

/// Many small layers of burn.
#[derive(Module, Debug)]
struct Many {
    layers: Vec<Linear>,
}

/// What `max` takes for a model whose weights are small: the walks, the rules and the ranges.
pub(crate) fn many_layers() -> Vec<Figure> {
    let device = device();
    let layer = |_| Linear { weight: Param::from_tensor(Tensor::ones([2, 2], &device)), bias: None };
    let model = Many { layers: (0..2000).map(layer).collect() };
    let config = presets::int8_weight_only();
    let start = Instant::now();
    let quantized = quantize_weights(model, &config).expect("it has weights");
    device.sync().expect("the device is alive");
    let seconds = start.elapsed().as_secs_f64();
    drop(quantized);
    vec![Figure::at_most("2,000 layers by max, seconds", seconds, 2.0)]
}

/// Functions of ours on the stack from `nn::Linear::forward` to the call of the kernel for the weight, both ends of it
/// counted. The call fails on purpose, as the range is that of another weight: the function that says so is called
/// where the kernel would be called next, and the stack is read there.
///
/// An optimising compiler joins functions: build it with `opt-level = 0` to see all that are written.
pub(crate) fn hops() -> Vec<Figure> {
    let device = device();
    let layer: QuantLinear = LinearConfig::new(4, 4).init(&device);
    let (layer, _) = quantize_weights(layer, &presets::int8_weight_only()).expect("it has a weight");
    let mut quantizers = Quantizers::of(&layer);
    let quantizer = quantizers.get_mut("weight_quantizer").expect("it was placed");
    quantizer.set_amax(Tensor::ones([3], &device));
    let layer = quantizers.install(layer).expect("its own quantizer");

    let stack = Arc::new(Mutex::new(String::new()));
    let (before, seen) = (std::panic::take_hook(), stack.clone());
    std::panic::set_hook(Box::new(move |_| {
        *seen.lock().expect("one thread") = Backtrace::force_capture().to_string();
    }));
    let x = Tensor::<2>::ones([1, 4], &device);
    let call = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| layer.forward(x)));
    std::panic::set_hook(before);
    assert!(call.is_err(), "three ranges for four channels");

    let stack = stack.lock().expect("one thread");
    // the innermost call comes first; lines without a number say where a function is written
    let functions = stack.lines().filter_map(|line| line.trim().split_once(": ").map(|(_, function)| function));
    let ours = |function: &&str| {
        function.trim_start_matches('<').starts_with("burn_quant") || function.contains("as burn_quant")
    };
    let functions: Vec<&str> = functions.filter(ours).take_while(|function| !function.contains("figures")).collect();
    functions.iter().rev().for_each(|function| println!("#   {function}"));
    let whole = functions.iter().any(|function| function.contains("forward")) && cfg!(debug_assertions);
    if !whole {
        println!("# hops: not measured, as this build joins functions; build it with `opt-level = 0`");
        return Vec::new();
    }
    vec![Figure::at_most("hops from Linear::forward to the kernel", functions.len() as f64, 8.0)]
}

/// Counts public functions that have one line of documentation and no more.
pub(crate) fn documentation() -> Vec<Figure> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
    let mut files = Vec::new();
    collect(&crates, &mut files);
    let bare: usize = files.iter().map(|file| one_line_functions(&std::fs::read_to_string(file).expect("text"))).sum();
    vec![Figure::at_most("public functions with one line of documentation", bare as f64, 59.0)]
}

/// The Rust sources below a folder.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => collect(&path, files),
            false if path.extension().is_some_and(|extension| extension == "rs") => files.push(path),
            false => {}
        }
    }
}

/// Counts `pub fn` after one line of `///`, attributes between them apart.
fn one_line_functions(source: &str) -> usize {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let function = |line: &str| {
        let qualified =
            line.strip_prefix("pub ").map(|rest| rest.trim_start_matches("const ").trim_start_matches("async "));
        qualified.is_some_and(|rest| rest.starts_with("fn "))
    };
    let documented = |end: usize| {
        let above = lines[..end].iter().rev().skip_while(|line| line.starts_with("#["));
        above.take_while(|line| line.starts_with("///")).count()
    };
    (0..lines.len()).filter(|&i| function(lines[i]) && documented(i) == 1).count()
}
