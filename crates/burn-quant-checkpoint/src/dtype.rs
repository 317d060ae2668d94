//! The types of the elements of stored tensors.

use std::fmt;

use half::{bf16, f16};

/// The type of the elements of a stored tensor; names are those of safetensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dtype {
    /// Booleans, a byte each.
    Bool,
    /// Bytes: codes, two of four bits, or powers of two.
    U8,
    /// Signed bytes.
    I8,
    /// FP8 with 4 bits of exponent.
    F8E4M3,
    /// FP8 with 5 bits of exponent.
    F8E5M2,
    /// Powers of two.
    F8E8M0,
    /// 16-bit integers.
    I16,
    /// 16-bit floats.
    F16,
    /// 16-bit floats with the exponent of `F32`.
    BF16,
    /// 32-bit integers.
    I32,
    /// 32-bit integers without sign.
    U32,
    /// 32-bit floats.
    F32,
    /// 64-bit floats.
    F64,
    /// 64-bit integers.
    I64,
}

impl Dtype {
    /// Returns the bytes of an element.
    ///
    /// 1 to 8.
    pub const fn size(self) -> usize {
        match self {
            Dtype::Bool | Dtype::U8 | Dtype::I8 | Dtype::F8E4M3 | Dtype::F8E5M2 | Dtype::F8E8M0 => 1,
            Dtype::I16 | Dtype::F16 | Dtype::BF16 => 2,
            Dtype::I32 | Dtype::U32 | Dtype::F32 => 4,
            Dtype::F64 | Dtype::I64 => 8,
        }
    }

    /// Returns whether elements are floats of 16 bits or more.
    ///
    /// Those are what [`Tensor::to_f32`](crate::Tensor::to_f32) reads.
    pub const fn is_float(self) -> bool {
        matches!(self, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64)
    }

    /// Rounds values to the nearest numbers of a float type, halves to even.
    ///
    /// Other types, and f32, leave them as they are.
    pub fn round(self, values: &mut [f32]) {
        round_to(self, values);
    }

    pub(crate) fn of_safetensors(dtype: safetensors::Dtype) -> Option<Self> {
        Some(match dtype {
            safetensors::Dtype::BOOL => Dtype::Bool,
            safetensors::Dtype::U8 => Dtype::U8,
            safetensors::Dtype::I8 => Dtype::I8,
            safetensors::Dtype::F8_E4M3 => Dtype::F8E4M3,
            safetensors::Dtype::F8_E5M2 => Dtype::F8E5M2,
            safetensors::Dtype::F8_E8M0 => Dtype::F8E8M0,
            safetensors::Dtype::I16 => Dtype::I16,
            safetensors::Dtype::F16 => Dtype::F16,
            safetensors::Dtype::BF16 => Dtype::BF16,
            safetensors::Dtype::I32 => Dtype::I32,
            safetensors::Dtype::U32 => Dtype::U32,
            safetensors::Dtype::F32 => Dtype::F32,
            safetensors::Dtype::F64 => Dtype::F64,
            safetensors::Dtype::I64 => Dtype::I64,
            _ => return None,
        })
    }

    pub(crate) fn to_safetensors(self) -> safetensors::Dtype {
        match self {
            Dtype::Bool => safetensors::Dtype::BOOL,
            Dtype::U8 => safetensors::Dtype::U8,
            Dtype::I8 => safetensors::Dtype::I8,
            Dtype::F8E4M3 => safetensors::Dtype::F8_E4M3,
            Dtype::F8E5M2 => safetensors::Dtype::F8_E5M2,
            Dtype::F8E8M0 => safetensors::Dtype::F8_E8M0,
            Dtype::I16 => safetensors::Dtype::I16,
            Dtype::F16 => safetensors::Dtype::F16,
            Dtype::BF16 => safetensors::Dtype::BF16,
            Dtype::I32 => safetensors::Dtype::I32,
            Dtype::U32 => safetensors::Dtype::U32,
            Dtype::F32 => safetensors::Dtype::F32,
            Dtype::F64 => safetensors::Dtype::F64,
            Dtype::I64 => safetensors::Dtype::I64,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dtype::Bool => "BOOL",
            Dtype::U8 => "U8",
            Dtype::I8 => "I8",
            Dtype::F8E4M3 => "F8_E4M3",
            Dtype::F8E5M2 => "F8_E5M2",
            Dtype::F8E8M0 => "F8_E8M0",
            Dtype::I16 => "I16",
            Dtype::F16 => "F16",
            Dtype::BF16 => "BF16",
            Dtype::I32 => "I32",
            Dtype::U32 => "U32",
            Dtype::F32 => "F32",
            Dtype::F64 => "F64",
            Dtype::I64 => "I64",
        })
    }
}

/// Rounds values to what a float type holds.
pub(crate) fn round_to(dtype: Dtype, values: &mut [f32]) {
    match dtype {
        Dtype::F16 => values.iter_mut().for_each(|x| *x = f16::from_f32(*x).to_f32()),
        Dtype::BF16 => values.iter_mut().for_each(|x| *x = bf16::from_f32(*x).to_f32()),
        _ => {}
    }
}
