//! Other recipes for the same model, and its graph.

use maud::{Markup, html};

use super::anchor::Anchors;
use super::number;
use super::section::Section;
use super::table::{Column, table};
use crate::diagnosis::{Diagnosis, RecipeResult};

const COLUMNS: [Column; 5] = [
    Column::plain("recipe"),
    Column::new("worst layer", "", "The layer with the most noise."),
    Column::new("bits", "", "Effective bits per parameter."),
    Column::new("output SQNR", "dB", "Signal to noise of the output."),
    Column::plain("metric"),
];

/// Renders the comparison with other recipes and the link to the graph; `None` if there is neither.
pub(super) fn section(diagnosis: &Diagnosis, anchors: &Anchors) -> Option<Section> {
    let compared = !diagnosis.recipes.is_empty();
    let heading = if compared { "Recipes" } else { "Graph" };
    let body = html! {
        @if compared { (comparison(diagnosis, anchors)) }
        @if let Some(address) = &diagnosis.graph { p { (graph(address)) } }
    };
    (compared || diagnosis.graph.is_some()).then_some(Section { id: "recipes", heading, body })
}

fn comparison(diagnosis: &Diagnosis, anchors: &Anchors) -> Markup {
    let rows = html! {
        tr.this { (cells(&this_model(diagnosis), anchors)) }
        @for recipe in &diagnosis.recipes { tr { (cells(recipe, anchors)) } }
    };
    table("The model of this page, and others of its float model", "recipes", 2, &COLUMNS.each_ref(), rows)
}

fn cells(recipe: &RecipeResult, anchors: &Anchors) -> Markup {
    html! {
        th scope="row" { (recipe.name) }
        td { @if let Some(layer) = &recipe.worst_layer { (anchors.link(layer)) } @else { (number::DASH) } }
        td { (number::short(recipe.bits)) }
        td { (number::decibels(recipe.output_sqnr)) }
        td { (recipe.metric.map_or(number::DASH.into(), number::metric)) }
    }
}

/// Returns the model of the diagnosis as a row of the comparison.
fn this_model(diagnosis: &Diagnosis) -> RecipeResult {
    let overview = &diagnosis.overview;
    let worst = diagnosis.layers.iter().filter(|layer| layer.share > 0.0).max_by(|a, b| a.share.total_cmp(&b.share));
    RecipeResult {
        name: "this model".into(),
        bits: overview.effective_bits,
        output_sqnr: overview.output_sqnr,
        metric: overview.metric.as_ref().map(|metric| metric.quantized),
        worst_layer: worst.map(|layer| layer.path.clone()),
    }
}

/// Renders the address of the graph, as a link only if it is relative: it may come from a file that others wrote.
fn graph(address: &str) -> Markup {
    let relative = address.starts_with(|first: char| first.is_alphanumeric() || first == '.') && !address.contains(':');
    html! { "Graph of the model: " @if relative { a href=(address) { (address) } } @else { code { (address) } } }
}
