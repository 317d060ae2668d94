//! What algorithms can be told.

use serde::{Deserialize, Serialize};

/// The ranges that a search tries.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum RangeSearch {
    /// Multiples of the largest magnitude.
    Multipliers {
        /// The first.
        start: f32,
        /// The last.
        stop: f32,
        /// The distance of two; rounded so that the last is one of them.
        step: f32,
        /// Whether multiplier 1, the `max` range, is tried where the steps do not meet it.
        #[serde(default, alias = "unscaled")]
        include_max: IncludeMax,
    },
    /// Every E4M3 scale of a block.
    E4m3Scales,
}

/// Whether a range search tries multiplier 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncludeMax {
    /// Always tries multiplier 1 (the `max` range), so the result is never worse than `max`.
    #[default]
    #[serde(alias = "tried")]
    Always,
    /// Tries multiplier 1 only if it is on the step grid (ModelOpt's behaviour).
    #[serde(alias = "if_met")]
    OnGrid,
}

impl Default for RangeSearch {
    fn default() -> Self {
        RangeSearch::Multipliers { start: 0.25, stop: 4.0, step: 0.1, include_max: IncludeMax::Always }
    }
}

/// Whether layers that share an input are solved together.
///
/// Layers share an input if they are siblings by name (`q_proj`, `k_proj`, `v_proj`; `gate_proj`, `up_proj`; `w1`, `w3`
/// of one parent) and saw as many tokens with the same channel maxima.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SiblingScales {
    /// Each layer has its own scale (ModelOpt's behaviour).
    #[default]
    #[serde(alias = "separate")]
    PerLayer,
    /// All siblings have one scale, which can be merged into what comes before them.
    #[serde(alias = "joint")]
    Shared,
}

/// Whether AWQ may leave a layer unsmoothed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Identity {
    /// Compares every exponent with no smoothing at all, so that the result is never worse than without.
    #[default]
    Tried,
    /// Takes the best exponent, even where it is worse than no smoothing (ModelOpt's behaviour).
    NotTried,
}

/// On which inputs the error of a layer is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CalibrationInputs {
    /// Inputs of the float model: one observation is enough.
    #[default]
    Float,
    /// Inputs of the model with quantized activations (ModelOpt's behaviour): their ranges must be known first, so the
    /// data is read twice. Equal to `Float` for weight-only configurations.
    Quantized,
}

/// Whether GPTQ rounds the columns of a weight in the order of their activations ("act order").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ActOrder {
    /// Rounds columns in the order of the weight.
    #[default]
    #[serde(alias = "natural")]
    Off,
    /// Rounds columns of the strongest inputs first, while others are left to correct them (`desc_act`).
    #[serde(alias = "activations")]
    On,
}

/// How a histogram of magnitudes is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HistogramConfig {
    /// Bins of a first batch.
    pub bins: usize,
    /// How wide a bin is.
    #[serde(default)]
    pub width: BinWidth,
    /// Whether zeros count.
    #[serde(default)]
    pub zeros: Zeros,
}

impl Default for HistogramConfig {
    fn default() -> Self {
        Self { bins: 2048, width: BinWidth::PowerOfTwo, zeros: Zeros::Counted }
    }
}

/// How wide the bins of a histogram are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BinWidth {
    /// The least power of two with which `2 · bins` bins hold everything: histograms of any shards of the data merge
    /// exactly.
    #[default]
    PowerOfTwo,
    /// The largest magnitude of the first batch over `bins`, as in ModelOpt; later batches add bins. Depends on the
    /// order of batches, so shards do not merge.
    FirstBatch,
}

/// Whether a histogram counts zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Zeros {
    /// Zeros are counted as any other value.
    #[default]
    Counted,
    /// Zeros are not counted. Recommended after a ReLU, where they would dominate the histogram.
    Skipped,
}
