//! The checkpoints runner: every entry of the reference's folders and files, none skipped silently.
//!
//! Reads `index.json` and what it lists from the folder that `BURN_QUANT_CHECKPOINTS` names, by default
//! `tests/data/checkpoints`: float models with their logits, folders that ModelOpt and compressed-tensors wrote, GGUF
//! files. Of each entry it checks what can be checked: logits, calibration, bytes of exported tensors, JSON, and what a
//! folder means when it is loaded. Arguments are parts of the names of entries; without one, all are run.

mod calibration;
mod compressed_tensors;
mod float;
mod gguf;
mod index;
mod modelopt;

use std::path::PathBuf;
use std::process::ExitCode;

use index::{Checkpoints, Kind};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.iter().any(|a| a == "--list") {
        return ExitCode::SUCCESS; // test runners ask for the names of tests; this binary is one
    }
    let filters: Vec<&String> = arguments.iter().filter(|a| !a.starts_with('-')).collect();
    let default = concat!(env!("CARGO_MANIFEST_DIR"), "/data/checkpoints");
    let folder = std::env::var_os("BURN_QUANT_CHECKPOINTS").map_or_else(|| PathBuf::from(default), PathBuf::from);
    let checkpoints = Checkpoints::open(&folder);
    let (name, device) = burn_quant_tests::device();
    println!("checkpoints of {} on {name}", folder.display());
    let (mut passed, mut failed) = (0, 0);
    for entry in checkpoints.entries() {
        if !filters.is_empty() && !filters.iter().any(|filter| entry.id.contains(*filter)) {
            continue;
        }
        let problems = match entry.kind {
            Kind::HfFloat => float::run(&checkpoints, entry, &device),
            Kind::ModeloptExport => modelopt::run(&checkpoints, entry, &device),
            Kind::CompressedTensors => compressed_tensors::run(&checkpoints, entry, &device),
            Kind::Gguf => gguf::run(&checkpoints, entry, &device),
        };
        match problems.is_empty() {
            true => passed += 1,
            false => {
                failed += 1;
                problems.iter().for_each(|problem| println!("FAILED {}: {problem}", entry.id));
            }
        }
    }
    println!("checkpoints: {passed} passed, {failed} failed");
    if failed == 0 && passed > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
