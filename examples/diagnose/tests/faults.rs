//! Every planted fault is the first finding, at its place, and the recipe of the finding mends it.

use std::sync::{Mutex, PoisonError};

use burn::tensor::Device;
use burn_quant_report::{FindingKind, Severity};
use diagnose::{Fault, Trial};

/// Plants a fault while no other test draws random numbers from the seeded device.
fn trial(fault: Fault) -> Trial {
    static SEEDED: Mutex<()> = Mutex::new(());
    let _alone = SEEDED.lock().unwrap_or_else(PoisonError::into_inner);
    Trial::run(fault, &Device::flex()).unwrap()
}

#[test]
fn planted_faults_are_named_first_and_mended() {
    for fault in Fault::all().iter().copied().filter(|fault| *fault != Fault::Healthy) {
        let trial = trial(fault);
        let first = trial.diagnosis.findings.first().unwrap_or_else(|| panic!("{fault:?}: nothing was found"));
        assert_eq!((Some(first.kind), first.at.as_str()), (fault.finding(), fault.place()), "{}", trial.diagnosis);
        assert!(first.recipe().is_some(), "{fault:?} has a recipe");
        let sqnr = |diagnosis: &burn_quant_report::Diagnosis| diagnosis.overview.output_sqnr;
        let mended = trial.mended.as_ref().and_then(sqnr).expect("the output is finite");
        // an overflow has no signal to noise at all
        let planted = sqnr(&trial.diagnosis).unwrap_or(0.0);
        assert!(mended > 25.0 && mended > planted + 2.0, "{fault:?}: {planted} dB, mended {mended} dB");
    }
}

#[test]
fn a_healthy_network_has_no_faults() {
    let trial = trial(Fault::Healthy);
    let serious: Vec<_> = trial.diagnosis.findings.iter().filter(|it| it.severity != Severity::Note).collect();
    assert_eq!(serious, Vec::<&burn_quant_report::Finding>::new());
    assert!(trial.diagnosis.overview.output_sqnr.unwrap() > 28.0);
    assert!(trial.diagnosis.layers.iter().all(|layer| layer.own_sqnr.unwrap() > 30.0));
    assert!(trial.diagnosis.findings.iter().all(|finding| finding.kind == FindingKind::DeadChannels));
}

#[test]
fn a_diagnosis_survives_its_file_even_with_infinities() {
    let trial = trial(Fault::Overflow);
    assert!(trial.diagnosis.layers.iter().any(|layer| layer.quantized_amax.is_infinite()));
    let read = burn_quant_report::Diagnosis::from_json(&trial.diagnosis.to_json()).unwrap();
    assert_eq!(read, trial.diagnosis);
}
