//! A search against what one would do without it, at equal budgets.

use std::collections::BTreeMap;

use burn::module::Module;
use burn_quant::QuantError;
use burn_quant::search::{AutoQuantization, AutoQuantizeConfig, Curve, SearchProgress, SearchState, Selection};
use indicatif::ProgressBar;
use plot::{Axis, Look, Plot, Series};
use serde::Serialize;

/// Budgets, in bits per parameter of the whole model, counted exactly.
pub const BUDGETS: [f64; 4] = [4.5, 5.0, 6.0, 8.0];

/// One selection of formats, evaluated.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The budget that it is within.
    pub budget: f64,
    /// How the formats were chosen.
    pub chosen: String,
    /// Bits per parameter.
    pub bits: f64,
    /// What the model is worth on data that the search did not see, by each measure.
    pub values: Vec<f64>,
}

/// A model at all budgets.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    /// The model.
    pub model: String,
    /// What is measured.
    pub measures: Vec<String>,
    /// Whether more of it is better.
    pub more_is_better: bool,
    /// The float model.
    pub float: Vec<f64>,
    /// By budget: the search, then whatever else is within it.
    pub rows: Vec<Row>,
    /// The curve of the search as CSV.
    pub csv: String,
    /// The first measure of the search and of everything else, against bits.
    #[serde(skip)]
    pub plot: Plot,
}

impl Comparison {
    /// At a budget, by one measure: what the search is worth, and everything else by how it was chosen.
    pub fn at(&self, budget: f64, measure: usize) -> Option<(f64, BTreeMap<&str, f64>)> {
        let rows = self.rows.iter().filter(|row| row.budget == budget);
        let mut values: BTreeMap<&str, f64> = rows.map(|row| (row.chosen.as_str(), row.values[measure])).collect();
        Some((values.remove(AUTO)?, values))
    }
}

const AUTO: &str = "auto-quantize";

/// What is compared.
pub struct Task<'a, M> {
    /// The model's name.
    pub name: &'a str,
    /// What is measured; the curve shows the first.
    pub measures: &'a [&'a str],
    /// Whether more of it is better.
    pub more_is_better: bool,
    /// The float model.
    pub float: &'a M,
    /// Groups whose layers come first and last.
    pub ends: &'a [&'a str],
    /// Measures a model on data that the search does not see.
    #[allow(clippy::type_complexity)]
    pub evaluate: &'a dyn Fn(&M) -> Vec<f64>,
}

/// Uniform formats, each alone and with a wider one for the first and the last layer, and the search, at all budgets.
///
/// # Errors
///
/// If a selection cannot be applied.
pub fn compare<M: Module>(task: &Task<'_, M>, state: &SearchState) -> Result<Comparison, QuantError> {
    let formats: Vec<&str> = state.config.formats.iter().map(|format| format.name.as_str()).collect();
    let mut others: Vec<(String, Selection)> = Vec::new();
    for (i, format) in formats.iter().enumerate() {
        let uniform = state.uniform(format)?;
        others.push((format!("all {format}"), uniform.clone()));
        for wide in formats[i + 1..].iter().map(|wide| Some(wide.to_string())).chain([None]) {
            let mut mixed: BTreeMap<_, _> = uniform.formats.clone();
            task.ends.iter().for_each(|end| drop(mixed.insert(end.to_string(), wide.clone())));
            let wide = wide.as_deref().unwrap_or("float");
            others.push((format!("{format}, ends {wide}"), state.selection(&mixed)?));
        }
    }
    // every selection is evaluated once, whatever the number of budgets it is within
    let mut known: Vec<(Selection, Vec<f64>)> = Vec::new();
    let mut evaluate = |selection: &Selection| -> Result<Vec<f64>, QuantError> {
        if let Some((_, values)) = known.iter().find(|(other, _)| other.formats == selection.formats) {
            return Ok(values.clone());
        }
        let values = (task.evaluate)(&state.apply(task.float.clone(), selection)?);
        known.push((selection.clone(), values.clone()));
        Ok(values)
    };
    let mut rows = Vec::new();
    for budget in BUDGETS {
        let mut row = |chosen: String, selection: &Selection| -> Result<(), QuantError> {
            let values = evaluate(selection)?;
            rows.push(Row { budget, chosen, bits: selection.effective_bits, values });
            Ok(())
        };
        match state.solve(budget) {
            Ok(selection) => row(AUTO.into(), &selection)?,
            Err(QuantError::Infeasible { .. }) => continue,
            Err(other) => return Err(other),
        }
        for (chosen, selection) in others.iter().filter(|(_, selection)| selection.effective_bits <= budget) {
            row(chosen.clone(), selection)?;
        }
    }
    let curve: Curve = state.measured_curve(12, |selection| evaluate(selection).map(|values| Some(values[0])))?;
    let float = (task.evaluate)(task.float);
    Ok(Comparison {
        model: task.name.into(),
        measures: task.measures.iter().map(|measure| measure.to_string()).collect(),
        more_is_better: task.more_is_better,
        plot: drawn(task, &curve, &rows, float[0]),
        float,
        rows,
        csv: curve.to_csv(),
    })
}

/// The search, everything else, and the float model as a level, up to the largest budget.
fn drawn<M>(task: &Task<'_, M>, curve: &Curve, rows: &[Row], float: f64) -> Plot {
    let most = BUDGETS.into_iter().fold(0.0, f64::max);
    let others = |uniform: bool| {
        let mut points: Vec<(f64, f64)> = rows
            .iter()
            .filter(|row| row.chosen != AUTO && row.chosen.starts_with("all ") == uniform)
            .map(|row| (row.bits, row.values[0]))
            .collect();
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        points.dedup(); // a selection stands in the rows of every budget that it is within
        points
    };
    let solved = rows.iter().filter(|row| row.chosen == AUTO).map(|row| (row.bits, row.values[0]));
    let searched = curve.points.iter().filter_map(|point| Some((point.selection.effective_bits, point.measured?)));
    let y = Axis::linear(task.measures[0]);
    Plot {
        name: "auto-quantize",
        title: format!("Formats of the {}, chosen in three ways", task.name),
        x: Axis::linear("bits per parameter"),
        y: if task.more_is_better { y.higher_is_better() } else { y.lower_is_better() },
        series: vec![
            Series::new("one format for all layers", Look::Points, others(true)),
            Series::new("more bits for the first and the last", Look::Points, others(false)),
            Series::new(AUTO, Look::Points, searched.filter(|(bits, _)| *bits <= most + 0.5).chain(solved)),
            Series::level("float", float),
        ],
    }
}

/// A search that draws its progress.
pub fn search<'a>(config: &'a AutoQuantizeConfig, bar: &'a ProgressBar) -> AutoQuantization<'a> {
    AutoQuantization::new(config).with_progress(move |progress| match progress {
        SearchProgress::Calibrated { format, done, of, remaining } => {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
            bar.set_message(format!("calibrated {format}, {:.0?} left", remaining));
        }
        SearchProgress::Scored { done, of, remaining } => {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
            bar.set_message(format!("scored, {:.0?} left", remaining));
        }
        SearchProgress::Solved => bar.finish_and_clear(),
        _ => {}
    })
}

impl std::fmt::Display for Comparison {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let numbers = |values: &[f64]| values.iter().map(|value| format!("  {value:>9.4}")).collect::<String>();
        writeln!(f, "{}: {}", self.model, self.measures.join(", "))?;
        writeln!(f, "{:>6}  {:28} {:>7}{}", "", "float", "", numbers(&self.float))?;
        for row in &self.rows {
            let budget = row.budget;
            writeln!(f, "{budget:>6}  {:28} {:>7.3}{}", row.chosen, row.bits, numbers(&row.values))?;
        }
        Ok(())
    }
}
