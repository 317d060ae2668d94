//! What to collect of which quantizer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::HistogramConfig;
use crate::quantizer::Moment;

/// What an algorithm of layers wants to know of a layer's inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ChannelNeeds {
    /// The range and the means of each channel.
    Ranges,
    /// Their products too: `in²` numbers per layer.
    Gram,
}

/// What to collect of one quantizer, besides its range.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct StatisticsNeeds {
    pub(crate) channels: Option<ChannelNeeds>,
    pub(crate) histogram: Option<HistogramConfig>,
    /// The size of the blocks whose ranges are counted.
    pub(crate) blocks: Option<usize>,
    /// Whether the range of every call is kept.
    pub(crate) history: bool,
}

/// What to collect of the quantizers of a model, by name, besides ranges.
#[derive(Clone, Debug, Default)]
pub(crate) struct Needs {
    pub(crate) quantizers: BTreeMap<String, StatisticsNeeds>,
    /// Bytes of the Gram matrices, by quantizer; those of one entry are solved together.
    pub(crate) grams: Vec<BTreeMap<String, usize>>,
    /// Of which tensors the Gram matrices are; `None` for those of the float model.
    pub(crate) quantized: Option<Moment>,
}

impl Needs {
    pub(crate) fn of(&self, name: &str) -> StatisticsNeeds {
        self.quantizers.get(name).copied().unwrap_or_default()
    }

    /// Quantizers whose Gram matrices are on the device at the same time, in passes of at most `budget` bytes; layers that
    /// are solved together stay together, and one that exceeds the budget by itself has a pass of its own.
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
        let needs = Needs { grams, ..Needs::default() };
        assert_eq!(needs.passes(None), [vec!["a", "k", "q", "v", "z", "y"]]);
        assert_eq!(needs.passes(Some(100)), [vec!["a", "k", "q", "v"], vec!["z"], vec!["y"]]);
        assert_eq!(needs.passes(Some(1)), [vec!["a"], vec!["k", "q", "v"], vec!["z"], vec!["y"]]);
    }
}
