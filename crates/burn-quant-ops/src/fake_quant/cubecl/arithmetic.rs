//! The arithmetic of `burn-quant-numerics` on vectors of a GPU.
//!
//! Rounding uses the `round` instruction and integers: adding a large constant does not survive fast-math. Minima and
//! maxima of a GPU drop NaN, so NaN is selected back at the end, and ranges are maxima of bit patterns.

use burn_quant_numerics::{BlockScale, Format, MIN_AMAX, Minifloat, NF4_TABLE};
use cubecl::post_processing::minifloat::{f32_to_ue8m0_bits, ue8m0_bits_to_f32};
use cubecl::prelude::*;

use crate::fake_quant::{Call, Scales};

const SIGN: u32 = 0x8000_0000;
const INFINITY: u32 = 0x7f80_0000;

/// The kind of elements, chosen when a kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Elements {
    Int,
    Minifloat { mantissa_bits: u32 },
    Nf4,
}

/// The kind of scales, chosen when a kernel is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ScaleRule {
    F32,
    PowersOfTwo,
    TwoLevelDynamic,
    /// Dynamic blocks of elements other than E2M1, in f64 where the device has it.
    TwoLevelOfOthers {
        double: bool,
    },
    TwoLevelStatic,
}

/// The numbers of a grid.
#[derive(CubeType, CubeLaunch, Clone, Copy)]
pub(super) struct Grid {
    lo: f32,
    hi: f32,
    /// The smallest normal number of a minifloat, and the reciprocal of the step below it.
    min_normal: f32,
    inverse_step: f32,
    /// `448 / M`: how far below its maximum the largest E4M3 scale stays.
    headroom: f32,
}

/// The arithmetic of a call.
pub(super) struct Arithmetic {
    pub(super) elements: Elements,
    pub(super) rule: ScaleRule,
    pub(super) grid: GridLaunch,
}

impl Arithmetic {
    /// `double` says whether the device has f64.
    pub(super) fn of(call: &Call, double: bool) -> Self {
        let (rule, headroom) = match call.scales {
            Scales::Static | Scales::Dynamic => (ScaleRule::F32, 1.0),
            Scales::PowersOfTwo => (ScaleRule::PowersOfTwo, 1.0),
            Scales::TwoLevel(BlockScale::Dynamic) if call.spec.format != Format::E2M1 => {
                (ScaleRule::TwoLevelOfOthers { double }, 1.0)
            }
            Scales::TwoLevel(blocks) if call.scales.is_dynamic() => (ScaleRule::TwoLevelDynamic, 448.0 / blocks.max()),
            Scales::TwoLevel(blocks) => (ScaleRule::TwoLevelStatic, 448.0 / blocks.max()),
        };
        let (elements, lo, hi, minifloat) = match (call.spec.format, call.spec.format.minifloat()) {
            (_, Some(format)) => {
                let mantissa_bits = u32::from(format.mantissa_bits());
                (Elements::Minifloat { mantissa_bits }, -format.largest(), format.largest(), format)
            }
            (Format::Int(format), _) => {
                let grid = format.grid();
                let grid = if rule == ScaleRule::F32 { grid } else { grid.symmetric() };
                (Elements::Int, grid.lo() as f32, grid.hi() as f32, Minifloat::E4M3)
            }
            _ => (Elements::Nf4, -1.0, 1.0, Minifloat::E4M3),
        };
        let grid = GridLaunch::new(lo, hi, minifloat.min_normal(), inverse_step(minifloat), headroom);
        Self { elements, rule, grid }
    }
}

fn inverse_step(format: Minifloat) -> f32 {
    2f32.powi(format.mantissa_bits().into()) / format.min_normal()
}

/// The two factors of a vector of elements.
#[derive(CubeType, Clone, Copy)]
pub(super) struct Factors<N: Size> {
    to_grid: Vector<f32, N>,
    from_grid: Vector<f32, N>,
}

/// The bits that a value adds to the range it is part of.
#[cube]
pub(super) fn magnitude<N: Size>(value: Vector<f32, N>, #[comptime] rule: ScaleRule) -> Vector<u32, N> {
    let bits = Vector::<u32, N>::reinterpret(value) & Vector::new(!SIGN);
    match rule {
        ScaleRule::F32 => bits,
        _ => {
            let finite = select_many(bits.equal(&Vector::new(INFINITY)), Vector::new(INFINITY - 1), bits);
            select_many(bits.greater_than(&Vector::new(INFINITY)), Vector::new(0u32), finite)
        }
    }
}

/// The factors of ranges.
#[cube]
pub(super) fn factors<N: Size>(
    range: Vector<f32, N>,
    global: f32,
    grid: &Grid,
    #[comptime] elements: Elements,
    #[comptime] rule: ScaleRule,
) -> Factors<N> {
    let one = Vector::new(1.0f32);
    let hi = Vector::<f32, N>::new(grid.hi);
    match rule {
        ScaleRule::F32 => {
            let tiny = range.less_equal(&Vector::new(MIN_AMAX));
            match elements {
                Elements::Int => {
                    let scale = hi / select_many(tiny, one, range);
                    let to_grid = select_many(tiny, Vector::new(0.0f32), scale);
                    Factors::<N> { to_grid, from_grid: select_many(tiny, one, scale) }
                }
                Elements::Minifloat { .. } => {
                    let scale = hi * (one / select_many(tiny, one, range));
                    Factors::<N> { to_grid: scale, from_grid: one / scale }
                }
                Elements::Nf4 => {
                    let scale = select_many(range.equal(&Vector::new(0.0f32)), one, range);
                    Factors::<N> { to_grid: scale, from_grid: scale }
                }
            }
        }
        ScaleRule::PowersOfTwo => {
            let code = f32_to_ue8m0_bits::<N>(range / hi);
            let code = select_many(range.equal(&Vector::new(0.0f32)), Vector::new(127u32), code);
            let to_grid = ue8m0_bits_to_f32::<N>(Vector::new(254u32) - code);
            Factors::<N> { to_grid, from_grid: ue8m0_bits_to_f32::<N>(code) }
        }
        ScaleRule::TwoLevelDynamic => {
            let tensor = global / (448.0f32 * grid.hi);
            let tensor = select(tensor <= 0.0f32, 1e-12f32, tensor);
            let units = clamp(range / Vector::new(grid.hi * tensor), Vector::new(0.0f32), Vector::new(448.0f32));
            let scale = to_e4m3::<N>(units) * Vector::new(tensor);
            let scale = select_many(scale.greater_equal(&Vector::new(1e-5f32)), scale, one);
            Factors::<N> { to_grid: scale, from_grid: scale }
        }
        ScaleRule::TwoLevelOfOthers { double } => {
            let scale = if comptime!(double) {
                let hi = f64::cast_from(grid.hi);
                let k = 448.0f64 * (hi / f64::cast_from(global));
                let units = Vector::<f64, N>::cast_from(range) / Vector::new(hi) * Vector::new(k);
                let units = clamp(Vector::<f32, N>::cast_from(units), Vector::new(0.0f32), Vector::new(448.0f32));
                let codes = Vector::<f64, N>::cast_from(to_e4m3::<N>(units));
                Vector::<f32, N>::cast_from(codes / Vector::new(k))
            } else {
                let units = range / Vector::new(global) * Vector::new(448.0f32);
                let units = clamp(units, Vector::new(0.0f32), Vector::new(448.0f32));
                to_e4m3::<N>(units) * Vector::new(global / (448.0f32 * grid.hi))
            };
            let scale = select_many(range.equal(&Vector::new(0.0f32)), one, scale);
            let usable = select(global > 0.0f32 && global <= f32::MAX, 1.0f32, 0.0f32);
            let scale = select_many(Vector::new(usable).equal(&Vector::new(0.0f32)), one, scale);
            let zero = scale.equal(&Vector::new(0.0f32));
            let reciprocal = clamp(one / select_many(zero, one, scale), Vector::new(0.0f32), Vector::new(f32::MAX));
            Factors::<N> { to_grid: reciprocal, from_grid: scale }
        }
        ScaleRule::TwoLevelStatic => {
            let most = global * grid.headroom / grid.hi;
            let most = select(most <= MIN_AMAX, 1.0f32, most);
            let of_scales = 448.0f32 * (1.0f32 / most);
            let units = clamp(range / hi * Vector::new(of_scales), Vector::new(0.0f32), Vector::new(448.0f32));
            let scale = to_e4m3::<N>(units) * Vector::new(1.0f32 / of_scales);
            let scale = select_many(scale.less_equal(&Vector::new(f32::MAX)), scale, one);
            let to_grid = select_many(scale.equal(&Vector::new(0.0f32)), one, scale);
            Factors::<N> { to_grid, from_grid: scale }
        }
    }
}

/// Quantizes and dequantizes values; NaN, of the value or of its range, stays NaN.
#[cube]
pub(super) fn quantize<N: Size>(
    value: Vector<f32, N>,
    range: Vector<f32, N>,
    factors: &Factors<N>,
    grid: &Grid,
    #[comptime] elements: Elements,
    #[comptime] rule: ScaleRule,
) -> Vector<f32, N> {
    let divides = comptime!(
        matches!(elements, Elements::Nf4) || matches!(rule, ScaleRule::TwoLevelDynamic | ScaleRule::TwoLevelStatic)
    );
    let units = if divides { value / factors.to_grid } else { value * factors.to_grid };
    let units = clamp(units, Vector::new(grid.lo), Vector::new(grid.hi));
    let integers = comptime!(matches!((elements, rule), (Elements::Int, ScaleRule::F32)));
    let codes = match elements {
        Elements::Int => Vector::round(units),
        Elements::Minifloat { mantissa_bits } => {
            to_minifloat::<N>(units, grid.min_normal, grid.inverse_step, mantissa_bits)
        }
        Elements::Nf4 => to_nf4::<N>(units),
    };
    let result = if integers { codes / factors.from_grid } else { codes * factors.from_grid };
    let result = select_many(Vector::is_nan(range), range, result);
    select_many(Vector::is_nan(value), value, result)
}

#[cube]
fn to_e4m3<N: Size>(units: Vector<f32, N>) -> Vector<f32, N> {
    to_minifloat::<N>(units, 0.015_625f32, 512.0f32, 3u32)
}

/// The nearest minifloat, ties to even, of a value within its range.
#[cube]
fn to_minifloat<N: Size>(
    units: Vector<f32, N>,
    min_normal: f32,
    inverse_step: f32,
    #[comptime] mantissa_bits: u32,
) -> Vector<f32, N> {
    let dropped = comptime!(23 - mantissa_bits);
    let bits = Vector::<u32, N>::reinterpret(units);
    let sign = bits & Vector::new(SIGN);
    let bits = bits & Vector::new(!SIGN);
    let last = (bits >> Vector::new(dropped)) & Vector::new(1u32);
    let normal = (bits + last + Vector::new(comptime!((1u32 << (dropped - 1)) - 1)))
        & Vector::new(comptime!(!((1u32 << dropped) - 1)));
    let magnitude = Vector::<f32, N>::reinterpret(bits);
    let steps = Vector::round(magnitude * Vector::new(inverse_step));
    let subnormal = Vector::<u32, N>::reinterpret(steps / Vector::new(inverse_step));
    let rounded = select_many(magnitude.less_than(&Vector::new(min_normal)), subnormal, normal);
    Vector::<f32, N>::reinterpret(rounded | sign)
}

/// The nearest value of the table, the first of equally near ones.
#[cube]
#[allow(clippy::needless_range_loop)] // kernels unroll ranges
fn to_nf4<N: Size>(units: Vector<f32, N>) -> Vector<f32, N> {
    let mut nearest = Vector::<f32, N>::new(-1.0f32);
    let mut least = Vector::abs(units - nearest);
    #[unroll]
    for i in 1..16usize {
        let value = Vector::new(comptime!(NF4_TABLE[i]));
        let distance = Vector::abs(units - value);
        let closer = distance.less_than(&least);
        nearest = select_many(closer, value, nearest);
        least = select_many(closer, distance, least);
    }
    nearest
}
