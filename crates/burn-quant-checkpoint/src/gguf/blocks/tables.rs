//! Blocks of 32 codes of four bits that are looked up in a table.
//!
//! ```text
//! MXFP4    e  16 bytes    w = 2^(e − 128) · table[code]     table: E2M1, doubled
//! IQ4_NL   d  16 bytes    w = d · table[code]
//! ```
//!
//! Codes are packed as those of Q4_0. The table of MXFP4 has no negative zero: code 8 is zero.

use super::legacy::{f16_at, nibbles, pack};

/// E2M1, doubled, so that the values are integers.
const E2M1_DOUBLED: [f32; 16] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 0.0, -1.0, -2.0, -3.0, -4.0, -6.0, -8.0, -12.0];

/// The non-linear table of IQ4_NL.
const IQ4_NL: [f32; 16] =
    [-127.0, -104.0, -83.0, -65.0, -49.0, -35.0, -22.0, -10.0, 1.0, 13.0, 25.0, 38.0, 53.0, 69.0, 89.0, 113.0];

pub(super) fn decode_mxfp4(bytes: &[u8], values: &mut Vec<f32>) {
    for block in bytes.as_chunks::<17>().0 {
        let scale = half_power_of_two(block[0]);
        values.extend(nibbles(&block[1..]).map(|code| scale * E2M1_DOUBLED[usize::from(code)]));
    }
}

pub(super) fn decode_iq4_nl(bytes: &[u8], values: &mut Vec<f32>) {
    for block in bytes.as_chunks::<18>().0 {
        let scale = f16_at(block, 0);
        values.extend(nibbles(&block[2..]).map(|code| scale * IQ4_NL[usize::from(code)]));
    }
}

/// Returns `2^(byte − 128)`: half of the E8M0 scale, as values are doubled.
fn half_power_of_two(byte: u8) -> f32 {
    f32::from_bits(if byte < 2 { 0x0020_0000 << byte } else { u32::from(byte - 1) << 23 })
}

pub(super) fn encode_mxfp4(values: &[f32; 32], bytes: &mut Vec<u8>) {
    let amax = values.iter().fold(0.0f32, |amax, x| amax.max(x.abs()));
    // the logarithm is rounded to f32 before it is floored: just below a power of two it is that power's
    let exponent = if amax > 0.0 { (f64::from(amax).log2() as f32).floor() + 125.0 } else { 0.0 };
    let byte = exponent as u8;
    let scale = half_power_of_two(byte);
    let nearest = |x: f32| {
        let mut best = (f32::INFINITY, 0);
        for (code, value) in E2M1_DOUBLED.iter().enumerate() {
            let error = (scale * value - x).abs();
            if error < best.0 {
                best = (error, code as u8);
            }
        }
        best.1
    };
    bytes.push(byte);
    pack(&values.map(nearest), 4, bytes);
}
