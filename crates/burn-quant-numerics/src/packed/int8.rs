//! INT8: a byte a code, one f32 scale for all of a group.
//!
//! ```text
//! s = amax / 127       q = clamp(rne(x / s), −128, 127)       y = q · s
//! ```
//!
//! Source: ModelOpt 0.47, `INT8QTensor`.
//!
//! # Example
//!
//! ```
//! use burn_quant_numerics::packed::int8;
//!
//! let (x, mut codes, mut y) = ([-1.0, 0.5, 2.0], [0; 3], [0.0; 3]);
//! let scale = int8::scale(2.0);
//! int8::pack(&x, scale, &mut codes)?;
//! assert_eq!(codes, [-64, 32, 127]);
//! int8::unpack(&codes, scale, &mut y)?;
//! assert_eq!(y[2], 2.0);
//! # Ok::<(), burn_quant_numerics::packed::PackError>(())
//! ```

use super::{PackError, check};
use crate::round::clip;
use crate::round_half_to_even;

/// Returns the scale of a range.
///
/// `amax / 127`.
pub fn scale(amax: f32) -> f32 {
    amax / 127.0
}

/// The codes of values that share a scale; NaN, and everything under a scale of zero, is 0.
///
/// # Errors
///
/// [`PackError::Length`] unless there is a code for each value.
pub fn pack(x: &[f32], scale: f32, codes: &mut [i8]) -> Result<(), PackError> {
    check("codes", codes.len(), x.len())?;
    for (code, x) in codes.iter_mut().zip(x) {
        let units = if scale == 0.0 { 0.0 } else { x / scale };
        *code = round_half_to_even(clip(units, -128.0, 127.0)) as i8;
    }
    Ok(())
}

/// The values of codes that share a scale.
///
/// # Errors
///
/// [`PackError::Length`] unless there is a value for each code.
pub fn unpack(codes: &[i8], scale: f32, y: &mut [f32]) -> Result<(), PackError> {
    check("values", y.len(), codes.len())?;
    y.iter_mut().zip(codes).for_each(|(y, code)| *y = f32::from(*code) * scale);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_comes_back_and_a_scale_of_zero_is_safe() {
        let codes: std::vec::Vec<i8> = (-128..=127).collect();
        let (mut y, mut again) = (std::vec![0.0; 256], std::vec![0; 256]);
        for amax in [1.0, 0.3, 7.7e-5, 3.0e8] {
            unpack(&codes, scale(amax), &mut y).unwrap();
            pack(&y, scale(amax), &mut again).unwrap();
            assert_eq!(again, codes, "amax {amax}");
        }
        let mut codes = [9; 2];
        pack(&[0.0, f32::NAN], 0.0, &mut codes).unwrap();
        assert_eq!(codes, [0, 0]);
        assert!(pack(&[0.0], 1.0, &mut codes).is_err());
    }
}
