//! A model out of a graph: layers with quantizers where the graph has products, at the paths that they had.
//!
//! * `find` which operations are layers
//! * `part` the layers, and all other parameters
//! * `build` the model of a graph
//! * `prepare` batch norms folded and neighbours equalized
//! * `graph` the graph of a model

mod build;
mod find;
mod graph;
mod part;
mod prepare;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use burn::backend::ir::{IrVisitorMut, OperationIr, TensorId, TensorIr};
use burn::module::{
    Content, Devices, DisplaySettings, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
};
use burn::tensor::{Device, TensorData};

use crate::graph::Name;
use crate::length::Resize;
use crate::replay::{Boundary, Machine, machine};
use crate::{GraphError, Values};
use part::{Call, Field, Part};

/// A model that a graph became: what was captured, with quantizers at its products.
///
/// It computes what the captured model does, bit for bit, from a graph instead of from source: so a model that nobody
/// wants to change is quantized as one written with `burn_quant::nn` is, with the same names of parameters and
/// quantizers, and the same bits. It is a module: `quantize`, with any algorithm, `compress`, `summary`, searches, and
/// records work on it.
///
/// | in the graph | in the model |
/// |---|---|
/// | a product with a parameter `fc.weight`, with the sum with `fc.bias` if there is one | a `QuantLinear` at `fc` |
/// | a convolution with `conv.weight` | a `QuantConv1d`, …, `QuantConvTranspose3d` at `conv` |
/// | rows of `table.weight` | a `QuantEmbedding` at `table` |
/// | one of these with a parameter of another name, `cell.w` | the layer at `cell.w`: its weight is `cell.w.weight` |
/// | a product of two computed tensors | `matmul_0`, …: `lhs_quantizer` and `rhs_quantizer`, off in every preset |
/// | any other float parameter | the parameter, at its path |
/// | everything else | operations, which run as they were recorded |
///
/// Parameters that are integers or booleans are constants. Products whose weight is computed, from another parameter
/// say, stay operations. Nothing is trained: a device with autodiff is refused.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use burn::module::Module;
/// use burn::tensor::{Device, Distribution, Tensor, activation::relu};
/// use burn_nn::{Linear, LinearConfig}; // burn's own
/// use burn_quant::{presets, quantize};
/// use burn_quant_graph::{GraphModel, capture};
///
/// #[derive(Module, Debug)]
/// struct Mlp { fc1: Linear, fc2: Linear }
///
/// impl Mlp {
///     fn forward(&self, x: Tensor<2>) -> Tensor<2> {
///         self.fc2.forward(relu(self.fc1.forward(x)))
///     }
/// }
///
/// let device = Device::flex();
/// let linear = |d_in, d_out| LinearConfig::new(d_in, d_out).init(&device);
/// let x = Tensor::random([4, 8], Distribution::Normal(0.0, 1.0), &device);
/// let mlp = Mlp { fc1: linear(8, 16), fc2: linear(16, 4) };
///
/// let model = GraphModel::new(capture(&mlp, x.clone(), Mlp::forward)?, &device)?;
/// assert_eq!(model.run::<_, Tensor<2>>(x.clone())?.to_data(), mlp.forward(x.clone()).to_data());
///
/// let (model, report) = quantize(model, &presets::int8_default(), |model| {
///     model.forward::<_, Tensor<2>>(x.clone());
/// })?;
/// assert!(report.statistics.get("fc2.input_quantizer").is_some());
/// let graph = model.graph()?; // for ONNX, with its quantizers
/// # let _ = graph;
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
#[derive(Clone)]
pub struct GraphModel {
    parts: Vec<Placed>,
    program: Arc<Program>,
    device: Device,
    running: Running,
}

/// A part at its path.
#[derive(Clone, Debug)]
struct Placed {
    /// The fields that lead to it, and the structs that own them.
    path: Vec<(String, String)>,
    part: Part,
}

/// What is done with the parts, in order.
#[derive(Clone, Debug)]
struct Program {
    steps: Vec<Step>,
    boundary: Boundary,
    /// What operations begin with that is no parameter.
    constants: BTreeMap<TensorId, TensorData>,
    /// The paths of those that are parameters of integers or booleans.
    names: BTreeMap<TensorId, Name>,
    /// Parameters that operations read.
    parameters: Vec<Read>,
    siblings: Vec<Vec<String>>,
    multiplications: BTreeMap<String, f64>,
}

/// A parameter that an operation reads.
#[derive(Clone, Debug)]
struct Read {
    id: TensorId,
    part: usize,
    field: Field,
    transposed: bool,
    name: Name,
}

#[derive(Clone, Debug)]
enum Step {
    Operation(Box<OperationIr>),
    Part { part: usize, call: Call, inputs: Vec<TensorIr>, output: TensorIr },
}

impl Step {
    fn inputs(&self) -> Vec<TensorId> {
        match self {
            Step::Operation(operation) => operation.inputs().map(|input| input.id).collect(),
            Step::Part { inputs, .. } => inputs.iter().map(|input| input.id).collect(),
        }
    }

    fn outputs(&self) -> Vec<TensorId> {
        match self {
            Step::Operation(operation) => operation.outputs().map(|output| output.id).collect(),
            Step::Part { output, .. } => vec![output.id],
        }
    }

    fn visit_mut(&mut self, visitor: &mut impl IrVisitorMut) {
        match self {
            Step::Operation(operation) => operation.visit_mut(visitor),
            Step::Part { inputs, output, .. } => {
                inputs.iter_mut().chain([output]).for_each(|tensor| visitor.visit_tensor_mut(tensor));
            }
        }
    }

    fn resize(&mut self, resize: &mut Resize) {
        match self {
            Step::Operation(operation) => resize.operation(operation),
            Step::Part { .. } => self.visit_mut(resize),
        }
    }
}

/// The device of a model as it runs; a clone has its own.
#[derive(Default)]
struct Running(Mutex<Option<State>>);

struct State {
    machine: Box<dyn Machine>,
    /// Those of the program, at sizes of the free axes.
    steps: Vec<Step>,
    sizes: Vec<usize>,
}

impl Clone for Running {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl GraphModel {
    /// Runs the model, as [`run`](GraphModel::run) does.
    ///
    /// # Panics
    ///
    /// With the error of `run`, as a layer of burn panics for a wrong shape.
    pub fn forward<I: Values, O: Values>(&self, inputs: I) -> O {
        self.run(inputs).unwrap_or_else(|error| panic!("GraphModel: {error}"))
    }

    /// Runs the model.
    ///
    /// `inputs` are tensors on its device, of the shapes and dtypes that were captured, except for axes that are free;
    /// the outputs are taken as what is asked for: a tensor, or several in a tuple.
    ///
    /// # Errors
    ///
    /// [`GraphError::Count`], [`GraphError::Shape`], [`GraphError::Dtype`], [`GraphError::Elsewhere`] and
    /// [`GraphError::OutputType`] if the two do not fit; [`GraphError::Device`] on a device that runs no graphs.
    pub fn run<I: Values, O: Values>(&self, inputs: I) -> Result<O, GraphError> {
        let program = &*self.program;
        let (tensors, sizes) = program.boundary.taken(inputs)?;
        let mut running = self.running.0.lock().unwrap_or_else(|poisoned| {
            let mut state = poisoned.into_inner(); // a run panicked: its tensors are let go
            *state = None;
            state
        });
        let state = match &mut *running {
            Some(state) => state,
            none => none.insert(self.state()?),
        };
        if sizes != state.sizes {
            let mut resize = Resize { free: &program.boundary.free, sizes: &sizes };
            state.steps.iter_mut().for_each(|step| step.resize(&mut resize));
            program.boundary.free.constants(&sizes).for_each(|(id, data)| state.machine.load(id, data));
            state.sizes.clone_from(&sizes);
        }
        let machine = &mut *state.machine;
        for read in &program.parameters {
            let value = read.value(&self.parts);
            machine.set(read.id, value).map_err(|reason| GraphError::Elsewhere { index: 0, reason })?;
        }
        program.boundary.set(tensors, machine)?;
        for step in &state.steps {
            match step {
                Step::Operation(operation) => machine.run(operation),
                Step::Part { part, call, inputs, output } => {
                    let inputs = inputs.iter().map(|input| machine.get(input)).collect();
                    let result = self.parts[*part].part.call(*call, inputs);
                    machine.set(output.id, result).map_err(|reason| GraphError::Elsewhere { index: 0, reason })?;
                }
            }
        }
        program.boundary.outputs(machine, &sizes)
    }

    /// Returns the layers that read the same activations, two or more at a time: in SmoothQuant, AWQ and auto-quantize
    /// they share scales.
    ///
    /// In the order of the first of each.
    pub fn siblings(&self) -> &[Vec<String>] {
        &self.program.siblings
    }

    /// Returns the multiplications that each layer does in a run, by its path.
    ///
    /// See [`Graph::multiplications`](crate::Graph::multiplications).
    pub fn multiplications(&self) -> &BTreeMap<String, f64> {
        &self.program.multiplications
    }

    fn state(&self) -> Result<State, GraphError> {
        let program = &*self.program;
        let mut machine = machine(&self.device)?;
        program.constants.iter().for_each(|(id, data)| machine.load(*id, data.clone()));
        let values = program.constants.keys().copied().chain(program.parameters.iter().map(|read| read.id));
        let (mut kept, mut steps) = (program.boundary.kept(values), program.steps.clone());
        steps.iter_mut().for_each(|step| step.visit_mut(&mut kept));
        Ok(State { machine, steps, sizes: program.boundary.free.sizes() })
    }

    fn each(self, device: Option<&Device>, f: impl Fn(Part) -> Part) -> Self {
        let parts = self.parts.into_iter().map(|placed| Placed { part: f(placed.part), ..placed }).collect();
        let device = device.cloned().unwrap_or(self.device);
        Self { parts, device, running: Running::default(), program: self.program }
    }
}

impl Module for GraphModel {
    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        for Placed { path, part } in &self.parts {
            path.iter().for_each(|(name, container)| visitor.enter_module(name, container));
            part.visit(visitor);
            path.iter().rev().for_each(|(name, container)| visitor.exit_module(name, container));
        }
    }

    fn map<M: ModuleMapper>(mut self, mapper: &mut M) -> Self {
        let parts = std::mem::take(&mut self.parts).into_iter();
        self.parts = parts
            .map(|Placed { path, part }| {
                path.iter().for_each(|(name, container)| mapper.enter_module(name, container));
                let part = part.map(mapper);
                path.iter().rev().for_each(|(name, container)| mapper.exit_module(name, container));
                Placed { path, part }
            })
            .collect();
        self
    }

    fn to_device(self, device: &Device) -> Self {
        self.each(Some(device), |part| part.to_device(device))
    }

    fn fork(self, device: &Device) -> Self {
        self.each(Some(device), |part| part.fork(device))
    }

    fn collect_devices(&self, devices: Devices) -> Devices {
        self.parts.iter().fold(devices, |devices, placed| placed.part.collect_devices(devices))
    }

    fn materialize(self) -> Self {
        self.each(None, Part::materialize)
    }

    fn valid(&self) -> Self {
        let device = self.device.clone().without_autodiff();
        self.clone().each(Some(&device), |part| part.valid())
    }

    fn train(self) -> Self {
        self.each(None, Part::train)
    }
}

impl fmt::Debug for GraphModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GraphModel").field("parts", &self.parts).field("device", &self.device).finish()
    }
}

impl fmt::Display for GraphModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&ModuleDisplay::format(self, DisplaySettings::default()))
    }
}

impl ModuleDisplayDefault for GraphModel {
    fn num_params(&self) -> usize {
        Module::num_params(self)
    }

    fn content(&self, content: Content) -> Option<Content> {
        let operations = |step: &&Step| matches!(step, Step::Operation(_));
        let operations = self.program.steps.iter().filter(operations).count();
        let start = content.set_top_level_type("GraphModel").add("operations", &operations);
        self.parts.iter().fold(start, |content, placed| placed.part.shown(&placed.path(), content)).optional()
    }
}

impl ModuleDisplay for GraphModel {
    fn custom_settings(&self) -> Option<DisplaySettings> {
        None
    }
}
