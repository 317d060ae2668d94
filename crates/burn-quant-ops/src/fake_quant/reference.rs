//! The composition of burn's own ops that defines [`fake_quant`](super::fake_quant()); never optimised.

use burn::backend::{Backend, Slice, TensorMetadata, tensor::FloatTensor};
use burn::tensor::{BoolDType, FloatDType, Shape};
use burn_quant_numerics::{E4m3, Format, Grid, MIN_AMAX};

use super::{FakeQuant, GradientRule};
use crate::Groups;
use crate::groups::Segment;

/// Quantize and dequantize; the gradient of this composition is zero.
pub(super) fn fake_quant<B: Backend>(x: FloatTensor<B>, amax: FloatTensor<B>, spec: &FakeQuant) -> FloatTensor<B> {
    let dtype = x.dtype();
    let x = B::float_cast(x, FloatDType::F32);
    let amax = expand::<B>(amax, &spec.groups);
    let tiny = B::float_lower_equal_elem(amax.clone(), MIN_AMAX.into(), bool_dtype::<B>(&amax));
    let y = match spec.format {
        Format::Int(format) => {
            let grid = format.grid();
            let hi = B::float_full(amax.shape(), grid.max().into(), &amax.device(), FloatDType::F32);
            let scale = B::float_div(hi, amax);
            let to_grid = B::float_mask_fill(scale.clone(), tiny.clone(), 0.0.into());
            let from_grid = B::float_mask_fill(scale, tiny, 1.0.into());
            let units = B::float_clamp(B::float_mul(x, to_grid), grid.lo().into(), grid.hi().into());
            B::float_div(B::float_round(units), from_grid)
        }
        Format::E4M3 => {
            let amax = B::float_mask_fill(amax, tiny, 1.0.into());
            let scale = B::float_mul_scalar(B::float_recip(amax), E4m3.max().into());
            let units = B::float_mul(x, scale.clone());
            B::float_mul(round_to_e4m3::<B>(units), B::float_recip(scale))
        }
        other => unreachable!("no reference for {other}"),
    };
    B::float_cast(y, dtype.into())
}

/// `grad` where `|x| <= amax`, zero elsewhere.
pub(super) fn clip_gradient<B: Backend>(
    grad: FloatTensor<B>,
    x: FloatTensor<B>,
    amax: FloatTensor<B>,
    spec: &FakeQuant,
) -> FloatTensor<B> {
    B::float_mask_fill(grad, outside::<B>(x, amax, spec), 0.0.into())
}

/// [`fake_quant`] with its gradient rule, for a backend where burn's autodiff records the composition.
///
/// `y = q + (v − detach(v))` with `v = x` where the gradient passes and 0 elsewhere: the bracket is exactly zero, so the
/// value is `q` bit for bit, and its derivative is the mask. Infinities would make the bracket NaN: they never pass.
pub(super) fn straight_through<B: Backend>(
    x: FloatTensor<B>,
    amax: FloatTensor<B>,
    spec: &FakeQuant,
) -> FloatTensor<B> {
    let blocked = match spec.gradient {
        GradientRule::PassThrough => B::float_is_inf(x.clone(), bool_dtype::<B>(&x)),
        GradientRule::Clipped => outside::<B>(B::float_detach(x.clone()), amax.clone(), spec),
    };
    let y = B::float_detach(fake_quant::<B>(B::float_detach(x.clone()), amax, spec));
    let passing = B::float_mask_fill(x, blocked, 0.0.into());
    let zero = B::float_sub(passing.clone(), B::float_detach(passing));
    B::float_add(y, zero)
}

fn outside<B: Backend>(
    x: FloatTensor<B>,
    amax: FloatTensor<B>,
    spec: &FakeQuant,
) -> burn::backend::tensor::BoolTensor<B> {
    let magnitude = B::float_abs(B::float_cast(x, FloatDType::F32));
    let amax = expand::<B>(amax, &spec.groups);
    let bools = bool_dtype::<B>(&amax);
    B::bool_not(B::float_lower_equal(magnitude, amax, bools))
}

/// The nearest E4M3 value by repeated comparison: base ops cannot read an exponent, and `log2` is not exact.
fn round_to_e4m3<B: Backend>(units: FloatTensor<B>) -> FloatTensor<B> {
    let units = B::float_clamp(units, (-E4m3.max()).into(), E4m3.max().into());
    let magnitude = B::float_abs(units.clone());
    let bools = bool_dtype::<B>(&units);
    // 2^-9, the step of subnormals and of the lowest binade, doubled for each binade above
    let zeros = B::float_mul_scalar(magnitude.clone(), 0.0.into());
    let mut step = B::float_add_scalar(zeros, 2f32.powi(-9).into());
    for exponent in -5..=8 {
        let above = B::float_greater_equal_elem(magnitude.clone(), 2f32.powi(exponent).into(), bools);
        step = B::float_mask_fill(step, above, 2f32.powi(exponent - 3).into());
    }
    B::float_mul(B::float_round(B::float_div(units, step.clone())), step)
}

/// Repeats the amax of each group over its elements: `[groups]` to the shape of the tensor.
fn expand<B: Backend>(amax: FloatTensor<B>, groups: &Groups) -> FloatTensor<B> {
    let segments = groups.segments();
    let counts: Vec<usize> = segments.iter().map(Segment::count).collect();
    let ones = |counts: &[usize], last: &dyn Fn(usize) -> usize| -> Shape {
        Shape::from(counts.iter().enumerate().flat_map(|(i, &count)| [count, last(i)]).collect::<Vec<_>>())
    };
    let amax = B::float_reshape(amax, ones(&counts, &|_| 1));
    let amax = B::float_expand(amax, ones(&counts, &|i| segments[i].block));
    let padded: Vec<usize> = segments.iter().map(|s| s.count() * s.block).collect();
    let amax = B::float_reshape(amax, Shape::from(padded));
    let slices: Vec<Slice> = segments.iter().map(|s| Slice::from(0..s.len)).collect();
    B::float_reshape(B::float_slice(amax, &slices), Shape::from(groups.shape().to_vec()))
}

fn bool_dtype<B: Backend>(tensor: &FloatTensor<B>) -> BoolDType {
    burn::backend::get_or_init_device_settings::<B>(&tensor.device()).bool_dtype
}
