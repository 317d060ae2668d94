//! The elements of a drawing.

use std::fmt::Write;

use crate::Look;

pub(crate) const COLOURS: [&str; 6] = ["#1f77b4", "#d95f02", "#2a9d3f", "#7b4fa3", "#6b6b6b", "#c2185b"];
pub(crate) const TEXT: &str = "#333";
/// Pixels of a character of the labels, on average.
const CHARACTER: f64 = 6.6;
const LINE: f64 = 20.0;

/// An entry of a legend.
pub(crate) struct Key<'a> {
    pub(crate) name: &'a str,
    pub(crate) look: Look,
    pub(crate) colour: &'static str,
}

/// A drawing, from its top downwards.
pub(crate) struct Svg {
    width: f64,
    bottom: f64,
    elements: String,
}

impl Svg {
    pub(crate) fn new(width: f64, title: &str) -> Self {
        let mut svg = Self { width, bottom: 40.0, elements: String::new() };
        let title = escaped(title);
        svg.add(format!(
            r#"<text x="{}" y="26" text-anchor="middle" font-size="15" fill="{TEXT}">{title}</text>"#,
            width / 2.0
        ));
        svg
    }

    /// Where the next thing can begin.
    pub(crate) fn bottom(&self) -> f64 {
        self.bottom
    }

    /// Rows of keys, under what is there.
    pub(crate) fn legend(&mut self, left: f64, keys: &[Key<'_>]) {
        let (mut x, mut y) = (left, self.bottom + 8.0);
        for key in keys {
            let width = 30.0 + CHARACTER * key.name.chars().count() as f64 + 18.0;
            if x > left && x + width > self.width {
                (x, y) = (left, y + LINE);
            }
            match key.look {
                Look::Line => self.line((x, y), (x + 22.0, y), key.colour, 2.0, false),
                Look::Points => self.dot((x + 11.0, y), key.colour),
                Look::Marks => self.line((x + 11.0, y - 8.0), (x + 11.0, y + 8.0), key.colour, 1.5, true),
                Look::Levels => self.line((x, y), (x + 22.0, y), key.colour, 1.5, true),
            }
            self.text((x + 29.0, y + 4.0), "start", TEXT, key.name);
            x += width;
        }
        self.bottom = y + LINE;
    }

    pub(crate) fn text(&mut self, (x, y): (f64, f64), anchor: &str, colour: &str, text: &str) {
        let text = escaped(text);
        self.add(format!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{colour}">{text}</text>"#));
    }

    /// Text that reads upwards.
    pub(crate) fn turned_text(&mut self, (x, y): (f64, f64), text: &str) {
        let (text, turn) = (escaped(text), format!("rotate(-90 {x:.1} {y:.1})"));
        self.add(format!(
            r#"<text x="{x:.1}" y="{y:.1}" text-anchor="middle" fill="{TEXT}" transform="{turn}">{text}</text>"#
        ));
    }

    pub(crate) fn line(&mut self, from: (f64, f64), to: (f64, f64), colour: &str, width: f64, dashed: bool) {
        let dashes = if dashed { r#" stroke-dasharray="5 4""# } else { "" };
        let ends = format!(r#"x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}""#, from.0, from.1, to.0, to.1);
        self.add(format!(r#"<line {ends} stroke="{colour}" stroke-width="{width}"{dashes}/>"#));
    }

    pub(crate) fn path(&mut self, points: impl Iterator<Item = (f64, f64)>, colour: &str) {
        let points: Vec<String> = points.map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let points = points.join(" ");
        self.add(format!(r#"<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>"#));
    }

    pub(crate) fn dot(&mut self, at: (f64, f64), colour: &str) {
        self.disc(at, 3.5, colour);
    }

    pub(crate) fn disc(&mut self, (x, y): (f64, f64), radius: f64, colour: &str) {
        self.add(format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius}" fill="{colour}" stroke="white"/>"#));
    }

    pub(crate) fn finish(self, height: f64) -> String {
        let (width, elements) = (self.width, self.elements);
        let size = format!(r#"width="{width}" height="{height}" viewBox="0 0 {width} {height}""#);
        let font = r#"font-family="sans-serif" font-size="12""#;
        let paper = format!(r#"<rect width="{width}" height="{height}" fill="white"/>"#);
        format!("<svg xmlns=\"http://www.w3.org/2000/svg\" {size} {font}>\n{paper}\n{elements}</svg>\n")
    }

    fn add(&mut self, element: String) {
        writeln!(self.elements, "{element}").expect("a string can be written");
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
