//! A section of the page, with its entry in the navigation.

use maud::{Markup, Render, html};

/// A part of the page with a heading.
pub(super) struct Section {
    /// The anchor.
    pub(super) id: &'static str,
    /// The heading; also the entry in the navigation.
    pub(super) heading: &'static str,
    /// The content.
    pub(super) body: Markup,
}

impl Section {
    /// Renders the entry in the navigation.
    pub(super) fn link(&self) -> Markup {
        html! { a href={ "#" (self.id) } { (self.heading) } }
    }
}

impl Render for Section {
    fn render(&self) -> Markup {
        html! { section id=(self.id) { h2 { (self.heading) } (self.body) } }
    }
}
