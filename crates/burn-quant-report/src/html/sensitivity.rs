//! The metric with one layer quantized, and with all layers but one.

use maud::{Markup, html};

use super::anchor::Anchors;
use super::number;
use super::overview::better;
use super::section::Section;
use super::table::{Column, table};
use crate::diagnosis::{Better, Diagnosis, Metric, Sensitivity};

const LAYER: Column = Column::plain("layer");
const ONLY: Column =
    Column::new("only this layer", "", "The metric with this layer quantized, and all others in float.");
const WITHOUT: Column = Column::new("all but this layer", "", "The metric with all layers quantized but this one.");
const WEIGHTS: Column =
    Column::new("only its weights", "", "The metric with the weights of this layer quantized, and nothing else.");
const ACTIVATIONS: Column = Column::new(
    "only its activations",
    "",
    "The metric with the activations of this layer quantized, and nothing else.",
);

/// Renders the sensitivity of the metric, the most sensitive layer first; `None` if it was not measured.
pub(super) fn section(diagnosis: &Diagnosis, anchors: &Anchors) -> Option<Section> {
    let metric = diagnosis.overview.metric.as_ref();
    let layers = most_sensitive_first(&diagnosis.sensitivity, metric);
    if layers.is_empty() {
        return None;
    }
    let bars = Bars::new(&layers, metric);
    let parts = layers.iter().any(|layer| layer.weights.is_some() || layer.activations.is_some());
    let columns: Vec<_> = [&LAYER, &ONLY, &WITHOUT]
        .into_iter()
        .chain(parts.then_some([&WEIGHTS, &ACTIVATIONS]).into_iter().flatten())
        .collect();
    let rows = html! {
        @for layer in &layers {
            tr {
                th scope="row" { (anchors.link(&layer.layer)) }
                (bars.cell(layer.only))
                (bars.cell(layer.without))
                @if parts { (bars.optional_cell(layer.weights)) (bars.optional_cell(layer.activations)) }
            }
        }
    };
    let caption = format!("{} layers, the most sensitive first", layers.len());
    let body = html! {
        @if let Some(metric) = metric { p.hint { (legend(metric)) } }
        div style=[bars.references(metric)] { (table(&caption, "sensitivity", 1, &columns, rows)) }
    };
    Some(Section { id: "sensitivity", heading: "Sensitivity", body })
}

fn legend(metric: &Metric) -> Markup {
    html! {
        "The metric is " (metric.name) ", " (better(metric)) ". In each bar, the solid line is the float model ("
        (number::metric(metric.float)) ") and the dotted line the quantized model (" (number::metric(metric.quantized))
        "). Bars begin at the float model, those of “all but this layer” at the quantized one: a long bar is a \
         sensitive layer."
    }
}

fn most_sensitive_first<'a>(layers: &'a [Sensitivity], metric: Option<&Metric>) -> Vec<&'a Sensitivity> {
    let mut layers: Vec<_> = layers.iter().collect();
    if let Some(metric) = metric {
        let quality = |layer: &Sensitivity| match metric.better {
            Better::Higher => number::or_last(Some(layer.only)),
            Better::Lower => number::or_last(Some(-layer.only)),
        };
        layers.sort_by(|a, b| quality(a).total_cmp(&quality(b)));
    }
    layers
}

/// The scale that all bars share.
struct Bars {
    low: f64,
    high: f64,
}

impl Bars {
    fn new(layers: &[&Sensitivity], metric: Option<&Metric>) -> Self {
        let measured =
            layers.iter().flat_map(|layer| [Some(layer.only), Some(layer.without), layer.weights, layer.activations]);
        let references = metric.into_iter().flat_map(|metric| [Some(metric.float), Some(metric.quantized)]);
        let values = measured.chain(references).flatten().filter(|value| value.is_finite());
        let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        Self { low, high }
    }

    /// Returns the place of a value on the scale, in percent.
    fn at(&self, value: f64) -> u32 {
        number::bar((value - self.low) / (self.high - self.low))
    }

    /// Returns where float and quantized model are on the scale, as properties of the style sheet.
    fn references(&self, metric: Option<&Metric>) -> Option<String> {
        metric.map(|metric| format!("--f:{};--q:{}", self.at(metric.float), self.at(metric.quantized)))
    }

    fn cell(&self, value: f64) -> Markup {
        html! { td { (number::metric(value)) @if value.is_finite() { i style={ "--v:" (self.at(value)) } {} } } }
    }

    fn optional_cell(&self, value: Option<f64>) -> Markup {
        self.cell(value.unwrap_or(f64::NAN))
    }
}
