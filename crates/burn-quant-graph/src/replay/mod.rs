//! Running a graph: burn's interpreter, with the ops of this project.
//!
//! Values are given to the device once; a run registers its inputs and nothing else. Results are those of the model,
//! bit for bit, as the same kernels run in the same order.

#[cfg(any(feature = "flex", feature = "cube"))]
mod interpreter;

use std::collections::BTreeSet;

use burn::backend::ir::{IrVisitorMut, OperationIr, TensorId, TensorIr, TensorStatus};
use burn::tensor::{Device, TensorData};

use crate::length::{FreeAxes, Resize};
use crate::values::{AnyTensor, Tensors};
use crate::{FreeAxis, Graph, GraphError, Values};

/// A graph on a device, ready to run.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant_graph::GraphError> {
/// use burn::tensor::{Device, Tensor};
/// use burn_nn::{Linear, LinearConfig};
/// use burn_quant_graph::capture;
///
/// let device = Device::flex();
/// let linear = LinearConfig::new(8, 4).init(&device);
/// let x = Tensor::<2>::ones([2, 8], &device);
/// let mut replay = capture(&linear, x.clone(), |linear: &Linear, x: Tensor<2>| linear.forward(x))?.replay(&device)?;
/// let y: Tensor<2> = replay.run(x.clone())?;
/// assert_eq!(y.to_data(), linear.forward(x).to_data());
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub struct Replay {
    machine: Box<dyn Machine>,
    /// Those of the graph, at the sizes that ran last.
    operations: Vec<OperationIr>,
    boundary: Boundary,
    sizes: Vec<usize>,
}

impl Graph {
    /// Gives the graph's values to a device, to be run there as often as is wanted.
    ///
    /// # Errors
    ///
    /// [`GraphError::Device`] if graphs do not run there: a device of a backend that is not a feature of this crate, or
    /// one with autodiff.
    pub fn replay(&self, device: &Device) -> Result<Replay, GraphError> {
        let mut machine = machine(device)?;
        self.values().iter().for_each(|(id, data)| machine.load(*id, data.clone()));
        let boundary = Boundary::of(self);
        let mut operations = self.operations().to_vec();
        let mut kept = boundary.kept(self.values().keys().copied());
        operations.iter_mut().for_each(|operation| operation.visit_mut(&mut kept));
        let sizes = boundary.free.sizes();
        Ok(Replay { machine, operations, boundary, sizes })
    }
}

impl Replay {
    /// Runs the graph.
    ///
    /// `inputs` are tensors on the device of the replay, of the shapes and dtypes that were captured, except for axes
    /// that are free; the outputs are taken as what is asked for: a tensor, or several in a tuple.
    ///
    /// # Errors
    ///
    /// [`GraphError::Count`], [`GraphError::Shape`], [`GraphError::Dtype`], [`GraphError::Elsewhere`] and
    /// [`GraphError::OutputType`] if the two do not fit.
    pub fn run<I: Values, O: Values>(&mut self, inputs: I) -> Result<O, GraphError> {
        let (tensors, sizes) = self.boundary.taken(inputs)?;
        if sizes != self.sizes {
            let mut resize = Resize { free: &self.boundary.free, sizes: &sizes };
            self.operations.iter_mut().for_each(|operation| resize.operation(operation));
            self.boundary.free.constants(&sizes).for_each(|(id, data)| self.machine.load(id, data));
            self.sizes.clone_from(&sizes);
        }
        self.boundary.set(tensors, &mut *self.machine)?;
        self.operations.iter().for_each(|operation| self.machine.run(operation));
        self.boundary.outputs(&mut *self.machine, &sizes)
    }
}

/// A device that runs operations.
pub(crate) trait Machine: Send {
    /// Gives it a value.
    fn load(&mut self, id: TensorId, data: TensorData);

    /// Gives it a tensor, which is there already; says why it is not.
    fn set(&mut self, id: TensorId, tensor: AnyTensor) -> Result<(), String>;

    fn run(&mut self, operation: &OperationIr);

    /// A tensor, and lets go of it if its status says so.
    fn get(&mut self, tensor: &TensorIr) -> AnyTensor;
}

/// The interpreter of a device.
///
/// # Errors
///
/// [`GraphError::Device`] if its backend is not a feature.
pub(crate) fn machine(device: &Device) -> Result<Box<dyn Machine>, GraphError> {
    match device.as_dispatch() {
        #[cfg(feature = "flex")]
        burn::backend::DispatchDevice::Flex(device) => {
            Ok(Box::new(interpreter::Interpreter::<burn::backend::Flex>::new(*device)))
        }
        #[cfg(feature = "cube")]
        burn::backend::DispatchDevice::Cube(device) => {
            Ok(Box::new(interpreter::Interpreter::<burn_cubecl::Cube>::new(device.clone())))
        }
        #[allow(unreachable_patterns)]
        _ => Err(GraphError::Device { device: format!("{:?}", device.as_dispatch()) }),
    }
}

/// What goes into a graph and comes out of it.
#[derive(Clone, Debug)]
pub(crate) struct Boundary {
    pub(crate) inputs: Vec<TensorIr>,
    pub(crate) outputs: Vec<TensorIr>,
    pub(crate) free: FreeAxes,
}

impl Boundary {
    pub(crate) fn of(graph: &Graph) -> Self {
        Self { inputs: graph.inputs().to_vec(), outputs: graph.outputs().to_vec(), free: graph.free.clone() }
    }

    /// What operations may not consume: it is there for the next run, or is an output.
    pub(crate) fn kept(&self, values: impl Iterator<Item = TensorId>) -> Kept {
        Kept(values.chain(self.inputs.iter().chain(&self.outputs).map(|tensor| tensor.id)).collect())
    }

    /// The tensors of inputs, and the sizes of the free axes.
    pub(crate) fn taken<I: Values>(&self, inputs: I) -> Result<(Vec<AnyTensor>, Vec<usize>), GraphError> {
        let mut tensors = Vec::new();
        inputs.into_tensors(&mut tensors);
        if tensors.len() != self.inputs.len() {
            let (expected, found) = (self.inputs.len(), tensors.len());
            return Err(GraphError::Count { boundary: "inputs", expected, found });
        }
        let size = |free: &FreeAxis| {
            let (input, axis) = free.of_inputs[0];
            tensors[input].shape.get(axis).copied().unwrap_or(free.size) // another rank is refused below
        };
        let sizes: Vec<usize> = self.free.axes.iter().map(size).collect();
        let mut resize = Resize { free: &self.free, sizes: &sizes };
        for (index, (tensor, expected)) in tensors.iter().zip(&self.inputs).enumerate() {
            if tensor.dtype != expected.dtype {
                return Err(GraphError::Dtype { index, expected: expected.dtype, found: tensor.dtype });
            }
            let mut expected = expected.clone();
            resize.visit_tensor_mut(&mut expected);
            if tensor.shape != expected.shape.as_slice() {
                let (expected, found) = (expected.shape.to_vec(), tensor.shape.clone());
                return Err(GraphError::Shape { index, expected, found });
            }
        }
        Ok((tensors, sizes))
    }

    pub(crate) fn set(&self, tensors: Vec<AnyTensor>, machine: &mut dyn Machine) -> Result<(), GraphError> {
        for (index, (input, tensor)) in self.inputs.iter().zip(tensors).enumerate() {
            machine.set(input.id, tensor).map_err(|reason| GraphError::Elsewhere { index, reason })?;
        }
        Ok(())
    }

    pub(crate) fn outputs<O: Values>(&self, machine: &mut dyn Machine, sizes: &[usize]) -> Result<O, GraphError> {
        let mut resize = Resize { free: &self.free, sizes };
        let output = |(index, output): (usize, &TensorIr)| {
            let fixed = self.inputs.iter().any(|input| input.id == output.id)
                || self.outputs[index + 1..].iter().any(|later| later.id == output.id);
            let status = if fixed { TensorStatus::ReadOnly } else { TensorStatus::ReadWrite };
            let mut output = TensorIr { status, ..output.clone() };
            resize.visit_tensor_mut(&mut output);
            machine.get(&output)
        };
        let outputs: Vec<AnyTensor> = self.outputs.iter().enumerate().map(output).collect();
        let found = outputs.len();
        let mut outputs = Tensors::new(outputs);
        let taken = O::from_tensors(&mut outputs)?;
        match outputs.rest.len() {
            0 => Ok(taken),
            left => Err(GraphError::Count { boundary: "outputs", expected: found, found: found - left }),
        }
    }
}

/// Tensors that stay, whoever reads them.
pub(crate) struct Kept(BTreeSet<TensorId>);

impl IrVisitorMut for Kept {
    fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
        if tensor.status == TensorStatus::ReadWrite && self.0.contains(&tensor.id) {
            tensor.status = TensorStatus::ReadOnly;
        }
    }
}
