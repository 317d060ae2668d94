//! Rounding the weights of a quantized model for good.

use burn::module::{Module, Reparameterization};
use burn::tensor::{DType, Tensor};

use crate::error::QuantError;
use crate::layout::Role;
use crate::model::{ModelIndex, Parameters, Replacements, layer_of, within};
use crate::place::WeightLayouts;
use crate::quantizer::{Buffer, TensorQuantizer};

/// Replaces every weight by its quantized value and removes the weight quantizers.
///
/// The outputs do not change, and the model needs no rounding of weights any more. A disabled weight quantizer is removed
/// without effect. Activation quantizers stay; where one is disabled, its pre-quantization scale and its branch of low rank are
/// merged into the weight behind it, equal to f32 rounding.
///
/// The weights are still those of the quantized layers: where inputs are smoothed and quantized, the weight has been divided
/// by the scale. Use [`fold_to_burn`] for weights that burn's own layers can take.
///
/// # Errors
///
/// [`QuantError::ForeignReparameterization`] if a weight has a reparameterization of another kind, which folding would
/// merge too: call burn's `materialize` if that is meant.
///
/// # Source
///
/// ModelOpt 0.47, `fold_weight`.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::tensor::{Device, Tensor};
/// use burn_nn::LinearConfig;
/// use burn_quant::{QuantConfig, Quantizers, fold_weights, quantize_weights};
///
/// let device = Device::flex();
/// let (model, _) = quantize_weights(LinearConfig::new(8, 4).init(&device), &QuantConfig::int8_weight_only())?;
/// let x = Tensor::<2>::ones([1, 8], &device);
/// let folded = fold_weights(model.clone())?;
/// assert_eq!(folded.forward(x.clone()).to_data(), model.forward(x).to_data());
/// assert!(Quantizers::of(&folded).is_empty());
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn fold_weights<M: Module>(model: M) -> Result<M, QuantError> {
    for weight in ModelIndex::lazy_of(&model).parameters() {
        if let Some(found) = weight.reparameterization.clone().filter(|name| name != TensorQuantizer::NAME) {
            return Err(QuantError::ForeignReparameterization { path: weight.path.clone(), found });
        }
    }
    merge_inputs(model.materialize())
}

/// Folds a model whose record burn's own layers can take: every parameter has the value that burn's layer multiplies with.
///
/// # Errors
///
/// Those of [`fold_weights`], and [`QuantError::NotBurn`] with the first activation quantizer that is enabled or scales its
/// input: burn's layers cannot do what it does.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::tensor::Device;
/// use burn_quant::nn::LinearConfig;
/// use burn_quant::{QuantConfig, QuantError, fold_to_burn, quantize_weights};
///
/// let layer = LinearConfig::new(8, 4).init(&Device::flex());
/// let (layer, _) = quantize_weights(layer, &QuantConfig::mxfp8_default())?; // inputs too
/// assert!(matches!(fold_to_burn(layer), Err(QuantError::NotBurn { .. })));
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn fold_to_burn<M: Module>(model: M) -> Result<M, QuantError> {
    let model = fold_weights(model)?;
    for (name, quantizer) in ModelIndex::lazy_of(&model).quantizers.iter() {
        quantizer.refuse(name)?;
    }
    Ok(model)
}

/// Merges what acts on the inputs of linear layers, but does not round them, into their weights.
fn merge_inputs<M: Module>(model: M) -> Result<M, QuantError> {
    let index = ModelIndex::lazy_of(&model);
    let acts = |quantizer: &TensorQuantizer| {
        let kept = [Buffer::PreQuantScale, Buffer::LowRankDown].map(|buffer| quantizer.buffer(buffer));
        !quantizer.is_enabled() && quantizer.role() == Role::Features && kept.iter().any(Option::is_some)
    };
    let acting: Vec<(&str, &TensorQuantizer)> = index
        .quantizers
        .iter()
        .filter(|(name, quantizer)| name.ends_with("input_quantizer") && acts(quantizer))
        .collect();
    if acting.is_empty() {
        return Ok(model);
    }
    let index = ModelIndex::of(&model);
    let layouts = WeightLayouts::new().resolve(&index)?;
    let paths: Vec<String> = acting.iter().map(|(name, _)| within(layer_of(name), "weight")).collect();
    let parameters = Parameters::of(&model, paths.iter().cloned());
    let mut replacements = Replacements::default();
    for ((name, quantizer), path) in acting.into_iter().zip(paths) {
        let layout = layouts.get(&path).filter(|layout| (layout.channel_axis, layout.block_axis) == (1, 0));
        let (Some(_), Some(weight)) = (layout, parameters.get(&path)) else { continue };
        let weight: Tensor<2> = weight.ranked::<2>().cast(DType::F32);
        let elements = weight.dims().iter().product::<usize>();
        replacements.parameters.insert(path, quantizer.merged_into(weight).reshape([elements]));
        let mut quantizer = quantizer.clone();
        let merged = [Buffer::PreQuantScale, Buffer::LowRankDown, Buffer::LowRankUp];
        merged.into_iter().for_each(|buffer| quantizer.clear_buffer(buffer));
        replacements.quantizers.insert(name.to_string(), quantizer);
    }
    Ok(replacements.install(model, &index).0)
}
