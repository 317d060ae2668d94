//! Columns whose groups are not consecutive: `g_idx`, which quantizers in activation order leave behind.
//!
//! ```text
//! w[o, i] = (q[o, i] − z[o, g_idx[i]]) · s[o, g_idx[i]]
//! ```
//!
//! Our choice: where the groups are not those of consecutive columns, every element gets its own scale, blocks of one
//! column. That is exact, and leaves codes and inputs in their order.

use crate::error::shape;
use crate::{CheckpointError, Offset, QuantizedMatrix, Tensor};

/// Applies `g_idx`, a group for each column, to a matrix that was read without it.
///
/// An index with a −1 was never filled, and means consecutive groups.
pub(crate) fn reorder(
    matrix: QuantizedMatrix,
    name: &str,
    groups: &Tensor,
) -> Result<QuantizedMatrix, CheckpointError> {
    if groups.shape() != [matrix.inputs] {
        return Err(shape(name, format!("[{}], a group for each column", matrix.inputs), groups.shape()));
    }
    let groups = groups.to_i64(name)?;
    let count = matrix.blocks()[1];
    let is_plain = groups.iter().enumerate().all(|(i, group)| *group == (i / matrix.block_inputs) as i64);
    if groups.contains(&-1) || is_plain {
        return Ok(matrix);
    }
    if let Some(found) = groups.iter().find(|group| !(0..count as i64).contains(group)) {
        return Err(CheckpointError::Element {
            name: name.into(),
            expected: format!("0 to {}", count - 1),
            found: *found,
        });
    }
    let spread = |values: &[f32]| -> Vec<f32> {
        values.chunks_exact(count).flat_map(|row| groups.iter().map(|group| row[*group as usize])).collect()
    };
    Ok(QuantizedMatrix {
        scales: spread(&matrix.scales),
        offset: match &matrix.offset {
            Offset::None => Offset::None,
            Offset::ZeroPoints(zeros) => Offset::ZeroPoints(spread(zeros)),
            Offset::Minima(minima) => Offset::Minima(spread(minima)),
        },
        block_inputs: 1,
        ..matrix
    })
}
