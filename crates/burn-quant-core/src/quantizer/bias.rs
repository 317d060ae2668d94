//! The bias of an affine quantizer, measured.
//!
//! ```text
//! mean      b = Σ x / n
//! max_min   b = (max x + min x) / 2        over the elements that share a bias, in f32
//! ```
//!
//! Source: ModelOpt 0.47, `BiasCalibrator`.

use burn::tensor::{DType, Tensor, TensorData};
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

/// Reduces the axes that are not kept, or each of their blocks: those of the groups of a transposed convolution.
fn reduce<const D: usize>(x: Tensor<D>, groups: &Groups, f: impl Fn(Tensor<D>, usize) -> Tensor<D>) -> Tensor<D> {
    let axes = groups.counts().iter().zip(groups.shape()).enumerate();
    axes.filter(|(_, (count, len))| count != len).fold(x, |x, (axis, (count, len))| {
        let size = groups.size(axis);
        let block = |i: usize| f(x.clone().narrow(axis, i * size, size.min(len - i * size)), axis);
        match count {
            1 => f(x, axis),
            count => Tensor::cat((0..*count).map(block).collect(), axis),
        }
    })
}

/// `x − bias`, in the dtype of `x`.
pub(crate) fn subtract<const D: usize>(x: Tensor<D>, bias: Tensor<1>, groups: &Groups) -> Tensor<D> {
    let shape: [usize; D] = groups.counts().try_into().expect("groups of a tensor have its rank");
    let dtype = x.dtype();
    let bias =
        shape.iter().zip(groups.shape()).enumerate().fold(
            bias.reshape(shape),
            |bias, (axis, (count, len))| match *count == 1 || count == len {
                true => bias,
                false => {
                    let blocks: Vec<i64> = (0..*len).map(|i| (i / groups.size(axis)) as i64).collect();
                    let device = bias.device();
                    bias.select(axis, Tensor::from_data(TensorData::new(blocks, [*len]), &device))
                }
            },
        );
    x - bias.cast(dtype)
}
