//! Lengths and shapes, where sizes of the inputs are free: numbers, and what a file computes of its inputs.

use burn::tensor::DType;
use burn_quant_graph::ir::{ScalarIr, TensorIr};
use burn_quant_graph::{FreeRange, Length};

use super::Lowering;
use crate::model::Attribute;
use crate::{ElementType, OnnxError};

impl Lowering<'_> {
    /// A length with the names of axes: `6 * batch * sequence`.
    pub(super) fn named(&self, length: &Length) -> String {
        let Length::Free { times, axes } = length else { return length.to_string() };
        let times = (*times != 1).then(|| times.to_string());
        let words: Vec<String> = times.into_iter().chain(axes.iter().map(|axis| self.axes[*axis].clone())).collect();
        words.join(" * ")
    }

    /// The size of a free axis, as a tensor of one element.
    fn free_size(&mut self, free: usize) -> Result<String, OnnxError> {
        if let Some(size) = &self.sizes[free] {
            return Ok(size.clone());
        }
        let (input, axis) = self.graph.free_axes()[free].of_inputs[0];
        let input = self.value(&self.graph.inputs()[input])?;
        let axis = axis as i64;
        let ends = vec![("start", Attribute::Int(axis)), ("end", Attribute::Int(axis + 1))];
        let size = self.emit("Shape", vec![input], ends);
        self.sizes[free] = Some(size.clone());
        Ok(size)
    }

    /// A length, as a tensor of one element: a number, or the product of free sizes.
    pub(super) fn length(&mut self, length: &Length) -> Result<String, OnnxError> {
        let (times, axes) = match length {
            Length::Fixed(len) => return Ok(self.integers("size", &[*len as i64])),
            Length::Free { times, axes } => (*times, axes),
        };
        let mut product: Option<String> = None;
        for axis in axes {
            let size = self.free_size(*axis)?;
            product = Some(match product {
                None => size,
                Some(product) => self.emit("Mul", vec![product, size], vec![]),
            });
        }
        let factor = (times != 1 || product.is_none()).then(|| self.integers("factor", &[times as i64]));
        Ok(match (product, factor) {
            (Some(product), Some(factor)) => self.emit("Mul", vec![product, factor], vec![]),
            (product, factor) => product.or(factor).expect("one of the two is there"),
        })
    }

    /// As many numbers as a free length says.
    pub(super) fn range(
        &mut self,
        FreeRange { start, step, dtype }: FreeRange,
        length: &Length,
    ) -> Result<String, OnnxError> {
        let (length, no_axes, to) = (self.length(length)?, self.integers("shape", &[]), self.element(dtype)?);
        let count = self.emit("Reshape", vec![length, no_axes], vec![]);
        let [start, step] = [start, step].map(|number| self.scalar(ScalarIr::Int(number), DType::I64));
        let (start, step) = (start?, step?);
        let reach = self.emit("Mul", vec![count, step.clone()], vec![]);
        let end = self.emit("Add", vec![start.clone(), reach], vec![]);
        let numbers = self.emit("Range", vec![start, end, step], vec![]);
        Ok(match to {
            ElementType::Int64 => numbers,
            _ => self.emit("Cast", vec![numbers], vec![("to", Attribute::Int(to as i64))]),
        })
    }

    /// A shape, of which some axes may be free.
    pub(super) fn shape(&mut self, lengths: &[Length]) -> Result<String, OnnxError> {
        if lengths.iter().all(Length::is_fixed) {
            let dims: Vec<i64> = lengths.iter().map(|length| length.at(&[]) as i64).collect();
            return Ok(self.integers("shape", &dims));
        }
        let mut parts = Vec::new();
        for length in lengths {
            parts.push(self.length(length)?);
        }
        Ok(self.emit("Concat", parts, vec![("axis", Attribute::Int(0))]))
    }

    /// The shape to reshape to, of a tensor of these lengths: an axis that stays where it is may be copied, and one may
    /// be what is left.
    pub(super) fn target(&mut self, from: &[Length], to: &[Length]) -> Result<String, OnnxError> {
        let is_kept = |axis: usize| from.get(axis) == Some(&to[axis]);
        let free: Vec<usize> = (0..to.len()).filter(|axis| !to[*axis].is_fixed()).collect();
        let moved: Vec<usize> = free.iter().copied().filter(|axis| !is_kept(*axis)).collect();
        let left = match (&moved[..], &free[..]) {
            ([left], _) | ([], [left]) => Some(*left),
            ([], _) => None,
            _ => return self.shape(to),
        };
        let dim = |(axis, length): (usize, &Length)| match length {
            Length::Fixed(len) => *len as i64,
            _ if left == Some(axis) => -1,
            _ => 0,
        };
        let dims: Vec<i64> = to.iter().enumerate().map(dim).collect();
        Ok(self.integers("shape", &dims))
    }

    pub(super) fn shape_of(&mut self, tensor: &TensorIr) -> Result<String, OnnxError> {
        self.shape(&self.graph.lengths(tensor))
    }

    /// Refuses an axis of any size.
    pub(super) fn fixed(&self, length: &Length, why: &str) -> Result<(), OnnxError> {
        match length {
            Length::Fixed(_) => Ok(()),
            Length::Free { .. } => {
                let axis = self.named(length);
                Err(self.refused(format!("the size of `{axis}` is free, and {why}; capture one size")))
            }
        }
    }
}
