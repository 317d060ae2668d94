//! Error against bits, one panel for each kind of data.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::{Family, Outcome};

const SIZE: (u32, u32) = (1040, 560);
const GREY: RGBColor = RGBColor(120, 120, 120);

/// Draws the plot as SVG.
pub(crate) fn draw(file: &Path, outcomes: &[Outcome]) -> Result<(), Box<dyn std::error::Error>> {
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let (left, right) = root.split_horizontally(SIZE.0 / 2);
    panel(&left, "Gaussian", outcomes, |outcome| outcome.gaussian_db)?;
    panel(&right, "heavy-tailed (Student's t, 4 degrees of freedom)", outcomes, |outcome| outcome.heavy_tailed_db)?;
    root.present()?;
    Ok(())
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    title: &str,
    outcomes: &[Outcome],
    decibel: impl Fn(&Outcome) -> f64,
) -> Result<(), Box<dyn std::error::Error>> {
    let font = |size: u32| ("sans-serif", size).into_font();
    let mut chart = ChartBuilder::on(area)
        .caption(title, font(16))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(44)
        .build_cartesian_2d(1.5f64..9.5, 0f64..50.0)?;
    chart
        .configure_mesh()
        .x_desc("bits per value, scales included")
        .y_desc("signal to noise, dB")
        .x_labels(8)
        .light_line_style(WHITE)
        .label_style(font(12))
        .draw()?;
    // every bit is worth 6.02 dB to a uniform grid
    let slope = (3..=17).map(|half| f64::from(half) / 2.0).map(|bits| (bits, 6.02 * (bits - 1.0)));
    chart.draw_series(LineSeries::new(slope.filter(|(_, db)| *db <= 50.0), GREY.mix(0.4)))?;
    let mut labels = Labels::default();
    for outcome in outcomes {
        let at = (outcome.bits, decibel(outcome));
        chart.draw_series([Circle::new(at, 4, colour(outcome.family).filled())])?;
        let (offset, side) = labels.place(chart.backend_coord(&at), outcome.format);
        let style = TextStyle::from(font(10)).color(&GREY).pos(Pos::new(side, VPos::Center));
        chart.draw_series([EmptyElement::at(at) + Text::new(outcome.format, offset, style)])?;
    }
    Ok(())
}

fn colour(family: Family) -> RGBColor {
    match family {
        Family::Integer => RGBColor(31, 119, 180),
        Family::Float => RGBColor(148, 103, 189),
        Family::Mx => RGBColor(255, 127, 14),
        Family::Nvfp4 => RGBColor(44, 160, 44),
    }
}

/// The labels that are drawn, as rectangles: left, right, and the middle of their height.
#[derive(Default)]
struct Labels(Vec<(i32, i32, i32)>);

impl Labels {
    /// Where the label of a point goes, relative to it: beside it, or a few lines up or down where that place is taken.
    fn place(&mut self, (x, y): (i32, i32), text: &str) -> ((i32, i32), HPos) {
        const LINE: i32 = 11;
        let width = 6 * text.len() as i32;
        let lines = [0, 1, -1, 2, -2, 3, -3];
        let places = lines.iter().flat_map(|line| [(line * LINE, HPos::Right), (line * LINE, HPos::Left)]);
        let rectangle = |(dy, side): &(i32, HPos)| match side {
            HPos::Left => (x + 7, x + 7 + width, y + dy),
            _ => (x - 7 - width, x - 7, y + dy),
        };
        let free = |place: &(i32, HPos)| {
            let (left, right, middle) = rectangle(place);
            self.0.iter().all(|(l, r, m)| right < *l || left > *r || (middle - m).abs() >= LINE)
        };
        let place = places.clone().find(free).unwrap_or((0, HPos::Left));
        self.0.push(rectangle(&place));
        ((if matches!(place.1, HPos::Left) { 7 } else { -7 }, place.0), place.1)
    }
}
