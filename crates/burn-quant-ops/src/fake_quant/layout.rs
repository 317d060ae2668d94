//! Where the elements of groups lie, for kernels that find ranges in the data.

use crate::groups::Segment;

/// The layouts in which a group can be read once and written once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Layout {
    /// Side by side: rows of `row` elements, each cut into blocks of `block`.
    Runs { row: usize, block: usize },
    /// In columns: matrices of `rows` by `columns`, each column cut into blocks of `block` rows.
    Columns { rows: usize, columns: usize, block: usize },
    /// Anywhere.
    Scattered,
}

impl Layout {
    /// The layout of groups that are divided as `segments` says.
    pub(super) fn of(segments: &[Segment]) -> Self {
        let Some((last, outer)) = segments.split_last() else { return Layout::Scattered };
        let each = |segments: &[Segment]| segments.iter().all(|s| s.block == 1);
        if each(outer) && last.block > 1 {
            let whole = last.len.is_multiple_of(last.block) || outer.is_empty();
            return Layout::Runs { row: if whole { last.block } else { last.len }, block: last.block };
        }
        match outer.split_last() {
            Some((blocks, outer)) if last.block == 1 && blocks.block > 1 && each(outer) => {
                Layout::Columns { rows: blocks.len, columns: last.len, block: blocks.block }
            }
            _ => Layout::Scattered,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AxisGroups, Groups};

    #[test]
    fn blocks_and_tokens_are_runs_and_blocks_of_weights_columns() {
        let shape = [6, 4, 10];
        let layout = |groups: Groups| Layout::of(&groups.segments());
        assert_eq!(layout(Groups::per_tensor(&shape)), Layout::Runs { row: 240, block: 240 });
        assert_eq!(layout(Groups::blocks(&shape, 2, 5)), Layout::Runs { row: 5, block: 5 });
        assert_eq!(layout(Groups::blocks(&shape, 2, 4)), Layout::Runs { row: 10, block: 4 }, "ragged");
        assert_eq!(layout(Groups::per_channel(&shape, 0)), Layout::Runs { row: 40, block: 40 });
        assert_eq!(layout(Groups::blocks(&shape, 1, 3)), Layout::Columns { rows: 4, columns: 10, block: 3 });
        assert_eq!(layout(Groups::per_channel(&shape, 2)), Layout::Columns { rows: 24, columns: 10, block: 24 });
        assert_eq!(layout(Groups::per_channel(&shape, 1)), Layout::Scattered);
        let squares = [AxisGroups::Whole, AxisGroups::Blocks(2), AxisGroups::Blocks(2)];
        assert_eq!(layout(Groups::new(&shape, &squares)), Layout::Scattered);
    }
}
