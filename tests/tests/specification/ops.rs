//! Every kernel gives the bits of `burn-quant-numerics`.

use burn::tensor::{DType, Device, Tensor};
use burn_quant::config::{AxisGroups, BlockScale, Format, GradientRule, IntFormat, IntSpan, Signedness};
use burn_quant::ops::numerics::{Grid, Mx, Nf4, TwoLevel};
use burn_quant::ops::{Bias, FakeQuant, Groups, Ranges, fake_quant, fake_quant_affine, group_amax};
use burn_quant_tests::devices;
use half::{bf16, f16};

use crate::{assert_same, spread, values};

fn formats() -> Vec<Format> {
    let int = |bits, signedness, span| IntFormat::new(bits, signedness, span).unwrap().into();
    vec![
        int(8, Signedness::Signed, IntSpan::Full),
        int(4, Signedness::Signed, IntSpan::Narrow),
        int(2, Signedness::Signed, IntSpan::Full),
        int(16, Signedness::Signed, IntSpan::Full),
        int(5, Signedness::Unsigned, IntSpan::Full),
        Format::E4M3,
        Format::E5M2,
        Format::E3M2,
        Format::E2M3,
        Format::E2M1,
        Format::E1M2,
        Format::Nf4,
    ]
}

/// One of each kind of elements: what differs between layouts, dtypes and devices does not differ between widths.
fn kinds() -> Vec<Format> {
    vec![IntFormat::new(4, Signedness::Signed, IntSpan::Narrow).unwrap().into(), Format::E4M3, Format::E2M1]
}

/// The truth: one element at a time, from the range of its group.
fn scalar(format: Format, x: f32, amax: f32) -> f32 {
    match (format, format.minifloat()) {
        (_, Some(grid)) => grid.fake_quant(x, grid.scale(amax)),
        (Format::Int(int), _) => int.grid().fake_quant(x, int.grid().scale(amax)),
        _ => Nf4.fake_quant(x, Nf4.scale(amax)),
    }
}

/// The same with a scale that is a power of two.
fn power_of_two(format: Format, x: f32, amax: f32) -> f32 {
    match (format, format.minifloat()) {
        (_, Some(grid)) => Mx(grid).fake_quant(x, Mx(grid).scale(amax)),
        (Format::Int(int), _) => {
            let grid = Mx(int.grid().symmetric());
            grid.fake_quant(x, grid.scale(amax))
        }
        _ => unreachable!("NF4 has f32 scales"),
    }
}

/// The same with an E4M3 scale under the range of the tensor; `double` says whether the device has f64.
fn two_level(format: Format, blocks: BlockScale, global: f32, x: f32, amax: f32, double: bool) -> f32 {
    if !double && blocks == BlockScale::Dynamic && format != Format::E2M1 && amax > 0.0 {
        // what a device without f64 computes in its place, in f32
        let code = Format::E4M3.minifloat().unwrap().round(448.0 * (amax / global));
        let scale = code * (global / (448.0 * format.max()));
        let units = x * if scale == 0.0 { 1.0 } else { 1.0 / scale };
        return scale
            * match (format, format.minifloat()) {
                (_, Some(grid)) => grid.round(units),
                (Format::Int(int), _) => int.grid().symmetric().round(units),
                _ => unreachable!("NF4 has f32 scales"),
            };
    }
    match (format, format.minifloat()) {
        (_, Some(grid)) => {
            let grid = TwoLevel::new(grid, blocks, global);
            grid.fake_quant(x, grid.scale(amax))
        }
        (Format::Int(int), _) => {
            let grid = TwoLevel::new(int.grid().symmetric(), blocks, global);
            grid.fake_quant(x, grid.scale(amax))
        }
        _ => unreachable!("NF4 has f32 scales"),
    }
}

/// A shape and how each of its axes is divided.
struct Division(Vec<usize>, Vec<AxisGroups>);

impl Division {
    fn groups(&self) -> Groups {
        Groups::new(&self.0, &self.1)
    }

    /// The group of each element, counted one axis at a time.
    fn of_elements(&self) -> Vec<usize> {
        let mut all = vec![0];
        for (&len, axis) in self.0.iter().zip(&self.1) {
            let size = match axis {
                AxisGroups::Whole => len,
                AxisGroups::Each => 1,
                AxisGroups::Blocks(size) => *size,
            };
            let count = len.div_ceil(size);
            all = all.iter().flat_map(|group| (0..len).map(move |i| group * count + i / size)).collect();
        }
        all
    }
}

fn division(shape: &[usize], axes: &[AxisGroups]) -> Division {
    Division(shape.to_vec(), axes.to_vec())
}

use AxisGroups::{Blocks, Each, Whole};

/// Per tensor, per channel, blocks along any axis, ragged, two-dimensional, mixed.
fn divisions() -> Vec<Division> {
    vec![
        division(&[6, 40], &[Whole, Whole]),
        division(&[6, 40], &[Each, Whole]),
        division(&[6, 40], &[Whole, Each]),
        division(&[3, 5, 4, 7], &[Whole, Each, Whole, Whole]),
        division(&[3, 5, 1, 7], &[Whole, Whole, Whole, Each]),
        division(&[6, 40], &[Each, Blocks(8)]),
        division(&[6, 40], &[Each, Blocks(14)]), // the last block of a row has 12
        division(&[40, 6], &[Blocks(14), Each]),
        division(&[2, 9, 5], &[Each, Blocks(5), Each]),
        division(&[7, 10], &[Blocks(3), Blocks(4)]),
        division(&[2, 3, 16], &[Each, Whole, Each]),
        division(&[1, 1, 1], &[Whole, Each, Whole]),
    ]
}

fn check<const D: usize>(
    device: &Device,
    name: &str,
    division: &Division,
    dtype: DType,
    formats: &[Format],
    view: impl Fn(Tensor<D>) -> Tensor<D>,
) {
    let groups = &division.groups();
    let shape: [usize; D] = division.0.clone().try_into().unwrap();
    let x = view(spread(shape, device)).cast(dtype);
    let elements = values(x.clone());
    let of = division.of_elements();

    let mut largest = vec![0f32; groups.len()];
    elements.iter().zip(&of).for_each(|(x, &group)| largest[group] = largest[group].max(x.abs()));
    let amax = group_amax(x.clone(), groups);
    assert_same(&values(amax.clone()), &largest, &format!("{name}: amax of {groups:?}"));

    let narrow = |y: f32| match dtype {
        DType::F16 => f16::from_f32(y).to_f32(),
        DType::BF16 => bf16::from_f32(y).to_f32(),
        _ => y,
    };
    // some elements lie beyond the given ranges
    let given = amax.clone() * 0.75;
    let (ranges, global) = (values(given.clone()), largest.iter().copied().max_by(f32::total_cmp).unwrap());
    let global_amax = Tensor::<1>::from_data([global], device);
    let double = device.supports_dtype(DType::F64);
    let bias_groups = Groups::per_channel(groups.shape(), D - 1);
    let last = groups.shape()[D - 1];
    let biases: Vec<f32> = (0..last).map(|i| narrow(i as f32 * 0.125 - 0.5)).collect();
    let shifted: Vec<f32> = elements.iter().enumerate().map(|(i, x)| narrow(x - biases[i % last])).collect();
    let mut shifted_largest = vec![0f32; groups.len()];
    shifted.iter().zip(&of).for_each(|(x, &group)| shifted_largest[group] = shifted_largest[group].max(x.abs()));

    for &format in formats {
        let spec = FakeQuant { format, groups: groups.clone(), gradient: GradientRule::PassThrough };
        let blocks = BlockScale::Static;
        let two_level_ranges = Ranges::TwoLevel { global_amax: global_amax.clone() };
        let (amax, global_amax) = (given.clone(), global_amax.clone());
        type Truth<'a> = Box<dyn Fn(f32, usize, &[f32]) -> f32 + 'a>;
        let mut cases: Vec<(Ranges, Truth<'_>)> = vec![
            (Ranges::Static(given.clone()), Box::new(|x, group, _| scalar(format, x, ranges[group]))),
            (Ranges::Dynamic, Box::new(|x, group, largest| scalar(format, x, largest[group]))),
        ];
        if format != Format::Nf4 {
            let dynamic = BlockScale::Dynamic;
            cases.push((Ranges::PowersOfTwo, Box::new(|x, group, largest| power_of_two(format, x, largest[group]))));
            cases.push((
                two_level_ranges,
                Box::new(move |x, group, largest| two_level(format, dynamic, global, x, largest[group], double)),
            ));
            cases.push((
                Ranges::TwoLevelStatic { amax, global_amax, blocks },
                Box::new(|x, group, _| two_level(format, blocks, global, x, ranges[group], double)),
            ));
        }
        for (case, truth) in cases {
            let what = format!("{name}: {format} of {dtype:?} by {groups:?} with {case:?}");
            let y = fake_quant(x.clone(), case.clone(), spec.clone());
            assert_eq!(y.dtype(), dtype);
            let each = elements.iter().zip(&of);
            let expected: Vec<f32> = each.map(|(x, &group)| narrow(truth(*x, group, &largest))).collect();
            assert_same(&values(y), &expected, &what);

            if !kinds().contains(&format) {
                continue;
            }
            let bias = Bias { values: Tensor::from_data(biases.as_slice(), device), groups: bias_groups.clone() };
            let y = fake_quant_affine(x.clone(), bias, case, spec.clone());
            let each = shifted.iter().zip(&of).enumerate();
            let expected: Vec<f32> = each
                .map(|(i, (x, &group))| narrow(narrow(truth(*x, group, &shifted_largest)) + biases[i % last]))
                .collect();
            assert_same(&values(y), &expected, &format!("{what}, around a bias"));
        }
    }
}

fn check_rank(device: &Device, name: &str, division: &Division, dtype: DType, formats: &[Format]) {
    match division.0.len() {
        2 => check::<2>(device, name, division, dtype, formats, |x| x),
        3 => check::<3>(device, name, division, dtype, formats, |x| x),
        _ => check::<4>(device, name, division, dtype, formats, |x| x),
    }
}

#[test]
fn every_format_and_division_gives_the_bits_of_the_scalar_arithmetic() {
    // on a GPU each combination is a kernel to compile: there, divisions take turns with kinds of elements and dtypes
    let on_host = burn_quant_tests::device().0 == "flex";
    for (name, device) in devices() {
        for (i, division) in divisions().into_iter().enumerate() {
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                let formats = match dtype {
                    _ if !on_host => vec![kinds()[i % kinds().len()]],
                    DType::F32 if !device.is_autodiff() => formats(),
                    _ => kinds(),
                };
                let turn = on_host || dtype == DType::F32 || i % kinds().len() == 0;
                if turn && device.supports_dtype(dtype) {
                    check_rank(&device, &name, &division, dtype, &formats);
                }
            }
        }
    }
}

#[test]
fn every_format_gives_the_bits_of_the_scalar_arithmetic_in_blocks() {
    for (name, device) in devices() {
        check_rank(&device, &name, &division(&[6, 64], &[Each, Blocks(32)]), DType::F32, &formats());
    }
}

#[test]
fn f64_is_computed_in_f32() {
    let (_, device) = burn_quant_tests::device();
    if !device.supports_dtype(DType::F64) {
        return;
    }
    let x = Tensor::<1>::from_data([0.3f64, -1.0], (&device, DType::F64));
    let spec = FakeQuant {
        format: IntFormat::signed(4).unwrap().into(),
        groups: Groups::per_tensor(&[2]),
        gradient: GradientRule::PassThrough,
    };
    let y = fake_quant(x, Tensor::from_data([1.0f32], &device), spec);
    assert_eq!(y.dtype(), DType::F64);
    assert_eq!(y.into_data().try_into_vec::<f64>().unwrap(), [f64::from(2.0f32 / 7.0), -1.0]);
}

#[test]
fn views_are_read_as_what_they_show() {
    for (name, device) in devices() {
        let groups = division(&[6, 8], &[Blocks(4), Each]);
        check::<2>(&device, &format!("{name}, transposed"), &groups, DType::F32, &kinds()[2..], |x| {
            x.reshape([8, 6]).transpose()
        });
        check::<2>(&device, &format!("{name}, sliced"), &groups, DType::F32, &kinds()[2..], |x| {
            Tensor::cat(vec![x.clone() * 3.0, x.clone(), x * 5.0], 1).slice([0..6, 5..13])
        });
        check::<2>(&device, &format!("{name}, flipped"), &groups, DType::F32, &kinds()[2..], |x| x.flip([1]));
        check::<2>(&device, &format!("{name}, expanded"), &groups, DType::F32, &kinds()[2..], |x| {
            x.slice([0..1, 0..8]).expand([6, 8])
        });
        let groups = division(&[3, 4, 5], &[Whole, Each, Whole]);
        check::<3>(&device, &format!("{name}, permuted"), &groups, DType::F32, &kinds()[2..], |x| {
            x.reshape([5, 3, 4]).permute([1, 2, 0])
        });
    }
}

#[test]
fn an_input_that_is_used_again_is_not_overwritten() {
    for (name, device) in devices() {
        let x = spread([4, 8], &device);
        let before = values(x.clone());
        let groups = Groups::per_tensor(&[4, 8]);
        let amax = group_amax(x.clone(), &groups);
        let spec =
            FakeQuant { format: IntFormat::signed(2).unwrap().into(), groups, gradient: GradientRule::PassThrough };
        let _ = fake_quant(x.clone(), amax.clone(), spec.clone());
        let _ = fake_quant(x.clone().slice([0..4, 0..8]), amax, spec);
        assert_same(&values(x), &before, &name);
    }
}

#[test]
fn nan_stays_nan_infinities_saturate_and_a_zero_range_is_safe() {
    for (name, device) in devices() {
        let x = Tensor::<1>::from_data([f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.5, 0.0], &device);
        let quantize = |format, amax: f32| {
            let spec = FakeQuant { format, groups: Groups::per_tensor(&[5]), gradient: GradientRule::PassThrough };
            values(fake_quant(x.clone(), Tensor::from_data([amax], &device), spec))
        };
        let int8 = IntFormat::signed(8).unwrap();
        assert_same(&quantize(int8.into(), 1.0), &[f32::NAN, 1.0, -128.0 / 127.0, 64.0 / 127.0, 0.0], &name);
        assert_same(&quantize(Format::E4M3, 1.0), &[f32::NAN, 1.0, -1.0, 0.5, 0.0], &name);
        assert_eq!(quantize(int8.into(), 0.0)[3..], [0.0, 0.0], "{name}: integers of a zero range are zero");
        assert_eq!(quantize(Format::E4M3, 0.0)[3..], [0.5, 0.0], "{name}: E4M3 of a zero range has a range of one");
    }
}

#[test]
fn bad_data_shows_in_the_amax_of_its_group() {
    for (name, device) in devices() {
        let x = Tensor::<2>::from_data([[1.0, f32::NAN], [f32::NEG_INFINITY, 2.0], [3.0, -4.0]], &device);
        let amax = values(group_amax(x, &Groups::per_channel(&[3, 2], 0)));
        assert!(!amax[0].is_finite() && !amax[1].is_finite(), "{name}: {amax:?}");
        assert_eq!(amax[2], 4.0, "{name}");
    }
}

#[test]
fn a_large_tensor_is_quantized_by_several_threads_as_by_one() {
    // more elements than one task takes, in rows that tasks cut
    let (name, device) = burn_quant_tests::device();
    for groups in [
        division(&[300, 701], &[Whole, Whole]),
        division(&[300, 701], &[Whole, Each]),
        division(&[300, 701], &[Each, Blocks(32)]),
        division(&[300, 701], &[Blocks(32), Each]),
    ] {
        check::<2>(&device, name, &groups, DType::F32, &kinds()[..1], |x| x);
    }
}

#[test]
fn an_empty_tensor_passes() {
    for (_, device) in devices() {
        let x = Tensor::<2>::zeros([0, 4], &device);
        let groups = Groups::per_channel(&[0, 4], 1);
        let spec = FakeQuant { format: Format::E4M3, groups: groups.clone(), gradient: GradientRule::Clipped };
        let amax = group_amax(x.clone(), &groups);
        assert_eq!(values(amax.clone()), [0.0; 4]);
        assert_eq!(fake_quant(x, amax, spec).dims(), [0, 4]);
    }
}

#[test]
#[should_panic(expected = "fake_quant: amax has one element per group")]
fn a_wrong_number_of_ranges_panics_with_the_name_of_the_op() {
    let (_, device) = burn_quant_tests::device();
    let groups = Groups::per_channel(&[2, 3], 1);
    let spec = FakeQuant { format: Format::E4M3, groups, gradient: GradientRule::PassThrough };
    fake_quant(spread([2, 3], &device), Tensor::ones([2], &device), spec);
}

#[cfg(feature = "ndarray")]
#[test]
fn a_backend_without_a_kernel_runs_the_reference() {
    let device = burn_quant_tests::device_without_kernel().expect("the feature is on");
    for division in divisions() {
        check_rank(&device, "ndarray", &division, DType::F32, &formats());
        check_rank(&device.clone().autodiff(), "autodiff<ndarray>", &division, DType::F32, &kinds());
    }
}
