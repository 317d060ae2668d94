//! What findings are made of: the numbers of quantizers and layers, with what is not shown of them.

use std::collections::BTreeMap;

use burn_quant_core::config::{Granularity, QuantizerConfig, RangeSource};
use burn_quant_core::layout::Role;
use burn_quant_core::model::{Quantizers, host, layer_of};
use burn_quant_core::quantizer::{Buffer, TensorQuantizer};
use burn_quant_ops::numerics::{AnyGrid, Grid, ScaleFormat};

use crate::diagnosis::{Ends, Histogram, LayerDiagnosis, Operand, QuantizerDiagnosis};
use crate::measure::{LayerNumbers, QuantizerNumbers, SampledValues, WeightNumbers, decibels, total};

/// Bins of a histogram.
const BINS: usize = 64;
/// Values of a grid, and channels, that are shown.
const SHOWN: usize = 256;

/// One quantizer that is on.
#[derive(Clone, Debug)]
pub(crate) struct QuantizerCase {
    /// What is shown.
    pub(crate) shown: QuantizerDiagnosis,
    /// What it does.
    pub(crate) config: QuantizerConfig,
    /// What its tensors are.
    pub(crate) role: Role,
    /// The range of each group; empty if it has none of its own.
    pub(crate) amax: Vec<f32>,
    /// The largest magnitude of the data in each of these groups; empty where it is not known.
    pub(crate) seen: Vec<f32>,
    /// What ranges as wide as the data would gain, in decibels, where ranges do not fit; `None` where it is not known.
    pub(crate) refit: Option<f64>,
    /// Channels of which rounding leaves nothing.
    pub(crate) lost: Vec<usize>,
    /// Channels that are zero.
    pub(crate) dead: Vec<usize>,
    /// What is known of a weight.
    pub(crate) weight: Option<WeightNumbers>,
}

/// One layer that was watched.
#[derive(Clone, Debug)]
pub(crate) struct LayerCase {
    /// What is shown.
    pub(crate) shown: LayerDiagnosis,
    /// What was measured.
    pub(crate) numbers: LayerNumbers,
}

/// Everything that was measured.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cases {
    /// The quantizers that are on.
    pub(crate) quantizers: Vec<QuantizerCase>,
    /// The layers, in the order of calls.
    pub(crate) layers: Vec<LayerCase>,
}

impl Cases {
    /// The share of the error that the layer of a quantizer makes.
    pub(crate) fn share_of(&self, layer: &str) -> f64 {
        self.layer(layer).map_or(0.0, |layer| layer.shown.share)
    }

    /// The layer with a path.
    pub(crate) fn layer(&self, path: &str) -> Option<&LayerCase> {
        self.layers.iter().find(|layer| layer.shown.path == path)
    }

    /// The quantizers of a layer.
    pub(crate) fn quantizers_of<'a>(&'a self, layer: &'a str) -> impl Iterator<Item = &'a QuantizerCase> {
        self.quantizers.iter().filter(move |quantizer| quantizer.shown.layer == layer)
    }
}

/// Puts together what was measured of the quantizers that are on.
pub(crate) fn quantizers(
    quantizers: &Quantizers,
    mut activations: BTreeMap<String, QuantizerNumbers>,
    mut weights: BTreeMap<String, WeightNumbers>,
) -> Vec<QuantizerCase> {
    let enabled = quantizers.iter().filter(|(_, quantizer)| quantizer.is_enabled());
    let case = |(name, quantizer): (&str, &TensorQuantizer)| {
        let weight = weights.remove(name);
        let numbers = match &weight {
            Some(weight) => weight.numbers.clone(),
            None => activations.remove(name).unwrap_or_default(),
        };
        quantizer_case(name, quantizer, numbers, weight)
    };
    enabled.map(case).collect()
}

fn quantizer_case(
    name: &str,
    quantizer: &TensorQuantizer,
    numbers: QuantizerNumbers,
    weight: Option<WeightNumbers>,
) -> QuantizerCase {
    let config = quantizer.config().clone();
    let amax = match config.range {
        RangeSource::Constant(amax) => vec![amax],
        RangeSource::Static => quantizer.buffer(Buffer::Amax).map(host).unwrap_or_default(),
        RangeSource::Dynamic => Vec::new(),
    };
    let seen = match &weight {
        Some(weight) => weight.seen.clone(),
        None => seen_in_groups(&config, &numbers, amax.len()),
    };
    let shares = Shares::of(quantizer, &amax, &numbers.sample);
    let refit = refit(quantizer, &amax, &seen, &numbers);
    let (dead, lost) = (numbers.dead(), numbers.lost());
    let outlier = numbers.outlier();
    let widest = amax.first().copied().or(Ends::of(&numbers.amax).map(|ends| ends.highest));
    let histogram = histogram(&numbers.sample);
    let shown = QuantizerDiagnosis {
        name: name.into(),
        layer: layer_of(name).into(),
        operand: operand(name, quantizer.role()),
        format: config.kind(),
        granularity: config.granularity.to_string(),
        range: match config.range {
            RangeSource::Static => "static",
            RangeSource::Dynamic => "dynamic",
            RangeSource::Constant(_) => "constant",
        }
        .into(),
        amax: Ends::of(&amax),
        seen: Ends::of(&numbers.amax),
        calls: numbers.calls,
        dead_channels: dead.len(),
        lost_channels: lost.len(),
        outlier_ratio: outlier.map(|(_, ratio)| ratio),
        outlier_channel: outlier.map(|(channel, _)| channel),
        token_ratio: numbers.token_ratio,
        clipped: shares.clipped,
        zeroed: shares.zeroed,
        non_finite: shares.non_finite,
        sqnr: numbers.sqnr(),
        channel_sqnr: numbers.channel_sqnr(),
        token_sqnr: numbers.token_sqnr,
        grid: grid(&config, widest, histogram.as_ref()),
        histogram,
        channel_amax: if numbers.has_channels { condensed(&numbers.amax) } else { Vec::new() },
    };
    QuantizerCase { shown, config, role: quantizer.role(), amax, seen, refit, lost, dead, weight }
}

/// The largest magnitudes of the data in the groups of a range, where channels tell them.
fn seen_in_groups(config: &QuantizerConfig, numbers: &QuantizerNumbers, groups: usize) -> Vec<f32> {
    let plain = config.bias.is_none() && config.rotation.is_none();
    match groups {
        _ if !plain => Vec::new(),
        1 => Ends::of(&numbers.amax).map(|ends| vec![ends.highest]).unwrap_or_default(),
        groups if groups == numbers.amax.len() && config.granularity == Granularity::PerChannel => numbers.amax.clone(),
        _ => Vec::new(),
    }
}

/// Which tensor a quantizer has, by its role and by the names that this toolkit's layers and ModelOpt's have.
fn operand(name: &str, role: Role) -> Operand {
    let field = name.rsplit_once('.').map_or(name, |(_, field)| field);
    match (role, field) {
        (Role::Weight(_), _) => Operand::Weight,
        (_, "input_quantizer") => Operand::Input,
        (_, "output_quantizer") => Operand::Output,
        (_, field) if field.contains("bmm") || field.contains("softmax") => Operand::Attention,
        _ => Operand::Other,
    }
}

/// Whether a range is far from what the data reach: down to a third, as ranges that minimize an error, and up to four
/// times, as those of other data, is left alone.
pub(crate) fn is_misfit(amax: f32, seen: f32) -> bool {
    seen > 0.0 && !(1.0 / 3.0..=4.0).contains(&(amax / seen))
}

/// What ranges as wide as the data would gain, in decibels, of the elements whose range does not fit.
fn refit(quantizer: &TensorQuantizer, amax: &[f32], seen: &[f32], numbers: &QuantizerNumbers) -> Option<f64> {
    let config = quantizer.config();
    let plain = config.scale == ScaleFormat::F32 && config.bias.is_none() && config.rotation.is_none();
    if !plain || amax.len() != seen.len() {
        return None;
    }
    let elements = AnyGrid::new(config.format, ScaleFormat::F32, 0.0);
    let (mut present, mut fitted, mut counted) = (0.0, 0.0, 0_usize);
    for values in &numbers.sample {
        let groups = quantizer.range_groups(&values.shape);
        for ((place, x), y) in values.places.iter().zip(&values.x).zip(&values.y) {
            let group = groups.of_element(*place);
            let (Some(amax), Some(seen)) = (amax.get(group), seen.get(group)) else { continue };
            if is_misfit(*amax, *seen) {
                present += f64::from(x - y).powi(2);
                fitted += f64::from(x - elements.fake_quant(*x, elements.scale(*seen))).powi(2);
                counted += 1;
            }
        }
    }
    if amax.len() == 1 {
        // a few values that are clipped may be in no sample, and make most of the noise
        let all: usize = numbers.sample.iter().map(|values| values.shape.iter().product::<usize>()).sum();
        present = total(&numbers.noise) / all as f64 * counted as f64;
    }
    match (present, fitted) {
        _ if counted == 0 || !present.is_finite() || !fitted.is_finite() => None,
        (present, _) if present <= 0.0 => Some(0.0),
        (present, fitted) => decibels(present, fitted),
    }
}

/// Shares of sampled elements.
#[derive(Clone, Copy, Debug, Default)]
struct Shares {
    clipped: f64,
    zeroed: f64,
    non_finite: f64,
}

impl Shares {
    fn of(quantizer: &TensorQuantizer, amax: &[f32], sample: &[SampledValues]) -> Self {
        // beyond the rounding of a range that was a scale
        const SLACK: f32 = 1.0 + 1e-3;
        let (mut clipped, mut zeroed, mut non_finite, mut all) = (0, 0, 0, 0);
        let has_range = quantizer.config().bias.is_none() && quantizer.config().rotation.is_none();
        for values in sample {
            let groups = quantizer.range_groups(&values.shape);
            let ranged = has_range && groups.len() == amax.len();
            for ((place, x), y) in values.places.iter().zip(&values.x).zip(&values.y) {
                all += 1;
                non_finite += usize::from(!x.is_finite());
                zeroed += usize::from(*x != 0.0 && *y == 0.0);
                clipped += usize::from(ranged && x.abs() > amax[groups.of_element(*place)] * SLACK);
            }
        }
        let share = |count: usize| if all == 0 { 0.0 } else { count as f64 / all as f64 };
        Self { clipped: share(clipped), zeroed: share(zeroed), non_finite: share(non_finite) }
    }
}

/// Counts the finite elements of a sample between its ends.
fn histogram(sample: &[SampledValues]) -> Option<Histogram> {
    let values: Vec<f32> = sample.iter().flat_map(|values| &values.x).copied().filter(|x| x.is_finite()).collect();
    let Ends { lowest: from, highest: to, .. } = Ends::of(&values)?;
    let width = f64::from(to) - f64::from(from);
    if width <= 0.0 {
        return None;
    }
    let mut counts = vec![0; BINS];
    for value in values {
        let bin = (f64::from(value) - f64::from(from)) / width * BINS as f64;
        counts[(bin as usize).min(BINS - 1)] += 1;
    }
    Some(Histogram { from, to, counts })
}

/// The values of a format within a histogram: what rounding makes of closely spaced values.
fn grid(config: &QuantizerConfig, amax: Option<f32>, histogram: Option<&Histogram>) -> Vec<f32> {
    const PROBES: usize = 4096;
    let (Some(amax), Some(histogram)) = (amax.filter(|amax| *amax > 0.0 && amax.is_finite()), histogram) else {
        return Vec::new();
    };
    let elements = AnyGrid::new(config.format, ScaleFormat::F32, 0.0);
    let scale = elements.scale(amax);
    let probe = |i: usize| amax * (2.0 * i as f32 / PROBES as f32 - 1.0);
    let mut values: Vec<f32> = (0..=PROBES).map(|i| elements.fake_quant(probe(i), scale)).collect();
    values.dedup();
    values.retain(|value| (histogram.from..=histogram.to).contains(value));
    if values.len() > SHOWN { Vec::new() } else { values }
}

/// The largest of runs of neighbours, so that a plot can show them.
fn condensed(channels: &[f32]) -> Vec<f32> {
    let run = channels.len().div_ceil(SHOWN).max(1);
    channels.chunks(run).map(|run| run.iter().copied().fold(0.0, f32::max).min(f32::MAX)).collect()
}

/// Puts together what was measured of layers: their shares, and channels of the worst.
pub(crate) fn layers(
    measured: Vec<(String, LayerNumbers)>,
    quantizers: &[QuantizerCase],
    with_channels: usize,
) -> Vec<LayerCase> {
    const CHANNELS: usize = 1024;
    let all: f64 = measured.iter().map(|(_, numbers)| numbers.own_ratio()).sum();
    let mut worst: Vec<f64> = measured.iter().map(|(_, numbers)| numbers.own_ratio()).collect();
    worst.sort_by(|a, b| b.total_cmp(a));
    let bound = worst.get(with_channels).copied().unwrap_or(0.0);
    let case = |(path, numbers): (String, LayerNumbers)| {
        let ratio = numbers.own_ratio();
        let format = |operand| {
            let found = quantizers.iter().find(|case| case.shown.layer == path && case.shown.operand == operand);
            found.map_or("float", |case| case.shown.format.as_str())
        };
        let shown = LayerDiagnosis {
            format: format!("{} × {}", format(Operand::Weight), format(Operand::Input)),
            calls: numbers.calls,
            own_sqnr: numbers.own_sqnr(),
            sqnr: numbers.sqnr(),
            share: if all > 0.0 { ratio / all } else { 0.0 },
            shift: numbers.shift(),
            float_amax: numbers.float_amax,
            quantized_amax: numbers.free_amax,
            non_finite: numbers.non_finite,
            channel_sqnr: if ratio > bound { numbers.channel_sqnr(CHANNELS) } else { Vec::new() },
            path,
        };
        LayerCase { shown, numbers }
    };
    measured.into_iter().map(case).collect()
}
