//! From a quantized decoder to the folders and files of other systems.
//!
//! * `algo` which of ModelOpt's formats the quantizers of a layer are
//! * `check` whether a target holds what a recipe makes
//! * `modelopt` ModelOpt's unified folder
//! * `compressed_tensors` the folder of compressed-tensors
//! * `gguf` a file for llama.cpp
//! * `parts` all of these, for decoders whose parts are read one by one

mod algo;
mod check;
mod compressed_tensors;
mod gguf;
mod modelopt;
mod parts;

pub use check::check_recipe;
pub use parts::Export;

use std::collections::BTreeMap;

use burn::tensor::{DType, Tensor as BurnTensor};
use burn_quant::TensorQuantizer;
use burn_quant::compress::PackedWeight;
use burn_quant::config::RangeSource;
use burn_quant::nn::{QuantEmbedding, QuantLinear, QuantRmsNorm};
use burn_quant::ops::PackedScales;
use burn_quant::quantizer::Buffer;
use burn_quant_checkpoint::modelopt::{Folding, LinearState, Siblings, prepare, prepare_experts};
use burn_quant_checkpoint::{CheckpointError, Element, KvQuantizer, LowRank, NotExportable, Tensor};

use crate::config::{Architecture, DecoderConfig};
use crate::model::{HEAD, Layer, TABLE};
use crate::names::in_files;
use crate::{Decoder, DecoderPart, LlmError, PartPlace};

/// A quantized decoder as a checkpoint takes it: its layers in float with their ranges, under the names of files.
///
/// [`ExportState::of`] takes it from a decoder; the methods that write make siblings share what servers want them to
/// share, and refuse what a format cannot hold.
#[derive(Clone, Debug)]
pub struct ExportState {
    /// What the decoder is.
    pub config: DecoderConfig,
    /// The quantized linear layers.
    pub layers: BTreeMap<String, LinearState>,
    /// The weights of the norms before layers, without `.weight`.
    pub norms: BTreeMap<String, Vec<f32>>,
    /// What is done to keys and values, by their projection.
    pub kv: BTreeMap<String, KvQuantizer>,
    /// All other tensors.
    pub floats: BTreeMap<String, Tensor>,
    /// The linear layers that are not quantized, the table of embeddings among them.
    pub unquantized: Vec<String>,
}

impl ExportState {
    /// Takes what a checkpoint needs from a decoder.
    ///
    /// Reads all parameters from the device. Values are rounded to the type that `config.json` names.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::NotExportable`] for a layer whose quantizers no checkpoint has, or that have no range.
    pub fn of(decoder: &Decoder) -> Result<Self, LlmError> {
        let mut state = Self::empty(decoder.config().clone());
        state.add_table(&decoder.model.embed_tokens);
        state.add_norms(decoder.norms());
        state.add_linears(decoder.linears())?;
        state.add_tied_head();
        for (i, layer) in decoder.model.layers.iter().enumerate() {
            state.add_kv(i, layer)?;
        }
        Ok(state)
    }

    /// Takes what a checkpoint needs from a part of a decoder.
    ///
    /// # Errors
    ///
    /// Those of [`ExportState::of`].
    pub fn of_part(part: &DecoderPart) -> Result<Self, LlmError> {
        let mut state = Self::empty((**part.config()).clone());
        if let Some(table) = part.table() {
            state.add_table(table);
        }
        state.add_norms(part.norms());
        state.add_linears(part.linears())?;
        match part.place() {
            PartPlace::Head => state.add_tied_head(),
            PartPlace::Layer(i) => state.add_kv(i, part.layer().expect("a layer is one"))?,
            PartPlace::Embeddings => {}
        }
        Ok(state)
    }

    fn empty(config: DecoderConfig) -> Self {
        Self {
            layers: BTreeMap::new(),
            norms: BTreeMap::new(),
            kv: BTreeMap::new(),
            floats: BTreeMap::new(),
            unquantized: Vec::new(),
            config,
        }
    }

    fn add_table(&mut self, table: &QuantEmbedding) {
        let table = table.weight.val();
        self.float(&format!("{TABLE}.weight"), table.dims().to_vec(), host(table));
        self.unquantized.push(TABLE.into());
    }

    fn add_norms(&mut self, norms: Vec<(String, &QuantRmsNorm)>) {
        for (name, norm) in norms {
            let mut gamma = host(norm.gamma.val());
            self.config.dtype.round(&mut gamma);
            self.norms.insert(name, gamma);
        }
    }

    fn add_linears(&mut self, linears: Vec<(String, &QuantLinear)>) -> Result<(), LlmError> {
        let dtype = self.config.dtype;
        for (name, linear) in linears {
            let file = in_files(&self.config, &name);
            let [inputs, outputs] = linear.weight.dims();
            let quantizer = linear.weight.reparameterization::<TensorQuantizer>().filter(|it| it.is_enabled());
            let weight = match quantizer.and_then(TensorQuantizer::packed) {
                Some(packed) => packed.unpack::<2>(),
                None => linear.weight.base(),
            };
            let mut weight = host(weight.transpose());
            let mut bias = linear.bias.as_ref().map(|bias| host(bias.val()));
            dtype.round(&mut weight);
            bias.iter_mut().for_each(|bias| dtype.round(bias));
            let Some(quantizer) = quantizer else {
                linear.input_quantizer.refuse(&format!("{name}.input_quantizer"))?;
                self.float(&format!("{file}.weight"), vec![outputs, inputs], weight);
                if let Some(bias) = bias {
                    self.float(&format!("{file}.bias"), vec![outputs], bias);
                }
                self.unquantized.push(file);
                continue;
            };
            let layer = algo::state(&file, quantizer, &linear.input_quantizer, weight, bias, [outputs, inputs], dtype)?;
            self.layers.insert(file, layer);
        }
        Ok(())
    }

    /// A head that is the table of embeddings is not quantized.
    fn add_tied_head(&mut self) {
        if self.config.tied {
            self.unquantized.push(HEAD.into());
        }
    }

    fn add_kv(&mut self, i: usize, layer: &Layer) -> Result<(), LlmError> {
        let attention = &layer.self_attn;
        for (kind, quantizer) in [("k", &attention.k_bmm_quantizer), ("v", &attention.v_bmm_quantizer)] {
            if quantizer.is_enabled() {
                let name = format!("model.layers.{i}.self_attn.{kind}_proj");
                let kv = kv(&name, quantizer)?;
                self.kv.insert(name, kv);
            }
        }
        Ok(())
    }

    fn float(&mut self, name: &str, shape: Vec<usize>, values: Vec<f32>) {
        self.floats.insert(name.into(), Tensor::from_f32(self.config.dtype, shape, &values));
    }

    /// Makes siblings share what servers want them to share, and moves scales of inputs into what comes before: what
    /// ModelOpt does before it packs.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::NotExportable`] if siblings have different formats.
    pub fn prepare(&mut self, folding: Folding) -> Result<(), LlmError> {
        let siblings = self.siblings(folding);
        prepare(&mut self.layers, &mut self.norms, &siblings, folding)?;
        self.experts().iter().for_each(|experts| prepare_experts(&mut self.layers, experts));
        Ok(())
    }

    /// Returns the layers that share an input, with what makes it.
    ///
    /// In the order in which they run.
    pub fn siblings(&self, folding: Folding) -> Vec<Siblings> {
        // ModelOpt knows these classes; of the others it leaves the scales of inputs where they are
        let known = [Architecture::Llama, Architecture::Qwen3, Architecture::Qwen3Moe];
        let folds = folding == Folding::Everywhere || known.contains(&self.config.architecture);
        let mut siblings = Vec::new();
        for i in 0..self.config.layers {
            let named = |name: &str| format!("model.layers.{i}.{name}");
            let group = |layers: &[&str], norm: Option<&str>, producer: Option<&str>| Siblings {
                layers: layers.iter().map(|name| named(name)).collect(),
                norm: norm.map(named),
                producer: producer.filter(|_| folds).map(named),
            };
            let attention = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"];
            siblings.push(group(&attention, Some("input_layernorm"), None));
            siblings.push(group(&["self_attn.o_proj"], None, Some("self_attn.v_proj")));
            if !self.config.sparse[i] {
                siblings.push(group(&["mlp.gate_proj", "mlp.up_proj"], Some("post_attention_layernorm"), None));
                siblings.push(group(&["mlp.down_proj"], None, Some("mlp.up_proj")));
            }
        }
        siblings.retain(|group| group.layers.iter().any(|name| self.layers.contains_key(name)));
        siblings
    }

    /// Returns the names of the experts of each layer that has some: gate, up and down of each.
    ///
    /// As files have them.
    pub fn experts(&self) -> Vec<Vec<[String; 3]>> {
        let count = self.config.experts.map_or(0, |experts| experts.count);
        let sparse = (0..self.config.layers).filter(|i| self.config.sparse[*i]);
        let named = |i: usize, expert: usize| {
            ["gate_proj", "up_proj", "down_proj"]
                .map(|part| in_files(&self.config, &format!("model.layers.{i}.mlp.experts.{expert}.{part}")))
        };
        sparse.map(|i| (0..count).map(|expert| named(i, expert)).collect()).collect()
    }
}

/// The values of a tensor, f32.
fn host<const D: usize>(tensor: BurnTensor<D>) -> Vec<f32> {
    tensor.cast(DType::F32).into_data().try_into_vec().expect("f32 data")
}

fn buffer(quantizer: &TensorQuantizer, buffer: Buffer) -> Option<Vec<f32>> {
    quantizer.buffer(buffer).map(host)
}

/// `[rows, columns]` as `[columns, rows]`.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

/// The ranges of a packed weight with f32 scales, in the order of its quantizer's groups; `None` of other scales.
fn packed_ranges(packed: &PackedWeight) -> Option<Vec<f32>> {
    match packed.packed().scales {
        PackedScales::Ranges(ranges) => Some(host(ranges)),
        PackedScales::Codes(_) => None,
    }
}

fn refuse(name: &str, reason: NotExportable) -> LlmError {
    CheckpointError::NotExportable { name: name.into(), format: "a checkpoint", reason }.into()
}

fn kv(name: &str, quantizer: &TensorQuantizer) -> Result<KvQuantizer, LlmError> {
    use burn_quant::config::{Format, ScaleFormat};
    use burn_quant_checkpoint::Minifloat;
    let config = quantizer.config();
    let element = match (config.format, config.scale) {
        (Format::E4M3, ScaleFormat::F32) => Minifloat::E4M3,
        (Format::E2M1, ScaleFormat::E4M3(_)) => Minifloat::E2M1,
        _ => {
            let (found, known) = (config.kind(), "FP8 (`e4m3`) and NVFP4 for keys and values");
            return Err(refuse(name, NotExportable::Format { found, known }));
        }
    };
    let amax = match (config.range, buffer(quantizer, Buffer::Amax).as_deref()) {
        (RangeSource::Constant(amax), _) => Some(amax),
        (RangeSource::Static, Some([amax])) => Some(*amax),
        (RangeSource::Static, None) => {
            return Err(refuse(name, NotExportable::Uncalibrated { quantizer: "bmm_quantizer" }));
        }
        _ => {
            let (found, known) = (format!("{} with many or dynamic ranges", config.kind()), "one range for a tensor");
            return Err(refuse(name, NotExportable::Format { found, known }));
        }
    };
    let scale = amax.unwrap_or(448.0) / 448.0;
    Ok(KvQuantizer { element: Element::Float(element), scale, bias: buffer(quantizer, Buffer::Bias) })
}

fn low_rank(input: &TensorQuantizer, [outputs, inputs]: [usize; 2]) -> Option<LowRank> {
    let (down, up) = (buffer(input, Buffer::LowRankDown)?, buffer(input, Buffer::LowRankUp)?);
    let rank = down.len() / inputs.max(1);
    Some(LowRank { rank, down: transposed(&down, inputs, rank), up: transposed(&up, rank, outputs) })
}
