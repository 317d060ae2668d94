//! Codes and scales as floats.

use burn_quant_numerics::packed::{PANEL, STEP, Tiles};
use burn_quant_numerics::{AnyGrid, Elements, Grid, MIN_AMAX, NF4_TABLE};
use cubecl::post_processing::minifloat::ue8m0_bits_to_f32;
use cubecl::prelude::*;
use cubecl::std::tensor::layout::linear::LinearView;
use serde::{Deserialize, Serialize};

use crate::packed_linear::PackedLayout;

/// What is known of codes and scales when a kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Form {
    pub(super) bits: u8,
    pub(super) points: Points,
    pub(super) steps: StepRule,
    /// Whether blocks, and the matrix, end with whole granules: no code fills up.
    pub(super) whole: bool,
}

/// How a code becomes a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum Points {
    /// An integer with the code of zero in the middle.
    Int { zero: i32 },
    /// A small float; its smallest normal number is a power of two, in bits of f32.
    Minifloat { mantissa_bits: u32, min_normal: u32 },
    /// A table.
    Nf4,
}

/// How a step follows from what is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) enum StepRule {
    /// f32 ranges of integers: values are `point / (max / range)`.
    Range,
    /// f32 ranges of small floats: `1 / (max · (1 / range))`.
    RangeOfFloats,
    /// f32 ranges of NF4, which are steps.
    Step,
    /// A byte of E8M0.
    PowerOfTwo,
    /// A byte of E4M3 times the unit of the tensor; what is below `least` counts as one.
    Scaled,
}

/// The numbers of a weight, in units of elements.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
#[expand(derive(Clone, Copy))]
pub(super) struct Matrix {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) block: usize,
    pub(super) padded_block: usize,
    pub(super) blocks: usize,
    /// Granules of a column.
    pub(super) granules: usize,
    max: f32,
    unit: f32,
    least: f32,
}

impl Form {
    pub(super) fn of(layout: PackedLayout) -> Self {
        let (tiles, grid) = (layout.tiles(), layout.grid());
        let elements = Elements::of(layout.format());
        let points = match elements {
            Elements::Int(_) => Points::Int { zero: i32::from(elements.code(0.0)) },
            Elements::Minifloat(minifloat) => Points::Minifloat {
                mantissa_bits: minifloat.mantissa_bits().into(),
                min_normal: minifloat.min_normal().to_bits(),
            },
            Elements::Nf4(_) => Points::Nf4,
        };
        let steps = match grid {
            AnyGrid::Plain(Elements::Int(_)) => StepRule::Range,
            AnyGrid::Plain(Elements::Minifloat(_)) => StepRule::RangeOfFloats,
            AnyGrid::Plain(Elements::Nf4(_)) => StepRule::Step,
            AnyGrid::Mx(_) => StepRule::PowerOfTwo,
            AnyGrid::TwoLevel(_) => StepRule::Scaled,
        };
        let granule = tiles.granule();
        let whole = tiles.inputs().is_multiple_of(granule) && tiles.block().is_multiple_of(granule);
        Self { bits: tiles.bits(), points, steps, whole }
    }

    /// Any matrix of codes of these bits: where words lie within a granule is the same in all.
    fn tiles(self) -> Tiles {
        Tiles::new(1, 1, 1, self.bits).expect("1 to 8 bits")
    }

    pub(super) fn granule(self) -> usize {
        self.tiles().granule()
    }

    pub(super) fn granule_words(self) -> usize {
        self.tiles().granule_words()
    }

    fn parts(self) -> usize {
        self.tiles().parts().count()
    }

    /// The word of a granule that holds a part of a step, how far it is shifted, its mask, and its place in the code.
    fn part(self, part: usize, step: usize) -> (usize, u32, u32, u32) {
        let part = self.tiles().parts().nth(part).expect("a part of the code");
        let (word, shift) = part.of_step(step);
        (word, shift, part.mask(), part.bit)
    }

    /// The first word of a granule that holds a part, how wide the part is, its mask, and its place in the code.
    fn word_of_part(self, part: usize) -> (usize, u32, u32, u32) {
        let part = self.tiles().parts().nth(part).expect("a part of the code");
        (part.first_word, part.width, part.mask(), part.bit)
    }
}

/// The numbers of a layout.
pub(super) fn matrix(layout: PackedLayout) -> MatrixLaunch {
    let (tiles, grid) = (layout.tiles(), layout.grid());
    let (unit, least) = match grid {
        AnyGrid::TwoLevel(grid) => (grid.tensor_scale(), grid.least_scale()),
        _ => (1.0, 0.0),
    };
    MatrixLaunch::new(
        tiles.inputs(),
        tiles.outputs(),
        tiles.block(),
        tiles.padded_block(),
        tiles.blocks(),
        tiles.padded_inputs() / tiles.granule(),
        grid.max(),
        unit,
        least,
    )
}

/// Where a granule of a column begins: its block, and its first input.
#[cube]
pub(super) fn place_of(granule: usize, matrix: &Matrix, #[comptime] form: Form) -> (usize, usize, usize) {
    let place = granule * comptime!(form.granule());
    let block = place / matrix.padded_block;
    let within = place - block * matrix.padded_block;
    (block, within, block * matrix.block + within)
}

/// The words of a granule of a column.
#[cube]
pub(super) fn words_of(
    words: &LinearView<'_, u32>,
    panel: usize,
    granule: usize,
    column: usize,
    matrix: &Matrix,
    #[comptime] form: Form,
) -> Array<u32> {
    let count = comptime!(form.granule_words());
    let first = ((panel * matrix.granules + granule) * count) * PANEL + column;
    let mut granule = Array::<u32>::new(count);
    #[unroll]
    for word in 0..count {
        granule[word] = words.read(first + word * PANEL);
    }
    granule
}

/// The points of some inputs of a granule, from `first` on.
#[cube]
#[allow(clippy::needless_range_loop)] // kernels unroll ranges
pub(super) fn points<N: Size>(words: &Array<u32>, #[comptime] first: usize, #[comptime] form: Form) -> Vector<f32, N> {
    let step = comptime!(first / STEP);
    let mut codes = 0u32;
    #[unroll]
    for part in 0..comptime!(form.parts()) {
        let (word, shift, mask, bit) = comptime!(form.part(part, step));
        codes |= ((words[word] >> shift) & mask) << bit;
    }
    let mut lanes = Vector::<u32, N>::empty();
    #[unroll]
    for lane in 0..N::value() {
        let byte = comptime!(8 * ((first + lane) % STEP) as u32);
        lanes.insert(lane, (codes >> byte) & 0xffu32);
    }
    points_of::<N>(lanes, form)
}

/// The same of inputs of a step, where which they are is known as the kernel runs: only the words of the step are read.
#[cube]
#[allow(clippy::needless_range_loop)] // kernels unroll ranges
pub(super) fn points_at<N: Size>(
    words: &LinearView<'_, u32>,
    panel: usize,
    place: usize,
    column: usize,
    matrix: &Matrix,
    #[comptime] form: Form,
) -> Vector<f32, N> {
    let granule = place / comptime!(form.granule());
    let step = place % comptime!(form.granule()) / STEP;
    let first = ((panel * matrix.granules + granule) * comptime!(form.granule_words())) * PANEL + column;
    let mut codes = 0u32;
    #[unroll]
    for part in 0..comptime!(form.parts()) {
        let (word, width, mask, bit) = comptime!(form.word_of_part(part));
        let steps = comptime!(8 / width as usize);
        let shift = comptime!(width) * (step % steps) as u32;
        codes |= ((words.read(first + (word + step / steps) * PANEL) >> shift) & mask) << bit;
    }
    let lane_of_step = (place % STEP) as u32;
    let mut lanes = Vector::<u32, N>::empty();
    #[unroll]
    for lane in 0..N::value() {
        lanes.insert(lane, (codes >> (8u32 * (lane_of_step + comptime!(lane as u32)))) & 0xffu32);
    }
    points_of::<N>(lanes, form)
}

/// Points from codes.
#[cube]
#[allow(clippy::needless_range_loop)] // kernels unroll ranges
fn points_of<N: Size>(lanes: Vector<u32, N>, #[comptime] form: Form) -> Vector<f32, N> {
    match form.points {
        Points::Int { zero } => {
            Vector::<f32, N>::cast_from(Vector::<i32, N>::cast_from(lanes) - Vector::<i32, N>::new(zero))
        }
        Points::Minifloat { mantissa_bits, min_normal } => {
            let sign = comptime!(u32::from(form.bits) - 1);
            let magnitude = lanes & Vector::new(comptime!((1u32 << sign) - 1));
            let negative = (lanes >> Vector::new(sign)) << Vector::new(31u32);
            let shift = comptime!(23 - mantissa_bits);
            let normal = (magnitude << Vector::new(shift)) + Vector::new(comptime!(min_normal - (1u32 << 23)));
            let step = comptime!(f32::from_bits(min_normal) / (1u32 << mantissa_bits) as f32);
            let subnormal = Vector::<u32, N>::reinterpret(Vector::<f32, N>::cast_from(magnitude) * Vector::new(step));
            let below = magnitude.less_than(&Vector::new(comptime!(1u32 << mantissa_bits)));
            Vector::<f32, N>::reinterpret(select_many(below, subnormal, normal) | negative)
        }
        Points::Nf4 => {
            let mut point = Vector::<f32, N>::new(-1.0f32);
            #[unroll]
            for i in 1..16usize {
                let code = Vector::<u32, N>::new(comptime!(i as u32));
                point = select_many(lanes.equal(&code), Vector::new(comptime!(NF4_TABLE[i])), point);
            }
            point
        }
    }
}

/// The step of a block and a column: what a point is multiplied with, or divided by under [`StepRule::Range`].
#[cube]
pub(super) fn step_of(
    ranges: &LinearView<'_, f32>,
    codes: &LinearView<'_, u32>,
    place: usize,
    matrix: &Matrix,
    #[comptime] form: Form,
) -> f32 {
    match form.steps {
        StepRule::Range => {
            let range = ranges.read(place);
            let none = range <= MIN_AMAX;
            // a range of zero has codes of zero only
            select(none, 1.0f32, matrix.max / select(none, 1.0f32, range))
        }
        StepRule::RangeOfFloats => {
            let range = ranges.read(place);
            let none = range <= MIN_AMAX; // fills up a panel
            select(none, 0.0f32, 1.0f32 / (matrix.max * (1.0f32 / select(none, 1.0f32, range))))
        }
        StepRule::Step => ranges.read(place),
        StepRule::PowerOfTwo => {
            let code = byte_of(codes, place);
            ue8m0_bits_to_f32::<Const<1>>(Vector::new(code)).extract(0usize)
        }
        StepRule::Scaled => {
            let code = byte_of(codes, place) & 0x7fu32;
            let normal = f32::reinterpret((code << 20u32) + comptime!(120u32 << 23));
            let units = select(code < 8u32, f32::cast_from(code) * 0.001_953_125f32, normal);
            let scale = units * matrix.unit;
            select(scale >= matrix.least, scale, 1.0f32)
        }
    }
}

#[cube]
fn byte_of(codes: &LinearView<'_, u32>, place: usize) -> u32 {
    (codes.read(place / 4) >> (8u32 * (place % 4) as u32)) & 0xffu32
}

/// What a point is multiplied with, from its step: nearly the values of [`values`], without a division for each.
#[cube]
pub(super) fn factor_of(step: f32, #[comptime] form: Form) -> f32 {
    match form.steps {
        StepRule::Range => 1.0f32 / step,
        _ => step,
    }
}

/// Values from points and a step.
#[cube]
pub(super) fn values<N: Size>(points: Vector<f32, N>, step: f32, #[comptime] form: Form) -> Vector<f32, N> {
    match form.steps {
        StepRule::Range => points / Vector::new(step),
        _ => points * Vector::new(step),
    }
}
