//! Numbers with units.

/// Returns bytes as a person reads them: `512 B`, `94.2 MiB`.
pub(crate) fn bytes(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < units.len() {
        (value, unit) = (value / 1024.0, unit + 1);
    }
    format!("{value:.1} {}", units[unit])
}

/// Reads a size: `8GiB`, `500MB`, `1.5G` for 1.5 GiB, a plain number of bytes.
///
/// # Errors
///
/// What was expected.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let expected = || "expected a size: 8GiB, 500MB, 2000000000".to_string();
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let number: f64 = text[..end].parse().map_err(|_| expected())?;
    let unit = match text[end..].trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1.0,
        "k" | "kib" => 1024.0,
        "m" | "mib" => 1024.0 * 1024.0,
        "g" | "gib" => 1024.0 * 1024.0 * 1024.0,
        "t" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        "kb" => 1e3,
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        _ => return Err(expected()),
    };
    let bytes = number * unit;
    if bytes >= 1.0 && bytes < u64::MAX as f64 { Ok(bytes as u64) } else { Err(expected()) }
}

/// Returns a large number as a person reads it: `951`, `134.5 M`.
pub(crate) fn count(n: u64) -> String {
    match n {
        0..10_000 => n.to_string(),
        10_000..999_950 => format!("{:.1} K", n as f64 / 1e3),
        999_950..999_950_000 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.1} B", n as f64 / 1e9),
    }
}

/// Returns a number with three digits that count: `0.0312`, `15.3`, `1523`.
pub(crate) fn number(x: f64) -> String {
    match x.abs() {
        0.0 => "0".into(),
        size if size >= 100.0 => format!("{x:.0}"),
        size if size >= 10.0 => format!("{x:.1}"),
        size if size >= 1.0 => format!("{x:.2}"),
        size if size >= 0.1 => format!("{x:.3}"),
        size if size >= 0.001 => format!("{x:.4}"),
        _ => format!("{x:.1e}"),
    }
}

/// Returns a number and its noun: `1 window`, `8 windows`.
pub(crate) fn plural(n: usize, noun: &str) -> String {
    format!("{n} {noun}{}", if n == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_digit_after_the_point_and_never_1024_of_a_unit() {
        assert_eq!([0, 1023, 1024, 1536].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.5 KiB"]);
        assert_eq!([1_048_575, 1 << 20, 98_777_498].map(bytes), ["1.0 MiB", "1.0 MiB", "94.2 MiB"]);
    }

    #[test]
    fn sizes_are_read_in_units_of_1024_and_of_1000() {
        assert_eq!(
            ["8GiB", "500MB", "1.5 g", "4096"].map(parse_bytes),
            [Ok(8 << 30), Ok(500_000_000), Ok(3 << 29), Ok(4096)]
        );
        for wrong in ["", "GiB", "-1GiB", "0", "8 apples", "1e40"] {
            assert!(parse_bytes(wrong).is_err_and(|error| error.contains("8GiB")), "{wrong}");
        }
    }

    #[test]
    fn counts_and_numbers_keep_three_digits() {
        assert_eq!([951, 12_345, 134_515_008, 8_030_261_248].map(count), ["951", "12.3 K", "134.5 M", "8.0 B"]);
        assert_eq!(
            [1523.4, 15.34, 1.5, 0.913, 0.0312, 3.2e-5].map(number),
            ["1523", "15.3", "1.50", "0.913", "0.0312", "3.2e-5"]
        );
        assert_eq!([plural(1, "window"), plural(8, "window")], ["1 window", "8 windows"]);
    }
}
