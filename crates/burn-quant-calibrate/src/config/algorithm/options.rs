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
        /// Whether the range itself is tried too, where the steps do not meet it.
        #[serde(default)]
        unscaled: Unscaled,
    },
    /// Every E4M3 scale of a block.
    E4m3Scales,
}

/// Whether a search tries the multiplier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unscaled {
    /// It does, so its result is never worse than `max`.
    #[default]
    Tried,
    /// Only if the steps meet it, as in ModelOpt.
    IfMet,
}

impl Default for RangeSearch {
    fn default() -> Self {
        RangeSearch::Multipliers { start: 0.25, stop: 4.0, step: 0.1, unscaled: Unscaled::Tried }
    }
}

/// Whether layers that share an input are solved together.
///
/// Layers share an input if they are siblings by name (`q_proj`, `k_proj`, `v_proj`; `gate_proj`, `up_proj`; `w1`, `w3`
/// of one parent) and saw the same data, bit for bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// Each layer has its own scale, as in ModelOpt.
    #[default]
    Separate,
    /// One scale for all: it can be merged into what comes before them.
    Joint,
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

/// On which inputs an error is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Inputs {
    /// Those of the float model: one observation is enough.
    #[default]
    Float,
    /// Those of the model with quantized activations, as in ModelOpt: their ranges must be known first, so the data is
    /// read twice. The same as `Float` for weight-only configurations.
    Quantized,
}

/// In which order GPTQ rounds the columns of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ColumnOrder {
    /// As they come.
    #[default]
    Natural,
    /// Those of the strongest inputs first, while there are others left to correct them ("act order").
    Activations,
}

/// How magnitudes are counted.
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
    /// They count as any other value.
    #[default]
    Counted,
    /// They are left out, as after a ReLU they would outweigh all else.
    Skipped,
}
