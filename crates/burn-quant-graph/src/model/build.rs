//! The model of a graph.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use burn::backend::ir::{ModuleOperationIr, OperationIr, TensorId};
use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use burn_nn::conv::{Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d};
use burn_nn::{Embedding, Linear, PaddingConfig1d, PaddingConfig2d, PaddingConfig3d};
use burn_quant_ops::RecordedOp;

use super::find::{Found, Kind, layers};
use super::part::{Call, Field, MatMul, Part, parameter, tensor};
use super::{GraphModel, Placed, Program, Read, Running, Step};
use crate::graph::Name;
use crate::replay::{Boundary, machine};
use crate::values::AnyTensor;
use crate::{Graph, GraphError};

impl GraphModel {
    /// Makes a model of a graph, on a device: of a float model, whose quantizers are all off.
    ///
    /// # Errors
    ///
    /// [`GraphError::Quantized`] for a graph with quantizers, [`GraphError::Device`] for a device that runs no graphs.
    pub fn new(graph: Graph, device: &Device) -> Result<Self, GraphError> {
        machine(device)?;
        for operation in graph.operations() {
            let OperationIr::Custom(custom) = operation else { continue };
            if RecordedOp::of(custom, custom.inputs[0].shape.as_slice()).is_ok() {
                let named = operation.inputs().find_map(|input| graph.name(input.id));
                return Err(GraphError::Quantized { name: named.map_or("an activation", of_what).into() });
            }
        }
        let siblings = graph.siblings().into_iter().map(|weights| {
            let layer = |weight: String| weight.strip_suffix(".weight").map_or(weight.clone(), String::from);
            weights.into_iter().map(layer).collect()
        });
        let (siblings, multiplications) = (siblings.collect(), graph.multiplications());
        let boundary = Boundary::of(&graph);
        let mut build = Build { found: layers(&graph), graph, device, parts: Vec::new(), owners: BTreeMap::new() };
        let steps = build.steps();
        let parameters = build.reads(&steps);
        let Build { graph: Graph { values, mut names, .. }, parts, .. } = build;
        names.retain(|id, _| values.contains_key(id));
        let program = Program { steps, boundary, constants: values, names, parameters, siblings, multiplications };
        Ok(Self { parts, program: Arc::new(program), device: device.clone(), running: Running::default() })
    }
}

struct Build<'a> {
    graph: Graph,
    found: Vec<Found>,
    device: &'a Device,
    parts: Vec<Placed>,
    /// The parts that own parameters.
    owners: BTreeMap<TensorId, Owner>,
}

struct Owner {
    part: usize,
    /// Where its part is called first.
    at: usize,
    field: Field,
    transposed: bool,
    name: Name,
}

impl Build<'_> {
    fn steps(&mut self) -> Vec<Step> {
        let (mut at, mut covered): (BTreeMap<usize, Step>, BTreeSet<usize>) = Default::default();
        let mut products = 0;
        for found in std::mem::take(&mut self.found) {
            let Some((part, call)) = self.part(&found, &mut products) else { continue };
            covered.extend(&found.covers);
            at.insert(found.at, Step::Part { part, call, inputs: found.inputs, output: found.output });
        }
        let operations = std::mem::take(&mut self.graph.operations);
        let step = |(index, operation)| match at.remove(&index) {
            Some(step) => Some(step),
            None => (!covered.contains(&index)).then(|| Step::Operation(Box::new(operation))),
        };
        operations.into_iter().enumerate().filter_map(step).collect()
    }

    /// The part that a layer is, and how it is called; `None` if its weight is that of a layer of another kind.
    fn part(&mut self, found: &Found, products: &mut usize) -> Option<(usize, Call)> {
        let Some(weight) = found.weight else {
            let path = vec![(format!("matmul_{products}"), "Struct:GraphModel".into())];
            *products += 1;
            self.parts.push(Placed { path, part: Part::MatMul(MatMul::new()) });
            return Some((self.parts.len() - 1, found.call));
        };
        if let Some(owner) = self.owners.get(&weight) {
            let call = match (&self.parts[owner.part].part, found.kind) {
                (Part::Linear(_), Kind::Linear { transposed }) if transposed == owner.transposed => Call::Forward,
                (Part::Embedding(_), Kind::Embedding) => found.call,
                // a head that is tied to its embedding, without a bias
                (Part::Embedding(_), Kind::Linear { transposed: true }) if found.bias.is_none() => Call::Logits,
                (Part::Linear(_) | Part::Embedding(_), _) => return None,
                (_, Kind::Convolution(at)) if self.same_options(owner.at, at) => Call::Forward,
                _ => return None,
            };
            return Some((owner.part, call));
        }
        let mut path: Vec<(String, String)> = segments(&self.graph.names[&weight]);
        // a parameter of another name is a layer of its own
        if path.last().is_some_and(|(field, _)| field == "weight") {
            path.pop();
        }
        let part = self.layer(found)?;
        self.parts.push(Placed { path, part });
        let part = self.parts.len() - 1;
        let transposed = found.kind == Kind::Linear { transposed: true };
        for (id, field) in [(Some(weight), Field::Weight), (found.bias, Field::Bias)] {
            let Some(id) = id else { continue };
            let transposed = transposed && field == Field::Weight;
            let name = self.graph.names[&id].clone();
            self.owners.insert(id, Owner { part, at: found.at, field, transposed, name });
            self.graph.values.remove(&id);
        }
        Some((part, found.call))
    }

    /// Whether two convolutions move their kernels alike.
    fn same_options(&self, one: usize, two: usize) -> bool {
        use ModuleOperationIr as Op;
        match (&self.graph.operations[one], &self.graph.operations[two]) {
            (OperationIr::Module(one), OperationIr::Module(two)) => match (one, two) {
                (Op::Conv1d(one), Op::Conv1d(two)) => one.options == two.options,
                (Op::Conv2d(one), Op::Conv2d(two)) => one.options == two.options,
                (Op::Conv3d(one), Op::Conv3d(two)) => one.options == two.options,
                (Op::ConvTranspose1d(one), Op::ConvTranspose1d(two)) => one.options == two.options,
                (Op::ConvTranspose2d(one), Op::ConvTranspose2d(two)) => one.options == two.options,
                (Op::ConvTranspose3d(one), Op::ConvTranspose3d(two)) => one.options == two.options,
                _ => false,
            },
            _ => false,
        }
    }

    fn layer(&self, found: &Found) -> Option<Part> {
        let data = |id: TensorId| self.graph.values[&id].clone();
        let weight = data(found.weight?);
        let bias = found.bias.map(|id| tensor::<1>(data(id), self.device));
        Some(match found.kind {
            Kind::Linear { transposed } => {
                let weight = tensor::<2>(weight, self.device);
                let weight = if transposed { Param::from_tensor(weight.val().transpose()) } else { weight };
                Part::Linear(Linear { weight, bias }.into())
            }
            Kind::Embedding => Part::Embedding(Embedding { weight: tensor(weight, self.device) }.into()),
            Kind::Convolution(index) => self.convolution(index, weight, bias)?,
            Kind::MatMul => return None,
        })
    }

    fn convolution(&self, index: usize, weight: TensorData, bias: Option<Param<Tensor<1>>>) -> Option<Part> {
        use ModuleOperationIr as Op;
        let OperationIr::Module(operation) = &self.graph.operations[index] else { return None };
        let (shape, device) = (weight.shape().to_vec(), self.device);
        macro_rules! kernel {
            ($($axis:literal)*) => {
                [$(shape[2 + $axis]),*]
            };
        }
        Some(match operation {
            Op::Conv1d(op) => {
                let [(left, right)] = op.options.padding;
                let ([stride], [dilation], groups) = (op.options.stride, op.options.dilation, op.options.groups);
                let (padding, weight) = (PaddingConfig1d::Explicit(left, right), tensor(weight, device));
                let [kernel_size] = kernel!(0);
                Part::Conv1d(Conv1d { weight, bias, stride, kernel_size, dilation, groups, padding }.into())
            }
            Op::Conv2d(op) => {
                let [(top, bottom), (left, right)] = op.options.padding;
                let (stride, dilation, groups) = (op.options.stride, op.options.dilation, op.options.groups);
                let padding = PaddingConfig2d::Explicit(top, left, bottom, right);
                let (weight, kernel_size) = (tensor(weight, device), kernel!(0 1));
                Part::Conv2d(Conv2d { weight, bias, stride, kernel_size, dilation, groups, padding }.into())
            }
            Op::Conv3d(op) => {
                let [depth, height, width] = op.options.padding;
                let (stride, dilation, groups) = (op.options.stride, op.options.dilation, op.options.groups);
                let padding = PaddingConfig3d::Explicit(depth, height, width);
                let (weight, kernel_size) = (tensor(weight, device), kernel!(0 1 2));
                Part::Conv3d(Conv3d { weight, bias, stride, kernel_size, dilation, groups, padding }.into())
            }
            Op::ConvTranspose1d(op) => {
                let ([stride], [dilation], groups) = (op.options.stride, op.options.dilation, op.options.groups);
                let ([padding], [padding_out], [kernel_size]) =
                    (op.options.padding, op.options.padding_out, kernel!(0));
                let (channels, weight) = ([shape[0], shape[1] * groups], tensor(weight, device));
                let layer = ConvTranspose1d {
                    weight,
                    bias,
                    stride,
                    kernel_size,
                    dilation,
                    groups,
                    padding,
                    padding_out,
                    channels,
                };
                Part::ConvTranspose1d(layer.into())
            }
            Op::ConvTranspose2d(op) => {
                let (stride, dilation, groups) = (op.options.stride, op.options.dilation, op.options.groups);
                let (padding, padding_out, kernel_size) = (op.options.padding, op.options.padding_out, kernel!(0 1));
                let (channels, weight) = ([shape[0], shape[1] * groups], tensor(weight, device));
                let layer = ConvTranspose2d {
                    weight,
                    bias,
                    stride,
                    kernel_size,
                    dilation,
                    groups,
                    padding,
                    padding_out,
                    channels,
                };
                Part::ConvTranspose2d(layer.into())
            }
            Op::ConvTranspose3d(op) => {
                let (stride, dilation, groups) = (op.options.stride, op.options.dilation, op.options.groups);
                let (padding, padding_out, kernel_size) = (op.options.padding, op.options.padding_out, kernel!(0 1 2));
                let (channels, weight) = ([shape[0], shape[1] * groups], tensor(weight, device));
                let layer = ConvTranspose3d {
                    weight,
                    bias,
                    stride,
                    kernel_size,
                    dilation,
                    groups,
                    padding,
                    padding_out,
                    channels,
                };
                Part::ConvTranspose3d(layer.into())
            }
            _ => return None,
        })
    }

    /// The parameters that are left to operations; those of no layer become parts.
    fn reads(&mut self, steps: &[Step]) -> Vec<Read> {
        let read: BTreeSet<TensorId> = steps.iter().flat_map(Step::inputs).collect();
        let mut parameters = Vec::new();
        for id in read {
            let (part, field, transposed, name) = match self.owners.get(&id) {
                Some(owner) => (owner.part, owner.field, owner.transposed, owner.name.clone()),
                None => {
                    let Some(name) = self.graph.names.get(&id).cloned() else { continue };
                    if !self
                        .graph
                        .values
                        .get(&id)
                        .is_some_and(|data| data.dtype().is_float() && !data.shape().is_empty())
                    {
                        continue;
                    }
                    let data = self.graph.values.remove(&id).expect("a value that was just seen");
                    self.parts.push(Placed { path: segments(&name), part: parameter(data, self.device) });
                    (self.parts.len() - 1, Field::Weight, false, name)
                }
            };
            parameters.push(Read { id, part, field, transposed, name });
        }
        parameters
    }
}

/// The fields of a path, and their owners.
fn segments(name: &Name) -> Vec<(String, String)> {
    match name.path.is_empty() {
        true => Vec::new(),
        false => name.path.split('.').map(String::from).zip(name.containers.iter().cloned()).collect(),
    }
}

impl Read {
    pub(super) fn value(&self, parts: &[Placed]) -> AnyTensor {
        let value = parts[self.part].part.value(self.field);
        match self.transposed {
            true => value.ranked::<Tensor<2>>().transpose().into(),
            false => value,
        }
    }
}

/// What a quantizer is of, by the path of one of its buffers: the weight, or the layer.
fn of_what(path: &str) -> &str {
    match path.find("_quantizer.").and_then(|end| path[..end].rsplit_once('.')) {
        Some((owner, _)) => owner,
        None => path,
    }
}
