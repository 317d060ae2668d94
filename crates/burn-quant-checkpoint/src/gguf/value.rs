//! Typed values of metadata.

/// A metadata value of one of the 13 types of the format.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Value {
    /// Unsigned 8-bit integer, type 0.
    U8(u8),
    /// Signed 8-bit integer, type 1.
    I8(i8),
    /// Unsigned 16-bit integer, type 2.
    U16(u16),
    /// Signed 16-bit integer, type 3.
    I16(i16),
    /// Unsigned 32-bit integer, type 4: counts and identifiers.
    U32(u32),
    /// Signed 32-bit integer, type 5.
    I32(i32),
    /// 32-bit float, type 6.
    F32(f32),
    /// Boolean, type 7, stored as a byte that is 0 or 1.
    Bool(bool),
    /// UTF-8 text, type 8.
    String(String),
    /// Array of one element type, type 9.
    Array(Array),
    /// Unsigned 64-bit integer, type 10.
    U64(u64),
    /// Signed 64-bit integer, type 11.
    I64(i64),
    /// 64-bit float, type 12.
    F64(f64),
}

/// A metadata array. Elements have one type and are kept unboxed, so that an array takes about the memory of its bytes.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Array {
    /// Array of unsigned 8-bit integers.
    U8(Vec<u8>),
    /// Array of signed 8-bit integers.
    I8(Vec<i8>),
    /// Array of unsigned 16-bit integers.
    U16(Vec<u16>),
    /// Array of signed 16-bit integers.
    I16(Vec<i16>),
    /// Array of unsigned 32-bit integers.
    U32(Vec<u32>),
    /// Array of signed 32-bit integers: token types.
    I32(Vec<i32>),
    /// Array of 32-bit floats: token scores.
    F32(Vec<f32>),
    /// Array of booleans.
    Bool(Vec<bool>),
    /// Array of texts: tokens and merges.
    String(Vec<String>),
    /// Array of arrays, which may have different types and lengths.
    Array(Vec<Array>),
    /// Array of unsigned 64-bit integers.
    U64(Vec<u64>),
    /// Array of signed 64-bit integers.
    I64(Vec<i64>),
    /// Array of 64-bit floats.
    F64(Vec<f64>),
}

impl Value {
    /// Returns a number that is not negative, whatever integer type stores it.
    ///
    /// `None` for negative numbers and other types.
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Value::U8(x) => Some(u64::from(*x)),
            Value::U16(x) => Some(u64::from(*x)),
            Value::U32(x) => Some(u64::from(*x)),
            Value::U64(x) => Some(*x),
            Value::I8(x) => u64::try_from(*x).ok(),
            Value::I16(x) => u64::try_from(*x).ok(),
            Value::I32(x) => u64::try_from(*x).ok(),
            Value::I64(x) => u64::try_from(*x).ok(),
            _ => None,
        }
    }

    /// Returns a float; 64-bit floats are rounded to 32 bits.
    ///
    /// `None` for integers and other types.
    pub fn as_f32(&self) -> Option<f32> {
        match self {
            Value::F32(x) => Some(*x),
            Value::F64(x) => Some(*x as f32),
            _ => None,
        }
    }

    /// Returns a boolean.
    ///
    /// `None` for other types.
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(x) = self { Some(*x) } else { None }
    }

    /// Returns a text.
    ///
    /// `None` for other types.
    pub fn as_str(&self) -> Option<&str> {
        if let Value::String(x) = self { Some(x) } else { None }
    }

    /// Returns the texts of an array.
    ///
    /// `None` for other types.
    pub fn as_strings(&self) -> Option<&[String]> {
        if let Value::Array(Array::String(x)) = self { Some(x) } else { None }
    }

    /// Returns the integers of an array, whatever integer type of 8 to 32 bits stores them.
    ///
    /// `None` for other types, and if one of them exceeds 32 bits.
    pub fn as_integers(&self) -> Option<Vec<i32>> {
        let Value::Array(array) = self else { return None };
        Some(match array {
            Array::U8(x) => x.iter().map(|x| i32::from(*x)).collect(),
            Array::I8(x) => x.iter().map(|x| i32::from(*x)).collect(),
            Array::U16(x) => x.iter().map(|x| i32::from(*x)).collect(),
            Array::I16(x) => x.iter().map(|x| i32::from(*x)).collect(),
            Array::U32(x) => x.iter().map(|x| i32::try_from(*x).ok()).collect::<Option<_>>()?,
            Array::I32(x) => x.clone(),
            _ => return None,
        })
    }

    /// Returns the floats of an array.
    ///
    /// `None` for other types.
    pub fn as_floats(&self) -> Option<&[f32]> {
        if let Value::Array(Array::F32(x)) = self { Some(x) } else { None }
    }

    /// Returns the number of the value's type in the format.
    pub(super) fn type_id(&self) -> u32 {
        match self {
            Value::U8(_) => 0,
            Value::I8(_) => 1,
            Value::U16(_) => 2,
            Value::I16(_) => 3,
            Value::U32(_) => 4,
            Value::I32(_) => 5,
            Value::F32(_) => 6,
            Value::Bool(_) => 7,
            Value::String(_) => 8,
            Value::Array(_) => 9,
            Value::U64(_) => 10,
            Value::I64(_) => 11,
            Value::F64(_) => 12,
        }
    }

    /// Returns a short text for errors.
    pub(super) fn describe(&self) -> String {
        match self {
            Value::Array(_) => "an array".into(),
            Value::String(text) if text.len() > 40 => "a long text".into(),
            other => format!("{other:?}"),
        }
    }
}

macro_rules! from {
    ($($of:ty => $variant:expr;)*) => {
        $(impl From<$of> for Value {
            fn from(x: $of) -> Self {
                $variant(x)
            }
        })*
    };
}

from! {
    u32 => Value::U32;
    u64 => Value::U64;
    i32 => Value::I32;
    f32 => Value::F32;
    bool => Value::Bool;
    String => Value::String;
    Vec<i32> => |x| Value::Array(Array::I32(x));
    Vec<f32> => |x| Value::Array(Array::F32(x));
    Vec<String> => |x| Value::Array(Array::String(x));
}

impl From<&str> for Value {
    fn from(x: &str) -> Self {
        Value::String(x.into())
    }
}
