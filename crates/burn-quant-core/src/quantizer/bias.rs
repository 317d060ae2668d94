//! The bias of an affine quantizer, measured.
//!
//! ```text
//! mean      b = Σ x / n
//! max_min   b = (max x + min x) / 2        over the elements that share a bias, in f32
//! ```
//!
//! Source: ModelOpt 0.47, `BiasCalibrator`.

use burn::tensor::{DType, Tensor};
use burn_quant_ops::Groups;

use crate::config::BiasMethod;

/// The bias of each group of a tensor, f32 `[groups]`.
pub fn measure<const D: usize>(x: Tensor<D>, groups: &Groups, method: BiasMethod) -> Tensor<1> {
    let bias = match method {
        BiasMethod::Mean => reduce(x.cast(DType::F32), groups, |x, axis| x.mean_dim(axis)),
        BiasMethod::MaxMin => (highest(x.clone(), groups) + lowest(x, groups)) * 0.5,
    };
    bias.reshape([groups.len()])
}

/// The highest value of each group, as a tensor of the same rank.
pub fn highest<const D: usize>(x: Tensor<D>, groups: &Groups) -> Tensor<D> {
    reduce(x, groups, |x, axis| x.max_dim(axis)).cast(DType::F32)
}

/// The lowest value of each group, as a tensor of the same rank.
pub fn lowest<const D: usize>(x: Tensor<D>, groups: &Groups) -> Tensor<D> {
    reduce(x, groups, |x, axis| x.min_dim(axis)).cast(DType::F32)
}

/// Reduces the axes that are not kept; a bias has no blocks.
fn reduce<const D: usize>(x: Tensor<D>, groups: &Groups, f: impl Fn(Tensor<D>, usize) -> Tensor<D>) -> Tensor<D> {
    let kept = groups.counts().iter().zip(groups.shape()).map(|(count, len)| count == len);
    kept.enumerate().filter(|(_, kept)| !kept).fold(x, |x, (axis, _)| f(x, axis))
}

/// `x − bias`, in the dtype of `x`.
pub(crate) fn subtract<const D: usize>(x: Tensor<D>, bias: Tensor<1>, groups: &Groups) -> Tensor<D> {
    let shape: [usize; D] = groups.counts().try_into().expect("groups of a tensor have its rank");
    let dtype = x.dtype();
    x - bias.reshape(shape).cast(dtype)
}
