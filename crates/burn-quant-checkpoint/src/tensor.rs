//! Tensors as files hold them: a type, a shape and bytes.

use half::{bf16, f16};

use crate::CheckpointError;
use crate::dtype::Dtype;

/// A tensor as a file holds it.
///
/// # Example
///
/// ```
/// use burn_quant_checkpoint::{Dtype, Tensor};
///
/// let tensor = Tensor::from_f32(Dtype::BF16, vec![2], &[1.0, -0.5]);
/// assert_eq!(tensor.bytes(), [0x80, 0x3f, 0x00, 0xbf]);
/// assert_eq!(tensor.to_f32("x").unwrap(), [1.0, -0.5]);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

impl Tensor {
    /// Creates a tensor of little-endian bytes.
    ///
    /// # Panics
    ///
    /// If there are not as many bytes as the elements of the shape take.
    pub fn new(dtype: Dtype, shape: Vec<usize>, bytes: Vec<u8>) -> Self {
        let wanted = shape.iter().product::<usize>() * dtype.size();
        assert_eq!(bytes.len(), wanted, "Tensor::new: {dtype} {shape:?} takes {wanted} bytes");
        Self { dtype, shape, bytes }
    }

    /// Creates a tensor of floats, rounded to the nearest of its type, halves to even.
    ///
    /// # Panics
    ///
    /// If the type is none of floats of 16 bits or more, or the number of values is not that of the shape.
    pub fn from_f32(dtype: Dtype, shape: Vec<usize>, values: &[f32]) -> Self {
        let mut bytes = Vec::with_capacity(values.len() * dtype.size());
        match dtype {
            Dtype::F32 => values.iter().for_each(|x| bytes.extend(x.to_le_bytes())),
            Dtype::F16 => values.iter().for_each(|x| bytes.extend(f16::from_f32(*x).to_le_bytes())),
            Dtype::BF16 => values.iter().for_each(|x| bytes.extend(bf16::from_f32(*x).to_le_bytes())),
            Dtype::F64 => values.iter().for_each(|x| bytes.extend(f64::from(*x).to_le_bytes())),
            other => panic!("Tensor::from_f32: {other} does not hold floats"),
        }
        Self::new(dtype, shape, bytes)
    }

    /// Creates a tensor of one f32 and no axes.
    ///
    /// It is what scales of whole tensors are.
    pub fn scalar(value: f32) -> Self {
        Self::from_f32(Dtype::F32, Vec::new(), &[value])
    }

    /// Returns the type of its elements.
    ///
    /// The bytes are little-endian elements of it.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Returns its shape.
    ///
    /// Empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns its bytes, row-major, little-endian.
    ///
    /// As many as its elements take.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns its bytes without a copy.
    ///
    /// Type and shape are dropped.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Returns its floats in f32: exact, except for f64, which is rounded.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Dtype`], which has the given name, if it holds no floats of 16 bits or more.
    pub fn to_f32(&self, name: &str) -> Result<Vec<f32>, CheckpointError> {
        let two = |f: fn([u8; 2]) -> f32| self.bytes.as_chunks().0.iter().map(|bytes| f(*bytes)).collect();
        Ok(match self.dtype {
            Dtype::F32 => self.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Dtype::F64 => self.bytes.as_chunks().0.iter().map(|bytes| f64::from_le_bytes(*bytes) as f32).collect(),
            Dtype::F16 => two(|bytes| f16::from_le_bytes(bytes).to_f32()),
            Dtype::BF16 => two(|bytes| bf16::from_le_bytes(bytes).to_f32()),
            found => {
                return Err(CheckpointError::Dtype { name: name.into(), expected: "F32, BF16, F16 or F64", found });
            }
        })
    }

    /// Returns its only float.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Dtype`] as [`Tensor::to_f32`], [`CheckpointError::Shape`] if it has more elements than one.
    pub fn to_scalar(&self, name: &str) -> Result<f32, CheckpointError> {
        match self.to_f32(name)?[..] {
            [value] => Ok(value),
            _ => Err(CheckpointError::Shape {
                name: name.into(),
                expected: "a single element".into(),
                found: self.shape.clone(),
            }),
        }
    }

    /// Returns its integers.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Dtype`], which has the given name, if it holds no integers of 8, 32 or 64 bits.
    pub fn to_i64(&self, name: &str) -> Result<Vec<i64>, CheckpointError> {
        Ok(match self.dtype {
            Dtype::U8 => self.bytes.iter().map(|byte| i64::from(*byte)).collect(),
            Dtype::I8 => self.bytes.iter().map(|byte| i64::from(*byte as i8)).collect(),
            Dtype::I32 => self.bytes.as_chunks().0.iter().map(|bytes| i64::from(i32::from_le_bytes(*bytes))).collect(),
            Dtype::I64 => self.bytes.as_chunks().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect(),
            found => return Err(CheckpointError::Dtype { name: name.into(), expected: "I64, I32, I8 or U8", found }),
        })
    }
}
