//! A state as a table: what each group may get, what it costs, and what was chosen.

use super::{SearchState, Selection};

/// Prints as an aligned table: a line for each group and choice, the chosen one marked.
#[derive(Clone, Debug, PartialEq)]
pub struct SearchTable {
    lines: Vec<[String; 5]>,
    summary: String,
}

impl SearchState {
    /// The groups with the formats that were chosen for the budget of the configuration.
    pub fn table(&self) -> SearchTable {
        self.table_of(self.best.as_ref())
    }

    /// The same with another selection.
    pub fn table_of(&self, selection: Option<&Selection>) -> SearchTable {
        let mut lines = Vec::new();
        for group in &self.groups {
            let elements: usize = group.units.iter().map(super::Unit::elements).sum();
            let chosen = selection.and_then(|selection| selection.formats.get(group.name()));
            let more = group.units.len() - 1;
            let name = if more > 0 { format!("{} (+{more})", group.name()) } else { group.name().to_string() };
            for (i, (choice, monotone)) in group.choices.iter().zip(group.monotone_scores()).enumerate() {
                let score = match choice.score {
                    None => "-".into(),
                    Some(score) if score > monotone => format!("{monotone:.3e} ({score:.3e})"),
                    Some(score) => format!("{score:.3e}"),
                };
                let mark = if chosen == Some(&choice.format) { "*" } else { "" };
                let format = choice.format.as_deref().unwrap_or("none");
                let format = if choice.allowed { format.to_string() } else { format!("({format})") };
                lines.push([
                    if i == 0 { name.clone() } else { String::new() },
                    format!("{mark:1} {format}"),
                    format!("{:.3}", choice.cost / elements as f64),
                    format!("{:.0}", choice.cost / 8.0),
                    score,
                ]);
            }
        }
        let summary = match selection {
            None => "no selection yet".into(),
            Some(selection) => {
                let gap = match selection.gap {
                    0.0 => String::new(),
                    gap => format!(", at most {gap:.1e} above the least"),
                };
                format!(
                    "{} groups, {:.4} bits per parameter of a budget of {}, score {:.4e}{gap}",
                    self.groups.len(),
                    selection.effective_bits,
                    selection.budget,
                    selection.score
                )
            }
        };
        let summary = match self.unreached.as_slice() {
            [] => summary,
            names => format!("{summary}\nno batch reached `{}`: scored like their siblings", names.join("`, `")),
        };
        SearchTable { lines, summary }
    }
}

impl std::fmt::Display for SearchTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let header = ["group", "  format", "bits", "bytes", "score"].map(String::from);
        let lines = || std::iter::once(&header).chain(&self.lines);
        let width = |column: usize| lines().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 5] = std::array::from_fn(width);
        for [group, format, bits, bytes, score] in lines() {
            let [g, o, b, y, _] = widths;
            writeln!(f, "{group:g$}  {format:o$}  {bits:>b$}  {bytes:>y$}  {score}")?;
        }
        f.write_str(&self.summary)
    }
}
