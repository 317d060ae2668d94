//! Quantize and dequantize in one op, with a straight-through gradient.
//!
//! ```text
//! x ──► x − bias ──► amax, given or taken from each group ──► scale, in f32, E8M0 or E4M3
//!                └──► y = grid.round(v / scale) · scale + bias     computed in f32, rounded once to the dtype of x
//! ```
//!
//! * `ranges` what scales are made of
//! * `reference` the composition of burn's own ops that defines the result; runs where there is no kernel
//! * `flex` and `cubecl` the fused kernels, equal bit for bit
//! * `autodiff` the gradient
//! * `learned` the gradient of ranges that are trained

#[cfg(feature = "autodiff")]
mod autodiff;
#[cfg(feature = "capture")]
pub(crate) mod capture;
#[cfg(feature = "cube")]
pub(crate) mod cubecl;
#[cfg(feature = "flex")]
pub(crate) mod flex;
#[cfg(any(feature = "flex", feature = "cube"))]
mod layout;
mod learned;
mod ranges;
pub(crate) mod reference;

pub use ranges::{Bias, Call, Ranges, Scales};

use burn::backend::{Backend, Dispatch, backend_extension, tensor::FloatTensor};
#[cfg(feature = "fusion")]
use burn::tensor::Shape;
use burn::tensor::{DType, Tensor};
use burn_quant_numerics::Format;

use crate::Groups;
use crate::backend::has_kernel;
pub(crate) use ranges::Inputs;

/// The gradient of fake quantization with respect to its input, and to ranges that are learned.
///
/// Rounding has derivative zero almost everywhere, so training uses a straight-through estimator. The last two rules
/// also have a gradient to static ranges with f32 scales, summed over their groups; with any other scales they are
/// [`Clipped`](GradientRule::Clipped).
///
/// Source: Bengio et al. 2013, arXiv:1308.3432; the first two rules are those of ModelOpt 0.47.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum GradientRule {
    /// The gradient passes unchanged; the op saves nothing for its backward pass.
    #[default]
    PassThrough,
    /// The gradient passes where `|x − bias| <= amax` and is zero elsewhere; the op saves its input.
    ///
    /// One range for the whole tensor is compared in the dtype of the tensor, ranges of groups in f32, as the reference
    /// does. With E4M3 scales from the data, amax is that of the tensor. A range taken from the data itself clips
    /// nothing: there this is the same as [`PassThrough`](GradientRule::PassThrough), and costs no more.
    Clipped,
    /// The gradient passes where the grid reaches, `lo <= x / scale <= hi`, and ranges get that of a learned step size:
    /// `∂y/∂amax = (y − x) / amax` there, and `y / amax` beyond.
    ///
    /// Source: Esser et al. 2020, "Learned Step Size Quantization", arXiv:1902.08153, eq. 3, in units of amax:
    /// `∂y/∂step` is `hi` times as large. The paper's gradient scale is the caller's.
    Lsq,
    /// The gradient passes where the grid reaches, and ranges get that of a learned clipping value: `∂y/∂amax` is 0
    /// there, and `y / amax` beyond, which is 1 for values above.
    ///
    /// Source: Choi et al. 2018, "PACT", arXiv:1805.06085, §3.
    Pact,
}

impl GradientRule {
    /// Returns whether static ranges are learned.
    ///
    /// LSQ and PACT do.
    pub fn learns_range(self) -> bool {
        matches!(self, GradientRule::Lsq | GradientRule::Pact)
    }
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
    Capture: cfg(feature = "capture"),
    Fusion: cfg(feature = "fusion")
)]
pub trait FakeQuantOps: Backend {
    /// `y = fake_quant(x)`; `amax` is f32 `[groups]`, `global_amax` f32 `[1]`, `bias` f32 of its groups, and whatever
    /// `call` does not use a placeholder; `x` is any float of the shape that the groups divide.
    #[allow(unused_variables)] // by the generated dispatch of a build without backends
    #[fusion(dtype = x, shape = x)]
    fn fake_quant(
        x: FloatTensor<Self>,
        amax: FloatTensor<Self>,
        global_amax: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        call: Call,
    ) -> FloatTensor<Self> {
        reference::fake_quant::<Self>(x, amax, global_amax, bias, &call)
    }

    /// The gradient of the clipped rule: `grad` where `|x − bias| <= amax`, zero elsewhere.
    #[allow(unused_variables)] // by the generated dispatch of a build without backends
    #[fusion(dtype = grad, shape = grad)]
    fn fake_quant_clip_gradient(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        amax: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        call: Call,
    ) -> FloatTensor<Self> {
        reference::clip_gradient::<Self>(grad, x, amax, bias, &call)
    }

    /// The gradient of the learned rules to `x`: `grad` where the grid reaches, zero elsewhere.
    #[allow(unused_variables)] // by the generated dispatch of a build without backends
    #[fusion(dtype = grad, shape = grad)]
    fn fake_quant_learned_gradient(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        amax: FloatTensor<Self>,
        call: Call,
    ) -> FloatTensor<Self> {
        learned::gradient::<Self>(grad, x, amax, &call)
    }

    /// The gradient of the learned rules to `amax`, f32 `[groups]`; `y` is the result for `x`.
    #[allow(unused_variables)] // by the generated dispatch of a build without backends
    #[fusion(dtype = DType::F32, shape = Shape::from([call.spec.groups.len()]))]
    fn fake_quant_range_gradient(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        y: FloatTensor<Self>,
        amax: FloatTensor<Self>,
        call: Call,
    ) -> FloatTensor<Self> {
        learned::range_gradient::<Self>(grad, x, y, amax, &call)
    }
}

/// Rounds every element of `x` to the grid of its group and back to a real value.
///
/// `y = grid.fake_quant(x, grid.scale(amax[group]))` with the [`Grid`](burn_quant_numerics::Grid) of the format and the
/// scales, computed in f32 and rounded once to the dtype of `x`. Elements beyond amax are clipped; NaN stays NaN.
/// Ranges that come from the data are found in the same pass over memory, as long as a group fits the cache.
///
/// # Shapes and units
///
/// `x` and the result: the shape that `spec.groups` divides; [`Ranges`]: in the units of `x`. f32, f16 and bf16 are
/// native; f64 is computed in f32, as in the reference.
///
/// # Gradient
///
/// [`GradientRule`] to `x`, and to static ranges under the rules that learn them; else ranges are constants of the op.
///
/// # Panics
///
/// If a shape or a dtype is not as above, or the format is NF4 and its scales are not f32.
///
/// # Source
///
/// ModelOpt 0.47, fake quantization of integers, FP8, MX formats and NVFP4; ties to even, bit for bit.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Tensor};
/// use burn_quant_ops::numerics::{Format, IntFormat};
/// use burn_quant_ops::{FakeQuant, GradientRule, Groups, Ranges, fake_quant, group_amax};
///
/// let x = Tensor::<2>::from_data([[-1.0, 0.5, 0.26], [8.0, 2.0, 0.1]], &Device::flex());
/// let groups = Groups::per_channel(&[2, 3], 0); // a scale for each row
/// let int2 = IntFormat::signed(2).unwrap().into();
/// let spec = FakeQuant { format: int2, groups: groups.clone(), gradient: GradientRule::PassThrough };
/// let amax = group_amax(x.clone(), &groups);
/// let y = fake_quant(x.clone(), amax, spec.clone());
/// assert_eq!(y.into_data().try_into_vec::<f32>().unwrap(), [-1.0, 0.0, 0.0, 8.0, 0.0, 0.0]);
/// let y = fake_quant(x.clone(), Ranges::Dynamic, spec.clone()); // the same in one pass
/// assert_eq!(y.into_data().try_into_vec::<f32>().unwrap(), [-1.0, 0.0, 0.0, 8.0, 0.0, 0.0]);
///
/// let mxfp4 = FakeQuant { format: Format::E2M1, ..spec }; // scales 2^-2 and 2
/// let y = fake_quant(x, Ranges::PowersOfTwo, mxfp4);
/// assert_eq!(y.into_data().try_into_vec::<f32>().unwrap(), [-1.0, 0.5, 0.25, 8.0, 2.0, 0.0]);
/// # }
/// ```
pub fn fake_quant<const D: usize>(x: Tensor<D>, ranges: impl Into<Ranges>, spec: FakeQuant) -> Tensor<D> {
    run(x, ranges.into(), None, spec)
}

/// [`fake_quant`] around a bias: `y = fake_quant(x − bias) + bias`.
///
/// Difference and sum are rounded to the dtype of `x`, as in the reference. Ranges, given or taken from the data, are
/// those of `x − bias`. The bias has no gradient.
///
/// # Panics
///
/// As [`fake_quant`], and if the bias does not fit the shape of `x`.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Tensor};
/// use burn_quant_ops::{Bias, FakeQuant, GradientRule, Groups, Ranges, fake_quant_affine, numerics::IntFormat};
///
/// // values around 10, in four steps of 2
/// let x = Tensor::<1>::from_data([8.2, 9.0, 10.4, 11.9], &Device::flex());
/// let groups = Groups::per_tensor(&[4]);
/// let bias = Bias { values: Tensor::from_data([10.0], &Device::flex()), groups: groups.clone() };
/// let amax = Tensor::<1>::from_data([2.0], &Device::flex());
/// let int2 = IntFormat::signed(2).unwrap().into();
/// let spec = FakeQuant { format: int2, groups, gradient: GradientRule::PassThrough };
/// let y = fake_quant_affine(x, bias, amax, spec);
/// assert_eq!(y.into_data().try_into_vec::<f32>().unwrap(), [8.0, 10.0, 10.0, 12.0]);
/// # }
/// ```
pub fn fake_quant_affine<const D: usize>(
    x: Tensor<D>,
    bias: Bias,
    ranges: impl Into<Ranges>,
    spec: FakeQuant,
) -> Tensor<D> {
    run(x, ranges.into(), Some(bias), spec)
}

fn run<const D: usize>(x: Tensor<D>, ranges: Ranges, bias: Option<Bias>, spec: FakeQuant) -> Tensor<D> {
    let shape = x.shape();
    assert_eq!(shape.as_slice(), spec.groups.shape(), "fake_quant: x has another shape than its groups");
    match x.dtype() {
        DType::F32 | DType::F16 | DType::BF16 => {}
        DType::F64 => return run(x.cast(DType::F32), ranges, bias, spec).cast(DType::F64),
        other => panic!("fake_quant: x is f64, f32, f16 or bf16, found {other:?}"),
    }
    let Inputs { amax, global_amax, bias, call } = Inputs::new(ranges, bias, spec, &x.device());
    let f32_scales = matches!(call.scales, Scales::Static | Scales::Dynamic);
    assert!(call.spec.format != Format::Nf4 || f32_scales, "fake_quant: NF4 has f32 scales");
    if shape.num_elements() == 0 {
        return x;
    }
    let (amax, global_amax, bias) = (amax.into_dispatch(), global_amax.into_dispatch(), bias.into_dispatch());
    let x = x.into_dispatch();
    Tensor::from_dispatch(if has_kernel(&x.kind) {
        <Dispatch as FakeQuantOps>::fake_quant(x, amax, global_amax, bias, call)
    } else {
        reference::straight_through::<Dispatch>(x, amax, global_amax, bias, &call)
    })
}
