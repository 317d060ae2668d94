//! The composition of burn's own ops that defines [`hadamard`](super::hadamard()); never optimised.

use burn::backend::{Backend, Slice, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{FloatDType, Shape, TensorData};

use super::{Direction, Hadamard};

pub(super) fn hadamard<B: Backend>(x: FloatTensor<B>, rotation: Hadamard) -> FloatTensor<B> {
    let (dtype, shape) = (x.dtype(), x.shape());
    let len = shape[rotation.axis];
    let outer: usize = shape[..rotation.axis].iter().product();
    let inner: usize = shape[rotation.axis + 1..].iter().product();
    let mut x = B::float_reshape(B::float_cast(x, FloatDType::F32), Shape::from([outer, len, inner]));
    if rotation.direction == Direction::Forward {
        x = signed::<B>(x, rotation, len);
    }
    let mut half = 1;
    while half < rotation.block {
        // pairs of runs of `half` elements become their sum and their difference
        let pairs = outer * len / (2 * half);
        x = B::float_reshape(x, Shape::from([pairs, 2, half * inner]));
        let part = |from: usize| {
            let all = [Slice::from(0..pairs), Slice::from(from..from + 1), Slice::from(0..half * inner)];
            B::float_slice(x.clone(), &all)
        };
        let (a, b) = (part(0), part(1));
        x = B::float_cat(vec![B::float_add(a.clone(), b.clone()), B::float_sub(a, b)], 1);
        half *= 2;
    }
    x = B::float_reshape(B::float_mul_scalar(x, rotation.norm().into()), Shape::from([outer, len, inner]));
    if rotation.direction == Direction::Inverse {
        x = signed::<B>(x, rotation, len);
    }
    B::float_cast(B::float_reshape(x, shape), dtype.into())
}

fn signed<B: Backend>(x: FloatTensor<B>, rotation: Hadamard, len: usize) -> FloatTensor<B> {
    let Some(signs) = rotation.signs_of(len) else { return x };
    let signs = B::float_from_data(TensorData::new(signs, [1, len, 1]), &x.device());
    B::float_mul(x, signs)
}
