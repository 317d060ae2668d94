//! AWQ: salient input channels are multiplied up before the weight is rounded, by the exponent that harms outputs
//! least.
//!
//! ```text
//! x̄_c = mean_t |x_tc|     w̄_c = mean_o |W[c,o]| / max |block of W with W[c,o]|
//! s(α)_c = x̄_c^α / w̄_c^(1−α), clamped to 1e-4 ... 1e4, divided by √(max s · min s)
//! α* = argmin_α tr(ΔᵀGΔ),   Δ = Q(s ⊙ W) / s − W,   α = 0, step, 2·step, ... 1
//! x ← x / s,  W ← s ⊙ W
//! ```
//!
//! Source: Lin et al. 2024, "AWQ", arXiv:2306.00978, §3.2; ModelOpt 0.47, `awq_lite`, which runs the layer once per α
//! and batch; the Gram matrix `G` of the inputs gives the same sum of squares without running it. Ties go to the
//! smallest α. Our choices: every token has the same weight, where in ModelOpt every call has; exponents end at the
//! last multiple of the step that is at most 1, where ModelOpt's go on to the next; a layer that no exponent makes
//! better stays unsmoothed ([`Identity`]). Activations are not quantized in the search. Of a chain of quantizers the
//! first is searched with.

use burn::tensor::{DType, Tensor};
use burn_quant_ops::{Groups, group_amax};

use super::decimal;
use super::{CalibrationAlgorithm, LayerProblem, SkipReason, Solution, Stage, host};
use crate::config::{Identity, SiblingScales};
use crate::observe::InputStatistics;
use burn_quant_core::config::Granularity;
use burn_quant_core::quantizer::TensorQuantizer;

/// The scales that are used.
const SCALES: (f32, f32) = (1e-4, 1e4);

/// AWQ-lite of a layer, or of siblings.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AwqLite {
    pub(crate) alpha_step: f32,
    pub(crate) sharing: SiblingScales,
    pub(crate) identity: Identity,
}

impl CalibrationAlgorithm for AwqLite {
    fn name(&self) -> &str {
        "awq_lite"
    }

    fn stage(&self) -> Stage {
        Stage::Smooth
    }

    fn inputs(&self) -> Option<InputStatistics> {
        Some(InputStatistics::Gram)
    }

    fn layer(&self, layer: &LayerProblem) -> Result<Solution, SkipReason> {
        self.together(std::slice::from_ref(layer))?.pop().expect("one solution per layer")
    }

    fn siblings(&self, layers: &[LayerProblem]) -> Vec<Result<Solution, SkipReason>> {
        let together = match self.sharing {
            SiblingScales::Shared => self.together(layers).ok(),
            SiblingScales::PerLayer => None,
        };
        together.unwrap_or_else(|| layers.iter().map(|layer| self.layer(layer)).collect())
    }
}

impl AwqLite {
    /// One scale for layers with the same inputs.
    fn together(&self, layers: &[LayerProblem]) -> Result<Vec<Result<Solution, SkipReason>>, SkipReason> {
        for layer in layers {
            layer.gram()?;
            layer.can_smooth()?;
        }
        let inputs = host(layers[0].input()?.mean_abs.clone());
        let weights = relative_weights(layers);
        let device = layers[0].weight().device();
        let scales: Vec<(f32, Tensor<1>)> = exponents(self.alpha_step)
            .map(|alpha| {
                let scale = awq_scale(&inputs, &weights, alpha);
                (alpha, Tensor::<1>::from_data(scale.as_slice(), (&device, DType::F32)))
            })
            .collect();
        let searched: Vec<TensorQuantizer> = layers.iter().map(|layer| first_stage(layer.weight_quantizer())).collect();
        let mut best: Option<(f32, usize)> = None;
        for i in from_the_middle(scales.len()) {
            let limit = best.map_or(f32::INFINITY, |(least, _)| least);
            let Some(loss) = loss(layers, &searched, &scales[i].1, limit) else { continue };
            // of equals the smallest exponent
            if best.is_none_or(|(least, chosen)| loss < least || loss == least && i < chosen) {
                best = Some((loss, i));
            }
        }
        let (least, best) = best.ok_or(SkipReason::NoGain)?;
        let ones = || Tensor::ones([inputs.len()], (&device, DType::F32));
        // a loss that is not above the limit comes back
        if self.identity == Identity::Tried && loss(layers, &searched, &ones(), least).is_some() {
            return Err(SkipReason::NoGain);
        }
        let (alpha, scale) = &scales[best];
        let factor = scale.clone().recip();
        Ok(layers
            .iter()
            .map(|layer| Ok(Solution::new(layer.smoothed(factor.clone())?).with_choice("alpha", *alpha)))
            .collect())
    }
}

/// The scale of each channel, what its weights are multiplied by, for an exponent.
fn awq_scale(inputs: &[f32], weights: &[f32], alpha: f32) -> Vec<f32> {
    let scale = |(x, w): (&f32, &f32)| {
        let scale = x.powf(alpha) / (w.powf(1.0 - alpha) + f32::MIN_POSITIVE);
        scale.clamp(SCALES.0, SCALES.1)
    };
    let scales: Vec<f32> = inputs.iter().zip(weights).map(scale).collect();
    let (low, high) = scales.iter().fold((f32::INFINITY, 0f32), |(low, high), s| (low.min(*s), high.max(*s)));
    let middle = (low * high).sqrt();
    scales.iter().map(|scale| scale / middle).collect()
}

/// 0, step, 2·step, ... up to 1; the step is meant as the decimal number that it prints as.
fn exponents(step: f32) -> impl Iterator<Item = f32> {
    let step = decimal(step);
    (0..).map(move |k| (f64::from(k) * step) as f32).take_while(|alpha| *alpha <= 1.0 + 1e-6)
}

/// The mean over outputs of the magnitude of each channel's weights, relative to their blocks.
fn relative_weights(layers: &[LayerProblem]) -> Vec<f32> {
    let mut sum: Option<Tensor<1>> = None;
    let mut outputs = 0;
    for layer in layers {
        let weight = layer.weight();
        let [rows, columns] = weight.dims();
        let block = match layer.weight_quantizer().config().granularity {
            Granularity::Block { size } => size.min(rows),
            _ => rows,
        };
        let groups = Groups::blocks(&[rows, columns], 0, block);
        let amax =
            burn_quant_core::quantizer::groups::spread_over_groups::<2>(group_amax(weight.clone(), &groups), &groups);
        let part = (weight.abs() / (amax + f32::MIN_POSITIVE)).sum_dim(1).reshape([rows]);
        outputs += columns;
        sum = Some(match sum {
            None => part,
            Some(sum) => sum + part,
        });
    }
    host(sum.expect("at least one layer") / outputs as f32)
}

/// A quantizer without its chain.
pub(super) fn first_stage(quantizer: &TensorQuantizer) -> TensorQuantizer {
    let mut first = quantizer.clone();
    let mut config = first.config().clone();
    if !config.then.is_empty() {
        config.then.clear();
        first.set_config(config);
    }
    first
}

/// Indices from the middle outwards: where the best exponent is likely, so that most others are given up early.
fn from_the_middle(len: usize) -> impl Iterator<Item = usize> {
    let middle = len / 2;
    (0..=len)
        .flat_map(move |i| [middle.checked_sub(i), Some(middle + i).filter(|_| i > 0)])
        .flatten()
        .filter(move |i| *i < len)
}

/// The error of all layers, or `None` if it is above a limit.
fn loss(layers: &[LayerProblem], searched: &[TensorQuantizer], scale: &Tensor<1>, limit: f32) -> Option<f32> {
    let scale = scale.clone().unsqueeze_dim::<2>(1);
    layers.iter().zip(searched).try_fold(0.0, |sum, (layer, quantizer)| {
        let scaled = layer.weight() * scale.clone();
        let rounded = layer.quantize(&layer.calibrate_max(quantizer, scaled.clone()), scaled);
        let change = rounded / scale.clone() - layer.weight();
        Some(sum + layer.gram().ok()?.error_up_to(change, limit - sum)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exponent_is_tried_once_and_the_last_is_one() {
        assert_eq!(from_the_middle(5).collect::<Vec<_>>(), [2, 1, 3, 0, 4]);
        assert_eq!(from_the_middle(4).collect::<Vec<_>>(), [2, 1, 3, 0]);
        assert_eq!(exponents(0.1).last(), Some(1.0));
        assert_eq!(exponents(0.1).count(), 11);
        assert_eq!(exponents(0.3).collect::<Vec<_>>(), [0.0, 0.3, 0.6, 0.9], "decimal numbers, rounded once");
    }
}
