//! Axes and paths of plots.
//!
//! Coordinates are whole pixels and paths relative, which keeps them short. Colours are classes of the style sheet:
//! `a` area, `d` dots, `g` grid lines, `k` ticks of the format's values, `l` line, `r` range.

use std::fmt::Write;

use maud::{Markup, html};

use super::number;

const LEFT: i32 = 38;
const RIGHT: i32 = 14;
const TOP: i32 = 18;
const BOTTOM: i32 = 34;

/// The area of a plot, without its margins, in pixels.
#[derive(Clone, Copy)]
pub(super) struct Plot {
    /// The width.
    pub(super) width: i32,
    /// The height.
    pub(super) height: i32,
}

impl Plot {
    /// Renders a plot; the title is what a screen reader says.
    pub(super) fn svg(self, title: &str, content: Markup) -> Markup {
        let (width, height) = (self.width + LEFT + RIGHT, self.height + TOP + BOTTOM);
        html! {
            svg viewBox={ "0 0 " (width) " " (height) } role="img" {
                title { (title) }
                g transform={ "translate(" (LEFT) " " (TOP) ")" } { (content) }
            }
        }
    }

    /// Renders the vertical axis with its grid lines.
    pub(super) fn vertical(self, ticks: &[Tick], label: &str) -> Markup {
        let lines = ticks.iter().fold(String::new(), |mut lines, tick| {
            let _ = write!(lines, "M0 {}h{}", self.height - tick.at, self.width);
            lines
        });
        html! {
            path.g d=(lines) {}
            @for tick in ticks { text.y x="-5" y=(self.height - tick.at + 4) { (tick.text) } }
            text x=(4 - LEFT) y="-7" { (label) }
        }
    }

    /// Renders the horizontal axis.
    pub(super) fn horizontal(self, ticks: &[Tick], label: &str) -> Markup {
        html! {
            @for tick in ticks { text.x x=(tick.at) y=(self.height + 17) { (tick.text) } }
            text.x x=(self.width / 2) y=(self.height + 31) { (label) }
        }
    }
}

/// A labelled place of an axis.
pub(super) struct Tick {
    /// The distance from the origin, in pixels.
    pub(super) at: i32,
    /// The label.
    pub(super) text: String,
}

/// A linear map from values to pixels.
pub(super) struct Axis {
    low: f64,
    high: f64,
    pixels: i32,
}

impl Axis {
    /// Creates an axis between two values; `None` unless they are finite and the first is lower.
    pub(super) fn new(low: f64, high: f64, pixels: i32) -> Option<Self> {
        (low < high && (high - low).is_finite()).then_some(Self { low, high, pixels })
    }

    /// Creates an axis that holds all finite values, with some room; `None` if there are none.
    pub(super) fn around(values: impl Iterator<Item = f64>, pixels: i32) -> Option<Self> {
        let (low, high) = values
            .filter(|value| value.is_finite())
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)));
        let room = if low < high { (high - low) * 0.05 } else { low.abs().max(1.0) * 0.05 };
        Self::new(low - room, high + room, pixels)
    }

    /// Returns the pixel of a value: that of the nearer end for a value outside, 0 for one that is no number.
    pub(super) fn at(&self, value: f64) -> i32 {
        let pixels = f64::from(self.pixels);
        ((value - self.low) / (self.high - self.low) * pixels).clamp(0.0, pixels).round() as i32
    }

    /// Whether a value is within the ends.
    pub(super) fn contains(&self, value: f64) -> bool {
        (self.low..=self.high).contains(&value)
    }

    /// Returns ticks at multiples of 1, 2 or 5 times a power of ten, at most `most` intervals apart.
    pub(super) fn ticks(&self, most: u32) -> Vec<Tick> {
        let step = round_step((self.high - self.low) / f64::from(most));
        let first = (self.low / step - 1e-9).ceil();
        (0..=most)
            .map(|index| (first + f64::from(index)) * step + 0.0)
            .take_while(|value| *value <= self.high + step * 1e-9)
            .map(|value| Tick { at: self.at(value), text: tick_text(value, step) })
            .collect()
    }
}

/// Returns the next of 1, 2, 5, 10 times a power of ten.
fn round_step(step: f64) -> f64 {
    let power = 10_f64.powf(step.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| step <= factor * power * (1.0 + 1e-9)).unwrap_or(10.0);
    factor * power
}

fn tick_text(value: f64, step: f64) -> String {
    let magnitude = (step.log10() + 1e-9).floor();
    if value == 0.0 {
        "0".into()
    } else if (-4.0..5.0).contains(&magnitude) {
        format!("{value:.*}", (-magnitude).max(0.0) as usize)
    } else {
        number::short(value)
    }
}

/// Merges neighbours until there are at most `most` values.
pub(super) fn merged<T: Copy>(values: &[T], most: usize, merge: fn(T, T) -> T) -> Vec<T> {
    let run = values.len().div_ceil(most).max(1);
    values.chunks(run).filter_map(|run| run.iter().copied().reduce(merge)).collect()
}

/// Renders columns of some heights as one area that spans the plot.
pub(super) fn columns(heights: &[i32], plot: Plot) -> Markup {
    let mut path = format!("M0 {}", plot.height);
    let mut last = 0;
    for run in heights.chunk_by(|a, b| a == b) {
        if run[0] != last {
            let _ = write!(path, "v{}", last - run[0]);
        }
        let _ = write!(path, "h{}", run.len());
        last = run[0];
    }
    let _ = write!(path, "V{}z", plot.height);
    let scale = f64::from(plot.width) / heights.len().max(1) as f64;
    html! { path.a transform={ "scale(" (number::short(scale)) " 1)" } d=(path) {} }
}

/// Returns a path through points, with gaps where there is none.
pub(super) fn line(points: impl Iterator<Item = Option<(i32, i32)>>) -> String {
    let mut path = String::new();
    let mut last = None;
    for point in points {
        if let Some((x, y)) = point {
            let _ = match last {
                Some((x0, y0)) => write!(path, "l{} {}", x - x0, y - y0),
                None => write!(path, "M{x} {y}h0"),
            };
        }
        last = point;
    }
    path
}

/// Returns a path of dots, which a stroke with round ends makes visible.
pub(super) fn dots(points: impl Iterator<Item = (i32, i32)>) -> String {
    points.fold(String::new(), |mut path, (x, y)| {
        let _ = write!(path, "M{x} {y}h0");
        path
    })
}

/// Returns a path that marks places along a horizontal line; places that touch become one stroke.
pub(super) fn rug(places: impl Iterator<Item = i32>, y: i32) -> String {
    let mut places: Vec<_> = places.collect();
    places.sort_unstable();
    let mut path = String::new();
    for run in places.chunk_by(|a, b| b - a < 2) {
        let (first, last) = (run[0], run[run.len() - 1]);
        let _ = write!(path, "M{first} {y}h{}", last - first + 1);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64) -> Vec<String> {
        Axis::new(low, high, 100).unwrap().ticks(5).into_iter().map(|tick| tick.text).collect()
    }

    #[test]
    fn ticks_are_round_and_have_the_decimals_of_their_step() {
        assert_eq!(labels(0.0, 1.0), ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]);
        assert_eq!(labels(-3.1, 4.5), ["-2", "0", "2", "4"]);
        assert_eq!(labels(0.0, 2.0e-6), ["0", "5.00e-7", "1.00e-6", "1.50e-6", "2.00e-6"]);
    }

    #[test]
    fn an_axis_needs_two_finite_ends_and_clamps_what_is_outside() {
        assert!(Axis::new(1.0, 1.0, 100).is_none());
        assert!(Axis::new(f64::NAN, 1.0, 100).is_none());
        assert!(Axis::new(f64::MIN, f64::MAX, 100).is_none());
        assert!(Axis::around([f64::NAN].into_iter(), 100).is_none());
        let axis = Axis::around([3.0].into_iter(), 100).unwrap();
        assert_eq!([3.0, f64::INFINITY, f64::NEG_INFINITY, f64::NAN].map(|value| axis.at(value)), [50, 100, 0, 0]);
    }

    #[test]
    fn equal_columns_share_a_stroke() {
        let plot = Plot { width: 10, height: 9 };
        assert!(columns(&[0, 4, 4, 1], plot).0.contains(r#"d="M0 9h1v-4h2v3h1V9z""#));
        assert!(columns(&[], plot).0.contains(r#"d="M0 9V9z""#));
    }

    #[test]
    fn lines_break_where_a_point_is_missing() {
        let points = [Some((0, 5)), Some((2, 4)), None, Some((6, 1))];
        assert_eq!(line(points.into_iter()), "M0 5h0l2 -1M6 1h0");
    }

    #[test]
    fn marks_that_touch_are_one_stroke() {
        assert_eq!(rug([1, 2, 9, 3].into_iter(), 7), "M1 7h3M9 7h1");
    }

    #[test]
    fn values_are_merged_until_they_fit() {
        assert_eq!(merged(&[1, 5, 2, 3, 4], 3, i32::max), [5, 3, 4]);
        assert_eq!(merged(&[], 3, i32::max), Vec::<i32>::new());
    }
}
