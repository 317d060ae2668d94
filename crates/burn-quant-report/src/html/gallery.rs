//! Folded plots of the worst layers or quantizers, as many as fit into a number of bytes.

use maud::{Markup, html};

use super::anchor::shown;

/// Figures that are unfolded from the start.
const OPEN: usize = 3;

/// Bytes around a figure: its element, and the link from its row.
const FRAME_BYTES: usize = 128;

/// The plots of a layer or a quantizer.
pub(super) struct Figure {
    /// Its place among the layers or quantizers of the diagnosis.
    pub(super) index: usize,
    /// The anchor.
    pub(super) id: String,
    /// The line that is always visible.
    pub(super) summary: Markup,
    /// Plots and caption.
    pub(super) body: Markup,
}

/// Takes figures, the most important first, until their bytes are spent.
pub(super) fn within(bytes: usize, figures: impl Iterator<Item = Figure>) -> Vec<Figure> {
    let mut left = bytes;
    figures
        .map_while(|figure| {
            left = left.checked_sub(figure.summary.0.len() + figure.body.0.len() + FRAME_BYTES)?;
            Some(figure)
        })
        .collect()
}

/// Renders the name in a row of a table, as a link to its figure if there is one.
pub(super) fn row_name(figures: &[Figure], index: usize, name: &str) -> Markup {
    match figures.iter().find(|figure| figure.index == index) {
        Some(figure) => html! { a href={ "#" (figure.id) } { (shown(name)) } },
        None => html! { (shown(name)) },
    }
}

/// Renders figures, the first ones unfolded.
pub(super) fn gallery(figures: &[&Figure]) -> Markup {
    html! {
        div.gallery {
            @for (rank, figure) in figures.iter().enumerate() {
                details open[rank < OPEN] {
                    summary { (figure.summary) }
                    figure id=(figure.id) { (figure.body) }
                }
            }
        }
    }
}
