//! The fused GPU kernels, for every CubeCL runtime: one vectorised read and write per element, in place if the buffer
//! can be reused.
//!
//! * `arithmetic` the grids
//! * `groups` which range or bias belongs to an element
//! * `elements` given ranges: a unit per vector; and the clipped gradient
//! * `blocks` ranges from the data: a unit per block of a row, or per block of a few columns; a cube per row
//!
//! Linear views number elements row-major whatever their strides, so the group of an element follows from its number.

mod arithmetic;
mod blocks;
mod elements;
mod groups;

use burn::backend::Backend;
use burn::backend::tensor::FloatTensor;
use burn::tensor::DType;
use burn_cubecl::{CubeBackend, ops::numeric::empty_device_dtype, tensor::CubeTensor};
use cubecl::std::tensor::layout::linear::LinearViewLaunch;
use cubecl::tensor_vector_size_parallel;

use super::reference;
use super::{Call, FakeQuantOps};
use crate::group_amax::reference::group_amax;

impl FakeQuantOps for CubeBackend {
    fn fake_quant(
        x: FloatTensor<Self>,
        amax: FloatTensor<Self>,
        global_amax: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        call: Call,
    ) -> FloatTensor<Self> {
        if !call.scales.is_dynamic() {
            return elements::fake_quant(x, amax, global_amax, bias, &call);
        }
        match blocks::fake_quant(x, global_amax, bias, &call) {
            Ok(y) => y,
            Err((x, global_amax, bias)) => {
                let measured = reference::measured::<Self>(x.clone(), bias.clone(), &call);
                let amax = group_amax::<Self>(measured, &call.spec.groups);
                elements::fake_quant(x, amax, global_amax, bias, &call)
            }
        }
    }

    fn fake_quant_clip_gradient(
        grad: FloatTensor<Self>,
        x: FloatTensor<Self>,
        amax: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        call: Call,
    ) -> FloatTensor<Self> {
        elements::clip_gradient(grad, x, amax, bias, &call)
    }
}

/// Where a kernel writes: over its input if that can be reused, else to a new tensor.
struct Target {
    y: CubeTensor,
    view: LinearViewLaunch,
}

impl Target {
    /// The target of a kernel whose first argument is `x`.
    fn of(x: &CubeTensor) -> Self {
        if x.can_mut() && x.is_nonoverlapping() {
            return Self { y: x.clone(), view: x.as_linear_view_alias(0) };
        }
        let y = empty_device_dtype(x.client.clone(), x.device.clone(), x.meta.shape().clone(), x.dtype);
        Self { y: y.clone(), view: y.into_linear_view() }
    }
}

/// Whether kernels on the device of a tensor may compute in f64.
fn has_f64(x: &CubeTensor) -> bool {
    CubeBackend::supports_dtype(&x.device, DType::F64)
}

/// The elements of a vector that all the tensors can be read by.
pub(crate) fn vector_size(tensors: &[&CubeTensor], shape: &[usize]) -> usize {
    let axis = shape.len().saturating_sub(1);
    let sizes = tensors.iter().map(|tensor| {
        let sizes = tensor.client.io_optimized_vector_sizes(tensor.dtype.size());
        tensor_vector_size_parallel(sizes, tensor.meta.shape(), tensor.meta.strides(), axis)
    });
    sizes.min().expect("a kernel reads at least one tensor")
}

/// The kernels without fusion around them; the specification runs them under fusion.
#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use super::*;
    use crate::{AxisGroups, FakeQuant, GradientRule, Groups, Scales};
    use burn::backend::{ops::FloatTensorOps, read_sync};
    use burn::tensor::TensorData;
    use burn_cubecl::CubeDevice;
    use burn_quant_numerics::{BlockScale, Format, IntFormat};

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

    fn int4() -> Format {
        IntFormat::signed(4).unwrap().into()
    }

    /// Every kernel, in place and not, against the composition of burn's ops on the same device.
    fn check(shape: &[usize], groups: Groups, format: Format, scales: Scales, bias: Option<Groups>) {
        let spec = FakeQuant { format, groups, gradient: GradientRule::Clipped };
        let biases = bias.as_ref().map_or(1, Groups::len);
        let call = Call { spec: spec.clone(), scales, bias };
        let what = format!("{format} with {scales:?} by {:?}, {biases} biases", spec.groups);
        let len = shape.iter().product();
        let ranges = (0..spec.groups.len()).map(|i| 0.5 + (i % 64) as f32 / 64.0).collect();
        let (amax, global) = (tensor(ranges, &[spec.groups.len()]), tensor(vec![2.0], &[1]));
        let bias = tensor((0..biases).map(|i| i as f32 / 8.0 - 0.25).collect(), &[biases]);
        let x = || tensor(spread(len), shape);
        let run = |x| CubeBackend::fake_quant(x, amax.clone(), global.clone(), bias.clone(), call.clone());
        let reference = reference::fake_quant::<CubeBackend>(x(), amax.clone(), global.clone(), bias.clone(), &call);
        let expected = values(reference);
        assert_eq!(values(run(x())), expected, "{what}");
        let shared = x(); // held by two: not in place
        let found = values(run(shared.clone()));
        assert_eq!((found, values(shared)), (expected, spread(len)), "{what}");

        if !scales.is_dynamic() {
            let grad = || tensor(spread(len + 1)[1..].to_vec(), shape);
            let found = CubeBackend::fake_quant_clip_gradient(grad(), x(), amax.clone(), bias.clone(), call.clone());
            let expected = reference::clip_gradient::<CubeBackend>(grad(), x(), amax, bias, &call);
            assert_eq!(values(found), values(expected), "gradient, {what}");
        }
    }

    #[test]
    fn given_ranges_one_per_tensor_per_vector_and_per_lane() {
        use AxisGroups::{Blocks, Each, Whole};
        let shape = [6, 40];
        for axes in
            [[Whole, Whole], [Each, Whole], [Whole, Each], [Each, Blocks(8)], [Each, Blocks(14)], [Blocks(4), Each]]
        {
            let groups = Groups::new(&shape, &axes);
            let four_over_six = Scales::TwoLevel(BlockScale::StaticFourOverSix);
            for format in [int4(), Format::E4M3, Format::E5M2, Format::Nf4] {
                check(&shape, groups.clone(), format, Scales::Static, None);
            }
            check(&shape, groups.clone(), Format::E2M1, Scales::TwoLevel(BlockScale::Static), None);
            check(&shape, groups.clone(), Format::E2M1, four_over_six, None);
            check(&shape, groups, int4(), Scales::Static, Some(Groups::per_channel(&shape, 1)));
        }
    }

    #[test]
    fn ranges_from_blocks_of_rows_and_columns_from_rows_and_from_anything_else() {
        for (shape, groups) in [
            (&[6, 64][..], Groups::blocks(&[6, 64], 1, 16)),  // a unit per block
            (&[6, 1024], Groups::per_channel(&[6, 1024], 0)), // a cube per row, not full
            (&[3, 4096], Groups::per_channel(&[3, 4096], 0)), // a cube per row, several vectors a unit
            (&[64, 12], Groups::blocks(&[64, 12], 0, 16)),    // a unit per column
            (&[2, 32, 8], Groups::blocks(&[2, 32, 8], 1, 32)),
            (&[6, 40], Groups::blocks(&[6, 40], 1, 14)), // ragged
            (&[8, 8], Groups::new(&[8, 8], &[AxisGroups::Blocks(4), AxisGroups::Blocks(4)])),
        ] {
            let bias = Groups::per_channel(shape, shape.len() - 1);
            check(shape, groups.clone(), int4(), Scales::Dynamic, Some(bias.clone()));
            check(shape, groups.clone(), Format::E4M3, Scales::Dynamic, None);
            check(shape, groups.clone(), Format::E3M2, Scales::PowersOfTwo, None);
            check(shape, groups.clone(), int4(), Scales::PowersOfTwo, None);
            check(shape, groups.clone(), Format::E4M3, Scales::TwoLevel(BlockScale::Dynamic), None);
            check(shape, groups, Format::E2M1, Scales::TwoLevel(BlockScale::Dynamic), Some(bias));
        }
    }
}
