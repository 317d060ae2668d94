//! A linear layer whose weight is codes and scales.
//!
//! ```text
//! x, float                    ──► y = x · W                     codes become floats in registers
//! x ──► INT8, of its token    ──► y = s_x · Σ_b t_b · (q · i)   sums of integers, exact
//! x ──► INT15, of its token   ──► the same, q = 128 · high + low, each of which is INT8
//! ```
//!
//! * `layout` how a weight is packed
//! * `offsets` what is added to the values of codes
//! * `fused` a product with what stands around it
//! * `reference` the composition of burn's own ops that unpacks the weight; runs where there is no kernel
//! * `flex` the CPU kernels
//! * `cubecl` the GPU kernels
//! * `autodiff` the gradient to `x`; codes have none
//!
//! What products are is defined in `burn-quant-numerics` ([`PackedMatrix`](burn_quant_numerics::PackedMatrix)); this op
//! agrees with it but for the order of f32 sums.

#[cfg(feature = "autodiff")]
mod autodiff;
#[cfg(feature = "capture")]
pub(crate) mod capture;
#[cfg(feature = "cube")]
mod cubecl;
#[cfg(feature = "flex")]
pub(crate) mod flex;
mod fused;
mod layout;
mod offsets;
mod pointwise;
mod reference;

pub use fused::{Around, OutputRounding, packed_linear_fused};
pub use layout::{NotPacked, PackedLayout, PackedScales, PackedTensor};
pub use offsets::PackedOffsets;
pub use pointwise::Pointwise;
pub(crate) use reference::int8_rounding;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, Dispatch, backend_extension};
#[cfg(feature = "fusion")]
use burn::tensor::Shape;
use burn::tensor::{DType, Device, Int, Tensor};
use burn_quant_numerics::{IntFormat, IntGrid};

use crate::backend::{has_kernel, is_capture, is_flex};
use crate::{Call, FakeQuant, GradientRule, Groups, Ranges, fake_quant};

/// What the activations of a packed linear layer are rounded to.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // tensors are handles
pub enum Activations {
    /// Nothing: they stay floats.
    Float,
    /// INT8 with the range of each token, the last axis of `x`.
    Int8PerToken,
    /// INT8 with a given range, f32 `[1]`.
    Int8(Tensor<1>),
    /// Integers of 15 bits with the range of each token, `q = rne(x · 16256 / amax)`: nearly floats, as two products of
    /// INT8.
    ///
    /// An approximation of floats for their speed: a value is off by at most `amax / 32512`, half a step; tokens whose
    /// amax is below 5e-35 count as zeros. Where there are no integer products, activations stay floats, exactly.
    Int15PerToken,
}

impl Activations {
    /// What they are, and the range that is given.
    fn into_parts(self) -> (ActivationKind, Option<Tensor<1>>) {
        match self {
            Activations::Float => (ActivationKind::Float, None),
            Activations::Int8PerToken => (ActivationKind::Int8PerToken, None),
            Activations::Int8(range) => (ActivationKind::Int8, Some(range)),
            Activations::Int15PerToken => (ActivationKind::Int15PerToken, None),
        }
    }
}

/// [`Activations`] without their tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActivationKind {
    /// Floats.
    Float,
    /// INT8, a range for each row.
    Int8PerToken,
    /// INT8 with a given range.
    Int8,
    /// 15 bits, a range for each row.
    Int15PerToken,
}

/// All that a backend is told besides its tensors.
#[derive(Clone, Debug, PartialEq)]
pub struct PackedCall {
    /// What the words of the weight mean.
    pub layout: PackedLayout,
    /// What the activations are.
    pub activations: ActivationKind,
    /// The dtype that activations had: products may be in it where a device is faster so, with sums in f32.
    pub dtype: DType,
}

impl PackedCall {
    /// Returns how activations of a shape `[rows, inputs]` are rounded before they are multiplied.
    ///
    /// `None` if they stay floats. Those of 15 bits stand for floats.
    pub fn rounding(&self, shape: &[usize]) -> Option<Call> {
        reference::rounding(shape, self.activations)
    }
}

/// The backend side of [`packed_linear()`] and [`PackedTensor::unpack`]; call those.
#[backend_extension(
    Flex: cfg(feature = "flex"),
    Cube: cfg(feature = "cube"),
    Autodiff: cfg(feature = "autodiff"),
    Capture: cfg(feature = "capture"),
    Fusion: cfg(feature = "fusion")
)]
pub trait PackedLinearOps: Backend {
    /// `x · W` in f32: `x` is f32 `[rows, inputs]`, the result `[rows, outputs]`. `ranges` or `scale_codes` are a
    /// placeholder, whichever the layout does not use; so is `activation_range`, f32 `[1]`, without given ranges.
    #[allow(unused_variables)] // by the generated dispatch of a build without backends
    #[fusion(dtype = DType::F32, shape = Shape::from([x[0], call.layout.outputs()]))]
    fn packed_linear(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        scale_codes: IntTensor<Self>,
        activation_range: FloatTensor<Self>,
        call: PackedCall,
    ) -> FloatTensor<Self> {
        let x = reference::rounded::<Self>(x, activation_range, call.activations);
        Self::float_matmul(x, reference::unpack::<Self>(words, ranges, scale_codes, call.layout))
    }

    /// The weight, f32 `[inputs, outputs]`.
    #[allow(unused_variables)] // by the generated dispatch of a build without backends
    #[fusion(dtype = DType::F32, shape = Shape::from([layout.inputs(), layout.outputs()]))]
    fn packed_unpack(
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        scale_codes: IntTensor<Self>,
        layout: PackedLayout,
    ) -> FloatTensor<Self> {
        reference::unpack::<Self>(words, ranges, scale_codes, layout)
    }

    /// Some columns of the weight, f32 `[n, inputs]`: those of `outputs`, `[n]`.
    #[allow(unused_variables)] // by the generated dispatch of a build without backends
    #[fusion(dtype = DType::F32, shape = Shape::from([outputs[0], layout.inputs()]))]
    fn packed_columns(
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        scale_codes: IntTensor<Self>,
        outputs: IntTensor<Self>,
        layout: PackedLayout,
    ) -> FloatTensor<Self> {
        let weight = Self::packed_unpack(words, ranges, scale_codes, layout);
        Self::float_select(Self::float_swap_dims(weight, 0, 1), 0, outputs)
    }
}

/// Multiplies activations with a packed weight.
///
/// `y = Q(x) · W`, where `Q` rounds activations to INT8 or not at all, computed in f32, or in integers with f32 scales,
/// and rounded once to the dtype of `x`; on a GPU many rows are multiplied in that dtype, with sums in f32. It is the
/// product of the values of fake quantization, but for the order of f32 sums and the rounding of scales.
///
/// # Shapes and units
///
/// `x`: `[..., inputs]`; the result: `[..., outputs]`.
///
/// # Gradient
///
/// To `x`: `dL/dx = (dL/dy) · Wᵀ`, straight through the rounding, clipped at a given range. The weight has none.
///
/// # Panics
///
/// If the last axis of `x` is not the weight's number of inputs.
///
/// # Source
///
/// Jacob et al. 2018, arXiv:1712.05877, §2.2, integer products; the layout and the kernels are this crate's.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Tensor};
/// use burn_quant_ops::numerics::IntFormat;
/// use burn_quant_ops::{Activations, FakeQuant, GradientRule, Groups, PackedTensor, Ranges, packed_linear};
///
/// let device = Device::flex();
/// let weight = Tensor::<2>::from_data([[127.0], [-64.0]], &device);
/// let int8 = IntFormat::signed(8).unwrap().into();
/// let spec = FakeQuant { format: int8, groups: Groups::per_tensor(&[2, 1]), gradient: GradientRule::PassThrough };
/// let weight = PackedTensor::pack(weight, Ranges::Dynamic, spec).unwrap();
/// let x = Tensor::<2>::from_data([[1.0, 0.5]], &device);
/// let y = packed_linear(x, &weight, Activations::Int8PerToken); // codes 127 and 64
/// assert_eq!(y.into_data().try_into_vec::<f32>().unwrap(), [(127.0 * 127.0 - 64.0 * 64.0) / 127.0]);
/// # }
/// ```
pub fn packed_linear<const D: usize>(x: Tensor<D>, weight: &PackedTensor, activations: Activations) -> Tensor<D> {
    let (layout, dtype, mut shape) = (weight.layout, x.dtype(), x.dims());
    let (inputs, outputs) = (layout.inputs(), layout.outputs());
    assert_eq!(shape[D - 1], inputs, "packed_linear: the last axis of x has one element per input of the weight");
    let rows = shape[..D - 1].iter().product::<usize>();
    if rows * inputs * outputs == 0 {
        // a reshape takes 0 for the length that is there
        shape[D - 1] = outputs;
        return Tensor::zeros(shape, (&x.device(), dtype));
    }
    let x = x.cast(DType::F32).reshape([rows, inputs]);
    let offsets = weight.offsets.as_ref().map(|offsets| offsets.product(rounded(x.clone(), activations.clone())));
    let (x, activations) = match multiplies_integers(&x.device(), layout) {
        true => (x, activations),
        false => (rounded(x, activations), Activations::Float),
    };
    let device = x.device();
    let (activations, range) = activations.into_parts();
    let range = range.unwrap_or_else(|| Tensor::empty([1], (&device, DType::F32)));
    let (words, ranges, scale_codes) = weight.tensors(&device);
    let call = PackedCall { layout, activations, dtype };
    let (x, words, range) = (x.into_dispatch(), words.into_dispatch(), range.into_dispatch());
    let (ranges, scale_codes) = (ranges.into_dispatch(), scale_codes.into_dispatch());
    let y: Tensor<2> = Tensor::from_dispatch(if has_kernel(&x.kind) {
        <Dispatch as PackedLinearOps>::packed_linear(x, words, ranges, scale_codes, range, call)
    } else {
        let weight = reference::unpack::<Dispatch>(words, ranges, scale_codes, layout);
        <Dispatch as burn::backend::ops::FloatTensorOps<Dispatch>>::float_matmul(x, weight)
    });
    let y = match offsets {
        Some(offsets) => y + offsets,
        None => y,
    };
    shape[D - 1] = outputs;
    y.reshape(shape).cast(dtype)
}

fn unpack(weight: &PackedTensor) -> Tensor<2> {
    let (words, ranges, scale_codes) = weight.tensors(&weight.words.device());
    let (words, ranges, scale_codes) = (words.into_dispatch(), ranges.into_dispatch(), scale_codes.into_dispatch());
    let values = Tensor::from_dispatch(if has_kernel(&words.kind) {
        <Dispatch as PackedLinearOps>::packed_unpack(words, ranges, scale_codes, weight.layout)
    } else {
        reference::unpack::<Dispatch>(words, ranges, scale_codes, weight.layout)
    });
    match &weight.offsets {
        Some(offsets) => values + offsets.of_inputs(weight.layout.inputs()),
        None => values,
    }
}

fn columns(weight: &PackedTensor, outputs: Tensor<1, Int>) -> Tensor<2> {
    let (words, ranges, scale_codes) = weight.tensors(&weight.words.device());
    let (words, ranges, scale_codes) = (words.into_dispatch(), ranges.into_dispatch(), scale_codes.into_dispatch());
    let values = Tensor::from_dispatch(<Dispatch as PackedLinearOps>::packed_columns(
        words,
        ranges,
        scale_codes,
        outputs.clone().into_dispatch(),
        weight.layout,
    ));
    match &weight.offsets {
        Some(offsets) => values + offsets.select(outputs).of_inputs(weight.layout.inputs()).transpose(),
        None => values,
    }
}

impl PackedTensor {
    /// Codes, ranges, codes of scales; a placeholder for those that the layout does not use.
    fn tensors(&self, device: &Device) -> (Tensor<1, Int>, Tensor<1>, Tensor<1, Int>) {
        let (ranges, codes) = match &self.scales {
            PackedScales::Ranges(ranges) => (Some(ranges.clone()), None),
            PackedScales::Codes(codes) => (None, Some(codes.clone())),
        };
        let ranges = ranges.unwrap_or_else(|| Tensor::empty([1], (device, DType::F32)));
        let codes = codes.unwrap_or_else(|| Tensor::empty([1], (device, DType::I32)));
        (self.words.clone(), ranges, codes)
    }
}

/// Returns whether a device multiplies INT8 activations with the codes of a weight.
///
/// Elsewhere, and on a device with autodiff, [`packed_linear()`] rounds activations and multiplies floats. A device
/// that captures records what is to be multiplied, whoever runs it.
pub fn multiplies_integers(device: &Device, layout: PackedLayout) -> bool {
    (is_flex(device) || is_capture(device)) && layout.has_integer_products()
}

/// Activations `[rows, inputs]` after rounding, with the straight-through gradient.
fn rounded(x: Tensor<2>, activations: Activations) -> Tensor<2> {
    let shape = x.dims();
    let (groups, ranges) = match activations {
        Activations::Float | Activations::Int15PerToken => return x,
        Activations::Int8PerToken => (Groups::per_channel(&shape, 0), Ranges::Dynamic),
        Activations::Int8(range) => (Groups::per_tensor(&shape), Ranges::Static(range)),
    };
    fake_quant(x, ranges, FakeQuant { format: activation_format().into(), groups, gradient: GradientRule::Clipped })
}

pub(crate) fn activation_format() -> IntFormat {
    IntFormat::signed(8).expect("8 bits")
}

/// The grid of INT8 activations.
#[cfg_attr(not(feature = "flex"), allow(dead_code))]
pub(crate) fn activation_grid() -> IntGrid {
    activation_format().grid()
}

#[cfg(all(test, feature = "flex"))]
mod tests {
    use super::*;
    use burn::tensor::{Distribution, TensorData};
    use burn_quant_numerics::Format;

    /// What runs where there is no kernel unpacks the same bits.
    #[test]
    fn the_reference_unpacks_what_the_kernel_unpacks() {
        let device = Device::flex();
        let floats = [Format::E4M3, Format::E5M2, Format::E3M2, Format::E2M3, Format::E2M1, Format::E1M2, Format::Nf4];
        let ints = (2..=8).map(|bits| Format::from(IntFormat::signed(bits).unwrap()));
        for format in ints.chain(floats) {
            let global_amax = Tensor::<1>::from_data([6.0], &device);
            let weight = Tensor::<2>::random([37, 21], Distribution::Normal(0.0, 1.0), &device);
            let weight = weight.slice_assign([3..4, 0..21], Tensor::zeros([1, 21], &device));
            for ranges in [Ranges::Dynamic, Ranges::PowersOfTwo, Ranges::TwoLevel { global_amax }] {
                if format == Format::Nf4 && !matches!(ranges, Ranges::Dynamic) {
                    continue;
                }
                let groups = Groups::blocks(&[37, 21], 0, 5);
                let spec = FakeQuant { format, groups, gradient: GradientRule::PassThrough };
                let packed = PackedTensor::pack(weight.clone(), ranges.clone(), spec).unwrap();
                let (words, scales, codes) = packed.tensors(&device);
                let composed = reference::unpack::<Dispatch>(
                    words.into_dispatch(),
                    scales.into_dispatch(),
                    codes.into_dispatch(),
                    packed.layout,
                );
                let composed: Vec<f32> = Tensor::<2>::from_dispatch(composed).into_data().try_into_vec().unwrap();
                let kernel: Vec<f32> = packed.unpack().into_data().try_into_vec().unwrap();
                assert_eq!(composed, kernel, "{format}, {ranges:?}");
            }
        }
    }

    /// A weight without inputs, without outputs, and no rows at all.
    #[test]
    fn empty_products_have_the_shape_of_full_ones() {
        let device = Device::flex();
        for [rows, inputs, outputs] in [[3, 0, 5], [3, 4, 0], [0, 4, 5]] {
            let weight = Tensor::<2>::from_data(TensorData::zeros::<f32, _>([inputs, outputs]), &device);
            let groups = Groups::per_tensor(&[inputs, outputs]);
            let spec = FakeQuant { format: activation_format().into(), groups, gradient: GradientRule::PassThrough };
            let amax = Tensor::<1>::from_data([1.0], &device);
            let packed = PackedTensor::pack(weight, amax, spec).unwrap();
            let x = Tensor::<2>::from_data(TensorData::zeros::<f32, _>([rows, inputs]), &device);
            for activations in [Activations::Float, Activations::Int8PerToken] {
                let y = packed_linear(x.clone(), &packed, activations);
                assert_eq!(y.dims(), [rows, outputs]);
                assert!(y.into_data().try_into_vec::<f32>().unwrap().iter().all(|y| *y == 0.0));
            }
            let x = Tensor::<3>::from_data(TensorData::zeros::<f32, _>([2, rows, inputs]), &device);
            assert_eq!(packed_linear(x, &packed, Activations::Float).dims(), [2, rows, outputs]);
        }
    }
}
