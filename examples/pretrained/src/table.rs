//! One line for each recipe.

use burn::module::Module;
use burn_quant::summary;
use serde::Serialize;

/// Numbers of a model by recipe, the float model first.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Table {
    /// What the numbers are.
    pub columns: Vec<String>,
    /// Recipes and their numbers.
    pub rows: Vec<(String, Vec<f64>)>,
}

impl Table {
    /// A table without rows.
    pub fn new(columns: &[&str]) -> Self {
        Self { columns: columns.iter().map(|column| column.to_string()).collect(), rows: Vec::new() }
    }

    /// Adds a line, and prints it: some take minutes.
    pub fn row(&mut self, recipe: &str, numbers: Vec<f64>) {
        let shown: Vec<String> = self.columns.iter().zip(&numbers).map(|(c, n)| format!("{c} {n:.4}")).collect();
        eprintln!("{recipe}: {}", shown.join(", "));
        self.rows.push((recipe.into(), numbers));
    }

    /// A number.
    pub fn get(&self, recipe: &str, column: &str) -> Option<f64> {
        let place = self.columns.iter().position(|found| found == column)?;
        self.rows.iter().find(|(found, _)| found == recipe)?.1.get(place).copied()
    }
}

/// Puts the bits per parameter of a model before its numbers, everything that is kept included; 16 in float.
pub fn with_bits<M: Module>(model: &M, numbers: Vec<f64>) -> Vec<f64> {
    let mut row = vec![summary(model).bits_per_parameter(16)];
    row.extend(numbers);
    row
}

impl std::fmt::Display for Table {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:36}", "recipe")?;
        self.columns.iter().try_for_each(|column| write!(f, " {column:>18}"))?;
        for (recipe, numbers) in &self.rows {
            write!(f, "\n{recipe:36}")?;
            numbers.iter().try_for_each(|number| write!(f, " {number:>18.4}"))?;
        }
        Ok(())
    }
}
