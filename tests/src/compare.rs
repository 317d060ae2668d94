//! How numbers are compared. NaN differs from everything, itself included, so that no comparison passes by it.

/// `|a − b|`: zero for equal numbers, infinite if either is NaN.
pub fn distance(a: f64, b: f64) -> f64 {
    let distance = (a - b).abs();
    match a == b {
        true => 0.0,
        false if distance.is_nan() => f64::INFINITY,
        false => distance,
    }
}

/// Whether a number is at most `bound` away from another.
pub fn within(found: f64, expected: f64, bound: f64) -> bool {
    distance(found, expected) <= bound
}

/// The largest magnitude, infinite if there is a NaN.
pub fn largest(values: &[f32]) -> f64 {
    values.iter().fold(0.0, |largest, x| f64::max(largest, distance((*x).into(), 0.0)))
}

/// The largest distance between two slices, infinite if their lengths differ.
pub fn largest_distance(found: &[f32], expected: &[f32]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let distances = found.iter().zip(expected).map(|(f, e)| distance((*f).into(), (*e).into()));
    distances.fold(0.0, f64::max)
}

/// `‖found − expected‖ / ‖expected‖`, infinite if the lengths differ.
pub fn relative_error(found: &[f32], expected: &[f32]) -> f64 {
    if found.len() != expected.len() {
        return f64::INFINITY;
    }
    let off: f64 = found.iter().zip(expected).map(|(f, e)| distance((*f).into(), (*e).into()).powi(2)).sum();
    let norm: f64 = expected.iter().map(|e| f64::from(*e).powi(2)).sum();
    if off == 0.0 { 0.0 } else { (off / norm.max(f64::MIN_POSITIVE)).sqrt() }
}

/// The largest difference is at most `relative` times the largest magnitude expected.
pub fn close(what: &str, found: &[f32], expected: &[f32], relative: f64) -> Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!("{what}: {} values, expected {}", found.len(), expected.len()));
    }
    let (off, top) = (largest_distance(found, expected), largest(expected));
    if off <= relative * top && off.is_finite() {
        return Ok(());
    }
    Err(format!("{what}: off by {off:e}, allowed {:e}", relative * top))
}

/// How much nearer to the expected output than the float model's a quantized model's output is.
pub const NEARER: f64 = 4.0;

/// Whether the output of a quantized model is the expected one.
///
/// The largest difference is at most `tolerance` times the largest value. Failing that, another order of summation may
/// have flipped isolated roundings, each by a quantization step: the whole is then within 2 %. Either way the output is
/// [`NEARER`] times closer to the expected one than the output of the float model is, if that is given: a model that
/// was not quantized fails.
pub fn agrees(found: &[f32], expected: &[f32], float: Option<&[f32]>, tolerance: f64) -> Result<(), String> {
    let off = relative_error(found, expected);
    if let Err(why) = close("y", found, expected, tolerance)
        && off > 2e-2
    {
        return Err(format!("{why}, and {off:e} of the whole"));
    }
    let unquantized = float.map_or(f64::INFINITY, |float| relative_error(float, expected));
    if off * NEARER <= unquantized {
        return Ok(());
    }
    Err(format!("y: off by {off:e} of the whole, where the float model is off by {unquantized:e}"))
}
