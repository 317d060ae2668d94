//! `burn-quant inspect`: what a checkpoint holds, without a model.
//!
//! * `folder` layers of safetensors, by the types and shapes of their tensors
//! * `gguf` tensors of GGUF files
//! * `scales` scales that look wrong

mod folder;
mod gguf;
mod scales;

use std::collections::BTreeMap;

use burn_quant_checkpoint::{CheckpointError, Folder};
use serde::Serialize;

use crate::arguments::InspectOptions;
use crate::error::CliError;
use crate::model::{RECORD, is_gguf, name};
use crate::output::Output;
use crate::table::{Align, Table};
use crate::units::{bytes, count, number, plural};

/// What a checkpoint holds.
#[derive(Debug, Serialize)]
struct Checkpoint {
    name: String,
    /// Who quantized it, and how.
    quantization: String,
    parts: Vec<Part>,
    elements: u64,
    bytes: u64,
    /// Bits of an element, with all scales.
    bits: f64,
    suspicious: Vec<Suspicion>,
    #[serde(skip)]
    grouped: bool,
}

/// A layer, or a tensor of its own.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Part {
    name: String,
    format: String,
    /// Of its weight, slowest axis first.
    shape: Vec<usize>,
    /// Elements of its weight.
    elements: u64,
    /// Bits of an element, with the scales of the weight.
    bits: f64,
    /// Bytes of all of its tensors.
    bytes: u64,
}

/// A scale that looks wrong.
#[derive(Clone, Debug, PartialEq, Serialize)]
struct Suspicion {
    tensor: String,
    problem: String,
}

/// Inspects a folder or a file.
pub(crate) fn run(options: &InspectOptions, output: &Output) -> Result<(), CliError> {
    let path = &options.path;
    let failed = |source: CheckpointError| CliError::of_model(path, "read")(source.into());
    let spinner = output.spinner(&format!("reading {}", path.display()));
    let extension = path.extension().and_then(|extension| extension.to_str());
    let (quantization, parts, suspicious) = match extension {
        _ if path.join(RECORD).is_file() => {
            let (found, expected) =
                ("a folder with a burnpack", "a folder of a checkpoint; `eval` shows what it holds");
            return Err(CliError::Kind { path: path.clone(), found, expected });
        }
        _ if path.is_dir() || !path.exists() => folder::read(&Folder::open(path).map_err(failed)?),
        Some("safetensors") => folder::read(&Folder::of_file(path).map_err(failed)?),
        _ if is_gguf(path) => gguf::read(path),
        _ => {
            let expected = "a folder, a .safetensors file or a .gguf file";
            return Err(CliError::Kind { path: path.clone(), found: "another file", expected });
        }
    }
    .map_err(failed)?;
    spinner.finish_and_clear();
    let (elements, bytes) = (parts.iter().map(|part| part.elements).sum(), parts.iter().map(|part| part.bytes).sum());
    let checkpoint = Checkpoint {
        name: name(path),
        quantization,
        parts,
        elements,
        bytes,
        bits: 8.0 * bytes as f64 / elements.max(1) as f64,
        suspicious,
        grouped: !options.layers,
    };
    output.result(&checkpoint, || checkpoint.to_string());
    Ok(())
}

type Read = (String, Vec<Part>, Vec<Suspicion>);

/// Parts whose names differ in numbers only, and that are stored alike, as one: their number, and their bytes together.
fn grouped(parts: &[Part]) -> Vec<(usize, Part)> {
    let mut places: BTreeMap<(String, &str, &[usize]), usize> = BTreeMap::new();
    let mut groups: Vec<(usize, Part)> = Vec::new();
    for part in parts {
        let numberless = |word: &str| if word.parse::<u64>().is_ok() { "*".to_string() } else { word.to_string() };
        let name = part.name.split('.').map(numberless).collect::<Vec<_>>().join(".");
        let place = *places.entry((name.clone(), &part.format, &part.shape)).or_insert(groups.len());
        match groups.get_mut(place) {
            Some((n, group)) => {
                let (bytes, elements) = (group.bytes + part.bytes, group.elements + part.elements);
                (*n, *group) = (*n + 1, Part { name, bytes, elements, ..group.clone() });
            }
            None => groups.push((1, part.clone())), // one alone keeps its name
        }
    }
    groups
}

/// Names that are longer are cut in the middle of a table.
const LONGEST: usize = 32;

fn short(name: &str) -> String {
    let n = name.chars().count();
    if n <= LONGEST {
        name.to_string()
    } else {
        format!("…{}", name.chars().skip(n + 1 - LONGEST).collect::<String>())
    }
}

impl std::fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        writeln!(f, "{}: {}\n", self.name, self.quantization)?;
        let rows = match self.grouped {
            true => grouped(&self.parts),
            false => self.parts.iter().map(|part| (1, part.clone())).collect(),
        };
        use Align::{Left, Right};
        let mut table = Table::new([Left, Right, Left, Right, Right, Right]);
        table.row(["layer", "n", "format", "shape", "bits", "bytes"]);
        for (n, part) in rows {
            let shape: Vec<String> = part.shape.iter().map(usize::to_string).collect();
            let cells =
                [short(&part.name), n.to_string(), part.format, shape.join("x"), number(part.bits), bytes(part.bytes)];
            table.row(cells);
        }
        let total = [
            "total".to_string(),
            self.parts.len().to_string(),
            format!("{} weights", count(self.elements)),
            String::new(),
        ];
        table.row(total.into_iter().chain([number(self.bits), bytes(self.bytes)]));
        writeln!(f, "{table}")?;
        match self.suspicious.as_slice() {
            [] => write!(f, "no scale looks wrong"),
            found => {
                writeln!(f, "{} look wrong:", plural(found.len(), "tensor"))?;
                found.iter().try_for_each(|Suspicion { tensor, problem }| writeln!(f, "  {tensor}: {problem}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(name: &str, format: &str, bytes: u64) -> Part {
        Part { name: name.into(), format: format.into(), shape: vec![2, 4], elements: 8, bits: bytes as f64, bytes }
    }

    #[test]
    fn layers_of_a_kind_are_one_line_and_a_single_one_keeps_its_name() {
        let parts =
            [part("h.0.q", "NVFP4", 5), part("h.0.k", "NVFP4", 5), part("h.1.q", "NVFP4", 5), part("h.1.k", "FP8", 9)];
        let names: Vec<(usize, String, u64)> =
            grouped(&parts).into_iter().map(|(n, part)| (n, part.name, part.bytes)).collect();
        assert_eq!(names, [(2, "h.*.q".into(), 10), (1, "h.0.k".into(), 5), (1, "h.1.k".into(), 9)]);
    }

    #[test]
    fn a_long_name_keeps_its_end() {
        let name = "model.vision_tower.encoder.layers.*.self_attn.q_proj";
        assert_eq!(short(name).chars().count(), LONGEST);
        assert!(short(name).ends_with("self_attn.q_proj") && short("lm_head") == "lm_head");
    }
}
