//! Numbers -> what is wrong, in words, and the recipe that mends it. One kind of fault, one file.
//!
//! What a fault brings about is not a finding of its own: of one layer only the findings of the greatest severity are
//! told, and notes. What many quantizers have in common is one finding, at the worst of them.

mod axis;
mod bits;
mod channels;
mod outliers;
mod overflow;
mod ranges;
mod shift;
mod training;

use burn_quant_calibrate::config::Algorithm;
use burn_quant_core::config::Rule;
use burn_quant_core::layout::Role;
use burn_quant_core::model::layer_of;

use crate::case::{Cases, QuantizerCase};
use crate::diagnosis::{Finding, FindingKind, Operand, Severity};

/// Finds what is wrong, the worst first.
pub(crate) fn all(cases: &Cases) -> Vec<Finding> {
    let mut found = overflow::find(cases);
    found.extend(ranges::find(cases));
    found.extend(axis::find(cases));
    found.extend(training::find(cases));
    found.extend(outliers::find(cases));
    found.extend(channels::find(cases));
    found.extend(bits::find(cases));
    found.extend(shift::find(cases));
    sort(&mut found);
    let mut found = together(causes(found));
    sort(&mut found);
    found
}

fn sort(found: &mut [Finding]) {
    found.sort_by(|a, b| a.severity.cmp(&b.severity).then(b.share.total_cmp(&a.share)).then(a.kind.cmp(&b.kind)));
}

/// Findings of one kind that are told one by one.
const APART: usize = 2;

/// Makes one finding of many of a kind that are mended in one way.
fn together(found: Vec<Finding>) -> Vec<Finding> {
    let mut groups: Vec<Vec<Finding>> = Vec::new();
    for finding in found {
        let alike = |other: &Finding| {
            (other.severity, other.kind, algorithm(other)) == (finding.severity, finding.kind, algorithm(&finding))
        };
        match groups.iter_mut().find(|group| group[0].severity != Severity::Broken && alike(&group[0])) {
            Some(group) => group.push(finding),
            None => groups.push(vec![finding]),
        }
    }
    let told = |group: Vec<Finding>| if group.len() > APART { vec![one_of(group)] } else { group };
    groups.into_iter().flat_map(told).collect()
}

/// What is done to a layer, whichever it is.
fn algorithm(finding: &Finding) -> Option<&Algorithm> {
    match finding.step.as_ref()? {
        Algorithm::ForLayers { algorithm, .. } => Some(algorithm),
        other => Some(other),
    }
}

/// The first of some findings, with the rules and the layers of all.
fn one_of(group: Vec<Finding>) -> Finding {
    let others = group.len() - 1;
    let mut shares: Vec<(&str, f64)> = group.iter().map(|it| (layer_of_finding(it), it.share)).collect();
    shares.sort_by(|a, b| a.0.cmp(b.0));
    shares.dedup_by(|a, b| a.0 == b.0);
    let share = shares.iter().map(|(_, share)| share).sum::<f64>().min(1.0);
    let mut group = group.into_iter();
    let mut first = group.next().expect("a group has a finding");
    for other in group {
        first.rules.extend(other.rules);
        if let (Some(Algorithm::ForLayers { layers, .. }), Some(Algorithm::ForLayers { layers: more, .. })) =
            (&mut first.step, other.step)
        {
            for layer in more {
                if !layers.contains(&layer) {
                    layers.push(layer); // several quantizers are of one layer
                }
            }
        }
    }
    let places = if others == 1 { "1 more place".into() } else { format!("{others} more places") };
    first.message += &match first.severity {
        Severity::Note => format!(" So it is in {places}."),
        _ => format!(" So it is in {places}; together their layers make {} of the error.", percent(share)),
    };
    first.share = share;
    first
}

/// Leaves out what another finding of the same layer brings about.
fn causes(found: Vec<Finding>) -> Vec<Finding> {
    let mut kept: Vec<Finding> = Vec::new();
    for finding in found {
        let layer = layer_of_finding(&finding).to_string();
        let is_about = |other: &&Finding| {
            let ruled = || other.rules.iter().any(|rule| layer_of(&rule.quantizer) == literal(&layer));
            layer_of_finding(other) == layer || (!layer.is_empty() && ruled())
        };
        let mut others = kept.iter().filter(is_about);
        let explained = others.any(|other| other.severity < finding.severity || other.rules_for(&finding.at));
        if finding.severity == Severity::Note || !explained {
            kept.push(finding);
        }
    }
    kept
}

fn layer_of_finding(finding: &Finding) -> &str {
    if finding.at.ends_with("quantizer") { layer_of(&finding.at) } else { &finding.at }
}

/// A finding about a quantizer, without anything that mends it.
fn about(
    cases: &Cases,
    case: &QuantizerCase,
    kind: FindingKind,
    severity: Severity,
    (message, advice): (String, String),
) -> Finding {
    Finding {
        kind,
        severity,
        at: case.shown.name.clone(),
        message,
        advice,
        rules: Vec::new(),
        step: None,
        share: cases.share_of(&case.shown.layer),
    }
}

impl Finding {
    /// Whether it is about a quantizer, or says what that should do.
    fn rules_for(&self, quantizer: &str) -> bool {
        self.at == quantizer || self.rules.iter().any(|rule| rule.quantizer == literal(quantizer))
    }

    fn with_rule(mut self, rule: Rule) -> Self {
        self.rules.push(rule);
        self
    }

    fn with_step(mut self, step: Algorithm) -> Self {
        self.step = Some(step);
        self
    }
}

/// Whether activations are the input of a linear layer with a quantized weight: scales of its channels can move there.
fn is_input_of_linear(cases: &Cases, case: &QuantizerCase) -> bool {
    let weight = || cases.quantizers_of(&case.shown.layer).any(|other| other.shown.operand == Operand::Weight);
    case.role == Role::ChannelsLast && case.shown.operand == Operand::Input && weight()
}

/// Whether a weight lies on its grid, as GPTQ and AdaRound leave it: rounding it again costs nothing.
fn is_rounded_already(case: &QuantizerCase) -> bool {
    const EXACT: f64 = 80.0; // decibels
    case.weight.is_some() && case.shown.sqnr.is_some_and(|sqnr| sqnr >= EXACT)
}

/// One algorithm for one layer; for a layer at the root of the model, for all.
fn for_layer(layer: &str, algorithm: Algorithm) -> Algorithm {
    match layer {
        "" => algorithm,
        layer => Algorithm::ForLayers { layers: vec![literal(layer)], algorithm: Box::new(algorithm) },
    }
}

/// A path as a glob that matches nothing else.
fn literal(path: &str) -> String {
    path.chars().fold(String::new(), |mut glob, c| {
        if "*?[]{}!".contains(c) {
            glob.extend(['[', c, ']']);
        } else {
            glob.push(c);
        }
        glob
    })
}

/// A number with three digits.
fn number(x: f64) -> String {
    match x.abs() {
        0.0 => "0".into(),
        size if !(1e-3..1e5).contains(&size) => format!("{x:.2e}"),
        size => {
            let decimals = (2 - size.log10().floor() as i32).max(0) as usize;
            format!("{x:.decimals$}")
        }
    }
}

/// A share as percent.
fn percent(share: f64) -> String {
    if share > 0.0 && share < 1e-4 { "less than 0.01 %".into() } else { format!("{} %", number(share * 100.0)) }
}

/// Decibels, where they were measured.
fn decibels(sqnr: Option<f64>) -> String {
    sqnr.map_or("unknown".into(), |sqnr| format!("{sqnr:.1} dB"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let shown = [0.0, 0.00012345, 0.012345, 1.2345, 40.0, 12345.6, 1234567.0].map(number);
        assert_eq!(shown, ["0", "1.23e-4", "0.0123", "1.23", "40.0", "12346", "1.23e6"]);
        assert_eq!([0.0, 0.00001, 0.123].map(percent), ["0 %", "less than 0.01 %", "12.3 %"]);
    }

    #[test]
    fn paths_match_themselves_only() {
        assert_eq!(literal("blocks.3.fc[0]"), "blocks.3.fc[[]0[]]");
    }
}
