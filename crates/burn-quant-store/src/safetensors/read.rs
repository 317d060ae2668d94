//! Tensors of a file -> what restores a model.

use std::collections::BTreeMap;

use burn::tensor::{DType, Shape};
use burn_pack::{Bytes, Tensor};
use burn_quant_core::compress::{PackedForm, PackedWords, WeightCodes};
use burn_quant_core::config::ScaleFormat;
use burn_quant_core::error::NotPackedReason;
use burn_quant_core::place::Plan;
use burn_quant_core::quantizer::TensorQuantizer;

use super::buffers::{BufferPlace, buffer_places};
use super::codes::CodeTensors;
use super::container::{FileTensor, SafetensorsFile};
use super::dtype::to_burn;
use super::weights::{CodesForm, StoredWeight, floats};
use super::{WEIGHTS, is_countable, shapes_of};
use crate::StoreError;
use crate::check::weight_of;
use crate::file::PLAN;
use crate::record::{Record, offsets_of, parsed, scales_of, words_of};

type Tensors<'a> = BTreeMap<String, FileTensor<'a>>;

/// What a file holds, under burn's paths, and the names that the file has for the buffers of quantizers.
pub(super) fn record_of(file: SafetensorsFile) -> Result<(Record, Vec<BufferPlace>), StoreError> {
    let plan: Plan = parsed("plan", file.description(PLAN)?)?;
    let stored: BTreeMap<String, StoredWeight> = parsed("weights", file.description(WEIGHTS)?)?;
    let mut tensors = file.tensors;
    let shapes = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.shape.clone()));
    let shapes = shapes_of(shapes, stored.iter().map(|(path, stored)| (path.as_str(), stored)));
    stored.iter().try_for_each(|(path, stored)| check_elements(path, stored))?;
    let places = buffer_places(&plan, &shapes);

    let mut record = Record { plan, ..Record::default() };
    for (path, stored) in &stored {
        match stored {
            StoredWeight::Packed(form) => read_packed(&mut record, &mut tensors, path, form)?,
            StoredWeight::Codes(form) => read_codes(&mut record, &mut tensors, path, form)?,
            StoredWeight::Rounded { .. } | StoredWeight::Unrounded { .. } => {}
        }
    }
    for place in &places {
        if let Some(tensor) = tensors.remove(&place.file) {
            let len = tensor.shape.iter().product();
            let expected = place.shape(len);
            if tensor.shape != expected {
                let (path, found) = (place.file.clone(), tensor.shape);
                return Err(StoreError::StoredShape { path, expected, found });
            }
            record.tensors.push(to_burn(&place.file, place.record.clone(), tensor, vec![len])?);
        }
    }
    for (name, tensor) in tensors {
        let shape = tensor.shape.clone();
        record.tensors.push(to_burn(&name, name.clone(), tensor, shape)?);
    }
    Ok((record, places))
}

/// The elements of a weight can be counted.
fn check_elements(path: &str, stored: &StoredWeight) -> Result<(), StoreError> {
    match stored {
        StoredWeight::Packed(CodesForm { form, .. }) | StoredWeight::Codes(CodesForm { form, .. })
            if !is_countable(&form.shape) =>
        {
            Err(StoreError::Damaged { reason: format!("`{path}` has the shape {:?}", form.shape) })
        }
        _ => Ok(()),
    }
}

/// The quantizer of a weight that is stored as codes, which are what its configuration says.
fn quantizer_of(plan: &Plan, path: &str, codes: &CodesForm) -> Result<TensorQuantizer, StoreError> {
    let name = &codes.quantizer;
    let damaged = |what: &str| StoreError::Damaged { reason: format!("the codes of `{path}` are of `{name}`, {what}") };
    if weight_of(name) != path {
        return Err(damaged("which is the quantizer of another weight"));
    }
    let planned = plan.quantizers.get(name).ok_or_else(|| damaged("which is not in the plan"))?;
    planned.check(name, Some(&codes.form.shape))?;
    let quantizer = match planned.enabled {
        true => TensorQuantizer::new(planned.config.clone(), planned.role),
        false => return Err(refused(path, NotPackedReason::Disabled)),
    };
    WeightCodes::check_form(&codes.form, &quantizer).map_err(|reason| refused(path, reason))?;
    match CodesForm::new(name, &quantizer, &codes.form) == *codes {
        true => Ok(quantizer),
        false => Err(damaged("whose plan is for other codes")),
    }
}

fn refused(path: &str, source: NotPackedReason) -> StoreError {
    StoreError::PackedWeight { path: path.into(), source }
}

/// Reads a weight that stays packed.
fn read_packed(record: &mut Record, tensors: &mut Tensors, path: &str, form: &CodesForm) -> Result<(), StoreError> {
    let quantizer = quantizer_of(&record.plan, path, form)?;
    let (name, form) = (&form.quantizer, &form.form);
    let places = CodeTensors { path, name, quantizer: &quantizer, form };
    let codes = places.take(tensors)?;
    places.buffers().iter().for_each(|(_, buffer)| drop(tensors.remove(buffer)));
    let words = codes.to_words(&quantizer).map_err(|reason| refused(path, reason))?;
    insert_packed(record, name, &quantizer, words);
    Ok(())
}

/// Reads a weight that becomes floats again.
fn read_codes(record: &mut Record, tensors: &mut Tensors, path: &str, form: &CodesForm) -> Result<(), StoreError> {
    let quantizer = quantizer_of(&record.plan, path, form)?;
    let (name, form) = (&form.quantizer, &form.form);
    let places = CodeTensors { path, name, quantizer: &quantizer, form };
    let codes = places.take(tensors)?;
    for (buffer, name) in places.buffers() {
        if !quantizer.keeps(buffer) {
            tensors.remove(&name);
        }
    }
    let PackedForm { shape, dtype, .. } = form.clone();
    if !matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16) {
        return Err(StoreError::Dtype { path: path.into(), expected: "a float", found: dtype });
    }
    let values = codes.values(&quantizer).map_err(|reason| refused(path, reason))?;
    let bytes = floats(values, shape.clone(), dtype).into_bytes();
    record.tensors.push(Tensor::new(path.into(), dtype, shape, None, bytes));
    Ok(())
}

/// Adds a packed weight by the name of its quantizer.
fn insert_packed(record: &mut Record, name: &str, quantizer: &TensorQuantizer, packed: PackedWords) {
    let mut insert = |name: String, dtype: DType, words: Vec<u32>| {
        let shape = Shape::from([words.len()]);
        let bytes = words.into_iter().flat_map(u32::to_le_bytes).collect();
        record.tensors.push(Tensor::new(name, dtype, shape, None, Bytes::from_bytes_vec(bytes)));
    };
    let ranges = quantizer.config().scale == ScaleFormat::F32;
    insert(words_of(name), DType::I32, packed.words);
    insert(scales_of(name), if ranges { DType::F32 } else { DType::I32 }, packed.scales);
    if let Some(offsets) = packed.offsets {
        insert(offsets_of(name), DType::F32, offsets.into_iter().map(f32::to_bits).collect());
    }
    record.forms.insert(name.to_string(), packed.form);
}

/// An error with the names that the file has for the buffers of quantizers.
pub(super) fn in_names_of_file(error: StoreError, places: &[BufferPlace]) -> StoreError {
    let name = |path: String| match places.iter().find(|place| place.record == path) {
        Some(place) => place.file.clone(),
        None => path,
    };
    let names = |paths: Vec<String>| paths.into_iter().map(name).collect();
    match error {
        StoreError::MissingTensors { paths } => StoreError::MissingTensors { paths: names(paths) },
        StoreError::UnexpectedTensors { paths } => StoreError::UnexpectedTensors { paths: names(paths) },
        StoreError::Shape { path, expected, found } => StoreError::Shape { path: name(path), expected, found },
        StoreError::Dtype { path, expected, found } => StoreError::Dtype { path: name(path), expected, found },
        other => other,
    }
}
