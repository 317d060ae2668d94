//! The folder of compressed-tensors.

use std::path::{Path, PathBuf};

use burn_quant_checkpoint::compressed_tensors::{Format, Scheme, config, write_kv, write_layer};
use burn_quant_checkpoint::modelopt::{Folding, quantized};
use burn_quant_checkpoint::{CheckpointError, Folder, NotExportable, QuantizedLayer, Tensor};

use super::parts::Parts;
use super::{Export, ExportState};
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
    pub fn write_compressed_tensors(self, source: &Folder, out: &Path) -> Result<PathBuf, LlmError> {
        Export::new(source, out).compressed_tensors_of(Parts::Whole(Box::new(self)))
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

impl Export<'_> {
    pub(super) fn compressed_tensors_of(&self, parts: Parts<'_>) -> Result<PathBuf, LlmError> {
        let mut writer = self.folder()?;
        let (mut schemes, mut ignored, mut kv): (Vec<(String, Scheme)>, Vec<String>, _) =
            (Vec::new(), Vec::new(), None);
        parts.for_each(Folding::Everywhere, &mut |state| {
            for (name, layer) in &state.quantized_layers("compressed-tensors")? {
                let format = Format::for_layer(layer);
                schemes.push((name.clone(), Scheme::of(name, layer, format)?));
                for (name, tensor) in write_layer(name, layer, format)? {
                    writer.tensor(name, tensor)?;
                }
                if let Some(bias) = &state.layers[name].bias {
                    let bias = Tensor::from_f32(state.config.dtype, vec![bias.len()], bias);
                    writer.tensor(format!("{name}.bias"), bias)?;
                }
            }
            for (name, keys) in state.kv.iter().filter(|(name, _)| name.ends_with("k_proj")) {
                let attention = name.trim_end_matches(".k_proj");
                let Some(values) = state.kv.get(&format!("{attention}.v_proj")) else {
                    let reason = NotExportable::Uncalibrated { quantizer: "v_bmm_quantizer" };
                    let name = attention.to_string();
                    return Err(CheckpointError::NotExportable { name, format: "compressed-tensors", reason }.into());
                };
                for (name, tensor) in write_kv(attention, [keys, values])? {
                    writer.tensor(name, tensor)?;
                }
            }
            ignored.extend(state.unquantized.iter().filter(|name| !name.contains("embed")).cloned());
            if kv.is_none() {
                kv = state.kv.values().next().cloned();
            }
            Ok(state.write_floats(&mut writer)?)
        })?;
        schemes.sort_by(|a, b| a.0.cmp(&b.0));
        let schemes = schemes.iter().map(|(name, scheme)| (name.as_str(), *scheme));
        let ignored: Vec<&str> = ignored.iter().map(String::as_str).collect();
        writer.json("config.json", &self.config(config(schemes, Some(&ignored), kv.as_ref())))?;
        writer.copy_others(self.source.path())?;
        Ok(writer.finish()?)
    }
}
