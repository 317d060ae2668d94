//! Faults of records, and of the gate that runs the tests.

use std::path::Path;

/// Each file of `fuzz/fuzz_targets` is a target, built and run by name.
pub(super) fn f44() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let gate = std::fs::read_to_string(root.join(".ci/run")).unwrap();
    let targets = std::fs::read_dir(root.join("fuzz/fuzz_targets")).unwrap();
    let mut names: Vec<String> =
        targets.map(|file| file.unwrap().path().file_stem().unwrap().to_str().unwrap().to_string()).collect();
    names.sort();
    assert!(names.len() >= 6, "{names:?}");
    let runs = gate.lines().find(|line| line.starts_with("for target in ")).expect("a loop over targets");
    let mut run: Vec<&str> = runs["for target in ".len()..].split(';').next().unwrap().split_whitespace().collect();
    run.sort();
    assert_eq!(run, names);
}
