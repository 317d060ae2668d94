//! Two codes a byte.

/// Which nibble holds the first of two codes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum First {
    High,
    Low,
}

/// Packs the codes that `code` gives, two a byte.
pub(super) fn pack(first: First, packed: &mut [u8], mut code: impl FnMut(usize) -> u8) {
    for (i, byte) in packed.iter_mut().enumerate() {
        let (a, b) = (code(2 * i), code(2 * i + 1));
        *byte = if first == First::High { (a << 4) | (b & 15) } else { (a & 15) | (b << 4) };
    }
}

/// The code at an index.
pub(super) fn get(first: First, packed: &[u8], i: usize) -> u8 {
    let high = (first == First::High) == i.is_multiple_of(2);
    if high { packed[i / 2] >> 4 } else { packed[i / 2] & 15 }
}
