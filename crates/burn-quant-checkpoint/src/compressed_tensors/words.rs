//! Codes without gaps in 32-bit words: row by row, or along the rows.
//!
//! ```text
//! code i of a row has bits i·n to i·n + n − 1 of its words, lowest bits first; a row begins with a word
//! ```
//!
//! Source: compressed-tensors 0.20.0, `pack_to_int32`; AutoGPTQ packs weights alike, 32 codes of 3 bits in 3 words.

use burn_quant_numerics::packed::bits;

/// The words of so many codes; `None` if they are more than a computer has.
pub(crate) fn words(codes: usize, bits: u8) -> Option<usize> {
    Some(codes.checked_mul(usize::from(bits))?.div_ceil(32))
}

/// Unpacks rows of so many codes from little-endian words.
///
/// There must be [`words`] for each of the rows, and at least one code in a row.
pub(crate) fn unpack(packed: &[u8], codes: usize, bits: u8) -> Vec<u8> {
    let row = words(codes, bits).expect("as many words as there are") * 4;
    let used = (codes * usize::from(bits)).div_ceil(8);
    let mut all = vec![0; packed.len() / row * codes];
    for (packed, codes) in packed.chunks_exact(row).zip(all.chunks_exact_mut(codes)) {
        bits::unpack(&packed[..used], bits, codes).expect("codes of at most eight bits, and their bytes");
    }
    all
}

/// Packs rows of so many codes into little-endian words.
///
/// The codes are whole rows, of at least one code.
pub(crate) fn pack(all: &[u8], codes: usize, bits: u8) -> Vec<u8> {
    let row = words(codes, bits).expect("codes in memory are few enough") * 4;
    let used = (codes * usize::from(bits)).div_ceil(8);
    let mut packed = vec![0; all.len() / codes * row];
    for (packed, codes) in packed.chunks_exact_mut(row).zip(all.chunks_exact(codes)) {
        bits::pack(codes, bits, &mut packed[..used]).expect("codes of at most eight bits, and their bytes");
    }
    packed
}

/// Transposes a matrix of elements of `size` bytes with so many columns.
pub(crate) fn transpose(bytes: &[u8], columns: usize, size: usize) -> Vec<u8> {
    let rows = bytes.len() / size / columns;
    let mut transposed = Vec::with_capacity(bytes.len());
    for column in 0..columns {
        (0..rows).for_each(|row| transposed.extend(&bytes[(row * columns + column) * size..][..size]));
    }
    transposed
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_eleventh_code_of_three_bits_lies_in_two_words() {
        let codes = [1, 2, 3, 4, 5, 6, 7, 0, 1, 2, 5];
        let packed = pack(&codes, 11, 3);
        let word = |i: usize| u32::from_le_bytes(packed[i * 4..][..4].try_into().unwrap());
        assert_eq!((packed.len(), word(0) >> 30, word(1)), (8, 0b01, 0b1)); // 5 = 0b101
        assert_eq!(unpack(&packed, 11, 3), codes);
    }

    proptest! {
        #[test]
        fn rows_of_any_length_and_width_come_back(bits in 2u8..=8, codes in 1usize..80, seed: u64) {
            let code = |i: u64| (seed.rotate_left(i as u32) ^ i) as u8 & (255 >> (8 - bits));
            let all: Vec<u8> = (0..3 * codes as u64).map(code).collect();
            let packed = pack(&all, codes, bits);
            prop_assert_eq!(packed.len(), 3 * 4 * (codes * usize::from(bits)).div_ceil(32));
            prop_assert_eq!(unpack(&packed, codes, bits), all);
        }

        #[test]
        fn two_transpositions_are_none(rows in 1usize..9, columns in 1usize..9) {
            let bytes: Vec<u8> = (0..rows * columns * 2).map(|i| i as u8).collect();
            prop_assert_eq!(transpose(&transpose(&bytes, columns, 2), rows, 2), bytes);
        }
    }
}
