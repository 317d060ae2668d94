//! The op as a node of a captured graph.

use burn::backend::TensorMetadata;
use burn::backend::ir::{BackendIr, CustomOpIr, HandleContainer, ScalarIr};
use burn::backend::tensor::FloatTensor;
use burn_router::{BackendRouter, RouterChannel};

use super::Direction;
use super::{Hadamard, HadamardOps};
use crate::recording::{Reader, Scalars, expect, number, record};

pub(crate) const ID: &str = "burn_quant::hadamard";

impl Scalars for Hadamard {
    fn write(&self, to: &mut Vec<ScalarIr>) {
        number(to, self.axis);
        number(to, self.block);
        number(to, usize::from(self.direction == Direction::Inverse));
        to.extend(self.signs.map(ScalarIr::UInt));
    }

    fn read(from: &mut Reader, _shape: &[usize]) -> Option<Self> {
        let (axis, block) = (from.size()?, from.size()?);
        let direction = from.one_of(&[Direction::Forward, Direction::Inverse])?;
        let signs = if from.is_empty() { None } else { Some(from.number()?) };
        Some(Self { axis, block, signs, direction })
    }
}

impl<C: RouterChannel> HadamardOps for BackendRouter<C> {
    fn hadamard(x: FloatTensor<Self>, rotation: Hadamard) -> FloatTensor<Self> {
        let output = (x.shape(), x.dtype());
        record::<C>(ID, vec![x], output, rotation.scalars())
    }
}

/// Runs a recorded op by the kernel of a backend.
pub(crate) fn run<B: BackendIr + HadamardOps>(handles: &mut HandleContainer<B::Handle>, op: &CustomOpIr) {
    let x = handles.get_float_tensor::<B>(&op.inputs[0]);
    let rotation: Hadamard = expect(op, x.shape().as_slice());
    handles.register_float_tensor::<B>(&op.outputs[0].id, B::hadamard(x, rotation));
}
