//! A diagnosis for the terminal: the model, the worst layers, and what to do.

use std::fmt;

use crate::diagnosis::{Diagnosis, LayerDiagnosis, NO_NOISE};

/// Layers and findings that are shown.
const SHOWN: usize = 10;
/// Lines of a recipe that are shown.
const LINES: usize = 12;
/// Characters of a line of a recipe that are shown.
const COLUMNS: usize = 110;
/// An output below this ratio, in decibels, is poor.
const POOR: f64 = 20.0;
/// What is said of a poor output to which all layers do about the same.
pub(crate) const SPREAD: &str = concat!(
    ", but the output is poor: all layers do about as much. ",
    "Take a format of more bits, or let auto-quantize choose the layers that get them",
);

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_overview(f)?;
        self.write_layers(f)?;
        self.write_findings(f)
    }
}

impl Diagnosis {
    /// Whether the output is far from that of the float model.
    pub(crate) fn is_poor(&self) -> bool {
        self.overview.output_sqnr.is_some_and(|sqnr| sqnr < POOR)
    }

    fn write_overview(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let overview = &self.overview;
        writeln!(f, "{}", self.title)?;
        let formats: Vec<String> = overview.formats.iter().map(|(format, count)| format!("{count} {format}")).collect();
        let formats = if formats.is_empty() { String::new() } else { format!(" ({})", formats.join(", ")) };
        writeln!(
            f,
            "{} of {} quantizers are on{formats}; {:.2} bits per parameter, {} instead of {} bytes",
            overview.enabled,
            overview.quantizers,
            overview.effective_bits,
            overview.quantized_bytes,
            overview.float_bytes,
        )?;
        let batches = if overview.batches == 1 { "batch" } else { "batches" };
        let sqnr = decibels(overview.output_sqnr);
        write!(f, "output {sqnr} signal to noise over {} {batches}", overview.batches)?;
        if overview.output_non_finite > 0.0 {
            write!(f, ", {:.2} % of it not finite", overview.output_non_finite * 100.0)?;
        }
        match &overview.metric {
            Some(metric) => {
                writeln!(f, "; {} {:.4}, in float {:.4}", metric.name, metric.quantized, metric.float)
            }
            None => writeln!(f),
        }
    }

    fn write_layers(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.layers.is_empty() {
            return writeln!(f, "\nno layer was watched: no layer of `burn_quant::nn` was called, which can be");
        }
        let mut layers: Vec<&LayerDiagnosis> = self.layers.iter().collect();
        layers.sort_by(|a, b| b.share.total_cmp(&a.share));
        layers.truncate(SHOWN);
        let width = layers.iter().map(|layer| layer.path.chars().count()).max().unwrap_or(0).max("layer".len());
        writeln!(f, "\n{:width$}  share of error  by itself  in the model  formats", "layer")?;
        for layer in layers {
            writeln!(
                f,
                "{:width$}  {:>12.1} %  {:>9}  {:>12}  {}",
                if layer.path.is_empty() { "(model)" } else { &layer.path },
                layer.share * 100.0,
                decibels(layer.own_sqnr),
                decibels(layer.sqnr),
                layer.format,
            )?;
        }
        Ok(())
    }

    fn write_findings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.findings.is_empty() {
            return write!(f, "\nnothing stands out{}", if self.is_poor() { SPREAD } else { "" });
        }
        for (i, finding) in self.findings.iter().take(SHOWN).enumerate() {
            let (severity, kind) = (finding.severity.name(), finding.kind.name());
            let at = if finding.at.is_empty() { "(model)" } else { &finding.at };
            write!(f, "\n{}. {severity}, {kind}: {at}\n   {}\n   {}", i + 1, finding.message, finding.advice)?;
            if let Some(recipe) = finding.recipe() {
                write_recipe(f, &recipe)?;
            }
        }
        match self.findings.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

/// Writes the beginning of a recipe.
fn write_recipe(f: &mut fmt::Formatter<'_>, recipe: &str) -> fmt::Result {
    let lines: Vec<&str> = recipe.trim_end().lines().collect();
    for line in lines.iter().take(LINES) {
        let cut = line.char_indices().nth(COLUMNS).map(|(end, _)| format!("{} …", &line[..end]));
        write!(f, "\n   | {}", cut.as_deref().unwrap_or(line))?;
    }
    match lines.len().saturating_sub(LINES) {
        0 => Ok(()),
        more => write!(f, "\n   | … {more} more lines: all are in the page and in JSON"),
    }
}

fn decibels(sqnr: Option<f64>) -> String {
    match sqnr {
        None => "–".into(),
        Some(sqnr) if sqnr >= NO_NOISE => "exact".into(),
        Some(sqnr) => format!("{sqnr:.1} dB"),
    }
}
