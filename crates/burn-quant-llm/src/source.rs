//! A folder or a file whose layers are in float, or quantized by another system.

use burn_quant_checkpoint::gguf::{GgmlType, GgufModel};
use burn_quant_checkpoint::modelopt::{self, LayerAlgo};
use burn_quant_checkpoint::{Folder, Inputs, KvQuantizer, QuantizedLayer, awq_gptq, compressed_tensors};

use crate::LlmError;

/// Who quantized a folder.
enum Quantized {
    Nobody,
    ModelOpt(modelopt::Quantization),
    CompressedTensors(compressed_tensors::Quantization),
    AwqGptq(awq_gptq::Quantization),
}

/// Where tensors are.
#[derive(Clone, Copy)]
enum Tensors<'a> {
    Folder(&'a Folder),
    Gguf(&'a GgufModel),
}

/// A folder or a file, and how its layers are read.
pub(crate) struct Source<'a> {
    tensors: Tensors<'a>,
    quantized: Quantized,
    /// The names of quantized layers.
    layers: Vec<String>,
}

impl<'a> Source<'a> {
    /// A GGUF file; names are those of Hugging Face.
    pub(crate) fn of_gguf(gguf: &'a GgufModel) -> Self {
        let layers = gguf.names().filter(|name| is_quantized(gguf, name));
        let layers = layers.filter_map(|name| name.strip_suffix(".weight")).map(String::from).collect();
        Self { tensors: Tensors::Gguf(gguf), quantized: Quantized::Nobody, layers }
    }

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
        Ok(Self { tensors: Tensors::Folder(folder), quantized, layers })
    }

    /// The names of all tensors.
    pub(crate) fn names(&self) -> Vec<String> {
        match self.tensors {
            Tensors::Folder(folder) => folder.names().map(String::from).collect(),
            Tensors::Gguf(gguf) => gguf.names().map(String::from).collect(),
        }
    }

    /// The floats of a tensor, and its shape; those of a quantized one are the values of its codes.
    pub(crate) fn floats(&self, name: &str) -> Result<(Vec<usize>, Vec<f32>), LlmError> {
        Ok(match self.tensors {
            Tensors::Folder(folder) => {
                let tensor = folder.tensor(name)?;
                (tensor.shape().to_vec(), tensor.to_f32(name)?)
            }
            Tensors::Gguf(gguf) => {
                let values = gguf.floats(name)?;
                (gguf.shape(name).unwrap_or_default().to_vec(), values)
            }
        })
    }

    /// The layers that are quantized.
    pub(crate) fn quantized(&self) -> &[String] {
        &self.layers
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
        let folder = match self.tensors {
            Tensors::Folder(folder) => folder,
            Tensors::Gguf(gguf) => {
                let weight = gguf.matrix(&format!("{name}.weight"))?;
                let (inputs, pre_quant_scale, low_rank) = (Inputs::Float, None, None);
                return Ok(Some(QuantizedLayer { weight, inputs, pre_quant_scale, low_rank }));
            }
        };
        Ok(Some(match &self.quantized {
            Quantized::Nobody => return Ok(None),
            Quantized::ModelOpt(quantization) => {
                let layer = quantization.layers().iter().find(|layer| layer.name == name);
                modelopt::layer(folder, layer.expect("a quantized layer has a format"))?
            }
            Quantized::CompressedTensors(quantization) => quantization.layer(folder, name)?,
            Quantized::AwqGptq(quantization) => quantization.layer(folder, name)?,
        }))
    }

    /// What is done to the keys or values of a projection.
    pub(crate) fn kv(&self, name: &str) -> Result<Option<KvQuantizer>, LlmError> {
        let Tensors::Folder(folder) = self.tensors else { return Ok(None) };
        Ok(match &self.quantized {
            Quantized::ModelOpt(quantization) => match quantization.kv() {
                Some(algo) => modelopt::kv(folder, name, algo)?,
                None => None,
            },
            Quantized::CompressedTensors(quantization) => {
                let (attention, kind) = name.rsplit_once('.').unwrap_or((name, ""));
                let both = quantization.kv(folder, attention)?;
                both.map(|[keys, values]| if kind == "k_proj" { keys } else { values })
            }
            Quantized::Nobody | Quantized::AwqGptq(_) => None,
        })
    }
}

/// Whether a tensor of a file is a matrix in codes that can be read as such.
fn is_quantized(gguf: &GgufModel, name: &str) -> bool {
    let is_float = |ggml| matches!(ggml, GgmlType::F32 | GgmlType::F16 | GgmlType::BF16);
    let is_linear = name.ends_with(".weight") && !name.ends_with("embed_tokens.weight");
    is_linear && gguf.ggml(name).is_some_and(|ggml| !is_float(ggml) && ggml != GgmlType::IQ4_NL)
}
