//! The types of elements, of burn and of safetensors.

use burn::tensor::{BoolStore, DType, Shape, TensorData};
use burn_pack::{Bytes, Tensor};
use safetensors::Dtype;

use super::container::FileTensor;
use crate::StoreError;
use crate::file::damage;

/// burn's tensor in the container, with a shape of as many elements.
pub(super) fn to_file(tensor: Tensor, shape: Vec<usize>) -> Result<FileTensor<'static>, StoreError> {
    let (path, found, _, _, bytes) = tensor.into_parts().map_err(damage)?;
    let bytes = match found {
        DType::Bool(BoolStore::U32) => bytes.chunks_exact(4).map(|word| u8::from(word != [0; 4])).collect(),
        _ => bytes.to_vec(),
    };
    let dtype = of_burn(found).ok_or(StoreError::NoElementType { path, found })?;
    Ok(FileTensor::new(dtype, shape, bytes))
}

/// Floats of a parameter in the container; `path` is its name.
pub(super) fn data_to_file(path: &str, data: TensorData) -> Result<FileTensor<'static>, StoreError> {
    let (dtype, shape) = (data.dtype(), data.shape().to_vec());
    to_file(Tensor::new(path.into(), dtype, shape.clone(), None, data.into_bytes()), shape)
}

/// A tensor of the container under burn's name, with a shape of as many elements.
pub(super) fn to_burn(name: &str, path: String, tensor: FileTensor, shape: Vec<usize>) -> Result<Tensor, StoreError> {
    let dtype = to_burn_dtype(tensor.dtype).ok_or_else(|| StoreError::ElementType {
        path: name.into(),
        expected: "of a type that parameters have".into(),
        found: format!("{:?}", tensor.dtype),
    })?;
    let bytes = Bytes::from_bytes_vec(tensor.bytes.into_owned());
    Ok(Tensor::new(path, dtype, Shape::from(shape), None, bytes))
}

fn of_burn(dtype: DType) -> Option<Dtype> {
    Some(match dtype {
        DType::F64 => Dtype::F64,
        DType::F32 | DType::Flex32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::I64 => Dtype::I64,
        DType::I32 => Dtype::I32,
        DType::I16 => Dtype::I16,
        DType::I8 => Dtype::I8,
        DType::U64 => Dtype::U64,
        DType::U32 => Dtype::U32,
        DType::U16 => Dtype::U16,
        DType::U8 => Dtype::U8,
        DType::Bool(_) => Dtype::BOOL,
        DType::QFloat(_) => return None,
    })
}

fn to_burn_dtype(dtype: Dtype) -> Option<DType> {
    Some(match dtype {
        Dtype::F64 => DType::F64,
        Dtype::F32 => DType::F32,
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::I64 => DType::I64,
        Dtype::I32 => DType::I32,
        Dtype::I16 => DType::I16,
        Dtype::I8 => DType::I8,
        Dtype::U64 => DType::U64,
        Dtype::U32 => DType::U32,
        Dtype::U16 => DType::U16,
        Dtype::U8 => DType::U8,
        Dtype::BOOL => DType::Bool(BoolStore::Native),
        _ => return None,
    })
}
