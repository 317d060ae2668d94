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
