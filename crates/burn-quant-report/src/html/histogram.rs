//! How often which values are, with the values of the format and the range.

use std::fmt::Write;

use maud::{Markup, html};

use super::anchor::shown;
use super::number;
use super::svg::{Axis, Plot, Tick, columns, merged, rug};
use crate::diagnosis::{Ends, Histogram, QuantizerDiagnosis};

const PLOT: Plot = Plot { width: 320, height: 88 };
const MOST_BINS: usize = 128;
const MOST_LABELS: u32 = 4;

/// Renders the histogram of a quantizer; `None` if there is nothing to show.
pub(super) fn plot(quantizer: &QuantizerDiagnosis) -> Option<Markup> {
    let Histogram { from, to, counts } = quantizer.histogram.as_ref()?;
    let values = Axis::new((*from).into(), (*to).into(), PLOT.width)?;
    let counts = merged(counts, MOST_BINS, u64::max);
    let most = counts.iter().copied().max().filter(|most| *most > 0)?;
    let heights: Vec<_> = counts.iter().map(|count| height(*count, most)).collect();
    let grid = quantizer.grid.iter().map(|value| f64::from(*value)).filter(|value| values.contains(*value));
    let title = format!("Histogram of {}, counts on a logarithmic axis", shown(&quantizer.name));
    Some(PLOT.svg(
        &title,
        html! {
            (PLOT.vertical(&powers_of_ten(most), "count"))
            (columns(&heights, PLOT))
            path.k d=(rug(grid.map(|value| values.at(value)), PLOT.height + 3)) {}
            @if let Some(amax) = quantizer.amax { (range(amax, &values)) }
            (PLOT.horizontal(&values.ticks(6), "value"))
        },
    ))
}

/// Returns the height of a column; one element is visible, none is not.
fn height(count: u64, most: u64) -> i32 {
    let log = |count: u64| (count as f64).ln_1p();
    let height = (log(count) / log(most) * f64::from(PLOT.height)).round() as i32;
    if count > 0 { height.max(1) } else { 0 }
}

fn powers_of_ten(most: u64) -> Vec<Tick> {
    let highest = most.ilog10();
    (0..=highest)
        .step_by(highest.div_ceil(MOST_LABELS).max(1) as usize)
        .map(|exponent| Tick { at: height(10_u64.pow(exponent), most), text: number::power_of_ten(exponent) })
        .collect()
}

/// Renders the ends of the largest range as solid lines, and those of the smallest as dotted ones.
fn range(amax: Ends, values: &Axis) -> Markup {
    let lines = |amax: f32| {
        let ends = [-f64::from(amax), f64::from(amax)];
        ends.into_iter().filter(|end| values.contains(*end)).fold(String::new(), |mut lines, end| {
            let _ = write!(lines, "M{} 0v{}", values.at(end), PLOT.height + 6);
            lines
        })
    };
    html! {
        path.r d=(lines(amax.highest)) {}
        @if amax.lowest < amax.highest { path.r.low d=(lines(amax.lowest)) {} }
    }
}
