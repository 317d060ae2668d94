//! The model as a whole.

use maud::{Markup, html};

use super::number;
use super::section::Section;
use crate::diagnosis::{Better, Diagnosis, Metric, Overview};

/// Renders the overview.
pub(super) fn section(diagnosis: &Diagnosis) -> Section {
    let overview = &diagnosis.overview;
    let body = html! {
        dl.tiles {
            (tile("Output SQNR", html! { (number::with_unit(number::decibels(overview.output_sqnr), "dB")) }, html! {}))
            @if let Some(metric) = &overview.metric { (metric_tile(metric)) }
            (size_tile(overview))
            (tile("Effective bits", html! { (number::short(overview.effective_bits)) }, html! { "per parameter" }))
            (tile(
                "Quantizers on",
                html! { (overview.enabled) small { " of " (overview.quantizers) } },
                html! { (overview.batches) @if overview.batches == 1 { " batch" } @else { " batches" } " watched" },
            ))
            @if !overview.formats.is_empty() { (formats_tile(overview)) }
            @if overview.output_non_finite > 0.0 {
                (tile(
                    "Output not finite",
                    html! { strong.broken { (number::percent(overview.output_non_finite)) "\u{a0}%" } },
                    html! { "of all values are NaN or infinite" },
                ))
            }
        }
    };
    Section { id: "overview", heading: "Overview", body }
}

fn tile(name: &str, value: Markup, note: Markup) -> Markup {
    html! { div { dt { (name) } dd { (value) @if !note.0.is_empty() { p { (note) } } } } }
}

fn metric_tile(metric: &Metric) -> Markup {
    let name = format!("Metric: {}", metric.name);
    tile(
        &name,
        html! { (number::metric(metric.quantized)) },
        html! { "float: " (number::metric(metric.float)) "; " (better(metric)) },
    )
}

/// Says which values of a metric are good.
pub(super) fn better(metric: &Metric) -> &'static str {
    match metric.better {
        Better::Higher => "higher is better",
        Better::Lower => "lower is better",
    }
}

fn size_tile(overview: &Overview) -> Markup {
    let factor = overview.float_bytes as f64 / overview.quantized_bytes as f64;
    tile(
        "Size",
        html! { (number::bytes(overview.quantized_bytes)) },
        html! {
            "float: " (number::bytes(overview.float_bytes))
            @if factor.is_finite() { ", " (number::short(factor)) " times as much" }
        },
    )
}

fn formats_tile(overview: &Overview) -> Markup {
    html! {
        div {
            dt { "Formats" }
            dd { ul { @for (format, count) in &overview.formats { li { (format) small { " × " (count) } } } } }
        }
    }
}
