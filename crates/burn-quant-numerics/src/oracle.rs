//! What the exhaustive tests compare with: rounding by search, in f64.

/// The index of the point of a sorted grid that is nearest to a magnitude; ties go to the even index.
pub(crate) fn nearest(grid: &[f64], magnitude: f64) -> usize {
    let below = grid.iter().rposition(|&g| g <= magnitude).unwrap();
    match grid.get(below + 1) {
        None => below,
        Some(above) => match (magnitude - grid[below]).partial_cmp(&(above - magnitude)).unwrap() {
            core::cmp::Ordering::Less => below,
            core::cmp::Ordering::Greater => below + 1,
            core::cmp::Ordering::Equal => below + below % 2,
        },
    }
}

/// `sin(0.1·(c+1)²)`, doubled for the first 16 and quartered for the last 16: the packing vector of the reference.
pub(crate) fn packing_vector() -> [f32; 32] {
    core::array::from_fn(|c| {
        let x = std::primitive::f64::sin(0.1 * ((c + 1) * (c + 1)) as f64);
        (x * if c < 16 { 2.0 } else { 0.25 }) as f32
    })
}

/// The bytes of a hexadecimal number.
pub(crate) fn hex<const N: usize>(text: &str) -> [u8; N] {
    core::array::from_fn(|i| u8::from_str_radix(&text[2 * i..2 * i + 2], 16).unwrap())
}
