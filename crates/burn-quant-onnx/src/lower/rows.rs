//! Rows of tables whose codes ONNX does not gather: those of 4 bits, and FP8.
//!
//! ```text
//! FP8     Gather(bytes, places) ─► Gather(values of 256 codes) · Gather(scales, places)
//! 4 bits  Gather(bytes, places) ─► Gather(pairs of values of 256 bytes), side by side · Gather(scales, places)
//! ```
//!
//! The table is stored as bytes, which ONNX gathers, and what is read of them is looked up: the point of the grid that
//! a code stands for, which is exact in f32. Where something else reads the whole table, as a tied head does, it stays
//! codes of its type, and is made values whole.

use burn_quant_graph::RecordedOp;
use burn_quant_graph::ir::{BaseOperationIr, ModuleOperationIr, OperationIr, TensorId};
use burn_quant_numerics::Format;

use super::Lowering;
use super::codes::table;
use crate::model::{Attribute, Initializer};
use crate::{ElementType, Profile};

/// A matrix that is stored as codes.
struct Coded {
    codes: Initializer,
    /// What makes floats of the codes is multiplied with.
    scales: String,
    /// The axis of a scale for each index, or of blocks of some size.
    axis: Option<usize>,
    block: Option<usize>,
}

impl Lowering<'_> {
    /// Whether nothing reads a table but its rows: it need not be there as a whole.
    pub(super) fn is_read_by_rows(&self, id: TensorId) -> bool {
        let is_output = self.graph.outputs().iter().any(|output| output.id == id);
        !is_output
            && self.graph.consumers(id).into_iter().all(|at| match &self.graph.operations()[at] {
                OperationIr::Module(ModuleOperationIr::Embedding(op)) => op.weights.id == id,
                OperationIr::BaseFloat(BaseOperationIr::Select(op)) => op.tensor.id == id && op.dim == 0,
                OperationIr::Custom(op) => {
                    let recorded = RecordedOp::of(op, op.inputs[0].shape.as_slice());
                    matches!(recorded, Ok(RecordedOp::PackedColumns(_)))
                }
                _ => false,
            })
    }

    /// Gathers along an axis of a matrix by a list of places, from bytes; `None` if it is not stored as codes, or as
    /// others, or in blocks that would be torn.
    pub(super) fn looked_up(&mut self, matrix: &str, axis: usize, places: &str) -> Option<String> {
        let found = self.coded_matrix(matrix, axis)?;
        let scales = self.gathered_scales(&found, axis, places)?;
        let other = found.codes.dims[1 - axis] as i64;
        let points = self.gathered_points(&found.codes, axis, places)?;
        let Some(size) = found.block else {
            return Some(self.emit("Mul", vec![points, scales], vec![]));
        };
        // [n, blocks, size] or [blocks, size, n], times a scale for each block
        let (of_block, inner) = (size as i64, 2 - axis as i64);
        let shape = if axis == 0 { vec![-1, other / of_block, of_block] } else { vec![other / of_block, of_block, -1] };
        let (shape, inner) = (self.integers("shape", &shape), self.integers("axes", &[inner]));
        let blocks = self.emit("Reshape", vec![points, shape], vec![]);
        let scales = self.emit("Unsqueeze", vec![scales, inner], vec![]);
        let values = self.emit("Mul", vec![blocks, scales], vec![]);
        let shape = self.integers("shape", &if axis == 0 { [-1, other] } else { [other, -1] });
        Some(self.emit("Reshape", vec![values, shape], vec![]))
    }

    /// Whether [`Lowering::looked_up`] does it.
    pub(super) fn is_looked_up(&self, matrix: &str, axis: usize) -> bool {
        let scales = |found: Coded| match self.model.initializers.iter().find(|stored| stored.name == found.scales) {
            Some(scales) => scales.element == ElementType::Float,
            None => self.is_looked_up(&found.scales, axis),
        };
        self.coded_matrix(matrix, axis).is_some_and(scales)
    }

    /// The node that makes a matrix of stored codes which ONNX does not gather.
    fn coded_matrix(&self, matrix: &str, gathered: usize) -> Option<Coded> {
        let node = self.model.nodes.iter().rev().find(|node| node.outputs[0] == matrix)?;
        if node.operator != "DequantizeLinear" || self.profile != Profile::OnnxRuntime || node.inputs.len() != 2 {
            return None;
        }
        let codes = self.model.initializers.iter().find(|stored| stored.name == node.inputs[0])?;
        let pairs = bits(codes.element)? == 4;
        let &[_, columns] = &codes.dims[..] else { return None };
        let number = |wanted: &str| {
            node.attributes.iter().find_map(|(name, value)| match value {
                Attribute::Int(value) if *name == wanted => Some(*value as usize),
                _ => None,
            })
        };
        let (axis, block) = (number("axis"), number("block_size"));
        let torn = pairs && columns % 2 == 1 || block.is_some() && axis == Some(gathered);
        (!torn).then(|| Coded { codes: codes.clone(), scales: node.inputs[1].clone(), axis, block })
    }

    /// The scales of what is gathered, which meet its points, or have an axis of blocks.
    fn gathered_scales(&mut self, of: &Coded, axis: usize, places: &str) -> Option<String> {
        let along = |axis: usize| vec![("axis", Attribute::Int(axis as i64))];
        let is_stored = self.model.initializers.iter().find(|stored| stored.name == of.scales);
        match (is_stored.map(|stored| stored.element), of.axis, of.block) {
            (Some(ElementType::Float), None, _) => Some(of.scales.clone()),
            (Some(ElementType::Float), Some(kept), None) => {
                let mut scales = of.scales.clone();
                if kept == axis {
                    scales = self.emit("Gather", vec![scales, places.into()], along(0));
                }
                if kept == 0 {
                    let last = self.integers("axes", &[1]);
                    scales = self.emit("Unsqueeze", vec![scales, last], vec![]);
                }
                Some(scales)
            }
            (Some(ElementType::Float), Some(_), Some(_)) => {
                Some(self.emit("Gather", vec![of.scales.clone(), places.into()], along(axis)))
            }
            // scales under a scale are codes themselves
            (None, ..) => self.looked_up(&of.scales, axis, places),
            _ => None,
        }
    }

    /// The points of the codes that are gathered, in f32.
    fn gathered_points(&mut self, codes: &Initializer, axis: usize, places: &str) -> Option<String> {
        let along = |axis: usize| vec![("axis", Attribute::Int(axis as i64))];
        let to = |element: ElementType| vec![("to", Attribute::Int(element as i64))];
        let points = points(codes.element)?;
        let pairs = bits(codes.element) == Some(4);
        let (rows, columns) = (codes.dims[0], codes.dims[1]);
        let bytes = match self.bytes_of.get(&codes.name) {
            Some(bytes) => bytes.clone(),
            None => {
                let (name, dims) = (format!("{}.bytes", codes.name), [rows, if pairs { columns / 2 } else { columns }]);
                let bytes = self.stored_as(name, ElementType::Uint8, &dims, codes.bytes.clone());
                self.bytes_of.insert(codes.name.clone(), bytes.clone());
                bytes
            }
        };
        if !pairs {
            let found = self.emit("Gather", vec![bytes, places.into()], along(axis));
            let found = self.emit("Cast", vec![found], to(ElementType::Int32));
            let points = self.floats("points", &[points.len()], &points);
            return Some(self.emit("Gather", vec![points, found], along(0)));
        }
        // both codes of a byte, the first in the low half
        let both: Vec<f32> = (0..256).flat_map(|byte| [points[byte & 0xf], points[byte >> 4]]).collect();
        if axis == 0 {
            let found = self.emit("Gather", vec![bytes, places.into()], along(0));
            let found = self.emit("Cast", vec![found], to(ElementType::Int32));
            let both = self.floats("points", &[256, 2], &both);
            let found = self.emit("Gather", vec![both, found], along(0));
            let shape = self.integers("shape", &[-1, columns as i64]);
            return Some(self.emit("Reshape", vec![found, shape], vec![]));
        }
        let (places, two) =
            (self.emit("Cast", vec![places.into()], to(ElementType::Int64)), self.integers("two", &[2]));
        let byte = self.emit("Div", vec![places.clone(), two.clone()], vec![]);
        let half = self.emit("Mod", vec![places, two.clone()], vec![]);
        let found = self.emit("Gather", vec![bytes, byte], along(1));
        let found = self.emit("Cast", vec![found], to(ElementType::Int64));
        let found = self.emit("Mul", vec![found, two], vec![]);
        let found = self.emit("Add", vec![found, half], vec![]);
        let both = self.floats("points", &[512], &both);
        Some(self.emit("Gather", vec![both, found], along(0)))
    }
}

/// The bits of codes that are stored as bytes to be gathered.
fn bits(element: ElementType) -> Option<u8> {
    match element {
        ElementType::Int4 | ElementType::Uint4 | ElementType::Float4E2M1 => Some(4),
        ElementType::Float8E4M3FN | ElementType::Float8E5M2 => Some(8),
        _ => None,
    }
}

/// What the codes of a type stand for, by their bits.
fn points(element: ElementType) -> Option<Vec<f32>> {
    Some(match element {
        // two's complement
        ElementType::Int4 => (0..16i8).map(|code| f32::from(code << 4 >> 4)).collect(),
        ElementType::Uint4 => (0..16u8).map(f32::from).collect(),
        ElementType::Float4E2M1 => table(Format::E2M1),
        ElementType::Float8E4M3FN => table(Format::E4M3),
        ElementType::Float8E5M2 => table(Format::E5M2),
        _ => return None,
    })
}
