//! What is wrong, in words, with the recipe that mends it.

use maud::{Markup, html};

use super::anchor::Anchors;
use super::number;
use super::section::Section;
use crate::diagnosis::{Diagnosis, Finding, FindingKind, Severity};

const HINT: &str = "A recipe here is a part: append its rules to those of yours, and its step to your algorithm.";

/// Renders the findings, the worst first.
pub(super) fn section(diagnosis: &Diagnosis, anchors: &Anchors) -> Section {
    let findings = &diagnosis.findings;
    let body = html! {
        @if findings.is_empty() {
            p { "Nothing stands out." }
        } @else {
            p.hint { (counts(findings)) ". " (HINT) }
            ol.findings { @for (index, finding) in findings.iter().enumerate() { (item(index, finding, anchors)) } }
        }
    };
    Section { id: "findings", heading: "Findings", body }
}

fn counts(findings: &[Finding]) -> String {
    let counted = [Severity::Broken, Severity::Costly, Severity::Note].into_iter().filter_map(|severity| {
        let count = findings.iter().filter(|finding| finding.severity == severity).count();
        let plural = if severity == Severity::Note && count > 1 { "s" } else { "" };
        (count > 0).then(|| format!("{count} {}{plural}", severity_name(severity)))
    });
    counted.collect::<Vec<_>>().join(", ")
}

fn item(index: usize, finding: &Finding, anchors: &Anchors) -> Markup {
    let severity = severity_name(finding.severity);
    html! {
        li id={ "f" (index) } class=(severity) {
            div {
                h3 {
                    "F" (index + 1) " " span.badge { (severity) } " " (kind_name(finding.kind))
                    @if finding.share > 0.0 { small { " " (number::percent(finding.share)) "\u{a0}% of the error" } }
                }
                p.at { (anchors.link(&finding.at)) }
                p { (with_code(&finding.message)) }
                p { (with_code(&finding.advice)) }
            }
            @if let Some(recipe) = finding.recipe() {
                pre role="group" tabindex="0" aria-label={ "Recipe for F" (index + 1) } { code { (recipe.trim_end()) } }
            }
        }
    }
}

/// Marks up what stands between backticks.
fn with_code(sentence: &str) -> Markup {
    html! {
        @for (index, part) in sentence.split('`').enumerate() {
            @if index % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

fn severity_name(severity: Severity) -> &'static str {
    match severity {
        Severity::Broken => "broken",
        Severity::Costly => "costly",
        Severity::Note => "note",
    }
}

fn kind_name(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::Overflow => "Overflow",
        FindingKind::SwappedRanges => "Swapped ranges",
        FindingKind::Uncalibrated => "Uncalibrated range",
        FindingKind::Saturated => "Range too small",
        FindingKind::Unused => "Range too large",
        FindingKind::WrongAxis => "Ranges along the wrong axis",
        FindingKind::BrokenByTraining => "Broken by training",
        FindingKind::OutlierChannels => "Outlier channels",
        FindingKind::OutlierTokens => "Outlier tokens",
        FindingKind::LostChannels => "Lost channels",
        FindingKind::DeadChannels => "Dead channels",
        FindingKind::TooFewBits => "Too few bits",
        FindingKind::ShiftedOutput => "Shifted output",
    }
}
