//! `burn-quant quantize`: a float model in, a checkpoint for a server out.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Device, Int, Tensor};
use burn_quant::calibrate::{Progress, QuantizeOptions as Options, Report, quantize_with};
use burn_quant::compress::{WithoutPackedForm, compress_with};
use burn_quant::search::{AutoQuantization, AutoQuantizeConfig, SearchFormat, SearchProgress, SearchState};
use burn_quant::{QuantConfig, QuantError, Quantizers, quantize_weights};
use burn_quant_checkpoint::Folder;
use burn_quant_checkpoint::gguf::HalfScales;
use burn_quant_llm::{
    Decoder, DecoderConfig, Export, LlmError, QuantizedParts, Target, Tokenizer, check_recipe, recipe_for, windows,
};
use burn_quant_store::save;
use indicatif::ProgressBar;
use serde::Serialize;

use crate::arguments::{CalibrationOptions, ExportFormat, QuantizeOptions, Score};
use crate::by_parts::{self, Sizes};
use crate::device::Backend;
use crate::error::CliError;
use crate::model::{Model, RECORD, folder_of_record, name};
use crate::output::Output;
use crate::recipe;
use crate::staging::Staging;
use crate::table::{Align, Table};
use crate::units::{bytes, count, number, plural};

/// What was done.
#[derive(Debug, Serialize)]
struct Quantized {
    model: String,
    architecture: &'static str,
    parameters: usize,
    recipe: String,
    /// Layers by the format of their weights.
    layers: BTreeMap<String, usize>,
    calibration: Option<Calibration>,
    search: Option<Search>,
    /// Parts that were quantized one after the other; none if the whole model was.
    parts: Option<usize>,
    format: &'static str,
    out: String,
    /// Bytes of the weights in the source and in the result.
    float_bytes: u64,
    bytes: u64,
    bits_per_parameter: f64,
    seconds: f64,
    warnings: Vec<String>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Calibration {
    windows: usize,
    tokens: usize,
    passes: usize,
}

#[derive(Debug, Serialize)]
struct Search {
    budget: f64,
    effective_bits: f64,
    formats: BTreeMap<String, Option<String>>,
}

/// Quantizes a model and writes it.
pub(crate) fn run(options: &QuantizeOptions, backend: Backend, output: &Output) -> Result<(), CliError> {
    let start = Instant::now();
    Staging::check(&options.out)?;
    let failed = CliError::of_model(&options.folder, "quantized");
    check_folder(&options.folder)?;
    // what is wrong on the command line is said before anything is loaded
    let recipe = options.recipe.as_deref().map(recipe::read).transpose()?;
    let formats = options.formats.iter().map(|name| recipe::preset(name)).collect::<Result<Vec<_>, _>>()?;
    let folder =
        Folder::open(&options.folder).map_err(LlmError::from).map_err(CliError::of_model(&options.folder, "loaded"))?;
    let device = match options.auto {
        Some(_) if options.score == Score::Gradient => backend.device()?.autodiff(),
        _ => backend.device()?,
    };
    let sizes = recipe.iter().fold(Sizes::of(&folder), |sizes, recipe| sizes.solved_by(&recipe.algorithm));
    let limit = options.memory.filter(|limit| sizes.of_whole() > *limit);
    if limit.is_some() && by_parts::work(options) == options.out {
        return Err(CliError::Usage { problem: "`--work` and `--out` are the same path".into() });
    }
    let (decoder, parameters) = match limit {
        None => {
            let model = Model::load(&options.folder, &device, output)?;
            if model.is_quantized() {
                let folder = options.folder.display();
                output.warning(format!("`{folder}` is quantized already: the errors of both add up"));
            }
            let parameters = model.parameters();
            (model.decoder, parameters)
        }
        Some(limit) => {
            by_parts::check(sizes, limit)?;
            let decoder =
                by_parts::skeleton(&folder, &device).map_err(CliError::of_model(&options.folder, "loaded"))?;
            (decoder, sizes.parameters())
        }
    };
    let architecture = decoder.config().architecture.name();
    let windows = calibration(&options.folder, &options.calibration, decoder.config())?;

    let (made, done) = match (&recipe, options.auto) {
        (Some(config), _) => {
            let config = for_format(config.clone(), &decoder, options.format);
            if windows.is_some() || limit.is_some() {
                check(&config, &decoder, options.format).map_err(CliError::of_model(&options.out, "written"))?;
            }
            match (&windows, limit) {
                (windows, Some(limit)) => {
                    let windows = windows.as_deref();
                    let parts =
                        by_parts::quantized(options, &folder, &config, windows, (sizes, limit), &device, output)?;
                    let (passes, warnings) = parts.report();
                    let done = Done::Recipe { passes, warnings: warnings.to_vec() };
                    (Made::Parts(Box::new(parts)), done)
                }
                (Some(windows), None) => {
                    let result = calibrated(decoder, &config, windows, Some(sizes.grams_of_whole()), output);
                    let (decoder, report) = result.map_err(LlmError::from).map_err(&failed)?;
                    (Made::whole(decoder), Done::of(&report))
                }
                (None, None) => {
                    let float = decoder.clone();
                    let (decoder, report) = without_data(decoder, &config, options.recipe_name(), &options.folder)?;
                    // a recipe that needs data is said to need it before
                    check(&config, &float, options.format).map_err(CliError::of_model(&options.out, "written"))?;
                    (Made::whole(decoder), Done::of(&report))
                }
            }
        }
        (None, budget) => {
            let budget = budget.expect("clap asks for `--recipe` or `--auto`");
            for preset in &formats {
                let config = for_format((preset.config)(), &decoder, options.format);
                check(&config, &decoder, options.format).map_err(CliError::of_model(&options.out, "written"))?;
            }
            let formats = formats
                .into_iter()
                .map(|preset| SearchFormat::new(preset.name, for_format((preset.config)(), &decoder, options.format)));
            let formats: Vec<SearchFormat> = formats.collect();
            let windows = windows.as_deref().expect("clap asks for `--calib`");
            let config = AutoQuantizeConfig::new(budget, formats).with_batches(windows.len(), windows.len());
            let (decoder, state) =
                searched(decoder, &config, options.score, windows, output).map_err(LlmError::from).map_err(&failed)?;
            (Made::whole(decoder.valid()), Done::Search(Box::new(state)))
        }
    };

    let spinner = output.spinner(&format!("writing {}", options.out.display()));
    let staging = Staging::begin(&options.out)?;
    let rounded = match &made {
        Made::Whole(decoder) => write(decoder, &folder, &staging.path(), options.format)?,
        Made::Parts(parts) => by_parts::write(parts, &folder, &staging.path(), options)?,
    };
    let written = weight_bytes(&staging.path()).map_err(CliError::of_file(&options.out, "read"))?;
    let layers = made.layers();
    let parts = match &made {
        Made::Whole(_) => None,
        Made::Parts(parts) => Some(parts.places().len()),
    };
    staging.finish()?;
    if let Made::Parts(parts) = made {
        // the result is there
        parts.remove().unwrap_or_else(|error| output.warning(error.to_string()));
    }
    spinner.finish_and_clear();

    let calibration = |passes| {
        windows.as_ref().map(|windows| Calibration {
            windows: windows.len(),
            tokens: windows.iter().map(Vec::len).sum(),
            passes,
        })
    };
    let (passes, warnings, search) = match &done {
        Done::Recipe { passes, warnings } => (*passes, warnings.clone(), None),
        Done::Search(state) => (
            1,
            Vec::new(),
            state.best.as_ref().map(|best| Search {
                budget: best.budget,
                effective_bits: best.effective_bits,
                formats: best.formats.clone(),
            }),
        ),
    };
    let result = Quantized {
        model: name(&options.folder),
        architecture,
        parameters,
        recipe: options.recipe.clone().unwrap_or_else(|| options.formats.join(",")),
        layers,
        calibration: calibration(passes).filter(|_| passes > 0),
        search,
        parts,
        format: options.format.name(),
        out: options.out.display().to_string(),
        float_bytes: folder.infos().map(|info| info.bytes() as u64).sum(),
        bytes: written,
        bits_per_parameter: 8.0 * written as f64 / parameters as f64,
        seconds: start.elapsed().as_secs_f64(),
        warnings,
    };
    if let Some(HalfScales { scales, changed, largest, .. }) = rounded.filter(|rounded| rounded.changed > 0) {
        let changed = format!("{changed} of {scales} scales are rounded to f16");
        output.note(format!("{changed}, as GGUF has them: by {largest:.1e} of their value at most"));
    }
    result.warnings.iter().for_each(|warning| output.warning(warning));
    output.result(&result, || result.to_string());
    Ok(())
}

/// What was made: in memory, or in a work folder.
enum Made {
    Whole(Box<Decoder>),
    Parts(Box<QuantizedParts>),
}

impl Made {
    fn whole(decoder: Decoder) -> Self {
        Self::Whole(Box::new(decoder))
    }

    /// Linear layers by the format of their weights.
    fn layers(&self) -> BTreeMap<String, usize> {
        match self {
            Self::Whole(decoder) => layers(decoder),
            Self::Parts(parts) => by_parts::layers(parts),
        }
    }
}

enum Done {
    Recipe { passes: usize, warnings: Vec<String> },
    Search(Box<SearchState>),
}

impl Done {
    fn of(report: &Report) -> Self {
        Self::Recipe { passes: report.passes, warnings: report.warnings.iter().map(ToString::to_string).collect() }
    }
}

/// A recipe whose result the format can hold.
pub(crate) fn for_format(config: QuantConfig, decoder: &Decoder, format: ExportFormat) -> QuantConfig {
    match target(format) {
        Some(target) => recipe_for(config, decoder.config(), target),
        None => config,
    }
}

/// Who loads a format; `None` for our own records, which hold everything.
fn target(format: ExportFormat) -> Option<Target> {
    match format {
        ExportFormat::Modelopt => Some(Target::ModelOpt),
        ExportFormat::CompressedTensors => Some(Target::CompressedTensors),
        ExportFormat::Gguf => Some(Target::Gguf),
        ExportFormat::Burnpack => None,
    }
}

/// What a format cannot hold is said before anything is calibrated.
fn check(config: &QuantConfig, decoder: &Decoder, format: ExportFormat) -> Result<(), LlmError> {
    target(format).map_or(Ok(()), |target| check_recipe(decoder, config, target))
}

/// The windows of the calibration text; `None` without one.
pub(crate) fn calibration(
    folder: &Path,
    options: &CalibrationOptions,
    decoder: &DecoderConfig,
) -> Result<Option<Vec<Vec<u32>>>, CliError> {
    let Some(file) = &options.calib else { return Ok(None) };
    let len = options.tokens.map_or_else(|| window(decoder), |tokens| tokens as usize);
    let tokenizer = Tokenizer::of_path(folder).map_err(CliError::of_model(folder, "used as a tokenizer"))?;
    windows_of(file, &tokenizer, decoder, [len, options.samples as usize], "used for calibration").map(Some)
}

/// Refuses a file where the folder of a model in float is wanted.
pub(crate) fn check_folder(path: &Path) -> Result<(), CliError> {
    if !path.is_file() {
        return Ok(());
    }
    let expected = "the folder of a model: `burn-quant convert` makes one of a GGUF file";
    Err(CliError::Kind { path: path.into(), found: "a file", expected })
}

/// Windows of the tokens of a text file.
pub(crate) fn windows_of(
    file: &Path,
    tokenizer: &Tokenizer,
    decoder: &DecoderConfig,
    [len, count]: [usize; 2],
    what: &'static str,
) -> Result<Vec<Vec<u32>>, CliError> {
    let text = std::fs::read_to_string(file).map_err(CliError::of_file(file, "read"))?;
    let failed = CliError::of_model(file, what);
    check_window(decoder, len).map_err(&failed)?;
    let tokens = tokenizer.encode(&text).map_err(&failed)?;
    let windows = windows(&tokens, len, count).map_err(&failed)?;
    match windows.iter().flatten().find(|token| **token as usize >= decoder.vocabulary) {
        None => Ok(windows),
        Some(token) => Err(failed(LlmError::Option {
            what: "a token of the text",
            found: token.to_string(),
            expected: "one of the model's vocabulary: the tokenizer is another model's",
        })),
    }
}

/// Refuses windows that are longer than the model's positions.
pub(crate) fn check_window(decoder: &DecoderConfig, len: usize) -> Result<(), LlmError> {
    match len <= decoder.positions {
        true => Ok(()),
        false => Err(LlmError::Option {
            what: "the length of windows",
            found: len.to_string(),
            expected: "at most `max_position_embeddings` of the model",
        }),
    }
}

/// 512 tokens, or as many as a model was made for.
pub(crate) fn window(decoder: &DecoderConfig) -> usize {
    decoder.positions.min(512)
}

/// Tokens as a batch of one window.
pub(crate) fn row(tokens: &[u32], device: &Device) -> Tensor<2, Int> {
    let tokens: Vec<i32> = tokens.iter().map(|token| *token as i32).collect();
    Tensor::<1, Int>::from_data(tokens.as_slice(), device).unsqueeze()
}

pub(crate) fn calibrated(
    decoder: Decoder,
    config: &QuantConfig,
    windows: &[Vec<u32>],
    budget: Option<usize>,
    output: &Output,
) -> Result<(Decoder, Report), QuantError> {
    let bar = output.bar(windows.len(), "calibrating");
    let mut solving: Option<ProgressBar> = None;
    let listener = |progress| match progress {
        Progress::Observed { pass, passes, .. } if pass < passes => bar.inc_length(windows.len() as u64),
        Progress::Observed { .. } => bar.finish_and_clear(),
        Progress::Solving { layer } => {
            let spinner = solving.get_or_insert_with(|| output.spinner(""));
            spinner.set_message(format!("solving {layer}"));
        }
        Progress::Solved => solving.iter().for_each(ProgressBar::finish_and_clear),
        _ => {}
    };
    let mut options = Options::new().with_progress(listener);
    if let Some(bytes) = budget {
        options = options.with_memory_budget(bytes);
    }
    let device = decoder.devices().first().cloned().unwrap_or_default();
    let result = quantize_with(decoder, config, options, |decoder| {
        for window in windows {
            let hidden = decoder.hidden(row(window, &device), &mut decoder.cache());
            // a head is rarely quantized, and it is the largest layer
            if decoder.lm_head.as_ref().is_some_and(|head| head.input_quantizer.is_enabled()) {
                decoder.logits(hidden);
            }
            bar.inc(1);
        }
    });
    bar.finish_and_clear();
    result
}

/// Quantizes a decoder by a recipe that needs no data.
pub(crate) fn without_data(
    decoder: Decoder,
    config: &QuantConfig,
    recipe: &str,
    folder: &Path,
) -> Result<(Decoder, Report), CliError> {
    quantize_weights(decoder, config).map_err(|error| CliError::of_recipe(error, recipe, folder))
}

fn searched(
    decoder: Decoder,
    config: &AutoQuantizeConfig,
    score: Score,
    windows: &[Vec<u32>],
    output: &Output,
) -> Result<(Decoder, SearchState), QuantError> {
    let bar = output.bar(config.formats.len(), "calibrating");
    let listener = |progress| match progress {
        SearchProgress::Calibrated { done, of, .. } => {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
        }
        SearchProgress::Scored { done, of, .. } => {
            bar.set_message("scoring");
            bar.set_length(of as u64);
            bar.set_position(done as u64);
        }
        _ => {}
    };
    let data = |device: &Device| {
        let device = device.clone();
        windows.iter().map(move |window| row(window, &device))
    };
    let logits = |decoder: &Decoder, tokens: &Tensor<2, Int>| decoder.forward(tokens.clone(), &mut decoder.cache());
    let search = AutoQuantization::new(config).with_progress(listener);
    let result = match score {
        Score::Gradient => search.by_gradient(decoder, data, logits, |logits: Tensor<3>, tokens| {
            let predicted = tokens.dims()[1] - 1;
            let targets = tokens.clone().narrow(1, 1, predicted).unsqueeze_dim(2);
            log_softmax(logits.narrow(1, 0, predicted), 2).gather(2, targets).neg().mean()
        }),
        Score::Divergence => search.by_divergence(decoder, data, logits),
        Score::LayerError => search.by_layer_error(decoder, data, logits),
    };
    bar.finish_and_clear();
    result
}

/// Writes a decoder, and returns what rounding the scales of a GGUF file changes.
pub(crate) fn write(
    decoder: &Decoder,
    folder: &Folder,
    out: &Path,
    format: ExportFormat,
) -> Result<Option<HalfScales>, CliError> {
    let (parts, export) = (decoder.clone().into_parts(), Export::new(folder, out));
    let written = match format {
        ExportFormat::Modelopt => export.modelopt(&parts).map(|_| None),
        ExportFormat::CompressedTensors => export.compressed_tensors(&parts).map(|_| None),
        ExportFormat::Gguf => export.gguf(&parts).map(Some),
        ExportFormat::Burnpack => {
            let record = out.join(RECORD);
            folder_of_record(folder, out).map_err(LlmError::from).map_err(CliError::of_model(out, "written"))?;
            // in codes where they have a packed form, as the layers of a model that is quantized by parts
            let failed = CliError::of_model(out, "written");
            let (decoder, _) =
                compress_with(decoder.clone(), WithoutPackedForm::Keep).map_err(LlmError::from).map_err(failed)?;
            save(&decoder, &record).map_err(|source| CliError::Record {
                path: record,
                what: "written",
                source: Box::new(source),
            })?;
            Ok(None)
        }
    };
    written.map_err(CliError::of_model(out, "written"))
}

/// Linear layers by the format of their weights.
fn layers(decoder: &Decoder) -> BTreeMap<String, usize> {
    let mut layers = BTreeMap::new();
    let quantizers = Quantizers::of(decoder);
    for (name, _) in decoder.linears() {
        let quantizer = quantizers.find(&format!("{name}.weight_quantizer")).filter(|it| it.is_enabled());
        let stages = quantizer.map(|it| it.stages("").map(|(_, stage)| stage.config().kind()).collect::<Vec<_>>());
        *layers.entry(stages.map_or("float".into(), |stages| stages.join(" + "))).or_insert(0) += 1;
    }
    layers
}

/// The bytes of the files with weights in a folder, or of a file.
pub(crate) fn weight_bytes(path: &Path) -> std::io::Result<u64> {
    if path.is_file() {
        return Ok(path.metadata()?.len());
    }
    let mut bytes = 0;
    for entry in path.read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "safetensors" || extension == "bpk") {
            bytes += path.metadata()?.len();
        }
    }
    Ok(bytes)
}

impl std::fmt::Display for Quantized {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut table = Table::new([Align::Left, Align::Left]);
        let model = format!("{}: {}, {} parameters", self.model, self.architecture, count(self.parameters as u64));
        table.row(["model", &model]);
        match &self.search {
            None => table.row(["recipe", &self.recipe]),
            Some(search) => {
                let bits = format!("{:.3} bits per parameter of a budget of {}", search.effective_bits, search.budget);
                table.row(["search", &bits]);
            }
        }
        let layers: Vec<String> = self.layers.iter().map(|(format, n)| format!("{n} {format}")).collect();
        table.row(["linear layers", &layers.join(", ")]);
        let calibration = match self.calibration {
            None => "none needed".to_string(),
            Some(Calibration { windows, tokens, passes }) => {
                let windows = plural(windows, "window");
                format!(
                    "{windows}, {} tokens, {}",
                    count(tokens as u64),
                    if passes == 1 { "1 pass".into() } else { format!("{passes} passes") }
                )
            }
        };
        table.row(["calibration", &calibration]);
        let ratio = self.float_bytes as f64 / self.bytes.max(1) as f64;
        let size = format!("{} of {}, {}x smaller", bytes(self.bytes), bytes(self.float_bytes), number(ratio));
        table.row(["weights", &size]);
        table.row(["bits per parameter", &number(self.bits_per_parameter)]);
        table.row(["written", &format!("{} ({})", self.out, self.format)]);
        table.row(["time", &format!("{:.1} s", self.seconds)]);
        table.fmt(f)
    }
}
