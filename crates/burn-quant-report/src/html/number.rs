//! Numbers: as text, and their order. What was not measured, or is not finite, is a dash.

use crate::diagnosis::{Ends, NO_NOISE};

/// What stands for a number that there is not.
pub(super) const DASH: &str = "–";

/// What stands for the ratio of a signal without noise.
pub(super) const EXACT: &str = "exact";

/// Writes a ratio of signal to noise in decibels, without the unit.
pub(super) fn decibels(ratio: impl Into<Option<f64>>) -> String {
    match ratio.into() {
        Some(ratio) if ratio >= NO_NOISE => EXACT.into(),
        Some(ratio) if ratio.is_finite() => format!("{ratio:.1}"),
        _ => DASH.into(),
    }
}

/// Writes a share in percent, without the unit.
pub(super) fn percent(share: f64) -> String {
    match share * 100.0 {
        percents if !percents.is_finite() => DASH.into(),
        0.0 => "0".into(),
        percents if percents > 0.0 && percents < 0.01 => "<0.01".into(),
        percents => format!("{percents:.2}"),
    }
}

/// Writes a share as the length of a bar: whole percents from 0 to 100.
pub(super) fn bar(share: f64) -> u32 {
    (share.clamp(0.0, 1.0) * 100.0).round() as u32
}

/// Writes a number between -1 and 1 with its sign.
pub(super) fn signed(value: f64) -> String {
    match value {
        _ if !value.is_finite() => DASH.into(),
        _ if value.abs() < 0.005 => "0".into(),
        _ => format!("{value:+.2}"),
    }
}

/// Returns what to sort a number by, ascending: one that is missing, or no number, comes last.
pub(super) fn or_last(value: Option<f64>) -> f64 {
    value.filter(|value| !value.is_nan()).unwrap_or(f64::INFINITY)
}

/// Writes three significant digits.
pub(super) fn short(value: impl Into<f64>) -> String {
    digits(value.into(), 3)
}

/// Writes a metric: four significant digits.
pub(super) fn metric(value: f64) -> String {
    digits(value, 4)
}

/// Writes the lowest and the highest value; one number if they are the same.
pub(super) fn ends(ends: Option<Ends>) -> String {
    let Some(Ends { lowest, highest, .. }) = ends else { return DASH.into() };
    let (lowest, highest) = (short(lowest), short(highest));
    if lowest == highest { highest } else { format!("{lowest} … {highest}") }
}

/// Writes a number of bytes in the binary unit that suits.
pub(super) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { with_unit(bytes.to_string(), "B") } else { with_unit(short(value), UNITS[unit]) }
}

/// Writes how often something was called.
pub(super) fn calls(calls: u64) -> String {
    if calls == 1 { "1 call".into() } else { format!("{calls} calls") }
}

/// Writes the order of magnitude of a count: `10k`.
pub(super) fn power_of_ten(exponent: u32) -> String {
    let suffix = ["", "k", "M", "G", "T", "P", "E"].get(exponent as usize / 3).unwrap_or(&"");
    format!("{}{suffix}", 10_u32.pow(exponent % 3))
}

/// Appends a unit to a number.
pub(super) fn with_unit(number: String, unit: &str) -> String {
    if number == DASH || number == EXACT { number } else { format!("{number}\u{a0}{unit}") }
}

fn digits(value: f64, significant: i32) -> String {
    if !value.is_finite() {
        return DASH.into();
    }
    if value == 0.0 {
        return "0".into();
    }
    let magnitude = value.abs().log10().floor() as i32;
    if (-4..6).contains(&magnitude) {
        format!("{value:.*}", (significant - 1 - magnitude).max(0) as usize)
    } else {
        format!("{value:.*e}", (significant - 1).max(0) as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_have_one_decimal_and_none_without_noise() {
        assert_eq!(decibels(31.44), "31.4");
        assert_eq!(decibels(NO_NOISE), "exact");
        assert_eq!(decibels(None), "–");
        assert_eq!(decibels(f64::NAN), "–");
        assert_eq!(decibels(f64::NEG_INFINITY), "–");
    }

    #[test]
    fn tiny_shares_are_not_zero() {
        let written = [0.0, 0.00001, 0.0123, 1.0, f64::NAN].map(percent);
        assert_eq!(written, ["0", "<0.01", "1.23", "100.00", "–"]);
    }

    #[test]
    fn bars_stay_within_their_box() {
        assert_eq!([-1.0, 0.126, 7.0, f64::NAN].map(bar), [0, 13, 100, 0]);
    }

    #[test]
    fn shifts_have_a_sign() {
        assert_eq!([0.5, -0.251, 0.001, f64::NAN].map(signed), ["+0.50", "-0.25", "0", "–"]);
    }

    #[test]
    fn values_have_three_digits() {
        let written = [0.0, 0.5, 4.512, 65504.0, 1.0e-7, -3.1e9].map(short);
        assert_eq!(written, ["0", "0.500", "4.51", "65504", "1.00e-7", "-3.10e9"]);
        assert_eq!(short(f32::INFINITY), "–");
    }

    #[test]
    fn bytes_have_binary_units() {
        let written = [0, 1023, 1024, 3_366_000, u64::MAX].map(bytes);
        assert_eq!(written, ["0\u{a0}B", "1023\u{a0}B", "1.00\u{a0}KiB", "3.21\u{a0}MiB", "1.68e7\u{a0}TiB"]);
    }

    #[test]
    fn equal_ends_are_one_number() {
        assert_eq!(ends(Ends::of(&[2.0, 2.0])), "2.00");
        assert_eq!(ends(Ends::of(&[0.5, 2.0])), "0.500 … 2.00");
        assert_eq!(ends(None), "–");
    }

    #[test]
    fn powers_of_ten_are_written_with_a_suffix() {
        assert_eq!([0, 2, 3, 7, 19].map(power_of_ten), ["1", "100", "1k", "10M", "10E"]);
    }
}
