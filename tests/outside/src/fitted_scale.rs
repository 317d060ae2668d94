//! The scale of each output with the least squared error, for the codes that a weight has.
//!
//! ```text
//! y = Q(w)        r = wᵀ G y / yᵀ G y        w ← r y,   amax ← r amax        per output, G: Gram matrix of the inputs
//! ```
//!
//! Among all multiples of `y` the error `(r y − w)ᵀ G (r y − w)` is least at `r`. Scale and weight change together, so
//! the codes stay and the error cannot grow. An output whose codes are all zero keeps them.

use burn::tensor::Tensor;
use burn_quant::calibrate::{
    AlgorithmOptions, CalibrationAlgorithm, InputStatistics, LayerProblem, SkipReason, Solution, Stage,
};
use burn_quant::config::ScaleFormat;

/// Rounds weights of linear layers with ranges per output, and fits the scale of each to the outputs.
#[derive(Clone, Copy, Debug)]
pub struct FittedScale;

impl FittedScale {
    /// Creates the algorithm, which has no options.
    ///
    /// # Errors
    ///
    /// The name of an option.
    pub fn with_options(options: &AlgorithmOptions) -> Result<Self, String> {
        options.keys().next().map_or(Ok(Self), |option| Err(format!("`{option}` is not an option: there is none")))
    }
}

impl CalibrationAlgorithm for FittedScale {
    fn name(&self) -> &str {
        "fitted_scale"
    }

    fn stage(&self) -> Stage {
        Stage::Round
    }

    fn inputs(&self) -> Option<InputStatistics> {
        Some(InputStatistics::Gram)
    }

    fn layer(&self, layer: &LayerProblem) -> Result<Solution, SkipReason> {
        let gram = layer.gram()?;
        let mut quantizer = layer.weight_quantizer().clone();
        let amax = quantizer.amax().ok_or(SkipReason::DynamicRange)?;
        let (weight, rounded) = (layer.weight(), layer.quantized_weight());
        let [_, outputs] = weight.dims();
        if layer.weight_groups()?.len() != outputs || amax.dims() != [outputs] {
            return Err(SkipReason::Custom { reason: "it is for one range per output".into() });
        }
        if quantizer.config().scale != ScaleFormat::F32 {
            return Err(SkipReason::Custom { reason: "it is for f32 scales".into() });
        }
        let product = gram.product(rounded.clone());
        let of_outputs = |x: Tensor<2>| x.sum_dim(0).squeeze_dim::<1>(0);
        let (with_weight, with_itself) = (of_outputs(weight * product.clone()), of_outputs(rounded.clone() * product));
        let empty = with_itself.clone().lower_equal_scalar(0.0);
        let ratio = (with_weight / with_itself.mask_fill(empty.clone(), 1.0)).mask_fill(empty, 1.0);
        quantizer.set_amax(amax * ratio.clone());
        let mean = ratio.clone().mean().into_scalar::<f32>();
        let fitted = layer.with_weight(rounded * ratio.unsqueeze()).with_weight_quantizer(quantizer);
        Ok(Solution::new(fitted).with_choice("mean ratio", mean))
    }
}
