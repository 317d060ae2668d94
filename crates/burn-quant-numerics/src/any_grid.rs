//! The grid of any format under any scales, chosen at run time.

use crate::{Format, Grid, IntGrid, Minifloat, Mx, Nf4, Scale, ScaleFormat, TwoLevel};

/// The elements of a format.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Elements {
    /// Integers.
    Int(IntGrid),
    /// Small floats.
    Minifloat(Minifloat),
    /// The table of NF4.
    Nf4(Nf4),
}

/// The grid of a format under a format of scales: for code that meets both at run time, a value at a time.
///
/// Loops over tensors are faster with the grid itself, which is known when they are compiled.
///
/// # Example
///
/// ```
/// use burn_quant_numerics::{AnyGrid, Format, Grid, Minifloat, ScaleFormat};
///
/// let grid = AnyGrid::new(Format::E4M3, ScaleFormat::F32, 0.0);
/// assert_eq!(grid.fake_quant(0.3, grid.scale(1.0)), Minifloat::E4M3.fake_quant(0.3, Minifloat::E4M3.scale(1.0)));
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum AnyGrid {
    /// Under f32 scales.
    Plain(Elements),
    /// Under powers of two.
    Mx(Mx<Elements>),
    /// Under E4M3 scales of blocks.
    TwoLevel(TwoLevel<Elements>),
}

impl AnyGrid {
    /// The grid of a format under a format of scales; the range of the tensor matters to E4M3 scales only.
    pub fn new(format: Format, scale: ScaleFormat, global_amax: f32) -> Self {
        let elements = match format {
            Format::Int(format) if scale == ScaleFormat::F32 => Elements::Int(format.grid()),
            Format::Int(format) => Elements::Int(format.grid().symmetric()),
            Format::Nf4 => Elements::Nf4(Nf4),
            other => Elements::Minifloat(other.minifloat().expect("neither an integer format nor NF4")),
        };
        match scale {
            ScaleFormat::F32 => AnyGrid::Plain(elements),
            ScaleFormat::E8M0 => AnyGrid::Mx(Mx(elements)),
            ScaleFormat::E4M3(blocks) => AnyGrid::TwoLevel(TwoLevel::new(elements, blocks, global_amax)),
        }
    }
}

/// Passes each method on to the grid at hand.
macro_rules! delegate {
    ($any:ident: $($variant:ident)|+) => {
        impl Grid for $any {
            fn max(self) -> f32 {
                match self { $($any::$variant(grid) => grid.max(),)+ }
            }

            fn scale(self, amax: f32) -> Scale {
                match self { $($any::$variant(grid) => grid.scale(amax),)+ }
            }

            fn round(self, units: f32) -> f32 {
                match self { $($any::$variant(grid) => grid.round(units),)+ }
            }

            fn dequantize(self, units: f32, scale: Scale) -> f32 {
                match self { $($any::$variant(grid) => grid.dequantize(units, scale),)+ }
            }

            fn units(self, x: f32, scale: Scale) -> f32 {
                match self { $($any::$variant(grid) => grid.units(x, scale),)+ }
            }

            fn fake_quant(self, x: f32, scale: Scale) -> f32 {
                match self { $($any::$variant(grid) => grid.fake_quant(x, scale),)+ }
            }

            fn amax(self, x: &[f32]) -> f32 {
                match self { $($any::$variant(grid) => grid.amax(x),)+ }
            }

            fn magnitude(self, x: f32) -> u32 {
                match self { $($any::$variant(grid) => grid.magnitude(x),)+ }
            }
        }
    };
}

delegate!(Elements: Int | Minifloat | Nf4);
delegate!(AnyGrid: Plain | Mx | TwoLevel);
