//! Operations of two captures: whether they are the same except for the lengths of their tensors.

use burn::backend::Slice;
use burn::backend::ir::{BaseOperationIr, IrVisitorMut, OperationIr, TensorId, TensorIr, TensorStatus};

use crate::rows::Sample;
use crate::{Graph, operation_name};

/// Says what else than lengths of tensors differs between two captures.
pub(crate) fn same_operations(graph: &Graph, other: &Sample, sizes: &[usize]) -> Result<(), String> {
    let (ours, theirs, other_sizes) = (graph.operations(), other.graph.operations(), &other.sizes);
    let unroll = "what is unrolled over an axis, as recurrent layers are over a sequence, has one size of it; capture \
                  that size and free other axes";
    let differ = ours.iter().zip(theirs).position(|(one, two)| operation_name(one) != operation_name(two));
    if let Some(at) = differ {
        let (one, two) = (operation_name(&ours[at]), operation_name(&theirs[at]));
        return Err(format!("operation {at} is {one} for sizes {sizes:?} and {two} for {other_sizes:?}: {unroll}"));
    }
    if ours.len() != theirs.len() {
        let counts = [ours.len(), theirs.len()];
        return Err(format!("{counts:?} operations are done for sizes {sizes:?} and {other_sizes:?}: {unroll}"));
    }
    if let Some(at) = ours.iter().zip(theirs).position(|(one, two)| !is_same(one, two)) {
        let name = operation_name(&ours[at]);
        return Err(format!(
            "a number, a rank or a range of operation {at}, {name}, is another for sizes {sizes:?} and \
             {other_sizes:?}; compute it from an input, or capture one size"
        ));
    }
    Ok(())
}

/// Whether operations are the same except for the lengths of their tensors, and for what follows from those.
fn is_same(one: &OperationIr, two: &OperationIr) -> bool {
    let (mut one, mut two) = (one.clone(), two.clone());
    use BaseOperationIr as Op;
    use OperationIr::{BaseBool, BaseFloat, BaseInt};
    if let (BaseFloat(one), BaseFloat(two)) | (BaseInt(one), BaseInt(two)) | (BaseBool(one), BaseBool(two)) =
        (&mut one, &mut two)
    {
        match (one, two) {
            (Op::Slice(one), Op::Slice(two)) => {
                without_ends([&one.out, &two.out], [&mut one.ranges, &mut two.ranges]);
            }
            (Op::SliceAssign(one), Op::SliceAssign(two)) => {
                without_ends([&one.value, &two.value], [&mut one.ranges, &mut two.ranges]);
            }
            (Op::RepeatDim(one), Op::RepeatDim(two)) if one.dim == two.dim => {
                let repeats = |out: &TensorIr, times| out.shape[one.dim] == one.tensor.shape[one.dim] * times;
                if one.tensor.shape[one.dim] == two.tensor.shape[one.dim] && repeats(&two.out, two.times) {
                    two.times = one.times; // as often as the result is longer
                }
            }
            _ => {}
        }
    }
    let ranks = |operation: &OperationIr| {
        operation.inputs().chain(operation.outputs()).map(|tensor| tensor.shape.len()).collect::<Vec<_>>()
    };
    ranks(&one) == ranks(&two) && erased(one) == erased(two)
}

/// Forgets the ends of ranges that begin at one place and are as long as an axis of their part, which is free.
fn without_ends(parts: [&TensorIr; 2], ranges: [&mut Vec<Slice>; 2]) {
    let [ours, theirs] = ranges;
    for (axis, (one, two)) in ours.iter_mut().zip(theirs).enumerate() {
        let [len, other_len] = parts.map(|part| part.shape.get(axis).copied().unwrap_or(0));
        let starts = one.start == two.start && one.start >= 0 && one.step == 1 && two.step == 1;
        if len != other_len && starts {
            (*one, *two) = (Slice::full(), Slice::full());
        }
    }
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
