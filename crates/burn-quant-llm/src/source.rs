//! A folder whose layers are in float, or quantized by another system.

use burn_quant_checkpoint::modelopt::{self, LayerAlgo};
use burn_quant_checkpoint::{Folder, KvQuantizer, QuantizedLayer, awq_gptq, compressed_tensors};

use crate::LlmError;

/// Who quantized a folder.
enum Quantized {
    Nobody,
    ModelOpt(modelopt::Quantization),
    CompressedTensors(compressed_tensors::Quantization),
    AwqGptq(awq_gptq::Quantization),
}

/// A folder, and how its layers are read.
pub(crate) struct Source<'a> {
    pub(crate) folder: &'a Folder,
    quantized: Quantized,
    /// The names of quantized layers.
    layers: Vec<String>,
}

impl<'a> Source<'a> {
    pub(crate) fn of(folder: &'a Folder) -> Result<Self, LlmError> {
        let names = |layers: &[LayerAlgo]| layers.iter().map(|layer| layer.name.clone()).collect();
        let (quantized, layers) = if let Some(of) = modelopt::Quantization::of(folder)? {
            let layers = names(of.layers());
            (Quantized::ModelOpt(of), layers)
        } else if let Some(of) = compressed_tensors::Quantization::of(folder)? {
            let layers = of.layers(folder)?;
            (Quantized::CompressedTensors(of), layers)
        } else if let Some(of) = awq_gptq::Quantization::of(folder)? {
            let layers = of.layers(folder)?;
            (Quantized::AwqGptq(of), layers)
        } else if let Some(config) = folder.config().get("quantization_config").filter(|config| !config.is_null()) {
            return Err(LlmError::Setting {
                key: "quantization_config.quant_method".into(),
                found: config["quant_method"].to_string(),
                supported: "`modelopt`, `compressed-tensors`, `awq` or `gptq`",
            });
        } else {
            (Quantized::Nobody, Vec::new())
        };
        Ok(Self { folder, quantized, layers })
    }

    /// Whether a layer is quantized.
    pub(crate) fn is_quantized(&self, name: &str) -> bool {
        self.layers.iter().any(|layer| layer == name)
    }

    /// A quantized layer of a name; `None` if it is in float.
    pub(crate) fn layer(&self, name: &str) -> Result<Option<QuantizedLayer>, LlmError> {
        if !self.is_quantized(name) {
            return Ok(None);
        }
        Ok(Some(match &self.quantized {
            Quantized::Nobody => return Ok(None),
            Quantized::ModelOpt(quantization) => {
                let layer = quantization.layers().iter().find(|layer| layer.name == name);
                modelopt::layer(self.folder, layer.expect("a quantized layer has a format"))?
            }
            Quantized::CompressedTensors(quantization) => quantization.layer(self.folder, name)?,
            Quantized::AwqGptq(quantization) => quantization.layer(self.folder, name)?,
        }))
    }

    /// What is done to the keys or values of a projection.
    pub(crate) fn kv(&self, name: &str) -> Result<Option<KvQuantizer>, LlmError> {
        Ok(match &self.quantized {
            Quantized::ModelOpt(quantization) => match quantization.kv() {
                Some(algo) => modelopt::kv(self.folder, name, algo)?,
                None => None,
            },
            Quantized::CompressedTensors(quantization) => {
                let (attention, kind) = name.rsplit_once('.').unwrap_or((name, ""));
                let both = quantization.kv(self.folder, attention)?;
                both.map(|[keys, values]| if kind == "k_proj" { keys } else { values })
            }
            Quantized::Nobody | Quantized::AwqGptq(_) => None,
        })
    }
}
