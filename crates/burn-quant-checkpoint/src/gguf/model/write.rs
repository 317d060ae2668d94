//! A file from tensors under the names of Hugging Face.

use std::collections::HashMap;
use std::path::PathBuf;

use serde_json::Value;

use super::architecture::Architecture;
use super::names::Place;
use super::rope::Scaling;
use super::rows::Order;
use super::{config, rope};
use crate::error::near_misses;
use crate::gguf::{GgmlType, GgufWriter, HalfScales, PlannedTensor, blocks, encode, encode_matrix, vocabulary};
use crate::{CheckpointError, NotExportable, QuantizedMatrix};

/// What a model's metadata is made of: the JSON files of its folder.
///
/// # Example
///
/// ```
/// use burn_quant_checkpoint::gguf::ModelSource;
/// use serde_json::json;
///
/// let config = json!({"model_type": "llama"});
/// let source = ModelSource { chat_template: Some("{{ messages }}"), ..ModelSource::new("my-model", &config) };
/// assert!(source.tokenizer.is_none());
/// ```
#[derive(Clone, Copy, Debug)]
pub struct ModelSource<'a> {
    /// Name of the model, for `general.name`.
    pub name: &'a str,
    /// `config.json`.
    pub config: &'a Value,
    /// `tokenizer.json`. Without it the file has no tokenizer, and llama.cpp does not load it.
    pub tokenizer: Option<&'a Value>,
    /// `tokenizer_config.json`: names of special tokens, chat template.
    pub tokenizer_config: Option<&'a Value>,
    /// Chat template in Jinja, in place of that of `tokenizer_config.json`.
    pub chat_template: Option<&'a str>,
    /// `tokenizer.ggml.pre`, in place of the one that is recognised by the pre-tokenizer of `tokenizer.json`.
    pub pre_tokenizer: Option<&'a str>,
}

impl<'a> ModelSource<'a> {
    /// Takes a model's name and `config.json`; without a tokenizer.
    pub fn new(name: &'a str, config: &'a Value) -> Self {
        Self { name, config, tokenizer: None, tokenizer_config: None, chat_template: None, pre_tokenizer: None }
    }
}

/// The elements of a tensor to be written, row-major, as Hugging Face has them.
#[derive(Clone, Copy, Debug)]
pub enum TensorData<'a> {
    /// Floats, which are rounded to the planned type.
    Floats(&'a [f32]),
    /// Codes and scales; codes are kept, see [`encode_matrix`].
    Matrix(&'a QuantizedMatrix),
}

/// Writes a model of the llama family: takes tensors under the names of Hugging Face, one by one, in any order.
///
/// Rows of queries and keys are reordered where the architecture needs it, experts become parts of one tensor, and
/// `rope_freqs.weight` is added for Llama 3. The file appears when [`GgufModelWriter::finish`] is called.
///
/// # Example
///
/// ```no_run
/// use burn_quant_checkpoint::Folder;
/// use burn_quant_checkpoint::gguf::{GgmlType, GgufModelWriter, ModelSource, PlannedTensor, TensorData};
///
/// let folder = Folder::open("SmolLM2-135M")?;
/// let tokenizer = folder.json("tokenizer.json")?;
/// let source = ModelSource { tokenizer: tokenizer.as_ref(), ..ModelSource::new("SmolLM2", folder.config()) };
/// let plan: Vec<_> = folder
///     .names()
///     .map(|name| {
///         let shape = folder.info(name).unwrap().shape.clone();
///         let ggml = if shape.len() == 1 { GgmlType::F32 } else { GgmlType::Q4_0 };
///         PlannedTensor::new(name, shape, ggml)
///     })
///     .collect();
/// let mut writer = GgufModelWriter::create("SmolLM2.Q4_0.gguf", &source, &plan)?;
/// for name in folder.names() {
///     writer.tensor(name, TensorData::Floats(&folder.tensor(name)?.to_f32(name)?))?;
/// }
/// writer.finish()?;
/// # Ok::<(), burn_quant_checkpoint::CheckpointError>(())
/// ```
#[derive(Debug)]
pub struct GgufModelWriter {
    writer: GgufWriter,
    architecture: Architecture,
    plan: HashMap<String, (Place, PlannedTensor)>,
    rounded: HalfScales,
}

impl GgufModelWriter {
    /// Begins a file. Planned tensors have the names and shapes of Hugging Face, each expert its own.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Unknown`] for an architecture, a tensor, a tokenizer or a computation that GGUF's
    /// architectures have not; [`CheckpointError::Missing`] or [`CheckpointError::Value`] for keys of `config.json`;
    /// [`CheckpointError::NotExportable`] for shapes that a type cannot hold; [`CheckpointError::Shape`] for queries
    /// and keys with other rows than the configuration says; [`CheckpointError::Io`].
    pub fn create(
        path: impl Into<PathBuf>,
        source: &ModelSource<'_>,
        tensors: &[PlannedTensor],
    ) -> Result<Self, CheckpointError> {
        let architecture = Architecture::of_config(source.config)?;
        let (plan, mut stored) = placed(&architecture, tensors)?;
        let mut metadata = config::metadata(source.config, &architecture, source.name, file_type(tensors))?;
        if let Some(tokenizer) = source.tokenizer {
            vocabulary::set_tokenizer(&mut metadata, source, tokenizer)?;
        }
        let factors = match Scaling::of_config(source.config)? {
            Scaling::Llama3(llama3) => Some(llama3.factors(config::theta(source.config)?, architecture.head)),
            _ => None,
        };
        if let Some(factors) = &factors {
            stored.push(PlannedTensor::new(rope::TENSOR, [factors.len()], GgmlType::F32));
        }
        let mut writer = GgufWriter::create(path, &metadata, &stored)?;
        if let Some(factors) = factors {
            writer.tensor(rope::TENSOR, &encode(rope::TENSOR, GgmlType::F32, &factors)?)?;
        }
        Ok(Self { writer, architecture, plan, rounded: HalfScales::default() })
    }

    /// Writes a tensor, in the planned type.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Missing`] for a tensor that is not planned, [`CheckpointError::Twice`] for one that is
    /// written, [`CheckpointError::Contradiction`] for another shape, those of [`encode`] and
    /// [`encode_matrix`], [`CheckpointError::Io`].
    pub fn tensor(&mut self, name: &str, data: TensorData<'_>) -> Result<(), CheckpointError> {
        let (place, planned) = self.plan.get(name).ok_or_else(|| CheckpointError::Missing {
            name: name.into(),
            near_misses: near_misses(name, self.plan.keys().map(String::as_str)),
        })?;
        let (fits, found) = match data {
            TensorData::Floats(values) => {
                (values.len() == planned.shape.iter().product::<usize>(), format!("has {} elements", values.len()))
            }
            TensorData::Matrix(matrix) => {
                let shape = [matrix.outputs, matrix.inputs];
                (planned.shape == shape, format!("has the shape {shape:?}"))
            }
        };
        if !fits {
            let (name, one) = (name.into(), format!("is planned with the shape {:?}", planned.shape));
            return Err(CheckpointError::Contradiction { name, one, other: found });
        }
        let rows = planned.shape.first().copied().unwrap_or(1);
        let bytes = match (data, place.heads) {
            (TensorData::Floats(values), None) => encode(name, planned.ggml, values),
            (TensorData::Floats(values), Some(heads)) => {
                encode(name, planned.ggml, &Order::Pairs.apply(values, rows, heads))
            }
            (TensorData::Matrix(matrix), None) => encode_matrix(name, planned.ggml, matrix, &mut self.rounded),
            (TensorData::Matrix(matrix), Some(heads)) => {
                let matrix = Order::Pairs.apply_to_matrix(matrix, heads);
                encode_matrix(name, planned.ggml, &matrix, &mut self.rounded)
            }
        }?;
        let (part, parts) = place.expert.map_or((0, 1), |expert| (expert, self.architecture.experts));
        self.writer.part(&place.name, part, parts, &bytes)
    }

    /// Checks that all tensors are written, and moves the file to its path.
    ///
    /// Returns what rounding the scales of matrices to f16 changed.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Missing`] with the first tensor that is not written, [`CheckpointError::Io`].
    pub fn finish(self) -> Result<HalfScales, CheckpointError> {
        self.writer.finish()?;
        Ok(self.rounded)
    }
}

/// Returns `general.file_type`: that of the type with the most elements among tensors of two axes or more.
fn file_type(tensors: &[PlannedTensor]) -> u32 {
    let mut elements: Vec<(GgmlType, usize)> = Vec::new();
    for tensor in tensors.iter().filter(|tensor| tensor.shape.len() > 1) {
        let len = tensor.shape.iter().product::<usize>();
        match elements.iter_mut().find(|(ggml, _)| *ggml == tensor.ggml) {
            Some((_, sum)) => *sum += len,
            None => elements.push((tensor.ggml, len)),
        }
    }
    let most = elements.into_iter().rev().max_by_key(|(_, sum)| *sum);
    most.and_then(|(ggml, _)| ggml.file_type()).unwrap_or(0)
}

type Placed = (HashMap<String, (Place, PlannedTensor)>, Vec<PlannedTensor>);

/// Places planned tensors, and returns what the file stores: experts together, in the order of their first.
fn placed(architecture: &Architecture, tensors: &[PlannedTensor]) -> Result<Placed, CheckpointError> {
    let mut plan: HashMap<String, (Place, PlannedTensor)> = HashMap::new();
    let mut stored: Vec<PlannedTensor> = Vec::new();
    let mut stacks: HashMap<String, PlannedTensor> = HashMap::new();
    for tensor in tensors {
        let place = architecture.place(&tensor.name).ok_or_else(|| CheckpointError::Unknown {
            what: format!("a tensor of {}", architecture.family.gguf()),
            found: tensor.name.clone(),
            known: "those of the architecture in `transformers`, layer by layer, each expert its own",
        })?;
        check(architecture, tensor, &place)?;
        match place.expert {
            None => stored.push(PlannedTensor { name: place.name.clone(), ..tensor.clone() }),
            Some(_) => {
                let first = stacks.entry(place.name.clone()).or_insert_with(|| {
                    let shape = [&[architecture.experts], &tensor.shape[..]].concat();
                    stored.push(PlannedTensor { name: place.name.clone(), shape, ggml: tensor.ggml });
                    tensor.clone()
                });
                if (&first.shape, first.ggml) != (&tensor.shape, tensor.ggml) {
                    return Err(CheckpointError::Contradiction {
                        name: tensor.name.clone(),
                        one: format!("is {} {:?}", tensor.ggml, tensor.shape),
                        other: format!(
                            "`{}`, which is stored with it, is {} {:?}",
                            first.name, first.ggml, first.shape
                        ),
                    });
                }
            }
        }
        if let Some((_, first)) = plan.insert(tensor.name.clone(), (place, tensor.clone())) {
            let plan = "the plan".to_string();
            return Err(CheckpointError::Twice { name: first.name, first: plan.clone(), second: plan });
        }
    }
    Ok((plan, stored))
}

/// Checks the rows of queries and keys, and that tensors of one axis are F32, as llama.cpp needs them.
fn check(architecture: &Architecture, tensor: &PlannedTensor, place: &Place) -> Result<(), CheckpointError> {
    if let Some(heads) = place.heads
        && tensor.shape.first() != Some(&(heads * architecture.head))
    {
        return Err(CheckpointError::Shape {
            name: tensor.name.clone(),
            expected: format!("{heads} heads of {} along its first axis", architecture.head),
            found: tensor.shape.clone(),
        });
    }
    if tensor.shape.len() == 1 && tensor.ggml != GgmlType::F32 {
        let found = format!("{} for tensors of one axis", tensor.ggml);
        return Err(blocks::not_exportable(&tensor.name, NotExportable::Format { found, known: "F32" }));
    }
    Ok(())
}
