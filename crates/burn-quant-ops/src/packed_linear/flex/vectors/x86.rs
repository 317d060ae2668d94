//! The vector instructions of x86.

use std::arch::x86_64::*;

use burn_quant_numerics::packed::STEP;

use super::super::codes::Points;
use super::{LEAST_E8M0, Tile, Vectors, no_pairs, no_shorts, tiles};

/// What a register of 16 lanes does, whichever features its functions are compiled with.
macro_rules! one_register {
    () => {
        fn step(codes: [i8; 4]) -> i32 {
            i32::from_le_bytes(codes.map(|code| code as u8))
        }

        #[inline(always)]
        unsafe fn words(from: *const u32) -> __m512i {
            _mm512_loadu_si512(from.cast())
        }

        #[inline(always)]
        unsafe fn splat(value: i32) -> __m512i {
            _mm512_set1_epi32(value)
        }

        #[inline(always)]
        unsafe fn field(words: __m512i, shift: u32, mask: u32) -> __m512i {
            _mm512_and_si512(_mm512_srl_epi32(words, _mm_cvtsi32_si128(shift as i32)), _mm512_set1_epi32(mask as i32))
        }

        #[inline(always)]
        unsafe fn bytes_of(codes: __m512i, table: &[u8; 16]) -> __m512i {
            _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast())), codes)
        }

        #[inline(always)]
        unsafe fn dot<const SMALL: bool>(sum: __m512i, codes: __m512i, step: &i32) -> __m512i {
            _mm512_dpbusd_epi32(sum, codes, _mm512_set1_epi32(*step))
        }

        #[inline(always)]
        unsafe fn subtract(a: __m512i, b: __m512i) -> __m512i {
            _mm512_sub_epi32(a, b)
        }

        #[inline(always)]
        unsafe fn to_float(value: __m512i) -> __m512 {
            _mm512_cvtepi32_ps(value)
        }

        #[inline(always)]
        unsafe fn floats(value: f32) -> __m512 {
            _mm512_set1_ps(value)
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> __m512 {
            _mm512_loadu_ps(from)
        }

        #[inline(always)]
        unsafe fn store(value: __m512, to: *mut f32) {
            _mm512_storeu_ps(to, value);
        }

        #[inline(always)]
        unsafe fn multiply_add(a: __m512, b: __m512, c: __m512) -> __m512 {
            _mm512_fmadd_ps(a, b, c)
        }

        #[inline(always)]
        unsafe fn table(values: &[f32; 16]) -> __m512 {
            _mm512_loadu_ps(values.as_ptr())
        }

        #[inline(always)]
        unsafe fn lookup(index: __m512i, table: __m512) -> __m512 {
            _mm512_permutexvar_ps(index, table)
        }

        #[inline(always)]
        unsafe fn gather(index: __m512i, table: &[f32; 256]) -> __m512 {
            _mm512_i32gather_ps::<4>(index, table.as_ptr())
        }

        #[inline(always)]
        unsafe fn e8m0(from: *const u8) -> __m512 {
            // a byte of 0 is 2^-127, which is no normal number
            let bits = _mm512_slli_epi32::<23>(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())));
            _mm512_castsi512_ps(_mm512_max_epi32(bits, _mm512_set1_epi32(LEAST_E8M0 as i32)))
        }

        #[inline(always)]
        unsafe fn e4m3(from: *const u8) -> __m512 {
            // the bits of an f16 with a bias that is 8 larger
            let bytes = _mm256_cvtepu8_epi16(_mm_loadu_si128(from.cast()));
            _mm512_mul_ps(_mm512_cvtph_ps(_mm256_slli_epi16::<7>(bytes)), _mm512_set1_ps(256.0))
        }

        #[inline(always)]
        unsafe fn e4m3_points(codes: __m512i) -> __m512 {
            let sign = _mm512_and_si512(_mm512_slli_epi32::<8>(codes), _mm512_set1_epi32(0x8000));
            let magnitude = _mm512_and_si512(_mm512_slli_epi32::<7>(codes), _mm512_set1_epi32(0x3f80));
            let halves = _mm512_cvtepi32_epi16(_mm512_or_si512(sign, magnitude));
            _mm512_mul_ps(_mm512_cvtph_ps(halves), _mm512_set1_ps(256.0))
        }
    };
}

/// AVX-512 with `vpdpbusd`.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx512;

impl Vectors for Avx512 {
    type Int = __m512i;
    type Float = __m512;
    type Table = __m512;
    type Step = i32;

    tiles!(TILES, run, "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni", (1, 4)(2, 2)(4, 2)(6, 2));
    tiles!(WIDE_TILES, run_wide, "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni", (1, 4)(2, 2)(4, 2)(8, 2)(12, 2));
    tiles!(SPLIT_TILES, run_split, "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni", (1, 4)(2, 2)(3, 2));

    no_shorts!();
    no_pairs!();
    one_register!();
}

/// AVX-512 with permutations of bytes, which look up numbers of a byte.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx512Vbmi;

impl Vectors for Avx512Vbmi {
    type Int = __m512i;
    type Float = __m512;
    type Table = __m512;
    type Step = i32;

    tiles!(TILES, run, "avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512vnni,avx512vbmi", (1, 4)(2, 2)(4, 2)(6, 2));

    no_shorts!();
    no_pairs!();
    one_register!();
}

/// Floats of at most a byte: the two bytes of each as bf16, which is exact for all of them. Codes of 8 bits are
/// looked up without their sign.
#[derive(Clone, Copy)]
pub(in super::super) struct HalfTable<'a> {
    pub(in super::super) high: &'a [u8; 128],
    pub(in super::super) low: &'a [u8; 128],
    /// The sign of each byte of a word.
    pub(in super::super) signs: u32,
}

impl Points<Avx512Vbmi> for HalfTable<'_> {
    const INPUTS: usize = STEP;
    /// The high bytes; the low ones of even inputs and those of odd ones, each in the lower byte of 16 bits.
    type Prepared = [__m512i; 3];

    #[inline(always)]
    unsafe fn prepare(self, words: __m512i) -> [__m512i; 3] {
        let load = |from: &[u8; 128]| {
            let from = from.as_ptr().cast::<__m512i>();
            [_mm512_loadu_si512(from), _mm512_loadu_si512(from.add(1))]
        };
        let ([a, b], [c, d]) = (load(self.high), load(self.low));
        let high = _mm512_permutex2var_epi8(a, words, b);
        let low = _mm512_permutex2var_epi8(c, words, d);
        let signs = _mm512_set1_epi32(self.signs as i32);
        let bytes = _mm512_set1_epi16(0xff);
        [
            _mm512_ternarylogic_epi32::<OR_OF_BOTH>(words, signs, high),
            _mm512_and_si512(low, bytes),
            _mm512_srli_epi16::<8>(low),
        ]
    }

    #[inline(always)]
    unsafe fn of_input(self, [high, even, odd]: [__m512i; 3], input: usize) -> __m512 {
        // the high byte to the top, the low one below it, and zeros below that
        let (high, low) = match input {
            0 => (_mm512_slli_epi32::<24>(high), _mm512_slli_epi32::<16>(even)),
            1 => (_mm512_slli_epi32::<16>(high), _mm512_slli_epi32::<16>(odd)),
            2 => (_mm512_slli_epi32::<8>(high), _mm512_and_si512(even, _mm512_set1_epi32(0x00ff_0000))),
            _ => (high, _mm512_and_si512(odd, _mm512_set1_epi32(0x00ff_0000))),
        };
        let top = _mm512_set1_epi32(0xff00_0000_u32 as i32);
        _mm512_castsi512_ps(_mm512_ternarylogic_epi32::<OR_OF_BOTH>(high, top, low))
    }
}

/// `(a & b) | c`.
const OR_OF_BOTH: i32 = 0xea;

/// AVX2 with fused multiply-add and f16 conversions.
#[derive(Clone, Copy)]
pub(in super::super) struct Avx2;

/// AVX2 with `vpdpbusd`.
#[derive(Clone, Copy)]
pub(in super::super) struct AvxVnni;

/// What two registers of eight lanes have in common, whatever multiplies bytes.
macro_rules! two_registers {
    () => {
        #[inline(always)]
        unsafe fn words(from: *const u32) -> Self::Int {
            [_mm256_loadu_si256(from.cast()), _mm256_loadu_si256(from.add(8).cast())]
        }

        #[inline(always)]
        unsafe fn splat(value: i32) -> Self::Int {
            [_mm256_set1_epi32(value); 2]
        }

        #[inline(always)]
        unsafe fn field(words: Self::Int, shift: u32, mask: u32) -> Self::Int {
            let (shift, mask) = (_mm_cvtsi32_si128(shift as i32), _mm256_set1_epi32(mask as i32));
            let field = |words| _mm256_and_si256(_mm256_srl_epi32(words, shift), mask);
            [field(words[0]), field(words[1])]
        }

        #[inline(always)]
        unsafe fn bytes_of(codes: Self::Int, table: &[u8; 16]) -> Self::Int {
            let table = _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()));
            [_mm256_shuffle_epi8(table, codes[0]), _mm256_shuffle_epi8(table, codes[1])]
        }

        #[inline(always)]
        unsafe fn subtract(a: Self::Int, b: Self::Int) -> Self::Int {
            [_mm256_sub_epi32(a[0], b[0]), _mm256_sub_epi32(a[1], b[1])]
        }

        #[inline(always)]
        unsafe fn to_float(value: Self::Int) -> Self::Float {
            [_mm256_cvtepi32_ps(value[0]), _mm256_cvtepi32_ps(value[1])]
        }

        #[inline(always)]
        unsafe fn floats(value: f32) -> Self::Float {
            [_mm256_set1_ps(value); 2]
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self::Float {
            [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))]
        }

        #[inline(always)]
        unsafe fn store(value: Self::Float, to: *mut f32) {
            _mm256_storeu_ps(to, value[0]);
            _mm256_storeu_ps(to.add(8), value[1]);
        }

        #[inline(always)]
        unsafe fn multiply_add(a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float {
            [_mm256_fmadd_ps(a[0], b[0], c[0]), _mm256_fmadd_ps(a[1], b[1], c[1])]
        }

        #[inline(always)]
        unsafe fn table(values: &[f32; 16]) -> Self::Table {
            [_mm256_loadu_ps(values.as_ptr()), _mm256_loadu_ps(values.as_ptr().add(8))]
        }

        #[inline(always)]
        unsafe fn lookup(index: Self::Int, table: Self::Table) -> Self::Float {
            // the fourth bit of the index, as a sign, chooses between the halves
            let lookup = |index| {
                let (low, high) =
                    (_mm256_permutevar8x32_ps(table[0], index), _mm256_permutevar8x32_ps(table[1], index));
                _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32::<28>(index)))
            };
            [lookup(index[0]), lookup(index[1])]
        }

        #[inline(always)]
        unsafe fn gather(index: Self::Int, table: &[f32; 256]) -> Self::Float {
            let gather = |index| _mm256_i32gather_ps::<4>(table.as_ptr(), index);
            [gather(index[0]), gather(index[1])]
        }

        #[inline(always)]
        unsafe fn e8m0(from: *const u8) -> Self::Float {
            let scales = |from: *const u8| {
                let bits = _mm256_slli_epi32::<23>(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())));
                _mm256_castsi256_ps(_mm256_max_epi32(bits, _mm256_set1_epi32(LEAST_E8M0 as i32)))
            };
            [scales(from), scales(from.add(8))]
        }

        #[inline(always)]
        unsafe fn e4m3(from: *const u8) -> Self::Float {
            let scales = |from: *const u8| {
                let bytes = _mm_slli_epi16::<7>(_mm_cvtepu8_epi16(_mm_loadl_epi64(from.cast())));
                _mm256_mul_ps(_mm256_cvtph_ps(bytes), _mm256_set1_ps(256.0))
            };
            [scales(from), scales(from.add(8))]
        }

        #[inline(always)]
        unsafe fn e4m3_points(codes: Self::Int) -> Self::Float {
            let points = |codes| {
                let sign = _mm256_and_si256(_mm256_slli_epi32::<8>(codes), _mm256_set1_epi32(0x8000));
                let magnitude = _mm256_and_si256(_mm256_slli_epi32::<7>(codes), _mm256_set1_epi32(0x3f80));
                let bits = _mm256_or_si256(sign, magnitude);
                let halves = _mm_packus_epi32(_mm256_castsi256_si128(bits), _mm256_extracti128_si256::<1>(bits));
                _mm256_mul_ps(_mm256_cvtph_ps(halves), _mm256_set1_ps(256.0))
            };
            [points(codes[0]), points(codes[1])]
        }
    };
}

impl Vectors for Avx2 {
    type Int = [__m256i; 2];
    type Float = [__m256; 2];
    type Table = [__m256; 2];
    /// The four bytes; then the even ones and the odd ones, widened.
    type Step = [i32; 3];

    tiles!(TILES, run, "avx2,fma,f16c", (1, 2)(2, 1)(4, 1));
    tiles!(SPLIT_TILES, run_split, "avx2,fma,f16c", (1, 1)(2, 1));

    no_pairs!();
    const HAS_SHORTS: bool = true;
    type Short = [__m256i; 2];

    #[inline(always)]
    unsafe fn no_shorts() -> Self::Short {
        [_mm256_setzero_si256(); 2]
    }

    #[inline(always)]
    unsafe fn short_dot(sum: Self::Short, codes: Self::Int, step: &[i32; 3]) -> Self::Short {
        let step = _mm256_set1_epi32(step[0]);
        let dot = |sum, codes| _mm256_add_epi16(sum, _mm256_maddubs_epi16(codes, step));
        [dot(sum[0], codes[0]), dot(sum[1], codes[1])]
    }

    #[inline(always)]
    unsafe fn add_shorts(sum: Self::Int, short: Self::Short) -> Self::Int {
        let add = |sum, short| _mm256_add_epi32(sum, _mm256_madd_epi16(short, _mm256_set1_epi16(1)));
        [add(sum[0], short[0]), add(sum[1], short[1])]
    }

    fn step(codes: [i8; 4]) -> [i32; 3] {
        let pair = |a: i8, b: i8| i32::from(a) & 0xffff | i32::from(b) << 16;
        [i32::from_le_bytes(codes.map(|code| code as u8)), pair(codes[0], codes[2]), pair(codes[1], codes[3])]
    }

    #[inline(always)]
    unsafe fn dot<const SMALL: bool>(sum: Self::Int, codes: Self::Int, step: &[i32; 3]) -> Self::Int {
        let dot = |sum, codes| {
            let products = if SMALL {
                // at most 2 · 24 · 128, which an i16 holds
                _mm256_madd_epi16(_mm256_maddubs_epi16(codes, _mm256_set1_epi32(step[0])), _mm256_set1_epi16(1))
            } else {
                let even = _mm256_and_si256(codes, _mm256_set1_epi16(0xff));
                let odd = _mm256_srli_epi16::<8>(codes);
                let even = _mm256_madd_epi16(even, _mm256_set1_epi32(step[1]));
                _mm256_add_epi32(even, _mm256_madd_epi16(odd, _mm256_set1_epi32(step[2])))
            };
            _mm256_add_epi32(sum, products)
        };
        [dot(sum[0], codes[0]), dot(sum[1], codes[1])]
    }

    two_registers!();
}

impl Vectors for AvxVnni {
    type Int = [__m256i; 2];
    type Float = [__m256; 2];
    type Table = [__m256; 2];
    type Step = i32;

    tiles!(TILES, run, "avx2,fma,f16c,avxvnni", (1, 2)(2, 1)(4, 1));
    tiles!(SPLIT_TILES, run_split, "avx2,fma,f16c,avxvnni", (1, 1)(2, 1));
    no_shorts!();
    no_pairs!();

    fn step(codes: [i8; 4]) -> i32 {
        i32::from_le_bytes(codes.map(|code| code as u8))
    }

    #[inline(always)]
    unsafe fn dot<const SMALL: bool>(sum: Self::Int, codes: Self::Int, step: &i32) -> Self::Int {
        let step = _mm256_set1_epi32(*step);
        [_mm256_dpbusd_avx_epi32(sum[0], codes[0], step), _mm256_dpbusd_avx_epi32(sum[1], codes[1], step)]
    }

    two_registers!();
}
