//! Hugging Face folders: `config.json`, and tensors in one or many safetensors files.
//!
//! * `write` folders that appear when they are complete

mod write;

pub use write::FolderWriter;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use safetensors::tensor::Metadata;
use serde_json::Value;

use crate::error::near_misses;
use crate::{CheckpointError, Dtype, Tensor};

/// Where a tensor is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// The type of its elements.
    pub dtype: Dtype,
    /// Its shape.
    pub shape: Vec<usize>,
    file: usize,
    /// Where its bytes begin in the file.
    at: u64,
}

/// A Hugging Face folder: names, types and shapes are read when it is opened, tensors when they are asked for.
///
/// No tensor is kept, so that a model larger than memory can be read layer by layer.
///
/// # Example
///
/// ```no_run
/// use burn_quant_checkpoint::Folder;
///
/// let folder = Folder::open("SmolLM2-135M")?;
/// println!("{} tensors of a {}", folder.names().count(), folder.config()["model_type"]);
/// let norm = folder.tensor("model.norm.weight")?.to_f32("model.norm.weight")?;
/// # Ok::<(), burn_quant_checkpoint::CheckpointError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Folder {
    path: PathBuf,
    config: Value,
    files: Vec<String>,
    /// The files themselves, of a folder that is in memory.
    contents: Option<Arc<Vec<Vec<u8>>>>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl TensorInfo {
    /// Returns the number of its elements.
    ///
    /// The product of its shape.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// Returns the number of its bytes in the file.
    ///
    /// Its elements times the bytes of one.
    pub fn bytes(&self) -> usize {
        self.elements() * self.dtype.size()
    }
}

impl Folder {
    /// Opens a folder: reads `config.json` and the headers of its safetensors files.
    ///
    /// The files are those of `model.safetensors.index.json`, or all whose names begin with `model`, or else all.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`] with the file that is missing, cut off or not what it should be.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, CheckpointError> {
        let path = path.into();
        let config = read_json(&path.join("config.json"))?;
        let files = weight_files(&path)?;
        let mut tensors: BTreeMap<String, TensorInfo> = BTreeMap::new();
        for (i, file) in files.iter().enumerate() {
            let at = path.join(file);
            let io = |source| CheckpointError::Io { path: at.clone(), source };
            let opened = File::open(&at).map_err(io)?;
            let len = opened.metadata().map_err(io)?.len();
            add(&mut tensors, header(opened, len, file, i)?, &files)?;
        }
        Ok(Self { path, config, files, contents: None, tensors })
    }

    /// Reads a folder that is in memory: `config.json`, and safetensors files with their names.
    ///
    /// # Errors
    ///
    /// Those of [`Folder::open`], but for files that cannot be read.
    pub fn parse(config: Value, files: Vec<(String, Vec<u8>)>) -> Result<Self, CheckpointError> {
        let (files, contents): (Vec<String>, Vec<Vec<u8>>) = files.into_iter().unzip();
        let mut tensors: BTreeMap<String, TensorInfo> = BTreeMap::new();
        for (i, (file, content)) in files.iter().zip(&contents).enumerate() {
            add(&mut tensors, header(&content[..], content.len() as u64, file, i)?, &files)?;
        }
        Ok(Self { path: PathBuf::new(), config, files, contents: Some(Arc::new(contents)), tensors })
    }

    /// Opens a single safetensors file, as a folder without a configuration.
    ///
    /// # Errors
    ///
    /// [`CheckpointError`] if the file is missing, cut off or not what it should be.
    pub fn of_file(path: impl AsRef<Path>) -> Result<Self, CheckpointError> {
        let path = path.as_ref();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let io = |source| CheckpointError::Io { path: path.into(), source };
        let opened = File::open(path).map_err(io)?;
        let len = opened.metadata().map_err(io)?.len();
        let tensors = header(opened, len, &name, 0)?.into_iter().collect();
        let folder = path.parent().unwrap_or(Path::new("")).to_path_buf();
        Ok(Self { path: folder, config: Value::Null, files: vec![name], contents: None, tensors })
    }

    /// Returns where it is.
    ///
    /// As it was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns `config.json`.
    ///
    /// Keys are in the order of the file.
    pub fn config(&self) -> &Value {
        &self.config
    }

    /// Returns the names of its tensors, sorted.
    ///
    /// Those of all files.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Returns type and shape of a tensor, without reading it.
    ///
    /// `None` if there is none of this name.
    pub fn info(&self, name: &str) -> Option<&TensorInfo> {
        self.tensors.get(name)
    }

    /// Returns type and shape of all tensors, in the order of their names.
    ///
    /// Nothing is read.
    ///
    /// # Example
    ///
    /// ```no_run
    /// # use burn_quant_checkpoint::Folder;
    /// let folder = Folder::open("SmolLM2-135M")?;
    /// let bytes: usize = folder.infos().map(|info| info.bytes()).sum();
    /// # Ok::<(), burn_quant_checkpoint::CheckpointError>(())
    /// ```
    pub fn infos(&self) -> impl Iterator<Item = &TensorInfo> {
        self.tensors.values()
    }

    /// Returns whether there is a tensor of this name.
    ///
    /// Nothing is read.
    pub fn has(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Reads a tensor.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Missing`] with the most similar names, or [`CheckpointError::Io`].
    pub fn tensor(&self, name: &str) -> Result<Tensor, CheckpointError> {
        let info = self.tensors.get(name).ok_or_else(|| CheckpointError::Missing {
            name: name.into(),
            near_misses: near_misses(name, self.names()),
        })?;
        let len = info.bytes();
        if let Some(contents) = &self.contents {
            let at = info.at as usize;
            return Ok(Tensor::new(info.dtype, info.shape.clone(), contents[info.file][at..at + len].to_vec()));
        }
        let path = self.path.join(&self.files[info.file]);
        let io = |source| CheckpointError::Io { path: path.clone(), source };
        let mut file = File::open(&path).map_err(io)?;
        file.seek(SeekFrom::Start(info.at)).map_err(io)?;
        // the header was checked against the length of the file, so that this is no more than the file has
        let mut bytes = vec![0; len];
        file.read_exact(&mut bytes).map_err(io)?;
        Ok(Tensor::new(info.dtype, info.shape.clone(), bytes))
    }

    /// Reads a tensor, if there is one of this name.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Io`].
    pub fn find(&self, name: &str) -> Result<Option<Tensor>, CheckpointError> {
        if self.has(name) { self.tensor(name).map(Some) } else { Ok(None) }
    }

    /// Reads another JSON file of the folder, if it is there.
    ///
    /// # Errors
    ///
    /// [`CheckpointError::Json`] if it is no JSON, [`CheckpointError::Io`] if it cannot be read.
    pub fn json(&self, file: &str) -> Result<Option<Value>, CheckpointError> {
        if self.contents.is_some() {
            return Ok(None);
        }
        let path = self.path.join(file);
        if path.is_file() { read_json(&path).map(Some) } else { Ok(None) }
    }
}

/// The most bytes of a JSON file: that of a tokenizer has some ten million.
const LARGEST_JSON: u64 = 1 << 28;

fn read_json(path: &Path) -> Result<Value, CheckpointError> {
    let io = |source| CheckpointError::Io { path: path.into(), source };
    let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut bytes = Vec::new();
    File::open(path).map_err(io)?.take(LARGEST_JSON).read_to_end(&mut bytes).map_err(io)?;
    serde_json::from_slice(&bytes).map_err(|e| CheckpointError::Json { file, source: e.into() })
}

/// The files with weights, sorted.
fn weight_files(path: &Path) -> Result<Vec<String>, CheckpointError> {
    let index = path.join("model.safetensors.index.json");
    if index.is_file() {
        let json = read_json(&index)?;
        let Some(map) = json.get("weight_map").and_then(Value::as_object) else {
            return Err(CheckpointError::Value {
                key: "weight_map".into(),
                expected: "an object of tensors and files",
                found: json.get("weight_map").map_or("missing".into(), Value::to_string),
            });
        };
        let mut files = Vec::new();
        for (tensor, file) in map {
            // a name that leads out of the folder is none
            let file = file.as_str().filter(|file| !file.contains(['/', '\\']) && file.ends_with(".safetensors"));
            files.push(String::from(file.ok_or_else(|| CheckpointError::Value {
                key: format!("weight_map.{tensor}"),
                expected: "the name of a safetensors file",
                found: map[tensor].to_string(),
            })?));
        }
        files.sort();
        files.dedup();
        return Ok(files);
    }
    let io = |source| CheckpointError::Io { path: path.into(), source };
    let mut all = Vec::new();
    for entry in std::fs::read_dir(path).map_err(io)? {
        let name = entry.map_err(io)?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".safetensors") {
            all.push(name);
        }
    }
    all.sort();
    let models: Vec<String> = all.iter().filter(|name| name.starts_with("model")).cloned().collect();
    match (models.is_empty(), all.is_empty()) {
        (false, _) => Ok(models),
        (true, false) => Ok(all),
        (true, true) => Err(CheckpointError::NoWeights { folder: path.into() }),
    }
}

/// The largest header that the format allows, and the number before it.
const LARGEST_HEADER: u64 = 100_000_000 + 8;

/// Adds the tensors of a file to those of the files before.
fn add(
    tensors: &mut BTreeMap<String, TensorInfo>,
    more: Vec<(String, TensorInfo)>,
    files: &[String],
) -> Result<(), CheckpointError> {
    for (name, info) in more {
        let second = info.file;
        if let Some(first) = tensors.insert(name.clone(), info) {
            let (first, second) = (files[first.file].clone(), files[second].clone());
            return Err(CheckpointError::Twice { name, first, second });
        }
    }
    Ok(())
}

/// What the header of a safetensors file says, checked against the length of the file.
fn header(
    mut file: impl Read,
    len: u64,
    name: &str,
    index: usize,
) -> Result<Vec<(String, TensorInfo)>, CheckpointError> {
    let io = |source| CheckpointError::Io { path: name.into(), source };
    let truncated =
        |what: &str, at, wanted| CheckpointError::Truncated { file: name.into(), what: what.into(), len, at, wanted };
    if len < 8 {
        return Err(truncated("the length of the header", 0, 8));
    }
    let mut start = [0; 8];
    file.read_exact(&mut start).map_err(io)?;
    let wanted = u64::from_le_bytes(start);
    if wanted > len - 8 || wanted > LARGEST_HEADER {
        return Err(truncated("the header", 8, wanted));
    }
    let mut bytes = Vec::new();
    file.take(wanted).read_to_end(&mut bytes).map_err(io)?;
    let foreign =
        |source: Box<dyn std::error::Error + Send + Sync>| CheckpointError::Safetensors { file: name.into(), source };
    // checks that tensors lie one after the other, each as long as its shape says
    let metadata: Metadata = serde_json::from_slice(&bytes).map_err(|e| foreign(e.into()))?;
    let first = 8 + wanted;
    let mut tensors = Vec::new();
    for (tensor, info) in metadata.tensors() {
        let dtype = Dtype::of_safetensors(info.dtype)
            .ok_or_else(|| foreign(format!("`{tensor}` has the type {:?}", info.dtype).into()))?;
        let (begin, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
        if end > len - first {
            return Err(truncated(&tensor, first + begin, end - begin));
        }
        tensors.push((tensor, TensorInfo { dtype, shape: info.shape.clone(), file: index, at: first + begin }));
    }
    Ok(tensors)
}
