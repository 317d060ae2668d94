//! What is wrong, in words, with the recipe that mends it.

use maud::{Markup, html};

use super::anchor::Anchors;
use super::number;
use super::section::Section;
use crate::diagnosis::{Diagnosis, Finding, Severity};
use crate::text::SPREAD;

const HINT: &str = "A recipe here is a part: append its rules to those of yours, and its step to your algorithm.";

/// Renders the findings, the worst first.
pub(super) fn section(diagnosis: &Diagnosis, anchors: &Anchors) -> Section {
    let findings = &diagnosis.findings;
    let body = html! {
        @if findings.is_empty() {
            p { "Nothing stands out" @if diagnosis.is_poor() { (SPREAD) } "." }
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
        (count > 0).then(|| format!("{count} {}{plural}", severity.name()))
    });
    counted.collect::<Vec<_>>().join(", ")
}

fn item(index: usize, finding: &Finding, anchors: &Anchors) -> Markup {
    let severity = finding.severity.name();
    html! {
        li id={ "f" (index) } class=(severity) {
            div {
                h3 {
                    "F" (index + 1) " " span.badge { (severity) } " " (capitalized(finding.kind.name()))
                    @if finding.share > 0.0 && finding.severity != Severity::Note {
                        small { " " (number::percent(finding.share)) "\u{a0}% of the error" }
                    }
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

/// The same words, with a capital.
fn capitalized(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
