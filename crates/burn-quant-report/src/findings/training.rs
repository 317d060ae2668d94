//! Training moved the weights of one layer far from those of the float model, and its output with them.
//!
//! ```text
//! distance = ‖W − W_float‖ / ‖W_float‖         compared with the median of all layers
//! ```

use burn_quant_core::config::Rule;

use super::{about, decibels, is_rounded_already, literal, number};
use crate::case::{Cases, QuantizerCase};
use crate::diagnosis::{Finding, FindingKind, Severity};
use crate::measure::median;

/// The least distance of a layer that is broken.
const FAR: f64 = 0.5;
/// How many times as far as the median layer it is.
const TIMES: f64 = 4.0;
/// What the layer loses at least beyond what rounding its weight loses, in decibels.
const LOSS: f64 = 10.0;

pub(super) fn find(cases: &Cases) -> Vec<Finding> {
    let distances = || cases.quantizers.iter().filter_map(|case| Some((case, case.weight.as_ref()?.distance?)));
    let Some(middle) = median(distances().map(|(_, distance)| distance).collect()) else { return Vec::new() };
    let far = |distance: f64| distance > FAR && (distance > TIMES * middle || distances().count() == 1);
    distances().filter(|(_, distance)| far(*distance)).filter_map(|(case, d)| of(cases, case, d, middle)).collect()
}

fn of(cases: &Cases, case: &QuantizerCase, distance: f64, middle: f64) -> Option<Finding> {
    let rounding = case.shown.sqnr.filter(|_| !is_rounded_already(case))?;
    let own = cases.layer(&case.shown.layer).and_then(|layer| layer.shown.own_sqnr);
    if own.is_some_and(|own| own > rounding - LOSS) {
        return None;
    }
    let message = format!(
        "The weight is {} of its own size away from that of the float model, where the median layer is {}; signal to \
         noise of the output is {}, while rounding the weight costs no more than to {}.",
        number(distance),
        number(middle),
        decibels(own),
        decibels(Some(rounding)),
    );
    let advice = "Begin again with the weight of the float model, with a range that calibration finds, and train this \
                  layer with a lower learning rate, or not at all."
        .to_string();
    let mut config = case.config.clone();
    config.learned_ranges = None;
    config.gradient = burn_quant_ops::GradientRule::PassThrough;
    let finding = about(cases, case, FindingKind::BrokenByTraining, Severity::Broken, (message, advice));
    Some(finding.with_rule(Rule::set(literal(&case.shown.name), config)))
}
