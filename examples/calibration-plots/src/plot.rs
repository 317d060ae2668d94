//! A plot with lines, points and marks.

use std::path::Path;

use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;
use serde::Serialize;

const SIZE: (u32, u32) = (760, 400);
const COLOURS: [RGBColor; 5] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(120, 120, 120),
];

/// How a series is drawn.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Look {
    Line,
    Points,
    /// A vertical line at each x.
    Marks,
}

/// Numbers with a name.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) look: Look,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Series {
    pub(crate) fn new(name: impl Into<String>, look: Look, points: impl IntoIterator<Item = (f64, f64)>) -> Self {
        Self { name: name.into(), look, points: points.into_iter().collect() }
    }

    /// One mark.
    pub(crate) fn mark(name: impl Into<String>, x: f32) -> Self {
        Self::new(name, Look::Marks, [(f64::from(x), 0.0)])
    }
}

/// One plot of the book.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Plot {
    /// The name of the file, without its extension.
    pub(crate) name: &'static str,
    pub(crate) x: &'static str,
    pub(crate) y: &'static str,
    /// Whether y is drawn by its logarithm.
    pub(crate) log: bool,
    pub(crate) series: Vec<Series>,
}

impl Plot {
    /// Draws it as SVG.
    pub(crate) fn draw(&self, folder: &Path) -> Result<(), Box<dyn std::error::Error>> {
        let file = folder.join(self.name).with_extension("svg");
        let root = SVGBackend::new(&file, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let points = || self.series.iter().flat_map(|s| s.points.iter().map(move |p| (p, s.look)));
        let span = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
        };
        let (left, right) = span(&mut points().map(|(p, _)| p.0));
        let heights = |(p, look): (&(f64, f64), Look)| (look != Look::Marks && (!self.log || p.1 > 0.0)).then_some(p.1);
        let (bottom, top) = span(&mut points().filter_map(heights));
        let margin = (right - left) * 0.02;
        let x = left - margin..right + margin;
        let mut builder = ChartBuilder::on(&root);
        builder.margin(12).x_label_area_size(40).y_label_area_size(64);
        if self.log {
            self.fill(
                builder.build_cartesian_2d(x, (bottom * 0.8..top * 1.25).log_scale())?,
                bottom * 0.8,
                top * 1.25,
            )?;
        } else {
            let room = (top - bottom).max(1e-12) * 0.05;
            self.fill(builder.build_cartesian_2d(x, bottom - room..top + room)?, bottom - room, top + room)?;
        }
        root.present()?;
        Ok(())
    }

    fn fill<'a, Y>(
        &self,
        mut chart: ChartContext<'a, SVGBackend<'a>, Cartesian2d<plotters::coord::types::RangedCoordf64, Y>>,
        bottom: f64,
        top: f64,
    ) -> Result<(), Box<dyn std::error::Error>>
    where
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let font = |size: u32| ("sans-serif", size).into_font();
        let number = |y: &f64| match y.abs() {
            size if size >= 1e4 || size > 0.0 && size < 0.01 => format!("{y:.0e}"),
            _ => format!("{y:.2}").trim_end_matches('0').trim_end_matches('.').to_string(),
        };
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .light_line_style(WHITE)
            .label_style(font(12))
            .y_label_formatter(&number)
            .draw()?;
        for (i, series) in self.series.iter().enumerate() {
            let colour = COLOURS[i % COLOURS.len()];
            let drawn = match series.look {
                Look::Line => {
                    chart.draw_series(LineSeries::new(series.points.iter().copied(), colour.stroke_width(2)))?
                }
                Look::Points => {
                    let circles = series.points.iter().map(|point| Circle::new(*point, 2, colour.filled()));
                    chart.draw_series(circles)?
                }
                Look::Marks => {
                    let lines = series
                        .points
                        .iter()
                        .map(|(x, _)| PathElement::new([(*x, bottom), (*x, top)], colour.stroke_width(2)));
                    chart.draw_series(lines)?
                }
            };
            drawn
                .label(&series.name)
                .legend(move |(x, y)| Rectangle::new([(x, y - 4), (x + 12, y + 4)], colour.filled()));
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .background_style(WHITE.mix(0.8))
            .border_style(RGBColor(200, 200, 200))
            .label_font(font(12))
            .draw()?;
        Ok(())
    }
}
