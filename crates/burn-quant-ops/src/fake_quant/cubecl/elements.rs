//! Given ranges: a unit per vector of elements. And the clipped gradient, which is laid out alike.

use burn::backend::cubecl::dtype_to_storage_type;
use burn_cubecl::tensor::CubeTensor;
use cubecl::calculate_cube_count_elemwise;
use cubecl::prelude::*;
use cubecl::std::tensor::layout::linear::{LinearView, LinearViewMut};

use super::arithmetic::{Arithmetic, Elements, Grid, ScaleRule, factors, quantize};
use super::groups::{Division, Read, division, value_of};
use super::{Target, has_f64, vector_size};
use crate::fake_quant::Call;

pub(super) fn fake_quant(
    x: CubeTensor,
    amax: CubeTensor,
    global_amax: CubeTensor,
    bias: CubeTensor,
    call: &Call,
) -> CubeTensor {
    let vector = vector_size(&[&x], call.spec.groups.shape());
    let units = call.spec.groups.shape().iter().product::<usize>() / vector;
    let dim = CubeDim::new(&x.client, units);
    let count = calculate_cube_count_elemwise(&x.client, units, dim);
    let Arithmetic { elements, rule, grid } = Arithmetic::of(call, has_f64(&x));
    let Target { y, view } = Target::of(&x);
    // SAFETY: the kernel checks its position against the output, which has the shape of `x`; the groups of those
    // positions are within amax and bias, whose lengths the caller has checked.
    unsafe {
        fake_quant_kernel::launch_unchecked(
            &y.client,
            count,
            dim,
            x.required_address_type().max(amax.required_address_type()).max(bias.required_address_type()),
            vector,
            x.into_linear_view(),
            amax.into_linear_view(),
            global_amax.into_linear_view(),
            bias.into_linear_view(),
            view,
            division(Some(&call.spec.groups)),
            division(call.bias.as_ref()),
            grid,
            Read::of(&call.spec.groups, vector),
            call.bias.as_ref().map(|groups| Read::of(groups, vector)),
            elements,
            rule,
            dtype_to_storage_type(y.dtype),
        );
    }
    y
}

pub(super) fn clip_gradient(
    grad: CubeTensor,
    x: CubeTensor,
    amax: CubeTensor,
    bias: CubeTensor,
    call: &Call,
) -> CubeTensor {
    let vector = vector_size(&[&grad, &x], call.spec.groups.shape());
    let units = call.spec.groups.shape().iter().product::<usize>() / vector;
    let dim = CubeDim::new(&grad.client, units);
    let count = calculate_cube_count_elemwise(&grad.client, units, dim);
    let Target { y, view } = Target::of(&grad);
    let address = grad.required_address_type().max(x.required_address_type());
    // SAFETY: as above; `x` has the shape of the gradient.
    unsafe {
        clip_gradient_kernel::launch_unchecked(
            &y.client,
            count,
            dim,
            address.max(amax.required_address_type()).max(bias.required_address_type()),
            vector,
            grad.into_linear_view(),
            x.into_linear_view(),
            amax.into_linear_view(),
            bias.into_linear_view(),
            view,
            division(Some(&call.spec.groups)),
            division(call.bias.as_ref()),
            Read::of(&call.spec.groups, vector),
            call.bias.as_ref().map(|groups| Read::of(groups, vector)),
            dtype_to_storage_type(y.dtype),
        );
    }
    y
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn fake_quant_kernel<F: Float, N: Size>(
    x: LinearView<'_, Vector<F, N>>,
    amax: LinearView<'_, f32>,
    global_amax: LinearView<'_, f32>,
    bias: LinearView<'_, f32>,
    mut y: LinearViewMut<'_, Vector<F, N>>,
    groups: Division,
    bias_groups: Division,
    grid: Grid,
    #[comptime] read: Read,
    #[comptime] bias_read: Option<Read>,
    #[comptime] elements: Elements,
    #[comptime] rule: ScaleRule,
    #[define(F)] _dtype: ElemType,
) {
    if !y.is_in_bounds(ABSOLUTE_POS) {
        terminate!();
    }
    let value = shifted::<F, N>(x.read(ABSOLUTE_POS), &bias, &bias_groups, ABSOLUTE_POS, bias_read);
    let range = value_of::<N>(&amax, &groups, ABSOLUTE_POS, read);
    let scale = factors::<N>(range, global_amax.read(0), &grid, elements, rule);
    let result = quantize::<N>(value, range, &scale, &grid, elements, rule);
    y.write(ABSOLUTE_POS, unshifted::<F, N>(result, &bias, &bias_groups, ABSOLUTE_POS, bias_read));
}

/// `x − bias`, rounded to the dtype of `x`.
#[cube]
pub(super) fn shifted<F: Float, N: Size>(
    x: Vector<F, N>,
    bias: &LinearView<'_, f32>,
    groups: &Division,
    position: usize,
    #[comptime] read: Option<Read>,
) -> Vector<f32, N> {
    match read {
        None => Vector::<f32, N>::cast_from(x),
        Some(read) => {
            let bias = Vector::<F, N>::cast_from(value_of::<N>(bias, groups, position, read));
            let difference = Vector::<f32, N>::cast_from(x) - Vector::<f32, N>::cast_from(bias);
            Vector::<f32, N>::cast_from(Vector::<F, N>::cast_from(difference))
        }
    }
}

/// `result + bias`, each rounded to the dtype of `x`.
#[cube]
pub(super) fn unshifted<F: Float, N: Size>(
    result: Vector<f32, N>,
    bias: &LinearView<'_, f32>,
    groups: &Division,
    position: usize,
    #[comptime] read: Option<Read>,
) -> Vector<F, N> {
    match read {
        None => Vector::<F, N>::cast_from(result),
        Some(read) => {
            let bias = Vector::<F, N>::cast_from(value_of::<N>(bias, groups, position, read));
            let rounded = Vector::<f32, N>::cast_from(Vector::<F, N>::cast_from(result));
            Vector::<F, N>::cast_from(rounded + Vector::<f32, N>::cast_from(bias))
        }
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn clip_gradient_kernel<F: Float, N: Size>(
    grad: LinearView<'_, Vector<F, N>>,
    x: LinearView<'_, Vector<F, N>>,
    amax: LinearView<'_, f32>,
    bias: LinearView<'_, f32>,
    mut output: LinearViewMut<'_, Vector<F, N>>,
    groups: Division,
    bias_groups: Division,
    #[comptime] read: Read,
    #[comptime] bias_read: Option<Read>,
    #[define(F)] _dtype: ElemType,
) {
    if !output.is_in_bounds(ABSOLUTE_POS) {
        terminate!();
    }
    let value = shifted::<F, N>(x.read(ABSOLUTE_POS), &bias, &bias_groups, ABSOLUTE_POS, bias_read);
    let range = value_of::<N>(&amax, &groups, ABSOLUTE_POS, read);
    let grad = grad.read(ABSOLUTE_POS);
    let inside = Vector::abs(value).less_equal(&range);
    output.write(ABSOLUTE_POS, select_many(inside, grad, Vector::new(F::new(0.0_f32))));
}
