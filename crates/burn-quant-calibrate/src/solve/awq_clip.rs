//! AWQ's second half: the range of each block is shrunk to the share of it that harms outputs least.
//!
//! ```text
//! A·r*,  r* = argmin_r  δᵀ G_bb δ,    δ = Q(W_b; A·r) − W_b,    r = 1, ... min + step, min
//! ```
//!
//! `W_b` are the weights of a block, `G_bb` the block of the Gram matrix that belongs to them; `A` is the range by
//! `max`. Where block scales are dynamic under one range of the tensor, that range is shrunk, against the error of the
//! whole output. Shares are rounded to two decimals.
//!
//! Source: Lin et al. 2024, "AWQ", arXiv:2306.00978, and its published code; ModelOpt 0.47, `awq_clip`.
//! Our choices: all tokens count, where ModelOpt takes about 64 of each call; of equal errors the largest share wins,
//! where ModelOpt takes the smallest, which halves the range of a block whose inputs were zero.

use burn::tensor::Tensor;
use burn_quant_ops::numerics::{BlockScale, ScaleFormat};

use super::awq_lite::first_stage;
use super::{CalibrationAlgorithm, LayerProblem, SkipReason, Solution, Stage, decimal, host};
use crate::observe::InputStatistics;
use burn_quant_core::config::Granularity;
use burn_quant_core::quantizer::groups::spread_over_groups;
use burn_quant_core::quantizer::{Buffer, TensorQuantizer};

/// AWQ-clip of a layer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AwqClip {
    pub(crate) min_clip_ratio: f32,
    pub(crate) shrink_step: f32,
}

impl CalibrationAlgorithm for AwqClip {
    fn name(&self) -> &str {
        "awq_clip"
    }

    fn stage(&self) -> Stage {
        Stage::Clip
    }

    fn inputs(&self) -> Option<InputStatistics> {
        Some(InputStatistics::Gram)
    }

    fn layer(&self, layer: &LayerProblem) -> Result<Solution, SkipReason> {
        layer.gram()?;
        let fitted = layer.with_max_weight_range();
        let quantizer = first_stage(fitted.weight_quantizer());
        let config = quantizer.config();
        if config.rotation.is_some() {
            return Err(SkipReason::Rotated);
        }
        let Granularity::Block { size } = config.granularity else { return Err(SkipReason::NoBlocks) };
        if !config.has_static_range() {
            return Err(SkipReason::DynamicRange);
        }
        let ratios = ratios(self.min_clip_ratio, self.shrink_step);
        let (amax, mean) = match config.scale {
            ScaleFormat::E4M3(BlockScale::Dynamic) => of_tensor(&fitted, &quantizer, &ratios)?,
            _ => of_blocks(&fitted, &quantizer, size, &ratios)?,
        };
        let mut clipped = fitted.weight_quantizer().clone();
        clipped.set_amax(amax);
        Ok(Solution::new(fitted.with_weight_quantizer(clipped)).with_choice("mean clip ratio", host(mean)[0]))
    }
}

/// 1, and min, min + step, ... below 1, in hundredths; the largest first, as the first of equals wins.
fn ratios(min: f32, step: f32) -> Vec<f32> {
    let (min, step) = (decimal(min), decimal(step));
    let below = (0..).map(|k: i32| min + f64::from(k) * step).take_while(|ratio| *ratio < 1.0 - 1e-9);
    let mut ratios: Vec<f32> = below.map(|ratio| ((ratio * 100.0).round_ties_even() / 100.0) as f32).collect();
    ratios.push(1.0);
    ratios.reverse();
    ratios.dedup();
    ratios
}

/// The range of each block, and the mean share.
fn of_blocks(
    layer: &LayerProblem,
    quantizer: &TensorQuantizer,
    size: usize,
    ratios: &[f32],
) -> Result<(Tensor<1>, Tensor<1>), SkipReason> {
    let amax = quantizer.amax().expect("it was calibrated");
    let (weight, gram) = (layer.weight(), layer.gram()?.diagonal_blocks(size));
    let losses = |candidate: &TensorQuantizer| {
        let change = layer.quantize(candidate, weight.clone()) - weight.clone();
        block_losses(layer, change, &gram)
    };
    let ratio = best_of(quantizer, &amax, ratios, losses);
    Ok((amax * ratio.clone(), ratio.mean()))
}

/// `δᵀ G_bb δ` of each block, in the order of the quantizer's ranges.
pub(super) fn block_losses(layer: &LayerProblem, change: Tensor<2>, gram: &Tensor<3>) -> Tensor<1> {
    let [inputs, outputs] = change.dims();
    let [blocks, size, _] = gram.dims();
    let padded = match blocks * size - inputs {
        0 => change,
        missing => {
            let zeros = Tensor::zeros([missing, outputs], (&change.device(), change.dtype()));
            Tensor::cat(vec![change, zeros], 0)
        }
    };
    let change: Tensor<3> = padded.reshape([blocks, size, outputs]);
    let losses: Tensor<2> = (gram.clone().matmul(change.clone()) * change).sum_dim(1).reshape([blocks, outputs]);
    layer.native(losses).reshape([blocks * outputs])
}

/// The factor of each range whose loss is least; the first of equals.
pub(super) fn best_of(
    quantizer: &TensorQuantizer,
    amax: &Tensor<1>,
    factors: &[f32],
    losses: impl Fn(&TensorQuantizer) -> Tensor<1>,
) -> Tensor<1> {
    let mut candidate = quantizer.clone();
    let mut best: Option<(Tensor<1>, Tensor<1>)> = None;
    for factor in factors {
        candidate.set_amax(amax.clone() * *factor);
        let loss = losses(&candidate);
        best = Some(match best {
            None => (loss.clone(), loss.full_like(*factor)),
            Some((least, chosen)) => {
                let better = loss.clone().lower(least.clone());
                (least.mask_where(better.clone(), loss), chosen.mask_fill(better, *factor))
            }
        });
    }
    best.expect("at least one factor").1
}

/// The range of the tensor, against the error of the whole output.
fn of_tensor(
    layer: &LayerProblem,
    quantizer: &TensorQuantizer,
    ratios: &[f32],
) -> Result<(Tensor<1>, Tensor<1>), SkipReason> {
    let amax = quantizer.buffer(Buffer::Amax).expect("it was calibrated");
    let (weight, gram) = (layer.weight(), layer.gram()?);
    let losses = |candidate: &TensorQuantizer| gram.error(layer.quantize(candidate, weight.clone()) - weight.clone());
    let ratio = best_of(quantizer, &amax, ratios, losses);
    Ok((amax * ratio.clone(), ratio))
}

/// The range of each element of a weight, `[in, out]`.
pub(super) fn element_amax(layer: &LayerProblem, quantizer: &TensorQuantizer, amax: Tensor<1>) -> Tensor<2> {
    layer.native(spread_over_groups::<2>(amax, &layer.native_groups(quantizer)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_hundredths_from_the_largest_down() {
        let reference = [1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5];
        assert_eq!(ratios(0.5, 0.05), reference);
        assert_eq!(ratios(0.95, 0.025), [1.0, 0.98, 0.95], "0.975 is rounded half to even");
    }
}
