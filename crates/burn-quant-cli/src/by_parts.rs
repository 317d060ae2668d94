//! `--memory`: a model that needs more is quantized layer by layer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::Device;
use burn_quant::{Algorithm, QuantConfig};
use burn_quant_checkpoint::Folder;
use burn_quant_checkpoint::gguf::HalfScales;
use burn_quant_llm::{ByParts, Decoder, Export, LlmError, PartProgress, QuantizedParts};
use burn_quant_store::save;

use crate::arguments::{ExportFormat, QuantizeOptions};
use crate::error::CliError;
use crate::model::{RECORD, folder_of_record};
use crate::output::Output;

/// The program, its buffers, the tokenizer, and what allocators keep.
const BASE: u64 = 96 << 20;

/// Bytes of a file of tensors, at most.
const SHARD: usize = 5_000_000_000;

/// Bytes of the parameters of a folder in f32, and what the solver of a recipe takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// All of them.
    whole: u64,
    /// The largest part: a layer, the embeddings, or the head.
    part: u64,
    /// The most inputs of a matrix.
    inputs: u64,
    /// Elements of the largest matrix, tables of a row for each token aside.
    matrix: u64,
    /// What the solver takes for the largest matrix, in f64.
    solver: u64,
}

impl Sizes {
    pub(crate) fn of(folder: &Folder) -> Self {
        let (mut parts, mut sizes): (BTreeMap<&str, u64>, _) = (BTreeMap::new(), Self::default());
        for (name, info) in folder.names().filter_map(|name| Some((name, folder.info(name)?))) {
            let elements = info.shape.iter().product::<usize>() as u64;
            *parts.entry(part_of(name)).or_default() += 4 * elements;
            if let ([_, inputs], true) = (info.shape.as_slice(), part_of(name) != name) {
                sizes.inputs = sizes.inputs.max(*inputs as u64);
                sizes.matrix = sizes.matrix.max(elements);
            }
        }
        Self { whole: parts.values().sum(), part: parts.values().copied().max().unwrap_or_default(), ..sizes }
    }

    /// Counts what the solver of an algorithm takes, as
    /// [`with_memory_budget`](burn_quant::calibrate::QuantizeOptions::with_memory_budget) has it.
    pub(crate) fn solved_by(self, algorithm: &Algorithm) -> Self {
        let solver = match algorithm {
            Algorithm::Gptq { .. } => 20 * self.inputs.pow(2) + 8 * self.matrix,
            Algorithm::SvdQuant { .. } => 24 * self.matrix,
            Algorithm::ForLayers { algorithm, .. } => self.solved_by(algorithm).solver,
            Algorithm::Sequence(steps) => steps.iter().map(|step| self.solved_by(step).solver).max().unwrap_or(0),
            _ => 0,
        };
        Self { solver, ..self }
    }

    pub(crate) fn parameters(self) -> usize {
        (self.whole / 4) as usize
    }

    /// What quantizing the whole model takes: the model, what is collected or written of it, and what one layer needs
    /// beside them.
    pub(crate) fn of_whole(self) -> u64 {
        BASE + 2 * self.whole + 3 * self.part + self.solver
    }

    /// Gram matrices of the whole model that are there at a time: they are gone before anything is written.
    pub(crate) fn grams_of_whole(self) -> usize {
        usize::try_from(self.whole).unwrap_or(usize::MAX)
    }

    /// What quantizing part by part takes.
    pub(crate) fn of_parts(self) -> u64 {
        BASE + 4 * self.part + self.solver
    }
}

/// The part that a tensor belongs to.
fn part_of(name: &str) -> &str {
    let rest = name.strip_prefix("model.layers.").unwrap_or_default();
    match rest.find('.') {
        Some(end) => &name[..name.len() - rest.len() + end],
        None => name,
    }
}

/// Where the work is kept meanwhile.
pub(crate) fn work(options: &QuantizeOptions) -> PathBuf {
    options.work.clone().unwrap_or_else(|| {
        let mut name = options.out.file_name().unwrap_or_default().to_os_string();
        name.push(".work");
        options.out.with_file_name(name)
    })
}

/// Refuses less memory than one part takes.
pub(crate) fn check(sizes: Sizes, limit: u64) -> Result<(), CliError> {
    match sizes.of_parts() <= limit {
        true => Ok(()),
        false => Err(CliError::Memory { needed: sizes.of_parts(), limit }),
    }
}

/// Quantizes part by part.
pub(crate) fn quantized(
    options: &QuantizeOptions,
    folder: &Folder,
    config: &QuantConfig,
    windows: Option<&[Vec<u32>]>,
    (sizes, limit): (Sizes, u64),
    device: &Device,
    output: &Output,
) -> Result<QuantizedParts, CliError> {
    let work = work(options);
    let bar = output.bar(0, "layers");
    let listener = |progress| match progress {
        PartProgress::Resumed { done, of } => {
            output.note(format!("going on in `{}`: {done} of {of} parts are done", work.display()));
            bar.set_length(of as u64);
            bar.set_position(done as u64);
            bar.reset_eta();
        }
        PartProgress::Begun { place } => bar.set_message(format!("quantizing {place}")),
        PartProgress::Done { done, of } => {
            bar.set_length(of as u64);
            bar.set_position(done as u64);
        }
        _ => {}
    };
    let sums = (limit - sizes.of_parts()) / 2 + sizes.part / 2;
    let mut run = ByParts::new(folder, config, &work).with_progress(listener);
    run = run.with_memory_budget(usize::try_from(sums).unwrap_or(usize::MAX));
    if let Some(windows) = windows {
        run = run.with_windows(windows);
    }
    let result = run.quantize(device);
    bar.finish_and_clear();
    result.map_err(|error| match error {
        LlmError::Quantize(error) => CliError::of_recipe(error, options.recipe_name(), &options.folder),
        other => CliError::of_model(&options.folder, "quantized")(other),
    })
}

/// Writes what was quantized, and returns what rounding the scales of a GGUF file changes.
pub(crate) fn write(
    parts: &QuantizedParts,
    folder: &Folder,
    out: &Path,
    options: &QuantizeOptions,
) -> Result<Option<HalfScales>, CliError> {
    let mut export = Export::new(folder, out);
    if let Some(limit) = options.memory.and_then(|limit| usize::try_from(limit / 4).ok()) {
        export = export.with_shard_bytes(limit.min(SHARD));
    }
    let written = match options.format {
        ExportFormat::Modelopt => export.modelopt(parts).map(|_| None),
        ExportFormat::CompressedTensors => export.compressed_tensors(parts).map(|_| None),
        ExportFormat::Gguf => export.gguf(parts).map(Some),
        ExportFormat::Burnpack => {
            folder_of_record(folder, out).map_err(LlmError::from).map_err(CliError::of_model(out, "written"))?;
            let decoder = parts.packed().map_err(CliError::of_model(out, "written"))?;
            save(&decoder, out.join(RECORD)).map(|()| None).map_err(LlmError::from)
        }
    };
    written.map_err(CliError::of_model(out, "written"))
}

/// Linear layers by the format of their weights.
pub(crate) fn layers(parts: &QuantizedParts) -> BTreeMap<String, usize> {
    let mut layers = BTreeMap::new();
    for format in parts.formats().values() {
        *layers.entry(format.clone().unwrap_or("float".into())).or_insert(0) += 1;
    }
    layers
}

/// A decoder of a folder whose parameters take no memory.
pub(crate) fn skeleton(folder: &Folder, device: &Device) -> Result<Decoder, LlmError> {
    Ok(Decoder::new(burn_quant_llm::DecoderConfig::of_json(folder.config())?, device))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_solvers_take_is_counted_for_the_largest_matrix() {
        let sizes = Sizes { inputs: 1536, matrix: 576 * 1536, ..Sizes::default() };
        let gptq = 20 * 1536 * 1536 + 8 * 576 * 1536;
        assert_eq!(sizes.solved_by(&Algorithm::awq_lite()).solver, 0);
        assert_eq!(sizes.solved_by(&Algorithm::gptq()).solver, gptq);
        let layers = Algorithm::ForLayers { layers: vec!["*".into()], algorithm: Box::new(Algorithm::gptq()) };
        let steps = Algorithm::Sequence(vec![Algorithm::svdquant(32), layers]);
        assert_eq!(sizes.solved_by(&steps).solver, gptq);
        assert_eq!(sizes.solved_by(&steps).of_parts(), sizes.of_parts() + gptq);
    }

    #[test]
    fn tensors_belong_to_layers_or_to_themselves() {
        let names = ["model.layers.10.mlp.up_proj.weight", "model.embed_tokens.weight", "lm_head.weight"];
        assert_eq!(names.map(part_of), ["model.layers.10", "model.embed_tokens.weight", "lm_head.weight"]);
    }
}
