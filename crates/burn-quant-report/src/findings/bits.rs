//! The format has too few values for a tensor, and the layer makes most of the error; or the error is none of rounding.

use burn_quant_core::config::{Granularity, QuantizerConfig, Rule};
use burn_quant_core::layout::Role;

use super::{about, decibels, is_rounded_already, literal, percent};
use crate::case::{Cases, LayerCase, QuantizerCase};
use crate::diagnosis::{Finding, FindingKind, NO_NOISE, Operand, Severity};

/// A layer below this ratio, in decibels, is told whatever its share is.
const POOR: f64 = 12.0;
/// A layer below this ratio is told if it makes most of the error.
const FAIR: f64 = 25.0;
/// What another configuration gains at least, in decibels.
const GAIN: f64 = 3.0;
/// How much less signal to noise a layer has, in decibels, than rounding brings about.
const UNEXPLAINED: f64 = 15.0;

pub(super) fn find(cases: &Cases) -> Vec<Finding> {
    let told = |layer: &&LayerCase| {
        let share = layer.shown.share * cases.layers.len() as f64; // of the mean layer
        layer.shown.own_sqnr.is_some_and(|sqnr| sqnr < POOR || (sqnr < FAIR && share > 4.0))
    };
    cases.layers.iter().filter(told).filter_map(|layer| of(cases, layer)).collect()
}

fn of(cases: &Cases, layer: &LayerCase) -> Option<Finding> {
    let quantizers = || cases.quantizers_of(&layer.shown.path).filter(|case| case.shown.sqnr.is_some());
    let case = quantizers().min_by(|a, b| a.shown.sqnr.unwrap_or(0.0).total_cmp(&b.shown.sqnr.unwrap_or(0.0)));
    let least = quantizers().filter_map(least_sqnr).reduce(f64::min).unwrap_or(NO_NOISE);
    if layer.shown.own_sqnr.is_some_and(|own| own < least - UNEXPLAINED) {
        return Some(match quantizers().find(|case| is_rounded_already(case)) {
            Some(weight) => rounded_already(cases, layer, weight),
            None => another_layer(layer, least),
        });
    }
    let case = case?;
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

/// What rounding leaves of a tensor, of its median channel, or of its mean token, whichever is least.
fn least_sqnr(case: &QuantizerCase) -> Option<f64> {
    [case.shown.sqnr, case.shown.channel_sqnr, case.shown.token_sqnr].into_iter().flatten().reduce(f64::min)
}

fn rounded_already(cases: &Cases, layer: &LayerCase, weight: &QuantizerCase) -> Finding {
    let message = format!(
        "The weight was rounded to {} while it was solved, which has too few values: signal to noise of the output of \
         the layer is {}, and the layer makes {} of the error.",
        weight.shown.format,
        decibels(layer.shown.own_sqnr),
        percent(layer.shown.share),
    );
    let config = QuantizerConfig::int(8).per_channel();
    let advice = format!("Use {} {}.", config.kind(), config.granularity);
    let finding = about(cases, weight, FindingKind::TooFewBits, Severity::Costly, (message, advice));
    finding.with_rule(Rule::set(literal(&weight.shown.name), config))
}

/// A layer that loses what no quantizer of it does.
fn another_layer(layer: &LayerCase, least: f64) -> Finding {
    let rounding =
        if least >= NO_NOISE { "nothing".into() } else { format!("no more than to {}", decibels(Some(least))) };
    let message = format!(
        "Signal to noise of the output is {}, while rounding costs {rounding}: this is not the layer of the float \
         model.",
        decibels(layer.shown.own_sqnr),
    );
    let advice = "Compare with the float model that was quantized: with the norms folded and the layers equalized as \
                  there, with the same calls, and before weights are folded. After training it has other weights.";
    Finding {
        kind: FindingKind::AnotherLayer,
        severity: Severity::Costly,
        at: layer.shown.path.clone(),
        message,
        advice: advice.into(),
        rules: Vec::new(),
        step: None,
        share: layer.shown.share,
    }
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
