//! Running a graph: burn's interpreter, with the ops of this project.
//!
//! Values are given to the device once; a run registers its inputs and nothing else. Results are those of the model,
//! bit for bit, as the same kernels run in the same order.

#[cfg(any(feature = "flex", feature = "cube"))]
mod interpreter;

use burn::backend::ir::TensorIr;
use burn::tensor::Device;

use crate::values::{AnyTensor, Tensors};
use crate::{Graph, GraphError, Values};

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
    run: Box<dyn Run>,
    inputs: Vec<TensorIr>,
}

impl Graph {
    /// Gives the graph's values to a device, to be run there as often as is wanted.
    ///
    /// # Errors
    ///
    /// [`GraphError::Device`] if graphs do not run there: a device of a backend that is not a feature of this crate, or
    /// one with autodiff.
    pub fn replay(&self, device: &Device) -> Result<Replay, GraphError> {
        match on(self, device) {
            Some(run) => Ok(Replay { run, inputs: self.inputs().to_vec() }),
            None => Err(GraphError::Device { device: format!("{:?}", device.as_dispatch()) }),
        }
    }
}

/// The interpreter of a device, if its backend is a feature.
#[allow(unused_variables)] // without backends
fn on(graph: &Graph, device: &Device) -> Option<Box<dyn Run>> {
    match device.as_dispatch() {
        #[cfg(feature = "flex")]
        burn::backend::DispatchDevice::Flex(device) => {
            Some(Box::new(interpreter::Interpreter::<burn::backend::Flex>::new(graph, *device)))
        }
        #[cfg(feature = "cube")]
        burn::backend::DispatchDevice::Cube(device) => {
            Some(Box::new(interpreter::Interpreter::<burn_cubecl::Cube>::new(graph, device.clone())))
        }
        #[allow(unreachable_patterns)]
        _ => None,
    }
}

impl Replay {
    /// Runs the graph.
    ///
    /// `inputs` are tensors on the device of the replay, of the shapes and dtypes that were captured; the outputs are
    /// taken as what is asked for: a tensor, or several in a tuple.
    ///
    /// # Errors
    ///
    /// [`GraphError::Count`], [`GraphError::Shape`], [`GraphError::Dtype`], [`GraphError::Elsewhere`] and
    /// [`GraphError::OutputType`] if the two do not fit.
    pub fn run<I: Values, O: Values>(&mut self, inputs: I) -> Result<O, GraphError> {
        let mut tensors = Vec::new();
        inputs.into_tensors(&mut tensors);
        if tensors.len() != self.inputs.len() {
            let (expected, found) = (self.inputs.len(), tensors.len());
            return Err(GraphError::Count { boundary: "inputs", expected, found });
        }
        for (index, (tensor, expected)) in tensors.iter().zip(&self.inputs).enumerate() {
            if tensor.dtype != expected.dtype {
                return Err(GraphError::Dtype { index, expected: expected.dtype, found: tensor.dtype });
            }
            if tensor.shape != expected.shape.as_slice() {
                let (expected, found) = (expected.shape.to_vec(), tensor.shape.clone());
                return Err(GraphError::Shape { index, expected, found });
            }
        }
        let outputs = self.run.run(tensors)?;
        let found = outputs.len();
        let mut outputs = Tensors::new(outputs);
        let taken = O::from_tensors(&mut outputs)?;
        match outputs.rest.len() {
            0 => Ok(taken),
            left => Err(GraphError::Count { boundary: "outputs", expected: found, found: found - left }),
        }
    }
}

/// A graph on a backend.
trait Run: Send {
    fn run(&mut self, inputs: Vec<AnyTensor>) -> Result<Vec<AnyTensor>, GraphError>;
}
