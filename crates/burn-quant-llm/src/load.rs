//! From a Hugging Face folder to a decoder.

use std::collections::BTreeSet;
use std::sync::Arc;

use burn::module::Param;
use burn::tensor::{DType, Device, Tensor, TensorData};
use burn_quant::nn::QuantLinear;
use burn_quant_checkpoint::gguf::GgufModel;
use burn_quant_checkpoint::{CheckpointError, Folder};

use crate::config::DecoderConfig;
use crate::import::Imported;
use crate::model::{DecoderPart, NORM, PartPlace, TABLE};
use crate::names::in_files;
use crate::source::Source;
use crate::{Decoder, LlmError};

impl Decoder {
    /// Loads a decoder from a Hugging Face folder: in float, or quantized by ModelOpt, compressed-tensors,
    /// AutoAWQ or GPTQ.
    ///
    /// Tensors are read one by one and become f32. A quantized folder becomes a decoder whose quantizers do what the
    /// folder says, with the folder's ranges: its weights are the values of its codes, and
    /// [`compress`](burn_quant::compress()) packs them into the same codes. Weights that no quantizer can describe, as
    /// those with zero points in blocks, are left without one.
    ///
    /// # Errors
    ///
    /// [`LlmError::Architecture`] with the known ones, [`LlmError::Checkpoint`] with what is missing or of another
    /// shape than `config.json` says, [`LlmError::Unused`] for tensors that the model has no place for.
    ///
    /// # Example
    ///
    /// ```no_run
    /// use burn::tensor::Device;
    /// use burn_quant_checkpoint::Folder;
    /// use burn_quant_llm::Decoder;
    ///
    /// let decoder = Decoder::load(&Folder::open("SmolLM2-135M")?, &Device::default())?;
    /// println!("{}", burn_quant::summary(&decoder));
    /// # Ok::<(), burn_quant_llm::LlmError>(())
    /// ```
    pub fn load(folder: &Folder, device: &Device) -> Result<Self, LlmError> {
        Self::load_as(folder, DType::F32, device)
    }

    /// Loads a decoder as [`Decoder::load`] does, with parameters of a type: f32, f16 or bf16.
    ///
    /// Norms, softmax and the arithmetic of quantizers are f32 whatever the type.
    ///
    /// # Errors
    ///
    /// Those of [`Decoder::load`].
    pub fn load_as(folder: &Folder, dtype: DType, device: &Device) -> Result<Self, LlmError> {
        Self::of_source(DecoderConfig::of_json(folder.config())?, &Source::of(folder)?, dtype, device)
    }

    /// Loads a decoder from a GGUF file of llama.cpp, with parameters of a type.
    ///
    /// Codes of Q8_0, Q4_0, Q5_0 and MXFP4 become weights with quantizers, in a bit more where scales are negative, as
    /// llama.cpp makes them; of other types, which stand around minima,
    /// weights are the values of the codes.
    ///
    /// # Errors
    ///
    /// Those of [`Decoder::load`].
    pub fn load_gguf(gguf: &GgufModel, dtype: DType, device: &Device) -> Result<Self, LlmError> {
        Self::of_source(DecoderConfig::of_json(&gguf.config()?)?, &Source::of_gguf(gguf), dtype, device)
    }

    fn of_source(
        mut config: DecoderConfig,
        source: &Source<'_>,
        dtype: DType,
        device: &Device,
    ) -> Result<Self, LlmError> {
        let device = &(device.clone(), dtype);
        config.tied &= !source.is_quantized("lm_head");
        let mut decoder = Decoder::new(config, &device.0);
        let mut reader = Reader { source, read: BTreeSet::new() };
        let (hidden, vocabulary) = (decoder.config().hidden, decoder.config().vocabulary);
        decoder.model.embed_tokens.weight = reader.table(vocabulary, hidden, device)?;
        reader.norms(decoder.norms_mut(), device)?;
        let mut imported = Imported::default();
        let config = decoder.config().clone();
        reader.linears(decoder.linears_mut(), &config, &mut imported, device)?;
        let tied = config.tied;
        let no_place = |name: &String| {
            let buffer = name.ends_with("rotary_emb.inv_freq") || (tied && name == "lm_head.weight");
            !buffer && !reader.read.contains(name)
        };
        let names: Vec<String> = source.names().into_iter().filter(no_place).collect();
        match names.is_empty() {
            true => imported.install(decoder, &device.0),
            false => Err(LlmError::Unused { names }),
        }
    }

    fn norms_mut(&mut self) -> Vec<(String, &mut Param<Tensor<1>>)> {
        let layers = self.model.layers.iter_mut().enumerate().flat_map(|(i, layer)| layer.norms_mut(i));
        layers.chain([(NORM.to_string(), &mut self.model.norm.gamma)]).collect()
    }
}

impl DecoderPart {
    /// Loads a part of a decoder from a Hugging Face folder in float, with parameters of a type: f32, f16 or bf16.
    ///
    /// Nothing else of the folder is read.
    ///
    /// # Errors
    ///
    /// Those of [`Decoder::load`], and [`LlmError::Setting`] if the folder is quantized.
    pub fn load(folder: &Folder, place: PartPlace, dtype: DType, device: &Device) -> Result<Self, LlmError> {
        let source = Source::of(folder)?;
        if let Some(name) = source.quantized().first() {
            return Err(LlmError::Setting {
                key: "quantization_config".into(),
                found: format!("that of {} quantized layers, first `{name}`", source.quantized().len()),
                supported: "a folder in float, where it is loaded part by part",
            });
        }
        let config = Arc::new(DecoderConfig::of_json(folder.config())?);
        let mut part = Self::new(config.clone(), place, device);
        let (device, mut reader) = ((device.clone(), dtype), Reader { source: &source, read: BTreeSet::new() });
        if let Some(table) = part.table_mut() {
            table.weight = reader.table(config.vocabulary, config.hidden, &device)?;
        }
        reader.norms(part.norms_mut(), &device)?;
        reader.linears(part.linears_mut(), &config, &mut Imported::default(), &device)?;
        Ok(part)
    }
}

/// `[rows, columns]` as `[columns, rows]`, in squares that fit into the cache.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    const SQUARE: usize = 32;
    let mut turned = vec![0.0; values.len()];
    for first in (0..rows).step_by(SQUARE) {
        for left in (0..columns).step_by(SQUARE) {
            for row in first..rows.min(first + SQUARE) {
                for column in left..columns.min(left + SQUARE) {
                    turned[column * rows + row] = values[row * columns + column];
                }
            }
        }
    }
    turned
}

fn parameter<const D: usize>(data: TensorData, device: &(Device, DType)) -> Param<Tensor<D>> {
    Param::from_tensor(Tensor::from_data(data, (&device.0, device.1)))
}

struct Reader<'a> {
    source: &'a Source<'a>,
    read: BTreeSet<String>,
}

impl Reader<'_> {
    /// The table of embeddings.
    fn table(&mut self, rows: usize, columns: usize, device: &(Device, DType)) -> Result<Param<Tensor<2>>, LlmError> {
        let table = self.floats(&format!("{TABLE}.weight"), &[rows, columns])?;
        Ok(parameter(TensorData::new(table, [rows, columns]), device))
    }

    /// The weights of norms.
    fn norms(&mut self, norms: Vec<(String, &mut Param<Tensor<1>>)>, device: &(Device, DType)) -> Result<(), LlmError> {
        for (name, gamma) in norms {
            let features = gamma.lazy_shape()[0];
            let values = self.floats(&format!("{name}.weight"), &[features])?;
            *gamma = parameter(TensorData::new(values, [features]), device);
        }
        Ok(())
    }

    /// Weights and biases of linear layers, and what their quantizers are.
    fn linears(
        &mut self,
        linears: Vec<(String, &mut QuantLinear)>,
        config: &DecoderConfig,
        imported: &mut Imported,
        device: &(Device, DType),
    ) -> Result<(), LlmError> {
        for (name, linear) in linears {
            let file = in_files(config, &name);
            let shape = linear.weight.lazy_shape();
            let (inputs, outputs) = (shape[0], shape[1]);
            let weight = match self.source.layer(&file)? {
                None => self.floats(&format!("{file}.weight"), &[outputs, inputs])?,
                Some(layer) => {
                    let found = vec![layer.weight.outputs, layer.weight.inputs];
                    if found != [outputs, inputs] {
                        let expected = format!("[{outputs}, {inputs}]");
                        return Err(CheckpointError::Shape { name: file, expected, found }.into());
                    }
                    self.read_all(&file);
                    let values = layer.weight.dequantize();
                    imported.layer(&name, &layer)?;
                    values
                }
            };
            // burn's layers have inputs first; a view would make every product of few rows copy the weight
            let weight = transposed(&weight, outputs, inputs);
            linear.weight = parameter(TensorData::new(weight, [inputs, outputs]), device);
            if linear.bias.is_some() {
                let bias = self.floats(&format!("{file}.bias"), &[outputs])?;
                linear.bias = Some(parameter(TensorData::new(bias, [outputs]), device));
            }
            let kind = name.rsplit('.').next().unwrap_or_default();
            if matches!(kind, "k_proj" | "v_proj")
                && let Some(kv) = self.source.kv(&file)?
            {
                imported.kv(&name.replace("_proj", "_bmm_quantizer"), kv);
                self.read_kv(&file);
            }
        }
        Ok(())
    }

    /// The floats of a tensor of this shape.
    fn floats(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f32>, LlmError> {
        let (found, values) = self.source.floats(name)?;
        if found != shape {
            return Err(CheckpointError::Shape { name: name.into(), expected: format!("{shape:?}"), found }.into());
        }
        self.read.insert(name.into());
        Ok(values)
    }

    /// Notes that the scales of keys or values are read, beside the projection or beside the attention.
    fn read_kv(&mut self, projection: &str) {
        let (attention, kind) = projection.rsplit_once('.').unwrap_or((projection, "k"));
        for leaf in ["scale", "bias"].map(|leaf| format!("{}_{leaf}", &kind[..1])) {
            self.read.extend([format!("{projection}.{leaf}"), format!("{attention}.{leaf}")]);
        }
    }

    /// Notes that all tensors of a quantized layer are read; a bias is read like any other.
    fn read_all(&mut self, layer: &str) {
        let of_layer = |name: &String| {
            name.strip_prefix(layer).is_some_and(|rest| rest.starts_with('.')) && !name.ends_with(".bias")
        };
        self.read.extend(self.source.names().into_iter().filter(of_layer));
    }
}
