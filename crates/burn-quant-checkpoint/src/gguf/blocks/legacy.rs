//! Blocks of 32 codes under scales in f16.
//!
//! ```text
//! Q8_0   d  32 codes                w = d · code               code in −128..=127
//! Q4_0   d  16 bytes                w = d · (code − 8)         code in 0..=15
//! Q4_1   d  m  16 bytes             w = d · code + m
//! Q5_0   d  4 bytes  16 bytes       w = d · (code − 16)        code in 0..=31
//! Q5_1   d  m  4 bytes  16 bytes    w = d · code + m
//! ```
//!
//! Byte `i` of the 16 holds the low four bits of element `i` (low half) and of element `i + 16` (high half); bit `i` of
//! the 4 bytes is the fifth bit of element `i`.

use super::floats::{f16_to_f32, half_scale};
use crate::NotExportable;

/// Codes of a block with what they are multiplied with, and what is added.
pub(super) struct Block {
    /// Codes as integers, around zero where the type has no minimum.
    pub(super) codes: [i8; 32],
    /// The scale.
    pub(super) scale: f32,
    /// The minimum; `None` where the type has none.
    pub(super) minimum: Option<f32>,
}

pub(super) fn decode<const N: usize>(bytes: &[u8], read: impl Fn(&[u8; N]) -> Block, values: &mut Vec<f32>) {
    for block in bytes.as_chunks::<N>().0.iter().map(read) {
        let scaled = block.codes.iter().map(|code| block.scale * f32::from(*code));
        match block.minimum {
            None => values.extend(scaled),
            Some(minimum) => values.extend(scaled.map(|x| x + minimum)),
        }
    }
}

pub(super) fn q4_0(block: &[u8; 18]) -> Block {
    Block { codes: nibbles(&block[2..]).map(|code| code as i8 - 8), scale: f16_at(block, 0), minimum: None }
}

pub(super) fn q4_1(block: &[u8; 20]) -> Block {
    let codes = nibbles(&block[4..]).map(|code| code as i8);
    Block { codes, scale: f16_at(block, 0), minimum: Some(f16_at(block, 2)) }
}

pub(super) fn q5_0(block: &[u8; 22]) -> Block {
    let codes = with_fifth_bit(nibbles(&block[6..]), &block[2..6]).map(|code| code as i8 - 16);
    Block { codes, scale: f16_at(block, 0), minimum: None }
}

pub(super) fn q5_1(block: &[u8; 24]) -> Block {
    let codes = with_fifth_bit(nibbles(&block[8..]), &block[4..8]).map(|code| code as i8);
    Block { codes, scale: f16_at(block, 0), minimum: Some(f16_at(block, 2)) }
}

pub(super) fn q8_0(block: &[u8; 34]) -> Block {
    Block { codes: std::array::from_fn(|i| block[2 + i] as i8), scale: f16_at(block, 0), minimum: None }
}

pub(super) fn f16_at(bytes: &[u8], at: usize) -> f32 {
    f16_to_f32([bytes[at], bytes[at + 1]])
}

/// Reads 32 codes of four bits: low halves of 16 bytes, then their high halves.
pub(super) fn nibbles(bytes: &[u8]) -> [u8; 32] {
    std::array::from_fn(|i| if i < 16 { bytes[i] & 15 } else { bytes[i - 16] >> 4 })
}

fn with_fifth_bit(mut codes: [u8; 32], high: &[u8]) -> [u8; 32] {
    codes.iter_mut().enumerate().for_each(|(i, code)| *code |= (high[i / 8] >> (i % 8) & 1) << 4);
    codes
}

/// Writes codes of four or five bits, as [`nibbles`] and the fifth bits are read.
pub(super) fn pack(codes: &[u8; 32], bits: u32, bytes: &mut Vec<u8>) {
    if bits == 5 {
        let high = codes.iter().enumerate().fold(0u32, |word, (i, code)| word | u32::from(code >> 4) << i);
        bytes.extend(high.to_le_bytes());
    }
    bytes.extend((0..16).map(|i| codes[i] & 15 | codes[i + 16] << 4));
}

/// Returns `1 / scale`, or zero for a scale of zero.
fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

pub(super) fn encode_q8_0(values: &[f32; 32], bytes: &mut Vec<u8>) -> Result<(), NotExportable> {
    let scale = values.iter().fold(0.0f32, |amax, x| amax.max(x.abs())) / 127.0;
    let inverse = inverse(scale);
    bytes.extend(half_scale(scale)?.to_le_bytes());
    // `round` takes halves away from zero
    bytes.extend(values.iter().map(|x| (x * inverse).round() as i8 as u8));
    Ok(())
}

/// Encodes Q4_0 and Q5_0: the value of largest magnitude, the first one of several, becomes the lowest code.
pub(super) fn encode_signed(values: &[f32; 32], bits: u32, bytes: &mut Vec<u8>) -> Result<(), NotExportable> {
    let (half, top) = ((1 << (bits - 1)) as f32, (1u8 << bits) - 1);
    let largest = values.iter().fold(values[0], |largest, x| if x.abs() > largest.abs() { *x } else { largest });
    let scale = largest / -half;
    let inverse = inverse(scale);
    bytes.extend(half_scale(scale)?.to_le_bytes());
    pack(&values.map(|x| ((x * inverse + (half + 0.5)) as u8).min(top)), bits, bytes);
    Ok(())
}

/// Encodes Q4_1 and Q5_1: the minimum becomes code 0, the maximum the highest code.
pub(super) fn encode_affine(values: &[f32; 32], bits: u32, bytes: &mut Vec<u8>) -> Result<(), NotExportable> {
    let top = (1u8 << bits) - 1;
    let maximum = values.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
    let minimum = values.iter().fold(f32::INFINITY, |a, b| a.min(*b));
    let scale = (maximum - minimum) / f32::from(top);
    let inverse = inverse(scale);
    bytes.extend(half_scale(scale)?.to_le_bytes());
    bytes.extend(half_scale(minimum)?.to_le_bytes());
    pack(&values.map(|x| (((x - minimum) * inverse + 0.5) as u8).min(top)), bits, bytes);
    Ok(())
}
