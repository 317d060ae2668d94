//! How a quantization runs: passes over the data, and what is solved after each.

use std::collections::HashMap;

use burn::module::Module;
use burn::tensor::Device;

use super::{Progress, QuantizeOptions, Report, Warning};
use crate::config::{Algorithm, QuantConfig};
use crate::observe::{CaptureAt, ModelStatistics, observe_grams, observe_ranges, observe_weights};
use crate::solve::{Calibrator, LayerReport, Solved};
use burn_quant_core::config::{matcher, near_misses};
use burn_quant_core::error::QuantError;
use burn_quant_core::layout::Role;
use burn_quant_core::model::{ModelIndex, Parameters};
use burn_quant_core::place::{BesideConvolution, Placed, Plan};

impl QuantizeOptions<'_> {
    pub(super) fn quantize<M: Module>(
        mut self,
        model: M,
        config: &QuantConfig,
        mut forward_loop: impl FnMut(&M),
    ) -> Result<(M, Report), QuantError> {
        // before hours of data, not after
        let calibrator = Calibrator::new(&config.algorithm, &self.algorithms)?.with_siblings(&self.siblings);
        let mut placed = self.placed(model, config)?;
        if config.algorithm == Algorithm::None {
            return self.without_data(placed, config, &calibrator, ModelStatistics::default());
        }
        let mut index = ModelIndex::of(&placed.model);
        check_layers(&index, &config.algorithm)?;
        let request = calibrator.request(&index)?;
        let (passes, at) = (request.passes(self.budget), request.grams_at.unwrap_or(CaptureAt::Float));
        let quantized = at != CaptureAt::Float;
        let total = passes.len().max(1) + usize::from(quantized && !passes.is_empty());
        let first: &[String] = if quantized { &[] } else { passes.first().map_or(&[], Vec::as_slice) };
        let mut observed = observe_ranges(&placed.model, &index.quantizers, &request, first, &mut forward_loop)?;
        let (mut pass, seen) = (1, observed.statistics.len());
        let progress = &mut self.progress;
        progress(Progress::Observed { quantizers: seen, pass, passes: total });

        let mut reports = calibrator.set_ranges(&mut index, &observed.statistics, &observed.devices)?;
        let mut solver = Solver { calibrator: &calibrator, solved: Solved::default(), progress: &mut *progress };
        let mut parameters = Parameters::of(&placed.model, calibrator.parameters(&index));
        // weights without inputs to look at, then the layers of each pass
        let grams: Vec<&str> = passes.iter().flatten().map(String::as_str).collect();
        let others = |input: Option<&str>| input.is_none_or(|input| !grams.contains(&input));
        solver.solve(&index, &mut parameters, &observed.statistics, others);
        let mut ranged = if quantized { Some(index.quantizers.clone().install(placed.model.clone())?) } else { None };
        for (i, names) in passes.iter().enumerate() {
            if i > 0 || quantized {
                let shown = ranged.as_ref().unwrap_or(&placed.model);
                observe_grams(shown, names, at, &mut observed.statistics, &mut forward_loop);
                pass += 1;
                (solver.progress)(Progress::Observed { quantizers: seen, pass, passes: total });
            }
            if i + 1 == passes.len() {
                // no pass needs the float model any more: each weight goes when its layer is solved
                drop(ranged.take());
                placed.model = parameters.take_out_of(placed.model, &index);
            }
            let these = |input: Option<&str>| input.is_some_and(|input| names.iter().any(|name| name == input));
            solver.solve(&index, &mut parameters, &observed.statistics, these);
            names.iter().for_each(|name| observed.statistics.set_gram(name, None));
        }
        let warnings = Warning::of_zeros(&index.quantizers, &observed.statistics);
        let mut solved = solver.solved;
        solved.put_back(parameters);
        reports.append(&mut solved.reports);
        let report = Report {
            statistics: observed.statistics,
            layers: reports,
            passes: pass,
            warnings,
            plan: Plan::default(),
            float: Vec::new(),
        };
        Ok(self.finished(placed, solved, &index, report))
    }

    pub(super) fn quantize_weights<M: Module>(
        mut self,
        model: M,
        config: &QuantConfig,
    ) -> Result<(M, Report), QuantError> {
        let calibrator = Calibrator::new(&config.algorithm, &self.algorithms)?.with_siblings(&self.siblings);
        if let Some(algorithm) = calibrator.needs_data() {
            return Err(QuantError::NeedsData { algorithm: algorithm.into() });
        }
        let placed = self.placed(model, config)?;
        if config.algorithm == Algorithm::None {
            return self.without_data(placed, config, &calibrator, ModelStatistics::default());
        }
        let static_activations = placed.plan.quantizers.iter().filter(|(_, planned)| {
            let activation = !matches!(planned.role, Role::Weight(_));
            planned.enabled && activation && planned.config.needs_calibration()
        });
        let names: Vec<String> = static_activations.map(|(name, _)| name.clone()).collect();
        if !names.is_empty() {
            return Err(QuantError::NeedsForwardLoop { names });
        }
        let statistics = observe_weights(&placed.model)?;
        self.without_data(placed, config, &calibrator, statistics)
    }

    /// Observes with the algorithms that are registered; see [`observe()`](crate::pipeline::observe()). Everything is
    /// on the device at once, whatever the budget.
    ///
    /// # Errors
    ///
    /// Those of [`observe()`](crate::pipeline::observe()).
    pub fn observe<M: Module>(
        &self,
        model: &M,
        algorithm: &Algorithm,
        mut forward_loop: impl FnMut(&M),
    ) -> Result<ModelStatistics, QuantError> {
        let calibrator = Calibrator::new(algorithm, &self.algorithms)?.with_siblings(&self.siblings);
        let mut index = ModelIndex::of(model);
        index.refuse_packed()?;
        let request = calibrator.request(&index)?;
        let grams: Vec<String> = request.passes(None).into_iter().flatten().collect();
        let at = request.grams_at.unwrap_or(CaptureAt::Float);
        let first: &[String] = if at == CaptureAt::Float { &grams } else { &[] };
        let mut observed = observe_ranges(model, &index.quantizers, &request, first, &mut forward_loop)?;
        if at != CaptureAt::Float && !grams.is_empty() {
            calibrator.set_ranges(&mut index, &observed.statistics, &observed.devices)?;
            let ranged = index.quantizers.install(model.clone())?;
            observe_grams(&ranged, &grams, at, &mut observed.statistics, &mut forward_loop);
        }
        Ok(observed.statistics)
    }

    /// Solves with the algorithms that are registered; see [`calibrate`](super::calibrate).
    ///
    /// # Errors
    ///
    /// Those of [`calibrate`](super::calibrate).
    pub fn calibrate<M: Module>(
        mut self,
        model: M,
        statistics: &ModelStatistics,
        algorithm: &Algorithm,
    ) -> Result<(M, Vec<LayerReport>), QuantError> {
        let calibrator = Calibrator::new(algorithm, &self.algorithms)?.with_siblings(&self.siblings);
        let mut index = ModelIndex::of(&model);
        index.refuse_packed()?;
        calibrator.check(&index, statistics)?;
        check_layers(&index, algorithm)?;
        let (solved, mut reports) = self.solve(&model, &mut index, &calibrator, statistics)?;
        let Solved { replacements, reports: layers } = solved;
        let (model, _) = replacements.install(model, &index);
        reports.extend(layers);
        (self.progress)(Progress::Solved);
        Ok((model, reports))
    }

    /// Ranges and layers of a model, from statistics.
    fn solve<M: Module>(
        &mut self,
        model: &M,
        index: &mut ModelIndex,
        calibrator: &Calibrator,
        statistics: &ModelStatistics,
    ) -> Result<(Solved, Vec<LayerReport>), QuantError> {
        let reports = calibrator.set_ranges(index, statistics, &HashMap::<String, Device>::new())?;
        let mut parameters = Parameters::of(model, calibrator.parameters(index));
        let mut solver = Solver { calibrator, solved: Solved::default(), progress: &mut self.progress };
        solver.solve(index, &mut parameters, statistics, |_| true);
        solver.solved.complete(index);
        Ok((solver.solved, reports))
    }

    fn placed<M: Module>(&mut self, model: M, config: &QuantConfig) -> Result<Placed<M>, QuantError> {
        let placed = Placed::of(model, &config.rules, &self.layouts, self.no_weights)?;
        let enabled = placed.plan.quantizers.values().filter(|planned| planned.enabled).count();
        (self.progress)(Progress::Placed { quantizers: placed.plan.quantizers.len(), enabled });
        Ok(placed)
    }

    fn without_data<M: Module>(
        &mut self,
        placed: Placed<M>,
        config: &QuantConfig,
        calibrator: &Calibrator,
        statistics: ModelStatistics,
    ) -> Result<(M, Report), QuantError> {
        (self.progress)(Progress::Observed { quantizers: statistics.len(), pass: 0, passes: 0 });
        let mut index = ModelIndex::of(&placed.model);
        check_layers(&index, &config.algorithm)?;
        calibrator.request(&index)?; // steps that undo each other
        let (mut solved, mut layers) = self.solve(&placed.model, &mut index, calibrator, &statistics)?;
        layers.append(&mut solved.reports);
        let (warnings, float) = (Vec::new(), Vec::new());
        let report = Report { plan: Plan::default(), statistics, layers, passes: 0, warnings, float };
        Ok(self.finished(placed, solved, &index, report))
    }

    /// The model with what its layers have become, and the report with what was found on the way.
    fn finished<M: Module>(
        &mut self,
        placed: Placed<M>,
        mut solved: Solved,
        index: &ModelIndex,
        mut report: Report,
    ) -> (M, Report) {
        solved.complete(index);
        let (model, untied) = solved.replacements.install(placed.model, index);
        report.plan = placed.plan;
        report.float = placed.float;
        report.warnings.extend(untied.into_iter().map(|path| Warning::Untied { path }));
        report.warnings.extend(placed.folded.into_iter().map(|layer| Warning::Folded { layer }));
        report.warnings.extend(placed.unused_layouts.into_iter().map(|layout| Warning::UnusedLayout { layout }));
        let in_float = |layer| Warning::InputsInFloat { layer };
        report.warnings.extend(placed.inputs_in_float.into_iter().map(in_float));
        let elsewhere = |BesideConvolution { quantizer, layer }| Warning::ChannelsElsewhere { quantizer, layer };
        report.warnings.extend(placed.beside.into_iter().map(elsewhere));
        let worse: Vec<Warning> = Warning::of_layers(&report.layers).collect();
        report.warnings.extend(worse);
        (self.progress)(Progress::Solved);
        (model, report)
    }
}

/// Solves layers, and says so to a listener.
struct Solver<'s, 'p> {
    calibrator: &'s Calibrator,
    solved: Solved,
    progress: &'s mut (dyn FnMut(Progress) + 'p),
}

impl Solver<'_, '_> {
    fn solve(
        &mut self,
        index: &ModelIndex,
        parameters: &mut Parameters,
        statistics: &ModelStatistics,
        wanted: impl Fn(Option<&str>) -> bool,
    ) {
        let progress = &mut *self.progress;
        let mut solving = |layer: &str| progress(Progress::Solving { layer: layer.into() });
        self.calibrator.solve_layers(index, parameters, statistics, wanted, &mut self.solved, &mut solving);
    }
}

/// Whether the layers that algorithms are restricted to are there.
fn check_layers(index: &ModelIndex, algorithm: &Algorithm) -> Result<(), QuantError> {
    let restricted = algorithm.steps().iter().filter_map(|step| match step {
        Algorithm::ForLayers { layers, .. } => Some(layers),
        _ => None,
    });
    let globs: Vec<&String> = restricted.flatten().collect();
    if globs.is_empty() {
        return Ok(());
    }
    let layers = index.layer_paths();
    for pattern in globs {
        let glob = matcher(pattern)?;
        if !layers.iter().any(|layer| glob.is_match(layer)) {
            let near_misses = near_misses(pattern, layers.iter().map(String::as_str));
            return Err(QuantError::NoLayer { option: "layers", pattern: pattern.clone(), near_misses });
        }
    }
    Ok(())
}
