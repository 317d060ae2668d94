//! Experts that no calibration token reached.
//!
//! A router sends a token to a few experts, so with little data some see none. Their weights are calibrated like any
//! other; the ranges of their inputs are those of their siblings together, as all experts of a block read the same
//! hidden states.
//!
//! Source: ModelOpt 0.47, which gives every expert the largest range of all. Here only those without tokens borrow one.
//! Siblings are told by name: the same path but for the number that follows a part with "expert" in it, as
//! `mlp.experts.3.up.input_quantizer`.

use std::collections::BTreeMap;

use super::{ModelStatistics, Statistics};
use burn_quant_core::error::QuantError;

/// Returns a name without the number of its expert, if it is one of an expert.
pub fn family(name: &str) -> Option<String> {
    let mut parts: Vec<&str> = name.split('.').collect();
    let expert = parts.windows(2).position(|pair| {
        pair[0].to_lowercase().contains("expert") && pair[1].bytes().all(|byte| byte.is_ascii_digit())
    })?;
    parts[expert + 1] = "*";
    Some(parts.join("."))
}

/// Whether a quantizer is one of an expert, which calibration data may miss.
pub fn is_expert(name: &str) -> bool {
    family(name).is_some()
}

/// What quantizers of experts without statistics borrow from their siblings, by name: ranges, not channels.
pub fn lend<'a>(
    names: impl Iterator<Item = &'a str>,
    statistics: &ModelStatistics,
) -> Result<ModelStatistics, QuantError> {
    let mut seen: BTreeMap<String, Vec<&Statistics>> = BTreeMap::new();
    for (name, statistics) in statistics.iter() {
        if let Some(family) = family(name) {
            seen.entry(family).or_default().push(statistics);
        }
    }
    let mut lent = ModelStatistics::default();
    for name in names.filter(|name| statistics.get(name).is_none()) {
        for sibling in family(name).and_then(|family| seen.get(&family)).into_iter().flatten() {
            lent.insert(name.into(), sibling.without_channels())?;
        }
    }
    Ok(lent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expert_without_tokens_borrows_the_largest_range_of_its_siblings() {
        let mut seen = ModelStatistics::default();
        for (name, amax) in [("moe.experts.0.up.x", 1.0), ("moe.experts.2.up.x", 3.0), ("moe.experts.2.down.x", 9.0)] {
            seen.insert(name.into(), Statistics::of_amax(vec![amax], 1)).unwrap();
        }
        let names = ["moe.experts.0.up.x", "moe.experts.1.up.x", "moe.experts.1.gate.x", "layers.1.up.x"];
        let lent = lend(names.into_iter(), &seen).unwrap();
        let found: Vec<_> = lent.iter().map(|(name, seen)| (name, seen.amax[0])).collect();
        assert_eq!(found, [("moe.experts.1.up.x", 3.0)], "nobody saw its gate, and layers are no experts");
    }
}
