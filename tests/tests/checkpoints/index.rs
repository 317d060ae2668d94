//! The index of a folder of checkpoints, and the tensors that its entries share.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};
use burn_quant_checkpoint::{Dtype, Folder, FolderWriter, Tensor as Stored};
use serde::Deserialize;
use serde_json::Value;
use tempfile::TempDir;

/// What an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    HfFloat,
    ModeloptExport,
    CompressedTensors,
    Gguf,
}

#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Entry {
    pub(crate) id: String,
    pub(crate) kind: Kind,
    pub(crate) path: String,
    pub(crate) model: String,
    pub(crate) reference: Option<String>,
    #[serde(default)]
    pub(crate) tol: BTreeMap<String, Value>,
    #[serde(flatten)]
    pub(crate) more: BTreeMap<String, Value>,
}

impl Entry {
    /// A tolerance that is a number, or a power of two in words.
    pub(crate) fn tolerance(&self, name: &str) -> Option<f64> {
        match self.tol.get(name)? {
            Value::Number(number) => number.as_f64(),
            Value::String(text) => match text.strip_prefix("rel ") {
                Some(text) => match text.strip_prefix("2^") {
                    Some(exponent) => exponent.parse::<i32>().ok().map(|e| 2.0f64.powi(e)),
                    None => text.parse().ok(),
                },
                None => (text == "bytes").then_some(0.0),
            },
            _ => None,
        }
    }
}

#[derive(Deserialize)]
struct Index {
    entries: Vec<Entry>,
}

pub(crate) struct Checkpoints {
    root: PathBuf,
    entries: Vec<Entry>,
}

/// Tensors by name.
pub(crate) type Tensors = BTreeMap<String, Stored>;

impl Checkpoints {
    pub(crate) fn open(root: &Path) -> Self {
        let text = std::fs::read_to_string(root.join("index.json"))
            .unwrap_or_else(|e| panic!("{}: {e}", root.join("index.json").display()));
        let index: Index = serde_json::from_str(&text).expect("the index has the form of the reference");
        Self { root: root.into(), entries: index.entries }
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    pub(crate) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// A folder with the tensors that it leaves to others, as an ordinary one.
    pub(crate) fn folder(&self, path: &str) -> (TempDir, Folder) {
        let place = tempfile::tempdir().expect("a temporary folder");
        let from = self.path(path);
        let out = place.path().join("folder");
        let mut writer = FolderWriter::create(&out).expect("a folder in a temporary one");
        let config = std::fs::read(from.join("config.json")).expect("a configuration");
        writer.file("config.json", &config).expect("a file");
        if let Ok(config) = std::fs::read(from.join("hf_quant_config.json")) {
            writer.file("hf_quant_config.json", &config).expect("a file");
        }
        for (name, tensor) in self.shared(&from) {
            writer.tensor(name, tensor).expect("a tensor");
        }
        writer.copy_others(&from).expect("files");
        writer.finish().expect("a folder");
        let folder = Folder::open(&out).expect("what was written is read");
        (place, folder)
    }

    /// All tensors of a folder, those that `shared.json` leaves to others too.
    fn shared(&self, from: &Path) -> Tensors {
        let mut tensors = read_file(&from.join("model.safetensors"));
        if let Ok(text) = std::fs::read_to_string(from.join("shared.json")) {
            let shared: Value = serde_json::from_str(&text).expect("shared.json");
            let mut files: BTreeMap<String, Tensors> = BTreeMap::new();
            for (name, file) in shared["tensors"].as_object().expect("an object") {
                let file = file.as_str().expect("a file");
                let of_file = files.entry(file.into()).or_insert_with(|| read_file(&from.join(file)));
                tensors.insert(name.clone(), of_file[name].clone());
            }
        }
        tensors
    }

    pub(crate) fn file(&self, path: &str) -> Tensors {
        read_file(&self.path(path))
    }

    /// The batches of calibration, in their order.
    pub(crate) fn calibration(&self, device: &Device) -> Vec<Tensor<2, Int>> {
        let tensors = self.file("calib.safetensors");
        let batches = (0..).map_while(|i| tensors.get(&format!("batch{i}")));
        batches.map(|batch| tokens(batch, device)).collect()
    }

    pub(crate) fn evaluation(&self, device: &Device) -> Tensor<2, Int> {
        tokens(&self.file("calib.safetensors")["input_ids"], device)
    }
}

fn tokens(batch: &Stored, device: &Device) -> Tensor<2, Int> {
    let values: Vec<i64> = batch.to_i64("tokens").expect("tokens are integers");
    Tensor::from_data(TensorData::new(values, [batch.shape()[0], batch.shape()[1]]), device)
}

fn read_file(path: &Path) -> Tensors {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let file = safetensors::SafeTensors::deserialize(&bytes).expect("a safetensors file");
    let tensors = file.iter().map(|(name, view)| {
        let dtype = match view.dtype() {
            safetensors::Dtype::F32 => Dtype::F32,
            safetensors::Dtype::BF16 => Dtype::BF16,
            safetensors::Dtype::F16 => Dtype::F16,
            safetensors::Dtype::F8_E4M3 => Dtype::F8E4M3,
            safetensors::Dtype::U8 => Dtype::U8,
            safetensors::Dtype::I8 => Dtype::I8,
            safetensors::Dtype::I32 => Dtype::I32,
            safetensors::Dtype::I64 => Dtype::I64,
            other => panic!("{}: `{name}` has the type {other:?}", path.display()),
        };
        (name.to_string(), Stored::new(dtype, view.shape().to_vec(), view.data().to_vec()))
    });
    tensors.collect()
}

/// The relative distance of two lists, by the Frobenius norm; NaN is infinitely far away.
pub(crate) fn distance(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len(), "as many numbers");
    let square = |x: f64| x * x;
    let difference: f64 = found.iter().zip(expected).map(|(a, b)| square(f64::from(*a) - f64::from(*b))).sum();
    let norm: f64 = expected.iter().map(|b| square(f64::from(*b))).sum();
    let distance = (difference / norm.max(f64::MIN_POSITIVE)).sqrt();
    if distance.is_nan() { f64::INFINITY } else { distance }
}
