//! Products and extremes of all elements up to each one: ONNX accumulates sums alone, and others by its loop.
//!
//! ```text
//! Scan(first state, x) { state' = Mul | Min | Max (state, element), result = state' }
//! ```
//!
//! Elements are taken one after the other, as burn takes them, so that products are rounded alike.

use burn_quant_graph::ir::{DimOpIr, ScalarIr};

use super::Lowering;
use crate::OnnxError;
use crate::model::Attribute;

impl Lowering<'_> {
    /// The elements up to each along an axis, combined by an operator of two.
    pub(super) fn accumulated(&mut self, operator: &'static str, op: &DimOpIr) -> Result<(), OnnxError> {
        let (value, element) = (self.value(&op.input)?, self.element(op.input.dtype)?);
        if op.input.shape.contains(&0) {
            return Err(self.refused("there are no elements; leave it out"));
        }
        let place = self.scalar(ScalarIr::Int(0), burn::tensor::DType::I64)?;
        let axis = op.axis as i64;
        let mut state = self.emit("Gather", vec![value.clone(), place], vec![("axis", Attribute::Int(axis))]);
        if operator == "Mul" {
            // an extreme of a number and itself is the number; a product begins with one
            let (one, shape) =
                (self.scalar(ScalarIr::Int(1), op.input.dtype)?, self.emit("Shape", vec![state], vec![]));
            state = self.emit("Expand", vec![one, shape], vec![]);
        }
        let (last, out) = (self.fresh("Scan.last"), self.fresh("Scan"));
        let attributes = vec![
            ("body", Attribute::Step { operator, element }),
            ("num_scan_inputs", Attribute::Int(1)),
            ("scan_input_axes", Attribute::Ints(vec![axis])),
            ("scan_output_axes", Attribute::Ints(vec![axis])),
        ];
        self.node("Scan", vec![state, value], vec![last, out.clone()], attributes);
        self.names.insert(op.out.id, out);
        Ok(())
    }
}
