//! Quantize and dequantize in one op, with a straight-through gradient.
//!
//! ```text
//! x, amax ──► scale = grid.max / amax      per group, f32
//!             y     = grid.round(x · scale) / scale     rounded once to the dtype of x
//! ```
//!
//! * `reference` the composition of burn's own ops that defines the result; runs where there is no kernel
//! * `flex` and `cubecl` the fused kernels, equal bit for bit
//! * `autodiff` the gradient

#[cfg(feature = "autodiff")]
mod autodiff;
#[cfg(feature = "cube")]
mod cubecl;
#[cfg(feature = "flex")]
mod flex;
#[cfg(feature = "flex")]
mod reciprocal;
mod reference;

use burn::backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor};
use burn::tensor::{DType, Tensor};
use burn_quant_numerics::Format;

use crate::Groups;
use crate::backend::has_kernel;

/// The gradient of fake quantization with respect to its input; amax never has one.
///
/// Rounding has derivative zero almost everywhere, so training uses a straight-through estimator.
/// Source: Bengio et al. 2013, arXiv:1308.3432; both rules are those of ModelOpt 0.47.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum GradientRule {
    /// The gradient passes unchanged; the op saves nothing for its backward pass.
    #[default]
    PassThrough,
    /// The gradient passes where `|x| <= amax` and is zero elsewhere; the op saves its input.
    Clipped,
}

/// What to do with each group of elements.
#[derive(Clone, Debug, PartialEq)]
pub struct FakeQuant {
    /// The number format.
    pub format: Format,
    /// Which elements share an amax.
    pub groups: Groups,
    /// The straight-through rule.
    pub gradient: GradientRule,
}

/// The backend side of [`fake_quant()`]; call that.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "cube"),
    Autodiff: cfg(feature = "autodiff"),
    Fusion: cfg(feature = "fusion")
)]
pub trait FakeQuantOps: Backend {
    /// `y = fake_quant(x)`; `amax` is f32 of shape `[groups]`, `x` any float of the shape that `spec.groups` divides.
    #[allow(unused_variables)] // by the generated dispatch of a build without backends
    #[fusion(dtype = x, shape = x)]
    fn fake_quant(x: FloatTensor<Self>, amax: FloatTensor<Self>, spec: FakeQuant) -> FloatTensor<Self> {
        reference::fake_quant::<Self>(x, amax, &spec)
    }

    /// The gradient of the clipped rule: `grad` where `|x| <= amax`, zero elsewhere.
    #[allow(unused_variables)] // by the generated dispatch of a build without backends
    #[fusion(dtype = grad, shape = grad)]
    fn fake_quant_clip_gradient(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        amax: FloatTensor<Self>,
        spec: FakeQuant,
    ) -> FloatTensor<Self> {
        reference::clip_gradient::<Self>(grad, x, amax, &spec)
    }
}

/// Rounds every element of `x` to the grid of its group and back to a real value.
///
/// `y = grid.fake_quant(x, grid.scale(amax[group]))` with the [`Grid`](burn_quant_numerics::Grid) of `spec.format`,
/// computed in f32 and rounded once to the dtype of `x`. Elements beyond amax are clipped; NaN stays NaN.
///
/// # Shapes and units
///
/// `x` and the result: the shape that `spec.groups` divides; `amax`: f32 `[spec.groups.len()]`, in the units of `x`, finite
/// and not negative. f32, f16 and bf16 are native; f64 is computed in f32, as in the reference.
///
/// # Gradient
///
/// [`GradientRule`] to `x`; none to `amax`, which is a constant of the op.
///
/// # Panics
///
/// If a shape or a dtype is not as above.
///
/// # Source
///
/// ModelOpt 0.47, integer and FP8 fake quantization; ties to even, bit for bit.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Tensor};
/// use burn_quant_ops::{FakeQuant, GradientRule, Groups, fake_quant, group_amax, numerics::IntFormat};
///
/// let x = Tensor::<2>::from_data([[-1.0, 0.5, 0.26], [8.0, 2.0, 0.1]], &Device::flex());
/// let groups = Groups::per_channel(&[2, 3], 0); // a scale for each row
/// let amax = group_amax(x.clone(), &groups);
/// let spec = FakeQuant { format: IntFormat::signed(2).unwrap().into(), groups, gradient: GradientRule::PassThrough };
/// let y = fake_quant(x, amax, spec);
/// assert_eq!(y.into_data().try_into_vec::<f32>().unwrap(), [-1.0, 0.0, 0.0, 8.0, 0.0, 0.0]);
/// # }
/// ```
pub fn fake_quant<const D: usize>(x: Tensor<D>, amax: Tensor<1>, spec: FakeQuant) -> Tensor<D> {
    let shape = x.shape();
    assert_eq!(shape.as_slice(), spec.groups.shape(), "fake_quant: x has another shape than its groups");
    assert_eq!(amax.dims(), [spec.groups.len()], "fake_quant: amax has one element per group");
    assert_eq!(amax.dtype(), DType::F32, "fake_quant: amax is f32");
    if shape.num_elements() == 0 {
        return x;
    }
    match x.dtype() {
        DType::F32 | DType::F16 | DType::BF16 => dispatch(x, amax, spec),
        DType::F64 => dispatch(x.cast(DType::F32), amax, spec).cast(DType::F64),
        other => panic!("fake_quant: x is f64, f32, f16 or bf16, found {other:?}"),
    }
}

fn dispatch<const D: usize>(x: Tensor<D>, amax: Tensor<1>, spec: FakeQuant) -> Tensor<D> {
    let (x, amax) = (x.into_dispatch(), amax.into_dispatch());
    Tensor::from_dispatch(if has_kernel(&x.kind) {
        <Dispatch as FakeQuantOps>::fake_quant(x, amax, spec)
    } else {
        reference::straight_through::<Dispatch>(x, amax, &spec)
    })
}
