//! Whether a target can hold what a recipe makes, before anything is calibrated.

use burn_quant::place::{Role, WeightLayouts, plan};
use burn_quant::{QuantConfig, TensorQuantizer};
use burn_quant_checkpoint::{Element, NotExportable};

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
            Target::Gguf if input.is_enabled() => return format("inputs in float"),
            Target::Gguf if block % 32 != 0 || inputs % 32 != 0 => return ragged("inputs", inputs, 32),
            Target::Gguf if is_ragged && !by_integers => return ragged("inputs", inputs, block),
            // integers in one block that is not full are integers under a scale for each output
            Target::CompressedTensors if is_ragged && (!by_integers || block < inputs) => {
                return ragged("inputs", inputs, block);
            }
            _ => {}
        }
    }
    Ok(())
}
