//! The fused GPU kernel, for every CubeCL runtime: one vectorised read and write per element, in place if the buffer can
//! be reused.
//!
//! Linear views number elements row-major whatever their strides, so the group of an element follows from its number.
//! Where all lanes of a vector share a group, which is the rule, the kernel reads one amax per vector; otherwise one per
//! lane. Rounding uses the `round` instruction and the integer E4M3 codec: adding a large constant does not survive
//! fast-math. Minima and maxima of a GPU drop NaN, so NaN is selected back at the end.

use burn::backend::cubecl::dtype_to_storage_type;
use burn::backend::tensor::FloatTensor;
use burn_cubecl::{CubeBackend, ops::numeric::empty_device_dtype, tensor::CubeTensor};
use burn_quant_numerics::{E4m3, Format, Grid, MIN_AMAX};
use cubecl::post_processing::minifloat::{f32_to_fp8_bits, fp8_bits_to_f32};
use cubecl::prelude::*;
use cubecl::std::FastDivmod;
use cubecl::std::tensor::layout::linear::{LinearView, LinearViewMut};
use cubecl::{calculate_cube_count_elemwise, ir::types::Fp8Format, tensor_vector_size_parallel};

use super::{FakeQuant, FakeQuantOps};
use crate::groups::Segment;

/// How a vector of elements finds its amax.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum AmaxRead {
    /// There is one amax.
    Single,
    /// All lanes of a vector belong to one group.
    PerVector,
    /// Each lane has its own group.
    PerLane,
}

/// The arithmetic, chosen when the kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Arithmetic {
    Int,
    E4M3,
}

impl FakeQuantOps for CubeBackend {
    fn fake_quant(x: FloatTensor<Self>, amax: FloatTensor<Self>, spec: FakeQuant) -> FloatTensor<Self> {
        let (arithmetic, lo, hi) = match spec.format {
            Format::Int(format) => (Arithmetic::Int, format.grid().lo() as f32, format.grid().hi() as f32),
            Format::E4M3 => (Arithmetic::E4M3, -E4m3.max(), E4m3.max()),
            other => unreachable!("no CubeCL kernel for {other}"),
        };
        let plan = Plan::new(&[&x], &spec);
        let output = if x.can_mut() && x.is_nonoverlapping() { None } else { Some(like(&x)) };
        let y = output.clone().unwrap_or_else(|| x.clone());
        let view = match output {
            Some(output) => output.into_linear_view(),
            None => x.as_linear_view_alias(0),
        };
        // SAFETY: the kernel checks its position against the output, which has the shape of `x`, and the groups of those
        // positions are within amax, whose length the caller has checked.
        unsafe {
            fake_quant_kernel::launch_unchecked(
                &y.client,
                plan.count,
                plan.dim,
                x.required_address_type().max(amax.required_address_type()),
                plan.vector,
                x.into_linear_view(),
                amax.into_linear_view(),
                view,
                plan.lens,
                plan.blocks,
                plan.strides,
                lo,
                hi,
                plan.read,
                arithmetic,
                dtype_to_storage_type(y.dtype),
            );
        }
        y
    }

    fn fake_quant_clip_gradient(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        amax: FloatTensor<Self>,
        spec: FakeQuant,
    ) -> FloatTensor<Self> {
        let plan = Plan::new(&[&grad, &x], &spec);
        let output = if grad.can_mut() && grad.is_nonoverlapping() { None } else { Some(like(&grad)) };
        let result = output.clone().unwrap_or_else(|| grad.clone());
        let view = match output {
            Some(output) => output.into_linear_view(),
            None => grad.as_linear_view_alias(0),
        };
        // SAFETY: as above; `x` has the shape of the gradient.
        unsafe {
            clip_gradient_kernel::launch_unchecked(
                &result.client,
                plan.count,
                plan.dim,
                grad.required_address_type().max(x.required_address_type()).max(amax.required_address_type()),
                plan.vector,
                grad.into_linear_view(),
                x.into_linear_view(),
                amax.into_linear_view(),
                view,
                plan.lens,
                plan.blocks,
                plan.strides,
                plan.read,
                dtype_to_storage_type(result.dtype),
            );
        }
        result
    }
}

fn like(x: &CubeTensor) -> CubeTensor {
    empty_device_dtype(x.client.clone(), x.device.clone(), x.meta.shape().clone(), x.dtype)
}

/// The launch of one element-wise kernel.
struct Plan {
    vector: usize,
    dim: CubeDim,
    count: CubeCount,
    read: AmaxRead,
    lens: SequenceArg<FastDivmod<usize>>,
    blocks: SequenceArg<FastDivmod<usize>>,
    strides: SequenceArg<usize>,
}

impl Plan {
    fn new(tensors: &[&CubeTensor], spec: &FakeQuant) -> Self {
        let client = &tensors[0].client;
        let axis = spec.groups.shape().len().saturating_sub(1);
        let vector = tensors.iter().map(|tensor| {
            let sizes = client.io_optimized_vector_sizes(tensor.dtype.size());
            tensor_vector_size_parallel(sizes, tensor.meta.shape(), tensor.meta.strides(), axis)
        });
        let vector = vector.min().expect("a kernel reads at least one tensor");
        let units = spec.groups.shape().iter().product::<usize>() / vector;
        let dim = CubeDim::new(client, units);
        let count = calculate_cube_count_elemwise(client, units, dim);
        let segments = spec.groups.segments();
        let inner = segments.last().expect("a division has at least one segment");
        let read = match spec.groups.len() {
            1 => AmaxRead::Single,
            _ if inner.len.is_multiple_of(vector) && inner.block.is_multiple_of(vector) => AmaxRead::PerVector,
            _ => AmaxRead::PerLane,
        };
        let (mut lens, mut blocks, mut strides) = (SequenceArg::new(), SequenceArg::new(), SequenceArg::new());
        for Segment { len, block, stride } in segments {
            lens.push(len);
            blocks.push(block);
            strides.push(stride);
        }
        Self { vector, dim, count, read, lens, blocks, strides }
    }
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn fake_quant_kernel<F: Float, N: Size>(
    x: LinearView<'_, Vector<F, N>>,
    amax: LinearView<'_, f32>,
    mut y: LinearViewMut<'_, Vector<F, N>>,
    lens: Sequence<FastDivmod<usize>>,
    blocks: Sequence<FastDivmod<usize>>,
    strides: Sequence<usize>,
    lo: f32,
    hi: f32,
    #[comptime] read: AmaxRead,
    #[comptime] arithmetic: Arithmetic,
    #[define(F)] _dtype: ElemType,
) {
    if !y.is_in_bounds(ABSOLUTE_POS) {
        terminate!();
    }
    let value = Vector::<f32, N>::cast_from(x.read(ABSOLUTE_POS));
    let range = amax_of::<N>(amax, lens, blocks, strides, read);
    let tiny = range.less_equal(&Vector::new(MIN_AMAX));
    let zero = Vector::new(0.0f32);
    let one = Vector::new(1.0f32);
    let result = match arithmetic {
        Arithmetic::Int => {
            let scale = Vector::new(hi) / select_many(tiny, one, range);
            let to_grid = select_many(tiny, zero, scale);
            let from_grid = select_many(tiny, one, scale);
            let units = clamp(value * to_grid, Vector::new(lo), Vector::new(hi));
            Vector::round(units) / from_grid
        }
        Arithmetic::E4M3 => {
            let scale = Vector::new(hi) * (one / select_many(tiny, one, range));
            let units = clamp(value * scale, Vector::new(lo), Vector::new(hi));
            let bits = f32_to_fp8_bits::<N>(units, Fp8Format::E4M3);
            fp8_bits_to_f32::<N>(bits, Fp8Format::E4M3) * (one / scale)
        }
    };
    let result = select_many(Vector::is_nan(range), range, result);
    let result = select_many(Vector::is_nan(value), value, result);
    y.write(ABSOLUTE_POS, Vector::cast_from(result));
}

#[cube(launch_unchecked, address_type = "dynamic")]
fn clip_gradient_kernel<F: Float, N: Size>(
    grad: LinearView<'_, Vector<F, N>>,
    x: LinearView<'_, Vector<F, N>>,
    amax: LinearView<'_, f32>,
    mut output: LinearViewMut<'_, Vector<F, N>>,
    lens: Sequence<FastDivmod<usize>>,
    blocks: Sequence<FastDivmod<usize>>,
    strides: Sequence<usize>,
    #[comptime] read: AmaxRead,
    #[define(F)] _dtype: ElemType,
) {
    if !output.is_in_bounds(ABSOLUTE_POS) {
        terminate!();
    }
    let magnitude = Vector::abs(Vector::<f32, N>::cast_from(x.read(ABSOLUTE_POS)));
    let range = amax_of::<N>(amax, lens, blocks, strides, read);
    let grad = grad.read(ABSOLUTE_POS);
    let inside = magnitude.less_equal(&range);
    output.write(ABSOLUTE_POS, select_many(inside, grad, Vector::new(F::new(0.0_f32))));
}

/// The amax of each element of the vector at this unit's position.
#[cube]
fn amax_of<N: Size>(
    amax: LinearView<'_, f32>,
    lens: Sequence<FastDivmod<usize>>,
    blocks: Sequence<FastDivmod<usize>>,
    strides: Sequence<usize>,
    #[comptime] read: AmaxRead,
) -> Vector<f32, N> {
    let first = ABSOLUTE_POS * N::value();
    match read {
        AmaxRead::Single => Vector::new(amax.read(0)),
        AmaxRead::PerVector => Vector::new(amax.read(group_of(first, &lens, &blocks, &strides))),
        AmaxRead::PerLane => {
            let mut lanes = Vector::<f32, N>::empty();
            #[unroll]
            for lane in 0..N::value() {
                lanes.insert(lane, amax.read(group_of(first + lane, &lens, &blocks, &strides)));
            }
            lanes
        }
    }
}

#[cube]
fn group_of(
    element: usize,
    lens: &Sequence<FastDivmod<usize>>,
    blocks: &Sequence<FastDivmod<usize>>,
    strides: &Sequence<usize>,
) -> usize {
    let rank = lens.len().comptime();
    let mut rest = element;
    let mut group = 0usize;
    #[unroll]
    for i in 0..rank {
        let segment = comptime![rank - i - 1];
        let (outer, index) = lens[segment].div_mod(rest);
        let (block, _within) = blocks[segment].div_mod(index);
        group += block * strides[segment];
        rest = outer;
    }
    group
}

/// The kernels without fusion around them; the specification runs them under fusion.
#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use super::*;
    use crate::{AxisGroups, GradientRule, Groups};
    use burn::backend::{ops::FloatTensorOps, read_sync};
    use burn::tensor::TensorData;
    use burn_cubecl::CubeDevice;
    use burn_quant_numerics::IntFormat;

    fn tensor(values: Vec<f32>, shape: &[usize]) -> CubeTensor {
        let device = CubeDevice::Wgpu(Default::default());
        CubeBackend::float_from_data(TensorData::new(values, shape.to_vec()), &device)
    }

    fn values(tensor: CubeTensor) -> Vec<f32> {
        let data = read_sync(CubeBackend::float_into_data(tensor)).expect("a tensor that can be read");
        data.try_into_vec().expect("f32 values")
    }

    fn spread(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + 13) % 1009) as f32 / 250.0 - 2.0).collect()
    }

    #[test]
    fn kernels_equal_the_reference_for_one_amax_per_tensor_per_vector_and_per_lane() {
        use AxisGroups::{Blocks, Each, Whole};
        let shape = [6, 40];
        for axes in
            [[Whole, Whole], [Each, Whole], [Whole, Each], [Each, Blocks(8)], [Each, Blocks(14)], [Blocks(4), Each]]
        {
            for format in [IntFormat::signed(4).unwrap().into(), Format::E4M3] {
                let groups = Groups::new(&shape, &axes);
                let spec = FakeQuant { format, groups, gradient: GradientRule::Clipped };
                let amax =
                    || tensor((0..spec.groups.len()).map(|i| 0.5 + i as f32 / 64.0).collect(), &[spec.groups.len()]);
                let x = || tensor(spread(240), &shape);
                let found = values(CubeBackend::fake_quant(x(), amax(), spec.clone()));
                let expected = values(super::super::reference::fake_quant::<CubeBackend>(x(), amax(), &spec));
                assert_eq!(found, expected, "{format} by {axes:?}");
                let shared = x(); // held by two: not in place
                let found = values(CubeBackend::fake_quant(shared.clone(), amax(), spec.clone()));
                assert_eq!((found, values(shared)), (expected, spread(240)), "{format} by {axes:?}");

                let grad = || tensor(spread(241)[1..].to_vec(), &shape);
                let found = values(CubeBackend::fake_quant_clip_gradient(grad(), x(), amax(), spec.clone()));
                let expected = super::super::reference::clip_gradient::<CubeBackend>(grad(), x(), amax(), &spec);
                assert_eq!(found, values(expected), "gradient by {axes:?}");
            }
        }
    }
}
