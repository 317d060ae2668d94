//! Whether the contents of a file can be those of a model.

use std::collections::BTreeMap;

use burn::tensor::DType;
use burn_pack::Tensor;
use burn_quant_core::config::Granularity;
use burn_quant_core::error::{InvalidConfig, QuantError};
use burn_quant_core::layout::Role;
use burn_quant_core::model::Quantizers;
use burn_quant_core::place::Plan;
use burn_quant_core::quantizer::{Buffer, TensorQuantizer};

use crate::StoreError;
use crate::file::damage;
use crate::parameters::{Kind, Parameter};

type Parameters = BTreeMap<String, Parameter>;

/// Where burn keeps the buffers of a stage: activation quantizers under their own path, weight quantizers below their
/// parameter.
pub(crate) fn buffer_owner(name: &str, role: Role) -> String {
    if !matches!(role, Role::Weight(_)) {
        return name.to_string();
    }
    let last = name.rsplit_once('.');
    if let Some((chain, stage)) = last.filter(|(_, stage)| stage.bytes().all(|byte| byte.is_ascii_digit())) {
        return format!("{}.{stage}", buffer_owner(chain, role));
    }
    format!("{}.weight_quantizer", weight_of(name))
}

/// The path of the weight that a quantizer of this name belongs to.
pub(crate) fn weight_of(name: &str) -> String {
    let (layer, quantizer) = name.rsplit_once('.').unwrap_or(("", name));
    let field = quantizer.strip_suffix("_weight_quantizer").unwrap_or("weight");
    let separator = if layer.is_empty() { "" } else { "." };
    format!("{layer}{separator}{field}")
}

/// Roles are those of the model: an activation quantizer serves what it serves, and the axes of a weight's layout
/// exist.
pub(crate) fn check_roles(present: &Quantizers, plan: &Plan, parameters: &Parameters) -> Result<(), StoreError> {
    let roles: BTreeMap<&str, Role> = present.iter().map(|(name, quantizer)| (name, quantizer.role())).collect();
    for (name, planned) in &plan.quantizers {
        match (planned.role, roles.get(name.as_str()).copied()) {
            (Role::Weight(layout), None | Some(Role::Weight(_))) => {
                let rank = parameters.get(&weight_of(name)).map_or(0, |weight| weight.shape.len());
                let axis = layout.channel_axis.max(layout.block_axis);
                if axis >= rank {
                    return Err(unfit(name, InvalidConfig::Layout { axis, rank }));
                }
            }
            (found, Some(expected)) if found == expected => {}
            (found, expected) => return Err(StoreError::Role { name: name.clone(), expected, found }),
        }
    }
    Ok(())
}

/// Paths, shapes and kinds of tensors are those of the model's parameters. Returns the paths that only one of them has:
/// the model, and the file.
pub(crate) fn check_tensors(
    expected: &Parameters,
    found: &BTreeMap<String, Tensor>,
) -> Result<(Vec<String>, Vec<String>), StoreError> {
    for (path, expected) in expected {
        let Some(found) = found.get(path) else { continue };
        if expected.shape != found.shape.as_slice() {
            let (path, expected) = (path.clone(), expected.shape.clone());
            return Err(StoreError::Shape { path, expected, found: found.shape.to_vec() });
        }
        if !expected.kind.takes(found.dtype) {
            let (path, expected) = (path.clone(), expected.kind.name());
            return Err(StoreError::Dtype { path, expected, found: found.dtype });
        }
    }
    let missing = expected.keys().filter(|path| !found.contains_key(*path)).cloned().collect();
    let unused = found.keys().filter(|path| !expected.contains_key(*path)).cloned().collect();
    Ok((missing, unused))
}

/// Ranges are finite and not negative, biases, scales and factors finite, all of them f32.
pub(crate) fn check_values(name: &str, buffer: Buffer, tensor: &Tensor) -> Result<(), StoreError> {
    if tensor.dtype != DType::F32 {
        let path = tensor.name.clone();
        return Err(StoreError::Dtype { path, expected: "f32", found: tensor.dtype });
    }
    let range = buffer.is_range();
    let bytes = tensor.to_bytes().map_err(damage)?;
    let mut values = bytes.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().expect("four bytes")));
    match values.find(|value| !value.is_finite() || (range && *value < 0.0)) {
        Some(found) if range => Err(StoreError::BadRange { name: name.into(), found }),
        Some(found) => Err(StoreError::BadBuffer { name: name.into(), buffer: buffer.name(), found }),
        None => Ok(()),
    }
}

/// Buffers have as many values as the tensors they are for need, as far as a model says what those are: a weight says
/// all of it; an activation does if the weight beside it is a matrix.
pub(crate) fn check_lengths(quantizers: &Quantizers, plan: &Plan, parameters: &Parameters) -> Result<(), StoreError> {
    for (name, quantizer) in quantizers.iter().filter(|(name, _)| plan.quantizers.contains_key(*name)) {
        let target = Target::of(name, quantizer, quantizers, parameters);
        for (i, (stage_name, stage)) in quantizer.stages(name).enumerate() {
            let owner = buffer_owner(&stage_name, stage.role());
            if i == 0 {
                check_factors(&owner, quantizer, target.matrix.as_deref())?;
            } else {
                check_factors(&owner, stage, None)?; // only the first stage has a branch
            }
            target.check_stage(&stage_name, &owner, stage)?;
            if quantizer.is_enabled() {
                target.check_rotation(&stage_name, stage)?;
            }
        }
    }
    Ok(())
}

/// What a quantizer is for.
struct Target {
    /// The shape of a tensor that it is for; of activations, one row.
    shape: Option<Vec<usize>>,
    /// The weight that factors of low rank stand beside, `[in, out]`.
    matrix: Option<Vec<usize>>,
}

impl Target {
    fn of(name: &str, quantizer: &TensorQuantizer, quantizers: &Quantizers, parameters: &Parameters) -> Self {
        let shape = |path: &str| parameters.get(path).map(|weight| weight.shape.clone());
        if let Role::Weight(_) = quantizer.role() {
            let weight = shape(&weight_of(name));
            return Self { matrix: weight.clone().filter(|shape| shape.len() == 2), shape: weight };
        }
        let beside = |suffix: &str| {
            let layer = name.strip_suffix(suffix)?;
            let weight = shape(&format!("{layer}weight")).filter(|shape| shape.len() == 2)?;
            let quantizer = quantizers.get(&format!("{layer}weight_quantizer")).ok()?;
            let Role::Weight(layout) = quantizer.role() else { return None };
            let [inputs, outputs] = [layout.block_axis, layout.channel_axis].map(|axis| weight.get(axis).copied());
            Some((inputs?, outputs?, weight))
        };
        match (beside("input_quantizer"), beside("output_quantizer")) {
            (Some((inputs, _, weight)), _) => Self { shape: Some(vec![1, inputs]), matrix: Some(weight) },
            (_, Some((_, outputs, _))) => Self { shape: Some(vec![1, outputs]), matrix: None },
            _ => Self { shape: None, matrix: None },
        }
    }

    fn check_stage(&self, name: &str, owner: &str, stage: &TensorQuantizer) -> Result<(), StoreError> {
        for buffer in Buffer::ALL {
            let Some(found) = stage.buffer(buffer).map(|values| values.dims()[0]) else { continue };
            let expected = match (buffer, self.shape.as_deref()) {
                (Buffer::GlobalAmax, _) => Some(1),
                (Buffer::Amax | Buffer::AmaxPost | Buffer::Bias, Some(shape)) => {
                    self.groups(name, buffer, stage, shape)?
                }
                // without a shape, one group is one group all the same
                (Buffer::Amax | Buffer::AmaxPost, None) => {
                    (stage.config().granularity == Granularity::PerTensor).then_some(1)
                }
                (Buffer::PreQuantScale, Some(shape)) => match stage.role() {
                    Role::Weight(layout) => shape.get(layout.block_axis).copied(),
                    _ => shape.last().copied(),
                },
                _ => None,
            };
            if let Some(expected) = expected.filter(|expected| *expected != found) {
                let path = format!("{owner}.{}", buffer.name());
                return Err(StoreError::Shape { path, expected: vec![expected], found: vec![found] });
            }
        }
        Ok(())
    }

    /// A rotation fits the axis that it turns.
    fn check_rotation(&self, name: &str, stage: &TensorQuantizer) -> Result<(), StoreError> {
        let len = match (stage.role(), self.shape.as_deref()) {
            (Role::Weight(layout), Some(shape)) => shape.get(layout.block_axis),
            (_, Some(shape)) => shape.last(),
            _ => None,
        };
        let Some((rotation, &len)) = stage.config().rotation.zip(len) else { return Ok(()) };
        let block = rotation.block.unwrap_or(2); // by default the largest power of two that divides the axis
        if len.is_multiple_of(block) { Ok(()) } else { Err(unfit(name, InvalidConfig::RotationAxis { len, block })) }
    }

    /// How many ranges or biases a tensor of this shape needs; of activations whose rank is not known, nothing is.
    fn groups(
        &self,
        name: &str,
        buffer: Buffer,
        stage: &TensorQuantizer,
        shape: &[usize],
    ) -> Result<Option<usize>, StoreError> {
        stage.config().validate().map_err(|problem| unfit(name, problem))?;
        let granularity = match (buffer, &stage.config().bias) {
            (Buffer::Bias, Some(bias)) => &bias.granularity,
            _ => &stage.config().granularity,
        };
        if let Granularity::Axes(axes) = granularity
            && axes.len() != shape.len()
        {
            return match stage.role() {
                Role::Weight(_) => Err(unfit(name, InvalidConfig::Rank { expected: axes.len(), found: shape.len() })),
                _ => Ok(None),
            };
        }
        Ok(match buffer {
            Buffer::Bias => stage.bias_groups(shape).map(|groups| groups.len()),
            _ => Some(stage.range_groups(shape).len()),
        })
    }
}

/// The factors of a branch of low rank are those of one rank, and fit the weight they stand beside.
fn check_factors(owner: &str, stage: &TensorQuantizer, weight: Option<&[usize]>) -> Result<(), StoreError> {
    let length = |buffer| stage.buffer(buffer).map(|values| values.dims()[0]);
    let path = |buffer: Buffer| format!("{owner}.{}", buffer.name());
    let shape = |buffer: Buffer, expected: usize, found: usize| {
        Err(StoreError::Shape { path: path(buffer), expected: vec![expected], found: vec![found] })
    };
    let (down, up) = (length(Buffer::LowRankDown), length(Buffer::LowRankUp));
    let fits = weight.filter(|weight| weight.iter().all(|len| *len > 0));
    let Some(&[inputs, outputs]) = fits else {
        let present = [(Buffer::LowRankDown, down), (Buffer::LowRankUp, up)];
        let paths: Vec<String> = present.iter().filter(|(_, len)| len.is_some()).map(|(b, _)| path(*b)).collect();
        return if paths.is_empty() { Ok(()) } else { Err(StoreError::UnexpectedTensors { paths }) };
    };
    match (down, up) {
        (None, None) => Ok(()),
        (Some(down), None) => shape(Buffer::LowRankUp, down / inputs * outputs, 0),
        (None, Some(up)) => shape(Buffer::LowRankDown, up / outputs * inputs, 0),
        (Some(down), Some(_)) if down == 0 || down % inputs != 0 => shape(Buffer::LowRankDown, inputs, down),
        (Some(down), Some(up)) if up != down / inputs * outputs => {
            shape(Buffer::LowRankUp, down / inputs * outputs, up)
        }
        _ => Ok(()),
    }
}

fn unfit(name: &str, problem: InvalidConfig) -> StoreError {
    StoreError::Quantizers(QuantError::Config { name: name.into(), problem })
}

impl Kind {
    fn takes(self, dtype: DType) -> bool {
        match self {
            Kind::Float => dtype.is_float(),
            Kind::Int => dtype.is_int() || dtype.is_uint(),
            Kind::Bool => dtype.is_bool(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Kind::Float => "a float",
            Kind::Int => "an integer",
            Kind::Bool => "a boolean",
        }
    }
}
