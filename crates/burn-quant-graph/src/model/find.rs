//! Which operations of a graph are layers.
//!
//! ```text
//! x ─────────────► matmul ─► add ─► y        QuantLinear at the path of `w`, which has `b` if it is called so
//! w ─► reshape ──────┘        │
//! b ─► reshape ───────────────┘
//! ```
//!
//! burn records a linear layer in parts, a convolution as one operation. A layer takes the place of all operations that
//! are its own: what others read too stays.

use std::collections::{BTreeMap, BTreeSet};

use burn::backend::ir::{
    BaseOperationIr, FloatOperationIr, ModuleOperationIr, NumericOperationIr, OperationIr, TensorId, TensorIr,
};

use super::part::Call;
use crate::Graph;

/// A layer at an operation, or several.
pub(super) struct Found {
    /// Where it runs.
    pub(super) at: usize,
    /// The operations that it takes the place of.
    pub(super) covers: Vec<usize>,
    pub(super) kind: Kind,
    pub(super) call: Call,
    pub(super) inputs: Vec<TensorIr>,
    pub(super) output: TensorIr,
    /// `None` of a product of activations.
    pub(super) weight: Option<TensorId>,
    pub(super) bias: Option<TensorId>,
    /// What it is without its bias.
    product: Option<Product>,
}

struct Product {
    covers: Vec<usize>,
    output: TensorIr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whether the parameter is the transposed weight.
    Linear {
        transposed: bool,
    },
    /// As the operation at this place says.
    Convolution(usize),
    Embedding,
    MatMul,
}

/// The layers of a graph, in the order of the operations.
pub(super) fn layers(graph: &Graph) -> Vec<Found> {
    let mut readers: BTreeMap<TensorId, Vec<usize>> = BTreeMap::new();
    for (index, operation) in graph.operations().iter().enumerate() {
        operation.inputs().for_each(|input| readers.entry(input.id).or_default().push(index));
    }
    let returned = graph.outputs().iter().map(|output| output.id).collect();
    let walk = Walk { graph, producers: graph.producers(), constants: graph.constants(), readers, returned };
    let mut found: Vec<Found> = (0..graph.operations().len()).filter_map(|index| walk.layer(index)).collect();
    one_bias_for_each_weight(&mut found);
    found
}

/// A layer has its bias wherever it is called, or nowhere: then the sums stay operations.
fn one_bias_for_each_weight(found: &mut [Found]) {
    let mut biases: BTreeMap<TensorId, BTreeSet<Option<TensorId>>> = BTreeMap::new();
    for layer in found.iter() {
        biases.entry(layer.weight.unwrap_or(layer.output.id)).or_default().insert(layer.bias);
    }
    for layer in found.iter_mut().filter(|layer| matches!(layer.kind, Kind::Linear { .. })) {
        if layer.weight.is_some_and(|weight| biases[&weight].len() > 1) {
            layer.without_bias();
        }
    }
}

impl Found {
    fn operation(
        at: usize,
        kind: Kind,
        call: Call,
        inputs: Vec<TensorIr>,
        output: &TensorIr,
        weight: Option<TensorId>,
    ) -> Self {
        Self { at, covers: vec![at], kind, call, inputs, output: output.clone(), weight, bias: None, product: None }
    }

    fn covering(mut self, operations: Vec<usize>) -> Self {
        self.covers.extend(operations);
        self
    }

    /// The product alone.
    fn without_bias(&mut self) {
        if let (Some(_), Some(product)) = (self.bias.take(), self.product.take()) {
            (self.covers, self.output) = (product.covers, product.output);
        }
    }
}

struct Walk<'a> {
    graph: &'a Graph,
    producers: BTreeMap<TensorId, usize>,
    constants: BTreeSet<TensorId>,
    readers: BTreeMap<TensorId, Vec<usize>>,
    returned: BTreeSet<TensorId>,
}

/// A parameter behind views that are one layer's own.
struct View {
    parameter: TensorId,
    operations: Vec<usize>,
    transposed: bool,
}

impl Walk<'_> {
    fn layer(&self, index: usize) -> Option<Found> {
        match &self.graph.operations()[index] {
            OperationIr::Float(_, FloatOperationIr::Matmul(op)) if self.constants.contains(&op.rhs.id) => {
                self.linear(index, &op.lhs, &op.rhs, &op.out)
            }
            OperationIr::Float(_, FloatOperationIr::Matmul(op)) if !self.constants.contains(&op.lhs.id) => {
                let inputs = vec![op.lhs.clone(), op.rhs.clone()];
                Some(Found::operation(index, Kind::MatMul, Call::Forward, inputs, &op.out, None))
            }
            OperationIr::BaseFloat(BaseOperationIr::Select(op)) if op.dim == 0 && op.tensor.shape.len() == 2 => {
                self.of_parameter(&op.tensor)?;
                let inputs = vec![op.indices.clone()];
                Some(Found::operation(index, Kind::Embedding, Call::Row, inputs, &op.out, Some(op.tensor.id)))
            }
            OperationIr::Module(module) => {
                use ModuleOperationIr as Op;
                let (x, weight, bias, out) = match module {
                    Op::Conv1d(op) => (&op.x, &op.weight, &op.bias, &op.out),
                    Op::Conv2d(op) => (&op.x, &op.weight, &op.bias, &op.out),
                    Op::Conv3d(op) => (&op.x, &op.weight, &op.bias, &op.out),
                    Op::ConvTranspose1d(op) => (&op.x, &op.weight, &op.bias, &op.out),
                    Op::ConvTranspose2d(op) => (&op.x, &op.weight, &op.bias, &op.out),
                    Op::ConvTranspose3d(op) => (&op.x, &op.weight, &op.bias, &op.out),
                    Op::Linear(op) => {
                        let view = self.view(&op.weight, 2)?;
                        let bias = match &op.bias {
                            None => None,
                            Some(bias) => Some(self.bias_of(view.parameter, bias)?),
                        };
                        let kind = Kind::Linear { transposed: view.transposed };
                        let inputs = vec![op.x.clone()];
                        let found = Found::operation(index, kind, Call::Forward, inputs, &op.out, Some(view.parameter));
                        return Some(Found { bias, ..found.covering(view.operations) });
                    }
                    Op::Embedding(op) => {
                        self.of_parameter(&op.weights)?;
                        let (inputs, table) = (vec![op.indices.clone()], Some(op.weights.id));
                        return Some(Found::operation(index, Kind::Embedding, Call::Forward, inputs, &op.out, table));
                    }
                    _ => return None,
                };
                self.of_parameter(weight)?;
                let bias = match bias {
                    None => None,
                    Some(bias) => Some(self.bias_of(weight.id, bias)?),
                };
                let (kind, inputs) = (Kind::Convolution(index), vec![x.clone()]);
                Some(Found { bias, ..Found::operation(index, kind, Call::Forward, inputs, out, Some(weight.id)) })
            }
            _ => None,
        }
    }

    fn linear(&self, index: usize, x: &TensorIr, weight: &TensorIr, out: &TensorIr) -> Option<Found> {
        let view = self.view(weight, 2)?;
        let kind = Kind::Linear { transposed: view.transposed };
        let product = Found::operation(index, kind, Call::Forward, vec![x.clone()], out, Some(view.parameter));
        let mut product = product.covering(view.operations);
        if let Some((bias, operations, sum)) = self.sum_with_bias(view.parameter, out) {
            let alone = Product { covers: product.covers.clone(), output: out.clone() };
            product = Found { bias: Some(bias), output: sum, product: Some(alone), ..product.covering(operations) };
        }
        Some(product)
    }

    /// The sum of a product, which nothing else reads, with the bias of its layer.
    fn sum_with_bias(&self, weight: TensorId, product: &TensorIr) -> Option<(TensorId, Vec<usize>, TensorIr)> {
        let at = self.only_reader(product.id)?;
        let OperationIr::NumericFloat(_, NumericOperationIr::Add(op)) = &self.graph.operations()[at] else {
            return None;
        };
        let other = if op.lhs.id == product.id { &op.rhs } else { &op.lhs };
        if op.out.shape != product.shape || other.shape[other.shape.len() - 1] != product.shape[product.shape.len() - 1]
        {
            return None;
        }
        let mut view = self.view(other, 1)?;
        view.operations.push(at);
        Some((self.of_layer(weight, view.parameter)?, view.operations, op.out.clone()))
    }

    /// A bias as an operation has it, if it is that of the layer of the weight.
    fn bias_of(&self, weight: TensorId, bias: &TensorIr) -> Option<TensorId> {
        self.of_layer(weight, self.of_parameter(bias)?)
    }

    /// The bias, if its path is that of the weight but for the last field.
    fn of_layer(&self, weight: TensorId, bias: TensorId) -> Option<TensorId> {
        let owner = |id, field| self.graph.name(id)?.strip_suffix(field);
        (owner(weight, "weight")? == owner(bias, "bias")?).then_some(bias)
    }

    /// A tensor that is a float parameter itself.
    fn of_parameter(&self, tensor: &TensorIr) -> Option<TensorId> {
        (self.graph.name(tensor.id).is_some() && self.graph.values().contains_key(&tensor.id)).then_some(tensor.id)
    }

    /// The parameter of `rank` axes that a tensor shows, with axes of one element before it.
    fn view(&self, tensor: &TensorIr, rank: usize) -> Option<View> {
        let mut view = View { parameter: tensor.id, operations: Vec::new(), transposed: false };
        let mut shape = tensor.shape.to_vec();
        while !self.graph.values().contains_key(&view.parameter) {
            let at = *self.producers.get(&view.parameter)?;
            let OperationIr::BaseFloat(operation) = &self.graph.operations()[at] else { return None };
            let input = match operation {
                BaseOperationIr::Reshape(op) if trimmed(&op.input.shape) == trimmed(&op.out.shape) => &op.input,
                BaseOperationIr::Expand(op) if of_last(&op.input.shape, rank) == of_last(&op.out.shape, rank) => {
                    &op.input
                }
                BaseOperationIr::SwapDims(op) if rank == 2 && swaps_last([op.dim1, op.dim2], op.out.shape.len()) => {
                    view.transposed ^= true;
                    &op.input
                }
                _ => return None,
            };
            if self.only_reader(view.parameter).is_some() {
                view.operations.push(at);
            }
            (view.parameter, shape) = (input.id, input.shape.to_vec());
        }
        let found = self.graph.name(view.parameter).is_some() && shape.len() == rank;
        found.then_some(view)
    }

    /// The operation that reads a tensor, if there is one alone.
    fn only_reader(&self, id: TensorId) -> Option<usize> {
        match self.readers.get(&id).map(Vec::as_slice) {
            Some([reader]) if !self.returned.contains(&id) => Some(*reader),
            _ => None,
        }
    }
}

/// A shape without the axes of one element that it begins with.
fn trimmed(shape: &[usize]) -> &[usize] {
    let ones = shape.iter().take_while(|len| **len == 1).count();
    &shape[ones..]
}

fn of_last(shape: &[usize], rank: usize) -> &[usize] {
    &shape[shape.len().saturating_sub(rank)..]
}

fn swaps_last(mut axes: [usize; 2], rank: usize) -> bool {
    axes.sort_unstable();
    rank >= 2 && axes == [rank - 2, rank - 1]
}
