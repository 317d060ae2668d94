//! FP8: an E4M3 byte a code, one f32 scale for all of a group.
//!
//! ```text
//! s = amax / 448, 1 if amax = 0       q = E4M3(x / s)       y = q · s
//! ```
//!
//! Source: ModelOpt 0.47, `FP8QTensor`; there a group of zeros gives NaN.
//!
//! # Example
//!
//! ```
//! use burn_quant_numerics::packed::fp8;
//!
//! let (x, mut codes, mut y) = ([-1.0, 0.51, 2.0], [0; 3], [0.0; 3]);
//! fp8::pack(&x, fp8::scale(2.0), &mut codes)?;
//! fp8::unpack(&codes, fp8::scale(2.0), &mut y)?;
//! assert_eq!(y, [-1.0, 0.5, 2.0]);
//! # Ok::<(), burn_quant_numerics::packed::PackError>(())
//! ```

use super::{PackError, check};
use crate::Minifloat;

/// Returns the scale of a range.
///
/// `amax / 448`; 1 for a range of 0.
pub fn scale(amax: f32) -> f32 {
    if amax == 0.0 { 1.0 } else { amax / 448.0 }
}

/// The codes of values that share a scale.
///
/// # Errors
///
/// [`PackError::Length`] unless there is a code for each value.
pub fn pack(x: &[f32], scale: f32, codes: &mut [u8]) -> Result<(), PackError> {
    check("codes", codes.len(), x.len())?;
    codes.iter_mut().zip(x).for_each(|(code, x)| *code = Minifloat::E4M3.encode(x / scale));
    Ok(())
}

/// The values of codes that share a scale.
///
/// # Errors
///
/// [`PackError::Length`] unless there is a value for each code.
pub fn unpack(codes: &[u8], scale: f32, y: &mut [f32]) -> Result<(), PackError> {
    check("values", y.len(), codes.len())?;
    y.iter_mut().zip(codes).for_each(|(y, code)| *y = Minifloat::E4M3.decode(*code) * scale);
    Ok(())
}
