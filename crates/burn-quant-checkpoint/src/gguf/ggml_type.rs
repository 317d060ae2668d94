//! Types of stored tensors.
//!
//! Source: `ggml_type` and `type_traits` of ggml; numbers and sizes as in gguf-python 0.19.0, `constants.py`.

use std::fmt;

use crate::{Element, Offset, QuantizedMatrix, ScaleKind};

/// The type of a stored tensor: how many elements a block has, and how they are packed.
///
/// All types of the format are listed, so that files with any of them can be opened. [`GgmlType::is_decoded`] tells
/// which ones are decoded, [`GgmlType::is_encoded`] which ones are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(non_camel_case_types)] // the names of ggml
pub enum GgmlType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// 16-bit floats with the exponent of F32.
    BF16,
    /// 64-bit floats; not decoded.
    F64,
    /// 8-bit integers; not decoded.
    I8,
    /// 16-bit integers; not decoded.
    I16,
    /// 32-bit integers; not decoded.
    I32,
    /// 64-bit integers; not decoded.
    I64,
    /// 4-bit codes around zero, an f16 scale for 32.
    Q4_0,
    /// 4-bit codes, an f16 scale and minimum for 32.
    Q4_1,
    /// 5-bit codes around zero, an f16 scale for 32.
    Q5_0,
    /// 5-bit codes, an f16 scale and minimum for 32.
    Q5_1,
    /// 8-bit codes around zero, an f16 scale for 32.
    Q8_0,
    /// 8-bit codes with their sum, for activations; not decoded.
    Q8_1,
    /// 2-bit codes, a 4-bit scale and minimum for 16.
    Q2_K,
    /// 3-bit codes around zero, a 6-bit scale for 16.
    Q3_K,
    /// 4-bit codes, a 6-bit scale and minimum for 32.
    Q4_K,
    /// 5-bit codes, a 6-bit scale and minimum for 32.
    Q5_K,
    /// 6-bit codes around zero, an 8-bit scale for 16.
    Q6_K,
    /// 8-bit codes with their sums, for activations; not decoded.
    Q8_K,
    /// Vectors of a codebook, 1.56 bits; not decoded.
    IQ1_S,
    /// Vectors of a codebook, 1.75 bits; not decoded.
    IQ1_M,
    /// Vectors of a codebook, 2.06 bits; not decoded.
    IQ2_XXS,
    /// Vectors of a codebook, 2.31 bits; not decoded.
    IQ2_XS,
    /// Vectors of a codebook, 2.56 bits; not decoded.
    IQ2_S,
    /// Vectors of a codebook, 3.06 bits; not decoded.
    IQ3_XXS,
    /// Vectors of a codebook, 3.44 bits; not decoded.
    IQ3_S,
    /// 4-bit codes of a non-linear table, an f16 scale for 32.
    IQ4_NL,
    /// 4-bit codes of the table of IQ4_NL, a 6-bit scale for 32; not decoded.
    IQ4_XS,
    /// Ternary codes, 1.69 bits; not decoded.
    TQ1_0,
    /// Ternary codes, 2.06 bits; not decoded.
    TQ2_0,
    /// E2M1 codes, an E8M0 scale for 32.
    MXFP4,
    /// E2M1 codes, an E4M3 scale for 16; not decoded.
    NVFP4,
    /// Signs, an f16 scale for 128; not decoded.
    Q1_0,
}

use GgmlType::{
    BF16, F16, F32, F64, I8, I16, I32, I64, IQ1_M, IQ1_S, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS, IQ4_NL, IQ4_XS,
    MXFP4, NVFP4, Q1_0, Q2_K, Q3_K, Q4_0, Q4_1, Q4_K, Q5_0, Q5_1, Q5_K, Q6_K, Q8_0, Q8_1, Q8_K, TQ1_0, TQ2_0,
};

/// Type, number in the format, elements of a block, bytes of a block.
const TABLE: [(GgmlType, u32, usize, usize); 34] = [
    (F32, 0, 1, 4),
    (F16, 1, 1, 2),
    (Q4_0, 2, 32, 2 + 16),
    (Q4_1, 3, 32, 2 + 2 + 16),
    (Q5_0, 6, 32, 2 + 4 + 16),
    (Q5_1, 7, 32, 2 + 2 + 4 + 16),
    (Q8_0, 8, 32, 2 + 32),
    (Q8_1, 9, 32, 4 + 4 + 32),
    (Q2_K, 10, 256, 2 + 2 + 16 + 64),
    (Q3_K, 11, 256, 2 + 64 + 32 + 12),
    (Q4_K, 12, 256, 2 + 2 + 128 + 12),
    (Q5_K, 13, 256, 2 + 2 + 128 + 32 + 12),
    (Q6_K, 14, 256, 2 + 128 + 64 + 16),
    (Q8_K, 15, 256, 4 + 256 + 32),
    (IQ2_XXS, 16, 256, 2 + 64),
    (IQ2_XS, 17, 256, 2 + 64 + 8),
    (IQ3_XXS, 18, 256, 2 + 64 + 32),
    (IQ1_S, 19, 256, 2 + 32 + 16),
    (IQ4_NL, 20, 32, 2 + 16),
    (IQ3_S, 21, 256, 2 + 64 + 32 + 8 + 4),
    (IQ2_S, 22, 256, 2 + 64 + 16),
    (IQ4_XS, 23, 256, 2 + 2 + 128 + 4),
    (I8, 24, 1, 1),
    (I16, 25, 1, 2),
    (I32, 26, 1, 4),
    (I64, 27, 1, 8),
    (F64, 28, 1, 8),
    (IQ1_M, 29, 256, 32 + 16 + 8),
    (BF16, 30, 1, 2),
    (TQ1_0, 34, 256, 2 + 4 * 13),
    (TQ2_0, 35, 256, 2 + 64),
    (MXFP4, 39, 32, 1 + 16),
    (NVFP4, 40, 64, 4 + 32),
    (Q1_0, 41, 128, 2 + 16),
];

impl GgmlType {
    /// Returns the type of a number in the format.
    ///
    /// `None` for numbers that are not in use, among them those of removed types.
    pub fn of_id(id: u32) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == id).map(|row| row.0)
    }

    /// Returns the type with a name as ggml spells it, such as `Q4_K`.
    ///
    /// `None` for other names.
    pub fn of_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.0.to_string() == name).map(|row| row.0)
    }

    /// Returns the number of the type in the format.
    pub fn id(self) -> u32 {
        self.row().1
    }

    /// Returns the elements of a block: 1 for floats, 32 for legacy types, 256 for most others.
    ///
    /// A row is a whole number of blocks.
    pub fn block(self) -> usize {
        self.row().2
    }

    /// Returns the bytes of a block, scales included.
    pub fn block_bytes(self) -> usize {
        self.row().3
    }

    fn row(self) -> &'static (GgmlType, u32, usize, usize) {
        TABLE.iter().find(|row| row.0 == self).expect("every type is in the table")
    }

    /// Returns whether tensors of this type are decoded to floats.
    pub fn is_decoded(self) -> bool {
        self.is_encoded() || matches!(self, Q2_K | Q3_K | Q4_K | Q5_K | Q6_K | IQ4_NL)
    }

    /// Returns whether tensors of this type are written.
    pub fn is_encoded(self) -> bool {
        matches!(self, F32 | F16 | BF16 | Q4_0 | Q4_1 | Q5_0 | Q5_1 | Q8_0 | MXFP4)
    }

    /// Returns the type that holds the codes of a matrix: the smallest one that does.
    ///
    /// | elements | offsets | type |
    /// |---|---|---|
    /// | signed integers of 2 to 4, 5, 6 to 8 bits | none | Q4_0, Q5_0, Q8_0 |
    /// | any integers of 2 to 4, 5 bits | zero points or minima, or unsigned | Q4_1, Q5_1 |
    /// | E2M1 under E8M0 scales | none | MXFP4 |
    ///
    /// `None` for other matrices. Whether blocks and scales fit is checked when they are encoded.
    pub fn of_matrix(matrix: &QuantizedMatrix) -> Option<Self> {
        match (matrix.element, &matrix.offset) {
            (Element::Int(2..=4), Offset::None) => Some(Q4_0),
            (Element::Int(5), Offset::None) => Some(Q5_0),
            (Element::Int(6..=8), Offset::None) => Some(Q8_0),
            (Element::Int(2..=4) | Element::Uint(2..=4), _) => Some(Q4_1),
            (Element::Int(5) | Element::Uint(5), _) => Some(Q5_1),
            (Element::Float(float), Offset::None) if float == crate::Minifloat::E2M1 => {
                matches!(matrix.scale_kind, ScaleKind::E8M0(_)).then_some(MXFP4)
            }
            _ => None,
        }
    }

    /// Returns `general.file_type` of a file whose tensors mostly have this type.
    ///
    /// Source: `llama_ftype` of llama.cpp. `None` for types that are not written.
    pub(super) fn file_type(self) -> Option<u32> {
        Some(match self {
            F32 => 0,
            F16 => 1,
            Q4_0 => 2,
            Q4_1 => 3,
            Q8_0 => 7,
            Q5_0 => 8,
            Q5_1 => 9,
            BF16 => 32,
            MXFP4 => 38,
            _ => return None,
        })
    }
}

impl fmt::Display for GgmlType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}
