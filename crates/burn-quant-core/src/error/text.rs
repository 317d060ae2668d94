//! Parts of the sentences of errors.

/// Makes `Debug` print what `Display` does: a `main` that returns a `Result` prints `Debug`, and the advice must not be
/// lost there.
#[doc(hidden)] // of the toolkit's own crates
#[macro_export]
macro_rules! debug_is_display {
    ($($error:ty),+) => {
        $(
            impl std::fmt::Debug for $error {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    std::fmt::Display::fmt(self, f)
                }
            }
        )+
    };
}

/// Which of several, of a number that counts from 0: 1st, 2nd, 3rd, 11th.
pub(super) fn ordinal(from_zero: u64) -> String {
    let number = from_zero.saturating_add(1);
    let ending = match (number % 10, number % 100) {
        (1, other) if other != 11 => "st",
        (2, other) if other != 12 => "nd",
        (3, other) if other != 13 => "rd",
        _ => "th",
    };
    format!("{number}{ending}")
}

/// A number in few characters, however large or small.
pub fn number(value: impl Into<f64>) -> String {
    let value = value.into();
    let plain = value == 0.0 || !value.is_finite() || (1e-5..1e7).contains(&value.abs());
    // an f32 that was widened has digits that it never had
    let short = value as f32;
    match (f64::from(short) == value, plain) {
        (true, true) => short.to_string(),
        (false, true) => value.to_string(),
        (true, false) => format!("{short:e}"),
        (false, false) => format!("{value:e}"),
    }
}

pub(super) fn article(container: &str) -> String {
    let vowel = container.starts_with(['A', 'E', 'I', 'O', 'U']);
    format!("{} `{container}`", if vowel { "an" } else { "a" })
}

/// Patterns of formats match layers that a format quantizes, those that leave layers out match all layers.
pub(super) fn of_search(option: &str) -> &'static str {
    match option {
        "overrides" | "groups" => " that a format of the search quantizes",
        _ => " of the model",
    }
}

/// Whose keys or values they are, if that is known.
pub(super) fn of_layer(path: &str) -> String {
    match path {
        "" => String::new(),
        path => format!(" of `{path}`"),
    }
}

pub(super) fn near(names: &[String]) -> String {
    match names {
        [] => " (it has none at all: use layers of `burn_quant::nn`, or register weight layouts)".into(),
        names => misses(names),
    }
}

pub(super) fn misses(names: &[String]) -> String {
    if names.is_empty() { String::new() } else { format!(" (near misses: `{}`)", names.join("`, `")) }
}
