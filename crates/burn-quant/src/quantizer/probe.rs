//! What a search sees of a layer: its input, and the gradient at its output.
//!
//! ```text
//! y = product(x, W) + bias + probe,   probe = 0        ∂L/∂probe = ∂L/∂y
//! ```
//!
//! No hook is needed, and nothing is evaluated while the graph is alive: after the backward pass each candidate is one more
//! product, so memory does not grow with the number of candidates.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{DType, Gradients, Tensor};

use super::Operand;

/// A handle to what was recorded of one layer; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Prober {
    records: Arc<Mutex<Vec<Box<dyn Record>>>>,
}

impl std::fmt::Debug for Prober {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Prober")
    }
}

impl Prober {
    /// What was recorded since the last call.
    pub(crate) fn take(&self) -> Vec<Box<dyn Record>> {
        std::mem::take(&mut *self.records.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn record<const D: usize, const W: usize>(
        &self,
        input: Tensor<D>,
        output: Tensor<D>,
        product: impl Fn(Tensor<D>, Tensor<W>) -> Tensor<D> + Send + 'static,
    ) -> Tensor<D> {
        let (dtype, shape) = (output.dtype(), output.dims());
        // one number that is read everywhere: the gradient is that of the whole output
        let probe = Tensor::<1>::zeros([1], (&output.device(), dtype)).reshape([1; D]).expand(shape).require_grad();
        let record = Recorded { input: input.detach(), probe: probe.clone(), product };
        self.records.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(record));
        output + probe
    }
}

/// One call of a layer.
pub(crate) trait Record: Send {
    /// For each candidate `Σ clamp(G ⊙ Δ)²`, `[1]`, of what it changes the output by; `None` if the loss does not depend on it.
    fn squares(&self, gradients: &Gradients, float: &Operand, candidates: &[Operand]) -> Option<Vec<Tensor<1>>>;
}

struct Recorded<const D: usize, const W: usize, F> {
    input: Tensor<D>,
    probe: Tensor<D>,
    product: F,
}

/// What a term may be at most, so that its square is a number.
const LARGEST: f32 = 1e10;

impl<const D: usize, const W: usize, F> Record for Recorded<D, W, F>
where
    F: Fn(Tensor<D>, Tensor<W>) -> Tensor<D> + Send,
{
    fn squares(&self, gradients: &Gradients, float: &Operand, candidates: &[Operand]) -> Option<Vec<Tensor<1>>> {
        let gradient = self.probe.grad(gradients)?.cast(DType::F32);
        let wide = |y: Tensor<D>| y.without_autodiff().cast(DType::F32);
        let before = wide(float.output(&self.input, &self.product));
        let square = |candidate: &Operand| {
            let change = wide(candidate.output(&self.input, &self.product)) - before.clone();
            let term = (gradient.clone() * change).clamp(-LARGEST, LARGEST);
            (term.clone() * term).sum()
        };
        Some(candidates.iter().map(square).collect())
    }
}
