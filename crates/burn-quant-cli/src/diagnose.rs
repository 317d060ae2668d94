//! `burn-quant diagnose`: which layers of a model a recipe hurts, why, and what to change.

use std::path::Path;

use burn::tensor::{Int, Tensor};
use burn_quant_llm::{Decoder, LlmError, perplexity};
use burn_quant_report::{Better, DiagnoseError, DiagnoseOptions as Options, DiagnoseProgress, Diagnosis, diagnose};

use crate::arguments::DiagnoseOptions;
use crate::device::Backend;
use crate::error::CliError;
use crate::model::{Model, name};
use crate::output::Output;
use crate::quantize::{calibrated, calibration, check_folder, row, window, windows_of, without_data};
use crate::recipe;

/// Quantizes a model in memory, and diagnoses it.
pub(crate) fn run(options: &DiagnoseOptions, backend: Backend, output: &Output) -> Result<(), CliError> {
    let config = recipe::read(&options.recipe)?;
    options.html.as_deref().map_or(Ok(()), check_page)?;
    check_folder(&options.folder)?;
    let device = backend.device()?;
    let model = Model::load(&options.folder, &device, output)?;
    if model.is_quantized() {
        let folder = options.folder.display();
        output.warning(format!("`{folder}` is quantized itself: what is said of float is said of it"));
    }
    let tokenizer = model.tokenizer(None)?;
    let len = options.calibration.tokens.map_or_else(|| window(model.decoder.config()), |tokens| tokens as usize);
    let lengths = [len, options.windows as usize];
    let text = windows_of(&options.text, &tokenizer, model.decoder.config(), lengths, "used for the diagnosis")?;
    let failed = CliError::of_model(&options.folder, "quantized");
    let (quantized, _) = match calibration(&options.folder, &options.calibration, model.decoder.config())? {
        Some(windows) => calibrated(model.decoder.clone(), &config, &windows, None, output)
            .map_err(LlmError::from)
            .map_err(failed)?,
        None => without_data(model.decoder.clone(), &config, &options.recipe, &options.folder)?,
    };
    let diagnosis = diagnosed(&model.decoder, &quantized, &text, options, output)?;
    output.result(&diagnosis, || diagnosis.to_string()); // first: a page that cannot be written takes nothing with it
    if let Some(path) = &options.html {
        std::fs::write(path, diagnosis.html()).map_err(CliError::of_file(path, "written"))?;
        output.note(format!("the page is `{}`", path.display()));
    }
    Ok(())
}

fn diagnosed(
    float: &Decoder,
    quantized: &Decoder,
    windows: &[Vec<u32>],
    options: &DiagnoseOptions,
    output: &Output,
) -> Result<Diagnosis, CliError> {
    let bar = output.bar(windows.len(), "comparing");
    let listener = |progress| match progress {
        DiagnoseProgress::Batch { done } => bar.set_position(done),
        DiagnoseProgress::Sensitivity { done, of, .. } => {
            bar.set_message("sensitivity");
            bar.set_length(of as u64);
            bar.set_position(done as u64);
        }
        _ => {}
    };
    // a window that cannot be predicted has no perplexity: the page shows a dash
    let metric = |decoder: &Decoder| perplexity(decoder, windows).unwrap_or(f64::NAN);
    let title = format!("{}, {}", name(&options.folder), options.recipe);
    let mut settings =
        Options::new().with_title(title).with_metric("perplexity", Better::Lower, metric).with_progress(listener);
    if options.sensitivity {
        settings = settings.with_sensitivity();
    }
    let device = burn::module::Module::devices(float).first().cloned().unwrap_or_default();
    let batches = windows.iter().map(|window| row(window, &device));
    let forward = |decoder: &Decoder, tokens: &Tensor<2, Int>| decoder.forward(tokens.clone(), &mut decoder.cache());
    let diagnosis = diagnose(float, quantized, batches, forward, settings);
    bar.finish_and_clear();
    diagnosis.map_err(|source: DiagnoseError| CliError::Diagnosis { source: Box::new(source) })
}

/// Refuses a place for a page where it cannot be, before anything is computed: pages are written over, nothing else is.
fn check_page(path: &Path) -> Result<(), CliError> {
    let is_page = path.extension().is_some_and(|extension| extension == "html" || extension == "htm");
    if path.is_dir() || path.exists() && !is_page {
        return Err(CliError::Exists { path: path.into() });
    }
    match path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir()) {
        None => Ok(()),
        Some(parent) => Err(CliError::of_file(parent, "written to")(std::io::ErrorKind::NotFound.into())),
    }
}
