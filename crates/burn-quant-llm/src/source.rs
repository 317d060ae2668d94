//! A folder whose layers are in float, or quantized by another system.

use burn_quant_checkpoint::modelopt::{self, LayerAlgo};
use burn_quant_checkpoint::{Folder, KvQuantizer, QuantizedLayer};

use crate::LlmError;

/// Who quantized a folder.
enum Quantized {
    Nobody,
    ModelOpt(modelopt::Quantization),
}

/// A folder, and how its layers are read.
pub(crate) struct Source<'a> {
    pub(crate) folder: &'a Folder,
    quantized: Quantized,
}

impl<'a> Source<'a> {
    pub(crate) fn of(folder: &'a Folder) -> Result<Self, LlmError> {
        let quantized = match modelopt::Quantization::of(folder)? {
            Some(quantization) => Quantized::ModelOpt(quantization),
            None => Quantized::Nobody,
        };
        Ok(Self { folder, quantized })
    }

    /// A quantized layer of a name; `None` if it is in float.
    pub(crate) fn layer(&self, name: &str) -> Result<Option<QuantizedLayer>, LlmError> {
        Ok(match &self.quantized {
            Quantized::Nobody => None,
            Quantized::ModelOpt(quantization) => {
                match quantization.layers().iter().find(|layer: &&LayerAlgo| layer.name == name) {
                    Some(layer) => Some(modelopt::layer(self.folder, layer)?),
                    None => None,
                }
            }
        })
    }

    /// Whether a layer is quantized.
    pub(crate) fn is_quantized(&self, name: &str) -> bool {
        match &self.quantized {
            Quantized::Nobody => false,
            Quantized::ModelOpt(quantization) => quantization.layers().iter().any(|layer| layer.name == name),
        }
    }

    /// What is done to the keys or values of a projection.
    pub(crate) fn kv(&self, name: &str) -> Result<Option<KvQuantizer>, LlmError> {
        Ok(match &self.quantized {
            Quantized::Nobody => None,
            Quantized::ModelOpt(quantization) => match quantization.kv() {
                Some(algo) => modelopt::kv(self.folder, name, algo)?,
                None => None,
            },
        })
    }
}
