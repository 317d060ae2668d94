//! Lines over bits as SVG, in the style of the book's plots: panels below each other over one axis, the legend above
//! the data, and round numbers beside the axes.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 220.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 20.0;
const TEXT: &str = "#333";
const COLOURS: [&str; 2] = ["#1f77b4", "#d95f02"];

/// How the numbers of an axis are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scale {
    /// Evenly.
    Linear,
    /// By their logarithm; all are positive.
    Log,
}

/// One vertical axis, with a line through points.
pub(crate) struct Panel<'a> {
    /// The name in the legend.
    pub(crate) name: &'a str,
    /// What stands beside the axis.
    pub(crate) caption: &'a str,
    /// How its numbers are spaced.
    pub(crate) scale: Scale,
    /// The line, from the left to the right; a panel without points is not drawn.
    pub(crate) points: Vec<(f64, f64)>,
}

/// Draws panels over one horizontal axis.
pub(crate) fn svg(title: &str, x_caption: &str, panels: &[Panel<'_>]) -> String {
    let shown: Vec<(&Panel<'_>, &str)> =
        panels.iter().zip(COLOURS).filter(|(panel, _)| !panel.points.is_empty()).collect();
    let mut elements = String::new();
    let mut draw = |element: String| writeln!(elements, "{element}").expect("a string can be written");
    let middle = (LEFT + WIDTH - RIGHT) / 2.0;
    draw(text((WIDTH / 2.0, 26.0), "middle", r#" font-size="15""#, title));
    let mut left = LEFT;
    for (panel, colour) in &shown {
        draw(line((left, 48.0), (left + 22.0, 48.0), colour, 2.0));
        draw(text((left + 29.0, 52.0), "start", "", panel.name));
        left += 48.0 + 6.6 * panel.name.len() as f64;
    }
    let bits = shown.iter().flat_map(|(panel, _)| panel.points.iter().map(|point| point.0));
    let x = Axis::of(Scale::Linear, bits, (LEFT, WIDTH - RIGHT));
    let mut bottom = 48.0;
    for (panel, colour) in &shown {
        let top = bottom + 20.0;
        bottom = top + HEIGHT;
        let y = Axis::of(panel.scale, panel.points.iter().map(|point| point.1), (bottom, top));
        for tick in &y.ticks {
            draw(line((LEFT, y.at(*tick)), (WIDTH - RIGHT, y.at(*tick)), "#ddd", 1.0));
            draw(text((LEFT - 8.0, y.at(*tick) + 4.0), "end", "", &number(*tick)));
        }
        for tick in &x.ticks {
            draw(line((x.at(*tick), bottom), (x.at(*tick), bottom + 5.0), TEXT, 1.0));
        }
        draw(line((LEFT, bottom), (WIDTH - RIGHT, bottom), TEXT, 1.0));
        let turn = format!(r#" transform="rotate(-90 18 {:.1})""#, (top + bottom) / 2.0);
        draw(text((18.0, (top + bottom) / 2.0), "middle", &turn, panel.caption));
        let points: Vec<(f64, f64)> = panel.points.iter().map(|(bits, value)| (x.at(*bits), y.at(*value))).collect();
        let ends: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let ends = ends.join(" ");
        draw(format!(r#"<polyline points="{ends}" fill="none" stroke="{colour}" stroke-width="2"/>"#));
        for (x, y) in points {
            draw(format!(r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{colour}" stroke="white"/>"#));
        }
    }
    for tick in &x.ticks {
        draw(text((x.at(*tick), bottom + 19.0), "middle", "", &number(*tick)));
    }
    draw(text((middle, bottom + 40.0), "middle", "", x_caption));
    let height = bottom + 52.0;
    let size = format!(r#"width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}""#);
    let font = r#"font-family="sans-serif" font-size="12""#;
    let paper = format!(r#"<rect width="{WIDTH}" height="{height}" fill="white"/>"#);
    format!("<svg xmlns=\"http://www.w3.org/2000/svg\" {size} {font}>\n{paper}\n{elements}</svg>\n")
}

fn text((x, y): (f64, f64), anchor: &str, more: &str, text: &str) -> String {
    format!(r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" fill="{TEXT}"{more}>{text}</text>"#)
}

fn line(from: (f64, f64), to: (f64, f64), colour: &str, width: f64) -> String {
    let ends = format!(r#"x1="{:.1}" y1="{:.1}" x2="{:.1}" y2="{:.1}""#, from.0, from.1, to.0, to.1);
    format!(r#"<line {ends} stroke="{colour}" stroke-width="{width}"/>"#)
}

/// An axis over a span of pixels.
struct Axis {
    scale: Scale,
    span: (f64, f64),
    pixels: (f64, f64),
    ticks: Vec<f64>,
}

impl Axis {
    /// Fits an axis to values, with a little room on both sides.
    fn of(scale: Scale, values: impl Iterator<Item = f64>, pixels: (f64, f64)) -> Self {
        let positions = values.map(|value| position(scale, value)).filter(|position| position.is_finite());
        let (low, high) =
            positions.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), p| (low.min(p), high.max(p)));
        let (low, high) = match () {
            () if low < high => (low, high),
            () if low == high => (low - 0.5, high + 0.5),
            () => (0.0, 1.0), // nothing is shown
        };
        let room = (high - low) * 0.03;
        let span = (low - room, high + room);
        let ticks = match scale {
            Scale::Linear => even(span),
            Scale::Log => logarithmic(span),
        };
        Self { scale, span, pixels, ticks }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (position(self.scale, value) - self.span.0) / (self.span.1 - self.span.0);
        self.pixels.0 + share * (self.pixels.1 - self.pixels.0)
    }
}

fn position(scale: Scale, value: f64) -> f64 {
    match scale {
        Scale::Linear => value,
        Scale::Log => value.log10(),
    }
}

/// About seven multiples of 1, 2 or 5 times a power of ten.
fn even((low, high): (f64, f64)) -> Vec<f64> {
    let raw = (high - low) / 7.0;
    let power = 10f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= raw).unwrap_or(raw);
    let (first, last) = ((low / step).ceil() as i64, (high / step).floor() as i64);
    // through its decimals, so that no tick is a hair beside the number that it means
    (first..=last).map(|i| format!("{:.12e}", i as f64 * step).parse().expect("a number")).collect()
}

/// Powers of ten; over few decades also 2 and 5 of each, over less than one evenly spaced numbers.
fn logarithmic((low, high): (f64, f64)) -> Vec<f64> {
    let decades = high - low;
    if decades < 0.7 {
        return even((10f64.powf(low), 10f64.powf(high)));
    }
    let steps: &[f64] = if decades < 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let powers = (low.floor() as i32..=high.ceil() as i32).step_by((decades / 7.0).ceil() as usize);
    let ticks = powers.flat_map(|power| steps.iter().map(move |step| format!("{step}e{power}").parse::<f64>()));
    ticks.map(|tick| tick.expect("a number")).filter(|tick| (low..=high).contains(&tick.log10())).collect()
}

/// A tick as one reads it: `0`, `0.25`, `200`, `5·10⁻⁴`.
fn number(value: f64) -> String {
    const RAISED: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];
    if value == 0.0 || (1e-3..1e5).contains(&value.abs()) {
        return format!("{value}").replace('-', "−");
    }
    let text = format!("{value:e}").replace('-', "−");
    let (digits, power) = text.split_once('e').expect("an exponent");
    let raise = |c: char| c.to_digit(10).map_or('⁻', |digit| RAISED[digit as usize]);
    let power: String = power.chars().map(raise).collect();
    match digits {
        "1" | "−1" => format!("{}10{power}", digits.replace('1', "")),
        _ => format!("{digits}·10{power}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_and_written_as_one_reads_them() {
        assert_eq!(even((-0.31, 0.41)), [-0.2, 0.0, 0.2, 0.4]);
        assert_eq!(even((4.5, 8.2)), [5.0, 6.0, 7.0, 8.0]);
        assert_eq!(logarithmic((-1.05, 0.05)), [0.1, 0.2, 0.5, 1.0]);
        assert_eq!(logarithmic((-5.1, -1.9)), [1e-5, 1e-4, 1e-3, 1e-2]);
        for (value, text) in
            [(0.0, "0"), (0.25, "0.25"), (-2.0, "−2"), (1e-4, "10⁻⁴"), (5e-4, "5·10⁻⁴"), (-2e5, "−2·10⁵")]
        {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn what_has_no_points_is_not_drawn() {
        let panel = |points| Panel { name: "score", caption: "score", scale: Scale::Log, points };
        for (points, lines) in [(vec![], 0), (vec![(4.0, 0.1)], 1), (vec![(4.0, 0.1), (8.0, 0.01)], 1)] {
            let drawn = svg("title", "bits", &[panel(points), panel(vec![])]);
            assert_eq!(drawn.matches("<polyline").count(), lines, "{drawn}");
            assert!(!drawn.contains("NaN") && !drawn.contains("inf"), "{drawn}");
        }
    }
}
