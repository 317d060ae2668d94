//! What each quantizer does to its tensors.

use maud::{Markup, html};

use super::anchor::Anchors;
use super::gallery::{Figure, gallery, row_name};
use super::section::Section;
use super::table::{Column, table};
use super::{figures, number};
use crate::diagnosis::{Diagnosis, Operand, QuantizerDiagnosis};

const COLUMNS: [Column; 15] = [
    Column::plain("quantizer"),
    Column::plain("operand"),
    Column::plain("format"),
    Column::new("granularity", "", "Which elements share a range."),
    Column::new("range", "", "Where the range comes from: static, dynamic or constant."),
    Column::new("SQNR", "dB", "Signal to noise of rounding."),
    Column::new("channel", "dB", "The median of the channels' signal to noise: large channels do not hide small ones."),
    Column::new("amax", "", "The range in the units of the tensor; the lowest and the highest if there are several."),
    Column::new("seen", "", "The largest magnitude of the data, of the channel with the lowest and with the highest."),
    Column::new("clipped", "%", "Elements outside the range."),
    Column::new("zeroed", "%", "Elements that are not zero and become zero."),
    Column::new(
        "outliers",
        "×",
        "The largest magnitude of a channel, divided by that of the median channel; which channel, in brackets.",
    ),
    Column::new("tokens", "×", "The largest magnitude of a token, divided by the root mean square of those of all."),
    Column::new("lost", "", "Channels that are not zero, and of which rounding leaves nothing."),
    Column::new("dead", "", "Channels that are zero in all data."),
];
const NON_FINITE: Column = Column::new("non-finite", "%", "Elements that are NaN or infinite.");

/// Renders the quantizers that are not of attention; `None` if there are none.
pub(super) fn section(diagnosis: &Diagnosis, anchors: &Anchors, figures: &[Figure]) -> Option<Section> {
    let part = Part { diagnosis, anchors, figures, wanted: |operand| operand != Operand::Attention };
    part.section("quantizers", "Quantizers")
}

/// Renders the quantizers of attention and of KV caches; `None` if there are none.
pub(super) fn attention_section(diagnosis: &Diagnosis, anchors: &Anchors, figures: &[Figure]) -> Option<Section> {
    let part = Part { diagnosis, anchors, figures, wanted: |operand| operand == Operand::Attention };
    part.section("attention", "Attention and KV cache")
}

/// The quantizers of some operands.
struct Part<'a> {
    diagnosis: &'a Diagnosis,
    anchors: &'a Anchors<'a>,
    figures: &'a [Figure],
    wanted: fn(Operand) -> bool,
}

impl Part<'_> {
    fn section(&self, id: &'static str, heading: &'static str) -> Option<Section> {
        let all = &self.diagnosis.quantizers;
        let wanted: Vec<_> = all.iter().enumerate().filter(|(_, quantizer)| (self.wanted)(quantizer.operand)).collect();
        if wanted.is_empty() {
            return None;
        }
        let non_finite = all.iter().any(|quantizer| quantizer.non_finite > 0.0);
        let columns: Vec<_> = COLUMNS.iter().chain(non_finite.then_some(&NON_FINITE)).collect();
        let rows = html! {
            @for (index, quantizer) in &wanted {
                tr id={ "q" (index) } {
                    (self.cells(*index, quantizer))
                    @if non_finite { td { (number::percent(quantizer.non_finite)) } }
                }
            }
        };
        let caption = format!("{} quantizers, in the order of the fields of the model", wanted.len());
        let body = html! {
            (table(&caption, "quantizers", 5, &columns, rows))
            (self.plots(wanted.len()))
        };
        Some(Section { id, heading, body })
    }

    fn cells(&self, index: usize, quantizer: &QuantizerDiagnosis) -> Markup {
        html! {
            th scope="row" {
                (row_name(self.figures, index, &quantizer.name))
                (self.anchors.findings(&quantizer.name))
            }
            td { (operand_name(quantizer.operand)) }
            td { (quantizer.format) }
            td { (quantizer.granularity) }
            td { (quantizer.range) }
            td { (number::decibels(quantizer.sqnr)) }
            td { (number::decibels(quantizer.channel_sqnr)) }
            td { (number::ends(quantizer.amax)) }
            td { (number::ends(quantizer.seen)) }
            td { (number::percent(quantizer.clipped)) }
            td { (number::percent(quantizer.zeroed)) }
            td { (outliers(quantizer)) }
            td { (quantizer.token_ratio.map_or(number::DASH.into(), number::short)) }
            td { (quantizer.lost_channels) }
            td { (quantizer.dead_channels) }
        }
    }

    fn plots(&self, quantizers: usize) -> Markup {
        let of = |figure: &&Figure| (self.wanted)(self.diagnosis.quantizers[figure.index].operand);
        let figures: Vec<_> = self.figures.iter().filter(of).collect();
        html! {
            @if !figures.is_empty() {
                h3 { "Histograms and channels" }
                p.hint { (figures::scope(figures.len(), quantizers)) " " (figures::LEGEND) }
                (gallery(&figures))
            }
        }
    }
}

fn outliers(quantizer: &QuantizerDiagnosis) -> String {
    match (quantizer.outlier_ratio, quantizer.outlier_channel) {
        (Some(ratio), Some(channel)) if ratio.is_finite() => format!("{} ({channel})", number::short(ratio)),
        (ratio, _) => ratio.map_or(number::DASH.into(), number::short),
    }
}

fn operand_name(operand: Operand) -> &'static str {
    match operand {
        Operand::Weight => "weight",
        Operand::Input => "input",
        Operand::Output => "output",
        Operand::Attention => "attention",
        Operand::Other => "other",
    }
}
