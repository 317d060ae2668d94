//! The composition of burn's own ops that defines [`group_amax`](super::group_amax()); never optimised.

use burn::backend::{Backend, TensorMetadata, get_or_init_device_settings, tensor::FloatTensor};
use burn::tensor::{FloatDType, Shape};

use crate::Groups;
use crate::groups::Segment;

pub(crate) fn group_amax<B: Backend>(x: FloatTensor<B>, groups: &Groups) -> FloatTensor<B> {
    let mut x = B::float_abs(B::float_cast(x, FloatDType::F32));
    // maxima ignore NaN on some devices: an infinity survives on all
    let bools = get_or_init_device_settings::<B>(&x.device()).bool_dtype;
    let nan = B::float_is_nan(x.clone(), bools);
    x = B::float_mask_fill(x, nan, f32::INFINITY.into());
    reduce::<B>(x, groups, B::float_max_dim)
}

/// Reduces each group with `along`, which must not notice zeros: ragged blocks are padded with them.
pub(crate) fn reduce<B: Backend>(
    mut x: FloatTensor<B>,
    groups: &Groups,
    along: impl Fn(FloatTensor<B>, usize) -> FloatTensor<B>,
) -> FloatTensor<B> {
    let segments = groups.segments();
    x = B::float_reshape(x, Shape::from(segments.iter().map(|s| s.len).collect::<Vec<_>>()));
    for (axis, segment) in segments.iter().enumerate() {
        x = pad::<B>(x, axis, segment);
    }
    let boxes: Vec<usize> = segments.iter().flat_map(|s| [s.count(), s.block]).collect();
    x = B::float_reshape(x, Shape::from(boxes));
    for axis in 0..segments.len() {
        x = along(x, 2 * axis + 1);
    }
    B::float_reshape(x, Shape::from([groups.len()]))
}

/// Appends zeros to complete the last block.
fn pad<B: Backend>(x: FloatTensor<B>, axis: usize, segment: &Segment) -> FloatTensor<B> {
    let missing = segment.count() * segment.block - segment.len;
    if missing == 0 {
        return x;
    }
    let mut shape = x.shape();
    shape[axis] = missing;
    let zeros = B::float_zeros(shape, &x.device(), FloatDType::F32);
    B::float_cat(vec![x, zeros], axis)
}
