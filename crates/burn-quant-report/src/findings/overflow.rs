//! Values overflow the dtype of the model.
//!
//! f16 ends at 65504. The first layer whose output is not finite is told; those after it only hand it on. If it
//! is so in the float model, that is told instead.

use burn::tensor::DType;
use burn_quant_core::config::Rule;
use burn_quant_core::model::within;

use super::{literal, number, percent};
use crate::case::{Cases, LayerCase};
use crate::diagnosis::{Finding, FindingKind, Severity};

const F16_MAX: f32 = 65504.0;

pub(super) fn find(cases: &Cases) -> Vec<Finding> {
    if let Some(layer) = cases.layers.iter().find(|layer| !layer.shown.float_amax.is_finite()) {
        return vec![of_float(layer)];
    }
    let overflows = |layer: &&LayerCase| layer.shown.non_finite > 0.0 && layer.shown.float_amax.is_finite();
    let Some(layer) = cases.layers.iter().find(overflows) else { return Vec::new() };
    let (path, amax) = (&layer.shown.path, layer.shown.float_amax);
    let half = layer.numbers.dtype == Some(DType::F16);
    let message = format!(
        "Of the outputs of this layer {} are not finite; in the float model the largest is {}{}.",
        percent(layer.shown.non_finite),
        number(f64::from(amax)),
        if half { ", and f16 ends at 65504" } else { "" },
    );
    let fits = half && amax < F16_MAX;
    let advice = match (half, fits) {
        (true, true) => "Rounding goes beyond the end of f16: leave this layer in float, or run the model in bf16.",
        (true, false) => "The float model does not fit f16 either: run it in bf16, which reaches as far as f32.",
        (false, _) => "Look for infinite weights or ranges in this layer and before it, and calibrate again.",
    };
    let mut finding = Finding {
        kind: FindingKind::Overflow,
        severity: Severity::Broken,
        at: path.clone(),
        message,
        advice: advice.into(),
        rules: Vec::new(),
        step: None,
        share: 1.0,
    };
    if fits {
        finding = finding.with_rule(Rule::disable(within(&literal(path), "*_quantizer")));
    }
    vec![finding]
}

/// What is not finite in the float model has nothing to do with quantization, and hides what has.
fn of_float(layer: &LayerCase) -> Finding {
    Finding {
        kind: FindingKind::NotFinite,
        severity: Severity::Broken,
        at: layer.shown.path.clone(),
        message:
            "The float model itself has outputs here that are NaN or infinite: nothing can be compared from here on."
                .into(),
        advice: "Look at the data of the batches, and at the weights of this layer in the float model.".into(),
        rules: Vec::new(),
        step: None,
        share: 0.0,
    }
}
