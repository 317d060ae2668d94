//! The index, the tensors, and how they are compared.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::OnceLock;

use burn::tensor::{DType, Device, Int, Tensor, TensorData};
pub(crate) use burn_quant_tests::compare::{close, relative_error as frobenius, within};
use safetensors::tensor::{Metadata, TensorView};
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use serde_json::Value;

/// What became of a case.
pub(crate) enum Outcome {
    Passed,
    Failed(String),
    /// It needs something that is not there yet.
    NotYet(String),
}

impl From<Result<(), String>> for Outcome {
    fn from(result: Result<(), String>) -> Self {
        result.map_or_else(Outcome::Failed, |()| Outcome::Passed)
    }
}

#[derive(Deserialize)]
struct Index {
    format_version: u32,
    #[serde(default)]
    set: String,
    reference: Value,
    num_cases: usize,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
pub(crate) struct Case {
    pub(crate) name: String,
    pub(crate) group: String,
    file: String,
    pub(crate) config: Value,
    #[serde(default)]
    inputs: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) expected: BTreeMap<String, String>,
    #[serde(flatten)]
    pub(crate) other: BTreeMap<String, Value>,
}

impl Case {
    pub(crate) fn input(&self, name: &str) -> &str {
        self.inputs.get(name).unwrap_or_else(|| panic!("{}: no input `{name}`", self.name))
    }

    /// The inputs whose name starts with a prefix and ends with a number, in its order.
    pub(crate) fn numbered_inputs(&self, prefix: &str) -> Vec<&str> {
        let number = |name: &str| name.strip_prefix(prefix)?.parse::<usize>().ok();
        let mut found: Vec<(usize, &str)> =
            self.inputs.iter().filter_map(|(name, key)| Some((number(name)?, key.as_str()))).collect();
        found.sort();
        found.into_iter().map(|(_, key)| key).collect()
    }

    /// An error if the case expects something of a kind that is not compared: what stands before the first `/` of its
    /// name.
    pub(crate) fn expects_only(&self, kinds: &[&str]) -> Result<(), String> {
        let unknown = |name: &&String| !kinds.contains(&name.split('/').next().unwrap_or_default());
        match self.expected.keys().find(unknown) {
            Some(name) => Err(format!("`{name}` is expected, and nothing compares it")),
            None => Ok(()),
        }
    }

    /// A number of the case's tolerances.
    pub(crate) fn tolerance(&self, name: &str) -> Option<f64> {
        self.other.get("tol")?.get(name)?.as_f64()
    }
}

/// A safetensors file whose header is read once.
struct File {
    bytes: Vec<u8>,
    /// Where the tensors begin.
    start: usize,
    header: Metadata,
}

impl File {
    fn new(bytes: Vec<u8>) -> Self {
        let (header_len, header) = SafeTensors::read_metadata(&bytes).expect("a safetensors file");
        Self { start: size_of::<u64>() + header_len, bytes, header }
    }
}

pub(crate) struct Golden {
    index: Index,
    files: BTreeMap<String, File>,
    /// Of the transformer, once it is known.
    pub(crate) heads: OnceLock<usize>,
}

impl Golden {
    pub(crate) fn open(folder: &Path) -> Self {
        let read = |name: &str| {
            let path = folder.join(name);
            std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        };
        let index: Index = serde_json::from_slice(&read("index.json")).expect("index.json has the documented form");
        assert_eq!(index.format_version, 1, "index.json has a format this runner knows");
        assert_eq!(index.num_cases, index.cases.len(), "index.json lists as many cases as it says");
        let mut files = BTreeMap::new();
        for case in &index.cases {
            files.entry(case.file.clone()).or_insert_with(|| File::new(read(&case.file)));
        }
        Self { index, files, heads: OnceLock::new() }
    }

    /// A folder in memory whose cases share one file.
    pub(crate) fn of(index: Value, tensors: &[(String, TensorData)]) -> Self {
        let index: Index = serde_json::from_value(index).expect("an index of the documented form");
        let views = tensors.iter().map(|(name, data)| {
            (name, TensorView::new(Dtype::F32, data.shape().to_vec(), data.as_bytes()).expect("f32 values"))
        });
        let bytes = safetensors::serialize(views, None).expect("a safetensors file");
        let files = index.cases.iter().map(|case| (case.file.clone(), File::new(bytes.clone()))).collect();
        Self { index, files, heads: OnceLock::new() }
    }

    /// The name of the set: `public` is the one of this repository.
    pub(crate) fn set(&self) -> &str {
        &self.index.set
    }

    pub(crate) fn cases(&self) -> &[Case] {
        &self.index.cases
    }

    /// The case of the same model without quantization.
    pub(crate) fn float_of(&self, case: &Case) -> &Case {
        let float = |other: &&Case| other.group == case.group && other.name.ends_with("_float");
        self.cases().iter().find(float).unwrap_or_else(|| panic!("{}: a case without quantization", case.group))
    }

    pub(crate) fn reference(&self) -> String {
        let text = |key: &str| self.index.reference[key].as_str().unwrap_or("?").to_string();
        format!("{} {}", text("package"), text("version"))
    }

    /// A tensor's shape, dtype and bytes.
    pub(crate) fn data(&self, case: &Case, key: &str) -> TensorData {
        let File { bytes, start, header } = &self.files[&case.file];
        let info = header.info(key).unwrap_or_else(|| panic!("{}: no tensor `{key}`", case.name));
        let dtype = match info.dtype {
            Dtype::F32 => DType::F32,
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::I32 => DType::I32,
            Dtype::U8 => DType::U8,
            Dtype::I8 => DType::I8,
            other => panic!("{key}: unexpected dtype {other:?}"),
        };
        let (from, to) = info.data_offsets;
        TensorData::from_bytes_vec(bytes[start + from..start + to].to_vec(), info.shape.clone(), dtype)
    }

    /// The names of tensors of the case's file that start with a prefix, without it.
    pub(crate) fn names(&self, case: &Case, prefix: &str) -> Vec<String> {
        let names = self.files[&case.file].header.offset_keys();
        let mut names: Vec<String> =
            names.iter().filter_map(|name| name.strip_prefix(prefix)).map(String::from).collect();
        names.sort();
        names
    }

    /// A float tensor, in its own dtype.
    pub(crate) fn tensor<const D: usize>(&self, case: &Case, key: &str, device: &Device) -> Tensor<D> {
        let data = self.data(case, key);
        let dtype = data.dtype();
        Tensor::from_data(data, (device, dtype))
    }

    pub(crate) fn ints(&self, case: &Case, key: &str, device: &Device) -> Tensor<1, Int> {
        Tensor::from_data(self.data(case, key), device)
    }

    /// Values, widened to f32.
    pub(crate) fn values(&self, case: &Case, key: &str) -> Vec<f32> {
        self.data(case, key).convert::<f32>().try_into_vec().expect("f32 values")
    }
}

/// Values of a tensor, widened to f32.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().convert::<f32>().try_into_vec().expect("f32 values")
}

/// Equal bit for bit, but for the sign of zero.
pub(crate) fn bitwise(what: &str, found: &[f32], expected: &[f32]) -> Result<(), String> {
    if found.len() != expected.len() {
        return Err(format!("{what}: {} values, expected {}", found.len(), expected.len()));
    }
    let differs = |(f, e): (&f32, &f32)| f != e && f.to_bits() != e.to_bits();
    let wrong: Vec<usize> = (0..found.len()).filter(|&i| differs((&found[i], &expected[i]))).collect();
    match wrong.first() {
        None => Ok(()),
        Some(&i) => {
            let (f, e) = (found[i], expected[i]);
            Err(format!(
                "{what}: {} of {} values differ, first at {i}: {f:e}, expected {e:e}",
                wrong.len(),
                found.len()
            ))
        }
    }
}
