//! Parts of tensors: read, and assigned to.

use burn::backend::Slice;
use burn::tensor::{DType, IndexingUpdateOp};
use burn_quant_graph::ir::{
    GatherNdOpIr, PadModeIr, PadOpIr, ScatterNdOpIr, ScatterOpIr, SelectAssignOpIr, TensorIr, UnfoldOpIr,
};

use burn_quant_graph::Length;

use super::{Lowering, ints};
use crate::model::Attribute;
use crate::{ElementType, OnnxError};

impl Lowering<'_> {
    pub(super) fn slice(&mut self, tensor: &TensorIr, ranges: &[Slice], out: &TensorIr) -> Result<(), OnnxError> {
        let (mut starts, mut ends, mut steps, mut axes) = (vec![], vec![], vec![], vec![]);
        let (lengths, parts) = (self.graph.lengths(tensor), self.graph.lengths(out));
        let mut value = self.value(tensor)?;
        for (axis, (slice, len)) in ranges.iter().zip(tensor.shape.iter()).enumerate() {
            let range = slice.to_range(*len);
            if range == (0..*len) && slice.step == 1 && lengths[axis] == parts[axis] {
                continue; // all of it, whatever its size
            }
            if lengths[axis].is_fixed() && !parts[axis].is_fixed() {
                value = self.beginning(value, axis, range.start, &parts[axis])?;
                continue;
            }
            self.fixed(&lengths[axis], "a part is taken of it")?;
            axes.push(axis as i64);
            let backward = slice.step < 0;
            starts.push(if backward { range.end as i64 - 1 } else { range.start as i64 });
            ends.push(match (backward, range.start) {
                (true, 0) => i64::MIN,
                (true, start) => start as i64 - 1,
                (false, _) => range.end as i64,
            });
            steps.push(slice.step as i64);
        }
        if !axes.is_empty() || self.graph.consumers(out.id).is_empty() {
            value = self.part(value, &starts, &ends, &axes, &steps);
        }
        self.names.insert(out.id, value);
        Ok(())
    }

    /// As much of an axis as a free size, from one of its places on: of a table of positions, those of the tokens.
    fn beginning(&mut self, value: String, axis: usize, start: usize, length: &Length) -> Result<String, OnnxError> {
        let (mut end, start) = (self.length(length)?, self.integers("starts", &[start as i64]));
        end = self.emit("Add", vec![end, start.clone()], vec![]);
        let axes = self.integers("axes", &[axis as i64]);
        Ok(self.emit("Slice", vec![value, start, end, axes], vec![]))
    }

    /// A part of what is written.
    fn part(&mut self, value: String, starts: &[i64], ends: &[i64], axes: &[i64], steps: &[i64]) -> String {
        let mut inputs = vec![value];
        for (what, values) in [("starts", starts), ("ends", ends), ("axes", axes), ("steps", steps)] {
            inputs.push(self.integers(what, values));
        }
        self.emit("Slice", inputs, vec![])
    }

    pub(super) fn flip(&mut self, input: &TensorIr, axes: &[usize], out: &TensorIr) -> Result<(), OnnxError> {
        let (value, axes) = (self.value(input)?, axes.iter().map(|axis| *axis as i64).collect::<Vec<_>>());
        let all = |place: i64| vec![place; axes.len()];
        let turned = self.part(value, &all(-1), &all(i64::MIN), &axes, &all(-1));
        self.names.insert(out.id, turned);
        Ok(())
    }

    /// Assigns to a part. One that is whole in all axes but one stands between what is before and behind it, whatever
    /// the other sizes are; of others every place is listed.
    pub(super) fn slice_assign(
        &mut self,
        tensor: &TensorIr,
        ranges: &[Slice],
        value: &TensorIr,
        out: &TensorIr,
    ) -> Result<(), OnnxError> {
        let lengths = self.graph.lengths(tensor);
        let is_whole = |(slice, len): (&Slice, &usize)| slice.step == 1 && slice.to_range(*len) == (0..*len);
        let lens = || ranges.iter().zip(tensor.shape.iter());
        let parts: Vec<usize> = (0..lens().len()).filter(|axis| !lens().nth(*axis).is_none_or(is_whole)).collect();
        match parts[..] {
            [] => {
                let value = self.value(value)?;
                self.names.insert(out.id, value);
                return Ok(());
            }
            [axis] if ranges[axis].step == 1 && !value.shape.contains(&0) => {
                self.fixed(&lengths[axis], "a part of it is assigned to")?;
                let (range, len) = (ranges[axis].to_range(tensor.shape[axis]), tensor.shape[axis]);
                let (before, middle) = (self.value(tensor)?, self.value(value)?);
                let mut pieces = vec![middle];
                let mut piece = |from: usize, to: usize| {
                    self.part(before.clone(), &[from as i64], &[to as i64], &[axis as i64], &[1])
                };
                if range.start > 0 {
                    pieces.insert(0, piece(0, range.start));
                }
                if range.end < len {
                    pieces.push(piece(range.end, len));
                }
                self.emit_as(out, "Concat", pieces, vec![("axis", Attribute::Int(axis as i64))]);
                return Ok(());
            }
            _ => {}
        }
        for length in &lengths {
            self.fixed(length, "a part is assigned to")?;
        }
        // every place that is written, as indices of the rows of the first axes
        let places: Vec<Vec<i64>> = lens().map(|(slice, len)| places(slice, *len)).collect();
        let mut indices: Vec<i64> = Vec::new();
        for place in 0..places.iter().map(Vec::len).product::<usize>() {
            let (mut rest, mut index) = (place, vec![0; places.len()]);
            for (axis, of_axis) in places.iter().enumerate().rev() {
                index[axis] = of_axis[rest % of_axis.len()];
                rest /= of_axis.len();
            }
            indices.extend(index);
        }
        let dims: Vec<usize> = places.iter().map(Vec::len).chain([places.len()]).collect();
        let indices = self.table_of_places("indices", &dims, &indices);
        let inputs = vec![self.value(tensor)?, indices, self.value(value)?];
        self.emit_as(out, "ScatterND", inputs, vec![]);
        Ok(())
    }

    /// Assigns to the slices of an axis that are named, as to their elements.
    pub(super) fn select_assign(&mut self, op: &SelectAssignOpIr) -> Result<(), OnnxError> {
        let indices = self.value(&op.indices)?;
        let (rank, lengths) = (op.value.shape.len(), self.graph.lengths(&op.value));
        let mut column = vec![1; rank];
        column[op.dim] = -1;
        let column = self.integers("shape", &column);
        let indices = self.emit("Reshape", vec![indices, column], vec![]);
        let shape = self.shape(&lengths)?;
        let indices = self.emit("Expand", vec![indices, shape], vec![]);
        self.scattered("ScatterElements", [&op.tensor, &op.value], indices, op.update, Some(op.dim), &op.out)
    }

    pub(super) fn scatter(&mut self, op: &ScatterOpIr) -> Result<(), OnnxError> {
        let indices = self.value(&op.indices)?;
        self.scattered("ScatterElements", [&op.tensor, &op.value], indices, op.update, Some(op.dim), &op.out)
    }

    pub(super) fn gather_nd(&mut self, op: &GatherNdOpIr) -> Result<(), OnnxError> {
        let inputs = vec![self.value(&op.data)?, self.indices_of_64_bits(&op.indices)?];
        self.emit_as(&op.out, "GatherND", inputs, vec![]);
        Ok(())
    }

    /// Indices as the operators for several axes want them.
    fn indices_of_64_bits(&mut self, indices: &TensorIr) -> Result<String, OnnxError> {
        let value = self.value(indices)?;
        Ok(match indices.dtype {
            DType::I64 => value,
            _ => self.emit("Cast", vec![value], vec![("to", Attribute::Int(ElementType::Int64 as i64))]),
        })
    }

    pub(super) fn scatter_nd(&mut self, op: &ScatterNdOpIr) -> Result<(), OnnxError> {
        let indices = self.indices_of_64_bits(&op.indices)?;
        self.scattered("ScatterND", [&op.data, &op.values], indices, op.reduction, None, &op.out)
    }

    fn scattered(
        &mut self,
        operator: &'static str,
        [tensor, value]: [&TensorIr; 2],
        indices: String,
        update: IndexingUpdateOp,
        axis: Option<usize>,
        out: &TensorIr,
    ) -> Result<(), OnnxError> {
        let is_bool = matches!(tensor.dtype, DType::Bool(_));
        let reduction = match update {
            IndexingUpdateOp::Assign => None,
            IndexingUpdateOp::Add if is_bool => Some("max"), // burn's sum of booleans is whether one is true
            IndexingUpdateOp::Add => Some("add"),
            IndexingUpdateOp::Mul => Some("mul"),
            IndexingUpdateOp::Min => Some("min"),
            IndexingUpdateOp::Max => Some("max"),
        };
        let (mut tensor, mut value) = (self.value(tensor)?, self.value(value)?);
        let to = |element: ElementType| vec![("to", Attribute::Int(element as i64))];
        let as_numbers = is_bool && reduction.is_some();
        if as_numbers {
            [tensor, value] = [tensor, value].map(|it| self.emit("Cast", vec![it], to(ElementType::Int32)));
        }
        let mut attributes: Vec<_> = axis.map(|axis| ("axis", Attribute::Int(axis as i64))).into_iter().collect();
        attributes.extend(reduction.map(|reduction| ("reduction", Attribute::Text(reduction))));
        let mut result = self.emit(operator, vec![tensor, indices, value], attributes);
        if as_numbers {
            result = self.emit("Cast", vec![result], to(ElementType::Bool));
        }
        self.names.insert(out.id, result);
        Ok(())
    }

    /// Windows over an axis, whose elements are a last axis.
    pub(super) fn unfold(&mut self, op: &UnfoldOpIr) -> Result<(), OnnxError> {
        self.fixed(&self.graph.lengths(&op.input)[op.dim], "windows are taken of it")?;
        let windows = op.out.shape[op.dim];
        let places: Vec<i64> =
            (0..windows).flat_map(|window| (0..op.size).map(move |i| (window * op.step + i) as i64)).collect();
        let places = self.table_of_places("windows", &[windows, op.size], &places);
        let value = self.value(&op.input)?;
        let gathered = self.emit("Gather", vec![value, places], vec![("axis", Attribute::Int(op.dim as i64))]);
        let rank = op.out.shape.len();
        let axes = (0..rank).filter(|axis| *axis != op.dim + 1).chain([op.dim + 1]);
        self.emit_as(&op.out, "Transpose", vec![gathered], vec![("perm", ints(axes))]);
        Ok(())
    }

    pub(super) fn pad(&mut self, op: &PadOpIr) -> Result<(), OnnxError> {
        let pads: Vec<i64> = (op.padding.iter().map(|pair| pair.0))
            .chain(op.padding.iter().map(|pair| pair.1))
            .map(|count| count as i64)
            .collect();
        let mut inputs = vec![self.value(&op.input)?, self.integers("pads", &pads)];
        let mode = match op.mode {
            PadModeIr::Constant(value) => {
                inputs.push(self.scalar(value, op.input.dtype)?);
                "constant"
            }
            PadModeIr::Reflect => "reflect",
            PadModeIr::Edge => "edge",
        };
        self.emit_as(&op.out, "Pad", inputs, vec![("mode", Attribute::Text(mode))]);
        Ok(())
    }

    /// Places, as a constant.
    pub(super) fn table_of_places(&mut self, what: &str, dims: &[usize], places: &[i64]) -> String {
        let bytes = places.iter().flat_map(|place| place.to_le_bytes()).collect();
        self.initializer(what, ElementType::Int64, dims, bytes)
    }
}

/// The places of an axis that a slice takes, in its order.
fn places(slice: &Slice, len: usize) -> Vec<i64> {
    let (range, step) = (slice.to_range(len), slice.step.unsigned_abs());
    match slice.step > 0 {
        true => range.step_by(step).map(|place| place as i64).collect(),
        false => range.rev().step_by(step).map(|place| place as i64).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_of_slices_are_taken_from_their_ends() {
        let of = |step| places(&Slice::new(1, Some(6), step), 7);
        assert_eq!(of(1), [1, 2, 3, 4, 5]);
        assert_eq!(of(2), [1, 3, 5]);
        assert_eq!(of(-1), [5, 4, 3, 2, 1]);
        assert_eq!(of(-3), [5, 2]);
    }
}
