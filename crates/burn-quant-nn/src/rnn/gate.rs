//! burn's gate of a recurrent layer with quantizers.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_nn::{GateController, Initializer};

use super::step;
use crate::QuantLinear;
use crate::linear::PreparedLinear;
use burn_quant_core::error::QuantError;

/// burn's [`GateController`] of [`QuantLinear`] layers: `W_x x + W_h h + b`.
#[derive(Module, Debug)]
pub struct QuantGateController {
    /// The layer of the inputs.
    pub input_transform: QuantLinear,
    /// The layer of the hidden state.
    pub hidden_transform: QuantLinear,
}

impl QuantGateController {
    /// Creates a gate with fresh parameters and disabled activation quantizers.
    ///
    /// It computes what burn's layer does until rules enable its quantizers.
    pub fn new(d_input: usize, d_output: usize, bias: bool, initializer: Initializer, device: &Device) -> Self {
        GateController::new(d_input, d_output, bias, initializer, device).into()
    }

    /// The gate before its activation, of inputs `[batch, d_input]` and hidden states `[batch, d_output]`.
    ///
    /// Both products and the sum are those of the two linear layers with their quantizers.
    pub fn gate_product(&self, input: Tensor<2>, hidden: Tensor<2>) -> Tensor<2> {
        self.input_transform.forward(input) + self.hidden_transform.forward(hidden)
    }

    /// Returns burn's gate, which computes the same.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotBurn`] if an activation quantizer is enabled, which burn's layer lacks.
    pub fn to_burn(&self) -> Result<GateController, QuantError> {
        Ok(GateController {
            input_transform: self.input_transform.to_burn()?,
            hidden_transform: self.hidden_transform.to_burn()?,
        })
    }

    /// The gate for a sequence `[batch, steps, d_input]`: the inputs' products of all steps, and the hidden layer with
    /// its weight quantized.
    pub(super) fn along(&self, sequence: &Tensor<3>) -> GateAlong<'_> {
        GateAlong { inputs: self.input_transform.forward(sequence.clone()), hidden: self.hidden_transform.prepared() }
    }
}

impl From<GateController> for QuantGateController {
    fn from(gate: GateController) -> Self {
        Self { input_transform: gate.input_transform.into(), hidden_transform: gate.hidden_transform.into() }
    }
}

/// A gate along a sequence.
pub(super) struct GateAlong<'a> {
    inputs: Tensor<3>,
    hidden: PreparedLinear<'a>,
}

impl GateAlong<'_> {
    /// What the inputs contribute at a step.
    pub(super) fn input(&self, t: usize) -> Tensor<2> {
        step(&self.inputs, t)
    }

    /// What a hidden state contributes.
    pub(super) fn hidden(&self, hidden: Tensor<2>) -> Tensor<2> {
        self.hidden.forward(hidden)
    }

    /// The gate before its activation.
    pub(super) fn product(&self, t: usize, hidden: Tensor<2>) -> Tensor<2> {
        self.input(t) + self.hidden(hidden)
    }
}
