//! The name of a number format.

use crate::IntFormat;

/// A number format: which values a quantized element can take, in units of its scale.
///
/// # Example
///
/// ```
/// use burn_quant_numerics::{Format, IntFormat};
///
/// let int4 = Format::from(IntFormat::signed(4)?);
/// assert_eq!((int4.bits(), int4.to_string().as_str()), (4, "int4"));
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
}

impl Format {
    /// Bits per element, without scales.
    pub const fn bits(self) -> u8 {
        match self {
            Format::Int(int) => int.bits(),
            Format::E4M3 => 8,
        }
    }
}

impl core::fmt::Display for Format {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Format::Int(int) => int.fmt(f),
            Format::E4M3 => f.write_str("e4m3"),
        }
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
        assert_eq!(serde_json::from_str::<Format>(r#""e4m3""#).unwrap(), Format::E4M3);
        assert_eq!(serde_json::from_str::<Format>(r#"{"int":{"bits":4}}"#).unwrap().to_string(), "int4");
        assert!(serde_json::from_str::<Format>(r#"{"int":{"bits":1}}"#).is_err());
    }
}
