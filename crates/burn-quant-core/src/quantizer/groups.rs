//! Sums over groups, and values of groups spread over their elements, in any layout.

use burn::tensor::Tensor;
use burn_quant_ops::Groups;

/// Sums the elements of each group, `[groups]`.
///
/// `x` has the elements that the groups divide, in any shape: [`AnyTensor::flat`] will do.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Tensor};
/// use burn_quant::calibrate::group_sums;
/// use burn_quant::ops::Groups;
///
/// let x = Tensor::<2>::from_data([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], &Device::flex());
/// let sums = group_sums(x, &Groups::per_channel(&[2, 3], 0));
/// assert_eq!(sums.into_data().try_to_vec::<f32>().unwrap(), [6.0, 15.0]);
/// # }
/// ```
///
/// [`AnyTensor::flat`]: crate::quantizer::AnyTensor::flat
pub fn group_sums<const D: usize>(x: Tensor<D>, groups: &Groups) -> Tensor<1> {
    let elements = x.dims().iter().product::<usize>();
    let flat: Tensor<1> = x.reshape([elements]);
    axes(groups).fold(flat, |x, axis| {
        if axis.count == axis.len {
            return x;
        }
        let x: Tensor<3> = x.reshape([axis.before, axis.len, axis.after]);
        let padded = axis.count * axis.block;
        let x = match padded - axis.len {
            0 => x,
            missing => {
                let zeros = Tensor::zeros([axis.before, missing, axis.after], (&x.device(), x.dtype()));
                Tensor::cat(vec![x, zeros], 1)
            }
        };
        let x: Tensor<4> = x.reshape([axis.before, axis.count, axis.block, axis.after]);
        x.sum_dim(2).reshape([axis.before * axis.count * axis.after])
    })
}

/// Gives each element the value of its group, as a tensor of the shape that the groups divide.
///
/// # Panics
///
/// If the rank is another.
pub fn spread_over_groups<const D: usize>(values: Tensor<1>, groups: &Groups) -> Tensor<D> {
    let shape: [usize; D] = groups.shape().try_into().expect("groups of a tensor of this rank");
    // the last axis first: what is after an axis has its full length already
    let axes: Vec<Axis> = axes(groups).collect();
    let mut after = 1;
    let spread = axes.iter().rev().fold(values, |x, axis| {
        let before = x.dims()[0] / (axis.count * after);
        let x: Tensor<4> = x.reshape([before, axis.count, 1, after]);
        let x: Tensor<3> =
            x.expand([before, axis.count, axis.block, after]).reshape([before, axis.count * axis.block, after]);
        let x = x.narrow(1, 0, axis.len).reshape([before * axis.len * after]);
        after *= axis.len;
        x
    });
    spread.reshape(shape)
}

/// One axis of a tensor that is divided into groups.
struct Axis {
    len: usize,
    count: usize,
    block: usize,
    /// Elements of the axes before it, reduced already.
    before: usize,
    /// Elements of the axes after it.
    after: usize,
}

fn axes(groups: &Groups) -> impl Iterator<Item = Axis> + '_ {
    let (shape, counts) = (groups.shape(), groups.counts());
    (0..shape.len()).map(move |axis| {
        let stride: usize = shape[axis + 1..].iter().product();
        let (len, count) = (shape[axis], counts[axis]);
        let first = groups.of_element(0);
        let block =
            if count == 1 { len } else { (1..len).find(|i| groups.of_element(i * stride) != first).unwrap_or(len) };
        Axis { len, count, block, before: counts[..axis].iter().product(), after: stride }
    })
}
