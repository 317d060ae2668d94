//! Channels of which rounding leaves nothing, and channels that are zero in all data.

use burn_quant_calibrate::config::Algorithm;
use burn_quant_core::config::{Granularity, QuantizerConfig, Rule};

use super::{about, for_layer, is_input_of_linear, literal, number};
use crate::case::{Cases, QuantizerCase};
use crate::diagnosis::{Finding, FindingKind, Operand, Severity};

/// A layer above this ratio, in decibels, loses nothing that counts.
const GOOD: f64 = 40.0;
/// Channels that are named.
const NAMED: usize = 4;

pub(super) fn find(cases: &Cases) -> Vec<Finding> {
    let lost = cases.quantizers.iter().filter_map(|case| lost(cases, case));
    let dead = cases.quantizers.iter().filter_map(|case| dead(cases, case));
    lost.chain(dead).collect()
}

fn lost(cases: &Cases, case: &QuantizerCase) -> Option<Finding> {
    let shown = &case.shown;
    let own = cases.layer(&shown.layer).and_then(|layer| layer.shown.own_sqnr);
    if case.lost.is_empty() || own.is_some_and(|own| own >= GOOD) {
        return None;
    }
    let reach = shown.seen.map_or(0.0, |seen| f64::from(seen.highest));
    let message = format!(
        "Rounding leaves nothing of {}: too small for a range of {}.",
        named(&case.lost),
        number(shown.amax.map_or(reach, |amax| amax.highest.into())),
    );
    let finding = |advice: &str| {
        about(cases, case, FindingKind::LostChannels, Severity::Costly, (message.clone(), advice.into()))
    };
    let name = literal(&shown.name);
    Some(match shown.operand {
        Operand::Weight if case.config.granularity == Granularity::PerTensor => {
            let config = case.config.clone().per_channel();
            finding("Give each output channel a range of its own.").with_rule(Rule::set(name, config))
        }
        Operand::Weight => {
            let config = QuantizerConfig::int(8).per_channel();
            finding("Use 8 bits, with a range for each output channel.").with_rule(Rule::set(name, config))
        }
        _ if is_input_of_linear(cases, case) => finding("Bring the channels to one size with SmoothQuant.")
            .with_step(for_layer(&shown.layer, Algorithm::smoothquant(0.5))),
        _ => finding("Leave these activations in float.").with_rule(Rule::disable(name)),
    })
}

fn dead(cases: &Cases, case: &QuantizerCase) -> Option<Finding> {
    if case.dead.is_empty() {
        return None;
    }
    let what = if case.shown.operand == Operand::Weight { "the weight" } else { "the data" };
    let channels = named(&case.dead);
    let message = match case.dead.len() {
        1 => format!("Nothing but zeros in {channels} of {what}: it costs time and bits, and does nothing."),
        _ => format!("Nothing but zeros in {channels} of {what}: they cost time and bits, and do nothing."),
    };
    let advice = match case.dead.len() {
        1 => "Remove it from the model if it is so in all data, or leave it: its rounding is exact.",
        _ => "Remove them from the model if it is so in all data, or leave them: their rounding is exact.",
    };
    let advice = advice.to_string();
    Some(about(cases, case, FindingKind::DeadChannels, Severity::Note, (message, advice)))
}

/// `channel 3`, `the channels 3, 5 and 9`, `12 channels (3, 5, 9, 11, …)`.
fn named(channels: &[usize]) -> String {
    let list = |channels: &[usize]| channels.iter().map(usize::to_string).collect::<Vec<_>>().join(", ");
    match channels {
        [channel] => format!("channel {channel}"),
        [most @ .., last] if channels.len() <= NAMED => format!("channels {} and {last}", list(most)),
        _ => format!("{} channels ({}, …)", channels.len(), list(&channels[..NAMED])),
    }
}
