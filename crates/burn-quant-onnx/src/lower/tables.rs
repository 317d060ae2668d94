//! Rows of tables whose codes are stored.
//!
//! ```text
//! burn:  codes ─► values of the whole table ─► rows
//! file:  Gather(codes), Gather(scales) ─► DequantizeLinear, of the rows alone
//! ```
//!
//! An embedding with a quantizer reads rows and rounds them; it is written as one that reads rows of codes, with ranges
//! of the whole table. The values are the same, as each element has the code and the scale that it had. ONNX gathers
//! codes of 8 bits or more; others are looked up by their bytes (`rows`). TensorRT wants scales that are constants.

use burn_quant_graph::RecordedOp;
use burn_quant_graph::ir::{BaseOperationIr, NumericOperationIr, OperationIr, SelectOpIr, TensorId, TensorIr};
use burn_quant_ops::{AxisGroups, Call, Groups};

use super::Lowering;
use super::quantizers::Ranges;
use crate::model::Attribute;
use crate::{ElementType, OnnxError, Profile};

impl Lowering<'_> {
    pub(super) fn gather(
        &mut self,
        table: &TensorIr,
        axis: usize,
        indices: &TensorIr,
        out: &TensorIr,
    ) -> Result<(), OnnxError> {
        let by_rows = self.is_read_by_rows(table.id);
        let (table, mut places) = (self.value(table)?, self.value(indices)?);
        if self.dequantized_by(&table, axis).is_none() && !(by_rows && self.is_looked_up(&table, axis)) {
            self.emit_as(out, "Gather", vec![table, places], vec![("axis", Attribute::Int(axis as i64))]);
            return Ok(());
        }
        let is_list = indices.shape.len() == 1;
        if !is_list {
            let all = self.integers("shape", &[-1]);
            places = self.emit("Reshape", vec![places, all], vec![]);
        }
        let mut rows = self.gathered(table, axis, places, by_rows);
        if !is_list {
            let shape = self.target(&[], &self.graph.lengths(out))?;
            rows = self.emit("Reshape", vec![rows, shape], vec![]);
        }
        self.names.insert(out.id, rows);
        Ok(())
    }

    /// Whether rows are read to be rounded, and nothing else: they are written where they are rounded.
    pub(super) fn are_rounded(&self, rows: &SelectOpIr) -> bool {
        let [reader] = self.graph.consumers(rows.out.id)[..] else { return false };
        let OperationIr::Custom(op) = &self.graph.operations()[reader] else { return false };
        match RecordedOp::of(op, op.inputs[0].shape.as_slice()) {
            Ok(RecordedOp::FakeQuant(call)) => self.rounded_table(&call, &op.inputs).is_some(),
            _ => false,
        }
    }

    /// Reads rows of a table of codes, where burn rounds the rows of a table.
    pub(super) fn rounded_rows(&mut self, call: &Call, inputs: &[TensorIr], out: &TensorIr) -> Result<bool, OnnxError> {
        let Some(RoundedTable { table, places, amax, groups }) = self.rounded_table(call, inputs) else {
            return Ok(false);
        };
        if let Some((layer, _)) = self.origin(table.id).and_then(|name| name.rsplit_once('.')) {
            self.layer = layer.into();
        }
        let mut whole = call.clone();
        whole.spec.groups = groups;
        let mut ranges = Ranges::of(call, inputs);
        ranges.amax = amax.as_ref();
        let values = self.constant_floats(table.id).ok_or_else(|| self.refused("a table of no floats"))?;
        let value = self.weight_value(&whole, &table, values, &ranges)?;
        let (places, by_rows) = (self.value(&places)?, self.is_read_by_rows(table.id));
        let rows = self.gathered(value, 0, places, by_rows);
        self.finish(rows, out)?;
        Ok(true)
    }

    /// The table whose rows a call rounds, if each row becomes what it is in the rounded table.
    fn rounded_table(&self, call: &Call, inputs: &[TensorIr]) -> Option<RoundedTable> {
        let rows = self.selected(inputs[0].id)?;
        let groups = &call.spec.groups;
        let read_once = self.graph.consumers(rows.out.id).len() == 1
            && self.graph.outputs().iter().all(|output| output.id != rows.out.id);
        if !read_once || call.bias.is_some() || rows.tensor.shape.len() != 2 {
            return None;
        }
        let (of_rows, given) = (groups.counts()[0], Ranges::of(call, inputs).amax);
        // of a single row, a range for each row is one for all: it is the row's if it is selected as the row is
        let chosen = given.filter(|_| of_rows == groups.shape()[0]).and_then(|amax| self.selected_ranges(amax.id));
        let chosen = chosen.filter(|chosen| chosen.indices.id == rows.indices.id);
        let (axis, amax) = match given {
            Some(_) if chosen.is_some() => (AxisGroups::Each, chosen.map(|chosen| chosen.tensor.clone())),
            Some(amax) if of_rows == 1 => (AxisGroups::Whole, Some(amax.clone())),
            None if of_rows == groups.shape()[0] => (AxisGroups::Each, None),
            _ => return None,
        };
        if given.is_some() && self.constant(amax.as_ref()?.id).is_none() {
            return None;
        }
        let features = match groups.counts()[1] {
            1 => AxisGroups::Whole,
            _ => AxisGroups::Blocks(groups.size(1)),
        };
        let groups = Groups::new(rows.tensor.shape.as_slice(), &[axis, features]);
        Some(RoundedTable { table: rows.tensor.clone(), places: rows.indices.clone(), amax, groups })
    }

    /// Rows that are selected of a constant.
    fn selected(&self, id: TensorId) -> Option<&SelectOpIr> {
        match &self.graph.operations()[self.graph.producer(id)?] {
            OperationIr::BaseFloat(BaseOperationIr::Select(op)) if op.dim == 0 => {
                self.constant(op.tensor.id).map(|_| op)
            }
            _ => None,
        }
    }

    /// Ranges that are selected of a constant, and given another shape. Their magnitudes are what they are.
    fn selected_ranges(&self, mut id: TensorId) -> Option<&SelectOpIr> {
        let mut is_magnitude = false;
        let found = loop {
            id = match &self.graph.operations()[self.graph.producer(id)?] {
                OperationIr::BaseFloat(BaseOperationIr::Reshape(op)) => op.input.id,
                OperationIr::NumericFloat(_, NumericOperationIr::Abs(op)) => {
                    is_magnitude = true;
                    op.input.id
                }
                _ => break self.selected(id)?,
            };
        };
        let ranges = self.constant_floats(found.tensor.id)?;
        (!is_magnitude || ranges.iter().all(|range| *range >= 0.0)).then_some(found)
    }

    /// Gathers by a list of places: the codes, if the table has some that can be gathered, or their bytes, if nothing
    /// reads the table but its rows.
    pub(super) fn gathered(&mut self, table: String, axis: usize, places: String, by_rows: bool) -> String {
        let Some((inputs, attributes)) = self.dequantized_by(&table, axis) else {
            let found = if by_rows { self.looked_up(&table, axis, &places) } else { None };
            if let Some(rows) = found {
                return rows;
            }
            return self.emit("Gather", vec![table, places], vec![("axis", Attribute::Int(axis as i64))]);
        };
        let inputs = inputs.into_iter().map(|(name, axis)| match axis {
            Some(axis) => self.emit("Gather", vec![name, places.clone()], vec![("axis", Attribute::Int(axis))]),
            None => name,
        });
        let inputs = inputs.collect();
        self.emit("DequantizeLinear", inputs, attributes)
    }

    /// The inputs of the node that makes a table of its codes, with the axis of each that is gathered when `axis` of
    /// the table is; and its attributes.
    fn dequantized_by(&self, table: &str, axis: usize) -> Option<(Inputs, Vec<(&'static str, Attribute)>)> {
        let stored = |name: &str| self.model.initializers.iter().find(|stored| stored.name == name);
        let node = self.model.nodes.iter().rev().find(|node| node.outputs[0] == table)?;
        let codes = stored(&node.inputs[0]).filter(|_| node.operator == "DequantizeLinear")?;
        let is_gathered =
            matches!(codes.element, ElementType::Int8 | ElementType::Uint8 | ElementType::Int16 | ElementType::Uint16);
        if self.profile != Profile::OnnxRuntime
            || !is_gathered
            || stored(&node.inputs[1])?.element != ElementType::Float
        {
            return None;
        }
        let number = |wanted: &str| {
            node.attributes.iter().find_map(|(name, value)| match value {
                Attribute::Int(value) if *name == wanted => Some(*value as usize),
                _ => None,
            })
        };
        let (of_scales, in_blocks) = (number("axis"), number("block_size").is_some());
        if in_blocks && of_scales == Some(axis) {
            return None; // a block would be torn
        }
        let of_input = |(i, name): (usize, &String)| {
            let gathered = match (i, in_blocks) {
                (0, _) | (_, true) => Some(axis as i64),
                _ => (of_scales == Some(axis)).then_some(0), // a vector, or a number
            };
            (name.clone(), gathered)
        };
        Some((node.inputs.iter().enumerate().map(of_input).collect(), node.attributes.clone()))
    }
}

/// A table, the rows of it that are read, and how it is rounded whole.
struct RoundedTable {
    table: TensorIr,
    places: TensorIr,
    /// Given ranges of all groups.
    amax: Option<TensorIr>,
    groups: Groups,
}

/// Names, with the axis that is gathered.
type Inputs = Vec<(String, Option<i64>)>;
