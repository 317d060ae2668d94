//! The folder of compressed-tensors.

use std::path::{Path, PathBuf};

use burn_quant_checkpoint::compressed_tensors::{Format, Scheme, config, write_kv, write_layer};
use burn_quant_checkpoint::modelopt::{Folding, quantized};
use burn_quant_checkpoint::{CheckpointError, Folder, FolderWriter, NotExportable, QuantizedLayer, Tensor};

use super::ExportState;
use crate::LlmError;

impl ExportState {
    /// Writes a folder in the format of compressed-tensors, which vLLM and `transformers` load.
    ///
    /// Scales of inputs move into the norm or the layer before. Configuration, tokenizer and whatever else the source
    /// folder has come from there. The folder appears at `out` when it is complete.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::NotExportable`] for a layer that the format cannot hold: with a branch of low rank, with a
    /// second stage, or with a scale of inputs that nothing before it can take, as that of `o_proj` where heads share
    /// values; [`CheckpointError::Io`] if the folder cannot be written, or exists.
    pub fn write_compressed_tensors(mut self, source: &Folder, out: &Path) -> Result<PathBuf, LlmError> {
        self.prepare(Folding::Everywhere)?;
        let layers = self.quantized_layers("compressed-tensors")?;
        let mut writer = FolderWriter::create(out)?;
        let mut schemes = Vec::new();
        for (name, layer) in &layers {
            let format = Format::for_layer(layer);
            schemes.push((name.as_str(), Scheme::of(name, layer, format)?));
            for (name, tensor) in write_layer(name, layer, format)? {
                writer.tensor(name, tensor)?;
            }
            if let Some(bias) = &self.layers[name].bias {
                writer.tensor(format!("{name}.bias"), Tensor::from_f32(self.config.dtype, vec![bias.len()], bias))?;
            }
        }
        for (name, keys) in self.kv.iter().filter(|(name, _)| name.ends_with("k_proj")) {
            let attention = name.trim_end_matches(".k_proj");
            let Some(values) = self.kv.get(&format!("{attention}.v_proj")) else {
                let reason = NotExportable::Uncalibrated { quantizer: "v_bmm_quantizer" };
                let name = attention.to_string();
                return Err(CheckpointError::NotExportable { name, format: "compressed-tensors", reason }.into());
            };
            for (name, tensor) in write_kv(attention, [keys, values])? {
                writer.tensor(name, tensor)?;
            }
        }
        let ignored: Vec<&str> =
            self.unquantized.iter().map(String::as_str).filter(|it| !it.contains("embed")).collect();
        let quantization = config(schemes, Some(&ignored), self.kv.values().next());
        let mut json = source.config().clone();
        if let Some(json) = json.as_object_mut() {
            json.remove("quantization_config");
            json.insert("quantization_config".into(), quantization);
        }
        writer.json("config.json", &json)?;
        writer.copy_others(source.path())?;
        self.write_floats(&mut writer)?;
        Ok(writer.finish()?)
    }

    /// The codes and scales of all layers, for a format that holds nothing beside them.
    pub(super) fn quantized_layers(&self, format: &'static str) -> Result<Vec<(String, QuantizedLayer)>, LlmError> {
        let quantize = |(name, state)| -> Result<_, LlmError> {
            let name: &String = name;
            let layer = quantized(name, state)?;
            let refuse = |reason| CheckpointError::NotExportable { name: name.clone(), format, reason };
            match (&layer.pre_quant_scale, &layer.low_rank) {
                (Some(_), _) => Err(refuse(NotExportable::PreQuantScale).into()),
                (_, Some(_)) => Err(refuse(NotExportable::LowRank).into()),
                (None, None) => Ok((name.clone(), layer)),
            }
        };
        self.layers.iter().map(quantize).collect()
    }
}
