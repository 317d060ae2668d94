//! Floats: F32, F16 and BF16, rounded to the nearest, halves to even.

use half::{bf16, f16};

use super::super::GgmlType;
use crate::NotExportable;

pub(super) fn decode<const N: usize>(bytes: &[u8], to_f32: impl Fn([u8; N]) -> f32, values: &mut Vec<f32>) {
    values.extend(bytes.as_chunks::<N>().0.iter().map(|bytes| to_f32(*bytes)));
}

pub(super) fn encode(ggml: GgmlType, values: &[f32], bytes: &mut Vec<u8>) -> Result<(), NotExportable> {
    match ggml {
        GgmlType::F16 => values.iter().for_each(|x| bytes.extend(f16::from_f32(*x).to_le_bytes())),
        GgmlType::BF16 => values.iter().for_each(|x| bytes.extend(bf16::from_f32(*x).to_le_bytes())),
        _ => values.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
    }
    Ok(())
}

pub(super) fn f16_to_f32(bytes: [u8; 2]) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

pub(super) fn bf16_to_f32(bytes: [u8; 2]) -> f32 {
    bf16::from_le_bytes(bytes).to_f32()
}

/// Returns a scale in f16.
///
/// # Errors
///
/// [`NotExportable::HalfScale`] if it is not finite there.
pub(super) fn half_scale(scale: f32) -> Result<f16, NotExportable> {
    let half = f16::from_f32(scale);
    if half.is_finite() { Ok(half) } else { Err(NotExportable::HalfScale { found: scale }) }
}
