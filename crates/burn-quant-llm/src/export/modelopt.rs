//! ModelOpt's unified Hugging Face folder.

use std::path::{Path, PathBuf};

use burn_quant_checkpoint::modelopt::{Folding, KvAlgo, Quantization, kv_tensors, pack};
use burn_quant_checkpoint::{CheckpointError, Dtype, Element, Folder, FolderWriter, Minifloat, NotExportable, Tensor};

use super::parts::Parts;
use super::{Export, ExportState};
use crate::LlmError;

impl ExportState {
    /// Writes a folder in ModelOpt's unified format, which vLLM, SGLang and TensorRT-LLM load.
    ///
    /// Configuration, tokenizer and whatever else the source folder has come from there. The folder appears at `out`
    /// when it is complete.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::NotExportable`] for a layer that its format cannot hold, [`CheckpointError::Io`] if the
    /// folder cannot be written, or exists.
    pub fn write_modelopt(self, source: &Folder, out: &Path) -> Result<PathBuf, LlmError> {
        Export::new(source, out).modelopt_of(Parts::Whole(Box::new(self)))
    }
}

impl Export<'_> {
    pub(super) fn modelopt_of(&self, parts: Parts<'_>) -> Result<PathBuf, LlmError> {
        let mut writer = self.folder()?;
        let mut quantization = Quantization::default();
        let mut kv: Option<(String, KvAlgo)> = None;
        parts.for_each(Folding::AsModelOpt, &mut |state| {
            add(&mut quantization, &state, &mut kv)?;
            for (name, layer) in &state.layers {
                for (name, tensor) in pack(name, layer)? {
                    writer.tensor(name, tensor)?;
                }
            }
            let heads = state.config.kv_heads;
            for (name, quantizer) in &state.kv {
                for (name, tensor) in kv_tensors(name, quantizer, heads) {
                    writer.tensor(name, tensor)?;
                }
            }
            Ok(state.write_floats(&mut writer)?)
        })?;
        writer.json("config.json", &self.config(quantization.quantization_config()))?;
        writer.json("hf_quant_config.json", &quantization.hf_quant_config())?;
        writer.copy_others(self.source.path())?;
        Ok(writer.finish()?)
    }
}

impl ExportState {
    /// Writes norms and all that is not quantized.
    pub(super) fn write_floats(self, writer: &mut FolderWriter) -> Result<(), CheckpointError> {
        let dtype: Dtype = self.config.dtype;
        for (name, gamma) in self.norms {
            writer.tensor(format!("{name}.weight"), Tensor::from_f32(dtype, vec![gamma.len()], &gamma))?;
        }
        for (name, tensor) in self.floats {
            writer.tensor(name, tensor)?;
        }
        Ok(())
    }
}

/// Adds the formats of a part, after those before it. `kv` is the first format of keys and values, and whose.
fn add(
    quantization: &mut Quantization,
    state: &ExportState,
    kv: &mut Option<(String, KvAlgo)>,
) -> Result<(), CheckpointError> {
    // in the order in which they run
    let mut names: Vec<&String> = state.layers.keys().collect();
    names.sort_by_key(|name| order(name));
    for name in names {
        let layer = &state.layers[name];
        quantization.layer(name.clone(), layer.algo, Some(layer.block));
    }
    state.unquantized.iter().for_each(|name| quantization.exclude(name.clone()));
    for (name, algo) in state.kv.iter().map(|(name, kv)| (name, kv_algo(kv.element, kv.bias.is_some()))) {
        match kv {
            Some((sibling, other)) if *other != algo => {
                return Err(CheckpointError::NotExportable {
                    name: name.clone(),
                    format: "a ModelOpt folder",
                    reason: NotExportable::Siblings {
                        found: algo.name().into(),
                        sibling: sibling.clone(),
                        other: other.name().into(),
                    },
                });
            }
            _ => {
                *kv = Some((name.clone(), algo));
                quantization.set_kv(algo);
            }
        }
    }
    Ok(())
}

fn kv_algo(element: Element, affine: bool) -> KvAlgo {
    match (element == Element::Float(Minifloat::E2M1), affine) {
        (false, _) => KvAlgo::Fp8,
        (true, false) => KvAlgo::Nvfp4,
        (true, true) => KvAlgo::Nvfp4Affine,
    }
}

/// Layers by number, the parts of a layer in the order in which they run, the head last.
fn order(name: &str) -> (usize, usize, usize, usize) {
    const PARTS: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
    let mut numbers = name.split('.').filter_map(|part| part.parse::<usize>().ok());
    let last = name.rsplit('.').next().unwrap_or_default();
    let part = PARTS.iter().position(|part| *part == last).unwrap_or(PARTS.len());
    let attention = usize::from(!name.contains("self_attn"));
    (numbers.next().unwrap_or(usize::MAX), attention, numbers.next().unwrap_or(0), part)
}
