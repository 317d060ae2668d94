//! GELU, in lanes: `x / 2 · (1 + erf(x / √2))`, with the bits of the error function of `libm`, which burn's CPU backend
//! calls for one element after the other.
//!
//! ```text
//! |x|            erf(|x|)
//! < 2⁻²⁸         (8 + 1.027…) · |x| / 8
//! < 0.84375      |x| + |x| · P(x²) / Q(x²)
//! < 1.25         1 − (1 − 0.845… − P(|x| − 1) / Q(|x| − 1))
//! < 6            1 − exp(−z² − 0.5625) · exp((z − |x|)(z + |x|) + R(1/x²) / S(1/x²)) / |x|     z: |x| in 11 bits
//! else           1
//! ```
//!
//! All are computed, and one is chosen: no lane waits for another. Operations and their order are those of the source,
//! or bits would differ.
//!
//! Source: `s_erff.c` and `e_expf.c` of FreeBSD's msun, which `libm` 0.2 has in Rust. Coefficients: Copyright (C) 1993
//! by Sun Microsystems, Inc. All rights reserved. Developed at SunPro, a Sun Microsystems, Inc. business. Permission to
//! use, copy, modify, and distribute this software is freely granted, provided that this notice is preserved.

use std::f32::consts::{LOG2_E, SQRT_2};

use super::Instructions;
use crate::flex::vectorized;

/// Applies GELU to elements.
pub(in crate::packed_linear) fn gelu(data: &mut [f32]) {
    match Instructions::best() {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has them.
        Instructions::Avx512Vbmi | Instructions::Avx512 => unsafe { of_avx512(data) },
        _ => vectorized(
            #[inline(always)]
            || of_all(data),
        ),
    }
}

/// With masks for lanes, twice as fast as AVX2.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,avx512f,avx512bw,avx512vl")]
fn of_avx512(data: &mut [f32]) {
    of_all(data);
}

#[inline(always)]
fn of_all(data: &mut [f32]) {
    for x in data {
        *x = 0.5 * *x * (1.0 + erf(*x / SQRT_2)); // no closure, which would be a function without these instructions
    }
}

/// P and Q below 0.84375.
const SMALL: [[f32; 6]; 2] = [
    [1.283_791_7e-1, -3.250_421e-1, -2.848_175e-2, -5.770_270_2e-3, -2.376_301_7e-5, 0.0],
    [1.0, 3.979_172e-1, 6.502_225e-2, 5.081_306e-3, 1.324_947_4e-4, -3.960_228_2e-6],
];
/// P and Q below 1.25.
const MIDDLE: [[f32; 7]; 2] = [
    [-2.362_118_6e-3, 4.148_561e-1, -3.722_078_8e-1, 3.183_466_2e-1, -1.108_946_95e-1, 3.547_830_5e-2, -2.166_375_5e-3],
    [1.0, 1.064_208_8e-1, 5.403_979_4e-1, 7.182_865_6e-2, 1.261_712_1e-1, 1.363_708_4e-2, 1.198_45e-2],
];
/// R and S below 1 / 0.35.
const LARGE: [[f32; 9]; 2] = [
    [
        -9.864_944e-3,
        -6.938_585_6e-1,
        -1.055_862_6e1,
        -6.237_533e1,
        -1.623_966_7e2,
        -1.846_050_9e2,
        -8.128_744e1,
        -9.814_329,
        0.0,
    ],
    [
        1.0,
        1.965_127_2e1,
        1.376_577_6e2,
        4.345_659e2,
        6.453_872_7e2,
        4.290_081_5e2,
        1.086_35e2,
        6.570_249_6,
        -6.042_441_4e-2,
    ],
];
/// R and S beyond.
const LARGEST: [[f32; 9]; 2] = [
    [
        -9.864_943e-3,
        -7.992_832_7e-1,
        -1.775_795_6e1,
        -1.606_363_8e2,
        -6.375_664_7e2,
        -1.025_095_1e3,
        -4.835_192e2,
        0.0,
        0.0,
    ],
    [1.0, 3.033_806e1, 3.257_925e2, 1.536_729_6e3, 3.199_858_2e3, 2.553_050_3e3, 4.745_285_3e2, -2.244_095_2e1, 0.0],
];
/// erf(1), nearly.
const ERX: f32 = 8.450_629e-1;
/// 8 · (2 / √π − 1).
const EFX8: f32 = 1.027_033_3;
/// Where LARGEST begins.
const FAR: f32 = f32::from_bits(0x4036_db6d);
/// 2⁻²⁸.
const TINY: f32 = f32::from_bits(0x3180_0000);

/// `c₀ + x (c₁ + x (c₂ + …))`. A last coefficient of zero changes no bit.
#[inline(always)]
fn polynomial<const N: usize>(coefficients: [f32; N], x: f32) -> f32 {
    let mut sum = coefficients[N - 1];
    for i in (0..N - 1).rev() {
        sum = coefficients[i] + x * sum;
    }
    sum
}

#[inline(always)]
fn erf(x: f32) -> f32 {
    let a = x.abs();
    let squared = a * a;
    let small = a + a * (polynomial(SMALL[0], squared) / polynomial(SMALL[1], squared));
    let tiny = 0.125 * (8.0 * a + EFX8 * a);
    let beside = a - 1.0;
    let middle = 1.0 - (1.0 - ERX - polynomial(MIDDLE[0], beside) / polynomial(MIDDLE[1], beside));
    let inverse = 1.0 / squared;
    let of = |i: usize| {
        let (near, far) = (polynomial(LARGE[i], inverse), polynomial(LARGEST[i], inverse));
        if a < FAR { near } else { far }
    };
    let z = f32::from_bits(a.to_bits() & 0xffff_e000);
    let large = 1.0 - exp_below(-z * z - 0.5625) * exp_near((z - a) * (z + a) + of(0) / of(1)) / a;
    let y = if a < 6.0 { large } else { 1.0 };
    let y = if a < 1.25 { middle } else { y };
    let y = if a < 0.84375 { small } else { y };
    let y = if a < TINY { tiny } else { y };
    y.copysign(x)
}

const P: [f32; 2] = [1.666_662_5e-1, -2.766_733_3e-3];
const LN_2: [f32; 2] = [6.931_457_5e-1, 1.428_606_8e-6];

/// `eˣ` for x in [−40, −1.5 ln 2].
#[inline(always)]
fn exp_below(x: f32) -> f32 {
    let k = (LOG2_E * x - 0.5).trunc();
    let (high, low) = (x - k * LN_2[0], k * LN_2[1]);
    let x = high - low;
    let y = 1.0 + (beyond_linear(x) - low + high);
    // 2ᵏ: k stands in the last bits of a number of 23
    y * f32::from_bits((k + 12_582_912.0).to_bits().wrapping_add(127) << 23)
}

/// `eˣ` for |x| in (2⁻¹³, ln 2 / 2].
#[inline(always)]
fn exp_near(x: f32) -> f32 {
    1.0 + (beyond_linear(x) + x)
}

/// `eˣ − 1 − x`, nearly.
#[inline(always)]
fn beyond_linear(x: f32) -> f32 {
    let squared = x * x;
    let c = x - squared * (P[0] + squared * P[1]);
    x * c / (2.0 - c)
}
