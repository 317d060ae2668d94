//! A selection as an ordinary configuration.

use super::units::rules;
use super::{QuantizerState, SearchState, Selection, Unit};
use burn_quant_calibrate::config::{Algorithm, QuantConfig};
use burn_quant_core::config::Rule;

impl SearchState {
    /// The selection as an ordinary configuration: the base, and one rule for each quantizer. It can be read, edited,
    /// committed and applied again.
    ///
    /// The algorithms of the chosen formats follow one another, each for its own layers.
    pub fn config_of(&self, selection: &Selection) -> QuantConfig {
        let mut config = self.config.base.clone().unwrap_or_default();
        let mut algorithms: Vec<(Algorithm, Vec<String>)> = Vec::new();
        for group in &self.groups {
            let Some(format) = selection.formats.get(group.name()) else { continue };
            let Some(format) = format else {
                let names = group.units.iter().flat_map(Unit::quantizers);
                config.rules.extend(names.map(|name| Rule::disable(globset::escape(name))));
                continue;
            };
            let known = self.config.all_formats().into_iter().find(|known| known.name == *format);
            let algorithm = known.map_or(Algorithm::Max, |known| known.config.algorithm.clone());
            for unit in &group.units {
                let Some(candidate) = self.candidates.get(format).and_then(|of| of.get(&unit.weight_quantizer)) else {
                    continue;
                };
                let planned = |(name, state): (&String, &QuantizerState)| (name.clone(), state.planned.clone());
                config.rules.extend(candidate.quantizers.iter().map(planned).flat_map(|planned| rules(&planned)));
                let layer = globset::escape(&unit.layer);
                match algorithms.iter_mut().find(|(known, _)| *known == algorithm) {
                    Some((_, layers)) => layers.push(layer),
                    None => algorithms.push((algorithm.clone(), vec![layer])),
                }
            }
        }
        if let Some(base) = &self.config.base {
            let layers = self.base.layers.iter().map(|(unit, _)| unit.layer.as_str());
            let others =
                self.base.quantizers.keys().map(|name| name.rsplit_once('.').map_or("weight", |(layer, _)| layer));
            algorithms.insert(0, (base.algorithm.clone(), layers.chain(others).map(globset::escape).collect()));
        }
        config.algorithm = in_turn(algorithms);
        config
    }
}

/// Algorithms one after the other, each for its own layers.
fn in_turn(mut algorithms: Vec<(Algorithm, Vec<String>)>) -> Algorithm {
    let plain = |algorithm: &Algorithm| matches!(algorithm, Algorithm::None | Algorithm::Max);
    let needs_ranges = algorithms.iter().any(|(algorithm, _)| *algorithm != Algorithm::None);
    algorithms.retain(|(algorithm, _)| !plain(algorithm));
    let mut steps: Vec<Algorithm> = Vec::new();
    for (algorithm, layers) in algorithms {
        let of_layers =
            |step: &Algorithm| Algorithm::ForLayers { layers: layers.clone(), algorithm: Box::new(step.clone()) };
        steps.extend(algorithm.steps().iter().map(of_layers));
    }
    match steps.len() {
        0 if needs_ranges => Algorithm::Max,
        0 => Algorithm::None,
        1 => steps.remove(0),
        _ => Algorithm::Sequence(steps),
    }
}
