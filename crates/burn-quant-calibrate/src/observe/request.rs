//! What to collect of which quantizer.

use std::collections::{BTreeMap, HashMap};

use serde::{Deserialize, Serialize};

use super::CaptureAt;
use crate::config::HistogramConfig;

/// What an algorithm wants to know of the inputs of a linear layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InputStatistics {
    /// The range and the means of each channel.
    Means,
    /// Their products too, the Gram matrix: `in²` numbers per layer.
    Gram,
}

/// What to collect of one quantizer, besides its range.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct StatisticsRequest {
    /// What to know of each channel.
    pub channels: Option<InputStatistics>,
    /// How magnitudes are counted, if they are.
    pub histogram: Option<HistogramConfig>,
    /// The size of the blocks whose ranges are counted.
    pub blocks: Option<usize>,
    /// Whether the range of every call is kept.
    pub history: bool,
}

impl StatisticsRequest {
    /// Creates a request for the range alone, which is always collected.
    ///
    /// Each `with_` method adds something.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds statistics of each channel: [`Statistics::channels`](super::Statistics::channels).
    ///
    /// An activation has the means; the Gram matrix is collected for the inputs of linear layers only, by
    /// [`CalibrationAlgorithm::inputs`](crate::solve::CalibrationAlgorithm::inputs).
    pub fn with_channels(mut self, channels: InputStatistics) -> Self {
        self.channels = Some(channels);
        self
    }

    /// Adds a histogram of magnitudes: [`Statistics::histogram`](super::Statistics::histogram).
    ///
    /// It is made on the device, batch by batch.
    pub fn with_histogram(mut self, histogram: HistogramConfig) -> Self {
        self.histogram = Some(histogram);
        self
    }

    /// Adds a histogram of the ranges of blocks of this size: [`Statistics::blocks`](super::Statistics::blocks).
    ///
    /// They lie along the axis of the channels.
    pub fn with_blocks(mut self, size: usize) -> Self {
        self.blocks = Some(size);
        self
    }

    /// Adds the range of every call: [`Statistics::history`](super::Statistics::history).
    ///
    /// In the order of the calls.
    pub fn with_history(mut self) -> Self {
        self.history = true;
        self
    }
}

/// What to collect of the quantizers of a model, besides ranges.
#[derive(Clone, Debug, Default)]
pub struct ModelRequest {
    /// By name of the quantizer.
    pub quantizers: HashMap<String, StatisticsRequest>,
    /// Bytes of the Gram matrices, by quantizer; those of one entry are solved together.
    pub grams: Vec<BTreeMap<String, usize>>,
    /// Of which tensors the Gram matrices are.
    pub grams_at: Option<CaptureAt>,
}

impl ModelRequest {
    pub(crate) fn of(&self, name: &str) -> StatisticsRequest {
        self.quantizers.get(name).copied().unwrap_or_default()
    }

    /// Quantizers whose Gram matrices are on the device at the same time, in passes of at most `budget` bytes; layers
    /// that are solved together stay together, and one that exceeds the budget by itself has a pass of its own.
    pub(crate) fn passes(&self, budget: Option<usize>) -> Vec<Vec<String>> {
        let mut passes: Vec<Vec<String>> = Vec::new();
        let mut used = usize::MAX;
        for group in &self.grams {
            let bytes: usize = group.values().sum();
            let names = group.keys().cloned();
            let fits = used.checked_add(bytes).is_some_and(|total| budget.is_none_or(|budget| total <= budget));
            match passes.last_mut() {
                Some(pass) if fits => {
                    pass.extend(names);
                    used += bytes;
                }
                _ => {
                    passes.push(names.collect());
                    used = bytes;
                }
            }
        }
        passes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_splits_observation_and_drops_nothing() {
        let group = |names: &[&str], bytes| names.iter().map(|name| (name.to_string(), bytes)).collect();
        let grams = vec![group(&["a"], 40), group(&["k", "q", "v"], 20), group(&["z"], 500), group(&["y"], 10)];
        let request = ModelRequest { grams, ..ModelRequest::default() };
        assert_eq!(request.passes(None), [vec!["a", "k", "q", "v", "z", "y"]]);
        assert_eq!(request.passes(Some(100)), [vec!["a", "k", "q", "v"], vec!["z"], vec!["y"]]);
        assert_eq!(request.passes(Some(1)), [vec!["a"], vec!["k", "q", "v"], vec!["z"], vec!["y"]]);
    }
}
