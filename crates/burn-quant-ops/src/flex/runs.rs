//! Consecutive elements and the groups they belong to.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::groups::Segment;

/// The groups of consecutive elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    /// All belong to this group.
    Shared(usize),
    /// The first belongs to this group, the next to the next, and so on.
    Consecutive(usize),
}

/// Calls `f` with the runs that cover elements `first..first + len`: their place relative to `first`, and their groups.
///
/// `segments` is the division of the tensor in memory order. The cost is one division per row of the innermost segment
/// and one call per block; `f` must be inlined.
#[inline(always)]
pub(crate) fn walk(segments: &[Segment], first: usize, len: usize, mut f: impl FnMut(Range<usize>, Run)) {
    let (inner, outer) = segments.split_last().expect("a division has at least one segment");
    let (mut position, end) = (first, first + len);
    while position < end {
        let (row, start) = (position / inner.len, position % inner.len);
        let stop = inner.len.min(start + (end - position));
        let base = outer_group(outer, row);
        let place = |column: usize| column - start + (position - first);
        if inner.block == 1 && inner.stride == 1 {
            f(place(start)..place(stop), Run::Consecutive(base + start));
        } else {
            let (mut column, mut block) = (start, start / inner.block);
            while column < stop {
                let next = stop.min((block + 1) * inner.block);
                f(place(column)..place(next), Run::Shared(base + block * inner.stride));
                (column, block) = (next, block + 1);
            }
        }
        position += stop - start;
    }
}

#[inline(always)]
fn outer_group(outer: &[Segment], mut row: usize) -> usize {
    let mut group = 0;
    for segment in outer.iter().rev() {
        group += row % segment.len / segment.block * segment.stride;
        row /= segment.len;
    }
    group
}

/// Elements that are computed before the first of them is written. Several vectors at a time keep more of the memory
/// busy, and a compiler that sees a value kept or replaced does not make a masked store of it, which takes longer.
const LANES: usize = 32;

/// Applies `f` to every element with the factors at the same place, in place.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // one place in several slices
pub(crate) fn apply<const N: usize>(data: &mut [f32], factors: [&[f32]; N], f: impl Fn(f32, [f32; N]) -> f32) {
    let factors = factors.map(|factors| &factors[..data.len()]);
    let whole = data.len() / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        let x: &mut [f32; LANES] = (&mut data[start..start + LANES]).try_into().expect("as many lanes");
        let factors: [&[f32; LANES]; N] =
            factors.map(|factors| factors[start..start + LANES].try_into().expect("as many lanes"));
        let mut y = [0.0; LANES];
        for i in 0..LANES {
            y[i] = f(x[i], factors.map(|factors| factors[i]));
        }
        *x = y;
    }
    for i in whole..data.len() {
        data[i] = f(data[i], factors.map(|factors| factors[i]));
    }
}

/// The same into memory that is not initialised yet: every element of `output` is written.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // one place in several slices
pub(crate) fn apply_into<const N: usize>(
    source: &[f32],
    output: &mut [MaybeUninit<f32>],
    factors: [&[f32]; N],
    f: impl Fn(f32, [f32; N]) -> f32,
) {
    let source = &source[..output.len()];
    let factors = factors.map(|factors| &factors[..output.len()]);
    let whole = output.len() / LANES * LANES;
    for start in (0..whole).step_by(LANES) {
        let source: &[f32; LANES] = source[start..start + LANES].try_into().expect("as many lanes");
        let factors: [&[f32; LANES]; N] =
            factors.map(|factors| factors[start..start + LANES].try_into().expect("as many lanes"));
        let mut y = [0.0; LANES];
        for i in 0..LANES {
            y[i] = f(source[i], factors.map(|factors| factors[i]));
        }
        for i in 0..LANES {
            output[start + i].write(y[i]);
        }
    }
    for i in whole..output.len() {
        output[i].write(f(source[i], factors.map(|factors| factors[i])));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Groups;

    #[test]
    fn runs_start_anywhere_and_end_at_rows_and_blocks() {
        let ragged = Groups::blocks(&[2, 10], 1, 4).segments(); // blocks of 4, 4 and 2
        let mut runs = Vec::new();
        walk(&ragged, 3, 10, |place, run| runs.push((place, run)));
        let shared = [(0..1, 0), (1..5, 1), (5..7, 2), (7..10, 3)];
        assert_eq!(runs, shared.map(|(place, group)| (place, Run::Shared(group))));

        let columns = Groups::per_channel(&[2, 5], 1).segments();
        let mut runs = Vec::new();
        walk(&columns, 3, 5, |place, run| runs.push((place, run)));
        assert_eq!(runs, [(0..2, Run::Consecutive(3)), (2..5, Run::Consecutive(0))]);
    }
}
