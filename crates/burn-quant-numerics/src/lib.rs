#![no_std]
//! What a quantized number *is*: grids, rounding and scales, on slices.
//!
//! ```text
//!   real value x ──×──► grid units ──round──► a point of the grid ──÷──► real value y = fake_quant(x)
//!                  ▲                          (code, or minifloat)   ▲
//!                  └────────── Scale, made from amax ────────────────┘
//! ```
//!
//! * [`Format`] names a number format, [`ScaleFormat`] that of its scales; [`Grid`] is what they do: scale, round,
//!   fake-quantize.
//! * [`IntGrid`], [`Minifloat`] and [`Nf4`] are the grids with f32 scales; [`Mx`] puts powers of two over one of them,
//!   and [`TwoLevel`] E4M3 numbers under a scale of the tensor. Loops over slices are generic over grids, so each
//!   compiles to its own vectorised code.
//! * [`Scale`] is the pair of factors that one `amax` gives; one per group of elements.
//! * [`ZeroPoint`] is the scale of asymmetric integers, and [`packed`] how codes and scales are stored.
//! * [`PackedMatrix`] is a matrix of codes, and what products with it are.
//!
//! Every other crate of the family calls this one: a kernel that disagrees with it is wrong.
//!
//! # Example
//!
//! ```
//! use burn_quant_numerics::{Format, Grid, IntFormat};
//!
//! let grid = IntFormat::signed(8).unwrap().grid();
//! let scale = grid.scale(1.0); // amax = 1: codes -128..=127, 127 is 1.0
//! assert_eq!(grid.fake_quant(0.26, scale), 33.0 / 127.0);
//! assert_eq!(Format::E4M3.to_string(), "e4m3");
//! ```

#[cfg(test)]
extern crate std;

mod affine;
mod any_grid;
mod codes;
mod e8m0;
mod format;
mod grid;
mod int;
mod minifloat;
mod nf4;
#[cfg(test)]
mod oracle;
pub mod packed;
mod product;
mod round;
mod slice;
mod two_level;

pub use affine::ZeroPoint;
pub use any_grid::{AnyGrid, Elements};
pub use e8m0::{E8m0, Mx};
pub use format::{BlockScale, Format, FormatError, ScaleFormat};
pub use grid::{Grid, MIN_AMAX, Scale};
pub use int::{IntFormat, IntGrid, IntSpan, Signedness};
pub use minifloat::Minifloat;
pub use nf4::{NF4_TABLE, Nf4};
pub use product::{PackedMatrix, load_scale, scale_words, store_scale};
pub use round::round_half_to_even;
pub use slice::{amax, fake_quant_in_place, fake_quant_into};
pub use two_level::TwoLevel;
