//! Ranges of a weight lie along the wrong axis: that of the inputs, and not that of the outputs.

use burn_quant_core::config::{Granularity, Rule};
use burn_quant_ops::AxisGroups;

use super::{about, decibels, literal};
use crate::case::{Cases, QuantizerCase};
use crate::diagnosis::{Finding, FindingKind, Severity};
use crate::measure::Alternative;

/// What the right axis gains at least, in decibels, where the layer is known.
const GAIN: f64 = 1.0;
/// What another axis gains at least, where nobody says which one is right.
const GAIN_OF_UNKNOWN: f64 = 12.0;

pub(super) fn find(cases: &Cases) -> Vec<Finding> {
    cases.quantizers.iter().filter_map(|case| of(cases, case)).collect()
}

fn of(cases: &Cases, case: &QuantizerCase) -> Option<Finding> {
    let weight = case.weight.as_ref()?;
    let sqnr = case.shown.channel_sqnr?;
    let present = axis_of(case)?;
    let other = |alternative: &&Alternative| {
        let axis = axis_of_axes(&alternative.config.granularity);
        axis.is_some_and(|axis| axis != present && weight.output_axis.is_none_or(|output| axis == output))
    };
    let best = weight.alternatives.iter().filter(other).max_by(|a, b| a.channel_sqnr.total_cmp(&b.channel_sqnr))?;
    let known = weight.output_axis.is_some_and(|output| output != present);
    let gain = best.channel_sqnr - sqnr;
    if weight.output_axis == Some(present) || gain < if known { GAIN } else { GAIN_OF_UNKNOWN } {
        return None;
    }
    let axis = axis_of_axes(&best.config.granularity)?;
    let message = format!(
        "Each range belongs to an index of axis {present}; with one for each index of axis {axis} the median channel \
         has {} instead of {}.",
        decibels(Some(best.channel_sqnr)),
        decibels(Some(sqnr)),
    );
    let advice = format!("Put the ranges along axis {axis}.");
    let mut config = case.config.clone();
    config.granularity = best.config.granularity.clone();
    let finding = about(cases, case, FindingKind::WrongAxis, Severity::Broken, (message, advice));
    Some(finding.with_rule(Rule::set(literal(&case.shown.name), config)))
}

/// The axis whose indices have ranges of their own, if it is one.
fn axis_of(case: &QuantizerCase) -> Option<usize> {
    match (&case.config.granularity, case.role) {
        (Granularity::PerChannel, burn_quant_core::layout::Role::Weight(layout)) => Some(layout.channel_axis),
        (granularity, _) => axis_of_axes(granularity),
    }
}

fn axis_of_axes(granularity: &Granularity) -> Option<usize> {
    let Granularity::Axes(axes) = granularity else { return None };
    let mut each = axes.iter().enumerate().filter(|(_, groups)| **groups != AxisGroups::Whole);
    match (each.next(), each.next()) {
        (Some((axis, AxisGroups::Each)), None) => Some(axis),
        _ => None,
    }
}
