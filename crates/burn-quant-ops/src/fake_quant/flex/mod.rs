//! The fused CPU kernels: one read and one write per element, on all cores, in place if the buffer is uniquely owned.
//!
//! * `grids` the arithmetic of a call, chosen once; the loops are those of `burn-quant-numerics`, compiled for the
//!   vector instructions at hand
//! * `rounding` given ranges, in any layout
//! * `dynamic` ranges from the data, found while it is in the cache
//! * `shift` a bias around either
//! * `clipping` the clipped gradient
//! * `reciprocal` exact division without dividing
//!
//! Any dense memory order is kept as it is, so a transposed weight stays transposed.

mod clipping;
mod dynamic;
mod grids;
mod reciprocal;
mod rounding;
mod shift;

use burn::backend::Flex;
use burn::backend::tensor::FloatTensor;
use burn::tensor::{Bytes, DType, bf16, f16};
use burn_flex::FlexTensor;
use burn_quant_numerics::Grid;

use self::clipping::Clipping;
use self::dynamic::{Blocks, columns};
use self::grids::{Grids, WithGrids, with_grids};
use self::rounding::Rounding;
use self::shift::{Shift, Shifted, Shifting};
use super::layout::Layout;
use super::{Call, FakeQuantOps};
use crate::flex::{FlexElement, Kernel, densely, elements, elements_mut, map, row_major, update};
use crate::group_amax::reduce;
use crate::groups::Segment;

impl FakeQuantOps for Flex {
    fn fake_quant(
        x: FloatTensor<Self>,
        amax: FloatTensor<Self>,
        global_amax: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        call: Call,
    ) -> FloatTensor<Self> {
        match x.dtype() {
            DType::F32 => fake_quant::<f32>(x, &amax, &global_amax, &bias, &call),
            DType::F16 => fake_quant::<f16>(x, &amax, &global_amax, &bias, &call),
            DType::BF16 => fake_quant::<bf16>(x, &amax, &global_amax, &bias, &call),
            other => unreachable!("fake_quant: no kernel for {other:?}"),
        }
    }

    fn fake_quant_clip_gradient(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        amax: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        call: Call,
    ) -> FloatTensor<Self> {
        match x.dtype() {
            DType::F32 => clip_gradient::<f32>(grad, x, &amax, &bias, &call),
            DType::F16 => clip_gradient::<f16>(grad, x, &amax, &bias, &call),
            DType::BF16 => clip_gradient::<bf16>(grad, x, &amax, &bias, &call),
            other => unreachable!("fake_quant: no kernel for {other:?}"),
        }
    }
}

fn fake_quant<E: FlexElement>(
    x: FlexTensor,
    amax: &FlexTensor,
    global_amax: &FlexTensor,
    bias: &FlexTensor,
    call: &Call,
) -> FlexTensor {
    let (x, order) = densely(x);
    let bias = shift::<E>(bias, call, &order);
    let amax = if call.scales.is_dynamic() { None } else { Some(values(amax)) };
    let segments = call.spec.groups.segments_in_order(order);
    let global_amax = values(global_amax)[0];
    with_grids(call, global_amax, Work { x, amax, segments, bias, groups: call.spec.groups.len() })
}

/// A tensor of elements `E` on its way through a grid.
struct Work<E> {
    x: FlexTensor,
    /// Given ranges; else they are taken from the data.
    amax: Option<Vec<f32>>,
    segments: Vec<Segment>,
    bias: Option<Shift<E>>,
    groups: usize,
}

impl<E: FlexElement> WithGrids for Work<E> {
    type Output = FlexTensor;

    fn call<Fast: Grid + 'static, Exact: Grid + 'static>(self, grids: Grids<Fast, Exact>) -> FlexTensor {
        let Self { x, amax, segments, bias, groups } = self;
        let Some(amax) = amax else {
            let layout = Some(Layout::of(&segments)).filter(|layout| dynamic::fits(*layout));
            return match layout.unwrap_or(Layout::Scattered) {
                Layout::Runs { row, block } => around::<E>(x, Blocks { grids, row, block }, bias.as_ref()),
                Layout::Columns { rows, columns: width, block } => shifted::<E>(x, bias.as_ref(), |x| {
                    let y = columns(elements::<E>(&x), rows, width, block, &grids);
                    like(&x, y)
                }),
                Layout::Scattered => shifted::<E>(x, bias.as_ref(), |x| {
                    let amax = reduce::<E, _>(elements(&x), &segments, groups, grids.exact);
                    given::<E, _, _>(x, segments, &amax, None, grids)
                }),
            };
        };
        given(x, segments, &amax, bias.as_ref(), grids)
    }
}

/// Fake quantization under one given range, for kernels that round what they write.
pub(crate) fn rounding_of_range(call: &Call, amax: f32) -> Box<dyn Kernel> {
    let groups = &call.spec.groups;
    with_grids(call, 1.0, OfRange { segments: groups.segments_in_order(0..groups.shape().len()), amax })
}

/// A range on its way to its grid.
struct OfRange {
    segments: Vec<Segment>,
    amax: f32,
}

impl WithGrids for OfRange {
    type Output = Box<dyn Kernel>;

    fn call<Fast: Grid + 'static, Exact: Grid + 'static>(self, grids: Grids<Fast, Exact>) -> Self::Output {
        let amax = [self.amax];
        match (grids.fits)(&grids.fast, &amax) {
            true => Box::new(Rounding::new(grids.fast, self.segments, &amax)),
            false => Box::new(Rounding::new(grids.exact, self.segments, &amax)),
        }
    }
}

/// Fake quantization with the ranges given.
fn given<E: FlexElement, Fast: Grid, Exact: Grid>(
    x: FlexTensor,
    segments: Vec<Segment>,
    amax: &[f32],
    bias: Option<&Shift<E>>,
    grids: Grids<Fast, Exact>,
) -> FlexTensor {
    if (grids.fits)(&grids.fast, amax) {
        around::<E>(x, Rounding::new(grids.fast, segments, amax), bias)
    } else {
        around::<E>(x, Rounding::new(grids.exact, segments, amax), bias)
    }
}

/// A kernel with the bias around it, in one pass.
fn around<E: FlexElement>(x: FlexTensor, kernel: impl Kernel, bias: Option<&Shift<E>>) -> FlexTensor {
    match bias {
        Some(bias) => run::<E>(x, &Shifted { kernel, bias }),
        None => run::<E>(x, &kernel),
    }
}

/// Work with the bias around it, in passes of its own.
fn shifted<E: FlexElement>(
    x: FlexTensor,
    bias: Option<&Shift<E>>,
    work: impl FnOnce(FlexTensor) -> FlexTensor,
) -> FlexTensor {
    match bias {
        Some(bias) => {
            let shifted = run::<E>(x, &Shifting::Down(bias));
            run::<E>(work(shifted), &Shifting::Up(bias))
        }
        None => work(x),
    }
}

fn clip_gradient<E: FlexElement>(
    grad: FlexTensor,
    x: FlexTensor,
    amax: &FlexTensor,
    bias: &FlexTensor,
    call: &Call,
) -> FlexTensor {
    let (mut x, mut order) = densely(x);
    let (mut grad, grad_order) = densely(grad);
    if grad_order != order {
        (x, order) = row_major(x);
        (grad, _) = row_major(grad);
    }
    let bias = shift::<E>(bias, call, &order);
    let segments = call.spec.groups.segments_in_order(order);
    run::<E>(grad, &Clipping { inputs: elements::<E>(&x), segments, amax: values(amax), bias })
}

fn shift<E: FlexElement>(bias: &FlexTensor, call: &Call, order: &[usize]) -> Option<Shift<E>> {
    let groups = call.bias.as_ref()?;
    Some(Shift::new(groups.segments_in_order(order.iter().copied()), values(bias)))
}

/// Runs a kernel over a dense tensor, in place if its buffer is uniquely owned.
fn run<E: FlexElement>(mut x: FlexTensor, kernel: &impl Kernel) -> FlexTensor {
    match elements_mut::<E>(&mut x) {
        Some(data) => {
            update(data, kernel);
            x
        }
        None => like(&x, map(elements::<E>(&x), kernel)),
    }
}

/// A tensor over a new buffer in the memory order of `original`.
fn like<E: FlexElement>(original: &FlexTensor, data: Vec<E>) -> FlexTensor {
    let layout = burn_flex::Layout::new(original.layout().shape().clone(), original.layout().strides().to_vec(), 0);
    FlexTensor::new(Bytes::from_elems(data), layout, original.dtype())
}

fn values(tensor: &FlexTensor) -> Vec<f32> {
    elements::<f32>(&densely(tensor.clone()).0).to_vec()
}
