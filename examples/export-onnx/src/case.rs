//! What a network is given, and what it computes, as a file that other programs read.

use std::path::Path;

use burn::tensor::{Bool, DType, Int, Tensor, TensorData};
use safetensors::tensor::{Dtype, TensorView};

use crate::Failure;

/// Tensors by their names.
#[derive(Default)]
pub(crate) struct Case {
    tensors: Vec<(&'static str, Dtype, TensorData)>,
}

impl Case {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn floats<const D: usize>(self, name: &'static str, tensor: Tensor<D>) -> Self {
        self.with(name, Dtype::F32, tensor.into_data().convert_dtype(DType::F32))
    }

    pub(crate) fn integers<const D: usize>(self, name: &'static str, tensor: Tensor<D, Int>) -> Self {
        let data = tensor.into_data();
        let dtype = if data.dtype() == DType::I64 { Dtype::I64 } else { Dtype::I32 };
        let of = if dtype == Dtype::I64 { DType::I64 } else { DType::I32 };
        self.with(name, dtype, data.convert_dtype(of))
    }

    pub(crate) fn booleans<const D: usize>(self, name: &'static str, tensor: Tensor<D, Bool>) -> Self {
        self.with(name, Dtype::BOOL, tensor.into_data())
    }

    fn with(mut self, name: &'static str, dtype: Dtype, data: TensorData) -> Self {
        self.tensors.push((name, dtype, data));
        self
    }

    pub(crate) fn save(&self, path: &Path) -> Result<(), Failure> {
        let view = |(name, dtype, data): &(&'static str, Dtype, TensorData)| {
            let bytes = data.as_bytes().to_vec();
            (*name, *dtype, data.shape().to_vec(), bytes)
        };
        let tensors: Vec<_> = self.tensors.iter().map(view).collect();
        let views = tensors
            .iter()
            .map(|(name, dtype, shape, bytes)| Ok((*name, TensorView::new(*dtype, shape.clone(), bytes)?)))
            .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()?;
        Ok(safetensors::serialize_to_file(views, None, path)?)
    }
}
