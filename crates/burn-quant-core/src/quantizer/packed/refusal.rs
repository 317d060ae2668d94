//! What a quantizer may not do so that codes and scales can hold its weight.

use crate::config::Rounding;
use crate::error::NotPackedReason;
use crate::quantizer::{Buffer, TensorQuantizer};

/// Whether a quantizer does nothing but round to one grid, around a bias or not.
pub(super) fn check(quantizer: &TensorQuantizer) -> Result<(), NotPackedReason> {
    match quantizer.is_uncalibrated() {
        true => Err(NotPackedReason::Uncalibrated),
        false => refuse(beside_bias(quantizer)),
    }
}

/// Whether a quantizer does nothing but round to one grid around zero.
pub(super) fn check_around_zero(quantizer: &TensorQuantizer) -> Result<(), NotPackedReason> {
    check(quantizer)?;
    refuse(around_bias(quantizer))
}

/// What a quantizer does beside rounding to one grid around zero, if it does more.
pub(crate) fn more_than_rounding(quantizer: &TensorQuantizer) -> Option<&'static str> {
    beside_bias(quantizer).or_else(|| around_bias(quantizer))
}

/// Whether the configuration of a quantizer is one that codes and scales hold.
pub(super) fn check_form(quantizer: &TensorQuantizer) -> Result<(), NotPackedReason> {
    refuse(more_in_form(quantizer))
}

/// Whether a quantizer rounds once around zero, and does nothing else to the numbers.
pub(super) fn check_rounding(quantizer: &TensorQuantizer) -> Result<(), NotPackedReason> {
    refuse(more_in_rounding(quantizer).or_else(|| around_bias(quantizer)))
}

fn beside_bias(quantizer: &TensorQuantizer) -> Option<&'static str> {
    let more = [
        (quantizer.buffer(Buffer::PreQuantScale).is_some(), "scales its channels"),
        (quantizer.buffer(Buffer::LowRankDown).is_some(), "adds trained factors of low rank"),
    ];
    first(more).or_else(|| more_in_form(quantizer))
}

fn around_bias(quantizer: &TensorQuantizer) -> Option<&'static str> {
    first([(quantizer.config().bias.is_some(), "rounds around a bias")])
}

fn more_in_form(quantizer: &TensorQuantizer) -> Option<&'static str> {
    let two = (quantizer.config().has_two_ranges(), "has a range before rounding and another after");
    first([two]).or_else(|| more_in_rounding(quantizer))
}

fn more_in_rounding(quantizer: &TensorQuantizer) -> Option<&'static str> {
    let config = quantizer.config();
    first([
        (!config.then.is_empty(), "has further stages"),
        (config.rotation.is_some(), "rotates"),
        (config.rounding == Rounding::Off, "does not round"),
    ])
}

fn first<const N: usize>(more: [(bool, &'static str); N]) -> Option<&'static str> {
    more.into_iter().find(|(does, _)| *does).map(|(_, what)| what)
}

fn refuse(more: Option<&'static str>) -> Result<(), NotPackedReason> {
    more.map_or(Ok(()), |what| Err(NotPackedReason::MoreThanRounding { what }))
}
