//! K-quants: super-blocks of 256 codes, in blocks of 16 or 32 whose scales are small integers under scales in f16.
//!
//! ```text
//! Q2_K   w = (d · s) · code − (dmin · m)    16 blocks of 16, s and m of 4 bits
//! Q3_K   w = (d · s) · code                 16 blocks of 16, s of 6 bits around zero, code in −4..=3
//! Q4_K   w = (d · s) · code − (dmin · m)    8 blocks of 32, s and m of 6 bits
//! Q5_K   w = (d · s) · code − (dmin · m)    8 blocks of 32, s and m of 6 bits
//! Q6_K   w = (d · s) · code                 16 blocks of 16, s of 8 bits, code in −32..=31
//! ```
//!
//! The products in brackets are rounded first, so that they are the scale and the minimum of a block.

use super::legacy::f16_at;

/// Codes of a super-block, with scale and minimum of each block.
pub(super) struct SuperBlock {
    /// Codes as integers, around zero where the type has no minima.
    pub(super) codes: [i8; 256],
    /// Scales of 8 or 16 blocks.
    pub(super) scales: Vec<f32>,
    /// What is added in each block; empty where the type has no minima.
    pub(super) minima: Vec<f32>,
}

pub(super) fn decode<const N: usize>(bytes: &[u8], read: impl Fn(&[u8; N]) -> SuperBlock, values: &mut Vec<f32>) {
    for all in bytes.as_chunks::<N>().0.iter().map(read) {
        for (i, codes) in all.codes.chunks(256 / all.scales.len()).enumerate() {
            let scaled = codes.iter().map(|code| all.scales[i] * f32::from(*code));
            match all.minima.get(i) {
                None => values.extend(scaled),
                Some(minimum) => values.extend(scaled.map(|x| x + minimum)),
            }
        }
    }
}

/// Reads fields of `bits` bits: runs of `run` bytes hold the elements of their lowest fields, then of the next ones.
fn fields(bytes: &[u8], bits: usize, run: usize) -> [u8; 256] {
    let (per_byte, mask) = (8 / bits, ((1u16 << bits) - 1) as u8);
    std::array::from_fn(|i| {
        let (group, at) = (i / (run * per_byte), i % (run * per_byte));
        bytes[group * run + at % run] >> (at / run * bits) & mask
    })
}

pub(super) fn q2_k(block: &[u8; 84]) -> SuperBlock {
    let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
    SuperBlock {
        codes: fields(&block[16..80], 2, 32).map(|code| code as i8),
        scales: block[..16].iter().map(|byte| d * f32::from(byte & 15)).collect(),
        minima: block[..16].iter().map(|byte| -(dmin * f32::from(byte >> 4))).collect(),
    }
}

pub(super) fn q3_k(block: &[u8; 110]) -> SuperBlock {
    let (high, low) = (fields(&block[..32], 1, 32), fields(&block[32..96], 2, 32));
    let (packed, d) = (&block[96..108], f16_at(block, 108));
    // six bits: four in the halves of 8 bytes, two in the quarters of 4 bytes
    let scale = |i: usize| {
        let low = packed[i % 8] >> (i / 8 * 4) & 15;
        let high = packed[8 + i % 4] >> (i / 4 * 2) & 3;
        d * f32::from((low | high << 4) as i8 - 32)
    };
    SuperBlock {
        // the third bit is stored inverted, as 4 is subtracted where it is not set
        codes: std::array::from_fn(|i| low[i] as i8 - if high[i] == 0 { 4 } else { 0 }),
        scales: (0..16).map(scale).collect(),
        minima: Vec::new(),
    }
}

pub(super) fn q4_k(block: &[u8; 144]) -> SuperBlock {
    let (scales, minima) = scales_and_minima(&block[..16]);
    SuperBlock { codes: fields(&block[16..], 4, 32).map(|code| code as i8), scales, minima }
}

pub(super) fn q5_k(block: &[u8; 176]) -> SuperBlock {
    let (scales, minima) = scales_and_minima(&block[..16]);
    let (high, low) = (fields(&block[16..48], 1, 32), fields(&block[48..], 4, 32));
    SuperBlock { codes: std::array::from_fn(|i| (low[i] | high[i] << 4) as i8), scales, minima }
}

/// Reads two scales in f16, and 8 scales and 8 minima of six bits in 12 bytes, of Q4_K and Q5_K.
fn scales_and_minima(block: &[u8]) -> (Vec<f32>, Vec<f32>) {
    let (d, dmin, packed) = (f16_at(block, 0), f16_at(block, 2), &block[4..16]);
    let scale = |i: usize| match i {
        0..4 => packed[i] & 63,
        _ => packed[i + 4] & 15 | packed[i - 4] >> 6 << 4,
    };
    let minimum = |i: usize| match i {
        0..4 => packed[i + 4] & 63,
        _ => packed[i + 4] >> 4 | packed[i] >> 6 << 4,
    };
    ((0..8).map(|i| d * f32::from(scale(i))).collect(), (0..8).map(|i| -(dmin * f32::from(minimum(i)))).collect())
}

pub(super) fn q6_k(block: &[u8; 210]) -> SuperBlock {
    let (low, high) = (fields(&block[..128], 4, 64), fields(&block[128..192], 2, 32));
    let d = f16_at(block, 208);
    SuperBlock {
        codes: std::array::from_fn(|i| (low[i] | high[i] << 4) as i8 - 32),
        scales: block[192..208].iter().map(|scale| d * f32::from(*scale as i8)).collect(),
        minima: Vec::new(),
    }
}
