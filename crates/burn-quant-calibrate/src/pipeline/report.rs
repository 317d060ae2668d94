//! What was done to a model, and what a user should know of it.

use serde::{Deserialize, Serialize};

use crate::observe::ModelStatistics;
use crate::solve::LayerReport;
use burn_quant_core::layout::Role;
use burn_quant_core::model::Quantizers;
use burn_quant_core::place::Plan;

/// What was done to a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// What every quantizer does.
    pub plan: Plan,
    /// What the static quantizers saw, except for Gram matrices.
    pub statistics: ModelStatistics,
    /// What the algorithm did to each layer; none for [`Algorithm::Max`](crate::config::Algorithm::Max).
    pub layers: Vec<LayerReport>,
    /// How often the forward loop was called.
    pub passes: usize,
    /// What is not as one may expect.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
    /// Parameters of two or more axes that stay in float, by path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub float: Vec<String>,
}

/// What a user should know of a model that was quantized without an error.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Warning {
    /// An activation was zero in all of the calibration data: its quantizer makes zeros of whatever comes.
    #[error(
        "`{quantizer}` saw only zeros and will give only zeros: calibrate with data that reaches its layer, or \
         disable it"
    )]
    OnlyZeros {
        /// The quantizer.
        quantizer: String,
    },
    /// A parameter was tied to another, and calibration changed one of the two.
    #[error("`{path}` was tied to another parameter and is not any more: calibration changed one of them")]
    Untied {
        /// The parameter.
        path: String,
    },
    /// A weight was rounded for good before it was quantized again: its error is that of both.
    #[error(
        "the weights of `{layer}` were folded before: quantize the float model, or their error is that of both times"
    )]
    Folded {
        /// The layer.
        layer: String,
    },
    /// A registered layout matches no parameter of the model.
    #[error(
        "the layout registered for `{layout}` matches no parameter of the model: compare the names of struct and field"
    )]
    UnusedLayout {
        /// The container and the field, or the glob of the path.
        layout: String,
    },
    /// A layer of burn's has a quantized weight and inputs in float, in a model that quantizes the inputs of others.
    #[error(
        "`{layer}` is burn's own layer, so its inputs stay in float: build it of `burn_quant::nn` to quantize them too"
    )]
    InputsInFloat {
        /// The path of the layer.
        layer: String,
    },
    /// A quantizer in a struct of yours looks for channels in the last axis, where the convolution beside it has none.
    #[error(
        "`{quantizer}` looks for channels in the last axis, and the convolution `{layer}` beside it has them in the \
         second: make it with `Role::ChannelsFirst`"
    )]
    ChannelsElsewhere {
        /// The quantizer.
        quantizer: String,
        /// The path of the convolution.
        layer: String,
    },
    /// An algorithm made the output of a layer worse than ranges by `max` do.
    #[error(
        "the output error of `{layer}` grew from {before} to {after}: leave the algorithm out for this layer, with \
         `for_layers`"
    )]
    Worse {
        /// The layer.
        layer: String,
        /// The mean squared error under ranges by `max`.
        before: String,
        /// The mean squared error now.
        after: String,
    },
}

impl Warning {
    /// The layers whose error grew.
    pub(super) fn of_layers(layers: &[LayerReport]) -> impl Iterator<Item = Self> {
        layers.iter().filter_map(|layer| {
            let (before, after) = layer.error_before.zip(layer.error_after).filter(|(before, after)| after > before)?;
            let number = |error: f64| format!("{error:.3e}");
            Some(Warning::Worse { layer: layer.layer.clone(), before: number(before), after: number(after) })
        })
    }

    /// The enabled activation quantizers that saw only zeros.
    pub(super) fn of_zeros(quantizers: &Quantizers, statistics: &ModelStatistics) -> Vec<Self> {
        let zeros = |name: &str| {
            statistics.get(name).is_some_and(|seen| !seen.amax.is_empty() && seen.amax.iter().all(|amax| *amax == 0.0))
        };
        let enabled = quantizers
            .iter()
            .filter(|(_, quantizer)| quantizer.needs_calibration() && !matches!(quantizer.role(), Role::Weight(_)));
        enabled.filter(|(name, _)| zeros(name)).map(|(name, _)| Warning::OnlyZeros { quantizer: name.into() }).collect()
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let enabled = self.plan.quantizers.values().filter(|planned| planned.enabled).count();
        for layer in &self.layers {
            writeln!(f, "{layer}")?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        if let [first, ..] = self.float.as_slice() {
            let others = match self.float.len() {
                1 => String::new(),
                n => format!(" and {} more", n - 1),
            };
            writeln!(f, "in float: {first}{others}")?;
        }
        let all = self.plan.quantizers.len();
        let data = match self.passes {
            0 => "no data".to_string(),
            1 => "1 pass over the data".to_string(),
            n => format!("{n} passes over the data"),
        };
        write!(f, "{enabled} of {all} quantizers enabled, {data}")
    }
}
