//! burn's plain recurrent layer with quantizers.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_nn::activation::{Activation, ActivationConfig};
use burn_nn::{BiRnn, BiRnnConfig, Initializer, Rnn, RnnConfig, RnnState};

use super::{Order, QuantGateController, States, batch_first};
use burn_quant_core::error::QuantError;

layer_config! {
    QuantRnnConfig = RnnConfig => QuantRnn (device);
    new(d_input: usize, d_hidden: usize, bias: bool);
    /// Sets how the parameters begin.
    with_initializer(initializer: Initializer);
    /// Sets whether the batch comes before the steps.
    with_batch_first(batch_first: bool);
    /// Sets whether a sequence is read from its end.
    with_reverse(reverse: bool);
    /// Sets the largest magnitude of the hidden state.
    with_clip(clip: Option<f64>);
    /// Sets the function of the hidden state.
    with_hidden_activation(hidden_activation: ActivationConfig);
}

layer_config! {
    QuantBiRnnConfig = BiRnnConfig => QuantBiRnn (device);
    new(d_input: usize, d_hidden: usize, bias: bool);
    /// Sets how the parameters begin.
    with_initializer(initializer: Initializer);
    /// Sets whether the batch comes before the steps.
    with_batch_first(batch_first: bool);
    /// Sets the largest magnitude of the hidden state.
    with_clip(clip: Option<f64>);
    /// Sets the function of the hidden state.
    with_hidden_activation(hidden_activation: ActivationConfig);
}

/// burn's [`Rnn`] of a quantized gate: `h_t = f(W_x x_t + W_h h_{t-1} + b)`.
#[derive(Module, Debug)]
pub struct QuantRnn {
    /// The gate.
    pub gate: QuantGateController,
    /// Features of the hidden state.
    pub d_hidden: usize,
    /// Whether the batch comes before the steps.
    pub batch_first: bool,
    /// Whether a sequence is read from its end.
    pub reverse: bool,
    /// The largest magnitude of the hidden state.
    pub clip: Option<f64>,
    /// The function of the hidden state.
    pub hidden_activation: Activation,
}

impl QuantRnn {
    /// The hidden states of a sequence, and the last one.
    ///
    /// Shapes: `[batch, steps, features]`, or `[steps, batch, features]` unless `batch_first`; a state is
    /// `[batch, d_hidden]`.
    pub fn forward(&self, batched_input: Tensor<3>, state: Option<RnnState<2>>) -> (Tensor<3>, RnnState<2>) {
        let input = batch_first(batched_input, self.batch_first);
        let (states, last) = self.along(input, state.map(|state| state.hidden), Order::of(self.reverse));
        (batch_first(states, self.batch_first), RnnState::new(last))
    }

    fn along(&self, input: Tensor<3>, state: Option<Tensor<2>>, order: Order) -> (Tensor<3>, Tensor<2>) {
        let ([batch, steps, _], device) = (input.dims(), input.device());
        let shape = [batch, self.d_hidden];
        let gate = self.gate.along(&input);
        let mut hidden = state.unwrap_or_else(|| Tensor::zeros(shape, &device));
        let mut states = States::new(steps);
        for t in order.steps(steps) {
            hidden = self.hidden_activation.forward(gate.product(t, hidden));
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
    pub fn to_burn(&self) -> Result<Rnn, QuantError> {
        Ok(Rnn {
            gate: self.gate.to_burn()?,
            d_hidden: self.d_hidden,
            batch_first: self.batch_first,
            reverse: self.reverse,
            clip: self.clip,
            hidden_activation: self.hidden_activation.clone(),
        })
    }
}

impl From<Rnn> for QuantRnn {
    fn from(layer: Rnn) -> Self {
        Self {
            gate: layer.gate.into(),
            d_hidden: layer.d_hidden,
            batch_first: layer.batch_first,
            reverse: layer.reverse,
            clip: layer.clip,
            hidden_activation: layer.hidden_activation,
        }
    }
}

/// burn's [`BiRnn`] of quantized layers.
#[derive(Module, Debug)]
pub struct QuantBiRnn {
    /// The layer that reads a sequence from its beginning.
    pub forward: QuantRnn,
    /// The layer that reads it from its end.
    pub reverse: QuantRnn,
    /// Features of the hidden state.
    pub d_hidden: usize,
    /// Whether the batch comes before the steps.
    pub batch_first: bool,
}

impl QuantBiRnn {
    /// The hidden states of both layers, `2 · d_hidden` features, and the last ones, `[2, batch, d_hidden]`.
    ///
    /// The second layer reads the sequence from its end.
    pub fn forward(&self, batched_input: Tensor<3>, state: Option<RnnState<3>>) -> (Tensor<3>, RnnState<3>) {
        let input = batch_first(batched_input, self.batch_first);
        let state = |i: usize| state.as_ref().map(|state| state.hidden.clone().narrow(0, i, 1).squeeze_dim(0));
        let (forward, last_forward) = self.forward.along(input.clone(), state(0), Order::Forward);
        let (reverse, last_reverse) = self.reverse.along(input, state(1), Order::Reverse);
        let states = Tensor::cat(vec![forward, reverse], 2);
        (batch_first(states, self.batch_first), RnnState::new(Tensor::stack(vec![last_forward, last_reverse], 0)))
    }

    /// Returns burn's layer, which computes the same.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotBurn`] if an activation quantizer is enabled, which burn's layer lacks.
    pub fn to_burn(&self) -> Result<BiRnn, QuantError> {
        Ok(BiRnn {
            forward: self.forward.to_burn()?,
            reverse: self.reverse.to_burn()?,
            d_hidden: self.d_hidden,
            batch_first: self.batch_first,
        })
    }
}

impl From<BiRnn> for QuantBiRnn {
    fn from(layer: BiRnn) -> Self {
        Self {
            forward: layer.forward.into(),
            reverse: layer.reverse.into(),
            d_hidden: layer.d_hidden,
            batch_first: layer.batch_first,
        }
    }
}
