//! Codes of 1 to 16 bits, one after the other without gaps: integers of any width, 6-bit floats.
//!
//! Code `i` occupies bits `i·n` to `i·n + n − 1` of the packed bytes, lowest bits first; the last byte is filled up
//! with zeros. Four 6-bit codes are three bytes, as OCP MX implementations store them.
//!
//! # Example
//!
//! ```
//! use burn_quant_numerics::packed::bits;
//!
//! let mut packed = [0; 3];
//! bits::pack(&[1u8, 2, 3, 63], 6, &mut packed)?;
//! assert_eq!(packed, [0b10_000001, 0b0011_0000, 0b111111_00]);
//! let mut codes = [0u8; 4];
//! bits::unpack(&packed, 6, &mut codes)?;
//! assert_eq!(codes, [1, 2, 3, 63]);
//! # Ok::<(), burn_quant_numerics::packed::PackError>(())
//! ```

use super::{PackError, check};

/// The bytes that so many codes take.
///
/// # Errors
///
/// [`PackError::Bits`] unless a code has 1 to 16 bits.
pub fn packed_len(codes: usize, bits: u8) -> Result<usize, PackError> {
    if (1..=16).contains(&bits) {
        // eight codes are `bits` whole bytes, so nothing overflows
        Ok(codes / 8 * usize::from(bits) + (codes % 8 * usize::from(bits)).div_ceil(8))
    } else {
        Err(PackError::Bits { found: bits })
    }
}

/// Packs codes; bits above the width are dropped.
///
/// # Errors
///
/// [`PackError::Bits`] and [`PackError::Length`].
pub fn pack<T: Copy + Into<u16>>(codes: &[T], bits: u8, packed: &mut [u8]) -> Result<(), PackError> {
    check("packed codes", packed.len(), packed_len(codes.len(), bits)?)?;
    packed.fill(0);
    for (i, code) in codes.iter().enumerate() {
        let (byte, shift) = place(i, bits);
        let code: u16 = (*code).into();
        let shifted = (u32::from(code) & mask(bits)) << shift;
        // what lies beyond the last byte is zero
        packed[byte..].iter_mut().zip(shifted.to_le_bytes()).for_each(|(packed, part)| *packed |= part);
    }
    Ok(())
}

/// Unpacks codes.
///
/// # Errors
///
/// [`PackError::Bits`], also for a code that its type does not hold, and [`PackError::Length`].
pub fn unpack<T: TryFrom<u16>>(packed: &[u8], bits: u8, codes: &mut [T]) -> Result<(), PackError> {
    check("packed codes", packed.len(), packed_len(codes.len(), bits)?)?;
    for (i, code) in codes.iter_mut().enumerate() {
        let (byte, shift) = place(i, bits);
        let mut word = [0; 4];
        word.iter_mut().zip(&packed[byte..]).for_each(|(word, packed)| *word = *packed);
        let value = ((u32::from_le_bytes(word) >> shift) & mask(bits)) as u16;
        *code = T::try_from(value).map_err(|_| PackError::Bits { found: bits })?;
    }
    Ok(())
}

/// The byte and the bit at which a code starts.
fn place(i: usize, bits: u8) -> (usize, u32) {
    let bits = usize::from(bits);
    let within = i % 8 * bits;
    (i / 8 * bits + within / 8, (within % 8) as u32)
}

fn mask(bits: u8) -> u32 {
    (1 << bits) - 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_of_every_width_and_number_come_back() {
        for bits in 1..=16 {
            for len in 0..40u32 {
                let codes: std::vec::Vec<u16> = (0..len).map(|i| ((i * 40_503 + 11) & mask(bits)) as u16).collect();
                let mut packed = std::vec![0xff; packed_len(codes.len(), bits).unwrap()];
                pack(&codes, bits, &mut packed).unwrap();
                let mut unpacked = std::vec![0u16; codes.len()];
                unpack(&packed, bits, &mut unpacked).unwrap();
                assert_eq!(unpacked, codes, "{len} codes of {bits} bits");
            }
        }
    }

    #[test]
    fn impossible_widths_and_lengths_are_refused() {
        assert_eq!(packed_len(1, 0), Err(PackError::Bits { found: 0 }));
        assert_eq!(packed_len(1, 17), Err(PackError::Bits { found: 17 }));
        let length = PackError::Length { what: "packed codes", expected: 3, found: 4 };
        assert_eq!(unpack(&[0; 4], 6, &mut [0u8; 4]), Err(length));
        assert_eq!(unpack(&[0, 2], 10, &mut [0u8; 1]), Err(PackError::Bits { found: 10 }), "512 in a byte");
    }
}
