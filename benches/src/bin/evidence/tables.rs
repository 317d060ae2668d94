//! The tables, and the pictures of accuracy over bits.

use std::error::Error;
use std::path::{Path, PathBuf};

use burn_quant_benches::{device, moby_dick, onnx_runtime_table};
use diagnose::{Fault, Trial};
use plot::{Axis, Better, Row, Rows};
use pretrained::smollm::{SmolLm, Written};
use pretrained::table::Table;
use pretrained::{efficientnet, minilm, smollm};

/// A file of an example.
pub(crate) fn example(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "..", "examples", path].iter().collect()
}

/// A table, or why there is none.
pub(crate) type Made = Result<Evidence, Box<dyn Error>>;

/// A table.
pub(crate) struct Evidence {
    /// What the columns are.
    pub(crate) header: Vec<String>,
    /// The float model first.
    pub(crate) rows: Vec<Vec<String>>,
}

impl Evidence {
    /// Takes over a table of recipes, with so many decimals in each column.
    fn of(table: &Table, decimals: &[usize]) -> Self {
        let number = |(value, decimals): (&f64, &usize)| format!("{value:.decimals$}");
        let row = |(recipe, numbers): &(String, Vec<f64>)| {
            std::iter::once(recipe.clone()).chain(numbers.iter().zip(decimals).map(number)).collect()
        };
        let header = std::iter::once("recipe".to_string()).chain(table.columns.iter().cloned()).collect();
        Self { header, rows: table.rows.iter().map(row).collect() }
    }

    /// Reads a table from Markdown.
    pub(crate) fn read(text: &str) -> Self {
        let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_string()).collect();
        let mut lines = text.lines().take_while(|line| line.starts_with('|')).map(cells);
        let header = lines.next().unwrap_or_default();
        Self { header, rows: lines.skip(1).collect() }
    }

    /// Returns the table as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
        let rule = format!("|{}", "---|".repeat(self.header.len()));
        let mut lines = vec![line(&self.header), rule];
        lines.extend(self.rows.iter().map(|row| line(row)));
        lines.join("\n")
    }

    /// Draws the first column after the bits: a row for each recipe, the best at the top, a tick at the float model.
    pub(crate) fn picture(&self, title: &str, x: Axis) -> Rows {
        let value = |row: &[String]| row.get(2).and_then(|cell| cell.parse::<f64>().ok()).unwrap_or(f64::NAN);
        let float = self.rows.first().map(|row| value(row));
        let note = |row: &[String]| row.get(1).cloned().unwrap_or_default();
        let row =
            |row: &Vec<String>| Row { name: row[0].clone(), note: note(row), values: vec![value(row)], tick: float };
        let mut rows: Vec<Row> = self.rows.iter().skip(1).map(row).collect();
        rows.sort_by(|a, b| a.values[0].total_cmp(&b.values[0]));
        if x.better == Some(Better::Higher) {
            rows.reverse();
        }
        let dots = vec![self.header.get(2).cloned().unwrap_or_default()];
        Rows { title: title.into(), note: "bits".into(), x, dots, tick: "float".into(), rows }
    }
}

/// Exported files in ONNX Runtime, as the script beside their example prints them.
pub(crate) fn onnx(python: &Path, folder: &Path) -> Made {
    let evidence = Evidence::read(&onnx_runtime_table(python, folder)?);
    match evidence.rows.is_empty() {
        true => Err(format!("{}: no files", folder.display()).into()),
        false => Ok(evidence),
    }
}

/// What a diagnosis says of planted faults, and what its first finding makes of them.
pub(crate) fn faults() -> Made {
    let mut rows = Vec::new();
    for fault in Fault::all() {
        let result = Trial::run(*fault, &device())?.result();
        let decibels = |sqnr: Option<f64>| sqnr.map_or("–".into(), |sqnr| format!("{sqnr:.1} dB"));
        let finding = result.finding.map_or("nothing".into(), |kind| format!("{kind:?}"));
        let at = result.at.map_or("–".into(), |at| format!("`{at}`"));
        rows.push(vec![result.fault, finding, at, decibels(result.planted), decibels(result.mended)]);
    }
    let header = ["fault", "first finding", "at", "output, planted", "output, mended"].map(String::from).to_vec();
    Ok(Evidence { header, rows })
}

/// The sentence encoder by recipe.
pub(crate) fn minilm(models: &Path) -> Made {
    let table = minilm::evaluate(models, &moby_dick(), &device(), minilm::recipes())?;
    Ok(Evidence::of(&table, &[2, 4, 4, 4]))
}

/// The language model by recipe.
pub(crate) fn smollm2(models: &Path) -> Made {
    const CALIBRATION: usize = 32;
    const WINDOWS: usize = 8;
    let model = SmolLm::open(&models.join(smollm::FILE), &device())?;
    let texts = model.texts(&moby_dick(), CALIBRATION, WINDOWS)?;
    let table = smollm::evaluate(&model, &texts, &device(), smollm::recipes())?;
    Ok(Evidence::of(&table, &[2, 2, 4, 1]))
}

/// Files of the language model for servers, read again.
pub(crate) fn smollm2_files(models: &Path) -> Made {
    const CALIBRATION: usize = 32;
    const WINDOWS: usize = 8;
    let model = SmolLm::open(&models.join(smollm::FILE), &device())?;
    let texts = model.texts(&moby_dick(), CALIBRATION, WINDOWS)?;
    let out = tempfile::tempdir()?;
    let row = |written: Written| {
        vec![
            written.recipe.to_string(),
            format!("{:.2}", written.bits),
            format!("{:.2}", written.comparison.perplexity),
            format!("{:.4}", written.comparison.kl),
            format!("{:.1}", 100.0 * written.comparison.top1),
            format!("{:.1}", written.bytes as f64 / f64::from(1 << 20)),
            format!("{:.1}", written.tokens_per_second),
            written.server.to_string(),
        ]
    };
    let rows = smollm::write(&model, &texts, &device(), out.path())?.into_iter().map(row).collect();
    let header = ["recipe", "bits", "perplexity", "KL, nats", "top-1, %", "MiB", "tokens/s", "for"];
    Ok(Evidence { header: header.map(String::from).to_vec(), rows })
}

/// The classifier by recipe.
pub(crate) fn efficientnet(models: &Path) -> Made {
    let table = efficientnet::evaluate(models, &device())?;
    Ok(Evidence::of(&table, &[2, 3, 3, 3]))
}
