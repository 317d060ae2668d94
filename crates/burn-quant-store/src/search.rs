//! The state of a search <-> file.

use std::collections::BTreeMap;
use std::path::Path;

use burn::tensor::{DType, Shape};
use burn_pack::{Bytes, Tensor};
use burn_quant_search::{Candidate, SearchState};

use crate::StoreError;
use crate::file::{Contents, Kind, damage, read, write};

/// Saves a search in one burnpack file, to be continued or solved for another budget: ranges, scales and changed
/// weights as tensors, the rest as JSON.
///
/// A path without an extension gets `.bpk`.
///
/// # Errors
///
/// [`StoreError::Write`] if the file could not be written, [`StoreError::Folder`] if the path is that of a folder.
///
/// # Example
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # use burn::tensor::{Device, Tensor, Distribution};
/// # use burn_nn::LinearConfig;
/// # let (device, folder) = (Device::flex(), tempfile::tempdir()?);
/// # let model = LinearConfig::new(32, 8).init(&device);
/// # let data = |device: &Device| vec![Tensor::<2>::random([4, 32], Distribution::Default, device)];
/// use burn_quant::search::{AutoQuantization, AutoQuantizeConfig, SearchFormat};
/// use burn_quant_store::{load_search, save_search};
///
/// let path = folder.path().join("search.bpk");
/// let config = AutoQuantizeConfig::new(12.0, [SearchFormat::preset("int8_weight_only").unwrap()]);
/// let (_, state) = AutoQuantization::new(&config)
///     .with_checkpoint(|state| save_search(state, &path).map_err(|e| e.to_string()))
///     .by_divergence(model, data, |model, x| model.forward(x.clone()))?;
/// assert_eq!(load_search(&path)?, state);
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub fn save_search(state: &SearchState, path: impl AsRef<Path>) -> Result<(), StoreError> {
    write(contents(state), Kind::Search, path.as_ref())
}

/// The bytes of the file that [`save_search`] writes.
///
/// # Errors
///
/// [`StoreError::Record`] if they could not be packed.
pub fn search_to_bytes(state: &SearchState) -> Result<Bytes, StoreError> {
    let bytes = contents(state).pack(Kind::Search)?.into_bytes();
    bytes.map_err(|e| StoreError::Record { reason: e.to_string() })
}

/// Reads what [`save_search`] wrote.
///
/// # Errors
///
/// [`StoreError::Open`], and in a [`StoreError::InFile`] those of [`search_from_bytes`].
pub fn load_search(path: impl AsRef<Path>) -> Result<SearchState, StoreError> {
    let path = path.as_ref();
    search_from_bytes(read(path)?).map_err(|error| error.in_file(path))
}

/// Reads what [`search_to_bytes`] wrote. Whether it fits a model is checked when it is used.
///
/// # Errors
///
/// [`StoreError::NotSearch`] for a file of something else, [`StoreError::Tampered`] and others for a damaged one,
/// [`StoreError::OtherMajor`] and [`StoreError::NewerMinor`].
pub fn search_from_bytes(bytes: Bytes) -> Result<SearchState, StoreError> {
    let Contents { description, tensors, .. } = Contents::unpack(bytes, Kind::Search)?;
    let mut state: SearchState =
        serde_json::from_str(&description).map_err(|e| StoreError::Damaged { reason: format!("search: {e}") })?;
    let mut found = BTreeMap::new();
    for tensor in tensors {
        let (name, dtype, shape, _, bytes) = tensor.into_parts().map_err(damage)?;
        let values: Vec<f32> =
            bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes"))).collect();
        if dtype != DType::F32 || shape.as_slice() != [values.len()] {
            let (expected, found) = (vec![values.len()], shape.as_slice().to_vec());
            return Err(StoreError::Shape { path: name, expected, found });
        }
        found.insert(name, values);
    }
    let mut missing = Vec::new();
    each_array(&mut state, &mut |name, values| match found.remove(&name) {
        Some(array) if values.is_empty() => *values = array,
        _ => missing.push(name),
    });
    if !missing.is_empty() {
        return Err(StoreError::MissingTensors { paths: missing });
    }
    if !found.is_empty() {
        return Err(StoreError::UnexpectedTensors { paths: found.into_keys().collect() });
    }
    Ok(state)
}

fn contents(state: &SearchState) -> Contents {
    let (mut state, mut tensors) = (state.clone(), Vec::new());
    each_array(&mut state, &mut |name, values| {
        let values = std::mem::take(values);
        let bytes: Vec<u8> = values.iter().flat_map(|x| x.to_le_bytes()).collect();
        tensors.push(Tensor::new(name, DType::F32, Shape::from([values.len()]), None, Bytes::from_bytes_vec(bytes)));
    });
    let description = serde_json::to_string(&state).expect("a state is plain data with string keys");
    Contents { description, packed: None, tensors }
}

/// Shows the arrays of all candidates, by name; in a file they are tensors, and empty in its description.
fn each_array(state: &mut SearchState, f: &mut dyn FnMut(String, &mut Vec<f32>)) {
    for (unit, candidate) in &mut state.base.layers {
        arrays_of(&format!("base/{}", unit.layer), candidate, f);
    }
    for (name, quantizer) in &mut state.base.quantizers {
        arrays_of_stages(&format!("base/{name}"), &mut quantizer.stages, f);
    }
    for (format, candidates) in &mut state.candidates {
        for (unit, candidate) in candidates {
            arrays_of(&format!("formats/{format}/{unit}"), candidate, f);
        }
    }
}

fn arrays_of(at: &str, candidate: &mut Candidate, f: &mut dyn FnMut(String, &mut Vec<f32>)) {
    for (name, quantizer) in &mut candidate.quantizers {
        arrays_of_stages(&format!("{at}/{name}"), &mut quantizer.stages, f);
    }
    candidate.weight.iter_mut().for_each(|values| f(format!("{at}/weight"), values));
    candidate.bias.iter_mut().for_each(|values| f(format!("{at}/bias"), values));
}

fn arrays_of_stages(at: &str, stages: &mut [BTreeMap<String, Vec<f32>>], f: &mut dyn FnMut(String, &mut Vec<f32>)) {
    for (i, stage) in stages.iter_mut().enumerate() {
        stage.iter_mut().for_each(|(buffer, values)| f(format!("{at}/{i}/{buffer}"), values));
    }
}
