//! The GPU kernels, for every CubeCL runtime. Neither makes the host wait.
//!
//! * `decode` codes and scales become floats, in registers
//! * `multiply` few rows: each code is read once for eight of them, and nothing is written but the result
//! * `unpack` the weight as floats: what many rows are multiplied with, by burn's own product, which knows the matrix
//!   units of the device; and what gradients and convolutions take
//!
//! Weights lie as on the CPU: neighbouring units read neighbouring words.

mod decode;
mod multiply;
mod unpack;

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{DType, FloatDType};
use burn_cubecl::CubeBackend;

use super::reference::rounding;
use super::{PackedCall, PackedLayout, PackedLinearOps};
use crate::FakeQuantOps;

/// Rows that are multiplied with codes; more are multiplied with floats. Our choice: where the two are equally fast on
/// software Vulkan is between 16 and 32; no GPU was at hand.
const FEW_ROWS: usize = 16;

impl PackedLinearOps for CubeBackend {
    fn packed_linear(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        scale_codes: IntTensor<Self>,
        activation_range: FloatTensor<Self>,
        call: PackedCall,
    ) -> FloatTensor<Self> {
        let x = match rounding(x.meta.shape().as_slice(), call.activations) {
            None => x,
            Some(rounding) => {
                let range = activation_range;
                Self::fake_quant(x, range.clone(), range.clone(), range, rounding)
            }
        };
        let rows = x.meta.shape()[0];
        if rows <= FEW_ROWS && multiply::fits(rows, call.layout) {
            return multiply::multiply(x, words, ranges, scale_codes, call.layout);
        }
        let dtype = match call.dtype {
            DType::F16 | DType::BF16 => call.dtype,
            _ => DType::F32,
        };
        let weight = unpack::unpack(words, ranges, scale_codes, call.layout, dtype);
        let y = Self::float_matmul(Self::float_cast(x, dtype.into()), weight);
        Self::float_cast(y, FloatDType::F32)
    }

    fn packed_unpack(
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        scale_codes: IntTensor<Self>,
        layout: PackedLayout,
    ) -> FloatTensor<Self> {
        unpack::unpack(words, ranges, scale_codes, layout, DType::F32)
    }
}

/// The kernels without fusion around them; the specification runs them under fusion.
#[cfg(all(test, feature = "wgpu"))]
mod tests {
    use super::*;
    use crate::ActivationKind;
    use burn::backend::read_sync;
    use burn::tensor::TensorData;
    use burn_cubecl::CubeDevice;
    use burn_quant_numerics::packed::Tiles;
    use burn_quant_numerics::{BlockScale, Format, IntFormat, PackedMatrix, ScaleFormat, scale_words};

    fn device() -> CubeDevice {
        CubeDevice::Wgpu(Default::default())
    }

    fn floats(values: Vec<f32>, shape: &[usize]) -> FloatTensor<CubeBackend> {
        CubeBackend::float_from_data(TensorData::new(values, shape.to_vec()), &device())
    }

    fn ints(words: &[u32]) -> IntTensor<CubeBackend> {
        use burn::backend::ops::IntTensorOps;
        let words: Vec<i32> = words.iter().map(|word| *word as i32).collect();
        let len = words.len();
        CubeBackend::int_from_data(TensorData::new(words, [len]), &device())
    }

    fn values(tensor: FloatTensor<CubeBackend>) -> Vec<f32> {
        let data = read_sync(CubeBackend::float_into_data(tensor)).expect("a tensor that can be read");
        data.convert::<f32>().try_into_vec().expect("f32 values")
    }

    fn spread(len: usize) -> Vec<f32> {
        (0..len).map(|i| ((i * 7919 + 13) % 1009) as f32 / 250.0 - 2.0).collect()
    }

    /// Both kernels against the definition of packed products, for a matrix and some numbers of rows.
    fn check([inputs, outputs, block]: [usize; 3], format: Format, scale: ScaleFormat, rows: &[usize]) {
        let what = format!("{format} under {scale:?}, [{inputs}, {outputs}] in blocks of {block}");
        let layout = PackedLayout::new(inputs, outputs, block, format, scale).unwrap().with_global_amax(2.0);
        let tiles: Tiles = layout.tiles();
        let weight = spread(inputs * outputs);
        let (mut words, mut scales) = (vec![0; tiles.words()], vec![0; scale_words(tiles, scale)]);
        // a block of zeros among the others
        let amax =
            |block: usize, output: usize| if block + output == 1 { 0.0 } else { 1.0 + (output % 8) as f32 / 8.0 };
        let at = |input: usize, output: usize| {
            let zero = input / tiles.block() + output == 1;
            if zero { 0.0 } else { weight[input * outputs + output] }
        };
        PackedMatrix::pack(tiles, format, scale, 2.0, amax, at, &mut words, &mut scales).unwrap();
        let matrix = PackedMatrix::new(tiles, format, scale, 2.0, &words, &scales).unwrap();
        let tensors = || match scale {
            ScaleFormat::F32 => {
                let ranges: Vec<f32> = scales.iter().map(|bits| f32::from_bits(*bits)).collect();
                (ints(&words), floats(ranges, &[scales.len()]), ints(&[0]))
            }
            _ => (ints(&words), floats(vec![0.0], &[1]), ints(&scales)),
        };

        let (codes, ranges, bytes) = tensors();
        let found = values(CubeBackend::packed_unpack(codes, ranges, bytes, layout));
        for (i, found) in found.iter().enumerate() {
            let expected = matrix.value(i / outputs, i % outputs);
            let near = (found - expected).abs() <= 2e-7 * expected.abs();
            assert!(near, "{what}: {found} is not {expected} at [{}, {}]", i / outputs, i % outputs);
        }

        for &rows in rows {
            let x = spread(rows * inputs + 5)[5..].to_vec();
            let mut expected = vec![0.0; rows * outputs];
            matrix.product(&x, &mut expected).unwrap();
            let magnitude = x.iter().map(|x| x.abs()).sum::<f32>() / rows as f32 * 2.0;
            let (codes, ranges, bytes) = tensors();
            let call = PackedCall { layout, activations: ActivationKind::Float, dtype: DType::F32 };
            let x = floats(x, &[rows, inputs]);
            let y = CubeBackend::packed_linear(x, codes, ranges, bytes, floats(vec![0.0], &[1]), call);
            let found = values(y);
            assert_eq!(found.len(), expected.len(), "{what}, {rows} rows");
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let near = (found - expected).abs() <= 1e-6 * magnitude;
                assert!(near, "{what}, {rows} rows: {found} is not {expected} at {i}");
            }
        }
    }

    /// A kernel is compiled for each format, and whether granules are full; for one, two, four and eight rows.
    #[test]
    fn every_format_agrees_with_the_definition() {
        let [full, ragged, column] = [[128, 48, 32], [37, 21, 5], [70, 1, 70]];
        let (f32, two_level) = (ScaleFormat::F32, ScaleFormat::E4M3(BlockScale::Dynamic));
        let int = |bits| Format::from(IntFormat::signed(bits).unwrap());
        for (format, scale) in [(int(4), f32), (int(8), f32), (Format::Nf4, f32), (Format::E2M1, two_level)] {
            check(full, format, scale, &[1, 2, 3, 8, 21, 40]);
            check(column, format, scale, &[9]);
        }
        let ints = (2..=8).map(|bits| (int(bits), f32));
        let floats = [Format::E4M3, Format::E5M2, Format::E3M2, Format::E2M3, Format::E2M1, Format::E1M2, int(8)];
        let powers = floats.map(|format| (format, ScaleFormat::E8M0));
        let of_tensor = [(Format::E4M3, two_level), (Format::E2M1, ScaleFormat::E4M3(BlockScale::Static))];
        for (format, scale) in ints.chain([(Format::Nf4, f32), (Format::E4M3, f32)]).chain(powers).chain(of_tensor) {
            check(ragged, format, scale, &[9]);
        }
    }
}
