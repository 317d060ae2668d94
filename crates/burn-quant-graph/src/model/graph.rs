//! The graph of a model, with its quantizers: that of each layer in the place of its call.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use burn::backend::ir::{IrVisitorMut, OperationIr, TensorId, TensorIr, TensorStatus};
use burn::tensor::{Device, TensorData};

use super::part::{Call, Part};
use super::{GraphModel, Placed, Step};
use crate::axes::lengths_between;
use crate::graph::Name;
use crate::length::{FreeAxes, Resize};
use crate::rows::{Sample, unified};
use crate::values::{AnyTensor, with_tensor};
use crate::{Graph, GraphError, capture};

impl GraphModel {
    /// Returns the graph of the model as it is now: what quantizers and packed weights do is part of it.
    ///
    /// It is replayed, saved and exported as one that was captured, and has the same free axes.
    ///
    /// # Errors
    ///
    /// Those of [`capture`](crate::capture()).
    pub fn graph(&self) -> Result<Graph, GraphError> {
        let program = &*self.program;
        let mut next = program
            .steps
            .iter()
            .flat_map(|step| step.inputs().into_iter().chain(step.outputs()))
            .max()
            .map_or(0, |id| id.value() + 1);
        next = program.constants.keys().fold(next, |next, id| next.max(id.value() + 1));
        let mut whole = Splice {
            operations: Vec::new(),
            values: program.constants.clone(),
            names: program.names.clone(),
            device: self.device.clone(),
            free: program.boundary.free.clone(),
            next,
            of_parts: BTreeMap::new(),
        };
        for read in &program.parameters {
            let value = with_tensor!(read.value(&self.parts), x => x.into_data());
            whole.values.insert(read.id, value);
            whole.names.insert(read.id, read.name.clone());
        }
        for step in &program.steps {
            match step {
                Step::Operation(operation) => whole.operations.push(OperationIr::clone(operation)),
                Step::Part { part, call, inputs, output } => {
                    whole.insert(*part, &self.parts[*part], *call, inputs, output)?;
                }
            }
        }
        let boundaries = [program.boundary.inputs.clone(), program.boundary.outputs.clone()];
        Ok(Graph::of_parts(whole.operations, whole.values, whole.names, boundaries, whole.free))
    }
}

struct Splice {
    operations: Vec<OperationIr>,
    values: BTreeMap<TensorId, TensorData>,
    names: BTreeMap<TensorId, Name>,
    device: Device,
    free: FreeAxes,
    /// An id that no tensor has.
    next: u64,
    /// Named values of parts that are called again.
    of_parts: BTreeMap<(usize, String), TensorId>,
}

impl Splice {
    fn insert(
        &mut self,
        index: usize,
        placed: &Placed,
        call: Call,
        inputs: &[TensorIr],
        output: &TensorIr,
    ) -> Result<(), GraphError> {
        let mut captured = self.captured(&placed.part, call, inputs, None)?;
        let others = self
            .other_sizes()
            .into_iter()
            .map(|sizes| Ok(Sample { graph: self.captured(&placed.part, call, inputs, Some(&sizes))?, sizes }));
        let mut others: Vec<Sample> = others.collect::<Result<_, GraphError>>()?;
        unified(&mut captured, &mut others);
        let mut ids: BTreeMap<TensorId, (TensorId, TensorStatus)> = BTreeMap::new();
        for (of_part, of_whole) in captured.inputs().iter().zip(inputs) {
            ids.insert(of_part.id, (of_whole.id, of_whole.status));
        }
        ids.insert(captured.outputs()[0].id, (output.id, TensorStatus::ReadWrite));
        for (id, data) in captured.values() {
            let name = captured.names.get(id);
            let known = name.and_then(|name| self.of_parts.get(&(index, name.path.clone())));
            let of_whole = match known {
                Some(known) => *known,
                None => self.fresh(),
            };
            ids.insert(*id, (of_whole, TensorStatus::ReadWrite));
            self.values.insert(of_whole, data.clone());
            if let Some(name) = name {
                self.of_parts.insert((index, name.path.clone()), of_whole);
                self.names.insert(of_whole, placed.name_of(name));
            }
        }
        for tensor in captured.operations().iter().flat_map(|operation| operation.outputs()) {
            if let Entry::Vacant(unknown) = ids.entry(tensor.id) {
                unknown.insert((self.fresh(), TensorStatus::ReadWrite));
            }
        }
        let (lengths, ranges) = lengths_between(&captured, &self.free.sizes(), &others)?;
        self.free.lengths.extend(lengths.into_iter().map(|(id, lengths)| (ids[&id].0, lengths)));
        self.free.ranges.extend(ranges.into_iter().map(|(id, range)| (ids[&id].0, range)));
        let mut rename = Rename(&ids);
        for operation in captured.operations() {
            let mut operation = operation.clone();
            operation.visit_mut(&mut rename);
            self.operations.push(operation);
        }
        Ok(())
    }

    /// Sizes of the free axes, of which one is another than in the graph.
    fn other_sizes(&self) -> Vec<Vec<usize>> {
        // burn records products of multiples of 32 rows in another way
        let other = |size: usize| size * 2 + if (size * 2 + 1).is_multiple_of(32) { 3 } else { 1 };
        let sizes = self.free.sizes();
        (0..sizes.len())
            .map(|axis| {
                let mut others = sizes.clone();
                others[axis] = other(sizes[axis]);
                others
            })
            .collect()
    }

    /// The graph of a call, at sizes of the free axes.
    fn captured(
        &self,
        part: &Part,
        call: Call,
        inputs: &[TensorIr],
        sizes: Option<&[usize]>,
    ) -> Result<Graph, GraphError> {
        let mut inputs = inputs.to_vec();
        if let Some(sizes) = sizes {
            let mut resize = Resize { free: &self.free, sizes };
            inputs.iter_mut().for_each(|input| resize.visit_tensor_mut(input));
        }
        let examples: Vec<AnyTensor> = inputs.iter().map(|input| AnyTensor::example(input, &self.device)).collect();
        capture(part, examples, |part: &Part, inputs: Vec<AnyTensor>| part.call(call, inputs))
    }

    fn fresh(&mut self) -> TensorId {
        self.next += 1;
        TensorId::new(self.next - 1)
    }
}

impl Placed {
    /// The name in the model of what has one in the part.
    fn name_of(&self, name: &Name) -> Name {
        let fields =
            self.path.iter().map(|(field, _)| field.clone()).chain((!name.path.is_empty()).then(|| name.path.clone()));
        let containers = self.path.iter().map(|(_, container)| container.clone());
        Name {
            path: fields.collect::<Vec<_>>().join("."),
            containers: containers.chain(name.containers.iter().cloned()).collect(),
        }
    }
}

/// Tensors as the whole graph knows them; an input stays if it does there.
struct Rename<'a>(&'a BTreeMap<TensorId, (TensorId, TensorStatus)>);

impl IrVisitorMut for Rename<'_> {
    fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
        let (id, status) = self.0[&tensor.id];
        tensor.id = id;
        if status == TensorStatus::ReadOnly {
            tensor.status = TensorStatus::ReadOnly;
        }
    }
}
