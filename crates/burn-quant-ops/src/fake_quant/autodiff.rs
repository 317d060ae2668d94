//! The straight-through gradient, by hand: a composed `round` has gradient zero.
//!
//! ```text
//! pass-through   dL/dx = dL/dy                      saves nothing
//! clipped        dL/dx = dL/dy · [|x| <= amax]      saves x; the mask is recomputed from it
//! ```
//!
//! The op is memory-bound: under gradient checkpointing its output is recomputed, not kept. amax is a captured constant
//! and not a node of the graph, which also keeps an untracked parent from turning the op compute-bound.

use burn::backend::Autodiff;
use burn::backend::Backend;
use burn::backend::autodiff::{
    NodeId,
    checkpoint::{
        base::Checkpointer, retro_forward::RetroForward, state::BackwardStates, strategy::CheckpointStrategy,
    },
    grads::Gradients,
    ops::{Backward, Ops, OpsKind, unary},
};
use burn::backend::tensor::FloatTensor;

use super::{FakeQuant, FakeQuantOps, GradientRule};

impl<B: FakeQuantOps, C: CheckpointStrategy> FakeQuantOps for Autodiff<B, C> {
    fn fake_quant(x: FloatTensor<Self>, amax: FloatTensor<Self>, spec: FakeQuant) -> FloatTensor<Self> {
        let amax = amax.into_primitive();
        let recompute = Recompute::<B> { input: x.id(), amax: amax.clone(), spec: spec.clone() };
        match spec.gradient {
            GradientRule::PassThrough => {
                let prepared = Backward::<B, 1>::prepare::<C>(PassThrough, [x.node()])
                    .memory_bound()
                    .retro_forward(recompute)
                    .parents([&x]);
                prepared.stateless(B::fake_quant(x.into_primitive(), amax, spec))
            }
            GradientRule::Clipped => {
                let prepared = Backward::<B, 1>::prepare::<C>(Clipped, [x.node()])
                    .memory_bound()
                    .retro_forward(recompute)
                    .parents([&x]);
                match prepared.stateful() {
                    OpsKind::Tracked(mut prepared) => {
                        let input = prepared.checkpoint(&x);
                        let y = B::fake_quant(x.into_primitive(), amax.clone(), spec.clone());
                        prepared.finish((input, amax, spec), y)
                    }
                    OpsKind::UnTracked(prepared) => prepared.finish(B::fake_quant(x.into_primitive(), amax, spec)),
                }
            }
        }
    }

    fn fake_quant_clip_gradient(
        _grad: FloatTensor<Self>,
        _x: FloatTensor<Self>,
        _amax: FloatTensor<Self>,
        _spec: FakeQuant,
    ) -> FloatTensor<Self> {
        unreachable!("fake_quant: burn's autodiff is first-order, the gradient has no gradient")
    }
}

#[derive(Debug)]
struct Recompute<B: Backend> {
    input: NodeId,
    amax: FloatTensor<B>,
    spec: FakeQuant,
}

impl<B: FakeQuantOps> RetroForward for Recompute<B> {
    fn forward(&self, states: &mut BackwardStates, output: NodeId) {
        let x = states.get_state::<FloatTensor<B>>(&self.input);
        states.save(output, B::fake_quant(x, self.amax.clone(), self.spec.clone()));
    }
}

#[derive(Debug)]
struct PassThrough;

impl<B: Backend> Backward<B, 1> for PassThrough {
    type State = ();

    fn backward(self, ops: Ops<(), 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        unary::<B, _>(ops.parents, ops.node, grads, |grad| grad);
    }
}

#[derive(Debug)]
struct Clipped;

impl<B: FakeQuantOps> Backward<B, 1> for Clipped {
    type State = (NodeId, FloatTensor<B>, FakeQuant);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let (input, amax, spec) = ops.state;
        let x = checkpointer.retrieve_node_output(input);
        unary::<B, _>(ops.parents, ops.node, grads, |grad| B::fake_quant_clip_gradient(grad, x, amax, spec));
    }
}
