//! The composition of burn's own ops that defines [`fake_quant`](super::fake_quant()); never optimised.

use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::backend::{Backend, Slice, TensorMetadata};
use burn::tensor::{BoolDType, DType, FloatDType, Shape};
use burn_quant_numerics::{BlockScale, Format, MIN_AMAX, Minifloat, NF4_TABLE};

use super::ranges::Limit;
use super::{Call, GradientRule, Scales, learned};
use crate::Groups;
use crate::group_amax::reference::group_amax;
use crate::groups::Segment;

/// Quantize and dequantize; the gradient of this composition is zero.
pub(crate) fn fake_quant<B: Backend>(
    x: FloatTensor<B>,
    amax: FloatTensor<B>,
    global_amax: FloatTensor<B>,
    bias: FloatTensor<B>,
    call: &Call,
) -> FloatTensor<B> {
    let dtype = x.dtype();
    let bias = biases::<B>(bias, call, dtype);
    let x = B::float_cast(shifted::<B>(x, bias.clone()), FloatDType::F32);
    let groups = &call.spec.groups;
    let amax = match call.scales {
        Scales::Static => amax,
        Scales::Dynamic => group_amax::<B>(x.clone(), groups),
        Scales::TwoLevel(BlockScale::Static | BlockScale::StaticFourOverSix) => amax,
        Scales::PowersOfTwo | Scales::TwoLevel(BlockScale::Dynamic) => group_amax::<B>(finite::<B>(x.clone()), groups),
    };
    let format = call.spec.format;
    let (to_grid, from_grid) = match call.scales {
        Scales::Static | Scales::Dynamic => f32_scales::<B>(amax, format),
        Scales::PowersOfTwo => powers_of_two::<B>(amax, format.max()),
        Scales::TwoLevel(BlockScale::Dynamic) if format == Format::E2M1 => {
            two_level_dynamic::<B>(amax, global_amax, format.max())
        }
        Scales::TwoLevel(BlockScale::Dynamic) => two_level_of_others::<B>(amax, global_amax, format.max()),
        Scales::TwoLevel(blocks) => two_level_static::<B>(amax, global_amax, format.max(), blocks),
    };
    let (to_grid, from_grid) = (expand::<B>(to_grid, groups), expand::<B>(from_grid, groups));
    let divides = format == Format::Nf4
        || matches!(call.scales, Scales::TwoLevel(blocks) if blocks != BlockScale::Dynamic || format == Format::E2M1);
    let units = if divides { B::float_div(x, to_grid) } else { B::float_mul(x, to_grid) };
    let symmetric = !matches!(call.scales, Scales::Static | Scales::Dynamic);
    let codes = round::<B>(units, format, symmetric);
    let integers = matches!(format, Format::Int(_)) && !symmetric;
    let y = if integers { B::float_div(codes, from_grid) } else { B::float_mul(codes, from_grid) };
    let y = B::float_cast(y, dtype.into());
    match bias {
        Some(bias) => B::float_add(y, bias),
        None => y,
    }
}

/// The values whose magnitudes are dynamic ranges: `x − bias` in f32, without what may not spoil the range of a block.
#[cfg(feature = "cube")]
pub(super) fn measured<B: Backend>(x: FloatTensor<B>, bias: FloatTensor<B>, call: &Call) -> FloatTensor<B> {
    let bias = biases::<B>(bias, call, x.dtype());
    let x = B::float_cast(shifted::<B>(x, bias), FloatDType::F32);
    if call.scales == Scales::Dynamic { x } else { finite::<B>(x) }
}

/// `grad` where `|x − bias| <= amax`, zero elsewhere.
pub(super) fn clip_gradient<B: Backend>(
    grad: FloatTensor<B>,
    x: FloatTensor<B>,
    amax: FloatTensor<B>,
    bias: FloatTensor<B>,
    call: &Call,
) -> FloatTensor<B> {
    B::float_mask_fill(grad, outside::<B>(x, amax, bias, call), 0.0.into())
}

/// [`fake_quant`] with its gradient rule, for a backend where burn's autodiff records the composition.
///
/// `y = q + (v − detach(v))` with `v = x` where the gradient passes and 0 elsewhere: the bracket is exactly zero, so
/// the value is `q` bit for bit, and its derivative is the mask. Infinities would make the bracket NaN: they never
/// pass.
pub(super) fn straight_through<B: Backend>(
    x: FloatTensor<B>,
    amax: FloatTensor<B>,
    global_amax: FloatTensor<B>,
    bias: FloatTensor<B>,
    call: &Call,
) -> FloatTensor<B> {
    if call.learns_range() {
        return learned_straight_through::<B>(x, amax, global_amax, bias, call);
    }
    let limit = call.clip().filter(|_| call.spec.gradient != GradientRule::PassThrough);
    let blocked = match limit {
        None => B::float_is_inf(x.clone(), bool_dtype::<B>(&x)),
        Some((limit, clip)) => {
            let amax = if limit == Limit::Global { global_amax.clone() } else { amax.clone() };
            let amax = limits::<B>(amax, x.dtype());
            outside::<B>(B::float_detach(x.clone()), amax, bias.clone(), &clip)
        }
    };
    let y = B::float_detach(fake_quant::<B>(B::float_detach(x.clone()), amax, global_amax, bias, call));
    let passing = B::float_mask_fill(x, blocked, 0.0.into());
    let zero = B::float_sub(passing.clone(), B::float_detach(passing));
    B::float_add(y, zero)
}

/// The same with a range that has a gradient: `y = q + (v + amax · k) − detach(v + amax · k)` with `k = ∂y/∂amax`.
fn learned_straight_through<B: Backend>(
    x: FloatTensor<B>,
    amax: FloatTensor<B>,
    global_amax: FloatTensor<B>,
    bias: FloatTensor<B>,
    call: &Call,
) -> FloatTensor<B> {
    let (constant, range) = (B::float_detach(x.clone()), B::float_detach(amax.clone()));
    let y = B::float_detach(fake_quant::<B>(constant.clone(), range.clone(), global_amax, bias, call));
    let passing = learned::gradient::<B>(x.clone(), constant.clone(), range.clone(), call);
    let groups = &call.spec.groups;
    let derivative = learned::derivative::<B>(constant, y.clone(), range.clone(), call);
    let derivative = learned::quotient::<B>(derivative, expand::<B>(range, groups));
    let of_range = B::float_mul(expand::<B>(amax, groups), B::float_detach(derivative));
    let both = B::float_add(B::float_cast(passing, FloatDType::F32), of_range);
    let zero = B::float_sub(both.clone(), B::float_detach(both));
    B::float_add(y, B::float_cast(zero, x.dtype().into()))
}

/// What the clipped rule compares magnitudes with: a single range is rounded to the dtype of the tensor, as the
/// reference's is, which is a scalar there and takes the dtype of what it is compared with. Ranges of groups are
/// compared in f32.
pub(super) fn limits<B: Backend>(amax: FloatTensor<B>, dtype: DType) -> FloatTensor<B> {
    if amax.shape().num_elements() > 1 {
        return amax;
    }
    B::float_cast(B::float_cast(amax, dtype.into()), FloatDType::F32)
}

fn outside<B: Backend>(x: FloatTensor<B>, amax: FloatTensor<B>, bias: FloatTensor<B>, call: &Call) -> BoolTensor<B> {
    let bias = biases::<B>(bias, call, x.dtype());
    let magnitude = B::float_abs(B::float_cast(shifted::<B>(x, bias), FloatDType::F32));
    let amax = expand::<B>(amax, &call.spec.groups);
    let bools = bool_dtype::<B>(&amax);
    B::bool_not(B::float_lower_equal(magnitude, amax, bools))
}

/// The bias of each element, in the dtype of the tensor.
fn biases<B: Backend>(bias: FloatTensor<B>, call: &Call, dtype: DType) -> Option<FloatTensor<B>> {
    call.bias.as_ref().map(|groups| B::float_cast(expand::<B>(bias, groups), dtype.into()))
}

fn shifted<B: Backend>(x: FloatTensor<B>, bias: Option<FloatTensor<B>>) -> FloatTensor<B> {
    match bias {
        Some(bias) => B::float_sub(x, bias),
        None => x,
    }
}

type Factors<B> = (FloatTensor<B>, FloatTensor<B>);

/// Integers divide both ways by `max / amax`, minifloats multiply by it and by its reciprocal, NF4 by amax.
fn f32_scales<B: Backend>(amax: FloatTensor<B>, format: Format) -> Factors<B> {
    let bools = bool_dtype::<B>(&amax);
    match format {
        Format::Int(_) => {
            let tiny = B::float_lower_equal_elem(amax.clone(), MIN_AMAX.into(), bools);
            let hi = B::float_full(amax.shape(), format.max().into(), &amax.device(), FloatDType::F32);
            let scale = B::float_div(hi, amax);
            (B::float_mask_fill(scale.clone(), tiny.clone(), 0.0.into()), B::float_mask_fill(scale, tiny, 1.0.into()))
        }
        Format::Nf4 => {
            let zero = B::float_equal_elem(amax.clone(), 0.0.into(), bools);
            let amax = B::float_mask_fill(amax, zero, 1.0.into());
            (amax.clone(), amax)
        }
        _ => minifloat_scale::<B>(amax, format.max()),
    }
}

fn minifloat_scale<B: Backend>(amax: FloatTensor<B>, max: f32) -> Factors<B> {
    let tiny = B::float_lower_equal_elem(amax.clone(), MIN_AMAX.into(), bool_dtype::<B>(&amax));
    let amax = B::float_mask_fill(amax, tiny, 1.0.into());
    let scale = B::float_mul_scalar(B::float_recip(amax), max.into());
    (scale.clone(), B::float_recip(scale))
}

/// `2^e`, `e = ⌈log2(amax / max)⌉`, by comparison: base ops cannot read an exponent.
fn powers_of_two<B: Backend>(amax: FloatTensor<B>, max: f32) -> Factors<B> {
    let bools = bool_dtype::<B>(&amax);
    let ratio = B::float_div_scalar(amax.clone(), max.into());
    let ones = B::float_ones(amax.shape(), &amax.device(), FloatDType::F32);
    // the exponent in binary: the answer is above e + k − 1 if and only if it is at least e + k
    let mut power = B::float_mul_scalar(ones.clone(), 2f32.powi(-127).into());
    for k in [128, 64, 32, 16, 8, 4, 2, 1] {
        let probe = B::float_mul_scalar(power.clone(), 2f32.powi(k - 1).into());
        let above = B::float_greater(ratio.clone(), probe.clone(), bools);
        let raised = B::float_mul_scalar(probe, 2.0.into());
        power = B::float_mask_where(power, above, raised);
    }
    let positive = B::float_greater_elem(amax.clone(), 0.0.into(), bools);
    let finite = B::bool_not(B::float_is_inf(amax, bools));
    let usable = B::bool_and(positive, finite);
    let power = B::float_mask_where(ones, usable, power);
    // both factors are exact; the reciprocal of 2^-127 is the largest power of two
    (B::float_recip(power.clone()), power)
}

fn two_level_dynamic<B: Backend>(amax: FloatTensor<B>, global_amax: FloatTensor<B>, max: f32) -> Factors<B> {
    let bools = bool_dtype::<B>(&amax);
    let tensor_scale = B::float_div_scalar(global_amax, (448.0 * max).into());
    let nothing = B::float_lower_equal_elem(tensor_scale.clone(), 0.0.into(), bools);
    let tensor_scale = B::float_mask_fill(tensor_scale, nothing, 1e-12f32.into());
    let unit = B::float_expand(B::float_mul_scalar(tensor_scale.clone(), max.into()), amax.shape());
    let tensor_scale = B::float_expand(tensor_scale, amax.shape());
    let units = B::float_clamp_max(B::float_div(amax, unit), 448.0.into());
    let scale = B::float_mul(to_minifloat::<B>(units, Minifloat::E4M3), tensor_scale);
    let large = B::float_greater_equal_elem(scale.clone(), 1e-5f32.into(), bools);
    let scale = B::float_mask_fill(scale, B::bool_not(large), 1.0.into());
    (scale.clone(), scale)
}

/// The scales of dynamic blocks of elements other than E2M1, in f64.
///
/// A device without f64 takes `448·(amax / global)` and `code · (global / (448·max))` in f32: codes of scales are the
/// same but where a rounding of f32 decides a tie, and scales are off by one unit in the last place.
fn two_level_of_others<B: Backend>(amax: FloatTensor<B>, global_amax: FloatTensor<B>, max: f32) -> Factors<B> {
    let bools = bool_dtype::<B>(&amax);
    let (device, shape) = (amax.device(), amax.shape());
    let positive = |x: FloatTensor<B>| {
        let bounded = B::float_lower_elem(x.clone(), f32::INFINITY.into(), bools);
        B::bool_and(B::float_greater_elem(x, 0.0.into(), bools), bounded)
    };
    let global = B::float_expand(global_amax, shape.clone());
    let usable = B::bool_and(positive(amax.clone()), positive(global.clone()));
    let code = |units| to_minifloat::<B>(B::float_clamp_max(units, 448.0.into()), Minifloat::E4M3);
    let scale = if B::supports_dtype(&device, DType::F64) {
        let wide = |x| B::float_cast(x, FloatDType::F64);
        let narrow = |x| B::float_cast(x, FloatDType::F32);
        let most = B::float_full(shape.clone(), max.into(), &device, FloatDType::F64);
        let k = B::float_mul_scalar(B::float_div(most, wide(global)), 448.0.into());
        let units = B::float_mul(B::float_div_scalar(wide(amax), max.into()), k.clone());
        narrow(B::float_div(wide(code(narrow(units))), k))
    } else {
        let unit = B::float_div_scalar(global.clone(), (448.0 * max).into());
        B::float_mul(code(B::float_mul_scalar(B::float_div(amax, global), 448.0.into())), unit)
    };
    let ones = B::float_ones(shape, &device, FloatDType::F32);
    let scale = B::float_mask_where(ones, usable, scale);
    let zero = B::float_equal_elem(scale.clone(), 0.0.into(), bools);
    let reciprocal = B::float_clamp_max(B::float_recip(scale.clone()), f32::MAX.into());
    (B::float_mask_fill(reciprocal, zero, 1.0.into()), scale)
}

fn two_level_static<B: Backend>(
    amax: FloatTensor<B>,
    global_amax: FloatTensor<B>,
    max: f32,
    blocks: BlockScale,
) -> Factors<B> {
    let bools = bool_dtype::<B>(&amax);
    let range = B::float_div_scalar(B::float_mul_scalar(global_amax, (448.0 / blocks.max()).into()), max.into());
    let (to_grid, from_grid) = minifloat_scale::<B>(range, Minifloat::E4M3.largest());
    let (to_grid, from_grid) = (B::float_expand(to_grid, amax.shape()), B::float_expand(from_grid, amax.shape()));
    let units = B::float_mul(B::float_div_scalar(amax, max.into()), to_grid);
    let scale = B::float_mul(to_minifloat::<B>(units, Minifloat::E4M3), from_grid);
    let finite = B::float_lower_elem(B::float_abs(scale.clone()), f32::INFINITY.into(), bools);
    let scale = B::float_mask_fill(scale, B::bool_not(finite), 1.0.into());
    let zero = B::float_equal_elem(scale.clone(), 0.0.into(), bools);
    (B::float_mask_fill(scale.clone(), zero, 1.0.into()), scale)
}

/// The points of the grid that are nearest, in its units.
fn round<B: Backend>(units: FloatTensor<B>, format: Format, symmetric: bool) -> FloatTensor<B> {
    match (format, format.minifloat()) {
        (_, Some(minifloat)) => to_minifloat::<B>(units, minifloat),
        (Format::Int(format), _) => {
            let grid = if symmetric { format.grid().symmetric() } else { format.grid() };
            B::float_round(B::float_clamp(units, grid.lo().into(), grid.hi().into()))
        }
        _ => to_nf4::<B>(units),
    }
}

/// The nearest minifloat by repeated comparison: base ops cannot read an exponent, and `log2` is not exact.
fn to_minifloat<B: Backend>(units: FloatTensor<B>, format: Minifloat) -> FloatTensor<B> {
    let units = B::float_clamp(units, (-format.largest()).into(), format.largest().into());
    let magnitude = B::float_abs(units.clone());
    let bools = bool_dtype::<B>(&units);
    // the step of subnormals and of the lowest binade, doubled for each binade above
    let (mut power, steps) = (format.min_normal(), 2f32.powi(format.mantissa_bits().into()));
    let zeros = B::float_mul_scalar(magnitude.clone(), 0.0.into());
    let mut step = B::float_add_scalar(zeros, (power / steps).into());
    while power * 2.0 <= format.largest() {
        power *= 2.0;
        let above = B::float_greater_equal_elem(magnitude.clone(), power.into(), bools);
        step = B::float_mask_fill(step, above, (power / steps).into());
    }
    B::float_mul(B::float_round(B::float_div(units, step.clone())), step)
}

/// The nearest value of the table, the first of equally near ones.
fn to_nf4<B: Backend>(units: FloatTensor<B>) -> FloatTensor<B> {
    let bools = bool_dtype::<B>(&units);
    let distance = |value: f32| B::float_abs(B::float_sub_scalar(units.clone(), value.into()));
    let mut least = distance(NF4_TABLE[0]);
    let mut nearest = B::float_add_scalar(B::float_mul_scalar(least.clone(), 0.0.into()), NF4_TABLE[0].into());
    for value in &NF4_TABLE[1..] {
        let distance = distance(*value);
        let closer = B::float_lower(distance.clone(), least.clone(), bools);
        nearest = B::float_mask_fill(nearest, closer.clone(), (*value).into());
        least = B::float_mask_where(least, closer, distance);
    }
    let above = B::float_greater_elem(units.clone(), 1.0.into(), bools);
    let below = B::float_lower_elem(units, (-1.0).into(), bools);
    B::float_mask_fill(B::float_mask_fill(nearest, above, 1.0.into()), below, (-1.0).into())
}

/// NaN as zero and infinities as the largest numbers: what may not spoil the range of a block.
fn finite<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let bools = bool_dtype::<B>(&x);
    let nan = B::float_is_nan(x.clone(), bools);
    B::float_clamp(B::float_mask_fill(x, nan, 0.0.into()), f32::MIN.into(), f32::MAX.into())
}

/// Repeats the value of each group over its elements: `[groups]` to the shape of the tensor.
pub(super) fn expand<B: Backend>(values: FloatTensor<B>, groups: &Groups) -> FloatTensor<B> {
    let segments = groups.segments();
    let counts: Vec<usize> = segments.iter().map(Segment::count).collect();
    let ones = |counts: &[usize], last: &dyn Fn(usize) -> usize| -> Shape {
        Shape::from(counts.iter().enumerate().flat_map(|(i, &count)| [count, last(i)]).collect::<Vec<_>>())
    };
    let values = B::float_reshape(values, ones(&counts, &|_| 1));
    let values = B::float_expand(values, ones(&counts, &|i| segments[i].block));
    let padded: Vec<usize> = segments.iter().map(|s| s.count() * s.block).collect();
    let values = B::float_reshape(values, Shape::from(padded));
    let slices: Vec<Slice> = segments.iter().map(|s| Slice::from(0..s.len)).collect();
    B::float_reshape(B::float_slice(values, &slices), Shape::from(groups.shape().to_vec()))
}

pub(super) fn bool_dtype<B: Backend>(tensor: &FloatTensor<B>) -> BoolDType {
    burn::backend::get_or_init_device_settings::<B>(&tensor.device()).bool_dtype
}
