//! The gradient: `dL/dx = (dL/dy) · Rᵀ`, the inverse rotation. It saves nothing.

use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind, unary},
};
use burn::backend::tensor::FloatTensor;
use burn::backend::{Autodiff, Backend};

use super::{Hadamard, HadamardOps};

impl<B: HadamardOps, C: CheckpointStrategy> HadamardOps for Autodiff<B, C> {
    fn hadamard(x: FloatTensor<Self>, rotation: Hadamard) -> FloatTensor<Self> {
        let prepared = Backward::<B, 1>::prepare::<C>(Rotated, [x.node()]).compute_bound();
        match prepared.stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(rotation, B::hadamard(x.into_primitive(), rotation)),
            OpsKind::UnTracked(prepared) => prepared.finish(B::hadamard(x.into_primitive(), rotation)),
        }
    }
}

#[derive(Debug)]
struct Rotated;

impl<B: Backend + HadamardOps> Backward<B, 1> for Rotated {
    type State = Hadamard;

    fn backward(self, ops: Ops<Hadamard, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let inverse = ops.state.inverse();
        unary::<B, _>(ops.parents, ops.node, grads, |grad| B::hadamard(grad, inverse));
    }
}
