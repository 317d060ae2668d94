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

use super::TensorQuantizer;

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

/// A layer in one of the formats that it could have.
#[derive(Clone, Debug)]
pub(crate) struct Operand {
    /// The weight before it is quantized, as one row, and its shape.
    pub(crate) weight: (Tensor<1>, Vec<usize>),
    pub(crate) weight_quantizer: Option<TensorQuantizer>,
    pub(crate) input_quantizer: Option<TensorQuantizer>,
    /// What is added to the bias, `[channels]`.
    pub(crate) bias: Option<Tensor<1>>,
}

impl Operand {
    fn weight<const W: usize>(&self) -> Tensor<W> {
        let (values, shape) = &self.weight;
        let shape: [usize; W] = shape.as_slice().try_into().expect("a layer reports a weight of its own rank");
        let weight = values.clone().reshape(shape);
        match &self.weight_quantizer {
            Some(quantizer) => quantizer.forward(weight),
            None => weight,
        }
    }

    /// Its weight as it is quantized, as one row.
    pub(crate) fn quantized_weight(&self) -> Tensor<1> {
        fn of<const W: usize>(operand: &Operand) -> Tensor<1> {
            operand.weight::<W>().reshape([operand.weight.0.dims()[0]]).cast(DType::F32)
        }
        match self.weight.1.len() {
            1 => of::<1>(self),
            2 => of::<2>(self),
            3 => of::<3>(self),
            4 => of::<4>(self),
            _ => of::<5>(self),
        }
    }

    /// What it makes of an input.
    pub(crate) fn output<const D: usize, const W: usize>(
        &self,
        input: &Tensor<D>,
        product: &dyn Fn(Tensor<D>, Tensor<W>) -> Tensor<D>,
    ) -> Tensor<D> {
        let input = input.clone();
        let (branch, quantized) = match &self.input_quantizer {
            Some(quantizer) => (quantizer.low_rank(input.clone()), quantizer.forward(input)),
            None => (None, input),
        };
        let mut output = product(quantized, self.weight());
        if let Some(branch) = branch {
            output = output + branch;
        }
        if let (Some(bias), Some(quantizer)) = (&self.bias, &self.input_quantizer) {
            let mut shape = [1; D];
            shape[quantizer.role().channel_axis(D)] = bias.dims()[0];
            output = output + bias.clone().reshape(shape);
        }
        output
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
