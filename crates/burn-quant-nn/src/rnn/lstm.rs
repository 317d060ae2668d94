//! burn's long short-term memory with quantizers.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_nn::activation::{Activation, ActivationConfig};
use burn_nn::{BiLstm, BiLstmConfig, Initializer, Lstm, LstmConfig, LstmState};

use super::{Order, QuantGateController, States, batch_first};
use burn_quant_core::error::QuantError;

layer_config! {
    QuantLstmConfig = LstmConfig => QuantLstm (device);
    new(d_input: usize, d_hidden: usize, bias: bool);
    /// Sets how the parameters begin.
    with_initializer(initializer: Initializer);
    /// Sets whether the batch comes before the steps.
    with_batch_first(batch_first: bool);
    /// Sets whether a sequence is read from its end.
    with_reverse(reverse: bool);
    /// Sets the largest magnitude of the cell state.
    with_clip(clip: Option<f64>);
    /// Sets whether the forget gate is one minus the input gate.
    with_input_forget(input_forget: bool);
    /// Sets the function of the gates.
    with_gate_activation(gate_activation: ActivationConfig);
    /// Sets the function of the candidate.
    with_cell_activation(cell_activation: ActivationConfig);
    /// Sets the function of the cell state.
    with_hidden_activation(hidden_activation: ActivationConfig);
}

layer_config! {
    QuantBiLstmConfig = BiLstmConfig => QuantBiLstm (device);
    new(d_input: usize, d_hidden: usize, bias: bool);
    /// Sets how the parameters begin.
    with_initializer(initializer: Initializer);
    /// Sets whether the batch comes before the steps.
    with_batch_first(batch_first: bool);
    /// Sets the largest magnitude of the cell state.
    with_clip(clip: Option<f64>);
    /// Sets whether the forget gate is one minus the input gate.
    with_input_forget(input_forget: bool);
    /// Sets the function of the gates.
    with_gate_activation(gate_activation: ActivationConfig);
    /// Sets the function of the candidate.
    with_cell_activation(cell_activation: ActivationConfig);
    /// Sets the function of the cell state.
    with_hidden_activation(hidden_activation: ActivationConfig);
}

/// burn's [`Lstm`] of quantized gates.
///
/// ```text
/// c' = σ(gate_f) ⊙ c + σ(gate_i) ⊙ tanh(gate_g)      h' = σ(gate_o) ⊙ tanh(c')
/// ```
#[derive(Module, Debug)]
pub struct QuantLstm {
    /// The gate `i`.
    pub input_gate: QuantGateController,
    /// The gate `f`; absent if it is one minus `i`.
    pub forget_gate: Option<QuantGateController>,
    /// The gate `o`.
    pub output_gate: QuantGateController,
    /// The candidate `g`.
    pub cell_gate: QuantGateController,
    /// Features of the hidden state.
    pub d_hidden: usize,
    /// Whether the batch comes before the steps.
    pub batch_first: bool,
    /// Whether a sequence is read from its end.
    pub reverse: bool,
    /// The largest magnitude of the cell state.
    pub clip: Option<f64>,
    /// Whether the forget gate is one minus the input gate.
    pub input_forget: bool,
    /// The function of the gates.
    pub gate_activation: Activation,
    /// The function of the candidate.
    pub cell_activation: Activation,
    /// The function of the cell state.
    pub hidden_activation: Activation,
}

impl QuantLstm {
    /// The hidden states of a sequence, and the last state.
    ///
    /// Shapes: `[batch, steps, features]`, or `[steps, batch, features]` unless `batch_first`; a state is
    /// `[batch, d_hidden]`.
    pub fn forward(&self, batched_input: Tensor<3>, state: Option<LstmState<2>>) -> (Tensor<3>, LstmState<2>) {
        let input = batch_first(batched_input, self.batch_first);
        let (states, last) = self.along(input, state, Order::of(self.reverse));
        (batch_first(states, self.batch_first), last)
    }

    /// The same for steps `[batch, 1, d_input]` with their numbers below `seq_length`, in the order in which they are
    /// read; the hidden states are in the order of their numbers.
    ///
    /// # Panics
    ///
    /// If a number is not below `seq_length`.
    pub fn forward_iter<I: Iterator<Item = (usize, Tensor<3>)>>(
        &self,
        input_timestep_iter: I,
        state: Option<LstmState<2>>,
        batch_size: usize,
        seq_length: usize,
        device: &Device,
    ) -> (Tensor<3>, LstmState<2>) {
        let shape = [batch_size, self.d_hidden];
        let (numbers, steps): (Vec<_>, Vec<_>) = input_timestep_iter.unzip();
        let mut states = States::new(seq_length);
        if steps.is_empty() {
            return (states.stack(shape, device), state.unwrap_or_else(|| LstmState::initial(shape, device)));
        }
        let (read, last) = self.along(Tensor::cat(steps, 1), state, Order::Forward);
        for (t, number) in numbers.into_iter().enumerate() {
            states.set(number, super::step(&read, t));
        }
        (states.stack(shape, device), last)
    }

    fn along(&self, input: Tensor<3>, state: Option<LstmState<2>>, order: Order) -> (Tensor<3>, LstmState<2>) {
        let ([batch, steps, _], device) = (input.dims(), input.device());
        let shape = [batch, self.d_hidden];
        let [inputs, outputs, cells] =
            [&self.input_gate, &self.output_gate, &self.cell_gate].map(|gate| gate.along(&input));
        let forgets = self.forget_gate.as_ref().filter(|_| !self.input_forget).map(|gate| gate.along(&input));
        let (mut cell, mut hidden) = state.unwrap_or_else(|| LstmState::initial(shape, &device)).unpack();
        let mut states = States::new(steps);
        for t in order.steps(steps) {
            let input = self.gate_activation.forward(inputs.product(t, hidden.clone()));
            let forget = match &forgets {
                Some(forgets) => self.gate_activation.forward(forgets.product(t, hidden.clone())),
                None => input.clone().neg().add_scalar(1.0),
            };
            let output = self.gate_activation.forward(outputs.product(t, hidden.clone()));
            let candidate = self.cell_activation.forward(cells.product(t, hidden));
            cell = forget * cell + input * candidate;
            if let Some(clip) = self.clip {
                cell = cell.clamp(-clip, clip);
            }
            hidden = output * self.hidden_activation.forward(cell.clone());
            states.set(t, hidden.clone());
        }
        (states.stack(shape, &device), LstmState::new(cell, hidden))
    }

    /// Returns burn's layer, which computes the same.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotBurn`] if an activation quantizer is enabled, which burn's layer lacks.
    pub fn to_burn(&self) -> Result<Lstm, QuantError> {
        Ok(Lstm {
            input_gate: self.input_gate.to_burn()?,
            forget_gate: self.forget_gate.as_ref().map(QuantGateController::to_burn).transpose()?,
            output_gate: self.output_gate.to_burn()?,
            cell_gate: self.cell_gate.to_burn()?,
            d_hidden: self.d_hidden,
            batch_first: self.batch_first,
            reverse: self.reverse,
            clip: self.clip,
            input_forget: self.input_forget,
            gate_activation: self.gate_activation.clone(),
            cell_activation: self.cell_activation.clone(),
            hidden_activation: self.hidden_activation.clone(),
        })
    }
}

impl From<Lstm> for QuantLstm {
    fn from(layer: Lstm) -> Self {
        Self {
            input_gate: layer.input_gate.into(),
            forget_gate: layer.forget_gate.map(Into::into),
            output_gate: layer.output_gate.into(),
            cell_gate: layer.cell_gate.into(),
            d_hidden: layer.d_hidden,
            batch_first: layer.batch_first,
            reverse: layer.reverse,
            clip: layer.clip,
            input_forget: layer.input_forget,
            gate_activation: layer.gate_activation,
            cell_activation: layer.cell_activation,
            hidden_activation: layer.hidden_activation,
        }
    }
}

/// burn's [`BiLstm`] of quantized layers.
#[derive(Module, Debug)]
pub struct QuantBiLstm {
    /// The layer that reads a sequence from its beginning.
    pub forward: QuantLstm,
    /// The layer that reads it from its end.
    pub reverse: QuantLstm,
    /// Features of the hidden state.
    pub d_hidden: usize,
    /// Whether the batch comes before the steps.
    pub batch_first: bool,
}

impl QuantBiLstm {
    /// The hidden states of both layers, `2 · d_hidden` features, and the last states, `[2, batch, d_hidden]`.
    ///
    /// The second layer reads the sequence from its end.
    pub fn forward(&self, batched_input: Tensor<3>, state: Option<LstmState<3>>) -> (Tensor<3>, LstmState<3>) {
        let input = batch_first(batched_input, self.batch_first);
        let state = |i: usize| state.clone().map(|state| state.map_state(|x| x.narrow(0, i, 1).squeeze_dim(0)));
        let (forward, last_forward) = self.forward.along(input.clone(), state(0), Order::Forward);
        let (reverse, last_reverse) = self.reverse.along(input, state(1), Order::Reverse);
        let states = Tensor::cat(vec![forward, reverse], 2);
        (batch_first(states, self.batch_first), LstmState::stack(vec![last_forward, last_reverse], 0))
    }

    /// Returns burn's layer, which computes the same.
    ///
    /// # Errors
    ///
    /// [`QuantError::NotBurn`] if an activation quantizer is enabled, which burn's layer lacks.
    pub fn to_burn(&self) -> Result<BiLstm, QuantError> {
        Ok(BiLstm {
            forward: self.forward.to_burn()?,
            reverse: self.reverse.to_burn()?,
            d_hidden: self.d_hidden,
            batch_first: self.batch_first,
        })
    }
}

impl From<BiLstm> for QuantBiLstm {
    fn from(layer: BiLstm) -> Self {
        Self {
            forward: layer.forward.into(),
            reverse: layer.reverse.into(),
            d_hidden: layer.d_hidden,
            batch_first: layer.batch_first,
        }
    }
}
