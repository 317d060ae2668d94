#![no_std]
//! What a quantized number *is*: grids, rounding and scales, on slices.
//!
//! ```text
//!   real value x ──×──► grid units ──round──► a point of the grid ──÷──► real value y = fake_quant(x)
//!                  ▲                          (code, or minifloat)   ▲
//!                  └────────── Scale, made from amax ────────────────┘
//! ```
//!
//! * [`Format`] names a number format; [`Grid`] is what a format does: scale, round, fake-quantize.
//! * [`IntGrid`] and [`E4m3`] are the grids; loops over slices are generic over them, so each compiles to its own
//!   vectorised code.
//! * [`Scale`] is the pair of factors that one `amax` gives; one per group of elements.
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

mod format;
mod grid;
mod int;
mod minifloat;
mod round;
mod slice;

pub use format::{Format, FormatError};
pub use grid::{Grid, MIN_AMAX, Scale};
pub use int::{IntFormat, IntGrid, IntSpan, Signedness};
pub use minifloat::E4m3;
pub use round::round_half_to_even;
pub use slice::{amax, fake_quant_in_place, fake_quant_into};
