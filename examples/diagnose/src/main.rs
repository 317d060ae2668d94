//! Run with `cargo run --release -p diagnose`; `--help` lists the options.

use std::path::PathBuf;

use burn::tensor::Device;
use burn_quant_report::Diagnosis;
use clap::Parser;
use diagnose::{Fault, Trial, TrialResult};
use serde::Serialize;

/// Plants faults in a small quantized network, diagnoses each, and mends it by what the first finding says.
#[derive(Parser)]
struct Arguments {
    /// The fault whose diagnosis is shown.
    #[arg(long, value_enum, default_value_t = Fault::OutlierChannel)]
    fault: Fault,
    /// Also write the diagnosis as a page to this file.
    #[arg(long)]
    html: Option<PathBuf>,
    /// Also write the diagnosis, and one line for each fault, to this file.
    #[arg(long)]
    json: Option<PathBuf>,
}

/// What is written as JSON.
#[derive(Serialize)]
struct Report<'a> {
    faults: Vec<TrialResult>,
    diagnosis: &'a Diagnosis,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments = Arguments::parse();
    let device = Device::flex();
    let trials: Vec<Trial> = Fault::all().iter().map(|fault| Trial::run(*fault, &device)).collect::<Result<_, _>>()?;
    print_table(&trials);
    let shown = trials.iter().find(|trial| trial.fault == arguments.fault).ok_or("every fault was tried")?;
    println!("\n{}", shown.diagnosis);
    if let Some(path) = arguments.html {
        write(&path, &shown.diagnosis.html())?;
    }
    if let Some(path) = arguments.json {
        let faults = trials.iter().map(Trial::result).collect();
        let report = Report { faults, diagnosis: &shown.diagnosis };
        write(&path, &serde_json::to_string_pretty(&report)?)?;
    }
    Ok(())
}

fn print_table(trials: &[Trial]) {
    println!("{:20} {:22} {:22} {:>9} {:>9}", "fault", "first finding", "at", "planted", "mended");
    for result in trials.iter().map(Trial::result) {
        let finding = result.finding.map_or("nothing".into(), |kind| format!("{kind:?}"));
        let decibels = |sqnr: Option<f64>| sqnr.map_or("–".into(), |sqnr| format!("{sqnr:.1} dB"));
        println!(
            "{:20} {finding:22} {:22} {:>9} {:>9}",
            result.fault,
            result.at.as_deref().unwrap_or("–"),
            decibels(result.planted),
            decibels(result.mended),
        );
    }
}

fn write(path: &PathBuf, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}
