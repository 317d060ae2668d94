//! Nodes, values and names.

use std::collections::{BTreeMap, BTreeSet};

use burn::backend::capture::CapturedGraph;
use burn::backend::ir::{OperationIr, TensorId, TensorIr};
use burn::tensor::TensorData;
use serde::{Deserialize, Serialize};

use crate::length::FreeAxes;
use crate::pairs;
use crate::{FreeAxis, FreeRange, GraphError, Length};

/// Where a parameter is in a model: the fields that lead to it, and the structs that own them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Name {
    pub(crate) path: String,
    /// The owner of each field of the path.
    pub(crate) containers: Vec<String>,
}

/// What a forward pass does: operations in their order, the values that they begin with, and what those are called.
///
/// What no output depends on is left out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Graph {
    pub(crate) operations: Vec<OperationIr>,
    #[serde(with = "pairs")]
    pub(crate) values: BTreeMap<TensorId, TensorData>,
    #[serde(with = "pairs")]
    pub(crate) names: BTreeMap<TensorId, Name>,
    inputs: Vec<TensorIr>,
    outputs: Vec<TensorIr>,
    pub(crate) free: FreeAxes,
}

impl Graph {
    pub(crate) fn new(captured: CapturedGraph, names: BTreeMap<TensorId, Name>) -> Result<Self, GraphError> {
        let CapturedGraph { graph, mut values } = captured;
        let mut tensors = BTreeMap::new();
        for operation in &graph.operations {
            operation.inputs().chain(operation.outputs()).for_each(|tensor| {
                tensors.entry(tensor.id).or_insert_with(|| tensor.clone());
            });
        }
        let computed = |operation: &OperationIr| !matches!(operation, OperationIr::Init(_) | OperationIr::Drop(_));
        let operations: Vec<OperationIr> = graph.operations.into_iter().filter(computed).collect();
        let boundary = |ids: &[TensorId]| -> Result<Vec<TensorIr>, GraphError> {
            let tensor = |(index, id)| tensors.get(id).cloned().ok_or(GraphError::Output { index });
            ids.iter().enumerate().map(tensor).collect()
        };
        let (inputs, outputs) = (boundary(&graph.inputs)?, boundary(&graph.outputs)?);
        inputs.iter().for_each(|input| drop(values.remove(&input.id)));
        let mut graph = Self { operations, values, names, inputs, outputs, free: FreeAxes::default() };
        graph.prune();
        Ok(graph)
    }

    /// What operations of several graphs make together.
    pub(crate) fn of_parts(
        operations: Vec<OperationIr>,
        values: BTreeMap<TensorId, TensorData>,
        names: BTreeMap<TensorId, Name>,
        [inputs, outputs]: [Vec<TensorIr>; 2],
        free: FreeAxes,
    ) -> Self {
        let mut graph = Self { operations, values, names, inputs, outputs, free };
        graph.prune();
        graph
    }

    /// Leaves out what no output depends on.
    pub(crate) fn prune(&mut self) {
        let mut used: BTreeSet<TensorId> = self.outputs.iter().map(|output| output.id).collect();
        let mut kept: Vec<OperationIr> = Vec::with_capacity(self.operations.len());
        for operation in std::mem::take(&mut self.operations).into_iter().rev() {
            if operation.outputs().any(|output| used.contains(&output.id)) {
                used.extend(operation.inputs().map(|input| input.id));
                kept.push(operation);
            }
        }
        kept.reverse();
        self.operations = kept;
        self.values.retain(|id, _| used.contains(id));
        self.names.retain(|id, _| self.values.contains_key(id));
    }

    /// Returns the operations, in an order in which each comes after those that it needs.
    ///
    /// They are burn's; those of this project are [`RecordedOp`](crate::RecordedOp)s in custom operations.
    pub fn operations(&self) -> &[OperationIr] {
        &self.operations
    }

    /// Returns the values that are there from the beginning: parameters, buffers and constants.
    ///
    /// Inputs are not among them.
    pub fn values(&self) -> &BTreeMap<TensorId, TensorData> {
        &self.values
    }

    /// Returns the path of a parameter, or of a buffer of a quantizer, in the model.
    ///
    /// `None` of everything else, constants of the forward pass among it.
    pub fn name(&self, id: TensorId) -> Option<&str> {
        self.names.get(&id).map(|name| &*name.path)
    }

    /// Returns the inputs, in their order.
    ///
    /// Shapes are those that were captured.
    pub fn inputs(&self) -> &[TensorIr] {
        &self.inputs
    }

    /// Returns the outputs, in their order.
    ///
    /// Shapes are those that were captured.
    pub fn outputs(&self) -> &[TensorIr] {
        &self.outputs
    }

    /// Returns the place of the operation that computes a tensor.
    ///
    /// `None` of values and inputs.
    pub fn producer(&self, id: TensorId) -> Option<usize> {
        self.operations.iter().position(|operation| operation.outputs().any(|output| output.id == id))
    }

    /// Returns the places of the operations that read a tensor.
    ///
    /// In the order of the operations.
    pub fn consumers(&self, id: TensorId) -> Vec<usize> {
        let reads = |operation: &OperationIr| operation.inputs().any(|input| input.id == id);
        (0..self.operations.len()).filter(|index| reads(&self.operations[*index])).collect()
    }

    /// The operation that computes each tensor.
    pub(crate) fn producers(&self) -> BTreeMap<TensorId, usize> {
        let outputs = |(index, operation): (usize, &OperationIr)| {
            operation.outputs().map(move |output| (output.id, index)).collect::<Vec<_>>()
        };
        self.operations.iter().enumerate().flat_map(outputs).collect()
    }

    /// Tensors that depend on no input.
    pub(crate) fn constants(&self) -> BTreeSet<TensorId> {
        let mut constants: BTreeSet<TensorId> = self.values.keys().copied().collect();
        for operation in &self.operations {
            if operation.inputs().all(|input| constants.contains(&input.id)) {
                constants.extend(operation.outputs().map(|output| output.id));
            }
        }
        constants
    }
}

impl Graph {
    /// Returns the axes whose sizes are free.
    ///
    /// None of a graph that was captured once.
    pub fn free_axes(&self) -> &[FreeAxis] {
        &self.free.axes
    }

    /// Returns what a constant counts that is as long as a free axis, as the positions of tokens are.
    ///
    /// `None` of all other tensors. [`Graph::values`] has its numbers for the sizes of the graph.
    pub fn free_range(&self, id: TensorId) -> Option<FreeRange> {
        self.free.ranges.get(&id).copied()
    }

    /// Returns the length of each axis of a tensor: fixed, or a product of free sizes.
    ///
    /// All are fixed in a graph that was captured once.
    pub fn lengths(&self, tensor: &TensorIr) -> Vec<Length> {
        let fixed = || tensor.shape.iter().map(|len| Length::Fixed(*len)).collect();
        self.free.lengths.get(&tensor.id).cloned().unwrap_or_else(fixed)
    }
}
