//! From a GGUF file, or a quantized folder, to a Hugging Face folder in float.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use burn::tensor::f16;
use burn_quant_checkpoint::gguf::GgufModel;
use burn_quant_checkpoint::{CheckpointError, Dtype, Folder, FolderWriter, NotExportable, QuantizedLayer, Tensor};
use serde_json::Value;

use crate::LlmError;
use crate::source::Source;

/// Writes the model of a GGUF file as a Hugging Face folder in float: tensors are the values of its codes.
///
/// Configuration and tokenizer are made of the file's metadata, so that everything that takes a folder takes the
/// result. `dtype` is the type of the tensors; f16 and bf16 round them. The folder appears at `out` when it is
/// complete.
///
/// # Errors
///
/// [`LlmError::Checkpoint`] if the file holds another architecture or tokenizer than can be described, or the folder
/// exists.
pub fn folder_of_gguf(gguf: &GgufModel, dtype: Dtype, out: &Path) -> Result<PathBuf, LlmError> {
    let mut writer = FolderWriter::create(out)?;
    writer.json("config.json", &in_float(gguf.config()?, dtype))?;
    writer.json("tokenizer.json", &gguf.tokenizer()?)?;
    writer.json("tokenizer_config.json", &gguf.tokenizer_config()?)?;
    for name in gguf.names() {
        let shape = gguf.shape(name).unwrap_or_default().to_vec();
        writer.tensor(name, rounded(name, dtype, shape, &gguf.floats(name)?)?)?;
    }
    Ok(writer.finish()?)
}

/// Writes a folder that ModelOpt, compressed-tensors, AutoAWQ or GPTQ quantized as a folder in float: tensors are the
/// values of its codes.
///
/// Scales of inputs become part of the weight, as does a branch of low rank: `W ← (W + up · down) · diag(s)`. What was
/// done to activations, keys and values is lost. `dtype` is the type of the tensors; f16 and bf16 round them. The
/// folder appears at `out` when it is complete, with the tokenizer of the source.
///
/// # Errors
///
/// [`LlmError::Checkpoint`] for a layer that cannot be read, or if something is at `out`.
///
/// # Example
///
/// ```no_run
/// use burn_quant_checkpoint::{Dtype, Folder};
/// use burn_quant_llm::folder_of_quantized;
///
/// folder_of_quantized(&Folder::open("SmolLM2-nvfp4")?, Dtype::BF16, "SmolLM2-bf16".as_ref())?;
/// # Ok::<(), burn_quant_llm::LlmError>(())
/// ```
pub fn folder_of_quantized(folder: &Folder, dtype: Dtype, out: &Path) -> Result<PathBuf, LlmError> {
    let source = Source::of(folder)?;
    let mut writer = FolderWriter::create(out)?;
    writer.json("config.json", &in_float(folder.config().clone(), dtype))?;
    writer.copy_others(folder.path())?;
    let layers: BTreeSet<&str> = source.quantized().iter().map(String::as_str).collect();
    for name in source.names() {
        let leaf = name.rsplit('.').next().unwrap_or_default();
        // `layer.weight_quantizer._svdquant_lora_a` is of a layer, too
        let mut parents = name.match_indices('.').map(|(at, _)| &name[..at]);
        let is_of_layer = parents.any(|parent| layers.contains(parent));
        if matches!(leaf, "k_scale" | "v_scale" | "k_bias" | "v_bias") || is_of_layer && leaf != "bias" {
            continue;
        }
        let (shape, values) = source.floats(&name)?;
        writer.tensor(&name, rounded(&name, dtype, shape, &values)?)?;
    }
    for name in layers {
        let Some(mut layer) = source.layer(name)? else { continue };
        // compressed-tensors rounds the values of some formats to bf16; here `dtype` says
        layer.weight.dtype = Dtype::F32;
        let (name, shape) = (format!("{name}.weight"), vec![layer.weight.outputs, layer.weight.inputs]);
        let tensor = rounded(&name, dtype, shape, &dense(&layer))?;
        writer.tensor(name, tensor)?;
    }
    Ok(writer.finish()?)
}

/// Values as a tensor of a type that can hold them.
fn rounded(name: &str, dtype: Dtype, shape: Vec<usize>, values: &[f32]) -> Result<Tensor, CheckpointError> {
    let is_beyond = |x: &&f32| x.is_finite() && f16::from_f32(**x).is_infinite();
    match values.iter().find(is_beyond).filter(|_| dtype == Dtype::F16) {
        None => Ok(Tensor::from_f32(dtype, shape, values)),
        Some(found) => Err(CheckpointError::NotExportable {
            name: name.into(),
            format: "f16",
            reason: NotExportable::HalfElement { found: *found },
        }),
    }
}

/// The weight that does what a layer does to its inputs: `[outputs, inputs]`.
fn dense(layer: &QuantizedLayer) -> Vec<f32> {
    let (mut weight, inputs) = (layer.weight.dequantize(), layer.weight.inputs);
    for (output, row) in weight.chunks_exact_mut(inputs).enumerate() {
        if let Some(branch) = &layer.low_rank {
            let up = &branch.up[output * branch.rank..][..branch.rank];
            for (down, up) in branch.down.chunks_exact(inputs).zip(up) {
                row.iter_mut().zip(down).for_each(|(w, down)| *w += up * down);
            }
        }
        if let Some(scale) = &layer.pre_quant_scale {
            row.iter_mut().zip(scale).for_each(|(w, scale)| *w *= scale);
        }
    }
    weight
}

/// A configuration of a model whose tensors are all of this type.
fn in_float(mut config: Value, dtype: Dtype) -> Value {
    if let Some(config) = config.as_object_mut() {
        config.remove("quantization_config");
        config.remove("torch_dtype");
        let name = match dtype {
            Dtype::BF16 => "bfloat16",
            Dtype::F16 => "float16",
            _ => "float32",
        };
        config.insert("dtype".into(), name.into());
    }
    config
}

#[cfg(test)]
mod tests {
    use burn_quant_checkpoint::{Element, Inputs, LowRank, Offset, QuantizedMatrix, ScaleKind};

    use super::*;

    #[test]
    fn scales_and_branches_become_part_of_the_weight() {
        let weight = QuantizedMatrix {
            outputs: 2,
            inputs: 2,
            element: Element::Int(8),
            codes: vec![1, 2, 3, 4],
            block_outputs: 2,
            block_inputs: 2,
            scales: vec![1.0],
            scale_kind: ScaleKind::Float,
            offset: Offset::None,
            then_e4m3: None,
            dtype: Dtype::F32,
        };
        let mut layer = QuantizedLayer {
            weight,
            inputs: Inputs::Float,
            pre_quant_scale: Some(vec![2.0, 0.5]),
            low_rank: Some(LowRank { rank: 1, down: vec![10.0, 20.0], up: vec![1.0, -1.0] }),
        };
        // ([1 2; 3 4] + [10 20; -10 -20]) · diag(2, 0.5)
        assert_eq!(dense(&layer), [22.0, 11.0, -14.0, -8.0]);
        (layer.pre_quant_scale, layer.low_rank) = (None, None);
        assert_eq!(dense(&layer), [1.0, 2.0, 3.0, 4.0]);
    }
}
