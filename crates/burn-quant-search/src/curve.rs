//! Loss and accuracy against bits: the Pareto curve of a search.

use std::fmt::Write;

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

    /// A drawing: scores on a logarithmic axis against bits, and below it what was measured.
    pub fn to_svg(&self) -> String {
        let bits = |point: &CurvePoint| point.selection.effective_bits;
        let scores = self.points.iter().filter(|point| point.selection.score > 0.0);
        let scores: Vec<(f64, f64)> = scores.map(|point| (bits(point), point.selection.score.log10())).collect();
        let measured: Vec<(f64, f64)> =
            self.points.iter().filter_map(|point| Some((bits(point), point.measured?))).collect();
        let panels: Vec<(&str, Vec<(f64, f64)>)> = [("log10 score", scores), ("measured", measured)]
            .into_iter()
            .filter(|(_, points)| !points.is_empty())
            .collect();
        let (width, height) = (640.0, 260.0 * panels.len().max(1) as f64);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n"
        );
        for (i, (title, points)) in panels.iter().enumerate() {
            panel(&mut svg, title, points, 260.0 * i as f64);
        }
        svg.push_str("</svg>\n");
        svg
    }
}

/// One set of axes with a line through points.
fn panel(svg: &mut String, title: &str, points: &[(f64, f64)], top: f64) {
    const LEFT: f64 = 70.0;
    const WIDTH: f64 = 550.0;
    const HEIGHT: f64 = 190.0;
    let range = |of: fn(&(f64, f64)) -> f64| {
        let values = points.iter().map(of);
        let (low, high) = (values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max));
        if high > low { (low, high) } else { (low - 0.5, high + 0.5) }
    };
    let ((left, right), (low, high)) = (range(|point| point.0), range(|point| point.1));
    let x = |bits: f64| LEFT + WIDTH * (bits - left) / (right - left);
    let y = |value: f64| top + 30.0 + HEIGHT * (high - value) / (high - low);
    let mut draw = |element: String| svg.push_str(&(element + "\n"));
    draw(format!("<text x=\"{LEFT}\" y=\"{}\">{title}</text>", top + 20.0));
    draw(format!(
        "<rect x=\"{LEFT}\" y=\"{}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#999\"/>",
        top + 30.0
    ));
    for i in 0..=4 {
        let share = f64::from(i) / 4.0;
        let (bits, value) = (left + (right - left) * share, low + (high - low) * share);
        draw(format!("<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{bits:.2}</text>", x(bits), top + 238.0));
        draw(format!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value:.3}</text>", LEFT - 6.0, y(value) + 4.0));
    }
    let line: Vec<String> = points.iter().map(|(bits, value)| format!("{:.1},{:.1}", x(*bits), y(*value))).collect();
    draw(format!("<polyline points=\"{}\" fill=\"none\" stroke=\"#26c\" stroke-width=\"1.5\"/>", line.join(" ")));
    for (bits, value) in points {
        draw(format!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"#26c\"/>", x(*bits), y(*value)));
    }
    draw(format!("<text x=\"{}\" y=\"{}\" text-anchor=\"end\">bits per parameter</text>", LEFT + WIDTH, top + 252.0));
}
