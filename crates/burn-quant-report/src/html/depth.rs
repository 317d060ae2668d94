//! Error through depth: the signal to noise of all layers, in the order in which data meets them.

use maud::{Markup, html};

use super::anchor::Anchors;
use super::number;
use super::svg::{Axis, Plot, dots, line};
use crate::diagnosis::{LayerDiagnosis, NO_NOISE};

const PLOT: Plot = Plot { width: 1040, height: 200 };
const MOST_MARKED: usize = 3;

/// Renders the plot; `None` if no layer has noise.
pub(super) fn figure(layers: &[LayerDiagnosis], anchors: &Anchors) -> Option<Markup> {
    let own = |layer: &LayerDiagnosis| measured(layer.own_sqnr);
    let both = layers.iter().flat_map(|layer| [own(layer), measured(layer.sqnr)]);
    let vertical = Axis::around(both.flatten(), PLOT.height)?;
    let horizontal = Axis::new(0.5, layers.len() as f64 + 0.5, PLOT.width)?;
    let point = |index: usize, ratio: f64| (horizontal.at(index as f64 + 1.0), PLOT.height - vertical.at(ratio));
    let points = |ratio: fn(&LayerDiagnosis) -> Option<f64>| {
        layers.iter().enumerate().map(move |(index, layer)| Some(point(index, ratio(layer)?)))
    };
    let least = least(layers);
    let svg = PLOT.svg(
        "Signal to noise of the layers in order, in decibels",
        html! {
            (PLOT.vertical(&vertical.ticks(5), "dB"))
            (PLOT.horizontal(&horizontal.ticks(10), "layer, in order"))
            path.l d=(line(points(|layer| measured(layer.sqnr)))) {}
            path.d d=(dots(points(|layer| measured(layer.own_sqnr)).flatten())) {}
            @for (index, ratio) in &least {
                @let (x, y) = point(*index, *ratio);
                circle.ring cx=(x) cy=(y) r="5" {}
                text.x x=(x) y=(y - 9) { (index + 1) }
            }
            (legend())
        },
    );
    Some(html! {
        figure.wide {
            div.box role="region" tabindex="0" aria-label="Error through depth" { (svg) }
            figcaption {
                "Layers that are exact or were not measured are gaps."
                @if !least.is_empty() {
                    " Ringed, the least by themselves: "
                    @for (place, (index, ratio)) in least.iter().enumerate() {
                        @if place > 0 { ", " }
                        (index + 1) " " (anchors.link(&layers[*index].path)) " " (number::decibels(*ratio)) "\u{a0}dB"
                    }
                    "."
                }
            }
        }
    })
}

/// Returns a ratio that the axis can show.
fn measured(ratio: Option<f64>) -> Option<f64> {
    ratio.filter(|ratio| ratio.is_finite() && *ratio < NO_NOISE)
}

/// Returns the layers that have the least signal to noise by themselves, with their ratios.
fn least(layers: &[LayerDiagnosis]) -> Vec<(usize, f64)> {
    let ratios = layers.iter().enumerate().filter_map(|(index, layer)| Some((index, measured(layer.own_sqnr)?)));
    let mut ratios: Vec<_> = ratios.collect();
    ratios.sort_by(|a, b| a.1.total_cmp(&b.1));
    ratios.truncate(MOST_MARKED);
    ratios
}

fn legend() -> Markup {
    html! {
        path.l d="M20 -11h26" {}
        text x="52" y="-7" { "in the quantized model: this layer and all before it" }
        path.d d="M352 -11h0" {}
        text x="360" y="-7" { "own: this layer with inputs of the float model" }
    }
}
