//! The gradients of the rules that learn ranges, composed of burn's own ops for every backend.
//!
//! ```text
//!                          where the grid reaches        beyond it
//! dL/dx                    dL/dy                         0
//! dL/damax, Lsq            Σ dL/dy · (y − x) / amax      Σ dL/dy · y / amax
//! dL/damax, Pact           0                             Σ dL/dy · y / amax
//! ```
//!
//! The grid reaches from `lo` to `hi` steps: for two signed bits from −2 to 1 times amax. A range of zero has no
//! gradient.

use burn::backend::Backend;
use burn::backend::tensor::{BoolTensor, FloatTensor};
use burn::tensor::FloatDType;
use burn_quant_numerics::{Format, MIN_AMAX};

use super::reference::{bool_dtype, expand};
use super::{Call, GradientRule};
use crate::group_amax::reference::reduce;

/// `grad` where the grid reaches, zero elsewhere.
pub(super) fn gradient<B: Backend>(
    grad: FloatTensor<B>,
    x: FloatTensor<B>,
    amax: FloatTensor<B>,
    call: &Call,
) -> FloatTensor<B> {
    B::float_mask_fill(grad, beyond::<B>(f32::<B>(x), amax, call), 0.0.into())
}

/// The gradient of each range.
pub(super) fn range_gradient<B: Backend>(
    grad: FloatTensor<B>,
    x: FloatTensor<B>,
    y: FloatTensor<B>,
    amax: FloatTensor<B>,
    call: &Call,
) -> FloatTensor<B> {
    let derivative = derivative::<B>(x, y, amax.clone(), call);
    let sums = reduce::<B>(B::float_mul(f32::<B>(grad), derivative), &call.spec.groups, B::float_sum_dim);
    quotient::<B>(sums, amax)
}

/// `∂y/∂amax · amax` of each element, f32.
pub(super) fn derivative<B: Backend>(
    x: FloatTensor<B>,
    y: FloatTensor<B>,
    amax: FloatTensor<B>,
    call: &Call,
) -> FloatTensor<B> {
    let (x, y) = (f32::<B>(x), f32::<B>(y));
    let beyond = beyond::<B>(x.clone(), amax, call);
    match call.spec.gradient {
        GradientRule::Pact => B::float_mask_fill(y, B::bool_not(beyond), 0.0.into()),
        _ => B::float_sub(y, B::float_mask_fill(x, beyond, 0.0.into())),
    }
}

/// Values over ranges, 0 where the range is.
pub(super) fn quotient<B: Backend>(values: FloatTensor<B>, amax: FloatTensor<B>) -> FloatTensor<B> {
    let tiny = B::float_lower_equal_elem(amax.clone(), MIN_AMAX.into(), bool_dtype::<B>(&amax));
    B::float_mask_fill(B::float_div(values, amax), tiny, 0.0.into())
}

/// Where the grid does not reach; NaN is beyond.
pub(super) fn beyond<B: Backend>(x: FloatTensor<B>, amax: FloatTensor<B>, call: &Call) -> BoolTensor<B> {
    let highest = expand::<B>(amax, &call.spec.groups);
    let lowest = B::float_mul_scalar(highest.clone(), lowest(call.spec.format).into());
    let bools = bool_dtype::<B>(&highest);
    let reaches =
        B::bool_and(B::float_lower_equal(x.clone(), highest, bools), B::float_greater_equal(x, lowest, bools));
    B::bool_not(reaches)
}

/// The lowest value of a grid whose highest is 1.
fn lowest(format: Format) -> f32 {
    match format {
        Format::Int(int) => int.grid().lo() as f32 / int.grid().hi() as f32,
        _ => -1.0,
    }
}

fn f32<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    B::float_cast(x, FloatDType::F32)
}
