//! The search, step by step.

use std::cell::Cell;
#[cfg(feature = "autodiff")]
use std::cell::RefCell;
use std::collections::BTreeMap;

use burn::module::Module;
#[cfg(feature = "autodiff")]
use burn::tensor::Gradients;
use burn::tensor::{Device, Tensor};

use super::candidate::{Candidate, Floats, with_candidates};
use super::count::recount;
#[cfg(feature = "autodiff")]
use super::gradient::GradientScorer;
use super::knapsack::within;
use super::progress::Clock;
use super::state::fingerprint;
use super::units::{Layout, Planned};
use super::{
    AutoQuantizeConfig, BaseResult, Cost, QuantizerState, ScoreMethod, SearchGroup, SearchProgress, SearchState, Unit,
    divergence, gram_score,
};
use burn_quant_calibrate::pipeline::{QuantizeOptions, quantize_with};
use burn_quant_calibrate::solve::CustomAlgorithms;
use burn_quant_core::config::Rule;
use burn_quant_core::error::QuantError;
use burn_quant_core::model::Quantizers;
#[cfg(feature = "autodiff")]
use burn_quant_core::model::host;
use burn_quant_core::model::{ModelIndex, device_of, layers};
use burn_quant_core::place::{WeightLayouts, place};

/// Gives each layer of a model the format that costs the least loss, within a budget of bits.
///
/// `data` makes the batches on a device, anew whenever it is called: for the calibration of each format that needs
/// some, and for scoring. `forward` runs one, `loss` is that of its output; both get the batch by reference. Formats
/// are scored by gradients; the model that is scored is in evaluation mode, but on an autodiff device. For outputs
/// without a loss see [`AutoQuantization`].
///
/// The result is the quantized model, and everything that was found out.
///
/// # Errors
///
/// [`QuantError::Search`] for a configuration that makes no sense, [`QuantError::Infeasible`] before any calibration
/// for a budget below the least bits, [`QuantError::NotScored`] for a layer without an activation quantizer, and those
/// of [`quantize`](burn_quant_calibrate::pipeline::quantize()).
///
/// # Example
///
/// ```
/// # #[cfg(all(feature = "flex", feature = "autodiff"))] fn main() -> Result<(), burn_quant::QuantError> {
/// use burn::module::Module;
/// use burn::tensor::{Device, Distribution, Tensor, activation::relu};
/// use burn_quant::search::{AutoQuantizeConfig, SearchFormat, auto_quantize};
/// use burn_quant::{nn, summary};
///
/// #[derive(Module, Debug)]
/// struct Mlp { fc1: nn::Linear, fc2: nn::Linear }
///
/// let device = Device::flex();
/// let linear = |d_in, d_out| nn::LinearConfig::new(d_in, d_out).init(&device);
/// let model = Mlp { fc1: linear(16, 32), fc2: linear(32, 1) };
///
/// let formats = ["int4_blockwise_weight_only", "int8_default"].map(|name| SearchFormat::preset(name).unwrap());
/// let config = AutoQuantizeConfig::new(8.5, formats).with_batches(4, 4);
/// let (model, state) = auto_quantize(
///     model,
///     &config,
///     |device| {
///         let device = device.clone();
///         (0..4).map(move |_| Tensor::<2>::random([8, 16], Distribution::Default, &device))
///     },
///     |model: &Mlp, x| model.fc2.forward(relu(model.fc1.forward(x.clone()))),
///     |y, x| (y - x.clone().mean_dim(1)).powf_scalar(2.0).mean(),
/// )?;
/// println!("{}\n{}", state.table(), summary(&model));
/// assert!(state.best.as_ref().unwrap().effective_bits <= 8.5);
///
/// let frugal = state.solve(7.5)?; // another budget, without any forward pass
/// println!("{}", state.config_of(&frugal).to_json()); // an ordinary recipe
/// # Ok(()) }
/// # #[cfg(not(all(feature = "flex", feature = "autodiff")))] fn main() {}
/// ```
#[cfg(feature = "autodiff")]
pub fn auto_quantize<M, I, O>(
    model: M,
    config: &AutoQuantizeConfig,
    data: impl Fn(&Device) -> I,
    forward: impl Fn(&M, &I::Item) -> O,
    loss: impl Fn(O, &I::Item) -> Tensor<1>,
) -> Result<(M, SearchState), QuantError>
where
    M: Module,
    I: IntoIterator,
{
    AutoQuantization::new(config).by_gradient(model, data, forward, loss)
}

/// [`auto_quantize`] with more to say: how layers are scored, layouts of your own layers, a state to continue,
/// checkpoints, a listener to progress.
///
/// # Example
///
/// A model without labels, scored by how far its outputs move; the state could be saved by
/// `burn_quant_store::save_search`:
///
/// ```
/// # #[cfg(feature = "flex")] fn main() -> Result<(), burn_quant::QuantError> {
/// # use burn::tensor::{Device, Tensor, Distribution};
/// # use burn_nn::LinearConfig;
/// # let device = Device::flex();
/// # let data = |device: &Device| vec![Tensor::<2>::random([4, 32], Distribution::Default, device)];
/// # let model = LinearConfig::new(32, 8).init(&device);
/// use burn_quant::search::{AutoQuantization, AutoQuantizeConfig, SearchFormat};
///
/// let config = AutoQuantizeConfig::new(12.0, [SearchFormat::preset("int8_weight_only").unwrap()]);
/// let mut saved = Vec::new();
/// let (model, state) = AutoQuantization::new(&config)
///     .with_checkpoint(|state| { saved.push(state.clone()); Ok(()) })
///     .by_divergence(model, data, |model, x| model.forward(x.clone()))?;
/// assert_eq!(saved.len(), 2); // after calibration, and after scoring
/// # assert_eq!(state.best.unwrap().formats["weight"].as_deref(), Some("int8_weight_only"));
/// # let _ = model;
/// # Ok(()) }
/// # #[cfg(not(feature = "flex"))] fn main() {}
/// ```
pub struct AutoQuantization<'a> {
    config: &'a AutoQuantizeConfig,
    layouts: WeightLayouts,
    algorithms: CustomAlgorithms,
    state: Option<SearchState>,
    checkpoint: Checkpoint<'a>,
    progress: Box<dyn FnMut(SearchProgress) + 'a>,
}

/// What is handed a state to keep, and says why it could not.
type Checkpoint<'a> = Box<dyn FnMut(&SearchState) -> Result<(), String> + 'a>;

impl<'a> AutoQuantization<'a> {
    /// Creates a search without a state, with the layouts of burn's layers.
    ///
    /// One of the `by_` methods runs it.
    pub fn new(config: &'a AutoQuantizeConfig) -> Self {
        Self {
            config,
            layouts: WeightLayouts::new(),
            algorithms: CustomAlgorithms::new(),
            state: None,
            checkpoint: Box::new(|_| Ok(())),
            progress: Box::new(|_| {}),
        }
    }

    /// Uses another table of weights, for structs of your own.
    ///
    /// See [`WeightLayouts`].
    pub fn with_layouts(mut self, layouts: WeightLayouts) -> Self {
        self.layouts = layouts;
        self
    }

    /// Makes algorithms of your own known, for formats whose recipes name them.
    ///
    /// Those of an earlier call stay known. See [`CustomAlgorithms`].
    pub fn with_algorithms(mut self, algorithms: CustomAlgorithms) -> Self {
        self.algorithms = self.algorithms.extended(algorithms);
        self
    }

    /// Continues a search: what is calibrated or scored is not done again.
    ///
    /// A state of another model, configuration or data is [`QuantError::SearchState`].
    pub fn with_state(mut self, state: SearchState) -> Self {
        self.state = Some(state);
        self
    }

    /// Hands the state to a listener after calibration and after scoring, to be saved.
    ///
    /// An error of the listener ends the search with [`QuantError::Checkpoint`].
    pub fn with_checkpoint(mut self, listener: impl FnMut(&SearchState) -> Result<(), String> + 'a) -> Self {
        self.checkpoint = Box::new(listener);
        self
    }

    /// Calls a listener after each step.
    ///
    /// It runs on the calling thread; draw a bar with it.
    pub fn with_progress(mut self, listener: impl FnMut(SearchProgress) + 'a) -> Self {
        self.progress = Box::new(listener);
        self
    }

    /// [`auto_quantize`]: scores by gradients of a loss.
    ///
    /// # Errors
    ///
    /// As there, and [`QuantError::SearchState`] if the state that is continued is of another model, configuration or
    /// data.
    #[cfg(feature = "autodiff")]
    pub fn by_gradient<M, I, O>(
        self,
        model: M,
        data: impl Fn(&Device) -> I,
        forward: impl Fn(&M, &I::Item) -> O,
        loss: impl Fn(O, &I::Item) -> Tensor<1>,
    ) -> Result<(M, SearchState), QuantError>
    where
        M: Module,
        I: IntoIterator,
    {
        let batches = self.config.score_batches;
        // read when all batches are done: no batch waits for the one before it
        let losses = RefCell::new(Vec::new());
        let finite = || {
            let losses = losses.borrow().iter().cloned().map(|loss| f64::from(host(loss)[0])).collect::<Vec<_>>();
            match losses.into_iter().enumerate().find(|(_, loss)| !loss.is_finite()) {
                Some((batch, loss)) => Err(QuantError::LossNotFinite { batch, loss }),
                None => Ok(()),
            }
        };
        let backward_loop = |model: &M, step: &mut dyn FnMut(Gradients)| {
            for batch in data(&device_of(model)).into_iter().take(batches) {
                let loss = loss(forward(model, &batch), &batch);
                losses.borrow_mut().push(loss.clone().without_autodiff());
                step(loss.backward());
            }
        };
        self.by_gradients_checked(model, calibration(&data, &forward), backward_loop, finite)
    }

    /// The same with loops of the user's own: one that runs a number of calibration batches forward, and one that runs
    /// batches forward and backward and hands over the gradients of each.
    ///
    /// # Errors
    ///
    /// As [`AutoQuantization::by_gradient`].
    #[cfg(feature = "autodiff")]
    pub fn by_gradients_of<M: Module>(
        self,
        model: M,
        forward_loop: impl FnMut(&M, usize),
        backward_loop: impl FnMut(&M, &mut dyn FnMut(Gradients)),
    ) -> Result<(M, SearchState), QuantError> {
        self.by_gradients_checked(model, forward_loop, backward_loop, || Ok(()))
    }

    /// Scores by gradients of loops of the user, and checks what the backward loop saw before its scores are taken.
    #[cfg(feature = "autodiff")]
    fn by_gradients_checked<M: Module>(
        mut self,
        model: M,
        mut forward_loop: impl FnMut(&M, usize),
        mut backward_loop: impl FnMut(&M, &mut dyn FnMut(Gradients)),
        check: impl FnOnce() -> Result<(), QuantError>,
    ) -> Result<(M, SearchState), QuantError> {
        let (base, mut state) = self.calibrated(model, ScoreMethod::Gradient, &mut forward_loop)?;
        if state.scored_batches == 0 {
            let (model, mut scorer) = GradientScorer::new(&base, &state)?;
            let mut clock = Clock::new(self.config.score_batches);
            let progress = &mut self.progress;
            backward_loop(&model, &mut |gradients| {
                scorer.add(&gradients);
                progress(clock.scored());
            });
            drop(model);
            check()?;
            scorer.finish(&mut state)?;
        }
        self.solved(base, state)
    }

    /// Scores by the divergence of logits `[..., classes]` from those of the float model; needs neither gradients nor
    /// activation quantizers.
    ///
    /// # Errors
    ///
    /// As [`AutoQuantization::by_gradient`], but for activation quantizers.
    pub fn by_divergence<M, I, const D: usize>(
        mut self,
        model: M,
        data: impl Fn(&Device) -> I,
        forward: impl Fn(&M, &I::Item) -> Tensor<D>,
    ) -> Result<(M, SearchState), QuantError>
    where
        M: Module,
        I: IntoIterator,
    {
        let (base, mut state) = self.calibrated(model, ScoreMethod::Divergence, &mut calibration(&data, &forward))?;
        if state.scored_batches == 0 {
            divergence::score(&base, &mut state, &data, forward, &mut self.progress)?;
        }
        self.solved(base, state)
    }

    /// Scores by the errors of layers that calibration statistics tell, with one more pass over the calibration data
    /// and none for scoring.
    ///
    /// # Errors
    ///
    /// As [`AutoQuantization::by_gradient`], but for activation quantizers: a layer without one is scored by its weight
    /// alone.
    pub fn by_layer_error<M, I, O>(
        mut self,
        model: M,
        data: impl Fn(&Device) -> I,
        forward: impl Fn(&M, &I::Item) -> O,
    ) -> Result<(M, SearchState), QuantError>
    where
        M: Module,
        I: IntoIterator,
    {
        let ran = Cell::new(0);
        let counted = |model: &M, batch: &I::Item| {
            ran.set(ran.get() + 1);
            forward(model, batch)
        };
        let (batches, mut run) = (self.config.calibration_batches, calibration(&data, &counted));
        let (base, mut state) = self.calibrated(model, ScoreMethod::LayerError, &mut run)?;
        if state.scored_batches == 0 {
            ran.set(0);
            let scored = gram_score::score(&base, &mut state, |model: &M| run(model, batches));
            state.scored_batches = ran.get();
            if state.scored_batches == 0 {
                return Err(QuantError::NoBatches { step: "scoring" });
            }
            scored?;
        }
        self.solved(base, state)
    }

    /// A model ready to be scored, and a state with all candidates.
    fn calibrated<M: Module>(
        &mut self,
        model: M,
        method: ScoreMethod,
        forward_loop: &mut dyn FnMut(&M, usize),
    ) -> Result<(M, SearchState), QuantError> {
        let config = self.config;
        config.validate()?;
        self.state.as_ref().map_or(Ok(()), |known| known.continues(config, method))?;
        let (float, _) = place(model, &[] as &[Rule], &self.layouts)?;
        let layout = Layout::of(&float, config, &self.layouts)?;
        let groups = config.planned_groups(&layout)?;
        (self.progress)(SearchProgress::Planned { groups: groups.len(), formats: layout.formats.len() });

        let base = self.with_base(float.clone(), &layout, forward_loop)?;
        let taken = base_of(&float, &base, &layout)?;
        let mut state = self.counted(&float, groups, taken, method)?;
        self.feasible(&state)?;
        if let Some(known) = self.state.take() {
            known.check(&float)?;
            if !known.is_of(&state.groups) {
                let problem = "the model has other layers, or the formats are for others".into();
                return Err(QuantError::SearchState { problem });
            }
            state = SearchState { config: config.clone(), base: state.base, best: None, ..known };
        }
        let done =
            |state: &SearchState| layout.formats.iter().all(|format| state.candidates.contains_key(&format.name));
        if !done(&state) {
            let mut clock = Clock::new(layout.formats.len());
            for (i, format) in layout.formats.iter().enumerate() {
                if !state.candidates.contains_key(&format.name) {
                    let found = self.candidates_of(&float, &layout, i, forward_loop)?;
                    state.candidates.insert(format.name.clone(), found);
                }
                let (done, remaining) = clock.tick();
                let (format, of) = (format.name.clone(), layout.formats.len());
                (self.progress)(SearchProgress::Calibrated { format, done, of, remaining });
            }
            if let Cost::Exact { float_bits } = config.cost {
                recount(&mut state, float_bits, &device_of(&float))?;
            }
            self.save(&state)?; // before anything can fail: another budget needs no new calibration
            self.feasible(&state)?;
        }
        Ok((base, state))
    }

    /// What every quantization of the search is told.
    fn options(&self) -> QuantizeOptions<'static> {
        QuantizeOptions::new().with_layouts(self.layouts.clone()).with_algorithms(self.algorithms.clone())
    }

    /// The model with its base configuration, from which the searched layers are taken out.
    fn with_base<M: Module>(
        &self,
        float: M,
        layout: &Layout<'_>,
        forward_loop: &mut dyn FnMut(&M, usize),
    ) -> Result<M, QuantError> {
        let Some(base) = &self.config.base else { return Ok(float) };
        let mut base = base.clone();
        let names = layout.units().flat_map(|(_, unit)| unit.quantizers().cloned().collect::<Vec<_>>());
        base.rules.extend(names.map(|name| Rule::disable(globset::escape(&name))));
        let batches = self.config.calibration_batches;
        let options = self.options().allowing_no_weights();
        Ok(quantize_with(float, &base, options, |model| forward_loop(model, batches))?.0)
    }

    /// A new state, with what is not searched counted.
    fn counted<M: Module>(
        &self,
        float: &M,
        groups: Vec<SearchGroup>,
        base: BaseResult,
        method: ScoreMethod,
    ) -> Result<SearchState, QuantError> {
        let (counted, other_bits) = self.config.count_others(float, &groups, &base)?;
        let model = fingerprint(float, groups.iter().flat_map(|group| &group.units));
        Ok(SearchState {
            config: self.config.clone(),
            method,
            model,
            groups,
            base,
            other_bits,
            counted,
            candidates: BTreeMap::new(),
            scored_batches: 0,
            unreached: Vec::new(),
            best: None,
        })
    }

    fn feasible(&self, state: &SearchState) -> Result<(), QuantError> {
        let (least, _) = state.bits_range();
        let effective_bits = self.config.effective_bits;
        if !within(least, effective_bits) {
            return Err(QuantError::Infeasible { effective_bits, least });
        }
        Ok(())
    }

    /// What a format makes of all layers that may get it.
    fn candidates_of<M: Module>(
        &self,
        float: &M,
        layout: &Layout<'_>,
        format: usize,
        forward_loop: &mut dyn FnMut(&M, usize),
    ) -> Result<BTreeMap<String, Candidate>, QuantError> {
        let config = layout.config_of(format);
        let fewer = layout.formats[format].calibration_batches.unwrap_or(usize::MAX);
        let batches = self.config.calibration_batches.min(fewer);
        let options = self.options();
        let (model, _) = quantize_with(float.clone(), &config, options, |model| forward_loop(model, batches))?;
        let units = || layout.units().map(|(_, unit)| unit);
        let (before, after, quantizers) =
            (Floats::of(float, units()), Floats::of(&model, units()), Quantizers::of(&model));
        let quantized = layout
            .units()
            .zip(&layout.planned[format])
            .filter(|((group, _), planned)| planned.is_some() && layout.groups[*group].formats.contains(&format));
        let candidate = |((_, unit), _): ((usize, &Unit), &Planned)| {
            (unit.weight_quantizer.clone(), Candidate::of(unit, &before, &after, &quantizers))
        };
        Ok(quantized.map(candidate).collect())
    }

    fn save(&mut self, state: &SearchState) -> Result<(), QuantError> {
        (self.checkpoint)(state).map_err(|reason| QuantError::Checkpoint { reason })
    }

    /// The best selection, in the model.
    fn solved<M: Module>(mut self, base: M, mut state: SearchState) -> Result<(M, SearchState), QuantError> {
        let best = state.solve(self.config.effective_bits);
        state.best = best.as_ref().ok().cloned();
        self.save(&state)?; // whatever the budget came to, the scores are kept
        let model = with_candidates(base, state.chosen(&best?)?.into_iter())?;
        (self.progress)(SearchProgress::Solved);
        Ok((model, state))
    }
}

/// A loop over calibration batches.
fn calibration<'a, M: Module, I: IntoIterator, O>(
    data: &'a impl Fn(&Device) -> I,
    forward: &'a impl Fn(&M, &I::Item) -> O,
) -> impl FnMut(&M, usize) + 'a {
    move |model, batches| {
        for batch in data(&device_of(model)).into_iter().take(batches) {
            drop(forward(model, &batch));
        }
    }
}

/// What the base configuration made of a model.
fn base_of<M: Module>(float: &M, base: &M, layout: &Layout<'_>) -> Result<BaseResult, QuantError> {
    let quantizers = Quantizers::of(base);
    let searched: Vec<&String> = layout.units().flat_map(|(_, unit)| unit.quantizers()).collect();
    let units: Vec<Unit> = layers(&ModelIndex::of(base), false).into_iter().map(Unit::of).collect();
    let (before, after) = (Floats::of(float, units.iter()), Floats::of(base, units.iter()));
    let layers: Vec<(Unit, Candidate)> = units
        .into_iter()
        .map(|unit| {
            let candidate = Candidate::of(&unit, &before, &after, &quantizers);
            (unit, candidate)
        })
        .collect();
    let own = |name: &str| {
        searched.iter().any(|known| *known == name)
            || layers.iter().any(|(unit, _)| unit.quantizers().any(|known| known == name))
    };
    let others = quantizers.iter().filter(|(name, quantizer)| quantizer.is_enabled() && !own(name));
    let quantizers = others.map(|(name, quantizer)| (name.to_string(), QuantizerState::of(quantizer))).collect();
    Ok(BaseResult { layers, quantizers })
}
