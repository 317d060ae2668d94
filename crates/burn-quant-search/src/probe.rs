//! What a search sees of a layer: its input, and the gradient at its output.
//!
//! ```text
//! y = product(x, W) + bias + probe,   probe = 0        ∂L/∂probe = ∂L/∂y
//! ```
//!
//! Nothing is evaluated while the graph is alive: after the backward pass each candidate is one more product, so memory
//! does not grow with the number of candidates.

use std::sync::{Mutex, PoisonError};

use burn::tensor::{DType, Gradients, Tensor};

use super::operand::QuantizedLayerView;
use burn_quant_core::model::host;
use burn_quant_core::quantizer::TensorQuantizer;
use burn_quant_core::quantizer::{AnyTensor, Flow, LayerCall, Product, Tap};

/// Records the calls of one layer, which computes in float.
#[derive(Debug, Default)]
pub(crate) struct GradientTap {
    calls: Mutex<Vec<RecordedCall>>,
}

impl GradientTap {
    /// What was recorded since the last call.
    pub(crate) fn take(&self) -> Vec<RecordedCall> {
        std::mem::take(&mut *self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Tap for GradientTap {
    fn input(&self, _: &TensorQuantizer, _: &AnyTensor) -> Flow {
        Flow::Bypass
    }

    fn watches_layer(&self) -> bool {
        true
    }

    fn layer(&self, call: LayerCall) -> AnyTensor {
        let output = call.output.flat();
        // one number that is read everywhere: the gradient is that of the whole output
        let probe = Tensor::<1>::zeros([1], (&output.device(), output.dtype())).expand(output.dims()).require_grad();
        let input = AnyTensor::new(call.input.flat().detach(), call.input.shape().to_vec());
        let recorded = RecordedCall { input, probe: probe.clone(), product: call.product };
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(recorded);
        AnyTensor::new(output + probe, call.output.shape().to_vec())
    }
}

/// One call of a layer.
pub(crate) struct RecordedCall {
    input: AnyTensor,
    probe: Tensor<1>,
    product: Product,
}

impl std::fmt::Debug for RecordedCall {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RecordedCall({:?})", self.input.shape())
    }
}

/// Sums of squares of one layer, in units of the square of `largest`: numbers, whatever the loss is multiplied by.
pub(crate) struct ScaledSquares {
    /// The largest gradient, `[1]`.
    largest: Tensor<1>,
    /// One sum for each candidate, `[1]`.
    sums: Vec<Tensor<1>>,
}

impl ScaledSquares {
    /// Adds both, in units of the larger.
    pub(crate) fn plus(self, other: Self) -> Self {
        let largest = self.largest.clone().max_pair(other.largest.clone());
        let square_of_share = |unit: Tensor<1>| {
            let share = unit / largest.clone();
            share.clone() * share
        };
        let (own, others) = (square_of_share(self.largest), square_of_share(other.largest));
        let sums = self.sums.into_iter().zip(other.sums).map(|(a, b)| a * own.clone() + b * others.clone());
        Self { sums: sums.collect(), largest }
    }

    /// Brings the sums to the host, in the units of the loss.
    pub(crate) fn on_host(self) -> Vec<f64> {
        let largest = f64::from(host(self.largest)[0]);
        self.sums.into_iter().map(|sum| f64::from(host(sum)[0]) * largest * largest).collect()
    }
}

impl RecordedCall {
    /// For each candidate `Σ (G ⊙ Δ)²` of what it changes the output by; `None` if the loss does not depend on it.
    ///
    /// Gradients are divided by the largest first: a loss that is multiplied by 1e20 ranks the candidates as before.
    pub(crate) fn squares(
        &self,
        gradients: &Gradients,
        float: &QuantizedLayerView,
        candidates: &[QuantizedLayerView],
    ) -> Option<ScaledSquares> {
        let gradient = self.probe.grad(gradients)?.cast(DType::F32);
        let largest = gradient.clone().abs().max().clamp_min(f32::MIN_POSITIVE);
        let gradient = gradient / largest.clone();
        let wide = |y: AnyTensor| y.flat().without_autodiff().cast(DType::F32);
        let before = wide(float.output(&self.input, &self.product));
        let square = |candidate: &QuantizedLayerView| {
            let change = wide(candidate.output(&self.input, &self.product)) - before.clone();
            let term = gradient.clone() * change;
            (term.clone() * term).sum()
        };
        Some(ScaledSquares { sums: candidates.iter().map(square).collect(), largest })
    }
}
