//! A backend that runs operations, by burn's interpreter.

use std::slice::from_ref;

use burn::backend::ir::{BackendIr, BaseOperationIr, CustomOpIr, HandleKind, OperationIr, TensorId, TensorIr};
use burn::backend::{BackendTensor, DispatchKindConversion, DispatchTensor};
use burn::tensor::{IntDType, TensorData};
use burn_quant_ops::{FakeQuantOps, GroupAmaxOps, HadamardOps, PackedLinearOps, register_ops};
use burn_router::{CustomOpRegistry, TensorInterpreter};

use super::Machine;
use crate::values::AnyTensor;

pub(super) struct Interpreter<B: BackendIr>(TensorInterpreter<B>);

impl<B> Interpreter<B>
where
    B: BackendIr + FakeQuantOps + GroupAmaxOps + HadamardOps + PackedLinearOps,
    DispatchTensor: DispatchKindConversion<B>,
{
    pub(super) fn new(device: B::Device) -> Self {
        let mut registry = CustomOpRegistry::<B>::new();
        register_ops(&mut registry);
        registry.register(INT_CAST, |handles, op, _| {
            let ([input], [output]) = op.as_fixed();
            let integers = B::int_cast(handles.get_int_tensor::<B>(input), IntDType::from(output.dtype));
            handles.register_int_tensor::<B>(&output.id, integers);
        });
        Self(TensorInterpreter::with_custom_ops(device, registry))
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

impl<B> Machine for Interpreter<B>
where
    B: BackendIr + FakeQuantOps + GroupAmaxOps + HadamardOps + PackedLinearOps,
    DispatchTensor: DispatchKindConversion<B>,
{
    fn load(&mut self, id: TensorId, data: TensorData) {
        self.0.register_tensor_data_id(id, data);
    }

    fn set(&mut self, id: TensorId, tensor: AnyTensor) -> Result<(), String> {
        let handle = match <DispatchTensor as DispatchKindConversion<B>>::try_into_backend(tensor.tensor)? {
            BackendTensor::Float(tensor) => HandleKind::Float(tensor),
            BackendTensor::Int(tensor) => HandleKind::Int(tensor),
            BackendTensor::Bool(tensor) => HandleKind::Bool(tensor),
            _ => return Err("a quantized tensor".into()),
        };
        self.0.register_tensor_to_device(id, handle);
        Ok(())
    }

    fn run(&mut self, operation: &OperationIr) {
        self.0.register_op(runnable(operation));
    }

    fn get(&mut self, tensor: &TensorIr) -> AnyTensor {
        let (shape, dtype) = (tensor.shape.to_vec(), tensor.dtype);
        let (tensor, kind) = match self.0.get_tensor(tensor) {
            HandleKind::Float(tensor) => (BackendTensor::<B>::Float(tensor), "floats"),
            HandleKind::Int(tensor) => (BackendTensor::Int(tensor), "integers"),
            HandleKind::Bool(tensor) => (BackendTensor::Bool(tensor), "booleans"),
            HandleKind::Quantized(tensor) => (BackendTensor::Quantized(tensor), "quantized values"),
        };
        let tensor = <DispatchTensor as DispatchKindConversion<B>>::from_backend(tensor);
        AnyTensor { tensor, shape, dtype, kind }
    }
}
