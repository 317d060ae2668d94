//! A GGUF file, for llama.cpp.

use std::path::Path;

use burn_quant_checkpoint::gguf::{GgmlType, GgufModelWriter, HalfScales, ModelSource, PlannedTensor, TensorData};
use burn_quant_checkpoint::modelopt::Folding;
use burn_quant_checkpoint::{CheckpointError, Folder, Inputs, NotExportable};

use super::ExportState;
use crate::LlmError;

/// What a GGUF file has.
const KNOWN: &str = "integers of 2 to 8 bits in blocks of 32 or a multiple, and MXFP4, with inputs in float";

impl ExportState {
    /// Writes a GGUF file, which llama.cpp loads: integers of up to 4 bits as Q4_0, of 5 as Q5_0, of 6 to 8 as Q8_0,
    /// and MXFP4, with the codes that the decoder has; embeddings and head in f16, whatever the type of the model,
    /// vectors in f32.
    ///
    /// Scales of inputs move into the norm or the layer before. Blocks larger than 32 repeat their scale. Scales are
    /// rounded to f16, as the format has it: what that changes is returned. llama.cpp rounds inputs to 8 bits when it
    /// multiplies. Tokenizer and chat template come from the source folder. The file appears when it is complete.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::NotExportable`] for a layer that the format cannot hold: quantized inputs, blocks that are no
    /// multiple of 32, a scale of inputs that nothing before it can take; [`CheckpointError::Io`] if the file cannot be
    /// written.
    pub fn write_gguf(mut self, source: &Folder, out: &Path) -> Result<HalfScales, LlmError> {
        self.prepare(Folding::Everywhere)?;
        let layers = self.quantized_layers("GGUF")?;
        let refuse = |name: &String, found: String| CheckpointError::NotExportable {
            name: name.clone(),
            format: "GGUF",
            reason: NotExportable::Format { found, known: KNOWN },
        };
        if let Some(name) = self.kv.keys().next() {
            return Err(refuse(name, "quantized keys and values".into()).into());
        }
        let mut plan = Vec::new();
        for (name, layer) in &layers {
            if layer.inputs != Inputs::Float {
                return Err(refuse(name, format!("quantized inputs ({:?})", layer.inputs)).into());
            }
            let Some(ggml) = GgmlType::of_matrix(&layer.weight).filter(|_| layer.weight.then_e4m3.is_none()) else {
                return Err(refuse(name, format!("{:?} weights", layer.weight.element)).into());
            };
            let shape = vec![layer.weight.outputs, layer.weight.inputs];
            plan.push(PlannedTensor::new(format!("{name}.weight"), shape, ggml));
        }
        let matrices = GgmlType::F16;
        // vectors, and routers, which are small and decide much, are in f32 in every file of llama.cpp
        let mut floats: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
        for (name, gamma) in &self.norms {
            floats.push((format!("{name}.weight"), vec![gamma.len()], gamma.clone()));
        }
        for (name, tensor) in &self.floats {
            floats.push((name.clone(), tensor.shape().to_vec(), tensor.to_f32(name)?));
        }
        for (name, state) in &self.layers {
            if let Some(bias) = &state.bias {
                floats.push((format!("{name}.bias"), vec![bias.len()], bias.clone()));
            }
        }
        for (name, shape, _) in &floats {
            let is_small = shape.len() == 1 || name.ends_with(".gate.weight");
            plan.push(PlannedTensor::new(name.clone(), shape.clone(), if is_small { GgmlType::F32 } else { matrices }));
        }
        let (tokenizer, tokenizer_config) = (source.json("tokenizer.json")?, source.json("tokenizer_config.json")?);
        let template = std::fs::read_to_string(source.path().join("chat_template.jinja")).ok();
        let name = source.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let model = ModelSource {
            tokenizer: tokenizer.as_ref(),
            tokenizer_config: tokenizer_config.as_ref(),
            chat_template: template.as_deref(),
            ..ModelSource::new(&name, source.config())
        };
        let mut writer = GgufModelWriter::create(out, &model, &plan)?;
        for (name, layer) in &layers {
            writer.tensor(&format!("{name}.weight"), TensorData::Matrix(&layer.weight))?;
        }
        for (name, _, values) in &floats {
            writer.tensor(name, TensorData::Floats(values))?;
        }
        Ok(writer.finish()?)
    }
}
