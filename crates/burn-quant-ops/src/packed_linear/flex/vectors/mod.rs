//! What the product kernels need of a processor: 16 columns side by side, in whatever registers there are.
//!
//! Kernels are written once over this trait; each implementation is compiled inside a function with the features that
//! it names, and its methods are inlined there.
//!
//! | implementation | registers | product of bytes |
//! |---|---|---|
//! | [`Avx512`] | one of 16 lanes | `vpdpbusd` |
//! | [`Avx512Vbmi`] | one of 16 lanes | for floats of a byte, by `vpermi2b` |
//! | [`AvxVnni`] | two of 8 | `vpdpbusd` |
//! | [`Avx2`] | two of 8 | `vpmaddubsw` for small codes, else `vpmaddwd` of even and odd ones: nothing saturates |
//! | `NeonDot` | four of 4 | `sdot` |
//! | `NeonMatrix` | four of 4 | `usdot`, and `usmmla` for two rows and 8 inputs at a time |
//! | [`Portable`] | an array | multiplication |
//!
//! Every implementation gives the same integers. Floats are summed over inputs in the same order by all, with fused
//! multiply-add where there is an instruction for it.

// Every method is a few instructions whose one precondition is that the processor has them, which is the contract of
// the trait; a comment at each would say so again.
#![allow(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "aarch64")]
pub(super) use aarch64::{NeonDot, NeonMatrix};
#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Avx2, Avx512, Avx512Vbmi, AvxVnni, HalfTable};

/// 16 lanes. All methods are unsafe: the processor must have the instructions of the implementation, and pointers must
/// point to 16 elements.
pub(super) trait Vectors: Copy {
    /// 16 integers of 32 bits, or of four codes each.
    type Int: Copy;
    /// 16 f32.
    type Float: Copy;
    /// A table of 16 f32.
    type Table: Copy + Send + Sync;
    /// Four activations of a row, as [`dot`](Vectors::dot) takes them.
    type Step: Copy + Default + Send + Sync;

    /// The sizes of tiles, in rows, from the least up, with the panels that they are multiplied with at a time: as many
    /// streams of weights as the caches follow, and as many sums as there are registers.
    const TILES: &'static [(usize, usize)];
    /// The same where there is one sum for each, and not one for a block and one for all.
    const WIDE_TILES: &'static [(usize, usize)] = Self::TILES;

    /// The same where a row has two parts, and two sums of integers.
    const SPLIT_TILES: &'static [(usize, usize)] = Self::TILES;

    /// Runs a tile of one of the sizes of [`TILES`](Vectors::TILES).
    unsafe fn run<T: Tile<Self>>(tile: &T, rows: usize);
    /// Runs a tile of one of the sizes of [`WIDE_TILES`](Vectors::WIDE_TILES).
    unsafe fn run_wide<T: Tile<Self>>(tile: &T, rows: usize) {
        Self::run(tile, rows);
    }
    /// Runs a tile of one of the sizes of [`SPLIT_TILES`](Vectors::SPLIT_TILES).
    unsafe fn run_split<T: Tile<Self>>(tile: &T, rows: usize) {
        Self::run(tile, rows);
    }

    fn step(codes: [i8; 4]) -> Self::Step;

    unsafe fn words(from: *const u32) -> Self::Int;
    unsafe fn splat(value: i32) -> Self::Int;
    /// `(words >> shift) & mask`.
    unsafe fn field(words: Self::Int, shift: u32, mask: u32) -> Self::Int;
    /// The bytes of a table of 16 at each byte, all of which are below 16.
    unsafe fn bytes_of(codes: Self::Int, table: &[u8; 16]) -> Self::Int;
    /// `sum + Σ codes · step` over the four bytes of each lane: codes without a sign, below 25 if `SMALL`.
    unsafe fn dot<const SMALL: bool>(sum: Self::Int, codes: Self::Int, step: &Self::Step) -> Self::Int;
    /// Whether sums of 16 bits save instructions.
    const HAS_SHORTS: bool = false;
    /// Sums of pairs of products, of 16 bits; [`Int`](Vectors::Int) where there are none.
    type Short: Copy;
    unsafe fn no_shorts() -> Self::Short;
    /// `sum + codes · step` in pairs.
    unsafe fn short_dot(sum: Self::Short, codes: Self::Int, step: &Self::Step) -> Self::Short;
    /// `sum` and the pairs of each lane.
    unsafe fn add_shorts(sum: Self::Int, short: Self::Short) -> Self::Int;
    /// Whether an instruction multiplies two rows with two steps.
    const HAS_PAIRS: bool = false;
    /// Sums of two rows, in the order of the instruction; nothing where there is none.
    type Pair: Copy;
    unsafe fn no_pairs() -> Self::Pair;
    /// `sum + codes · steps` of two steps of codes and of two rows: at `first` and `second` is a step of a row each,
    /// and `N` behind it that of the next row.
    unsafe fn pair_dot<const N: usize>(
        sum: Self::Pair,
        codes: [Self::Int; 2],
        first: *const Self::Step,
        second: *const Self::Step,
    ) -> Self::Pair;
    /// `sums` of two rows, and a pair's.
    unsafe fn add_pairs(sums: [Self::Int; 2], pair: Self::Pair) -> [Self::Int; 2];
    unsafe fn subtract(a: Self::Int, b: Self::Int) -> Self::Int;
    unsafe fn to_float(value: Self::Int) -> Self::Float;

    unsafe fn floats(value: f32) -> Self::Float;
    unsafe fn load(from: *const f32) -> Self::Float;
    unsafe fn store(value: Self::Float, to: *mut f32);
    unsafe fn multiply_add(a: Self::Float, b: Self::Float, c: Self::Float) -> Self::Float;
    unsafe fn table(values: &[f32; 16]) -> Self::Table;
    /// The value of a table at each index; only its lowest four bits count.
    unsafe fn lookup(index: Self::Int, table: Self::Table) -> Self::Float;
    /// The value of a table of 256 at each index.
    unsafe fn gather(index: Self::Int, table: &[f32; 256]) -> Self::Float;
    /// E8M0 scales, a byte each.
    unsafe fn e8m0(from: *const u8) -> Self::Float;
    /// E4M3 scales, a byte each.
    unsafe fn e4m3(from: *const u8) -> Self::Float;
    /// E4M3 numbers in the lowest byte of each lane.
    unsafe fn e4m3_points(codes: Self::Int) -> Self::Float;
}

/// A product of a few rows and panels, whose numbers are constants.
pub(super) trait Tile<V: Vectors> {
    unsafe fn run<const ROWS: usize, const PANELS: usize>(&self);
}

/// The sizes of tiles, and running them in functions that are compiled with the features.
macro_rules! tiles {
    ($sizes:ident, $run:ident, $($feature:literal,)? $(($rows:literal, $panels:literal))*) => {
        const $sizes: &'static [(usize, usize)] = &[$(($rows, $panels)),*];

        unsafe fn $run<T: Tile<Self>>(tile: &T, rows: usize) {
            $(#[target_feature(enable = $feature)])?
            unsafe fn with<V: Vectors, T: Tile<V>, const ROWS: usize, const PANELS: usize>(tile: &T) {
                tile.run::<ROWS, PANELS>();
            }
            match rows {
                $($rows => with::<Self, T, $rows, $panels>(tile),)*
                rows => unreachable!("packed_linear: no tile has {rows} rows"),
            }
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use tiles;

/// No sums of 16 bits: those of 32 bits at once.
macro_rules! no_shorts {
    () => {
        type Short = Self::Int;

        #[inline(always)]
        unsafe fn no_shorts() -> Self::Int {
            Self::splat(0)
        }

        #[inline(always)]
        unsafe fn short_dot(sum: Self::Int, codes: Self::Int, step: &Self::Step) -> Self::Int {
            Self::dot::<true>(sum, codes, step)
        }

        #[inline(always)]
        unsafe fn add_shorts(_sum: Self::Int, _short: Self::Int) -> Self::Int {
            unreachable!("there are no sums of 16 bits")
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use no_shorts;

/// No products of two rows at a time.
macro_rules! no_pairs {
    () => {
        type Pair = ();

        #[inline(always)]
        unsafe fn no_pairs() {}

        #[inline(always)]
        unsafe fn pair_dot<const N: usize>(
            _sum: (),
            _codes: [Self::Int; 2],
            _first: *const Self::Step,
            _second: *const Self::Step,
        ) {
            unreachable!("rows are multiplied one by one")
        }

        #[inline(always)]
        unsafe fn add_pairs(_sums: [Self::Int; 2], _pair: ()) -> [Self::Int; 2] {
            unreachable!("rows are multiplied one by one")
        }
    };
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use no_pairs;

/// The bits of 2^-127, the least scale in E8M0.
const LEAST_E8M0: u32 = 1 << 22;

/// Any processor.
#[derive(Clone, Copy)]
pub(super) struct Portable;

const LANES: usize = 16;

impl Vectors for Portable {
    type Int = [u32; LANES];
    type Float = [f32; LANES];
    type Table = [f32; LANES];
    type Step = [i8; 4];

    tiles!(TILES, run, (1, 1)(2, 1));
    no_shorts!();
    no_pairs!();

    fn step(codes: [i8; 4]) -> [i8; 4] {
        codes
    }

    #[inline(always)]
    unsafe fn words(from: *const u32) -> Self::Int {
        from.cast::<Self::Int>().read()
    }

    #[inline(always)]
    unsafe fn splat(value: i32) -> Self::Int {
        [value as u32; LANES]
    }

    #[inline(always)]
    unsafe fn field(words: Self::Int, shift: u32, mask: u32) -> Self::Int {
        words.map(|word| (word >> shift) & mask)
    }

    #[inline(always)]
    unsafe fn bytes_of(codes: Self::Int, table: &[u8; 16]) -> Self::Int {
        codes.map(|word| u32::from_le_bytes(word.to_le_bytes().map(|code| table[usize::from(code & 15)])))
    }

    #[inline(always)]
    unsafe fn dot<const SMALL: bool>(mut sum: Self::Int, codes: Self::Int, step: &[i8; 4]) -> Self::Int {
        for lane in 0..LANES {
            let codes = codes[lane].to_le_bytes();
            let product = |i: usize| i32::from(codes[i]) * i32::from(step[i]);
            let products = product(0) + product(1) + product(2) + product(3);
            sum[lane] = sum[lane].wrapping_add(products as u32);
        }
        sum
    }

    #[inline(always)]
    unsafe fn subtract(mut a: Self::Int, b: Self::Int) -> Self::Int {
        for lane in 0..LANES {
            a[lane] = a[lane].wrapping_sub(b[lane]);
        }
        a
    }

    #[inline(always)]
    unsafe fn to_float(value: Self::Int) -> Self::Float {
        value.map(|value| value as i32 as f32)
    }

    #[inline(always)]
    unsafe fn floats(value: f32) -> Self::Float {
        [value; LANES]
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self::Float {
        from.cast::<Self::Float>().read()
    }

    #[inline(always)]
    unsafe fn store(value: Self::Float, to: *mut f32) {
        to.cast::<Self::Float>().write(value);
    }

    #[inline(always)]
    unsafe fn multiply_add(a: Self::Float, b: Self::Float, mut c: Self::Float) -> Self::Float {
        for lane in 0..LANES {
            c[lane] += a[lane] * b[lane]; // a call of the library where there is no instruction, if it were fused
        }
        c
    }

    #[inline(always)]
    unsafe fn table(values: &[f32; 16]) -> Self::Table {
        *values
    }

    #[inline(always)]
    unsafe fn lookup(index: Self::Int, table: Self::Table) -> Self::Float {
        index.map(|index| table[index as usize % LANES])
    }

    #[inline(always)]
    unsafe fn gather(index: Self::Int, table: &[f32; 256]) -> Self::Float {
        index.map(|index| table[index as usize % 256])
    }

    #[inline(always)]
    unsafe fn e8m0(from: *const u8) -> Self::Float {
        from.cast::<[u8; LANES]>().read().map(|byte| f32::from_bits((u32::from(byte) << 23).max(LEAST_E8M0)))
    }

    #[inline(always)]
    unsafe fn e4m3(from: *const u8) -> Self::Float {
        from.cast::<[u8; LANES]>().read().map(|byte| e4m3(u32::from(byte)))
    }

    #[inline(always)]
    unsafe fn e4m3_points(codes: Self::Int) -> Self::Float {
        codes.map(e4m3)
    }
}

/// An E4M3 number: its bits stand in those of a float with a larger bias, which a power of two makes up for.
#[inline(always)]
fn e4m3(code: u32) -> f32 {
    let magnitude = f32::from_bits((code & 0x7f) << 20) * f32::from_bits((127 + 120) << 23);
    f32::from_bits(magnitude.to_bits() | (code & 0x80) << 24)
}
