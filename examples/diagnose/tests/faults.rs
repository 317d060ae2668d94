//! Every planted fault is the first finding, at its place, and the recipe of the finding mends it.

use burn::tensor::Device;
use burn_quant_report::{FindingKind, Severity};
use diagnose::{Fault, Trial};

#[test]
fn planted_faults_are_named_first_and_mended() {
    for fault in Fault::all().iter().copied().filter(|fault| *fault != Fault::Healthy) {
        let trial = Trial::run(fault, &Device::flex()).unwrap();
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
    let trial = Trial::run(Fault::Healthy, &Device::flex()).unwrap();
    let serious: Vec<_> = trial.diagnosis.findings.iter().filter(|it| it.severity != Severity::Note).collect();
    assert_eq!(serious, Vec::<&burn_quant_report::Finding>::new());
    assert!(trial.diagnosis.overview.output_sqnr.unwrap() > 28.0);
    assert!(trial.diagnosis.layers.iter().all(|layer| layer.own_sqnr.unwrap() > 30.0));
    assert!(trial.diagnosis.findings.iter().all(|finding| finding.kind == FindingKind::DeadChannels));
}
