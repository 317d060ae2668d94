//! What calibration did to each layer.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};

use super::{LayerProblem, SkipReason};
use burn_quant_core::model::host;

/// What the steps of an algorithm did to a layer, or to the quantizer of an activation.
///
/// Errors are of outputs, averaged over tokens and output channels, and caused by the weight alone:
/// `‖X ΔW‖² / (tokens · out)`. They are known where the algorithm looks at the Gram matrix of the inputs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerReport {
    /// The path of the layer, or the name of the quantizer.
    pub layer: String,
    /// What each step did.
    pub steps: Vec<StepReport>,
    /// The mean squared error of an output under ranges by `max`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_before: Option<f64>,
    /// The mean squared error of an output now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_after: Option<f64>,
    /// Signal to quantization noise of the outputs, in decibels, caused by the weight.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_sqnr: Option<f64>,
    /// Signal to quantization noise of the weight under ranges by `max`, in decibels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_sqnr_before: Option<f64>,
    /// Signal to quantization noise of the weight that takes effect now, in decibels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_sqnr: Option<f64>,
}

/// What one step did.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepReport {
    /// The algorithm.
    pub algorithm: String,
    /// What it chose.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub choices: BTreeMap<String, f32>,
    /// Why it left the layer as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<SkipReason>,
}

impl StepReport {
    pub(crate) fn solved(algorithm: &str, choices: BTreeMap<String, f32>) -> Self {
        Self { algorithm: algorithm.into(), choices, skipped: None }
    }

    pub(crate) fn skipped(algorithm: &str, reason: SkipReason) -> Self {
        Self { algorithm: algorithm.into(), choices: BTreeMap::new(), skipped: Some(reason) }
    }
}

impl LayerReport {
    pub(crate) fn of_quantizer(name: &str, steps: Vec<StepReport>) -> Self {
        Self {
            layer: name.into(),
            steps,
            error_before: None,
            error_after: None,
            output_sqnr: None,
            weight_sqnr_before: None,
            weight_sqnr: None,
        }
    }

    /// Errors of a layer, read from the device at once.
    pub(crate) fn of_layer(
        layer: &LayerProblem,
        steps: Vec<StepReport>,
        error_before: Option<Tensor<1>>,
        rounding_before: Tensor<1>,
    ) -> Self {
        let (change, weights) = (layer.weight_error(), layer.original_weight());
        let square = |x: Tensor<2>| (x.clone() * x).mean();
        let mut numbers = vec![rounding_before, square(change.clone()), square(weights)];
        let outputs = error_before.zip(layer.output_error_of(change).zip(layer.output_power()));
        let has_outputs = outputs.is_some();
        if let Some((before, (after, power))) = outputs {
            numbers.extend([before, after, power]);
        }
        let numbers: Vec<f64> = host(Tensor::cat(numbers, 0)).into_iter().map(f64::from).collect();
        let of_outputs = |i: usize| has_outputs.then(|| numbers[i]).filter(|n| n.is_finite()).map(|n| n.max(0.0));
        Self {
            error_before: of_outputs(3),
            error_after: of_outputs(4),
            output_sqnr: of_outputs(4).and_then(|noise| decibels(numbers[5], noise)),
            weight_sqnr_before: decibels(numbers[2], numbers[0]),
            weight_sqnr: decibels(numbers[2], numbers[1]),
            ..Self::of_quantizer(layer.name(), steps)
        }
    }

    /// The error now over that under ranges by `max`; below 1 is better.
    pub fn error_ratio(&self) -> Option<f64> {
        self.error_before
            .zip(self.error_after)
            .filter(|(before, _)| *before > 0.0)
            .map(|(before, after)| after / before)
    }
}

/// `None` where nothing is lost, or nothing is there.
fn decibels(signal: f64, noise: f64) -> Option<f64> {
    (noise > 0.0 && signal > 0.0).then(|| 10.0 * (signal / noise).log10())
}

impl std::fmt::Display for LayerReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:", self.layer)?;
        // steps that were skipped for one reason share it
        for (i, steps) in self.steps.chunk_by(|a, b| a.skipped.is_some() && a.skipped == b.skipped).enumerate() {
            f.write_str(if i == 0 { " " } else { "; " })?;
            let (last, first) = steps.split_last().expect("a chunk is not empty");
            first.iter().try_for_each(|step| write!(f, "{}, ", step.algorithm))?;
            write!(f, "{last}")?;
        }
        if let (Some(before), Some(after)) = (self.error_before, self.error_after) {
            write!(f, "; output error {before:.3e} -> {after:.3e}")?;
        }
        match (self.output_sqnr, self.weight_sqnr) {
            (Some(output), Some(weight)) => write!(f, "; SQNR of output {output:.1} dB, of weight {weight:.1} dB"),
            (None, Some(weight)) => write!(f, "; SQNR of weight {weight:.1} dB"),
            _ => Ok(()),
        }
    }
}

impl std::fmt::Display for StepReport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.algorithm)?;
        if let Some(reason) = &self.skipped {
            return write!(f, " skipped, {reason}");
        }
        for (i, (name, value)) in self.choices.iter().enumerate() {
            write!(f, "{} {name} {value}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}
