//! How the words of a panel become operands: codes of a byte for products of integers, points for products of floats.
//!
//! Codes of 8 and of 4 bits are read where they lie. Others are written out as bytes first, a panel at a time, and read
//! as codes of 8 bits.

#![allow(unsafe_op_in_unsafe_fn)] // as in `vectors`

use burn_quant_numerics::packed::{PANEL, STEP, Tiles};
use burn_quant_numerics::{Elements, Format};

use super::vectors::Vectors;

/// Codes as operands of products of bytes.
pub(super) trait Codes<V: Vectors>: Copy {
    /// Steps of a word.
    const STEPS: usize;
    /// Whether no code is above 24.
    const SMALL: bool;
    /// The steps whose products, added in pairs, an i16 holds: `2 · 128` times the largest code each.
    const SHORT_STEPS: usize;

    /// The codes of a step of 16 words.
    unsafe fn of_step(self, words: V::Int, step: usize) -> V::Int;
}

/// Bytes, as they are.
#[derive(Clone, Copy)]
pub(super) struct Bytes;

impl<V: Vectors> Codes<V> for Bytes {
    const STEPS: usize = 1;
    const SMALL: bool = false;
    const SHORT_STEPS: usize = 0;

    #[inline(always)]
    unsafe fn of_step(self, words: V::Int, _step: usize) -> V::Int {
        words
    }
}

/// Nibbles, as they are.
#[derive(Clone, Copy)]
pub(super) struct Nibbles;

impl<V: Vectors> Codes<V> for Nibbles {
    const STEPS: usize = 2;
    const SMALL: bool = true;
    const SHORT_STEPS: usize = 8; // of 15 at most

    #[inline(always)]
    unsafe fn of_step(self, words: V::Int, step: usize) -> V::Int {
        V::field(words, 4 * step as u32, 0x0f0f_0f0f)
    }
}

/// Nibbles whose integers stand in a table, shifted so that none is negative.
#[derive(Clone, Copy)]
pub(super) struct NibbleTable(pub(super) [u8; 16]);

impl<V: Vectors> Codes<V> for NibbleTable {
    const STEPS: usize = 2;
    const SMALL: bool = true;
    const SHORT_STEPS: usize = 4; // of 24 at most

    #[inline(always)]
    unsafe fn of_step(self, words: V::Int, step: usize) -> V::Int {
        V::bytes_of(V::field(words, 4 * step as u32, 0x0f0f_0f0f), &self.0)
    }
}

/// Points as operands of products of floats.
pub(super) trait Points<V: Vectors>: Copy {
    /// Inputs of a word.
    const INPUTS: usize;

    /// What all inputs of 16 words have in common.
    type Prepared: Copy;

    unsafe fn prepare(self, words: V::Int) -> Self::Prepared;
    /// The points of an input of 16 words.
    unsafe fn of_input(self, words: Self::Prepared, input: usize) -> V::Float;
}

/// Codes of 4 bits of any format.
#[derive(Clone, Copy)]
pub(super) struct Table16<T>(pub(super) T);

impl<V: Vectors> Points<V> for Table16<V::Table> {
    const INPUTS: usize = 8;
    type Prepared = V::Int;

    #[inline(always)]
    unsafe fn prepare(self, words: V::Int) -> V::Int {
        words
    }

    #[inline(always)]
    unsafe fn of_input(self, words: V::Int, input: usize) -> V::Float {
        // byte by byte in the low nibbles, then in the high ones; what stands above the index is not read
        let shift = 8 * (input % STEP) + 4 * (input / STEP);
        V::lookup(V::field(words, shift as u32, !0), self.0)
    }
}

/// Integers of a byte, less the code of zero.
#[derive(Clone, Copy)]
pub(super) struct Integers(pub(super) i32);

impl<V: Vectors> Points<V> for Integers {
    const INPUTS: usize = STEP;
    type Prepared = V::Int;

    #[inline(always)]
    unsafe fn prepare(self, words: V::Int) -> V::Int {
        words
    }

    #[inline(always)]
    unsafe fn of_input(self, words: V::Int, input: usize) -> V::Float {
        V::to_float(V::subtract(V::field(words, 8 * input as u32, 0xff), V::splat(self.0)))
    }
}

/// Numbers in E4M3.
#[derive(Clone, Copy)]
pub(super) struct E4m3;

impl<V: Vectors> Points<V> for E4m3 {
    const INPUTS: usize = STEP;
    type Prepared = V::Int;

    #[inline(always)]
    unsafe fn prepare(self, words: V::Int) -> V::Int {
        words
    }

    #[inline(always)]
    unsafe fn of_input(self, words: V::Int, input: usize) -> V::Float {
        V::e4m3_points(V::field(words, 8 * input as u32, 0xff))
    }
}

/// Codes of a byte of any format.
#[derive(Clone, Copy)]
pub(super) struct Table256<'a>(pub(super) &'a [f32; 256]);

impl<V: Vectors> Points<V> for Table256<'_> {
    const INPUTS: usize = STEP;
    type Prepared = V::Int;

    #[inline(always)]
    unsafe fn prepare(self, words: V::Int) -> V::Int {
        words
    }

    #[inline(always)]
    unsafe fn of_input(self, words: V::Int, input: usize) -> V::Float {
        V::gather(V::field(words, 8 * input as u32, 0xff), self.0)
    }
}

/// The points of all codes of a format, with zeros after them.
pub(super) fn points<const N: usize>(format: Format) -> [f32; N] {
    let elements = Elements::of(format);
    std::array::from_fn(|code| if code >> format.bits() == 0 { elements.point(code as u8) } else { 0.0 })
}

/// The points of a format of floats of at most a byte as bf16: their high bytes, their low bytes, and the sign of each
/// byte of a word, without which codes of 8 bits are looked up.
#[cfg(target_arch = "x86_64")]
pub(super) fn half_points(format: Format) -> ([u8; 128], [u8; 128], u32) {
    let points = points::<256>(format);
    let byte = |shift: u32| std::array::from_fn(|code| (points[code].to_bits() >> shift) as u8);
    debug_assert!(points.iter().all(|point| point.is_nan() || point.to_bits() & 0xffff == 0), "{format} fits bf16");
    (byte(24), byte(16), if format.bits() == 8 { 0x8080_8080 } else { 0 })
}

/// The integers of all codes of a format of 4 bits in its unit, and the one that is added to each so that none is
/// negative.
pub(super) fn integers(format: Format) -> ([u8; 16], i32) {
    let unit = Elements::of(format).unit().expect("a format of integers");
    let integers = points::<16>(format).map(|point| (point / unit) as i32);
    let zero = -integers.into_iter().min().expect("there are codes").min(0);
    (integers.map(|integer| (integer + zero) as u8), zero)
}

/// Whether codes are read where they lie.
pub(super) fn are_read_in_place(tiles: Tiles) -> bool {
    matches!(tiles.bits(), 4 | 8)
}

/// Writes the codes of panels out as bytes: `[panel] [step] [column]`, for layouts of any width.
pub(super) fn write_bytes(tiles: Tiles, words: &[u32], panels: std::ops::Range<usize>, bytes: &mut Vec<u32>) {
    bytes.clear();
    bytes.reserve(panels.len() * tiles.padded_inputs() / STEP * PANEL);
    let steps = tiles.granule() / STEP;
    let words = &words[panels.start * tiles.panel_words()..panels.end * tiles.panel_words()];
    for granule in words.chunks_exact(tiles.granule_words() * PANEL) {
        for step in 0..steps {
            let mut codes = [0; PANEL];
            for part in tiles.parts() {
                let (word, shift) = part.of_step(step);
                let words = &granule[word * PANEL..][..PANEL];
                let bits = words.iter().map(|word| ((word >> shift) & part.mask()) << part.bit);
                codes.iter_mut().zip(bits).for_each(|(codes, bits)| *codes |= bits);
            }
            bytes.extend_from_slice(&codes);
        }
    }
}
