//! A made-up diagnosis, the same one every time.

use std::collections::BTreeMap;

use burn_quant_core::config::{QuantizerConfig, Rule};

use crate::diagnosis::{
    Better, CurvePoint, Diagnosis, Ends, Finding, FindingKind, Histogram, LayerDiagnosis, Metric, Operand, Overview,
    QuantizerDiagnosis, RecipeResult, Sensitivity, Severity,
};

const PROJECTIONS: [&str; 5] =
    ["self_attn.q_proj", "self_attn.k_proj", "self_attn.o_proj", "mlp.up_proj", "mlp.down_proj"];
const CHANNELS: usize = 256;

/// Returns a diagnosis of some layers, each with two quantizers.
pub(crate) fn diagnosis(layers: usize) -> Diagnosis {
    let mut random = Random(7);
    let layers: Vec<_> = (0..layers).map(|index| layer(index, layers, &mut random)).collect();
    let quantizers =
        layers.iter().enumerate().flat_map(|(index, layer)| quantizers(index, layer, &mut random)).collect();
    let sensitivity = layers.iter().map(|layer| sensitivity(layer, &mut random)).collect();
    Diagnosis {
        title: "llama-1b, nvfp4 with int8 head".into(),
        overview: overview(layers.len()),
        findings: findings(&layers),
        sensitivity,
        quantizers,
        layers,
        curve: curve(),
        recipes: recipes(),
        graph: Some("graph.svg".into()),
    }
}

/// Deterministic numbers: xorshift.
struct Random(u64);

impl Random {
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1_u64 << 53) as f64
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.uniform()
    }
}

fn overview(layers: usize) -> Overview {
    Overview {
        batches: 16,
        quantizers: 2 * layers + 3,
        enabled: 2 * layers,
        formats: BTreeMap::from([("fp8".into(), layers), ("int8".into(), layers), ("nvfp4".into(), layers)]),
        effective_bits: 4.62,
        float_bytes: 4_943_274_000,
        quantized_bytes: 1_402_881_000,
        output_sqnr: Some(24.31),
        output_non_finite: 0.00002,
        metric: Some(Metric { name: "accuracy".into(), better: Better::Higher, float: 0.7712, quantized: 0.7391 }),
    }
}

fn layer(index: usize, layers: usize, random: &mut Random) -> LayerDiagnosis {
    let depth = index as f64 / layers as f64;
    let own = random.between(22.0, 34.0) - if index % 37 == 20 { 12.0 } else { 0.0 };
    let amax = random.between(0.5, 60.0) as f32;
    LayerDiagnosis {
        path: format!("decoder.layers.{}.{}", index / PROJECTIONS.len(), PROJECTIONS[index % PROJECTIONS.len()]),
        format: ["nvfp4 · nvfp4", "int8 · int8", "fp8 · fp8"][index % 3].into(),
        calls: 16,
        own_sqnr: (index % 50 != 49).then_some(own),
        sqnr: Some(34.0 - 10.0 * depth.sqrt() + random.between(-2.0, 1.0)),
        share: if index % 37 == 20 { 0.11 } else { random.uniform() * 0.004 },
        shift: (index % 50 != 49).then(|| random.between(-0.3, 0.3)),
        float_amax: amax,
        quantized_amax: amax * random.between(0.9, 1.05) as f32,
        non_finite: if index == 3 { 0.00002 } else { 0.0 },
        channel_sqnr: if index % 37 == 20 {
            (0..1024).map(|_| random.between(8.0, 30.0) as f32).collect()
        } else {
            vec![]
        },
    }
}

fn quantizers(index: usize, layer: &LayerDiagnosis, random: &mut Random) -> [QuantizerDiagnosis; 2] {
    let activation = if index % PROJECTIONS.len() == 1 { Operand::Attention } else { Operand::Input };
    [quantizer(layer, activation, index, random), quantizer(layer, Operand::Weight, index, random)]
}

fn quantizer(layer: &LayerDiagnosis, operand: Operand, index: usize, random: &mut Random) -> QuantizerDiagnosis {
    let (name, granularity, range) = match operand {
        Operand::Weight => ("weight_quantizer", "per_channel(0)", "static"),
        Operand::Attention => ("k_bmm_quantizer", "per_tensor", "static"),
        _ => ("input_quantizer", "per_token", if index.is_multiple_of(2) { "dynamic" } else { "static" }),
    };
    let outlier = random.between(1.2, 14.0);
    let channel_amax = channel_amax(outlier, random);
    let seen = Ends::of(&channel_amax);
    let amax = channel_amax.iter().copied().fold(0.0, f32::max) * random.between(0.4, 1.1) as f32;
    let groups = if operand == Operand::Weight { CHANNELS } else { 1 };
    QuantizerDiagnosis {
        name: format!("{}.{name}", layer.path),
        layer: layer.path.clone(),
        operand,
        format: ["nvfp4", "int8", "fp8"][index % 3].into(),
        granularity: granularity.into(),
        range: range.into(),
        amax: (range == "static").then_some(Ends { lowest: amax / groups as f32, highest: amax, count: groups }),
        seen,
        calls: if operand == Operand::Weight { 1 } else { 16 },
        dead_channels: if index.is_multiple_of(9) { 12 } else { 0 },
        lost_channels: 0,
        outlier_ratio: Some(outlier),
        outlier_channel: Some(117),
        token_ratio: None,
        clipped: random.uniform().powi(8) * 0.04,
        zeroed: random.uniform() * 0.2,
        non_finite: if index == 3 { 0.00002 } else { 0.0 },
        sqnr: Some(random.between(14.0, 42.0)),
        channel_sqnr: Some(random.between(14.0, 42.0)),
        token_sqnr: Some(random.between(14.0, 42.0)),
        histogram: Some(histogram(seen.map_or(1.0, |seen| seen.highest), random)),
        grid: grid(index, amax),
        channel_amax,
    }
}

fn channel_amax(outlier: f64, random: &mut Random) -> Vec<f32> {
    let mut channels: Vec<_> = (0..CHANNELS).map(|_| random.between(0.4, 1.0) as f32).collect();
    channels[117] = outlier as f32;
    channels
}

/// Returns a bell with tails.
fn histogram(amax: f32, random: &mut Random) -> Histogram {
    let bell = |bin: i32| (-(f64::from(bin - 32) / 6.0).powi(2) / 2.0).exp() * 900_000.0;
    let counts = (0..64).map(|bin| (bell(bin) * random.between(0.8, 1.2) + random.between(0.0, 40.0)) as u64).collect();
    Histogram { from: -amax, to: amax, counts }
}

fn grid(index: usize, amax: f32) -> Vec<f32> {
    let positive: Vec<f32> = match index % 3 {
        0 => [0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0].iter().map(|code| code / 6.0).collect(),
        1 => (1..=127).map(|code| code as f32 / 127.0).collect(),
        _ => (1..127).map(|code| (1.0 + (code % 8) as f32 / 8.0) * 2_f32.powi(code / 8 - 15) / 1.75).collect(),
    };
    let negative = positive.iter().rev().map(|value| -value);
    negative.chain([0.0]).chain(positive.iter().copied()).map(|value| value * amax).collect()
}

fn sensitivity(layer: &LayerDiagnosis, random: &mut Random) -> Sensitivity {
    let only = 0.7712 - random.uniform().powi(6) * 0.02;
    let weights = random.between(only, 0.7712);
    let both = layer.path.contains("mlp");
    Sensitivity {
        layer: layer.path.clone(),
        only,
        without: 0.7391 + random.uniform().powi(6) * 0.012,
        weights: both.then_some(weights),
        activations: both.then_some(only + 0.7712 - weights),
    }
}

fn findings(layers: &[LayerDiagnosis]) -> Vec<Finding> {
    use FindingKind::*;
    let kinds = [
        (Overflow, Severity::Broken),
        (SwappedRanges, Severity::Broken),
        (Saturated, Severity::Costly),
        (OutlierChannels, Severity::Costly),
        (WrongAxis, Severity::Costly),
        (TooFewBits, Severity::Costly),
        (ShiftedOutput, Severity::Note),
        (DeadChannels, Severity::Note),
    ];
    let places = layers.iter().step_by(layers.len().div_ceil(kinds.len()).max(1));
    kinds.into_iter().zip(places).map(|((kind, severity), layer)| finding(kind, severity, layer)).collect()
}

fn finding(kind: FindingKind, severity: Severity, layer: &LayerDiagnosis) -> Finding {
    let of_layer = matches!(kind, FindingKind::ShiftedOutput | FindingKind::Overflow);
    Finding {
        kind,
        severity,
        at: if of_layer { layer.path.clone() } else { format!("{}.weight_quantizer", layer.path) },
        message: "Channel 117 is 13.2 times as large as the median channel and sets the range of all 256 channels, \
                  so that 18 % of the elements become zero."
            .into(),
        advice: "Give each channel its own range, or move the outliers into the weight with SmoothQuant.".into(),
        rules: if severity == Severity::Note { vec![] } else { rules() },
        step: None,
        share: if of_layer { 0.0 } else { 0.083 },
    }
}

fn rules() -> Vec<Rule> {
    vec![Rule::set("*.input_quantizer", QuantizerConfig::int(8).per_token().dynamic())]
}

fn curve() -> Vec<CurvePoint> {
    let point = |step: i32| CurvePoint {
        bits: 4.25 + f64::from(step) * 0.35,
        score: 3.1 * (-f64::from(step) / 3.0).exp() + 0.02,
        chosen: step == 3,
    };
    (0..12).rev().map(point).collect()
}

fn recipes() -> Vec<RecipeResult> {
    let recipe = |name: &str, bits, output_sqnr, metric| RecipeResult {
        name: name.into(),
        bits,
        output_sqnr,
        metric,
        worst_layer: Some("decoder.layers.0.mlp.down_proj".into()),
    };
    vec![
        recipe("int8", 8.13, Some(36.4), Some(0.7689)),
        recipe("fp8", 8.0, Some(31.2), Some(0.7671)),
        recipe("nvfp4_awq_lite", 4.5, Some(21.7), None),
        RecipeResult { worst_layer: None, ..recipe("int4_blockwise", 4.25, None, Some(f64::NAN)) },
    ]
}
