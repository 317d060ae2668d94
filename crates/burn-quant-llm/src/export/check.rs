//! Whether a target can hold what a recipe makes, before anything is calibrated.

use burn_quant::config::Format;
use burn_quant::place::{Role, WeightLayouts, plan};
use burn_quant::{Algorithm, QuantConfig, QuantizerConfig, TensorQuantizer};
use burn_quant_checkpoint::modelopt::QuantAlgo;
use burn_quant_checkpoint::{Element, Minifloat, NotExportable};

use super::{algo, refuse};
use crate::names::in_files;
use crate::{Decoder, LlmError, Target};

/// Checks whether a target holds what a recipe makes of a decoder, without calibrating it.
///
/// Parameters are not looked at: the decoder may be [new](Decoder::new).
///
/// What depends on values, as a scale of inputs that nothing can take, is found when the result is written.
///
/// # Errors
///
/// [`LlmError::Checkpoint`] with the layer and the reason, [`LlmError::Quantize`] if the recipe does not fit.
pub fn check_recipe(decoder: &Decoder, recipe: &QuantConfig, target: Target) -> Result<(), LlmError> {
    let plan = plan(decoder, recipe, &WeightLayouts::new())?;
    let quantizer = |name: &str, kind: &str| {
        let planned = plan.quantizers.get(&format!("{name}.{kind}_quantizer")).filter(|planned| planned.enabled);
        planned.map(|planned| TensorQuantizer::new(planned.config.clone(), planned.role))
    };
    for (name, linear) in decoder.linears() {
        let Some(weight) = quantizer(&name, "weight") else { continue };
        let input = quantizer(&name, "input").unwrap_or_else(|| TensorQuantizer::disabled(Role::ChannelsLast));
        let (weight, input) = (&weight, &input);
        let shape = linear.weight.lazy_shape();
        let (name, inputs, outputs) = (in_files(decoder.config(), &name), shape[0], shape[1]);
        let (algo, block) = algo::algo(weight, input).ok_or_else(|| algo::unknown(&name, weight, input))?;
        let is_ragged = block > 0 && inputs % block != 0;
        let by_integers = matches!(algo.element(), Element::Int(_));
        let ragged = |axis, len, block| Err(refuse(&name, NotExportable::Ragged { axis, len, block }));
        let format = |known| Err(refuse(&name, NotExportable::Format { found: algo.to_string(), known }));
        match target {
            Target::ModelOpt if !algo.is_modelopt() => return format("the formats of ModelOpt's presets"),
            Target::ModelOpt if is_ragged => return ragged("inputs", inputs, block),
            Target::ModelOpt if by_integers && block > 0 && outputs % 2 != 0 => return ragged("outputs", outputs, 2),
            Target::Gguf | Target::CompressedTensors if has_branches(&recipe.algorithm) => {
                return Err(refuse(&name, NotExportable::LowRank));
            }
            Target::Gguf if input.is_enabled() => return format("inputs in float"),
            Target::Gguf if algo.is_nvfp4() || algo.element() == Element::Float(Minifloat::E4M3) => {
                return format("integers of 2 to 8 bits, and MXFP4");
            }
            Target::CompressedTensors if !by_compressed_tensors(algo, block) => {
                return format("one rounding of weights in blocks that its own formats have, and no branch");
            }
            Target::Gguf if block % 32 != 0 || inputs % 32 != 0 => return ragged("inputs", inputs, 32),
            Target::Gguf if is_ragged && !by_integers => return ragged("inputs", inputs, block),
            // integers in one block that is not full are integers under a scale for each output
            Target::CompressedTensors if is_ragged && (!by_integers || block < inputs) => {
                return ragged("inputs", inputs, block);
            }
            _ => {}
        }
    }
    for (name, planned) in plan.quantizers.iter().filter(|(name, _)| name.ends_with("_bmm_quantizer")) {
        let (config, refused) = (&planned.config, |known| {
            let found = format!("a cache in {}", config_of(&planned.config));
            Err(refuse(name, NotExportable::Format { found, known }))
        });
        match target {
            _ if !planned.enabled => {}
            Target::Gguf => return refused("caches in float"),
            Target::CompressedTensors if config.bias.is_some() || config.format != Format::E4M3 => {
                return refused("caches in FP8 without a bias");
            }
            _ => {}
        }
    }
    Ok(())
}

/// Whether an algorithm puts branches of low rank beside layers.
fn has_branches(algorithm: &Algorithm) -> bool {
    match algorithm {
        Algorithm::SvdQuant { .. } => true,
        Algorithm::ForLayers { algorithm, .. } => has_branches(algorithm),
        Algorithm::Sequence(steps) => steps.iter().any(has_branches),
        _ => false,
    }
}

fn config_of(config: &QuantizerConfig) -> String {
    let bias = if config.bias.is_some() { " around a bias" } else { "" };
    format!("{}{bias}", config.kind())
}

/// Whether compressed-tensors has a format for these weights and inputs.
fn by_compressed_tensors(algo: QuantAlgo, block: usize) -> bool {
    !matches!(algo, QuantAlgo::W4A8Awq | QuantAlgo::Nvfp4Svd | QuantAlgo::W4A8Mxfp4Fp8 | QuantAlgo::W4A8Nvfp4Fp8)
        && (!algo.is_nvfp4() || block == 16)
}
