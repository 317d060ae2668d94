//! Where numbers lie on an axis, and the round ones that are written beside it.

use serde::Serialize;

/// How the numbers of an axis are spaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// Evenly.
    Linear,
    /// By their logarithm; numbers that have none are not shown.
    Log,
}

/// Which numbers of an axis are the good ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// The low ones.
    Lower,
    /// The high ones.
    Higher,
}

/// What an axis shows.
#[derive(Clone, Debug, Serialize)]
pub struct Axis {
    /// The name, with its unit.
    pub name: String,
    /// How numbers are spaced.
    pub scale: Scale,
    /// Which numbers are the good ones, if any are.
    pub better: Option<Better>,
}

impl Axis {
    /// Creates an axis with evenly spaced numbers.
    pub fn linear(name: impl Into<String>) -> Self {
        Self { name: name.into(), scale: Scale::Linear, better: None }
    }

    /// Creates an axis with numbers by their logarithm.
    pub fn log(name: impl Into<String>) -> Self {
        Self { scale: Scale::Log, ..Self::linear(name) }
    }

    /// Says that less of it is better.
    pub fn lower_is_better(self) -> Self {
        Self { better: Some(Better::Lower), ..self }
    }

    /// Says that more of it is better.
    pub fn higher_is_better(self) -> Self {
        Self { better: Some(Better::Higher), ..self }
    }

    pub(crate) fn caption(&self) -> String {
        match self.better {
            Some(Better::Lower) => format!("{} (lower is better)", self.name),
            Some(Better::Higher) => format!("{} (higher is better)", self.name),
            None => self.name.clone(),
        }
    }
}

/// An axis over a span of pixels.
pub(crate) struct Ticks {
    scale: Scale,
    span: (f64, f64),
    pixels: (f64, f64),
    ticks: Vec<f64>,
}

impl Ticks {
    /// Fits an axis to values, with a little room on both sides.
    pub(crate) fn of(axis: &Axis, values: &[f64], pixels: (f64, f64)) -> Self {
        let positions = values.iter().filter_map(|value| position(axis.scale, *value));
        let (low, high) =
            positions.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), p| (low.min(p), high.max(p)));
        let (low, high) = if low < high { (low, high) } else { (low.min(0.0) - 0.5, high.max(0.0) + 0.5) };
        let room = (high - low) * 0.03;
        let span = (low - room, high + room);
        let ticks = match axis.scale {
            Scale::Linear => even(span, 7.0),
            Scale::Log => logarithmic(span),
        };
        Self { scale: axis.scale, span, pixels, ticks }
    }

    pub(crate) fn shows(&self, value: f64) -> bool {
        position(self.scale, value).is_some()
    }

    pub(crate) fn at(&self, value: f64) -> f64 {
        let position = position(self.scale, value).unwrap_or(self.span.0);
        let share = (position - self.span.0) / (self.span.1 - self.span.0);
        self.pixels.0 + share * (self.pixels.1 - self.pixels.0)
    }

    pub(crate) fn labels(&self) -> Vec<(f64, String)> {
        self.ticks.iter().map(|tick| (*tick, number(*tick))).collect()
    }
}

fn position(scale: Scale, value: f64) -> Option<f64> {
    match scale {
        Scale::Linear => Some(value),
        Scale::Log => (value > 0.0).then(|| value.log10()),
    }
}

/// About so many multiples of 1, 2 or 5 times a power of ten.
fn even((low, high): (f64, f64), count: f64) -> Vec<f64> {
    let raw = (high - low) / count;
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
        return even((10f64.powf(low), 10f64.powf(high)), 7.0);
    }
    let steps: &[f64] = if decades < 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let every = (decades / 7.0).ceil() as usize;
    let powers = (low.floor() as i32..=high.ceil() as i32).step_by(every);
    let ticks = powers.flat_map(|power| steps.iter().map(move |step| format!("{step}e{power}").parse::<f64>()));
    ticks.map(|tick| tick.expect("a number")).filter(|tick| (low..=high).contains(&tick.log10())).collect()
}

/// A tick as one reads it: `0`, `0.25`, `200`, `5·10⁻⁴`.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if value != 0.0 && !(1e-3..1e5).contains(&size) {
        let text = format!("{size:e}");
        let (digits, power) = text.split_once('e').expect("an exponent");
        let raised = power.chars().map(|c| if c == '-' { '⁻' } else { RAISED[c.to_digit(10).unwrap_or(0) as usize] });
        let raised: String = raised.collect();
        let sign = if value < 0.0 { "−" } else { "" };
        return if digits == "1" { format!("{sign}10{raised}") } else { format!("{sign}{digits}·10{raised}") };
    }
    format!("{value}").replace('-', "−")
}

const RAISED: [char; 10] = ['⁰', '¹', '²', '³', '⁴', '⁵', '⁶', '⁷', '⁸', '⁹'];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_and_zero_is_zero() {
        assert_eq!(even((-0.31, 0.41), 7.0), [-0.2, 0.0, 0.2, 0.4]);
        assert_eq!(even((2.8, 8.2), 7.0), [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
        assert_eq!(even((50.0, 1000.0), 7.0), [200.0, 400.0, 600.0, 800.0, 1000.0]);
        assert_eq!(logarithmic((-1.05, 0.05)), [0.1, 0.2, 0.5, 1.0]);
        assert_eq!(logarithmic((-5.1, -1.9)), [1e-5, 1e-4, 1e-3, 1e-2]);
    }

    #[test]
    fn numbers_are_written_as_one_reads_them() {
        for (value, text) in
            [(0.0, "0"), (0.25, "0.25"), (-2.0, "−2"), (1e-4, "10⁻⁴"), (5e-4, "5·10⁻⁴"), (2e5, "2·10⁵")]
        {
            assert_eq!(number(value), text);
        }
    }
}
