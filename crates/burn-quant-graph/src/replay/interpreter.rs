//! A graph on a backend, by burn's interpreter.

use std::collections::BTreeSet;
use std::slice::from_ref;

use burn::backend::ir::{
    BackendIr, BaseOperationIr, CustomOpIr, HandleKind, IrVisitorMut, OperationIr, TensorId, TensorIr, TensorStatus,
};
use burn::backend::{BackendTensor, DispatchKindConversion, DispatchTensor};
use burn::tensor::IntDType;
use burn_quant_ops::{FakeQuantOps, GroupAmaxOps, HadamardOps, PackedLinearOps, register_ops};
use burn_router::{CustomOpRegistry, TensorInterpreter};

use super::Run;
use crate::values::AnyTensor;
use crate::{Graph, GraphError};

pub(super) struct Interpreter<B: BackendIr> {
    interpreter: TensorInterpreter<B>,
    operations: Vec<OperationIr>,
    inputs: Vec<TensorId>,
    outputs: Vec<TensorIr>,
}

impl<B: BackendIr + FakeQuantOps + GroupAmaxOps + HadamardOps + PackedLinearOps> Interpreter<B> {
    pub(super) fn new(graph: &Graph, device: B::Device) -> Self {
        let mut registry = CustomOpRegistry::<B>::new();
        register_ops(&mut registry);
        registry.register(INT_CAST, |handles, op, _| {
            let ([input], [output]) = op.as_fixed();
            let integers = B::int_cast(handles.get_int_tensor::<B>(input), IntDType::from(output.dtype));
            handles.register_int_tensor::<B>(&output.id, integers);
        });
        let mut interpreter = TensorInterpreter::with_custom_ops(device, registry);
        graph.values().iter().for_each(|(id, data)| interpreter.register_tensor_data_id(*id, data.clone()));
        let inputs: Vec<TensorId> = graph.inputs().iter().map(|input| input.id).collect();
        let mut kept = Kept(graph.values().keys().chain(&inputs).copied().collect());
        kept.0.extend(graph.outputs().iter().map(|output| output.id));
        let mut operations: Vec<OperationIr> = graph.operations().iter().map(runnable).collect();
        operations.iter_mut().for_each(|operation| operation.visit_mut(&mut kept));
        let outputs = graph.outputs().to_vec();
        Self { interpreter, operations, inputs, outputs }
    }
}

/// A cast between integers, which burn 0.22.1 records and its interpreter does not run.
const INT_CAST: &str = "burn_quant_graph::int_cast";

/// An operation that the interpreter runs.
fn runnable(operation: &OperationIr) -> OperationIr {
    match operation {
        OperationIr::BaseInt(BaseOperationIr::Cast(cast)) => {
            OperationIr::Custom(CustomOpIr::new(INT_CAST, from_ref(&cast.input), from_ref(&cast.out)))
        }
        other => other.clone(),
    }
}

/// What operations may not consume: it is there for the next run, or is an output.
struct Kept(BTreeSet<TensorId>);

impl IrVisitorMut for Kept {
    fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
        if tensor.status == TensorStatus::ReadWrite && self.0.contains(&tensor.id) {
            tensor.status = TensorStatus::ReadOnly;
        }
    }
}

impl<B> Run for Interpreter<B>
where
    B: BackendIr + FakeQuantOps + GroupAmaxOps + HadamardOps + PackedLinearOps,
    DispatchTensor: DispatchKindConversion<B>,
{
    fn run(&mut self, inputs: Vec<AnyTensor>) -> Result<Vec<AnyTensor>, GraphError> {
        for (index, (id, input)) in self.inputs.iter().zip(inputs).enumerate() {
            let tensor = <DispatchTensor as DispatchKindConversion<B>>::try_into_backend(input.tensor);
            let handle = match tensor.map_err(|reason| GraphError::Elsewhere { index, reason })? {
                BackendTensor::Float(tensor) => HandleKind::Float(tensor),
                BackendTensor::Int(tensor) => HandleKind::Int(tensor),
                BackendTensor::Bool(tensor) => HandleKind::Bool(tensor),
                _ => return Err(GraphError::Elsewhere { index, reason: "a quantized tensor".into() }),
            };
            self.interpreter.register_tensor_to_device(*id, handle);
        }
        self.operations.iter().for_each(|operation| self.interpreter.register_op(operation.clone()));
        let repeated = |index: usize| self.outputs[index + 1..].iter().any(|later| later.id == self.outputs[index].id);
        let output = |(index, output): (usize, &TensorIr)| {
            let fixed = self.inputs.contains(&output.id) || repeated(index);
            let status = if fixed { TensorStatus::ReadOnly } else { TensorStatus::ReadWrite };
            let (tensor, kind) = match self.interpreter.get_tensor(&TensorIr { status, ..output.clone() }) {
                HandleKind::Float(tensor) => (BackendTensor::<B>::Float(tensor), "floats"),
                HandleKind::Int(tensor) => (BackendTensor::Int(tensor), "integers"),
                HandleKind::Bool(tensor) => (BackendTensor::Bool(tensor), "booleans"),
                HandleKind::Quantized(tensor) => (BackendTensor::Quantized(tensor), "quantized values"),
            };
            let tensor = <DispatchTensor as DispatchKindConversion<B>>::from_backend(tensor);
            AnyTensor { tensor, shape: output.shape.to_vec(), dtype: output.dtype, kind }
        };
        Ok(self.outputs.iter().enumerate().map(output).collect())
    }
}
