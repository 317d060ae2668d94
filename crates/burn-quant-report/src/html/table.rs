//! A table in a box that scrolls, with an explanation of its columns.

use maud::{Markup, html};

/// A column of a table.
pub(super) struct Column {
    /// The heading.
    pub(super) name: &'static str,
    /// The unit of its numbers; may be empty.
    pub(super) unit: &'static str,
    /// What its values mean: a sentence; empty if the heading says it.
    pub(super) meaning: &'static str,
}

impl Column {
    /// Creates a column whose numbers have a unit.
    pub(super) const fn new(name: &'static str, unit: &'static str, meaning: &'static str) -> Self {
        Self { name, unit, meaning }
    }

    /// Creates a column that needs neither a unit nor an explanation.
    pub(super) const fn plain(name: &'static str) -> Self {
        Self::new(name, "", "")
    }
}

/// Renders a table whose first columns are text, `text` of them, and the others numbers.
pub(super) fn table(caption: &str, class: &str, text: usize, columns: &[&Column], rows: Markup) -> Markup {
    html! {
        div.box role="region" tabindex="0" aria-label=(caption) {
            table class={ (class) " t" (text) } {
                caption { (caption) }
                thead { tr { @for column in columns { (heading(column)) } } }
                tbody { (rows) }
            }
        }
        (meanings(columns))
    }
}

fn heading(column: &Column) -> Markup {
    html! { th scope="col" { (column.name) @if !column.unit.is_empty() { " " small { (column.unit) } } } }
}

fn meanings(columns: &[&Column]) -> Markup {
    let explained: Vec<_> = columns.iter().filter(|column| !column.meaning.is_empty()).collect();
    html! {
        @if !explained.is_empty() {
            details.help {
                summary { "What the columns mean" }
                dl { @for column in explained { dt { (column.name) } dd { (column.meaning) } } }
            }
        }
    }
}
