//! Makes one self-contained page of a [`Diagnosis`]: style, script and plots are inside, nothing is fetched.
//!
//! ```text
//! Diagnosis
//!   │ overview       formats, size, accuracy
//!   │ findings       what is wrong, and the recipe that mends it
//!   │ layers         table, error through depth, channels of the worst layers
//!   │ quantizers     table, histogram and channels of the worst quantizers; attention has its own table
//!   │ sensitivity    the metric with one layer quantized, and with all layers but one
//!   │ curve          bits against the score of a search
//!   ▼ recipes        other recipes for the same model, the graph
//! ```
//!
//! Sections share [`number`] (numbers as text), [`anchor`] (links between rows, plots and findings), [`table`],
//! [`gallery`] (folded plots, within a number of bytes) and [`svg`]. The page works without JavaScript, which adds
//! sorting, the filter and the copy buttons.

mod anchor;
mod channels;
mod curve;
mod depth;
mod figures;
mod findings;
mod gallery;
mod histogram;
mod layers;
mod number;
mod overview;
mod quantizers;
mod recipes;
mod section;
mod sensitivity;
mod svg;
mod table;

#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use self::anchor::Anchors;
use self::gallery::Figure;
use self::section::Section;
use crate::diagnosis::Diagnosis;

/// Forbids every request: only what is written in the page is used.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      base-uri 'none'; form-action 'none'";

/// Bytes that a page should have at most, a little below 300 KiB.
const PAGE_BYTES: usize = 298 * 1024;

/// Bytes of the plots of quantizers in a page that is too large without them.
const LEAST_FIGURE_BYTES: usize = 24 * 1024;

impl Diagnosis {
    /// Returns a self-contained HTML page, to be written to a file and opened in a browser.
    ///
    /// The page lists every layer and quantizer. Plots are of the worst ones only, as many as fit: the page of a model
    /// with 200 layers and 400 quantizers has less than 300 KiB.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant_report::Diagnosis;
    ///
    /// let mut diagnosis = Diagnosis::default();
    /// diagnosis.title = "Encoder, INT8".into();
    /// let page = diagnosis.html();
    /// assert!(page.contains("<title>Encoder, INT8") && !page.contains("src=\"http")); // nothing is fetched
    /// ```
    pub fn html(&self) -> String {
        page(self)
    }
}

/// Renders the page of a diagnosis.
///
/// Rows, findings and layers come first; plots of quantizers fill the page up to its size.
fn page(diagnosis: &Diagnosis) -> String {
    let anchors = Anchors::new(diagnosis);
    let without_figures = render(diagnosis, &anchors, &[]).len();
    let left = PAGE_BYTES.saturating_sub(without_figures).max(LEAST_FIGURE_BYTES);
    render(diagnosis, &anchors, &figures::worst(diagnosis, &anchors, left))
}

fn render(diagnosis: &Diagnosis, anchors: &Anchors, figures: &[Figure]) -> String {
    let summary = [Some(overview::section(diagnosis)), Some(findings::section(diagnosis, anchors))];
    let filtered = [
        layers::section(diagnosis, anchors),
        quantizers::section(diagnosis, anchors, figures),
        quantizers::attention_section(diagnosis, anchors, figures),
    ];
    let comparison =
        [sensitivity::section(diagnosis, anchors), curve::section(diagnosis), recipes::section(diagnosis, anchors)];
    let title = if diagnosis.title.is_empty() { "Untitled model" } else { &diagnosis.title };

    html! {
        (DOCTYPE)
        html lang="en" {
            (head(title))
            body {
                a.skip href="#main" { "Skip to the report" }
                header {
                    h1 { (title) " " small { "quantization diagnosis" } }
                    (navigation(summary.iter().chain(&filtered).chain(&comparison).flatten()))
                }
                main id="main" {
                    (sections(&summary))
                    div { (filter()) (sections(&filtered)) }
                    (sections(&comparison))
                }
                script { (PreEscaped(include_str!("script.js"))) }
            }
        }
    }
    .into_string()
}

fn head(title: &str) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta http-equiv="Content-Security-Policy" content=(POLICY);
            meta name="viewport" content="width=device-width,initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) " – quantization diagnosis" }
            style { (PreEscaped(include_str!("style.css"))) }
        }
    }
}

fn navigation<'a>(sections: impl Iterator<Item = &'a Section>) -> Markup {
    html! { nav aria-label="Sections" { @for section in sections { (section.link()) " " } } }
}

fn sections(sections: &[Option<Section>]) -> Markup {
    html! { @for section in sections.iter().flatten() { (section) } }
}

/// Renders the box that filters the rows of layers and quantizers; the script shows it.
fn filter() -> Markup {
    html! {
        form.filter role="search" hidden {
            label {
                "Filter layers and quantizers "
                input type="search" placeholder="self_attn int8" autocomplete="off";
            }
            output aria-live="polite" {}
        }
    }
}
