//! What a format makes of a layer, taken out of a calibrated model and put into another: plain data on the host.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor};
use serde::{Deserialize, Serialize};

use super::Unit;
use super::operand::QuantizedLayerView;
use burn_quant_core::error::QuantError;
use burn_quant_core::layout::Role;
use burn_quant_core::model::{ModelIndex, Parameters, Quantizers, Replacements, host};
use burn_quant_core::place::PlannedQuantizer;
use burn_quant_core::quantizer::AnyTensor;
use burn_quant_core::quantizer::{Buffer, TensorQuantizer};

/// A calibrated quantizer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuantizerState {
    /// What it does.
    pub planned: PlannedQuantizer,
    /// The tensors that each stage of its chain keeps, by [`Buffer::name`].
    pub stages: Vec<BTreeMap<String, Vec<f32>>>,
}

impl QuantizerState {
    pub(super) fn of(quantizer: &TensorQuantizer) -> Self {
        let planned = PlannedQuantizer {
            config: quantizer.config().clone(),
            role: quantizer.role(),
            enabled: quantizer.is_enabled(),
        };
        let buffers = |stage: &TensorQuantizer| {
            let values = |buffer: Buffer| Some((buffer.name().to_string(), host(stage.buffer(buffer)?)));
            Buffer::ALL.into_iter().filter_map(values).collect()
        };
        Self { planned, stages: quantizer.stages("").map(|(_, stage)| buffers(stage)).collect() }
    }

    /// The quantizer on a device; the error says what does not belong together.
    pub(super) fn build(&self, name: &str, device: &Device) -> Result<TensorQuantizer, QuantError> {
        let mut quantizer = TensorQuantizer::disabled(self.planned.role);
        self.planned.configure(&mut quantizer);
        let broken = |what: &str| QuantError::SearchState { problem: format!("`{name}` {what}") };
        for (i, buffers) in self.stages.iter().enumerate() {
            let stage = quantizer.stage_mut(i).ok_or_else(|| broken("has more stages than its configuration"))?;
            for (key, values) in buffers {
                let buffer = Buffer::ALL.into_iter().find(|buffer| buffer.name() == key);
                let buffer = buffer.filter(|buffer| stage.keeps(*buffer) && !values.is_empty());
                let buffer = buffer.ok_or_else(|| broken(&format!("keeps `{key}`, which it has no use for")))?;
                stage.set_buffer(buffer, Tensor::from_data(values.as_slice(), (device, DType::F32)));
            }
        }
        if quantizer.is_uncalibrated() {
            return Err(broken("has no range"));
        }
        Ok(quantizer)
    }
}

impl QuantizerState {
    /// Whether its tensors have the sizes that a tensor of this shape needs, and hold numbers.
    fn check(&self, name: &str, shape: Option<&[usize]>) -> Result<(), QuantError> {
        let changed = |expected, found| QuantError::GroupsChanged { name: name.into(), expected, found };
        // as they are written: a quantizer takes the magnitude of a range
        for (key, values) in self.stages.iter().flatten() {
            let range = Buffer::ALL.iter().any(|buffer| buffer.is_range() && buffer.name() == key);
            if values.iter().any(|value| !value.is_finite() || range && *value < 0.0) {
                return Err(QuantError::NonFinite { name: name.into(), batch: None });
            }
        }
        let quantizer = self.build(name, &Device::default())?;
        for (_, stage) in quantizer.stages(name) {
            for buffer in Buffer::ALL {
                let Some(values) = stage.buffer(buffer).map(host) else { continue };
                let Some(shape) = shape else { continue };
                if let Some(expected) = stage.buffer_len(buffer, shape).filter(|expected| *expected != values.len()) {
                    return Err(changed(expected, values.len()));
                }
            }
            let factors = stage.buffer(Buffer::LowRankDown).zip(stage.buffer(Buffer::LowRankUp));
            if let (Some((down, up)), Some(shape)) = (factors, shape) {
                let channels = shape[stage.role().block_axis(shape.len())];
                let rank = down.dims()[0] / channels.max(1);
                if rank == 0 || down.dims()[0] % channels != 0 || up.dims()[0] % rank != 0 {
                    return Err(changed(channels * rank.max(1), down.dims()[0]));
                }
            }
        }
        Ok(())
    }
}

/// What a format makes of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Candidate {
    /// Its quantizers, by name.
    pub quantizers: BTreeMap<String, QuantizerState>,
    /// The weight, where the algorithm changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<Vec<f32>>,
    /// The bias, where the algorithm changed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bias: Option<Vec<f32>>,
}

/// The float parameters of units in a model.
pub(super) struct Floats(Parameters);

impl Floats {
    pub(super) fn of<'a, M: Module>(model: &M, units: impl Iterator<Item = &'a Unit>) -> Self {
        let wanted: Vec<String> =
            units.flat_map(|unit| std::iter::once(&unit.weight).chain(&unit.bias)).cloned().collect();
        Self(Parameters::of(model, wanted))
    }

    pub(super) fn weight(&self, unit: &Unit) -> Tensor<1> {
        self.0.vector(&unit.weight).expect("a unit has a weight")
    }

    fn bias(&self, unit: &Unit) -> Option<Tensor<1>> {
        self.0.vector(unit.bias.as_ref()?)
    }

    /// A layer as it is, in float.
    pub(super) fn float(&self, unit: &Unit, quantizers: &Quantizers) -> QuantizedLayerView {
        let input_quantizer = unit.input_quantizer.as_ref().and_then(|name| quantizers.find(name)).cloned();
        let input_quantizer = input_quantizer.map(|mut quantizer| {
            quantizer.disable();
            quantizer
        });
        let weight = AnyTensor::new(self.weight(unit), unit.shape.clone());
        QuantizedLayerView { weight, weight_quantizer: None, input_quantizer, bias: None }
    }
}

impl Candidate {
    /// What a calibrated model has made of a layer.
    pub(super) fn of(unit: &Unit, before: &Floats, after: &Floats, quantizers: &Quantizers) -> Self {
        let changed = |before: Option<Tensor<1>>, after: Option<Tensor<1>>| {
            let (before, after) = (host(before?), host(after?));
            (before != after).then_some(after)
        };
        let state = |name: &String| Some((name.clone(), QuantizerState::of(quantizers.find(name)?)));
        Self {
            quantizers: unit.quantizers().filter_map(state).collect(),
            weight: changed(Some(before.weight(unit)), Some(after.weight(unit))),
            bias: changed(before.bias(unit), after.bias(unit)),
        }
    }

    /// Whether its quantizers fit the layer: what a file says need not.
    pub(super) fn check(&self, unit: &Unit) -> Result<(), QuantError> {
        let Some(Role::Weight(layout)) = self.quantizers.get(&unit.weight_quantizer).map(|state| state.planned.role)
        else {
            let problem = format!("a candidate of `{}` has no quantizer of its weight", unit.layer);
            return Err(QuantError::SearchState { problem });
        };
        let inside = |axis: usize| axis < unit.shape.len();
        for (name, state) in &self.quantizers {
            let weight = *name == unit.weight_quantizer;
            state.planned.check(name, weight.then_some(unit.shape.as_slice()))?;
            if weight && !(inside(layout.channel_axis) && inside(layout.block_axis)) {
                return Err(QuantError::SearchState { problem: format!("`{name}` has axes that its weight lacks") });
            }
            // the channels of a convolution's inputs are not known from its weight
            let shape = match unit.shape.len() {
                _ if weight => Some(unit.shape.clone()),
                2 => Some(vec![2, unit.shape[layout.block_axis]]),
                _ => None,
            };
            state.check(name, shape.as_deref())?;
        }
        Ok(())
    }

    /// One of its quantizers, to be counted.
    pub(super) fn quantizer(&self, name: &str, device: &Device) -> Result<Option<TensorQuantizer>, QuantError> {
        self.quantizers.get(name).map(|state| state.build(name, device)).transpose()
    }

    /// The layer, ready to be multiplied with.
    pub(super) fn operand(&self, unit: &Unit, floats: &Floats) -> Result<QuantizedLayerView, QuantError> {
        let float = floats.weight(unit);
        let device = float.device();
        let build = |name: &String| self.quantizers.get(name).map(|state| state.build(name, &device)).transpose();
        let on_device = |values: &[f32], dtype| Tensor::<1>::from_data(values, (&device, DType::F32)).cast(dtype);
        let weight = match &self.weight {
            None => float,
            Some(values) if values.len() == unit.elements() => on_device(values, float.dtype()),
            Some(_) => return Err(QuantError::SearchState { problem: format!("`{}` has another size", unit.weight) }),
        };
        let bias = match (&self.bias, floats.bias(unit)) {
            (Some(values), Some(bias)) => Some(on_device(values, bias.dtype()) - bias),
            _ => None,
        };
        Ok(QuantizedLayerView {
            weight: AnyTensor::new(weight, unit.shape.clone()),
            weight_quantizer: build(&unit.weight_quantizer)?,
            input_quantizer: unit.input_quantizer.as_ref().map(build).transpose()?.flatten(),
            bias,
        })
    }
}

/// A model with candidates in place of some of its layers.
pub(super) fn with_candidates<'a, M: Module>(
    model: M,
    chosen: impl Iterator<Item = (&'a Unit, &'a Candidate)> + Clone,
) -> Result<M, QuantError> {
    let index = ModelIndex::of(&model);
    let mut replacements = Replacements::default();
    for (unit, candidate) in chosen {
        let device = index.device_of(&unit.weight_quantizer).unwrap_or_default();
        let mut replace = |path: &String, values: &Vec<f32>| {
            replacements.parameters.insert(path.clone(), Tensor::from_data(values.as_slice(), (&device, DType::F32)));
        };
        candidate.weight.iter().for_each(|values| replace(&unit.weight, values));
        candidate.bias.iter().zip(&unit.bias).for_each(|(values, path)| replace(path, values));
        for (name, state) in &candidate.quantizers {
            index.quantizers.get(name)?;
            let device = index.device_of(name).unwrap_or_default();
            replacements.quantizers.insert(name.clone(), state.build(name, &device)?.recreated_on(&device));
        }
    }
    Ok(replacements.install(model, &index).0)
}
