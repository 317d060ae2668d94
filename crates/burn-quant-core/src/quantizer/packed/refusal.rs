//! What a quantizer may not do so that codes and scales can hold its weight.

use crate::config::Rounding;
use crate::error::NotPackedReason;
use crate::quantizer::{Buffer, TensorQuantizer};

/// Whether a quantizer does nothing but round to one grid.
pub(super) fn check(quantizer: &TensorQuantizer) -> Result<(), NotPackedReason> {
    if quantizer.is_uncalibrated() {
        return Err(NotPackedReason::Uncalibrated);
    }
    let more = [
        (quantizer.buffer(Buffer::PreQuantScale).is_some(), "scales its channels"),
        (quantizer.buffer(Buffer::LowRankDown).is_some(), "adds trained factors of low rank"),
    ];
    refuse(more)?;
    check_form(quantizer)
}

/// Whether the configuration of a quantizer is one that codes and scales hold.
pub(super) fn check_form(quantizer: &TensorQuantizer) -> Result<(), NotPackedReason> {
    refuse([(quantizer.config().has_two_ranges(), "has a range before rounding and another after")])?;
    check_rounding(quantizer)
}

/// Whether a quantizer rounds once, and does nothing else to the numbers.
pub(super) fn check_rounding(quantizer: &TensorQuantizer) -> Result<(), NotPackedReason> {
    let config = quantizer.config();
    refuse([
        (!config.then.is_empty(), "has further stages"),
        (config.bias.is_some(), "rounds around a bias"),
        (config.rotation.is_some(), "rotates"),
        (config.rounding == Rounding::Off, "does not round"),
    ])
}

fn refuse<const N: usize>(more: [(bool, &'static str); N]) -> Result<(), NotPackedReason> {
    match more.into_iter().find(|(does, _)| *does) {
        Some((_, what)) => Err(NotPackedReason::MoreThanRounding { what }),
        None => Ok(()),
    }
}
