//! What is done to the inputs of a layer.
//!
//! Source: compressed-tensors 0.20.0, `forward_quantize` and `initialize_qparams`.

use burn_quant_numerics::Minifloat;

use super::minifloats::global_scale;
use super::scheme::{Dynamic, ScaleType, Scheme, Strategy};
use crate::error::finite;
use crate::{CheckpointError, Element, Folder, Inputs};

/// Reads what is done to the inputs of a layer.
pub(super) fn inputs(folder: &Folder, layer: &str, scheme: &Scheme) -> Result<Inputs, CheckpointError> {
    let unknown = |found: String, known| {
        let what = format!("the activations of `{layer}`");
        Err(CheckpointError::Unknown { what, found, known })
    };
    if scheme.outputs.is_some() {
        return unknown("quantized outputs".into(), "quantized inputs");
    }
    let Some(args) = scheme.inputs else {
        return Ok(Inputs::Float);
    };
    if !args.symmetric {
        return unknown("inputs around zero points".into(), "symmetric inputs");
    }
    let element = args.element;
    let is_mx = args.scale == ScaleType::E8M0 || (scheme.format.is_mx() && args.scale == ScaleType::Float);
    Ok(match (args.dynamic, args.strategy) {
        (Dynamic::Dynamic, Strategy::Token) => Inputs::PerToken { element },
        (Dynamic::Dynamic, Strategy::Group(block)) if is_mx => Inputs::Mx { element, block },
        (Dynamic::Static, Strategy::Tensor) => {
            let name = format!("{layer}.input_scale");
            let scale = folder.tensor(&name)?.to_scalar(&name)?;
            finite(&name, &[scale])?;
            Inputs::Static { element, scale }
        }
        (Dynamic::Local, Strategy::TensorGroup(16)) if element == Element::Float(Minifloat::E2M1) => {
            let name = format!("{layer}.input_global_scale");
            Inputs::Nvfp4 { tensor_scale: 1.0 / global_scale(folder, &name)? }
        }
        (dynamic, strategy) => {
            let found = format!("{element:?} by {strategy:?}, {dynamic:?}");
            return unknown(found, "static tensors, dynamic tokens, dynamic MX groups, local groups of 16 of NVFP4");
        }
    })
}
