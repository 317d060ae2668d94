//! File + freshly built model -> quantized model.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::store::ModuleRecord;
use burn_pack::{Bytes, EXTENSION, Writer};
use burn_quant::{
    Algorithm, ModelStatistics, Plan, QuantError, Quantizers, Range, Role, Statistics, calibrate, install_plan,
};

use crate::StoreError;
use crate::file::Contents;
use crate::parameters::shapes;

/// Restores a saved model into one that was built fresh in float, on whatever device that is.
///
/// The model gets the file's quantizers, ranges and weights; everything is checked before it is used, and nothing of the
/// model is kept but its structure and its device.
///
/// # Errors
///
/// One for each way in which a file can be wrong or of another model: see [`StoreError`].
///
/// # Example
///
/// See the [crate's page](crate).
pub fn restore<M: Module>(model: M, path: impl AsRef<Path>) -> Result<M, StoreError> {
    let path = path.as_ref();
    let path = match path.extension() {
        None if !path.exists() => path.with_extension(EXTENSION),
        _ => path.to_path_buf(),
    };
    let bytes = std::fs::read(&path).map_err(|source| StoreError::Open { path, source })?;
    from_bytes(model, Bytes::from_bytes_vec(bytes))
}

/// [`restore`] from the bytes of a file.
///
/// # Errors
///
/// As there.
pub fn from_bytes<M: Module>(model: M, bytes: Bytes) -> Result<M, StoreError> {
    let Contents { plan, tensors } = Contents::unpack(bytes)?;
    let found: BTreeMap<String, Vec<usize>> = tensors.iter().map(|t| (t.name.clone(), t.shape.to_vec())).collect();
    check_quantizers(&model, &plan)?;
    let model = install_plan(model, &plan).map_err(missing_quantizer)?;
    let model = make_room_for_ranges(model, &plan, &found)?;
    check_tensors(&shapes(&model), &found)?;
    let refused = |e: &dyn std::fmt::Display| StoreError::Record { reason: e.to_string() };
    let bytes = Writer::new(tensors).into_bytes().map_err(|e| refused(&e))?;
    let record = ModuleRecord::from_bytes(bytes).map_err(|e| refused(&e))?;
    let model = model.try_load_record(record).map_err(|e| refused(&e))?;
    check_ranges(&model)?;
    Ok(model)
}

/// Ranges are finite and not negative, and a weight has one for each of its groups.
fn check_ranges<M: Module>(model: &M) -> Result<(), StoreError> {
    let shapes = shapes(model);
    for (name, quantizer) in Quantizers::of(model).iter() {
        let Some(amax) = quantizer.amax() else { continue };
        let owner = range_owner(name, quantizer.role());
        let weight = owner.strip_suffix(".weight_quantizer").and_then(|path| shapes.get(path));
        if let (Role::Weight(_), Some(shape)) = (quantizer.role(), weight) {
            let (expected, found) = (quantizer.groups(shape).len(), amax.dims()[0]);
            if expected != found {
                let path = format!("{owner}.amax");
                return Err(StoreError::Shape { path, expected: vec![expected], found: vec![found] });
            }
        }
        let values: Vec<f32> = amax.into_data().convert::<f32>().try_into_vec().expect("f32 data");
        if let Some(&found) = values.iter().find(|value| !value.is_finite() || **value < 0.0) {
            return Err(StoreError::BadRange { name: name.into(), found });
        }
    }
    Ok(())
}

/// Slots of the model must all be in the plan; what the plan has beyond them must be weights.
fn check_quantizers<M: Module>(model: &M, plan: &Plan) -> Result<(), StoreError> {
    let present = Quantizers::of(model);
    let names: Vec<String> =
        present.names().filter(|name| !plan.quantizers.contains_key(*name)).map(String::from).collect();
    if !names.is_empty() {
        return Err(StoreError::UnexpectedQuantizers { names });
    }
    let is_weight = |role| matches!(role, Role::Weight(_));
    let slots = plan.quantizers.iter().filter(|(_, planned)| !is_weight(planned.role));
    let names: Vec<String> = slots.map(|(name, _)| name).filter(|name| present.get(name).is_err()).cloned().collect();
    if !names.is_empty() {
        return Err(StoreError::MissingQuantizers { names });
    }
    Ok(())
}

fn missing_quantizer(error: QuantError) -> StoreError {
    match error {
        QuantError::UnknownQuantizer { name, .. } => StoreError::MissingQuantizers { names: vec![name] },
        other => StoreError::Quantizers(other),
    }
}

/// Gives every quantizer with a range in the file a range of that size, on the device of its layer, for the record to fill.
fn make_room_for_ranges<M: Module>(
    model: M,
    plan: &Plan,
    tensors: &BTreeMap<String, Vec<usize>>,
) -> Result<M, StoreError> {
    let mut room = ModelStatistics::default();
    for (name, planned) in plan.quantizers.iter().filter(|(_, planned)| planned.config.range == Range::Static) {
        let path = format!("{}.amax", range_owner(name, planned.role));
        match tensors.get(&path).map(Vec::as_slice) {
            Some([groups]) => {
                room.insert(name.clone(), Statistics { amax: vec![0.0; *groups], lowest: None, calls: 0 })?
            }
            Some(found) => return Err(StoreError::Shape { path, expected: vec![1], found: found.to_vec() }),
            None if planned.enabled => return Err(StoreError::MissingRange { name: name.clone() }),
            None => {}
        }
    }
    Ok(calibrate(model, &room, Algorithm::Max)?)
}

/// Where burn keeps a quantizer: slots under their own path, weight quantizers below their parameter.
fn range_owner(name: &str, role: Role) -> String {
    if !matches!(role, Role::Weight(_)) {
        return name.to_string();
    }
    let (layer, quantizer) = name.rsplit_once('.').map_or(("", name), |(layer, quantizer)| (layer, quantizer));
    let field = quantizer.strip_suffix("_weight_quantizer").unwrap_or("weight");
    let separator = if layer.is_empty() { "" } else { "." };
    format!("{layer}{separator}{field}.weight_quantizer")
}

fn check_tensors(
    expected: &BTreeMap<String, Vec<usize>>,
    found: &BTreeMap<String, Vec<usize>>,
) -> Result<(), StoreError> {
    let without = |a: &BTreeMap<String, Vec<usize>>, b: &BTreeMap<String, Vec<usize>>| -> Vec<String> {
        a.keys().filter(|path| !b.contains_key(*path)).cloned().collect()
    };
    let paths = without(expected, found);
    if !paths.is_empty() {
        return Err(StoreError::MissingTensors { paths });
    }
    let paths = without(found, expected);
    if !paths.is_empty() {
        return Err(StoreError::UnexpectedTensors { paths });
    }
    for (path, expected) in expected {
        if *expected != found[path] {
            let (path, expected, found) = (path.clone(), expected.clone(), found[path].clone());
            return Err(StoreError::Shape { path, expected, found });
        }
    }
    Ok(())
}
