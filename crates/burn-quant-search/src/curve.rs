//! Loss and accuracy against bits: the Pareto curve of a search.

use std::fmt::Write;

use super::drawing::{self, Panel, Scale};
use super::knapsack::SLACK;
use super::{SearchState, Selection};
use burn_quant_core::error::QuantError;

/// A selection with what it is worth.
#[derive(Clone, Debug, PartialEq)]
pub struct CurvePoint {
    /// The best selection for its budget.
    pub selection: Selection,
    /// What the user measured of it: an accuracy, a loss.
    pub measured: Option<f64>,
}

/// The best selections from the least bits to the most.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// By bits; no two of the same selection.
    pub points: Vec<CurvePoint>,
}

impl SearchState {
    /// The curve through so many budgets, evenly spaced; no forward pass is needed.
    ///
    /// # Errors
    ///
    /// As [`SearchState::solve`].
    pub fn curve(&self, budgets: usize) -> Result<Curve, QuantError> {
        self.measured_curve(budgets, |_| Ok(None))
    }

    /// The same, with something measured of each selection: apply it to a model, and evaluate that.
    ///
    /// # Errors
    ///
    /// As [`SearchState::solve`], and those of `measure`.
    pub fn measured_curve(
        &self,
        budgets: usize,
        mut measure: impl FnMut(&Selection) -> Result<Option<f64>, QuantError>,
    ) -> Result<Curve, QuantError> {
        let (least, most) = self.bits_range();
        let budget = |i: usize| least + (most - least) * i as f64 / budgets.saturating_sub(1).max(1) as f64;
        let mut points: Vec<CurvePoint> = Vec::new();
        for i in 0..budgets {
            let selection = self.solve(budget(i) * (1.0 + SLACK))?;
            if points.last().is_some_and(|point| point.selection.formats == selection.formats) {
                continue;
            }
            let measured = measure(&selection)?;
            points.push(CurvePoint { selection, measured });
        }
        Ok(Curve { points })
    }
}

impl Curve {
    /// A line per point: bits per parameter, score, what was measured.
    pub fn to_csv(&self) -> String {
        let mut csv = String::from("effective_bits,score,measured\n");
        for CurvePoint { selection, measured } in &self.points {
            let measured = measured.map_or(String::new(), |measured| measured.to_string());
            writeln!(csv, "{},{:e},{measured}", selection.effective_bits, selection.score)
                .expect("a string can be written");
        }
        csv
    }

    /// Draws the scores on a logarithmic axis against bits, and below them what was measured.
    ///
    /// The result is an SVG file. A score of zero has no logarithm and is left out.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant::search::{Curve, CurvePoint, Selection};
    ///
    /// let point = |effective_bits: f64, score: f64, accuracy: f64| CurvePoint {
    ///     selection: Selection {
    ///         formats: Default::default(),
    ///         effective_bits,
    ///         budget: effective_bits,
    ///         score,
    ///         within_budget: true,
    ///         gap: 0.0,
    ///     },
    ///     measured: Some(accuracy),
    /// };
    /// let curve = Curve { points: vec![point(4.0, 2e-1, 0.81), point(6.0, 1e-2, 0.89), point(8.0, 4e-4, 0.91)] };
    /// let svg = curve.to_svg();
    /// assert!(svg.contains("score (lower is better)") && svg.contains("bits per parameter"));
    /// ```
    pub fn to_svg(&self) -> String {
        let bits = |point: &CurvePoint| point.selection.effective_bits;
        let scores = self.points.iter().filter(|point| point.selection.score > 0.0);
        let scores = scores.map(|point| (bits(point), point.selection.score)).collect();
        let measured = self.points.iter().filter_map(|point| Some((bits(point), point.measured?)));
        let measured = measured.filter(|(_, value)| value.is_finite()).collect();
        drawing::svg(
            "The best formats for each budget of bits",
            "bits per parameter",
            &[
                Panel { name: "score", caption: "score (lower is better)", scale: Scale::Log, points: scores },
                Panel { name: "measured", caption: "measured", scale: Scale::Linear, points: measured },
            ],
        )
    }
}
