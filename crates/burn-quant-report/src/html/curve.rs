//! Bits against the score of an automatic search.

use maud::{Markup, html};

use super::number;
use super::section::Section;
use super::svg::{Axis, Plot, dots, line};
use crate::diagnosis::{CurvePoint, Diagnosis};

const PLOT: Plot = Plot { width: 520, height: 180 };

/// Renders the curve; `None` if there was no search.
pub(super) fn section(diagnosis: &Diagnosis) -> Option<Section> {
    let mut points: Vec<_> = diagnosis.curve.iter().filter(|point| is_finite(point)).collect();
    points.sort_by(|a, b| a.bits.total_cmp(&b.bits));
    let body = html! {
        p.hint {
            "The score estimates the loss that quantization adds; lower is better. A ring marks what was chosen."
        }
        figure.curve { div.box role="region" tabindex="0" aria-label="Bits against score" { (plot(&points)?) } }
    };
    Some(Section { id: "curve", heading: "Search", body })
}

fn is_finite(point: &CurvePoint) -> bool {
    point.bits.is_finite() && point.score.is_finite()
}

fn plot(points: &[&CurvePoint]) -> Option<Markup> {
    let bits = Axis::around(points.iter().map(|point| point.bits), PLOT.width)?;
    let scores = Axis::around(points.iter().map(|point| point.score), PLOT.height)?;
    let place = |point: &CurvePoint| (bits.at(point.bits), PLOT.height - scores.at(point.score));
    Some(PLOT.svg(
        "Effective bits per parameter against score",
        html! {
            (PLOT.vertical(&scores.ticks(5), "score"))
            (PLOT.horizontal(&bits.ticks(8), "effective bits per parameter"))
            path.l d=(line(points.iter().map(|point| Some(place(point))))) {}
            path.d d=(dots(points.iter().map(|point| place(point)))) {}
            @for point in points.iter().filter(|point| point.chosen) {
                @let (x, y) = place(point);
                circle.ring cx=(x) cy=(y) r="6" {}
                text x=(x + 9) y=(y - 6) { (number::short(point.bits)) " bits" }
            }
        },
    ))
}
