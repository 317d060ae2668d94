//! Whether a target can hold what a recipe makes, before anything is calibrated.

use burn_quant::place::{WeightLayouts, place};
use burn_quant::{QuantConfig, TensorQuantizer};
use burn_quant_checkpoint::{Element, NotExportable};

use super::{algo, refuse};
use crate::names::in_files;
use crate::{Decoder, LlmError, Target};

/// Checks whether a target holds what a recipe makes of a decoder, without calibrating it.
///
/// What depends on values, as a scale of inputs that nothing can take, is found when the result is written.
///
/// # Errors
///
/// [`LlmError::Checkpoint`] with the layer and the reason, [`LlmError::Quantize`] if the recipe does not fit.
pub fn check_recipe(decoder: &Decoder, recipe: &QuantConfig, target: Target) -> Result<(), LlmError> {
    let (placed, _) = place(decoder.clone(), recipe, &WeightLayouts::new())?;
    for (name, linear) in placed.linears() {
        let name = in_files(decoder.config(), &name);
        let input = &linear.input_quantizer;
        let quantizer = linear.weight.reparameterization::<TensorQuantizer>().filter(|it| it.is_enabled());
        let Some(quantizer) = quantizer else { continue };
        let (algo, block) = algo::algo(quantizer, input).ok_or_else(|| algo::unknown(&name, quantizer, input))?;
        let [inputs, outputs] = linear.weight.dims();
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
            Target::CompressedTensors | Target::Gguf if is_ragged && !by_integers => {
                return ragged("inputs", inputs, block);
            }
            _ => {}
        }
    }
    Ok(())
}
