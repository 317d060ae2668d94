//! What a quantized folder says of its layers, as quantizers.

use burn::tensor::{Device, Tensor, TensorData};
use burn_quant::config::{AxisGroups, BiasConfig, BlockScale, Format, Granularity, ScaleFormat};
use burn_quant::place::{WeightLayouts, place};
use burn_quant::quantizer::Buffer;
use burn_quant::{QuantizerConfig, Quantizers, Rule};
use burn_quant_checkpoint::{
    CheckpointError, Element, Inputs, KvQuantizer, Offset, QuantizedLayer, QuantizedMatrix, ScaleKind,
};

use crate::{Decoder, LlmError};

/// Tensors that a quantizer keeps.
type Kept = Vec<(Buffer, Vec<f32>)>;

/// The configuration of a quantizer, and the tensors that it keeps.
struct State {
    config: QuantizerConfig,
    buffers: Kept,
    /// The range of the second stage of a chain.
    second: Option<f32>,
}

/// Quantizers by name.
#[derive(Default)]
pub(crate) struct Imported {
    states: Vec<(String, State)>,
    /// Scales of inputs, and branches of low rank, of quantizers that are off.
    off: Vec<(String, Kept)>,
}

impl Imported {
    pub(crate) fn layer(&mut self, name: &str, layer: &QuantizedLayer) -> Result<(), LlmError> {
        if let Some(state) = weight(name, &layer.weight)? {
            self.states.push((format!("{name}.weight_quantizer"), state));
        }
        let mut buffers = Vec::new();
        if let Some(scale) = &layer.pre_quant_scale {
            buffers.push((Buffer::PreQuantScale, scale.clone()));
        }
        if let Some(branch) = &layer.low_rank {
            let (inputs, outputs) = (layer.weight.inputs, layer.weight.outputs);
            buffers.push((Buffer::LowRankDown, transposed(&branch.down, branch.rank, inputs)));
            buffers.push((Buffer::LowRankUp, transposed(&branch.up, outputs, branch.rank)));
        }
        let name = format!("{name}.input_quantizer");
        match inputs(&layer.inputs)? {
            Some((config, amax)) => {
                buffers.extend(amax.map(|amax| (Buffer::Amax, vec![amax])));
                self.states.push((name, State { config, buffers, second: None }));
            }
            None if !buffers.is_empty() => self.off.push((name, buffers)),
            None => {}
        }
        Ok(())
    }

    pub(crate) fn kv(&mut self, name: &str, kv: KvQuantizer) {
        let config = match kv.element.format() {
            Some(Format::E2M1) => QuantizerConfig::nvfp4(),
            Some(format) => QuantizerConfig::new(format),
            None => return,
        };
        let mut buffers = vec![(Buffer::Amax, vec![kv.scale * 448.0])];
        let config = match kv.bias {
            None => config,
            Some(bias) => {
                use AxisGroups::{Each, Whole};
                buffers.push((Buffer::Bias, bias));
                config.with_bias(BiasConfig::new(Granularity::Axes(vec![Whole, Each, Whole, Each])))
            }
        };
        self.states.push((name.into(), State { config, buffers, second: None }));
    }

    /// Gives a decoder these quantizers.
    pub(crate) fn install(self, decoder: Decoder, device: &Device) -> Result<Decoder, LlmError> {
        if self.states.is_empty() && self.off.is_empty() {
            return Ok(decoder);
        }
        let rules: Vec<Rule> =
            self.states.iter().map(|(name, state)| Rule::set(name.clone(), state.config.clone())).collect();
        let (decoder, _) = place(decoder, &rules, &WeightLayouts::new())?;
        let mut quantizers = Quantizers::of(&decoder);
        let tensor = |values: Vec<f32>| {
            let n = values.len();
            Tensor::<1>::from_data(TensorData::new(values, [n]), device)
        };
        for (name, state) in self.states {
            let quantizer = quantizers.get_mut(&name)?;
            for (buffer, values) in state.buffers {
                quantizer.set_buffer(buffer, tensor(values));
            }
            if let (Some(amax), Some(stage)) = (state.second, quantizer.stage_mut(1)) {
                stage.set_amax(tensor(vec![amax]));
            }
        }
        for (name, buffers) in self.off {
            let quantizer = quantizers.get_mut(&name)?;
            buffers.into_iter().for_each(|(buffer, values)| quantizer.set_buffer(buffer, tensor(values)));
        }
        Ok(quantizers.install(decoder)?)
    }
}

/// The quantizer whose codes those of a weight are; `None` if there is none.
fn weight(name: &str, weight: &QuantizedMatrix) -> Result<Option<State>, LlmError> {
    // a negative scale turns the codes around, of which the lowest needs a bit more then
    let negative = weight.scales.iter().any(|scale| *scale < 0.0);
    let element = match weight.element {
        Element::Int(bits @ 2..=7) if negative => Element::Int(bits + 1),
        _ if negative => return Ok(None),
        element => element,
    };
    let Some(format) = element.format().filter(|_| weight.offset == Offset::None) else { return Ok(None) };
    let config = QuantizerConfig::new(format);
    let by_inputs = (weight.block_outputs == 1).then_some(weight.block_inputs);
    let mut second = None;
    let (config, buffers) = match &weight.scale_kind {
        ScaleKind::E8M0(_) => {
            let Some(block) = by_inputs else { return Ok(None) };
            let config = config.per_block(block).with_scale(ScaleFormat::E8M0).dynamic();
            (config, Vec::new())
        }
        ScaleKind::E4M3 { tensor_scale, .. } => {
            let Some(block) = by_inputs else { return Ok(None) };
            let global = *tensor_scale * 6.0 * 448.0;
            let amax: Vec<f32> = weight.scales.iter().map(|scale| scale * 6.0).collect();
            let config = config.per_block(block).with_scale(ScaleFormat::E4M3(BlockScale::Static));
            let amax = transposed(&amax, weight.outputs, weight.inputs / block.max(1));
            (config, vec![(Buffer::Amax, amax), (Buffer::GlobalAmax, vec![global])])
        }
        ScaleKind::Float => {
            let max = format.max();
            let [rows, columns] = weight.blocks();
            let config = match (rows, columns) {
                (1, 1) => config,
                (_, 1) if weight.block_outputs == 1 => config.per_channel(),
                _ if weight.block_outputs == 1 => config.per_block(weight.block_inputs),
                _ if weight.block_outputs == weight.block_inputs => config
                    .with_granularity(Granularity::Block2d { rows: weight.block_outputs, cols: weight.block_inputs }),
                _ => return Ok(None),
            };
            let amax: Vec<f32> = weight.scales.iter().map(|scale| scale.abs() * max).collect();
            let config = match weight.then_e4m3 {
                None => config,
                Some(scale) => {
                    second = Some(scale * 448.0);
                    config.then(QuantizerConfig::e4m3())
                }
            };
            (config, vec![(Buffer::Amax, transposed(&amax, rows, columns))])
        }
    };
    let bad = buffers.iter().flat_map(|(_, values)| values).find(|value| !value.is_finite() || **value < 0.0);
    match bad {
        Some(found) => Err(CheckpointError::Value {
            key: format!("{name}.weight_scale"),
            expected: "finite and not negative",
            found: found.to_string(),
        }
        .into()),
        None => Ok(Some(State { config, buffers, second })),
    }
}

/// `[rows, columns]` as `[columns, rows]`: burn's linear layers have inputs first.
fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    (0..columns).flat_map(|column| (0..rows).map(move |row| values[row * columns + column])).collect()
}

fn inputs(inputs: &Inputs) -> Result<Option<(QuantizerConfig, Option<f32>)>, LlmError> {
    let config = |element: &Element| {
        let unknown = || CheckpointError::Unknown {
            what: "the element of inputs".into(),
            found: format!("{element:?}"),
            known: "signed integers, E4M3, E5M2 and E2M1",
        };
        element.format().map(QuantizerConfig::new).ok_or_else(unknown)
    };
    Ok(match inputs {
        Inputs::Float => None,
        Inputs::Static { element, scale } => {
            let config = config(element)?;
            let amax = scale * config.format.max();
            Some((config, Some(amax)))
        }
        Inputs::Dynamic { element } => Some((config(element)?.dynamic(), None)),
        Inputs::PerToken { element } => Some((config(element)?.per_token().dynamic(), None)),
        Inputs::Mx { element, block } => {
            let config = config(element)?.per_block(*block).with_scale(ScaleFormat::E8M0).dynamic();
            Some((config, None))
        }
        Inputs::Nvfp4 { tensor_scale } => Some((QuantizerConfig::nvfp4(), Some(tensor_scale * 2688.0))),
    })
}
