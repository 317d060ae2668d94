//! Whether the numbers of an algorithm make sense: what the rows of the [table](crate::algorithms) check.

use super::{Algorithm, HistogramConfig, RangeSearch};
use crate::algorithms::algorithms;
use burn_quant_core::config::matcher;
use burn_quant_core::error::QuantError;

/// An option that is not what it must be.
struct Refused {
    option: &'static str,
    expected: &'static str,
    found: f64,
}

macro_rules! checks {
    ($($name:literal $(| $older:literal)*: $algorithm:pat = $default:expr,
        check [$($check:expr),* $(,)?], solve [$($step:expr),* $(,)?];)*) => {
        /// The checks of the table; those of other algorithms are their parts'.
        #[allow(unused_variables)] // not every option is a number
        fn checked(algorithm: &Algorithm) -> Result<(), Refused> {
            match algorithm {
                $($algorithm => {
                    $($check?;)*
                    Ok(())
                })*
                Algorithm::Sequence(_) | Algorithm::ForLayers { .. } | Algorithm::Custom { .. } => Ok(()),
            }
        }
    };
}

algorithms!(checks);

impl Algorithm {
    /// Whether its numbers make sense.
    ///
    /// # Errors
    ///
    /// [`QuantError::AlgorithmOption`], and [`QuantError::AlgorithmInSequence`].
    pub fn validate(&self) -> Result<(), QuantError> {
        let not_here = |part: &Algorithm| Err(QuantError::AlgorithmInSequence { name: part.name().to_string() });
        match self {
            Algorithm::Sequence(steps) => steps.iter().try_for_each(|step| match step {
                Algorithm::Sequence(_) | Algorithm::None => not_here(step),
                step => step.validate(),
            }),
            Algorithm::ForLayers { layers, algorithm } => {
                layers.iter().try_for_each(|glob| matcher(glob).map(drop))?;
                match &**algorithm {
                    Algorithm::Sequence(_) | Algorithm::ForLayers { .. } | Algorithm::None => not_here(algorithm),
                    single => single.validate(),
                }
            }
            single => checked(single).map_err(|Refused { option, expected, found }| {
                let algorithm = single.name().to_string();
                QuantError::AlgorithmOption { algorithm, option, expected, found }
            }),
        }
    }
}

fn check(holds: bool, option: &'static str, expected: &'static str, found: f64) -> Result<(), Refused> {
    if holds { Ok(()) } else { Err(Refused { option, expected, found }) }
}

fn percentage(option: &'static str, value: f64) -> Result<(), Refused> {
    check((0.0..=100.0).contains(&value), option, "0 to 100", value)
}

fn positive_percentage(option: &'static str, value: f32) -> Result<(), Refused> {
    check(value > 0.0 && value <= 100.0, option, "above 0, at most 100", value.into())
}

fn fraction(option: &'static str, value: f32) -> Result<(), Refused> {
    check((0.0..=1.0).contains(&value), option, "0 to 1", value.into())
}

fn below_one(option: &'static str, value: f32) -> Result<(), Refused> {
    check((0.0..1.0).contains(&value), option, "at least 0, below 1", value.into())
}

/// A step from 0 to 1; a smaller one would take forever.
fn step_of_one(option: &'static str, value: f32) -> Result<(), Refused> {
    check((1e-4..=1.0).contains(&value), option, "0.0001 to 1", value.into())
}

fn amount(option: &'static str, value: f32) -> Result<(), Refused> {
    check(value >= 0.0 && value.is_finite(), option, "not negative", value.into())
}

fn count(option: &'static str, value: usize) -> Result<(), Refused> {
    check(value > 0, option, "at least 1", value as f64)
}

/// How far an anchor may be below a range: beyond `448 / 2⁻⁶` it is below the smallest normal E4M3 scale.
fn headroom(option: &'static str, value: f32) -> Result<(), Refused> {
    check(value > 0.0 && value < 28672.0, option, "above 0, below 28672", value.into())
}

fn bins(histogram: &HistogramConfig) -> Result<(), Refused> {
    check((16..=65536).contains(&histogram.bins), "bins", "16 to 65536", histogram.bins as f64)
}

fn multipliers(search: &RangeSearch) -> Result<(), Refused> {
    let RangeSearch::Multipliers { start, stop, step, .. } = *search else { return Ok(()) };
    check(start > 0.0 && start.is_finite(), "start", "positive", start.into())?;
    check(stop >= start && stop.is_finite(), "stop", "at least `start`", stop.into())?;
    let enough = step > 0.0 && step >= (stop - start) / 10_000.0 && step.is_finite();
    check(enough, "step", "positive, and no more than 10000 of them", step.into())
}
