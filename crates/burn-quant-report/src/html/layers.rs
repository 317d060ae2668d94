//! What quantization does to the output of each layer.

use maud::{Markup, html};

use super::anchor::{Anchors, shown};
use super::channels::Channels;
use super::gallery::{Figure, gallery, row_name, within};
use super::section::Section;
use super::table::{Column, table};
use super::{depth, number};
use crate::diagnosis::{Diagnosis, LayerDiagnosis, NO_NOISE};

/// Bytes of the plots of channels.
const FIGURE_BYTES: usize = 12 * 1024;

const COLUMNS: [Column; 9] = [
    Column::new("#", "", "The place of the layer in the order in which data meets the layers."),
    Column::plain("layer"),
    Column::new("format", "", "The formats of weight and input."),
    Column::new(
        "own SQNR",
        "dB",
        "Signal to noise of the output with inputs of the float model: what this layer does.",
    ),
    Column::new(
        "SQNR in the model",
        "dB",
        "Signal to noise of the output in the quantized model: what this layer and all before it do.",
    ),
    Column::new(
        "share of error",
        "%",
        "The noise of this layer as a share of that of all layers. The largest share has the longest bar.",
    ),
    Column::new("shift", "", "The mean of the error by its root mean square: 0 for noise, ±1 if all values shift."),
    Column::new("amax, float", "", "The largest magnitude of the output in the float model."),
    Column::new("amax, quantized", "", "The largest magnitude of the output in the quantized model."),
];
const NON_FINITE: Column = Column::new("non-finite", "%", "Values of the quantized output that are NaN or infinite.");

/// Renders the layers; `None` if there are none.
pub(super) fn section(diagnosis: &Diagnosis, anchors: &Anchors) -> Option<Section> {
    let layers = &diagnosis.layers;
    if layers.is_empty() {
        return None;
    }
    let figures =
        within(FIGURE_BYTES, worst_first(layers).into_iter().filter_map(|index| figure(index, layers, anchors)));
    let rows = Rows {
        anchors,
        figures: &figures,
        largest_share: layers.iter().map(|layer| layer.share).fold(0.0, f64::max),
        non_finite: layers.iter().any(|layer| layer.non_finite > 0.0),
    };
    let columns: Vec<_> = COLUMNS.iter().chain(rows.non_finite.then_some(&NON_FINITE)).collect();
    let caption = format!("{} layers, in the order in which data meets them", layers.len());
    let body = html! {
        @if let Some(figure) = depth::figure(layers, anchors) { h3 { "Error through depth" } (figure) }
        (table(&caption, "layers", 3, &columns, rows.render(layers)))
        @if !figures.is_empty() {
            h3 { "Channels of layers" }
            p.hint {
                "Signal to noise of each output channel by itself, of " (figures.len())
                " layers, the least signal to noise first. Neighbours are merged to the lower one."
            }
            (gallery(&figures.iter().collect::<Vec<_>>()))
        }
    };
    Some(Section { id: "layers", heading: "Layers", body })
}

struct Rows<'a> {
    anchors: &'a Anchors<'a>,
    figures: &'a [Figure],
    largest_share: f64,
    non_finite: bool,
}

impl Rows<'_> {
    fn render(&self, layers: &[LayerDiagnosis]) -> Markup {
        html! { @for (index, layer) in layers.iter().enumerate() { (self.row(index, layer)) } }
    }

    fn row(&self, index: usize, layer: &LayerDiagnosis) -> Markup {
        html! {
            tr id={ "l" (index) } {
                td { (index + 1) }
                th scope="row" {
                    (row_name(self.figures, index, &layer.path))
                    (self.anchors.findings(&layer.path))
                }
                td { (layer.format) }
                td { (number::decibels(layer.own_sqnr)) }
                td { (number::decibels(layer.sqnr)) }
                td {
                    (number::percent(layer.share))
                    i style={ "--v:" (number::bar(layer.share / self.largest_share)) } {}
                }
                td { (layer.shift.map_or(number::DASH.into(), number::signed)) }
                td { (number::short(layer.float_amax)) }
                td { (number::short(layer.quantized_amax)) }
                @if self.non_finite { td { (number::percent(layer.non_finite)) } }
            }
        }
    }
}

fn worst_first(layers: &[LayerDiagnosis]) -> Vec<usize> {
    let ratio = |index: &usize| number::or_last(layers[*index].own_sqnr);
    let mut order: Vec<_> = (0..layers.len()).collect();
    order.sort_by(|a, b| ratio(a).total_cmp(&ratio(b)));
    order
}

fn figure(index: usize, layers: &[LayerDiagnosis], anchors: &Anchors) -> Option<Figure> {
    let layer = &layers[index];
    let plot = Channels {
        title: format!("Signal to noise of the channels of {}", shown(&layer.path)),
        label: "dB",
        values: &layer.channel_sqnr,
        count: layer.channel_sqnr.len(),
        worse: f32::min,
        limit: NO_NOISE as f32,
        range: None,
    };
    let ratio = number::with_unit(number::decibels(layer.own_sqnr), "dB");
    Some(Figure {
        index,
        id: format!("m{index}"),
        summary: html! { b { (shown(&layer.path)) } " " small { (ratio) } },
        body: html! {
            (plot.plot()?)
            figcaption { (layer.format) "; " (number::calls(layer.calls)) "; row " (anchors.link(&layer.path)) }
        },
    })
}
