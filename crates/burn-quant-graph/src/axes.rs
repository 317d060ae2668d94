//! An axis of any size: what changes between two captures of one pass.
//!
//! ```text
//! inputs [3, 8], [5, 8] ──► two graphs ──► the same operations; every length that differs is a multiple of the axis
//! ```

use std::collections::BTreeMap;

use burn::backend::Slice;
use burn::backend::ir::{BaseOperationIr, IrVisitorMut, OperationIr, TensorId, TensorIr, TensorStatus};
use burn::module::Module;

use crate::{FreeAxis, Graph, GraphError, Values, capture, operation_name};

/// Captures a pass twice, with inputs of two sizes: the axis in which they differ is free.
///
/// Both sizes are at least 2 and no multiples of 32, as burn records some products of others in another way; 3 and 5
/// are a good choice. The graph has the first.
///
/// # Errors
///
/// Those of [`capture`](crate::capture()), and [`GraphError::Varies`] if the inputs do not differ in one size alone, or
/// the pass does something else for each.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant_graph::GraphError> {
/// use burn_nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn_quant_graph::capture_with_free_axis;
///
/// let device = Device::flex();
/// let linear = LinearConfig::new(8, 4).init(&device);
/// let batches = [3, 5].map(|batch| Tensor::<2>::zeros([batch, 8], &device));
/// let graph = capture_with_free_axis(&linear, batches, |linear: &Linear, x: Tensor<2>| linear.forward(x))?;
/// assert_eq!(graph.factors(&graph.outputs()[0]), [1, 0]); // [batch, 4]
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn capture_with_free_axis<M: Module, I: Values, O: Values>(
    model: &M,
    [inputs, others]: [I; 2],
    forward: impl Fn(&M, I) -> O,
) -> Result<Graph, GraphError> {
    let (mut graph, other) = (capture(model, inputs, &forward)?, capture(model, others, &forward)?);
    let free = compare(&graph, &other).map_err(|what| GraphError::Varies { what })?;
    graph.free = Some(free);
    Ok(graph)
}

fn compare(graph: &Graph, other: &Graph) -> Result<FreeAxis, String> {
    let mut differing = Vec::new();
    for (index, (one, two)) in graph.inputs().iter().zip(other.inputs()).enumerate() {
        let axes = one.shape.iter().zip(two.shape.iter()).enumerate().filter(|(_, (one, two))| one != two);
        differing.extend(axes.map(|(axis, (one, two))| (index, axis, *one, *two)));
    }
    let Some(&(_, _, size, other_size)) = differing.first() else {
        return Err("the inputs of the two captures have the same shapes".into());
    };
    if let Some((index, axis, one, two)) = differing.iter().find(|(_, _, one, two)| (*one, *two) != (size, other_size))
    {
        return Err(format!(
            "axis {axis} of input {index} is {one} and {two}, where another axis is {size} and {other_size}: one size \
             is free"
        ));
    }
    let factors = factors_between(graph, other, size, other_size)?;
    let of_inputs = differing.iter().map(|(index, axis, ..)| (*index, *axis)).collect();
    Ok(FreeAxis { of_inputs, size, factors })
}

/// How often the axis goes into those of each tensor, of two captures that differ in its size.
pub(crate) fn factors_between(
    graph: &Graph,
    other: &Graph,
    size: usize,
    other_size: usize,
) -> Result<BTreeMap<TensorId, Vec<usize>>, String> {
    let (ours, theirs) = (graph.operations(), other.operations());
    let differ = ours.iter().zip(theirs).position(|(one, two)| operation_name(one) != operation_name(two));
    if let Some(at) = differ {
        let (one, two) = (operation_name(&ours[at]), operation_name(&theirs[at]));
        return Err(format!("operation {at} is {one} for a size of {size} and {two} for {other_size}"));
    }
    if ours.len() != theirs.len() {
        return Err(format!("{} operations for a size of {size} and {} for {other_size}", ours.len(), theirs.len()));
    }
    if let Some(at) = ours.iter().zip(theirs).position(|(one, two)| without_sizes(one) != without_sizes(two)) {
        let name = operation_name(&ours[at]);
        return Err(format!("a number or a range of operation {at}, {name}, is another for {size} and {other_size}"));
    }
    let mut factors = BTreeMap::new();
    let operations = ours.iter().zip(theirs).flat_map(|(one, two)| {
        let one: Vec<&TensorIr> = one.inputs().chain(one.outputs()).collect();
        one.into_iter().zip(two.inputs().chain(two.outputs()).collect::<Vec<_>>())
    });
    let boundaries = (graph.inputs().iter().zip(other.inputs())).chain(graph.outputs().iter().zip(other.outputs()));
    for (one, two) in operations.chain(boundaries) {
        let of_axes = factors_of(one, two, size, other_size)?;
        if of_axes.iter().all(|factor| *factor == 0) && graph.values().get(&one.id) != other.values().get(&two.id) {
            return Err(format!("a constant of {:?} has other values for {size} and {other_size}", one.shape));
        }
        if of_axes.iter().any(|factor| *factor > 0) {
            if graph.values().contains_key(&one.id) {
                return Err(format!(
                    "a constant of {:?} has the size of the inputs; make it of one of them",
                    one.shape
                ));
            }
            factors.insert(one.id, of_axes);
        }
    }
    Ok(factors)
}

/// An operation without its tensors, and with what it takes whole as such: what is left is the same for each size.
fn without_sizes(operation: &OperationIr) -> OperationIr {
    let mut operation = operation.clone();
    if let OperationIr::BaseFloat(op) | OperationIr::BaseInt(op) | OperationIr::BaseBool(op) = &mut operation {
        let (tensor, ranges) = match op {
            BaseOperationIr::Slice(op) => (&op.tensor, &mut op.ranges),
            BaseOperationIr::SliceAssign(op) => (&op.tensor, &mut op.ranges),
            _ => return erased(operation),
        };
        for (range, len) in ranges.iter_mut().zip(tensor.shape.iter()) {
            if range.step == 1 && range.to_range(*len) == (0..*len) {
                *range = Slice::full();
            }
        }
    }
    erased(operation)
}

fn erased(mut operation: OperationIr) -> OperationIr {
    struct Erase;
    impl IrVisitorMut for Erase {
        fn visit_tensor_mut(&mut self, tensor: &mut TensorIr) {
            *tensor =
                TensorIr { id: TensorId::new(0), status: TensorStatus::ReadOnly, shape: [0].into(), ..tensor.clone() };
        }
    }
    operation.visit_mut(&mut Erase);
    operation
}

fn factors_of(one: &TensorIr, two: &TensorIr, size: usize, other_size: usize) -> Result<Vec<usize>, String> {
    let factor = |(one_len, two_len): (&usize, &usize)| match one_len == two_len {
        true => Ok(0),
        false if one_len % size == 0 && two_len % other_size == 0 && one_len / size == two_len / other_size => {
            Ok(one_len / size)
        }
        false => Err(format!(
            "a tensor of {:?} for a size of {size} is {:?} for {other_size}: no multiple of the size",
            one.shape, two.shape
        )),
    };
    if one.shape.len() != two.shape.len() {
        return Err(format!("a tensor of {:?} for a size of {size} is {:?} for {other_size}", one.shape, two.shape));
    }
    one.shape.iter().zip(two.shape.iter()).map(factor).collect()
}
