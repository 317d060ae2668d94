//! A packed product with what stands around it, in one pass on the CPU.
//!
//! ```text
//! y = Q(x · s) · W + a        s a factor of each input, a a bias or a branch beside the product
//! ```
//!
//! `s` is multiplied as rows are quantized, `a` is added as sums are written. Elsewhere each is an op of burn's, which
//! gives the same numbers.

#[cfg(feature = "flex")]
use burn::backend::tensor::{FloatTensor, IntTensor};
#[cfg(feature = "flex")]
use burn::backend::{Backend, Dispatch, backend_extension};
#[cfg(feature = "flex")]
use burn::tensor::DType;
use burn::tensor::Tensor;

use super::{Activations, PackedTensor, packed_linear};
#[cfg(feature = "flex")]
use super::{PackedCall, multiplies_integers};

/// What the kernel is told of the tensors around a product.
#[cfg(feature = "flex")]
#[derive(Clone, Debug)]
pub(super) struct FusedCall {
    /// The product.
    pub(super) call: PackedCall,
    /// Whether inputs have factors.
    pub(super) scales_inputs: bool,
    /// Whether something is added.
    pub(super) adds: bool,
}

/// The backend side of [`packed_linear_fused()`]; call that.
#[cfg(feature = "flex")]
#[backend_extension(Flex: cfg(feature = "flex"))]
pub(super) trait PackedLinearFusedOps: Backend {
    /// As [`packed_linear`](super::PackedLinearOps::packed_linear), of `x · pre_quant_scale`, f32 `[inputs]`, and with
    /// `addend`, f32 `[1 or rows, outputs]`, added; a placeholder for either that there is not.
    #[allow(clippy::too_many_arguments)] // a tensor each
    fn packed_linear_fused(
        x: FloatTensor<Self>,
        pre_quant_scale: FloatTensor<Self>,
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        scale_codes: IntTensor<Self>,
        activation_range: FloatTensor<Self>,
        addend: FloatTensor<Self>,
        call: FusedCall,
    ) -> FloatTensor<Self>;
}

/// Multiplies activations with a packed weight, scaling them before and adding to the result after.
///
/// `y = Q(x · s) · W + a`: the product of [`packed_linear()`], with a pre-quantization scale `s` of each input, such as
/// SmoothQuant's, and a summand `a`, such as a bias. On the CPU and in f32 it is one pass; elsewhere three, with the
/// same result.
///
/// # Shapes and units
///
/// `x`: `[..., inputs]`; `pre_quant_scale`: `[inputs]`; `addend`: whatever broadcasts to the result, `[..., outputs]`.
///
/// # Gradient
///
/// To `x`, as that of [`packed_linear()`], to `pre_quant_scale` and to `addend`. The weight has none.
///
/// # Panics
///
/// If shapes do not fit.
///
/// # Source
///
/// Xiao et al. 2023, arXiv:2211.10438, equation 3, for the scale.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Tensor};
/// use burn_quant_ops::numerics::IntFormat;
/// use burn_quant_ops::{Activations, FakeQuant, GradientRule, Groups, PackedTensor, Ranges, packed_linear_fused};
///
/// let device = Device::flex();
/// let weight = Tensor::<2>::from_data([[127.0], [-64.0]], &device);
/// let int8 = IntFormat::signed(8).unwrap().into();
/// let spec = FakeQuant { format: int8, groups: Groups::per_tensor(&[2, 1]), gradient: GradientRule::PassThrough };
/// let weight = PackedTensor::pack(weight, Ranges::Dynamic, spec).unwrap();
/// let x = Tensor::<2>::from_data([[2.0, 0.25]], &device);
/// let scale = Tensor::<1>::from_data([0.5, 4.0], &device);
/// let bias = Tensor::<2>::from_data([[3.0]], &device);
/// let y = packed_linear_fused(x, &weight, Activations::Float, Some(scale), Some(bias)); // of [1, 1]
/// assert_eq!(y.into_data().try_into_vec::<f32>().unwrap(), [127.0 - 64.0 + 3.0]);
/// # }
/// ```
pub fn packed_linear_fused<const D: usize>(
    x: Tensor<D>,
    weight: &PackedTensor,
    activations: Activations,
    pre_quant_scale: Option<Tensor<1>>,
    addend: Option<Tensor<D>>,
) -> Tensor<D> {
    let inputs = weight.layout.inputs();
    if let Some(scale) = &pre_quant_scale {
        assert_eq!(scale.dims(), [inputs], "packed_linear_fused: one scale for each input");
    }
    #[cfg(feature = "flex")]
    if let Some(y) = in_one_pass(&x, weight, &activations, pre_quant_scale.as_ref(), addend.as_ref()) {
        return y;
    }
    let x = match pre_quant_scale {
        None => x,
        Some(scale) => {
            let (mut shape, dtype) = ([1; D], x.dtype());
            shape[D - 1] = inputs;
            x * scale.reshape(shape).cast(dtype)
        }
    };
    let y = packed_linear(x, weight, activations);
    match addend {
        None => y,
        Some(addend) => y + addend,
    }
}

/// The same by the CPU's kernel; `None` where it does not fit, or has nothing to do beside the product.
#[cfg(feature = "flex")]
fn in_one_pass<const D: usize>(
    x: &Tensor<D>,
    weight: &PackedTensor,
    activations: &Activations,
    pre_quant_scale: Option<&Tensor<1>>,
    addend: Option<&Tensor<D>>,
) -> Option<Tensor<D>> {
    let (layout, device, mut shape) = (weight.layout, x.device(), x.dims());
    let (inputs, outputs) = (layout.inputs(), layout.outputs());
    let rows = shape[..D - 1].iter().product::<usize>();
    let is_for_the_kernel = crate::backend::is_flex(&device)
        && x.dtype() == DType::F32
        && (pre_quant_scale.is_some() || addend.is_some())
        && weight.offsets.is_none()
        && shape[D - 1] == inputs
        && inputs > 0
        && (matches!(activations, Activations::Float) || multiplies_integers(&device, layout));
    let fits = |addend: &Tensor<D>| {
        let of = addend.dims();
        let leading = of[..D - 1].iter().product::<usize>();
        addend.dtype() == DType::F32 && of[D - 1] == outputs && (leading == 1 || of[..D - 1] == shape[..D - 1])
    };
    if !is_for_the_kernel || !addend.is_none_or(fits) {
        return None;
    }
    let (kind, range) = activations.clone().into_parts();
    let none = || Tensor::<1>::empty([1], (&device, DType::F32));
    let (words, ranges, scale_codes) = weight.tensors(&device);
    let call = PackedCall { layout, activations: kind, dtype: DType::F32 };
    let call = FusedCall { call, scales_inputs: pre_quant_scale.is_some(), adds: addend.is_some() };
    let addend = addend.cloned().map_or_else(
        || none().reshape([1, 1]),
        |addend| {
            let rows = addend.dims()[..D - 1].iter().product::<usize>();
            addend.reshape([rows, outputs])
        },
    );
    let y = Tensor::<2>::from_dispatch(<Dispatch as PackedLinearFusedOps>::packed_linear_fused(
        x.clone().reshape([rows, inputs]).into_dispatch(),
        pre_quant_scale.map_or_else(none, |scale| scale.clone().cast(DType::F32)).into_dispatch(),
        words.into_dispatch(),
        ranges.into_dispatch(),
        scale_codes.into_dispatch(),
        range.unwrap_or_else(none).into_dispatch(),
        addend.into_dispatch(),
        call,
    ));
    shape[D - 1] = outputs;
    Some(y.reshape(shape))
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use crate::numerics::IntFormat;
    use crate::{FakeQuant, GradientRule, Groups, PackedOffsets, Ranges};
    use burn::tensor::{Device, Distribution};

    /// Whatever broadcasts can be added, to weights with offsets too: the sum is that of burn's own op.
    #[test]
    fn what_the_kernel_does_not_add_is_added_by_burn() {
        let device = Device::flex();
        let spec = FakeQuant {
            format: IntFormat::signed(8).unwrap().into(),
            groups: Groups::per_channel(&[6, 5], 1),
            gradient: GradientRule::PassThrough,
        };
        let random = |shape: [usize; 3]| Tensor::<3>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        let weight = random([1, 6, 5]).reshape([6, 5]);
        let plain = PackedTensor::pack(weight, Ranges::Dynamic, spec).unwrap();
        let offsets = PackedOffsets::new(Tensor::ones([1, 5], &device), 6);
        let x = random([2, 3, 6]);
        for weight in [plain.clone(), plain.with_offsets(offsets)] {
            for shape in [[1, 1, 5], [2, 3, 5], [1, 3, 5], [2, 1, 5], [2, 3, 1]] {
                let addend = random(shape);
                let expected = packed_linear(x.clone(), &weight, Activations::Int8PerToken) + addend.clone();
                let y = packed_linear_fused(x.clone(), &weight, Activations::Int8PerToken, None, Some(addend));
                assert_eq!(y.into_data(), expected.into_data(), "{shape:?}");
            }
        }
    }

    /// With a = 1, s = 2: dy/da = 1 for each row, dy/ds = Σ x · w, dy/dx = s · w.
    #[cfg(feature = "autodiff")]
    #[test]
    fn scale_and_addend_have_gradients() {
        let device = Device::flex().autodiff();
        let spec = FakeQuant {
            format: IntFormat::signed(8).unwrap().into(),
            groups: Groups::per_tensor(&[1, 1]),
            gradient: GradientRule::PassThrough,
        };
        let weight = Tensor::<2>::from_data([[3.0]], &Device::flex());
        let weight = PackedTensor::pack(weight, Ranges::Dynamic, spec).unwrap();
        let x = Tensor::<2>::from_data([[5.0], [7.0]], &device).require_grad();
        let scale = Tensor::<1>::from_data([2.0], &device).require_grad();
        let addend = Tensor::<2>::from_data([[1.0]], &device).require_grad();
        let sum =
            packed_linear_fused(x.clone(), &weight, Activations::Float, Some(scale.clone()), Some(addend.clone()));
        let gradients = sum.sum().backward();
        let of = |data: burn::tensor::TensorData| data.try_into_vec::<f32>().unwrap();
        assert_eq!(of(x.grad(&gradients).unwrap().into_data()), [6.0, 6.0]);
        assert_eq!(of(scale.grad(&gradients).unwrap().into_data()), [36.0]);
        assert_eq!(of(addend.grad(&gradients).unwrap().into_data()), [2.0]);
    }
}
