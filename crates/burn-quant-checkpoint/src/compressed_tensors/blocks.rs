//! Blocks that share a scale, and what their tensors must be.

use super::scheme::Strategy;
use crate::error::{finite, shape};
use crate::{CheckpointError, Dtype, Tensor};

/// The floats that scales are stored in.
const FLOATS: &str = "F32, BF16 or F16";

/// A tensor of two axes, neither of them empty.
pub(super) fn matrix(
    name: &str,
    tensor: &Tensor,
    dtype: Dtype,
    expected: &'static str,
) -> Result<[usize; 2], CheckpointError> {
    if tensor.dtype() != dtype {
        return Err(CheckpointError::Dtype { name: name.into(), expected, found: tensor.dtype() });
    }
    match tensor.shape() {
        [rows, columns] if *rows > 0 && *columns > 0 => Ok([*rows, *columns]),
        found => Err(shape(name, "two axes that are not empty", found)),
    }
}

/// A block for each scale, and the number of blocks: `[rows, columns]` both.
pub(super) struct Blocks {
    pub(super) block: [usize; 2],
    pub(super) count: [usize; 2],
}

impl Blocks {
    pub(super) fn of(name: &str, strategy: Strategy, [outputs, inputs]: [usize; 2]) -> Result<Self, CheckpointError> {
        let block = match strategy {
            Strategy::Tensor | Strategy::Token => [outputs, inputs],
            Strategy::Channel => [1, inputs],
            Strategy::Group(size) | Strategy::TensorGroup(size) => [1, size],
            Strategy::Block(block) => block,
        };
        let is_grouped = matches!(strategy, Strategy::Group(_) | Strategy::TensorGroup(_));
        if is_grouped && !inputs.is_multiple_of(block[1]) {
            let expected = format!("a whole number of groups of {} columns", block[1]);
            return Err(shape(name, expected, &[outputs, inputs]));
        }
        Ok(Self { block, count: [outputs.div_ceil(block[0]), inputs.div_ceil(block[1])] })
    }

    /// Whether a tensor has an element for each block; one for a whole tensor may have any axes.
    pub(super) fn fit(&self, name: &str, found: &[usize]) -> Result<(), CheckpointError> {
        if found == self.count || (self.count == [1, 1] && found.iter().all(|n| *n == 1)) {
            Ok(())
        } else {
            Err(shape(name, format!("{:?}, one for each block", self.count), found))
        }
    }
}

/// Finite floats, one for each block, and their type.
pub(super) fn float_scales(name: &str, tensor: &Tensor, blocks: &Blocks) -> Result<(Vec<f32>, Dtype), CheckpointError> {
    let dtype = tensor.dtype();
    if !matches!(dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16) {
        return Err(CheckpointError::Dtype { name: name.into(), expected: FLOATS, found: dtype });
    }
    blocks.fit(name, tensor.shape())?;
    let scales = tensor.to_f32(name)?;
    finite(name, &scales)?;
    Ok((scales, dtype))
}

/// Whether signed integers have so many bits.
pub(super) fn integers(name: &str, mut found: impl Iterator<Item = i64>, bits: u8) -> Result<(), CheckpointError> {
    let half = 1i64 << (bits - 1);
    match found.find(|code| !(-half..half).contains(code)) {
        Some(found) => {
            let expected = format!("integers from {} to {}", -half, half - 1);
            Err(CheckpointError::Element { name: name.into(), expected, found })
        }
        None => Ok(()),
    }
}
