//! The tables, and the pictures of accuracy over bits.

use std::error::Error;
use std::path::Path;

use burn_quant_benches::{device, moby_dick};
use diagnose::{Fault, Trial};
use plot::{Axis, Look, Plot, Series};
use pretrained::table::Table;
use pretrained::{efficientnet, minilm, smollm};

type Made = Result<Evidence, Box<dyn Error>>;

/// A table, and a picture of it.
pub(crate) struct Evidence {
    header: Vec<String>,
    rows: Vec<Vec<String>>,
    /// The picture.
    pub(crate) plot: Option<Plot>,
}

impl Evidence {
    /// Returns the table as Markdown.
    pub(crate) fn markdown(&self) -> String {
        let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
        let rule = format!("|{}", "---|".repeat(self.header.len()));
        let mut lines = vec![line(&self.header), rule];
        lines.extend(self.rows.iter().map(|row| line(row)));
        lines.join("\n")
    }

    /// Takes over a table of recipes, and draws one of its columns over the bits.
    fn of(table: &Table, decimals: &[usize], title: &str, y: Axis) -> Self {
        let number = |(value, decimals): (&f64, &usize)| format!("{value:.decimals$}");
        let row = |(recipe, numbers): &(String, Vec<f64>)| {
            std::iter::once(recipe.clone()).chain(numbers.iter().zip(decimals).map(number)).collect()
        };
        let header = std::iter::once("recipe".to_string()).chain(table.columns.iter().cloned()).collect();
        Self { header, rows: table.rows.iter().map(row).collect(), plot: Some(over_bits(table, title, y)) }
    }
}

/// The first column after the bits, over the bits: a point and a name for each recipe.
fn over_bits(table: &Table, title: &str, y: Axis) -> Plot {
    let value = |numbers: &[f64]| numbers.get(1).copied().unwrap_or(f64::NAN);
    let float = table.rows.first().map(|(_, numbers)| Series::level("float", value(numbers)));
    let recipes = table.rows.iter().skip(1);
    let point = |(recipe, numbers): &(String, Vec<f64>)| {
        Series::new(recipe.clone(), Look::Points, [(numbers[0], value(numbers))])
    };
    Plot {
        name: "over-bits",
        title: title.into(),
        x: Axis::linear("bits per parameter, everything included"),
        y,
        series: float.into_iter().chain(recipes.map(point)).collect(),
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
    Ok(Evidence { header, rows, plot: None })
}

/// The sentence encoder by recipe.
pub(crate) fn minilm(models: &Path) -> Made {
    let table = minilm::evaluate(models, &moby_dick(), &device(), minilm::recipes())?;
    let y = Axis::linear("mean cosine to the float embeddings").higher_is_better();
    Ok(Evidence::of(&table, &[2, 4, 4, 4], "all-MiniLM-L6-v2", y))
}

/// The language model by recipe.
pub(crate) fn smollm2(models: &Path) -> Made {
    const WINDOWS: usize = 8;
    let table = smollm::evaluate(models, &moby_dick(), WINDOWS, &device(), smollm::recipes())?;
    let y = Axis::linear("perplexity, last tenth of Moby-Dick").lower_is_better();
    Ok(Evidence::of(&table, &[2, 2], "SmolLM2-135M-Instruct", y))
}

/// The classifier by recipe.
pub(crate) fn efficientnet(models: &Path) -> Made {
    let table = efficientnet::evaluate(models, &device())?;
    let y = Axis::linear("photographs that are named right").higher_is_better();
    Ok(Evidence::of(&table, &[2, 3, 3, 3], "EfficientNet-Lite0", y))
}
