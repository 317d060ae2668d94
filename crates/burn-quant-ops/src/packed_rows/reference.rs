//! The composition of burn's own ops: codes are read off the values of fake quantization; never optimised.

use burn::tensor::{DType, Int, Tensor, TensorData};
use burn_quant_numerics::{AnyGrid, Elements, Format, Minifloat, NF4_TABLE, ScaleFormat};

use super::RowsLayout;
use crate::{FakeQuant, GradientRule, Groups, Ranges, fake_quant, group_amax};

pub(super) fn pack(
    x: Tensor<2>,
    ranges: Option<&Tensor<2>>,
    given: Option<&Tensor<1>>,
    layout: RowsLayout,
) -> Tensor<2, Int> {
    let ([rows, features], blocks, device) = (x.dims(), layout.blocks(), x.device());
    if rows * features == 0 {
        return Tensor::from_data(TensorData::new(Vec::<i32>::new(), [rows, layout.words()]), (&device, DType::I32));
    }
    let groups = Groups::blocks(&[rows, features], 1, layout.block);
    let all = |ranges: Tensor<2>| ranges.expand([rows, blocks]).reshape([rows * blocks]);
    let (quantization, scales) = match layout.scale {
        ScaleFormat::F32 => {
            let ranges = ranges.cloned().or_else(|| Some(given?.clone().reshape([1, blocks])));
            (Ranges::Static(all(ranges.expect("f32 scales have ranges"))), None)
        }
        ScaleFormat::E8M0 => (Ranges::PowersOfTwo, Some(e8m0_codes(finite_amax(&x, &groups), layout))),
        ScaleFormat::E4M3(_) => {
            let global_amax = Tensor::full([1], layout.global_amax, (&device, DType::F32));
            (Ranges::TwoLevel { global_amax }, Some(e4m3_codes(finite_amax(&x, &groups), layout)))
        }
    };
    let spec = FakeQuant { format: layout.format, groups, gradient: GradientRule::PassThrough };
    let y = fake_quant(x, quantization, spec);
    let scales = scales.map(|scales| scales.reshape([rows, blocks]));
    let units = y / units_of(scales.clone(), ranges, given, layout);
    let codes = in_words(element_codes(units, layout.format), layout.width());
    match scales {
        None => codes,
        Some(scales) => Tensor::cat(vec![codes, in_words(scales, 8)], 1),
    }
}

pub(super) fn unpack(
    words: Tensor<2, Int>,
    ranges: Option<&Tensor<2>>,
    given: Option<&Tensor<1>>,
    layout: RowsLayout,
) -> Tensor<2> {
    let ([rows, _], features, device) = (words.dims(), layout.features, words.device());
    if rows * features == 0 {
        return Tensor::from_data(TensorData::new(Vec::<f32>::new(), [rows, features]), (&device, DType::F32));
    }
    let codes = of_words(words.clone().narrow(1, 0, layout.code_words()), layout.width(), features);
    let scales = match layout.scale {
        ScaleFormat::F32 => None,
        _ => Some(of_words(words.narrow(1, layout.code_words(), layout.scale_words()), 8, layout.blocks())),
    };
    let elements = layout.grid().elements();
    let point = |code: usize| if code >> layout.format.bits() == 0 { elements.point(code as u8) } else { 0.0 };
    let points = select((0..1 << layout.width()).map(point).collect(), codes);
    points * units_of(scales, ranges, given, layout)
}

/// What a point is multiplied with to give the value, for each feature.
fn units_of(
    scales: Option<Tensor<2, Int>>,
    ranges: Option<&Tensor<2>>,
    given: Option<&Tensor<1>>,
    layout: RowsLayout,
) -> Tensor<2> {
    let (grid, blocks) = (layout.grid(), layout.blocks());
    let units = match scales {
        Some(codes) => {
            let units = (0..256).map(|code| grid.scale_of_stored(code).from_grid);
            // a scale of zero, or none, has codes of zero
            select(units.map(|unit| if unit > 0.0 && unit.is_finite() { unit } else { 1.0 }).collect(), codes)
        }
        None => {
            let ranges = ranges.cloned().unwrap_or_else(|| given.expect("f32 scales").clone().reshape([1, blocks]));
            let units = ranges / layout.format.max();
            let none = units.clone().equal_elem(0.0);
            units.mask_fill(none, 1.0)
        }
    };
    let [rows, _] = units.dims();
    let padded = blocks * layout.block;
    let units = units.reshape([rows, blocks, 1]).expand([rows, blocks, layout.block]).reshape([rows, padded]);
    units.narrow(1, 0, layout.features)
}

/// The values of a table at codes.
fn select(table: Vec<f32>, codes: Tensor<2, Int>) -> Tensor<2> {
    let (shape, len) = (codes.dims(), table.len());
    let table = Tensor::<1>::from_data(TensorData::new(table, [len]), (&codes.device(), DType::F32));
    table.select(0, codes.reshape([shape[0] * shape[1]])).reshape(shape)
}

/// The largest magnitude of each group without what is no finite number, as blocks with scales of a byte have it.
fn finite_amax(x: &Tensor<2>, groups: &Groups) -> Tensor<1> {
    let x = x.clone().clamp(-f32::MAX, f32::MAX);
    group_amax(x.clone().mask_fill(x.is_nan(), 0.0), groups)
}

fn ints(x: Tensor<1>) -> Tensor<1, Int> {
    x.int().cast(DType::I32)
}

/// `127 + ⌈log2(amax / max)⌉`, by comparison; 127 of a block of zeros.
fn e8m0_codes(amax: Tensor<1>, layout: RowsLayout) -> Tensor<1, Int> {
    let ratio = amax.clone() / layout.format.max();
    let mut power = ratio.zeros_like() + 2f32.powi(-127);
    let mut code = ratio.zeros_like();
    for k in [128, 64, 32, 16, 8, 4, 2, 1] {
        let probe = power.clone() * 2f32.powi(k - 1);
        let above = ratio.clone().greater(probe.clone());
        power = power.mask_where(above.clone(), probe * 2.0);
        code = code.clone().mask_where(above, code + k as f32);
    }
    ints(code.mask_fill(amax.equal_elem(0.0), 127.0))
}

fn e4m3_codes(amax: Tensor<1>, layout: RowsLayout) -> Tensor<1, Int> {
    let AnyGrid::TwoLevel(grid) = layout.grid() else { unreachable!("E4M3 scales have two levels") };
    let unit = grid.tensor_scale();
    let scale = amax / layout.format.max();
    ints(minifloat_codes((scale / unit).clamp_max(448.0), Minifloat::E4M3))
}

/// The magnitudes of a minifloat as codes: exponents by comparison, steps by rounding.
fn minifloat_codes<const D: usize>(magnitude: Tensor<D>, format: Minifloat) -> Tensor<D> {
    let steps = 2f32.powi(format.mantissa_bits().into());
    let mut power = format.min_normal();
    let mut step = magnitude.zeros_like() + power / steps;
    let mut binades = magnitude.zeros_like();
    while power * 2.0 <= format.largest() {
        power *= 2.0;
        let above = magnitude.clone().greater_equal_elem(power);
        step = step.mask_fill(above.clone(), power / steps);
        binades = binades + above.float();
    }
    // what rounds up to the next binade has the code that follows
    (magnitude / step).round() + binades * steps
}

/// The codes of points that are off by a rounding.
fn element_codes(units: Tensor<2>, format: Format) -> Tensor<2, Int> {
    let elements = Elements::of(format);
    let codes = match elements {
        Elements::Int(_) => units.round() + f32::from(elements.code(0.0)),
        Elements::Minifloat(minifloat) => {
            let negative = units.clone().lower_elem(0.0).float() * 2f32.powi(i32::from(format.bits()) - 1);
            let magnitude = minifloat_codes(units.abs(), minifloat);
            let zero = magnitude.clone().equal_elem(0.0);
            (magnitude + negative).mask_fill(zero, 0.0)
        }
        Elements::Nf4(_) => {
            let between = NF4_TABLE.windows(2).map(|pair| (pair[0] + pair[1]) / 2.0);
            let above = between.map(|middle| units.clone().greater_elem(middle).float());
            above.reduce(|sum, above| sum + above).expect("a table of 16")
        }
    };
    let nan = codes.clone().is_nan();
    codes.mask_fill(nan, f32::from(elements.code(0.0))).int().cast(DType::I32)
}

/// Codes of a width side by side in words, filled up.
fn in_words(codes: Tensor<2, Int>, width: usize) -> Tensor<2, Int> {
    let ([rows, n], each, device) = (codes.dims(), 32 / width, codes.device());
    let words = n.div_ceil(each);
    let missing = words * each - n;
    let codes = match missing {
        0 => codes,
        missing => Tensor::cat(vec![codes, Tensor::zeros([rows, missing], (&device, DType::I32))], 1),
    };
    let codes = codes.reshape([rows, words, each]);
    let part = |i: usize| codes.clone().narrow(2, i, 1).bitwise_left_shift_scalar((i * width) as i64);
    let word = (0..each).map(part).reduce(Tensor::bitwise_or).expect("a word has codes");
    word.reshape([rows, words])
}

/// The codes of words.
fn of_words(words: Tensor<2, Int>, width: usize, codes: usize) -> Tensor<2, Int> {
    let ([rows, n], each) = (words.dims(), 32 / width);
    let words = words.reshape([rows, n, 1]);
    let mask = (1i64 << width) - 1;
    let part = |i: usize| {
        let shifted = words.clone().bitwise_right_shift_scalar((i * width) as i64);
        shifted.bitwise_and_scalar(mask)
    };
    let all = Tensor::cat((0..each).map(part).collect(), 2).reshape([rows, n * each]);
    all.narrow(1, 0, codes)
}
