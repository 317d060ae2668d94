//! What a diagnosis found: plain data, JSON.
//!
//! Shares are between 0 and 1. Ratios of signal to noise are in decibels, `10 · log10(Σ x² / Σ (x − x̂)²)`; `None`
//! where nothing was measured. A signal without any noise has [`NO_NOISE`].

use std::collections::BTreeMap;

use burn_quant_calibrate::config::{Algorithm, QuantConfig};
use burn_quant_core::config::Rule;
use serde::{Deserialize, Serialize};

/// The ratio of a signal without noise, in decibels: more than a float of 32 bits resolves.
pub const NO_NOISE: f64 = 200.0;

/// What was found out about a quantized model.
///
/// [`Diagnosis::html`] makes a page of it; [`Display`](std::fmt::Display) the short form for a terminal.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Diagnosis {
    /// What the model is called.
    pub title: String,
    /// The model as a whole.
    pub overview: Overview,
    /// What is wrong, the worst first.
    pub findings: Vec<Finding>,
    /// The layers, in the order in which data meets them.
    pub layers: Vec<LayerDiagnosis>,
    /// The quantizers that are on, in the order of the model's fields.
    pub quantizers: Vec<QuantizerDiagnosis>,
    /// What each layer does to the metric; empty unless it was asked for.
    pub sensitivity: Vec<Sensitivity>,
    /// Accuracy against bits of an automatic search.
    pub curve: Vec<CurvePoint>,
    /// Other recipes for the same model.
    pub recipes: Vec<RecipeResult>,
    /// Where the graph of the model is: an address relative to the page.
    pub graph: Option<String>,
}

/// The model as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Overview {
    /// Batches that went through the model.
    pub batches: u64,
    /// All quantizers.
    pub quantizers: usize,
    /// Quantizers that are on.
    pub enabled: usize,
    /// How many quantizers have a format, by its name.
    pub formats: BTreeMap<String, usize>,
    /// Bits per parameter in a file, everything included; 16 where it is in float.
    pub effective_bits: f64,
    /// Bytes of the float model.
    pub float_bytes: u64,
    /// Bytes of the quantized model in a file, everything included; 16 bits where it is in float.
    pub quantized_bytes: u64,
    /// Signal to noise of the output, in decibels.
    pub output_sqnr: Option<f64>,
    /// Values of the output that are not finite, as a share.
    pub output_non_finite: f64,
    /// What the user measures.
    pub metric: Option<Metric>,
}

/// What the user measures, of both models.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Metric {
    /// What it is called: `accuracy`.
    pub name: String,
    /// Which values are good.
    pub better: Better,
    /// Of the float model.
    #[serde(with = "crate::non_finite")]
    pub float: f64,
    /// Of the quantized model.
    #[serde(with = "crate::non_finite")]
    pub quantized: f64,
}

/// Which values of a metric are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Better {
    /// High values, as of accuracy.
    Higher,
    /// Low values, as of perplexity.
    Lower,
}

/// Which tensor of a layer is quantized.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Operand {
    /// A parameter.
    Weight,
    /// What comes into a layer.
    Input,
    /// What leaves a layer.
    Output,
    /// A tensor of attention: queries, keys, values, probabilities; what a KV cache holds.
    Attention,
    /// A tensor of a struct of the user's own.
    Other,
}

/// The lowest and the highest of some numbers, and how many there are.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ends {
    /// The lowest.
    #[serde(with = "crate::non_finite")]
    pub lowest: f32,
    /// The highest.
    #[serde(with = "crate::non_finite")]
    pub highest: f32,
    /// How many there are.
    pub count: usize,
}

impl Ends {
    /// Returns the ends of some numbers; `None` if there are none. NaN is not among them.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant_report::Ends;
    ///
    /// assert_eq!(Ends::of(&[2.0, -1.0, 0.5]), Some(Ends { lowest: -1.0, highest: 2.0, count: 3 }));
    /// ```
    pub fn of(values: &[f32]) -> Option<Self> {
        let lowest = values.iter().copied().reduce(f32::min)?;
        let highest = values.iter().copied().reduce(f32::max)?;
        Some(Self { lowest, highest, count: values.len() })
    }
}

/// What one quantizer does to its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct QuantizerDiagnosis {
    /// The name: `decoder.fc1.input_quantizer`.
    pub name: String,
    /// The path of its layer; empty at the root of the model.
    pub layer: String,
    /// Which tensor it is.
    pub operand: Operand,
    /// The format: `int8`, `nvfp4`.
    pub format: String,
    /// Which elements share a range.
    pub granularity: String,
    /// Where the range comes from: `static`, `dynamic`, `constant`.
    pub range: String,
    /// The range of each group, in the units of the tensor; `None` if it is dynamic.
    pub amax: Option<Ends>,
    /// The largest magnitudes of the data, one for each channel.
    pub seen: Option<Ends>,
    /// Calls that were watched; 1 of a weight.
    pub calls: u64,
    /// Channels that are zero in all data.
    pub dead_channels: usize,
    /// Channels that are not zero in the data, and of which rounding leaves nothing.
    pub lost_channels: usize,
    /// The largest magnitude of a channel, divided by that of the median channel; `None` where that is zero.
    pub outlier_ratio: Option<f64>,
    /// The channel of the largest magnitude.
    pub outlier_channel: Option<usize>,
    /// The largest magnitude of a token, divided by the root mean square of those of all tokens; of activations with
    /// channels last. A range for each token makes the noise smaller by this factor.
    pub token_ratio: Option<f64>,
    /// Elements outside the range, as a share.
    pub clipped: f64,
    /// Elements that are not zero and become zero, as a share.
    pub zeroed: f64,
    /// Elements that are not finite, as a share.
    pub non_finite: f64,
    /// Signal to noise of rounding in the first eight calls, in decibels.
    pub sqnr: Option<f64>,
    /// The median of the channels' signal to noise, in decibels: large channels do not hide what small ones lose.
    pub channel_sqnr: Option<f64>,
    /// Signal to noise of the mean token, in decibels: `−10 · log10` of the mean of the tokens' noises over their
    /// signals; of activations with channels last. Large tokens do not hide what small ones lose.
    pub token_sqnr: Option<f64>,
    /// How often which values are, between the ends of a sample of the data.
    pub histogram: Option<Histogram>,
    /// Values that the format has within the histogram, for the first range; empty if there are more than 256.
    pub grid: Vec<f32>,
    /// The largest magnitude of each channel, or the largest of runs of neighbours if there are more than 256.
    pub channel_amax: Vec<f32>,
}

/// How often which values are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Histogram {
    /// The lower end of the first bin.
    pub from: f32,
    /// The upper end of the last bin.
    pub to: f32,
    /// The elements of each bin; all bins are equally wide.
    pub counts: Vec<u64>,
}

/// What quantization does to the output of one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LayerDiagnosis {
    /// The path; empty for a layer at the root of the model.
    pub path: String,
    /// The formats of weight and input.
    pub format: String,
    /// Calls that were watched.
    pub calls: u64,
    /// Signal to noise of the output when the layer gets the inputs of the float model: what this layer does.
    pub own_sqnr: Option<f64>,
    /// Signal to noise of the output in the quantized model: what this layer and all before it do.
    pub sqnr: Option<f64>,
    /// The noise of this layer as a share of that of all layers, as if relative errors added up.
    pub share: f64,
    /// The mean of the error, divided by its root mean square: 0 for noise, ±1 for a shift of all values.
    pub shift: Option<f64>,
    /// The largest magnitude of the output in the float model.
    #[serde(with = "crate::non_finite")]
    pub float_amax: f32,
    /// The largest magnitude of the output in the quantized model.
    #[serde(with = "crate::non_finite")]
    pub quantized_amax: f32,
    /// Values of the quantized output that are not finite, as a share.
    pub non_finite: f64,
    /// Signal to noise of each output channel, in decibels, the layer by itself; of the worst layers, at most 1024.
    pub channel_sqnr: Vec<f32>,
}

/// The metric with some of the quantizers on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Sensitivity {
    /// The path of the layer.
    pub layer: String,
    /// The metric with this layer quantized, and all others in float.
    #[serde(with = "crate::non_finite")]
    pub only: f64,
    /// The metric with all layers quantized but this one.
    #[serde(with = "crate::non_finite")]
    pub without: f64,
    /// The metric with the weights of this layer quantized, and nothing else; `None` if that is [`only`](Self::only),
    /// or not finite.
    pub weights: Option<f64>,
    /// The metric with the activations of this layer quantized, and nothing else; `None` if that is
    /// [`only`](Self::only), or not finite.
    pub activations: Option<f64>,
}

/// A point of accuracy against bits.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CurvePoint {
    /// Effective bits per parameter.
    #[serde(with = "crate::non_finite")]
    pub bits: f64,
    /// The score of the search: an estimate of the loss that quantization adds; lower is better.
    #[serde(with = "crate::non_finite")]
    pub score: f64,
    /// Whether it is what the search chose.
    pub chosen: bool,
}

/// A recipe, and what it makes of the model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecipeResult {
    /// What it is called.
    pub name: String,
    /// Effective bits per parameter.
    #[serde(with = "crate::non_finite")]
    pub bits: f64,
    /// Signal to noise of the output, in decibels.
    pub output_sqnr: Option<f64>,
    /// The metric of [`Overview::metric`].
    pub metric: Option<f64>,
    /// The path of the layer with the most noise.
    pub worst_layer: Option<String>,
}

/// How bad something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The model is broken: this was not meant.
    Broken,
    /// Accuracy is lost that need not be.
    Costly,
    /// Worth knowing.
    Note,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FindingKind {
    /// The float model has values that are NaN or infinite.
    NotFinite,
    /// Values overflow the dtype of the model.
    Overflow,
    /// Two ranges are each other's.
    SwappedRanges,
    /// A range has nothing to do with the data: it was set, or calibrated with other data.
    Uncalibrated,
    /// A range is far smaller than the data.
    Saturated,
    /// A range is far larger than the data.
    Unused,
    /// Ranges lie along an axis that does not separate large channels from small ones, while the other one does.
    WrongAxis,
    /// Training moved the weights far from those of the float model.
    BrokenByTraining,
    /// A few channels are far larger than the others.
    OutlierChannels,
    /// A few tokens are far larger than the others.
    OutlierTokens,
    /// Rounding leaves nothing of some channels.
    LostChannels,
    /// Channels are zero in all data.
    DeadChannels,
    /// The format has too few values for the tensor.
    TooFewBits,
    /// The layer loses what no rounding does: it is not that of the float model.
    AnotherLayer,
    /// All outputs are shifted one way.
    ShiftedOutput,
}

impl FindingKind {
    /// Returns its name, in words.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant_report::FindingKind;
    ///
    /// assert_eq!(FindingKind::OutlierTokens.name(), "outlier tokens");
    /// ```
    pub fn name(self) -> &'static str {
        match self {
            Self::NotFinite => "float not finite",
            Self::Overflow => "overflow",
            Self::SwappedRanges => "swapped ranges",
            Self::Uncalibrated => "uncalibrated range",
            Self::Saturated => "range too small",
            Self::Unused => "range too large",
            Self::WrongAxis => "ranges along the wrong axis",
            Self::BrokenByTraining => "broken by training",
            Self::OutlierChannels => "outlier channels",
            Self::OutlierTokens => "outlier tokens",
            Self::LostChannels => "lost channels",
            Self::DeadChannels => "dead channels",
            Self::TooFewBits => "too few bits",
            Self::AnotherLayer => "another layer",
            Self::ShiftedOutput => "shifted output",
        }
    }
}

impl Severity {
    /// Returns its name, in a word.
    ///
    /// # Example
    ///
    /// ```
    /// use burn_quant_report::Severity;
    ///
    /// assert_eq!(Severity::Costly.name(), "costly");
    /// ```
    pub fn name(self) -> &'static str {
        match self {
            Self::Broken => "broken",
            Self::Costly => "costly",
            Self::Note => "note",
        }
    }
}

/// Something that is wrong, in words, and what to do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Finding {
    /// What is wrong.
    pub kind: FindingKind,
    /// How bad it is.
    pub severity: Severity,
    /// The quantizer, or the layer, that it is about.
    pub at: String,
    /// What was found, with its numbers: a sentence.
    pub message: String,
    /// What to do: a sentence.
    pub advice: String,
    /// Rules that do it, to be appended to those of the recipe.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// A step that does it, to be put into the algorithm of the recipe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<Algorithm>,
    /// The share of the error that this layer makes, see [`LayerDiagnosis::share`].
    pub share: f64,
}

impl Finding {
    /// Returns a recipe with what mends this: its rules appended, its step in the sequence of algorithms.
    ///
    /// Quantize the float model with it again. A finding without rules and without a step leaves the recipe unchanged.
    /// Some steps exclude each other: quantization refuses a recipe of two, and says which. Ranges that a step of the
    /// recipe finds (`percentile`, `lsq_init`) are found by it again: where that is what is wrong, leave the step out.
    ///
    /// # Example
    ///
    /// Mends what was found, the worst first, with one recipe:
    ///
    /// ```
    /// use burn_quant_calibrate::config::QuantConfig;
    /// use burn_quant_report::Diagnosis;
    ///
    /// fn mended(recipe: &QuantConfig, diagnosis: &Diagnosis) -> QuantConfig {
    ///     diagnosis.findings.iter().fold(recipe.clone(), |recipe, finding| finding.mend(&recipe))
    /// }
    /// assert_eq!(mended(&QuantConfig::new(), &Diagnosis::default()), QuantConfig::new());
    /// ```
    pub fn mend(&self, recipe: &QuantConfig) -> QuantConfig {
        let mut mended = recipe.clone();
        mended.rules.extend(self.rules.iter().cloned());
        if let Some(step) = &self.step {
            mended.algorithm = with_step(&recipe.algorithm, step);
        }
        mended
    }

    /// Returns what mends this as the text of a recipe in TOML, with the algorithm `max` where a step needs one before
    /// it; `None` if no recipe does. It is what a page shows to be copied.
    pub fn recipe(&self) -> Option<String> {
        let mends = !self.rules.is_empty() || self.step.is_some();
        let written = || self.mend(&QuantConfig::new()).to_toml();
        mends.then(|| written().trim_start_matches("rules = []").trim_start().to_string())
    }
}

/// An algorithm with a further step: at the end, but for algorithms that calibrate nothing.
fn with_step(algorithm: &Algorithm, step: &Algorithm) -> Algorithm {
    let before = match algorithm {
        Algorithm::None => &[Algorithm::Max],
        algorithm => algorithm.steps(),
    };
    Algorithm::Sequence(before.iter().chain([step]).cloned().collect())
}
