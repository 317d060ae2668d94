//! One row per item: for many names that would collide in a plot of points.

use crate::Look;
use crate::axis::{Axis, Ticks};
use crate::svg::{COLOURS, Key, Svg, TEXT};

const WIDTH: f64 = 760.0;
/// Where the rows begin at least.
const LEFT: f64 = 210.0;
/// What the letters of a name take.
const LETTER: f64 = 6.6;
/// What the notes take.
const NOTES: f64 = 56.0;
const RIGHT: f64 = 24.0;
const ROW: f64 = 22.0;

/// An item with its values.
#[derive(Clone, Debug)]
pub struct Row {
    /// Its name.
    pub name: String,
    /// A number beside the name.
    pub note: String,
    /// One value for each of [`Rows::dots`].
    pub values: Vec<f64>,
    /// Where a tick stands, if the row has one.
    pub tick: Option<f64>,
}

/// Items below each other, with a dot for each of their values.
#[derive(Clone, Debug)]
pub struct Rows {
    /// What is shown.
    pub title: String,
    /// What the notes are.
    pub note: String,
    /// The axis of the values.
    pub x: Axis,
    /// The names of the dots.
    pub dots: Vec<String>,
    /// The name of the ticks.
    pub tick: String,
    /// The items, from the top.
    pub rows: Vec<Row>,
}

impl Rows {
    /// Draws the rows as SVG.
    pub fn to_svg(&self) -> String {
        const GREY: &str = "#888";
        let mut keys: Vec<Key<'_>> =
            self.dots.iter().zip(COLOURS).map(|(name, colour)| Key { name, look: Look::Points, colour }).collect();
        keys.push(Key { name: &self.tick, look: Look::Marks, colour: GREY });
        let left = self.left();
        let mut svg = Svg::new(WIDTH, &self.title);
        svg.legend(left, &keys);
        let top = svg.bottom() + 6.0;
        let bottom = top + ROW * self.rows.len() as f64;
        let values: Vec<f64> = self.rows.iter().flat_map(|row| row.values.iter().copied().chain(row.tick)).collect();
        let x = Ticks::of(&self.x, &values, (left, WIDTH - RIGHT));
        svg.text((left - 10.0, top - 8.0), "end", GREY, &self.note);
        for (value, label) in x.labels() {
            svg.line((x.at(value), top), (x.at(value), bottom), "#ddd", 1.0, false);
            svg.text((x.at(value), bottom + 18.0), "middle", TEXT, &label);
        }
        for (i, row) in self.rows.iter().enumerate() {
            let y = top + ROW * (i as f64 + 0.5);
            svg.text((left - NOTES, y + 4.0), "end", TEXT, &row.name);
            svg.text((left - 10.0, y + 4.0), "end", GREY, &row.note);
            svg.line((left, y), (WIDTH - RIGHT, y), "#f0f0f0", 1.0, false);
            if let Some(tick) = row.tick {
                svg.line((x.at(tick), y - 8.0), (x.at(tick), y + 8.0), GREY, 1.5, true);
            }
            for (i, (value, key)) in row.values.iter().zip(&keys).enumerate() {
                // the first is larger, so that a dot over it leaves a ring
                svg.disc((x.at(*value), y), if i == 0 { 5.5 } else { 3.5 }, key.colour);
            }
        }
        svg.line((left, bottom), (WIDTH - RIGHT, bottom), TEXT, 1.0, false);
        svg.text(((left + WIDTH - RIGHT) / 2.0, bottom + 38.0), "middle", TEXT, &self.x.caption());
        svg.finish(bottom + 50.0)
    }
    /// Where the rows begin, so that the longest name has room.
    fn left(&self) -> f64 {
        let letters = self.rows.iter().map(|row| row.name.chars().count()).max().unwrap_or(0);
        LEFT.max(letters as f64 * LETTER + NOTES + 8.0)
    }
}
