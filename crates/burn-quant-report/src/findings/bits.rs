//! The format has too few values for a tensor, and the layer makes most of the error.

use burn_quant_core::config::{Granularity, QuantizerConfig, Rule};
use burn_quant_core::layout::Role;

use super::{about, decibels, literal, percent};
use crate::case::{Cases, LayerCase, QuantizerCase};
use crate::diagnosis::{Finding, FindingKind, Operand, Severity};

/// A layer below this ratio, in decibels, is told whatever its share is.
const POOR: f64 = 12.0;
/// A layer below this ratio is told if it makes most of the error.
const FAIR: f64 = 25.0;
/// What another configuration gains at least, in decibels.
const GAIN: f64 = 3.0;

pub(super) fn find(cases: &Cases) -> Vec<Finding> {
    let told = |layer: &&LayerCase| {
        let share = layer.shown.share * cases.layers.len() as f64; // of the mean layer
        layer.shown.own_sqnr.is_some_and(|sqnr| sqnr < POOR || (sqnr < FAIR && share > 4.0))
    };
    cases.layers.iter().filter(told).filter_map(|layer| of(cases, layer)).collect()
}

fn of(cases: &Cases, layer: &LayerCase) -> Option<Finding> {
    let quantizers = cases.quantizers_of(&layer.shown.path).filter(|case| case.shown.sqnr.is_some());
    let case = quantizers.min_by(|a, b| a.shown.sqnr.unwrap_or(0.0).total_cmp(&b.shown.sqnr.unwrap_or(0.0)))?;
    let message = format!(
        "{} values are too few: signal to noise of the tensor is {}, of the output of the layer {}, and the layer \
         makes {} of the error.",
        case.shown.format,
        decibels(case.shown.sqnr),
        decibels(layer.shown.own_sqnr),
        percent(layer.shown.share),
    );
    let (advice, rule) = remedy(case);
    let finding = about(cases, case, FindingKind::TooFewBits, Severity::Costly, (message, advice));
    Some(finding.with_rule(rule))
}

fn remedy(case: &QuantizerCase) -> (String, Rule) {
    let name = literal(&case.shown.name);
    let sqnr = case.shown.channel_sqnr.unwrap_or(0.0);
    let better = case.weight.iter().flat_map(|weight| &weight.alternatives);
    let usual = |config: &QuantizerConfig| !matches!(config.granularity, Granularity::Axes(_));
    // in the order of what they cost
    if let Some(better) = better.filter(|it| usual(&it.config)).find(|it| it.channel_sqnr >= sqnr + GAIN) {
        let config = &better.config;
        let advice = format!(
            "Use {} {}: the median channel then has {}, instead of {}.",
            config.kind(),
            config.granularity,
            decibels(Some(better.channel_sqnr)),
            decibels(case.shown.channel_sqnr),
        );
        return (advice, Rule::set(name, config.clone()));
    }
    let per_token = QuantizerConfig::int(8).per_token().dynamic();
    let finer = case.config.format != per_token.format || case.config.granularity != per_token.granularity;
    if case.shown.operand == Operand::Input && case.role == Role::ChannelsLast && finer {
        return ("Use 8 bits, with a range for each token.".into(), Rule::set(name, per_token));
    }
    ("Leave this tensor in float.".into(), Rule::disable(name))
}
