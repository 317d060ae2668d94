//! The loss of a student against the outputs of a teacher.
//!
//! ```text
//! L = w · T² · KL( softmax(t / T) ‖ softmax(s / T) ) + (1 − w) · L_task        mean over examples
//! ```
//!
//! Source: Hinton, Vinyals, Dean 2015, "Distilling the Knowledge in a Neural Network", arXiv:1503.02531, §2; ModelOpt
//! 0.47, logits distillation, whose temperature is 1 and whose loss is not multiplied by `T²`.

use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;

use burn_quant_ops::relative_entropy;

/// Learns the distribution of a teacher over classes or tokens.
///
/// The teacher is usually the float model itself, before it is quantized, in validation mode: `model.valid()`.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] {
/// use burn::tensor::{Device, Tensor};
/// use burn_quant::train::Distillation;
///
/// let logits = |values| Tensor::<2>::from_data([values], &Device::flex());
/// let loss = Distillation::new(2.0).loss(logits([1.0, 3.0]), logits([1.0, 3.0]));
/// assert_eq!(loss.into_scalar::<f32>(), 0.0); // there is nothing to learn
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Distillation {
    temperature: f64,
    weight: f64,
}

impl Distillation {
    /// The loss at a temperature: the higher, the more the teacher's unlikely answers count.
    ///
    /// # Panics
    ///
    /// Unless the temperature is positive and finite.
    pub fn new(temperature: f64) -> Self {
        assert!(temperature > 0.0 && temperature.is_finite(), "Distillation: a temperature is positive and finite");
        Self { temperature, weight: 1.0 }
    }

    /// The share of this loss in [`with_task`](Distillation::with_task).
    ///
    /// # Panics
    ///
    /// Unless it is from 0 to 1.
    pub fn with_weight(mut self, weight: f64) -> Self {
        assert!((0.0..=1.0).contains(&weight), "Distillation: a weight is from 0 to 1");
        self.weight = weight;
        self
    }

    /// The loss, `[1]`, of logits `[..., classes]`; no gradient reaches the teacher.
    ///
    /// Classes that the teacher rules out by a logit of -∞, as a mask does, add nothing.
    ///
    /// # Panics
    ///
    /// If the shapes differ.
    pub fn loss<const D: usize>(&self, student: Tensor<D>, teacher: Tensor<D>) -> Tensor<1> {
        assert_eq!(student.dims(), teacher.dims(), "Distillation: student and teacher have logits of one shape");
        let teacher = log_softmax(teacher.detach() / self.temperature, D - 1);
        let student = log_softmax(student / self.temperature, D - 1);
        let divergence = relative_entropy(teacher, student).sum_dim(D - 1);
        divergence.mean() * (self.temperature * self.temperature)
    }

    /// The loss together with that of the task, by their weights.
    ///
    /// # Panics
    ///
    /// As [`loss`](Distillation::loss).
    pub fn with_task<const D: usize>(&self, student: Tensor<D>, teacher: Tensor<D>, task: Tensor<1>) -> Tensor<1> {
        self.loss(student, teacher) * self.weight + task * (1.0 - self.weight)
    }
}
