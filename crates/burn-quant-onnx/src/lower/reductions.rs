//! Sums, extremes and orders along axes.

use burn::tensor::DType;
use burn_quant_graph::ir::{ReduceDimWithIndicesOpIr, TensorIr};

use super::Lowering;
use crate::model::Attribute;
use crate::{ElementType, OnnxError};

/// Which elements of an axis come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Largest,
    Smallest,
}

impl Order {
    pub(super) fn of(descending: bool) -> Self {
        if descending { Order::Largest } else { Order::Smallest }
    }
}

impl Lowering<'_> {
    pub(super) fn reduced(
        &mut self,
        out: &TensorIr,
        operator: &'static str,
        input: &TensorIr,
        axes: &[usize],
        keep: i64,
    ) -> Result<(), OnnxError> {
        let axes: Vec<i64> = axes.iter().map(|axis| *axis as i64).collect();
        let inputs = vec![self.value(input)?, self.integers("axes", &axes)];
        self.emit_as(out, operator, inputs, vec![("keepdims", Attribute::Int(keep))]);
        Ok(())
    }

    /// A tensor with one element, as burn has it.
    pub(super) fn reduced_to_one(
        &mut self,
        out: &TensorIr,
        operator: &'static str,
        input: &TensorIr,
    ) -> Result<(), OnnxError> {
        let value = self.value(input)?;
        let result = self.reduced_value(out, operator, value, None)?;
        self.names.insert(out.id, result);
        Ok(())
    }

    /// Reduces what is written along an axis, or to a tensor with one element.
    fn reduced_value(
        &mut self,
        out: &TensorIr,
        operator: &'static str,
        value: String,
        axis: Option<usize>,
    ) -> Result<String, OnnxError> {
        if let Some(axis) = axis {
            let axes = self.integers("axes", &[axis as i64]);
            return Ok(self.emit(operator, vec![value, axes], vec![("keepdims", Attribute::Int(1))]));
        }
        let number = self.emit(operator, vec![value], vec![("keepdims", Attribute::Int(0))]);
        let shape = self.shape_of(out)?;
        Ok(self.emit("Reshape", vec![number, shape], vec![]))
    }

    pub(super) fn largest_magnitude(
        &mut self,
        out: &TensorIr,
        input: &TensorIr,
        axis: Option<usize>,
    ) -> Result<(), OnnxError> {
        let value = self.value(input)?;
        let magnitude = self.emit("Abs", vec![value], vec![]);
        let result = self.reduced_value(out, "ReduceMax", magnitude, axis)?;
        self.names.insert(out.id, result);
        Ok(())
    }

    /// Whether all elements, or any, are something else than zero: the least of them, or the largest.
    pub(super) fn truth(
        &mut self,
        out: &TensorIr,
        operator: &'static str,
        input: &TensorIr,
        axis: Option<usize>,
    ) -> Result<(), OnnxError> {
        let to = |element: ElementType| vec![("to", Attribute::Int(element as i64))];
        let mut value = self.value(input)?;
        if !matches!(input.dtype, DType::Bool(_)) {
            value = self.emit("Cast", vec![value], to(ElementType::Bool)); // 0.5 is no integer
        }
        let numbers = self.emit("Cast", vec![value], to(ElementType::Int32));
        let result = self.reduced_value(out, operator, numbers, axis)?;
        self.emit_as(out, "Cast", vec![result], to(ElementType::Bool));
        Ok(())
    }

    pub(super) fn argument(
        &mut self,
        out: &TensorIr,
        operator: &'static str,
        input: &TensorIr,
        axis: usize,
    ) -> Result<(), OnnxError> {
        let value = self.value(input)?;
        let places = self.emit(operator, vec![value], vec![("axis", Attribute::Int(axis as i64))]);
        self.places(places, out)
    }

    /// Extremes along an axis, and where they are.
    pub(super) fn extreme(
        &mut self,
        [operator, argument]: [&'static str; 2],
        op: &ReduceDimWithIndicesOpIr,
    ) -> Result<(), OnnxError> {
        self.reduced(&op.out, operator, &op.tensor, &[op.dim], 1)?;
        self.argument(&op.out_indices, argument, &op.tensor, op.dim)
    }

    /// The first elements of an axis in an order, as many as the results have, and where they are. Of equal ones the
    /// first comes first; burn leaves that open.
    pub(super) fn top(
        &mut self,
        input: &TensorIr,
        axis: usize,
        order: Order,
        [values, indices]: [Option<&TensorIr>; 2],
    ) -> Result<(), OnnxError> {
        let Some(result) = values.or(indices) else { return Ok(()) };
        let count = self.length(&self.graph.lengths(result)[axis])?;
        let inputs = vec![self.value(input)?, count];
        let outputs = vec![self.fresh("TopK"), self.fresh("TopK.indices")];
        let largest = ("largest", Attribute::Int((order == Order::Largest).into()));
        self.node("TopK", inputs, outputs.clone(), vec![("axis", Attribute::Int(axis as i64)), largest]);
        let [found, places] = [&outputs[0], &outputs[1]].map(String::clone);
        if let Some(values) = values {
            self.names.insert(values.id, found);
        }
        match indices {
            Some(indices) => self.places(places, indices),
            None => Ok(()),
        }
    }

    /// Places, which ONNX has in 64 bits, in the integers of the graph.
    pub(super) fn places(&mut self, places: String, out: &TensorIr) -> Result<(), OnnxError> {
        let places = match out.dtype {
            DType::I64 => places,
            dtype => {
                let to = self.element(dtype)?;
                self.emit("Cast", vec![places], vec![("to", Attribute::Int(to as i64))])
            }
        };
        self.names.insert(out.id, places);
        Ok(())
    }
}
