//! Recording a forward pass.

use std::any::Any;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use burn::backend::ir::{OperationIr, TensorId};
use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Bool, Device, Int, Tensor};

use crate::graph::Name;
use crate::values::{AnyTensor, Tensors};
use crate::{Graph, GraphError, Values, operation_name};

/// Records what a forward pass does: every operation of the model and of its quantizers, none of which is run.
///
/// `inputs` is a tensor, or several in a tuple, as examples: their shapes and dtypes are those of the graph, their
/// values do not matter. `forward` is called once, with the model as in inference (`valid()`) on a device that records.
///
/// # Errors
///
/// [`GraphError::Forward`] if the pass reads a value, as control flow on data does, or uses a tensor that belongs
/// neither to the model nor to its inputs; [`GraphError::Boundary`] and [`GraphError::Output`] if what it returns is no
/// result.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant_graph::GraphError> {
/// use burn_nn::LinearConfig;
/// use burn::tensor::{Device, Tensor};
/// use burn_quant_graph::capture;
///
/// let linear = LinearConfig::new(8, 4).init(&Device::flex()); // burn's
/// let x = Tensor::<2>::zeros([2, 8], &Device::flex());
/// let graph = capture(&linear, x, |linear, x| linear.forward(x))?;
/// assert_eq!(graph.operations().len(), 3); // a product, the bias as a row, a sum
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn capture<M: Module, I: Values, O: Values>(
    model: &M,
    inputs: I,
    forward: impl FnOnce(&M, I) -> O,
) -> Result<Graph, GraphError> {
    let device = Device::capture();
    let (names, stopped) = (RefCell::new(BTreeMap::new()), RefCell::new(None));
    let model = model.valid();
    let captured = device.capture_scope(|scope| {
        let model = model.to_device(&device);
        let mut found = Names::default();
        model.visit(&mut found);
        *names.borrow_mut() = found.names;
        let (ids, inputs) = inputs_of(inputs.moved(&device));
        // a pass that stops leaves what it has recorded, which says where it was
        let outputs = catch_unwind(AssertUnwindSafe(|| forward(&model, inputs)));
        let outputs = outputs.map_err(|panic| Stopped::Panic(words_of(&*panic))).and_then(outputs_of);
        let outputs = outputs.unwrap_or_else(|why| {
            *stopped.borrow_mut() = Some(why);
            Vec::new()
        });
        scope.complete(ids, outputs)
    });
    let names = names.into_inner();
    match (captured, stopped.into_inner()) {
        (Err(error), _) => Err(GraphError::Boundary { reason: error.to_string() }),
        (Ok(_), Some(Stopped::Output(index))) => Err(GraphError::Output { index }),
        (Ok(captured), Some(Stopped::Panic(reason))) => {
            Err(GraphError::Forward { reason, after: last_of(&captured.graph.operations, &names) })
        }
        (Ok(captured), None) => Graph::new(captured, names),
    }
}

/// Why a forward pass has no outputs.
enum Stopped {
    /// It panicked, with these words.
    Panic(String),
    /// One of them is not on the capture device.
    Output(usize),
}

fn words_of(panic: &(dyn Any + Send)) -> String {
    let words = panic.downcast_ref::<String>().map(String::as_str);
    let words = words.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it panicked");
    match words.contains("has no concrete value") {
        true => "it reads the value of a tensor that it computes".into(),
        // burn's own errors are headed and numbered
        false => words.split_once("1. ").map_or(words, |(_, reason)| reason).trim().to_string(),
    }
}

/// The last operation in words, and the last that has parameters.
fn last_of(operations: &[OperationIr], names: &BTreeMap<TensorId, Name>) -> String {
    let computed = || operations.iter().rev().filter(|operation| !matches!(operation, OperationIr::Init(_)));
    let named = computed().find_map(|operation| {
        let name = operation.inputs().find_map(|input| names.get(&input.id))?;
        Some(format!("{} of `{}`", operation_name(operation), name.path))
    });
    match (computed().next(), named) {
        (None, _) => "nothing".into(),
        (Some(last), None) => operation_name(last),
        (Some(last), Some(named)) => format!("{named}, and then up to {}", operation_name(last)),
    }
}

/// The ids of inputs, and the inputs again.
fn inputs_of<T: Values>(inputs: T) -> (Vec<TensorId>, T) {
    let mut tensors = Vec::new();
    inputs.into_tensors(&mut tensors);
    let ids = tensors.iter().map(|tensor| tensor.clone().id().expect("it was moved to the capture device")).collect();
    let inputs = T::from_tensors(&mut Tensors::new(tensors)).expect("these are the tensors that were taken apart");
    (ids, inputs)
}

fn outputs_of<T: Values>(outputs: T) -> Result<Vec<TensorId>, Stopped> {
    let mut tensors = Vec::new();
    outputs.into_tensors(&mut tensors);
    let id = |(index, tensor): (usize, AnyTensor)| tensor.id().map_err(|_| Stopped::Output(index));
    tensors.into_iter().enumerate().map(id).collect()
}

/// The paths of parameters, and of buffers of quantizers, by their tensors.
#[derive(Default)]
struct Names {
    path: Vec<String>,
    containers: Vec<String>,
    names: BTreeMap<TensorId, Name>,
}

impl Names {
    fn add(&mut self, tensor: impl Values) {
        let mut tensors = Vec::new();
        tensor.into_tensors(&mut tensors);
        let name = Name { path: self.path.join("."), containers: self.containers.clone() };
        self.names.extend(tensors.into_iter().filter_map(|tensor| Some((tensor.id().ok()?, name.clone()))));
    }
}

impl ModuleVisitor for Names {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.push(name.into());
        self.containers.push(container.into());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
        self.containers.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.add(param.base());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.add(param.base());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.add(param.base());
    }
}
