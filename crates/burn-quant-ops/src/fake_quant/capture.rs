//! The op as a node of a captured graph.

use burn::backend::TensorMetadata;
use burn::backend::ir::{BackendIr, CustomOpIr, HandleContainer, ScalarIr};
use burn::backend::tensor::FloatTensor;
use burn::tensor::{FloatDType, Shape};
use burn_quant_numerics::{BlockScale, Format};
use burn_router::{BackendRouter, RouterChannel};

use super::{Call, FakeQuantOps, Scales};
use crate::recording::{BLOCKS, Reader, Scalars, expect, number, place, record};
use crate::{FakeQuant, GradientRule, Groups};

pub(crate) const ID: &str = "burn_quant::fake_quant";

pub(crate) const SCALES: [Scales; 6] = [
    Scales::Static,
    Scales::Dynamic,
    Scales::PowersOfTwo,
    Scales::TwoLevel(BLOCKS[0]),
    Scales::TwoLevel(BLOCKS[1]),
    Scales::TwoLevel(BLOCKS[2]),
];
const GRADIENTS: [GradientRule; 4] =
    [GradientRule::PassThrough, GradientRule::Clipped, GradientRule::Lsq, GradientRule::Pact];

impl Scalars for Call {
    fn write(&self, to: &mut Vec<ScalarIr>) {
        self.spec.format.write(to);
        self.spec.groups.write(to);
        place(to, &GRADIENTS, &self.spec.gradient);
        place(to, &SCALES, &self.scales);
        number(to, usize::from(self.bias.is_some()));
        self.bias.iter().for_each(|groups| groups.write(to));
    }

    fn read(from: &mut Reader, shape: &[usize]) -> Option<Self> {
        let (format, groups) = (Format::read(from, shape)?, Groups::read(from, shape)?);
        let (gradient, scales) = (from.one_of(&GRADIENTS)?, from.one_of(&SCALES)?);
        let bias = match from.size()? {
            0 => None,
            _ => Some(Groups::read(from, shape)?),
        };
        Some(Self { spec: FakeQuant { format, groups, gradient }, scales, bias })
    }
}

/// Whether amax, the range of the tensor and a bias are tensors of a call.
fn used(call: &Call) -> [bool; 3] {
    let two_level = matches!(call.scales, Scales::TwoLevel(_));
    let amax = matches!(call.scales, Scales::Static)
        || matches!(call.scales, Scales::TwoLevel(BlockScale::Static | BlockScale::StaticFourOverSix));
    [amax, two_level, call.bias.is_some()]
}

impl<C: RouterChannel> FakeQuantOps for BackendRouter<C> {
    fn fake_quant(
        x: FloatTensor<Self>,
        amax: FloatTensor<Self>,
        global_amax: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        call: Call,
    ) -> FloatTensor<Self> {
        let output = (x.shape(), x.dtype());
        let others = [amax, global_amax, bias].into_iter().zip(used(&call)).filter(|(_, used)| *used);
        let inputs = std::iter::once(x).chain(others.map(|(tensor, _)| tensor)).collect();
        record::<C>(ID, inputs, output, call.scalars())
    }
}

/// Runs a recorded op by the kernel of a backend.
pub(crate) fn run<B: BackendIr + FakeQuantOps>(handles: &mut HandleContainer<B::Handle>, op: &CustomOpIr) {
    let x = handles.get_float_tensor::<B>(&op.inputs[0]);
    let call: Call = expect(op, x.shape().as_slice());
    let (device, mut rest) = (x.device(), op.inputs[1..].iter());
    let [amax, global_amax, bias] = used(&call).map(|used| match used {
        true => handles.get_float_tensor::<B>(rest.next().expect("an input for each tensor of the call")),
        false => B::float_zeros(Shape::from([1]), &device, FloatDType::F32),
    });
    handles.register_float_tensor::<B>(&op.outputs[0].id, B::fake_quant(x, amax, global_amax, bias, call));
}
