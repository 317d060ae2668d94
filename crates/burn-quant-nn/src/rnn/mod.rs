//! burn's recurrent layers of quantized gates.
//!
//! A gate is two [`QuantLinear`](super::QuantLinear) layers, one for the inputs and one for the hidden state, so every
//! rule and every algorithm for linear layers serves recurrent ones too. A weight is quantized once a forward, not once
//! a step, and the products of the inputs are computed for all steps at once; a dynamic range of the whole tensor is
//! therefore that of the whole sequence.
//!
//! The reference quantizes the cell state of an LSTM with the quantizer of its inputs. Here it stays in float: no
//! product reads it.

mod basic;
mod gate;
mod gru;
mod lstm;

pub use basic::{QuantBiRnn, QuantBiRnnConfig, QuantRnn, QuantRnnConfig};
pub use gate::QuantGateController;
pub use gru::{QuantBiGru, QuantBiGruConfig, QuantGru, QuantGruConfig};
pub use lstm::{QuantBiLstm, QuantBiLstmConfig, QuantLstm, QuantLstmConfig};

use burn::tensor::{Device, Tensor};

/// The direction in which a sequence is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Order {
    Forward,
    Reverse,
}

impl Order {
    fn of(reverse: bool) -> Self {
        if reverse { Self::Reverse } else { Self::Forward }
    }

    /// The steps of a sequence.
    fn steps(self, length: usize) -> Box<dyn Iterator<Item = usize>> {
        match self {
            Self::Forward => Box::new(0..length),
            Self::Reverse => Box::new((0..length).rev()),
        }
    }
}

/// `[batch, steps, features]` whatever comes first in a layer's inputs or outputs.
fn batch_first(x: Tensor<3>, already: bool) -> Tensor<3> {
    if already { x } else { x.swap_dims(0, 1) }
}

/// One step of `[batch, steps, features]`.
fn step(x: &Tensor<3>, t: usize) -> Tensor<2> {
    x.clone().narrow(1, t, 1).squeeze_dim(1)
}

/// The hidden states of a sequence, collected in any order.
struct States {
    states: Vec<Option<Tensor<2>>>,
}

impl States {
    fn new(length: usize) -> Self {
        Self { states: vec![None; length] }
    }

    fn set(&mut self, t: usize, state: Tensor<2>) {
        self.states[t] = Some(state);
    }

    /// `[batch, steps, features]`; steps that were left out are zero.
    fn stack(self, shape: [usize; 2], device: &Device) -> Tensor<3> {
        if self.states.is_empty() {
            return Tensor::zeros([shape[0], 0, shape[1]], device);
        }
        let states = self.states.into_iter().map(|state| state.unwrap_or_else(|| Tensor::zeros(shape, device)));
        Tensor::stack(states.collect(), 1)
    }
}
