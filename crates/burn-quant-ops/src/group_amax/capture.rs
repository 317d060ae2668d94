//! The op as a node of a captured graph.

use burn::backend::TensorMetadata;
use burn::backend::ir::{BackendIr, CustomOpIr, HandleContainer};
use burn::backend::tensor::FloatTensor;
use burn::tensor::{DType, Shape};
use burn_router::{BackendRouter, RouterChannel};

use super::GroupAmaxOps;
use crate::Groups;
use crate::recording::{Scalars, expect, record};

pub(crate) const ID: &str = "burn_quant::group_amax";

impl<C: RouterChannel> GroupAmaxOps for BackendRouter<C> {
    fn group_amax(x: FloatTensor<Self>, groups: Groups) -> FloatTensor<Self> {
        let output = (Shape::from([groups.len()]), DType::F32);
        record::<C>(ID, vec![x], output, groups.scalars())
    }
}

/// Runs a recorded op by the kernel of a backend.
pub(crate) fn run<B: BackendIr + GroupAmaxOps>(handles: &mut HandleContainer<B::Handle>, op: &CustomOpIr) {
    let x = handles.get_float_tensor::<B>(&op.inputs[0]);
    let groups: Groups = expect(op, x.shape().as_slice());
    handles.register_float_tensor::<B>(&op.outputs[0].id, B::group_amax(x, groups));
}
