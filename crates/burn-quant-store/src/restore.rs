//! File + freshly built model -> quantized model.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::Module;
use burn::store::ModuleRecord;
use burn::tensor::Tensor;
use burn_pack::{Bytes, Writer};
use burn_quant::{Buffer, Plan, QuantError, Quantizers, Role, TensorQuantizer, install_plan, quantizer_devices};

use crate::StoreError;
use crate::file::{Contents, Kind, read};
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
    from_bytes(model, read(path.as_ref())?)
}

/// [`restore`] from the bytes of a file.
///
/// # Errors
///
/// As there.
pub fn from_bytes<M: Module>(model: M, bytes: Bytes) -> Result<M, StoreError> {
    let Contents { description, tensors } = Contents::unpack(bytes, Kind::Model)?;
    let plan: Plan =
        serde_json::from_str(&description).map_err(|e| StoreError::Damaged { reason: format!("plan: {e}") })?;
    let found: BTreeMap<String, Vec<usize>> = tensors.iter().map(|t| (t.name.clone(), t.shape.to_vec())).collect();
    check_quantizers(&model, &plan)?;
    let model = install_plan(model, &plan).map_err(missing_quantizer)?;
    let model = make_room_for_buffers(model, &found)?;
    check_tensors(&shapes(&model), &found)?;
    let refused = |e: &dyn std::fmt::Display| StoreError::Record { reason: e.to_string() };
    let bytes = Writer::new(tensors).into_bytes().map_err(|e| refused(&e))?;
    let record = ModuleRecord::from_bytes(bytes).map_err(|e| refused(&e))?;
    let model = model.try_load_record(record).map_err(|e| refused(&e))?;
    check_buffers(&model)?;
    Ok(model)
}

/// Ranges are finite and not negative, biases and scales finite, and a weight has one range for each of its groups.
fn check_buffers<M: Module>(model: &M) -> Result<(), StoreError> {
    let shapes = shapes(model);
    for (name, quantizer) in Quantizers::of(model).iter() {
        let owner = buffer_owner(name, quantizer.role());
        let weight = owner.strip_suffix(".weight_quantizer").and_then(|path| shapes.get(path));
        let weight = weight.filter(|_| matches!(quantizer.role(), Role::Weight(_)));
        if let Some(layer) = name.strip_suffix("input_quantizer") {
            check_factors(&owner, quantizer, shapes.get(&format!("{layer}weight")))?;
        } else {
            check_factors(&owner, quantizer, weight)?;
        }
        for (name, stage) in quantizer.stages(name) {
            let owner = buffer_owner(&name, stage.role());
            for buffer in Buffer::ALL {
                let Some(values) = stage.buffer(buffer) else { continue };
                let path = format!("{owner}.{}", buffer.name());
                let expected = weight.and_then(|shape| expected_len(stage, buffer, shape));
                let found = values.dims()[0];
                if let Some(expected) = expected.filter(|expected| *expected != found) {
                    return Err(StoreError::Shape { path, expected: vec![expected], found: vec![found] });
                }
                check_values(&name, buffer, values)?;
            }
        }
    }
    Ok(())
}

/// The factors of a branch of low rank are those of one rank, and fit the weight they stand beside.
fn check_factors(owner: &str, slot: &TensorQuantizer, weight: Option<&Vec<usize>>) -> Result<(), StoreError> {
    let length = |buffer| slot.buffer(buffer).map(|values| values.dims()[0]);
    let shape = |buffer: Buffer, expected: usize, found: usize| {
        let path = format!("{owner}.{}", buffer.name());
        Err(StoreError::Shape { path, expected: vec![expected], found: vec![found] })
    };
    let (down, up) = (length(Buffer::LowRankDown), length(Buffer::LowRankUp));
    let Some([inputs, outputs]) = weight.map(Vec::as_slice) else {
        let path = |buffer: Buffer| format!("{owner}.{}", buffer.name());
        let lost = [(Buffer::LowRankDown, down), (Buffer::LowRankUp, up)];
        let paths: Vec<String> = lost.iter().filter(|(_, len)| len.is_some()).map(|(b, _)| path(*b)).collect();
        return if paths.is_empty() { Ok(()) } else { Err(StoreError::UnexpectedTensors { paths }) };
    };
    match (down, up) {
        (None, None) => Ok(()),
        (Some(down), None) => shape(Buffer::LowRankUp, down / inputs * outputs, 0),
        (None, Some(up)) => shape(Buffer::LowRankDown, up / outputs * inputs, 0),
        (Some(down), Some(_)) if down == 0 || down % inputs != 0 => shape(Buffer::LowRankDown, *inputs, down),
        (Some(down), Some(up)) if up != down / inputs * outputs => {
            shape(Buffer::LowRankUp, down / inputs * outputs, up)
        }
        _ => Ok(()),
    }
}

/// How many values a weight of this shape needs.
fn expected_len(stage: &TensorQuantizer, buffer: Buffer, shape: &[usize]) -> Option<usize> {
    match buffer {
        Buffer::Amax => Some(stage.range_groups(shape).len()),
        Buffer::GlobalAmax => Some(1),
        Buffer::Bias => Some(stage.bias_groups(shape)?.len()),
        _ => None,
    }
}

fn check_values(name: &str, buffer: Buffer, values: Tensor<1>) -> Result<(), StoreError> {
    let range = matches!(buffer, Buffer::Amax | Buffer::GlobalAmax);
    let values: Vec<f32> = values.into_data().convert::<f32>().try_into_vec().expect("f32 data");
    match values.iter().find(|value| !value.is_finite() || (range && **value < 0.0)) {
        Some(&found) if range => Err(StoreError::BadRange { name: name.into(), found }),
        Some(&found) => Err(StoreError::BadBuffer { name: name.into(), buffer: buffer.name(), found }),
        None => Ok(()),
    }
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

/// Gives every quantizer the buffers that it has in the file, of their sizes and on the device of its layer, for the record to
/// fill.
fn make_room_for_buffers<M: Module>(model: M, tensors: &BTreeMap<String, Vec<usize>>) -> Result<M, StoreError> {
    let mut quantizers = Quantizers::of(&model);
    let devices = quantizer_devices(&model);
    for (name, quantizer) in quantizers.iter_mut() {
        let device = devices.get(name).cloned().unwrap_or_default();
        let stages: Vec<String> = quantizer.stages(name).map(|(name, _)| name).collect();
        for (i, stage_name) in stages.iter().enumerate() {
            let owner = buffer_owner(stage_name, quantizer.role());
            let stage = quantizer.stage_mut(i).expect("a stage for each name");
            for buffer in Buffer::ALL {
                let path = format!("{owner}.{}", buffer.name());
                match tensors.get(&path).map(Vec::as_slice) {
                    Some([len]) if stage.keeps(buffer) => stage.set_buffer(buffer, Tensor::zeros([*len], &device)),
                    Some([_]) => return Err(StoreError::UnexpectedTensors { paths: vec![path] }),
                    Some(found) => {
                        return Err(StoreError::Shape { path, expected: vec![1], found: found.to_vec() });
                    }
                    None => stage.clear_buffer(buffer),
                }
            }
        }
        if quantizer.is_uncalibrated() {
            return Err(StoreError::MissingRange { name: name.into() });
        }
    }
    Ok(quantizers.install(model)?)
}

/// Where burn keeps the buffers of a stage: slots under their own path, weight quantizers below their parameter.
fn buffer_owner(name: &str, role: Role) -> String {
    if !matches!(role, Role::Weight(_)) {
        return name.to_string();
    }
    let last = name.rsplit_once('.');
    if let Some((chain, stage)) = last.filter(|(_, stage)| stage.bytes().all(|byte| byte.is_ascii_digit())) {
        return format!("{}.{stage}", buffer_owner(chain, role));
    }
    let (layer, quantizer) = last.map_or(("", name), |(layer, quantizer)| (layer, quantizer));
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
