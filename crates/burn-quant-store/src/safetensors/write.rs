//! Model -> tensors of a file.

use std::collections::{BTreeMap, BTreeSet};

use burn::module::Module;

use super::buffers::{BufferPlace, buffer_places};
use super::codes::CodeTensors;
use super::container::SafetensorsFile;
use super::dtype::{data_to_file, to_file};
use super::weights::{StoredWeight, Values, Weight, weights_of};
use super::{WEIGHTS, shapes_of};
use crate::StoreError;
use crate::file::PLAN;
use crate::record::{Record, offsets_of, scales_of, words_of};

/// The file of a model.
pub(super) fn file_of<M: Module>(model: &M) -> Result<SafetensorsFile<'static>, StoreError> {
    let record = Record::of(model)?;
    let weights = weights_of(model);
    let stored: BTreeMap<&str, StoredWeight> =
        weights.iter().map(|(path, weight)| (path.as_str(), weight.stored())).collect();
    let mut file = SafetensorsFile::new();
    file.describe(PLAN, serde_json::to_string(&record.plan).expect("a plan is plain data with string keys"));
    file.describe(WEIGHTS, serde_json::to_string(&stored).expect("stored weights are plain data with string keys"));

    let shapes = record.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.shape.to_vec()));
    let places = buffer_places(&record.plan, &shapes_of(shapes, stored.iter().map(|(path, stored)| (*path, stored))));
    write_tensors(&mut file, record, &weights, places)?;
    for (path, weight) in &weights {
        write_codes(&mut file, path, weight)?;
    }
    Ok(file)
}

/// Parameters and buffers, except what is written as codes.
fn write_tensors(
    file: &mut SafetensorsFile<'static>,
    record: Record,
    weights: &BTreeMap<String, Weight>,
    places: Vec<BufferPlace>,
) -> Result<(), StoreError> {
    let words: BTreeSet<String> =
        record.forms.keys().flat_map(|name| [words_of(name), scales_of(name), offsets_of(name)]).collect();
    let places: BTreeMap<&str, &BufferPlace> = places.iter().map(|place| (place.record.as_str(), place)).collect();
    for tensor in record.tensors {
        let (path, shape) = (tensor.name.clone(), tensor.shape.to_vec());
        match weights.get(&path).map(|weight| &weight.values) {
            Some(Values::Packed(_) | Values::Codes(_)) => {}
            Some(Values::Rounded(values)) => file.insert(path.clone(), data_to_file(&path, values.clone())?)?,
            _ if words.contains(&path) => {}
            _ => match places.get(path.as_str()) {
                Some(place) => {
                    let shape = place.shape(shape.iter().product());
                    file.insert(place.file.clone(), to_file(tensor, shape)?)?;
                }
                None => file.insert(path, to_file(tensor, shape)?)?,
            },
        }
    }
    Ok(())
}

/// The codes of a weight, with the scales that are no buffers of its quantizer.
fn write_codes(file: &mut SafetensorsFile<'static>, path: &str, weight: &Weight) -> Result<(), StoreError> {
    let (Values::Packed(codes) | Values::Codes(codes)) = &weight.values else { return Ok(()) };
    let tensors = CodeTensors { path, name: &weight.name, quantizer: &weight.quantizer, form: &codes.form };
    let buffers = tensors.buffers();
    for (name, tensor) in tensors.write(codes) {
        let kept = buffers.iter().any(|(buffer, place)| *place == name && weight.quantizer.buffer(*buffer).is_some());
        if !kept {
            file.insert(name, tensor)?;
        }
    }
    Ok(())
}
