//! Scores from calibration statistics alone: the relative squared error of each layer's outputs.
//!
//! ```text
//! S = mean_x ‖Q(x) · Q(W) − x · W‖² / mean_x ‖x · W‖²
//! x normal, with E[x xᵀ] = G, the Gram matrix of the layer's inputs
//! ```
//!
//! Inputs are drawn from the normal distribution with the second moments that were observed; outliers that are not
//! normal are seen in the range of the quantizer, which is that of the data. For convolutions, whose inputs have no
//! matrix `G`, the score is `‖Q(W) − W‖²/‖W‖²` plus the same of normal inputs with the mean magnitudes of the channels.
//!
//! It costs one pass over the calibration data, whatever the number of formats, and knows nothing of how much a layer
//! matters to the loss: a layer's share of noise counts as much as any other's.
//!
//! Own work, along the lines of the signal-to-noise rules of mixed precision: Lin, Talathi, Annapureddy 2016, "Fixed
//! Point Quantization of Deep Convolutional Networks", arXiv:1511.06393.

use std::collections::BTreeMap;

use burn::module::Module;
use burn::tensor::{DType, Device, Tensor, TensorData};
use faer::{Mat, Side};

use super::candidate::Floats;
use super::operand::QuantizedLayerView;
use super::{SearchState, Unit};
use burn_quant_calibrate::observe::{ChannelStatistics, GramMatrix};
use burn_quant_calibrate::observe::{InputStatistics, ModelRequest, StatisticsRequest, observe_ranges};
use burn_quant_core::error::QuantError;
use burn_quant_core::layout::Role;
use burn_quant_core::model::{Quantizers, host};
use burn_quant_core::quantizer::TensorQuantizer;
use burn_quant_core::quantizer::{AnyTensor, Product};

/// Inputs that are drawn per layer.
const DRAWN: usize = 256;

/// Scores all groups; `forward_loop` runs the calibration data through the float model, once.
pub(super) fn score<M: Module>(
    base: &M,
    state: &mut SearchState,
    mut forward_loop: impl FnMut(&M),
) -> Result<(), QuantError> {
    let units = || state.groups.iter().flat_map(|group| &group.units);
    let (mut request, mut grams) = (ModelRequest::default(), Vec::new());
    for unit in units() {
        let Some(slot) = &unit.input_quantizer else { continue };
        let channels = if unit.shape.len() == 2 { InputStatistics::Gram } else { InputStatistics::Means };
        if channels == InputStatistics::Gram {
            grams.push(slot.clone());
        }
        let mut wanted = StatisticsRequest::default();
        wanted.channels = Some(channels);
        request.quantizers.insert(slot.clone(), wanted);
    }
    let quantizers = Quantizers::of(base);
    let statistics = observe_ranges(base, &quantizers, &request, &grams, &mut forward_loop)?.statistics;
    let floats = Floats::of(base, units());
    let mut scores: Vec<BTreeMap<usize, f64>> = vec![BTreeMap::new(); state.groups.len()];
    for (group, scores) in state.groups.iter().zip(&mut scores) {
        for unit in &group.units {
            let seen = unit.input_quantizer.as_ref().and_then(|slot| statistics.get(slot)?.channels.as_ref());
            let device = floats.weight(unit).device();
            let inputs = seen.filter(|seen| seen.tokens > 0).map(|seen| Inputs::of(seen, &device));
            let float = floats.float(unit, &quantizers);
            for (j, choice) in group.choices.iter().enumerate() {
                let candidate =
                    choice.format.as_ref().and_then(|name| state.candidates.get(name)?.get(&unit.weight_quantizer));
                let error = match candidate {
                    None => 0.0,
                    Some(candidate) => {
                        relative_error(unit, &float, &candidate.operand(unit, &floats)?, inputs.as_ref())
                    }
                };
                *scores.entry(j).or_default() += error;
            }
        }
    }
    for (group, scores) in state.groups.iter_mut().zip(scores) {
        scores.into_iter().for_each(|(j, score)| group.choices[j].score = Some(score));
    }
    state.check_scores()
}

/// Inputs that are drawn for a layer, `[tokens, channels]`.
struct Inputs {
    drawn: Tensor<2>,
    /// Whether products of channels are those of the data, so that outputs are.
    products: bool,
}

impl Inputs {
    fn of(seen: &ChannelStatistics, device: &Device) -> Self {
        let channels = seen.amax.len();
        let normal = normal_numbers(DRAWN * channels);
        let matrix =
            |values, rows| Tensor::<2>::from_data(TensorData::new(values, [rows, channels]), (device, DType::F32));
        if let Some(factor) = seen.gram.as_ref().and_then(|gram| factor(gram, seen.tokens)) {
            return Self { drawn: matrix(normal, DRAWN).matmul(matrix(factor, channels)), products: true };
        }
        // the mean magnitude of a normal number is √(2/π) of its deviation
        let deviation = |sum: &f32| sum / seen.tokens as f32 * std::f32::consts::FRAC_PI_2.sqrt();
        let drawn = normal.iter().enumerate().map(|(i, z)| z * deviation(&seen.sum_abs[i % channels]));
        Self { drawn: matrix(drawn.collect(), DRAWN), products: false }
    }
}

/// `R` of `G / tokens = Rᵀ R`, row by row: normal rows times it have these second moments. Channels that depend on each
/// other, or are always zero, leave no factor; a millionth of the mean is added to the diagonal.
fn factor(gram: &GramMatrix, tokens: u64) -> Option<Vec<f32>> {
    let (size, tokens) = (gram.size, tokens as f64);
    let element = |i, j| f64::from(gram.get(i, j)) / tokens;
    let added = 1e-6 * (0..size).map(|i| element(i, i)).sum::<f64>() / size as f64 + f64::MIN_POSITIVE;
    let matrix = Mat::<f64>::from_fn(size, size, |i, j| element(i, j) + if i == j { added } else { 0.0 });
    let lower = matrix.llt(Side::Lower).ok()?;
    let lower = lower.L();
    let at = |i: usize, j: usize| if i <= j { lower[(j, i)] as f32 } else { 0.0 };
    Some((0..size).flat_map(|i| (0..size).map(move |j| at(i, j))).collect())
}

fn relative_error(
    unit: &Unit,
    float: &QuantizedLayerView,
    candidate: &QuantizedLayerView,
    inputs: Option<&Inputs>,
) -> f64 {
    let square = |x: Tensor<1>| f64::from(host((x.clone() * x).sum())[0]);
    let relative = |changed: Tensor<1>, before: Tensor<1>| {
        let whole = square(before.clone());
        if whole > 0.0 { square(changed - before) / whole } else { 0.0 }
    };
    if let Some(Inputs { drawn, products: true }) = inputs {
        let inputs_first = unit.shape[0] == drawn.dims()[1];
        let product: Product = Box::new(move |x, weight| {
            let (x, weight): (Tensor<2>, Tensor<2>) = (x.ranked(), weight.ranked());
            x.matmul(if inputs_first { weight } else { weight.transpose() }).into()
        });
        let drawn = AnyTensor::from(drawn.clone());
        return relative(candidate.output(&drawn, &product).flat(), float.output(&drawn, &product).flat());
    }
    let weight = |layer: &QuantizedLayerView| layer.quantized_weight().flat().cast(DType::F32);
    let weights = relative(weight(candidate), weight(float));
    let quantizer = candidate.input_quantizer.as_ref().zip(inputs);
    let of_inputs = quantizer.map(|(quantizer, inputs)| {
        let flat = |x: Tensor<2>| AnyTensor::from(x).flat();
        let drawn = inputs.drawn.clone();
        relative(flat(quantized(quantizer, drawn.clone())), flat(drawn))
    });
    weights + of_inputs.unwrap_or(0.0)
}

/// Inputs `[tokens, channels]` under a quantizer; those of convolutions lie along its channel axis.
fn quantized(quantizer: &TensorQuantizer, x: Tensor<2>) -> Tensor<2> {
    match quantizer.role() {
        Role::ChannelsFirst => {
            let [tokens, channels] = x.dims();
            let image = x.transpose().reshape([1, channels, 1, tokens]);
            quantizer.forward(image).reshape([channels, tokens]).transpose()
        }
        _ => quantizer.forward(x),
    }
}

/// Normal numbers, the same every time: Box and Muller's method on a xorshift sequence.
fn normal_numbers(len: usize) -> Vec<f32> {
    let mut state = 0x2545_F491_4F6C_DD1Du64;
    let mut uniform = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        ((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64
    };
    let pair = |_| {
        let (radius, angle) = ((-2.0 * uniform().ln()).sqrt(), std::f64::consts::TAU * uniform());
        [radius * angle.cos(), radius * angle.sin()]
    };
    let mut numbers: Vec<f32> = (0..len.div_ceil(2)).flat_map(pair).map(|z| z as f32).collect();
    numbers.truncate(len);
    numbers
}
