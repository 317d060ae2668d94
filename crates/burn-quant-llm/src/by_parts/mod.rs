//! Quantization of a decoder part by part: of a model that is larger than memory, one layer is there at a time.
//!
//! ```text
//! folder ──part i──► float ──quantize on the features before it──► work/part-i.bpk
//!                      │
//! work/features-i.f32 ─┴──► work/features-(i+1).f32        what comes out of the float part
//! ```
//!
//! Calibration looks at the float model, and no range of a layer depends on another layer's: so the result is that of
//! the whole model, bit for bit. What is different: algorithms that look at *quantized* inputs (GPTQ) see those that
//! the part itself has quantized, and not what is left of the noise of all parts before.
//!
//! After each part its record and the features for the next are on disk, then `state.json` says so: whatever is
//! interrupted goes on there.

mod features;
mod work;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use burn::tensor::{DType, Device};
use burn_quant::calibrate::{QuantizeOptions, Report, quantize_with};
use burn_quant::compress::{WithoutPackedForm, compress_with};
use burn_quant::place::{Plan, Role, WeightLayouts, plan};
use burn_quant::{Algorithm, QuantConfig, QuantError, Rule, quantize_weights};
use burn_quant_checkpoint::Folder;

use crate::config::DecoderConfig;
use crate::{Decoder, DecoderPart, DecoderParts, LlmError, PartPlace, row};

use features::{Reader, Writer};
use work::Work;

/// What is going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PartProgress {
    /// The work folder has so many parts of an earlier run.
    Resumed {
        /// Parts.
        done: usize,
        /// All parts.
        of: usize,
    },
    /// A part was loaded, and is being quantized.
    Begun {
        /// Which.
        place: PartPlace,
    },
    /// A part is on disk.
    Done {
        /// Parts that are done.
        done: usize,
        /// All parts.
        of: usize,
    },
}

/// Quantizes the decoder of a float folder part by part.
///
/// In memory are one part in float, what calibration sums for it, and one window of features. On disk, in the work
/// folder, are the parts that are done, with 4 bytes a parameter, and the features of all windows.
///
/// # Example
///
/// ```no_run
/// use burn::tensor::Device;
/// use burn_quant::presets;
/// use burn_quant_checkpoint::Folder;
/// use burn_quant_llm::{ByParts, Export};
///
/// let folder = Folder::open("Llama-70B")?;
/// let windows: Vec<Vec<u32>> = vec![vec![1, 2, 3]]; // of calibration text
/// let recipe = presets::fp8_default();
/// let parts = ByParts::new(&folder, &recipe, "Llama-70B.work").with_windows(&windows).quantize(&Device::default())?;
/// Export::new(&folder, "Llama-70B-FP8".as_ref()).modelopt(&parts)?;
/// parts.remove()?;
/// # Ok::<(), burn_quant_llm::LlmError>(())
/// ```
pub struct ByParts<'a> {
    folder: &'a Folder,
    recipe: &'a QuantConfig,
    work: PathBuf,
    windows: Option<&'a [Vec<u32>]>,
    dtype: DType,
    budget: Option<usize>,
    progress: Box<dyn FnMut(PartProgress) + 'a>,
}

impl<'a> ByParts<'a> {
    /// Begins, or goes on with what an interrupted run left in the work folder.
    pub fn new(folder: &'a Folder, recipe: &'a QuantConfig, work: impl Into<PathBuf>) -> Self {
        Self {
            folder,
            recipe,
            work: work.into(),
            windows: None,
            dtype: DType::F32,
            budget: None,
            progress: Box::new(|_| {}),
        }
    }

    /// Calibrates with windows of tokens. Without, only recipes that need no data can be used.
    pub fn with_windows(mut self, windows: &'a [Vec<u32>]) -> Self {
        self.windows = Some(windows);
        self
    }

    /// Computes in a type: f32, the default, f16 or bf16.
    pub fn with_dtype(mut self, dtype: DType) -> Self {
        self.dtype = dtype;
        self
    }

    /// Bounds what calibration sums of a part at once: see
    /// [`QuantizeOptions::with_memory_budget`](burn_quant::calibrate::QuantizeOptions::with_memory_budget).
    pub fn with_memory_budget(mut self, bytes: usize) -> Self {
        self.budget = Some(bytes);
        self
    }

    /// Calls a listener.
    pub fn with_progress(mut self, listener: impl FnMut(PartProgress) + 'a) -> Self {
        self.progress = Box::new(listener);
        self
    }

    /// Quantizes all parts.
    ///
    /// # Errors
    ///
    /// Those of [`DecoderPart::load`] and of [`quantize_with`]; [`LlmError::Work`] if the work folder is of another
    /// model, recipe or text, is used by another process, or is damaged.
    pub fn quantize(mut self, device: &Device) -> Result<QuantizedParts, LlmError> {
        let config = Arc::new(DecoderConfig::of_json(self.folder.config())?);
        // rules are checked against the names of all parts, before any of them is loaded
        let plan = plan(&Decoder::new((*config).clone(), device), self.recipe, &WeightLayouts::new())?;
        if self.windows.is_none() {
            refuse_without_data(&plan)?;
        }
        let places = PartPlace::all(&config);
        let work = work::key(self.folder, self.recipe, self.windows, self.dtype)
            .and_then(|key| Work::open(self.work.clone(), key))?;
        let mut parts = QuantizedParts { work, config, places, device: device.clone() };
        let of = parts.places.len();
        if parts.work.done() > 0 {
            (self.progress)(PartProgress::Resumed { done: parts.work.done(), of });
        }
        for i in parts.work.done()..of {
            let part = DecoderPart::load(self.folder, parts.places[i], self.dtype, device)?;
            (self.progress)(PartProgress::Begun { place: parts.places[i] });
            let (part, report) = self.part(part, i, &plan, &parts.work, device)?;
            parts.work.finish(i, &part, report)?;
            (self.progress)(PartProgress::Done { done: i + 1, of });
        }
        Ok(parts)
    }

    /// Quantizes one part, and writes the features after it.
    fn part(
        &self,
        part: DecoderPart,
        i: usize,
        plan: &Plan,
        work: &Work,
        device: &Device,
    ) -> Result<(DecoderPart, Option<Report>), LlmError> {
        let config = of_part(&part, plan, &self.recipe.algorithm)?;
        let Some(windows) = self.windows else {
            return Ok(match config.rules.is_empty() {
                true => (part, None),
                false => quantize_weights(part, &config).map(|(part, report)| (part, Some(report)))?,
            });
        };
        let place = part.place();
        let mut before = match place {
            PartPlace::Embeddings => None,
            _ => Some(Reader::open(work.features(i), windows, part.config().hidden, self.dtype)?),
        };
        let mut after = match place {
            PartPlace::Head => None,
            _ => Some(Writer::create(work.features(i + 1))?),
        };
        let mut failed = None;
        let mut run = |part: &DecoderPart, after: &mut Option<Writer>| -> Result<(), LlmError> {
            if let Some(before) = &mut before {
                before.rewind()?;
            }
            for window in windows {
                let features = match &mut before {
                    None => part.embedded(row(window, device)).expect("the first part is the embeddings"),
                    Some(before) => part.forward(before.next(window.len(), device)?),
                };
                if let Some(after) = after {
                    after.window(features)?;
                }
            }
            after.take().map_or(Ok(()), Writer::finish) // the first run is that of the float part
        };
        if config.rules.is_empty() {
            run(&part, &mut after)?;
            return Ok((part, None));
        }
        let float = part.clone();
        let options = QuantizeOptions::new();
        let options = match self.budget {
            Some(bytes) => options.with_memory_budget(bytes),
            None => options,
        };
        let quantized = quantize_with(part, &config, options, |part| {
            if failed.is_none() {
                failed = run(part, &mut after).err();
            }
        });
        if let Some(error) = failed {
            return Err(error);
        }
        let (part, report) = quantized?;
        if after.is_some() {
            run(&float, &mut after)?; // the recipe needed no data
        }
        Ok((part, Some(report)))
    }
}

/// The rules and the algorithm for a part.
fn of_part(part: &DecoderPart, plan: &Plan, algorithm: &Algorithm) -> Result<QuantConfig, LlmError> {
    let names = burn_quant::place::plan(part, &QuantConfig::new(), &WeightLayouts::new())?.quantizers;
    let planned = plan.quantizers.iter().filter(|(name, planned)| planned.enabled && names.contains_key(*name));
    let rules = planned.map(|(name, planned)| Rule::set(name, planned.config.clone()));
    let layers: Vec<String> = part.linears().into_iter().map(|(name, _)| name).collect();
    let algorithm = for_layers(algorithm, &layers)?.unwrap_or(Algorithm::Max);
    Ok(rules.fold(QuantConfig::new(), QuantConfig::with_rule).with_algorithm(algorithm))
}

/// An algorithm without the steps for layers that are not here; `None` if nothing is left.
fn for_layers(algorithm: &Algorithm, layers: &[String]) -> Result<Option<Algorithm>, QuantError> {
    Ok(match algorithm {
        Algorithm::ForLayers { layers: patterns, algorithm } => {
            let mut here = Vec::new();
            for pattern in patterns {
                let matcher = Rule::disable(pattern).matcher()?;
                if layers.iter().any(|layer| matcher.is_match(layer)) {
                    here.push(pattern.clone());
                }
            }
            (!here.is_empty()).then(|| Algorithm::ForLayers { layers: here, algorithm: algorithm.clone() })
        }
        Algorithm::Sequence(steps) => {
            let mut here = Vec::new();
            for step in steps {
                here.extend(for_layers(step, layers)?);
            }
            (!here.is_empty()).then_some(Algorithm::Sequence(here))
        }
        other => Some(other.clone()),
    })
}

fn refuse_without_data(plan: &Plan) -> Result<(), QuantError> {
    let is_static = |planned: &burn_quant::place::PlannedQuantizer| {
        let activation = !matches!(planned.role, Role::Weight(_));
        planned.enabled && activation && planned.config.needs_calibration()
    };
    let names: Vec<String> =
        plan.quantizers.iter().filter(|(_, planned)| is_static(planned)).map(|(name, _)| name.clone()).collect();
    if names.is_empty() { Ok(()) } else { Err(QuantError::NeedsForwardLoop { names }) }
}

/// A decoder whose parts are quantized, and lie in a folder.
#[derive(Debug)]
pub struct QuantizedParts {
    work: Work,
    config: Arc<DecoderConfig>,
    places: Vec<PartPlace>,
    device: Device,
}

impl QuantizedParts {
    /// Returns what the decoder is.
    pub fn config(&self) -> &DecoderConfig {
        &self.config
    }

    /// Returns the parts in their order.
    pub fn places(&self) -> &[PartPlace] {
        &self.places
    }

    /// Returns how often data went through a part at most, and what calibration warns of.
    pub fn report(&self) -> (usize, &[String]) {
        self.work.report()
    }

    /// Returns the formats of the weights of linear layers, by name; `None` in float.
    pub fn formats(&self) -> &BTreeMap<String, Option<String>> {
        self.work.formats()
    }

    /// Puts the parts together, with packed weights where they have a packed form: one part is in float at a time.
    ///
    /// # Errors
    ///
    /// [`LlmError::Record`] for a part that cannot be read.
    pub fn packed(&self) -> Result<Decoder, LlmError> {
        let mut parts = Vec::with_capacity(self.places.len());
        for i in 0..self.places.len() {
            let (part, _) = compress_with(self.part(i)?, WithoutPackedForm::Keep)?;
            parts.push(part);
        }
        Ok(Decoder::of_parts(parts).expect("all parts, in their order"))
    }

    /// Removes the work folder.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`](burn_quant_checkpoint::CheckpointError::Io).
    pub fn remove(self) -> Result<(), LlmError> {
        self.work.remove()
    }
}

/// Parts in files: one that cannot be read is [`LlmError::Record`].
impl DecoderParts for QuantizedParts {
    fn count(&self) -> usize {
        self.places.len()
    }

    fn part(&self, i: usize) -> Result<DecoderPart, LlmError> {
        self.work.part(i, DecoderPart::new(self.config.clone(), self.places[i], &self.device))
    }
}
