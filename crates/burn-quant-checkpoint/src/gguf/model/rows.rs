//! The order of the rows of queries and keys.
//!
//! Hugging Face rotates element `j` of a head with element `j + D/2`, ggml's `llama` element `2j` with `2j + 1`. So
//! rows of `q_proj` and `k_proj` are reordered, within each head of `D` rows:
//!
//! ```text
//! row 2j + i of the file  =  row i·D/2 + j of Hugging Face          i = 0, 1     j = 0..D/2
//! ```
//!
//! Source: `LlamaModel.permute` of llama.cpp's `convert_hf_to_gguf.py`.

use crate::{Offset, QuantizedMatrix, ScaleKind};

/// A direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// From Hugging Face to a file.
    Pairs,
    /// From a file to Hugging Face.
    Halves,
}

impl Order {
    /// Returns the row of the source that becomes a row of the result, with heads of `head` rows.
    fn source(self, row: usize, head: usize) -> usize {
        let (first, at, half) = (row / head * head, row % head, head / 2);
        first
            + match self {
                Order::Pairs => at % 2 * half + at / 2,
                Order::Halves => at % half * 2 + at / half,
            }
    }

    /// Reorders `rows` rows of equal length: of a matrix, or the elements of a bias.
    pub(super) fn apply<T: Copy>(self, values: &[T], rows: usize, heads: usize) -> Vec<T> {
        let (len, head) = (values.len() / rows.max(1), rows / heads);
        (0..rows).flat_map(|row| &values[self.source(row, head) * len..][..len]).copied().collect()
    }

    /// Reorders rows of codes with their scales, which then have one row for each row of codes.
    pub(super) fn apply_to_matrix(self, matrix: &QuantizedMatrix, heads: usize) -> QuantizedMatrix {
        let [_, along] = matrix.blocks();
        let (rows, block) = (matrix.outputs, matrix.block_outputs.max(1));
        let floats = |values: &[f32]| self.apply(&expanded(values, along, rows, block), rows, heads);
        let bytes = |values: &[u8]| self.apply(&expanded(values, along, rows, block), rows, heads);
        QuantizedMatrix {
            codes: self.apply(&matrix.codes, rows, heads),
            block_outputs: 1,
            scales: floats(&matrix.scales),
            scale_kind: match &matrix.scale_kind {
                ScaleKind::Float => ScaleKind::Float,
                ScaleKind::E8M0(codes) => ScaleKind::E8M0(bytes(codes)),
                ScaleKind::E4M3 { codes, tensor_scale } => {
                    ScaleKind::E4M3 { codes: bytes(codes), tensor_scale: *tensor_scale }
                }
            },
            offset: match &matrix.offset {
                Offset::None => Offset::None,
                Offset::ZeroPoints(zeros) => Offset::ZeroPoints(floats(zeros)),
                Offset::Minima(minima) => Offset::Minima(floats(minima)),
            },
            ..*matrix
        }
    }
}

/// Repeats rows of scales for each of the `block` rows of codes that share them.
fn expanded<T: Copy>(values: &[T], along: usize, rows: usize, block: usize) -> Vec<T> {
    (0..rows).flat_map(|row| &values[row / block * along..][..along]).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_of_a_head_become_pairs_and_halves_again() {
        let halves = [0, 1, 2, 3, 10, 11, 12, 13]; // two heads of four rows of one element
        let pairs = Order::Pairs.apply(&halves, 8, 2);
        assert_eq!(pairs, [0, 2, 1, 3, 10, 12, 11, 13]);
        assert_eq!(Order::Halves.apply(&pairs, 8, 2), halves);
    }

    #[test]
    fn scales_follow_their_rows() {
        let matrix = QuantizedMatrix {
            outputs: 6,
            inputs: 2,
            element: crate::Element::Int(8),
            codes: (0..12).collect(),
            block_outputs: 3, // rows 0 to 2 share a scale, and rows 3 to 5
            block_inputs: 2,
            scales: vec![1.0, 2.0],
            scale_kind: ScaleKind::Float,
            offset: Offset::None,
            then_e4m3: None,
            dtype: crate::Dtype::F32,
        };
        let pairs = Order::Pairs.apply_to_matrix(&matrix, 1); // rows 0, 3, 1, 4, 2, 5
        assert_eq!(pairs.scales, [1.0, 2.0, 1.0, 2.0, 1.0, 2.0]);
        assert_eq!(pairs.codes, [0, 1, 6, 7, 2, 3, 8, 9, 4, 5, 10, 11]);
        assert_eq!(pairs.dequantize(), Order::Pairs.apply(&matrix.dequantize(), 6, 1));
    }
}
