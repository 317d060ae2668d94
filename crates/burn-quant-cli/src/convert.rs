//! `burn-quant convert`: a GGUF file or a quantized folder becomes a folder in float, which everything else takes.

use burn_quant_checkpoint::gguf::GgufModel;
use burn_quant_checkpoint::{Dtype, Folder};
use burn_quant_llm::{LlmError, folder_of_gguf, folder_of_quantized};
use serde::Serialize;

use crate::arguments::{ConvertOptions, FloatType};
use crate::error::CliError;
use crate::model::name;
use crate::output::Output;
use crate::quantize::weight_bytes;
use crate::staging::Staging;
use crate::table::{Align, Table};
use crate::units::{bytes, count};

/// What was written.
#[derive(Debug, Serialize)]
struct Converted {
    model: String,
    parameters: u64,
    out: String,
    dtype: &'static str,
    /// Bytes of the weights in the source and in the result.
    source_bytes: u64,
    bytes: u64,
}

/// What is converted.
enum Source {
    Folder(Folder),
    Gguf(GgufModel),
}

/// Converts a folder or a file.
pub(crate) fn run(options: &ConvertOptions, output: &Output) -> Result<(), CliError> {
    Staging::check(&options.out)?;
    let failed = |what| move |source: LlmError| CliError::of_model(&options.source, what)(source);
    let (dtype, dtype_name) = match options.dtype {
        FloatType::F32 => (Dtype::F32, "f32"),
        FloatType::F16 => (Dtype::F16, "f16"),
        FloatType::Bf16 => (Dtype::BF16, "bf16"),
    };
    let source = match options.source.is_dir() {
        true => Source::Folder(Folder::open(&options.source).map_err(LlmError::from).map_err(failed("read"))?),
        false => Source::Gguf(GgufModel::open(&options.source).map_err(LlmError::from).map_err(failed("read"))?),
    };
    let spinner = output.spinner(&format!("writing {}", options.out.display()));
    let staging = Staging::begin(&options.out)?;
    let folder = match &source {
        Source::Folder(folder) => folder_of_quantized(folder, dtype, &staging.path()),
        Source::Gguf(gguf) => folder_of_gguf(gguf, dtype, &staging.path()),
    };
    let folder = folder.map_err(failed("converted"))?;
    let folder = Folder::open(&folder).map_err(LlmError::from).map_err(failed("converted"))?;
    let parameters: u64 = folder.infos().map(|info| info.elements() as u64).sum();
    staging.finish()?;
    spinner.finish_and_clear();
    let result = Converted {
        model: name(&options.source),
        parameters,
        out: options.out.display().to_string(),
        dtype: dtype_name,
        source_bytes: weight_bytes(&options.source).map_err(CliError::of_file(&options.source, "read"))?,
        bytes: parameters * dtype.size() as u64,
    };
    output.result(&result, || result.to_string());
    Ok(())
}

impl std::fmt::Display for Converted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut table = Table::new([Align::Left, Align::Left]);
        table.row(["model", &format!("{}: {} parameters", self.model, count(self.parameters))]);
        table.row(["weights", &format!("{}, of {}", bytes(self.bytes), bytes(self.source_bytes))]);
        table.row(["written", &format!("{} ({})", self.out, self.dtype)]);
        table.fmt(f)
    }
}
