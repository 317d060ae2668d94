//! Which elements of a tensor share an amax.

/// How one axis of a tensor is divided among groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum AxisGroups {
    /// The whole axis belongs to one group: it is reduced.
    Whole,
    /// Every index is a group of its own: it is kept.
    Each,
    /// Runs of this many indices; the last may be shorter.
    Blocks(usize),
}

/// The division of a tensor's elements into groups with one amax each.
///
/// Groups are boxes: the product of a division of every axis. They are numbered row-major over the divisions, so the
/// amax of a block-wise quantized `[rows, cols]` matrix reads like the matrix of its blocks.
///
/// # Example
///
/// ```
/// use burn_quant_ops::{AxisGroups, Groups};
///
/// // a [4, 10] weight in blocks of 4 along the last axis: 3 blocks a row, the last with 2 elements
/// let groups = Groups::blocks(&[4, 10], 1, 4);
/// assert_eq!((groups.len(), groups.counts()), (12, &[4, 3][..]));
/// assert_eq!(groups, Groups::new(&[4, 10], &[AxisGroups::Each, AxisGroups::Blocks(4)]));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Groups {
    shape: Vec<usize>,
    /// Elements of a group along each axis, at least 1.
    sizes: Vec<usize>,
    /// Groups along each axis.
    counts: Vec<usize>,
}

/// A run of axes, outer to inner, that can be treated as one: `index / block * stride` is its share of a group's
/// number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) len: usize,
    pub(crate) block: usize,
    pub(crate) stride: usize,
}

impl Segment {
    /// Groups along this segment.
    pub(crate) fn count(&self) -> usize {
        self.len.div_ceil(self.block)
    }
}

impl Groups {
    /// Groups that divide each axis of `shape` as `axes` says.
    ///
    /// # Panics
    ///
    /// If the two differ in length, or a block has size 0.
    pub fn new(shape: &[usize], axes: &[AxisGroups]) -> Self {
        assert_eq!(shape.len(), axes.len(), "Groups: one division per axis, shape {shape:?}, divisions {axes:?}");
        let sizes: Vec<usize> = shape
            .iter()
            .zip(axes)
            .map(|(&len, axis)| match *axis {
                AxisGroups::Whole => len.max(1),
                AxisGroups::Each => 1,
                AxisGroups::Blocks(0) => panic!("Groups: a block holds at least one element"),
                AxisGroups::Blocks(size) => size.min(len.max(1)),
            })
            .collect();
        let counts = shape.iter().zip(&sizes).map(|(len, size)| len.max(&1).div_ceil(*size)).collect();
        Self { shape: shape.to_vec(), sizes, counts }
    }

    /// Creates one group of all elements.
    ///
    /// All elements share it: amax has one element.
    pub fn per_tensor(shape: &[usize]) -> Self {
        Self::new(shape, &vec![AxisGroups::Whole; shape.len()])
    }

    /// One group per index of `axis`.
    ///
    /// # Panics
    ///
    /// If the tensor has no such axis.
    pub fn per_channel(shape: &[usize], axis: usize) -> Self {
        let mut axes = vec![AxisGroups::Whole; shape.len()];
        axes[axis] = AxisGroups::Each;
        Self::new(shape, &axes)
    }

    /// Blocks of `size` elements along `axis`, separate for every index of the other axes.
    ///
    /// # Panics
    ///
    /// If the tensor has no such axis, or `size` is 0.
    pub fn blocks(shape: &[usize], axis: usize, size: usize) -> Self {
        let mut axes = vec![AxisGroups::Each; shape.len()];
        axes[axis] = AxisGroups::Blocks(size);
        Self::new(shape, &axes)
    }

    /// Returns the number of groups.
    ///
    /// The product of [`counts`](Groups::counts).
    #[allow(clippy::len_without_is_empty)] // there is always at least one group
    pub fn len(&self) -> usize {
        self.counts.iter().product()
    }

    /// Returns the shape of the tensor that is divided.
    ///
    /// Tensors of another shape need groups of their own.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the number of groups along each axis.
    ///
    /// Amax has as many elements, in row-major order.
    pub fn counts(&self) -> &[usize] {
        &self.counts
    }

    /// Returns the elements of a group along an axis; the last group may have fewer.
    ///
    /// # Panics
    ///
    /// If there is no such axis.
    pub fn size(&self, axis: usize) -> usize {
        self.sizes[axis]
    }

    /// Returns the group of an element, by its row-major number.
    ///
    /// It is the place of the element's range in amax.
    pub fn of_element(&self, element: usize) -> usize {
        let (mut rest, mut group, mut stride) = (element, 0, 1);
        for axis in (0..self.shape.len()).rev() {
            group += rest % self.shape[axis] / self.sizes[axis] * stride;
            rest /= self.shape[axis];
            stride *= self.counts[axis];
        }
        group
    }

    /// The axes in row-major order, merged where the numbering allows.
    pub(crate) fn segments(&self) -> Vec<Segment> {
        self.segments_in_order(0..self.shape.len())
    }

    /// The axes in the given order, outer to inner, merged where the numbering allows.
    pub(crate) fn segments_in_order(&self, order: impl IntoIterator<Item = usize>) -> Vec<Segment> {
        let mut strides = vec![1; self.counts.len()];
        for axis in (1..self.counts.len()).rev() {
            strides[axis - 1] = strides[axis] * self.counts[axis];
        }
        let mut merged: Vec<Segment> = Vec::new();
        for axis in order {
            let (len, block, stride) = (self.shape[axis], self.sizes[axis], strides[axis]);
            if len == 1 {
                continue;
            }
            match merged.last_mut() {
                // the inner axis never changes the group
                Some(outer) if block == len => {
                    outer.len *= len;
                    outer.block *= len;
                }
                // the outer axis counts whole sets of inner blocks
                Some(outer) if outer.block == 1 && len % block == 0 && outer.stride == stride * (len / block) => {
                    *outer = Segment { len: outer.len * len, block, stride };
                }
                _ => merged.push(Segment { len, block, stride }),
            }
        }
        if merged.is_empty() {
            merged.push(Segment { len: 1, block: 1, stride: 0 });
        }
        merged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(len: usize, block: usize, stride: usize) -> Segment {
        Segment { len, block, stride }
    }

    #[test]
    fn the_usual_groups_merge_into_one_or_two_segments() {
        let shape = [6, 4, 10];
        assert_eq!(Groups::per_tensor(&shape).segments(), [segment(240, 240, 1 /* one group */)]);
        assert_eq!(Groups::per_channel(&shape, 0).segments(), [segment(240, 40, 1)]);
        assert_eq!(Groups::per_channel(&shape, 1).segments(), [segment(6, 6, 4), segment(40, 10, 1)]);
        assert_eq!(Groups::per_channel(&shape, 2).segments(), [segment(24, 24, 10), segment(10, 1, 1)]);
        assert_eq!(Groups::blocks(&shape, 2, 5).segments(), [segment(240, 5, 1)]);
        assert_eq!(Groups::blocks(&shape, 2, 4).segments(), [segment(24, 1, 3), segment(10, 4, 1)], "ragged");
        assert_eq!(Groups::blocks(&[8, 3], 0, 4).segments(), [segment(8, 4, 3), segment(3, 1, 1)]);
    }

    #[test]
    fn every_order_of_axes_numbers_the_same_groups() {
        let shape = [3, 4, 5];
        let divisions = [AxisGroups::Whole, AxisGroups::Each, AxisGroups::Blocks(2), AxisGroups::Blocks(4)];
        for a in divisions {
            for b in divisions {
                for c in divisions {
                    let groups = Groups::new(&shape, &[a, b, c]);
                    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
                        check_numbering(&groups, &order);
                    }
                }
            }
        }
    }

    fn check_numbering(groups: &Groups, order: &[usize]) {
        let segments = groups.segments_in_order(order.iter().copied());
        let lens: Vec<usize> = order.iter().map(|&axis| groups.shape[axis]).collect();
        for flat in 0..groups.shape.iter().product() {
            let mut index = vec![0; order.len()];
            let mut rest = flat;
            for (position, len) in lens.iter().enumerate().rev() {
                index[order[position]] = rest % len;
                rest /= len;
            }
            let expected =
                (0..index.len()).fold(0, |n, axis| n * groups.counts[axis] + index[axis] / groups.sizes[axis]);
            let (mut rest, mut found) = (flat, 0);
            for s in segments.iter().rev() {
                found += rest % s.len / s.block * s.stride;
                rest /= s.len;
            }
            assert_eq!(found, expected, "{groups:?} in order {order:?}, element {flat}");
            if order == [0, 1, 2] {
                assert_eq!(groups.of_element(flat), expected, "{groups:?}, element {flat}");
            }
        }
    }
}
