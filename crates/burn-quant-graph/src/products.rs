//! Linear layers, convolutions and other products, however they were recorded.

use std::collections::{BTreeMap, BTreeSet};

use burn::backend::ir::{BaseOperationIr, FloatOperationIr, ModuleOperationIr, OperationIr, TensorId, TensorIr};
use burn_quant_ops::RecordedOp;

use crate::Graph;

/// What kind of product an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum ProductKind {
    /// Activations times a weight.
    Linear,
    /// A convolution over one to three axes.
    Convolution,
    /// A transposed one.
    TransposedConvolution,
    /// A convolution whose kernel is deformed.
    DeformableConvolution,
    /// Rows of a table.
    Embedding,
    /// Activations times activations, as in attention.
    Activations,
}

/// A product of a graph.
#[derive(Clone, Debug, PartialEq)]
pub struct Product {
    /// What it is.
    pub kind: ProductKind,
    /// The place of its operation.
    pub operation: usize,
    /// The path of its weight in the model; `None` of a product of activations, and of a weight that is none of the
    /// model's parameters.
    pub weight: Option<String>,
    /// The tensor that its activations come from, before reshapes and quantizers: products that share one read the same
    /// activations.
    pub input: TensorId,
    /// Multiplications of one run.
    pub multiplications: usize,
    /// Elements of its weight.
    pub elements: usize,
}

impl Graph {
    /// Returns the products, in the order of the operations.
    ///
    /// A linear layer is one, though burn records it as a matrix product, a reshape and a sum.
    pub fn products(&self) -> Vec<Product> {
        let (producers, constants) = (self.producers(), self.constants());
        let walk = Walk { graph: self, producers, constants };
        (0..self.operations().len()).filter_map(|index| walk.product(index)).collect()
    }

    /// Returns the multiplications that each layer does in a run, by its path: those of all its calls.
    ///
    /// Tables do none. Of an axis that is free, the size is that of the capture. `AutoQuantizeConfig` of
    /// `burn-quant-search` takes them for a budget of bits per multiplication.
    pub fn multiplications(&self) -> BTreeMap<String, f64> {
        let mut found = BTreeMap::new();
        for product in self.products() {
            let Some(weight) = product.weight else { continue };
            let layer = weight.strip_suffix(".weight").map_or(weight.clone(), String::from);
            *found.entry(layer).or_insert(0.0) += product.multiplications as f64;
        }
        found
    }

    /// Returns the weights of products that read the same activations, two or more at a time: layers that share scales
    /// in SmoothQuant, AWQ and auto-quantize.
    ///
    /// In the order of the first of each.
    pub fn siblings(&self) -> Vec<Vec<String>> {
        let mut found: Vec<(TensorId, Vec<String>)> = Vec::new();
        for product in self.products().into_iter().filter(|product| product.kind != ProductKind::Embedding) {
            let Some(weight) = product.weight else { continue };
            match found.iter_mut().find(|(input, _)| *input == product.input) {
                Some((_, weights)) if weights.contains(&weight) => {}
                Some((_, weights)) => weights.push(weight),
                None => found.push((product.input, vec![weight])),
            }
        }
        found.into_iter().map(|(_, weights)| weights).filter(|weights| weights.len() > 1).collect()
    }
}

struct Walk<'a> {
    graph: &'a Graph,
    producers: BTreeMap<TensorId, usize>,
    constants: BTreeSet<TensorId>,
}

impl Walk<'_> {
    fn product(&self, index: usize) -> Option<Product> {
        use ModuleOperationIr as Module;
        use ProductKind as Kind;
        let last = |tensor: &TensorIr| tensor.shape[tensor.shape.len() - 1];
        let window = |weight: &TensorIr| weight.shape[1..].iter().product::<usize>();
        let (kind, x, weight, each) = match &self.graph.operations()[index] {
            OperationIr::Float(_, FloatOperationIr::Matmul(op)) if self.constants.contains(&op.rhs.id) => {
                (Kind::Linear, &op.lhs, Some(&op.rhs), last(&op.lhs))
            }
            OperationIr::Float(_, FloatOperationIr::Matmul(op)) => (Kind::Activations, &op.lhs, None, last(&op.lhs)),
            OperationIr::Module(module) => match module {
                Module::Linear(op) => (Kind::Linear, &op.x, Some(&op.weight), last(&op.x)),
                Module::Conv1d(op) => (Kind::Convolution, &op.x, Some(&op.weight), window(&op.weight)),
                Module::Conv2d(op) => (Kind::Convolution, &op.x, Some(&op.weight), window(&op.weight)),
                Module::Conv3d(op) => (Kind::Convolution, &op.x, Some(&op.weight), window(&op.weight)),
                Module::DeformableConv2d(op) => {
                    (Kind::DeformableConvolution, &op.x, Some(&op.weight), window(&op.weight))
                }
                Module::ConvTranspose1d(op) => return self.transposed(index, &op.x, &op.weight),
                Module::ConvTranspose2d(op) => return self.transposed(index, &op.x, &op.weight),
                Module::ConvTranspose3d(op) => return self.transposed(index, &op.x, &op.weight),
                Module::Embedding(op) => (Kind::Embedding, &op.indices, Some(&op.weights), 0),
                _ => return None,
            },
            // a quantized table is read before it is rounded
            OperationIr::BaseFloat(BaseOperationIr::Select(op))
                if op.dim == 0
                    && self.constants.contains(&op.tensor.id)
                    && !self.constants.contains(&op.indices.id) =>
            {
                (Kind::Embedding, &op.indices, Some(&op.tensor), 0)
            }
            OperationIr::Custom(custom) => {
                let recorded = RecordedOp::of(custom, custom.inputs[0].shape.as_slice()).ok()?;
                let words = |at: usize| self.graph.name(custom.inputs[at].id);
                // the codes of a packed weight are called `….weight.weight_quantizer.words`
                let owner =
                    |words: &str| words.rsplit_once('.')?.0.rsplit_once('.').map(|(owner, _)| owner.to_string());
                let (kind, input, at, layout, multiplications) = match recorded {
                    RecordedOp::PackedLinear(call) => {
                        let each = call.layout.inputs() * call.layout.outputs();
                        (Kind::Linear, &custom.inputs[0], 1, call.layout, custom.inputs[0].shape[0] * each)
                    }
                    RecordedOp::PackedConv(call) => {
                        let pixels = custom.outputs[0].shape.num_elements() / call.layout.outputs().max(1);
                        let each = call.layout.inputs() * call.layout.outputs();
                        (Kind::Convolution, &custom.inputs[0], 1, call.layout, pixels * each)
                    }
                    RecordedOp::PackedConvTranspose(call) => {
                        // each element meets the columns of its group
                        let each = call.layout.outputs() / call.conv.groups();
                        let elements = custom.inputs[0].shape.num_elements();
                        (Kind::TransposedConvolution, &custom.inputs[0], 1, call.layout, elements * each)
                    }
                    RecordedOp::PackedColumns(layout) => (Kind::Embedding, &custom.inputs[2], 0, layout, 0),
                    _ => return None,
                };
                return Some(Product {
                    kind,
                    operation: index,
                    weight: words(at).and_then(owner),
                    input: self.source(input.id),
                    multiplications,
                    elements: layout.inputs() * layout.outputs(),
                });
            }
            _ => return None,
        };
        let outputs = self.graph.operations()[index].outputs().map(|output| output.shape.num_elements()).sum::<usize>();
        Some(Product {
            kind,
            operation: index,
            weight: weight.and_then(|weight| self.parameter(weight.id)),
            input: self.source(x.id),
            multiplications: outputs * each,
            elements: weight.map_or(0, |weight| weight.shape.num_elements()),
        })
    }

    /// Each element of the input meets all of the kernel that its channel has.
    fn transposed(&self, index: usize, x: &TensorIr, weight: &TensorIr) -> Option<Product> {
        Some(Product {
            kind: ProductKind::TransposedConvolution,
            operation: index,
            weight: self.parameter(weight.id),
            input: self.source(x.id),
            multiplications: x.shape.num_elements() * weight.shape[1..].iter().product::<usize>(),
            elements: weight.shape.num_elements(),
        })
    }

    /// The tensor that this one is a view or the rounding of.
    fn before(&self, id: TensorId) -> Option<TensorId> {
        match &self.graph.operations()[*self.producers.get(&id)?] {
            OperationIr::BaseFloat(op) => match op {
                BaseOperationIr::Reshape(op) => Some(op.input.id),
                BaseOperationIr::SwapDims(op) => Some(op.input.id),
                BaseOperationIr::Permute(op) => Some(op.input.id),
                BaseOperationIr::Expand(op) => Some(op.input.id),
                _ => None,
            },
            OperationIr::Custom(custom) => match RecordedOp::of(custom, custom.inputs[0].shape.as_slice()).ok()? {
                RecordedOp::FakeQuant(_) | RecordedOp::Hadamard(_) | RecordedOp::PackedUnpack(_) => {
                    Some(custom.inputs[0].id)
                }
                _ => None,
            },
            _ => None,
        }
    }

    fn source(&self, id: TensorId) -> TensorId {
        std::iter::successors(Some(id), |id| self.before(*id)).last().unwrap_or(id)
    }

    /// The path of the parameter that a weight was made of.
    fn parameter(&self, id: TensorId) -> Option<String> {
        let name = self.graph.name(self.source(id))?;
        let packed = name.strip_suffix(".words").and_then(|quantizer| quantizer.rsplit_once('.'));
        Some(packed.map_or(name, |(weight, _)| weight).to_string())
    }
}
