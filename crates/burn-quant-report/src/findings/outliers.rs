//! A few channels, or a few tokens, are far larger than the others: one range for all leaves few values to the rest.
//!
//! The signal to noise of the median channel and of the mean token tell it; that of the tensor does not, as the large
//! values dominate it.
//!
//! ```text
//! tokens     a range for each token:  noise / (max / rms of the tokens' ranges)
//! channels   SmoothQuant, α = 0.5:    noise / √(max / median of the channels' ranges)      or so
//! ```
//!
//! What gains more is advised.

use burn_quant_calibrate::config::Algorithm;
use burn_quant_core::config::{Granularity, QuantizerConfig, Rule};

use super::{about, decibels, for_layer, is_input_of_linear, literal, number};
use crate::case::{Cases, QuantizerCase};
use crate::diagnosis::{Finding, FindingKind, Operand, Severity};

/// How much larger than the median channel the largest is.
const CHANNELS: f64 = 8.0;
/// How much larger than the root mean square of the tokens the largest is.
const TOKENS: f64 = 3.0;
/// The median channel, or the mean token, has less signal to noise, in decibels.
const POOR: f64 = 25.0;

pub(super) fn find(cases: &Cases) -> Vec<Finding> {
    let poor = |case: &&QuantizerCase| {
        let shared = matches!(case.config.granularity, Granularity::PerTensor | Granularity::PerToken);
        case.shown.operand != Operand::Weight && shared && small_sqnr(case).is_some_and(|sqnr| sqnr < POOR)
    };
    let of = |case| if is_of_tokens(case) { Some(of_tokens(cases, case)) } else { of_channels(cases, case) };
    cases.quantizers.iter().filter(poor).filter_map(of).collect()
}

/// What is left of small values: the signal to noise of the median channel or of the mean token, whichever is less.
fn small_sqnr(case: &QuantizerCase) -> Option<f64> {
    let both = [case.shown.channel_sqnr, case.shown.token_sqnr];
    both.into_iter().flatten().reduce(f64::min)
}

/// Whether a range for each token gains enough, and more than smoothing channels does.
fn is_of_tokens(case: &QuantizerCase) -> bool {
    let ratio = case.shown.token_ratio.filter(|_| case.config.granularity == Granularity::PerTensor);
    let of_channels = case.shown.outlier_ratio.unwrap_or(1.0).max(1.0).sqrt();
    ratio.is_some_and(|ratio| ratio >= TOKENS && ratio >= of_channels)
}

fn of_tokens(cases: &Cases, case: &QuantizerCase) -> Finding {
    let message = format!(
        "The largest token is {} times as large as the root mean square of all, and one range is for all: the mean \
         token has {}, the median channel {}.",
        number(case.shown.token_ratio.unwrap_or(1.0)),
        decibels(case.shown.token_sqnr),
        decibels(case.shown.channel_sqnr),
    );
    let advice =
        "Give each token a range of its own, found as it comes: for INT8, `int8_per_channel_per_token` does so \
                  for all inputs."
            .to_string();
    let config = QuantizerConfig { learned_ranges: None, ..case.config.clone() }.per_token().dynamic();
    about(cases, case, FindingKind::OutlierTokens, Severity::Costly, (message, advice))
        .with_rule(Rule::set(literal(&case.shown.name), config))
}

fn of_channels(cases: &Cases, case: &QuantizerCase) -> Option<Finding> {
    let ratio = case.shown.outlier_ratio.filter(|ratio| *ratio >= CHANNELS)?;
    let channel = case.shown.outlier_channel.unwrap_or_default();
    let message = format!(
        "Channel {channel} is {} times as large as the median channel, and one range is for all: the median channel \
         has {}.",
        number(ratio),
        decibels(case.shown.channel_sqnr),
    );
    let finding = |advice: &str| {
        about(cases, case, FindingKind::OutlierChannels, Severity::Costly, (message.clone(), advice.into()))
    };
    Some(if is_input_of_linear(cases, case) {
        finding("Move the outliers into the weight with SmoothQuant, or leave this input in float.")
            .with_step(for_layer(&case.shown.layer, Algorithm::smoothquant(0.5)))
    } else {
        finding("Leave these activations in float.").with_rule(Rule::disable(literal(&case.shown.name)))
    })
}
