//! burn's gated recurrent unit with quantizers.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_nn::activation::{Activation, ActivationConfig};
use burn_nn::{BiGru, BiGruConfig, Gru, GruConfig, Initializer};

use super::{Order, QuantGateController, States, batch_first};
use burn_quant_core::error::QuantError;

layer_config! {
    QuantGruConfig = GruConfig => QuantGru (device);
    new(d_input: usize, d_hidden: usize, bias: bool);
    /// Sets whether the reset gate acts after the product of the hidden state, not before it.
    with_reset_after(reset_after: bool);
    /// Sets how the parameters begin.
    with_initializer(initializer: Initializer);
    /// Sets the function of the gates.
    with_gate_activation(gate_activation: ActivationConfig);
    /// Sets the function of the candidate.
    with_hidden_activation(hidden_activation: ActivationConfig);
    /// Sets the largest magnitude of the hidden state.
    with_clip(clip: Option<f64>);
}

layer_config! {
    QuantBiGruConfig = BiGruConfig => QuantBiGru (device);
    new(d_input: usize, d_hidden: usize, bias: bool);
    /// Sets whether the reset gate acts after the product of the hidden state, not before it.
    with_reset_after(reset_after: bool);
    /// Sets how the parameters begin.
    with_initializer(initializer: Initializer);
    /// Sets whether the batch comes before the steps.
    with_batch_first(batch_first: bool);
    /// Sets the function of the gates.
    with_gate_activation(gate_activation: ActivationConfig);
    /// Sets the function of the candidate.
    with_hidden_activation(hidden_activation: ActivationConfig);
    /// Sets the largest magnitude of the hidden state.
    with_clip(clip: Option<f64>);
}

/// burn's [`Gru`] of quantized gates.
///
/// ```text
/// z = σ(gate_z)   r = σ(gate_r)   g = tanh(W_x x + b + r ⊙ (W_h h + c))   h' = (1 − z) ⊙ g + z ⊙ h
/// ```
#[derive(Module, Debug)]
pub struct QuantGru {
    /// The gate `z`.
    pub update_gate: QuantGateController,
    /// The gate `r`.
    pub reset_gate: QuantGateController,
    /// The candidate `g`.
    pub new_gate: QuantGateController,
    /// Features of the hidden state.
    pub d_hidden: usize,
    /// Whether the reset gate acts after the product of the hidden state, not before it.
    pub reset_after: bool,
    /// The function of the gates.
    pub gate_activation: Activation,
    /// The function of the candidate.
    pub hidden_activation: Activation,
    /// The largest magnitude of the hidden state.
    pub clip: Option<f64>,
}

impl QuantGru {
    /// The hidden states `[batch, steps, d_hidden]` of a sequence `[batch, steps, d_input]`; a state is
    /// `[batch, d_hidden]`.
    pub fn forward(&self, batched_input: Tensor<3>, state: Option<Tensor<2>>) -> Tensor<3> {
        self.along(batched_input, state, Order::Forward).0
    }

    fn along(&self, input: Tensor<3>, state: Option<Tensor<2>>, order: Order) -> (Tensor<3>, Tensor<2>) {
        let ([batch, steps, _], device) = (input.dims(), input.device());
        let shape = [batch, self.d_hidden];
        let [update, reset, new] = [&self.update_gate, &self.reset_gate, &self.new_gate].map(|gate| gate.along(&input));
        let mut hidden = state.unwrap_or_else(|| Tensor::zeros(shape, &device));
        let mut states = States::new(steps);
        for t in order.steps(steps) {
            let update = self.gate_activation.forward(update.product(t, hidden.clone()));
            let reset = self.gate_activation.forward(reset.product(t, hidden.clone()));
            let candidate = if self.reset_after {
                new.input(t) + reset * new.hidden(hidden.clone())
            } else {
                new.product(t, hidden.clone() * reset)
            };
            let candidate = self.hidden_activation.forward(candidate);
            hidden = candidate * update.clone().neg().add_scalar(1.0) + update * hidden;
            if let Some(clip) = self.clip {
                hidden = hidden.clamp(-clip, clip);
            }
            states.set(t, hidden.clone());
        }
        (states.stack(shape, &device), hidden)
    }

    /// Returns burn's layer, which computes the same.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotBurn`] if an activation quantizer is enabled, which burn's layer lacks.
    pub fn to_burn(&self) -> Result<Gru, QuantError> {
        Ok(Gru {
            update_gate: self.update_gate.to_burn()?,
            reset_gate: self.reset_gate.to_burn()?,
            new_gate: self.new_gate.to_burn()?,
            d_hidden: self.d_hidden,
            reset_after: self.reset_after,
            gate_activation: self.gate_activation.clone(),
            hidden_activation: self.hidden_activation.clone(),
            clip: self.clip,
        })
    }
}

impl From<Gru> for QuantGru {
    fn from(layer: Gru) -> Self {
        Self {
            update_gate: layer.update_gate.into(),
            reset_gate: layer.reset_gate.into(),
            new_gate: layer.new_gate.into(),
            d_hidden: layer.d_hidden,
            reset_after: layer.reset_after,
            gate_activation: layer.gate_activation,
            hidden_activation: layer.hidden_activation,
            clip: layer.clip,
        }
    }
}

/// burn's [`BiGru`] of quantized layers.
#[derive(Module, Debug)]
pub struct QuantBiGru {
    /// The layer that reads a sequence from its beginning.
    pub forward: QuantGru,
    /// The layer that reads it from its end.
    pub reverse: QuantGru,
    /// Features of the hidden state.
    pub d_hidden: usize,
    /// Whether the batch comes before the steps.
    pub batch_first: bool,
}

impl QuantBiGru {
    /// The hidden states of both layers, `2 · d_hidden` features, and the last ones, `[2, batch, d_hidden]`.
    ///
    /// The second layer reads the sequence from its end.
    pub fn forward(&self, batched_input: Tensor<3>, state: Option<Tensor<3>>) -> (Tensor<3>, Tensor<3>) {
        let input = batch_first(batched_input, self.batch_first);
        let state = |i: usize| state.as_ref().map(|state| state.clone().narrow(0, i, 1).squeeze_dim(0));
        let (forward, last_forward) = self.forward.along(input.clone(), state(0), Order::Forward);
        let (reverse, last_reverse) = self.reverse.along(input, state(1), Order::Reverse);
        let states = Tensor::cat(vec![forward, reverse], 2);
        (batch_first(states, self.batch_first), Tensor::stack(vec![last_forward, last_reverse], 0))
    }

    /// Returns burn's layer, which computes the same.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotBurn`] if an activation quantizer is enabled, which burn's layer lacks.
    pub fn to_burn(&self) -> Result<BiGru, QuantError> {
        Ok(BiGru {
            forward: self.forward.to_burn()?,
            reverse: self.reverse.to_burn()?,
            d_hidden: self.d_hidden,
            batch_first: self.batch_first,
        })
    }
}

impl From<BiGru> for QuantBiGru {
    fn from(layer: BiGru) -> Self {
        Self {
            forward: layer.forward.into(),
            reverse: layer.reverse.into(),
            d_hidden: layer.d_hidden,
            batch_first: layer.batch_first,
        }
    }
}
