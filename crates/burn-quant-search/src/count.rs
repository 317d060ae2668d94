//! Bits of groups and of the whole model: what a format costs a group, before calibration and after it, and what is not
//! searched.

use burn::module::Module;
use burn::tensor::Device;
use globset::GlobMatcher;

use super::units::{Layout, Planned, matchers};
use super::{AutoQuantizeConfig, BaseResult, Candidate, Choice, Cost, SearchGroup, SearchState, Unit, cost};
use burn_quant_calibrate::observe::experts;
use burn_quant_core::bits;
use burn_quant_core::error::QuantError;
use burn_quant_core::model::{ModelIndex, device_of};
use burn_quant_core::place::PlannedQuantizer;
use burn_quant_core::quantizer::TensorQuantizer;

impl AutoQuantizeConfig {
    /// Groups with their choices and what those cost, as far as it is known before calibration.
    pub(super) fn planned_groups(&self, layout: &Layout<'_>) -> Result<Vec<SearchGroup>, QuantError> {
        let (cost, exclude_from_budget) = (self.cost, matchers(&self.exclude_from_budget)?);
        let mut first = 0;
        let mut groups = Vec::new();
        for group in &layout.groups {
            let units = first..first + group.units.len();
            first = units.end;
            let share = self.share(&group.units, left_out(&group.units, &exclude_from_budget))?;
            let planned_bits = |planned: &Planned, unit: &Unit| match (planned, cost) {
                (None, _) => cost.float_bits() * unit.elements() as f64,
                (Some(planned), Cost::Exact { float_bits }) => bits_of_planned(unit, planned, float_bits),
                (Some(_), Cost::ModelOpt) => unreachable!("counted by format"),
            };
            let mut choices = Vec::new();
            for &format in &group.formats {
                let planned = || group.units.iter().zip(&layout.planned[format][units.clone()]);
                let whole: f64 = match cost {
                    Cost::Exact { .. } => planned().map(|(unit, planned)| planned_bits(planned, unit)).sum(),
                    Cost::ModelOpt => {
                        let configs = planned().flat_map(|(_, planned)| planned.iter().flatten());
                        let enabled =
                            configs.filter(|(_, planned)| planned.enabled).map(|(_, planned)| &planned.config);
                        let each = layout.formats[format].bits.unwrap_or_else(|| cost::reference(enabled));
                        let elements = |(unit, planned): (&Unit, &Planned)| {
                            unit.elements() as f64 * if planned.is_some() { each } else { 16.0 }
                        };
                        planned().map(elements).sum()
                    }
                };
                let format = Some(layout.formats[format].name.clone());
                choices.push(Choice { format, cost: whole * share, score: None, allowed: true });
            }
            let elements: usize = group.units.iter().map(Unit::elements).sum();
            let float = cost.float_bits() * elements as f64 * share;
            choices.push(Choice { format: None, cost: float, score: None, allowed: group.allow_float });
            choices.sort_by(|a, b| a.cost.total_cmp(&b.cost));
            groups.push(SearchGroup { units: group.units.clone(), choices });
        }
        Ok(groups)
    }

    /// How much an element of a group counts.
    fn share(&self, units: &[Unit], exclude_from_budget: bool) -> Result<f64, QuantError> {
        let share = match exclude_from_budget {
            true => 0.0,
            false if units.iter().all(|unit| experts::is_expert(&unit.layer)) => self.active_expert_fraction,
            false => 1.0,
        };
        if self.multiplications.is_empty() {
            return Ok(share);
        }
        let of_layer = |unit: &Unit| {
            let unknown = || format!("`{}` is searched, and its multiplications are not known", unit.layer);
            let known = self.multiplications.get(&unit.layer).copied();
            known.ok_or_else(|| QuantError::Search { problem: unknown() })
        };
        let multiplications: f64 = units.iter().map(of_layer).sum::<Result<_, _>>()?;
        Ok(share * multiplications / units.iter().map(Unit::elements).sum::<usize>() as f64)
    }

    /// Parameters that count, and bits of those that are not searched.
    pub(super) fn count_others<M: Module>(
        &self,
        float: &M,
        groups: &[SearchGroup],
        base: &BaseResult,
    ) -> Result<(f64, f64), QuantError> {
        let exclude_from_budget = matchers(&self.exclude_from_budget)?;
        let searched = groups.iter().map(|group| {
            let share = self.share(&group.units, left_out(&group.units, &exclude_from_budget))?;
            Ok(share * group.units.iter().map(Unit::elements).sum::<usize>() as f64)
        });
        let (mut counted, mut other_bits) = (searched.sum::<Result<f64, QuantError>>()?, 0.0);
        if let Cost::Exact { float_bits } = self.cost {
            let device = device_of(float);
            let units: Vec<&Unit> = groups.iter().flat_map(|group| &group.units).collect();
            for weight in ModelIndex::of(float).parameters() {
                let layer = weight.path.rsplit_once('.').map_or("", |(layer, _)| layer);
                let left_out =
                    exclude_from_budget.iter().any(|glob| glob.is_match(layer) || glob.is_match(&weight.path));
                if left_out || units.iter().any(|unit| unit.weight == weight.path) {
                    continue;
                }
                let elements = weight.shape.iter().product::<usize>() as f64;
                let fixed = base.layers.iter().find(|(unit, _)| unit.weight == weight.path);
                let share = match self.multiplications.is_empty() {
                    true => 1.0,
                    false if weight.field != "weight" => 0.0,
                    false => self.multiplications.get(layer).map_or(0.0, |count| count / elements),
                };
                counted += elements * share;
                other_bits += share
                    * match fixed {
                        Some((unit, candidate)) => candidate_bits(unit, candidate, float_bits, &device)?,
                        None => elements * f64::from(float_bits),
                    };
            }
        }
        if counted == 0.0 {
            return Err(QuantError::Search { problem: "no parameter counts".into() });
        }
        Ok((counted, other_bits))
    }
}

/// Whether globs of layers or of parameters match all layers of a group.
fn left_out(units: &[Unit], globs: &[GlobMatcher]) -> bool {
    units.iter().all(|unit| globs.iter().any(|glob| glob.is_match(&unit.layer) || glob.is_match(&unit.weight)))
}

/// Bits of a layer in a format that is not calibrated yet.
fn bits_of_planned(unit: &Unit, planned: &[(String, PlannedQuantizer)], float_bits: u8) -> f64 {
    let quantizer = |name: &String| {
        let (_, planned) = planned.iter().find(|(known, _)| known == name)?;
        let mut quantizer = TensorQuantizer::disabled(planned.role);
        planned.configure(&mut quantizer);
        Some(quantizer)
    };
    let weight = quantizer(&unit.weight_quantizer).expect("a planned layer has a quantizer");
    let input = unit.input_quantizer.as_ref().and_then(quantizer);
    bits::of_layer(&unit.shape, &weight, input.as_ref(), float_bits)
}

/// Bits of a layer in a format.
fn candidate_bits(unit: &Unit, candidate: &Candidate, float_bits: u8, device: &Device) -> Result<f64, QuantError> {
    let weight = candidate.quantizer(&unit.weight_quantizer, device)?;
    let input = unit.input_quantizer.as_ref().map(|name| candidate.quantizer(name, device)).transpose()?.flatten();
    let weight = weight.ok_or_else(|| QuantError::SearchState {
        problem: format!("`{}` has a candidate without a quantizer of its weight", unit.layer),
    })?;
    Ok(bits::of_layer(&unit.shape, &weight, input.as_ref(), float_bits))
}

/// Costs of calibrated candidates: with the ranges and scales that calibration added.
pub(super) fn recount(state: &mut SearchState, float_bits: u8, device: &Device) -> Result<(), QuantError> {
    let candidates = &state.candidates;
    for group in &mut state.groups {
        let elements: usize = group.units.iter().map(Unit::elements).sum();
        let float = group.choices.iter().find(|choice| choice.format.is_none()).map_or(0.0, |choice| choice.cost);
        let share = float / (elements as f64 * f64::from(float_bits));
        for choice in &mut group.choices {
            let Some(of) = choice.format.as_ref().and_then(|format| candidates.get(format)) else { continue };
            let mut bits = 0.0;
            for unit in &group.units {
                bits += match of.get(&unit.weight_quantizer) {
                    Some(candidate) => candidate_bits(unit, candidate, float_bits, device)?,
                    None => f64::from(float_bits) * unit.elements() as f64,
                };
            }
            choice.cost = bits * share;
        }
        group.choices.sort_by(|a, b| a.cost.total_cmp(&b.cost));
    }
    Ok(())
}
