//! Axes of any size: what changes between captures of one pass.
//!
//! ```text
//! inputs [3, 5, 8], [4, 5, 8], [3, 7, 8] ──► three graphs ──► the same operations; what differs are products of sizes
//!        [n0, n1, 8]
//! ```
//!
//! Each capture differs from the first in the size of one axis, so that a length is a product of free sizes in one way
//! only. One more capture, in which all sizes are the other ones, has to agree.

use std::collections::BTreeMap;

use burn::backend::ir::{TensorId, TensorIr, TensorStatus};
use burn::module::Module;

use crate::compare::same_operations;
use crate::length::FreeAxes;
use crate::rows::{Sample, unified};
use crate::values::{AnyTensor, Tensors, with_tensor};
use crate::{FreeAxis, FreeRange, Graph, GraphError, Length, Values, capture, operation_name};

/// Captures a pass twice, with inputs of two sizes: the axis in which they differ is free.
///
/// Both sizes are at least 2 and no multiples of 32, as burn records some products of others in another way; 3 and 5
/// are a good choice. The graph has the first. For several axes see [`capture_with_free_axes`].
///
/// # Errors
///
/// Those of [`capture_with_free_axes`].
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant_graph::GraphError> {
/// use burn_nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn_quant_graph::{Length, capture_with_free_axis};
///
/// let device = Device::flex();
/// let linear = LinearConfig::new(8, 4).init(&device);
/// let batches = [3, 5].map(|batch| Tensor::<2>::zeros([batch, 8], &device));
/// let graph = capture_with_free_axis(&linear, batches, |linear: &Linear, x: Tensor<2>| linear.forward(x))?;
/// let lengths = graph.lengths(&graph.outputs()[0]); // [batch, 4]
/// assert_eq!(lengths, [Length::Free { times: 1, axes: vec![0] }, Length::Fixed(4)]);
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn capture_with_free_axis<M: Module, I: Values, O: Values>(
    model: &M,
    inputs: [I; 2],
    forward: impl Fn(&M, I) -> O,
) -> Result<Graph, GraphError> {
    capture_with_free_axes(model, inputs, forward)
}

/// Captures a pass once more than axes are to be free: as many times with the size of one of them changed.
///
/// The first inputs are those of the graph. Each of the others differ from them in the size of one axis, which becomes
/// free; that axis may be part of several inputs. Lengths of tensors inside are numbers or products of free sizes, such
/// as the rows of a batch of sequences. All sizes are at least 2 and no multiples of 32, as burn records some products
/// of others in another way: 3 and 4 sentences of 5 and 7 tokens are a good choice.
///
/// Of two axes or more a capture is added with zeros as inputs, in which every size is the other one: lengths have to
/// be those products there too.
///
/// # Errors
///
/// Those of [`capture`](crate::capture()); [`GraphError::Varies`] if inputs do not differ in one size, or the pass does
/// something else for each, as loops over a free axis do; [`GraphError::NoProduct`] for a length that is no product of
/// free sizes, as one token more; [`GraphError::ConstantOfSize`] for a constant that is made for the size of inputs,
/// unless it counts along an axis as `arange` does.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant_graph::GraphError> {
/// use burn_nn::{Linear, LinearConfig};
/// use burn::tensor::{Device, Tensor};
/// use burn_quant_graph::capture_with_free_axes;
///
/// let device = Device::flex();
/// let linear = LinearConfig::new(8, 4).init(&device);
/// let forward = |linear: &Linear, x: Tensor<3>| linear.forward(x).flatten::<2>(0, 1);
/// let inputs = [[3, 5], [4, 5], [3, 7]].map(|[batch, tokens]| Tensor::<3>::zeros([batch, tokens, 8], &device));
/// let graph = capture_with_free_axes(&linear, inputs, forward)?;
/// assert_eq!(graph.lengths(&graph.outputs()[0])[0].to_string(), "n0·n1");
///
/// let x = Tensor::<3>::ones([2, 9, 8], &device); // sizes that were not captured
/// let y: Tensor<2> = graph.replay(&device)?.run(x.clone())?;
/// assert_eq!(y.to_data(), forward(&linear, x).to_data());
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn capture_with_free_axes<M: Module, I: Values, O: Values, const N: usize>(
    model: &M,
    inputs: [I; N],
    forward: impl Fn(&M, I) -> O,
) -> Result<Graph, GraphError> {
    let mut inputs = inputs.into_iter();
    let varies = |what: &str| GraphError::Varies { what: what.into() };
    let first = inputs.next().ok_or_else(|| varies("there are no inputs; give one more than axes are to be free"))?;
    let mut examples = Vec::new();
    first.into_tensors(&mut examples);
    let first = I::from_tensors(&mut Tensors::new(examples.clone()))?;
    let mut graph = capture(model, first, &forward)?;
    let others = inputs.map(|inputs| capture(model, inputs, &forward)).collect::<Result<Vec<Graph>, _>>()?;
    let (axes, other_sizes) = axes_of(&graph, &others)?;
    let sizes: Vec<usize> = axes.iter().map(|axis| axis.size).collect();
    let with_one = |(axis, graph): (usize, Graph)| {
        let mut sizes = sizes.clone();
        sizes[axis] = other_sizes[axis];
        Sample { sizes, graph }
    };
    let mut others: Vec<Sample> = others.into_iter().enumerate().map(with_one).collect();
    if axes.len() > 1 {
        let inputs = I::from_tensors(&mut Tensors::new(resized(examples, &axes, &other_sizes)))?;
        others.push(Sample { sizes: other_sizes, graph: capture(model, inputs, &forward)? });
    }
    unified(&mut graph, &mut others);
    let (lengths, ranges) = lengths_between(&graph, &sizes, &others)?;
    graph.free = FreeAxes { axes, lengths, ranges };
    Ok(graph)
}

/// The axis in which each of several captures differs from the first, and its size there.
fn axes_of(graph: &Graph, others: &[Graph]) -> Result<(Vec<FreeAxis>, Vec<usize>), GraphError> {
    let (mut axes, mut sizes): (Vec<FreeAxis>, Vec<usize>) = (Vec::new(), Vec::new());
    for other in others {
        let (axis, size) = axis_of(graph, other).map_err(|what| GraphError::Varies { what })?;
        if let Some(twice) = axis.of_inputs.iter().find(|place| axes.iter().any(|axis| axis.of_inputs.contains(place)))
        {
            let what = format!("two captures change axis {} of input {}; change another axis", twice.1, twice.0);
            return Err(GraphError::Varies { what });
        }
        axes.push(axis);
        sizes.push(size);
    }
    Ok((axes, sizes))
}

fn axis_of(graph: &Graph, other: &Graph) -> Result<(FreeAxis, usize), String> {
    let mut differing = Vec::new();
    for (index, (one, two)) in graph.inputs().iter().zip(other.inputs()).enumerate() {
        let axes = one.shape.iter().zip(two.shape.iter()).enumerate().filter(|(_, (one, two))| one != two);
        differing.extend(axes.map(|(axis, (one, two))| (index, axis, *one, *two)));
    }
    let Some(&(_, _, size, other_size)) = differing.first() else {
        return Err("the inputs of two captures have the same shapes".into());
    };
    if let Some((index, axis, one, two)) = differing.iter().find(|(_, _, one, two)| (*one, *two) != (size, other_size))
    {
        return Err(format!(
            "axis {axis} of input {index} is {one} and {two}, where another axis is {size} and {other_size}: a capture \
             changes one size; for two free axes add a capture for each"
        ));
    }
    if size.min(other_size) < 2 {
        return Err(format!("a size is {size} and {other_size}: capture sizes of at least 2, as 1 is spread"));
    }
    let of_inputs = differing.iter().map(|(index, axis, ..)| (*index, *axis)).collect();
    Ok((FreeAxis { of_inputs, size }, other_size))
}

/// Zeros in place of inputs, with other sizes of the free axes.
fn resized(examples: Vec<AnyTensor>, axes: &[FreeAxis], sizes: &[usize]) -> Vec<AnyTensor> {
    let zeros = |(input, example): (usize, AnyTensor)| {
        let (mut shape, dtype) = (example.shape.clone(), example.dtype);
        for (free, size) in axes.iter().zip(sizes) {
            free.of_inputs.iter().filter(|place| place.0 == input).for_each(|place| shape[place.1] = *size);
        }
        let device = with_tensor!(example, x => x.device().without_autodiff());
        let tensor = TensorIr { id: TensorId::new(0), shape: shape.into(), status: TensorStatus::ReadOnly, dtype };
        AnyTensor::example(&tensor, &device)
    };
    examples.into_iter().enumerate().map(zeros).collect()
}

/// Tensors with lengths that are not the same in all captures, and those that are constants.
type Lengths = (BTreeMap<TensorId, Vec<Length>>, BTreeMap<TensorId, FreeRange>);

/// The lengths of tensors that are not the same in all captures.
///
/// # Errors
///
/// [`GraphError::Varies`], [`GraphError::NoProduct`] and [`GraphError::ConstantOfSize`].
pub(crate) fn lengths_between(graph: &Graph, sizes: &[usize], others: &[Sample]) -> Result<Lengths, GraphError> {
    for other in others {
        same_operations(graph, other, sizes).map_err(|what| GraphError::Varies { what })?;
    }
    let places: Vec<Vec<&TensorIr>> = others.iter().map(|other| tensors(&other.graph).collect()).collect();
    let (mut lengths, mut ranges) = (BTreeMap::new(), BTreeMap::new());
    for (place, tensor) in tensors(graph).enumerate() {
        let seen: Vec<(&Sample, &TensorIr)> =
            others.iter().zip(&places).map(|(other, tensors)| (other, tensors[place])).collect();
        let of_axes = lengths_of(graph, tensor, sizes, &seen)?;
        if let Some(data) = graph.values().get(&tensor.id) {
            let values = |(other, tensor): &(&Sample, &TensorIr)| other.graph.values().get(&tensor.id).cloned();
            let range = FreeRange::of(data).filter(|_| of_axes.iter().any(|length| !length.is_fixed()));
            let differs = |seen: &&(&Sample, &TensorIr)| match (values(seen), range) {
                (Some(other), Some(range)) => other != *data && FreeRange::of(&other) != Some(range),
                (other, _) => other.as_ref() != Some(data),
            };
            if let Some((other, _)) = seen.iter().find(differs) {
                return Err(GraphError::ConstantOfSize {
                    operation: operation_of(graph, tensor.id),
                    shape: tensor.shape.to_vec(),
                    sizes: sizes.to_vec(),
                    other_sizes: other.sizes.clone(),
                });
            }
            ranges.extend(range.map(|range| (tensor.id, range)));
        }
        if of_axes.iter().any(|length| !length.is_fixed()) {
            lengths.insert(tensor.id, of_axes);
        }
    }
    Ok((lengths, ranges))
}

/// The tensors of operations, inputs and outputs: the same place is the same tensor in each capture.
fn tensors(graph: &Graph) -> impl Iterator<Item = &TensorIr> {
    let of_operations = graph.operations().iter().flat_map(|operation| operation.inputs().chain(operation.outputs()));
    of_operations.chain(graph.inputs()).chain(graph.outputs())
}

fn lengths_of(
    graph: &Graph,
    tensor: &TensorIr,
    sizes: &[usize],
    seen: &[(&Sample, &TensorIr)],
) -> Result<Vec<Length>, GraphError> {
    let length = |axis: usize| {
        let len = |tensor: &TensorIr| tensor.shape.get(axis).copied().unwrap_or(0);
        let others = seen.iter().map(|(other, tensor)| (other.sizes.as_slice(), len(tensor)));
        let points: Vec<(&[usize], usize)> = std::iter::once((sizes, len(tensor))).chain(others).collect();
        Length::through(&points).ok_or_else(|| {
            let differs = |(_, other): &&(&Sample, &TensorIr)| len(other) != len(tensor);
            let (other, other_tensor) = seen.iter().find(differs).expect("lengths that are the same are fixed");
            GraphError::NoProduct {
                operation: operation_of(graph, tensor.id),
                axis,
                shapes: [tensor, other_tensor].map(|tensor| tensor.shape.as_slice().into()),
                sizes: [sizes, &other.sizes].map(Into::into),
            }
        })
    };
    (0..tensor.shape.len()).map(length).collect()
}

/// The operation that computes a tensor, or the first that reads it.
fn operation_of(graph: &Graph, id: TensorId) -> String {
    let place = graph.producer(id).or_else(|| graph.consumers(id).first().copied());
    place.map_or_else(|| "inputs".into(), |place| operation_name(&graph.operations()[place]))
}
