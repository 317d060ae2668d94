//! The largest magnitude of each group: what `max` calibration and dynamic ranges need.
//!
//! ```text
//! amax[g] = max |x_i| over the elements i of group g
//! ```
//!
//! * `reference` the composition of burn's own ops; runs on the GPU backends, whose reductions are fast
//! * `flex` the CPU kernel: one read of the data, without a copy

#[cfg(feature = "capture")]
pub(crate) mod capture;
#[cfg(feature = "flex")]
mod flex;
pub(crate) mod reference;

use burn::backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor};
#[cfg(feature = "fusion")]
use burn::tensor::Shape;
use burn::tensor::{DType, Tensor};

#[cfg(feature = "flex")]
pub(crate) use flex::reduce;

use crate::Groups;
use crate::backend::has_kernel;

/// The backend side of [`group_amax()`]; call that.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "cube"),
    Capture: cfg(feature = "capture"),
    Fusion: cfg(feature = "fusion")
)]
pub trait GroupAmaxOps: Backend {
    /// The largest magnitude of each group, f32 `[groups]`.
    #[allow(unused_variables)] // by the generated dispatch of a build without backends
    #[fusion(dtype = DType::F32, shape = Shape::from([groups.len()]))]
    fn group_amax(x: FloatTensor<Self>, groups: Groups) -> FloatTensor<Self> {
        reference::group_amax::<Self>(x, &groups)
    }
}

#[cfg(feature = "cube")]
impl GroupAmaxOps for burn_cubecl::CubeBackend {}

/// The largest magnitude of each group of elements, without a gradient.
///
/// `amax[g] = max |x_i|`, exact in any dtype. A group with a NaN or an infinity gives NaN or infinity, so one look at
/// the result finds bad data.
///
/// # Shapes and units
///
/// `x`: the shape that `groups` divides; the result: f32 `[groups.len()]`, on the device of `x`, outside autodiff.
///
/// # Panics
///
/// If `x` has another shape.
///
/// # Source
///
/// ModelOpt 0.47, `reduce_amax` and `reduce_block_amax`; a ragged last block counts its own elements.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Tensor};
/// use burn_quant_ops::{Groups, group_amax};
///
/// let x = Tensor::<2>::from_data([[-1.0, 0.5, 0.25], [8.0, -9.0, 0.0]], &Device::flex());
/// let amax = group_amax(x, &Groups::blocks(&[2, 3], 1, 2));
/// assert_eq!(amax.into_data().try_into_vec::<f32>().unwrap(), [1.0, 0.25, 9.0, 0.0]);
/// # }
/// ```
pub fn group_amax<const D: usize>(x: Tensor<D>, groups: &Groups) -> Tensor<1> {
    let shape = x.shape();
    assert_eq!(shape.as_slice(), groups.shape(), "group_amax: x has another shape than its groups");
    let x = x.without_autodiff();
    if shape.num_elements() == 0 {
        return Tensor::zeros([groups.len()], (&x.device(), DType::F32));
    }
    let x = x.into_dispatch();
    Tensor::from_dispatch(if has_kernel(&x.kind) {
        <Dispatch as GroupAmaxOps>::group_amax(x, groups.clone())
    } else {
        reference::group_amax::<Dispatch>(x, groups)
    })
}
