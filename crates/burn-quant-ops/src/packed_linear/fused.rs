//! A packed product with what stands around it, in one pass on the CPU.
//!
//! ```text
//! y = f( R( Q(x · s) · W + a ) )   s a factor of each input, a a bias or a branch beside the product, R a rounding,
//!                                  f a function of each element
//! ```
//!
//! `s` is multiplied as rows are quantized, `a` is added as sums are written, `R` and `f` follow while they are in the
//! cache, on the thread that wrote them. Elsewhere each is an op of its own, which gives the same numbers.

#[cfg(feature = "flex")]
use burn::backend::tensor::{FloatTensor, IntTensor};
#[cfg(feature = "flex")]
use burn::backend::{Backend, Dispatch, backend_extension};
#[cfg(feature = "flex")]
use burn::tensor::DType;
use burn::tensor::Tensor;
use burn_quant_numerics::Format;

use super::{Activations, PackedTensor, Pointwise, packed_linear};
#[cfg(feature = "flex")]
use super::{PackedCall, multiplies_integers};
#[cfg(feature = "flex")]
use crate::Call;
use crate::{FakeQuant, GradientRule, Groups, fake_quant};

/// What stands around a packed product: nothing by default.
///
/// [`packed_linear_fused()`] has an example.
#[derive(Clone, Debug)]
pub struct Around<const D: usize> {
    /// A factor of each input, `[inputs]`, such as SmoothQuant's.
    pub pre_quant_scale: Option<Tensor<1>>,
    /// What is added to the product, such as a bias: whatever broadcasts to the result.
    pub addend: Option<Tensor<D>>,
    /// How the sum is rounded.
    pub output: Option<OutputRounding>,
    /// A function of each element of the result, after its rounding.
    pub function: Option<Pointwise>,
}

impl<const D: usize> Default for Around<D> {
    fn default() -> Self {
        Self { pre_quant_scale: None, addend: None, output: None, function: None }
    }
}

/// A rounding of all of a result under one range: [`fake_quant()`](crate::fake_quant()) per tensor.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Tensor};
/// use burn_quant_ops::numerics::IntFormat;
/// use burn_quant_ops::{
///     Activations, Around, FakeQuant, GradientRule, Groups, OutputRounding, PackedTensor, Ranges, packed_linear_fused,
/// };
///
/// let device = Device::flex();
/// let int8 = IntFormat::signed(8).unwrap().into();
/// let spec = FakeQuant { format: int8, groups: Groups::per_tensor(&[1, 1]), gradient: GradientRule::PassThrough };
/// let weight = PackedTensor::pack(Tensor::from_data([[127.0]], &device), Ranges::Dynamic, spec).unwrap();
/// let range = Tensor::from_data([127.0], &device); // steps of one
/// let output = OutputRounding { format: int8, range, gradient: GradientRule::Clipped };
/// let x = Tensor::<2>::from_data([[0.1], [2.0]], &device);
/// let around = Around { output: Some(output), ..Around::default() };
/// let y = packed_linear_fused(x, &weight, Activations::Float, around); // of 12.7 and 254
/// assert_eq!(y.into_data().try_into_vec::<f32>().unwrap(), [13.0, 127.0]);
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct OutputRounding {
    /// The numbers to round to.
    pub format: Format,
    /// Their range, f32 `[1]`.
    pub range: Tensor<1>,
    /// The gradient of the rounding.
    pub gradient: GradientRule,
}

impl OutputRounding {
    fn spec(&self, shape: &[usize]) -> FakeQuant {
        FakeQuant { format: self.format, groups: Groups::per_tensor(shape), gradient: self.gradient }
    }
}

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
    /// How the result is rounded.
    pub(super) output: Option<Call>,
    /// What is done to it then.
    pub(super) function: Option<Pointwise>,
}

/// The backend side of [`packed_linear_fused()`]; call that.
#[cfg(feature = "flex")]
#[backend_extension(Flex: cfg(feature = "flex"))]
pub(super) trait PackedLinearFusedOps: Backend {
    /// As [`packed_linear`](super::PackedLinearOps::packed_linear), of `x · pre_quant_scale`, f32 `[inputs]`, and with
    /// `addend`, f32 `[1 or rows, outputs]`, added, rounded under `output_range`, f32 `[1]`; a placeholder for each
    /// that there is not.
    #[allow(clippy::too_many_arguments)] // a tensor each
    fn packed_linear_fused(
        x: FloatTensor<Self>,
        pre_quant_scale: FloatTensor<Self>,
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        scale_codes: IntTensor<Self>,
        activation_range: FloatTensor<Self>,
        addend: FloatTensor<Self>,
        output_range: FloatTensor<Self>,
        call: FusedCall,
    ) -> FloatTensor<Self>;
}

/// Multiplies activations with a packed weight, with what stands before and after the product.
///
/// `y = f(R(Q(x · s) · W + a))`: the product of [`packed_linear()`], with what is [`Around`] it: a pre-quantization
/// scale `s` of each input, such as SmoothQuant's, a summand `a`, such as a bias, a rounding `R` of the result, and a
/// function `f` of each element. On the CPU and in f32 it is one pass; elsewhere one for each, with the same result.
///
/// # Shapes and units
///
/// `x`: `[..., inputs]`; `pre_quant_scale`: `[inputs]`; `addend`: whatever broadcasts to the result, `[..., outputs]`.
///
/// # Gradient
///
/// To `x`, as that of [`packed_linear()`], to `pre_quant_scale` and to `addend`, through `output` as its rule says, and
/// through `function`. The weight has none.
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
/// use burn_quant_ops::{
///     Activations, Around, FakeQuant, GradientRule, Groups, PackedTensor, Ranges, packed_linear_fused,
/// };
///
/// let device = Device::flex();
/// let weight = Tensor::<2>::from_data([[127.0], [-64.0]], &device);
/// let int8 = IntFormat::signed(8).unwrap().into();
/// let spec = FakeQuant { format: int8, groups: Groups::per_tensor(&[2, 1]), gradient: GradientRule::PassThrough };
/// let weight = PackedTensor::pack(weight, Ranges::Dynamic, spec).unwrap();
/// let x = Tensor::<2>::from_data([[2.0, 0.25]], &device);
/// let around = Around {
///     pre_quant_scale: Some(Tensor::from_data([0.5, 4.0], &device)), // makes [1, 1] of it
///     addend: Some(Tensor::from_data([[3.0]], &device)),
///     ..Around::default()
/// };
/// let y = packed_linear_fused(x, &weight, Activations::Float, around);
/// assert_eq!(y.into_data().try_into_vec::<f32>().unwrap(), [127.0 - 64.0 + 3.0]);
/// # }
/// ```
pub fn packed_linear_fused<const D: usize>(
    x: Tensor<D>,
    weight: &PackedTensor,
    activations: Activations,
    around: Around<D>,
) -> Tensor<D> {
    let inputs = weight.layout.inputs();
    if let Some(scale) = &around.pre_quant_scale {
        assert_eq!(scale.dims(), [inputs], "packed_linear_fused: one scale for each input");
    }
    #[cfg(feature = "flex")]
    if let Some(y) = in_one_pass(&x, weight, &activations, &around) {
        return y;
    }
    let Around { pre_quant_scale, addend, output, function } = around;
    let x = match pre_quant_scale {
        None => x,
        Some(scale) => {
            let (mut shape, dtype) = ([1; D], x.dtype());
            shape[D - 1] = inputs;
            x * scale.reshape(shape).cast(dtype)
        }
    };
    let y = packed_linear(x, weight, activations);
    let y = match addend {
        None => y,
        Some(addend) => y + addend,
    };
    let y = match output {
        Some(output) if !y.dims().contains(&0) => {
            let spec = output.spec(&y.dims());
            fake_quant(y, output.range, spec)
        }
        _ => y,
    };
    match function {
        None => y,
        Some(function) => function.apply(y),
    }
}

/// The same by the CPU's kernel; `None` where it does not fit, or has nothing to do beside the product.
#[cfg(feature = "flex")]
fn in_one_pass<const D: usize>(
    x: &Tensor<D>,
    weight: &PackedTensor,
    activations: &Activations,
    around: &Around<D>,
) -> Option<Tensor<D>> {
    let Around { pre_quant_scale, addend, output, function } = around;
    let (layout, device, mut shape) = (weight.layout, x.device(), x.dims());
    let (inputs, outputs) = (layout.inputs(), layout.outputs());
    let rows = shape[..D - 1].iter().product::<usize>();
    let is_for_the_kernel = crate::backend::is_flex(&device)
        && x.dtype() == DType::F32
        && (pre_quant_scale.is_some() || addend.is_some() || output.is_some() || function.is_some())
        && weight.offsets.is_none()
        && shape[D - 1] == inputs
        && rows * inputs * outputs > 0
        && (matches!(activations, Activations::Float) || multiplies_integers(&device, layout));
    let fits = |addend: &Tensor<D>| {
        let of = addend.dims();
        let leading = of[..D - 1].iter().product::<usize>();
        addend.dtype() == DType::F32 && of[D - 1] == outputs && (leading == 1 || of[..D - 1] == shape[..D - 1])
    };
    if !is_for_the_kernel || !addend.as_ref().is_none_or(fits) {
        return None;
    }
    let (kind, range) = activations.clone().into_parts();
    let none = || Tensor::<1>::empty([1], (&device, DType::F32));
    let (words, ranges, scale_codes) = weight.tensors(&device);
    let call = PackedCall { layout, activations: kind, dtype: DType::F32 };
    let call = FusedCall {
        call,
        scales_inputs: pre_quant_scale.is_some(),
        adds: addend.is_some(),
        output: output.as_ref().map(|output| Call::of_given_ranges(output.spec(&[rows, outputs]))),
        function: *function,
    };
    let addend = addend.clone().map_or_else(
        || none().reshape([1, 1]),
        |addend| {
            let rows = addend.dims()[..D - 1].iter().product::<usize>();
            addend.reshape([rows, outputs])
        },
    );
    let y = Tensor::<2>::from_dispatch(<Dispatch as PackedLinearFusedOps>::packed_linear_fused(
        x.clone().reshape([rows, inputs]).into_dispatch(),
        pre_quant_scale.clone().map_or_else(none, |scale| scale.cast(DType::F32)).into_dispatch(),
        words.into_dispatch(),
        ranges.into_dispatch(),
        scale_codes.into_dispatch(),
        range.unwrap_or_else(none).into_dispatch(),
        addend.into_dispatch(),
        output.as_ref().map_or_else(none, |output| output.range.clone().cast(DType::F32)).into_dispatch(),
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
                let y = packed_linear_fused(
                    x.clone(),
                    &weight,
                    Activations::Int8PerToken,
                    Around { addend: Some(addend), ..Around::default() },
                );
                assert_eq!(y.into_data(), expected.into_data(), "{shape:?}");
            }
        }
    }

    /// In parts of threads and in one, of one row and of many, each format rounds to what a pass of its own makes.
    #[test]
    fn a_result_is_rounded_as_by_a_pass_of_its_own() {
        let device = Device::flex();
        let int = |bits| Format::from(IntFormat::signed(bits).unwrap());
        let random = |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        for ([inputs, outputs], rows) in [([6, 5], 1), ([6, 70], 3), ([512, 600], 40)] {
            let spec = FakeQuant {
                format: int(8),
                groups: Groups::per_channel(&[inputs, outputs], 1),
                gradient: GradientRule::PassThrough,
            };
            let weight = PackedTensor::pack(random([inputs, outputs]), Ranges::Dynamic, spec).unwrap();
            let (x, bias) = (random([rows, inputs]), random([1, outputs]));
            let y = packed_linear(x.clone(), &weight, Activations::Int8PerToken) + bias.clone();
            let range = y.clone().abs().max().reshape([1]) * 0.7; // some are beyond it
            for format in [int(8), int(4), Format::E4M3, Format::E2M1, Format::Nf4] {
                let output = OutputRounding { format, range: range.clone(), gradient: GradientRule::Clipped };
                let expected = fake_quant(y.clone(), range.clone(), output.spec(&[rows, outputs]));
                let around = Around { addend: Some(bias.clone()), output: Some(output), ..Around::default() };
                let found = packed_linear_fused(x.clone(), &weight, Activations::Int8PerToken, around);
                assert_eq!(found.into_data(), expected.into_data(), "{format}, {rows} rows of {outputs}");
            }
        }
    }

    /// After the rounding, where there is one; in parts of threads and in one.
    #[test]
    fn a_function_of_the_result_is_that_of_burn() {
        let device = Device::flex();
        let format = Format::from(IntFormat::signed(8).unwrap());
        let random = |shape: [usize; 2]| Tensor::<2>::random(shape, Distribution::Normal(0.0, 1.0), &device);
        for ([inputs, outputs], rows) in [([6, 5], 1), ([512, 600], 40)] {
            let groups = Groups::per_channel(&[inputs, outputs], 1);
            let spec = FakeQuant { format, groups, gradient: GradientRule::PassThrough };
            let weight = PackedTensor::pack(random([inputs, outputs]) * 0.1, Ranges::Dynamic, spec).unwrap();
            let x = random([rows, inputs]);
            let y = packed_linear(x.clone(), &weight, Activations::Int8PerToken);
            let range = y.clone().abs().max().reshape([1]) * 0.7;
            let output = OutputRounding { format, range: range.clone(), gradient: GradientRule::Clipped };
            let rounded = fake_quant(y.clone(), range, output.spec(&[rows, outputs]));
            for (output, y) in [(None, y), (Some(output), rounded)] {
                for function in [Pointwise::Relu, Pointwise::Gelu, Pointwise::Silu] {
                    let around = Around { output: output.clone(), function: Some(function), ..Around::default() };
                    let found = packed_linear_fused(x.clone(), &weight, Activations::Int8PerToken, around);
                    assert_eq!(found.into_data(), function.apply(y.clone()).into_data(), "{function:?}, {rows} rows");
                }
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
        let around = Around { pre_quant_scale: Some(scale.clone()), addend: Some(addend.clone()), ..Around::default() };
        let sum = packed_linear_fused(x.clone(), &weight, Activations::Float, around);
        let gradients = sum.sum().backward();
        let of = |data: burn::tensor::TensorData| data.try_into_vec::<f32>().unwrap();
        assert_eq!(of(x.grad(&gradients).unwrap().into_data()), [6.0, 6.0]);
        assert_eq!(of(scale.grad(&gradients).unwrap().into_data()), [36.0]);
        assert_eq!(of(addend.grad(&gradients).unwrap().into_data()), [2.0]);
    }
}
