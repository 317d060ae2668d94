//! A few channels, or a few tokens, are far larger than the others: one range for all leaves few values to the rest.
//!
//! The median of the channels' signal to noise tells it; that of the tensor does not, as the large values dominate it.

use burn_quant_calibrate::config::Algorithm;
use burn_quant_core::config::{Granularity, QuantizerConfig, Rule};

use super::{about, decibels, for_layer, is_input_of_linear, literal, number};
use crate::case::{Cases, QuantizerCase};
use crate::diagnosis::{Finding, FindingKind, Operand, Severity};

/// How much larger than the median channel, or than the mean token, the largest is.
const RATIO: f64 = 8.0;
/// The median channel has less signal to noise, in decibels.
const POOR: f64 = 25.0;

pub(super) fn find(cases: &Cases) -> Vec<Finding> {
    cases.quantizers.iter().filter_map(|case| of(cases, case)).collect()
}

fn of(cases: &Cases, case: &QuantizerCase) -> Option<Finding> {
    let (shown, config) = (&case.shown, &case.config);
    let activation = shown.operand != Operand::Weight;
    let shared = matches!(config.granularity, Granularity::PerTensor | Granularity::PerToken);
    let poor = shown.channel_sqnr.is_some_and(|sqnr| sqnr < POOR);
    if !(activation && shared && poor) {
        return None;
    }
    let channels = shown.outlier_ratio.filter(|ratio| *ratio >= RATIO);
    let tokens = shown.token_ratio.filter(|ratio| *ratio >= RATIO && config.granularity == Granularity::PerTensor);
    match (channels, tokens) {
        (channels, Some(tokens)) if channels.is_none_or(|channels| tokens * 2.0 >= channels) => {
            Some(of_tokens(cases, case, tokens))
        }
        (Some(channels), _) => Some(of_channels(cases, case, channels)),
        _ => None,
    }
}

fn of_tokens(cases: &Cases, case: &QuantizerCase, ratio: f64) -> Finding {
    let message = format!(
        "The largest token is {} times as large as the mean one, and one range is for all: the median channel has {}.",
        number(ratio),
        decibels(case.shown.channel_sqnr),
    );
    let advice = "Give each token a range of its own, found as it comes.".to_string();
    let config = QuantizerConfig { learned_ranges: None, ..case.config.clone() }.per_token().dynamic();
    about(cases, case, FindingKind::OutlierTokens, Severity::Costly, (message, advice))
        .with_rule(Rule::set(literal(&case.shown.name), config))
}

fn of_channels(cases: &Cases, case: &QuantizerCase, ratio: f64) -> Finding {
    let channel = case.shown.outlier_channel.unwrap_or_default();
    let message = format!(
        "Channel {channel} is {} times as large as the median channel, and one range is for all: the median channel \
         has {}.",
        number(ratio),
        decibels(case.shown.channel_sqnr),
    );
    if is_input_of_linear(cases, case) {
        let advice = "Move the outliers into the weight with SmoothQuant, or leave this input in float.".to_string();
        return about(cases, case, FindingKind::OutlierChannels, Severity::Costly, (message, advice))
            .with_step(for_layer(&case.shown.layer, Algorithm::smoothquant(0.5)));
    }
    let advice = "Leave these activations in float.".to_string();
    about(cases, case, FindingKind::OutlierChannels, Severity::Costly, (message, advice))
        .with_rule(Rule::disable(literal(&case.shown.name)))
}
