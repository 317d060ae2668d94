//! Every instruction set of this processor against the reference.

use super::*;
use burn_quant_numerics::packed::Tiles;
use burn_quant_numerics::{BlockScale, IntFormat, IntSpan, Signedness};
use proptest::prelude::*;

/// Values between −1 and 1 without a pattern.
fn noise(seed: usize, len: usize) -> Vec<f32> {
    let value = |i: usize| ((i + 131 * seed).wrapping_mul(2_654_435_761) >> 7) % 2001;
    (0..len).map(|i| value(i) as f32 / 1000.0 - 1.0).collect()
}

/// Rows without factors.
fn plain(values: &[f32]) -> Rows<'_> {
    Rows { values, factors: None }
}

/// A product with nothing around it.
fn work<'a>(packed: &'a Packed, x: &'a [f32], rows: usize, range: Option<RowRange>) -> Work<'a> {
    Work { weight: packed.weight(), x: plain(x), rows, range, addend: None, after: &[] }
}

fn formats() -> Vec<(Format, ScaleFormat)> {
    let ints = (2..=8).map(|bits| Format::from(IntFormat::signed(bits).unwrap()));
    let unsigned = Format::from(IntFormat::new(8, Signedness::Unsigned, IntSpan::Full).unwrap());
    let floats = [Format::E4M3, Format::E5M2, Format::E3M2, Format::E2M3, Format::E2M1, Format::E1M2, Format::Nf4];
    let formats = ints.chain([unsigned]).chain(floats).flat_map(|format| {
        [ScaleFormat::F32, ScaleFormat::E8M0, ScaleFormat::E4M3(BlockScale::Dynamic)].map(|scale| (format, scale))
    });
    formats.filter(|(format, scale)| *format != Format::Nf4 || *scale == ScaleFormat::F32).collect()
}

/// A weight `[inputs, outputs]` without a pattern, packed.
struct Packed {
    layout: PackedLayout,
    words: Vec<u32>,
    scales: Vec<u32>,
}

impl Packed {
    fn new(inputs: usize, outputs: usize, block: usize, (format, scale): (Format, ScaleFormat)) -> Self {
        let weight = noise(inputs + outputs, inputs * outputs);
        let layout = PackedLayout::new(inputs, outputs, block, format, scale).unwrap().with_global_amax(1.0);
        let tiles = layout.tiles();
        let amax = |block: usize, output: usize| {
            let inputs = block * tiles.block()..inputs.min((block + 1) * tiles.block());
            inputs.map(|input| weight[input * outputs + output].abs()).fold(0.0, f32::max)
        };
        let (mut words, mut scales) = (vec![0; tiles.words()], vec![0; scale_words(tiles, scale)]);
        let at = |input: usize, output: usize| weight[input * outputs + output];
        PackedMatrix::pack(tiles, format, scale, 1.0, amax, at, &mut words, &mut scales).unwrap();
        Self { layout, words, scales }
    }

    fn weight(&self) -> Weight<'_> {
        Weight { layout: self.layout, words: &self.words, scales: &self.scales }
    }

    fn matrix(&self) -> PackedMatrix<'_> {
        let layout = self.layout;
        let (format, scale, global) = (layout.format(), layout.scale(), layout.global_amax());
        PackedMatrix::new(layout.tiles(), format, scale, global, &self.words, &self.scales).unwrap()
    }
}

/// Σ |x · w|, the magnitude that f32 rounding is relative to.
fn magnitudes(x: &[f32], packed: &Packed, rows: usize) -> Vec<f32> {
    let matrix = packed.matrix();
    let (inputs, outputs) = (packed.layout.inputs(), packed.layout.outputs());
    let magnitude = |row: usize, output: usize| -> f32 {
        (0..inputs).map(|k| (x[row * inputs + k] * matrix.value(k, output)).abs()).sum()
    };
    (0..rows * outputs).map(|i| magnitude(i / outputs, i % outputs)).collect()
}

fn compare(found: &[f32], expected: &[f32], magnitudes: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), expected.len());
    for (i, ((found, expected), magnitude)) in found.iter().zip(expected).zip(magnitudes).enumerate() {
        let close = (found - expected).abs() <= tolerance * magnitude; // false for NaN
        assert!(close, "{what}: output {i} is {found}, not {expected} (of magnitude {magnitude})");
    }
}

const SIZES: [(usize, usize, usize); 5] = [(64, 32, 64), (37, 45, 37), (150, 83, 64), (131, 17, 16), (5, 1, 3)];

#[test]
fn float_products_are_those_of_the_reference_on_every_instruction_set() {
    for instructions in Instructions::available() {
        for (inputs, outputs, block) in SIZES {
            for format in formats() {
                let packed = Packed::new(inputs, outputs, block, format);
                for rows in [1, 2, 5, 13] {
                    let x = noise(rows, rows * inputs);
                    let mut expected = vec![0.0; rows * outputs];
                    packed.matrix().product(&x, &mut expected).unwrap();
                    let y = work(&packed, &x, rows, None).with(instructions);
                    let what = format!("{instructions:?}, {format:?}, {rows} x {inputs} x {outputs} / {block}");
                    compare(&y, &expected, &magnitudes(&x, &packed, rows), 1e-6, &what);
                }
            }
        }
    }
}

#[test]
fn integer_products_are_exact_on_every_instruction_set() {
    let grid = activation_grid();
    for instructions in Instructions::available() {
        for (inputs, outputs, block) in SIZES {
            for format in formats() {
                let packed = Packed::new(inputs, outputs, block, format);
                if !packed.layout.has_integer_products() {
                    continue;
                }
                let all_rows = [1, 2, 5, 8, 13].map(|rows| [(rows, RowRange::OfRow), (rows, RowRange::OfRowInParts)]);
                for (rows, range) in all_rows.into_iter().flatten().chain([(4, RowRange::Given(0.5))]) {
                    let x = noise(rows, rows * inputs);
                    let amax = |row: &[f32]| match range {
                        RowRange::OfRow | RowRange::OfRowInParts => burn_quant_numerics::amax(row),
                        RowRange::Given(range) => range,
                    };
                    let largest = if range.parts() == 2 { 16256.0 } else { 127.0 };
                    let code = |row: &[f32]| {
                        let (scale, amax) = (grid.scale(amax(row)), amax(row));
                        let code = move |x: &f32| match range {
                            RowRange::OfRowInParts => (x * (largest / amax)).round_ties_even() as i16,
                            _ => grid.code(*x, scale) as i16,
                        };
                        row.iter().map(code).collect::<Vec<_>>()
                    };
                    let codes: Vec<i16> = x.chunks(inputs).flat_map(code).collect();
                    let steps: Vec<f32> = x.chunks(inputs).map(|row| amax(row) / largest).collect();
                    let mut expected = vec![0.0; rows * outputs];
                    packed.matrix().integer_product(&codes, &steps, &mut expected).unwrap();
                    let y = work(&packed, &x, rows, Some(range)).with(instructions);
                    let what = format!("{instructions:?}, {format:?}, {rows} x {inputs} x {outputs} / {block}");
                    compare(&y, &expected, &magnitudes(&x, &packed, rows), 3e-7, &what);
                }
            }
        }
    }
}

#[test]
fn the_largest_codes_do_not_saturate() {
    // pairs of 255 · 128, and eight pairs of 15 · 128 or 24 · 128, which an i16 does not hold
    let int = |bits, sign| Format::from(IntFormat::new(bits, sign, IntSpan::Full).unwrap());
    let (signed, unsigned) = (Signedness::Signed, Signedness::Unsigned);
    for (format, largest, value) in [
        (int(8, signed), 127.0, -128.0),
        (int(8, unsigned), 255.0, 255.0),
        (int(4, signed), 7.0, 7.0),
        (int(4, unsigned), 15.0, 15.0),
        (Format::E2M1, 6.0, 6.0),
    ] {
        let (inputs, outputs) = (64, 16);
        let layout = PackedLayout::new(inputs, outputs, 64, format, ScaleFormat::F32).unwrap();
        let tiles = layout.tiles();
        let (mut words, mut scales) = (vec![0; tiles.words()], vec![0; tiles.scales()]);
        let (amax, weight) = (|_, _| largest, |_, _| value);
        PackedMatrix::pack(tiles, format, ScaleFormat::F32, 0.0, amax, weight, &mut words, &mut scales).unwrap();
        let weight = Weight { layout, words: &words, scales: &scales };
        for instructions in Instructions::available() {
            let range = Some(RowRange::Given(127.0));
            let y =
                Work { weight, x: plain(&[-128.0; 64]), rows: 1, range, addend: None, after: &[] }.with(instructions);
            let expected = 64.0 * -128.0 * value;
            compare(&y, &[expected; 16], &[expected.abs(); 16], 3e-7, &format!("{instructions:?}, {format}"));
        }
    }
}

#[test]
fn a_row_with_a_value_that_is_not_a_number_has_no_output_and_its_neighbours_have_theirs() {
    let packed = Packed::new(8, 3, 8, (IntFormat::signed(8).unwrap().into(), ScaleFormat::F32));
    let mut x = noise(1, 24);
    x[9] = f32::NAN;
    x[23] = f32::INFINITY;
    for range in [RowRange::OfRow, RowRange::OfRowInParts, RowRange::Given(1.0)] {
        let y = work(&packed, &x, 3, Some(range)).dispatch();
        assert!(y[..3].iter().all(|y| y.is_finite()) && y[3..6].iter().all(|y| y.is_nan()), "{range:?}: {y:?}");
        // a given range clips an infinity, as fake quantization does; a row's own is none
        let clips = matches!(range, RowRange::Given(_));
        assert!(y[6..].iter().all(|y| if clips { y.is_finite() } else { y.is_nan() }), "{range:?}: {y:?}");
    }
}

#[test]
fn tiles_of_rows_compute_as_few_rows_as_they_can() {
    let tiles = |rows: usize, sizes: &[usize]| {
        let sizes: Vec<_> = sizes.iter().map(|size| (*size, 1)).collect();
        RowTiles::new(rows, &sizes).iter().map(|tile| (tile.first, tile.rows, tile.size)).collect::<Vec<_>>()
    };
    let wide = [1, 2, 4, 8, 12];
    assert_eq!(tiles(32, &wide), [(0, 12, 12), (12, 12, 12), (24, 8, 8)]);
    assert_eq!(tiles(5, &wide), [(0, 5, 8)]);
    assert_eq!(tiles(8, &[1, 2, 4, 6]), [(0, 4, 4), (4, 4, 4)]);
}

#[test]
fn the_layout_of_the_tests_fills_blocks_and_panels_up() {
    let tiles = Tiles::new(131, 17, 16, 6).unwrap();
    assert_eq!((tiles.padded_inputs(), tiles.panels()), (144, 2));
}

/// Windows, groups and planes of their own, around offsets and without, on every instruction set, against sums in f64.
#[test]
fn convolutions_agree_with_the_definition() {
    let image = |x, channels, axes, output, kernel, stride, dilation, groups| Image {
        x,
        batch: 2,
        channels,
        axes,
        output,
        kernel,
        stride,
        padding: [(0, 0), (1, 0), (0, 2)],
        dilation,
        groups,
    };
    let x = noise(5, 2 * 12 * 7 * 9);
    let images = [
        (image(&x[..2 * 7 * 9], 1, [1, 7, 9], [1, 7, 9], [1, 2, 3], [1; 3], [1; 3], 1), 40),
        (image(&x[..2 * 4 * 7 * 9], 4, [1, 7, 9], [1, 4, 4], [1, 2, 3], [1, 2, 2], [1, 1, 2], 1), 13),
        (image(&x[..2 * 6 * 7 * 9], 6, [1, 7, 9], [1, 6, 10], [1, 3, 2], [1; 3], [1; 3], 3), 9),
        (image(&x[..2 * 12 * 7 * 9], 12, [1, 7, 9], [1, 3, 9], [1, 3, 3], [1, 2, 1], [1; 3], 12), 24),
    ];
    for (image, outputs) in images {
        for (bits, has_offsets) in [(8, false), (3, false), (8, true), (5, true)] {
            let channels = image.channels / image.groups;
            let inputs = image.kernel.iter().product::<usize>() * channels;
            let packed =
                Packed::new(inputs, outputs, inputs, (IntFormat::signed(bits).unwrap().into(), ScaleFormat::F32));
            let bias = noise(3, outputs);
            let offsets = if has_offsets { noise(4, outputs) } else { vec![0.0; outputs] };
            let expected = definition(&image, &packed, &bias, &offsets);
            for instructions in Instructions::available() {
                let (bias, offsets) = (Some(&bias[..]), has_offsets.then_some(&offsets[..]));
                let work = conv::Convolution { weight: packed.weight(), image: &image, range: 0.75, bias, offsets };
                let found = work.with(instructions);
                assert_eq!(found.len(), expected.len());
                for (i, (found, (expected, magnitude))) in found.iter().zip(&expected).enumerate() {
                    let (expected, off) = (*expected as f32, (f64::from(*found) - expected).abs());
                    assert!(
                        off <= 1e-6 * magnitude,
                        "{instructions:?}, {bits} bits, offsets: {has_offsets}, {i}: {found}, expected {expected}"
                    );
                }
            }
        }
    }
}

/// The convolution of rounded values, and the sum of magnitudes.
fn definition(image: &Image, packed: &Packed, bias: &[f32], offsets: &[f32]) -> Vec<(f64, f64)> {
    let (outputs, matrix, grid) = (packed.layout.outputs(), packed.matrix(), activation_grid());
    let [_, height, width] = image.axes;
    let [_, rows, columns] = image.output;
    let (channels, of_group) = (image.channels / image.groups, outputs / image.groups);
    let mut y = Vec::new();
    for at in 0..image.batch * outputs * rows * columns {
        let (n, output) = (at / (outputs * rows * columns), at / (rows * columns) % outputs);
        let (row, column) = (at / columns % rows, at % columns);
        let (mut sum, mut magnitude) = (f64::from(bias[output]), f64::from(bias[output].abs()));
        for input in 0..packed.layout.inputs() {
            let (element, channel) = (input / channels, output / of_group * channels + input % channels);
            let (ky, kx) = (element / image.kernel[2], element % image.kernel[2]);
            let y = (row * image.stride[1] + ky * image.dilation[1]).checked_sub(image.padding[1].0);
            let x = (column * image.stride[2] + kx * image.dilation[2]).checked_sub(image.padding[2].0);
            let (Some(y), Some(x)) = (y.filter(|y| *y < height), x.filter(|x| *x < width)) else { continue };
            let x = image.x[((n * image.channels + channel) * height + y) * width + x];
            let x = f64::from(grid.fake_quant(x, grid.scale(0.75)));
            let (value, offset) = (f64::from(matrix.value(input, output)), f64::from(offsets[output]));
            sum += x * (value + offset);
            magnitude += x.abs() * (value.abs() + offset.abs());
        }
        y.push((sum, magnitude));
    }
    y
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Any size, block and format: integers exactly, floats but for the order of their sum, and no instruction set
    /// different from another.
    #[test]
    fn products_of_any_size_are_those_of_the_reference(
        rows in 1usize..70, inputs in 1usize..300, outputs in 1usize..70, block in 1usize..320, which in 0usize..1000,
    ) {
        let formats = formats();
        let packed = Packed::new(inputs, outputs, block, formats[which % formats.len()]);
        let x = noise(rows + inputs, rows * inputs);
        let magnitudes = magnitudes(&x, &packed, rows);
        let what = format!("{:?}, {rows} x {inputs} x {outputs} / {block}", packed.layout);
        let mut expected = vec![0.0; rows * outputs];
        packed.matrix().product(&x, &mut expected).unwrap();
        let grid = activation_grid();
        let (mut codes, mut steps) = (Vec::with_capacity(x.len()), Vec::with_capacity(rows));
        for row in x.chunks(inputs) {
            let amax = burn_quant_numerics::amax(row);
            codes.extend(row.iter().map(|x| grid.code(*x, grid.scale(amax)) as i8));
            steps.push(amax / 127.0);
        }
        let mut integers = vec![0.0; rows * outputs];
        let has_integers = packed.layout.has_integer_products();
        if has_integers {
            packed.matrix().integer_product(&codes, &steps, &mut integers).unwrap();
        }
        for instructions in Instructions::available() {
            let product = |range| work(&packed, &x, rows, range).with(instructions);
            compare(&product(None), &expected, &magnitudes, 1e-6, &what);
            if has_integers {
                compare(&product(Some(RowRange::OfRow)), &integers, &magnitudes, 3e-7, &what);
            }
        }
    }
}

/// A scale of 2^-127 is no normal number, and the product of a small step and a small scale may be none.
#[test]
fn the_least_scales_are_scales() {
    for format in [Format::E4M3, Format::E2M3, Format::E2M1, IntFormat::signed(4).unwrap().into()] {
        let layout = PackedLayout::new(32, 16, 32, format, ScaleFormat::E8M0).unwrap();
        let tiles = layout.tiles();
        let (mut words, mut scales) = (vec![0; tiles.words()], vec![0; scale_words(tiles, ScaleFormat::E8M0)]);
        let largest = format.max() * 2f32.powi(-127);
        let (amax, weight) = (|_, _| largest, |_, _| largest);
        PackedMatrix::pack(tiles, format, ScaleFormat::E8M0, 0.0, amax, weight, &mut words, &mut scales).unwrap();
        let (weight, x) = (Weight { layout, words: &words, scales: &scales }, [1e10; 32]);
        let matrix = PackedMatrix::new(tiles, format, ScaleFormat::E8M0, 0.0, &words, &scales).unwrap();
        let mut expected = [0.0; 16];
        matrix.product(&x, &mut expected).unwrap();
        assert!(expected[0] > 0.0, "{format}");
        for instructions in Instructions::available() {
            let y = Work { weight, x: plain(&x), rows: 1, range: None, addend: None, after: &[] }.with(instructions);
            compare(&y, &expected, &expected, 1e-6, &format!("{instructions:?}, {format}"));
        }
    }
}

/// Factors of inputs and what is added take part in the pass, and change no bit: rows are multiplied with the same
/// factors before, and sums are rounded before something is added.
#[test]
fn factors_and_what_is_added_are_those_of_passes_of_their_own() {
    let int4 = Format::from(IntFormat::signed(4).unwrap());
    for instructions in Instructions::available() {
        for (inputs, outputs, block) in SIZES {
            for (format, range) in [(int4, Some(RowRange::OfRow)), (int4, None), (Format::E4M3, None)] {
                let packed = Packed::new(inputs, outputs, block, (format, ScaleFormat::F32));
                for rows in [1, 2, 13] {
                    let (x, factors) = (noise(rows, rows * inputs), noise(7, inputs));
                    let scaled: Vec<f32> = x.iter().enumerate().map(|(i, x)| x * factors[i % inputs]).collect();
                    for added in [outputs, rows * outputs] {
                        let addend = noise(9, added);
                        let x = Rows { values: &x, factors: Some(&factors) };
                        let weight = packed.weight();
                        let y = Work { weight, x, rows, range, addend: Some(&addend), after: &[] }.with(instructions);
                        let product = work(&packed, &scaled, rows, range).with(instructions);
                        let expected: Vec<f32> =
                            product.iter().enumerate().map(|(i, y)| y + addend[i % added]).collect();
                        assert_eq!(y, expected, "{instructions:?}, {format}, {rows} x {inputs} x {outputs}");
                    }
                }
            }
        }
    }
}
