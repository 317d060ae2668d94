//! AdaRound: whether a weight is rounded up or down is learned, against the error of the layer's outputs.
//!
//! ```text
//! Ŵ = s · clamp(⌊W/s⌋ + h(V), lo, hi)      h(V) = clamp(1.2·σ(V) − 0.1, 0, 1)
//! minimize tr(ΔᵀGΔ) / E₀ + λ · mean(1 − |2h(V) − 1|^β),   Δ = Ŵ − W
//! ```
//!
//! `E₀` is the error of rounding to the nearest, so that `λ` means the same for every layer; `β` falls from 20 to 2,
//! and the second term begins after a fifth of the steps. Adam with a rate of 0.01 descends; the gradient of the first
//! term is `2GΔ`, in closed form, so neither data nor automatic differentiation is needed. In the end each `h` is
//! decided at one half; a layer whose error did not fall keeps the nearest.
//!
//! Source: Nagel et al. 2020, "Up or Down? Adaptive Rounding for Post-Training Quantization", arXiv:2004.10568, eqs.
//! 21-25. There the loss is that of batches of the layer's outputs; with the Gram matrix it is that of all data at
//! once.

use burn::tensor::Tensor;
use burn::tensor::activation::sigmoid;
use burn_quant_ops::numerics::{Format, ScaleFormat};

use super::awq_clip::element_amax;
use super::{CalibrationAlgorithm, LayerProblem, SkipReason, Solution, Stage, host};
use crate::observe::{Gram, InputStatistics};
use burn_quant_core::config::RangeSource;

const RATE: f32 = 0.01;
const WARM_UP: f32 = 0.2;
const BETA: (f32, f32) = (20.0, 2.0);
/// The ends that `h` is stretched to before it is clamped.
const STRETCH: (f32, f32) = (-0.1, 1.1);

/// AdaRound of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AdaRound {
    pub(crate) iterations: usize,
    pub(crate) regularization: f32,
}

impl CalibrationAlgorithm for AdaRound {
    fn name(&self) -> &str {
        "adaround"
    }

    fn stage(&self) -> Stage {
        Stage::Round
    }

    fn inputs(&self) -> Option<InputStatistics> {
        Some(InputStatistics::Gram)
    }

    fn supports_pointwise(&self) -> bool {
        true
    }

    fn layer(&self, layer: &LayerProblem) -> Result<Solution, SkipReason> {
        layer.weight_groups()?;
        let quantizer = layer.weight_quantizer();
        let config = quantizer.config();
        let (Format::Int(format), ScaleFormat::F32) = (config.format, config.scale) else {
            return Err(SkipReason::NotInteger);
        };
        if config.bias.is_some() {
            return Err(SkipReason::WeightBias);
        }
        let amax = match (config.range, quantizer.amax()) {
            (RangeSource::Static, Some(amax)) => element_amax(layer, quantizer, amax),
            (RangeSource::Constant(amax), _) => layer.weight().full_like(amax),
            _ => return Err(SkipReason::DynamicRange),
        };
        let grid = format.grid();
        let step = amax / grid.hi() as f32;
        // a range of zero has one value
        let step = step.clone().mask_fill(step.equal_elem(0.0), 1.0);
        let problem = Problem {
            gram: layer.gram()?,
            weight: layer.weight(),
            floor: (layer.weight() / step.clone()).floor().clamp(grid.lo() as f32, grid.hi() as f32),
            ends: (grid.lo() as f32, grid.hi() as f32),
            step,
        };
        let nearest = layer.quantized_weight();
        let rounded = problem.rounded(self.learned(&problem, nearest.clone()));
        let candidate = layer.with_weight(rounded);
        let error = |weight: Tensor<2>| problem.gram.error(weight - layer.weight());
        let errors = host(Tensor::cat(vec![error(nearest), error(candidate.quantized_weight())], 0));
        if errors[1] >= errors[0] || errors[1].is_nan() {
            return Err(SkipReason::NoGain);
        }
        Ok(Solution::new(candidate))
    }
}

struct Problem<'a> {
    gram: &'a Gram,
    weight: Tensor<2>,
    /// In units of the step.
    floor: Tensor<2>,
    step: Tensor<2>,
    ends: (f32, f32),
}

impl Problem<'_> {
    /// The weight for a share `h` of the step up.
    fn soft(&self, up: Tensor<2>) -> Tensor<2> {
        (self.floor.clone() + up).clamp(self.ends.0, self.ends.1) * self.step.clone()
    }

    fn rounded(&self, logits: Tensor<2>) -> Tensor<2> {
        let up = share(&logits).greater_equal_elem(0.5).float().cast(self.step.dtype());
        self.soft(up)
    }
}

/// `h(V)`.
fn share(logits: &Tensor<2>) -> Tensor<2> {
    (sigmoid(logits.clone()) * (STRETCH.1 - STRETCH.0) + STRETCH.0).clamp(0.0, 1.0)
}

impl AdaRound {
    /// `V`.
    fn learned(&self, problem: &Problem<'_>, nearest: Tensor<2>) -> Tensor<2> {
        let elements = problem.weight.dims().iter().product::<usize>() as f32;
        let unit = problem.gram.error(nearest - problem.weight.clone()).unsqueeze::<2>() + f32::MIN_POSITIVE;
        let fraction = (problem.weight.clone() / problem.step.clone() - problem.floor.clone()).clamp(0.01, 0.99);
        let sigma = (fraction - STRETCH.0) / (STRETCH.1 - STRETCH.0);
        let mut logits = -(sigma.recip() - 1.0).log();
        let (mut mean, mut square) = (logits.zeros_like(), logits.zeros_like());
        let warm_up = (self.iterations as f32 * WARM_UP) as usize;
        for i in 0..self.iterations {
            let sigma = sigmoid(logits.clone());
            let stretched = sigma.clone() * (STRETCH.1 - STRETCH.0) + STRETCH.0;
            let up = stretched.clone().clamp(0.0, 1.0);
            let change = problem.soft(up.clone()) - problem.weight.clone();
            // d error / d h, as if nothing were clamped: elements at the ends are decided by the other side
            let error = problem.gram.product(change) * problem.step.clone() * 2.0 / unit.clone();
            let slope = if i < warm_up {
                error
            } else {
                let done = (i - warm_up) as f32 / (self.iterations - warm_up).max(1) as f32;
                let beta = BETA.1 + (BETA.0 - BETA.1) * (1.0 - done);
                // d/dh of 1 − |2h − 1|^β
                let side = up * 2.0 - 1.0;
                let push = side.clone().abs().powf_scalar(beta - 1.0) * side.sign() * (-2.0 * beta);
                error + push * (self.regularization / elements)
            };
            let inside = stretched.clone().greater_elem(0.0).bool_and(stretched.lower_elem(1.0)).float();
            let gradient = slope * inside * sigma.clone() * (-sigma + 1.0) * (STRETCH.1 - STRETCH.0) * elements;
            let step = i as i32 + 1;
            mean = mean * 0.9 + gradient.clone() * 0.1;
            square = square * 0.999 + gradient.clone() * gradient * 0.001;
            let (first, second) = (1.0 - 0.9f32.powi(step), 1.0 - 0.999f32.powi(step));
            logits = logits - mean.clone() / first / ((square.clone() / second).sqrt() + 1e-8) * RATE;
        }
        logits
    }
}
