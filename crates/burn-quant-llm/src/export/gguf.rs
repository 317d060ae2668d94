//! A GGUF file, for llama.cpp.

use std::path::Path;

use burn_quant_checkpoint::gguf::{GgmlType, GgufModelWriter, HalfScales, ModelSource, PlannedTensor, TensorData};
use burn_quant_checkpoint::modelopt::Folding;
use burn_quant_checkpoint::{CheckpointError, Folder, Inputs, NotExportable, QuantizedLayer};

use super::parts::Parts;
use super::{Export, ExportState};
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
    pub fn write_gguf(self, source: &Folder, out: &Path) -> Result<HalfScales, LlmError> {
        Export::new(source, out).gguf_of(Parts::Whole(Box::new(self)))
    }
}

impl Export<'_> {
    pub(super) fn gguf_of(&self, parts: Parts<'_>) -> Result<HalfScales, LlmError> {
        match parts {
            Parts::Whole(mut state) => {
                state.prepare(Folding::Everywhere)?;
                let tensors = Tensors::of(&state)?;
                let mut writer = self.file(tensors.plan())?;
                tensors.write(&mut writer)?;
                Ok(writer.finish()?)
            }
            // a file begins with the types of all of its tensors
            Parts::Each(parts) => {
                let mut plan = Vec::new();
                Parts::Each(parts).for_each(Folding::Everywhere, &mut |state| {
                    plan.extend(Tensors::of(&state)?.plan());
                    Ok(())
                })?;
                let mut writer = self.file(plan)?;
                Parts::Each(parts)
                    .for_each(Folding::Everywhere, &mut |state| Tensors::of(&state)?.write(&mut writer))?;
                Ok(writer.finish()?)
            }
        }
    }

    /// Begins a file of planned tensors, those of a kind together.
    fn file(&self, mut plan: Vec<(Kind, PlannedTensor)>) -> Result<GgufModelWriter, CheckpointError> {
        plan.sort_by(|(a, first), (b, second)| a.cmp(b).then_with(|| first.name.cmp(&second.name)));
        let plan: Vec<PlannedTensor> = plan.into_iter().map(|(_, tensor)| tensor).collect();
        let source = self.source;
        let (tokenizer, tokenizer_config) = (source.json("tokenizer.json")?, source.json("tokenizer_config.json")?);
        let template = std::fs::read_to_string(source.path().join("chat_template.jinja")).ok();
        let name = source.path().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let model = ModelSource {
            tokenizer: tokenizer.as_ref(),
            tokenizer_config: tokenizer_config.as_ref(),
            chat_template: template.as_deref(),
            ..ModelSource::new(&name, source.config())
        };
        GgufModelWriter::create(self.out, &model, &plan)
    }
}

/// What a tensor is, in the order of a file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Matrix,
    Norm,
    Float,
    Bias,
}

/// The tensors of a decoder, or of a part of it, as a file has them.
struct Tensors {
    matrices: Vec<(String, GgmlType, QuantizedLayer)>,
    floats: Vec<(Kind, String, Vec<usize>, Vec<f32>)>,
}

impl Tensors {
    fn of(state: &ExportState) -> Result<Self, LlmError> {
        let refuse = |name: &String, found: String| CheckpointError::NotExportable {
            name: name.clone(),
            format: "GGUF",
            reason: NotExportable::Format { found, known: KNOWN },
        };
        if let Some(name) = state.kv.keys().next() {
            return Err(refuse(name, "quantized keys and values".into()).into());
        }
        let mut matrices = Vec::new();
        for (name, layer) in state.quantized_layers("GGUF")? {
            if layer.inputs != Inputs::Float {
                return Err(refuse(&name, format!("quantized inputs ({:?})", layer.inputs)).into());
            }
            let Some(ggml) = GgmlType::of_matrix(&layer.weight).filter(|_| layer.weight.then_e4m3.is_none()) else {
                return Err(refuse(&name, format!("{:?} weights", layer.weight.element)).into());
            };
            matrices.push((format!("{name}.weight"), ggml, layer));
        }
        let mut floats = Vec::new();
        for (name, gamma) in &state.norms {
            floats.push((Kind::Norm, format!("{name}.weight"), vec![gamma.len()], gamma.clone()));
        }
        for (name, tensor) in &state.floats {
            floats.push((Kind::Float, name.clone(), tensor.shape().to_vec(), tensor.to_f32(name)?));
        }
        for (name, layer) in &state.layers {
            if let Some(bias) = &layer.bias {
                floats.push((Kind::Bias, format!("{name}.bias"), vec![bias.len()], bias.clone()));
            }
        }
        Ok(Self { matrices, floats })
    }

    fn plan(&self) -> Vec<(Kind, PlannedTensor)> {
        let matrices = self.matrices.iter().map(|(name, ggml, layer)| {
            let shape = vec![layer.weight.outputs, layer.weight.inputs];
            (Kind::Matrix, PlannedTensor::new(name.clone(), shape, *ggml))
        });
        // vectors, and routers, which are small and decide much, are in f32 in every file of llama.cpp
        let floats = self.floats.iter().map(|(kind, name, shape, _)| {
            let is_small = shape.len() == 1 || name.ends_with(".gate.weight");
            let ggml = if is_small { GgmlType::F32 } else { GgmlType::F16 };
            (*kind, PlannedTensor::new(name.clone(), shape.clone(), ggml))
        });
        matrices.chain(floats).collect()
    }

    fn write(&self, writer: &mut GgufModelWriter) -> Result<(), LlmError> {
        for (name, _, layer) in &self.matrices {
            writer.tensor(name, TensorData::Matrix(&layer.weight))?;
        }
        for (_, name, _, values) in &self.floats {
            writer.tensor(name, TensorData::Floats(values))?;
        }
        Ok(())
    }
}
