//! The gradient: `dL/dx = (dL/dy) · Wᵀ`. It saves nothing but the handles of the codes, and unpacks the weight for as
//! long as it multiplies.

use burn::backend::autodiff::{
    checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
    grads::Gradients,
    ops::{Backward, Ops, OpsKind, unary},
};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, AutodiffBackend, Backend};

use super::{PackedCall, PackedLayout, PackedLinearOps};

impl<B: PackedLinearOps, C: CheckpointStrategy> PackedLinearOps for Autodiff<B, C> {
    fn packed_linear(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        scale_codes: IntTensor<Self>,
        activation_range: FloatTensor<Self>,
        call: PackedCall,
    ) -> FloatTensor<Self> {
        let (ranges, range) = (ranges.into_primitive(), activation_range.into_primitive());
        let weight = Weight::<B> { words, ranges, scale_codes, layout: call.layout };
        let forward = |x, Weight { words, ranges, scale_codes, .. }: Weight<B>| {
            B::packed_linear(x, words, ranges, scale_codes, range, call)
        };
        match Backward::<B, 1>::prepare::<C>(Multiplied, [x.node()]).compute_bound().stateful() {
            OpsKind::Tracked(prepared) => prepared.finish(weight.clone(), forward(x.into_primitive(), weight)),
            OpsKind::UnTracked(prepared) => prepared.finish(forward(x.into_primitive(), weight)),
        }
    }

    fn packed_unpack(
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        scale_codes: IntTensor<Self>,
        layout: PackedLayout,
    ) -> FloatTensor<Self> {
        Self::from_inner(B::packed_unpack(words, ranges.into_primitive(), scale_codes, layout))
    }

    fn packed_columns(
        words: IntTensor<Self>,
        ranges: FloatTensor<Self>,
        scale_codes: IntTensor<Self>,
        outputs: IntTensor<Self>,
        layout: PackedLayout,
    ) -> FloatTensor<Self> {
        Self::from_inner(B::packed_columns(words, ranges.into_primitive(), scale_codes, outputs, layout))
    }
}

#[derive(Clone, Debug)]
struct Weight<B: Backend> {
    words: IntTensor<B>,
    ranges: FloatTensor<B>,
    scale_codes: IntTensor<B>,
    layout: PackedLayout,
}

#[derive(Debug)]
struct Multiplied;

impl<B: PackedLinearOps> Backward<B, 1> for Multiplied {
    type State = Weight<B>;

    fn backward(self, ops: Ops<Weight<B>, 1>, grads: &mut Gradients, _checkpointer: &mut Checkpointer) {
        let Weight { words, ranges, scale_codes, layout } = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |grad| {
            let weight = B::packed_unpack(words, ranges, scale_codes, layout);
            B::float_matmul(grad, B::float_swap_dims(weight, 0, 1))
        });
    }
}
