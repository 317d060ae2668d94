//! The error of a layer is no noise: all outputs are shifted one way, which a bias takes up.

use burn_quant_calibrate::config::Algorithm;

use super::{decibels, for_layer, percent};
use crate::case::{Cases, LayerCase};
use crate::diagnosis::{Finding, FindingKind, Severity};

/// The mean of the error over its root mean square.
const SHIFTED: f64 = 0.5;
/// A layer above this ratio, in decibels, is left alone.
const GOOD: f64 = 30.0;

pub(super) fn find(cases: &Cases) -> Vec<Finding> {
    cases.layers.iter().filter_map(of).collect()
}

fn of(layer: &LayerCase) -> Option<Finding> {
    let shown = &layer.shown;
    let shift = shown.shift.filter(|shift| shift.abs() >= SHIFTED)?;
    if shown.own_sqnr.is_none_or(|sqnr| sqnr >= GOOD) {
        return None;
    }
    Some(Finding {
        kind: FindingKind::ShiftedOutput,
        severity: Severity::Costly,
        at: shown.path.clone(),
        message: format!(
            "The outputs are shifted one way: the mean makes {} of the energy of the error, signal to noise is {}.",
            percent(shift * shift),
            decibels(shown.own_sqnr),
        ),
        advice: "Let the bias of the layer take up the mean of its error.".into(),
        rules: Vec::new(),
        step: Some(for_layer(&shown.path, Algorithm::BiasCorrection)),
        share: shown.share,
    })
}
