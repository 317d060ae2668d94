//! A quantity of each channel.

use maud::{Markup, html};

use super::svg::{Axis, Plot, columns, merged};

const PLOT: Plot = Plot { width: 320, height: 56 };
const MOST_COLUMNS: usize = 128;

/// A quantity of each channel, to be plotted.
pub(super) struct Channels<'a> {
    /// What the plot shows, for a screen reader.
    pub(super) title: String,
    /// The quantity, with its unit.
    pub(super) label: &'static str,
    /// The values of channels, or of runs of neighbours.
    pub(super) values: &'a [f32],
    /// The number of channels.
    pub(super) count: usize,
    /// Chooses the one of two neighbours that matters.
    pub(super) worse: fn(f32, f32) -> f32,
    /// Values from here on are cut off at the top of the plot.
    pub(super) limit: f32,
    /// The range that all channels share.
    pub(super) range: Option<f64>,
}

impl Channels<'_> {
    /// Renders the plot; `None` if there is nothing to show.
    pub(super) fn plot(&self) -> Option<Markup> {
        let values = merged(self.values, MOST_COLUMNS, self.worse);
        let shown = || values.iter().copied().filter(|value| value.is_finite() && *value < self.limit);
        let ends = (shown().fold(0.0, f32::min), shown().fold(0.0, f32::max));
        let vertical = Axis::new(ends.0.into(), ends.1.into(), PLOT.height)?;
        let horizontal = Axis::new(0.0, self.count.max(1) as f64, PLOT.width)?;
        let heights: Vec<_> = values.iter().map(|value| vertical.at((*value).into())).collect();
        let range = self.range.filter(|range| vertical.contains(*range));
        Some(PLOT.svg(
            &self.title,
            html! {
                (PLOT.vertical(&vertical.ticks(3), self.label))
                (columns(&heights, PLOT))
                @if let Some(range) = range {
                    path.r d={ "M0 " (PLOT.height - vertical.at(range)) "h" (PLOT.width) } {}
                }
                (PLOT.horizontal(&horizontal.ticks(6), "channel"))
            },
        ))
    }
}
