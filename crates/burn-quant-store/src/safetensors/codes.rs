//! Codes and scales as tensors.
//!
//! ```text
//! int8                  I8       [shape]          the integers themselves
//! uint8                 U8       [shape]
//! e4m3, e5m2            F8_…     [shape]          the floats' own bytes
//! fewer bits            U8       [rows, bytes]    row by row of the first axis, lowest bits first;
//!                                                 an integer q of N bits as q + 2^(N−1), an unsigned one as itself;
//!                                                 a float as sign, exponent, mantissa; NF4 as its place in the table
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;

use burn_quant_core::compress::{PackedForm, WeightCodes};
use burn_quant_core::config::ScaleFormat;
use burn_quant_core::quantizer::{Buffer, TensorQuantizer};
use burn_quant_numerics::packed::bits;
use burn_quant_numerics::{Format, Signedness};
use safetensors::Dtype;

use super::buffers::buffer_name;
use super::container::FileTensor;
use crate::StoreError;

/// The codes of a weight, of a quantizer that was checked to have them.
pub(super) struct CodeTensors<'a> {
    /// The path of the weight.
    pub(super) path: &'a str,
    /// The name of its quantizer.
    pub(super) name: &'a str,
    pub(super) quantizer: &'a TensorQuantizer,
    pub(super) form: &'a PackedForm,
}

impl CodeTensors<'_> {
    /// The tensors of codes, scales and biases, by name.
    pub(super) fn write(&self, codes: &WeightCodes) -> Vec<(String, FileTensor<'static>)> {
        let layout = CodeLayout::of(self.quantizer, &self.form.shape);
        let mut tensors = vec![(self.path.to_string(), layout.write(&codes.codes))];
        let counts = self.quantizer.groups(&self.form.shape).counts().to_vec();
        let scales = codes.scales.iter();
        tensors.push(match scale_bytes(self.quantizer) {
            None => (self.ranges_name(), FileTensor::of_f32(counts, scales.map(|bits| f32::from_bits(*bits)))),
            Some(dtype) => {
                (self.scales_name(), FileTensor::new(dtype, counts, scales.map(|byte| *byte as u8).collect()))
            }
        });
        if let Some(scale) = WeightCodes::tensor_scale(self.form, self.quantizer) {
            tensors.push((self.tensor_scale_name(), FileTensor::of_f32(Vec::new(), [scale])));
        }
        if let Some(bias) = &codes.bias {
            tensors.push((self.bias_name(), FileTensor::of_f32(self.bias_counts(), bias.iter().copied())));
        }
        tensors
    }

    /// Reads the tensors of codes, scales and biases, and takes those that are nothing else from the file's.
    pub(super) fn take(&self, tensors: &mut BTreeMap<String, FileTensor>) -> Result<WeightCodes, StoreError> {
        let shape = &self.form.shape;
        let layout = CodeLayout::of(self.quantizer, shape);
        let codes = layout.read(&expected(tensors, self.path, layout.dtype(), &layout.shape())?.bytes);
        let counts = self.quantizer.groups(shape).counts().to_vec();
        let scales = match scale_bytes(self.quantizer) {
            None => f32s(expected(tensors, &self.ranges_name(), Dtype::F32, &counts)?).map(f32::to_bits).collect(),
            Some(dtype) => {
                let scales = expected(tensors, &self.scales_name(), dtype, &counts)?;
                scales.bytes.iter().copied().map(u32::from).collect()
            }
        };
        if let Some(scale) = WeightCodes::tensor_scale(self.form, self.quantizer) {
            let path = self.tensor_scale_name();
            let found = f32s(expected(tensors, &path, Dtype::F32, &[])?).next().unwrap_or(f32::NAN);
            if found != scale {
                return Err(StoreError::TensorScale { path, expected: scale, found });
            }
        }
        let bias = match self.quantizer.config().bias {
            None => None,
            Some(_) => Some(f32s(expected(tensors, &self.bias_name(), Dtype::F32, &self.bias_counts())?).collect()),
        };
        for name in [self.path.into(), self.scales_name(), self.tensor_scale_name()] {
            tensors.remove(&name);
        }
        Ok(WeightCodes { form: self.form.clone(), codes, scales, bias })
    }

    /// The buffers that scales and biases are read from; a fake quantizer may keep them too.
    pub(super) fn buffers(&self) -> [(Buffer, String); 2] {
        [(Buffer::Amax, self.ranges_name()), (Buffer::Bias, self.bias_name())]
    }

    fn ranges_name(&self) -> String {
        buffer_name(self.name, Buffer::Amax)
    }

    fn bias_name(&self) -> String {
        buffer_name(self.name, Buffer::Bias)
    }

    fn scales_name(&self) -> String {
        format!("{}_scale", self.path)
    }

    fn tensor_scale_name(&self) -> String {
        format!("{}_scale_2", self.path)
    }

    fn bias_counts(&self) -> Vec<usize> {
        let groups = self.quantizer.bias_groups(&self.form.shape);
        groups.map_or_else(Vec::new, |groups| groups.counts().to_vec())
    }
}

/// The type of scales of a byte; `None` if ranges are stored.
fn scale_bytes(quantizer: &TensorQuantizer) -> Option<Dtype> {
    match quantizer.config().scale {
        ScaleFormat::F32 => None,
        ScaleFormat::E8M0 => Some(Dtype::F8_E8M0),
        ScaleFormat::E4M3(_) => Some(Dtype::F8_E4M3),
    }
}

/// The tensor of a name, if it is of this type and shape.
fn expected<'a, 'b>(
    tensors: &'a BTreeMap<String, FileTensor<'b>>,
    name: &str,
    dtype: Dtype,
    shape: &[usize],
) -> Result<&'a FileTensor<'b>, StoreError> {
    let path = name.to_string();
    let Some(found) = tensors.get(name) else { return Err(StoreError::MissingTensors { paths: vec![path] }) };
    if found.dtype != dtype {
        let (expected, found) = (format!("{dtype:?}"), format!("{:?}", found.dtype));
        return Err(StoreError::ElementType { path, expected, found });
    }
    if found.shape != shape {
        return Err(StoreError::StoredShape { path, expected: shape.to_vec(), found: found.shape.clone() });
    }
    Ok(found)
}

fn f32s(tensor: &FileTensor) -> impl Iterator<Item = f32> {
    tensor.bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes))
}

/// How the codes of a weight lie in a tensor.
struct CodeLayout<'a> {
    format: Format,
    shape: &'a [usize],
}

impl<'a> CodeLayout<'a> {
    fn of(quantizer: &TensorQuantizer, shape: &'a [usize]) -> Self {
        Self { format: quantizer.config().format, shape }
    }

    fn dtype(&self) -> Dtype {
        match self.format {
            Format::Int(int) if int.bits() == 8 && int.signedness() == Signedness::Signed => Dtype::I8,
            Format::E4M3 => Dtype::F8_E4M3,
            Format::E5M2 => Dtype::F8_E5M2,
            _ => Dtype::U8,
        }
    }

    fn shape(&self) -> Vec<usize> {
        if self.format.bits() == 8 { self.shape.to_vec() } else { vec![self.shape[0], self.row_bytes()] }
    }

    /// Codes of an index of the first axis.
    fn columns(&self) -> usize {
        self.shape[1..].iter().product()
    }

    fn row_bytes(&self) -> usize {
        bits::packed_len(self.columns(), self.format.bits()).expect("codes of a packed weight have 2 to 8 bits")
    }

    fn write(&self, codes: &[u8]) -> FileTensor<'static> {
        let bytes = match (self.dtype(), self.format.bits()) {
            (Dtype::I8, _) => codes.iter().map(|code| code ^ 0x80).collect(),
            (_, 8) => codes.to_vec(),
            (_, bits) => {
                let mut packed = vec![0; self.shape[0] * self.row_bytes()];
                let rows = codes.chunks_exact(self.columns().max(1));
                for (row, packed) in rows.zip(packed.chunks_exact_mut(self.row_bytes().max(1))) {
                    bits::pack(row, bits, packed).expect("a row has its bytes");
                }
                packed
            }
        };
        FileTensor { dtype: self.dtype(), shape: self.shape(), bytes: Cow::Owned(bytes) }
    }

    fn read(&self, bytes: &[u8]) -> Vec<u8> {
        match (self.dtype(), self.format.bits()) {
            (Dtype::I8, _) => bytes.iter().map(|code| code ^ 0x80).collect(),
            (_, 8) => bytes.to_vec(),
            (_, bits) => {
                let mut codes = vec![0u8; self.shape[0] * self.columns()];
                let rows = codes.chunks_exact_mut(self.columns().max(1));
                for (row, packed) in rows.zip(bytes.chunks_exact(self.row_bytes().max(1))) {
                    bits::unpack(packed, bits, row).expect("a row has its bytes");
                }
                codes
            }
        }
    }
}
