//! The value of a group for the elements of a vector: ranges and biases.

use cubecl::prelude::*;
use cubecl::std::FastDivmod;
use cubecl::std::tensor::layout::linear::LinearView;

use crate::Groups;
use crate::groups::Segment;

/// How a vector of elements finds its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Read {
    /// There is one value.
    Single,
    /// All lanes of a vector belong to one group.
    PerVector,
    /// Each lane has its own group.
    PerLane,
}

impl Read {
    pub(super) fn of(groups: &Groups, vector: usize) -> Self {
        let segments = groups.segments();
        let inner = segments.last().expect("a division has at least one segment");
        match groups.len() {
            1 => Read::Single,
            _ if inner.len.is_multiple_of(vector) && inner.block.is_multiple_of(vector) => Read::PerVector,
            _ => Read::PerLane,
        }
    }
}

/// The division of a tensor, as kernels compute with it.
#[derive(CubeType, CubeLaunch)]
pub(super) struct Division {
    lens: Sequence<FastDivmod<usize>>,
    blocks: Sequence<FastDivmod<usize>>,
    strides: Sequence<usize>,
}

/// The arguments of a division.
pub(super) fn division(groups: Option<&Groups>) -> DivisionLaunch {
    let (mut lens, mut blocks, mut strides) = (SequenceArg::new(), SequenceArg::new(), SequenceArg::new());
    for Segment { len, block, stride } in groups.map(Groups::segments).unwrap_or_default() {
        lens.push(len);
        blocks.push(block);
        strides.push(stride);
    }
    DivisionLaunch::new(lens, blocks, strides)
}

/// The value of each element of the vector at a position.
#[cube]
pub(super) fn value_of<N: Size>(
    values: &LinearView<'_, f32>,
    division: &Division,
    position: usize,
    #[comptime] read: Read,
) -> Vector<f32, N> {
    let first = position * N::value();
    match read {
        Read::Single => Vector::new(values.read(0)),
        Read::PerVector => Vector::new(values.read(group_of(first, division))),
        Read::PerLane => {
            let mut lanes = Vector::<f32, N>::empty();
            #[unroll]
            for lane in 0..N::value() {
                lanes.insert(lane, values.read(group_of(first + lane, division)));
            }
            lanes
        }
    }
}

#[cube]
fn group_of(element: usize, division: &Division) -> usize {
    let rank = division.lens.len().comptime();
    let mut rest = element;
    let mut group = 0usize;
    #[unroll]
    for i in 0..rank {
        let segment = comptime![rank - i - 1];
        let (outer, index) = division.lens[segment].div_mod(rest);
        let (block, _within) = division.blocks[segment].div_mod(index);
        group += block * division.strides[segment];
        rest = outer;
    }
    group
}
