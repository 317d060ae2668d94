//! The plots of the examples and of the book: SVG in one style.
//!
//! * [`Plot`] lines, points, marks and levels over two axes
//! * [`Rows`] one row per item with a dot for each of its values
//!
//! Legends stand above the data and cover none of it, ticks are round numbers, and an axis says whether less of it is
//! better.

mod axis;
mod rows;
mod svg;

pub use axis::{Axis, Better, Scale};
pub use rows::{Row, Rows};

use std::path::Path;

use serde::Serialize;

use axis::Ticks;
use svg::{COLOURS, Key, Svg, TEXT};

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 20.0;

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Look {
    /// A line through the points.
    Line,
    /// A dot for each point.
    Points,
    /// A dashed vertical line at the x of each point.
    Marks,
    /// A dashed horizontal line at the y of each point.
    Levels,
}

/// Numbers with a name.
#[derive(Clone, Debug, Serialize)]
pub struct Series {
    /// The name in the legend.
    pub name: String,
    /// How the numbers are drawn.
    pub look: Look,
    /// The numbers; marks have no y, levels no x.
    pub points: Vec<(f64, f64)>,
    /// The series whose colour this one has too, by its place.
    #[serde(skip)]
    pub like: Option<usize>,
}

impl Series {
    /// Creates a series with a colour of its own.
    pub fn new(name: impl Into<String>, look: Look, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Self { name: name.into(), look, points: points.into_iter().collect(), like: None }
    }

    /// Creates one vertical line.
    pub fn mark(name: impl Into<String>, x: impl Into<f64>) -> Self {
        Self::new(name, Look::Marks, [(x.into(), 0.0)])
    }

    /// Creates one horizontal line.
    pub fn level(name: impl Into<String>, y: impl Into<f64>) -> Self {
        Self::new(name, Look::Levels, [(0.0, y.into())])
    }

    /// Gives the series the colour of another one, by its place in the plot.
    pub fn like(mut self, series: usize) -> Self {
        self.like = Some(series);
        self
    }
}

/// Series over two axes.
#[derive(Clone, Debug, Serialize)]
pub struct Plot {
    /// The name of the file, without its extension.
    pub name: &'static str,
    /// What is shown.
    pub title: String,
    /// The horizontal axis.
    pub x: Axis,
    /// The vertical axis.
    pub y: Axis,
    /// What is drawn; later series lie over earlier ones.
    pub series: Vec<Series>,
}

impl Plot {
    /// Draws the plot as SVG.
    pub fn to_svg(&self) -> String {
        let keys: Vec<Key> = self.series.iter().enumerate().map(|(i, series)| self.key(i, series)).collect();
        let mut svg = Svg::new(WIDTH, &self.title);
        svg.legend(LEFT, &keys);
        let (top, bottom) = (svg.bottom(), svg.bottom() + HEIGHT);
        let seen = |hidden: Look, value: fn(&(f64, f64)) -> f64| {
            let shown = self.series.iter().filter(move |series| series.look != hidden);
            shown.flat_map(move |series| series.points.iter().map(value)).collect::<Vec<f64>>()
        };
        let x = Ticks::of(&self.x, &seen(Look::Levels, |point| point.0), (LEFT, WIDTH - RIGHT));
        let y = Ticks::of(&self.y, &seen(Look::Marks, |point| point.1), (bottom, top));
        for (value, label) in y.labels() {
            svg.line((LEFT, y.at(value)), (WIDTH - RIGHT, y.at(value)), "#ddd", 1.0, false);
            svg.text((LEFT - 8.0, y.at(value) + 4.0), "end", TEXT, &label);
        }
        for (value, label) in x.labels() {
            svg.line((x.at(value), bottom), (x.at(value), bottom + 5.0), TEXT, 1.0, false);
            svg.text((x.at(value), bottom + 19.0), "middle", TEXT, &label);
        }
        svg.line((LEFT, bottom), (WIDTH - RIGHT, bottom), TEXT, 1.0, false);
        svg.text(((LEFT + WIDTH - RIGHT) / 2.0, bottom + 40.0), "middle", TEXT, &self.x.caption());
        svg.turned_text((18.0, (top + bottom) / 2.0), &self.y.caption());
        for (series, key) in self.series.iter().zip(&keys) {
            let shown = series.points.iter().filter(|(_, height)| y.shows(*height) || series.look == Look::Marks);
            match series.look {
                Look::Line => svg.path(shown.map(|point| (x.at(point.0), y.at(point.1))), key.colour),
                Look::Points => shown.for_each(|point| svg.dot((x.at(point.0), y.at(point.1)), key.colour)),
                Look::Marks => shown.for_each(|(value, _)| {
                    svg.line((x.at(*value), top), (x.at(*value), bottom), key.colour, 1.5, true);
                }),
                Look::Levels => shown.for_each(|(_, value)| {
                    svg.line((LEFT, y.at(*value)), (WIDTH - RIGHT, y.at(*value)), key.colour, 1.5, true);
                }),
            }
        }
        svg.finish(bottom + 52.0)
    }

    fn key<'a>(&self, i: usize, series: &'a Series) -> Key<'a> {
        // a series that has the colour of another one takes none of its own
        let own = self.series[..i].iter().filter(|series| series.like.is_none()).count();
        let place =
            series.like.map_or(own, |like| self.series[..like].iter().filter(|series| series.like.is_none()).count());
        Key { name: &series.name, look: series.look, colour: COLOURS[place % COLOURS.len()] }
    }

    /// Draws the plot into a folder, as a file of its name.
    ///
    /// # Errors
    ///
    /// If the file cannot be written.
    pub fn draw(&self, folder: &Path) -> Result<(), String> {
        write(&folder.join(self.name).with_extension("svg"), &self.to_svg())
    }
}

/// Writes a drawing.
///
/// # Errors
///
/// If the file cannot be written; with its path.
pub fn write(file: &Path, svg: &str) -> Result<(), String> {
    std::fs::write(file, svg).map_err(|e| format!("{}: {e}", file.display()))
}
