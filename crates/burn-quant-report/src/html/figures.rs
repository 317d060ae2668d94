//! Plots of the quantizers that matter most.

use maud::{Markup, html};

use super::anchor::{Anchors, shown};
use super::channels::Channels;
use super::gallery::{Figure, within};
use super::{histogram, number};
use crate::diagnosis::{Diagnosis, QuantizerDiagnosis};

/// How to read the plots.
pub(super) const LEGEND: &str = "Solid lines are the ends of the largest range, dotted lines those of the smallest; \
                                 the ticks below a histogram are the values of the format for the first range. \
                                 Neighbouring channels are merged to the larger one.";

/// Returns plots of the quantizers that findings are about, then of those with the least signal to noise.
///
/// All of them together have at most `bytes` bytes.
pub(super) fn worst(diagnosis: &Diagnosis, anchors: &Anchors, bytes: usize) -> Vec<Figure> {
    let quantizers = &diagnosis.quantizers;
    let rank = |quantizer: &QuantizerDiagnosis| {
        let finding = anchors.first_finding(&quantizer.name, &quantizer.layer).unwrap_or(usize::MAX);
        (finding, number::or_last(quantizer.sqnr))
    };
    let mut order: Vec<_> = quantizers.iter().map(rank).enumerate().collect();
    order.sort_by(|(_, a), (_, b)| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
    within(bytes, order.into_iter().filter_map(|(index, _)| figure(index, &quantizers[index], anchors)))
}

/// Says which quantizers have plots.
pub(super) fn scope(plotted: usize, all: usize) -> String {
    if plotted == all {
        "Plots of all quantizers of the table.".into()
    } else {
        format!(
            "Plots of {plotted} of the {all} quantizers: those that findings are about, then those with the least SQNR."
        )
    }
}

fn figure(index: usize, quantizer: &QuantizerDiagnosis, anchors: &Anchors) -> Option<Figure> {
    let plots = [histogram::plot(quantizer), channels(quantizer)];
    if plots.iter().all(Option::is_none) {
        return None;
    }
    let body = html! {
        @for plot in plots.iter().flatten() { (plot) }
        figcaption {
            (caption(quantizer))
            @if !quantizer.layer.is_empty() { "; layer " (anchors.link(&quantizer.layer)) }
        }
    };
    Some(Figure { index, id: format!("p{index}"), summary: summary(quantizer), body })
}

fn summary(quantizer: &QuantizerDiagnosis) -> Markup {
    let ratio = number::with_unit(number::decibels(quantizer.sqnr), "dB");
    html! { b { (shown(&quantizer.name)) } " " small { (quantizer.format) " " (ratio) } }
}

fn caption(quantizer: &QuantizerDiagnosis) -> String {
    let amax = match quantizer.amax {
        Some(amax) if amax.count > 1 => format!(", {} ranges {}", amax.count, number::ends(Some(amax))),
        Some(amax) => format!(", amax {}", number::short(amax.highest)),
        None => String::new(),
    };
    format!("{}, {}{amax}; {}", quantizer.granularity, quantizer.range, number::calls(quantizer.calls))
}

fn channels(quantizer: &QuantizerDiagnosis) -> Option<Markup> {
    let values = &quantizer.channel_amax;
    let shared = quantizer.amax.filter(|amax| amax.count == 1);
    let channels = Channels {
        title: format!("Largest magnitude of the channels of {}", shown(&quantizer.name)),
        label: "amax",
        values,
        count: quantizer.seen.map_or(values.len(), |seen| seen.count),
        worse: f32::max,
        limit: f32::INFINITY,
        range: shared.map(|amax| amax.highest.into()),
    };
    channels.plot()
}
