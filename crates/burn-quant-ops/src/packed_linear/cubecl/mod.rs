//! The GPU kernels, for every CubeCL runtime. None makes the host wait.
//!
//! * `decode` codes and scales become floats, in registers
//! * `multiply` few rows: each code is read once for eight of them, and nothing is written but the result
//! * `on_load` many rows: codes become floats as tiles of the weight are loaded
//! * `unpack` the weight as floats: what burn's own product multiplies many rows with, and what gradients and
//!   convolutions take
//! * `many_rows` chooses among these
//!
//! Weights lie as on the CPU: neighbouring units read neighbouring words.

mod decode;
mod many_rows;
mod multiply;
mod on_load;
mod unpack;

use burn::backend::ops::FloatTensorOps;
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::tensor::{DType, FloatDType};
use burn_cubecl::CubeBackend;

use self::many_rows::Product;
use super::reference::rounding;
use super::{PackedCall, PackedLayout, PackedLinearOps};
use crate::FakeQuantOps;

/// Rows whose every unit reads codes of its own. Our choice: on software Vulkan, of `[1024, 1024]`, tiles are faster at
/// 16 rows of 8 bits and slower at 16 of 4, and faster at 32 of both; no GPU was at hand.
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
        let x = Self::float_cast(x, dtype.into());
        let y = many_rows::multiply(Product { x, words, ranges, scale_codes, layout: call.layout });
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

    /// Every way to multiply many rows against the definition; those of devices with matrix units may be refused.
    fn check_ways([inputs, outputs, block]: [usize; 3], format: Format, scale: ScaleFormat, rows: usize) -> usize {
        let what = format!("{format} under {scale:?}, {rows} rows, [{inputs}, {outputs}] in blocks of {block}");
        let layout = PackedLayout::new(inputs, outputs, block, format, scale).unwrap().with_global_amax(2.0);
        let tiles: Tiles = layout.tiles();
        let weight = spread(inputs * outputs);
        let (mut words, mut scales) = (vec![0; tiles.words()], vec![0; scale_words(tiles, scale)]);
        let amax = |_: usize, output: usize| 2.0 + (output % 8) as f32 / 8.0;
        let at = |input: usize, output: usize| weight[input * outputs + output];
        PackedMatrix::pack(tiles, format, scale, 2.0, amax, at, &mut words, &mut scales).unwrap();
        let matrix = PackedMatrix::new(tiles, format, scale, 2.0, &words, &scales).unwrap();
        let x = spread(rows * inputs + 5)[5..].to_vec();
        let mut expected = vec![0.0; rows * outputs];
        matrix.product(&x, &mut expected).unwrap();
        let magnitude = x.iter().map(|x| x.abs()).sum::<f32>() / rows as f32 * 2.0;
        let product = || {
            let (ranges, scale_codes) = match scale {
                ScaleFormat::F32 => {
                    let ranges: Vec<f32> = scales.iter().map(|bits| f32::from_bits(*bits)).collect();
                    (floats(ranges, &[scales.len()]), ints(&[0]))
                }
                _ => (floats(vec![0.0], &[1]), ints(&scales)),
            };
            Product { x: floats(x.clone(), &[rows, inputs]), words: ints(&words), ranges, scale_codes, layout }
        };
        let check = |way: &str, found: Vec<f32>| {
            assert_eq!(found.len(), expected.len(), "{what}, {way}");
            for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let near = (found - expected).abs() <= 1e-6 * magnitude;
                assert!(near, "{what}, {way}: {found} is not {expected} at {i}");
            }
        };
        let mut ways = 0;
        for way in many_rows::Way::ALL {
            if let Ok(y) = way.multiply(product()) {
                check(&format!("{way:?}"), values(y));
                ways += 1;
            }
        }
        check("tuned", values(many_rows::multiply_tuned(product())));
        ways
    }

    /// Whole blocks, ragged ones, a single column; codes of one, two and three words; each kind of scale.
    #[test]
    fn every_way_to_multiply_many_rows_agrees_with_the_definition() {
        let [full, ragged, column] = [[128, 48, 32], [37, 21, 5], [70, 1, 70]];
        let (f32, two_level) = (ScaleFormat::F32, ScaleFormat::E4M3(BlockScale::Dynamic));
        let int = |bits| Format::from(IntFormat::signed(bits).unwrap());
        for (shape, format, scale, rows) in [
            (full, int(4), f32, 40),
            (full, Format::E2M1, two_level, 130),
            (ragged, int(3), f32, 40),
            (column, Format::E4M3, ScaleFormat::E8M0, 70),
            (full, Format::Nf4, f32, 70),
        ] {
            let ways = check_ways(shape, format, scale, rows);
            let of_every_device = if rows <= 64 { 3 } else { 2 };
            assert!(ways >= of_every_device, "{format}: {ways} ways");
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
