//! Rounding the weights of a quantized model for good.

mod burn_scheme;

pub use burn_scheme::fold_to_burn_scheme;

use std::collections::{HashMap, HashSet};

use burn::module::{Module, Param, ParamId, Reparameterization};
use burn::tensor::{DType, Tensor};

use crate::error::QuantError;
use crate::layout::Role;
use crate::model::{Map, ModelIndex, Parameters, Path, Replacements, host, layer_of, map, within};
use crate::place::WeightLayouts;
use crate::quantizer::{Buffer, TensorQuantizer};

/// Replaces every weight by its quantized value and removes the weight quantizers.
///
/// The outputs do not change, and the model needs no rounding of weights any more. A disabled weight quantizer is
/// removed without effect. Activation quantizers stay; where one is disabled, its pre-quantization scale and its branch
/// of low rank are merged into the weight behind it, equal to f32 rounding. Tied parameters of which only some were
/// quantized are different now, and no longer tied.
///
/// Fold a model that is finished. Training would move its weights off their grid, and quantizing it again would round
/// them twice: [`summary`](crate::summary::summary()) says which layers are folded, as long as their activations are
/// quantized.
///
/// The weights are still those of the quantized layers: where inputs are smoothed and quantized, the weight has been
/// divided by the scale. Use [`fold_to_burn`] for weights that burn's own layers can take.
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
/// use burn_quant::{Quantizers, fold_weights, presets, quantize_weights};
///
/// let device = Device::flex();
/// let (model, _) = quantize_weights(LinearConfig::new(8, 4).init(&device), &presets::int8_weight_only())?;
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
    let tied = ties(&model);
    merge_inputs(untied(model.materialize(), tied))
}

/// Runs a model with its weights folded, and leaves the model as it is: what a validation between two epochs of
/// training needs, or a benchmark.
///
/// The folded copy shares everything with the model but the weights that are rounded. It is gone when `run` returns.
///
/// # Errors
///
/// Those of [`fold_weights`].
///
/// # Source
///
/// ModelOpt 0.47, `temporarily_fold_weights`.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::tensor::{Device, Tensor};
/// use burn_nn::LinearConfig;
/// use burn_quant::{Quantizers, presets, quantize_weights};
/// use burn_quant::fold::with_folded_weights;
///
/// let device = Device::flex();
/// let (model, _) = quantize_weights(LinearConfig::new(8, 4).init(&device), &presets::int8_weight_only())?;
/// let x = Tensor::<2>::ones([1, 8], &device);
/// let y = with_folded_weights(&model, |folded| folded.forward(x.clone()))?;
/// assert_eq!(y.to_data(), model.forward(x).to_data());
/// assert_eq!(Quantizers::of(&model).len(), 1); // the model still has its float weights, and their quantizer
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn with_folded_weights<M: Module, R>(model: &M, run: impl FnOnce(&M) -> R) -> Result<R, QuantError> {
    let folded = fold_weights(model.clone())?;
    Ok(run(&folded))
}

/// The paths of tied parameters, those of one tie together.
fn ties<M: Module>(model: &M) -> Vec<Vec<String>> {
    let mut ties: HashMap<ParamId, Vec<String>> = HashMap::new();
    for parameter in ModelIndex::lazy_of(model).parameters() {
        ties.entry(parameter.id).or_default().push(parameter.path.clone());
    }
    ties.into_values().filter(|paths| paths.len() > 1).collect()
}

/// Gives parameters that were tied and are different now, as only some of them were rounded, an id each: an optimizer
/// would take them for one parameter otherwise.
fn untied<M: Module>(model: M, ties: Vec<Vec<String>>) -> M {
    struct Untie(HashSet<String>);
    impl Map for Untie {
        fn parameter<const D: usize>(&mut self, at: &Path, mut param: Param<Tensor<D>>) -> Param<Tensor<D>> {
            if self.0.contains(&at.joined()) {
                param.id = ParamId::new();
            }
            param
        }
    }
    let parameters = Parameters::of(&model, ties.iter().flatten().cloned());
    let values = |path: &String| parameters.vector(path).map(host);
    let differ = |paths: &Vec<String>| paths.iter().skip(1).any(|path| values(path) != values(&paths[0]));
    let apart: HashSet<String> = ties.into_iter().filter(differ).flat_map(|paths| paths.into_iter().skip(1)).collect();
    drop(parameters);
    if apart.is_empty() { model } else { map(model, &mut Untie(apart)) }
}

/// Folds a model whose record burn's own layers can take: every parameter has the value that burn's layer multiplies
/// with.
///
/// # Errors
///
/// Those of [`fold_weights`], and [`QuantError::NotBurn`] with the first activation quantizer that is enabled or scales
/// its input: burn's layers cannot do what it does.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::tensor::Device;
/// use burn_quant::nn::LinearConfig;
/// use burn_quant::{QuantError, presets, quantize_weights};
/// use burn_quant::fold::fold_to_burn;
///
/// let layer = LinearConfig::new(8, 4).init(&Device::flex());
/// let (layer, _) = quantize_weights(layer, &presets::mxfp8_default())?; // inputs too
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
        !quantizer.is_enabled() && quantizer.role() == Role::ChannelsLast && kept.iter().any(Option::is_some)
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
