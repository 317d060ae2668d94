//! File + freshly built model -> quantized model.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::store::ModuleRecord;
use burn::tensor::DType;
use burn_pack::{Bytes, Tensor, Writer};
use burn_quant_core::compress::{PackedForm, PackedWords, hold_words, packed_forms};
use burn_quant_core::config::ScaleFormat;
use burn_quant_core::error::QuantError;
use burn_quant_core::layout::Role;
use burn_quant_core::model::{ModelIndex, Quantizers, quantizer_devices};
use burn_quant_core::place::{Plan, install_plan};
use burn_quant_core::quantizer::Buffer;

use crate::StoreError;
use crate::check::{buffer_owner, check_lengths, check_roles, check_tensors, check_values, weight_of};
use crate::file::{Contents, Kind, damage, read};
use crate::parameters::parameters;
use crate::record::{Record, offsets_of, scales_of, words_of};

/// Restores a saved model into one that was built fresh in float, on whatever device that is.
///
/// The model gets the file's quantizers, ranges and weights; everything is checked before it is used, and nothing of
/// the model is kept but its structure and its device. For a part of a model, or a model whose layers have other paths,
/// use [`Restore`].
///
/// # Errors
///
/// One for each way in which a file can be wrong or of another model, in a [`StoreError::InFile`]: see [`StoreError`].
///
/// # Example
///
/// See the [crate's page](crate).
pub fn restore<M: Module>(model: M, path: impl AsRef<Path>) -> Result<M, StoreError> {
    Restore::new().load(model, path).map(|(model, _)| model)
}

/// Restores a saved model from the bytes of a file, as [`restore`] does.
///
/// # Errors
///
/// Those of [`restore`], without a file around them.
pub fn from_bytes<M: Module>(model: M, bytes: Bytes) -> Result<M, StoreError> {
    Restore::new().load_bytes(model, bytes).map(|(model, _)| model)
}

/// Restores a file into a model that differs from the one that was saved: layers that moved, were added, or are gone.
///
/// Without any option it is [`restore`]. What is left out is never silent: it is listed in the [`RestoreReport`].
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use burn::{module::Module, tensor::Device};
/// use burn_nn::{Linear, LinearConfig};
/// use burn_quant::{presets, quantize_weights};
/// use burn_quant_store::{Restore, save};
///
/// #[derive(Module, Debug)]
/// struct Encoder { fc: Linear }
///
/// #[derive(Module, Debug)]
/// struct Classifier { backbone: Encoder, head: Linear }
///
/// let (device, folder) = (Device::flex(), tempfile::tempdir()?);
/// let linear = || LinearConfig::new(8, 4).init(&device);
/// let (encoder, _) = quantize_weights(Encoder { fc: linear() }, &presets::int8_weight_only())?;
/// save(&encoder, folder.path().join("encoder.bpk"))?;
///
/// let model = Classifier { backbone: Encoder { fc: linear() }, head: linear() };
/// let restore = Restore::new().rename("", "backbone").allow_missing();
/// let (model, report) = restore.load(model, folder.path().join("encoder.bpk"))?;
/// assert_eq!(model.backbone.fc.weight.val().to_data(), encoder.fc.weight.val().to_data());
/// assert_eq!(report.missing_tensors, ["head.bias", "head.weight"]);
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
#[derive(Clone, Debug, Default)]
pub struct Restore {
    renames: Vec<(String, String)>,
    allow_missing: bool,
    allow_unused: bool,
}

/// What a partial restore left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RestoreReport {
    /// Parameters of the model that the file lacks: they keep their values.
    pub missing_tensors: Vec<String>,
    /// Quantizers of the model that the file lacks: they stay as they were.
    pub missing_quantizers: Vec<String>,
    /// Tensors of the file that the model has no parameter for.
    pub unused_tensors: Vec<String>,
    /// Quantizers of the file that the model has no place for.
    pub unused_quantizers: Vec<String>,
}

impl RestoreReport {
    /// Whether file and model have the same parameters and quantizers.
    ///
    /// Otherwise its lists say what was left out.
    pub fn is_complete(&self) -> bool {
        *self == Self::default()
    }
}

impl Restore {
    /// Restores the whole file into the whole model, under the same paths.
    ///
    /// What differs is an error, unless one of the `allow_` methods says otherwise.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the module at path `from` of the file as the one at path `to` of the model, with everything below it.
    ///
    /// The empty path is the whole model: `rename("", "backbone")` puts the file below `backbone`, `rename("backbone",
    /// "")` takes it from there. Of several renames the first that fits a path counts.
    pub fn rename(mut self, from: impl Into<String>, to: impl Into<String>) -> Self {
        self.renames.push((from.into(), to.into()));
        self
    }

    /// Leaves parameters and quantizers of the model that the file lacks as they are.
    ///
    /// The report names them.
    pub fn allow_missing(mut self) -> Self {
        self.allow_missing = true;
        self
    }

    /// Leaves out tensors and quantizers of the file that the model has no place for.
    ///
    /// The report names them.
    pub fn allow_unused(mut self) -> Self {
        self.allow_unused = true;
        self
    }

    /// Restores a file into a model.
    ///
    /// # Errors
    ///
    /// Those of [`restore`], and [`StoreError::SamePath`] if two paths of the file are renamed to one; what is wrong
    /// with its contents is in a [`StoreError::InFile`].
    pub fn load<M: Module>(&self, model: M, path: impl AsRef<Path>) -> Result<(M, RestoreReport), StoreError> {
        let path = path.as_ref();
        self.load_bytes(model, read(path)?).map_err(|error| error.in_file(path))
    }

    /// Restores the bytes of a file into a model.
    ///
    /// # Errors
    ///
    /// Those of [`Restore::load`].
    pub fn load_bytes<M: Module>(&self, model: M, bytes: Bytes) -> Result<(M, RestoreReport), StoreError> {
        self.load_record(model, Record::read(Contents::unpack(bytes, Kind::Model)?)?)
    }

    /// Puts what a file holds into a model.
    pub(crate) fn load_record<M: Module>(&self, model: M, record: Record) -> Result<(M, RestoreReport), StoreError> {
        let mut plan = Plan { quantizers: self.renamed(record.plan.quantizers.into_iter())? };
        let forms = self.renamed(record.forms.into_iter())?;
        let tensors = record.tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor));
        let mut tensors: BTreeMap<String, Tensor> = self.renamed(tensors)?;

        let mut report = RestoreReport::default();
        self.match_quantizers(&model, &mut plan, &mut report)?;
        check_roles(&Quantizers::of(&model), &plan, &parameters(&model))?;
        let model = install_plan(model, &plan).map_err(missing_quantizer)?;
        let model = hold_packed(model, &plan, forms, &mut tensors)?;
        let model = make_room_for_buffers(model, &plan, &tensors)?;
        self.match_tensors(&model, &mut tensors, &mut report)?;
        // what is packed has no tensor in the record any more
        let partial = self.allow_missing || !packed_forms(&model).is_empty();
        let model = load(model, tensors, partial)?;
        // last, as a weight that is made when it is loaded has its shape only now
        check_lengths(&Quantizers::of(&model), &plan, &parameters(&model))?;
        Ok((model, report))
    }

    /// Whether quantizers of model and file are the same; those of the file that the model has no place for leave the
    /// plan.
    fn match_quantizers<M: Module>(
        &self,
        model: &M,
        plan: &mut Plan,
        report: &mut RestoreReport,
    ) -> Result<(), StoreError> {
        let (present, parameters) = (Quantizers::of(model), parameters(model));
        let absent = |name: &&str| !plan.quantizers.contains_key(*name);
        report.missing_quantizers = present.names().filter(absent).map(String::from).collect();
        if !self.allow_missing && !report.missing_quantizers.is_empty() {
            return Err(StoreError::UnexpectedQuantizers { names: std::mem::take(&mut report.missing_quantizers) });
        }
        let known: std::collections::BTreeSet<&str> = present.names().collect();
        let has_place = |name: &str, role: Role| {
            let weight = matches!(role, Role::Weight(_)) && parameters.contains_key(&weight_of(name));
            weight || known.contains(name)
        };
        let placeless = plan.quantizers.iter().filter(|(name, planned)| !has_place(name, planned.role));
        report.unused_quantizers = placeless.map(|(name, _)| name.clone()).collect();
        if !self.allow_unused && !report.unused_quantizers.is_empty() {
            return Err(StoreError::MissingQuantizers { names: std::mem::take(&mut report.unused_quantizers) });
        }
        plan.quantizers.retain(|name, _| !report.unused_quantizers.contains(name));
        Ok(())
    }

    /// Whether tensors of model and file are the same; those of the file that the model has no place for are dropped.
    fn match_tensors<M: Module>(
        &self,
        model: &M,
        tensors: &mut BTreeMap<String, Tensor>,
        report: &mut RestoreReport,
    ) -> Result<(), StoreError> {
        let mut expected = parameters(model);
        for name in packed_forms(model).keys() {
            let held = [weight_of(name), words_of(name), scales_of(name), offsets_of(name)];
            held.iter().for_each(|path| drop(expected.remove(path)));
        }
        let (missing, unused) = check_tensors(&expected, tensors)?;
        if !self.allow_missing && !missing.is_empty() {
            return Err(StoreError::MissingTensors { paths: missing });
        }
        if !self.allow_unused && !unused.is_empty() {
            return Err(StoreError::UnexpectedTensors { paths: unused });
        }
        unused.iter().for_each(|path| drop(tensors.remove(path)));
        (report.missing_tensors, report.unused_tensors) = (missing, unused);
        Ok(())
    }

    /// The entries under their paths in the model.
    fn renamed<T>(&self, entries: impl Iterator<Item = (String, T)>) -> Result<BTreeMap<String, T>, StoreError> {
        let mut renamed = BTreeMap::new();
        for (path, entry) in entries {
            let path = self.path_in_model(path);
            if renamed.insert(path.clone(), entry).is_some() {
                return Err(StoreError::SamePath { path });
            }
        }
        Ok(renamed)
    }

    fn path_in_model(&self, path: String) -> String {
        let rest = |from: &str| match (from, path.strip_prefix(from)?) {
            ("", rest) => Some(rest.to_string()),
            (_, "") => Some(String::new()),
            (_, rest) => rest.strip_prefix('.').map(String::from),
        };
        let fitting = self.renames.iter().find_map(|(from, to)| Some((to, rest(from)?)));
        match fitting {
            None => path,
            Some((to, rest)) if to.is_empty() || rest.is_empty() => format!("{to}{rest}"),
            Some((to, rest)) => format!("{to}.{rest}"),
        }
    }
}

/// Gives the weights that are packed in the file their codes and scales, and takes those from its tensors.
fn hold_packed<M: Module>(
    model: M,
    plan: &Plan,
    forms: BTreeMap<String, PackedForm>,
    tensors: &mut BTreeMap<String, Tensor>,
) -> Result<M, StoreError> {
    if forms.is_empty() {
        return Ok(model);
    }
    let index = ModelIndex::of(&model);
    let mut packed = BTreeMap::new();
    for (name, form) in forms.into_iter().filter(|(name, _)| plan.quantizers.contains_key(name)) {
        let weight = index.weight_of(&name).ok_or(StoreError::MissingTensors { paths: vec![weight_of(&name)] })?;
        if weight.shape != form.shape {
            let (path, expected) = (weight.path.clone(), weight.shape.clone());
            return Err(StoreError::Shape { path, expected, found: form.shape });
        }
        if !matches!(form.dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16) {
            let path = weight.path.clone();
            return Err(StoreError::Dtype { path, expected: "a float", found: form.dtype });
        }
        let ranges = plan.quantizers[&name].config.scale == ScaleFormat::F32;
        let words = take_words(tensors, words_of(&name), DType::I32)?;
        let scales = take_words(tensors, scales_of(&name), if ranges { DType::F32 } else { DType::I32 })?;
        let offsets = match plan.quantizers[&name].config.bias {
            Some(_) => {
                let words = take_words(tensors, offsets_of(&name), DType::F32)?;
                Some(words.into_iter().map(f32::from_bits).collect())
            }
            None => None,
        };
        packed.insert(name, PackedWords { form, words, scales, offsets });
    }
    drop(index);
    hold_words(model, packed).map_err(|error| match error {
        QuantError::NotPacked { path, reason } => StoreError::PackedWeight { path, source: reason },
        other => StoreError::Quantizers(other),
    })
}

/// The words of a tensor, which leaves the others.
fn take_words(tensors: &mut BTreeMap<String, Tensor>, path: String, dtype: DType) -> Result<Vec<u32>, StoreError> {
    let Some(tensor) = tensors.remove(&path) else { return Err(StoreError::MissingTensors { paths: vec![path] }) };
    if tensor.dtype != dtype {
        let expected = if dtype == DType::F32 { "f32" } else { "i32" };
        return Err(StoreError::Dtype { path, expected, found: tensor.dtype });
    }
    let bytes = tensor.to_bytes().map_err(damage)?;
    Ok(bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().expect("four bytes"))).collect())
}

fn load<M: Module>(model: M, tensors: BTreeMap<String, Tensor>, partial: bool) -> Result<M, StoreError> {
    let refused = |e: &dyn std::fmt::Display| StoreError::Record { reason: e.to_string() };
    let tensors = tensors.into_iter().map(|(path, mut tensor)| {
        tensor.name = path;
        tensor
    });
    let bytes = Writer::new(tensors.collect()).into_bytes().map_err(|e| refused(&e))?;
    let record = ModuleRecord::from_bytes(bytes).map_err(|e| refused(&e))?.allow_partial(partial);
    model.try_load_record(record).map_err(|e| refused(&e))
}

fn missing_quantizer(error: QuantError) -> StoreError {
    match error {
        QuantError::UnknownQuantizer { name, .. } => StoreError::MissingQuantizers { names: vec![name] },
        QuantError::Packed { path } => StoreError::Packed { path },
        other => StoreError::Quantizers(other),
    }
}

/// Gives every quantizer of the plan the buffers that it has in the file, of their sizes and on the device of its
/// layer, for the record to fill.
fn make_room_for_buffers<M: Module>(
    model: M,
    plan: &Plan,
    tensors: &BTreeMap<String, Tensor>,
) -> Result<M, StoreError> {
    let mut quantizers = Quantizers::of(&model);
    let devices = quantizer_devices(&model);
    for (name, quantizer) in quantizers.iter_mut().filter(|(name, _)| plan.quantizers.contains_key(*name)) {
        let device = devices.get(name).cloned().unwrap_or_default();
        let stages: Vec<String> = quantizer.stages(name).map(|(name, _)| name).collect();
        for (i, stage_name) in stages.iter().enumerate() {
            let owner = buffer_owner(stage_name, quantizer.role());
            let stage = quantizer.stage_mut(i).expect("a stage for each name");
            for buffer in Buffer::ALL {
                let path = format!("{owner}.{}", buffer.name());
                let Some(tensor) = tensors.get(&path) else {
                    stage.clear_buffer(buffer);
                    continue;
                };
                let &[len] = tensor.shape.as_slice() else {
                    return Err(StoreError::Shape { path, expected: vec![1], found: tensor.shape.to_vec() });
                };
                if !stage.keeps(buffer) {
                    return Err(StoreError::UnexpectedTensors { paths: vec![path] });
                }
                check_values(stage_name, buffer, tensor)?;
                stage.set_buffer(buffer, burn::tensor::Tensor::zeros([len], &device));
            }
        }
        if quantizer.is_uncalibrated() {
            return Err(StoreError::MissingRange { name: name.into() });
        }
    }
    Ok(quantizers.install(model)?)
}
