//! Burn's operations as those of ONNX.
//!
//! * `operations` one after the other: what each becomes
//! * `elementwise` operations of elements, and activations
//! * `reductions` sums, extremes and orders along axes
//! * `cumulative` products and extremes up to each element
//! * `indexing` parts of tensors, read and assigned to
//! * `sizes` lengths and shapes, where sizes of the inputs are free
//! * `modules` layers that are one operation: convolutions, pools, norms
//! * `images` resizing, windows and samples of images
//! * `attention` attention that is one operation
//! * `norms` norms that are recorded as arithmetic, and that are one operation in ONNX
//! * `quantizers` fake quantization: of weights to codes, of activations to pairs
//! * `codes` the codes of a weight
//! * `packed` weights that are codes already
//! * `tables` rows of tables of codes
//! * `rows` those of codes that are looked up by their bytes
//! * `coded` results of convolutions that stay codes
//!
//! A value is written when something reads it, so that a weight whose codes are stored is not stored in float too.

mod attention;
mod coded;
mod codes;
mod cumulative;
mod elementwise;
mod images;
mod indexing;
mod modules;
mod norms;
mod operations;
mod packed;
mod quantizers;
mod reductions;
mod rows;
mod sizes;
mod tables;

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{DType, TensorData};
use burn_quant_graph::ir::{OperationIr, ScalarIr, TensorId, TensorIr};
use burn_quant_graph::{Graph, Length, operation_name};

use crate::model::{Attribute, Boundary, Dim, ElementType, Initializer, Node};
use crate::{OnnxError, OnnxModel, Profile};

/// The opsets that files may have: the first unless another is asked for, or a format needs one.
pub(crate) const OPSETS: std::ops::RangeInclusive<i64> = 21..=24;

/// How a graph is written.
pub(crate) struct Options {
    pub(crate) profile: Profile,
    pub(crate) signed_weights: bool,
    pub(crate) fused_attention: bool,
    pub(crate) opset: i64,
}

/// Writes a graph, an operation at a time.
pub(crate) struct Lowering<'a> {
    graph: &'a Graph,
    profile: Profile,
    /// Whether INT8 weights keep their signs.
    signed_weights: bool,
    /// Whether attention with masks is one operation.
    fused_attention: bool,
    /// What the axes of any size are called, and their sizes once something has asked for them.
    axes: Vec<String>,
    sizes: Vec<Option<String>>,
    model: OnnxModel,
    /// What tensors that are written are called.
    names: BTreeMap<TensorId, String>,
    /// Values that were reshaped, and are not written yet.
    reshaped: BTreeMap<TensorId, (TensorId, TensorData)>,
    /// Tensors that are written as codes.
    coded: BTreeMap<TensorId, coded::Coded>,
    /// The values of packed weights that are written, by their words.
    packed: BTreeMap<TensorId, String>,
    /// Kernels of packed convolutions that are written, by their words, their shape, and where its elements lie.
    kernels: BTreeMap<(TensorId, Vec<usize>, Vec<usize>), String>,
    /// The bytes of codes that are looked up, by the name of the codes.
    bytes_of: BTreeMap<String, String>,
    /// The values of rounded weights that are written.
    rounded: Vec<(quantizers::RoundedBy, String)>,
    /// Kernels of convolutions that are INT8 codes, one scale for each output.
    int8_kernels: BTreeSet<TensorId>,
    /// How often each name was given.
    given: BTreeMap<String, usize>,
    /// The layer of the operation at hand.
    layer: String,
    /// The operation at hand.
    operation: String,
}

impl<'a> Lowering<'a> {
    pub(crate) fn new(graph: &'a Graph, options: Options, axes: Vec<String>) -> Self {
        let Options { profile, signed_weights, fused_attention, opset } = options;
        let opset = opset.max(codes::opset_of_graph(graph)).max(if fused_attention { attention::FUSED } else { 0 });
        let model = OnnxModel { opset, ..OnnxModel::default() };
        Self {
            graph,
            profile,
            signed_weights,
            fused_attention,
            sizes: vec![None; axes.len()],
            axes,
            model,
            names: BTreeMap::new(),
            reshaped: BTreeMap::new(),
            coded: BTreeMap::new(),
            packed: BTreeMap::new(),
            kernels: BTreeMap::new(),
            bytes_of: BTreeMap::new(),
            rounded: Vec::new(),
            int8_kernels: BTreeSet::new(),
            given: BTreeMap::new(),
            layer: String::new(),
            operation: String::new(),
        }
    }

    pub(crate) fn run(mut self, inputs: Vec<String>, outputs: Vec<String>) -> Result<OnnxModel, OnnxError> {
        let graph = self.graph;
        // whatever a parameter is called, inputs and outputs have the names that were asked for
        self.given.extend(inputs.iter().chain(&outputs).map(|name| (name.clone(), 1)));
        for (input, name) in graph.inputs().iter().zip(inputs) {
            let boundary = self.boundary(input, name.clone())?;
            self.names.insert(input.id, name);
            self.model.inputs.push(boundary);
        }
        for operation in graph.operations() {
            if operation.outputs().next().is_some_and(|output| self.names.contains_key(&output.id)) {
                continue; // it is written: a weight that was moved to its place
            }
            self.layer = self.layer_of(operation);
            self.operation = operation_name(operation);
            self.operation(operation)?;
        }
        (self.layer, self.operation) = (String::new(), "outputs".into());
        for (output, name) in graph.outputs().iter().zip(outputs) {
            let value = self.value(output)?;
            let boundary = self.boundary(output, name.clone())?;
            self.node("Identity", vec![value], vec![name], vec![]);
            self.model.outputs.push(boundary);
        }
        self.prune();
        Ok(self.model)
    }

    /// Leaves out what no output depends on: views of weights that their products do without.
    fn prune(&mut self) {
        let mut used: BTreeSet<String> = self.model.outputs.iter().map(|output| output.name.clone()).collect();
        let mut kept = Vec::with_capacity(self.model.nodes.len());
        for node in std::mem::take(&mut self.model.nodes).into_iter().rev() {
            if node.outputs.iter().any(|output| used.contains(output)) {
                used.extend(node.inputs.iter().cloned());
                kept.push(node);
            }
        }
        kept.reverse();
        self.model.nodes = kept;
        self.model.initializers.retain(|stored| used.contains(&stored.name));
    }

    /// The layer whose parameters an operation reads.
    fn layer_of(&self, operation: &OperationIr) -> String {
        let named = operation.inputs().find_map(|input| self.graph.name(input.id));
        let layer = named.map(|name| match name.find(".weight_quantizer") {
            Some(end) => &name[..end],
            None => name,
        });
        layer.and_then(|name| name.rsplit_once('.')).map_or_else(String::new, |(layer, _)| layer.into())
    }

    fn boundary(&self, tensor: &TensorIr, name: String) -> Result<Boundary, OnnxError> {
        let dims = self.graph.lengths(tensor).into_iter().map(|length| match length {
            Length::Fixed(len) => Dim::Fixed(len),
            Length::Free { .. } => Dim::Free(self.named(&length)),
        });
        Ok(Boundary { name, element: self.element(tensor.dtype)?, dims: dims.collect() })
    }

    fn element(&self, dtype: DType) -> Result<ElementType, OnnxError> {
        ElementType::of(dtype).ok_or_else(|| self.refused(format!("tensors of {dtype:?}")))
    }

    /// The error of the operation at hand.
    fn refused(&self, reason: impl Into<String>) -> OnnxError {
        let layer = if self.layer.is_empty() { String::new() } else { format!(" of `{}`", self.layer) };
        OnnxError::NoLowering { operation: self.operation.clone(), layer, reason: reason.into() }
    }

    fn unique(&mut self, name: String) -> String {
        let count = self.given.entry(name.clone()).or_insert(0);
        *count += 1;
        match *count {
            1 => name,
            count => self.unique(format!("{name}.{count}")),
        }
    }

    /// A name for a result of the layer at hand.
    fn fresh(&mut self, what: &str) -> String {
        let name = if self.layer.is_empty() { what.to_string() } else { format!("{}.{what}", self.layer) };
        self.unique(name)
    }

    fn node(
        &mut self,
        operator: &'static str,
        inputs: Vec<String>,
        outputs: Vec<String>,
        attributes: Vec<(&'static str, Attribute)>,
    ) {
        self.model.nodes.push(Node { operator, name: outputs[0].clone(), inputs, outputs, attributes });
    }

    /// Adds a node, whose result has a name of its own.
    fn emit(
        &mut self,
        operator: &'static str,
        inputs: Vec<String>,
        attributes: Vec<(&'static str, Attribute)>,
    ) -> String {
        let name = self.fresh(operator);
        self.node(operator, inputs, vec![name.clone()], attributes);
        name
    }

    /// Adds a node that computes a tensor of the graph.
    fn emit_as(
        &mut self,
        out: &TensorIr,
        operator: &'static str,
        inputs: Vec<String>,
        attributes: Vec<(&'static str, Attribute)>,
    ) {
        let name = self.emit(operator, inputs, attributes);
        self.names.insert(out.id, name);
    }

    /// Adds an operation of tensors alone.
    fn plain(&mut self, out: &TensorIr, operator: &'static str, inputs: &[&TensorIr]) -> Result<(), OnnxError> {
        let inputs = inputs.iter().map(|input| self.value(input)).collect::<Result<_, _>>()?;
        self.emit_as(out, operator, inputs, vec![]);
        Ok(())
    }

    /// What a tensor is called, which is written now if it is a value and nothing has read it yet.
    fn value(&mut self, tensor: &TensorIr) -> Result<String, OnnxError> {
        if let Some(name) = self.names.get(&tensor.id) {
            return Ok(name.clone());
        }
        if let Some(range) = self.graph.free_range(tensor.id) {
            let numbers = self.range(range, &self.graph.lengths(tensor)[0])?;
            self.names.insert(tensor.id, numbers.clone());
            return Ok(numbers);
        }
        let Some(data) = self.constant(tensor.id).cloned() else {
            return Err(self.refused(format!("it reads a tensor of {:?} that nothing computes", tensor.shape)));
        };
        let name = match self.origin(tensor.id).map(String::from) {
            Some(name) => self.unique(name),
            None => self.fresh("constant"),
        };
        self.store(name.clone(), &data)?;
        self.names.insert(tensor.id, name.clone());
        Ok(name)
    }

    /// A tensor that is there from the beginning, in the shape that it is read in.
    fn constant(&self, id: TensorId) -> Option<&TensorData> {
        let values = self.graph.values().get(&id).filter(|_| self.graph.free_range(id).is_none());
        values.or_else(|| self.reshaped.get(&id).map(|(_, data)| data))
    }

    /// The path of the parameter that such a tensor is; that of a model which is a parameter is empty.
    fn origin(&self, id: TensorId) -> Option<&str> {
        let name = self.graph.name(id).or_else(|| self.graph.name(self.reshaped.get(&id)?.0));
        name.filter(|name| !name.is_empty())
    }

    fn store(&mut self, name: String, data: &TensorData) -> Result<(), OnnxError> {
        let element = self.element(data.dtype())?;
        let (dims, bytes) = (data.shape().to_vec(), data.as_bytes().to_vec());
        self.model.initializers.push(Initializer { name, element, dims, bytes });
        Ok(())
    }

    /// Stores values of this crate's making.
    fn initializer(&mut self, what: &str, element: ElementType, dims: &[usize], bytes: Vec<u8>) -> String {
        let name = self.fresh(what);
        self.model.initializers.push(Initializer { name: name.clone(), element, dims: dims.to_vec(), bytes });
        name
    }

    /// Stores values under a path.
    fn stored_as(&mut self, name: String, element: ElementType, dims: &[usize], bytes: Vec<u8>) -> String {
        let name = self.unique(name);
        self.model.initializers.push(Initializer { name: name.clone(), element, dims: dims.to_vec(), bytes });
        name
    }

    fn floats(&mut self, what: &str, dims: &[usize], values: &[f32]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(what, ElementType::Float, dims, bytes)
    }

    fn integers(&mut self, what: &str, values: &[i64]) -> String {
        let bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        self.initializer(what, ElementType::Int64, &[values.len()], bytes)
    }

    /// A number as a tensor without axes, of the dtype of another.
    fn scalar(&mut self, value: ScalarIr, dtype: DType) -> Result<String, OnnxError> {
        let element = self.element(dtype)?;
        let data = match value {
            ScalarIr::Float(value) => TensorData::from([value]),
            ScalarIr::Int(value) => TensorData::from([value]),
            ScalarIr::UInt(value) => TensorData::from([value as i64]),
            ScalarIr::Bool(value) => TensorData::from([value]),
        };
        let bytes = data.convert_dtype(dtype).as_bytes().to_vec();
        Ok(self.initializer("constant", element, &[], bytes))
    }
}

fn ints(values: impl IntoIterator<Item = usize>) -> Attribute {
    Attribute::Ints(values.into_iter().map(|value| value as i64).collect())
}
