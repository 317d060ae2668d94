//! The golden runner: every case of the reference, none skipped silently.
//!
//! Reads `index.json` and its tensors from the folder that `BURN_QUANT_GOLDEN` names, by default `tests/data/golden`. A
//! case passes, fails, or is not yet there because it needs what burn-quant or the device does not have; how many those
//! are is pinned for the repository's own set, and the last line counts the rest. `--verbose` names the reason of each
//! case that is not yet there, and how long each group takes. `--every N` takes one of N cases of whole models, which
//! are slow on software devices. `--gain` compares models by other options instead: name, our signal to noise in
//! decibels, and the reference's.

mod calib;
mod config;
mod fake_quant;
mod index;
mod models;
mod packed;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use burn::tensor::{DType, Device};

use index::{Golden, Outcome};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--list") {
        return ExitCode::SUCCESS; // test runners ask for the names of tests; this binary is one
    }
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/data/golden");
    let folder = std::env::var_os("BURN_QUANT_GOLDEN").map_or_else(|| PathBuf::from(default), PathBuf::from);
    let golden = Golden::open(&folder);
    let (name, device) = burn_quant_tests::device();
    println!("golden cases of {} on {name}", golden.reference());

    if arguments.iter().any(|a| a == "--gain") {
        models::gain(&golden, &device);
        return ExitCode::SUCCESS;
    }
    let verbose = arguments.iter().any(|a| a == "--verbose");
    let every = every(&arguments);
    let (mut passed, mut failed, mut not_yet) = (0, 0, BTreeMap::<String, usize>::new());
    let (mut models, mut seconds) = (0, BTreeMap::<&str, f64>::new());
    for case in golden.cases() {
        if case.group.starts_with("model_") || case.group == "auto_quantize" {
            models += 1;
            if models % every != 0 {
                continue;
            }
        }
        let start = Instant::now();
        let outcome = match case.group.as_str() {
            "fake_quant" => fake_quant::run(&golden, case, &device),
            "calib" => calib::run(&golden, case, &device),
            "model_mlp" | "model_cnn" | "model_transformer" => models::run(&golden, case, &device),
            "auto_quantize" => models::run_search(&golden, case, &device),
            "compress" if case.name.starts_with("qtensor_") => packed::run(&golden, case),
            "compress" => models::run_packed(&golden, case, &device),
            other => Outcome::Failed(format!("group {other} is not known")),
        };
        *seconds.entry(case.group.as_str()).or_default() += start.elapsed().as_secs_f64();
        match outcome {
            Outcome::Passed => passed += 1,
            Outcome::Failed(why) => {
                failed += 1;
                println!("FAILED {}: {why}", case.name);
            }
            Outcome::NotYet(why) => {
                if verbose {
                    println!("not yet {}: {why}", case.name);
                }
                *not_yet.entry(why).or_default() += 1;
            }
        }
    }
    if let Err(why) = models::check_sizes(&device) {
        failed += 1;
        println!("FAILED a model of other sizes: {why}");
    }
    for (why, count) in &not_yet {
        println!("  {count:4} x {why}");
    }
    if verbose {
        seconds.iter().for_each(|(group, seconds)| println!("  {seconds:6.1} s of {group}"));
    }
    if every > 1 {
        println!("one of {every} cases of whole models");
    }
    println!("not yet: {}", not_yet.values().sum::<usize>());
    let as_pinned = every > 1 || golden.set() != "public" || not_yet == pinned(&device);
    if !as_pinned {
        println!("expected not yet: {:?}", pinned(&device));
    }
    println!("golden: {passed} passed, {failed} failed");
    if failed == 0 && passed > 0 && as_pinned { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The number after `--every`, or 1.
fn every(arguments: &[String]) -> usize {
    let Some(place) = arguments.iter().position(|argument| argument == "--every") else { return 1 };
    let number = arguments.get(place + 1).and_then(|number| number.parse().ok()).filter(|number| *number > 0);
    number.expect("`--every` is followed by a number of cases")
}

/// How many cases of the repository's own set are not yet there, and why: a case may not join or leave them unnoticed.
fn pinned(device: &Device) -> BTreeMap<String, usize> {
    let mut pinned = BTreeMap::new();
    for (dtype, cases) in [(DType::BF16, 25), (DType::F16, 13)] {
        if !device.supports_dtype(dtype) {
            pinned.insert(format!("{dtype:?} on this device"), cases);
        }
    }
    pinned
}
