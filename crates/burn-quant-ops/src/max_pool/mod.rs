//! The largest value of each window, without its place.
//!
//! burn's CPU backend finds the place of each maximum, which gradients take, in the forward without gradients too: the
//! pools of a packed network then take longer than its convolutions. `flex` finds values alone. Elsewhere, and under
//! autodiff, burn's own op runs; the result is the same, bit for bit.

#[cfg(feature = "flex")]
mod flex;

use burn::tensor::Tensor;
use burn::tensor::module::max_pool2d as burns;
use burn::tensor::ops::MaxPoolOptions;
#[cfg(feature = "flex")]
use burn::{
    backend::tensor::FloatTensor,
    backend::{Backend, Dispatch, backend_extension},
    tensor::DType,
};

/// The backend side of [`max_pool2d()`]; call that.
#[cfg(feature = "flex")]
#[backend_extension(Flex: cfg(feature = "flex"))]
trait MaxPoolOps: Backend {
    /// The maxima of f32 `[batch, channels, height, width]`; windows fit into the padded image.
    fn max_pool(x: FloatTensor<Self>, options: MaxPoolOptions<2>) -> FloatTensor<Self>;
}

/// Takes the largest value of each window of an image.
///
/// `y = max x` over the elements of a window; NaN where a window holds one, and −∞ where it holds padding alone.
///
/// # Shapes and units
///
/// `x`: `[batch, channels, height, width]`; the result: `[batch, channels, …]`, as burn's
/// [`max_pool2d`](burn::tensor::module::max_pool2d) has it.
///
/// # Gradient
///
/// That of burn's op: to the largest element of each window.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::ops::MaxPoolOptions;
/// use burn::tensor::{Device, Tensor};
/// use burn_quant_ops::max_pool2d;
///
/// let x = Tensor::<4>::from_data([[[[1.0, 5.0, -2.0], [3.0, 4.0, 0.0]]]], &Device::flex());
/// let y = max_pool2d(x, MaxPoolOptions::new([2, 2]).with_stride([1, 1]));
/// assert_eq!(y.into_data().try_into_vec::<f32>().unwrap(), [5.0, 5.0]);
/// # }
/// ```
pub fn max_pool2d(x: Tensor<4>, options: MaxPoolOptions<2>) -> Tensor<4> {
    #[cfg(feature = "flex")]
    if crate::backend::is_flex(&x.device()) && x.dtype() == DType::F32 && flex::fits(x.dims(), &options) {
        return Tensor::from_dispatch(<Dispatch as MaxPoolOps>::max_pool(x.into_dispatch(), options));
    }
    burns(x, options)
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::{Device, Distribution};

    /// Strides, dilation, padding of two sides, windows of padding alone, zeros of both signs, infinities and NaN.
    #[test]
    fn maxima_have_the_bits_of_burns() {
        let device = Device::flex();
        let options = |kernel: [usize; 2], stride, padding| {
            MaxPoolOptions::new(kernel).with_stride(stride).with_padding_pairs(padding)
        };
        for (shape, options) in [
            ([2, 3, 28, 28], options([2, 2], [2, 2], [(0, 0); 2])),
            ([1, 2, 7, 9], options([2, 2], [2, 2], [(0, 0); 2])), // the last column and line are in no window
            ([1, 2, 7, 9], options([3, 3], [2, 2], [(1, 1); 2])),
            ([2, 1, 8, 5], options([3, 2], [1, 1], [(1, 0), (0, 1)])),
            ([1, 2, 9, 11], options([3, 2], [3, 1], [(1, 2), (2, 0)]).with_dilation([2, 3])),
            ([1, 1, 3, 2], options([1, 1], [1, 1], [(2, 2); 2])), // of padding alone at the edges
            ([1, 1, 7, 7], options([2, 2], [2, 2], [(0, 0); 2]).with_ceil_mode(true)),
            ([0, 2, 4, 4], options([2, 2], [2, 2], [(0, 0); 2])),
        ] {
            let x = Tensor::<4>::random(shape, Distribution::Uniform(-2.0, 2.0), &device).round(); // many are equal
            let mut values = x.into_data().try_into_vec::<f32>().unwrap();
            for (i, value) in values.iter_mut().enumerate() {
                match i % 23 {
                    5 => *value = -0.0,
                    11 => *value = f32::NEG_INFINITY,
                    17 if i % 2 == 0 => *value = f32::NAN,
                    _ => {}
                }
            }
            let x = Tensor::<4>::from_data(burn::tensor::TensorData::new(values, shape), &device);
            for x in [x.clone(), x.swap_dims(2, 3)] {
                let (found, expected) = (max_pool2d(x.clone(), options.clone()), burns(x, options.clone()));
                assert_eq!(found.dims(), expected.dims());
                let bits = |y: Tensor<4>| -> Vec<u32> {
                    let values = y.into_data().try_into_vec::<f32>().unwrap();
                    values.into_iter().map(|y| if y.is_nan() { f32::NAN.to_bits() } else { y.to_bits() }).collect()
                };
                assert_eq!(bits(found), bits(expected), "{shape:?}, {options:?}");
            }
        }
    }
}
