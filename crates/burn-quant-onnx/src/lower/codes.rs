//! The codes of a weight, and how its scales lie.
//!
//! ```text
//! per tensor       DequantizeLinear(codes, scale)
//! per channel      DequantizeLinear(codes, scales [channels], axis)
//! in blocks        DequantizeLinear(codes, scales [.., blocks, ..], axis, block_size)
//! two levels       DequantizeLinear(codes, DequantizeLinear(scales in E4M3, scale of the tensor), axis, block_size)
//! anything else    codes as floats · scales, gathered to the shape of the codes
//! ```

use burn::tensor::DType;
use burn_quant_graph::ir::OperationIr;
use burn_quant_graph::{Graph, RecordedOp};
use burn_quant_numerics::{AnyGrid, Elements, Format, Grid, IntGrid, ScaleFormat, Signedness};
use burn_quant_ops::{Call, Groups, PackedLayout, Scales};

use crate::ElementType;

/// How groups of a tensor lie, as DequantizeLinear knows them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Division {
    Tensor,
    Axis(usize),
    Blocks { axis: usize, size: usize },
    Other,
}

impl Division {
    pub(super) fn of(groups: &Groups) -> Self {
        let (shape, counts) = (groups.shape(), groups.counts());
        if groups.len() == 1 {
            return Division::Tensor;
        }
        let divided: Vec<usize> = (0..shape.len()).filter(|axis| counts[*axis] != shape[*axis]).collect();
        let kept: Vec<usize> = (0..shape.len()).filter(|axis| counts[*axis] > 1).collect();
        match (&divided[..], &kept[..]) {
            // one axis is kept, and the others are whole
            (_, &[axis]) if counts[axis] == shape[axis] => Division::Axis(axis),
            (&[axis], _) if shape[axis].is_multiple_of(groups.size(axis)) => {
                Division::Blocks { axis, size: groups.size(axis) }
            }
            _ => Division::Other,
        }
    }
}

/// How elements of a format are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// As numbers that ONNX has.
    Number(ElementType),
    /// As places in a table of values, of this type.
    Place(ElementType),
}

impl Stored {
    pub(super) fn of(format: Format) -> Self {
        let int = |bits: u8, signed: bool| match (bits, signed) {
            (4, true) => ElementType::Int4,
            (4, false) => ElementType::Uint4,
            (..=8, true) => ElementType::Int8,
            (..=8, false) => ElementType::Uint8,
            (_, true) => ElementType::Int16,
            (_, false) => ElementType::Uint16,
        };
        match format {
            Format::Int(format) => Stored::Number(int(format.bits(), format.signedness() == Signedness::Signed)),
            Format::E4M3 => Stored::Number(ElementType::Float8E4M3FN),
            Format::E5M2 => Stored::Number(ElementType::Float8E5M2),
            Format::E2M1 => Stored::Number(ElementType::Float4E2M1),
            other => Stored::Place(int(if other.bits() == 4 { 4 } else { 8 }, false)),
        }
    }

    pub(super) fn element(self) -> ElementType {
        match self {
            Stored::Number(element) | Stored::Place(element) => element,
        }
    }
}

/// A weight as codes.
pub(super) struct Codes {
    pub(super) stored: Stored,
    /// The codes, as they lie in a file.
    pub(super) bytes: Vec<u8>,
    pub(super) scales: StoredScales,
}

/// The scales of groups, in their order.
pub(super) enum StoredScales {
    F32(Vec<f32>),
    E8M0(Vec<u8>),
    /// In E4M3, under the scale of the tensor.
    E4M3(Vec<u8>, f32),
}

/// The codes of what a call makes of values; ranges are given or taken from them, as the call says.
pub(super) fn codes(values: &[f32], amax: Option<&[f32]>, global_amax: f32, call: &Call) -> Codes {
    let (groups, format) = (&call.spec.groups, call.spec.format);
    let grid = AnyGrid::new(format, call.scales.format(), global_amax);
    let of_element: Vec<usize> = (0..values.len()).map(|i| groups.of_element(i)).collect();
    let ranges = match amax {
        Some(amax) => amax.to_vec(),
        None => {
            let mut members = vec![Vec::new(); groups.len()];
            values.iter().zip(&of_element).for_each(|(value, group)| members[*group].push(*value));
            members.iter().map(|members| grid.amax(members)).collect()
        }
    };
    let scales: Vec<_> = ranges.iter().map(|amax| grid.scale(*amax)).collect();
    let stored = Stored::of(format);
    let elements = Elements::of(format);
    let points = values.iter().zip(&of_element).map(|(value, group)| grid.round(grid.units(*value, scales[*group])));
    let bytes = stored_bytes(points, stored, elements);
    let scales = match (call.scales, grid) {
        (Scales::Static | Scales::Dynamic, _) => {
            StoredScales::F32(ranges.iter().map(|amax| step(elements, grid, *amax)).collect())
        }
        (Scales::PowersOfTwo, _) => {
            StoredScales::E8M0(ranges.iter().map(|amax| grid.stored_scale(*amax) as u8).collect())
        }
        (Scales::TwoLevel(_), AnyGrid::TwoLevel(two)) => {
            StoredScales::E4M3(ranges.iter().map(|amax| two.scale_code(*amax)).collect(), two.tensor_scale())
        }
        (Scales::TwoLevel(_), _) => unreachable!("two-level scales have a grid of two levels"),
    };
    Codes { stored, bytes, scales }
}

/// The codes of a packed weight, row by row `[inputs, outputs]`, and what is stored of its scales, `[blocks, outputs]`.
pub(super) fn packed_codes(layout: PackedLayout, codes: &[u8], scales: &[u32]) -> Codes {
    let (stored, elements, grid) = (Stored::of(layout.format()), Elements::of(layout.format()), layout.grid());
    let bytes = stored_bytes(codes.iter().map(|code| elements.point(*code)), stored, elements);
    let of_codes = || scales.iter().map(|scale| *scale as u8).collect();
    let scales = match grid {
        AnyGrid::TwoLevel(two) => StoredScales::E4M3(of_codes(), two.tensor_scale()),
        _ if layout.scale() == ScaleFormat::E8M0 => StoredScales::E8M0(of_codes()),
        _ => StoredScales::F32(scales.iter().map(|amax| step(elements, grid, f32::from_bits(*amax))).collect()),
    };
    Codes { stored, bytes, scales }
}

/// Points of a grid as they lie in a file.
fn stored_bytes(points: impl Iterator<Item = f32>, stored: Stored, elements: Elements) -> Vec<u8> {
    let bytes = match (stored, elements) {
        (Stored::Number(ElementType::Int16 | ElementType::Uint16), _) => {
            points.flat_map(|point| (point as i32 as u16).to_le_bytes()).collect()
        }
        (_, Elements::Int(_)) => points.map(|point| point as i32 as u8).collect::<Vec<_>>(),
        _ => points.map(|point| elements.code(point)).collect(),
    };
    match stored.element() {
        ElementType::Int4 | ElementType::Uint4 | ElementType::Float4E2M1 => pairs(&bytes),
        _ => bytes,
    }
}

/// What a code is multiplied with.
pub(super) fn step(elements: Elements, grid: AnyGrid, amax: f32) -> f32 {
    let scale = grid.scale(amax);
    match elements {
        // values are `q / (hi / amax)`
        Elements::Int(grid) if scale.to_grid > 0.0 => (f64::from(amax) / f64::from(reach(grid))) as f32,
        Elements::Int(_) => 1.0,
        Elements::Minifloat(_) | Elements::Nf4(_) => scale.from_grid,
    }
}

/// The code that the range of a grid is mapped to.
fn reach(grid: IntGrid) -> f32 {
    Elements::Int(grid).max()
}

/// Codes of four bits, two a byte, the first in the low half.
fn pairs(codes: &[u8]) -> Vec<u8> {
    codes.chunks(2).map(|pair| (pair[0] & 0xf) | (pair.get(1).copied().unwrap_or(0) & 0xf) << 4).collect()
}

/// The values of a table, by their place.
pub(super) fn table(format: Format) -> Vec<f32> {
    let elements = Elements::of(format);
    (0..1u32 << format.bits()).map(|code| elements.point(code as u8)).collect()
}

/// The opset that the formats of a graph need, and its floats.
pub(super) fn opset_of_graph(graph: &Graph) -> i64 {
    let needed = graph.operations().iter().filter_map(|operation| {
        let OperationIr::Custom(op) = operation else { return None };
        match RecordedOp::of(op, op.inputs.first()?.shape.as_slice()).ok()? {
            RecordedOp::FakeQuant(call) => Some(opset(call.spec.format, call.scales.format())),
            RecordedOp::PackedLinear(call) => Some(opset(call.layout.format(), call.layout.scale())),
            RecordedOp::PackedConv(call) => Some(opset(call.layout.format(), call.layout.scale())),
            RecordedOp::PackedConvTranspose(call) => Some(opset(call.layout.format(), call.layout.scale())),
            RecordedOp::PackedUnpack(layout) | RecordedOp::PackedColumns(layout) => {
                Some(opset(layout.format(), layout.scale()))
            }
            _ => None, // nothing that is written
        }
    });
    // convolutions, pools and norms of BF16
    let in_bf16 = |operation: &OperationIr| operation.inputs().any(|input| input.dtype == DType::BF16);
    let of_floats = if graph.operations().iter().any(in_bf16) { 22 } else { 0 };
    needed.max().unwrap_or(0).max(of_floats)
}

/// The opset that a format and its scales need.
fn opset(format: Format, scales: ScaleFormat) -> i64 {
    let elements = if format == Format::E2M1 { 23 } else { 21 };
    if scales == ScaleFormat::E8M0 { 24 } else { elements }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn_quant_ops::AxisGroups;

    #[test]
    fn divisions_are_those_of_dequantize_linear() {
        let of = |shape: &[usize], axes: &[AxisGroups]| Division::of(&Groups::new(shape, axes));
        use AxisGroups::{Blocks, Each, Whole};
        assert_eq!(of(&[8, 6], &[Whole, Whole]), Division::Tensor);
        assert_eq!(of(&[8, 6], &[Whole, Each]), Division::Axis(1));
        assert_eq!(of(&[8, 6], &[Blocks(4), Each]), Division::Blocks { axis: 0, size: 4 });
        assert_eq!(of(&[10, 6], &[Blocks(4), Each]), Division::Other, "the last block has two");
        assert_eq!(of(&[8, 6], &[Blocks(4), Blocks(3)]), Division::Other);
        assert_eq!(of(&[4, 1, 3, 3], &[Each, Whole, Whole, Whole]), Division::Axis(0));
    }

    #[test]
    fn codes_of_four_bits_share_a_byte() {
        assert_eq!(pairs(&[0xf8, 0x07, 0x0f]), [0x78, 0x0f]);
    }
}
