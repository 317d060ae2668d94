//! Links between findings, rows and plots.
//!
//! Anchors are numbers, never names: `f0` is a finding, `l0` the row of a layer, `q0` that of a quantizer, `m0` the
//! plot of a layer, `p0` that of a quantizer.

use std::collections::HashMap;

use maud::{Markup, html};

use crate::diagnosis::Diagnosis;

/// Where layers, quantizers and findings are on the page, by name.
pub(super) struct Anchors<'a> {
    rows: HashMap<&'a str, String>,
    findings: HashMap<&'a str, Vec<usize>>,
}

impl<'a> Anchors<'a> {
    /// Collects the names of a diagnosis.
    pub(super) fn new(diagnosis: &'a Diagnosis) -> Self {
        let mut rows = HashMap::new();
        for (index, quantizer) in diagnosis.quantizers.iter().enumerate() {
            rows.entry(&*quantizer.name).or_insert_with(|| format!("q{index}"));
        }
        for (index, layer) in diagnosis.layers.iter().enumerate() {
            rows.entry(&*layer.path).or_insert_with(|| format!("l{index}"));
        }
        let mut findings = HashMap::<_, Vec<_>>::new();
        for (index, finding) in diagnosis.findings.iter().enumerate() {
            findings.entry(&*finding.at).or_default().push(index);
        }
        Self { rows, findings }
    }

    /// Renders a name as a link to its row, or without a link if no row has that name.
    pub(super) fn link(&self, name: &str) -> Markup {
        match self.rows.get(name) {
            Some(row) => html! { a href={ "#" (row) } { (shown(name)) } },
            None => html! { (shown(name)) },
        }
    }

    /// Renders links to the findings about a layer or a quantizer.
    pub(super) fn findings(&self, name: &str) -> Markup {
        let findings = self.findings.get(name).map_or(&[][..], Vec::as_slice);
        html! { @for index in findings { " " a.mark href={ "#f" (index) } { "F" (index + 1) } } }
    }

    /// Returns the place of the first finding about a quantizer or its layer.
    pub(super) fn first_finding(&self, quantizer: &str, layer: &str) -> Option<usize> {
        [quantizer, layer].iter().filter_map(|name| self.findings.get(name)?.first().copied()).min()
    }
}

/// Returns what to show for a path, which is empty at the root of a model.
pub(super) fn shown(path: &str) -> &str {
    if path.is_empty() { "(root)" } else { path }
}
