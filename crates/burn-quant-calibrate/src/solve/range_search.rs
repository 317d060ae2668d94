//! The range of each group of a weight, by search.
//!
//! ```text
//! amax* = argmin_k  ‖W − Q(W; amax_k)‖²                     mse
//! amax* = argmin_k  δᵀ G_bb δ,   δ = W_b − Q(W_b; amax_k)   local Hessian: the block's share of the error
//! amax_k = m_k · amax           m from start to stop, and 1;   or
//! amax_k = global · v / 448     for every positive E4M3 value v: all scales that a block of static NVFP4 can have
//! ```
//!
//! The first of equal losses wins.
//!
//! Source: ModelOpt 0.47, `mse` and `local_hessian`. Our choices: 1 is among the multipliers, so that no weight gets
//! worse than by `max`; there the default steps miss it. As there, the local Hessian is the squared error where there
//! is no Gram matrix of whole blocks: ragged inputs, convolutions, layers without data. Blocks that are not those of
//! the quantizer are refused; there they are a warning.

use burn::tensor::{DType, Tensor};
use burn_quant_ops::numerics::{BlockScale, Minifloat, ScaleFormat};

use super::awq_clip::{best_of, block_losses};
use super::{CalibrationAlgorithm, KernelProblem, LayerProblem, SkipReason, Solution, Stage, decimal};
use crate::config::{IncludeMax, RangeSearch};
use crate::observe::InputStatistics;
use burn_quant_core::config::Granularity;
use burn_quant_core::quantizer::groups::group_sums;
use burn_quant_core::quantizer::{Buffer, TensorQuantizer};
use burn_quant_core::with_rank;

/// Least squared error of a weight.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mse {
    pub(crate) search: RangeSearch,
}

/// Least error of a weight's outputs, block by block.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalHessian {
    pub(crate) search: RangeSearch,
    pub(crate) block_size: usize,
}

impl CalibrationAlgorithm for Mse {
    fn name(&self) -> &str {
        "mse"
    }

    fn stage(&self) -> Stage {
        Stage::Clip
    }

    fn supports_pointwise(&self) -> bool {
        true
    }

    fn layer(&self, layer: &LayerProblem) -> Result<Solution, SkipReason> {
        let weight = layer.native(layer.weight());
        let quantizer = least_squares(layer.weight_quantizer(), &weight, &self.search)?;
        Ok(Solution::new(layer.with_weight_quantizer(quantizer)))
    }

    fn kernel(&self, kernel: &KernelProblem) -> Result<TensorQuantizer, SkipReason> {
        least_squares_of(kernel, &self.search)
    }
}

impl CalibrationAlgorithm for LocalHessian {
    fn name(&self) -> &str {
        "local_hessian"
    }

    fn stage(&self) -> Stage {
        Stage::Clip
    }

    fn inputs(&self) -> Option<InputStatistics> {
        Some(InputStatistics::Gram)
    }

    fn layer(&self, layer: &LayerProblem) -> Result<Solution, SkipReason> {
        let quantizer = layer.weight_quantizer();
        can_search(quantizer, &self.search)?;
        let Granularity::Block { size } = quantizer.config().granularity else { return Err(SkipReason::NoBlocks) };
        if size != self.block_size {
            return Err(SkipReason::OtherBlocks);
        }
        let weight = layer.weight();
        let found = match layer.gram() {
            Ok(gram) if weight.dims()[0].is_multiple_of(size) => {
                let gram = gram.diagonal_blocks(size);
                let losses = |candidate: &TensorQuantizer| {
                    block_losses(layer, layer.quantize(candidate, weight.clone()) - weight.clone(), &gram)
                };
                search(quantizer, &self.search, losses)
            }
            _ => least_squares(quantizer, &layer.native(weight), &self.search)?,
        };
        Ok(Solution::new(layer.with_weight_quantizer(found)))
    }

    fn kernel(&self, kernel: &KernelProblem) -> Result<TensorQuantizer, SkipReason> {
        least_squares_of(kernel, &self.search)
    }
}

/// The ranges of least squared error of the weight of any layer.
fn least_squares_of(kernel: &KernelProblem, candidates: &RangeSearch) -> Result<TensorQuantizer, SkipReason> {
    with_rank!(kernel.weight(), weight => least_squares(kernel.quantizer(), &weight, candidates))
}

/// A quantizer with the ranges of least squared error of a weight of any rank; it has ranges by `max` already.
pub(super) fn least_squares<const D: usize>(
    quantizer: &TensorQuantizer,
    weight: &Tensor<D>,
    candidates: &RangeSearch,
) -> Result<TensorQuantizer, SkipReason> {
    can_search(quantizer, candidates)?;
    let groups = quantizer.range_groups(&weight.dims());
    let weight = weight.clone().cast(DType::F32); // as ranges are; squares of small changes are nothing in f16
    let losses = |candidate: &TensorQuantizer| {
        let change = candidate.forward(weight.clone()) - weight.clone();
        group_sums(change.clone() * change, &groups)
    };
    Ok(search(quantizer, candidates, losses))
}

fn can_search(quantizer: &TensorQuantizer, candidates: &RangeSearch) -> Result<(), SkipReason> {
    let config = quantizer.config();
    let static_blocks = matches!(config.scale, ScaleFormat::E4M3(BlockScale::Static | BlockScale::StaticFourOverSix));
    if !config.then.is_empty() {
        return Err(SkipReason::WeightChain);
    }
    if config.rotation.is_some() {
        return Err(SkipReason::Rotated);
    }
    if !config.has_static_range() || config.scale == ScaleFormat::E4M3(BlockScale::Dynamic) {
        return Err(SkipReason::DynamicRange);
    }
    if *candidates == RangeSearch::E4m3Scales && !static_blocks {
        return Err(SkipReason::NotE4m3Scales);
    }
    Ok(())
}

/// The ranges of least loss.
fn search(
    quantizer: &TensorQuantizer,
    candidates: &RangeSearch,
    losses: impl Fn(&TensorQuantizer) -> Tensor<1>,
) -> TensorQuantizer {
    let amax = quantizer.amax().expect("it has ranges by max");
    let mut found = quantizer.clone();
    found.set_amax(match candidates {
        RangeSearch::Multipliers { start, stop, step, include_max } => {
            let factors = multipliers(*start, *stop, *step, *include_max);
            amax.clone() * best_of(quantizer, &amax, &factors, losses)
        }
        RangeSearch::E4m3Scales => {
            let global = quantizer.buffer(Buffer::GlobalAmax).expect("static blocks have a global range");
            let global = global.expand(amax.dims());
            global.clone() * best_of(quantizer, &global, &e4m3_scales(), losses)
        }
    });
    found
}

/// From start to stop in equal steps no longer than `step`, ascending.
fn multipliers(start: f32, stop: f32, step: f32, include_max: IncludeMax) -> Vec<f32> {
    // decimal steps: 4 − 0.25 in steps of 0.1 are 38, not 37.5 by the last digit of an f32
    let (first, last, step) = (decimal(start), decimal(stop), decimal(step));
    let steps = ((last - first) / step).ceil().max(0.0) as usize;
    let (width, half) = (if steps == 0 { 0.0 } else { (stop - start) / steps as f32 }, steps.div_ceil(2));
    // as the reference's linear space in f32 is computed: each half from its own end, product and sum rounded once
    let at = |i: usize| {
        if i < half { width.mul_add(i as f32, start) } else { (-width).mul_add((steps - i) as f32, stop) }
    };
    let mut multipliers: Vec<f32> = (0..=steps).map(at).collect();
    if include_max == IncludeMax::Always && !multipliers.contains(&1.0) {
        let place = multipliers.partition_point(|m| *m < 1.0);
        multipliers.insert(place, 1.0);
    }
    multipliers
}

/// Every positive E4M3 value over the largest, ascending.
fn e4m3_scales() -> Vec<f32> {
    (1..=126).map(|code| Minifloat::E4M3.decode(code) / 448.0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_multipliers_are_39_and_one() {
        let reference = multipliers(0.25, 4.0, 0.1, IncludeMax::OnGrid);
        assert_eq!(reference.len(), 39);
        assert_eq!((reference[0], reference[38]), (0.25, 4.0));
        assert!(!reference.contains(&1.0));
        assert_eq!(multipliers(0.25, 4.0, 0.1, IncludeMax::Always).len(), 40);
        assert_eq!(multipliers(1.0, 1.5, 0.5, IncludeMax::Always), [1.0, 1.5]);
        assert_eq!(e4m3_scales().len(), 126);
        assert_eq!(e4m3_scales()[125], 1.0);
    }
}
