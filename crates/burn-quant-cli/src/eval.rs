//! `burn-quant eval`: how well a model predicts a text, how fast it runs, what it takes.

use std::collections::BTreeMap;
use std::time::Instant;

use burn::tensor::Device;
use burn_quant::compress::memory;
use burn_quant_llm::{Comparison, Decoder, Generator, LlmError, Sampling, compare_with, perplexity_with, windows};
use serde::Serialize;

use crate::arguments::EvalOptions;
use crate::device::Backend;
use crate::error::CliError;
use crate::model::{Model, name};
use crate::output::Output;
use crate::quantize::{check_window, window};
use crate::table::{Align, Table};
use crate::units::{bytes, count, number, plural};

/// What was measured.
#[derive(Debug, Serialize)]
struct Evaluation {
    text: String,
    windows: usize,
    tokens_per_window: usize,
    /// Tokens that were predicted.
    tokens: usize,
    model: Measured,
    float: Option<Measured>,
    /// Mean divergence of the float model from the quantized one, nats per token.
    kl: Option<f64>,
    /// The share of tokens with the same most likely next one, 0 to 1.
    top1: Option<f64>,
}

/// What was measured of one model.
#[derive(Debug, Serialize)]
struct Measured {
    name: String,
    architecture: &'static str,
    parameters: usize,
    /// Layers and bytes by how weights are held.
    weights: BTreeMap<String, Held>,
    perplexity: f64,
    prefill_tokens_per_second: f64,
    decode_tokens_per_second: f64,
    bytes: usize,
    float_bytes: usize,
    cache_bytes_per_token: usize,
}

#[derive(Debug, Serialize)]
struct Held {
    layers: usize,
    bytes: usize,
}

/// Tokens that are written to measure the speed of writing.
const DECODED: usize = 32;

/// Evaluates a model.
pub(crate) fn run(options: &EvalOptions, backend: Backend, output: &Output) -> Result<(), CliError> {
    let device = backend.device()?;
    let text = std::fs::read_to_string(&options.text).map_err(CliError::of_file(&options.text, "read"))?;
    let model = Model::load(&options.model, &device, output)?.packed(options.packed, output)?;
    let float = options.against.as_ref().map(|path| Model::load(path, &device, output)).transpose()?;
    if let Some(float) = float.as_ref().filter(|float| float.is_quantized()) {
        let name = float.path.display();
        output.warning(format!("`{name}` is quantized itself: what is said of float is said of it"));
    }
    let tokenizer = model.tokenizer(options.tokenizer.as_ref())?;
    let failed = CliError::of_model(&options.text, "evaluated");
    let len = options.tokens.map_or_else(|| window(model.decoder.config()), |tokens| tokens as usize);
    check_window(model.decoder.config(), len).map_err(&failed)?;
    let tokens = tokenizer.encode(&text).map_err(&failed)?;
    let windows = windows(&tokens, len, options.windows as usize).map_err(&failed)?;

    let bar = output.bar(windows.len(), "predicting");
    let on_window = |done| bar.set_position(done as u64);
    let (perplexity, comparison) = match &float {
        None => (perplexity_with(&model.decoder, &windows, on_window).map_err(&failed)?, None),
        Some(float) => {
            let comparison = compare_with(&float.decoder, &model.decoder, &windows, on_window).map_err(&failed)?;
            (comparison.perplexity, Some(comparison))
        }
    };
    bar.finish_and_clear();
    let spinner = output.spinner("measuring speed");
    let measure = |model: &Model, perplexity| measured(model, perplexity, &windows[0], &device).map_err(&failed);
    let of_float = |comparison: &Comparison| Some((float.as_ref()?, comparison.float_perplexity));
    let result = Evaluation {
        text: name(&options.text),
        windows: windows.len(),
        tokens_per_window: len,
        tokens: windows.len() * (len - 1),
        model: measure(&model, perplexity)?,
        float: comparison
            .as_ref()
            .and_then(of_float)
            .map(|(float, perplexity)| measure(float, perplexity))
            .transpose()?,
        kl: comparison.map(|comparison| comparison.kl),
        top1: comparison.map(|comparison| comparison.top1),
    };
    spinner.finish_and_clear();
    if !perplexity.is_finite() {
        output.warning("the perplexity is no finite number: a weight or a scale is none, or has overflowed");
    }
    output.result(&result, || result.to_string());
    Ok(())
}

fn measured(model: &Model, perplexity: f64, window: &[u32], device: &Device) -> Result<Measured, LlmError> {
    let report = memory(&model.decoder);
    let [prefill_tokens_per_second, decode_tokens_per_second] = speed(&model.decoder, window, device)?;
    let held = |(format, (layers, bytes, _)): (&str, _)| (format.to_string(), Held { layers, bytes });
    let generator = Generator::new(&model.decoder, &window[..1], &Sampling::greedy(0))?;
    Ok(Measured {
        name: model.name(),
        architecture: model.architecture(),
        parameters: model.parameters(),
        weights: report.by_format().into_iter().map(held).collect(),
        perplexity,
        prefill_tokens_per_second,
        decode_tokens_per_second,
        bytes: report.bytes(),
        float_bytes: report.float_bytes(),
        cache_bytes_per_token: generator.cache().bytes_per_token(),
    })
}

/// Tokens per second: of a prompt, and of an answer.
fn speed(decoder: &Decoder, prompt: &[u32], device: &Device) -> Result<[f64; 2], LlmError> {
    let sampling = Sampling::greedy(DECODED + 3);
    // kernels are compiled and memory is allocated in a first run
    Generator::new(decoder, prompt, &sampling)?.take(3).for_each(drop);
    _ = device.sync();
    let start = Instant::now();
    let mut generator = Generator::new(decoder, prompt, &sampling)?;
    generator.next();
    let prefill = start.elapsed();
    generator.by_ref().take(2).for_each(drop);
    let start = Instant::now();
    let written = generator.count();
    let decode = start.elapsed();
    Ok([prompt.len() as f64 / prefill.as_secs_f64(), written as f64 / decode.as_secs_f64()])
}

impl std::fmt::Display for Evaluation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (model, float) = (&self.model, self.float.as_ref());
        let parameters = count(model.parameters as u64);
        writeln!(f, "{}: {}, {parameters} parameters", model.name, model.architecture)?;
        let windows = plural(self.windows, "window");
        writeln!(f, "{}: {windows} of {} tokens\n", self.text, self.tokens_per_window)?;

        let mut table = Table::new([Align::Left, Align::Right, Align::Right, Align::Left]);
        if float.is_some() {
            table.row(["", "model", "float"]);
        }
        let mut row = |what: &str, cell: &dyn Fn(&Measured) -> String, note: String| {
            table.row([what.to_string(), cell(model), float.map(cell).unwrap_or_default(), note]);
        };
        let change = |float: &Measured| format!("{:+.2} %", 100.0 * (model.perplexity / float.perplexity - 1.0));
        row("perplexity", &|it| number(it.perplexity), float.map(change).unwrap_or_default());
        row("prefill", &|it| number(it.prefill_tokens_per_second), "tokens/s".into());
        row("decode", &|it| number(it.decode_tokens_per_second), "tokens/s".into());
        row("memory", &|it| bytes(it.bytes as u64), String::new());
        row("cache per token", &|it| bytes(it.cache_bytes_per_token as u64), String::new());
        if let (Some(kl), Some(top1)) = (self.kl, self.top1) {
            table.row(["KL divergence".to_string(), number(kl), String::new(), "nats per token, from float".into()]);
            let top1 = format!("{:.2} %", 100.0 * top1);
            table.row(["top-1 agreement".to_string(), top1, String::new(), "of tokens, with float".into()]);
        }
        table.fmt(f)?;

        let mut table = Table::new([Align::Left, Align::Right, Align::Right]);
        table.row(["weights held as", "layers", "bytes"]);
        for (format, held) in &model.weights {
            table.row([format.clone(), held.layers.to_string(), bytes(held.bytes as u64)]);
        }
        write!(f, "\n{table}")
    }
}
