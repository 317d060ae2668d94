//! The vector instructions of aarch64.
//!
//! `sdot` takes bytes with a sign on both sides: codes of 8 bits are shifted by 128, which `128 · Σ x` makes up for.
//! `usdot` and `usmmla` take codes without a sign; the latter multiplies two columns with two rows, eight inputs of
//! each:
//!
//! ```text
//! column c      [codes of step s, codes of step s + 1]  ┐
//! column c + 1  [codes of step s, codes of step s + 1]  ┘ ·  rows r, r + 1 in the same way  ─►  [cr, cr', c'r, c'r']
//! ```
//!
//! Their intrinsics are not stable, so that they are written out.

use std::arch::aarch64::*;
use std::arch::asm;

use super::{LEAST_E8M0, Tile, Vectors, no_pairs, no_shorts, tiles};

/// NEON with `sdot`.
#[derive(Clone, Copy)]
pub(in super::super) struct NeonDot;

/// NEON with `usdot` and `usmmla`.
#[derive(Clone, Copy)]
pub(in super::super) struct NeonMatrix;

/// `f` of each of the four registers.
#[inline(always)]
fn each<A: Copy, B>(a: [A; 4], f: impl Fn(A) -> B) -> [B; 4] {
    [f(a[0]), f(a[1]), f(a[2]), f(a[3])]
}

#[inline(always)]
fn both<A: Copy, B: Copy, C>(a: [A; 4], b: [B; 4], f: impl Fn(A, B) -> C) -> [C; 4] {
    [f(a[0], b[0]), f(a[1], b[1]), f(a[2], b[2]), f(a[3], b[3])]
}

/// 16 bytes as integers of 32 bits.
#[inline(always)]
unsafe fn widened(from: *const u8) -> [uint32x4_t; 4] {
    let bytes = vld1q_u8(from);
    let (low, high) = (vmovl_u8(vget_low_u8(bytes)), vmovl_u8(vget_high_u8(bytes)));
    [
        vmovl_u16(vget_low_u16(low)),
        vmovl_u16(vget_high_u16(low)),
        vmovl_u16(vget_low_u16(high)),
        vmovl_u16(vget_high_u16(high)),
    ]
}

/// E4M3 numbers: their bits stand in those of a float with a larger bias, which a power of two makes up for.
#[inline(always)]
unsafe fn e4m3(codes: [uint32x4_t; 4]) -> [float32x4_t; 4] {
    each(codes, |codes| {
        let magnitude = vshlq_n_u32::<20>(vandq_u32(codes, vdupq_n_u32(0x7f)));
        let magnitude = vmulq_n_f32(vreinterpretq_f32_u32(magnitude), f32::from_bits((127 + 120) << 23));
        let sign = vshlq_n_u32::<24>(vandq_u32(codes, vdupq_n_u32(0x80)));
        vreinterpretq_f32_u32(vorrq_u32(vreinterpretq_u32_f32(magnitude), sign))
    })
}

/// What four registers of four lanes have in common, whatever multiplies bytes.
macro_rules! four_registers {
    () => {
        #[inline(always)]
        unsafe fn words(from: *const u32) -> Self::Int {
            [vld1q_u32(from), vld1q_u32(from.add(4)), vld1q_u32(from.add(8)), vld1q_u32(from.add(12))]
        }

        #[inline(always)]
        unsafe fn splat(value: i32) -> Self::Int {
            [vdupq_n_u32(value as u32); 4]
        }

        #[inline(always)]
        unsafe fn field(words: Self::Int, shift: u32, mask: u32) -> Self::Int {
            let (shift, mask) = (vdupq_n_s32(-(shift as i32)), vdupq_n_u32(mask));
            each(words, |words| vandq_u32(vshlq_u32(words, shift), mask))
        }

        #[inline(always)]
        unsafe fn bytes_of(codes: Self::Int, table: &[u8; 16]) -> Self::Int {
            let table = vld1q_u8(table.as_ptr());
            each(codes, |codes| vreinterpretq_u32_u8(vqtbl1q_u8(table, vreinterpretq_u8_u32(codes))))
        }

        #[inline(always)]
        unsafe fn subtract(a: Self::Int, b: Self::Int) -> Self::Int {
            both(a, b, |a, b| vsubq_u32(a, b))
        }

        #[inline(always)]
        unsafe fn to_float(value: Self::Int) -> Self::Float {
            each(value, |value| vcvtq_f32_s32(vreinterpretq_s32_u32(value)))
        }

        #[inline(always)]
        unsafe fn floats(value: f32) -> Self::Float {
            [vdupq_n_f32(value); 4]
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self::Float {
            [vld1q_f32(from), vld1q_f32(from.add(4)), vld1q_f32(from.add(8)), vld1q_f32(from.add(12))]
        }

        #[inline(always)]
        unsafe fn store(value: Self::Float, to: *mut f32) {
            vst1q_f32(to, value[0]);
            vst1q_f32(to.add(4), value[1]);
            vst1q_f32(to.add(8), value[2]);
            vst1q_f32(to.add(12), value[3]);
        }

        #[inline(always)]
        unsafe fn multiply_add(a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float {
            [
                vfmaq_f32(c[0], a[0], b[0]),
                vfmaq_f32(c[1], a[1], b[1]),
                vfmaq_f32(c[2], a[2], b[2]),
                vfmaq_f32(c[3], a[3], b[3]),
            ]
        }

        #[inline(always)]
        unsafe fn table(values: &[f32; 16]) -> Self::Table {
            vld1q_u8_x4(values.as_ptr().cast())
        }

        #[inline(always)]
        unsafe fn lookup(index: Self::Int, table: Self::Table) -> Self::Float {
            // the four bytes of number i are those from 4 · i on
            let (first, bytes) = (vdupq_n_u32(0x0404_0404), vdupq_n_u32(0x0302_0100));
            each(index, |index| {
                let places = vmlaq_u32(bytes, vandq_u32(index, vdupq_n_u32(15)), first);
                vreinterpretq_f32_u8(vqtbl4q_u8(table, vreinterpretq_u8_u32(places)))
            })
        }

        #[inline(always)]
        unsafe fn gather(index: Self::Int, table: &[f32; 256]) -> Self::Float {
            each(index, |index| {
                let mut places = [0u32; 4];
                vst1q_u32(places.as_mut_ptr(), index);
                let values = places.map(|place| table[place as usize % 256]);
                vld1q_f32(values.as_ptr())
            })
        }

        #[inline(always)]
        unsafe fn e8m0(from: *const u8) -> Self::Float {
            let least = vdupq_n_u32(LEAST_E8M0);
            each(widened(from), |bytes| vreinterpretq_f32_u32(vmaxq_u32(vshlq_n_u32::<23>(bytes), least)))
        }

        #[inline(always)]
        unsafe fn e4m3(from: *const u8) -> Self::Float {
            e4m3(widened(from))
        }

        #[inline(always)]
        unsafe fn e4m3_points(codes: Self::Int) -> Self::Float {
            e4m3(codes)
        }
    };
}

impl Vectors for NeonDot {
    type Int = [uint32x4_t; 4];
    type Float = [float32x4_t; 4];
    /// The bytes of the 16 numbers.
    type Table = uint8x16x4_t;
    /// The four bytes, and 128 times their sum.
    type Step = [i32; 2];

    tiles!(TILES, run, "neon,dotprod", (1, 2)(2, 1)(3, 1));
    tiles!(SPLIT_TILES, run_split, "neon,dotprod", (1, 1)(2, 1));
    no_shorts!();
    no_pairs!();
    four_registers!();

    fn step(codes: [i8; 4]) -> [i32; 2] {
        let sum: i32 = codes.iter().map(|code| i32::from(*code)).sum();
        [i32::from_le_bytes(codes.map(|code| code as u8)), 128 * sum]
    }

    #[inline(always)]
    unsafe fn dot<const SMALL: bool>(sum: Self::Int, codes: Self::Int, step: &[i32; 2]) -> Self::Int {
        let x = vdupq_n_s32(step[0]);
        both(sum, codes, |sum, codes| {
            let (mut sum, codes) = match SMALL {
                true => (sum, codes),
                false => {
                    let shifted = veorq_u32(codes, vdupq_n_u32(0x8080_8080));
                    (vaddq_u32(sum, vdupq_n_u32(step[1] as u32)), shifted)
                }
            };
            asm!(
                "sdot {sum:v}.4s, {codes:v}.16b, {x:v}.16b",
                sum = inout(vreg) sum,
                codes = in(vreg) codes,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags)
            );
            sum
        })
    }
}

impl Vectors for NeonMatrix {
    type Int = [uint32x4_t; 4];
    type Float = [float32x4_t; 4];
    /// The bytes of the 16 numbers.
    type Table = uint8x16x4_t;
    type Step = i32;

    tiles!(TILES, run, "neon,dotprod,i8mm", (1, 2)(2, 1)(4, 1));
    tiles!(WIDE_TILES, run_wide, "neon,dotprod,i8mm", (1, 2)(2, 1)(4, 1)(6, 1));
    tiles!(SPLIT_TILES, run_split, "neon,dotprod,i8mm", (1, 1)(2, 1));
    no_shorts!();
    four_registers!();

    fn step(codes: [i8; 4]) -> i32 {
        i32::from_le_bytes(codes.map(|code| code as u8))
    }

    #[inline(always)]
    unsafe fn dot<const SMALL: bool>(sum: Self::Int, codes: Self::Int, step: &i32) -> Self::Int {
        let x = vdupq_n_s32(*step);
        both(sum, codes, |mut sum, codes| {
            asm!(
                "usdot {sum:v}.4s, {codes:v}.16b, {x:v}.16b",
                sum = inout(vreg) sum,
                codes = in(vreg) codes,
                x = in(vreg) x,
                options(pure, nomem, nostack, preserves_flags)
            );
            sum
        })
    }

    const HAS_PAIRS: bool = true;
    /// Of each four columns, two registers of two columns and two rows.
    type Pair = [[uint32x4_t; 2]; 4];

    #[inline(always)]
    unsafe fn no_pairs() -> Self::Pair {
        [[vdupq_n_u32(0); 2]; 4]
    }

    #[inline(always)]
    unsafe fn pair_dot<const N: usize>(
        mut sum: Self::Pair,
        codes: [Self::Int; 2],
        first: *const i32,
        second: *const i32,
    ) -> Self::Pair {
        let rows = vld1q_s32([*first, *second, *first.add(N), *second.add(N)].as_ptr());
        for i in 0..4 {
            let columns = [vzip1q_u32(codes[0][i], codes[1][i]), vzip2q_u32(codes[0][i], codes[1][i])];
            for (sum, columns) in sum[i].iter_mut().zip(columns) {
                asm!(
                    "usmmla {sum:v}.4s, {columns:v}.16b, {rows:v}.16b",
                    sum = inout(vreg) *sum,
                    columns = in(vreg) columns,
                    rows = in(vreg) rows,
                    options(pure, nomem, nostack, preserves_flags)
                );
            }
        }
        sum
    }

    #[inline(always)]
    unsafe fn add_pairs(sums: [Self::Int; 2], pair: Self::Pair) -> [Self::Int; 2] {
        let [mut first, mut second] = sums;
        for i in 0..4 {
            first[i] = vaddq_u32(first[i], vuzp1q_u32(pair[i][0], pair[i][1]));
            second[i] = vaddq_u32(second[i], vuzp2q_u32(pair[i][0], pair[i][1]));
        }
        [first, second]
    }
}
