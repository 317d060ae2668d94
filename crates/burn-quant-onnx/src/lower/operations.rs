//! One operation after the other.

use burn::tensor::{DType, TensorData};
use burn_quant_graph::ir::{BaseOperationIr, NumericOperationIr, OperationIr, RepeatDimOpIr, ScalarIr, TensorIr};
use burn_quant_graph::{Length, RecordedOp};
use burn_quant_ops::Hadamard;

use super::reductions::Order;
use super::{Lowering, ints};
use crate::model::Attribute;
use crate::{OnnxError, Profile};

/// Constants of as many elements are stored; larger ones are a number that is spread.
const SMALL: usize = 64;

impl Lowering<'_> {
    pub(super) fn operation(&mut self, operation: &OperationIr) -> Result<(), OnnxError> {
        match operation {
            OperationIr::BaseFloat(op) | OperationIr::BaseInt(op) | OperationIr::BaseBool(op) => self.base(op),
            OperationIr::NumericFloat(_, op) | OperationIr::NumericInt(_, op) => self.numeric(op),
            OperationIr::Float(_, op) => self.float(op),
            OperationIr::Int(op) => self.int(op),
            OperationIr::Bool(op) => self.bool(op),
            OperationIr::Activation(op) => self.activation(op),
            OperationIr::Module(op) => self.module(op),
            OperationIr::Custom(op) => match RecordedOp::of(op, op.inputs[0].shape.as_slice()) {
                Ok(RecordedOp::FakeQuant(call)) => self.fake_quant(&call, &op.inputs, &op.outputs[0]),
                Ok(RecordedOp::Hadamard(rotation)) => self.hadamard(rotation, &op.inputs[0], &op.outputs[0]),
                Ok(RecordedOp::GroupAmax(_)) => {
                    Err(self.refused("a range is taken from the whole input; calibrate it"))
                }
                Ok(RecordedOp::PackedLinear(call)) => self.packed_linear(&call, &op.inputs, &op.outputs[0]),
                Ok(RecordedOp::PackedConv(call)) => self.packed_conv(&call, &op.inputs, &op.outputs[0]),
                Ok(RecordedOp::PackedConvTranspose(call)) => {
                    self.packed_conv_transpose(&call, &op.inputs, &op.outputs[0])
                }
                Ok(RecordedOp::PackedUnpack(layout)) => self.packed_unpack(layout, &op.inputs, &op.outputs[0]),
                Ok(RecordedOp::PackedColumns(layout)) => self.packed_columns(layout, &op.inputs, &op.outputs[0]),
                Ok(_) => Err(self.refused("this version does not write it")),
                Err(error) => Err(self.refused(error.to_string())),
            },
            OperationIr::Init(_) | OperationIr::Drop(_) => Ok(()),
            OperationIr::Distributed(_) => Err(self.refused("a file is of one device")),
        }
    }

    fn base(&mut self, op: &BaseOperationIr) -> Result<(), OnnxError> {
        use BaseOperationIr as Op;
        match op {
            Op::Reshape(op) => self.reshape(&op.input, &op.out),
            Op::SwapDims(op) => {
                let mut axes: Vec<usize> = (0..op.input.shape.len()).collect();
                axes.swap(op.dim1, op.dim2);
                self.transpose(&op.input, &op.out, axes)
            }
            Op::Permute(op) => self.transpose(&op.input, &op.out, op.axes.clone()),
            Op::Expand(op) => {
                let (input, shape) = (self.value(&op.input)?, self.shape_of(&op.out)?);
                self.emit_as(&op.out, "Expand", vec![input, shape], vec![]);
                Ok(())
            }
            Op::Slice(op) => self.slice(&op.tensor, &op.ranges, &op.out),
            Op::SliceAssign(op) => self.slice_assign(&op.tensor, &op.ranges, &op.value, &op.out),
            Op::SelectAssign(op) => self.select_assign(op),
            Op::Scatter(op) => self.scatter(op),
            Op::ScatterNd(op) => self.scatter_nd(op),
            Op::GatherNd(op) => self.gather_nd(op),
            Op::Flip(op) => self.flip(&op.input, &op.axes, &op.out),
            Op::Unfold(op) => self.unfold(op),
            Op::Select(op) if self.are_rounded(op) => Ok(()),
            Op::Select(op) => self.gather(&op.tensor, op.dim, &op.indices, &op.out),
            Op::Gather(op) => {
                let inputs = vec![self.value(&op.tensor)?, self.value(&op.indices)?];
                self.emit_as(&op.out, "GatherElements", inputs, vec![("axis", Attribute::Int(op.dim as i64))]);
                Ok(())
            }
            Op::MaskWhere(op) => self.plain(&op.out, "Where", &[&op.mask, &op.value, &op.tensor]),
            Op::MaskFill(op) => {
                let value = self.scalar(op.value, op.tensor.dtype)?;
                let (mask, tensor) = (self.value(&op.mask)?, self.value(&op.tensor)?);
                self.emit_as(&op.out, "Where", vec![mask, value, tensor], vec![]);
                Ok(())
            }
            Op::Equal(op) => self.plain(&op.out, "Equal", &[&op.lhs, &op.rhs]),
            Op::EqualElem(op) => self.with_scalar(&op.out, "Equal", &op.lhs, op.rhs),
            Op::NotEqual(op) => self.negated(&op.out, "Equal", &[&op.lhs, &op.rhs]),
            Op::NotEqualElem(op) => {
                self.with_scalar(&op.out, "Equal", &op.lhs, op.rhs)?;
                self.not(&op.out)
            }
            Op::RepeatDim(op) => self.repeat(op),
            Op::Cat(op) => {
                let inputs = op.tensors.iter().map(|tensor| self.value(tensor)).collect::<Result<_, _>>()?;
                self.emit_as(&op.out, "Concat", inputs, vec![("axis", Attribute::Int(op.dim as i64))]);
                Ok(())
            }
            Op::Cast(op) => self.cast(&op.input, &op.out),
            Op::Empty(op) | Op::Zeros(op) => self.filled(&op.out, ScalarIr::Int(0)),
            Op::Ones(op) => self.filled(&op.out, ScalarIr::Int(1)),
            Op::All(op) => self.truth(&op.out, "ReduceMin", &op.input, None),
            Op::Any(op) => self.truth(&op.out, "ReduceMax", &op.input, None),
            Op::AllDim(op) => self.truth(&op.out, "ReduceMin", &op.input, Some(op.axis)),
            Op::AnyDim(op) => self.truth(&op.out, "ReduceMax", &op.input, Some(op.axis)),
        }
    }

    /// An axis again and again: a number of times, or as often as a free size says.
    fn repeat(&mut self, op: &RepeatDimOpIr) -> Result<(), OnnxError> {
        let (before, after) = (&self.graph.lengths(&op.tensor)[op.dim], &self.graph.lengths(&op.out)[op.dim]);
        let times = match (before, after) {
            (Length::Fixed(len), Length::Free { times, axes }) if *len > 0 && times.is_multiple_of(*len) => {
                Length::Free { times: times / len, axes: axes.clone() }
            }
            (Length::Fixed(_), Length::Free { .. }) => {
                return Err(self.refused("an axis is not repeated as a whole; capture one size"));
            }
            _ => Length::Fixed(op.times),
        };
        let axis = |axis: usize| if axis == op.dim { times.clone() } else { Length::Fixed(1) };
        let repeats: Vec<Length> = (0..op.tensor.shape.len()).map(axis).collect();
        let inputs = vec![self.value(&op.tensor)?, self.shape(&repeats)?];
        self.emit_as(&op.out, "Tile", inputs, vec![]);
        Ok(())
    }

    fn numeric(&mut self, op: &NumericOperationIr) -> Result<(), OnnxError> {
        use NumericOperationIr as Op;
        match op {
            Op::Add(op) => self.sum(&op.lhs, &op.rhs, &op.out),
            Op::Sub(op) => self.plain(&op.out, "Sub", &[&op.lhs, &op.rhs]),
            Op::Mul(op) if self.rms_norm(op)? => Ok(()),
            Op::Mul(op) => self.plain(&op.out, "Mul", &[&op.lhs, &op.rhs]),
            Op::Div(op) => self.plain(&op.out, "Div", &[&op.lhs, &op.rhs]),
            Op::Powi(op) => self.plain(&op.out, "Pow", &[&op.lhs, &op.rhs]),
            Op::AddScalar(op) => self.with_scalar(&op.out, "Add", &op.lhs, op.rhs),
            Op::SubScalar(op) => self.with_scalar(&op.out, "Sub", &op.lhs, op.rhs),
            Op::MulScalar(op) => self.with_scalar(&op.out, "Mul", &op.lhs, op.rhs),
            Op::DivScalar(op) => self.with_scalar(&op.out, "Div", &op.lhs, op.rhs),
            Op::PowiScalar(op) => self.with_scalar(&op.out, "Pow", &op.lhs, op.rhs),
            Op::Abs(op) => self.plain(&op.out, "Abs", &[&op.input]),
            Op::Neg(op) => self.plain(&op.out, "Neg", &[&op.input]),
            Op::Sign(op) => self.plain(&op.out, "Sign", &[&op.input]),
            Op::Full(op) => self.filled(&op.out, op.value),
            Op::MeanDim(op) => self.reduced(&op.out, "ReduceMean", &op.input, &[op.axis], 1),
            Op::SumDim(op) => self.reduced(&op.out, "ReduceSum", &op.input, &[op.axis], 1),
            Op::SumDims(op) => self.reduced(&op.out, "ReduceSum", &op.input, &op.axes, 1),
            Op::ProdDim(op) => self.reduced(&op.out, "ReduceProd", &op.input, &[op.axis], 1),
            Op::MaxDim(op) => self.reduced(&op.out, "ReduceMax", &op.input, &[op.axis], 1),
            Op::MinDim(op) => self.reduced(&op.out, "ReduceMin", &op.input, &[op.axis], 1),
            Op::Mean(op) => self.reduced_to_one(&op.out, "ReduceMean", &op.input),
            Op::Sum(op) => self.reduced_to_one(&op.out, "ReduceSum", &op.input),
            Op::Prod(op) => self.reduced_to_one(&op.out, "ReduceProd", &op.input),
            Op::Max(op) => self.reduced_to_one(&op.out, "ReduceMax", &op.input),
            Op::Min(op) => self.reduced_to_one(&op.out, "ReduceMin", &op.input),
            Op::ArgMax(op) => self.argument(&op.out, "ArgMax", &op.input, op.axis),
            Op::ArgMin(op) => self.argument(&op.out, "ArgMin", &op.input, op.axis),
            Op::Greater(op) => self.plain(&op.out, "Greater", &[&op.lhs, &op.rhs]),
            Op::GreaterEqual(op) => self.plain(&op.out, "GreaterOrEqual", &[&op.lhs, &op.rhs]),
            Op::Lower(op) => self.plain(&op.out, "Less", &[&op.lhs, &op.rhs]),
            Op::LowerEqual(op) => self.plain(&op.out, "LessOrEqual", &[&op.lhs, &op.rhs]),
            Op::GreaterElem(op) => self.with_scalar(&op.out, "Greater", &op.lhs, op.rhs),
            Op::GreaterEqualElem(op) => self.with_scalar(&op.out, "GreaterOrEqual", &op.lhs, op.rhs),
            Op::LowerElem(op) => self.with_scalar(&op.out, "Less", &op.lhs, op.rhs),
            Op::LowerEqualElem(op) => self.with_scalar(&op.out, "LessOrEqual", &op.lhs, op.rhs),
            Op::Clamp(op) => {
                let dtype = op.tensor.dtype;
                let inputs = vec![self.value(&op.tensor)?, self.scalar(op.min, dtype)?, self.scalar(op.max, dtype)?];
                self.emit_as(&op.out, "Clip", inputs, vec![]);
                Ok(())
            }
            Op::ClampMin(op) => self.with_scalar(&op.out, "Max", &op.lhs, op.rhs),
            Op::ClampMax(op) => self.with_scalar(&op.out, "Min", &op.lhs, op.rhs),
            Op::CumSum(op) => {
                let inputs = vec![self.value(&op.input)?, self.integers("axis", &[op.axis as i64])];
                self.emit_as(&op.out, "CumSum", inputs, vec![]);
                Ok(())
            }
            Op::Rem(op) => {
                let (lhs, rhs) = (self.value(&op.lhs)?, self.value(&op.rhs)?);
                self.remainder(lhs, rhs, &op.out)
            }
            Op::RemScalar(op) => {
                let (lhs, rhs) = (self.value(&op.lhs)?, self.scalar(op.rhs, op.lhs.dtype)?);
                self.remainder(lhs, rhs, &op.out)
            }
            Op::MaxAbs(op) => self.largest_magnitude(&op.out, &op.input, None),
            Op::MaxAbsDim(op) => self.largest_magnitude(&op.out, &op.input, Some(op.axis)),
            Op::MaxDimWithIndices(op) => self.extreme(["ReduceMax", "ArgMax"], op),
            Op::MinDimWithIndices(op) => self.extreme(["ReduceMin", "ArgMin"], op),
            Op::TopK(op) => self.top(&op.input, op.axis, Order::Largest, [Some(&op.out), None]),
            Op::ArgTopK(op) => self.top(&op.input, op.axis, Order::Largest, [None, Some(&op.out)]),
            Op::TopKWithIndices(op) => {
                self.top(&op.tensor, op.dim, Order::Largest, [Some(&op.out), Some(&op.out_indices)])
            }
            Op::Sort(op) => self.top(&op.input, op.dim, Order::of(op.descending), [Some(&op.out), None]),
            Op::ArgSort(op) => self.top(&op.input, op.dim, Order::of(op.descending), [None, Some(&op.out)]),
            Op::SortWithIndices(op) => {
                let results = [Some(&op.out), Some(&op.out_indices)];
                self.top(&op.input, op.dim, Order::of(op.descending), results)
            }
            Op::Pad(op) => self.pad(op),
            Op::IntRandom(_) => Err(self.refused("a file computes the same each time; draw numbers before")),
            Op::CumProd(op) => self.accumulated("Mul", op),
            Op::CumMin(op) => self.accumulated("Min", op),
            Op::CumMax(op) => self.accumulated("Max", op),
        }
    }

    /// A matrix that was given axes of one before its own, which a product does not need: runtimes look for matrices.
    pub(super) fn as_matrix(&self, rhs: &TensorIr) -> TensorIr {
        let reshape = self.graph.producer(rhs.id).map(|index| &self.graph.operations()[index]);
        match reshape {
            Some(OperationIr::BaseFloat(BaseOperationIr::Reshape(op))) => {
                let rank = rhs.shape.len();
                let padded = op.input.shape.len() == 2
                    && rank > 2
                    && rhs.shape[..rank - 2].iter().all(|dim| *dim == 1)
                    && rhs.shape[rank - 2..] == op.input.shape[..];
                if padded { op.input.clone() } else { rhs.clone() }
            }
            _ => rhs.clone(),
        }
    }

    /// A sum; that of a matrix product of codes with its bias is a difference.
    ///
    /// ONNX Runtime makes a float product of one with a sum behind it.
    fn sum(&mut self, lhs: &TensorIr, rhs: &TensorIr, out: &TensorIr) -> Result<(), OnnxError> {
        let product = self.names.get(&lhs.id).and_then(|name| {
            let node = self.model.nodes.iter().rev().find(|node| &node.outputs[0] == name)?;
            let weight = node.inputs.get(1).filter(|_| node.operator == "MatMul")?;
            self.model.nodes.iter().find(|node| &node.outputs[0] == weight && node.operator == "DequantizeLinear")
        });
        let bias = match (self.profile, product, out.shape.len()) {
            (Profile::OnnxRuntime, Some(_), 2) if rhs.dtype == DType::F32 => self.constant(rhs.id).cloned(),
            _ => None,
        };
        let Some(bias) = bias else { return self.plain(out, "Add", &[lhs, rhs]) };
        let name = self.origin(rhs.id).map(|name| format!("{name}.negative"));
        let negative: Vec<f32> = bias.iter::<f32>().map(|value| -value).collect();
        let bytes = negative.iter().flat_map(|value| value.to_le_bytes()).collect();
        let name = name.unwrap_or_else(|| "constant.negative".into());
        let bias = self.stored_as(name, crate::ElementType::Float, &rhs.shape, bytes);
        let product = self.value(lhs)?;
        self.emit_as(out, "Sub", vec![product, bias], vec![]);
        Ok(())
    }

    /// A value that is reshaped is stored in its new shape, unless it is stored already.
    fn reshape(&mut self, input: &TensorIr, out: &TensorIr) -> Result<(), OnnxError> {
        let written = self.names.contains_key(&input.id);
        if let Some(data) = self.constant(input.id).filter(|_| !written).cloned() {
            let origin = self.reshaped.get(&input.id).map_or(input.id, |(origin, _)| *origin);
            let data = TensorData::from_bytes(data.bytes().clone(), out.shape.clone(), data.dtype());
            self.reshaped.insert(out.id, (origin, data));
            return Ok(());
        }
        if input.shape == out.shape && self.graph.lengths(input) == self.graph.lengths(out) {
            // it is what it was, as codes or as values
            match self.coded.get(&input.id).cloned() {
                Some(coded) => _ = self.coded.insert(out.id, coded),
                None => {
                    let value = self.value(input)?;
                    self.names.insert(out.id, value);
                }
            }
            return Ok(());
        }
        let shape = self.target(&self.graph.lengths(input), &self.graph.lengths(out))?;
        if self.moved_codes(input, out, "Reshape", vec![shape.clone()], vec![]) {
            return Ok(());
        }
        let input = self.value(input)?;
        self.emit_as(out, "Reshape", vec![input, shape], vec![]);
        Ok(())
    }

    fn transpose(&mut self, input: &TensorIr, out: &TensorIr, axes: Vec<usize>) -> Result<(), OnnxError> {
        let perm = vec![("perm", ints(axes))];
        if self.moved_codes(input, out, "Transpose", vec![], perm.clone()) {
            return Ok(());
        }
        let input = self.value(input)?;
        self.emit_as(out, "Transpose", vec![input], perm);
        Ok(())
    }

    /// Blocks of an axis times their matrices.
    fn hadamard(&mut self, rotation: Hadamard, x: &TensorIr, out: &TensorIr) -> Result<(), OnnxError> {
        let Hadamard { axis, block, .. } = rotation;
        let (rank, len, lengths) = (x.shape.len(), x.shape[axis], self.graph.lengths(x));
        self.fixed(&lengths[axis], "it is rotated")?;
        let mut value = self.value(x)?;
        let mut swap: Vec<usize> = (0..rank).collect();
        swap.swap(axis, rank - 1);
        if axis != rank - 1 {
            value = self.emit("Transpose", vec![value], vec![("perm", ints(swap.clone()))]);
        }
        let last: Vec<Length> = swap.iter().map(|axis| lengths[*axis].clone()).collect();
        let of_blocks = [len / block, 1, block].map(Length::Fixed);
        let in_blocks: Vec<Length> = last[..rank - 1].iter().cloned().chain(of_blocks).collect();
        let target = self.target(&last, &in_blocks)?;
        value = self.emit("Reshape", vec![value, target], vec![]);
        let matrices = self.floats("hadamard", &[len / block, block, block], &rotation.matrices(len));
        value = self.emit("MatMul", vec![value, matrices], vec![]);
        let target = self.target(&in_blocks, &last)?;
        value = self.emit("Reshape", vec![value, target], vec![]);
        if axis != rank - 1 {
            value = self.emit("Transpose", vec![value], vec![("perm", ints(swap))]);
        }
        self.names.insert(out.id, value);
        Ok(())
    }

    pub(super) fn with_scalar(
        &mut self,
        out: &TensorIr,
        operator: &'static str,
        lhs: &TensorIr,
        rhs: ScalarIr,
    ) -> Result<(), OnnxError> {
        let inputs = vec![self.value(lhs)?, self.scalar(rhs, lhs.dtype)?];
        self.emit_as(out, operator, inputs, vec![]);
        Ok(())
    }

    fn negated(&mut self, out: &TensorIr, operator: &'static str, inputs: &[&TensorIr]) -> Result<(), OnnxError> {
        self.plain(out, operator, inputs)?;
        self.not(out)
    }

    /// The contrary of a result.
    fn not(&mut self, out: &TensorIr) -> Result<(), OnnxError> {
        let found = self.value(out)?;
        self.emit_as(out, "Not", vec![found], vec![]);
        Ok(())
    }

    pub(super) fn cast(&mut self, input: &TensorIr, out: &TensorIr) -> Result<(), OnnxError> {
        let (value, to) = (self.value(input)?, self.element(out.dtype)?);
        self.emit_as(out, "Cast", vec![value], vec![("to", Attribute::Int(to as i64))]);
        Ok(())
    }

    fn filled(&mut self, out: &TensorIr, value: ScalarIr) -> Result<(), OnnxError> {
        let is_fixed = self.graph.lengths(out).iter().all(Length::is_fixed);
        if is_fixed && out.shape.num_elements() <= SMALL && out.dtype == DType::F32 {
            let data = TensorData::full(out.shape.clone(), value.elem::<f32>());
            self.reshaped.insert(out.id, (out.id, data)); // written where it is read
            return Ok(());
        }
        let (value, shape) = (self.scalar(value, out.dtype)?, self.shape_of(out)?);
        self.emit_as(out, "Expand", vec![value, shape], vec![]);
        Ok(())
    }
}
