//! The name of a number format, of its elements and of its scales.

use crate::{IntFormat, Minifloat};

/// A number format: which values a quantized element can take, in units of its scale.
///
/// | format | bits | largest value | elements |
/// |---|---|---|---|
/// | [`Int`](Format::Int) | 2 to 16 | `2^(N−1) − 1` | integers |
/// | [`E4M3`](Format::E4M3) | 8 | 448 | 8-bit float |
/// | [`E5M2`](Format::E5M2) | 8 | 57344 | 8-bit float, wider range |
/// | [`E3M2`](Format::E3M2) | 6 | 28 | 6-bit float |
/// | [`E2M3`](Format::E2M3) | 6 | 7.5 | 6-bit float, finer |
/// | [`E2M1`](Format::E2M1) | 4 | 6 | 0, 0.5, 1, 1.5, 2, 3, 4, 6 |
/// | [`E1M2`](Format::E1M2) | 4 | 3.5 | 0, 0.5, ..., 3.5 |
/// | [`Nf4`](Format::Nf4) | 4 | 1 | 16 quantiles of a normal distribution |
///
/// # Example
///
/// ```
/// use burn_quant_numerics::{Format, IntFormat};
///
/// let int4 = Format::from(IntFormat::signed(4)?);
/// assert_eq!((int4.bits(), int4.to_string().as_str()), (4, "int4"));
/// assert_eq!((Format::E2M3.bits(), Format::E2M3.max()), (6, 7.5));
/// # Ok::<(), burn_quant_numerics::FormatError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Format {
    /// An integer grid, 2 to 16 bits.
    Int(IntFormat),
    /// The 8-bit float E4M3, largest value 448.
    #[cfg_attr(feature = "serde", serde(rename = "e4m3"))]
    E4M3,
    /// The 8-bit float E5M2, largest value 57344.
    #[cfg_attr(feature = "serde", serde(rename = "e5m2"))]
    E5M2,
    /// The 6-bit float E3M2, largest value 28.
    #[cfg_attr(feature = "serde", serde(rename = "e3m2"))]
    E3M2,
    /// The 6-bit float E2M3, largest value 7.5.
    #[cfg_attr(feature = "serde", serde(rename = "e2m3"))]
    E2M3,
    /// The 4-bit float E2M1, largest value 6: the elements of NVFP4 and MXFP4.
    #[cfg_attr(feature = "serde", serde(rename = "e2m1"))]
    E2M1,
    /// The 4-bit float E1M2, largest value 3.5.
    #[cfg_attr(feature = "serde", serde(rename = "e1m2"))]
    E1M2,
    /// The 16 values of NormalFloat, largest value 1.
    #[cfg_attr(feature = "serde", serde(rename = "nf4"))]
    Nf4,
}

impl Format {
    /// Returns the bits per element, without scales.
    ///
    /// 8 for INT8 and E4M3, 4 for E2M1 and NF4.
    pub const fn bits(self) -> u8 {
        match self {
            Format::Int(int) => int.bits(),
            Format::E4M3 | Format::E5M2 => 8,
            Format::E3M2 | Format::E2M3 => 6,
            Format::E2M1 | Format::E1M2 | Format::Nf4 => 4,
        }
    }

    /// Returns the largest value of an element, in units of its scale; amax is mapped to it.
    ///
    /// 448 for E4M3, 6 for E2M1, 1 for NF4.
    pub const fn max(self) -> f32 {
        match self {
            Format::Int(int) => int.grid().hi() as f32,
            Format::Nf4 => 1.0,
            Format::E4M3 => Minifloat::E4M3.largest(),
            Format::E5M2 => Minifloat::E5M2.largest(),
            Format::E3M2 => Minifloat::E3M2.largest(),
            Format::E2M3 => Minifloat::E2M3.largest(),
            Format::E2M1 => Minifloat::E2M1.largest(),
            Format::E1M2 => Minifloat::E1M2.largest(),
        }
    }

    /// Returns the grid of a floating-point format; `None` for integers and NF4.
    ///
    /// Grids round and encode.
    pub const fn minifloat(self) -> Option<Minifloat> {
        match self {
            Format::E4M3 => Some(Minifloat::E4M3),
            Format::E5M2 => Some(Minifloat::E5M2),
            Format::E3M2 => Some(Minifloat::E3M2),
            Format::E2M3 => Some(Minifloat::E2M3),
            Format::E2M1 => Some(Minifloat::E2M1),
            Format::E1M2 => Some(Minifloat::E1M2),
            Format::Int(_) | Format::Nf4 => None,
        }
    }
}

impl core::fmt::Display for Format {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Format::Int(int) => int.fmt(f),
            Format::E4M3 => f.write_str("e4m3"),
            Format::E5M2 => f.write_str("e5m2"),
            Format::E3M2 => f.write_str("e3m2"),
            Format::E2M3 => f.write_str("e2m3"),
            Format::E2M1 => f.write_str("e2m1"),
            Format::E1M2 => f.write_str("e1m2"),
            Format::Nf4 => f.write_str("nf4"),
        }
    }
}

/// In which format the scales of a tensor are kept.
///
/// | scales | bits | range | known as |
/// |---|---|---|---|
/// | [`F32`](ScaleFormat::F32) | 32 | static or dynamic | INT8, INT4, FP8 |
/// | [`E8M0`](ScaleFormat::E8M0) | 8 | dynamic, blocks | MXFP8, MXFP6, MXFP4, MXINT8 |
/// | [`E4M3`](ScaleFormat::E4M3) | 8, and 32 per tensor | static or dynamic, blocks | NVFP4 |
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum ScaleFormat {
    /// A 32-bit float per group.
    #[default]
    F32,
    /// A power of two per block, the least that saturates nothing; always taken from the data.
    #[cfg_attr(feature = "serde", serde(rename = "e8m0"))]
    E8M0,
    /// An E4M3 float per block, under one 32-bit scale for the tensor.
    #[cfg_attr(feature = "serde", serde(rename = "e4m3"))]
    E4M3(BlockScale),
}

/// Where the E4M3 scales of blocks come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum BlockScale {
    /// From the data of every tensor anew; only the scale of the tensor is calibrated.
    Dynamic,
    /// Calibrated, as the scale of the tensor is.
    Static,
    /// Calibrated, with scales up to 256 instead of 448, so that a block may be given a range 1.5 times its own: with
    /// E2M1 its largest element is then 4 instead of 6. Source: Cook et al. 2025, "Four Over Six", arXiv:2512.02010.
    StaticFourOverSix,
}

impl BlockScale {
    /// Returns the largest E4M3 scale that the calibrated ranges map to.
    ///
    /// 448, and 256 for four over six, which leaves room for scales 1.5 times as large.
    pub const fn max(self) -> f32 {
        match self {
            BlockScale::Dynamic | BlockScale::Static => 448.0,
            BlockScale::StaticFourOverSix => 256.0,
        }
    }
}

impl core::fmt::Display for ScaleFormat {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            ScaleFormat::F32 => "f32",
            ScaleFormat::E8M0 => "e8m0",
            ScaleFormat::E4M3(BlockScale::Dynamic) => "e4m3",
            ScaleFormat::E4M3(BlockScale::Static) => "e4m3 static",
            ScaleFormat::E4M3(BlockScale::StaticFourOverSix) => "e4m3 static 4/6",
        })
    }
}

/// Why a number format does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FormatError {
    /// An integer format outside 2 to 16 bits.
    Bits {
        /// The width that was asked for.
        found: u8,
    },
}

impl core::fmt::Display for FormatError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            FormatError::Bits { found } => write!(f, "an integer format has 2 to 16 bits, found {found}"),
        }
    }
}

impl core::error::Error for FormatError {}

#[cfg(all(test, feature = "serde"))]
mod tests {
    use super::*;
    use crate::{IntSpan, Signedness};
    use std::string::ToString;

    #[test]
    fn the_json_of_a_format_is_stable() {
        let narrow = Format::Int(IntFormat::new(4, Signedness::Signed, IntSpan::Narrow).unwrap());
        let json = r#"{"int":{"bits":4,"signedness":"signed","span":"narrow"}}"#;
        assert_eq!(serde_json::to_string(&narrow).unwrap(), json);
        assert_eq!(serde_json::from_str::<Format>(json).unwrap(), narrow);
        assert_eq!(serde_json::from_str::<Format>(r#"{"int":{"bits":4}}"#).unwrap().to_string(), "int4");
        assert!(serde_json::from_str::<Format>(r#"{"int":{"bits":1}}"#).is_err());
        for (json, format) in [
            (r#""e4m3""#, Format::E4M3),
            (r#""e5m2""#, Format::E5M2),
            (r#""e3m2""#, Format::E3M2),
            (r#""e2m3""#, Format::E2M3),
            (r#""e2m1""#, Format::E2M1),
            (r#""e1m2""#, Format::E1M2),
            (r#""nf4""#, Format::Nf4),
        ] {
            assert_eq!(serde_json::to_string(&format).unwrap(), json);
            assert_eq!(serde_json::from_str::<Format>(json).unwrap(), format);
        }
    }

    #[test]
    fn the_json_of_a_scale_format_is_stable() {
        for (json, scale) in [
            (r#""f32""#, ScaleFormat::F32),
            (r#""e8m0""#, ScaleFormat::E8M0),
            (r#"{"e4m3":"dynamic"}"#, ScaleFormat::E4M3(BlockScale::Dynamic)),
            (r#"{"e4m3":"static"}"#, ScaleFormat::E4M3(BlockScale::Static)),
            (r#"{"e4m3":"static_four_over_six"}"#, ScaleFormat::E4M3(BlockScale::StaticFourOverSix)),
        ] {
            assert_eq!(serde_json::to_string(&scale).unwrap(), json);
            assert_eq!(serde_json::from_str::<ScaleFormat>(json).unwrap(), scale);
        }
    }
}
