//! How codes and scales are stored: one layout, one file.
//!
//! | layout | codes | scales |
//! |---|---|---|
//! | [`int8`] | a byte each | `amax / 127`, f32 |
//! | [`fp8`] | an E4M3 byte each | `amax / 448`, f32 |
//! | [`int4`] | two a byte, the first in the high nibble, offset by 8 | `7 / amax` per block, f32 |
//! | [`nf4`] | two a byte, high nibble first | amax per block, f32 or [doubly quantized](nf4::DoubleScales) |
//! | [`nvfp4`] | two a byte, the first in the low nibble, sign in the highest bit | E4M3 per block, f32 per tensor |
//! | [`mx`] | FP8 and INT8 a byte each, FP4 as above, FP6 as [`bits`] | E8M0 per block |
//! | [`bits`] | any width, lowest bits first | |
//! | [`Tiles`] | any width up to 8, as products read them | as the format has them |
//!
//! These are the layouts of ModelOpt 0.47 where it has one. Every function works on slices and checks their lengths;
//! blocks are consecutive elements, and the last may be shorter, so a row that is not a whole number of blocks is
//! packed row by row. What is packed rounds as fake quantization does, except that [`int8`], [`int4`] and [`fp8`]
//! divide where fake quantization multiplies, or the other way round, since that is how their scales are stored, and
//! that static [`nvfp4`] scales are rounded once less: pack values that are fake quantized already, and the codes are
//! the same, and values within two units in the last place.

pub mod bits;
pub mod fp8;
pub mod int4;
pub mod int8;
pub mod mx;
pub mod nf4;
mod nibbles;
pub mod nvfp4;
mod tiles;

pub use tiles::{PANEL, Part, STEP, Tiles};

/// Why a slice could not be packed or unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PackError {
    /// A slice has another length than the others call for.
    Length {
        /// Which slice.
        what: &'static str,
        /// The length it should have.
        expected: usize,
        /// The length it has.
        found: usize,
    },
    /// Two codes share a byte, and there is an odd number of them.
    Odd {
        /// Elements.
        found: usize,
    },
    /// A block of no elements.
    EmptyBlock,
    /// A code of no bits, or of more than there is room for.
    Bits {
        /// The width.
        found: u8,
    },
    /// An element format that the layout does not have.
    Format {
        /// The format.
        found: crate::Format,
    },
    /// Elements that are not integers in units of a power of two, in a product of integers.
    Inexact,
}

impl core::fmt::Display for PackError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            PackError::Length { what, expected, found } => {
                write!(f, "{what}: expected a slice of {expected} elements, found {found}")
            }
            PackError::Odd { found } => write!(f, "two codes share a byte: pad the {found} elements to an even number"),
            PackError::EmptyBlock => f.write_str("a block holds at least one element, found size 0"),
            PackError::Bits { found } => write!(f, "a packed code has 1 to 16 bits and fits its type, found {found}"),
            PackError::Inexact => f.write_str("a product of integers needs elements that are integers in a unit"),
            PackError::Format { found } => {
                write!(f, "packed codes have at most 8 bits, and those of NF4 scales in f32: found {found}")
            }
        }
    }
}

impl core::error::Error for PackError {}

/// A slice of this length.
pub(crate) fn check(what: &'static str, found: usize, expected: usize) -> Result<(), PackError> {
    if found == expected { Ok(()) } else { Err(PackError::Length { what, expected, found }) }
}

/// The number of blocks of so many elements.
fn blocks(elements: usize, block: usize) -> Result<usize, PackError> {
    if block == 0 { Err(PackError::EmptyBlock) } else { Ok(elements.div_ceil(block)) }
}

/// The number of bytes of two codes each.
fn pairs(elements: usize) -> Result<usize, PackError> {
    if elements.is_multiple_of(2) { Ok(elements / 2) } else { Err(PackError::Odd { found: elements }) }
}
