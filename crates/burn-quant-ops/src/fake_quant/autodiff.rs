//! The straight-through gradient, by hand: a composed `round` has gradient zero.
//!
//! ```text
//! pass-through   dL/dx = dL/dy                      saves nothing
//! clipped        dL/dx = dL/dy · [|x − bias| <= amax]      saves x; the mask is recomputed from it
//! learned        dL/dx, dL/damax as in `learned.rs`        saves x; y is recomputed from it
//! ```
//!
//! The op is memory-bound: under gradient checkpointing its output is recomputed, not kept. Ranges that are not learned
//! are captured constants and not nodes of the graph, which also keeps an untracked parent from turning the op
//! compute-bound.

use burn::backend::Autodiff;
use burn::backend::Backend;
use burn::backend::TensorMetadata;
use burn::backend::autodiff::{
    NodeId,
    checkpoint::{
        base::Checkpointer, retro_forward::RetroForward, state::BackwardStates, strategy::CheckpointStrategy,
    },
    grads::Gradients,
    ops::{Backward, Ops, OpsKind, binary, unary},
};
use burn::backend::tensor::FloatTensor;
use burn::tensor::DType;

use super::ranges::Limit;
use super::reference::limits;
use super::{Call, FakeQuantOps, GradientRule};

impl<B: FakeQuantOps, C: CheckpointStrategy> FakeQuantOps for Autodiff<B, C> {
    fn fake_quant(
        x: FloatTensor<Self>,
        amax: FloatTensor<Self>,
        global_amax: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        call: Call,
    ) -> FloatTensor<Self> {
        if call.learns_range() {
            return learned::<B, C>(x, amax, global_amax, bias, call);
        }
        let op = Op::<B> {
            amax: amax.into_primitive(),
            global_amax: global_amax.into_primitive(),
            bias: bias.into_primitive(),
            call,
        };
        let recompute = Recompute { input: x.id(), op: op.clone() };
        match op.limit(x.dtype()) {
            None => {
                let prepared = Backward::<B, 1>::prepare::<C>(PassThrough, [x.node()])
                    .memory_bound()
                    .retro_forward(recompute)
                    .parents([&x]);
                prepared.stateless(op.forward(x.into_primitive()))
            }
            Some(limit) => {
                let prepared = Backward::<B, 1>::prepare::<C>(Clipped, [x.node()])
                    .memory_bound()
                    .retro_forward(recompute)
                    .parents([&x]);
                match prepared.stateful() {
                    OpsKind::Tracked(mut prepared) => {
                        let input = prepared.checkpoint(&x);
                        let y = op.forward(x.into_primitive());
                        prepared.finish((input, limit), y)
                    }
                    OpsKind::UnTracked(prepared) => prepared.finish(op.forward(x.into_primitive())),
                }
            }
        }
    }

    fn fake_quant_clip_gradient(
        _grad: FloatTensor<Self>,
        _x: FloatTensor<Self>,
        _amax: FloatTensor<Self>,
        _bias: FloatTensor<Self>,
        _call: Call,
    ) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }

    fn fake_quant_learned_gradient(
        _grad: FloatTensor<Self>,
        _x: FloatTensor<Self>,
        _amax: FloatTensor<Self>,
        _call: Call,
    ) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }

    fn fake_quant_range_gradient(
        _grad: FloatTensor<Self>,
        _x: FloatTensor<Self>,
        _y: FloatTensor<Self>,
        _amax: FloatTensor<Self>,
        _call: Call,
    ) -> FloatTensor<Self> {
        unreachable!("{FIRST_ORDER}")
    }
}

const FIRST_ORDER: &str = "fake_quant: burn's autodiff is first-order, the gradient has no gradient";

/// The op whose range is a node of the graph.
fn learned<B: FakeQuantOps, C: CheckpointStrategy>(
    x: FloatTensor<Autodiff<B, C>>,
    amax: FloatTensor<Autodiff<B, C>>,
    global_amax: FloatTensor<Autodiff<B, C>>,
    bias: FloatTensor<Autodiff<B, C>>,
    call: Call,
) -> FloatTensor<Autodiff<B, C>> {
    let (amax_node, x_node) = (amax.node(), x.node());
    let op = Op::<B> {
        amax: amax.clone().into_primitive(),
        global_amax: global_amax.into_primitive(),
        bias: bias.into_primitive(),
        call,
    };
    let recompute = Recompute { input: x.id(), op: op.clone() };
    let prepared = Backward::<B, 2>::prepare::<C>(Learned, [x_node, amax_node])
        .memory_bound()
        .retro_forward(recompute)
        .parents([&x, &amax]);
    match prepared.stateful() {
        OpsKind::Tracked(mut prepared) => {
            let input = prepared.checkpoint(&x);
            let y = op.forward(x.into_primitive());
            prepared.finish((input, op), y)
        }
        OpsKind::UnTracked(prepared) => prepared.finish(op.forward(x.into_primitive())),
    }
}

/// The op without its input.
#[derive(Clone, Debug)]
struct Op<B: Backend> {
    amax: FloatTensor<B>,
    global_amax: FloatTensor<B>,
    bias: FloatTensor<B>,
    call: Call,
}

impl<B: FakeQuantOps> Op<B> {
    fn forward(&self, x: FloatTensor<B>) -> FloatTensor<B> {
        let Self { amax, global_amax, bias, call } = self.clone();
        B::fake_quant(x, amax, global_amax, bias, call)
    }

    /// What the gradient is clipped with, if it is.
    fn limit(&self, dtype: DType) -> Option<ClipLimit<B>> {
        if self.call.spec.gradient == GradientRule::PassThrough {
            return None;
        }
        let (limit, call) = self.call.clip()?;
        let amax = match limit {
            Limit::Amax => self.amax.clone(),
            Limit::Global => self.global_amax.clone(),
        };
        Some(ClipLimit { amax: limits::<B>(amax, dtype), bias: self.bias.clone(), call })
    }
}

#[derive(Clone, Debug)]
struct ClipLimit<B: Backend> {
    amax: FloatTensor<B>,
    bias: FloatTensor<B>,
    call: Call,
}

#[derive(Debug)]
struct Recompute<B: Backend> {
    input: NodeId,
    op: Op<B>,
}

impl<B: FakeQuantOps> RetroForward for Recompute<B> {
    fn forward(&self, states: &mut BackwardStates, output: NodeId) {
        let x = states.get_state::<FloatTensor<B>>(&self.input);
        states.save(output, self.op.forward(x));
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
    type State = (NodeId, ClipLimit<B>);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let (input, ClipLimit { amax, bias, call }) = ops.state;
        let x = checkpointer.retrieve_node_output(input);
        unary::<B, _>(ops.parents, ops.node, grads, |grad| B::fake_quant_clip_gradient(grad, x, amax, bias, call));
    }
}

#[derive(Debug)]
struct Learned;

impl<B: FakeQuantOps> Backward<B, 2> for Learned {
    type State = (NodeId, Op<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, checkpointer: &mut Checkpointer) {
        let (input, op) = ops.state;
        let x: FloatTensor<B> = checkpointer.retrieve_node_output(input);
        let (amax, call) = (op.amax.clone(), op.call.clone());
        binary::<B, _, _>(
            ops.parents,
            ops.node,
            grads,
            |grad| B::fake_quant_learned_gradient(grad, x.clone(), amax.clone(), call.clone()),
            |grad| {
                let y = op.forward(x.clone());
                B::fake_quant_range_gradient(grad, x.clone(), y, amax.clone(), call.clone())
            },
        );
    }
}
