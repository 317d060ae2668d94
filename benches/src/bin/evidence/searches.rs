//! Formats that a search chose, against what one would choose without it.

use std::path::Path;

use auto_quantize::{Comparison, cnn, gpt, minilm};
use burn_quant_benches::{device, moby_dick};
use plot::{Axis, Look, Plot, Series};

use crate::tables::{Evidence, Made, example};

const AUTO: &str = "auto-quantize";

/// The network of the first example.
pub(crate) fn of_cnn() -> Made {
    let comparison = cnn::run(&example("fashion-mnist/data"), &device(), 1, 12, usize::MAX, true)?;
    Ok(table(&comparison, &[4, 4]))
}

/// The character-level language model.
pub(crate) fn of_char_gpt() -> Made {
    let comparison = gpt::run(&char_gpt::Options {
        device: device(),
        seed: 1,
        text: example("char-gpt/data/moby-dick.txt.gz"),
        steps: 1000,
        qat_steps: 0,
        windows: 128,
        weights: None,
        progress: true,
    })?;
    Ok(table(&comparison, &[4]))
}

/// The sentence encoder.
pub(crate) fn of_minilm(models: &Path) -> Made {
    Ok(table(&minilm::run(models, &moby_dick(), &device(), true)?, &[4, 4, 4]))
}

/// The float model, the search at each budget, and each other choice.
fn table(comparison: &Comparison, decimals: &[usize]) -> Evidence {
    let header = ["formats", "bits"].into_iter().map(String::from).chain(comparison.measures.clone());
    let line = |chosen: String, bits: f64, values: &[f64]| {
        let numbers = values.iter().zip(decimals).map(|(value, decimals)| format!("{value:.decimals$}"));
        [chosen, format!("{bits:.3}")].into_iter().chain(numbers).collect::<Vec<String>>()
    };
    let mut rows = vec![line("float".into(), 16.0, &comparison.float)];
    let (searched, mut others): (Vec<_>, Vec<_>) = comparison.rows.iter().partition(|row| row.chosen == AUTO);
    rows.extend(searched.iter().map(|row| line(format!("{AUTO}, at most {}", row.budget), row.bits, &row.values)));
    others.sort_by(|a, b| a.bits.total_cmp(&b.bits));
    others.dedup_by(|a, b| a.chosen == b.chosen); // it stands in the rows of every budget that it is within
    rows.extend(others.iter().map(|row| line(row.chosen.clone(), row.bits, &row.values)));
    Evidence { header: header.collect(), rows }
}

/// Draws a measure, the first is 0, over bits.
pub(crate) fn picture(evidence: &Evidence, title: &str, measure: usize, y: Axis) -> Plot {
    let number = |cell: Option<&String>| cell.and_then(|cell| cell.parse::<f64>().ok()).unwrap_or(f64::NAN);
    let of = |wanted: &dyn Fn(&str) -> bool| {
        let rows = evidence.rows.iter().filter(|row| wanted(&row[0]));
        let mut points: Vec<(f64, f64)> = rows.map(|row| (number(row.get(1)), number(row.get(2 + measure)))).collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points
    };
    let uniform = |chosen: &str| chosen.starts_with("all ");
    let wider = |chosen: &str| chosen.contains(", ends ");
    let float = number(evidence.rows.first().and_then(|row| row.get(2 + measure)));
    Plot {
        name: "auto-quantize",
        title: title.into(),
        x: Axis::linear("bits per parameter"),
        y,
        series: vec![
            Series::new("one format for all layers", Look::Points, of(&uniform)),
            Series::new("more bits for the first and the last", Look::Points, of(&wider)),
            Series::new(AUTO, Look::Points, of(&|chosen| chosen.starts_with(AUTO))),
            Series::level("float", float),
        ],
    }
}
